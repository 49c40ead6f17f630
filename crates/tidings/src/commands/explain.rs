//! `tidings explain`: the whole life of one event.

use serde_json::Value;

use super::{Failure, say};
use crate::{cli::ExplainArgs, client::Client};

pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let what: String = url::form_urlencoded::byte_serialize(args.what.as_bytes()).collect();
    let as_json = args.json;
    Client::with(&args.client, &["admin"], async move |client| {
        let path = format!("/admin/v1/explain?what={what}");
        let answer = client.send("GET", &path, "application/json", Vec::new()).await?;
        if answer.status != 200 {
            return Err(answer.refused());
        }
        let life = answer.response()?;
        if as_json {
            say(&life);
        } else {
            tell(&life);
        }
        Ok(())
    })
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn tell(life: &Value) {
    if !text(life, "uid").is_empty() {
        let (kind, tenant) = (text(life, "eventType"), text(life, "tenant"));
        say(format!("event {kind} of {tenant}, uid {}", text(life, "uid")));
    }
    for record in list(life, "published") {
        let place = format!(
            "{}/{}/{}",
            text(record, "topic"),
            number(record, "partition"),
            number(record, "offset")
        );
        let mut line = format!("published {place}: {}", text(record, "decision"));
        if !text(record, "reason").is_empty() {
            line.push_str(&format!(" ({})", text(record, "reason")));
        }
        if !text(record, "why").is_empty() {
            line.push_str(&format!(": {}", text(record, "why")));
        }
        if !text(record, "time").is_empty() {
            let version = number(record, "registryVersion");
            line.push_str(&format!(" at {}, registry {version}", text(record, "time")));
        }
        say(line);
    }
    for notification in list(life, "notifications") {
        let mut line = format!(
            "webhook {}: notification {} {}",
            text(notification, "webhookId"),
            text(notification, "notificationId"),
            text(notification, "state")
        );
        if !text(notification, "reason").is_empty() {
            line.push_str(&format!(" ({})", text(notification, "reason")));
        }
        say(line);
        for attempt in list(notification, "attempts") {
            let resend = text(attempt, "run");
            say(format!(
                "  attempt {} at {}: {} after {} ms{}{}",
                number(attempt, "attempt"),
                text(attempt, "startedTime"),
                text(attempt, "code"),
                number(attempt, "durationMs"),
                match text(attempt, "nextDueTime") {
                    "" => String::new(),
                    due => format!(", next due {due}"),
                },
                if resend.is_empty() { String::new() } else { format!(" (resend {resend})") }
            ));
        }
    }
}
