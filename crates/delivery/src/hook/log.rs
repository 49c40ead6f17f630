//! To and from the log: checkpoints, what a takeover puts back, and trimming.

use tidings_types::{
    Lane, NotificationId, Offset, Ordering, Partition, RunId, Sabotage, Timestamp,
};

use super::{BOTH, Hook, index};
use crate::{
    Alarm, At, Checkpoint, Process, Standing, Totals,
    entry::{Open, Phase, UNKNOWN_KIND},
    partition::PartitionState,
    retry_after::MAX_RETRY_AFTER,
};

impl<B: Clone> Hook<B> {
    /// Takes on a delivery partition that nothing is known of; read from `first`.
    pub fn add_partition(&mut self, partition: Partition, first: Offset) {
        let lane = Lane::from_partition(partition);
        if self.lanes[index(lane)].is_none() {
            self.lanes[index(lane)] = Some(PartitionState::new(first));
            self.gate.set_urgent(self.lanes[index(Lane::Urgent)].is_some());
        }
    }

    /// Takes on a delivery partition as a checkpoint has it.
    pub fn restore(
        &mut self,
        partition: Partition,
        checkpoint: &Checkpoint,
        now: Timestamp,
        process: &mut Process,
    ) {
        self.add_partition(partition, checkpoint.next);
        if partition == 0 {
            self.gate.set_pace(process.limits.pace);
            self.gate.restore(&checkpoint.health, now);
            self.alarm = checkpoint.alarm.clone();
            if self.gate.standing() == Standing::Active && self.alarm.suspended.is_some() {
                // It was activated while nobody owned it.
                self.alarm.reactivated();
                self.gate.trust(now);
            }
        }
        self.order.restore(checkpoint.standard_number, checkpoint.urgent_number);
        let lane = Lane::from_partition(partition);
        let mut state = PartitionState::new(checkpoint.next);
        state.last = checkpoint.last;
        for entry in &checkpoint.open {
            let mut entry = *entry;
            entry.totals = self.guard_due(entry.totals, now);
            self.remember(process, &entry);
            self.open_ids.entry(entry.notification).or_insert(entry.at);
            state.open.insert(
                entry.at.offset,
                Open {
                    entry,
                    phase: Phase::Waiting,
                    deadline: None,
                    kind: UNKNOWN_KIND,
                    body: None,
                    size: 0,
                    joined: false,
                    is_early: false,
                    // A number without an attempt is said again.
                    is_numbered: entry.totals.attempts > 0,
                },
            );
            state.waiting.insert((entry.totals.due, entry.at.offset));
        }
        for folded in &checkpoint.folded {
            let mut folded = *folded;
            folded.entry.totals = self.guard_due(folded.entry.totals, now);
            state.folded.insert(folded.entry.at.offset, folded);
        }
        state.marked_trim = state.needed_from();
        self.lanes[index(lane)] = Some(state);
        for entry in &checkpoint.open {
            self.queue_restored(entry);
        }
        let is_strict = self.rules.ordering == Ordering::Strict;
        if is_strict && checkpoint.open.iter().any(|entry| entry.lane == Lane::Urgent) {
            self.draining = Some(checkpoint.next);
        }
    }

    /// Never waits longer than twice the step (or an hour that the endpoint may
    /// have asked for), whatever another process's clock said (R-S §2.7).
    fn guard_due(&self, mut totals: Totals, now: Timestamp) -> Totals {
        let longest = (self.rules.ladder.step(totals.ladder_step) * 2).max(MAX_RETRY_AFTER);
        totals.due = totals.due.min(now + longest);
        totals
    }

    /// Remembers an id and run that outcomes told of. Rule: refill of the ids at
    /// takeover.
    pub fn refill(
        &mut self,
        notification: NotificationId,
        run: RunId,
        at: At,
        process: &mut Process,
    ) {
        let limit = process.remember_limit();
        let before = self.remembered.len();
        self.remembered.insert(notification, run, at, limit);
        process.remembered = (process.remembered + self.remembered.len()).saturating_sub(before);
    }

    /// Shrinks the remembered ids to what the process allows now.
    pub fn shrink_remembered(&mut self, limit: usize, process: &mut Process) {
        let before = self.remembered.len();
        self.remembered.shrink(limit);
        process.remembered = (process.remembered + self.remembered.len()).saturating_sub(before);
    }

    /// The partitions that this webhook has here.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        BOTH.into_iter().filter(|lane| self.lanes[index(*lane)].is_some()).map(Lane::partition)
    }

    /// Whether a partition changed since its last checkpoint was cut.
    pub fn is_changed(&self, partition: Partition) -> bool {
        self.lane(partition).is_some_and(|state| state.changed)
    }

    /// Says that the last cut did not get into the log.
    pub fn touch(&mut self, partition: Partition) {
        if let Some(state) = self.lane_mut(partition) {
            state.changed = true;
        }
    }

    /// What stands in the checkpoint of partition 0 has changed.
    pub(super) fn touch_health(&mut self) {
        self.touch(Lane::Standard.partition());
    }

    /// Cuts a checkpoint at this moment, and says from where on its state needs
    /// the log; that is given back with [`Hook::marked`] once a mark stands behind
    /// the checkpoint.
    pub fn cut(
        &mut self,
        partition: Partition,
        sabotage: Sabotage,
    ) -> Option<(Checkpoint, Offset)> {
        let (health, numbers) = (self.gate.health(), self.order.numbers());
        let alarm = if partition == 0 { self.alarm.clone() } else { Alarm::default() };
        let state = self.lane_mut(partition)?;
        state.changed = false;
        let folded = if sabotage.is(Sabotage::NoFoldedInCheckpoint) {
            Vec::new()
        } else {
            state.folded.values().copied().collect()
        };
        let mut checkpoint = Checkpoint {
            next: state.next,
            open: state.open.values().map(|open| open.entry).collect(),
            folded,
            last: state.last,
            alarm,
            ..Checkpoint::default()
        };
        if partition == 0 {
            [checkpoint.standard_number, checkpoint.urgent_number] = numbers;
            checkpoint.health = health;
        }
        Some((checkpoint, state.needed_from()))
    }

    /// A mark stands behind the checkpoint whose cut needed the log from `needed`.
    pub fn marked(&mut self, partition: Partition, needed: Offset) {
        if let Some(state) = self.lane_mut(partition) {
            state.marked_trim = state.marked_trim.max(needed);
        }
    }

    /// Where to trim a partition to, if at least `worth` records can go. Rule: a
    /// trim uses the state of the last mark.
    pub fn trim_to(
        &mut self,
        partition: Partition,
        worth: u64,
        sabotage: Sabotage,
    ) -> Option<Offset> {
        let state = self.lane_mut(partition)?;
        let to = if sabotage.is(Sabotage::TrimWithoutMark) {
            state.needed_from()
        } else {
            state.marked_trim
        };
        (to >= state.trimmed + worth.max(1)).then(|| {
            state.trimmed = to;
            to
        })
    }

    /// The webhook leaves this process: gives back what it holds of its bounds.
    pub fn release(&mut self, process: &mut Process) {
        for partition in [0, 1] {
            self.drop_ahead(partition, process);
        }
        let mut freed = Vec::new();
        for state in self.lanes.iter().flatten() {
            for open in state.open.values() {
                if open.body.is_some() {
                    process.kept_bytes = process.kept_bytes.saturating_sub(open.size);
                }
                if open.phase == Phase::InFlight || open.phase == Phase::Loading {
                    freed.push(open.entry.lane);
                }
            }
        }
        for lane in freed {
            process.give_back(lane, self.rules.shares);
        }
        process.facts = process.facts.saturating_sub(self.facts.len());
        self.facts.clear();
        process.remembered = process.remembered.saturating_sub(self.remembered.len());
        self.remembered.clear();
        process.count_suspects(self.rules.shares, self.suspects, 0);
        self.suspects = 0;
    }
}
