//! Taking up in order: the number first, then the turn.
//!
//! A numbered notification goes `Numbering ─► Waiting` if it is the first of its
//! queue, else `Numbering ─► Blocked ─► Waiting` once those before it have ended and
//! the log has acknowledged that. Rule: no attempt before the log has acknowledged
//! the number.

use tidings_types::{Lane, Offset, Ordering, StuckKey, Timestamp};

use super::{Hook, UNSENT_AT_ONCE, UNSENT_EVERY, index, take_up::Head};
use crate::{
    Arrived, At, Entry, Fact, FactKind, Folded, Process, Queued,
    entry::Phase,
    order::STRICT,
    partition::{Ahead, PartitionState},
};

impl<B: Clone> Hook<B> {
    /// The entry of a record that is taken up from a lane's partition now.
    pub(super) fn entry_of(&self, from: Lane, arrived: &Arrived<B>) -> Entry {
        let partition = from.partition();
        let is_first_run = arrived.run.is_first();
        let ordering = self.rules.ordering;
        let drains = self.draining.is_some_and(|until| arrived.offset < until);
        // Under strict order everything is in the standard lane, once the urgent one
        // has been drained.
        let lane = if ordering == Ordering::Strict && is_first_run && !drains {
            Lane::Standard
        } else {
            from
        };
        let key = match ordering {
            Ordering::None => None,
            Ordering::PerKey => Some(arrived.order_key),
            Ordering::Strict => Some(STRICT),
        };
        let queued = key.map(|key| Queued { key, state: arrived.state_key });
        Entry {
            at: At { partition, offset: arrived.offset },
            notification: arrived.notification,
            run: arrived.run,
            lane,
            // A resend keeps the number of its notification, outside the order.
            totals: crate::Totals { number: arrived.number, ..crate::Totals::default() },
            queue: queued.filter(|_| is_first_run),
        }
    }

    /// What stands in the order before a takeover stands in it again. The record
    /// says its key; what outcomes told says its number.
    pub(super) fn queue_of_resumed(&self, from: Lane, number: u64) -> Option<Queued> {
        let Some(Ahead::Record(arrived)) = self.lanes[index(from)].as_ref()?.ahead.front() else {
            return None;
        };
        let key = match self.rules.ordering {
            Ordering::Strict => STRICT,
            Ordering::None | Ordering::PerKey => arrived.order_key,
        };
        let queued = Queued { key, state: arrived.state_key };
        (number != 0 && arrived.run.is_first()).then_some(queued)
    }

    /// Gives the next number, if the webhook keeps an order.
    pub(super) fn give_number(&mut self, entry: &mut Entry) {
        if entry.queue.is_some() {
            entry.totals.number = self.order.next_number(entry.lane);
            self.touch_health();
        }
    }

    /// Takes the head record of an ordered webhook up: its number goes to the log.
    pub(super) fn take_up_in_order(
        &mut self,
        lane: Lane,
        mut entry: Entry,
        now: Timestamp,
        process: &mut Process,
    ) -> Head<B> {
        let open = self.tried();
        let waiting = self.open().saturating_sub(open);
        let has_room = self.order.has_room(entry.lane, open, process.limits.max_open)
            && waiting < process.limits.max_open
            && (self.rules.ordering != Ordering::Strict || self.order.has_strict_room());
        if !has_room || !self.gate.takes_up(self.tried_in(entry.at.partition), now) {
            return Head::Waits;
        }
        self.gate.took_up(now);
        if open >= process.limits.max_open {
            self.end_oldest(lane, now, process);
        }
        self.give_number(&mut entry);
        let Some(body) = self.take_up(lane, entry, process) else { return Head::Passed };
        self.open_ids.insert(entry.notification, entry.at);
        self.order.push(&entry);
        if let Some(open) =
            self.lane_mut(entry.at.partition).and_then(|s| s.open.get_mut(&entry.at.offset))
        {
            open.phase = Phase::Numbering;
            if process.kept_bytes + open.size <= process.limits.kept_bytes_in_process {
                process.kept_bytes += open.size;
                open.body = Some(body);
            }
        }
        self.say(process, Fact { kind: FactKind::TakenUp, entry, time: now, attempt: None });
        Head::Passed
    }

    /// After a takeover: whether one with a smaller number is still to be read again from
    /// the other partition. In strict order it goes first; by key it may be of the same
    /// key, which its record says, if a strict order in between gave the numbers. Of the
    /// same partition everything before it has been read again.
    pub(super) fn waits_for_resumed(&self, entry: &Entry) -> bool {
        let other = match Lane::from_partition(entry.at.partition) {
            Lane::Standard => Lane::Urgent,
            Lane::Urgent => Lane::Standard,
        };
        let earlier = |folded: &Folded| {
            let Entry { lane, totals, .. } = &folded.entry;
            !folded.ended
                && *lane == entry.lane
                && (1..entry.totals.number).contains(&totals.number)
        };
        entry.queue.is_some()
            && self.lanes[index(other)]
                .as_ref()
                .is_some_and(|lane| lane.folded.values().any(earlier))
    }

    /// A number that an earlier owner gave may not be in the log: it is said again.
    pub(super) fn say_number(&mut self, entry: &Entry, now: Timestamp, process: &mut Process) {
        let Some(state) = self.lane_mut(entry.at.partition) else { return };
        state.stop_waiting(entry.at.offset);
        if let Some(open) = state.open.get_mut(&entry.at.offset) {
            open.phase = Phase::Numbering;
        }
        self.say(
            process,
            Fact { kind: FactKind::TakenUp, entry: *entry, time: now, attempt: None },
        );
    }

    /// The log has acknowledged a number.
    pub(super) fn numbered(&mut self, entry: &Entry, now: Timestamp, process: &mut Process) {
        let is_first = self.order.is_first(entry);
        let Some(state) = self.lane_mut(entry.at.partition) else { return };
        let Some(open) = state.open.get_mut(&entry.at.offset) else { return };
        if open.phase != Phase::Numbering {
            return;
        }
        open.is_numbered = true;
        open.phase = Phase::Blocked;
        state.changed = true;
        if is_first {
            state.wait(entry.at.offset);
        }
        self.supersede(entry, now, process);
    }

    /// Puts a restored notification back into its queue.
    pub(super) fn queue_restored(&mut self, entry: &Entry) {
        let Some((is_first, before)) = self.order.push(entry) else { return };
        if is_first {
            if let Some(before) = before {
                self.block(before);
            }
            if entry.totals.attempts > 0 {
                self.order.stick(entry);
            }
        } else {
            self.block(entry.at);
        }
    }

    fn block(&mut self, at: At) {
        let Some(state) = self.lane_mut(at.partition) else { return };
        state.stop_waiting(at.offset);
        if let Some(open) = state.open.get_mut(&at.offset)
            && open.phase == Phase::Waiting
        {
            open.phase = Phase::Blocked;
        }
    }

    /// A notification has ended: the next of its queue has its turn.
    pub(super) fn leave_queue(&mut self, entry: &Entry) {
        let Some(next) = self.order.remove(entry) else { return };
        let Some(state) = self.lane_mut(next.partition) else { return };
        let Some(open) = state.open.get_mut(&next.offset) else { return };
        let entry = open.entry;
        let is_held = open.phase == Phase::Held;
        if open.phase == Phase::Blocked {
            state.wait(next.offset);
        }
        self.order.hold(&entry, is_held);
        if entry.totals.attempts > 0 {
            self.order.stick(&entry);
        }
    }

    /// The first of a queue has failed, or a new one stands in a queue that is
    /// stuck: a newer state takes the place of older ones, if the webhook wants so.
    pub(super) fn supersede(&mut self, entry: &Entry, now: Timestamp, process: &mut Process) {
        if self.rules.stuck_key != StuckKey::Supersede {
            return;
        }
        for at in self.order.superseded(entry) {
            let open = self.lane(at.partition).and_then(|state| state.open.get(&at.offset));
            let may_end =
                open.is_some_and(|open| matches!(open.phase, Phase::Waiting | Phase::Blocked));
            if may_end && process.may_say() {
                self.end(process, at, FactKind::Superseded, now, None);
            }
        }
    }

    /// Whether the end of the ladder is not the end of this notification: its key
    /// waits.
    pub(super) fn waits_past_ladder(&self, entry: &Entry) -> bool {
        entry.queue.is_some() && self.rules.stuck_key == StuckKey::Wait
    }

    /// The webhook no longer waits for stuck keys: those past their ladder end, so many
    /// at a time.
    pub(super) fn free_stuck(&mut self, now: Timestamp, process: &mut Process) {
        self.next_freeing = None;
        if self.rules.stuck_key == StuckKey::Wait {
            return;
        }
        let open = self.lanes.iter().flatten().flat_map(|lane| lane.open.values());
        let over = open.filter(|open| {
            let totals = &open.entry.totals;
            open.entry.queue.is_some()
                && open.phase == Phase::Waiting
                && self.rules.ladder.is_over(totals.ladder_step, totals.first_attempt, now)
        });
        let over: Vec<At> = over.take(UNSENT_AT_ONCE + 1).map(|open| open.entry.at).collect();
        for (ended, at) in over.into_iter().enumerate() {
            if ended == UNSENT_AT_ONCE || !process.may_say() {
                self.next_freeing = Some(now + UNSENT_EVERY);
                return;
            }
            let reason = tidings_types::EndReason::Exhausted;
            self.end(process, at, FactKind::Undelivered(reason), now, None);
        }
    }

    /// A change to strict order first drains the urgent lane: what has been read of
    /// it, and what is open.
    pub(super) fn begin_drain(&mut self) {
        self.draining = self.lanes[index(Lane::Urgent)].as_ref().map(PartitionState::read_from);
    }

    /// Whether standard notifications have to wait because the urgent lane drains.
    pub(super) fn is_draining(&self) -> bool {
        let Some(until) = self.draining else { return false };
        self.rules.ordering == Ordering::Strict
            && self.lanes[index(Lane::Urgent)].as_ref().is_some_and(|urgent| {
                let reached: Offset = urgent.next;
                let is_open = urgent.open.values().any(|open| open.entry.lane == Lane::Urgent);
                reached < until || is_open
            })
    }

    /// The same; once it has been drained that is over.
    pub(super) fn drains(&mut self) -> bool {
        if !self.is_draining() {
            self.draining = None;
        }
        self.draining.is_some()
    }

    /// What of a partition is due first and may be sent. While the urgent lane drains
    /// that is only what is of it, also where what an earlier strict order has put into
    /// the standard lane stands before it. What is in strict order comes behind what was
    /// taken up before it by key: numbers go out in their order.
    pub(super) fn first_waiting(&self, lane: Lane, drains: bool) -> Option<(Timestamp, Offset)> {
        let state = self.lanes[index(lane)].as_ref()?;
        let may_go = |(_, offset): &&(Timestamp, Offset)| {
            state.open.get(offset).is_none_or(|open| {
                (!drains || open.entry.lane == Lane::Urgent)
                    && !self.order.waits_for_keyed(&open.entry)
            })
        };
        match lane {
            Lane::Standard if drains => None,
            // At most one of the strict queue waits for its turn, so this is short.
            Lane::Standard | Lane::Urgent => state.waiting.iter().find(may_go).copied(),
        }
    }
}
