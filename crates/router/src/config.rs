//! What a router is told: its settings, and what it is given to work with.

use std::{fmt, sync::Arc, time::Duration};

use tidings_broker::Broker;
use tidings_catalogue::Catalogue;
use tidings_registry::{KeysTopic, Registry};
use tidings_signing::KeyRing;
use tidings_types::{BoxFuture, Clock, Rng, Sabotage};

use crate::metrics::Metrics;

/// The settings of a router.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a router may be silent before its partitions go to others.
    pub session: Duration,
    /// About how much one read takes, in bytes: a batch of decisions.
    pub poll_bytes: usize,
    /// About how much is appended in one call, in bytes. What goes to very many
    /// webhooks is appended in pieces of this size.
    pub append_bytes: usize,
    /// The largest record that the broker takes, in bytes. An event whose decision
    /// would be larger is quarantined as `TOO_LARGE`.
    pub max_record_bytes: usize,
    /// Positions are committed after this many appended records…
    pub commit_records: u64,
    /// …and this often while there is something to commit (design §2).
    pub commit_interval: Duration,
    /// How often the list of topics is looked at for new ones, and the lag taken.
    pub topics_interval: Duration,
    /// The first and the longest wait before a failed step is tried again.
    pub backoff: (Duration, Duration),
    /// How long a shutdown or a handover waits for what is in flight.
    pub drain: Duration,
    /// Raised by an operator when a source topic was made anew, so that its events
    /// without a producer's id get other uids (design §4).
    pub source_epoch: u64,
    pub storm: StormRule,
    pub retention: Retentions,
}

/// When a topic's records are so bad that its schema must have changed
/// (contract §3): then mass quarantine would be loss in disguise.
#[derive(Clone, Copy, Debug)]
pub struct StormRule {
    /// At least this many bad records…
    pub records: u64,
    /// …and more than this share of all, in percent…
    pub percent: u64,
    /// …within this time. The time is counted in six steps.
    pub within: Duration,
    /// How long the topic is then left alone. Afterwards it goes on, and is paused
    /// again at the next storm; nothing is lost meanwhile.
    pub pause: Duration,
}

/// How long the topics that the router makes keep their records.
#[derive(Clone, Copy, Debug)]
pub struct Retentions {
    /// What history promises (design §2).
    pub routed: Duration,
    pub events: Duration,
    /// Event types with members that nobody may keep (107): a foreign producer
    /// writes them plain.
    pub ephemeral_events: Duration,
    pub quarantine: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Config {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(6),
            poll_bytes: 512 << 10,
            append_bytes: 2 << 20,
            max_record_bytes: (5 << 20) - (4 << 10),
            commit_records: 2_000,
            commit_interval: Duration::from_secs(1),
            topics_interval: Duration::from_secs(5),
            backoff: (Duration::from_millis(50), Duration::from_secs(2)),
            drain: Duration::from_secs(10),
            source_epoch: 0,
            storm: StormRule {
                records: 100,
                percent: 1,
                within: Duration::from_secs(60),
                pause: Duration::from_secs(60),
            },
            retention: Retentions {
                routed: 90 * DAY,
                events: 14 * DAY,
                ephemeral_events: DAY,
                quarantine: 30 * DAY,
            },
        }
    }
}

/// What a router is given.
#[derive(Clone, Debug)]
pub struct Deps {
    pub broker: Broker,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub registry: Registry,
    pub keyring: KeyRing,
    pub keys: KeysTopic,
    pub catalogue: Catalogue,
    pub metrics: Metrics,
    /// A rule to break; [`Sabotage::None`] outside of tests.
    pub sabotage: Sabotage,
    pub failpoints: Failpoints,
}

/// Steps at which a test stops or kills the router. Their names:
/// `router.before_group_poll`, `router.after_poll`,
/// `router.after_quarantine_before_routed`, `router.before_routed`,
/// `router.after_routed_before_deliveries`, `router.after_some_deliveries` (only
/// where there are deliveries to two webhooks), `router.after_deliveries_before_commit`,
/// `router.after_commit`.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Hook>);

/// Called with the name of a step. What it returns is waited for, so that a test
/// can hold the router there.
type Hook = Arc<dyn Fn(&'static str) -> Option<BoxFuture<'static, ()>> + Send + Sync>;

impl Failpoints {
    pub fn new(
        hook: impl Fn(&'static str) -> Option<BoxFuture<'static, ()>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn are_armed(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) async fn reach(&self, step: &'static str) {
        if let Some(hold) = self.0.as_ref().and_then(|hook| hook(step)) {
            hold.await;
        }
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failpoints(armed: {})", self.are_armed())
    }
}
