//! The isolation bench: a healthy endpoint alone, and then beside broken ones of
//! other tenants, in pairs on the same process, so that a noisy machine disturbs both
//! alike.
//!
//! Tidings runs with the settings that it is shipped with (no `--dev`: the ladder
//! `standard`, probes up to five minutes apart), but may send to loopback. Each pair
//! first asserts that the broken ones were really tried.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    bench::{at, median, steady},
    http::Client,
    process::{self, Server, Spec, free_port},
    receiver::{Behaviour, Receiver},
    wait_for,
    world::event,
};

const PATIENCE: Duration = Duration::from_secs(120);
/// The healthy one's, and the first of the others.
const HEALTHY: i64 = 20;
const OTHERS: i64 = 100;
/// The broken webhooks are shared out among so many tenants.
const TENANTS: usize = 10;
/// Hanging endpoints stand at so many addresses.
const ADDRESSES: u8 = 10;
/// Webhooks that are made at the same time.
const MAKERS: usize = 16;
/// Before anything is measured, and before it is measured beside the others.
const WARM_UP: Duration = Duration::from_secs(3);
/// The bound of a p99, whatever it is alone.
const P99_MS: f64 = 5.0;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    /// Pairs; medians are quoted.
    pub runs: usize,
    /// Of each half of a pair.
    pub time: Duration,
    /// Events a second to the healthy one, and notifications to the broken ones.
    pub rate: u32,
    /// Broken webhooks in the cases that have many.
    pub many: usize,
    /// Only the cases whose names contain this.
    pub only: Option<String>,
}

/// How the neighbours behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbours {
    /// Their connections are refused.
    Dead,
    /// They answer after two seconds.
    Slow,
    /// They accept and never answer.
    Hanging,
}

const CASES: [(&str, Neighbours, bool); 5] = [
    ("one dead", Neighbours::Dead, false),
    ("one slow (2 s)", Neighbours::Slow, false),
    ("one hanging", Neighbours::Hanging, false),
    ("many dead", Neighbours::Dead, true),
    ("many hanging", Neighbours::Hanging, true),
];

/// p50 and p99 in milliseconds, from publishing to arrival.
#[derive(Clone, Copy, Debug)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Runs the bench and prints a JSON line a pair through `say`; returns the table, and
/// whether all medians are within their bounds.
///
/// # Errors
/// When a run fails, or the broken ones were not tried in it.
pub async fn run(plan: &Plan, say: &mut dyn FnMut(String)) -> anyhow::Result<(String, bool)> {
    let mut table = vec![
        "| beside | p50 ms alone | beside | ratio | p99 ms alone | beside | ratio | within | attempts at the others |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    let mut is_good = true;
    let wanted = |name: &str| plan.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (name, neighbours, is_many) in CASES.iter().filter(|(name, ..)| wanted(name)) {
        let count = if *is_many { plan.many } else { 1 };
        let mut pairs = Vec::new();
        for number in 0..plan.runs {
            let (alone, beside, tried) = pair(plan, *neighbours, count).await?;
            say(json!({
                "case": name, "neighbours": count, "run": number,
                "p50MsAlone": alone.p50, "p50MsBeside": beside.p50,
                "p99MsAlone": alone.p99, "p99MsBeside": beside.p99, "triedBeside": tried,
            })
            .to_string());
            pairs.push((alone, beside, tried));
        }
        let of = |pick: &dyn Fn(&(Latency, Latency, u64)) -> f64| {
            median(&mut pairs.iter().map(pick).collect::<Vec<_>>())
        };
        let half = of(&|(alone, beside, _)| beside.p50 / alone.p50);
        let most = of(&|(alone, beside, _)| beside.p99 / alone.p99);
        let p99 = of(&|(_, beside, _)| beside.p99);
        let is_within = half <= 1.5 && (most <= 2.0 || p99 <= P99_MS);
        is_good &= is_within;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let tried = of(&|(_, _, tried)| *tried as f64);
        table.push(format!(
            "| {name}{} | {:.2} | {:.2} | {half:.2} | {:.2} | {p99:.2} | {most:.2} | {} | {tried:.0} |",
            if *is_many { format!(" ({count})") } else { String::new() },
            of(&|(alone, ..)| alone.p50),
            of(&|(_, beside, _)| beside.p50),
            of(&|(alone, ..)| alone.p99),
            if is_within { "yes" } else { "no" },
        ));
    }
    Ok((table.join("\n"), is_good))
}

/// One process: the healthy one alone, then beside `count` neighbours. Also says how
/// often those were tried.
async fn pair(
    plan: &Plan,
    neighbours: Neighbours,
    count: usize,
) -> anyhow::Result<(Latency, Latency, u64)> {
    let stage = Stage::start(&plan.binary, neighbours, count).await?;
    let healthy = Arc::new(Receiver::start()?);
    stage.hook(HEALTHY, &healthy.url("healthy")).await?;
    healthy.count_only();
    measure(&stage, &healthy, plan.rate, WARM_UP).await?;
    let alone = measure(&stage, &healthy, plan.rate, plan.time).await?;

    let before = stage.attempts().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut flooding = JoinSet::new();
    flooding.spawn(flood(stage.admin()?, count, plan.rate, Arc::clone(&stop)));
    // They show what they are within this time.
    measure(&stage, &healthy, plan.rate, WARM_UP).await?;
    let warm_up = healthy.count();
    let beside = measure(&stage, &healthy, plan.rate, plan.time).await?;
    // All attempts but the healthy one's.
    let tried = stage.attempts().await?.saturating_sub(before + warm_up + healthy.count());
    stop.store(true, Ordering::Release);
    let wanted = flooding.join_next().await.context("nobody publishes for the others")???;
    anyhow::ensure!(wanted > 0, "nothing was published for the others");
    let least = u64::try_from(count).unwrap_or(u64::MAX).min(wanted) / 2 + 1;
    anyhow::ensure!(tried >= least, "the others were tried {tried} times, at least {least} needed");
    Ok((alone, beside, tried))
}

async fn measure(
    stage: &Stage,
    healthy: &Arc<Receiver>,
    rate: u32,
    time: Duration,
) -> anyhow::Result<Latency> {
    healthy.count_only();
    let published = steady(&stage.base, &stage.admin, healthy, rate.into(), time).await?;
    wait_for("the healthy one's deliveries", PATIENCE, async || {
        Ok((healthy.count() >= published).then_some(()))
    })
    .await?;
    let latencies = healthy.latencies_us();
    anyhow::ensure!(!latencies.is_empty(), "nothing arrived of {published}");
    Ok(Latency { p50: at(&latencies, 0.5), p99: at(&latencies, 0.99) })
}

/// Publishes for the broken ones, `rate` notifications a second, until `stop`; gives
/// how many those were.
async fn flood(
    client: Client,
    count: usize,
    rate: u32,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<u64> {
    let tenants = TENANTS.min(count);
    let per_event = u32::try_from(count / tenants).unwrap_or(1).max(1);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * per_event / rate.max(1));
    let number = AtomicU64::new(0);
    while !stop.load(Ordering::Acquire) {
        ticks.tick().await;
        let n = number.fetch_add(1, Ordering::AcqRel);
        let tenant = i64::try_from(n).unwrap_or(0) % i64::try_from(tenants).unwrap_or(1);
        let marker = format!("n{n}");
        let payload = format!("{{\"publicToken\":\"{marker}\"}}");
        let body = event(OTHERS + tenant, 108, &marker, &payload);
        let headers = [("content-type", "application/json")];
        client
            .send("POST", "/ingest/v1/events", &headers, Bytes::from(body))
            .await?
            .response(202)?;
    }
    Ok(number.into_inner() * u64::from(per_event))
}

/// A running Tidings with broken webhooks.
struct Stage {
    _directory: tempfile::TempDir,
    _server: Server,
    /// What answers for slow or hanging ones.
    _endpoints: (Option<Receiver>, JoinSet<()>),
    binary: PathBuf,
    data: PathBuf,
    base: String,
    admin: String,
}

impl Stage {
    async fn start(binary: &Path, neighbours: Neighbours, count: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("tidings-isolation-").tempdir()?;
        let environment = [
            ("TIDINGS_AUTH__LOCAL_ISSUER", "true"),
            ("TIDINGS_EGRESS__ALLOW", "[\"127.0.0.0/8\"]"),
            ("TIDINGS_EGRESS__ALLOW_HTTP", "true"),
            ("TIDINGS_WEBHOOKS__PER_SCOPE", "100000"),
        ];
        let spec = Spec {
            binary: binary.to_owned(),
            data: directory.path().join("data"),
            port: free_port()?,
            dev: false,
            environment: environment
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        };
        let mut server = Server::spawn(&spec, &[])?;
        server.ready(PATIENCE).await?;
        let mut stage = Self {
            base: server.base(),
            _directory: directory,
            _server: server,
            _endpoints: (None, JoinSet::new()),
            binary: binary.to_owned(),
            data: spec.data,
            admin: String::new(),
        };
        stage.admin = stage.token(&["--scope", "admin eds.publish"])?;
        stage.make_tenants().await?;
        let urls = stage.endpoints(neighbours, count).await?;
        stage.make_hooks(urls).await?;
        Ok(stage)
    }

    fn token(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let data = self.data.to_str().context("the data directory's name is not UTF-8")?;
        let mut all = vec!["token", "--data", data, "--ttl", "12h"];
        all.extend(arguments);
        process::run(&self.binary, &all).map(|text| text.trim().to_owned())
    }

    fn admin(&self) -> anyhow::Result<Client> {
        Client::new(&self.base, &self.admin)
    }

    async fn make_tenants(&self) -> anyhow::Result<()> {
        let others = (0..TENANTS).map(|n| OTHERS + i64::try_from(n).unwrap_or(0));
        let managers: Vec<Value> = std::iter::once(HEALTHY)
            .chain(others)
            .map(|id| json!({"id": id, "code": format!("P{id}"), "issuer": "7001"}))
            .collect();
        let tenants = json!({
            "issuers": [{"id": "7001", "name": "Seven"}], "programmeManagers": managers,
        });
        self.admin()?.json("PUT", "/admin/v1/tenants", &tenants).await?.response(200)?;
        Ok(())
    }

    async fn hook(&self, pm: i64, url: &str) -> anyhow::Result<()> {
        let token = self.token(&["--pm", &pm.to_string(), "--scope", "eds.read eds.write"])?;
        make_hook(&Client::new(&self.base, &token)?, url).await
    }

    /// Where the neighbours are.
    async fn endpoints(
        &mut self,
        neighbours: Neighbours,
        count: usize,
    ) -> anyhow::Result<Vec<String>> {
        let numbers = 0..count;
        Ok(match neighbours {
            Neighbours::Dead => {
                let port = free_port()?;
                let url = |n: usize| format!("http://127.9.{}.{}:{port}/", n / 250, 1 + n % 250);
                numbers.map(url).collect()
            }
            Neighbours::Slow => {
                let receiver = Receiver::start()?;
                for n in 0..count {
                    let slow = Behaviour::Slow(Duration::from_secs(2));
                    receiver.behave(&format!("n{n}"), slow);
                }
                let urls = numbers.map(|n| receiver.url(&format!("n{n}"))).collect();
                self._endpoints.0 = Some(receiver);
                urls
            }
            Neighbours::Hanging => {
                let mut bases = Vec::new();
                for n in 1..=ADDRESSES {
                    let listener = TcpListener::bind((Ipv4Addr::new(127, 8, 0, n), 0)).await?;
                    bases.push(format!("http://{}", listener.local_addr()?));
                    self._endpoints.1.spawn(hold(listener));
                }
                let base = |n: usize| bases.get(n % bases.len()).cloned().unwrap_or_default();
                numbers.map(|n| format!("{}/n{n}", base(n))).collect()
            }
        })
    }

    async fn make_hooks(&self, urls: Vec<String>) -> anyhow::Result<()> {
        let tenants = TENANTS.min(urls.len());
        let mut makers = JoinSet::new();
        let mut clients = Vec::new();
        for n in 0..tenants {
            let pm = (OTHERS + i64::try_from(n).unwrap_or(0)).to_string();
            clients.push(self.token(&["--pm", &pm, "--scope", "eds.read eds.write"])?);
        }
        let shared = Arc::new((urls, clients));
        for maker in 0..MAKERS {
            let (shared, base) = (Arc::clone(&shared), self.base.clone());
            makers.spawn(async move {
                let (urls, tokens) = &*shared;
                for (n, url) in urls.iter().enumerate().skip(maker).step_by(MAKERS) {
                    let token = tokens.get(n % tokens.len()).context("no tenant")?;
                    make_hook(&Client::new(&base, token)?, url).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(made) = makers.join_next().await {
            made??;
        }
        Ok(())
    }

    /// Attempts that Tidings has started.
    async fn attempts(&self) -> anyhow::Result<u64> {
        let answer = self.admin()?.get("/metrics").await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value =
            text.lines().find_map(|line| line.strip_prefix("tidings_sender_attempts_total "));
        value.and_then(|value| value.parse().ok()).context("/metrics does not count attempts")
    }
}

async fn make_hook(client: &Client, url: &str) -> anyhow::Result<()> {
    let body = json!({"events": [108], "config": {"url": url}});
    client.json("POST", "/api/v1/Webhooks", &body).await?.response(201)?;
    Ok(())
}

/// Accepts connections and keeps them, without a word.
async fn hold(listener: TcpListener) {
    let mut kept = Vec::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        kept.push(stream);
    }
}
