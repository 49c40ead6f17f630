//! What every handler has at hand.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tidings_auth::Verifier;
use tidings_broker::{AppendBatch, AppendError, Appended, Broker};
use tidings_catalogue::Catalogue;
use tidings_egress::Egress;
use tidings_eventlog::EventLog;
use tidings_registry::{KeysTopic, Registry, Snapshot};
use tidings_types::{Clock, Offset, Rng, Timestamp, TopicName, TopicPartition, WebhookId};
use tokio::sync::watch;

use crate::{
    commands,
    config::Config,
    errors::ApiError,
    fraud::FraudLog,
    heartbeat::Recent,
    metrics::Metrics,
    openapi::{self, Deployment},
    quotas::{Quotas, Resends},
    refusals::Refusals,
};

/// A log that cannot be reached for so long is away: the client is told to come again.
pub(crate) const APPEND_PATIENCE: Duration = Duration::from_secs(10);

/// Writes all metrics of the process in the Prometheus text format.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the API is built on.
pub struct Deps {
    pub broker: Broker,
    pub registry: Registry,
    pub keys: KeysTopic,
    pub catalogue: Catalogue,
    pub event_log: EventLog,
    /// For heartbeats.
    pub egress: Arc<Egress>,
    pub verifier: Verifier,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub metrics: Metrics,
    pub metrics_text: MetricsText,
    /// True once every service of the process has started.
    pub started: watch::Receiver<bool>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("event_log", &self.event_log).finish_non_exhaustive()
    }
}

/// Everything that handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) config: Arc<Config>,
    pub(crate) deps: Arc<Deps>,
    /// The description at `/openapi.json`.
    pub(crate) openapi: bytes::Bytes,
    /// Partitions of event topics, as they were last described. One entry for
    /// each event topic at most.
    partitions: Arc<RwLock<BTreeMap<TopicName, u32>>>,
    /// How far the history must have read for what this process wrote to show:
    /// one entry for each partition of `tidings.outcomes` at most.
    written: Arc<Mutex<BTreeMap<TopicPartition, Offset>>>,
    pub(crate) heartbeats: Arc<Recent>,
    /// Held by the tenants document that is being applied.
    pub(crate) tenants: Arc<tokio::sync::Mutex<()>>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) resends: Arc<Resends>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) fraud: Arc<FraudLog>,
}

impl State {
    pub fn new(config: Config, deps: Deps) -> Self {
        let openapi = openapi::document(Deployment {
            dev: config.dev,
            ladders: &config.ladders,
            min_timeout_ms: config.min_timeout_ms,
            catalogue: &deps.catalogue,
            url_policy: &config.url_policy,
        });
        Self {
            config: Arc::new(config),
            deps: Arc::new(deps),
            openapi: openapi.to_string().into(),
            partitions: Arc::default(),
            written: Arc::default(),
            heartbeats: Arc::default(),
            tenants: Arc::default(),
            quotas: Arc::default(),
            resends: Arc::default(),
            refusals: Arc::default(),
            fraud: Arc::default(),
        }
    }

    /// Appends, and waits no longer than a client would. What takes longer may still be
    /// written: its fate is unknown.
    pub(crate) async fn append(&self, batches: Vec<AppendBatch>) -> Vec<Appended> {
        let count = batches.len();
        tokio::select! {
            biased;
            results = self.deps.broker.append(batches) => results,
            () = self.deps.clock.sleep(APPEND_PATIENCE) => vec![Err(AppendError::Unknown); count],
        }
    }

    /// Decides by the registry as it is folded here. A refusal is decided again at the
    /// registry's end: another process may have changed what it is about just now.
    ///
    /// # Errors
    /// What `decide` refuses; 503 if the end cannot be read, for then nobody knows.
    pub(crate) async fn decide<T>(
        &self,
        decide: impl Fn(&Arc<Snapshot>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let registry = &self.deps.registry;
        let snapshot = registry.snapshot();
        let refusal = match decide(&snapshot) {
            Ok(decided) => return Ok(decided),
            Err(refusal) => refusal,
        };
        let end = self.registry_end().await?;
        if end.version == snapshot.version { Err(refusal) } else { decide(&end) }
    }

    /// The registry with all that stands in its topic now.
    ///
    /// # Errors
    /// 503 if it cannot be read to its end.
    pub(crate) async fn registry_end(&self) -> Result<Arc<Snapshot>, ApiError> {
        self.deps.registry.fold_to_end().await.map_err(|_error| commands::unavailable())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.deps.rng.fill(&mut bytes);
        bytes
    }

    pub(crate) fn new_webhook_id(&self) -> WebhookId {
        WebhookId::from_random(self.random())
    }

    /// The number of partitions of an event topic; `None` if there is no such topic.
    pub(crate) async fn event_partitions(
        &self,
        topic: &TopicName,
    ) -> Result<Option<u32>, tidings_broker::TopicError> {
        if let Some(count) = self.partitions.read().get(topic) {
            return Ok(Some(*count));
        }
        match self.deps.broker.describe(topic).await {
            Ok(description) => {
                self.partitions.write().insert(topic.clone(), description.partitions);
                Ok(Some(description.partitions))
            }
            Err(tidings_broker::TopicError::Unknown(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes that the history must have read up to `next` of a partition.
    pub(crate) fn note_written(&self, of: TopicPartition, next: Offset) {
        let mut written = self.written.lock();
        let known = written.entry(of).or_default();
        *known = next.max(*known);
    }

    /// What the history must have read for everything written here to show.
    pub(crate) fn written(&self) -> Vec<(TopicPartition, Offset)> {
        let positions = self.deps.event_log.positions();
        let mut written = self.written.lock();
        written.retain(|of, next| positions.get(of).is_none_or(|at| at < next));
        written.iter().map(|(of, next)| (of.clone(), *next)).collect()
    }
}
