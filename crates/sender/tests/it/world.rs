//! A memory broker, scripted endpoints and webhooks for tests of the sender.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tidings_broker::{
    AppendBatch, Broker, Fault, Faults, LocalBroker, LocalConfig, NewRecord, ReadError, Retention,
    TopicSpec,
};
use tidings_delivery::{Standing, Suspended};
use tidings_egress::{AttemptReport, Identity, Policy, Request, Target};
use tidings_proto::{decode, encode, format_header, v1};
use tidings_sender::{
    Attempts, BucketKeys, Config, Deps, LiveSecret, Metrics, Owner, SecretTexts, Service, Signing,
    Webhook, Webhooks, WebhooksError, fixed_headers,
};
use tidings_signing::{KeyBook, KeyRing, SealKey, WebhookSecret, slot};
use tidings_testkit::{SeededRng, TokioClock};
use tidings_types::{
    AttemptCode, BoxFuture, Clock, NotificationId, Offset, Ordering, Sabotage, Slot, StuckKey,
    Timestamp, TopicName, TopicPartition, WebhookId, names,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// One request as the endpoint saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) webhook: WebhookId,
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) at: Duration,
    pub(crate) body: Bytes,
    pub(crate) headers: http::HeaderMap,
}

/// What the endpoint does with a call.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(u16),
    RetryAfter(u16, &'static str),
}

type Behave = dyn Fn(&Call) -> Answer + Send + Sync;

pub(crate) struct Script {
    pub(crate) calls: Mutex<Vec<Call>>,
    behave: Mutex<Arc<Behave>>,
    /// Until then no endpoint is found.
    lost_until: Mutex<Duration>,
    started: tokio::time::Instant,
    changed: tokio::sync::Notify,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    fn is_found(&self) -> bool {
        self.started.elapsed() >= *self.lost_until.lock()
    }
}

#[derive(Clone, Debug)]
struct Scripted(Arc<Script>);

impl Attempts for Scripted {
    fn attempt(&self, request: Request) -> BoxFuture<'static, AttemptReport> {
        let script = Arc::clone(&self.0);
        Box::pin(async move {
            let text = |name: &str| request.headers[name].to_str().unwrap().to_owned();
            let call = Call {
                webhook: request.webhook,
                id: text("webhook-id"),
                attempt: text("x-eds-attempt").parse().unwrap(),
                at: script.started.elapsed(),
                body: request.body.clone(),
                headers: request.headers.clone(),
            };
            let behave = Arc::clone(&script.behave.lock());
            let answer = behave(&call);
            script.calls.lock().push(call);
            script.changed.notify_waiters();
            tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(2)).await;
            if !script.is_found() {
                let lost = AttemptReport::without_answer(AttemptCode::DnsFailed);
                return AttemptReport { found: Some(false), ..lost };
            }
            let (status, retry_after) = match answer {
                Answer::Status(status) => (status, None),
                Answer::RetryAfter(status, value) => {
                    (status, Some(Bytes::from_static(value.as_bytes())))
                }
            };
            AttemptReport {
                code: if (200..300).contains(&status) {
                    AttemptCode::Delivered
                } else {
                    AttemptCode::Http
                },
                http_status: status,
                duration: Duration::from_millis(2),
                retry_after,
                location: None,
                snippet: Bytes::from_static(b"answer"),
                reused: false,
                written: true,
                found: Some(true),
                shown: None,
            }
        })
    }

    fn look(
        &self,
        _target: Arc<Target>,
        _identity: Option<Arc<Identity>>,
    ) -> BoxFuture<'static, Option<bool>> {
        let found = Some(self.0.is_found());
        Box::pin(async move { found })
    }

    fn forget(&self, _webhook: WebhookId) {}
}

#[derive(Debug)]
pub(crate) struct Hooks {
    webhooks: Mutex<BTreeMap<WebhookId, Arc<Webhook>>>,
    version: watch::Sender<u64>,
    pub(crate) told: Mutex<Vec<String>>,
    paused: Mutex<BTreeSet<String>>,
}

#[derive(Clone, Debug)]
struct HookList(Arc<Hooks>);

impl Webhooks for HookList {
    fn fold_to_end(&self) -> BoxFuture<'static, Result<(), WebhooksError>> {
        Box::pin(async { Ok(()) })
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    fn in_slot(&self, of: Slot) -> Vec<Arc<Webhook>> {
        self.0.webhooks.lock().values().filter(|w| slot(w.id) == of).cloned().collect()
    }

    fn paused_types(&self) -> BTreeSet<String> {
        self.0.paused.lock().clone()
    }

    fn suspend(
        &self,
        webhook: WebhookId,
        _version: u64,
        why: Suspended,
    ) -> BoxFuture<'static, Result<(), WebhooksError>> {
        self.0.told.lock().push(format!("suspend {}", why.reason));
        let webhooks = Arc::clone(&self.0);
        Box::pin(async move {
            webhooks.change(webhook, |w| {
                w.standing = Standing::Suspended;
                w.suspended = Some(why);
            });
            Ok(())
        })
    }

    fn topic_deleted(
        &self,
        webhook: WebhookId,
        _version: u64,
    ) -> BoxFuture<'static, Result<(), WebhooksError>> {
        self.0.told.lock().push("topic deleted".to_owned());
        let webhooks = Arc::clone(&self.0);
        Box::pin(async move {
            webhooks.webhooks.lock().remove(&webhook);
            webhooks.version.send_modify(|version| *version += 1);
            Ok(())
        })
    }
}

impl Hooks {
    pub(crate) fn change(&self, id: WebhookId, change: impl FnOnce(&mut Webhook)) {
        self.change_quietly(id, change);
        self.version.send_modify(|_version| {});
    }

    /// The change stands, and nobody has been told yet.
    pub(crate) fn change_quietly(&self, id: WebhookId, change: impl FnOnce(&mut Webhook)) {
        let mut webhooks = self.webhooks.lock();
        let mut webhook = webhooks[&id].as_ref().clone();
        change(&mut webhook);
        webhook.version += 1;
        webhooks.insert(id, Arc::new(webhook));
        drop(webhooks);
        self.version.send_if_modified(|version| {
            *version += 1;
            false
        });
    }
}

#[derive(Debug)]
struct NoBuckets;

impl BucketKeys for NoBuckets {
    fn fold_to_end(&self) -> BoxFuture<'static, bool> {
        Box::pin(async { true })
    }
}

/// What reads of delivery partitions come to instead, first one first.
#[derive(Debug, Default)]
pub(crate) struct BadReads(Mutex<VecDeque<ReadError>>);

impl BadReads {
    pub(crate) fn plant(&self, errors: impl IntoIterator<Item = ReadError>) {
        self.0.lock().extend(errors);
    }

    /// How many are still to come.
    pub(crate) fn left(&self) -> usize {
        self.0.lock().len()
    }
}

impl Faults for BadReads {
    fn on_append(&self, _to: &TopicPartition, _records: usize) -> Option<Fault> {
        None
    }

    fn on_read(&self, of: &TopicPartition, offset: Option<Offset>) -> Option<ReadError> {
        let is_asked = offset.is_some() && of.topic.as_str().starts_with(names::DELIVERY_PREFIX);
        if is_asked { self.0.lock().pop_front() } else { None }
    }
}

/// Everything around the senders.
pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) reads: Arc<BadReads>,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) script: Arc<Script>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) config: Config,
    pub(crate) sabotage: Sabotage,
    ring: KeyRing,
    pub(crate) senders: JoinSet<()>,
}

pub(crate) fn hook_id(n: u8) -> WebhookId {
    WebhookId::from_bytes([n; 16])
}

pub(crate) fn notification(n: u32) -> NotificationId {
    let mut digest = [7; 16];
    digest[8..12].copy_from_slice(&n.to_be_bytes());
    NotificationId::from_digest(digest)
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(TokioClock::new(Timestamp::from_secs(1_750_000_000)));
        let reads = Arc::<BadReads>::default();
        let memory = LocalBroker::memory(
            LocalConfig::default(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            &mut Registry::default(),
            Some(Arc::<BadReads>::clone(&reads)),
        );
        let broker = Broker::Local(memory.unwrap());
        let ops = names::events("ops");
        let topics = [(names::SLOTS, 128), (names::OUTCOMES, 16), (ops.as_str(), 3)];
        for (name, partitions) in topics {
            let spec = TopicSpec {
                name: TopicName::new(name),
                partitions,
                retention: Retention::Forever,
                erase_buckets: None,
            };
            broker.create_topic(spec).await.unwrap();
        }
        let (version, _) = watch::channel(0);
        let mut config = Config { trim_records: 1, ..Config::default() };
        config.ladders.define(
            "test",
            tidings_delivery::Ladder::new(
                [0, 100, 200, 400, 1000].map(Duration::from_millis).to_vec(),
            )
            .unwrap(),
        );
        Self {
            broker,
            reads,
            clock,
            script: Arc::new(Script {
                calls: Mutex::default(),
                behave: Mutex::new(Arc::new(|_| Answer::Status(200))),
                lost_until: Mutex::default(),
                started: tokio::time::Instant::now(),
                changed: tokio::sync::Notify::new(),
            }),
            hooks: Arc::new(Hooks {
                webhooks: Mutex::default(),
                version,
                told: Mutex::default(),
                paused: Mutex::default(),
            }),
            config,
            sabotage: Sabotage::None,
            ring: KeyRing::generate(&[3; 32]),
            senders: JoinSet::new(),
        }
    }

    pub(crate) fn behave(&self, behave: impl Fn(&Call) -> Answer + Send + Sync + 'static) {
        *self.script.behave.lock() = Arc::new(behave);
    }

    /// Registers a webhook and makes its topic.
    pub(crate) async fn webhook(&self, id: WebhookId) {
        let spec = TopicSpec {
            name: names::delivery(id),
            partitions: 1,
            retention: Retention::Forever,
            erase_buckets: None,
        };
        self.broker.create_topic(spec).await.unwrap();
        let policy = Policy::dev();
        let webhook = Webhook {
            id,
            version: 1,
            standing: Standing::Active,
            suspended: None,
            deleted: None,
            owner: Owner::ProgrammeManager(20),
            target: Ok(Arc::new(Target::parse("http://127.0.0.1:9/hook", &policy).unwrap())),
            identity: None,
            sign_in: None,
            sign_in_secret: None,
            headers: fixed_headers("Tidings/test", [], None),
            timeout: Duration::from_secs(15),
            max_in_flight: 64,
            ladder: "test".to_owned(),
            rate_per_second: 0,
            ordering: Ordering::None,
            stuck_key: StuckKey::Wait,
            partitions: 1,
            signing: Signing::Standard(vec![LiveSecret {
                secret: WebhookSecret::from_bytes(&[1; 32]),
                signs_v1: true,
                asymmetric: None,
                not_after: None,
            }]),
            secret_texts: SecretTexts::default(),
        };
        self.hooks.webhooks.lock().insert(id, Arc::new(webhook));
        self.hooks.version.send_modify(|version| *version += 1);
    }

    /// The same, of a programme manager.
    pub(crate) async fn webhook_of(&self, id: WebhookId, manager: u32) {
        self.webhook(id).await;
        let mut webhooks = self.hooks.webhooks.lock();
        let webhook = Webhook::clone(&webhooks[&id]);
        let owner = Owner::ProgrammeManager(manager.into());
        webhooks.insert(id, Arc::new(Webhook { owner, ..webhook }));
    }

    /// Until then no endpoint is found.
    pub(crate) fn lose_until(&self, until: Duration) {
        *self.script.lost_until.lock() = until;
    }

    /// A first delivery to a programme manager's webhook.
    pub(crate) fn owned(&self, n: u32, manager: u32) -> NewRecord {
        let record = self.record_of(n, &[0; 16], 0, "");
        let mut delivery: v1::DeliveryRecord = decode(record.value.clone().unwrap()).unwrap();
        delivery.tenant = format!("pm:{manager}");
        NewRecord { value: Some(encode(&delivery)), ..record }
    }

    /// Stops these event types, and lets all others go on.
    pub(crate) fn pause_types(&self, types: &[&str]) {
        *self.hooks.paused.lock() = types.iter().map(|name| (*name).to_owned()).collect();
        self.hooks.version.send_modify(|version| *version += 1);
    }

    /// A first delivery of an event type.
    pub(crate) fn typed(&self, n: u32, event_type: &str, deadline: i64) -> NewRecord {
        let record = self.record_of(n, &[0; 16], deadline, "");
        let mut delivery: v1::DeliveryRecord = decode(record.value.clone().unwrap()).unwrap();
        event_type.clone_into(&mut delivery.event_type);
        NewRecord { value: Some(encode(&delivery)), ..record }
    }

    pub(crate) fn record(&self, n: u32, run: &[u8], deadline: i64) -> NewRecord {
        self.record_of(n, run, deadline, "")
    }

    /// A first delivery with an order key.
    pub(crate) fn keyed(&self, n: u32, key: &str) -> NewRecord {
        self.record_of(n, &[0; 16], 0, key)
    }

    fn record_of(&self, n: u32, run: &[u8], deadline: i64, key: &str) -> NewRecord {
        let uid = [u8::try_from(n % 251).unwrap(); 32];
        let mut aad = b"body".to_vec();
        aad.extend_from_slice(&uid);
        aad.push(1);
        let plain = format!("{{\"id\":\"{}\",\"n\":{n}}}", "_".repeat(36));
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        let order_key = key.to_owned();
        let key = SealKey::Body { issuer: "7001", at: self.clock.now() };
        let sealed = self.ring.seal(&key, &aad, plain.as_bytes(), nonce);
        let record = v1::DeliveryRecord {
            notification: Bytes::copy_from_slice(notification(n).as_bytes()),
            run: Bytes::copy_from_slice(run),
            uid: Bytes::copy_from_slice(&uid),
            event_type: "104".to_owned(),
            tenant: "pm:20".to_owned(),
            issuer: "7001".to_owned(),
            deadline,
            order_key,
            body: Some(v1::Body {
                sealed: Some(v1::Sealed {
                    key: sealed.key,
                    nonce: Bytes::copy_from_slice(&sealed.nonce),
                    data: sealed.data.into(),
                }),
                hole: Some(7),
                payload_start: 0,
                payload_len: 0,
                shape: 1,
            }),
            ..v1::DeliveryRecord::default()
        };
        NewRecord {
            key: None,
            headers: vec![format_header()],
            value: Some(encode(&record)),
            timestamp: None,
        }
    }

    /// Appends first deliveries of notifications.
    pub(crate) async fn deliver(&self, to: WebhookId, numbers: impl IntoIterator<Item = u32>) {
        let records = numbers.into_iter().map(|n| self.record(n, &[0; 16], 0)).collect();
        self.append(to, records).await;
    }

    pub(crate) async fn append(&self, to: WebhookId, records: Vec<NewRecord>) {
        let to = TopicPartition::new(names::delivery(to), 0);
        for result in self.broker.append(vec![AppendBatch { to, records }]).await {
            result.unwrap();
        }
    }

    /// Starts a sender; cancelling drains it.
    pub(crate) fn sender(&mut self, seed: u64) -> (CancellationToken, tokio::task::AbortHandle) {
        let deps = Deps {
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            rng: Arc::new(SeededRng::new(seed)),
            webhooks: Arc::new(HookList(Arc::clone(&self.hooks))),
            attempts: Arc::new(Scripted(Arc::clone(&self.script))),
            keys: KeyBook::new(self.ring.clone()),
            bucket_keys: Arc::new(NoBuckets),
            failpoints: None,
            sabotage: self.sabotage,
            metrics: Metrics::register(&mut Registry::default()),
        };
        let service = Service::build(self.config.clone(), deps);
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let abort = self.senders.spawn(async move { service.run(token).await.unwrap() });
        (shutdown, abort)
    }

    /// Waits (in paused time) until the condition on the calls holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&[Call]) -> bool) {
        let limit = Duration::from_secs(3600);
        let wait = async {
            loop {
                let notified = self.script.changed.notified();
                if holds(&self.script.calls.lock()) {
                    return;
                }
                notified.await;
            }
        };
        if tokio::time::timeout(limit, wait).await.is_err() {
            panic!("never: {what}; calls: {:?}", self.script.calls.lock().len());
        }
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.script.calls.lock().clone()
    }

    /// All facts in the log, by partition order.
    pub(crate) async fn facts(&self) -> Vec<v1::Outcome> {
        let mut facts = Vec::new();
        for partition in 0..16 {
            let of = TopicPartition::new(names::OUTCOMES, partition);
            let mut next = 0;
            loop {
                let read = self.broker.read(&of, next, 1 << 20).await.unwrap();
                let Some(last) = read.last() else { break };
                next = last.offset + 1;
                for record in &read {
                    let batch: v1::OutcomeBatch = decode(record.value.clone().unwrap()).unwrap();
                    facts.extend(batch.outcomes);
                }
            }
        }
        facts
    }

    /// The platform's own events: their ids and bytes, by partition.
    pub(crate) async fn operational(&self) -> Vec<(Bytes, Bytes)> {
        let mut events = Vec::new();
        for partition in 0..3 {
            let of = TopicPartition::new(names::events("ops"), partition);
            let read = self.broker.read(&of, 0, 1 << 20).await.unwrap();
            events.extend(read.into_iter().map(|record| {
                let id = record.headers.iter().find(|(name, _)| &**name == "tidings-event-id");
                (id.unwrap().1.clone(), record.value.unwrap())
            }));
        }
        events
    }

    /// Waits (in paused time) until there are so many of them.
    pub(crate) async fn until_operational(&self, count: usize) -> Vec<(Bytes, Bytes)> {
        for _ in 0..3_600_000 {
            let events = self.operational().await;
            if events.len() >= count {
                return events;
            }
            self.pass(Duration::from_millis(1)).await;
        }
        panic!("never {count} operational events: {:?}", self.operational().await);
    }

    /// Kinds of the facts about one notification, in log order.
    pub(crate) async fn kinds(&self, n: u32) -> Vec<v1::OutcomeKind> {
        let id = notification(n);
        let facts = self.facts().await;
        facts
            .iter()
            .filter(|fact| fact.notification.as_ref() == id.as_bytes())
            .map(|fact| fact.kind())
            .collect()
    }
}
