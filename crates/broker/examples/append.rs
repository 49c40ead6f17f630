//! Measures durable appends of 1 KB with 1, 16 and 64 appenders, as
//! `embedded-broker.md` §4.1 did. `cargo run --release --example append -- DIR`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tidings_broker::{
    AppendBatch, Broker, LocalBroker, LocalConfig, NewRecord, Retention, TopicSpec,
};
use tidings_types::{BoxFuture, Clock, Instant, Timestamp, TopicName, TopicPartition};
use tokio::task::JoinSet;

const SECONDS: u64 = 5;

#[derive(Debug)]
struct SystemClock(tokio::time::Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_700_000_000) + self.0.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::now() + duration))
    }
}

async fn run(broker: &Broker, local: &LocalBroker, appenders: u32) -> Vec<Duration> {
    let until = tokio::time::Instant::now() + Duration::from_secs(SECONDS);
    let before = local.sync_stats();
    let mut tasks = JoinSet::new();
    for number in 0..appenders {
        let broker = broker.clone();
        let to = TopicPartition::new("t", number % 16);
        let record = NewRecord { value: Some(Bytes::from(vec![b'x'; 1000])), ..Default::default() };
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let started = tokio::time::Instant::now();
                if started > until {
                    return times;
                }
                let batch = AppendBatch { to: to.clone(), records: vec![record.clone()] };
                let results = broker.append(vec![batch]).await;
                assert!(results.iter().all(Result::is_ok), "{results:?}");
                times.push(started.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.unwrap_or_default());
    }
    let after = local.sync_stats();
    let per_sync =
        (after.appended_records - before.appended_records) / (after.syncs - before.syncs).max(1);
    times.sort_unstable();
    tracing::info!(per_sync, "records per sync");
    #[expect(clippy::print_stdout, reason = "the result of a measurement")]
    {
        let rate = u64::try_from(times.len()).unwrap_or(0) / SECONDS;
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        println!(
            "{appenders:>3} appenders: {rate:>7} records/s, p50 {:?}, p99 {:?}, {per_sync} per sync",
            at(50).unwrap_or_default(),
            at(99).unwrap_or_default()
        );
    }
    times
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).map_or_else(|| PathBuf::from("append-bench"), PathBuf::from);
    let clock = Arc::new(SystemClock(tokio::time::Instant::now()));
    let mut registry = Registry::default();
    let local = LocalBroker::open(&dir, LocalConfig::default(), clock, &mut registry)?;
    let broker = Broker::Local(local.clone());
    let spec = TopicSpec {
        name: TopicName::new("t"),
        partitions: 16,
        retention: Retention::Forever,
        erase_buckets: None,
    };
    broker.create_topic(spec).await?;
    for appenders in [1, 16, 64] {
        run(&broker, &local, appenders).await;
    }
    Ok(())
}
