//! The task that folds, and the handle that reads and writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tidings_broker::{
    AppendBatch, AppendError, Broker, NewRecord, ReadError, Reader, Record, Retention, TopicError,
    TopicSpec,
};
use tidings_proto::{FORMAT_HEADER, FORMAT_VERSION, decode, encode, format_header, v1};
use tidings_signing::{KeyRing, OpenError};
use tidings_types::{Clock, Offset, Rng, Timestamp, TopicName, TopicPartition, names};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    entity::{EntityKey, IdKey, State},
    fold::{Fold, Verdict},
    metrics::Metrics,
    proposals::Proposals,
    sealing,
    snapshot::Snapshot,
};

const READ_BYTES: usize = 1024 * 1024;
/// How long a caller waits for the fold before it is told that nobody knows.
const FOLD_PATIENCE: Duration = Duration::from_secs(10);
/// How often the age of the registry is taken.
const AGE: Duration = Duration::from_secs(1);
/// How long to wait before something is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// Proposals of one process that wait at once; more wait for their turn.
const MAX_PROPOSALS: usize = 256;
/// The entity that holds the deployment's id key.
const KEYS_ENTITY: &str = "deployment/keys";

/// A change to propose.
#[derive(Clone, Debug)]
pub struct Change {
    pub entity: EntityKey,
    /// The version that the entity must be at; 0: it must not exist.
    pub expected_version: u64,
    /// All names that the entity holds from then on.
    pub claims: Vec<String>,
    pub command: Option<CommandRef>,
    pub actor: String,
    pub trace: String,
    pub state: State,
}

/// An `Idempotency-Key` with the request that it stands for.
#[derive(Clone, Debug)]
pub struct CommandRef {
    /// hash(subject, key), as text.
    pub id: String,
    /// SHA-256 of the request's body.
    pub hash: [u8; 32],
}

/// A change that the fold has accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub version: u64,
    pub offset: Offset,
    /// The registry with the change in it.
    pub snapshot: Arc<Snapshot>,
}

/// Why a change was not made, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("the entity is at version {current} by now; read it again")]
    VersionConflict { current: u64 },
    #[error("{name} belongs to {by}")]
    Claimed { name: String, by: EntityKey },
    #[error("this command was done before, for {entity}")]
    Repeated { entity: EntityKey, same_body: bool },
    #[error("the registry cannot be written now; try again")]
    Unavailable,
    #[error("whether the change was made is not known; repeat it with the same Idempotency-Key")]
    Unknown,
}

/// Why the registry cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry cannot be read to its end now; try again")]
    Unavailable,
    #[error("the topic of the registry cannot be made; check what the broker allows")]
    Topic(#[source] TopicError),
    #[error(
        "{0} in the registry cannot be opened: the master key file is not this deployment's, or lacks a key; restore it"
    )]
    MasterKey(EntityKey),
    #[error("the registry cannot be read any more")]
    Lost(#[source] ReadError),
}

#[derive(Debug)]
struct Shared {
    broker: Broker,
    ring: KeyRing,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    current: ArcSwap<Snapshot>,
    fold: Mutex<Fold>,
    version: watch::Sender<Offset>,
    proposals: Proposals,
    turns: Semaphore,
    /// When it was last known to be folded to its end, in milliseconds.
    as_of: AtomicI64,
    metrics: Metrics,
}

/// Reads and writes the registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Shared>);

/// Keeps the registry folded.
#[derive(Debug)]
pub struct RegistryTask {
    registry: Registry,
    reader: Reader,
}

/// Without its keys a process would take webhooks for absent and lose events.
fn check_master_key(snapshot: &Snapshot) -> Result<(), RegistryError> {
    let is_foreign = |entity: &EntityKey, error: &OpenError| {
        entity.as_str() == KEYS_ENTITY || matches!(error, OpenError::UnknownKey(_))
    };
    let foreign = snapshot.unreadable().iter().find(|(entity, error)| is_foreign(entity, error));
    match foreign {
        Some((entity, _)) => Err(RegistryError::MasterKey(entity.clone())),
        None => Ok(()),
    }
}

fn place() -> TopicPartition {
    TopicPartition::new(names::REGISTRY, 0)
}

impl Registry {
    /// Makes the topic if it is missing, folds it to its end, and makes the id key
    /// if there is none. The task must run for anything to change.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn start(
        broker: Broker,
        ring: KeyRing,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<(Self, RegistryTask), RegistryError> {
        let topic = TopicSpec {
            name: TopicName::new(names::REGISTRY),
            partitions: 1,
            retention: Retention::Forever,
            erase_buckets: None,
        };
        match broker.create_topic(topic).await {
            Ok(()) | Err(TopicError::Exists(_)) => {}
            Err(error) => return Err(RegistryError::Topic(error)),
        }
        let (version, _) = watch::channel(0);
        let registry = Self(Arc::new(Shared {
            broker: broker.clone(),
            ring,
            clock,
            rng,
            current: ArcSwap::default(),
            fold: Mutex::default(),
            version,
            proposals: Proposals::default(),
            turns: Semaphore::new(MAX_PROPOSALS),
            as_of: AtomicI64::new(0),
            metrics: Metrics::default(),
        }));
        let mut reader = broker.reader();
        reader.assign(place(), 0);
        let mut task = RegistryTask { registry: registry.clone(), reader };
        task.catch_up().await?;
        check_master_key(&registry.snapshot())?;
        task.make_id_key().await?;
        Ok((registry, task))
    }

    /// The registry as it was last folded.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    pub fn ring(&self) -> &KeyRing {
        &self.0.ring
    }

    /// Tells when the version moves.
    pub fn subscribe(&self) -> watch::Receiver<Offset> {
        self.0.version.subscribe()
    }

    /// Waits until everything that stands in the topic now is folded.
    ///
    /// # Errors
    /// When the broker does not answer, or the fold does not come that far in 10 s.
    pub async fn fold_to_end(&self) -> Result<Arc<Snapshot>, RegistryError> {
        let asked = self.now();
        let ends =
            self.0.broker.ends(&place()).await.map_err(|_error| RegistryError::Unavailable)?;
        let snapshot = self.fold_to(ends.end).await?;
        self.0.as_of.fetch_max(asked.as_millis(), Ordering::Relaxed);
        Ok(snapshot)
    }

    /// The time up to which the registry is known to be folded.
    pub fn as_of(&self) -> Timestamp {
        Timestamp::from_millis(self.0.as_of.load(Ordering::Relaxed))
    }

    /// Keeps [`Self::as_of`] young until `shutdown`, for those who tell it.
    pub async fn keep_age(&self, shutdown: CancellationToken) {
        let asking = async {
            loop {
                // While the broker is away the age grows.
                if let Err(error) = self.fold_to_end().await {
                    tracing::debug!(%error, "the registry grows older");
                }
                self.0.clock.sleep(AGE).await;
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = asking => {}
        }
    }

    async fn fold_to(&self, end: Offset) -> Result<Arc<Snapshot>, RegistryError> {
        let snapshot = self.snapshot();
        if snapshot.version >= end {
            return Ok(snapshot);
        }
        let mut version = self.subscribe();
        let folded = tokio::time::timeout(FOLD_PATIENCE, version.wait_for(|at| *at >= end)).await;
        match folded {
            Ok(Ok(_)) => Ok(self.snapshot()),
            Ok(Err(_)) | Err(_) => Err(RegistryError::Unavailable),
        }
    }

    fn record(&self, change: &Change) -> NewRecord {
        let shared = &self.0;
        let state =
            sealing::encode(&change.state, change.entity.as_str(), &shared.ring, &*shared.rng);
        let command_hash = match (&change.command, &change.state) {
            (Some(command), _) => Bytes::copy_from_slice(&command.hash),
            (None, State::Command(command)) => Bytes::copy_from_slice(&command.hash),
            (None, _) => Bytes::new(),
        };
        let record = v1::RegistryRecord {
            entity: change.entity.as_str().to_owned(),
            expected_version: change.expected_version,
            command_id: change
                .command
                .as_ref()
                .map_or_else(String::new, |command| command.id.clone()),
            command_hash,
            claims: change.claims.clone(),
            actor: change.actor.clone(),
            time: shared.clock.now().as_millis(),
            trace: change.trace.clone(),
            state: Some(state),
        };
        NewRecord {
            key: Some(Bytes::copy_from_slice(change.entity.as_str().as_bytes())),
            headers: vec![format_header()],
            value: Some(encode(&record)),
            timestamp: None,
        }
    }

    /// Proposes a change and says what the fold made of it. While the fate of an
    /// append is unknown, reads on and appends again, for 10 s at most.
    ///
    /// # Errors
    /// See [`ProposeError`]. After `Unknown` the change may stand.
    pub async fn propose(&self, change: Change) -> Result<Accepted, ProposeError> {
        let mut may_stand = false;
        let proposed =
            tokio::time::timeout(FOLD_PATIENCE, self.propose_until_known(&change, &mut may_stand));
        match proposed.await {
            Ok(result) => result,
            Err(_elapsed) if may_stand => Err(ProposeError::Unknown),
            Err(_elapsed) => Err(ProposeError::Unavailable),
        }
    }

    async fn propose_until_known(
        &self,
        change: &Change,
        may_stand: &mut bool,
    ) -> Result<Accepted, ProposeError> {
        let shared = &self.0;
        let _turn =
            shared.turns.acquire().await.map_err(|_never_closed| ProposeError::Unavailable)?;
        let proposal = shared.proposals.begin(&*shared.rng);
        let mut record = self.record(change);
        record.headers.push(proposal.header());
        loop {
            // Dropped while it waits, an append may still happen.
            let could_stand = std::mem::replace(may_stand, true);
            let batch = AppendBatch { to: place(), records: vec![record.clone()] };
            let appended = shared.broker.append(vec![batch]).await.into_iter().next();
            let folded = match appended.unwrap_or(Err(AppendError::Unknown)) {
                Ok(offsets) => {
                    let offset = offsets.first().ok_or(ProposeError::Unknown)?;
                    let folded = self.fold_to(offset + 1).await;
                    Some(folded.map_err(|_late| ProposeError::Unknown)?)
                }
                Err(AppendError::Unknown) => self.fold_to_end().await.ok(),
                Err(_nothing_written) if could_stand => self.fold_to_end().await.ok(),
                Err(error) => {
                    tracing::warn!(%error, entity = %change.entity, "the registry cannot be written");
                    *may_stand = false;
                    return Err(ProposeError::Unavailable);
                }
            };
            if let (Some(snapshot), Some((offset, verdict))) = (folded, proposal.verdict()) {
                return answer(verdict, offset, snapshot);
            }
            shared.metrics.append_retries.inc();
            shared.clock.sleep(PAUSE).await;
        }
    }

    /// Adds the registry's metrics.
    pub fn register_metrics(&self, metrics: &mut prometheus_client::registry::Registry) {
        self.0.metrics.register(metrics);
    }
}

fn answer(
    verdict: Verdict,
    offset: Offset,
    snapshot: Arc<Snapshot>,
) -> Result<Accepted, ProposeError> {
    match verdict {
        Verdict::Accepted { version } => Ok(Accepted { version, offset, snapshot }),
        Verdict::Conflict { current } => Err(ProposeError::VersionConflict { current }),
        Verdict::Claimed { name, by } => Err(ProposeError::Claimed { name, by }),
        Verdict::Repeated { entity, same_body } => {
            Err(ProposeError::Repeated { entity, same_body })
        }
        Verdict::Void => Err(ProposeError::Unknown),
    }
}

impl RegistryTask {
    /// Folds what arrives until `shutdown`.
    ///
    /// # Errors
    /// When the topic cannot be read for good, or holds what another process sealed
    /// with a master key that is missing here: nobody is shown a registry without it.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RegistryError> {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                fetched = self.reader.poll(READ_BYTES) => {
                    for part in fetched {
                        match part.records {
                            Ok(records) => self.fold(records, check_master_key)?,
                            Err(ReadError::Unavailable) => {
                                let next = self.registry.snapshot().version;
                                self.registry.0.clock.sleep(PAUSE).await;
                                self.reader.assign(place(), next);
                            }
                            Err(error) => return Err(RegistryError::Lost(error)),
                        }
                    }
                }
            }
        }
    }

    /// Folds records and shows the result if `check` takes it.
    fn fold(
        &mut self,
        records: Vec<Record>,
        check: fn(&Snapshot) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let shared = &self.registry.0;
        let mut fold = shared.fold.lock();
        for record in records {
            let verdict = fold_one(shared, &mut fold, &record);
            shared.metrics.folded(&verdict);
            shared.proposals.note(&record, &verdict);
        }
        check(fold.snapshot())?;
        let snapshot = Arc::new(fold.snapshot().clone());
        let version = snapshot.version;
        shared.current.store(snapshot);
        drop(fold);
        shared.version.send_replace(version);
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), RegistryError> {
        let shared = Arc::clone(&self.registry.0);
        let asked = shared.clock.now();
        let end =
            shared.broker.ends(&place()).await.map_err(|_error| RegistryError::Unavailable)?.end;
        while self.registry.snapshot().version < end {
            for part in self.reader.poll(READ_BYTES).await {
                let records = part.records.map_err(|_error| RegistryError::Unavailable)?;
                // A later record may replace what cannot be read: looked at at the end.
                self.fold(records, |_| Ok(()))?;
            }
        }
        shared.as_of.fetch_max(asked.as_millis(), Ordering::Relaxed);
        Ok(())
    }

    /// The first process makes the id key; another one that tries at the same time
    /// is refused by the version and uses the first one's.
    async fn make_id_key(&mut self) -> Result<(), RegistryError> {
        if self.registry.snapshot().id_key().is_some() {
            return Ok(());
        }
        let mut key = [0; 32];
        self.registry.0.rng.fill(&mut key);
        let change = Change {
            entity: EntityKey(Arc::from(KEYS_ENTITY)),
            expected_version: 0,
            claims: Vec::new(),
            command: None,
            actor: "platform".to_owned(),
            trace: String::new(),
            state: State::IdKey(IdKey::new(&key)),
        };
        let record = self.registry.record(&change);
        let batch = AppendBatch { to: place(), records: vec![record] };
        for appended in self.registry.0.broker.append(vec![batch]).await {
            appended.map_err(|_error| RegistryError::Unavailable)?;
        }
        self.catch_up().await?;
        if self.registry.snapshot().id_key().is_none() {
            return Err(RegistryError::Unavailable);
        }
        Ok(())
    }
}

fn fold_one(shared: &Shared, fold: &mut Fold, record: &Record) -> Verdict {
    let offset = record.offset;
    let format = record.headers.iter().find(|(name, _)| &**name == FORMAT_HEADER);
    let is_ours = format.is_some_and(|(_, version)| version.as_ref() == FORMAT_VERSION);
    let value = record.value.clone().filter(|_| is_ours);
    let Some(value) = value else {
        tracing::error!(offset, "a record of tidings.registry has another format and is void");
        fold.pass(offset);
        return Verdict::Void;
    };
    let decoded = match decode::<v1::RegistryRecord>(value) {
        Ok(decoded) => decoded,
        Err(error) => {
            tracing::error!(offset, %error, "a record of tidings.registry is void");
            fold.pass(offset);
            return Verdict::Void;
        }
    };
    match fold.apply(offset, record.timestamp, &decoded, &shared.ring) {
        Ok(verdict) => verdict,
        Err(error) => {
            shared.metrics.unreadable.inc();
            tracing::error!(offset, %error, cause = %error.source, "a registry record cannot be read");
            fold.verdict(offset).cloned().unwrap_or(Verdict::Void)
        }
    }
}

/// Now, for callers that stamp entities.
impl Registry {
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
