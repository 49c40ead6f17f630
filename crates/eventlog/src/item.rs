//! What the view answers with. Bodies are sealed: who may see them opens them
//! with the key book.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use tidings_proto::v1;
use tidings_types::{
    EndReason, EventUid, Lane, NotificationId, NotificationState, Offset, RunId, Timestamp,
    TopicPartition, WebhookId,
};

/// How far the view is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// Whether everything has been read that stood in the topics when the recorder
    /// started. Until then history answers 503.
    pub complete: bool,
    /// The part of that which has been read, from 0 to 1.
    pub progress: f64,
    /// All partitions of both topics have been read up to what stood in them at
    /// this time. Lists end here.
    pub as_of: Timestamp,
}

/// One notification as history shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub notification: NotificationId,
    pub webhook: WebhookId,
    pub event_type: Arc<str>,
    pub state: NotificationState,
    /// Why it ended, unless it is delivered or pending.
    pub reason: Option<EndReason>,
    /// What the last attempt came to (`HTTP_503`), if there was one.
    pub last_code: Option<Arc<str>>,
    /// When the router decided.
    pub created: Timestamp,
    /// When the last attempt was made, if there was one.
    pub last_sent: Option<Timestamp>,
    /// Attempts of all runs together.
    pub attempts: u32,
    /// Runs after the first.
    pub resends: u32,
    /// The latest run.
    pub run: RunId,
    /// The number of an ordered webhook's notification, in the lane that gave it.
    pub number: Option<(Lane, u64)>,
    pub lane: Lane,
    /// Programme manager or merchant, as the router wrote it: `pm:20`, `m:m_9f2`.
    pub tenant: Arc<str>,
    pub issuer: Arc<str>,
    pub order_key: Arc<str>,
    /// Past it the notification is never sent.
    pub deadline: Option<Timestamp>,
    /// The source record whose decision made the notification.
    pub source: (TopicPartition, Offset),
    pub uid: EventUid,
    pub traceparent: Arc<str>,
    /// Of a 101: the alert that it is about. Else empty.
    pub fraud_alert_id: Arc<str>,
    /// The sealed body of the webhook's shape, with the place of the notification
    /// id and of the payload. Of an event with a deadline that has passed it is
    /// the one without its short-lived fields, if the event has such a one.
    pub body: Option<v1::Body>,
    /// Whether `body` is the one without its short-lived fields.
    pub redacted: bool,
}

/// One attempt of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptItem {
    /// Counted from 1 within the run.
    pub number: u32,
    pub run: RunId,
    pub started: Timestamp,
    pub duration: Duration,
    pub delivered: bool,
    /// What it came to (`HTTP_503`).
    pub code: Arc<str>,
    /// None if there was no answer.
    pub http_status: Option<u16>,
    /// When the next one was due then; none if it was the last of its run.
    pub next_due: Option<Timestamp>,
    /// Which outcome has the sealed start of the answer, if one has: the offset in
    /// the webhook's partition of `tidings.outcomes`, and the place in the record,
    /// counted from 1.
    pub answer: Option<(Offset, u32)>,
}

/// The latest attempts of a notification, in the order in which they ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptList {
    pub event_type: Arc<str>,
    pub attempts: Vec<AttemptItem>,
}

/// A place in a list: behind this notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub created: Timestamp,
    pub notification: NotificationId,
}

/// A text that is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of a list; start the list anew")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created.as_millis(), self.notification)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (created, notification) = text.split_once('.').ok_or(CursorError)?;
        Ok(Self {
            created: Timestamp::from_millis(created.parse().map_err(|_bad| CursorError)?),
            notification: notification.parse().map_err(|_bad| CursorError)?,
        })
    }
}

/// A part of a list, in order of creation, then of id.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub items: Vec<Item>,
    /// Where to go on; none if there is nothing more up to `as_of`.
    pub next: Option<Cursor>,
    pub as_of: Timestamp,
}

/// What one webhook did not get of one event type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndeliveredGroup {
    pub event_type: Arc<str>,
    /// All of them, however many ids are given.
    pub count: u64,
    /// Oldest first, at most [`UndeliveredGroup::MAX_IDS`].
    pub notifications: Vec<NotificationId>,
    /// Where to go on; none if all behind the place that was asked for are here.
    pub next: Option<Cursor>,
}

/// Where to go on in a list of what a webhook did not get, of each event type that had
/// more. Empty: from the start, all types.
pub type Places = BTreeMap<String, Cursor>;

impl UndeliveredGroup {
    /// `spec.md` §1.8.3.
    pub const MAX_IDS: usize = 1_000;
}
