//! One webhook at its slot's owner: a state machine over its delivery partitions.
//!
//! Inputs: records that were read, attempts that have ended, facts that the log
//! has acknowledged, changes of the registry, the time. Outputs: the next [`Step`]
//! to do, and [`Fact`]s to append. An open notification goes
//!
//! ```text
//!            ┌──────────────── acknowledged ─────────────────┐
//!            ▼                                               │
//! read ─► (taken up) ─► Waiting ─► Loading ─► InFlight ─► Reporting
//!            │             └────────────────►   │
//!            └─────────────── end ──────────────┴─► Ending ─► forgotten
//! ```
//!
//! An ordered webhook's notification is numbered first (`hook/order.rs`).
//! A healthy first attempt skips Waiting and Loading and makes one fact. Rule:
//! outcome before checkpoint: what a fact says enters the state only when the log
//! has acknowledged it; until then a checkpoint shows the state before it.

mod attempts;
mod deadlines;
mod held;
mod log;
mod order;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod standing_tests;
mod take_up;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use tidings_types::{
    EndReason, Lane, NotificationId, Offset, Ordering, Partition, RunId, StuckKey, Timestamp,
    WebhookId,
};

pub(crate) use deadlines::Watch;

use crate::{
    Alarm, At, Entry, Fact, FactKind, Gate, Notice, Process, Proposal, Remembered, Rules, Standing,
    Suspended,
    entry::{AttemptFact, Open, Phase},
    order::Order,
    partition::PartitionState,
};

/// What to do next for a webhook.
#[derive(Debug)]
pub enum Step<B> {
    /// Start this attempt, then call [`Hook::finished`].
    Attempt(Attempt<B>),
    /// Read this record again, then call [`Hook::loaded`].
    Load(At),
    /// Nothing can start now.
    Idle,
}

/// An attempt to start.
#[derive(Debug)]
pub struct Attempt<B> {
    pub at: At,
    pub notification: NotificationId,
    pub run: RunId,
    pub lane: Lane,
    /// 1-based within its run.
    pub number: u32,
    /// Its number in its lane, of an ordered webhook.
    pub sequence: Option<u64>,
    pub body: B,
}

/// Whether a partition should be read from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Go on reading.
    Go,
    /// Enough has been read ahead.
    Hold,
    /// Nothing is taken up for now: stop reading, nothing is kept in memory.
    Stop,
}

/// The state of one webhook.
#[derive(Debug)]
pub struct Hook<B> {
    id: WebhookId,
    /// What the registry says. The gate's is what comes of it while we find nobody.
    standing: Standing,
    /// Since when it stands still because we find nobody.
    lost_since: Option<Timestamp>,
    gate: Gate,
    rules: Rules,
    lanes: [Option<PartitionState<B>>; 2],
    remembered: Remembered,
    /// Open notifications by id, for resends to join.
    open_ids: HashMap<NotificationId, At>,
    facts: Vec<Fact>,
    order: Order,
    /// After a change to strict order: the urgent lane is drained up to here.
    draining: Option<Offset>,
    proposal: Option<Proposal>,
    /// What its last failed attempt came to.
    last_failure: Option<AttemptFact>,
    alarm: Alarm,
    /// Open notifications of types that an operator stopped.
    held: usize,
    /// When those are looked through for passed deadlines.
    held_sweep: Timestamp,
    /// When what waits through an inactive time is looked through next.
    next_sweep: Timestamp,
    /// When more of those end that no key waits for any more.
    next_freeing: Option<Timestamp>,
    /// What it has in flight that counts among the suspects of the process.
    suspects: usize,
    /// When the gate wants to be asked again.
    wake: Option<Timestamp>,
    /// How many notifications of a suspended or deleted webhook may still end in
    /// the present [`UNSENT_EVERY`], and when that began.
    unsent_left: usize,
    unsent_since: Timestamp,
}

const BOTH: [Lane; 2] = [Lane::Urgent, Lane::Standard];

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Standard => 0,
        Lane::Urgent => 1,
    }
}

impl<B: Clone> Hook<B> {
    pub fn new(id: WebhookId, standing: Standing, rules: Rules) -> Self {
        Self {
            id,
            standing,
            lost_since: None,
            gate: Gate::new(standing, &rules),
            rules,
            lanes: [None, None],
            remembered: Remembered::default(),
            open_ids: HashMap::new(),
            facts: Vec::new(),
            order: Order::default(),
            draining: None,
            proposal: None,
            last_failure: None,
            alarm: Alarm::default(),
            held: 0,
            held_sweep: Timestamp::ZERO,
            next_sweep: Timestamp::ZERO,
            next_freeing: None,
            suspects: 0,
            wake: None,
            unsent_left: UNSENT_AT_ONCE,
            unsent_since: Timestamp::ZERO,
        }
    }

    pub fn id(&self) -> WebhookId {
        self.id
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Takes over what the registry says now. What waited through an inactive time
    /// and is past its window or deadline ends without an attempt (design §10).
    pub fn set(&mut self, standing: Standing, rules: Rules, now: Timestamp, process: &mut Process) {
        let before = std::mem::replace(&mut self.rules, rules);
        if before.shares != self.rules.shares {
            let attempts = self.gate.in_flight();
            process.leave_crowds(before.shares, attempts, self.suspects);
            process.join_crowds(self.rules.shares, attempts, self.suspects);
        }
        if before.target != self.rules.target {
            // The endpoint that asked for a pause is another one.
            self.gate.resume();
            self.touch_health();
        }
        if before.ordering != Ordering::Strict && self.rules.ordering == Ordering::Strict {
            self.begin_drain();
        }
        if before.stuck_key == StuckKey::Wait && self.rules.stuck_key != StuckKey::Wait {
            self.free_stuck(now, process);
        }
        // A pause that follows has no say over the time before it.
        let goes_on = matches!(standing, Standing::Active | Standing::Paused);
        if self.standing == Standing::Inactive && goes_on {
            self.sweep(now, process);
        }
        let comes_back = standing == Standing::Active && self.standing != Standing::Active;
        if matches!(standing, Standing::Suspended | Standing::Deleted) {
            self.release_held(|_| true);
        }
        self.standing = standing;
        self.follow_standing();
        if comes_back {
            // With a clean slate, and slowly: its owner has said that it is repaired.
            self.gate.trust(now);
            self.alarm.reactivated();
            self.touch_health();
        }
        self.count_suspects(process);
    }

    /// We find nobody, or do again. Meanwhile it stands still like one that an operator
    /// stopped, and the time does not count against it. Nobody has said that it is
    /// repaired: what it failed with, and what it asked for, stands.
    pub fn stand_still(&mut self, is_lost: bool, now: Timestamp) {
        match (self.lost_since, is_lost) {
            (None, true) => self.lost_since = Some(now),
            (Some(since), false) => {
                self.lost_since = None;
                self.gate.pass_over(now.since(since), now);
                self.touch_health();
            }
            (None, false) | (Some(_), true) => return,
        }
        self.follow_standing();
    }

    /// Whether it stands still because we find nobody.
    pub fn stands_still(&self) -> bool {
        self.lost_since.is_some()
    }

    fn follow_standing(&mut self) {
        let stops = self.standing == Standing::Active && self.stands_still();
        let standing = if stops { Standing::Paused } else { self.standing };
        if !standing.waits() {
            self.stop_watching();
        }
        self.gate.set(standing, &self.rules);
    }

    /// Open notifications of all lanes.
    pub fn open(&self) -> usize {
        self.lanes.iter().flatten().map(|lane| lane.open.len()).sum()
    }

    /// Notifications that have been taken up or read and have no end, and the
    /// oldest of them by lane: the age of a first attempt that has not succeeded.
    pub fn oldest_first_attempt(&self, lane: Lane) -> Option<Timestamp> {
        let open = &self.lanes[index(lane)].as_ref()?.open;
        open.values()
            .map(|open| open.entry.totals.first_attempt)
            .filter(|first| *first != Timestamp::ZERO)
            .min()
    }

    /// Whether everything that was read has ended and been acknowledged.
    pub fn is_settled(&self) -> bool {
        self.facts.is_empty()
            && self.lanes.iter().flatten().all(|lane| lane.open.is_empty() && lane.ahead.is_empty())
    }

    /// A change of the webhook's status that what it answered calls for. Given once.
    pub fn take_proposal(&mut self) -> Option<Proposal> {
        self.proposal.take()
    }

    /// Since when it fails and what it failed with last, for a proposal to suspend it.
    pub fn failing(&self) -> (Option<Timestamp>, String) {
        let code = self.last_failure.map(|failure| failure.code.text(failure.http_status));
        (self.gate.failing_since(), code.unwrap_or_default())
    }

    /// The registry says that the webhook is suspended.
    pub fn suspended(&mut self, by: &Suspended) {
        if self.alarm.suspended != Some(by.at) {
            self.alarm.suspended(by);
            self.touch_health();
        }
    }

    /// The client certificate that the webhook shows, and how long before its end that
    /// is told. Says whether there is something new to tell.
    pub fn look_at_certificate(
        &mut self,
        certificate: (&str, Timestamp),
        ahead: Duration,
        now: Timestamp,
    ) -> bool {
        let is_news = self.alarm.certificate(certificate, ahead, now);
        if is_news {
            self.touch_health();
        }
        is_news
    }

    /// The webhook shows another certificate, or none.
    pub fn certificate_changed(&mut self) {
        self.alarm.certificate_changed();
    }

    /// What the operator is to be told, oldest first.
    pub fn untold(&self) -> &[Notice] {
        &self.alarm.untold
    }

    /// A notice stands in the log.
    pub fn told(&mut self, notice: &Notice) {
        self.alarm.told(notice);
        self.touch_health();
    }

    /// The facts made since the last call, in order. Each is to be appended to
    /// `tidings.outcomes`, and then given to [`Hook::acknowledged`].
    pub fn facts(&mut self) -> std::vec::Drain<'_, Fact> {
        self.facts.drain(..)
    }

    /// When to ask again although nothing happens.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let is_active = self.gate.standing() == Standing::Active;
        let drains = is_active && self.is_draining();
        let waiting = BOTH.into_iter().filter_map(|lane| self.first_waiting(lane, drains));
        let mut waiting = waiting.map(|(due, _)| due);
        let held = (self.held > 0).then_some(self.held_sweep);
        match self.gate.standing() {
            Standing::Active => {
                // One that is due and may not start hides nothing that is due later.
                let later = |due: &Timestamp| *due > now;
                let probe = self.gate.probe_at();
                let others = [self.wake, probe, self.gate.silent_at(), held, self.next_freeing];
                waiting.chain(others.into_iter().flatten()).filter(later).min()
            }
            Standing::Inactive | Standing::Paused => {
                let swept = waiting.min().map(|first| first.max(self.next_sweep));
                // One that could not be said yet is tried again.
                let soon = |at: Timestamp| if at > now { at } else { now + UNSENT_EVERY };
                let others = [swept, held, self.next_deadline(), self.next_freeing];
                others.into_iter().flatten().map(soon).min()
            }
            Standing::Suspended | Standing::Deleted => {
                let queued = self.lanes.iter().flatten().any(|lane| !lane.ahead.is_empty());
                (waiting.next().is_some() || queued).then_some(now + UNSENT_EVERY)
            }
        }
    }

    /// Brings what counts among the suspects of the process up to date.
    fn count_suspects(&mut self, process: &mut Process) {
        let now = if self.gate.is_suspect() { self.gate.in_flight() } else { 0 };
        process.count_suspects(self.rules.shares, self.suspects, now);
        self.suspects = now;
    }

    fn say(&mut self, process: &mut Process, fact: Fact) {
        process.facts += 1;
        self.facts.push(fact);
    }

    /// Hands the end of an open notification to the log.
    fn end(
        &mut self,
        process: &mut Process,
        at: At,
        kind: FactKind,
        now: Timestamp,
        attempt: Option<AttemptFact>,
    ) {
        let Some(lane) = self.lane_mut(at.partition) else { return };
        lane.stop_waiting(at.offset);
        let Some(open) = lane.open.get_mut(&at.offset) else { return };
        debug_assert!(open.phase != Phase::Ending, "a run ends once");
        open.phase = Phase::Ending;
        if open.body.take().is_some() {
            process.kept_bytes = process.kept_bytes.saturating_sub(open.size);
        }
        let entry = open.entry;
        self.say(process, Fact { kind, entry, time: now, attempt });
        if matches!(self.gate.standing(), Standing::Suspended | Standing::Deleted) {
            // Nothing is sent any more, so nothing has to wait for the log.
            self.leave_queue(&entry);
        }
    }

    fn lane_mut(&mut self, partition: Partition) -> Option<&mut PartitionState<B>> {
        self.lanes[index(Lane::from_partition(partition))].as_mut()
    }

    fn lane(&self, partition: Partition) -> Option<&PartitionState<B>> {
        self.lanes[index(Lane::from_partition(partition))].as_ref()
    }

    /// Remembers a notification that was taken up. Rule: remembered ids.
    fn remember(&mut self, process: &mut Process, entry: &Entry) {
        let before = self.remembered.len();
        let limit = process.remember_limit();
        self.remembered.insert(entry.notification, entry.run, entry.at, limit);
        process.remembered = (process.remembered + self.remembered.len()).saturating_sub(before);
    }

    /// Whether a suspended or deleted webhook's notification may end now: what is
    /// queued ends at a bounded rate (design §10).
    fn may_end_unsent(&mut self, now: Timestamp) -> bool {
        match self.gate.standing() {
            Standing::Active | Standing::Inactive | Standing::Paused => return true,
            Standing::Suspended | Standing::Deleted => {}
        }
        if now.since(self.unsent_since) >= UNSENT_EVERY {
            self.unsent_since = now;
            self.unsent_left = UNSENT_AT_ONCE;
        }
        let may = self.unsent_left > 0;
        self.unsent_left = self.unsent_left.saturating_sub(1);
        may
    }

    /// Ends what waits and is past its window or its deadline, without an attempt.
    fn sweep(&mut self, now: Timestamp, process: &mut Process) {
        self.next_sweep = now + SWEEP;
        let mut over = Vec::new();
        // What an operator stopped is not to lose its attempts.
        let windows_run = self.gate.standing() != Standing::Paused;
        for lane in self.lanes.iter().flatten() {
            let waits = |open: &&Open<B>| matches!(open.phase, Phase::Waiting | Phase::Blocked);
            for open in lane.open.values().filter(waits) {
                let totals = &open.entry.totals;
                let expired = open.deadline.is_some_and(|deadline| deadline <= now);
                let window = windows_run
                    && open.phase == Phase::Waiting
                    && totals.due <= now
                    && totals.attempts > 0
                    && now.since(totals.first_attempt) >= self.rules.ladder.window();
                if expired {
                    over.push((open.entry.at, FactKind::Expired));
                } else if window {
                    over.push((open.entry.at, FactKind::Undelivered(EndReason::Window)));
                }
            }
        }
        for (at, kind) in over {
            if !process.may_say() {
                self.next_sweep = now + UNSENT_EVERY;
                return;
            }
            self.end(process, at, kind, now, None);
        }
    }
}

/// How often the open notifications of a webhook, or of a type, that stands still are
/// looked at.
const SWEEP: Duration = Duration::from_secs(30);

/// At most so many queued notifications of a suspended or deleted webhook, or those of
/// stuck keys, end...
const UNSENT_AT_ONCE: usize = 200;
/// ...in so long.
const UNSENT_EVERY: Duration = Duration::from_millis(100);
