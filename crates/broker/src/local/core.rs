//! The shared inside of a local broker: what exists, what waits, and whether it
//! still works. The work itself is in `commit`, `reading`, `group` and `expiry`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tidings_types::{Clock, Instant, Partition, TopicName, TopicPartition};
use tokio::sync::oneshot;

use super::{
    LocalConfig, OpenError,
    batch::{self, PartId, TopicId},
    commit::{Committer, Op, OpKind},
    faults::Faults,
    group::Groups,
    meta::{Entry, PositionKey, TopicMeta},
    partition::Part,
    store::Store,
};
use crate::{
    metrics::Metrics,
    seam::{AppendError, CommittedPosition, ReadError, TopicDescription},
};

/// A topic and its partitions.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) meta: TopicMeta,
    pub(super) parts: Vec<Arc<Part>>,
}

impl Topic {
    pub(super) fn describe(&self, name: &TopicName) -> TopicDescription {
        TopicDescription {
            name: name.clone(),
            partitions: self.meta.partitions,
            retention: self.meta.retention,
            message_bytes: None,
        }
    }
}

/// What exists.
#[derive(Debug, Default)]
pub(super) struct Topics {
    pub(super) by_name: BTreeMap<TopicName, Topic>,
    pub(super) next_id: TopicId,
    /// Deleted topics whose batches are still to be removed.
    pub(super) garbage: BTreeSet<TopicId>,
}

/// What waits to be committed, in the order in which it was handed over.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) ops: VecDeque<Op>,
    pub(super) bytes: usize,
    /// No operation behind this one may be committed before it.
    due: Instant,
}

pub(super) struct Core {
    pub(super) config: LocalConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) faults: Option<Arc<dyn Faults>>,
    pub(super) store: Store,
    pub(super) topics: RwLock<Topics>,
    pub(super) positions: Mutex<BTreeMap<PositionKey, CommittedPosition>>,
    pub(super) groups: Mutex<Groups>,
    pub(super) queue: Mutex<Queue>,
    /// Held for a whole commit: there is one committer at a time.
    pub(super) committer: Mutex<Committer>,
    /// Whether a blocking task is committing (disk store only).
    pub(super) active: AtomicBool,
    /// Where the next step of retention goes on.
    pub(super) expiry: Mutex<usize>,
    crashed: AtomicBool,
    fatal: OnceLock<Arc<str>>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBroker").field("fatal", &self.fatal.get()).finish_non_exhaustive()
    }
}

impl Core {
    /// Reads what the store holds. Does not change it.
    pub(super) fn load(
        config: LocalConfig,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        faults: Option<Arc<dyn Faults>>,
        store: Store,
    ) -> Result<Self, OpenError> {
        let mut topics = Topics::default();
        let mut positions = BTreeMap::new();
        let mut firsts = BTreeMap::new();
        for (key, value) in store.entries()? {
            match Entry::decode(&key, &value).ok_or(OpenError::DamagedEntry)? {
                Entry::Topic(name, meta) => {
                    topics.by_name.insert(name, Topic { meta, parts: Vec::new() });
                }
                Entry::NextTopic(id) => topics.next_id = id,
                Entry::First(part, offset) => {
                    firsts.insert(part, offset);
                }
                Entry::Position(key, position) => {
                    positions.insert(key, position);
                }
                Entry::Garbage(topic) => {
                    topics.garbage.insert(topic);
                }
            }
        }
        for (name, topic) in &mut topics.by_name {
            for partition in 0..topic.meta.partitions {
                let part = new_part(name, &topic.meta, partition);
                let first = firsts.get(&part.id).copied().unwrap_or(0);
                load_part(&store, &part, first)?;
                topic.parts.push(part);
            }
        }
        Ok(Self {
            config,
            clock,
            metrics,
            faults,
            store,
            topics: RwLock::new(topics),
            positions: Mutex::new(positions),
            groups: Mutex::default(),
            queue: Mutex::default(),
            committer: Mutex::default(),
            active: AtomicBool::new(false),
            expiry: Mutex::default(),
            crashed: AtomicBool::new(false),
            fatal: OnceLock::new(),
        })
    }

    pub(super) fn part(&self, of: &TopicPartition) -> Option<Arc<Part>> {
        let topics = self.topics.read();
        let topic = topics.by_name.get(&of.topic)?;
        topic.parts.get(usize::try_from(of.partition).ok()?).cloned()
    }

    /// The partition, or why it cannot be read.
    pub(super) fn readable(&self, of: &TopicPartition) -> Result<Arc<Part>, ReadError> {
        if self.is_crashed() {
            return Err(ReadError::Unavailable);
        }
        self.part(of).ok_or_else(|| ReadError::UnknownPartition(of.clone()))
    }

    /// Queues an operation behind all others. `delay` holds it and all behind it
    /// back. Returns when it may be committed.
    pub(super) fn enqueue(
        &self,
        kind: OpKind,
        bytes: usize,
        delay: std::time::Duration,
    ) -> Result<Instant, AppendError> {
        let now = self.clock.monotonic();
        let mut queue = self.queue.lock();
        self.alive()?;
        if queue.bytes.saturating_add(bytes) > self.config.queued_bytes && !queue.ops.is_empty() {
            self.metrics.queue_refusals.inc();
            return Err(AppendError::Unavailable);
        }
        queue.due = queue.due.max(now + self.config.sync_delay + delay);
        queue.bytes += bytes;
        let due = queue.due;
        queue.ops.push_back(Op { kind, bytes, due });
        Ok(due)
    }

    /// Waits for the answer of what was queued. `None` if its fate is unknown.
    ///
    /// On disk a blocking task commits. In memory those who wait do it
    /// themselves, after all others that are ready now had their turn to queue.
    pub(super) async fn answer<T>(
        self: &Arc<Self>,
        due: Instant,
        answer: oneshot::Receiver<T>,
    ) -> Option<T> {
        if !self.store.is_memory() {
            self.start_committing();
            return answer.await.ok();
        }
        let mut on_drop = CommitOnDrop(Some(self));
        tokio::task::yield_now().await;
        let now = self.clock.monotonic();
        if due > now {
            self.clock.sleep(due.since(now)).await;
        }
        on_drop.0 = None;
        self.commit_waiting(due);
        answer.await.ok()
    }

    /// Whether appends can be taken at all.
    pub(super) fn alive(&self) -> Result<(), AppendError> {
        if let Some(why) = self.fatal.get() {
            return Err(AppendError::Fatal(Arc::clone(why)));
        }
        if self.is_crashed() { Err(AppendError::Unavailable) } else { Ok(()) }
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.crashed.load(Ordering::Acquire)
    }

    pub(super) fn fatal(&self) -> Option<&Arc<str>> {
        self.fatal.get()
    }

    /// Ends the broker for good: nothing is appended any more, and what waits is
    /// told so.
    pub(super) fn fail(&self, why: &Arc<str>) {
        tracing::error!(error = %why, "the log failed for good, the process must end");
        let mut queue = self.queue.lock();
        let why = self.fatal.get_or_init(|| Arc::clone(why));
        queue.bytes = 0;
        let ops = std::mem::take(&mut queue.ops);
        drop(queue);
        for op in ops {
            op.refuse(&AppendError::Fatal(Arc::clone(why)));
        }
    }

    /// Ends this broker as a crash would: what waits is lost, everybody who reads
    /// or is a member is told that the broker cannot be reached.
    pub(super) fn crash(&self) {
        let _no_commit_now = self.committer.lock();
        self.crashed.store(true, Ordering::Release);
        let lost = std::mem::take(&mut *self.queue.lock());
        drop(lost);
        for topic in self.topics.read().by_name.values() {
            for part in &topic.parts {
                part.wake_all();
            }
        }
        self.groups.lock().wake_all();
    }
}

/// A waiter that is dropped in memory commits what waits: once handed over, an
/// append happens whether or not anybody waits for it, as on disk.
struct CommitOnDrop<'a>(Option<&'a Core>);

impl Drop for CommitOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.commit_waiting(Instant::from_nanos(u64::MAX));
        }
    }
}

/// A partition as it is when its topic has just been created.
pub(super) fn new_part(name: &TopicName, meta: &TopicMeta, partition: Partition) -> Arc<Part> {
    let id = PartId { topic: meta.id, partition };
    let name = TopicPartition { topic: name.clone(), partition };
    Arc::new(Part::new(id, name, meta.erase_buckets.is_some()))
}

fn load_part(store: &Store, part: &Part, first: u64) -> Result<(), OpenError> {
    let mut state = part.state.lock();
    state.first = first;
    state.end = first;
    if let Some((key, value)) = store.last(part.id, part.erase)? {
        state.end = first.max(key.last + 1);
        // A damaged last batch is reported to whoever reads it; its time is lost,
        // which costs the time index its order from here on, not its records.
        if let Ok(header) = batch::check(key, &value) {
            state.running_max = header.running_max;
        } else {
            tracing::error!(partition = %part.name, offset = key.last, "the last batch is damaged");
        }
    }
    store.scan(part.id, part.erase, 0, first, &mut |_key, _value| {
        state.garbage = true;
        false
    })?;
    Ok(())
}
