//! The service: its membership in the group, its owners, its commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tidings_broker::{
    AppendBatch, AppendError, Group, GroupError, GroupEvent, Offsets, Position, Retention,
    TopicError,
};
use tidings_registry::Snapshot;
use tidings_types::{Partition, ROUTED_PARTITIONS, TopicName, names};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Deps},
    owner::{Start, own},
    patience::{End, Patience},
    progress::CommitRequest,
    sources::{EventTopics, event_topics, topics},
    storm::Storms,
};

/// The group that hands out `tidings.routed`, and under which source partitions
/// are committed.
pub(crate) const GROUP: &str = "tidings-router";
/// Commits that wait for the member: every owner has at most two.
const COMMITS: usize = 32;

/// Why the router ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("the log failed for good: {0}; restart the process")]
    Fatal(Arc<str>),
    #[error("a task of the router broke off; this is a defect, restart the process")]
    Panicked,
    #[error("topic {topic} has {has} partitions and must have {must}; make it anew")]
    Partitions { topic: TopicName, has: u32, must: u32 },
    #[error("topic {0} keeps its records for less than history promises; raise its retention")]
    Retention(TopicName),
}

/// What all parts of a router share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) storms: Storms,
    /// Owned partitions, and whether they are taken over.
    owned: Mutex<BTreeMap<Partition, bool>>,
}

impl Shared {
    pub(crate) fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        self.deps.rng.fill(&mut nonce);
        nonce
    }

    pub(crate) fn ready(&self, partition: Partition, is_ready: bool) {
        if let Some(ready) = self.owned.lock().get_mut(&partition) {
            *ready = is_ready;
        }
    }

    /// The registry, folded up to the end that it has now, with an id key. While
    /// it cannot be read, routing waits.
    pub(crate) async fn fold(&self, patience: &Patience) -> Result<Arc<Snapshot>, End> {
        let mut tries = patience.tries();
        loop {
            match self.deps.registry.fold_to_end().await {
                Ok(snapshot) if snapshot.id_key().is_some() => return Ok(snapshot),
                Ok(_) => {}
                Err(error) => {
                    if tries.is_worth_a_line() {
                        tracing::warn!(%error, "routing waits for the registry");
                    }
                }
            }
            tries.again().await?;
        }
    }

    /// The largest decision that `tidings.routed` takes now, in bytes, with what its
    /// record has beside it. Where the topic does not say, the largest of ours.
    pub(crate) async fn routed_limit(&self) -> usize {
        let ours = self.config.max_record_bytes;
        match self.deps.broker.describe(&TopicName::new(names::ROUTED)).await {
            Ok(found) => found.message_bytes.map_or(ours, |bytes| bytes.takes.min(ours)),
            Err(error) => {
                tracing::debug!(%error, "what tidings.routed takes is not known now");
                ours
            }
        }
    }

    /// Says that a topic refused a record as too large, and counts it.
    pub(crate) fn refused_as_too_large(&self, topic: &TopicName) {
        self.deps.metrics.too_large.inc();
        tracing::error!(
            %topic,
            "a topic takes smaller records than are written to it, and what waits for it stands \
             still; raise its max.message.bytes to what `tidings topics check` says"
        );
    }

    /// Appends one batch.
    pub(crate) async fn append(&self, batch: AppendBatch) -> Result<Offsets, AppendError> {
        let results = self.deps.broker.append(vec![batch]).await;
        let result = results.into_iter().next().unwrap_or(Err(AppendError::Unknown));
        if result.is_err() {
            self.deps.metrics.failed_appends.inc();
        }
        result
    }
}

/// Answers questions about a running router. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The partitions of `tidings.routed` that this router owns.
    pub fn owned(&self) -> Vec<Partition> {
        self.0.owned.lock().keys().copied().collect()
    }

    /// Whether everything that it owns is taken over, and it owns something.
    pub fn is_ready(&self) -> bool {
        let owned = self.0.owned.lock();
        !owned.is_empty() && owned.values().all(|ready| *ready)
    }
}

/// The router.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub fn build(config: Config, deps: Deps) -> Self {
        let storms = Storms::new(config.storm);
        Self { shared: Arc::new(Shared { config, deps, storms, owned: Mutex::default() }) }
    }

    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Routes until `shutdown`, then finishes what is in flight and leaves.
    ///
    /// # Errors
    /// When the process must end: see [`RunError`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let patience = self.patience(shutdown.clone());
        if self.make_topics(&patience).await?.is_none() {
            return Ok(());
        }
        while !shutdown.is_cancelled() {
            let Some(group) = self.join(&patience).await else { break };
            let (requests, commits) = mpsc::channel(COMMITS);
            let (topics, _) = watch::channel(EventTopics::default());
            let member = Member {
                shared: &self.shared,
                group,
                owners: BTreeMap::new(),
                tasks: JoinSet::new(),
                requests,
                commits,
                topics,
                retake: BTreeSet::new(),
            };
            Box::pin(member.run(&shutdown)).await?;
            self.shared.owned.lock().clear();
            self.shared.deps.metrics.owned.set(0);
        }
        Ok(())
    }

    fn patience(&self, stop: CancellationToken) -> Patience {
        let clock = Arc::clone(&self.shared.deps.clock);
        Patience { clock, stop, backoff: self.shared.config.backoff }
    }

    async fn join(&self, patience: &Patience) -> Option<Group> {
        let mut tries = patience.tries();
        loop {
            let topic = TopicName::new(names::ROUTED);
            let session = self.shared.config.session;
            match self.shared.deps.broker.join(GROUP, &topic, session).await {
                Ok(group) => return Some(group),
                Err(error) => {
                    if tries.is_worth_a_line() {
                        tracing::warn!(%error, "the group of routers cannot be joined yet");
                    }
                    tries.again().await.ok()?;
                }
            }
        }
    }

    /// Makes what is missing and checks what is there. `None` when it is stopped.
    async fn make_topics(&self, patience: &Patience) -> Result<Option<()>, RunError> {
        let Shared { config, deps, .. } = &*self.shared;
        for spec in topics(&deps.catalogue, &config.retention) {
            let mut tries = patience.tries();
            loop {
                match deps.broker.create_topic(spec.clone()).await {
                    Ok(()) | Err(TopicError::Exists(_)) => break,
                    Err(error) => {
                        tracing::warn!(%error, topic = %spec.name, "a topic cannot be made yet");
                        if tries.again().await.is_err() {
                            return Ok(None);
                        }
                    }
                }
            }
        }
        let routed = TopicName::new(names::ROUTED);
        let mut tries = patience.tries();
        let found = loop {
            match deps.broker.describe(&routed).await {
                Ok(found) => break found,
                Err(_cannot_be_read_now) if tries.again().await.is_err() => return Ok(None),
                Err(_cannot_be_read_now) => {}
            }
        };
        if found.partitions != ROUTED_PARTITIONS {
            let (has, must) = (found.partitions, ROUTED_PARTITIONS);
            return Err(RunError::Partitions { topic: routed, has, must });
        }
        match found.retention {
            Retention::For(keep) if keep < config.retention.routed => {
                Err(RunError::Retention(routed))
            }
            Retention::For(_) | Retention::Forever => Ok(Some(())),
        }
    }
}

/// One owner's task.
#[derive(Debug)]
struct Owner {
    stop: CancellationToken,
    task: Id,
    abort: tokio::task::AbortHandle,
}

/// One membership in the group, until it ends.
struct Member<'a> {
    shared: &'a Arc<Shared>,
    group: Group,
    owners: BTreeMap<Partition, Owner>,
    tasks: JoinSet<(Partition, End)>,
    requests: mpsc::Sender<CommitRequest>,
    commits: mpsc::Receiver<CommitRequest>,
    topics: watch::Sender<EventTopics>,
    /// Partitions that were lost while the group still names this member.
    retake: BTreeSet<Partition>,
}

type Ended = Result<(Id, (Partition, End)), JoinError>;

impl Member<'_> {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<(), RunError> {
        self.refresh_topics().await;
        let clock = Arc::clone(&self.shared.deps.clock);
        let mut refresh = clock.sleep(self.shared.config.topics_interval);
        let mut retake = clock.sleep(self.shared.config.backoff.0);
        loop {
            self.shared.deps.failpoints.reach("router.before_group_poll").await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    let all = self.owners.keys().copied().collect();
                    self.stop(&all).await?;
                    self.group.leave().await;
                    return Ok(());
                }
                event = self.group.poll() => match event {
                    Ok(event) => self.on_event(event).await?,
                    Err(GroupError::Expelled(_)) => {
                        tracing::warn!("this router was expelled from its group and joins anew");
                        return self.abort_all().await;
                    }
                    // Ownership is fenced, so the owners may go on meanwhile.
                    Err(error) => {
                        tracing::warn!(%error, "the group of routers cannot be reached now");
                        clock.sleep(self.shared.config.backoff.1).await;
                    }
                },
                Some(request) = self.commits.recv() => self.commit(request).await,
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(partition) = self.ended(ended)? {
                        self.retake.insert(partition);
                        retake = clock.sleep(self.shared.config.backoff.0);
                    }
                }
                () = &mut retake, if !self.retake.is_empty() => {
                    for partition in std::mem::take(&mut self.retake) {
                        self.start(partition);
                    }
                }
                () = &mut refresh => {
                    self.refresh_topics().await;
                    refresh = clock.sleep(self.shared.config.topics_interval);
                }
            }
        }
    }

    async fn on_event(&mut self, event: GroupEvent) -> Result<(), RunError> {
        match event {
            GroupEvent::Assigned(partitions) => {
                for partition in partitions {
                    self.start(partition);
                }
            }
            GroupEvent::Revoked(partitions) => {
                let partitions = partitions.into_iter().collect();
                self.stop(&partitions).await?;
            }
        }
        self.count_owned();
        Ok(())
    }

    fn start(&mut self, partition: Partition) {
        if self.owners.contains_key(&partition) {
            return;
        }
        let stop = CancellationToken::new();
        let patience = Patience {
            clock: Arc::clone(&self.shared.deps.clock),
            stop: stop.clone(),
            backoff: self.shared.config.backoff,
        };
        let start = Start {
            shared: Arc::clone(self.shared),
            partition,
            patience,
            topics: self.topics.subscribe(),
            commits: self.requests.clone(),
        };
        self.shared.owned.lock().insert(partition, false);
        let abort = self.tasks.spawn(async move { (partition, own(start).await) });
        self.owners.insert(partition, Owner { stop, task: abort.id(), abort });
    }

    fn count_owned(&self) {
        let count = i64::try_from(self.owners.len()).unwrap_or(i64::MAX);
        self.shared.deps.metrics.owned.set(count);
    }

    /// Notes the end of an owner. Gives its partition if it is to be taken over
    /// again.
    fn ended(&mut self, ended: Ended) -> Result<Option<Partition>, RunError> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let partition = self.owners.iter().find(|(_, owner)| owner.task == id).map(|it| *it.0);
        if let Some(partition) = partition {
            self.owners.remove(&partition);
            self.shared.owned.lock().remove(&partition);
        }
        match ended {
            Ok((_, (_, End::Fatal(why)))) => Err(RunError::Fatal(why)),
            Ok((_, (partition, End::Lost))) => {
                self.shared.deps.metrics.lost_ownerships.inc();
                Ok(Some(partition))
            }
            // One that was not asked to stop could not commit: it starts anew.
            Ok((_, (partition, End::Stopped))) => Ok(Some(partition)),
            Err(error) if error.is_panic() => Err(RunError::Panicked),
            Err(_aborted) => Ok(None),
        }
    }

    /// Stops owners, lets them finish for a while, and commits for them meanwhile.
    async fn stop(&mut self, partitions: &BTreeSet<Partition>) -> Result<(), RunError> {
        for partition in partitions {
            self.retake.remove(partition);
            if let Some(owner) = self.owners.get(partition) {
                owner.stop.cancel();
            }
        }
        let patience = self.shared.config.drain.min(self.shared.config.session / 2);
        let mut late = self.shared.deps.clock.sleep(patience);
        while partitions.iter().any(|partition| self.owners.contains_key(partition)) {
            tokio::select! {
                biased;
                Some(request) = self.commits.recv() => self.commit(request).await,
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(partition) = self.ended(ended)?
                        && !partitions.contains(&partition)
                    {
                        self.retake.insert(partition);
                    }
                }
                () = &mut late => {
                    // Everything is crash-safe: the next owner repeats what is open.
                    tracing::warn!("an owner of tidings.routed took too long to stop");
                    for partition in partitions {
                        if let Some(owner) = self.owners.get(partition) {
                            owner.abort.abort();
                        }
                    }
                    late = Box::pin(std::future::pending());
                }
            }
        }
        self.count_owned();
        Ok(())
    }

    async fn abort_all(mut self) -> Result<(), RunError> {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended)?;
        }
        Ok(())
    }

    /// Commits for all owners that wait, in one go.
    async fn commit(&mut self, first: CommitRequest) {
        let mut answers = vec![first.answer];
        let mut positions: Vec<Position> = first.positions;
        while let Ok(request) = self.commits.try_recv() {
            answers.push(request.answer);
            positions.extend(request.positions);
        }
        let result = self.group.commit(positions).await;
        for answer in answers {
            // An owner that is gone needs no answer.
            answer.send(result.clone()).unwrap_or_default();
        }
    }

    async fn refresh_topics(&self) {
        match self.shared.deps.broker.topics().await {
            Ok(all) => {
                let found = event_topics(&all);
                self.topics.send_if_modified(|known| {
                    let is_new = *known != found;
                    *known = found;
                    is_new
                });
            }
            Err(error) => tracing::warn!(%error, "the topics cannot be listed now"),
        }
    }
}
