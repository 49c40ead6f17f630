//! Hand-made topics: routed and outcome records as routers, senders and the api
//! write them, and a view that reads them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tidings_eventlog::{
    Account, Backing, Batch, EventLog, Limits, MemoryDisk, Metrics, Opened, Record, Source, Status,
    Writer,
};
use tidings_proto::{encode, v1};
use tidings_types::{
    BoxFuture, Clock, EventUid, Instant, NotificationId, Offset, RunId, Timestamp, TopicPartition,
    WebhookId,
};

/// A time that tests set.
#[derive(Debug)]
pub(crate) struct SetClock(pub(crate) AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Instant {
        Instant::ZERO
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The time at which the topics begin.
pub(crate) const START: i64 = 1_700_000_000_000;

pub(crate) fn webhook(n: u8) -> WebhookId {
    WebhookId::from_bytes([n; 16])
}

/// Spreads ids as an HMAC would.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

pub(crate) fn uid(event: u64) -> EventUid {
    let mut bytes = [0; 32];
    for (n, part) in (0..).zip(bytes.chunks_exact_mut(8)) {
        part.copy_from_slice(&mixed(event.wrapping_mul(4) + n).to_le_bytes());
    }
    EventUid(bytes)
}

/// The ids of an event begin alike; those of every fifth do not, as those of a release
/// that made them otherwise.
pub(crate) fn id(event: u64, webhook: u8) -> NotificationId {
    let n = mixed(event.wrapping_mul(256) + u64::from(webhook) + 7);
    let mut bytes = [0; 16];
    let of_event = if event % 5 == 4 { n } else { mixed(event.wrapping_mul(256)) };
    bytes[..8].copy_from_slice(&of_event.to_le_bytes());
    bytes[8..].copy_from_slice(&mixed(n).to_le_bytes());
    NotificationId::from_digest(bytes)
}

pub(crate) fn source(partition: u32) -> TopicPartition {
    TopicPartition::new("tidings.events.104", partition)
}

/// What the two topics hold, by partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topics {
    pub(crate) routed: BTreeMap<u32, Vec<Record>>,
    pub(crate) outcomes: BTreeMap<u32, Vec<Record>>,
    tooks: BTreeMap<u32, u64>,
    /// The next offset of each source partition.
    pub(crate) committed: BTreeMap<TopicPartition, Offset>,
}

/// An event to route.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) event: u64,
    pub(crate) event_type: &'static str,
    pub(crate) webhooks: Vec<u8>,
    pub(crate) time: i64,
    pub(crate) body: usize,
    pub(crate) suspended: bool,
}

impl Event {
    pub(crate) fn new(event: u64, webhooks: &[u8]) -> Self {
        Self {
            event,
            event_type: "104",
            webhooks: webhooks.to_vec(),
            time: START + i64::try_from(event).unwrap(),
            body: 40,
            suspended: false,
        }
    }

    pub(crate) fn at(self, time: i64) -> Self {
        Self { time, ..self }
    }
}

pub(crate) fn body(event: u64, len: usize) -> v1::Body {
    let data: Vec<u8> =
        (0..len).map(|n| mixed(event + n as u64 / 8).to_le_bytes()[n % 8]).collect();
    v1::Body {
        sealed: Some(v1::Sealed {
            key: "k1/body/7001/2023-11".into(),
            nonce: Bytes::from_static(&[1; 12]),
            data: data.into(),
        }),
        hole: Some(3),
        payload_start: 5,
        payload_len: 7,
        shape: v1::Shape::Plain.into(),
    }
}

fn push(records: &mut Vec<Record>, time: i64, value: Bytes) -> Offset {
    let offset = records.len() as u64;
    let time = Timestamp::from_millis(time);
    records.push(Record { offset, time, known_format: true, value: Some(value) });
    offset
}

impl Topics {
    pub(crate) fn took(&mut self, partition: u32) -> u64 {
        let record = v1::RoutedRecord {
            took: 0,
            kind: Some(v1::routed_record::Kind::TookOver(v1::Took::default())),
        };
        let offset = push(self.routed.entry(partition).or_default(), START, encode(&record));
        self.tooks.insert(partition, offset);
        offset
    }

    /// Appends a decision on the next record of the source partition of the same
    /// number.
    pub(crate) fn decide(&mut self, partition: u32, what: v1::decision::What, time: i64) {
        let took = match self.tooks.get(&partition) {
            Some(took) => *took,
            None => self.took(partition),
        };
        self.decide_as(partition, took, what, time);
    }

    /// The same by an owner of the caller's choice. A void one is decided again.
    pub(crate) fn decide_as(
        &mut self,
        partition: u32,
        took: u64,
        what: v1::decision::What,
        time: i64,
    ) {
        let void = self.tooks.get(&partition).is_some_and(|latest| took < *latest);
        let next = self.committed.entry(source(partition)).or_default();
        let skipped = u64::from(*next % 5 == 3);
        let decision = v1::Decision {
            source: Some(v1::Source {
                topic: source(partition).topic.to_string(),
                partition,
                offset: *next + skipped,
            }),
            skipped,
            registry_version: 1,
            time,
            traceparent: "00-t".into(),
            what: Some(what),
        };
        if !void {
            *next += skipped + 1;
        }
        let record =
            v1::RoutedRecord { took, kind: Some(v1::routed_record::Kind::Decision(decision)) };
        push(self.routed.entry(partition).or_default(), time, encode(&record));
    }

    pub(crate) fn route(&mut self, partition: u32, event: &Event) {
        let time = event.time;
        self.decide(partition, routed(event), time);
    }

    pub(crate) fn filter(&mut self, partition: u32, reason: &str) {
        let what = v1::Filtered { reason: reason.into(), ..Default::default() };
        self.decide(partition, v1::decision::What::Filtered(what), START);
    }

    pub(crate) fn outcomes(&mut self, partition: u32, took: Option<u64>, facts: Vec<v1::Outcome>) {
        let time = facts.last().map_or(START, |fact| fact.time);
        let writer = if took.is_some() { v1::Writer::Sender } else { v1::Writer::Api };
        let batch =
            v1::OutcomeBatch { slot: partition, took, writer: writer.into(), outcomes: facts };
        push(self.outcomes.entry(partition).or_default(), time, encode(&batch));
    }

    /// All partitions, each whole.
    pub(crate) fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        for (partition, records) in &self.routed {
            batch.push(Source::Routed, *partition, records.clone());
        }
        for (partition, records) in &self.outcomes {
            batch.push(Source::Outcomes, *partition, records.clone());
        }
        batch
    }
}

pub(crate) fn routed(event: &Event) -> v1::decision::What {
    let targets = event.webhooks.iter().map(|n| v1::RoutedTarget {
        webhook: Bytes::copy_from_slice(webhook(*n).as_bytes()),
        notification: Bytes::copy_from_slice(id(event.event, *n).as_bytes()),
        shape: v1::Shape::Plain.into(),
        suspended: event.suspended,
    });
    v1::decision::What::Routed(v1::Routed {
        uid: Bytes::copy_from_slice(&uid(event.event).0),
        event_type: event.event_type.into(),
        tenant: "pm:20".into(),
        issuer: "7001".into(),
        producer_id: format!("p{}", event.event),
        order_key: "tok".into(),
        bodies: vec![body(event.event, event.body)],
        targets: targets.collect(),
        ..Default::default()
    })
}

/// A fact about a notification's first run.
pub(crate) fn fact(event: u64, to: u8, kind: v1::OutcomeKind, time: i64) -> v1::Outcome {
    let said = [
        (v1::OutcomeKind::Delivered, ("DELIVERED", 1)),
        (v1::OutcomeKind::AttemptFailed, ("HTTP_503", 1)),
        (v1::OutcomeKind::Undelivered, ("HTTP_500", 3)),
    ];
    let found = said.into_iter().find(|(of, _)| *of == kind);
    let (code, attempt) = found.map_or(("", 0), |(_, said)| said);
    let reason = if kind == v1::OutcomeKind::Undelivered { "exhausted" } else { "" };
    v1::Outcome {
        webhook: Bytes::copy_from_slice(webhook(to).as_bytes()),
        notification: Bytes::copy_from_slice(id(event, to).as_bytes()),
        run: Bytes::copy_from_slice(RunId::FIRST.as_bytes()),
        partition: Some(0),
        offset: Some(event),
        kind: kind.into(),
        reason: reason.into(),
        time,
        attempt,
        code: code.into(),
        ..Default::default()
    }
}

/// A view and what it is kept in.
pub(crate) struct Fixture {
    pub(crate) log: EventLog,
    pub(crate) writer: Writer,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<SetClock>,
    pub(crate) opened: Opened,
}

pub(crate) async fn open(backing: Backing, limits: Limits) -> Fixture {
    let clock = Arc::new(SetClock(AtomicI64::new(START + 1_000_000)));
    let metrics = Metrics::register(&mut Registry::default());
    let (log, mut writer) =
        EventLog::new(backing, limits, Arc::clone(&clock) as Arc<dyn Clock>, metrics.clone());
    let opened = writer.open().await.unwrap();
    let as_of = Timestamp::from_millis(i64::MAX / 2);
    writer.set_status(Status { complete: true, progress: 1.0, as_of });
    Fixture { log, writer, metrics, clock, opened }
}

pub(crate) async fn memory() -> Fixture {
    open(Backing::Memory(MemoryDisk::default()), Limits::default()).await
}

impl Fixture {
    pub(crate) async fn read(&mut self, topics: &Topics) {
        self.writer.apply(topics.batch()).await.unwrap();
    }

    pub(crate) async fn account(&self, topics: &Topics) -> Account {
        self.log.account(&topics.committed).await.unwrap()
    }
}
