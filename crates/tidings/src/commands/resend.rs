//! `tidings resend`: sends what a webhook did not get again, slowly, through the API's
//! own routes.
//!
//! Two steps, so that nobody sends a flood by mistake: `--dry-run` says how many there
//! are, `--confirm N` sends them if there are still N. Ended half-way (Ctrl-C), it has
//! sent what it said; what is left is in the next `--dry-run`.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Failure, say};
use crate::{
    cli::ResendArgs,
    client::{Client, Who},
};

/// What one request may name (`spec.md` §1.8).
const AT_ONCE: usize = 25;
const DONE: &str = "Resend request initiated";

pub(crate) fn run(args: &ResendArgs) -> Result<(), Failure> {
    let base = match (&args.webhook, &args.hook) {
        (Some(id), None) => format!("/api/v1/Webhooks/{id}"),
        (None, Some(id)) => format!("/admin/v1/hooks/{id}"),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Failure::Usage(anyhow!("say whose: --webhook ID, or --hook ID")));
        }
    };
    let scopes: &[&str] = if args.hook.is_some() { &["admin"] } else { &["eds.read", "eds.write"] };
    let who = Who { scopes, pm: args.pm, issuer: args.issuer.as_deref() };
    let (since, confirmed, pace) = (args.since.clone(), args.confirm, args.per_second.max(1));
    Client::with_for(&args.client, who, async move |client| {
        let path = format!("{base}/notifications/undelivered?from={since}");
        let ids = undelivered(&client, &path).await?;
        let Some(confirmed) = confirmed else {
            say(format!("{} would be sent again; repeat with --confirm {0}", ids.len()));
            return Ok(());
        };
        if ids.len() != confirmed {
            return Err(Failure::Wrong(anyhow!(
                "there are {} now, not {confirmed}: look again with --dry-run",
                ids.len()
            )));
        }
        let path = format!("{base}/resend");
        let (mut begun, mut refused) = (0, 0);
        // A pause after each request keeps to the pace, however fast the answers are.
        let mut ticks = tokio::time::interval(Duration::from_secs(1) * batch_size(pace) / pace);
        for batch in ids.chunks(usize::try_from(batch_size(pace)).unwrap_or(1)) {
            ticks.tick().await;
            let body = json!({ "notificationIds": batch }).to_string().into_bytes();
            let answer = client.send("POST", &path, "application/json", body).await?;
            if answer.status != 200 {
                say(format!("sent {begun} of {confirmed} again"));
                return Err(answer.refused());
            }
            let response = answer.response()?;
            for item in response.get("content").and_then(Value::as_array).into_iter().flatten() {
                if item.get("resendStatus").and_then(Value::as_str) == Some(DONE) {
                    begun += 1;
                } else {
                    refused += 1;
                    say(item);
                }
            }
            progress(begun, confirmed);
        }
        say(format!("sent {begun} of {confirmed} again"));
        if refused == 0 { Ok(()) } else { Err(Failure::Said) }
    })
}

/// Requests name as many as fit into a second of the pace.
fn batch_size(per_second: u32) -> u32 {
    per_second.min(u32::try_from(AT_ONCE).unwrap_or(1))
}

/// The ids of the list, of all event types, page by page.
async fn undelivered(client: &Client, path: &str) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    let mut page = path.to_owned();
    loop {
        let answer = client.send("GET", &page, "application/json", Vec::new()).await?;
        if answer.status != 200 {
            return Err(answer.refused());
        }
        let response = answer.response()?;
        for group in response.get("content").and_then(Value::as_array).into_iter().flatten() {
            let ids = group.get("notificationId").and_then(Value::as_array);
            let ids = ids.into_iter().flatten().filter_map(Value::as_str);
            all.extend(ids.map(str::to_owned));
        }
        let Some(cursor) = response.get("nextCursor").and_then(Value::as_str) else {
            return Ok(all);
        };
        page = format!("{path}&cursor={cursor}");
    }
}

#[expect(clippy::print_stderr, reason = "progress for a person at a terminal")]
fn progress(begun: usize, of: usize) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{begun} of {of}");
    }
}
