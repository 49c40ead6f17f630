//! What became of notifications, for webhooks and hooks alike (`spec.md` §1.8).
//!
//! Nothing is answered from a view that is incomplete or lags: then it is 503
//! with how far the view is. A read waits for what this process wrote before.

pub(crate) mod attempts;
pub(crate) mod ids;
pub(crate) mod payload;
pub(crate) mod resend;

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tidings_eventlog::{Cursor, Item, Places, Status, UndeliveredGroup};
use tidings_registry::Webhook;
use tidings_types::{NotificationState, Timestamp};

use crate::{
    answer::Answer,
    dispatch::Request,
    errors::{ApiError, Code, Progress},
    paging::{self, List},
    state::State,
};

/// The most notifications of one read (`spec.md` §1.5).
const MAX_READ: usize = 100;

/// Whose words an answer uses: `webhookId` and `eventCode`, or `hookId` and
/// `eventType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Eds,
    Hooks,
}

/// The id of a webhook or hook under the names that an answer has for it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ids {
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_id: Option<String>,
    #[serde(rename = "webhookid", skip_serializing_if = "Option::is_none")]
    lower_case: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_id: Option<String>,
}

impl Surface {
    /// The id once.
    pub(crate) fn id(self, webhook: &Webhook) -> Ids {
        let text = Some(webhook.id.to_string());
        match self {
            Self::Eds => Ids { webhook_id: text, ..Ids::default() },
            Self::Hooks => Ids { hook_id: text, ..Ids::default() },
        }
    }

    /// The id in both of the documents' spellings (`spec.md` §6.1).
    fn both_ids(self, webhook: &Webhook) -> Ids {
        let once = self.id(webhook);
        Ids { lower_case: once.webhook_id.clone(), ..once }
    }
}

/// The event under the name that an answer has for it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EventName {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
}

fn event_name(surface: Surface, name: &str) -> EventName {
    match surface {
        Surface::Eds => EventName { event_code: name.parse().ok(), event_type: None },
        Surface::Hooks => EventName { event_code: None, event_type: Some(name.to_owned()) },
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemShape {
    #[serde(flatten)]
    event: EventName,
    notification_id: String,
    notification_status: &'static str,
    payload: Option<Box<RawValue>>,
    /// As an older document spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    paylod: Option<Box<RawValue>>,
    created_time: String,
    last_sent_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_code: Option<String>,
    /// As in `x-eds-sequence`, so that a receiver finds what it misses.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListShape {
    #[serde(flatten)]
    ids: Ids,
    content: Vec<ItemShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UndeliveredShape {
    #[serde(flatten)]
    ids: Ids,
    content: Vec<GroupShape>,
    total_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupShape {
    #[serde(flatten)]
    event: EventName,
    count: u64,
    notification_id: Vec<String>,
}

/// Notifications of one event type from a day on.
pub(crate) async fn by_type(
    state: &State,
    request: &Request,
    surface: Surface,
    webhook: &Webhook,
    event_type: &str,
) -> Result<Answer, ApiError> {
    let from = request.query.from(state.now())?;
    let count = request.query.count()?;
    let list = List::of("notifications")
        .narrowed(&webhook.id.to_string())
        .narrowed(event_type)
        .narrowed(&from.as_millis().to_string());
    let cursor = match list.place(state, &request.query)? {
        Some(text) => Some(text.parse::<Cursor>().map_err(|_bad| paging::invalid())?),
        None => None,
    };
    readable(state).await?;
    let log = &state.deps.event_log;
    let page = log
        .list(webhook.id, event_type, from, count, cursor)
        .await
        .map_err(|error| unreadable(state, &error))?;
    if surface == Surface::Eds {
        let compat = state.config.compat;
        compat.check_not_empty(page.items.is_empty(), Code::NotificationNotfound)?;
    }
    let mut content = Vec::with_capacity(page.items.len());
    for item in &page.items {
        content.push(shape(state, surface, item).await?);
    }
    let next_cursor = page.next.map(|place| list.cursor(state, &place.to_string()));
    let next_cursor = next_cursor.transpose()?;
    let response = ListShape { ids: surface.both_ids(webhook), content, next_cursor };
    Ok(Answer::ok(&response).with_as_of(page.as_of))
}

/// Notifications by id, in the order asked for; unknown ones are left out.
pub(crate) async fn by_ids(
    state: &State,
    request: &Request,
    surface: Surface,
    webhook: &Webhook,
) -> Result<Answer, ApiError> {
    let too_many = Code::NotificationBulkGetLimitExceeded;
    let asked = ids::read(&request.body, MAX_READ, too_many)?;
    let as_of = readable(state).await?;
    let items = ids::find(state, webhook, &asked).await?;
    if items.is_empty() {
        return Err(ApiError::at(Code::NotificationNotfound, "notificationIds").with_as_of(as_of));
    }
    let mut content = Vec::with_capacity(items.len());
    for item in &items {
        let mut shape = shape(state, surface, item).await?;
        if state.config.compat.paylod && surface == Surface::Eds {
            shape.paylod.clone_from(&shape.payload);
        }
        content.push(shape);
    }
    let response = ListShape { ids: surface.id(webhook), content, next_cursor: None };
    Ok(Answer::ok(&response).with_as_of(as_of))
}

/// What was not delivered from a day on, by event type: a thousand ids of each. Where
/// there are more, a cursor leads to the next thousand of each type that has them.
pub(crate) async fn undelivered(
    state: &State,
    request: &Request,
    surface: Surface,
    webhook: &Webhook,
) -> Result<Answer, ApiError> {
    let from = request.query.from(state.now())?;
    let list = List::of("undelivered")
        .narrowed(&webhook.id.to_string())
        .narrowed(&from.as_millis().to_string());
    let after = match list.place(state, &request.query)? {
        Some(text) => read_places(text).ok_or_else(paging::invalid)?,
        None => Places::new(),
    };
    let as_of = readable(state).await?;
    let log = &state.deps.event_log;
    let groups = log
        .undelivered(webhook.id, from, after.clone())
        .await
        .map_err(|error| unreadable(state, &error))?;
    if surface == Surface::Eds {
        let compat = state.config.compat;
        compat.check_not_empty(groups.is_empty(), Code::UndeliveredNotificationsNotfound)?;
    }
    let total_count = groups.iter().map(|group| group.count).sum();
    let places = write_places(&groups);
    let next_cursor = places.map(|places| list.cursor(state, &places)).transpose()?;
    let listed =
        groups.iter().filter(|group| after.is_empty() || after.contains_key(&*group.event_type));
    let content = listed.map(|group| group_shape(surface, group)).collect();
    let ids = surface.both_ids(webhook);
    let response = UndeliveredShape { ids, content, total_count, next_cursor };
    Ok(Answer::ok(&response).with_as_of(as_of))
}

/// `104~<place>,112~<place>`.
fn write_places(groups: &[UndeliveredGroup]) -> Option<String> {
    let place = |group: &UndeliveredGroup| Some(format!("{}~{}", group.event_type, group.next?));
    let places: Vec<String> = groups.iter().filter_map(place).collect();
    (!places.is_empty()).then(|| places.join(","))
}

fn read_places(text: &str) -> Option<Places> {
    let place = |text: &str| {
        let (event_type, place) = text.split_once('~')?;
        Some((event_type.to_owned(), place.parse().ok()?))
    };
    text.split(',').map(place).collect()
}

fn group_shape(surface: Surface, group: &UndeliveredGroup) -> GroupShape {
    GroupShape {
        event: event_name(surface, &group.event_type),
        count: group.count,
        notification_id: group.notifications.iter().map(ToString::to_string).collect(),
    }
}

/// Waits until the view can be read: complete, not behind, and with everything
/// that this process wrote. Gives the time up to which it has been read.
///
/// # Errors
/// 503 with how far the view is.
pub(crate) async fn readable(state: &State) -> Result<Timestamp, ApiError> {
    let log = &state.deps.event_log;
    let status = log.status();
    let lag = state.now().since(status.as_of);
    if !status.complete || lag > state.config.max_lag {
        return Err(not_readable(state, &status));
    }
    let written = state.written();
    if !written.is_empty() {
        let waited = tokio::time::timeout(state.config.write_wait, log.wait_for(&written)).await;
        if waited.is_err() {
            return Err(not_readable(state, &log.status()));
        }
    }
    Ok(log.status().as_of)
}

/// How long to wait before asking a view again that is being built.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A view that is not answered from. It may have read everything that stood there at the
/// start and still be behind: then it is not complete, and says by how much.
pub(crate) fn not_readable(state: &State, status: &Status) -> ApiError {
    let seconds = u32::try_from(ASK_AGAIN.as_secs()).unwrap_or(1);
    let error = ApiError::new(Code::UnableToRead).retry_after(seconds);
    let behind = state.now().since(status.as_of).as_secs();
    let behind_seconds = (status.as_of != Timestamp::ZERO).then_some(behind);
    let progress = Progress { complete: false, behind_seconds, ..progress(status) };
    ApiError { progress: Some(Box::new(progress)), ..error }
}

/// An error of the view's store.
pub(crate) fn unreadable(state: &State, error: &tidings_eventlog::ReadError) -> ApiError {
    tracing::warn!(%error, "the history could not be read");
    not_readable(state, &state.deps.event_log.status())
}

/// How far a view is, for an answer.
pub(crate) fn progress(status: &Status) -> Progress {
    Progress {
        complete: status.complete,
        progress: status.progress,
        behind_seconds: None,
        as_of: (status.as_of != Timestamp::ZERO).then(|| status.as_of.to_rfc3339()),
    }
}

async fn shape(state: &State, surface: Surface, item: &Item) -> Result<ItemShape, ApiError> {
    let (status, reason) = match item.state {
        NotificationState::Pending => ("Pending", None),
        NotificationState::Delivered => ("Delivered", None),
        NotificationState::Undelivered
        | NotificationState::Expired
        | NotificationState::Cancelled
        | NotificationState::Superseded => ("Undelivered", item.reason.map(|it| it.as_str())),
    };
    let is_delivered = item.state == NotificationState::Delivered;
    Ok(ItemShape {
        event: event_name(surface, &item.event_type),
        notification_id: item.notification.to_string(),
        notification_status: status,
        payload: payload::open(state, item).await?,
        paylod: None,
        created_time: item.created.to_rfc3339(),
        last_sent_time: item.last_sent.map(Timestamp::to_rfc3339),
        reason,
        last_code: item.last_code.as_ref().filter(|_| !is_delivered).map(ToString::to_string),
        sequence: item.number.map(|(lane, number)| format!("{}.{number}", lane.as_str())),
    })
}
