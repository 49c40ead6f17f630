//! What a test of the suite gets: a broker, a clock, and short ways to say
//! things. Which broker it is stays in here.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tidings_broker::{
    AppendBatch, Appended, Broker, LocalBroker, LocalConfig, NewRecord, Record, Retention,
    SyncStats, TopicSpec,
};
use tidings_types::{BoxFuture, Clock, Instant, Offset, Timestamp, TopicName, TopicPartition};

/// A clock that follows the runtime's, so that paused time works.
#[derive(Debug)]
pub(crate) struct TestClock(tokio::time::Instant);

impl TestClock {
    pub(crate) const BASE: Timestamp = Timestamp::from_secs(1_700_000_000);

    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Self::BASE + self.0.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::now() + duration))
    }
}

enum Kind {
    Memory,
    Disk(TempDir),
}

pub(crate) struct Lab {
    kind: Kind,
    pub(crate) clock: Arc<TestClock>,
    config: LocalConfig,
    local: Option<LocalBroker>,
}

/// Small memories, so that tests of a few records reach the store as well, and a
/// sync that takes time.
pub(crate) fn small_config() -> LocalConfig {
    LocalConfig {
        tail_partition_bytes: 2048,
        tail_total_bytes: 16 << 10,
        stored_batch_bytes: 1024,
        sync_delay: Duration::from_millis(1),
        ..LocalConfig::default()
    }
}

pub(crate) fn open(dir: PathBuf, config: &LocalConfig, clock: &Arc<TestClock>) -> LocalBroker {
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    LocalBroker::open(&dir, config.clone(), clock, &mut Registry::default()).unwrap()
}

impl Lab {
    pub(crate) fn memory() -> Self {
        let clock = TestClock::start();
        let config = small_config();
        let as_dyn: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let local =
            LocalBroker::memory(config.clone(), as_dyn, &mut Registry::default(), None).unwrap();
        Self { kind: Kind::Memory, clock, config, local: Some(local) }
    }

    pub(crate) fn disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::start();
        let config = small_config();
        let local = open(dir.path().to_owned(), &config, &clock);
        Self { kind: Kind::Disk(dir), clock, config, local: Some(local) }
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::Local(self.local.clone().unwrap())
    }

    /// Ends the broker without any goodbye and brings it up again. Clones,
    /// readers and members must be gone, as they are when a process dies.
    pub(crate) async fn crash(&mut self) {
        let old = self.local.take().unwrap();
        self.local = Some(match &self.kind {
            Kind::Memory => old.crash_and_reopen().unwrap(),
            Kind::Disk(dir) => {
                drop(old);
                // The committer may still hold the files for the last commit.
                tokio::task::yield_now().await;
                open(dir.path().to_owned(), &self.config, &self.clock)
            }
        });
    }

    pub(crate) fn sync_stats(&self) -> SyncStats {
        self.local.as_ref().unwrap().sync_stats()
    }

    /// Lets retention do all that it has to do.
    pub(crate) async fn maintain(&self) {
        while self.local.as_ref().unwrap().maintain().await.more {}
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32) {
        self.broker().create_topic(spec(name, partitions)).await.unwrap();
    }
}

pub(crate) fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: TopicName::new(name),
        partitions,
        retention: Retention::Forever,
        erase_buckets: None,
    }
}

pub(crate) fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

pub(crate) fn record(value: &str) -> NewRecord {
    NewRecord { value: Some(Bytes::from(value.to_owned())), ..NewRecord::default() }
}

pub(crate) fn batch(to: &TopicPartition, values: &[&str]) -> AppendBatch {
    AppendBatch { to: to.clone(), records: values.iter().map(|value| record(value)).collect() }
}

pub(crate) async fn append(broker: &Broker, to: &TopicPartition, values: &[&str]) -> Appended {
    broker.append(vec![batch(to, values)]).await.remove(0)
}

/// Appends `0`, `1`, … one by one.
pub(crate) async fn fill(broker: &Broker, to: &TopicPartition, count: usize) {
    for number in 0..count {
        append(broker, to, &[&number.to_string()]).await.unwrap();
    }
}

pub(crate) fn text(record: &Record) -> &str {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap()
}

pub(crate) fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(text).collect()
}

/// Reads from `offset` to the end in small steps, and checks the offsets.
pub(crate) async fn read_all(
    broker: &Broker,
    from: &TopicPartition,
    mut offset: Offset,
) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let records = broker.read(from, offset, 300).await.unwrap();
        if records.is_empty() {
            return all;
        }
        for record in &records {
            assert_eq!(record.offset, offset, "offsets follow one another");
            offset += 1;
        }
        all.extend(records);
    }
}
