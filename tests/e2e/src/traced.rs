//! In place of power cuts where no image can be mounted: the process is traced,
//! and between the write of each event to the journal and its acknowledgement
//! there must be a sync of the journal that began after the write.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;

use crate::{
    http::Client,
    powercut::Report,
    process::{Server, Spec, free_port},
    receiver::Receiver,
    world::{World, event, payload},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Events of one round, published one after the other.
const EVENTS: u64 = 20;

/// Traces `rounds` times so many events.
///
/// # Errors
/// When the run itself could not be made; wrongs are in the report.
pub async fn run(binary: &Path, rounds: u32, sabotage: Option<&str>) -> anyhow::Result<Report> {
    let directory = tempfile::Builder::new().prefix("tidings-traced-").tempdir()?;
    let trace = directory.path().join("trace");
    let spec = Spec {
        binary: binary.to_owned(),
        data: directory.path().join("data"),
        port: free_port()?,
        dev: true,
        environment: sabotage
            .map(|name| ("TIDINGS_SABOTAGE".to_owned(), name.to_owned()))
            .into_iter()
            .collect(),
    };
    let trace_text = trace.to_str().context("the trace's name is not UTF-8")?;
    // -D: the tracer is the child, so that the process is tidings itself.
    let calls = "trace=write,writev,sendto,sendmsg,fdatasync,fsync";
    let strace = ["strace", "-D", "-f", "-y", "-s", "65536", "-e", calls, "-o", trace_text, "--"];
    let mut server = Server::spawn_under(&strace, &spec, &[])
        .context("neither an image can be mounted here nor is there strace; install strace")?;
    server.ready(PATIENCE).await?;
    let receiver = Receiver::start()?;
    let world = World::create(binary, &spec.data, &server.base(), &receiver).await?;
    let client = Client::new(&server.base(), &world.admin)?;
    let mut markers = Vec::new();
    for number in 0..u64::from(rounds) * EVENTS {
        let marker = format!("traced-{number}-event");
        let body = Bytes::from(event(20, 104, &marker, &payload(&marker, 200)));
        let headers = [("content-type", "application/json")];
        client.send("POST", "/ingest/v1/events", &headers, body).await?.response(202)?;
        markers.push(marker);
    }
    server.kill()?;
    let trace = std::fs::read_to_string(&trace).context("no trace was written")?;
    let lines: Vec<&str> = trace.lines().collect();
    let what = "traced runs (no image can be mounted here)";
    let accepted = markers.len();
    let mut report = Report { what, rounds, accepted, ..Report::default() };
    let mut from = 0;
    for marker in &markers {
        let place = synced_before_its_answer(&lines, from, marker);
        from = place.answered;
        if !place.is_synced {
            report.wrongs.push(format!("{marker} was acknowledged before it was synced"));
        }
    }
    Ok(report)
}

struct Place {
    answered: usize,
    is_synced: bool,
}

/// Looks for the event's journal write, a sync after it, and its answer, in the
/// lines from `from` on.
fn synced_before_its_answer(lines: &[&str], from: usize, marker: &str) -> Place {
    let (mut written, mut syncing, mut is_synced) = (false, None, false);
    for (index, line) in lines.iter().enumerate().skip(from) {
        let (thread, call) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let call = call.trim_start();
        let in_journal = call.contains(".jnl>");
        if in_journal && call.starts_with("write") && call.contains(marker) {
            written = true;
        } else if in_journal && (call.starts_with("fdatasync(") || call.starts_with("fsync(")) {
            if written && call.ends_with("= 0") {
                is_synced = true;
            } else if written {
                syncing = Some(thread);
            }
        } else if syncing == Some(thread) && call.contains("sync resumed>") {
            is_synced = call.ends_with("= 0");
        } else if call.contains("\"HTTP/1.1 202") {
            return Place { answered: index + 1, is_synced };
        }
    }
    Place { answered: lines.len(), is_synced: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_counts_only_between_the_write_and_the_answer() {
        let write = "7 write(3</d/0.jnl>, \"..m1..\", 6) = 6";
        let answer = "8 sendto(9<socket:[1]>, \"HTTP/1.1 202 Accepted\", 21, 0, NULL, 0) = 21";
        let sync = "7 fdatasync(3</d/0.jnl>) = 0";
        let (begun, ended) =
            ("7 fdatasync(3</d/0.jnl> <unfinished ...>", "7 <... fdatasync resumed>) = 0");
        let is_synced = |lines: &[&str]| synced_before_its_answer(lines, 0, "m1").is_synced;
        assert!(is_synced(&[write, sync, answer]));
        assert!(is_synced(&[write, begun, ended, answer]));
        assert!(!is_synced(&[write, answer, sync]));
        assert!(!is_synced(&[sync, write, answer]));
        assert!(!is_synced(&[begun, write, ended, answer]));
        assert!(!is_synced(&[write, begun, answer, ended]));
        assert!(!is_synced(&[write, sync]), "it was never answered");
    }
}
