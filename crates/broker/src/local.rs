//! The local broker: a durable log for one process, on disk (fjall) or, for
//! simulations and tests, in memory. Both run the same code down to the store.
//!
//! Appenders queue their batches; one committer takes all that wait, gives them
//! offsets, stores them with one sync, then shows them to readers and answers.
//! Readers near the end are served from memory. Groups are coordinated in
//! memory, because all members live in this process.
//!
//! It does not replicate, and it has no transactions.

mod batch;
mod commit;
mod core;
mod expiry;
mod faults;
mod group;
mod member;
mod meta;
mod partition;
mod reader;
mod reading;
mod store;

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tidings_types::{Clock, Offset, Sabotage, Timestamp, TopicName, TopicPartition};
use tokio::sync::oneshot;

use self::{
    commit::{AppendOp, OpKind, Slot, TopicChange},
    core::Core,
    meta::PositionKey,
    store::{DiskStore, MemoryStore, OpenFailure, Store, StoreError},
};
pub use self::{
    expiry::Maintained,
    faults::{Fault, Faults},
    member::LocalGroup,
    reader::LocalReader,
};
use crate::{
    metrics::Metrics,
    seam::{
        AppendBatch, AppendError, Appended, CommittedPosition, GroupError, InOrder, PartitionEnds,
        ReadError, Record, TopicDescription, TopicError, TopicSpec,
    },
};

/// Tells how many bytes are free on the disk that holds a path. The system's
/// answer unless a test puts its own here.
pub trait FreeSpace: Send + Sync + std::fmt::Debug {
    /// # Errors
    ///
    /// Whatever the system says; the broker then refuses appends.
    fn free_bytes(&self, path: &Path) -> std::io::Result<u64>;
}

/// The sizes that a local broker keeps to. The defaults suit a machine with a
/// gigabyte of memory and up.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The largest record: key, value and headers, in bytes.
    pub max_record_bytes: usize,
    /// Recent records kept in memory for each partition.
    pub tail_partition_bytes: usize,
    /// Recent records kept in memory in all.
    pub tail_total_bytes: usize,
    /// A call's records are stored in pieces of about this size, so that a small
    /// read does not fetch a large piece.
    pub stored_batch_bytes: usize,
    /// What one sync takes at most (a single larger append is taken whole).
    pub commit_bytes: usize,
    /// What may wait for the committer; more is refused as unavailable.
    pub queued_bytes: usize,
    /// Blocks of the store kept in memory.
    pub cache_bytes: u64,
    /// What the store collects in memory before it writes a table.
    pub memtable_bytes: u64,
    /// Space that stays free for the store's own work; see `local/store/disk.rs`.
    pub disk_reserve_bytes: u64,
    /// How long the memory store takes for a sync. A simulated crash meanwhile
    /// loses what waits.
    pub sync_delay: Duration,
    /// Whether [`crate::Broker::append_in_order`] takes one sync; a simulation also
    /// runs what brokers do that need two.
    pub one_sync_in_order: bool,
    /// In place of the system's answer, for tests.
    pub free_space: Option<Arc<dyn FreeSpace>>,
    /// A rule to break; [`Sabotage::None`] outside of tests.
    pub sabotage: Sabotage,
}

impl LocalConfig {
    /// An event of 1 MiB (design §10) whose decision holds the four bodies that it can
    /// have, and as much again for its targets, sealing and headers.
    pub const MAX_RECORD_BYTES: usize = 5 << 20;
    /// Seconds of a fast partition; the rest is read from the store.
    pub const TAIL_PARTITION_BYTES: usize = 4 << 20;
    /// Seconds of everything at full speed; who is further behind reads the store.
    pub const TAIL_TOTAL_BYTES: usize = 32 << 20;
    /// A decoder checks a whole piece at once, also for one record.
    pub const STORED_BATCH_BYTES: usize = 256 << 10;
    /// Takes some 10 ms to write; whoever comes next waits that long.
    pub const COMMIT_BYTES: usize = 8 << 20;
    /// About a second of a fast disk.
    pub const QUEUED_BYTES: usize = 256 << 20;
    pub const CACHE_BYTES: u64 = 16 << 20;
    /// An eighth of the store's default: up to five of them are in memory, and what
    /// is not yet in a table has to be reserved on the disk a second time.
    pub const MEMTABLE_BYTES: u64 = 8 << 20;
    pub const DISK_RESERVE_BYTES: u64 = 16 << 20;
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            max_record_bytes: Self::MAX_RECORD_BYTES,
            tail_partition_bytes: Self::TAIL_PARTITION_BYTES,
            tail_total_bytes: Self::TAIL_TOTAL_BYTES,
            stored_batch_bytes: Self::STORED_BATCH_BYTES,
            commit_bytes: Self::COMMIT_BYTES,
            queued_bytes: Self::QUEUED_BYTES,
            cache_bytes: Self::CACHE_BYTES,
            memtable_bytes: Self::MEMTABLE_BYTES,
            disk_reserve_bytes: Self::DISK_RESERVE_BYTES,
            sync_delay: Duration::ZERO,
            one_sync_in_order: true,
            free_space: None,
            sabotage: Sabotage::None,
        }
    }
}

/// Why a local broker could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} is in use by another process; stop that one first")]
    Locked(PathBuf),
    #[error(
        "the log's directory cannot be used; check that it exists on a working disk and may be written"
    )]
    Io(#[from] std::io::Error),
    #[error("the log cannot be opened ({0}); restore its directory from a copy")]
    Store(Arc<str>),
    #[error("the log's list of topics and positions is damaged; restore its directory from a copy")]
    DamagedEntry,
    #[error("{0} is damaged; restore it from a copy, or move it away and lose what it holds")]
    DamagedFile(PathBuf),
    #[error("only the memory store can be crashed and opened again; open the directory instead")]
    NotInMemory,
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.0)
    }
}

impl From<OpenFailure> for OpenError {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Locked(path) => Self::Locked(path),
            OpenFailure::Io(error) => Self::Io(error),
            OpenFailure::DamagedFile(path) => Self::DamagedFile(path),
            OpenFailure::Store(error) => Self::Store(error.0),
        }
    }
}

/// How well appends shared syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncStats {
    pub syncs: u64,
    pub appended_records: u64,
}

/// The local broker. Cheap to clone; closed when the last clone, reader and group
/// member is gone. Everything that was acknowledged is on disk at any time, so
/// closing saves nothing.
#[derive(Clone, Debug)]
pub struct LocalBroker {
    core: Arc<Core>,
}

impl LocalBroker {
    /// Opens the log in `dir`, or makes one there. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] if another broker has it open.
    pub fn open(
        dir: &Path,
        config: LocalConfig,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, OpenError> {
        let store = Store::Disk(Box::new(DiskStore::open(dir, &config)?));
        let core = Core::load(config, clock, Metrics::register(registry), None, store)?;
        Ok(Self { core: Arc::new(core) })
    }

    /// Makes an empty log in memory. It uses no threads and no time but the
    /// clock's, so runs repeat exactly.
    ///
    /// # Errors
    ///
    /// None in practice; the signature is that of [`LocalBroker::open`].
    pub fn memory(
        config: LocalConfig,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self, OpenError> {
        let store = Store::Memory(MemoryStore::new(config.sabotage));
        let core = Core::load(config, clock, Metrics::register(registry), faults, store)?;
        Ok(Self { core: Arc::new(core) })
    }

    /// Ends this broker as a power cut would and returns the one that comes up
    /// afterwards, with what was durable. The old one's clones, readers and
    /// members get `Unavailable` from now on; the fate of its waiting appends is
    /// `Unknown`. Members have to join anew.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotInMemory`] for a log on disk.
    pub fn crash_and_reopen(&self) -> Result<Self, OpenError> {
        let old = &self.core;
        let store = match &old.store {
            Store::Memory(store) => store.clone(),
            Store::Disk(_) => return Err(OpenError::NotInMemory),
        };
        old.crash();
        store.crash();
        let core = Core::load(
            old.config.clone(),
            Arc::clone(&old.clock),
            old.metrics.clone(),
            old.faults.clone(),
            Store::Memory(store),
        )?;
        Ok(Self { core: Arc::new(core) })
    }

    /// Takes a bounded step of removing what has expired. Call it every few
    /// seconds, and again at once while it says that there is more.
    pub async fn maintain(&self) -> Maintained {
        self.core.maintain().await
    }

    /// Why the log failed for good, if it did. The process must end then: nothing
    /// is appended any more.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.core.fatal().cloned()
    }

    /// Whether the store still has work of its own, on what it has acknowledged.
    pub fn is_busy(&self) -> bool {
        match &self.core.store {
            Store::Memory(_) => false,
            Store::Disk(store) => store.is_busy(),
        }
    }

    pub fn sync_stats(&self) -> SyncStats {
        SyncStats {
            syncs: self.core.metrics.syncs.get(),
            appended_records: self.core.metrics.appended_records.get(),
        }
    }

    pub(crate) async fn append(&self, batches: Vec<AppendBatch>) -> Vec<Appended> {
        self.queue(batches, None).await
    }

    pub(crate) async fn append_in_order(
        &self,
        first: AppendBatch,
        at: Offset,
        then: Vec<AppendBatch>,
    ) -> InOrder {
        if !self.core.config.one_sync_in_order {
            let first = self.append(vec![first]).await.into_iter().next();
            return InOrder { first: first.unwrap_or(Err(AppendError::Unknown)), then: None };
        }
        let count = then.len();
        let batches = std::iter::once(first).chain(then).collect();
        let mut results = self.queue(batches, Some(at)).await.into_iter();
        let first = results.next().unwrap_or(Err(AppendError::Unknown));
        let then: Vec<Appended> = results.collect();
        InOrder { first, then: (then.len() == count).then_some(then) }
    }

    /// Appends batches; with `first_at`, those behind the first only if that comes to
    /// stand there. They have no result otherwise.
    async fn queue(&self, batches: Vec<AppendBatch>, first_at: Option<Offset>) -> Vec<Appended> {
        let core = &self.core;
        let started = core.clock.monotonic();
        let count = if first_at.is_some() { 1 } else { batches.len() };
        let (mut bytes, mut delay) = (0, Duration::ZERO);
        let slots = batches.into_iter().map(|batch| self.slot(batch, &mut bytes, &mut delay));
        let slots: Vec<Slot> = slots.collect();
        let (sender, receiver) = oneshot::channel();
        let op = AppendOp { batches: slots, first_at, answer: sender };
        let results = match core.enqueue(OpKind::Append(op), bytes, delay) {
            Ok(due) => core.answer(due, receiver).await,
            Err(error) => Some(vec![Err(error); count]),
        };
        core.metrics.append_duration.observe(core.clock.monotonic().since(started).as_secs_f64());
        results.unwrap_or_else(|| vec![Err(AppendError::Unknown); count])
    }

    /// Checks a batch against the limits, and asks for planted faults.
    fn slot(&self, batch: AppendBatch, bytes: &mut usize, delay: &mut Duration) -> Slot {
        let limit = self.core.config.max_record_bytes;
        let mut size = 0;
        for (index, record) in batch.records.iter().enumerate() {
            let bytes =
                batch::payload_bytes(record.key.as_ref(), record.value.as_ref(), &record.headers);
            if bytes > limit {
                return Slot::Done(Err(AppendError::TooLarge { index, bytes, limit }));
            }
            size += bytes;
        }
        let fault = self
            .core
            .faults
            .as_ref()
            .and_then(|faults| faults.on_append(&batch.to, batch.records.len()));
        match fault {
            Some(Fault::Refuse) => return Slot::Done(Err(AppendError::Unavailable)),
            Some(Fault::DropSilently) => return Slot::Done(Err(AppendError::Unknown)),
            Some(Fault::Slow(by)) => *delay = (*delay).max(by),
            Some(Fault::LoseAnswer) | None => {}
        }
        *bytes += size;
        Slot::Todo { batch, lose_answer: fault == Some(Fault::LoseAnswer) }
    }

    pub(crate) async fn read(
        &self,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.planted(from, Some(offset))?;
        let part = self.core.readable(from)?;
        self.core.read(part, offset, max_bytes).await
    }

    pub(crate) fn reader(&self) -> LocalReader {
        LocalReader::new(Arc::clone(&self.core))
    }

    #[expect(clippy::unused_async, reason = "the seam's other brokers wait here")]
    pub(crate) async fn ends(&self, of: &TopicPartition) -> Result<PartitionEnds, ReadError> {
        self.planted(of, None)?;
        self.core.readable(of)?.ends()
    }

    /// Asks for a planted fault of a read.
    fn planted(&self, of: &TopicPartition, offset: Option<Offset>) -> Result<(), ReadError> {
        let faults = self.core.faults.as_ref();
        faults.and_then(|faults| faults.on_read(of, offset)).map_or(Ok(()), Err)
    }

    pub(crate) async fn offset_at(
        &self,
        of: &TopicPartition,
        time: Timestamp,
    ) -> Result<Offset, ReadError> {
        let part = self.core.readable(of)?;
        self.core.blocking(move |core| core.find_time(&part, time)).await
    }

    #[expect(clippy::unused_async, reason = "the seam's other brokers wait here")]
    pub(crate) async fn join(
        &self,
        group: &str,
        topic: &TopicName,
        session: Duration,
    ) -> Result<LocalGroup, GroupError> {
        LocalGroup::join(&self.core, group, topic, session)
    }

    #[expect(clippy::unused_async, reason = "the seam's other brokers wait here")]
    pub(crate) async fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedPosition>>, GroupError> {
        if self.core.is_crashed() {
            return Err(GroupError::Unavailable);
        }
        let positions = self.core.positions.lock();
        let position = |of: &TopicPartition| {
            let part = self.core.part(of)?.id;
            positions.get(&PositionKey { group: group.to_owned(), part }).cloned()
        };
        Ok(of.iter().map(position).collect())
    }

    pub(crate) async fn create_topic(&self, spec: TopicSpec) -> Result<(), TopicError> {
        self.core.change_topic(TopicChange::Create(spec)).await
    }

    pub(crate) async fn add_partitions(
        &self,
        topic: &TopicName,
        partitions: u32,
    ) -> Result<(), TopicError> {
        self.core.change_topic(TopicChange::AddPartitions(topic.clone(), partitions)).await
    }

    #[expect(clippy::unused_async, reason = "the seam's other brokers wait here")]
    pub(crate) async fn topics(&self) -> Result<Vec<TopicDescription>, TopicError> {
        if self.core.is_crashed() {
            return Err(TopicError::Unavailable);
        }
        let topics = self.core.topics.read();
        Ok(topics.by_name.iter().map(|(name, topic)| topic.describe(name)).collect())
    }

    #[expect(clippy::unused_async, reason = "the seam's other brokers wait here")]
    pub(crate) async fn describe(&self, topic: &TopicName) -> Result<TopicDescription, TopicError> {
        if self.core.is_crashed() {
            return Err(TopicError::Unavailable);
        }
        let topics = self.core.topics.read();
        let found = topics.by_name.get(topic).map(|found| found.describe(topic));
        found.ok_or_else(|| TopicError::Unknown(topic.clone()))
    }

    pub(crate) async fn delete_topic(&self, topic: &TopicName) -> Result<(), TopicError> {
        self.core.change_topic(TopicChange::Delete(topic.clone())).await
    }

    pub(crate) async fn trim(&self, of: &TopicPartition, before: Offset) -> Result<(), TopicError> {
        self.core.trim_named(of.clone(), before).await
    }
}
