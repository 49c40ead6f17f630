//! Taking over slots (design §5): fold the registry to its end; append `took`; read
//! each slot's partition up to it; fold `tidings.outcomes` from the last mark to
//! its end, each partition once for all slots; look whether delivery partitions
//! lost their tails; write the checkpoints that this changed and a mark; only then
//! go on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::{StreamExt as _, stream};
use tidings_broker::{AppendBatch, ReadError};
use tidings_delivery::{At, Checkpoint, Fence, SlotFold};
use tidings_types::{
    NotificationId, Offset, Partition, RunId, Sabotage, Slot, Timestamp, TopicPartition, WebhookId,
    names,
};

use crate::{
    config::Config,
    deps::Deps,
    records,
    slot_log::{self, Done, READ_BYTES, RETRY, Write, Written, slot_partition},
};

/// Tails that are looked at at the same time.
const TAILS_AT_ONCE: usize = 64;
/// Slots whose logs are read at the same time. One after the other, a broker that
/// does not answer would be waited for once per slot.
const SLOTS_AT_ONCE: usize = 16;

/// A slot that is owned now.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) slot: Slot,
    pub(crate) fence: Fence,
    /// Where the mark stands in the slot's outcomes partition.
    pub(crate) position: Offset,
    pub(crate) log_bytes: usize,
    pub(crate) checkpoints: BTreeMap<(WebhookId, Partition), Checkpoint>,
    /// The time of the `took`, by the log.
    pub(crate) took_at: Timestamp,
}

/// An id and run that outcomes told of, and where the record stands.
pub(crate) type Told = (NotificationId, RunId, At);

/// What a takeover came to.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    pub(crate) taken: Vec<Taken>,
    /// To be taken over again, if the group still names them.
    pub(crate) failed: Vec<Slot>,
    pub(crate) told: BTreeMap<WebhookId, VecDeque<Told>>,
    pub(crate) fatal: Option<std::sync::Arc<str>>,
}

struct Folding {
    slot: Slot,
    fence: Fence,
    fold: SlotFold,
    log_bytes: usize,
    took_at: Timestamp,
    position: Offset,
}

/// Takes over `slots`.
pub(crate) async fn take(deps: &Deps, config: &Config, slots: Vec<Slot>) -> Takeover {
    let mut takeover = Takeover::default();
    while let Err(error) = deps.webhooks.fold_to_end().await {
        tracing::warn!(%error, "a takeover waits for the registry");
        deps.clock.sleep(RETRY).await;
    }
    let took = append_took(deps, slots, &mut takeover).await;
    let reads: Vec<_> = took
        .into_iter()
        .map(|(slot, took)| async move { (slot, read_slot(deps, config, slot, took).await) })
        .collect();
    let mut folding = Vec::new();
    let mut read = stream::iter(reads).buffered(SLOTS_AT_ONCE);
    while let Some((slot, read)) = read.next().await {
        match read {
            Ok(read) => folding.push(read),
            Err(error) => {
                tracing::warn!(slot = slot.0, %error, "a slot's log could not be read");
                takeover.failed.push(slot);
            }
        }
    }
    drop(read);
    fold_outcomes(deps, config, &mut folding, &mut takeover).await;
    finish(deps, config, folding, &mut takeover).await;
    takeover
}

async fn append_took(
    deps: &Deps,
    slots: Vec<Slot>,
    takeover: &mut Takeover,
) -> Vec<(Slot, Offset)> {
    let mut owner = [0; 16];
    deps.rng.fill(&mut owner);
    let batches = slots
        .iter()
        .map(|slot| AppendBatch {
            to: slot_partition(*slot),
            records: vec![records::took_record(*slot, owner, deps.clock.now())],
        })
        .collect();
    let appended = deps.broker.append(batches).await;
    deps.hit("sender.after_took");
    let mut took = Vec::new();
    for (slot, result) in slots.into_iter().zip(appended) {
        match result {
            Ok(offsets) => match offsets.first() {
                Some(offset) => took.push((slot, offset)),
                None => takeover.failed.push(slot),
            },
            Err(tidings_broker::AppendError::Fatal(why)) => takeover.fatal = Some(why),
            Err(error) => {
                tracing::warn!(slot = slot.0, %error, "a slot could not be taken over");
                takeover.failed.push(slot);
            }
        }
    }
    took
}

/// Reads a slot's partition from its start up to one's own `took`.
async fn read_slot(
    deps: &Deps,
    config: &Config,
    slot: Slot,
    took: Offset,
) -> Result<Folding, ReadError> {
    let failing_after = config.limits.failing_after;
    let partition = slot_partition(slot);
    let mut next = deps.broker.ends(&partition).await?.first;
    let mut fold = SlotFold::new(deps.sabotage, failing_after);
    let mut log_bytes = 0;
    let mut took_at = deps.clock.now();
    while next <= took {
        let read = match deps.broker.read(&partition, next, READ_BYTES).await {
            Ok(read) => read,
            // Trimmed meanwhile: from the new start, with nothing of before.
            Err(ReadError::Trimmed { first, .. }) if first <= took => {
                next = first;
                fold = SlotFold::new(deps.sabotage, failing_after);
                log_bytes = 0;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(last) = read.last().map(|record| record.offset) else {
            // Own took is not readable yet: the end moves in a moment.
            deps.clock.sleep(RETRY).await;
            continue;
        };
        for record in read.iter().filter(|record| record.offset <= took) {
            log_bytes += record.value.as_ref().map_or(0, bytes::Bytes::len) + 20;
            if record.offset == took {
                took_at = record.timestamp;
            }
            match records::slot_event(record) {
                Some((named, event)) => fold.slot_record(record.offset, named, event),
                None => {
                    deps.metrics.undecodable.inc();
                    tracing::error!(
                        slot = slot.0,
                        offset = record.offset,
                        "a record of a slot's log does not decode and is void"
                    );
                }
            }
        }
        next = last + 1;
    }
    Ok(Folding { slot, fence: Fence::new(took), fold, log_bytes, took_at, position: 0 })
}

/// Folds each outcomes partition once, for all slots that are being taken over.
async fn fold_outcomes(
    deps: &Deps,
    config: &Config,
    folding: &mut Vec<Folding>,
    takeover: &mut Takeover,
) {
    let partitions: BTreeSet<Partition> =
        folding.iter().map(|f| f.slot.outcome_partition()).collect();
    let mut failed = BTreeSet::new();
    for partition in partitions {
        let mut of: Vec<&mut Folding> =
            folding.iter_mut().filter(|f| f.slot.outcome_partition() == partition).collect();
        if let Err(error) =
            fold_partition(deps, config, partition, &mut of, &mut takeover.told).await
        {
            tracing::warn!(partition, %error, "outcomes could not be read for a takeover");
            failed.extend(of.iter().map(|f| f.slot));
        }
    }
    folding.retain(|f| !failed.contains(&f.slot));
    takeover.failed.extend(failed);
}

async fn fold_partition(
    deps: &Deps,
    config: &Config,
    partition: Partition,
    folding: &mut [&mut Folding],
    told: &mut BTreeMap<WebhookId, VecDeque<Told>>,
) -> Result<(), ReadError> {
    let of = TopicPartition::new(names::OUTCOMES, partition);
    let ends = deps.broker.ends(&of).await?;
    let marks = folding.iter().map(|f| f.fold.mark().map_or(ends.first, |m| m.outcomes_next));
    let first_mark = marks.min().unwrap_or(ends.end);
    let mut next = first_mark.saturating_sub(config.refill_records).max(ends.first);
    while next < ends.end {
        let read = match deps.broker.read(&of, next, READ_BYTES).await {
            Err(ReadError::Trimmed { first, .. }) => {
                next = first;
                continue;
            }
            read => read?,
        };
        // The end was further than this: what is not read now is not nothing.
        let last = read.last().map(|record| record.offset).ok_or(ReadError::Unavailable)?;
        for record in &read {
            let Some((slot, seen)) = records::outcomes_seen(record) else {
                deps.metrics.undecodable.inc();
                continue;
            };
            let Some(folding) = folding.iter_mut().find(|f| f.slot == slot) else { continue };
            let counts = folding.fold.mark().is_none_or(|mark| record.offset >= mark.outcomes_next);
            for seen in &seen {
                let ids = told.entry(seen.webhook).or_default();
                ids.push_back((seen.entry.notification, seen.entry.run, seen.entry.at));
                if ids.len() > config.limits.remembered {
                    ids.pop_front();
                }
                if counts {
                    folding.fold.outcome(seen);
                }
            }
        }
        next = last + 1;
    }
    for folding in folding {
        folding.position = ends.end;
    }
    Ok(())
}

/// Looks at the tails, writes what changed and the marks.
async fn finish(deps: &Deps, config: &Config, folding: Vec<Folding>, takeover: &mut Takeover) {
    let mut writes = Vec::new();
    let mut taken = BTreeMap::new();
    for folding in folding {
        let Folding { slot, fence, fold, log_bytes, took_at, position } = folding;
        if fold.void() + fold.disagreeing() > 0 {
            tracing::info!(
                slot = slot.0,
                void = fold.void(),
                disagreeing = fold.disagreeing(),
                "a takeover passed over records of an earlier owner or outcomes that disagree"
            );
            deps.metrics.disagreeing.inc_by(fold.disagreeing());
        }
        let (mut checkpoints, mut changed) = fold.finish();
        let known: BTreeSet<WebhookId> =
            deps.webhooks.in_slot(slot).iter().map(|webhook| webhook.id).collect();
        checkpoints.retain(|(webhook, _), _| known.contains(webhook));
        changed.retain(|(webhook, _)| known.contains(webhook));
        for (of, first) in lost_tails(deps, &checkpoints).await {
            if let Some(checkpoint) = checkpoints.get_mut(&of) {
                tracing::error!(webhook = %of.0, partition = of.1, next = checkpoint.next, "a delivery partition lost its tail; it is read again from its start");
                deps.metrics.lost_tails.inc();
                checkpoint.lost_tail(first);
                takeover.told.remove(&of.0);
                changed.insert(of);
            }
        }
        let took = slot_log::named(deps, fence.took());
        let records = changed
            .iter()
            .filter_map(|of| Some((of, checkpoints.get(of)?.clone())))
            .flat_map(|((webhook, partition), checkpoint)| {
                checkpoint.into_parts(*webhook, *partition, 0, config.part_entries)
            })
            .map(|part| records::checkpoint_record(slot, took, &part))
            .collect();
        if deps.sabotage.is(Sabotage::NoRefill) {
            takeover.told.clear();
        }
        writes.push(Write {
            slot,
            fence,
            checkpoints: records,
            mark: position,
            time: deps.clock.now(),
            compacts: false,
        });
        taken.insert(slot, Taken { slot, fence, position, log_bytes, checkpoints, took_at });
    }
    if deps.sabotage.is(Sabotage::NoTakeoverCheckpoint) {
        takeover.taken.extend(taken.into_values());
        return;
    }
    // Rule: a takeover writes checkpoints and a mark before it goes on.
    for Done { slot, written, .. } in slot_log::write(deps, writes).await {
        match written {
            Written::Owner { fence } => {
                takeover.taken.extend(taken.remove(&slot).map(|t| Taken { fence, ..t }));
            }
            Written::Lost | Written::Failed { .. } => takeover.failed.push(slot),
            Written::Fatal(why) => takeover.fatal = Some(why),
        }
    }
}

/// The partitions whose record before the next one is not the one that the
/// checkpoint names, with the offset to read them from.
async fn lost_tails(
    deps: &Deps,
    checkpoints: &BTreeMap<(WebhookId, Partition), Checkpoint>,
) -> Vec<((WebhookId, Partition), Offset)> {
    let looks: Vec<_> = checkpoints
        .iter()
        .filter(|(_, checkpoint)| checkpoint.next > 0)
        .map(|(of, checkpoint)| {
            look_at_tail(deps.clone(), *of, checkpoint.next - 1, checkpoint.last)
        })
        .collect();
    let found: Vec<_> = stream::iter(looks).buffered(TAILS_AT_ONCE).collect().await;
    found.into_iter().flatten().collect()
}

/// Whether another record or none stands at `before`; then where the partition
/// begins.
async fn look_at_tail(
    deps: Deps,
    (webhook, partition): (WebhookId, Partition),
    before: Offset,
    expected: Option<(NotificationId, RunId)>,
) -> Option<((WebhookId, Partition), Offset)> {
    let of = TopicPartition::new(names::delivery(webhook), partition);
    let lost = match deps.broker.read(&of, before, 1).await {
        Ok(read) => match (read.first().filter(|record| record.offset == before), expected) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(record), Some(expected)) => records::arrived(record)
                .is_none_or(|found| (found.notification, found.run) != expected),
        },
        Err(ReadError::BeyondEnd { .. }) => true,
        // Trimmed behind us, deleted, or not readable now: nothing says that the
        // tail is gone.
        Err(
            ReadError::Trimmed { .. }
            | ReadError::UnknownPartition(_)
            | ReadError::Unavailable
            | ReadError::Damaged { .. },
        ) => false,
    };
    if !lost {
        return None;
    }
    let first = deps.broker.ends(&of).await.ok()?.first;
    Some(((webhook, partition), first))
}
