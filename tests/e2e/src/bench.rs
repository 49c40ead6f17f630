//! The bench: Tidings beside the bare floor, in turns in the same run, so that a
//! noisy machine disturbs both alike. Figures are ratios; absolute ones are
//! printed beside them. The ratio by CPU compares the CPU seconds that a request
//! costs in all (client and receiver of the floor; Tidings, publisher and receiver
//! of a delivery): it hardly depends on what else the machine does meanwhile, and
//! is what the ratio comes to where CPU is what is scarce.
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
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    http::Client,
    observe,
    process::{Server, Spec, free_port, usage_of},
    receiver::Receiver,
    wait_for,
    world::{World, event, payload},
};

const FLOOR_CONNECTIONS: usize = 64;
/// Requests that publish at the same time.
const PUBLISHERS: usize = 8;
const BATCH: u64 = 100;
const BODY: usize = 1024;
const TIMER_GRAIN: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    /// Alternations; medians are quoted.
    pub runs: usize,
    /// Deliveries of one throughput measurement.
    pub deliveries: u64,
    /// Only the cases whose names contain this.
    pub only: Option<String>,
}

/// How events are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publishing {
    /// Lines, [`BATCH`] to a request.
    Batches,
    Singles,
}

/// One throughput case.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    fan_out: u64,
    publishing: Publishing,
    /// The share of the floor that it shall reach.
    target: Option<f64>,
}

const CASES: [Case; 4] = [
    Case {
        name: "fan-out 1, batches of 100",
        fan_out: 1,
        publishing: Publishing::Batches,
        target: None,
    },
    Case {
        name: "fan-out 10, batches of 100",
        fan_out: 10,
        publishing: Publishing::Batches,
        target: Some(0.5),
    },
    Case {
        name: "fan-out 100, batches of 100",
        fan_out: 100,
        publishing: Publishing::Batches,
        target: Some(0.6),
    },
    Case {
        name: "fan-out 1, single posts",
        fan_out: 1,
        publishing: Publishing::Singles,
        target: Some(0.2),
    },
];

/// Rates of the latency measurement when the throughput was not measured.
const LOW_RATE: f64 = 100.0;

/// One throughput measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    rate: f64,
    /// CPU seconds of Tidings per 1,000 deliveries, and of this process, which
    /// publishes and receives.
    cpu_per_thousand: f64,
    around_per_thousand: f64,
    peak_kib: u64,
    syncs_per_thousand: f64,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// Runs the bench and prints a JSON line a measurement through `say`; returns the
/// table.
///
/// # Errors
/// When a run fails or its counts differ.
pub async fn run(plan: &Plan, say: &mut dyn FnMut(String)) -> anyhow::Result<String> {
    let mut table = vec![
        "| case | floor/s | Tidings/s | ratio | ratio by CPU | target | CPU s per 1,000 | fsyncs per 1,000 | peak MiB |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    let mut half = None;
    for case in CASES.iter().filter(|case| plan.wants(case.name)) {
        let (line, rate) = throughput_case(plan, *case, say).await?;
        table.push(line);
        if case.publishing == Publishing::Singles {
            half = Some(rate / 2.0);
        }
    }
    if plan.wants("latency") {
        table.extend([String::new(), "| published | p50 ms | p99 ms |".to_owned()]);
        table.push("|---|---|---|".to_owned());
        for rate in [Some(LOW_RATE), half].into_iter().flatten() {
            table.push(latency_case(plan, rate, say).await?);
        }
    }
    Ok(table.join("\n"))
}

/// The line of the table, and the median rate.
async fn throughput_case(
    plan: &Plan,
    case: Case,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<(String, f64)> {
    let (mut floors, mut rates) = (Vec::new(), Vec::new());
    let (mut ratios, mut works) = (Vec::new(), Vec::new());
    let (mut cpu, mut syncs, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..plan.runs {
        let floor = floor(&Receiver::start()?, Duration::from_secs(3)).await?;
        let measured = throughput(&plan.binary, case, plan.deliveries).await?;
        let work_ratio =
            floor.cpu_per_thousand / (measured.cpu_per_thousand + measured.around_per_thousand);
        say(json!({
            "case": case.name, "run": number, "floorPerSecond": floor.rate,
            "perSecond": measured.rate, "ratio": measured.rate / floor.rate,
            "workRatio": work_ratio, "floorCpuSecondsPerThousand": floor.cpu_per_thousand,
            "cpuSecondsPerThousand": measured.cpu_per_thousand,
            "aroundCpuSecondsPerThousand": measured.around_per_thousand,
            "syncsPerThousand": measured.syncs_per_thousand, "peakKiB": measured.peak_kib,
        })
        .to_string());
        floors.push(floor.rate);
        rates.push(measured.rate);
        ratios.push(measured.rate / floor.rate);
        works.push(work_ratio);
        cpu.push(measured.cpu_per_thousand);
        syncs.push(measured.syncs_per_thousand);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        peaks.push(measured.peak_kib as f64 / 1024.0);
    }
    let rate = median(&mut rates);
    let line = format!(
        "| {} | {:.0} | {rate:.0} | {:.0} % | {:.0} % | {} | {:.3} | {:.1} | {:.0} |",
        case.name,
        median(&mut floors),
        100.0 * median(&mut ratios),
        100.0 * median(&mut works),
        case.target.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        median(&mut cpu),
        median(&mut syncs),
        median(&mut peaks),
    );
    Ok((line, rate))
}

async fn latency_case(
    plan: &Plan,
    rate: f64,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<String> {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for number in 0..plan.runs {
        let (half, most) = latency(&plan.binary, rate).await?;
        let line = json!({
            "case": "latency", "run": number, "perSecond": rate, "p50Ms": half, "p99Ms": most,
        });
        say(line.to_string());
        p50.push(half);
        p99.push(most);
    }
    Ok(format!("| {rate:.0}/s | {:.2} | {:.2} |", median(&mut p50), median(&mut p99)))
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// What the floor came to.
#[derive(Clone, Copy, Debug)]
struct Floor {
    rate: f64,
    cpu_per_thousand: f64,
}

/// CPU seconds of this process so far.
fn own_cpu() -> anyhow::Result<f64> {
    Ok(usage_of(std::process::id())?.cpu_seconds)
}

/// A bare client straight to the receiver.
async fn floor(receiver: &Receiver, time: Duration) -> anyhow::Result<Floor> {
    receiver.count_only();
    let body = Bytes::from(event(20, 104, "floor", &payload("floor", BODY)));
    let base = format!("http://127.0.0.1:{}", receiver.port);
    let before = own_cpu()?;
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
    let count = receiver.count() as f64;
    Ok(Floor {
        rate: count / time.as_secs_f64(),
        cpu_per_thousand: (own_cpu()? - before) / (count / 1000.0),
    })
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
    let receiver = Receiver::start()?;
    let mut world = World::create(binary, &spec.data, &base, &receiver).await?;
    // The events of the bench are 108: nobody but its own webhooks wants them.
    for number in 0..fan_out {
        world.add_hook(&base, &receiver, 20, &format!("bench{number}"), &[108]).await?;
    }
    receiver.count_only();
    Ok(Bench { _directory: directory, server, receiver, world })
}

pub(crate) fn bench_event(marker: &str, sent_us: u64) -> String {
    let head = format!("{{\"publicToken\":\"{marker}\",\"sentUs\":\"{sent_us}\",\"fill\":\"");
    let fill = BODY.saturating_sub(head.len() + 2);
    event(20, 108, marker, &format!("{head}{}\"}}", "x".repeat(fill)))
}

/// What the recorder has folded and the log has synced, from `/metrics`.
#[derive(Clone, Copy, Debug)]
struct Folded {
    notifications: u64,
    facts: u64,
    syncs: u64,
}

async fn folded(client: &Client) -> anyhow::Result<Folded> {
    let answer = client.get("/metrics").await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let metric = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = value.and_then(|value| value.parse::<u64>().ok());
        number.with_context(|| format!("/metrics has no {name}"))
    };
    Ok(Folded {
        notifications: metric("tidings_eventlog_notifications_total")?,
        facts: metric("tidings_eventlog_facts_total")?,
        syncs: metric("tidings_broker_syncs_total")?,
    })
}

/// What attempts came to, for the message of a run that fails.
async fn attempts(client: &Client) -> anyhow::Result<Vec<String>> {
    let answer = client.get("/metrics").await?;
    let text = String::from_utf8_lossy(&answer.body);
    let of_attempts = ["tidings_egress_attempts_total", "tidings_egress_connections"];
    let wanted = |line: &&str| of_attempts.iter().any(|name| line.starts_with(name));
    Ok(text.lines().filter(wanted).map(str::to_owned).collect())
}

/// Posts events until `requests` were sent.
async fn publish(bench: &Bench, publishing: Publishing, requests: u64) -> anyhow::Result<()> {
    let (per_request, publishers, kind) = match publishing {
        Publishing::Batches => (BATCH, PUBLISHERS, "application/x-ndjson"),
        Publishing::Singles => (1, FLOOR_CONNECTIONS, "application/json"),
    };
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..publishers {
        let client = Client::new(&bench.server.base(), &bench.world.admin)?;
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::AcqRel);
                if number >= requests {
                    return anyhow::Ok(());
                }
                let mut body = String::new();
                for line in 0..per_request {
                    body.push_str(&bench_event(&format!("b{}", number * per_request + line), 0));
                    body.push('\n');
                }
                let answer = client
                    .send("POST", "/ingest/v1/events", &[("content-type", kind)], Bytes::from(body))
                    .await?;
                anyhow::ensure!(answer.status == 202, "ingest answered {}", answer.status);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn throughput(binary: &Path, case: Case, deliveries: u64) -> anyhow::Result<Measured> {
    let bench = start(binary, case.fan_out).await?;
    let (per_request, deliveries) = match case.publishing {
        Publishing::Batches => (BATCH, deliveries),
        Publishing::Singles => (1, deliveries / 4),
    };
    let requests = (deliveries / case.fan_out / per_request).max(1);
    let events = requests * per_request;
    let expected = events * case.fan_out;
    let observer = Client::new(&bench.server.base(), &bench.world.admin)?;
    let before = folded(&observer).await?;
    let usage_before = bench.server.usage()?;
    let around_before = own_cpu()?;
    let started = bench.receiver.now_us();
    publish(&bench, case.publishing, requests).await?;
    let count = &bench.receiver;
    wait_for("all deliveries to arrive", PATIENCE, async || {
        Ok((count.count() >= expected).then_some(()))
    })
    .await
    .with_context(|| format!("{} of {expected} arrived", count.count()))?;
    // The clock runs until the recorder has caught up.
    let after = wait_for("the recorder to catch up", PATIENCE, async || {
        let now = folded(&observer).await?;
        let is_there = now.facts - before.facts >= expected
            && now.notifications - before.notifications >= expected;
        Ok(is_there.then_some(now))
    })
    .await?;
    let elapsed = bench.receiver.now_us() - started;
    let usage = bench.server.usage()?;
    let around = own_cpu()? - around_before;
    let account = observe::settled(&bench.world, &bench.server.base(), events, PATIENCE).await?;
    let recorded = after.facts - before.facts;
    let attempts = attempts(&observer).await?;
    anyhow::ensure!(
        account.agree
            && account.notifications == expected
            && account.delivered == expected
            && recorded == expected
            && bench.receiver.count() == expected,
        "counts differ: expected {expected}, receiver {}, recorder {recorded}, account {account:?}, \
         attempts {attempts:?}",
        bench.receiver.count()
    );
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (thousands, seconds, syncs) =
        (expected as f64 / 1000.0, elapsed as f64 / 1e6, (after.syncs - before.syncs) as f64);
    Ok(Measured {
        rate: 1000.0 * thousands / seconds,
        cpu_per_thousand: (usage.cpu_seconds - usage_before.cpu_seconds) / thousands,
        around_per_thousand: around / thousands,
        peak_kib: usage.peak_kib,
        syncs_per_thousand: syncs / thousands,
    })
}

/// p50 and p99 in milliseconds from the publishing of a single event to its arrival.
async fn latency(binary: &Path, per_second: f64) -> anyhow::Result<(f64, f64)> {
    let bench = start(binary, 1).await?;
    let receiver = Arc::new(bench.receiver);
    let time = Duration::from_secs(5);
    let base = bench.server.base();
    let published = steady(&base, &bench.world.admin, &receiver, per_second, time).await?;
    wait_for("all deliveries to arrive", PATIENCE, async || {
        Ok((receiver.count() >= published).then_some(()))
    })
    .await?;
    let latencies = receiver.latencies_us();
    anyhow::ensure!(!latencies.is_empty(), "nothing arrived of {published}");
    Ok((at(&latencies, 0.5), at(&latencies, 0.99)))
}

/// Publishes single events evenly for `time`, each with the time at which it was due
/// on `receiver`'s clock; gives how many.
pub(crate) async fn steady(
    base: &str,
    admin: &str,
    receiver: &Arc<Receiver>,
    per_second: f64,
    time: Duration,
) -> anyhow::Result<u64> {
    let total = (per_second * time.as_secs_f64()).round();
    let lanes: u32 = if per_second > 500.0 { 32 } else { 4 };
    let mut tasks = JoinSet::new();
    for lane in 0..lanes {
        let client = Client::new(base, admin)?;
        let receiver = Arc::clone(receiver);
        let gap = Duration::from_secs_f64(f64::from(lanes) / per_second);
        let offset = gap.mul_f64(f64::from(lane) / f64::from(lanes));
        // Another one each time: the same event again is no new one.
        let marker = format!("l{}-{lane}", receiver.now_us());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        let count = (total / f64::from(lanes)) as u64;
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, gap);
            for number in 0..count {
                let due = ticks.tick().await;
                // A timer is up to a millisecond late; what is later is our doing,
                // and counts.
                let late = due.elapsed().saturating_sub(TIMER_GRAIN);
                let late = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
                let sent = receiver.now_us().saturating_sub(late);
                let body = bench_event(&format!("{marker}-{number}"), sent);
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
    Ok(published)
}

/// The millisecond at this share of sorted latencies.
pub(crate) fn at(latencies_us: &[u64], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "figures for people"
    )]
    let value = latencies_us
        .get(((latencies_us.len() as f64 - 1.0) * share) as usize)
        .map_or(0.0, |micros| *micros as f64 / 1000.0);
    value
}
