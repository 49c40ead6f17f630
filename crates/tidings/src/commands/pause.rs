//! `tidings pause` and `tidings resume`: stops a webhook, a tenant, an event type or
//! everything, and lets it go on.

use anyhow::anyhow;
use serde_json::{Map, Value};

use super::{Failure, say};
use crate::{
    cli::{ClientArgs, PauseOf},
    client::Client,
};

const PATH: &str = "/admin/v1/pauses";

/// The member of a request that names it, and the pause's id.
fn named(of: &PauseOf) -> Result<(&'static str, Value, String), Failure> {
    let mut named = Vec::new();
    if of.everything {
        named.push(("everything", Value::from(true), "everything".to_owned()));
    }
    for (member, prefix, value) in [
        ("webhookId", "webhook", &of.webhook),
        ("issuer", "issuer", &of.issuer),
        ("merchant", "merchant", &of.merchant),
        ("eventType", "event", &of.event_type),
    ] {
        if let Some(value) = value {
            named.push((member, Value::from(value.as_str()), format!("{prefix}:{value}")));
        }
    }
    if let Some(pm) = of.pm {
        named.push(("programmeManager", Value::from(pm), format!("pm:{pm}")));
    }
    match (named.pop(), named.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) | (None, _) => Err(Failure::Usage(anyhow!(
            "say what: one of --webhook, --pm, --issuer, --merchant, --event-type, --everything"
        ))),
    }
}

pub(crate) fn pause(of: &PauseOf, reason: &str, args: &ClientArgs) -> Result<(), Failure> {
    let (member, value, _) = named(of)?;
    let mut body = Map::new();
    body.insert(member.to_owned(), value);
    body.insert("reason".to_owned(), reason.into());
    let body = Value::Object(body).to_string().into_bytes();
    Client::with(args, &["admin"], async move |client| {
        let answer = client.send("POST", PATH, "application/json", body).await?;
        if answer.status != 201 {
            return Err(answer.refused());
        }
        line(&answer.response()?);
        Ok(())
    })
}

pub(crate) fn resume(of: &PauseOf, args: &ClientArgs) -> Result<(), Failure> {
    let (_, _, id) = named(of)?;
    Client::with(args, &["admin"], async move |client| {
        let encoded: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("{PATH}/{}", encoded.replace('+', "%20"));
        let answer = client.send("DELETE", &path, "application/json", Vec::new()).await?;
        if answer.status != 204 {
            return Err(answer.refused());
        }
        say(format!("{id} goes on"));
        Ok(())
    })
}

pub(crate) fn list(as_json: bool, args: &ClientArgs) -> Result<(), Failure> {
    Client::with(args, &["admin"], async move |client| {
        let answer = client.send("GET", PATH, "application/json", Vec::new()).await?;
        if answer.status != 200 {
            return Err(answer.refused());
        }
        let response = answer.response()?;
        let content = response.get("content").cloned().unwrap_or_default();
        if as_json {
            say(&content);
            return Ok(());
        }
        content.as_array().into_iter().flatten().for_each(line);
        Ok(())
    })
}

fn line(pause: &Value) {
    let text = |name: &str| pause.get(name).and_then(Value::as_str).unwrap_or_default();
    say(format!(
        "{} paused since {} by {}: {}",
        text("pauseId"),
        text("since"),
        text("actor"),
        text("reason")
    ));
}
