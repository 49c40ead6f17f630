//! One open notification, and the facts that are said about it.

use std::time::Duration;

use tidings_types::{
    AttemptCode, EndReason, Lane, NotificationId, Offset, Partition, RunId, Timestamp,
};

use crate::{Queued, adapt::Strain};

/// Where a delivery record stands in its webhook's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub partition: Partition,
    pub offset: Offset,
}

/// How far a notification has come in its run. Totals, never differences: the
/// last one in log order wins. Rule: outcomes carry totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Attempts that have ended.
    pub attempts: u32,
    /// Steps of the ladder that are done. A resend that joined sets it back.
    pub ladder_step: u32,
    /// When the first attempt of the run began; zero before it.
    pub first_attempt: Timestamp,
    /// When the first attempt failed; zero before it.
    pub first_failure: Timestamp,
    /// When the next attempt is due; zero: at once.
    pub due: Timestamp,
    /// The number of an ordered webhook's notification; zero: none.
    pub number: u64,
}

/// An open notification as checkpoints and outcomes tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub at: At,
    pub notification: NotificationId,
    pub run: RunId,
    pub lane: Lane,
    pub totals: Totals,
    /// Where it stands in the order; `None`: outside it.
    pub queue: Option<Queued>,
}

/// A delivery record as it was read. `B` is the body's carrier, cheap to clone.
#[derive(Clone, Debug)]
pub struct Arrived<B> {
    pub offset: Offset,
    pub notification: NotificationId,
    pub run: RunId,
    pub lane: Lane,
    /// Past it the notification is expired.
    pub deadline: Option<Timestamp>,
    /// Its event type, hashed.
    pub kind: u64,
    /// Its order key, hashed.
    pub order_key: u128,
    /// Order key and type, hashed, of a type that is a state.
    pub state_key: Option<u128>,
    /// Of a resend: the number that its notification has; else zero.
    pub number: u64,
    /// Bytes that it holds in memory.
    pub size: usize,
    pub body: B,
}

/// What a fact says. Ends carry what the recorder shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// Open, with these totals (its number was given, or a resend joined it).
    TakenUp,
    AttemptFailed,
    Delivered,
    Undelivered(EndReason),
    Expired,
    Cancelled,
    /// A newer state of the same key took its place.
    Superseded,
    /// A resend whose notification was still open.
    Joined,
}

impl FactKind {
    /// Whether nothing follows it in its run.
    pub const fn is_end(self) -> bool {
        match self {
            Self::TakenUp | Self::AttemptFailed => false,
            Self::Delivered
            | Self::Undelivered(_)
            | Self::Expired
            | Self::Cancelled
            | Self::Superseded
            | Self::Joined => true,
        }
    }
}

/// The attempt that a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptFact {
    pub code: AttemptCode,
    /// Zero if the endpoint did not answer.
    pub http_status: u16,
    pub duration: Duration,
}

/// One fact about one notification, to be appended to `tidings.outcomes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    pub kind: FactKind,
    pub entry: Entry,
    pub time: Timestamp,
    pub attempt: Option<AttemptFact>,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub attempt: AttemptFact,
    pub retry_after: Option<Duration>,
}

impl Report {
    pub fn is_delivered(&self) -> bool {
        self.attempt.code == AttemptCode::Delivered
    }

    /// Whether the endpoint let the time run out.
    pub fn is_silence(&self) -> bool {
        matches!(self.attempt.code, AttemptCode::Timeout | AttemptCode::ConnectTimeout)
    }

    /// What it says of how much the endpoint takes at a time.
    pub(crate) fn strain(&self) -> Strain {
        match self.attempt.http_status {
            408 | 425 | 429 | 503 => Strain::TooMuch,
            // It refuses what it was sent.
            400..=499 => Strain::None,
            _ if self.is_delivered() => Strain::None,
            _ if self.is_silence() => Strain::TooMuch,
            _ => Strain::Failed,
        }
    }
}

/// What happens to an open notification now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its number has been handed to the log.
    Numbering,
    /// Others of its queue come first.
    Blocked,
    /// Until `due`.
    Waiting,
    /// Until an operator lets its event type go on.
    Held,
    /// Its body is being read from the log again; a place in flight is taken.
    Loading,
    /// A request is under way.
    InFlight,
    /// Its failed attempt has been handed to the log; these totals hold once the
    /// log has acknowledged it.
    Reporting(Totals),
    /// Its end has been handed to the log.
    Ending,
}

/// The type of a notification that only a checkpoint told of.
pub(crate) const UNKNOWN_KIND: u64 = 0;

/// An open notification in its owner's memory.
#[derive(Debug)]
pub(crate) struct Open<B> {
    pub(crate) entry: Entry,
    pub(crate) phase: Phase,
    pub(crate) deadline: Option<Timestamp>,
    /// Its event type, hashed; [`UNKNOWN_KIND`] until its record has been read.
    pub(crate) kind: u64,
    pub(crate) body: Option<B>,
    pub(crate) size: usize,
    /// A resend joined while the request was under way: if it fails, the next one
    /// is due at once with a fresh ladder.
    pub(crate) joined: bool,
    /// Its attempt is a probe before it was due: not a step of its ladder.
    pub(crate) is_early: bool,
    /// The log has acknowledged its number.
    pub(crate) is_numbered: bool,
}
