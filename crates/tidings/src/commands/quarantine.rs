//! `tidings quarantine`: looks at what the router set aside, and publishes it again.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::{Failure, say};
use crate::{cli::ClientArgs, client::Client};

pub(crate) fn list(as_json: bool, args: &ClientArgs) -> Result<(), Failure> {
    Client::with(args, &["admin"], async move |client| {
        let answer =
            client.send("GET", "/admin/v1/quarantine", "application/json", Vec::new()).await?;
        if answer.status != 200 {
            return Err(answer.refused());
        }
        let response = answer.response()?;
        let items = match response.get("content") {
            Some(content) => content.clone(),
            None => response,
        };
        if as_json {
            say(&items);
            return Ok(());
        }
        for item in items.as_array().into_iter().flatten() {
            let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
            // A place that is not named is no place, least of all 0.
            let number = |name: &str| {
                item.get(name).and_then(Value::as_u64).map_or("?".to_owned(), |n| n.to_string())
            };
            let redriven = item.get("redriven").and_then(Value::as_bool) == Some(true);
            say(format!(
                "{} {} {}/{}/{} {} {}{}",
                text("id"),
                text("time"),
                text("topic"),
                number("partition"),
                number("offset"),
                text("reason"),
                text("field"),
                if redriven { " redriven" } else { "" }
            ));
        }
        Ok(())
    })
}

pub(crate) fn show(id: &str, args: &ClientArgs) -> Result<(), Failure> {
    let path = format!("/admin/v1/quarantine/{id}");
    Client::with(args, &["admin"], async move |client| {
        let answer = client.send("GET", &path, "application/json", Vec::new()).await?;
        if answer.status != 200 {
            return Err(answer.refused());
        }
        say(answer.response()?);
        Ok(())
    })
}

pub(crate) fn redrive(id: &str, body: Option<&Path>, args: &ClientArgs) -> Result<(), Failure> {
    let path = format!("/admin/v1/quarantine/{id}/redrive");
    let body = match body {
        Some(file) => std::fs::read(file)
            .with_context(|| format!("cannot read {}", file.display()))
            .map_err(Failure::Usage)?,
        None => Vec::new(),
    };
    Client::with(args, &["admin"], async move |client| {
        let answer = client.send("POST", &path, "application/json", body).await?;
        if !(200..300).contains(&answer.status) {
            return Err(answer.refused());
        }
        say(answer.response()?);
        Ok(())
    })
}
