//! The events of a webhook (`spec.md` §1.7). Adding and removing is all or none.

use std::sync::Arc;

use serde_json::json;
use tidings_catalogue::json::{Kind, Value};

use super::{body, change, find};
use crate::{
    answer::Answer,
    dispatch::Call,
    errors::{ApiError, Code, Fault},
    input::{self, Object, wrong},
};

/// `GET /Webhooks/{webhookId}/subscriptions`.
pub(crate) async fn list(call: &Call<'_>) -> Result<Answer, ApiError> {
    let webhook = find(call).await?;
    let content: Vec<_> = webhook
        .events
        .iter()
        .filter_map(|name| call.state.deps.catalogue.get(name))
        .map(|kind| json!({ "eventCode": kind.code(), "description": kind.description() }))
        .collect();
    let response = json!({ "webhookId": webhook.id.to_string(), "content": content });
    Ok(Answer::ok(&response).etag(webhook.version))
}

/// `PUT /Webhooks/{webhookId}/subscriptions`.
pub(crate) async fn add(call: &Call<'_>) -> Result<Answer, ApiError> {
    find(call).await?;
    let codes = read(call)?;
    apply(call, &codes, Code::SubscribedEventcode, |events, code| {
        let is_new = !events.iter().any(|known| **known == *code);
        if is_new {
            events.push(Arc::from(code));
        }
        is_new
    })
    .await
}

/// `DELETE /Webhooks/{webhookId}/subscriptions` with a body.
pub(crate) async fn remove(call: &Call<'_>) -> Result<Answer, ApiError> {
    find(call).await?;
    let codes = read(call)?;
    apply(call, &codes, Code::EventcodeNotSubscribed, take_out).await
}

fn take_out(events: &mut Events, code: &str) -> bool {
    let before = events.len();
    events.retain(|known| **known != *code);
    events.len() < before
}

/// `DELETE /Webhooks/{webhookId}/subscriptions/{eventCode}`.
pub(crate) async fn remove_one(call: &Call<'_>) -> Result<Answer, ApiError> {
    find(call).await?;
    let code = body::code_of_path(call.request.param("eventCode"), &call.state.deps.catalogue)?;
    let codes = [(code, "eventCode".to_owned())];
    apply(call, &codes, Code::EventcodeNotSubscribed, take_out).await
}

type Events = Vec<Arc<str>>;

/// Does `each` with every code; the ones for which it says no are refused.
async fn apply(
    call: &Call<'_>,
    codes: &[(String, String)],
    refusal: Code,
    each: impl Fn(&mut Events, &str) -> bool,
) -> Result<Answer, ApiError> {
    let webhook = change::change(call, |_, webhook| {
        let mut next = webhook.clone();
        let mut faults = Vec::new();
        for (code, path) in codes {
            if !each(&mut next.events, code) {
                faults.push(Fault::at(refusal, path.as_str()));
            }
        }
        ApiError::check(faults)?;
        Ok(next)
    })
    .await?;
    let response = json!({
        "webhookId": webhook.id.to_string(),
        "responseStatus": "Webhook events updated",
    });
    Ok(Answer::ok(&response).etag(webhook.version))
}

/// The codes of a body, each with its path: integers, or objects with `eventCode`.
fn read(call: &Call<'_>) -> Result<Vec<(String, String)>, ApiError> {
    let document = input::parse(&call.request.body)?;
    let mut faults = Vec::new();
    let values = Object::take(document.root(), &["events"], &mut faults).and_then(|object| {
        object.required("events", &mut faults)?;
        object.array("events", &mut faults)
    });
    let mut codes: Vec<Value<'_>> = Vec::new();
    for value in values.iter().flatten() {
        if value.kind() == Kind::Object {
            let known = ["eventCode", "description"];
            let Some(item) = Object::take(*value, &known, &mut faults) else { continue };
            codes.extend(item.required("eventCode", &mut faults));
            check_description(item, &mut faults);
        } else {
            codes.push(*value);
        }
    }
    if values.is_some() && (faults.is_empty() || !codes.is_empty()) {
        let twice = Code::DuplicateEventcode;
        let names = body::codes(&codes, "events", twice, &call.state.deps.catalogue, &mut faults);
        ApiError::check(faults)?;
        let paths = codes.iter().map(Value::path);
        return Ok(names.into_iter().zip(paths).collect());
    }
    Err(faults.into())
}

fn check_description(item: Object<'_>, faults: &mut Vec<Fault>) {
    let path = item.path("description");
    if let Some(text) = item.string("description", faults)
        && !(1..=200).contains(&text.chars().count())
    {
        faults.push(wrong(path, "must have 1 to 200 characters"));
    }
}
