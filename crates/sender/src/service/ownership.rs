//! Which slots are ours: the group, takeovers, leaving, stopping.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tidings_broker::{GroupError, GroupEvent};
use tidings_delivery::{Checkpoint, Hook};
use tidings_types::{Instant, Partition, Sabotage, Slot, WebhookId};

use super::{RecordClock, Running};
use crate::{
    slot_log,
    table::{RowKey, SlotOwner},
    takeover::{self, Taken, Takeover},
    webhook::Webhook,
};

/// How long to wait before a slot that could not be taken over is tried again.
const RETAKE: Duration = Duration::from_millis(200);

/// Slots that go to another: nothing new starts, what is in flight may end until
/// `until`, then its outcomes and a last checkpoint are written. The group is not
/// polled meanwhile, so the next owner waits for that.
#[derive(Debug)]
pub(super) struct Leaving {
    slots: BTreeSet<Slot>,
    until: Instant,
    /// The last checkpoints were asked for.
    is_written: bool,
}

impl Leaving {
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.slots.contains(&slot)
    }
}

impl Running {
    pub(super) fn group_event(&mut self, event: Result<GroupEvent, GroupError>) {
        match event {
            Ok(GroupEvent::Assigned(partitions)) => {
                let now = self.mono();
                for slot in partitions.into_iter().map(Slot) {
                    self.assigned.insert(slot);
                    self.to_take.insert(slot, now);
                }
            }
            Ok(GroupEvent::Revoked(partitions)) => {
                let slots: BTreeSet<Slot> = partitions.into_iter().map(Slot).collect();
                for slot in &slots {
                    self.assigned.remove(slot);
                    self.to_take.remove(slot);
                }
                let until = self.mono() + self.config.session / 4;
                self.leaving = Some(Leaving { slots, until, is_written: false });
            }
            Err(GroupError::Expelled(group)) => {
                tracing::warn!(%group, "this sender did not poll in time; its slots go to others and it joins anew");
                self.assigned.clear();
                self.to_take.clear();
                let owned: Vec<Slot> = self.table.owners.keys().copied().collect();
                for slot in owned {
                    self.drop_slot(slot);
                }
                self.group = None;
                self.liveness = None;
                self.next_join = self.mono();
            }
            Err(error @ (GroupError::Unavailable | GroupError::NoSpace)) => {
                tracing::warn!(%error, "the sender's group cannot be polled; trying again");
                // The slots stay until the fence or the group says otherwise;
                // nothing starts without a fresh sign of life.
                self.next_join = self.mono() + Duration::from_millis(250);
            }
        }
    }

    /// Forgets a slot and all that belongs to it.
    pub(super) fn drop_slot(&mut self, slot: Slot) {
        let Some(owner) = self.table.owners.get(&slot) else { return };
        let rows: Vec<RowKey> = owner.rows.iter().copied().collect();
        for key in rows {
            self.drop_row(key);
        }
        self.table.owners.remove(&slot);
        self.deps.metrics.slots_lost.inc();
        self.set_slots_metric();
    }

    pub(super) fn drop_row(&mut self, key: RowKey) {
        let Some(mut row) = self.table.remove(key) else { return };
        for partition in [0, 1] {
            self.readers.unassign(&row.partition(partition));
        }
        row.hook.release(&mut self.process);
        self.process.hooks = self.table.len();
        self.forget_way(&row.webhook);
    }

    fn set_slots_metric(&self) {
        self.deps.metrics.slots.set(i64::try_from(self.table.owners.len()).unwrap_or(i64::MAX));
    }

    /// The ownership of a slot is over although the group names it. Rule: takes
    /// over again if the group still names it.
    pub(super) fn lost(&mut self, slot: Slot) {
        tracing::warn!(slot = slot.0, "another sender took a slot over, or its log says so");
        self.drop_slot(slot);
        if self.assigned.contains(&slot) && !self.deps.sabotage.is(Sabotage::NoRetake) {
            self.to_take.insert(slot, self.mono() + RETAKE);
        }
    }

    pub(super) fn start_takeover(&mut self) {
        if self.takeover.is_some() || self.stopping || self.leaving.is_some() {
            return;
        }
        let now = self.mono();
        let due: Vec<Slot> =
            self.to_take.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect();
        // A slot that the group hands out a second time is taken over anew: its
        // ownership was lost in between.
        let due: Vec<Slot> = due
            .into_iter()
            .filter(|slot| self.table.owners.get(slot).is_none_or(|owner| !owner.is_writing))
            .collect();
        if due.is_empty() {
            return;
        }
        for slot in &due {
            self.to_take.remove(slot);
            self.drop_slot(*slot);
        }
        self.taking = due.iter().copied().collect();
        let (deps, config) = (self.deps.clone(), self.config.clone());
        self.takeover = Some(Box::pin(async move { takeover::take(&deps, &config, due).await }));
    }

    pub(super) fn taken_over(&mut self, takeover: Takeover) {
        let Takeover { taken, failed, told, fatal } = takeover;
        self.taking.clear();
        if fatal.is_some() {
            self.fatal = fatal;
            return;
        }
        let retry = self.mono() + RETAKE;
        for slot in failed {
            if self.assigned.contains(&slot) {
                self.to_take.insert(slot, retry);
            }
        }
        self.look_at_pauses();
        for taken in taken {
            // Revoked meanwhile, or to be taken over again already.
            if !self.assigned.contains(&taken.slot) || self.to_take.contains_key(&taken.slot) {
                continue;
            }
            self.own(taken);
        }
        for (webhook, ids) in told {
            let Some(row) = self.table.by_id(webhook).and_then(|key| self.table.get_mut(key))
            else {
                continue;
            };
            for (notification, run, at) in ids {
                row.hook.refill(notification, run, at, &mut self.process);
            }
        }
        self.bound_remembered();
        for key in self.table.keys() {
            self.table.make_ready(key);
            self.settle(key);
        }
        self.set_slots_metric();
    }

    fn own(&mut self, taken: Taken) {
        let Taken { slot, fence, position, log_bytes, checkpoints, took_at } = taken;
        let mono = self.mono();
        if took_at > self.now() {
            self.clock = RecordClock { anchor: took_at, at: mono };
        }
        self.deps.metrics.takeovers.inc();
        self.table.owners.insert(
            slot,
            SlotOwner {
                fence,
                rows: BTreeSet::new(),
                position,
                marked: position,
                marked_at: mono,
                unacknowledged: 0,
                said: 0,
                log_bytes,
                cut: 1,
                next_write: mono + self.config.checkpoint_interval,
                is_writing: false,
                is_proven: true,
            },
        );
        for webhook in self.deps.webhooks.in_slot(slot) {
            self.add_row(slot, webhook, &checkpoints);
        }
    }

    /// Takes on a webhook, as its checkpoints have it.
    pub(super) fn add_row(
        &mut self,
        slot: Slot,
        webhook: Arc<Webhook>,
        checkpoints: &BTreeMap<(WebhookId, Partition), Checkpoint>,
    ) -> RowKey {
        let now = self.now();
        let rules = webhook.rules(&self.config.ladders);
        let (id, partitions) = (webhook.id, webhook.partitions.clamp(1, 2));
        let mut hook = Hook::new(id, webhook.standing, rules);
        self.process.hooks = self.table.len() + 1;
        for partition in 0..2 {
            match checkpoints.get(&(id, partition)) {
                Some(checkpoint) => {
                    hook.restore(partition, checkpoint, now, &mut self.process);
                }
                // A partition of which nothing is known is read from its start.
                None if partition < partitions => hook.add_partition(partition, 0),
                None => {}
            }
        }
        if let Some(suspended) = &webhook.suspended {
            hook.suspended(suspended);
        }
        let key = self.table.insert(slot, webhook, hook);
        self.look_for_notices(key);
        self.look_at_certificate(key);
        key
    }

    /// Sees that what was revoked is written, and goes on polling the group.
    pub(super) fn leave_if_done(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let (slots, until, is_written) = (leaving.slots.clone(), leaving.until, leaving.is_written);
        let is_late = self.mono() >= until;
        let is_busy = |owner: &SlotOwner| {
            owner.unacknowledged > 0
                || owner.rows.iter().any(|key| {
                    self.table.get(*key).is_some_and(|row| row.hook.gate().in_flight() > 0)
                })
        };
        let busy = slots.iter().filter_map(|slot| self.table.owners.get(slot)).any(is_busy);
        if busy && !is_late {
            return;
        }
        if !is_written && !is_late && self.write.is_none() {
            self.write_slots(&slots);
            if let Some(leaving) = &mut self.leaving {
                leaving.is_written = true;
            }
        }
        if self.write.is_some() && !is_late {
            return;
        }
        for slot in slots {
            self.drop_slot(slot);
        }
        self.leaving = None;
    }

    /// Begins to stop: nothing new starts.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.to_take.clear();
        self.leaving = Some(Leaving {
            slots: self.table.owners.keys().copied().collect(),
            until: self.mono() + self.config.grace,
            is_written: false,
        });
        self.next_tick = self.mono();
    }

    /// Whether everything has been let go.
    pub(super) fn has_stopped(&self) -> bool {
        self.leaving.is_none()
    }

    /// Keeps the remembered ids of the process under their bound.
    pub(super) fn bound_remembered(&mut self) {
        let bound = self.process.limits.remembered_in_process;
        if self.process.remembered <= bound {
            return;
        }
        // A quarter below, so that this is rare.
        let share = (bound - bound / 4) / self.table.len().max(1);
        for key in self.table.keys() {
            if let Some(row) = self.table.get_mut(key) {
                row.hook.shrink_remembered(share, &mut self.process);
            }
        }
    }

    /// The slots whose log must be asked before anything starts.
    pub(super) fn unproven(&self) -> impl Iterator<Item = Slot> + '_ {
        self.table.owners.iter().filter(|(_, owner)| !owner.is_proven).map(|(slot, _)| *slot)
    }

    /// A webhook's partition lost its tail while it was being read.
    pub(super) fn tail_lost(&mut self, slot: Slot) {
        tracing::error!(slot = slot.0, partition = %slot_log::slot_partition(slot), "a delivery partition ends before what was read of it; its slot is taken over again");
        self.lost(slot);
    }
}
