//! What a test of the suite gets: a broker, a clock, and short ways to say
//! things. Which broker it is stays in here.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tidings_broker::{
    AppendBatch, Appended, Broker, Group, KafkaBroker, KafkaConfig, LocalBroker, LocalConfig,
    MessageBytes, NewRecord, Record, Retention, SyncStats, TopicSpec,
};
use tidings_kafka_node::KafkaNode;
use tidings_types::{BoxFuture, Clock, Instant, Offset, Timestamp, TopicName, TopicPartition};
use tokio::sync::{Mutex, MutexGuard};

/// A clock that follows the runtime's, so that paused time works.
#[derive(Debug)]
pub(crate) struct TestClock {
    started: tokio::time::Instant,
    base: Timestamp,
}

impl TestClock {
    pub(crate) const BASE: Timestamp = Timestamp::from_secs(1_700_000_000);

    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { started: tokio::time::Instant::now(), base: Self::BASE })
    }

    /// For a broker that refuses records from another time than its own.
    #[expect(clippy::disallowed_methods, reason = "a broker of its own has its own clock")]
    pub(crate) fn today() -> Arc<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let base = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap());
        Arc::new(Self { started: tokio::time::Instant::now(), base })
    }

    pub(crate) fn base(&self) -> Timestamp {
        self.base
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::ZERO + self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::now() + duration))
    }
}

enum Kind {
    Memory,
    Disk(TempDir),
    /// The node is shared, so only one test at a time has it.
    Kafka {
        broker: KafkaBroker,
        _turn: MutexGuard<'static, ()>,
    },
}

pub(crate) struct Lab {
    kind: Kind,
    pub(crate) clock: Arc<TestClock>,
    config: LocalConfig,
    local: Option<LocalBroker>,
    /// No two tests on one node share a group.
    pub(crate) group: String,
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

/// The node of this test run; it ends with the process.
fn node() -> &'static (TempDir, KafkaNode) {
    static NODE: OnceLock<(TempDir, KafkaNode)> = OnceLock::new();
    NODE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let node = KafkaNode::start(dir.path(), &[]).unwrap();
        (dir, node)
    })
}

pub(crate) async fn connect(bootstrap: String, clock: &Arc<TestClock>) -> KafkaBroker {
    let mut config = KafkaConfig::new(&bootstrap, BTreeMap::new());
    config.metadata_refresh = Duration::from_millis(500);
    let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(clock);
    KafkaBroker::connect(config, clock).await.unwrap()
}

impl Lab {
    pub(crate) fn memory() -> Self {
        let clock = TestClock::start();
        let config = small_config();
        let as_dyn: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let local =
            LocalBroker::memory(config.clone(), as_dyn, &mut Registry::default(), None).unwrap();
        Self { kind: Kind::Memory, clock, config, local: Some(local), group: "g".to_owned() }
    }

    pub(crate) fn disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::start();
        let config = small_config();
        let local = open(dir.path().to_owned(), &config, &clock);
        Self { kind: Kind::Disk(dir), clock, config, local: Some(local), group: "g".to_owned() }
    }

    /// A real node with nothing on it.
    pub(crate) async fn kafka() -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().await;
        let (_, node) = node();
        let clock = TestClock::today();
        let broker = connect(node.bootstrap(), &clock).await;
        let seam = Broker::Kafka(broker.clone());
        for topic in seam.topics().await.unwrap() {
            seam.delete_topic(&topic.name).await.unwrap();
        }
        Self {
            kind: Kind::Kafka { broker, _turn: turn },
            clock,
            config: small_config(),
            local: None,
            group: format!("g{}", TESTS.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn broker(&self) -> Broker {
        match &self.kind {
            Kind::Kafka { broker, .. } => Broker::Kafka(broker.clone()),
            Kind::Memory | Kind::Disk(_) => Broker::Local(self.local.clone().unwrap()),
        }
    }

    fn is_real(&self) -> bool {
        matches!(self.kind, Kind::Kafka { .. })
    }

    /// The session of a group's members.
    pub(crate) fn session(&self) -> Duration {
        Duration::from_secs(if self.is_real() { 2 } else { 6 })
    }

    /// What a topic that the broker makes takes.
    pub(crate) fn message_bytes(&self) -> Option<MessageBytes> {
        // A record of 5 MiB, and 64 KiB for its framing.
        let must = (5 << 20) + (64 << 10);
        self.is_real().then_some(MessageBytes { takes: must, must })
    }

    /// How much longer than promised things may take.
    pub(crate) fn slack(&self) -> Duration {
        Duration::from_millis(if self.is_real() { 3000 } else { 100 })
    }

    /// After how long a time without anything there is nothing.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(if self.is_real() { 300 } else { 60_000 })
    }

    /// Many of what a broker must be able to have many of.
    pub(crate) fn many(&self) -> u32 {
        if self.is_real() { 60 } else { 1000 }
    }

    /// Lets time pass in which nobody does anything.
    pub(crate) async fn pass(&self, time: Duration) {
        if self.is_real() {
            self.clock.sleep(time).await;
        } else {
            tokio::time::advance(time).await;
        }
    }

    pub(crate) async fn join(&self) -> Group {
        let topic = TopicName::new("slots");
        self.broker().join(&self.group, &topic, self.session()).await.unwrap()
    }

    /// Ends the broker without any goodbye and brings it up again. Clones,
    /// readers and members must be gone, as they are when a process dies.
    pub(crate) async fn crash(&mut self) {
        if let Kind::Kafka { broker, .. } = &mut self.kind {
            let (_, node) = node();
            *broker = connect(node.bootstrap(), &self.clock).await;
            return;
        }
        let old = self.local.take().unwrap();
        self.local = Some(match &self.kind {
            Kind::Memory | Kind::Kafka { .. } => old.crash_and_reopen().unwrap(),
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
        if let Some(local) = &self.local {
            while local.maintain().await.more {}
        }
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
