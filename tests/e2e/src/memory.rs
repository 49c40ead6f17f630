//! The memory run: one dead webhook with a long queue beside a hundred healthy ones
//! under a steady load. The process must stay small, level, and fast for the
//! healthy.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;

use crate::{
    http::Client,
    process::{self, Server, Spec, Usage, free_port},
    receiver::{Behaviour, Receiver},
    wait_for,
    world::{World, event, payload},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Healthy webhooks, each of a programme manager of its own.
const HEALTHY: i64 = 100;
const FIRST_MANAGER: i64 = 1000;
/// The dead webhook alone wants this type; the healthy ones want 104.
const DEAD_CODE: u32 = 108;
/// Events of one request.
const BATCH: u64 = 1000;
/// What the issue allows.
const MOST_KIB: u64 = 400 * 1024;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    /// Notifications queued for the dead webhook.
    pub queued: u64,
    /// Deliveries a second to the healthy ones.
    pub rate: u64,
    pub time: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    pub queued: u64,
    /// After the queue was published.
    pub loaded_kib: u64,
    /// One each second of the steady load.
    pub samples_kib: Vec<u64>,
    pub published: u64,
    pub delivered: u64,
    pub cpu_seconds: f64,
}

impl Report {
    fn mean(samples: &[u64]) -> u64 {
        samples.iter().sum::<u64>() / u64::try_from(samples.len()).unwrap_or(1).max(1)
    }

    /// Means of the first and the last third of the time.
    pub fn thirds_kib(&self) -> (u64, u64) {
        let third = self.samples_kib.len() / 3;
        let last = self.samples_kib.len() - third;
        (Self::mean(&self.samples_kib[..third]), Self::mean(&self.samples_kib[last..]))
    }

    pub fn peak_kib(&self) -> u64 {
        self.samples_kib.iter().copied().max().unwrap_or(0).max(self.loaded_kib)
    }

    /// Small, and the last third not a tenth above the first.
    pub fn is_good(&self) -> bool {
        let (first, last) = self.thirds_kib();
        self.peak_kib() < MOST_KIB && last <= first + first / 10 && self.delivered == self.published
    }

    pub fn summary(&self) -> String {
        let (first, last) = self.thirds_kib();
        format!(
            "{} queued for a dead webhook; {} s of load: {} events to {HEALTHY} healthy webhooks, \
             {} delivered; memory {} MiB after the queue, {} MiB in the first third, {} MiB in \
             the last, {} MiB at most (allowed {}); {:.0} CPU seconds",
            self.queued,
            self.samples_kib.len(),
            self.published,
            self.delivered,
            self.loaded_kib / 1024,
            first / 1024,
            last / 1024,
            self.peak_kib() / 1024,
            MOST_KIB / 1024,
            self.cpu_seconds
        )
    }
}

/// Runs `plan`; `say` gets a line now and then.
///
/// # Errors
/// When the run itself could not be made.
pub async fn run(plan: &Plan, say: &mut dyn FnMut(String)) -> anyhow::Result<Report> {
    let directory = tempfile::Builder::new().prefix("tidings-memory-").tempdir()?;
    let spec = Spec {
        binary: plan.binary.clone(),
        data: directory.path().join("data"),
        port: free_port()?,
        dev: true,
        // Long enough that the dead one's notifications stay open.
        environment: vec![("TIDINGS_DELIVERY__DEFAULT_LADDER".to_owned(), "standard".to_owned())],
    };
    let mut server = Server::spawn(&spec, &[])?;
    server.ready(PATIENCE).await?;
    let receiver = Receiver::start()?;
    let base = server.base();
    let world = make_world(plan, &spec, &base, &receiver).await?;
    let client = Client::new(&base, &world.admin)?;
    receiver.count_paths();
    let mut number = 0;
    while number < plan.queued {
        let upto = plan.queued.min(number + BATCH);
        publish(&client, (number..upto).map(|n| (20, DEAD_CODE, format!("d{n}")))).await?;
        if upto.is_multiple_of(100_000) {
            let rss = server.usage()?.rss_kib;
            say(format!("{upto} queued, {} MiB", rss / 1024));
        }
        number = upto;
    }
    let Usage { rss_kib: loaded_kib, cpu_seconds: cpu_before, .. } = server.usage()?;
    let mut report = Report {
        queued: plan.queued,
        loaded_kib,
        samples_kib: Vec::new(),
        published: 0,
        delivered: 0,
        cpu_seconds: 0.0,
    };
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for second in 0..plan.time.as_secs() {
        seconds.tick().await;
        let events = (report.published..report.published + plan.rate).map(|n| {
            let manager = FIRST_MANAGER + i64::try_from(n).unwrap_or(0) % HEALTHY;
            (manager, 104, format!("h{n}"))
        });
        publish(&client, events).await?;
        report.published += plan.rate;
        let rss = server.usage()?.rss_kib;
        report.samples_kib.push(rss);
        if second % 30 == 29 {
            let delivered = receiver.counted(HEALTHY_PATH);
            say(format!("{} s, {} MiB, {delivered} delivered", second + 1, rss / 1024));
        }
    }
    let all = wait_for("the healthy webhooks to have everything", PATIENCE, async || {
        Ok((receiver.counted(HEALTHY_PATH) >= report.published).then_some(()))
    });
    if let Err(late) = all.await {
        say(format!("{late:#}"));
    }
    report.delivered = receiver.counted(HEALTHY_PATH);
    report.cpu_seconds = server.usage()?.cpu_seconds - cpu_before;
    server.kill()?;
    Ok(report)
}

/// What the paths of healthy webhooks begin with.
const HEALTHY_PATH: &str = "healthy";

async fn make_world(
    plan: &Plan,
    spec: &Spec,
    base: &str,
    receiver: &Receiver,
) -> anyhow::Result<World> {
    let mut world = World::create(&plan.binary, &spec.data, base, receiver).await?;
    receiver.behave("dead", Behaviour::Dead);
    world.add_hook(base, receiver, 20, "dead", &[DEAD_CODE]).await?;
    let managers = (0..HEALTHY)
        .map(|n| json!({"id": FIRST_MANAGER + n, "code": format!("H{n}"), "issuer": "7001"}));
    let tenants = json!({"programmeManagers": managers.collect::<Vec<_>>()});
    let client = Client::new(base, &world.admin)?;
    client.json("PUT", "/admin/v1/tenants", &tenants).await?.response(200)?;
    let data = spec.data.to_str().context("the data directory's name is not UTF-8")?;
    for n in 0..HEALTHY {
        let pm = FIRST_MANAGER + n;
        let (number, scopes) = (pm.to_string(), "eds.read eds.write");
        let arguments = ["token", "--data", data, "--ttl", "12h", "--pm", &number];
        let token =
            process::run(&plan.binary, &[&arguments[..], &["--scope", scopes][..]].concat())?;
        world.tokens.push((pm, token.trim().to_owned()));
        world.add_hook(base, receiver, pm, &format!("{HEALTHY_PATH}{n}"), &[104]).await?;
    }
    Ok(world)
}

async fn publish(
    client: &Client,
    events: impl Iterator<Item = (i64, u32, String)>,
) -> anyhow::Result<()> {
    let mut body = String::new();
    for (pm, code, marker) in events {
        body.push_str(&event(pm, code, &marker, &payload(&marker, 300)));
        body.push('\n');
    }
    let headers = [("content-type", "application/x-ndjson")];
    client.send("POST", "/ingest/v1/events", &headers, Bytes::from(body)).await?.response(202)?;
    Ok(())
}
