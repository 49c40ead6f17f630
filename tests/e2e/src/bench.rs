//! The bench: Tidings beside the bare floor, in turns in the same run, so that a
//! noisy machine disturbs both alike. Figures are ratios; absolute ones are
//! printed beside them.
//!
//! The floor is a hyper client that posts the same bytes straight to the same
//! receiver over 64 kept connections. Tidings is the shipped binary with default
//! settings: signing, sealing, fsync and the recorder on.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    http::Client,
    observe,
    process::{Server, Spec, free_port},
    receiver::Receiver,
    wait_for,
    world::{World, event, payload},
};

const FLOOR_CONNECTIONS: usize = 64;
/// Requests that publish at the same time.
const PUBLISHERS: usize = 8;
const BATCH: u64 = 100;
const BODY: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    /// Alternations; medians are quoted.
    pub runs: usize,
    /// Deliveries of one throughput measurement.
    pub deliveries: u64,
}

/// One throughput measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    rate: f64,
    cpu_per_thousand: f64,
    rss_kib: u64,
}

/// Runs the bench and prints a JSON line a measurement through `say`; returns the
/// table.
///
/// # Errors
/// When a run fails or its counts differ.
pub async fn run(plan: &Plan, say: &mut dyn FnMut(String)) -> anyhow::Result<String> {
    let cases: [(&str, u64, bool); 4] = [
        ("fan-out 1, batches of 100", 1, true),
        ("fan-out 10, batches of 100", 10, true),
        ("fan-out 100, batches of 100", 100, true),
        ("fan-out 1, single posts", 1, false),
    ];
    let mut table = vec![
        "| case | floor/s | Tidings/s | ratio | CPU s per 1,000 | RSS MiB |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    let mut maximum = 0.0;
    for (name, fan_out, batched) in cases {
        let mut floors = Vec::new();
        let mut rates = Vec::new();
        let mut ratios = Vec::new();
        let mut cpu = Vec::new();
        let mut rss = Vec::new();
        for number in 0..plan.runs {
            let receiver = Receiver::start().await?;
            let floor = floor(&receiver, Duration::from_secs(3)).await?;
            let deliveries = if batched { plan.deliveries } else { plan.deliveries / 4 };
            let measured = throughput(&plan.binary, fan_out, batched, deliveries).await?;
            say(json!({
                "case": name, "run": number, "floorPerSecond": floor, "perSecond": measured.rate,
                "ratio": measured.rate / floor, "cpuSecondsPerThousand": measured.cpu_per_thousand,
                "rssKiB": measured.rss_kib,
            })
            .to_string());
            floors.push(floor);
            rates.push(measured.rate);
            ratios.push(measured.rate / floor);
            cpu.push(measured.cpu_per_thousand);
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            rss.push(measured.rss_kib as f64 / 1024.0);
        }
        if fan_out == 1 && batched {
            maximum = median(&mut rates);
        }
        table.push(format!(
            "| {name} | {:.0} | {:.0} | {:.0} % | {:.3} | {:.0} |",
            median(&mut floors),
            median(&mut rates),
            100.0 * median(&mut ratios),
            median(&mut cpu),
            median(&mut rss),
        ));
    }
    table.push(String::new());
    table.push("| rate | p50 ms | p99 ms |".to_owned());
    table.push("|---|---|---|".to_owned());
    for rate in [100.0, (maximum / 2.0_f64).max(100.0)] {
        let mut p50 = Vec::new();
        let mut p99 = Vec::new();
        for number in 0..plan.runs.min(3) {
            let (half, most) = latency(&plan.binary, rate).await?;
            say(json!({"case": "latency", "run": number, "perSecond": rate, "p50Ms": half, "p99Ms": most})
                .to_string());
            p50.push(half);
            p99.push(most);
        }
        table.push(format!("| {rate:.0}/s | {:.2} | {:.2} |", median(&mut p50), median(&mut p99)));
    }
    Ok(table.join("\n"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Requests per second of a bare client straight to the receiver.
async fn floor(receiver: &Receiver, time: Duration) -> anyhow::Result<f64> {
    receiver.count_only();
    let body = Bytes::from(event(20, 104, "floor", &payload("floor", BODY)));
    let base = format!("http://127.0.0.1:{}", receiver.port);
    let deadline = tokio::time::Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..FLOOR_CONNECTIONS {
        let client = Client::new(&base, "floor")?;
        let body = body.clone();
        tasks.spawn(async move {
            while tokio::time::Instant::now() < deadline {
                let headers = [("content-type", "application/json")];
                client.send("POST", "/floor", &headers, body.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(receiver.count() as f64 / time.as_secs_f64())
}

struct Bench {
    _directory: tempfile::TempDir,
    server: Server,
    receiver: Receiver,
    world: World,
}

async fn start(binary: &Path, fan_out: u64) -> anyhow::Result<Bench> {
    let directory = tempfile::Builder::new().prefix("tidings-bench-").tempdir()?;
    let spec = Spec {
        binary: binary.to_owned(),
        data: directory.path().join("data"),
        port: free_port()?,
        dev: true,
        environment: Vec::new(),
    };
    let mut server = Server::spawn(&spec, &[])?;
    server.ready(PATIENCE).await?;
    let base = server.base();
    let receiver = Receiver::start().await?;
    let mut world = World::create(binary, &spec.data, &base, &receiver).await?;
    // The events of the bench are 108: nobody but its own webhooks wants them.
    for number in 0..fan_out {
        world.add_hook(&base, &receiver, 20, &format!("bench{number}"), &[108]).await?;
    }
    receiver.count_only();
    Ok(Bench { _directory: directory, server, receiver, world })
}

fn bench_event(marker: &str, sent_us: u64) -> String {
    let head = format!("{{\"publicToken\":\"{marker}\",\"sentUs\":\"{sent_us}\",\"fill\":\"");
    let fill = BODY.saturating_sub(head.len() + 2);
    event(20, 108, marker, &format!("{head}{}\"}}", "x".repeat(fill)))
}

async fn throughput(
    binary: &Path,
    fan_out: u64,
    batched: bool,
    deliveries: u64,
) -> anyhow::Result<Measured> {
    let bench = start(binary, fan_out).await?;
    let base = bench.server.base();
    let per_request = if batched { BATCH } else { 1 };
    let publishers = if batched { PUBLISHERS } else { FLOOR_CONNECTIONS };
    let requests = (deliveries / fan_out / per_request).max(1);
    let events = requests * per_request;
    let before = bench.server.usage()?;
    let started = bench.receiver.now_us();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..publishers {
        let client = Client::new(&base, &bench.world.admin)?;
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::AcqRel);
                if number >= requests {
                    return anyhow::Ok(());
                }
                let mut body = String::with_capacity(2048);
                for line in 0..per_request {
                    body.push_str(&bench_event(&format!("b{}", number * per_request + line), 0));
                    body.push('\n');
                }
                let kind =
                    if per_request > 1 { "application/x-ndjson" } else { "application/json" };
                let headers = [("content-type", kind)];
                let body = Bytes::from(body);
                client.send("POST", "/ingest/v1/events", &headers, body).await?.response(202)?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let expected = events * fan_out;
    let count = &bench.receiver;
    wait_for("all deliveries to arrive", PATIENCE, async || {
        Ok((count.count() >= expected).then_some(()))
    })
    .await
    .with_context(|| format!("{} of {expected} arrived", count.count()))?;
    // The clock runs until the recorder has caught up.
    let account = observe::settled(&bench.world, &base, events, PATIENCE).await?;
    let elapsed = bench.receiver.now_us() - started;
    let after = bench.server.usage()?;
    anyhow::ensure!(
        account.agree && account.delivered == expected && bench.receiver.count() == expected,
        "counts differ: expected {expected}, receiver {}, account {account:?}",
        bench.receiver.count()
    );
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    Ok(Measured {
        rate: expected as f64 / (elapsed as f64 / 1e6),
        cpu_per_thousand: (after.1 - before.1) / (expected as f64 / 1000.0),
        rss_kib: after.0,
    })
}

/// p50 and p99 in milliseconds from the publishing of a single event to its arrival.
async fn latency(binary: &Path, per_second: f64) -> anyhow::Result<(f64, f64)> {
    let bench = start(binary, 1).await?;
    let base = bench.server.base();
    let time = Duration::from_secs(5);
    let total = (per_second * time.as_secs_f64()).round();
    let lanes: u32 = if per_second > 500.0 { 32 } else { 4 };
    let mut tasks = JoinSet::new();
    let receiver = Arc::new(bench.receiver);
    for lane in 0..lanes {
        let client = Client::new(&base, &bench.world.admin)?;
        let receiver = Arc::clone(&receiver);
        let gap = Duration::from_secs_f64(f64::from(lanes) / per_second);
        let offset = gap.mul_f64(f64::from(lane) / f64::from(lanes));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        let count = (total / f64::from(lanes)) as u64;
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, gap);
            for number in 0..count {
                ticks.tick().await;
                let body = bench_event(&format!("l{lane}-{number}"), receiver.now_us());
                let headers = [("content-type", "application/json")];
                client
                    .send("POST", "/ingest/v1/events", &headers, Bytes::from(body))
                    .await?
                    .response(202)?;
            }
            anyhow::Ok(count)
        });
    }
    let mut published = 0;
    while let Some(ended) = tasks.join_next().await {
        published += ended??;
    }
    wait_for("all deliveries to arrive", PATIENCE, async || {
        Ok((receiver.count() >= published).then_some(()))
    })
    .await?;
    let latencies = receiver.latencies_us();
    let at = |share: f64| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "figures for people"
        )]
        let value = latencies
            .get(((latencies.len() as f64 - 1.0) * share) as usize)
            .map_or(0.0, |micros| *micros as f64 / 1000.0);
        value
    };
    anyhow::ensure!(!latencies.is_empty(), "nothing arrived: {}", Value::from(published));
    Ok((at(0.5), at(0.99)))
}
