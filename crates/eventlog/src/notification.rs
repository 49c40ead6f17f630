//! What is known of one notification, and what its facts make of its state.
//!
//! The facts may come in any order: what is kept is the same afterwards (design
//! §6, "State of a notification"). Facts carry totals, so folding one twice
//! changes nothing.

use tidings_proto::v1::{self, OutcomeKind};
use tidings_types::{EndReason, Lane, NotificationState, RunId, Timestamp, WebhookId};

use crate::{
    tried::Attempts,
    wire::{In, Malformed, put_i64, put_u32, put_u64},
};

/// Runs remembered of one notification. Past it the oldest that has ended is
/// forgotten, so that resending one notification for ever cannot fill a row.
const MAX_RUNS: usize = 32;

/// Where a fact stands: its record's offset in the webhook's partition of
/// `tidings.outcomes`, and its place in the record. Decides between facts of one
/// owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) index: u32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Delivered,
    Undelivered(Option<EndReason>),
    Expired,
    Cancelled,
    Superseded,
    Joined,
}

/// One run, as its latest owner left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    /// The latest owner that said something of it; none is a router or an api,
    /// which count as earlier than any sender.
    pub(crate) took: Option<u64>,
    pub(crate) end: Option<(End, Place)>,
    pub(crate) attempts: u32,
}

/// Where a notification comes from: the decision that named it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Chunk of decisions, and record in it.
    pub(crate) chunk: u64,
    pub(crate) record: u32,
    pub(crate) webhook: WebhookId,
    pub(crate) event_type: u32,
    pub(crate) created: Timestamp,
    /// The source record at which its event is counted.
    pub(crate) home: (u32, u64),
}

/// A notification of which more is known than that it is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notification {
    /// None while the decision has not been read.
    pub(crate) origin: Option<Origin>,
    pub(crate) runs: Vec<Run>,
    pub(crate) delivered: bool,
    /// Whether any attempt failed.
    pub(crate) failed: bool,
    /// Whether every decision that names it found its webhook suspended, so that
    /// there is no delivery record.
    pub(crate) suspended: bool,
    pub(crate) tried: Attempts,
    /// The number in the order of its webhook, 0 if there is none, and the lane that
    /// gave it.
    pub(crate) number: u64,
    pub(crate) number_lane: Lane,
    /// Runs and attempts that `runs` no longer holds.
    pub(crate) forgotten_runs: u32,
    pub(crate) forgotten_attempts: u32,
    /// The time of the latest fact.
    pub(crate) latest: Timestamp,
}

/// One fact, checked.
#[derive(Debug)]
pub(crate) struct Fact<'a> {
    pub(crate) took: Option<u64>,
    pub(crate) run: RunId,
    pub(crate) kind: OutcomeKind,
    pub(crate) place: Place,
    pub(crate) outcome: &'a v1::Outcome,
}

/// Whether a fact contradicts another one of the same owner and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    Agrees,
    Disagrees,
}

impl Notification {
    /// The run of a first delivery exists as soon as the decision is known.
    pub(crate) fn set_origin(&mut self, origin: Origin, suspended: bool) {
        self.origin = Some(origin);
        self.suspended = suspended;
        self.run(RunId::FIRST);
    }

    pub(crate) fn fold(&mut self, fact: &Fact<'_>) -> Folded {
        let outcome = fact.outcome;
        let time = Timestamp::from_millis(outcome.time);
        self.latest = self.latest.max(time);
        // A resend carries the number and stands in a lane of its own.
        if outcome.number > self.number && fact.run.is_first() {
            self.number = outcome.number;
            self.number_lane = outcome.lane().into();
        }
        let end = match fact.kind {
            // Says nothing of the run, which another record stands for.
            OutcomeKind::Duplicate | OutcomeKind::Unspecified => return Folded::Agrees,
            OutcomeKind::TakenUp | OutcomeKind::ResendAsked => None,
            OutcomeKind::AttemptFailed => {
                self.failed = true;
                None
            }
            OutcomeKind::Delivered => {
                self.delivered = true;
                Some(End::Delivered)
            }
            OutcomeKind::Undelivered => {
                Some(End::Undelivered(EndReason::from_name(&outcome.reason)))
            }
            OutcomeKind::Expired => Some(End::Expired),
            OutcomeKind::Cancelled => Some(End::Cancelled),
            OutcomeKind::Superseded => Some(End::Superseded),
            OutcomeKind::Joined => Some(End::Joined),
        };
        if !outcome.code.is_empty() {
            self.attempted(time, fact);
        }
        let run = self.run(fact.run);
        run.attempts = run.attempts.max(outcome.attempt);
        if fact.took < run.took {
            return Folded::Agrees;
        }
        if fact.took > run.took {
            run.took = fact.took;
            run.end = None;
        }
        let Some(end) = end else { return Folded::Agrees };
        match run.end {
            Some((other, at)) => {
                if fact.place > at {
                    run.end = Some((end, fact.place));
                }
                if other == end { Folded::Agrees } else { Folded::Disagrees }
            }
            None => {
                run.end = Some((end, fact.place));
                Folded::Agrees
            }
        }
    }

    /// An attempt was made, and this is what it came to.
    fn attempted(&mut self, time: Timestamp, fact: &Fact<'_>) {
        if fact.kind != OutcomeKind::Delivered {
            self.failed = true;
        }
        self.tried.add(time, fact, fact.kind == OutcomeKind::AttemptFailed);
    }

    fn run(&mut self, id: RunId) -> &mut Run {
        let at = match self.runs.binary_search_by_key(&id, |run| run.id) {
            Ok(at) => at,
            Err(at) => {
                self.runs.insert(at, Run { id, took: None, end: None, attempts: 0 });
                at - usize::from(self.forget_one(at))
            }
        };
        &mut self.runs[at]
    }

    /// Keeps the list short. Says whether a run before `keep` went.
    fn forget_one(&mut self, keep: usize) -> bool {
        if self.runs.len() <= MAX_RUNS {
            return false;
        }
        // The first is never forgotten, or its decision would open it again.
        let ended = |(at, run): &(usize, &Run)| *at > 0 && *at != keep && run.end.is_some();
        let Some((at, _)) = self.runs.iter().enumerate().find(ended) else { return false };
        let run = self.runs.remove(at);
        self.forgotten_runs = self.forgotten_runs.saturating_add(1);
        self.forgotten_attempts = self.forgotten_attempts.saturating_add(run.attempts);
        at < keep
    }

    /// The state, and the reason of an end other than delivered.
    pub(crate) fn state(&self) -> (NotificationState, Option<EndReason>) {
        if self.delivered {
            return (NotificationState::Delivered, None);
        }
        for run in &self.runs {
            if self.end(run).is_none() {
                return (NotificationState::Pending, None);
            }
        }
        for end in self.runs.iter().rev().filter_map(|run| self.end(run)) {
            match end {
                End::Joined => {}
                End::Delivered => return (NotificationState::Delivered, None),
                End::Undelivered(reason) => return (NotificationState::Undelivered, reason),
                End::Expired => {
                    return (NotificationState::Expired, Some(EndReason::Expired));
                }
                End::Cancelled => {
                    return (NotificationState::Cancelled, Some(EndReason::Cancelled));
                }
                End::Superseded => {
                    return (NotificationState::Superseded, Some(EndReason::Superseded));
                }
            }
        }
        (NotificationState::Pending, None)
    }

    /// How a run ended. For a suspended webhook the router said so itself, with the
    /// decision; whatever a sender says of the run comes after that.
    fn end(&self, run: &Run) -> Option<End> {
        let suspended = self.suspended && run.id.is_first() && run.took.is_none();
        let by_router = suspended.then_some(End::Undelivered(Some(EndReason::Suspended)));
        run.end.map(|(end, _)| end).or(by_router)
    }

    /// Whether the list of undelivered notifications has it.
    pub(crate) fn is_missed(&self) -> bool {
        match self.state().0 {
            NotificationState::Undelivered | NotificationState::Expired => true,
            NotificationState::Pending => self.failed,
            NotificationState::Delivered
            | NotificationState::Cancelled
            | NotificationState::Superseded => false,
        }
    }

    pub(crate) fn attempts(&self) -> u32 {
        let kept = self.runs.iter().map(|run| run.attempts);
        kept.fold(self.forgotten_attempts, u32::saturating_add)
    }

    pub(crate) fn resends(&self) -> u32 {
        let kept = self.runs.iter().filter(|run| !run.id.is_first()).count();
        self.forgotten_runs.saturating_add(u32::try_from(kept).unwrap_or(u32::MAX))
    }

    pub(crate) fn latest_run(&self) -> RunId {
        self.runs.last().map_or(RunId::FIRST, |run| run.id)
    }
}

const DELIVERED: u8 = 1;
const FAILED: u8 = 2;
const ORIGIN: u8 = 4;
const SUSPENDED: u8 = 8;
const URGENT_NUMBER: u8 = 16;

impl Notification {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        out.push(
            flag(self.delivered, DELIVERED)
                | flag(self.failed, FAILED)
                | flag(self.origin.is_some(), ORIGIN)
                | flag(self.suspended, SUSPENDED)
                | flag(self.number_lane == Lane::Urgent, URGENT_NUMBER),
        );
        if let Some(origin) = &self.origin {
            put_u64(&mut out, origin.chunk);
            put_u32(&mut out, origin.record);
            out.extend_from_slice(origin.webhook.as_bytes());
            put_u32(&mut out, origin.event_type);
            put_i64(&mut out, origin.created.as_millis());
            put_u32(&mut out, origin.home.0);
            put_u64(&mut out, origin.home.1);
        }
        self.tried.put(&mut out);
        put_i64(&mut out, self.latest.as_millis());
        put_u64(&mut out, self.number);
        put_u32(&mut out, self.forgotten_runs);
        put_u32(&mut out, self.forgotten_attempts);
        put_u64(&mut out, self.runs.len() as u64);
        for run in &self.runs {
            put_run(&mut out, run);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = In(bytes);
        let flags = read.u8()?;
        let mut notification = Self {
            delivered: flags & DELIVERED != 0,
            failed: flags & FAILED != 0,
            suspended: flags & SUSPENDED != 0,
            number_lane: if flags & URGENT_NUMBER == 0 { Lane::Standard } else { Lane::Urgent },
            ..Self::default()
        };
        if flags & ORIGIN != 0 {
            notification.origin = Some(Origin {
                chunk: read.u64()?,
                record: read.u32()?,
                webhook: WebhookId::from_bytes(read.array()?),
                event_type: read.u32()?,
                created: Timestamp::from_millis(read.i64()?),
                home: (read.u32()?, read.u64()?),
            });
        }
        notification.tried = Attempts::read(&mut read)?;
        notification.latest = Timestamp::from_millis(read.i64()?);
        notification.number = read.u64()?;
        notification.forgotten_runs = read.u32()?;
        notification.forgotten_attempts = read.u32()?;
        for _ in 0..read.len()? {
            notification.runs.push(run(&mut read)?);
        }
        if read.is_empty() { Ok(notification) } else { Err(Malformed) }
    }
}

fn put_place(out: &mut Vec<u8>, place: Place) {
    put_u64(out, place.offset);
    put_u32(out, place.index);
}

fn place(read: &mut In<'_>) -> Result<Place, Malformed> {
    Ok(Place { offset: read.u64()?, index: read.u32()? })
}

/// Reasons in rows: their place in [`EndReason::ALL`], plus one.
fn put_run(out: &mut Vec<u8>, run: &Run) {
    let first = run.id.is_first();
    let (kind, reason) = match run.end.map(|(end, _)| end) {
        None => (0, None),
        Some(End::Delivered) => (1, None),
        Some(End::Undelivered(reason)) => (2, reason),
        Some(End::Expired) => (3, None),
        Some(End::Cancelled) => (4, None),
        Some(End::Superseded) => (5, None),
        Some(End::Joined) => (6, None),
    };
    out.push(kind | if first { 0x40 } else { 0 } | if run.took.is_some() { 0x80 } else { 0 });
    if !first {
        out.extend_from_slice(run.id.as_bytes());
    }
    if let Some(took) = run.took {
        put_u64(out, took);
    }
    if kind == 2 {
        let index = reason.and_then(|reason| EndReason::ALL.iter().position(|r| *r == reason));
        put_u64(out, index.map_or(0, |index| index as u64 + 1));
    }
    if let Some((_, place)) = run.end {
        put_place(out, place);
    }
    put_u32(out, run.attempts);
}

fn run(read: &mut In<'_>) -> Result<Run, Malformed> {
    let head = read.u8()?;
    let id = if head & 0x40 == 0 { RunId::from_bytes(read.array()?) } else { RunId::FIRST };
    let took = if head & 0x80 == 0 { None } else { Some(read.u64()?) };
    let end = match head & 0x3f {
        0 => None,
        1 => Some(End::Delivered),
        2 => {
            let index = read.len()?.checked_sub(1);
            Some(End::Undelivered(index.and_then(|index| EndReason::ALL.get(index).copied())))
        }
        3 => Some(End::Expired),
        4 => Some(End::Cancelled),
        5 => Some(End::Superseded),
        6 => Some(End::Joined),
        _ => return Err(Malformed),
    };
    let end = match end {
        Some(end) => Some((end, place(read)?)),
        None => None,
    };
    Ok(Run { id, took, end, attempts: read.u32()? })
}

#[cfg(test)]
mod tests;
