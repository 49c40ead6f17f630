//! One turn: timers, ready webhooks, the outbox, the regular work.

use std::time::Duration;

use tidings_delivery::{Reading, Step};
use tidings_types::Sabotage;

use super::Running;
use crate::table::{ReadState, RowKey};

/// Attempts that one webhook may start before the next one has its turn. Few: the
/// places that are free are shared evenly then, so that each webhook has about as
/// many requests in flight at any time, and its kept connections are enough.
const STARTS_PER_HOOK: usize = 4;
/// Times that one turn serves a webhook.
const SERVES_PER_TURN: usize = 512;

impl Running {
    pub(super) fn turn(&mut self) {
        let now = self.now();
        self.table.fire(now);
        self.start_takeover();
        self.serve_ready();
        self.start_flush();
        self.start_telling();
        self.tick();
        self.leave_if_done();
    }

    /// Whether the process has polled its group, without an error, within the last
    /// half of the session time. Rule: an attempt starts only then.
    fn is_alive(&self) -> bool {
        if self.deps.sabotage.is(Sabotage::NoLivenessCheck) {
            return true;
        }
        self.liveness
            .as_ref()
            .is_some_and(|live| self.mono().since(live.last_alive()) <= self.config.session / 2)
    }

    /// Whether nothing got out just now: our proxy or our source address fails. What is
    /// ready waits, so that nothing is taken up only to wait open.
    fn is_shut_in(&self) -> bool {
        self.mono() < self.way_out_at
    }

    fn serve_ready(&mut self) {
        if self.is_shut_in() {
            return;
        }
        if !self.is_alive() {
            self.is_stalled = true;
            return;
        }
        if self.is_stalled {
            // After a longer gap the owner first appends a mark, and the fence says
            // whether it is still the owner.
            self.is_stalled = false;
            for owner in self.table.owners.values_mut() {
                owner.is_proven = false;
            }
            self.next_tick = self.mono();
        }
        // Ends also when all that are ready wait for something.
        let mut in_vain = 0;
        for _ in 0..SERVES_PER_TURN {
            let room = self.process.room();
            if (room.any == 0 && room.urgent == 0) || !self.process.may_say() {
                return;
            }
            if in_vain > 0 && in_vain >= self.table.ready_len() {
                return;
            }
            let Some(key) = self.table.next_ready() else { return };
            in_vain = if self.serve(key) > 0 { 0 } else { in_vain + 1 };
        }
    }

    /// Gives one webhook its turn. Returns how many attempts it started.
    fn serve(&mut self, key: RowKey) -> usize {
        let Some(row) = self.table.get(key) else { return 0 };
        let slot = row.slot;
        let is_leaving = self.leaving.as_ref().is_some_and(|leaving| leaving.has(slot));
        let is_proven = self.table.owners.get(&slot).is_some_and(|owner| owner.is_proven);
        if is_leaving || self.stopping || !is_proven {
            // Made ready again once the fence has answered.
            return 0;
        }
        let now = self.now();
        let mut started = 0;
        while started < STARTS_PER_HOOK {
            // Rule: liveness, for each attempt.
            if !self.is_alive() || self.is_shut_in() {
                break;
            }
            self.look_at_registry();
            let Some(row) = self.table.get_mut(key) else { return started };
            match row.hook.next(now, &mut self.process) {
                Step::Attempt(attempt) => self.start(key, attempt),
                Step::Load(at) => self.load(key, at),
                Step::Idle => break,
            }
            started += 1;
        }
        self.settle(key);
        let Some(row) = self.table.get(key) else { return started };
        let waits_for_room = self.process.room().any == 0 || !self.process.may_say();
        let waits = waits_for_room || !self.is_alive() || self.is_shut_in();
        if started == STARTS_PER_HOOK || (waits && row.hook.has_work(now)) {
            self.table.make_ready(key);
        }
        started
    }

    /// After anything happened to a webhook: its facts go to the outbox, its
    /// partitions are read or not, its timer is set.
    pub(super) fn settle(&mut self, key: RowKey) {
        self.collect_facts(key, None, None);
        self.adjust_reading(key);
        let now = self.now();
        let due = self.table.get(key).and_then(|row| row.hook.next_due(now));
        self.table.set_timer(key, due);
        self.propose(key);
    }

    fn adjust_reading(&mut self, key: RowKey) {
        let now = self.now();
        for partition in [0, 1] {
            let Some(row) = self.table.get_mut(key) else { return };
            let place = usize::from(partition == 1);
            let wanted = row.hook.reading(partition, now, &self.process);
            let state = row.reading.get(place).copied().unwrap_or_default();
            let of = row.partition(partition);
            let next = match (wanted, state) {
                (Reading::Go, ReadState::Off) => {
                    let Some(offset) = row.hook.read_from(partition) else { continue };
                    self.readers.assign(of, offset);
                    ReadState::On
                }
                (Reading::Go, ReadState::Paused) if row.hook.is_low(partition, &self.process) => {
                    self.readers.resume(&of);
                    ReadState::On
                }
                (Reading::Hold, ReadState::On) => {
                    self.readers.pause(&of);
                    ReadState::Paused
                }
                (Reading::Stop, ReadState::On | ReadState::Paused) => {
                    // The topic is the backlog: nothing is kept in memory.
                    self.readers.unassign(&of);
                    row.hook.drop_ahead(partition, &mut self.process);
                    ReadState::Off
                }
                (Reading::Go | Reading::Hold | Reading::Stop, state) => state,
            };
            if let Some(place) = row.reading.get_mut(place) {
                *place = next;
            }
        }
    }

    /// How long the loop may sleep.
    pub(super) fn until_next(&self) -> Duration {
        let mono = self.mono();
        let mut wait = self.next_tick.since(mono);
        if let Some(due) = self.table.next_timer() {
            wait = wait.min(due.since(self.now()));
        }
        if !self.outbox.is_empty() && self.flush.is_none() {
            wait = wait.min(self.next_flush.since(mono));
        }
        if !self.untold.is_empty() && self.telling.is_none() {
            wait = wait.min(self.next_telling.since(mono));
        }
        if let Some(first) = self.to_take.values().min().filter(|_| self.takeover.is_none()) {
            wait = wait.min(first.since(mono));
        }
        if !self.stopping && (self.group.is_none() || self.next_join > mono) {
            wait = wait.min(self.next_join.since(mono));
        }
        let room = self.process.room();
        let has_room = room.any > 0 && self.process.may_say() && !self.stopping;
        if self.table.ready_len() > 0 {
            if self.is_shut_in() {
                wait = wait.min(self.way_out_at.since(mono));
            } else if self.is_stalled {
                wait = wait.min(self.config.session / 8);
            } else if has_room {
                return Duration::ZERO;
            }
        }
        // A clock of whole milliseconds would spin on a fraction of one.
        wait.max(Duration::from_millis(1))
    }
}
