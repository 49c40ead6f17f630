//! How much an attempt costs above the least that hyper can do.
//!
//! Posts 1 KiB bodies over 64 connections to a receiver in the same process, by
//! [`Egress::attempt`] and by a bare hyper client, in turns, and prints requests
//! per second and their ratio. All on one thread, so that the ratio is one of
//! work done.
//!
//! `cargo run --release -p tidings-egress --example floor [seconds]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use prometheus_client::registry::Registry;
use tidings_egress::{Config, Egress, Metrics, NetConnector, Policy, Request, Target};
use tidings_testkit::{Receiver, Recording, TokioClock};
use tidings_types::{AttemptCode, Timestamp, WebhookId};
use tokio::{task::JoinSet, time::Instant};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "Tidings/1.0"),
        ("webhook-id", "0192f0f0-0000-8000-8000-000000000000"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("x-eds-event-code", "101"),
        ("x-eds-attempt", "1"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let receiver = Receiver::start_with(Recording::Number, None).await?;
    let body = Bytes::from(vec![b'x'; 1024]);
    let mut best = (0.0_f64, 0.0_f64);
    for round in 1..=ROUNDS {
        let ours = run_egress(&receiver, &body, seconds).await?;
        let bare = run_hyper(receiver.address(), &body, seconds).await?;
        println!("round {round}: egress {ours:.0}/s, bare hyper {bare:.0}/s, {:.2}", ours / bare);
        best = (best.0.max(ours), best.1.max(bare));
    }
    println!("best: egress {:.0}/s, bare hyper {:.0}/s, {:.2}", best.0, best.1, best.0 / best.1);
    Ok(())
}

/// Runs `CONNECTIONS` loops for some seconds; a loop returns what it counted.
async fn rate(
    seconds: u64,
    spawn: impl Fn(&mut JoinSet<Result<(), String>>, Arc<AtomicU64>, Arc<AtomicBool>),
) -> Result<f64, Box<dyn Error>> {
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut loops = JoinSet::new();
    for _ in 0..CONNECTIONS {
        spawn(&mut loops, Arc::clone(&count), Arc::clone(&stop));
    }
    let started = Instant::now();
    tokio::time::sleep_until(started + Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let counted = u32::try_from(count.load(Ordering::Relaxed))?;
    let rate = f64::from(counted) / started.elapsed().as_secs_f64();
    while let Some(result) = loops.join_next().await {
        result??;
    }
    Ok(rate)
}

async fn run_egress(
    receiver: &Receiver,
    body: &Bytes,
    seconds: u64,
) -> Result<f64, Box<dyn Error>> {
    let policy = Policy::dev();
    let target = Arc::new(Target::parse(&receiver.url("/hook"), &policy)?);
    let config = Config { policy, ..Config::default() };
    let metrics = Metrics::register(&mut Registry::default());
    let connector = Arc::new(NetConnector::new(&config, metrics.clone()));
    let clock = Arc::new(TokioClock::new(Timestamp::from_secs(1_700_000_000)));
    let egress = Arc::new(Egress::new(&config, connector, clock, metrics));
    let request = Request {
        webhook: WebhookId::from_random([1; 16]),
        target,
        identity: None,
        sign_in: None,
        headers: headers(),
        body: body.clone(),
        timeout: Duration::from_secs(15),
    };
    rate(seconds, |loops, count, stop| {
        let (egress, request) = (Arc::clone(&egress), request.clone());
        loops.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let report = egress.attempt(request.clone()).await;
                if report.code != AttemptCode::Delivered {
                    return Err(format!("{report:?}"));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    })
    .await
}

async fn run_hyper(address: SocketAddr, body: &Bytes, seconds: u64) -> Result<f64, Box<dyn Error>> {
    rate(seconds, |loops, count, stop| {
        let body = body.clone();
        loops.spawn(async move {
            bare(address, body, &count, &stop).await.map_err(|error| error.to_string())
        });
    })
    .await
}

/// One connection with its driver in a task, as hyper's guide has it.
async fn bare(
    address: SocketAddr,
    body: Bytes,
    count: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    #[expect(clippy::disallowed_methods, reason = "what egress is measured against")]
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    let mut headers = headers();
    headers.insert("host", HeaderValue::from_str(&address.to_string())?);
    while !stop.load(Ordering::Relaxed) {
        let mut request = http::Request::post("/hook").body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        sender.ready().await?;
        let mut response = sender.send_request(request).await?;
        while response.body_mut().frame().await.transpose()?.is_some() {}
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
