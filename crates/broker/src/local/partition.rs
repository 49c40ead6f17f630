//! One partition in memory: its ends, its recent batches, and who waits for it.
//!
//! Only the committer changes ends and tail, and only after the store has made
//! the change durable; so what stands here may be shown to anybody.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tidings_types::{Offset, Timestamp, TopicPartition};
use tokio::sync::Notify;

use super::batch::{PartId, stored_bytes};
use crate::seam::{PartitionEnds, ReadError, Record};

/// A reader's list of partitions that may have something to read.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) queue: Mutex<VecDeque<Arc<Watch>>>,
    pub(super) notify: Notify,
}

/// One partition assigned to one reader. It is in the reader's list at most once.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) name: TopicPartition,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Watch {
    pub(super) fn new(name: TopicPartition, ready: Arc<Ready>) -> Arc<Self> {
        Arc::new(Self { name, queued: AtomicBool::new(false), ready })
    }

    /// Puts the partition at the back of its reader's list and wakes the reader.
    pub(super) fn wake(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.queue.lock().push_back(Arc::clone(self));
            self.ready.notify.notify_one();
        }
    }

    /// Says that the partition has left the list; from now on `wake` adds it again.
    pub(super) fn taken(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

/// A batch kept in memory. The records share their bytes with what was appended.
#[derive(Debug)]
pub(super) struct TailBatch {
    /// Counts all batches of the broker, so that the oldest one is known.
    pub(super) sequence: u64,
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
}

impl TailBatch {
    fn base(&self) -> Offset {
        self.records.first().map_or(0, |record| record.offset)
    }

    fn last(&self) -> Offset {
        self.records.last().map_or(0, |record| record.offset)
    }
}

#[derive(Debug)]
pub(super) struct PartState {
    pub(super) first: Offset,
    /// The end of what is durable and may be read.
    pub(super) end: Offset,
    /// The newest record time so far.
    pub(super) running_max: Timestamp,
    /// The newest record time in the first batch, where it is known: saves
    /// retention from asking the store about partitions that do not change.
    pub(super) front_time: Option<Timestamp>,
    /// Whether stored batches below `first` are still to be removed.
    pub(super) garbage: bool,
    pub(super) deleted: bool,
    pub(super) tail: VecDeque<TailBatch>,
    pub(super) tail_bytes: usize,
    pub(super) watches: Vec<Arc<Watch>>,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: PartId,
    pub(super) name: TopicPartition,
    /// Whether the records must leave the disk when they expire.
    pub(super) erase: bool,
    pub(super) state: Mutex<PartState>,
}

/// What a look into memory came to.
#[derive(Debug)]
pub(super) enum Look {
    /// The records; none at the end.
    Here(Vec<Record>),
    /// Older than what memory holds; the end up to which may be read.
    InStore(Offset),
}

impl Part {
    pub(super) fn new(id: PartId, name: TopicPartition, erase: bool) -> Self {
        let state = PartState {
            first: 0,
            end: 0,
            running_max: Timestamp::from_millis(i64::MIN),
            front_time: None,
            garbage: false,
            deleted: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            watches: Vec::new(),
        };
        Self { id, name, erase, state: Mutex::new(state) }
    }

    pub(super) fn ends(&self) -> Result<PartitionEnds, ReadError> {
        let state = self.state.lock();
        if state.deleted {
            return Err(ReadError::UnknownPartition(self.name.clone()));
        }
        Ok(PartitionEnds { first: state.first, end: state.end })
    }

    /// Looks for records from `offset` on.
    pub(super) fn look(&self, offset: Offset, max_bytes: usize) -> Result<Look, ReadError> {
        let state = self.state.lock();
        self.check_offset(&state, offset)?;
        if offset == state.end {
            return Ok(Look::Here(Vec::new()));
        }
        let from = state.tail.partition_point(|batch| batch.last() < offset);
        match state.tail.get(from) {
            Some(batch) if batch.base() <= offset => {}
            Some(_) | None => return Ok(Look::InStore(state.end)),
        }
        let mut budget = max_bytes;
        let mut records = Vec::new();
        for batch in state.tail.range(from..) {
            let skip = batch.records.partition_point(|record| record.offset < offset);
            for record in &batch.records[skip..] {
                budget = budget.saturating_sub(stored_bytes(record));
                records.push(record.clone());
                if budget == 0 {
                    return Ok(Look::Here(records));
                }
            }
        }
        Ok(Look::Here(records))
    }

    /// Whether `offset` can be read at all.
    pub(super) fn check(&self, offset: Offset) -> Result<(), ReadError> {
        self.check_offset(&self.state.lock(), offset)
    }

    fn check_offset(&self, state: &PartState, offset: Offset) -> Result<(), ReadError> {
        let partition = || self.name.clone();
        if state.deleted {
            Err(ReadError::UnknownPartition(partition()))
        } else if offset < state.first {
            Err(ReadError::Trimmed { partition: partition(), offset, first: state.first })
        } else if offset > state.end {
            Err(ReadError::BeyondEnd { partition: partition(), offset, end: state.end })
        } else {
            Ok(())
        }
    }

    pub(super) fn watch(&self, watch: &Arc<Watch>) {
        self.state.lock().watches.push(Arc::clone(watch));
    }

    pub(super) fn unwatch(&self, watch: &Arc<Watch>) {
        self.state.lock().watches.retain(|other| !Arc::ptr_eq(other, watch));
    }

    pub(super) fn wake_all(&self) {
        for watch in &self.state.lock().watches {
            watch.wake();
        }
    }

    /// Marks the partition as gone and frees its memory. Returns the bytes freed.
    pub(super) fn delete(&self) -> usize {
        let mut state = self.state.lock();
        state.deleted = true;
        state.tail.clear();
        let freed = std::mem::take(&mut state.tail_bytes);
        for watch in &state.watches {
            watch.wake();
        }
        freed
    }
}

impl PartState {
    /// The sequence of the oldest batch in memory.
    pub(super) fn tail_front(&self) -> Option<u64> {
        self.tail.front().map(|batch| batch.sequence)
    }

    /// Forgets the oldest batch in memory. Returns its bytes.
    pub(super) fn pop_tail(&mut self) -> usize {
        let bytes = self.tail.pop_front().map_or(0, |batch| batch.bytes);
        self.tail_bytes = self.tail_bytes.saturating_sub(bytes);
        bytes
    }

    /// Forgets the batches that end before `first`. Returns their bytes.
    pub(super) fn trim_tail(&mut self) -> usize {
        let mut freed = 0;
        while self.tail.front().is_some_and(|batch| batch.last() < self.first) {
            freed += self.pop_tail();
        }
        freed
    }
}
