//! Facts on their way to `tidings.outcomes`.
//!
//! Facts gather by slot while a flush is under way; the next flush takes all of
//! them in one append over the outcomes partitions, so batches grow with load. One
//! flush at a time keeps the facts of a slot in order also when an append fails
//! and is tried again.

use std::collections::{BTreeMap, VecDeque};

use tidings_broker::{AppendBatch, AppendError, Appended, NewRecord};
use tidings_types::{OUTCOME_PARTITIONS, Offset, Partition, Slot, TopicPartition, names};

use crate::{
    records::{self, Delivery, Said},
    table::RowKey,
};

/// Facts in one record: about 200 bytes each without snippet, at most 1.6 KiB with
/// one, so that a record stays under its limit of 1 MiB.
const FACTS_PER_RECORD: usize = 500;
/// Records of one partition in one append.
const RECORDS_PER_APPEND: usize = 32;

/// A fact that the log has not acknowledged.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) row: RowKey,
    pub(crate) said: Said,
    /// The body, for the next attempt.
    pub(crate) body: Option<Delivery>,
}

/// The facts of one record.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) slot: Slot,
    pub(crate) took: Offset,
    pub(crate) facts: Vec<Pending>,
    record: NewRecord,
}

/// What one acknowledged record carries.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    pub(crate) sent: Sent,
    pub(crate) offset: Offset,
}

/// What a flush came to.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) failures: u64,
    pub(crate) fatal: Option<std::sync::Arc<str>>,
}

/// All facts that have not been acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    gathering: BTreeMap<(Slot, Offset), Vec<Pending>>,
    queues: BTreeMap<Partition, VecDeque<Sent>>,
    in_flight: Vec<(Partition, usize)>,
}

impl Outbox {
    pub(crate) fn push(&mut self, slot: Slot, took: Offset, pending: Pending) {
        self.gathering.entry((slot, took)).or_default().push(pending);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.queues.values().all(VecDeque::is_empty)
    }

    /// Encodes what has gathered and gives what to append now. Call only while no
    /// flush is under way; then [`Outbox::flushed`] with the results.
    pub(crate) fn flush(&mut self, named: impl Fn(Offset) -> Offset) -> Vec<AppendBatch> {
        for ((slot, took), facts) in std::mem::take(&mut self.gathering) {
            let queue = self.queues.entry(slot.outcome_partition()).or_default();
            let mut facts = facts.into_iter().peekable();
            while facts.peek().is_some() {
                let facts: Vec<Pending> = facts.by_ref().take(FACTS_PER_RECORD).collect();
                let said = facts.iter().map(|pending| &pending.said);
                let record = records::outcome_record(slot, named(took), said);
                queue.push_back(Sent { slot, took, facts, record });
            }
        }
        let mut batches = Vec::new();
        self.in_flight.clear();
        for partition in 0..OUTCOME_PARTITIONS {
            let Some(queue) = self.queues.get(&partition).filter(|queue| !queue.is_empty()) else {
                continue;
            };
            let records: Vec<NewRecord> =
                queue.iter().take(RECORDS_PER_APPEND).map(|sent| sent.record.clone()).collect();
            self.in_flight.push((partition, records.len()));
            batches
                .push(AppendBatch { to: TopicPartition::new(names::OUTCOMES, partition), records });
        }
        batches
    }

    /// Takes the results of the append of what [`Outbox::flush`] gave. What failed
    /// stays, in its order, for the next flush: a fact twice in the log changes
    /// nothing, because it carries totals.
    pub(crate) fn flushed(&mut self, results: Vec<Appended>) -> Flushed {
        let mut flushed = Flushed::default();
        for ((partition, count), result) in
            std::mem::take(&mut self.in_flight).into_iter().zip(results)
        {
            let offsets = match result {
                Ok(offsets) => offsets,
                Err(AppendError::Fatal(why)) => {
                    flushed.fatal = Some(why);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(partition, %error, "outcomes could not be appended; trying again");
                    flushed.failures += 1;
                    continue;
                }
            };
            let Some(queue) = self.queues.get_mut(&partition) else { continue };
            for (index, sent) in queue.drain(..count.min(queue.len())).enumerate() {
                let offset = offsets.get(index).unwrap_or_default();
                flushed.acknowledged.push(Acknowledged { sent, offset });
            }
        }
        flushed
    }
}
