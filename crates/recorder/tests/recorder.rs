//! The recorder against the memory broker, with hand-made records.
#![expect(clippy::unwrap_used, reason = "in a test, also in what it is made of")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tidings_broker::{
    AppendBatch, Broker, LocalBroker, LocalConfig, NewRecord, Offsets, Position, Retention,
    TopicSpec,
};
use tidings_eventlog::{Backing, Limits, MemoryDisk, Metrics as LogMetrics, OpenError, Source};
use tidings_proto::{encode, format_header, v1};
use tidings_recorder::{Config, Deps, Handle, Metrics, RunError, Service};
use tidings_types::{
    BoxFuture, Clock, Instant, NotificationId, NotificationState, OUTCOME_PARTITIONS, Offset,
    ROUTED_PARTITIONS, RunId, Timestamp, TopicName, TopicPartition, WebhookId, names,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const START: i64 = 1_700_000_000_000;
const EVENTS: &str = "tidings.events.104";

/// Follows tokio's time, which tests pause.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(START) + self.0.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::now() + duration))
    }
}

fn webhook(n: u8) -> WebhookId {
    WebhookId::from_bytes([n; 16])
}

fn id(event: u64, webhook: u8) -> NotificationId {
    let mut bytes = [webhook; 16];
    bytes[..8].copy_from_slice(&event.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    NotificationId::from_digest(bytes)
}

struct World {
    broker: Broker,
    clock: Arc<TokioClock>,
    /// The next offset of each source partition.
    decided: BTreeMap<u32, Offset>,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(TokioClock(tokio::time::Instant::now()));
        let broker = LocalBroker::memory(
            LocalConfig::default(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            &mut Registry::default(),
            None,
        );
        let broker = Broker::Local(broker.unwrap());
        Self { broker, clock, decided: BTreeMap::new() }.with_topics().await
    }

    async fn with_topics(self) -> Self {
        let topics = [
            (names::ROUTED, ROUTED_PARTITIONS),
            (names::OUTCOMES, OUTCOME_PARTITIONS),
            (EVENTS, 3),
        ];
        for (name, partitions) in topics {
            let name = TopicName::new(name);
            let (retention, erase_buckets) = (Retention::Forever, None);
            let spec = TopicSpec { name, partitions, retention, erase_buckets };
            self.broker.create_topic(spec).await.unwrap();
        }
        self
    }

    async fn append(&self, to: TopicPartition, value: Bytes) -> Offset {
        let headers = vec![format_header()];
        let record = NewRecord { value: Some(value), headers, ..NewRecord::default() };
        let batch = AppendBatch { to, records: vec![record] };
        let appended = self.broker.append(vec![batch]).await.remove(0).unwrap();
        Offsets::first(&appended).unwrap()
    }

    async fn route(&mut self, event: u64, webhooks: &[u8]) {
        let partition = u32::try_from(event % 3).unwrap();
        let next = self.decided.entry(partition).or_default();
        let source = v1::Source { topic: EVENTS.into(), partition, offset: *next };
        *next += 1;
        let mut uid = [7; 32];
        uid[..8].copy_from_slice(&event.to_be_bytes());
        let targets = webhooks.iter().map(|n| v1::RoutedTarget {
            webhook: Bytes::copy_from_slice(webhook(*n).as_bytes()),
            notification: Bytes::copy_from_slice(id(event, *n).as_bytes()),
            shape: v1::Shape::Plain.into(),
            suspended: false,
        });
        let routed = v1::Routed {
            uid: Bytes::copy_from_slice(&uid),
            event_type: "104".into(),
            tenant: "pm:20".into(),
            targets: targets.collect(),
            bodies: vec![v1::Body { payload_len: 9, ..Default::default() }],
            ..Default::default()
        };
        let decision = v1::Decision {
            source: Some(source),
            time: self.clock.now().as_millis(),
            what: Some(v1::decision::What::Routed(routed)),
            ..Default::default()
        };
        let kind = Some(v1::routed_record::Kind::Decision(decision));
        let record = v1::RoutedRecord { took: 0, kind };
        self.append(Source::Routed.partition(partition), encode(&record)).await;
    }

    async fn end(&self, event: u64, to: &[u8], kind: v1::OutcomeKind) -> (TopicPartition, Offset) {
        let outcomes = to.iter().map(|n| v1::Outcome {
            webhook: Bytes::copy_from_slice(webhook(*n).as_bytes()),
            notification: Bytes::copy_from_slice(id(event, *n).as_bytes()),
            run: Bytes::copy_from_slice(RunId::FIRST.as_bytes()),
            kind: kind.into(),
            time: self.clock.now().as_millis(),
            attempt: 1,
            code: "HTTP_200".into(),
            ..Default::default()
        });
        let batch = v1::OutcomeBatch {
            slot: 0,
            took: Some(1),
            writer: v1::Writer::Sender.into(),
            outcomes: outcomes.collect(),
        };
        let to = Source::Outcomes.partition(u32::try_from(event % 16).unwrap());
        let offset = self.append(to.clone(), encode(&batch)).await;
        (to, offset + 1)
    }

    /// Routes events to webhooks 1 to 10 and delivers all of them.
    async fn deliver(&mut self, events: std::ops::Range<u64>) {
        let all: Vec<u8> = (1..=10).collect();
        for event in events {
            self.route(event, &all).await;
            self.end(event, &all, v1::OutcomeKind::Delivered).await;
        }
    }

    fn start(&self, backing: Backing) -> Running {
        let mut registry = Registry::default();
        let (metrics, log_metrics) =
            (Metrics::register(&mut registry), LogMetrics::register(&mut registry));
        let deps = Deps {
            failpoints: tidings_recorder::Failpoints::default(),
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            metrics: metrics.clone(),
            log_metrics: log_metrics.clone(),
        };
        let limits = Limits::default();
        let service = Service::build(Config { limits, ..Config::new(backing) }, deps);
        let handle = service.handle();
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(service.run(shutdown.clone()));
        Running { handle, metrics, log_metrics, shutdown, task }
    }

    async fn pause(&self, millis: u64) {
        self.clock.sleep(Duration::from_millis(millis)).await;
    }
}

struct Running {
    handle: Handle,
    metrics: Metrics,
    log_metrics: LogMetrics,
    shutdown: CancellationToken,
    task: JoinSet<Result<(), RunError>>,
}

impl Running {
    async fn stop(mut self) -> Result<(), RunError> {
        self.shutdown.cancel();
        self.task.join_next().await.unwrap().unwrap()
    }

    async fn complete(&self, world: &World) {
        while !self.handle.is_ready() {
            world.pause(10).await;
        }
    }

    async fn dump(&self) -> String {
        self.handle.event_log().dump(webhook(1)).await.unwrap()
    }

    async fn state(&self, event: u64) -> NotificationState {
        let ids = [id(event, 1)];
        self.handle.event_log().by_ids(webhook(1), &ids).await.unwrap()[0].state
    }
}

fn memory() -> (MemoryDisk, Backing) {
    let disk = MemoryDisk::default();
    (disk.clone(), Backing::Memory(disk))
}

#[tokio::test(start_paused = true)]
async fn what_is_routed_and_delivered_is_seen_within_a_second() {
    let mut world = World::new().await;
    let recorder = world.start(memory().1);
    recorder.complete(&world).await;
    world.pause(5_000).await;
    world.route(1, &[1]).await;
    world.pause(150).await;
    let log = recorder.handle.event_log();
    let page = log.list(webhook(1), "104", Timestamp::ZERO, 10, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].state, NotificationState::Pending);
    let written = world.end(1, &[1], v1::OutcomeKind::Delivered).await;
    log.wait_for(&[written]).await;
    assert_eq!(recorder.state(1).await, NotificationState::Delivered);
    recorder.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn as_of_moves_on_while_nothing_comes() {
    let world = World::new().await;
    let recorder = world.start(memory().1);
    recorder.complete(&world).await;
    world.pause(60_000).await;
    let age = world.clock.now().since(recorder.handle.status().as_of);
    assert!(age <= Duration::from_millis(1_100), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_it_goes_on_where_the_store_was_flushed() {
    let mut world = World::new().await;
    let (disk, backing) = memory();
    let recorder = world.start(backing.clone());
    world.deliver(0..50).await;
    world.pause(3_000).await;
    world.deliver(50..60).await;
    world.pause(20).await;
    let before = recorder.dump().await;
    drop(recorder);
    disk.crash();
    let recorder = world.start(backing);
    recorder.complete(&world).await;
    assert_eq!(recorder.dump().await, before);
    let again = recorder.log_metrics.notifications();
    assert!(again < 600, "{again} notifications were read again");
    assert_eq!(recorder.metrics.rebuilds(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_holds_outcomes_back_until_their_decisions_are_read() {
    let mut world = World::new().await;
    for step in 0..40 {
        world.deliver(step * 25..step * 25 + 25).await;
        world.pause(1_000).await;
    }
    let recorder = world.start(memory().1);
    recorder.complete(&world).await;
    let (rows, deliveries) =
        (recorder.log_metrics.rows_written(), recorder.log_metrics.notifications());
    assert_eq!(deliveries, 10_000);
    assert!(rows < 4_000, "{rows} rows for {deliveries} deliveries");
    assert_eq!(recorder.state(999).await, NotificationState::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_lost_its_tail_means_a_rebuild() {
    let mut longer = World::new().await;
    longer.deliver(0..40).await;
    let (_, backing) = memory();
    let recorder = longer.start(backing.clone());
    recorder.complete(&longer).await;
    recorder.stop().await.unwrap();

    let mut shorter = World::new().await;
    shorter.deliver(0..20).await;
    let recorder = shorter.start(backing);
    recorder.complete(&shorter).await;
    assert_eq!(recorder.metrics.rebuilds(), 1);
    assert_eq!(recorder.state(19).await, NotificationState::Delivered);
    let lost = recorder.handle.event_log().by_ids(webhook(1), &[id(30, 1)]).await.unwrap();
    assert!(lost.is_empty());
}

#[tokio::test(start_paused = true)]
async fn damage_that_a_reader_finds_is_made_good_while_running() {
    let mut world = World::new().await;
    world.deliver(0..60).await;
    let (disk, backing) = memory();
    let recorder = world.start(backing);
    recorder.complete(&world).await;
    let before = recorder.dump().await;
    (0..disk.len()).for_each(|row| assert!(disk.flip(row)));
    assert!(recorder.handle.event_log().dump(webhook(1)).await.is_err());
    world.pause(1_500).await;
    recorder.complete(&world).await;
    assert_eq!(recorder.metrics.rebuilds(), 1);
    assert_eq!(recorder.dump().await, before);
}

#[tokio::test(start_paused = true)]
async fn the_account_waits_for_what_was_decided_before_the_commits_were_read() {
    let mut world = World::new().await;
    let recorder = world.start(memory().1);
    recorder.complete(&world).await;
    world.deliver(0..30).await;
    world.route(30, &[1, 2]).await;
    let routed = TopicName::new(names::ROUTED);
    let group = world.broker.join("tidings-router", &routed, Duration::from_secs(60)).await;
    let positions = world.decided.iter().map(|(partition, next)| Position {
        of: TopicPartition::new(EVENTS, *partition),
        next: *next,
        metadata: String::new(),
    });
    group.unwrap().commit(positions.collect()).await.unwrap();
    let account = recorder.handle.account(None).await.unwrap();
    assert!(account.agrees(), "{account:?}");
    let sum = |of: fn(&tidings_eventlog::AccountRow) -> u64| {
        account.partitions.iter().map(of).sum::<u64>()
    };
    assert_eq!((sum(|row| row.routed), sum(|row| row.notifications)), (31, 302));
    assert_eq!((sum(|row| row.delivered), sum(|row| row.pending)), (300, 2));
    let other = TopicName::new("tidings.events.105");
    assert!(recorder.handle.account(Some(&other)).await.unwrap().partitions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_beginning_is_gone_holds_nobody_up() {
    let mut world = World::new().await;
    world.deliver(0..30).await;
    for partition in 0..OUTCOME_PARTITIONS {
        let of = Source::Outcomes.partition(partition);
        let end = world.broker.ends(&of).await.unwrap().end;
        world.broker.trim(&of, end).await.unwrap();
    }
    let recorder = world.start(memory().1);
    recorder.complete(&world).await;
    let account = recorder.handle.account(None).await.unwrap();
    assert_eq!(account.partitions.len(), 3);
    assert_eq!(recorder.state(3).await, NotificationState::Pending);
}

#[tokio::test]
async fn a_second_recorder_on_the_same_directory_ends_with_an_error() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let backing = Backing::Disk(dir.path().join("eventlog"));
    let first = world.start(backing.clone());
    first.complete(&world).await;
    let mut second = world.start(backing);
    let ended = second.task.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(RunError::Open(OpenError::Locked(_)))), "{ended:?}");
    first.stop().await.unwrap();
}
