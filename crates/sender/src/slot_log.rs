//! Writes to a slot's partition of `tidings.slots`, behind its fence.
//!
//! Rule: an owner checks that its record was acknowledged at the offset after its
//! previous one. A record that was not, or whose fate is unknown, makes it read
//! what stands between; another's `took` there ends its ownership.

use std::time::Duration;

use tidings_broker::{AppendBatch, AppendError, NewRecord, Offsets, ReadError};
use tidings_delivery::{Fence, Proof, SlotEvent};
use tidings_types::{Offset, Sabotage, Slot, Timestamp, TopicPartition, names};

use crate::{deps::Deps, records};

/// How much of a slot's partition is read at a time.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// How long to wait after a failed append before the next try.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

pub(crate) fn slot_partition(slot: Slot) -> TopicPartition {
    TopicPartition::new(names::SLOTS, slot.0)
}

pub(crate) fn outcome_partition(slot: Slot) -> TopicPartition {
    TopicPartition::new(names::OUTCOMES, slot.outcome_partition())
}

/// What an owner wants in its slot's log: checkpoints, then a mark.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) slot: Slot,
    pub(crate) fence: Fence,
    pub(crate) checkpoints: Vec<NewRecord>,
    /// Where the mark says that all checkpoints are complete up to.
    pub(crate) mark: Offset,
    pub(crate) time: Timestamp,
    /// All checkpoints are in here: trim what is before them.
    pub(crate) compacts: bool,
}

/// What became of the write of one slot.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) slot: Slot,
    /// The ownership that wrote: the slot may have been taken over again meanwhile.
    pub(crate) took: Offset,
    pub(crate) written: Written,
}

impl Done {
    fn new(write: &Write, written: Written) -> Self {
        Self { slot: write.slot, took: write.fence.took(), written }
    }
}

/// How a write ended.
#[derive(Debug)]
pub(crate) enum Written {
    /// All of it stands in the log, and proves the ownership.
    Owner { fence: Fence },
    /// Another has taken over.
    Lost,
    /// The log could not be reached; still the owner as far as is known.
    Failed { fence: Fence },
    /// The log is broken for good.
    Fatal(std::sync::Arc<str>),
}

/// A write on its way: what is left of it, and where its checkpoints begin.
struct Going {
    write: Write,
    first: Option<Offset>,
}

/// Writes for several slots with two appends: all checkpoints, then all marks.
pub(crate) async fn write(deps: &Deps, writes: Vec<Write>) -> Vec<Done> {
    let mut done = Vec::with_capacity(writes.len());
    let going = write_checkpoints(deps, writes, &mut done).await;
    deps.hit("sender.after_checkpoints_before_mark");
    let batches = going.iter().map(|going| mark_batch(deps, &going.write)).collect();
    let appended = append(deps, batches).await;
    for (Going { mut write, first }, result) in going.into_iter().zip(appended) {
        // Without any checkpoint the mark is the whole state.
        let first = first.or_else(|| result.as_ref().ok().and_then(Offsets::first));
        if let Some(outcome) = prove(deps, write.slot, &mut write.fence, result).await {
            done.push(Done::new(&write, outcome));
            continue;
        }
        if let (true, Some(first)) = (write.compacts, first)
            && let Err(error) = deps.broker.trim(&slot_partition(write.slot), first).await
        {
            tracing::warn!(slot = write.slot.0, %error, "a slot's log could not be trimmed; the next compaction tries again");
        }
        done.push(Done::new(&write, Written::Owner { fence: write.fence }));
    }
    done
}

async fn write_checkpoints(
    deps: &Deps,
    mut writes: Vec<Write>,
    done: &mut Vec<Done>,
) -> Vec<Going> {
    let mut batches = Vec::new();
    for write in writes.iter_mut().filter(|write| !write.checkpoints.is_empty()) {
        let records = std::mem::take(&mut write.checkpoints);
        batches.push(AppendBatch { to: slot_partition(write.slot), records });
    }
    let slots: Vec<u32> = batches.iter().map(|batch| batch.to.partition).collect();
    let appended = append(deps, batches).await;
    let mut results: std::collections::BTreeMap<u32, _> = slots.into_iter().zip(appended).collect();
    let mut going = Vec::with_capacity(writes.len());
    for mut write in writes {
        let Some(result) = results.remove(&write.slot.0) else {
            going.push(Going { write, first: None });
            continue;
        };
        let first = result.as_ref().ok().and_then(Offsets::first);
        match prove(deps, write.slot, &mut write.fence, result).await {
            Some(outcome) => done.push(Done::new(&write, outcome)),
            None => going.push(Going { write, first }),
        }
    }
    going
}

fn mark_batch(deps: &Deps, write: &Write) -> AppendBatch {
    let took = named(deps, write.fence.took());
    let mark = records::mark_record(write.slot, took, write.mark, write.time);
    AppendBatch { to: slot_partition(write.slot), records: vec![mark] }
}

async fn append(deps: &Deps, batches: Vec<AppendBatch>) -> Vec<tidings_broker::Appended> {
    if batches.is_empty() { Vec::new() } else { deps.broker.append(batches).await }
}

/// The `took` that a record names. Rule: records name their owner's `took`.
pub(crate) fn named(deps: &Deps, took: Offset) -> Offset {
    if deps.sabotage.is(Sabotage::RecordsWithoutTook) { Offset::MAX } else { took }
}

/// Looks at an acknowledgement. `None`: still the owner, go on.
pub(crate) async fn prove(
    deps: &Deps,
    slot: Slot,
    fence: &mut Fence,
    result: Result<Offsets, AppendError>,
) -> Option<Written> {
    let (from, to) = match result {
        Ok(offsets) => {
            let (first, last) = (offsets.first()?, offsets.last()?);
            match fence.acknowledged(first, last) {
                Proof::Owner => return None,
                Proof::ReadBetween { from, to } => (from, Some(to)),
            }
        }
        Err(AppendError::Unknown) => (fence.next(), None),
        Err(AppendError::Fatal(why)) => return Some(Written::Fatal(why)),
        Err(
            error @ (AppendError::UnknownTopic(_)
            | AppendError::UnknownPartition(_)
            | AppendError::TooLarge { .. }
            | AppendError::NoSpace
            | AppendError::Unavailable),
        ) => {
            tracing::warn!(slot = slot.0, %error, "a slot's log could not be written");
            deps.metrics.append_retries.inc();
            return Some(Written::Failed { fence: *fence });
        }
    };
    if deps.sabotage.is(Sabotage::NoConsecutiveOffsetCheck) {
        return None;
    }
    match another_took(deps, slot, from, to).await {
        Ok(Between::Another) => Some(Written::Lost),
        Ok(Between::Nobody { next }) => {
            fence.seen(next);
            // What was not acknowledged is written again.
            to.is_none().then_some(Written::Failed { fence: *fence })
        }
        Err(error) => {
            tracing::warn!(slot = slot.0, %error, "a slot's log could not be read; taking over again");
            Some(Written::Lost)
        }
    }
}

enum Between {
    Another,
    Nobody { next: Offset },
}

/// Whether a `took` stands in a slot's partition from `from` up to `to` (to its
/// end without one).
async fn another_took(
    deps: &Deps,
    slot: Slot,
    from: Offset,
    to: Option<Offset>,
) -> Result<Between, ReadError> {
    let partition = slot_partition(slot);
    let mut next = from;
    loop {
        let read = deps.broker.read(&partition, next, READ_BYTES).await?;
        let Some(last) = read.last().map(|record| record.offset) else {
            return match to {
                // A record stands at `to`, so what is before it was not all read.
                Some(to) if next < to => Err(ReadError::Unavailable),
                Some(_) | None => Ok(Between::Nobody { next }),
            };
        };
        for record in &read {
            if to.is_some_and(|to| record.offset >= to) {
                return Ok(Between::Nobody { next });
            }
            if matches!(records::slot_event(record), Some((_, SlotEvent::Took))) {
                return Ok(Between::Another);
            }
        }
        next = last + 1;
    }
}
