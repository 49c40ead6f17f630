//! The child: makes the attempts that it is told to, says what they came to, and
//! at the end by how much its memory grew at most.

use std::{io::BufRead as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::registry::Registry;
use tidings_egress::{
    AttemptReport, Config, Egress, Metrics, NetConnector, Policy, Request, Target,
};
use tidings_testkit::TokioClock;
use tidings_types::{Timestamp, WebhookId};
use tokio::{sync::Semaphore, task::JoinSet};

/// Of one attempt; longer than the slowest answer of the table by far.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Rows at once: many, but not so many that a loaded machine misses time limits.
const AT_ONCE: usize = 24;
/// As large as a record may be.
const BODY: usize = 1024 * 1024;

struct Attempting {
    egress: Egress,
    policy: Policy,
    body: Bytes,
}

/// Takes orders until the input ends.
#[tokio::main]
pub(crate) async fn run(names: &str, root: &str) {
    let policy = Policy::dev();
    let root = std::fs::read(root).unwrap();
    let config = Config {
        policy: policy.clone(),
        name_servers: vec![names.parse().unwrap()],
        extra_roots: vec![root.into()],
        connect_timeout: Duration::from_secs(2),
        dns_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    let metrics = Metrics::register(&mut Registry::default());
    let net = Arc::new(NetConnector::new(&config, metrics.clone()));
    let clock = Arc::new(TokioClock::new(Timestamp::from_secs(1_700_000_000)));
    let egress = Egress::new(&config, net, clock, metrics);
    let attempting = Arc::new(Attempting { egress, policy, body: Bytes::from(vec![b'x'; BODY]) });
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let before = memory("VmRSS:");
    let mut rows = JoinSet::new();
    for line in std::io::stdin().lock().lines() {
        let (attempting, places) = (Arc::clone(&attempting), Arc::clone(&places));
        rows.spawn(async move {
            let _place = places.acquire().await.unwrap();
            attempting.row(&line.unwrap()).await;
        });
    }
    while let Some(row) = rows.join_next().await {
        row.unwrap();
    }
    println!("growth\t{}", memory("VmHWM:").saturating_sub(before));
}

impl Attempting {
    /// Does a row as often as it is told at once; all must come to the same.
    async fn row(self: Arc<Self>, order: &str) {
        let [number, url, attempts, crowd] = order.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{order:?} is no order");
        };
        let attempts = attempts.parse::<usize>().unwrap();
        let mut all = JoinSet::new();
        for place in 0..crowd.parse::<u8>().unwrap() {
            let (this, url) = (Arc::clone(&self), url.to_owned());
            let webhook = [number.parse::<u64>().unwrap().to_be_bytes(), [place; 8]].concat();
            let webhook = WebhookId::from_random(webhook.try_into().unwrap());
            all.spawn(async move {
                let mut codes = Vec::new();
                for _ in 0..attempts {
                    let report = this.attempt(webhook, &url).await;
                    codes.push(report.code.text(report.http_status));
                }
                codes.join(",")
            });
        }
        let mut seen = all.join_all().await;
        seen.sort_unstable();
        seen.dedup();
        println!("{number}\t{}", seen.join(" and "));
    }

    async fn attempt(&self, webhook: WebhookId, url: &str) -> AttemptReport {
        let target = Arc::new(Target::parse(url, &self.policy).unwrap());
        let body = self.body.clone();
        let request = Request {
            webhook,
            target,
            identity: None,
            sign_in: None,
            headers: HeaderMap::new(),
            body,
            timeout: TIMEOUT,
        };
        self.egress.attempt(request).await
    }
}

/// A line of `/proc/self/status`, in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
