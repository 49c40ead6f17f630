//! The regular work, once per checkpoint interval: checkpoints and marks, trims,
//! deleted webhooks, partitions that could not be read, metrics.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tidings_broker::ReadError;
use tidings_delivery::{Condition, Part};
use tidings_egress::Target;
use tidings_types::{Lane, Offset, Partition, Sabotage, Slot};

use super::Running;
use crate::{
    records,
    slot_log::{self, Done, Write, Written},
    table::RowKey,
};

/// A checkpoint of so many bytes is written once per interval; a larger one less
/// often in proportion, up to [`LONGEST_INTERVAL`].
const LIGHT_CHECKPOINT: usize = 256 << 10;
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// A slot's log is written anew when it holds more than this...
const COMPACT_BYTES: usize = 1 << 20;

/// Work beside the loop.
pub(super) enum Chore {
    /// The registry was told something about a webhook, or could not be.
    Told(RowKey),
    /// A delivery partition was trimmed, or could not be.
    Trimmed,
    /// The endpoint of a webhook, at this URL, was looked for.
    Looked(RowKey, Arc<Target>, Option<bool>),
    /// Where outcomes partitions end, for slots that had said `said` facts.
    Ends { slot: Slot, said: u64, end: Result<Offset, ReadError> },
}

/// What a cut needs of the log, to be given back when its mark stands.
pub(super) struct Cut {
    row: RowKey,
    partition: Partition,
    needed: Offset,
}

impl Running {
    pub(super) fn tick(&mut self) {
        let mono = self.mono();
        if mono < self.next_tick {
            return;
        }
        self.next_tick = mono + self.config.checkpoint_interval;
        self.ask_idle_ends();
        self.probe();
        self.look_at_certificates();
        if self.write.is_none() && self.leaving.is_none() {
            let unproven: BTreeSet<Slot> = self.unproven().collect();
            let due: BTreeSet<Slot> = self
                .table
                .owners
                .iter()
                .filter(|(_, owner)| owner.next_write <= mono)
                .map(|(slot, _)| *slot)
                .chain(unproven)
                .collect();
            self.write_slots(&due);
        } else if self.unproven().next().is_some() {
            // Asked as soon as the write under way has ended.
            self.next_tick = mono + Duration::from_millis(10);
        }
        for key in self.table.keys() {
            self.look_at_deleted(key);
            self.settle(key);
        }
        self.bound_remembered();
        self.set_metrics();
    }

    /// Cuts what changed in these slots and writes it with a mark. The state and
    /// the mark's position are of one moment.
    pub(super) fn write_slots(&mut self, slots: &BTreeSet<Slot>) {
        let mut writes = Vec::new();
        for slot in slots {
            if let Some(write) = self.cut_slot(*slot) {
                writes.push(write);
            }
        }
        if writes.is_empty() {
            return;
        }
        let deps = self.deps.clone();
        self.write = Some(Box::pin(async move { slot_log::write(&deps, writes).await }));
    }

    fn cut_slot(&mut self, slot: Slot) -> Option<Write> {
        let mono = self.deps.clock.monotonic();
        let time = self.deps.clock.now();
        let owner = self.table.owners.get(&slot).filter(|owner| !owner.is_writing)?;
        let rows: Vec<RowKey> = owner.rows.iter().copied().collect();
        let (fence, position, log_bytes, cut) =
            (owner.fence, owner.position, owner.log_bytes, owner.cut);
        let must_prove = !owner.is_proven;
        let is_marked = owner.marked == position;
        let all: usize = rows
            .iter()
            .filter_map(|key| self.table.get(*key))
            .map(|row| row.checkpoint_bytes.iter().sum::<usize>())
            .sum();
        let compacts = log_bytes > COMPACT_BYTES && log_bytes > 2 * all;
        let took = slot_log::named(&self.deps, fence.took());
        let mut checkpoints = Vec::new();
        let mut written = 0;
        for key in &rows {
            for partition in [0, 1] {
                let Some(parts) = self.cut_partition(*key, partition, cut, compacts) else {
                    continue;
                };
                let mut bytes = 0;
                for part in &parts {
                    let record = records::checkpoint_record(slot, took, part);
                    bytes += records::stored_size(&record);
                    checkpoints.push(record);
                }
                written += bytes;
                if let Some(row) = self.table.get_mut(*key)
                    && let Some(place) = row.checkpoint_bytes.get_mut(usize::from(partition == 1))
                {
                    *place = bytes;
                }
            }
        }
        if checkpoints.is_empty() && is_marked && !must_prove {
            return None;
        }
        self.deps.metrics.checkpoint_bytes.inc_by(u64::try_from(written).unwrap_or(0));
        let interval = self.config.checkpoint_interval;
        let factor = u32::try_from(written / LIGHT_CHECKPOINT).unwrap_or(u32::MAX).max(1);
        let owner = self.table.owners.get_mut(&slot)?;
        owner.is_writing = true;
        owner.cut += 1;
        owner.marked = position;
        owner.log_bytes = if compacts { written } else { owner.log_bytes + written };
        owner.log_bytes += 32;
        owner.next_write =
            mono + interval.saturating_mul(factor).min(LONGEST_INTERVAL.max(interval));
        Some(Write { slot, fence, checkpoints, mark: position, time, compacts })
    }

    fn cut_partition(
        &mut self,
        key: RowKey,
        partition: Partition,
        cut: u64,
        compacts: bool,
    ) -> Option<Vec<Part>> {
        let sabotage = self.deps.sabotage;
        let row = self.table.get_mut(key)?;
        if !(row.hook.is_changed(partition) || compacts) {
            return None;
        }
        let webhook = row.webhook.id;
        let (checkpoint, needed) = row.hook.cut(partition, sabotage)?;
        self.cuts.push(Cut { row: key, partition, needed });
        let mut parts = checkpoint.into_parts(webhook, partition, cut, self.config.part_entries);
        if sabotage.is(Sabotage::MixedCheckpointParts) {
            let before = self.mixed.insert((webhook, partition), parts.clone());
            for (part, old) in parts.iter_mut().zip(before.unwrap_or_default()) {
                if part.part % 2 == 1 && old.parts == part.parts {
                    part.share = old.share;
                }
            }
        }
        Some(parts)
    }

    pub(super) fn written(&mut self, written: Vec<Done>) {
        let mono = self.mono();
        let cuts = std::mem::take(&mut self.cuts);
        let mut failed = BTreeSet::new();
        let mut lost = Vec::new();
        for Done { slot, took, written } in written {
            if let Written::Fatal(why) = &written {
                self.fatal = Some(Arc::clone(why));
            }
            // What an earlier ownership wrote says nothing of a later one.
            let owner = self.table.owners.get_mut(&slot);
            let Some(owner) = owner.filter(|owner| owner.fence.took() == took) else { continue };
            owner.is_writing = false;
            match written {
                Written::Owner { fence } => {
                    owner.fence = fence;
                    owner.marked_at = mono;
                    if !owner.is_proven {
                        owner.is_proven = true;
                        let rows: Vec<RowKey> = owner.rows.iter().copied().collect();
                        for key in rows {
                            self.table.make_ready(key);
                        }
                    }
                }
                Written::Failed { fence } => {
                    owner.fence = fence;
                    // Asks for another mark.
                    owner.marked = Offset::MAX;
                    failed.insert(slot);
                }
                Written::Lost => lost.push(slot),
                Written::Fatal(_told) => {}
            }
        }
        for slot in lost {
            self.lost(slot);
        }
        for Cut { row: key, partition, needed } in cuts {
            let Some(row) = self.table.get_mut(key) else { continue };
            if failed.contains(&row.slot) {
                row.hook.touch(partition);
            } else {
                row.hook.marked(partition, needed);
                self.trim(key, partition);
            }
        }
    }

    /// Trims a delivery partition behind its oldest open notification, by the state
    /// of the mark that was acknowledged just now.
    fn trim(&mut self, key: RowKey, partition: Partition) {
        let (worth, sabotage) = (self.config.trim_records, self.deps.sabotage);
        let Some(row) = self.table.get_mut(key) else { return };
        let Some(before) = row.hook.trim_to(partition, worth, sabotage) else { return };
        let (of, broker) = (row.partition(partition), self.deps.broker.clone());
        self.chores.push(Box::pin(async move {
            if let Err(error) = broker.trim(&of, before).await {
                tracing::warn!(%of, %error, "a delivery partition could not be trimmed; the next trim covers it");
            }
            Chore::Trimmed
        }));
    }

    /// An idle owner's mark may be the end of its outcomes partition, so that a
    /// fold is short however idle the webhooks are.
    fn ask_idle_ends(&mut self) {
        let mono = self.mono();
        let idle: Vec<(Slot, u64)> = self
            .table
            .owners
            .iter_mut()
            .filter(|(_, owner)| {
                owner.unacknowledged == 0
                    && !owner.is_writing
                    && mono.since(owner.marked_at) >= self.config.idle_mark
            })
            .map(|(slot, owner)| {
                owner.marked_at = mono;
                (*slot, owner.said)
            })
            .collect();
        for (slot, said) in idle {
            let broker = self.deps.broker.clone();
            self.chores.push(Box::pin(
                async move { broker.ends(&slot_log::outcome_partition(slot)).await }
                    .map(move |ends| Chore::Ends { slot, said, end: ends.map(|ends| ends.end) }),
            ));
        }
    }

    pub(super) fn chore_done(&mut self, chore: Chore) {
        match chore {
            Chore::Told(key) => {
                if let Some(row) = self.table.get_mut(key) {
                    row.is_telling = false;
                }
            }
            Chore::Trimmed => {}
            // Only one that is found says something: those that are not found stand still
            // already, or were found before, and go on.
            Chore::Looked(key, target, found) => {
                let found = found.filter(|found| *found && self.has_target(key, &target));
                self.looked(key, found);
            }
            Chore::Ends { slot, said, end } => {
                let Some(owner) = self.table.owners.get_mut(&slot) else { return };
                match end {
                    // Nothing was said since: the state is complete up to that end.
                    Ok(end) if owner.said == said && owner.unacknowledged == 0 => {
                        owner.position = owner.position.max(end);
                        owner.marked = Offset::MAX;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(slot = slot.0, %error, "an idle slot could not be marked; trying again in a minute");
                    }
                }
            }
        }
    }

    fn set_metrics(&mut self) {
        let counts = std::mem::take(&mut self.process.counts);
        let metrics = &self.deps.metrics;
        metrics.duplicates.inc_by(counts.duplicates);
        metrics.disagreeing.inc_by(counts.disagreeing);
        metrics.skipped.inc_by(counts.skipped);
        metrics.lost.inc_by(counts.lost);
        metrics.breakers_opened.inc_by(counts.breakers_opened);
        metrics.breakers_closed.inc_by(counts.breakers_closed);
        metrics.silences.inc_by(counts.silences);
        metrics.suspects.set(i64::try_from(self.process.suspects).unwrap_or(i64::MAX));
        let mut webhooks = Condition::ALL.map(|condition| (condition, 0));
        for key in self.table.keys() {
            let Some(condition) = self.table.get(key).map(|row| row.hook.gate().condition()) else {
                continue;
            };
            webhooks.iter_mut().filter(|(of, _)| *of == condition).for_each(|(_, n)| *n += 1);
        }
        metrics.set_webhooks(webhooks);
        let now = self.now();
        for (lane, in_flight) in
            [Lane::Standard, Lane::Urgent].into_iter().zip(self.process.in_flight)
        {
            let oldest = self
                .table
                .keys()
                .into_iter()
                .filter_map(|key| self.table.get(key)?.hook.oldest_first_attempt(lane))
                .min();
            metrics.set_oldest(lane.as_str(), oldest.map_or(0, |first| now.since(first).as_secs()));
            metrics.set_in_flight(lane.as_str(), in_flight);
        }
    }
}
