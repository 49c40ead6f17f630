//! The whole life of one event: where it was published, what the router decided, every
//! attempt and every resend. From the event log alone, so it says what was, not what
//! would be now.

use serde_json::{Value, json};
use tidings_eventlog::{AttemptItem, Item, Life, Published, Subject, Verdict};
use tidings_types::{EventUid, FilterReason, NotificationId, TopicPartition};

use crate::{
    answer::Answer,
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    history::{readable, unreadable},
    state::State,
};

/// `GET /admin/v1/explain?what=`.
pub(crate) async fn explain(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let text = request.query.get("what").unwrap_or_default();
    let subject = subject(text).ok_or_else(|| {
        let message = "must be an event's uid, topic/partition/offset, or a notification's id";
        Fault::at(Code::InvalidRequestBody, "what").saying(message)
    })?;
    let as_of = readable(state).await?;
    let life = state.deps.event_log.explain(subject).await;
    let life = life.map_err(|error| unreadable(state, &error))?;
    let life = life.ok_or_else(|| {
        let message = "the event log knows no such event; it may be older than it keeps";
        Fault::at(Code::NotFound, "what").saying(message)
    })?;
    Ok(Answer::ok(&shape(&life)).with_as_of(as_of))
}

fn subject(text: &str) -> Option<Subject> {
    if let Some((place, offset)) = text.rsplit_once('/') {
        let (topic, partition) = place.rsplit_once('/')?;
        let source = TopicPartition::new(topic, partition.parse().ok()?);
        return Some(Subject::Source(source, offset.parse().ok()?));
    }
    if text.len() == 64 {
        let bytes = hex::decode(text).ok()?;
        return EventUid::from_slice(&bytes).map(Subject::Event);
    }
    text.parse::<NotificationId>().ok().map(Subject::Notification)
}

fn shape(life: &Life) -> Value {
    let published: Vec<Value> = life.published.iter().map(record).collect();
    let notifications = life.notifications.iter();
    let notifications: Vec<Value> =
        notifications.map(|(item, attempts)| notification(item, attempts)).collect();
    let mut shape = json!({ "published": published, "notifications": notifications });
    if let Some(uid) = &life.uid {
        shape["uid"] = uid.to_string().into();
    }
    if let Some((item, _)) = life.notifications.first() {
        shape["eventType"] = item.event_type.as_ref().into();
        shape["tenant"] = item.tenant.as_ref().into();
        shape["issuer"] = item.issuer.as_ref().into();
        shape["traceparent"] = item.traceparent.as_ref().into();
    }
    shape
}

fn record(published: &Published) -> Value {
    let (decision, why) = match published.verdict {
        Verdict::Routed => ("routed", None),
        Verdict::Duplicate => {
            ("duplicate", Some("the same event had been routed from another record"))
        }
        Verdict::Quarantined => {
            ("quarantined", Some("it could not be read or is not allowed: see the quarantine"))
        }
        Verdict::Filtered(reason) => ("filtered", Some(why(reason))),
    };
    let mut shape = json!({
        "topic": published.source.topic.as_str(),
        "partition": published.source.partition,
        "offset": published.offset,
        "decision": decision,
    });
    if let Verdict::Filtered(reason) = published.verdict {
        shape["reason"] = reason.as_str().into();
    }
    if let Some(why) = why {
        shape["why"] = why.into();
    }
    if let Some((time, version)) = published.decided {
        shape["time"] = time.to_rfc3339_millis().into();
        shape["registryVersion"] = version.into();
    }
    shape
}

/// The rule that kept an event from everybody: the one that got furthest.
fn why(reason: FilterReason) -> &'static str {
    match reason {
        FilterReason::UnknownTenant => "no such programme manager or merchant was registered",
        FilterReason::NotSubscribed => "no webhook of the tenant wanted this type",
        FilterReason::Product => "the webhooks that wanted this type were for other products",
        FilterReason::Configuration => "no configuration of 112 let this message type through",
        FilterReason::Inactive => "the webhooks that wanted it were inactive",
    }
}

fn notification(item: &Item, attempts: &[AttemptItem]) -> Value {
    let mut shape = json!({
        "notificationId": item.notification.to_string(),
        "webhookId": item.webhook.to_string(),
        "state": item.state.as_str(),
        "lane": item.lane.as_str(),
        "createdTime": item.created.to_rfc3339_millis(),
        "resends": item.resends,
        "attemptCount": item.attempts,
        "attempts": attempts.iter().map(attempt).collect::<Vec<_>>(),
    });
    if let Some(reason) = item.reason {
        shape["reason"] = reason.as_str().into();
    }
    if let Some((lane, number)) = item.number {
        shape["number"] = number.into();
        shape["sequence"] = format!("{}.{number}", lane.as_str()).into();
    }
    if let Some(deadline) = item.deadline {
        shape["deadline"] = deadline.to_rfc3339_millis().into();
    }
    shape
}

fn attempt(attempt: &AttemptItem) -> Value {
    let run = if attempt.run.is_first() { Value::from(0) } else { attempt.run.to_string().into() };
    let mut shape = json!({
        "attempt": attempt.number,
        "run": run,
        "startedTime": attempt.started.to_rfc3339_millis(),
        "durationMs": u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        "code": attempt.code.as_ref(),
    });
    if let Some(due) = attempt.next_due {
        shape["nextDueTime"] = due.to_rfc3339_millis().into();
    }
    shape
}
