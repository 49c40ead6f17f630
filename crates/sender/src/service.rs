//! The loop that owns all state of a sender.
//!
//! One task. A turn gives ready webhooks their turn, starts attempts as futures,
//! hands gathered facts to the log, and cuts checkpoints; then it waits for the
//! first of: a change of the group, an acknowledged flush or write, a finished
//! takeover, records, a finished attempt, a change of the registry, a timer.
//!
//! What one healthy delivery costs here, beside the endpoint's own time:
//!
//! - *Broker requests*: a share of one read (a poll returns up to `fetch_bytes`),
//!   a share of one append to `tidings.outcomes` (all facts that gathered while
//!   the previous one was under way, one record per slot), and a share of one
//!   checkpoint and one mark a second per changed slot.
//! - *Facts*: one (`delivered`). Taking up writes nothing.
//! - *Syscalls*: one write and one read on a kept connection (in `egress`).
//! - *Copies of the body*: one when it is opened (shared by all webhooks of the
//!   same event and shape), one when the id is put into its hole. Decoding the
//!   record copies nothing: it points into the buffer of the broker.
//! - *Allocations*: the decoded record (its `Arc` and a few short strings), an
//!   entry each in the maps of open, open by id, and remembered, the clone of the
//!   fixed head and four to five header values, the filled body, the boxed future,
//!   one buffer for the three ids of the fact.
//! - *Hashing*: one HMAC over the body per live secret, one AES-GCM pass per event.
//! - No task, no channel, no lock, and no timer (the attempt's timeout is in
//!   `egress`) per delivery.

mod attempts;
mod flush;
mod notices;
mod own_fault;
mod ownership;
mod reading;
mod registry;
mod tick;
mod turn;

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tidings_broker::{Appended, Group, GroupError, Liveness};
use tidings_delivery::{OwnFault, Process};
use tidings_types::{Instant, Slot, Timestamp, TopicName, names};
use tokio_util::sync::CancellationToken;

use crate::{
    bodies::Bodies, config::Config, deps::Deps, outbox::Outbox, readers::Readers, slot_log::Done,
    table::Table, takeover::Takeover,
};

use attempts::{Finished, Loaded, UnderWay};
use ownership::Leaving;
use tick::Chore;

/// The group that hands out slots.
pub(crate) const GROUP: &str = "tidings-sender";

/// Finished attempts that one turn takes in.
const FINISHED_PER_TURN: usize = 512;

/// Why a sender cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the log failed for good ({0}); repair its disk and start again")]
    Log(Arc<str>),
}

/// A sender, ready to run.
#[derive(Debug)]
pub struct Service {
    config: Config,
    deps: Deps,
}

impl Service {
    pub fn build(config: Config, deps: Deps) -> Self {
        Self { config, deps }
    }

    /// Sends until `shutdown`, then lets attempts in flight end (for `grace` at
    /// most), writes what is known, and leaves the group.
    ///
    /// # Errors
    ///
    /// When the log failed in a way that going on would hide.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let mut running = Running::new(self.config, self.deps);
        let result = running.run(&shutdown).await;
        if let Some(group) = running.group.take() {
            group.leave().await;
        }
        result
    }
}

/// Wall-clock time that does not jump: the time of the last `took` by the log,
/// and how long ago that was.
#[derive(Clone, Copy, Debug)]
struct RecordClock {
    anchor: Timestamp,
    at: Instant,
}

/// All state of a running sender.
struct Running {
    config: Config,
    deps: Deps,
    clock: RecordClock,
    /// The version of the webhooks that the rows have.
    registry_seen: u64,
    process: Process,
    own_fault: OwnFault,
    table: Table,
    outbox: Outbox,
    bodies: Bodies,
    /// Slots that the group names.
    assigned: std::collections::BTreeSet<Slot>,
    /// Slots to take over, from when on.
    to_take: std::collections::BTreeMap<Slot, Instant>,
    taking: std::collections::BTreeSet<Slot>,
    leaving: Option<Leaving>,
    /// Whether attempts stopped because the group could not be polled.
    is_stalled: bool,
    stopping: bool,
    /// The next regular look at checkpoints, trims and metrics.
    next_tick: Instant,
    next_flush: Instant,
    /// When a line may say again that records of open notifications cannot be read.
    next_unread_line: Instant,
    fatal: Option<Arc<str>>,
    // ---- what is under way -------------------------------------------------
    group: Option<Group>,
    next_join: Instant,
    liveness: Option<Liveness>,
    readers: Readers,
    attempts: FuturesUnordered<UnderWay>,
    loads: FuturesUnordered<BoxFuture<'static, Loaded>>,
    chores: FuturesUnordered<BoxFuture<'static, Chore>>,
    flush: Option<BoxFuture<'static, Vec<Appended>>>,
    write: Option<BoxFuture<'static, Vec<Done>>>,
    /// What the write under way needs of the log.
    cuts: Vec<tick::Cut>,
    /// The parts before, for one planted fault.
    mixed: std::collections::BTreeMap<
        (tidings_types::WebhookId, tidings_types::Partition),
        Vec<tidings_delivery::Part>,
    >,
    takeover: Option<BoxFuture<'static, Takeover>>,
    /// Webhooks that have something to tell operators.
    untold: std::collections::BTreeSet<crate::table::RowKey>,
    telling: Option<BoxFuture<'static, notices::Told>>,
    next_telling: Instant,
    next_certificates: Instant,
    next_complaint: Instant,
    /// Until then nothing is sent, for nothing gets out.
    way_out_at: Instant,
}

/// What woke the loop.
enum Woke {
    Shutdown,
    Group(Result<tidings_broker::GroupEvent, GroupError>),
    Flushed(Vec<Appended>),
    Written(Vec<Done>),
    Takeover(Takeover),
    Told(notices::Told),
    Fetched(Vec<tidings_broker::Fetched>),
    Finished(Finished),
    Loaded(Loaded),
    Chore(Chore),
    Registry,
    Timer,
}

/// Waits for what may not be under way.
async fn optional<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(under_way) => {
            let output = under_way.await;
            *future = None;
            output
        }
        None => std::future::pending().await,
    }
}

impl Running {
    fn new(config: Config, deps: Deps) -> Self {
        let now = deps.clock.monotonic();
        Self {
            clock: RecordClock { anchor: deps.clock.now(), at: now },
            registry_seen: 0,
            process: Process::new(tidings_delivery::Limits {
                sabotage: deps.sabotage,
                ..config.limits
            }),
            own_fault: OwnFault::default(),
            table: Table::default(),
            outbox: Outbox::default(),
            bodies: Bodies::new(deps.keys.clone(), config.body_cache_bytes),
            assigned: std::collections::BTreeSet::new(),
            to_take: std::collections::BTreeMap::new(),
            taking: std::collections::BTreeSet::new(),
            leaving: None,
            is_stalled: false,
            stopping: false,
            next_tick: now,
            next_flush: now,
            next_unread_line: now,
            fatal: None,
            group: None,
            next_join: now,
            liveness: None,
            readers: Readers::new(
                deps.broker.clone(),
                config.partitions_per_reader,
                deps.metrics.clone(),
            ),
            attempts: FuturesUnordered::new(),
            loads: FuturesUnordered::new(),
            chores: FuturesUnordered::new(),
            flush: None,
            write: None,
            cuts: Vec::new(),
            mixed: std::collections::BTreeMap::new(),
            takeover: None,
            untold: std::collections::BTreeSet::new(),
            telling: None,
            next_telling: now,
            next_certificates: now,
            next_complaint: now,
            way_out_at: now,
            config,
            deps,
        }
    }

    /// Time by the log's records; never jumps.
    fn now(&self) -> Timestamp {
        self.clock.anchor + self.mono().since(self.clock.at)
    }

    fn mono(&self) -> Instant {
        self.deps.clock.monotonic()
    }

    async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), RunError> {
        let mut registry = self.deps.webhooks.subscribe();
        registry.mark_unchanged();
        loop {
            self.join().await;
            self.turn();
            if let Some(why) = self.fatal.take() {
                return Err(RunError::Log(why));
            }
            if self.stopping && self.has_stopped() {
                return Ok(());
            }
            let woke = self.wait(shutdown, &mut registry).await;
            self.handle(woke);
            self.drain_finished();
        }
    }

    /// Joins the group, if it is not a member.
    async fn join(&mut self) {
        if self.group.is_some() || self.stopping || self.mono() < self.next_join {
            return;
        }
        let topic = TopicName::new(names::SLOTS);
        match self.deps.broker.join(GROUP, &topic, self.config.session).await {
            Ok(group) => {
                self.liveness = Some(group.liveness());
                self.group = Some(group);
            }
            Err(error) => {
                tracing::warn!(%error, "the sender's group cannot be joined; trying again");
                self.next_join = self.mono() + Duration::from_millis(250);
            }
        }
    }

    /// Waits for the first thing that happens. The group comes first, so that the
    /// membership lives while there is much to do.
    async fn wait(
        &mut self,
        shutdown: &CancellationToken,
        registry: &mut tokio::sync::watch::Receiver<u64>,
    ) -> Woke {
        let sleep = self.deps.clock.sleep(self.until_next());
        let may_poll_group =
            self.leaving.is_none() && !self.stopping && self.mono() >= self.next_join;
        let group = async {
            match self.group.as_mut().filter(|_| may_poll_group) {
                Some(group) => group.poll().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = group => Woke::Group(event),
            () = shutdown.cancelled(), if !self.stopping => Woke::Shutdown,
            results = optional(&mut self.flush) => Woke::Flushed(results),
            written = optional(&mut self.write) => Woke::Written(written),
            takeover = optional(&mut self.takeover) => Woke::Takeover(takeover),
            told = optional(&mut self.telling) => Woke::Told(told),
            fetched = self.readers.poll(self.config.fetch_bytes) => Woke::Fetched(fetched),
            Some(finished) = self.attempts.next() => Woke::Finished(finished),
            Some(loaded) = self.loads.next() => Woke::Loaded(loaded),
            Some(chore) = self.chores.next() => Woke::Chore(chore),
            Ok(()) = registry.changed() => Woke::Registry,
            () = sleep => Woke::Timer,
        }
    }

    fn handle(&mut self, woke: Woke) {
        match woke {
            Woke::Shutdown => self.stop(),
            Woke::Group(event) => self.group_event(event),
            Woke::Flushed(results) => self.flushed(results),
            Woke::Written(written) => self.written(written),
            Woke::Takeover(takeover) => self.taken_over(takeover),
            Woke::Told(told) => self.told(told),
            Woke::Fetched(fetched) => self.fetched(fetched),
            Woke::Finished(finished) => self.finished(finished),
            Woke::Loaded(loaded) => self.loaded(loaded),
            Woke::Chore(chore) => self.chore_done(chore),
            Woke::Registry => self.look_at_registry(),
            Woke::Timer => {}
        }
    }

    /// Takes in what else has finished, so that one turn serves many attempts.
    fn drain_finished(&mut self) {
        for _ in 0..FINISHED_PER_TURN {
            match self.attempts.next().now_or_never() {
                Some(Some(finished)) => self.finished(finished),
                Some(None) | None => return,
            }
        }
    }
}
