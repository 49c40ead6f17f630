//! Answers to fraud alerts (`spec.md` §1.9).
//!
//! An answer is a record of `tidings.fraud-responses`, which the card processor
//! reads; of one alert the first in log order decides. The caller gets 200 only
//! when its answer is that one, or says the same, and is durable. What has been
//! answered is folded from the topic, so that a repeat after a restart, or in
//! another process, has no effect either.

mod body;
mod log;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidings_broker::ReadError;
use tidings_eventlog::Item;
use tidings_types::{NotificationId, Offset, ROUTED_PARTITIONS, TopicPartition, names};

pub(crate) use self::log::FraudLog;
use self::{
    body::Asked,
    log::{Decided, Response, Window},
};
use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::{Call, Request},
    errors::{ApiError, Code, Fault},
    history::{self, readable, unreadable},
    input::Query,
    state::State,
};

/// `POST /fraudalertresponse`.
pub(crate) async fn answer(call: &Call<'_>) -> Result<Answer, ApiError> {
    let state = call.state;
    let asked = body::read(&call.request.body)?;
    let alert = alert(call, &asked).await?;
    let window =
        Window { opened: alert.created, closed: alert.created + state.config.fraud_answer_window };
    let response = Response {
        fraud_alert_id: asked.alert.clone(),
        notification_id: alert.notification.to_string(),
        response: asked.answer,
        issuer_id: alert.issuer.to_string(),
        programme_manager: alert.tenant.strip_prefix("pm:").and_then(|id| id.parse().ok()),
        time: state.now(),
        actor: call.request.caller.subject.clone(),
    };
    match state.fraud.decide(state, response, window).await? {
        Decided::AsAsked => Ok(Answer::ok(&"The request was successful")),
        Decided::Otherwise => Err(ApiError::at(Code::FraudResponseConflict, "response")),
        Decided::TooLate => Err(ApiError::at(Code::FraudAlertExpired, "fraudAlertId")),
    }
}

/// The notification of the alert that the caller got. An unknown one, another
/// tenant's, and one that is of another alert are not told apart.
async fn alert(call: &Call<'_>, asked: &Asked) -> Result<Item, ApiError> {
    let unknown = || ApiError::at(Code::FraudAlertNotfound, "fraudAlertId");
    readable(call.state).await?;
    let id = history::ids::parse(&asked.notification).ok_or_else(unknown)?;
    let found = match find(call, id).await? {
        Some(item) => Some(item),
        // The client may have got it before the view has read the decision, and of a
        // webhook that this process has not read of.
        None => {
            catch_up(call.state).await?;
            call.state.registry_end().await?;
            find(call, id).await?
        }
    };
    let is_meant = |item: &Item| &*item.event_type == "101" && *item.fraud_alert_id == asked.alert;
    found.filter(is_meant).ok_or_else(unknown)
}

/// A notification of any webhook that this call may see.
async fn find(call: &Call<'_>, id: NotificationId) -> Result<Option<Item>, ApiError> {
    let found = call.state.deps.event_log.by_id(id).await;
    let found = found.map_err(|error| unreadable(call.state, &error))?;
    let snapshot = call.state.deps.registry.snapshot();
    let visible = |item: &Item| {
        let webhook = snapshot.webhooks.get(&item.webhook);
        webhook.is_some_and(|webhook| call.sight.sees(&webhook.owner, &snapshot))
    };
    Ok(found.filter(visible))
}

/// Waits until the view has read every decision that stands in the log now.
async fn catch_up(state: &State) -> Result<(), ApiError> {
    let mut ends = Vec::new();
    for partition in 0..ROUTED_PARTITIONS {
        let of = TopicPartition::new(names::ROUTED, partition);
        let end = state.deps.broker.ends(&of).await.map_err(|error| unanswered(&error))?.end;
        if end > 0 {
            ends.push((of, end));
        }
    }
    let waited =
        tokio::time::timeout(state.config.write_wait, state.deps.event_log.wait_for(&ends));
    match waited.await {
        Ok(()) => Ok(()),
        Err(_late) => Err(history::not_readable(state, &state.deps.event_log.status())),
    }
}

fn unanswered(error: &ReadError) -> ApiError {
    tracing::warn!(%error, "a topic could not be read");
    unavailable()
}

/// Records of one listing.
pub(crate) const MOST: usize = 1_000;
/// How much is read of a partition at once.
const READ_BYTES: usize = 1 << 20;

/// `GET /admin/v1/fraud-responses`: the topic for those who run embedded. `after`
/// is the `next` of an earlier answer.
pub(crate) async fn list(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let limit = request.query.limit(MOST)?;
    let mut places = after(&request.query)?;
    let mut content: Vec<Value> = Vec::new();
    for (partition, next) in &mut places {
        let of = TopicPartition::new(names::FRAUD_RESPONSES, *partition);
        let ends = state.deps.broker.ends(&of).await.map_err(|error| unanswered(&error))?;
        *next = (*next).max(ends.first);
        while *next < ends.end && content.len() < limit {
            let read = state.deps.broker.read(&of, *next, READ_BYTES).await;
            let read = read.map_err(|error| unanswered(&error))?;
            if read.is_empty() {
                break;
            }
            for record in read.into_iter().take(limit - content.len()) {
                *next = record.offset + 1;
                let value = record.value.and_then(|value| serde_json::from_slice(&value).ok());
                let Some(Value::Object(mut item)) = value else { continue };
                item.insert("partition".to_owned(), (*partition).into());
                item.insert("offset".to_owned(), record.offset.into());
                content.push(Value::Object(item));
            }
        }
    }
    let next: Vec<String> = places.values().map(ToString::to_string).collect();
    Ok(Answer::ok(&json!({ "content": content, "next": next.join("-") })))
}

/// The next offset of each partition: `7-0-12`.
fn after(query: &Query) -> Result<BTreeMap<u32, Offset>, ApiError> {
    let from_the_start = || (0..log::PARTITIONS).map(|partition| (partition, 0)).collect();
    let Some(text) = query.get("after").filter(|text| !text.is_empty()) else {
        return Ok(from_the_start());
    };
    let offsets: Option<Vec<Offset>> = text.split('-').map(|part| part.parse().ok()).collect();
    let offsets = offsets.filter(|offsets| u32::try_from(offsets.len()) == Ok(log::PARTITIONS));
    match offsets {
        Some(offsets) => Ok((0..).zip(offsets).collect()),
        None => {
            let fault = Fault::at(Code::InvalidCursor, "after");
            Err(fault.saying("must be the `next` of an earlier answer").into())
        }
    }
}
