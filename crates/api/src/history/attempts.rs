//! The attempts of one notification (contract §3).
//!
//! The view has what each came to. The start of an endpoint's answer stands sealed
//! in `tidings.outcomes` and is read there when it is asked for: at most one
//! record for each attempt that the view remembers.

use serde::Serialize;
use tidings_broker::ReadError;
use tidings_eventlog::{AttemptItem, AttemptList};
use tidings_proto::{decode, v1};
use tidings_registry::{Webhook, to_sealed};
use tidings_types::{
    NotificationId, Offset, RunId, Timestamp, TopicPartition, is_opaque_id, names, snippet_aad,
};

use super::{Ids, Surface, ids, readable, unreadable};
use crate::{
    answer::Answer,
    dispatch::Request,
    errors::{ApiError, Code},
    state::State,
};

const FIELD: &str = "notificationId";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListShape {
    #[serde(flatten)]
    ids: Ids,
    notification_id: String,
    content: Vec<AttemptShape>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptShape {
    attempt: u32,
    started_time: String,
    duration_ms: u64,
    outcome: &'static str,
    code: String,
    http_status: Option<u16>,
    run: String,
    next_due_time: Option<String>,
    response_snippet: Option<String>,
}

/// `GET …/notifications/{notificationId}/attempts`.
pub(crate) async fn list(
    state: &State,
    request: &Request,
    surface: Surface,
    webhook: &Webhook,
) -> Result<Answer, ApiError> {
    let text = request.param("notificationId");
    if !is_opaque_id(text) {
        return Err(ApiError::at(Code::InvalidNotificationId, FIELD));
    }
    let as_of = readable(state).await?;
    let unknown = || ApiError::at(Code::NotificationNotfound, FIELD).with_as_of(as_of);
    let id = ids::parse(text).ok_or_else(unknown)?;
    let found = state.deps.event_log.attempts(webhook.id, id).await;
    let found = found.map_err(|error| unreadable(state, &error))?.ok_or_else(unknown)?;
    let may_be_shown = may_be_shown(&found);
    let mut content = Vec::with_capacity(found.attempts.len());
    for item in &found.attempts {
        let snippet = match item.answer.filter(|_| may_be_shown) {
            Some(place) => snippet(state, webhook, id, item.run, place).await?,
            None => None,
        };
        content.push(shape(item, snippet));
    }
    let response = ListShape { ids: surface.id(webhook), notification_id: id.to_string(), content };
    Ok(Answer::ok(&response).with_as_of(as_of))
}

/// Answers to events about tokens and codes are not kept; if one is, it is not
/// shown (contract §3).
fn may_be_shown(found: &AttemptList) -> bool {
    !found.event_type.parse::<u16>().is_ok_and(|code| (106..=111).contains(&code))
}

fn shape(item: &AttemptItem, snippet: Option<String>) -> AttemptShape {
    AttemptShape {
        attempt: item.number,
        started_time: item.started.to_rfc3339_millis(),
        duration_ms: u64::try_from(item.duration.as_millis()).unwrap_or(u64::MAX),
        outcome: if item.delivered { "delivered" } else { "failed" },
        code: item.code.to_string(),
        http_status: item.http_status,
        run: item.run.to_string(),
        next_due_time: item.next_due.map(Timestamp::to_rfc3339_millis),
        response_snippet: snippet,
    }
}

/// The start of an answer. `None` if its record is gone, or stands for something
/// else because the topic lost its tail.
async fn snippet(
    state: &State,
    webhook: &Webhook,
    id: NotificationId,
    run: RunId,
    (offset, index): (Offset, u32),
) -> Result<Option<String>, ApiError> {
    let from = TopicPartition::new(names::OUTCOMES, webhook.slot.outcome_partition());
    let read = match state.deps.broker.read(&from, offset, 1).await {
        Ok(read) => read,
        Err(ReadError::Trimmed { .. } | ReadError::BeyondEnd { .. }) => return Ok(None),
        Err(error) => {
            tracing::warn!(%error, "an outcome could not be read");
            return Err(super::not_readable(state, &state.deps.event_log.status()));
        }
    };
    let record = read.into_iter().next().filter(|record| record.offset == offset);
    let batch = record.and_then(|record| decode::<v1::OutcomeBatch>(record.value?).ok());
    let at = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
    let outcome = batch.zip(at).and_then(|(batch, at)| batch.outcomes.into_iter().nth(at));
    let sealed = outcome
        .filter(|outcome| outcome.notification == id.as_bytes()[..])
        .filter(|outcome| RunId::from_slice(&outcome.run) == Some(run))
        .and_then(|outcome| to_sealed(outcome.snippet.as_ref()?));
    let Some(sealed) = sealed else { return Ok(None) };
    match state.deps.keys.open(&sealed, &snippet_aad(id)).await {
        Ok(plain) => Ok(Some(String::from_utf8_lossy(&plain).into_owned())),
        Err(error) => {
            tracing::error!(notification = %id, %error, "a snippet does not open");
            Err(Code::TechnicalError.into())
        }
    }
}
