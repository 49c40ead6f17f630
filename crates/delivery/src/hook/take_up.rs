//! From the log into the state: reading ahead, taking up, dropping duplicates,
//! joining resends, and choosing what starts next.

use tidings_types::{EndReason, Lane, Offset, Ordering, Partition, Sabotage, Timestamp};

use super::{Attempt, BOTH, Hook, Reading, Step, index};
use crate::{
    Arrived, Ask, Asks, At, Entry, Fact, FactKind, Process, Standing, Totals, Verdict,
    entry::{Open, Phase},
    partition::Ahead,
};

/// What the record at the head of a lane led to.
pub(super) enum Head<B> {
    /// It is taken care of; look at the next one.
    Passed,
    Start(Attempt<B>),
    /// It has to wait.
    Waits,
}

impl<B: Clone> Hook<B> {
    /// Whether a partition should be read on.
    pub fn reading(&self, partition: Partition, now: Timestamp, process: &Process) -> Reading {
        let Some(lane) = self.lane(partition) else { return Reading::Stop };
        match self.gate.standing() {
            Standing::Inactive | Standing::Paused => {
                let may_expire = process.limits.expiring[index(Lane::from_partition(partition))];
                return if !may_expire {
                    Reading::Stop
                } else if self.watches_enough(partition, process) {
                    Reading::Hold
                } else {
                    Reading::Go
                };
            }
            Standing::Active if !self.gate.takes_up(self.tried_in(partition), now) => {
                // What is urgent is at hand when the next probe may start.
                let fits = process.ahead_bytes < process.limits.ahead_bytes_in_process / 2;
                return match Lane::from_partition(partition) {
                    Lane::Urgent if fits && lane.ahead.is_empty() => Reading::Go,
                    Lane::Urgent if fits => Reading::Hold,
                    Lane::Urgent | Lane::Standard => Reading::Stop,
                };
            }
            Standing::Active | Standing::Suspended | Standing::Deleted => {}
        }
        let limits = &process.limits;
        let full = lane.ahead.len() >= limits.ahead_records
            || lane.ahead_bytes >= limits.ahead_bytes
            || (process.ahead_bytes >= limits.ahead_bytes_in_process && !lane.ahead.is_empty());
        if full { Reading::Hold } else { Reading::Go }
    }

    /// Whether so little is read ahead that a held partition should be read on.
    pub fn is_low(&self, partition: Partition, process: &Process) -> bool {
        self.lane(partition).is_some_and(|lane| {
            lane.ahead.len() * 2 <= process.limits.ahead_records
                && lane.ahead_bytes * 2 <= process.limits.ahead_bytes
        })
    }

    /// Whether something was read ahead or is due.
    pub fn has_work(&self, now: Timestamp) -> bool {
        self.lanes.iter().flatten().any(|lane| {
            !lane.ahead.is_empty() || lane.waiting.first().is_some_and(|(due, _)| *due <= now)
        })
    }

    /// The next offset to read from a partition.
    pub fn read_from(&self, partition: Partition) -> Option<Offset> {
        let lane = self.lane(partition)?;
        Some(if self.watches() { lane.watch_from() } else { lane.read_from() })
    }

    /// A record was read. One that was read before is passed over.
    pub fn arrived(&mut self, partition: Partition, arrived: Arrived<B>, process: &mut Process) {
        self.push_ahead(partition, Ahead::Record(arrived), process);
    }

    /// A record that cannot be used stands at `offset`.
    pub fn passed_void(&mut self, partition: Partition, offset: Offset, process: &mut Process) {
        self.push_ahead(partition, Ahead::Void(offset), process);
    }

    fn push_ahead(&mut self, partition: Partition, ahead: Ahead<B>, process: &mut Process) {
        if self.watches() {
            self.look_at(partition, &ahead);
            return;
        }
        let Some(lane) = self.lane_mut(partition) else { return };
        if ahead.offset() < lane.read_from() {
            return;
        }
        lane.ahead_bytes += ahead.size();
        process.ahead_bytes += ahead.size();
        lane.ahead.push_back(ahead);
    }

    /// Forgets what was read ahead: it stays in the log.
    pub fn drop_ahead(&mut self, partition: Partition, process: &mut Process) {
        if let Some(lane) = self.lane_mut(partition) {
            process.ahead_bytes = process.ahead_bytes.saturating_sub(lane.ahead_bytes);
            lane.ahead_bytes = 0;
            lane.ahead.clear();
        }
    }

    /// What to do next. Ask until [`Step::Idle`].
    pub fn next(&mut self, now: Timestamp, process: &mut Process) -> Step<B> {
        self.sweep_held(now, process);
        if self.next_freeing.is_some_and(|at| at <= now) {
            self.free_stuck(now, process);
        }
        if self.watches() {
            if now >= self.next_sweep {
                self.sweep(now, process);
            }
            self.expire_ahead(now, process);
            return Step::Idle;
        }
        self.wake = None;
        self.gate.set_pace(process.limits.pace);
        if self.gate.listen(now) {
            process.counts.silences += 1;
            self.count_suspects(process);
        }
        for lane in BOTH {
            match self.next_in(lane, now, process) {
                Step::Idle => {}
                step @ (Step::Attempt(_) | Step::Load(_)) => return step,
            }
        }
        Step::Idle
    }

    fn next_in(&mut self, lane: Lane, now: Timestamp, process: &mut Process) -> Step<B> {
        loop {
            if !process.may_say() {
                return Step::Idle;
            }
            if self.lanes[index(lane)].is_none() {
                return Step::Idle;
            }
            let ends_all = match self.gate.standing() {
                Standing::Active | Standing::Inactive | Standing::Paused => false,
                Standing::Suspended | Standing::Deleted => true,
            };
            let open = self.tried_in(lane.partition());
            let early = self.gate.is_broken() && self.gate.probes_early(open, now);
            let drains = self.drains() && !ends_all;
            let first = self.first_waiting(lane, drains);
            let first = first.filter(|(due, _)| ends_all || early || *due <= now);
            if let Some((_, offset)) = first {
                let at = At { partition: lane.partition(), offset };
                match self.next_open(at, now, process) {
                    None => continue,
                    Some(step) => return step,
                }
            }
            match self.next_new(lane, now, process) {
                Head::Passed => {}
                Head::Start(attempt) => return Step::Attempt(attempt),
                Head::Waits => return Step::Idle,
            }
        }
    }

    /// An open notification is due. `None`: it has ended, look at the next one.
    fn next_open(&mut self, at: At, now: Timestamp, process: &mut Process) -> Option<Step<B>> {
        let open = self.lane(at.partition)?.open.get(&at.offset)?;
        let (entry, is_numbered, kind) = (open.entry, open.is_numbered, open.kind);
        if let Some(kind) = ends_unsent(self.gate.standing(), open.deadline, now) {
            if !self.may_end_unsent(now) {
                return Some(Step::Idle);
            }
            self.end(process, at, kind, now, None);
            return None;
        }
        // A resend that was open when its slot changed hands joins now.
        if entry.totals.attempts == 0 && self.join(&entry, now, process) {
            self.end(process, at, FactKind::Joined, now, None);
            return None;
        }
        if entry.queue.is_some() && !is_numbered {
            self.say_number(&entry, now, process);
            return None;
        }
        if self.waits_for_resumed(&entry) {
            return Some(Step::Idle);
        }
        if process.paused.contains(&kind) {
            self.hold(at, now);
            return None;
        }
        let lane = entry.lane;
        let is_due = entry.totals.due <= now;
        let Some(ask) = self.may_start(at.partition, lane, Asks::Open, is_due, now, process) else {
            return Some(Step::Idle);
        };
        let state = self.lane_mut(at.partition)?;
        state.stop_waiting(at.offset);
        let open = state.open.get_mut(&at.offset)?;
        open.is_early = !is_due;
        let step = match open.body.take() {
            Some(body) => {
                process.kept_bytes = process.kept_bytes.saturating_sub(open.size);
                open.phase = Phase::InFlight;
                Step::Attempt(begin(open, body, now))
            }
            None => {
                open.phase = Phase::Loading;
                Step::Load(at)
            }
        };
        self.gate.started(&ask);
        process.take(lane, self.rules.shares);
        self.count_suspects(process);
        Some(step)
    }

    /// Looks at the record at the head of what was read ahead.
    fn next_new(&mut self, lane: Lane, now: Timestamp, process: &mut Process) -> Head<B> {
        let open_now = self.tried();
        let Some(state) = &self.lanes[index(lane)] else { return Head::Waits };
        let arrived = match state.ahead.front() {
            None => return Head::Waits,
            Some(Ahead::Record(arrived)) => arrived,
            Some(Ahead::Void(offset)) => {
                let offset = *offset;
                self.pop_ahead(lane, process);
                self.pass(lane, offset, None);
                return Head::Passed;
            }
        };
        let kind = arrived.kind;
        let mut entry = self.entry_of(lane, arrived);
        if let Some(passed) = self.known_already(lane, &entry, process) {
            return passed;
        }
        let deadline = self.head_deadline(lane);
        if let Some(kind) = ends_unsent(self.gate.standing(), deadline, now) {
            if !self.may_end_unsent(now) {
                return Head::Waits;
            }
            self.give_number(&mut entry);
            self.take_up(lane, entry, process);
            self.end(process, entry.at, kind, now, None);
            return Head::Passed;
        }
        if self.join(&entry, now, process) {
            self.take_up(lane, entry, process);
            self.end(process, entry.at, FactKind::Joined, now, None);
            return Head::Passed;
        }
        let is_paused = process.paused.contains(&kind);
        let waiting = self.open().saturating_sub(open_now);
        if is_paused && open_now.max(waiting) >= process.limits.max_open {
            // Nothing is lost: the log keeps it, and what is behind it.
            return Head::Waits;
        }
        if is_paused && entry.queue.is_none() {
            self.take_up(lane, entry, process);
            self.open_ids.insert(entry.notification, entry.at);
            self.hold(entry.at, now);
            return Head::Passed;
        }
        if entry.queue.is_some() {
            return self.take_up_in_order(lane, entry, now, process);
        }
        let asked = self.may_start(entry.at.partition, entry.lane, Asks::New, false, now, process);
        let Some(ask) = asked else { return Head::Waits };
        if open_now >= process.limits.max_open {
            self.end_oldest(lane, now, process);
        }
        let Some(body) = self.take_up(lane, entry, process) else { return Head::Passed };
        self.open_ids.insert(entry.notification, entry.at);
        self.gate.started(&ask);
        process.take(entry.lane, self.rules.shares);
        self.count_suspects(process);
        let open = self.lane_mut(entry.at.partition).and_then(|s| s.open.get_mut(&entry.at.offset));
        let Some(open) = open else { return Head::Passed };
        open.phase = Phase::InFlight;
        Head::Start(begin(open, body, now))
    }

    /// How many of a partition are open and may be tried. What is few or many is asked of
    /// each lane by itself, so that many standard ones keep no urgent one waiting.
    pub(super) fn tried_in(&self, partition: Partition) -> usize {
        self.lane(partition).map_or(0, |lane| lane.open.len().min(self.tried()))
    }

    /// Asks the gate, and notes when it wants to be asked again. Gives what it said yes
    /// to.
    fn may_start(
        &mut self,
        partition: Partition,
        lane: Lane,
        asks: Asks,
        is_due: bool,
        now: Timestamp,
        process: &Process,
    ) -> Option<Ask> {
        let is_strict = self.rules.ordering == Ordering::Strict;
        if is_strict && (self.gate.in_flight() > 0 || (lane == Lane::Standard && self.drains())) {
            return None;
        }
        let (open, room) = (self.tried_in(partition), process.room_of(self.rules.shares));
        let ask = Ask { lane, asks, is_due, open, room, now };
        match self.gate.may_start(&ask) {
            Verdict::Go => Some(ask),
            Verdict::WaitUntil(wake) => {
                self.wake = Some(self.wake.map_or(wake, |before| before.min(wake)));
                None
            }
            Verdict::Full | Verdict::Failing | Verdict::NotActive => None,
        }
    }

    fn head_deadline(&self, lane: Lane) -> Option<Timestamp> {
        match self.lanes[index(lane)].as_ref()?.ahead.front()? {
            Ahead::Record(arrived) => arrived.deadline,
            Ahead::Void(_) => None,
        }
    }

    /// What a takeover's outcomes or the remembered ids say of a record.
    fn known_already(
        &mut self,
        lane: Lane,
        entry: &Entry,
        process: &mut Process,
    ) -> Option<Head<B>> {
        let state = self.lanes[index(lane)].as_ref()?;
        if let Some(folded) = state.folded.get(&entry.at.offset).copied() {
            // Rule: a takeover skips a record only if partition, offset, id and run
            // agree.
            let agrees =
                folded.entry.notification == entry.notification && folded.entry.run == entry.run;
            if !agrees {
                process.counts.disagreeing += 1;
            } else if folded.ended {
                process.counts.skipped += 1;
                self.pop_ahead(lane, process);
                self.pass(lane, entry.at.offset, Some(entry));
                self.remember(process, entry);
                return Some(Head::Passed);
            } else {
                self.resume_open(lane, &folded.entry, process);
                return Some(Head::Passed);
            }
        }
        let elsewhere =
            self.remembered.find(entry.notification, entry.run).is_some_and(|at| at != entry.at);
        if elsewhere && !process.limits.sabotage.is(Sabotage::NoRememberedIds) {
            process.counts.duplicates += 1;
            self.pop_ahead(lane, process);
            self.pass(lane, entry.at.offset, Some(entry));
            return Some(Head::Passed);
        }
        None
    }

    /// A notification that was open before the takeover is open again.
    fn resume_open(&mut self, lane: Lane, folded: &Entry, process: &mut Process) {
        let mut entry = *folded;
        entry.queue = self.queue_of_resumed(lane, entry.totals.number);
        let body = self.take_up(lane, entry, process);
        self.open_ids.entry(entry.notification).or_insert(entry.at);
        let Some(state) = self.lanes[index(lane)].as_mut() else { return };
        if let Some(open) = state.open.get_mut(&entry.at.offset) {
            // What outcomes told, they have.
            open.is_numbered = true;
            let fits = process.kept_bytes + open.size <= process.limits.kept_bytes_in_process;
            if let Some(body) = body.filter(|_| fits) {
                process.kept_bytes += open.size;
                open.body = Some(body);
            }
        }
        state.wait(entry.at.offset);
        self.queue_restored(&entry);
    }

    /// Moves the head record to the open ones, in phase Ending; who called decides
    /// what follows. Gives its body.
    pub(super) fn take_up(&mut self, lane: Lane, entry: Entry, process: &mut Process) -> Option<B> {
        let Some(Ahead::Record(arrived)) = self.pop_ahead(lane, process) else { return None };
        self.pass(lane, arrived.offset, Some(&entry));
        self.remember(process, &entry);
        let state = self.lanes[index(lane)].as_mut()?;
        state.open.insert(
            arrived.offset,
            Open {
                entry,
                phase: Phase::Waiting,
                deadline: arrived.deadline,
                kind: arrived.kind,
                body: None,
                size: arrived.size,
                joined: false,
                is_early: false,
                is_numbered: false,
            },
        );
        Some(arrived.body)
    }

    fn pop_ahead(&mut self, lane: Lane, process: &mut Process) -> Option<Ahead<B>> {
        let state = self.lanes[index(lane)].as_mut()?;
        let ahead = state.ahead.pop_front()?;
        state.ahead_bytes = state.ahead_bytes.saturating_sub(ahead.size());
        process.ahead_bytes = process.ahead_bytes.saturating_sub(ahead.size());
        Some(ahead)
    }

    fn pass(&mut self, lane: Lane, offset: Offset, entry: Option<&Entry>) {
        if let Some(state) = self.lanes[index(lane)].as_mut() {
            state.passed(offset, entry.map(|entry| (entry.notification, entry.run)));
        }
    }

    /// Lets a resend join the open notification of its id, if there is one whose
    /// end has not been handed to the log. That one is due at once (after the
    /// attempt in flight, if it fails) with a fresh ladder, and keeps its place. Who
    /// asks for it says that the endpoint is ready: a pause (`Retry-After`) is over.
    fn join(&mut self, resend: &Entry, now: Timestamp, process: &mut Process) -> bool {
        if resend.run.is_first() {
            return false;
        }
        let Some(at) = self.open_ids.get(&resend.notification).copied() else { return false };
        let join_after_end = process.limits.sabotage.is(Sabotage::JoinAfterEnd);
        let Some(state) = self.lane_mut(at.partition) else { return false };
        let Some(open) = state.open.get_mut(&at.offset) else { return false };
        if at == resend.at {
            return false;
        }
        let mut totals = open.entry.totals;
        match open.phase {
            // Rule: a resend joins only if no end has been handed to the log.
            Phase::Ending if join_after_end => return true,
            Phase::Ending => return false,
            Phase::Waiting => {
                state.waiting.remove(&(totals.due, at.offset));
                totals = fresh(totals, now);
                open.entry.totals = totals;
                state.waiting.insert((totals.due, at.offset));
            }
            // Due at once when it has its turn.
            Phase::Numbering | Phase::Blocked | Phase::Held => {
                totals = fresh(totals, now);
                open.entry.totals = totals;
            }
            Phase::Loading | Phase::InFlight => {
                open.joined = true;
                totals = fresh(totals, now);
            }
            Phase::Reporting(reported) => {
                totals = fresh(reported, now);
                open.phase = Phase::Reporting(totals);
            }
        }
        let entry = Entry { totals, ..open.entry };
        state.changed = true;
        self.gate.resume();
        self.say(process, Fact { kind: FactKind::TakenUp, entry, time: now, attempt: None });
        true
    }

    /// Ends the notification of a lane that has waited longest.
    pub(super) fn end_oldest(&mut self, lane: Lane, now: Timestamp, process: &mut Process) {
        let Some(state) = &self.lanes[index(lane)] else { return };
        let waits = |phase: Phase| matches!(phase, Phase::Waiting | Phase::Blocked);
        // One of a type that an operator stopped is not to end for that, nor what waits
        // behind it.
        let may_end = |open: &&Open<B>| {
            waits(open.phase)
                && !process.paused.contains(&open.kind)
                && !self.order.is_held(&open.entry)
        };
        let oldest = state.open.values().find(may_end);
        let Some(at) = oldest.map(|open| open.entry.at) else { return };
        self.end(process, at, FactKind::Undelivered(EndReason::TooManyOpen), now, None);
    }
}

/// A fresh ladder, due at once; attempts stay counted.
pub(super) fn fresh(totals: Totals, now: Timestamp) -> Totals {
    Totals { ladder_step: 0, first_attempt: Timestamp::ZERO, due: now, ..totals }
}

/// Whether a notification ends without an attempt.
fn ends_unsent(
    standing: Standing,
    deadline: Option<Timestamp>,
    now: Timestamp,
) -> Option<FactKind> {
    match standing {
        Standing::Deleted => Some(FactKind::Cancelled),
        Standing::Suspended => Some(FactKind::Undelivered(EndReason::Suspended)),
        Standing::Active | Standing::Inactive | Standing::Paused => {
            deadline.is_some_and(|deadline| deadline <= now).then_some(FactKind::Expired)
        }
    }
}

pub(super) fn begin<B>(open: &mut Open<B>, body: B, now: Timestamp) -> Attempt<B> {
    let totals = &mut open.entry.totals;
    if totals.first_attempt == Timestamp::ZERO {
        totals.first_attempt = now;
    }
    Attempt {
        at: open.entry.at,
        notification: open.entry.notification,
        run: open.entry.run,
        lane: open.entry.lane,
        number: totals.attempts.saturating_add(1),
        sequence: (totals.number != 0).then_some(totals.number),
        body,
    }
}
