//! What becomes of attempts and facts: the retry ladder, ends, and what the log's
//! acknowledgement makes true.

use std::time::Duration;

use tidings_types::{AttemptCode, EndReason, Ordering, Timestamp};

use super::{BOTH, Hook, take_up::fresh};
use crate::{
    Arrived, At, Attempt, Entry, Fact, FactKind, Process, Report, Standing, Totals, entry::Phase,
};

/// The shortest wait between attempts past the end of a ladder.
const PAST_LADDER: Duration = Duration::from_secs(1);

impl<B: Clone> Hook<B> {
    /// A body was read again. Gives the attempt to start, or `None` if the
    /// notification ended meanwhile or at this moment. `record` is `None` if the
    /// log no longer has it, or another stands there.
    pub fn loaded(
        &mut self,
        at: At,
        record: Option<Arrived<B>>,
        now: Timestamp,
        process: &mut Process,
    ) -> Option<Attempt<B>> {
        let open = self.lane_mut(at.partition)?.open.get_mut(&at.offset)?;
        if open.phase != Phase::Loading {
            return None;
        }
        let lane = open.entry.lane;
        let record = record.filter(|record| {
            record.offset == at.offset
                && record.notification == open.entry.notification
                && record.run == open.entry.run
        });
        let Some(record) = record else {
            self.free_place(lane, process);
            process.counts.lost += 1;
            self.end(process, at, FactKind::Undelivered(EndReason::Exhausted), now, None);
            return None;
        };
        open.deadline = record.deadline;
        open.size = record.size;
        open.kind = record.kind;
        if !self.may_still_start(at, now, process) {
            return None;
        }
        let open = self.lane_mut(at.partition)?.open.get_mut(&at.offset)?;
        open.phase = Phase::InFlight;
        Some(super::take_up::begin(open, record.body, now))
    }

    /// Whether an attempt that was allowed and then had to wait for something of ours (its
    /// body, a key) may start all the same. If not it waits again, is held, or has ended.
    pub fn may_still_start(&mut self, at: At, now: Timestamp, process: &mut Process) -> bool {
        let Some(open) = self.lane(at.partition).and_then(|state| state.open.get(&at.offset))
        else {
            return false;
        };
        if open.phase != Phase::Loading && open.phase != Phase::InFlight {
            return false;
        }
        let (lane, due) = (open.entry.lane, open.entry.totals.due);
        let (deadline, kind) = (open.deadline, open.kind);
        match self.gate.standing() {
            Standing::Active => {}
            // Those of the latter two end when they are asked for next.
            Standing::Inactive | Standing::Paused | Standing::Suspended | Standing::Deleted => {
                self.put_back(at, due, process);
                return false;
            }
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.free_place(lane, process);
            self.end(process, at, FactKind::Expired, now, None);
            return false;
        }
        if process.paused.contains(&kind) {
            self.free_place(lane, process);
            self.hold(at, now);
            return false;
        }
        true
    }

    /// An attempt could not be made for a reason of ours (the log or a key cannot
    /// be read now): it does not count, and is due again at `due`.
    pub fn put_back(&mut self, at: At, due: Timestamp, process: &mut Process) {
        let Some(state) = self.lane_mut(at.partition) else { return };
        let Some(open) = state.open.get_mut(&at.offset) else { return };
        if open.phase != Phase::Loading && open.phase != Phase::InFlight {
            return;
        }
        if std::mem::take(&mut open.joined) {
            // What a resend was promised holds for the attempt that is made instead.
            open.entry.totals = fresh(open.entry.totals, due);
            state.changed = true;
        } else {
            open.entry.totals.due = due;
        }
        let lane = open.entry.lane;
        state.wait(at.offset);
        self.free_place(lane, process);
    }

    /// The body cannot be opened any more, by anybody: its key is gone with its
    /// deadline. Ends as expired, without an attempt.
    pub fn unreadable(&mut self, at: At, now: Timestamp, process: &mut Process) {
        let Some(open) = self.lane(at.partition).and_then(|state| state.open.get(&at.offset))
        else {
            return;
        };
        if open.phase != Phase::InFlight {
            return;
        }
        let lane = open.entry.lane;
        self.free_place(lane, process);
        self.end(process, at, FactKind::Expired, now, None);
    }

    fn free_place(&mut self, lane: tidings_types::Lane, process: &mut Process) {
        self.gate.finished(lane);
        process.give_back(lane, self.rules.shares);
        self.count_suspects(process);
    }

    /// An attempt has ended. `random` makes the jitter. One whose notification is
    /// not in flight (any more) is passed over.
    pub fn finished(
        &mut self,
        at: At,
        report: &Report,
        now: Timestamp,
        random: u64,
        process: &mut Process,
    ) {
        let Some(open) = self.lane_mut(at.partition).and_then(|s| s.open.get_mut(&at.offset))
        else {
            return;
        };
        if open.phase != Phase::InFlight {
            return;
        }
        let (entry, joined, deadline) = (open.entry, open.joined, open.deadline);
        open.joined = false;
        let is_early = std::mem::take(&mut open.is_early);
        let was_broken = self.gate.is_broken();
        self.gate.ended(report, now);
        self.free_place(entry.lane, process);
        let mut totals = entry.totals;
        totals.attempts = totals.attempts.saturating_add(1);
        if report.is_delivered() {
            self.gate.succeeded(now);
            process.counts.breakers_closed += u64::from(was_broken);
            self.count_suspects(process);
            self.end_attempt(at, FactKind::Delivered, totals, report, now, process);
            return;
        }
        if totals.first_failure == Timestamp::ZERO {
            totals.first_failure = now;
        }
        if let Some(asked) = report.retry_after {
            // In strict order everything is one lane.
            let is_strict = self.rules.ordering == Ordering::Strict;
            for lane in BOTH.into_iter().filter(|lane| is_strict || *lane == entry.lane) {
                self.gate.pause(lane, now, asked);
            }
        }
        self.last_failure = Some(report.attempt);
        let gone = report.attempt.http_status == 410;
        if gone {
            self.proposal = self.gate.gone(now, &process.limits.suspend).or(self.proposal);
        }
        let failed = self.gate.failed(entry.notification, now, &process.limits.suspend);
        self.proposal = failed.or(self.proposal);
        process.counts.breakers_opened += u64::from(!was_broken && self.gate.is_broken());
        self.count_suspects(process);
        if joined {
            totals = fresh(totals, now);
        } else if is_early && !gone && self.gate.standing() == Standing::Active {
            // A probe is an attempt but not a step: it stays due as it was.
        } else {
            totals.ladder_step = totals.ladder_step.saturating_add(1);
            if let Some(kind) = self.ends_failed(&entry, &totals, report.attempt.code, gone, now) {
                self.end_attempt(at, kind, totals, report, now, process);
                return;
            }
            let mut wait = self.rules.ladder.wait(totals.ladder_step, random);
            if self.rules.ladder.is_past(totals.ladder_step) {
                wait = wait.max(PAST_LADDER);
            }
            // `Retry-After` never shortens a step.
            let wait = report.retry_after.map_or(wait, |asked| wait.max(asked));
            totals.due = now + wait;
            if let Some(deadline) = deadline {
                totals.due = totals.due.min(deadline);
            }
        }
        self.report_failure(at, Entry { totals, ..entry }, report, now, process);
    }

    /// Whether a failed attempt was the last one of its run.
    fn ends_failed(
        &self,
        entry: &Entry,
        totals: &Totals,
        code: AttemptCode,
        gone: bool,
        now: Timestamp,
    ) -> Option<FactKind> {
        match self.gate.standing() {
            Standing::Deleted => return Some(FactKind::Cancelled),
            Standing::Suspended => return Some(FactKind::Undelivered(EndReason::Suspended)),
            Standing::Active | Standing::Inactive | Standing::Paused => {}
        }
        if gone {
            return Some(FactKind::Undelivered(EndReason::Gone));
        }
        // What no person repairs by waiting (`reliability-security.md` §2.6).
        let hopeless = matches!(code, AttemptCode::BlockedAddress | AttemptCode::BadConfig);
        let over = self.rules.ladder.is_over(totals.ladder_step, totals.first_attempt, now)
            && !self.waits_past_ladder(entry);
        (hopeless || over).then_some(FactKind::Undelivered(EndReason::Exhausted))
    }

    fn end_attempt(
        &mut self,
        at: At,
        kind: FactKind,
        totals: Totals,
        report: &Report,
        now: Timestamp,
        process: &mut Process,
    ) {
        let Some(open) = self.lane_mut(at.partition).and_then(|s| s.open.get_mut(&at.offset))
        else {
            return;
        };
        open.phase = Phase::Ending;
        let entry = Entry { totals, ..open.entry };
        self.say(process, Fact { kind, entry, time: now, attempt: Some(report.attempt) });
    }

    fn report_failure(
        &mut self,
        at: At,
        entry: Entry,
        report: &Report,
        now: Timestamp,
        process: &mut Process,
    ) {
        let Some(open) = self.lane_mut(at.partition).and_then(|s| s.open.get_mut(&at.offset))
        else {
            return;
        };
        open.phase = Phase::Reporting(entry.totals);
        let attempt = Some(report.attempt);
        self.say(process, Fact { kind: FactKind::AttemptFailed, entry, time: now, attempt });
    }

    /// The log has acknowledged a fact. `body` is kept for the next attempt if that
    /// is near and the process has room; otherwise it is read again.
    pub fn acknowledged(
        &mut self,
        fact: &Fact,
        body: Option<B>,
        now: Timestamp,
        process: &mut Process,
    ) {
        process.facts = process.facts.saturating_sub(1);
        if let Some(attempt) = &fact.attempt {
            self.alarm.fold(fact.kind, fact.time, attempt, process.limits.failing_after);
        }
        let at = fact.entry.at;
        let Some(state) = self.lane_mut(at.partition) else { return };
        let Some(open) = state.open.get_mut(&at.offset) else {
            self.ended_ahead(fact);
            return;
        };
        if fact.kind == FactKind::TakenUp {
            let entry = open.entry;
            self.numbered(&entry, now, process);
            return;
        }
        state.changed = true;
        let phase = open.phase;
        self.touch_health();
        let Some(state) = self.lane_mut(at.partition) else { return };
        let Some(open) = state.open.get_mut(&at.offset) else { return };
        match phase {
            Phase::Ending if fact.kind.is_end() => {
                let notification = open.entry.notification;
                state.open.remove(&at.offset);
                if self.open_ids.get(&notification) == Some(&at) {
                    self.open_ids.remove(&notification);
                }
                self.leave_queue(&fact.entry);
            }
            Phase::Reporting(totals) => {
                open.entry.totals = totals;
                let near = totals.due.since(now) <= process.limits.keep_body;
                let fits = process.kept_bytes + open.size <= process.limits.kept_bytes_in_process;
                if near && fits && body.is_some() {
                    process.kept_bytes += open.size;
                    open.body = body;
                }
                let entry = open.entry;
                state.wait(at.offset);
                self.order.stick(&entry);
                self.supersede(&entry, now, process);
            }
            Phase::Numbering
            | Phase::Blocked
            | Phase::Held
            | Phase::Ending
            | Phase::Waiting
            | Phase::Loading
            | Phase::InFlight => {}
        }
    }
}
