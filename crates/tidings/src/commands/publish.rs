//! `tidings publish`: sends events, line by line, in batches that the API takes.
//!
//! All lines are checked by the API batch by batch; a bad line ends the command
//! with its field and its line number, and what stands before its batch has been
//! accepted (the message says how many).

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use super::{Failure, say};
use crate::{
    cli::PublishArgs,
    client::{Answer, Client},
};

/// The API's limits for one request (contract §2), with room for the newlines.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: usize = 4 * 1024 * 1024 - 1024;

pub(crate) fn run(args: &PublishArgs) -> Result<(), Failure> {
    let text = read(args)?;
    let raw = args.raw.clone();
    let json_answer = args.json;
    let scopes: &[&str] = if raw.is_some() { &["admin"] } else { &["eds.publish"] };
    // A repeat of a batch whose answer was lost makes no second event.
    let mut random = [0; 16];
    tidings_types::Rng::fill(&tidings_telemetry::SystemRng::new(), &mut random);
    let run_key = hex::encode(random);
    Client::with(&args.client, scopes, async move |client| {
        let mut accepted = 0_usize;
        let mut content = Vec::new();
        for (number, batch) in batches(&text).into_iter().enumerate() {
            let path = raw.as_ref().map_or_else(
                || "/ingest/v1/events".to_owned(),
                |topic| format!("/admin/v1/raw/{topic}"),
            );
            let key = format!("{run_key}-{number}");
            let answer = client
                .send_with(
                    "POST",
                    &path,
                    "application/x-ndjson",
                    batch.bytes,
                    &[("idempotency-key", &key)],
                )
                .await?;
            if answer.status != 202 {
                return Err(refused(&answer, batch.first_line, accepted));
            }
            let response = answer.response()?;
            accepted += response
                .get("accepted")
                .and_then(Value::as_u64)
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(0);
            if let Some(items) = response.get("content").and_then(Value::as_array) {
                content.extend(items.iter().cloned());
            }
            progress(accepted);
        }
        if json_answer {
            say(
                json!({"status": "success", "response": {"accepted": accepted, "content": content}}),
            );
        } else {
            say(format!("accepted {accepted}"));
        }
        Ok(())
    })
}

fn read(args: &PublishArgs) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if args.file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        bytes = std::fs::read(&args.file)
            .with_context(|| format!("cannot read {}", args.file.display()))
            .map_err(Failure::Usage)?;
    }
    Ok(bytes)
}

struct Batch {
    /// 1-based line of the first event.
    first_line: usize,
    bytes: Vec<u8>,
}

/// Cuts the text into requests; empty lines are passed over.
fn batches(text: &[u8]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut events = 0;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let full = batches.last().is_none_or(|batch| {
            events >= MAX_EVENTS || batch.bytes.len() + line.len() >= MAX_BYTES
        });
        if full {
            batches.push(Batch { first_line: index + 1, bytes: Vec::new() });
            events = 0;
        }
        if let Some(batch) = batches.last_mut() {
            batch.bytes.extend_from_slice(line);
            batch.bytes.push(b'\n');
            events += 1;
        }
    }
    batches
}

fn refused(answer: &Answer, first_line: usize, accepted: usize) -> Failure {
    let mut lines = Vec::new();
    for error in answer.errors() {
        let text =
            |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let line = error
            .get("index")
            .and_then(Value::as_u64)
            .and_then(|index| usize::try_from(index).ok())
            .map(|index| format!("event {} (about line {}): ", index + 1, first_line + index));
        let field = text("field");
        let field = if field.is_empty() { String::new() } else { format!(" {field}") };
        lines.push(format!(
            "{}{}{field}: {}",
            line.unwrap_or_default(),
            text("code"),
            text("message")
        ));
    }
    if lines.is_empty() || answer.status == 401 {
        return answer.refused();
    }
    Failure::Wrong(anyhow!("refused, {accepted} accepted before it: {}", lines.join("; ")))
}

#[expect(clippy::print_stderr, reason = "progress for a person at a terminal")]
fn progress(accepted: usize) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{accepted} accepted ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_at_most_a_thousand_events_and_passes_over_empty_lines() {
        let text = "{}\n\n".repeat(2500);
        let sizes: Vec<_> = batches(text.as_bytes())
            .iter()
            .map(|batch| batch.bytes.iter().filter(|byte| **byte == b'\n').count())
            .collect();
        assert_eq!(sizes, [1000, 1000, 500]);
    }
}
