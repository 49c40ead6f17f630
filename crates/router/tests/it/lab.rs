//! A broker, a registry and routers for a test, and short ways to say things.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use prometheus_client::registry::Registry as MetricsRegistry;
use tidings_broker::{
    AppendBatch, Broker, Fault, Faults, Header, LocalBroker, LocalConfig, NewRecord, ReadError,
    Record, Retention, TopicSpec,
};
use tidings_catalogue::Catalogue;
use tidings_delivery::TookOrder;
use tidings_proto::{decode, v1};
use tidings_registry::{
    Change, EntityKey, HookSettings, HookSignature, Issuer, KeysTopic, Merchant, Product,
    ProgrammeManager, Registry, State, Webhook,
};
use tidings_router::{Config, Deps, Failpoints, Handle, Metrics, RunError, Service};
use tidings_signing::{KeyBook, KeyRing, Sealed, slot};
use tidings_testkit::{SeededRng, TokioClock};
use tidings_types::{
    Clock, EventUid, HookOwner, IssuerId, MerchantKey, NotificationId, OUTCOME_PARTITIONS, Offset,
    Partition, PmId, ProductId, ROUTED_PARTITIONS, Rng, Sabotage, Scope, Shape, Timestamp,
    TopicName, TopicPartition, WebhookId, WebhookStatus, body_aad, names,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const PM: i64 = 20;
pub(crate) const OTHER_PM: i64 = 30;

pub(crate) struct Lab {
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) broker: Broker,
    pub(crate) registry: Registry,
    pub(crate) ring: KeyRing,
    pub(crate) keys: KeysTopic,
    pub(crate) catalogue: Catalogue,
    pub(crate) metrics: Metrics,
    rng: Arc<dyn Rng>,
    _tasks: JoinSet<()>,
}

/// A router that runs.
pub(crate) struct Router {
    pub(crate) handle: Handle,
    shutdown: CancellationToken,
    tasks: JoinSet<Result<(), RunError>>,
}

impl Router {
    /// Ends it as a crash would.
    pub(crate) async fn crash(mut self) {
        self.tasks.shutdown().await;
        // Its owners are told when they are polled next.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        assert_eq!(self.tasks.join_next().await.unwrap().unwrap(), Ok(()));
    }
}

/// What a broker answers about one event topic's partition while it is planted.
#[derive(Debug, Default)]
pub(crate) struct BadSource(parking_lot::Mutex<Option<(TopicPartition, ReadError)>>);

impl BadSource {
    pub(crate) fn plant(&self, source: &TopicPartition, error: ReadError) {
        *self.0.lock() = Some((source.clone(), error));
    }

    pub(crate) fn mend(&self) {
        *self.0.lock() = None;
    }
}

impl Faults for BadSource {
    fn on_append(&self, _to: &TopicPartition, _records: usize) -> Option<Fault> {
        None
    }

    fn on_read(&self, of: &TopicPartition, _offset: Option<Offset>) -> Option<ReadError> {
        let planted = self.0.lock();
        planted.as_ref().filter(|(source, _)| source == of).map(|(_, error)| error.clone())
    }
}

/// Settings of a test: small pieces, so that a few records make several.
pub(crate) fn config() -> Config {
    Config { append_bytes: 4 << 10, ..Config::default() }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::with(Catalogue::builtin(), None).await
    }

    pub(crate) async fn with(catalogue: Catalogue, faults: Option<Arc<dyn Faults>>) -> Self {
        let clock = Arc::new(TokioClock::new(Timestamp::from_secs(1_730_214_990)));
        let as_dyn: Arc<dyn Clock> = Arc::<TokioClock>::clone(&clock);
        let rng: Arc<dyn Rng> = Arc::new(SeededRng::new(7));
        let config = LocalConfig { sync_delay: Duration::from_millis(1), ..LocalConfig::default() };
        let local = LocalBroker::memory(
            config,
            Arc::clone(&as_dyn),
            &mut MetricsRegistry::default(),
            faults,
        );
        let broker = Broker::Local(local.unwrap());
        let ring = KeyRing::generate(&[7; 32]);
        for (name, partitions) in [(names::KEYS, 1), (names::OUTCOMES, OUTCOME_PARTITIONS)] {
            create(&broker, TopicName::new(name), partitions).await;
        }
        let book = KeyBook::new(ring.clone());
        let retention = Duration::from_secs(6 * 3600);
        let keys =
            KeysTopic::new(broker.clone(), book, Arc::clone(&as_dyn), Arc::clone(&rng), retention);
        let (registry, task) = start_registry(&broker, &ring, &as_dyn, &rng).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { task.run(CancellationToken::new()).await.unwrap() });
        let metrics = Metrics::register(&mut MetricsRegistry::default());
        let lab =
            Self { clock, broker, registry, ring, keys, catalogue, metrics, rng, _tasks: tasks };
        lab.tenants().await;
        lab
    }

    /// The same world, whose next router knows other event types.
    pub(crate) fn knowing(self, catalogue: Catalogue) -> Self {
        Self { catalogue, ..self }
    }

    async fn tenants(&self) {
        let issuer = IssuerId(Arc::from("7001"));
        let name = String::new;
        self.change("issuer/7001", State::Issuer(Issuer { id: issuer.clone(), name: name() }))
            .await;
        for (id, code) in [(PM, "TRD"), (OTHER_PM, "OTH")] {
            let (id, code, issuer) = (PmId(id), code.to_owned(), issuer.clone());
            let pm = ProgrammeManager { id, code, issuer, name: name() };
            self.change(&format!("pm/{id}"), State::ProgrammeManager(pm)).await;
        }
        for (id, pm) in [("124", PM), ("999", OTHER_PM)] {
            let product = Product { id: ProductId(Arc::from(id)), programme_manager: PmId(pm) };
            self.change(&format!("product/{id}"), State::Product(product)).await;
        }
        let key = MerchantKey(Arc::from("m_9f2"));
        let merchant = Merchant { key, programme_manager: PmId(PM), source_keys: Vec::new() };
        self.change("merchant/m_9f2", State::Merchant(merchant)).await;
    }

    pub(crate) async fn change(&self, entity: &str, state: State) {
        let entity = EntityKey(Arc::from(entity));
        let change = Change {
            expected_version: self.registry.snapshot().entity_version(&entity),
            entity,
            claims: Vec::new(),
            command: None,
            actor: "test".to_owned(),
            trace: String::new(),
            state,
        };
        self.registry.propose(change).await.unwrap();
    }

    /// A webhook of a programme manager, with its topic.
    pub(crate) async fn webhook(&self, number: u8, pm: i64, events: &[&str]) -> WebhookId {
        let owner = HookOwner::Client(Scope::ProgrammeManager(PmId(pm)));
        self.hook(number, owner, events, |_| {}).await
    }

    pub(crate) async fn hook(
        &self,
        number: u8,
        owner: HookOwner,
        events: &[&str],
        adjust: impl FnOnce(&mut Webhook),
    ) -> WebhookId {
        let id = WebhookId::from_random([number; 16]);
        create(&self.broker, names::delivery(id), 2).await;
        let mut webhook = Webhook {
            id,
            slot: slot(id),
            version: 0,
            owner,
            product: None,
            events: events.iter().map(|name| Arc::from(*name)).collect(),
            status: WebhookStatus::Active,
            url: "https://hooks.example.com/".to_owned(),
            headers: Vec::new(),
            signing_secrets: Vec::new(),
            settings: HookSettings::default(),
            created: self.clock.now(),
            modified: self.clock.now(),
            label: String::new(),
            basic: None,
            oauth: None,
            tls: None,
            signature: HookSignature::None,
            wire_names: false,
            partitions: 2,
            suspension: None,
        };
        adjust(&mut webhook);
        self.change(&format!("webhook/{id}"), State::Webhook(Box::new(webhook))).await;
        id
    }

    /// Changes a webhook that there is.
    pub(crate) async fn adjust(&self, id: WebhookId, adjust: impl FnOnce(&mut Webhook)) {
        let mut webhook = Webhook::clone(&self.registry.snapshot().webhooks[&id]);
        adjust(&mut webhook);
        self.change(&format!("webhook/{id}"), State::Webhook(Box::new(webhook))).await;
    }

    pub(crate) async fn delete(&self, id: WebhookId) {
        let state = State::Deleted { topic_deleted: false, at: self.clock.now() };
        self.change(&format!("webhook/{id}"), state).await;
    }

    pub(crate) fn router(&self) -> Router {
        self.router_with(config(), Failpoints::default(), Sabotage::None)
    }

    pub(crate) fn router_with(
        &self,
        config: Config,
        failpoints: Failpoints,
        sabotage: Sabotage,
    ) -> Router {
        let deps = Deps {
            broker: self.broker.clone(),
            clock: Arc::<TokioClock>::clone(&self.clock),
            rng: Arc::clone(&self.rng),
            registry: self.registry.clone(),
            keyring: self.ring.clone(),
            keys: self.keys.clone(),
            catalogue: self.catalogue.clone(),
            metrics: self.metrics.clone(),
            sabotage,
            failpoints,
        };
        let service = Service::build(config, deps);
        let handle = service.handle();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(service.run(shutdown.clone()));
        Router { handle, shutdown, tasks }
    }

    /// A sample event of a type, as its producer writes it.
    pub(crate) fn sample(&self, kind: &str, seed: u64) -> Bytes {
        let kind = self.catalogue.get(kind).unwrap();
        Bytes::from(kind.sample(self.clock.now(), seed, PM, "m_9f2"))
    }

    /// Makes the event topics, as a router does at its start.
    pub(crate) async fn event_topics(&self) {
        for spec in tidings_router::topics(&self.catalogue, &config().retention) {
            // A router may have made it already.
            self.broker.create_topic(spec).await.unwrap_or_default();
        }
    }

    pub(crate) async fn publish(&self, kind: &str, partition: Partition, value: Bytes) -> Offset {
        self.publish_with(kind, partition, Some(value), Vec::new()).await
    }

    pub(crate) async fn publish_with(
        &self,
        kind: &str,
        partition: Partition,
        value: Option<Bytes>,
        headers: Vec<Header>,
    ) -> Offset {
        let to = TopicPartition::new(names::events(kind), partition);
        let record = NewRecord { value, headers, ..NewRecord::default() };
        let batch = AppendBatch { to, records: vec![record] };
        let appended = self.broker.append(vec![batch]).await.remove(0);
        appended.unwrap().first().unwrap()
    }

    /// Waits until the router has committed a source partition up to its end.
    pub(crate) async fn routed_to_end(&self, kind: &str, partition: Partition) {
        let of = TopicPartition::new(names::events(kind), partition);
        let end = self.broker.ends(&of).await.unwrap().end;
        self.wait_for(async || {
            let committed =
                self.broker.committed("tidings-router", std::slice::from_ref(&of)).await.unwrap();
            committed[0].as_ref().is_some_and(|committed| committed.next >= end)
        })
        .await;
    }

    pub(crate) async fn wait_for(&self, mut done: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !done().await {
                self.clock.sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), waiting).await.unwrap();
    }

    /// Everything in a partition.
    pub(crate) async fn all(&self, of: &TopicPartition) -> Vec<Record> {
        let ends = self.broker.ends(of).await.unwrap();
        let mut records: Vec<Record> = Vec::new();
        let mut at = ends.first;
        while at < ends.end {
            records.extend(self.broker.read(of, at, 1 << 20).await.unwrap());
            at = records.last().unwrap().offset + 1;
        }
        records
    }

    pub(crate) async fn deliveries(
        &self,
        webhook: WebhookId,
        lane: u32,
    ) -> Vec<v1::DeliveryRecord> {
        let of = TopicPartition { topic: names::delivery(webhook), partition: lane };
        let records = self.all(&of).await;
        records.into_iter().map(|record| decode(record.value.unwrap()).unwrap()).collect()
    }

    pub(crate) async fn outcomes(&self) -> Vec<v1::Outcome> {
        let mut outcomes = Vec::new();
        for partition in 0..OUTCOME_PARTITIONS {
            for record in self.all(&TopicPartition::new(names::OUTCOMES, partition)).await {
                let batch: v1::OutcomeBatch = decode(record.value.unwrap()).unwrap();
                assert_eq!(batch.writer(), v1::Writer::Router);
                assert_eq!(batch.took, None);
                assert_eq!(batch.slot % OUTCOME_PARTITIONS, partition);
                outcomes.extend(batch.outcomes);
            }
        }
        outcomes
    }

    pub(crate) async fn quarantined(&self) -> Vec<v1::QuarantineRecord> {
        let records = self.all(&TopicPartition::new(names::QUARANTINE, 0)).await;
        records.into_iter().map(|record| decode(record.value.unwrap()).unwrap()).collect()
    }

    /// The decisions that count, by source. Two for one source are kept.
    pub(crate) async fn decisions(&self) -> BTreeMap<(String, u32, u64), Vec<v1::Decision>> {
        let mut decisions: BTreeMap<_, Vec<v1::Decision>> = BTreeMap::new();
        for partition in 0..ROUTED_PARTITIONS {
            let mut order = TookOrder::default();
            for record in self.all(&TopicPartition::new(names::ROUTED, partition)).await {
                let routed: v1::RoutedRecord = decode(record.value.unwrap()).unwrap();
                match routed.kind.unwrap() {
                    v1::routed_record::Kind::TookOver(_) => order.took(record.offset),
                    v1::routed_record::Kind::Decision(decision) => {
                        if order.counts(routed.took) {
                            let source = decision.source.clone().unwrap();
                            let place = (source.topic, source.partition, source.offset);
                            decisions.entry(place).or_default().push(decision);
                        }
                    }
                }
            }
        }
        decisions
    }

    /// The one decision on a source record.
    pub(crate) async fn decision(&self, kind: &str, partition: u32, offset: u64) -> v1::Decision {
        let mut all = self.decisions().await;
        let place = (names::events(kind).to_string(), partition, offset);
        let mut found = all.remove(&place).unwrap_or_else(|| panic!("{place:?} is not decided"));
        assert_eq!(found.len(), 1, "{place:?} is decided more than once");
        found.remove(0)
    }

    /// The record in which a source record is decided, and its partition.
    pub(crate) async fn routed_record(
        &self,
        kind: &str,
        partition: u32,
        offset: u64,
    ) -> (TopicPartition, Record) {
        let wanted = (names::events(kind).to_string(), partition, offset);
        for number in 0..ROUTED_PARTITIONS {
            let place = TopicPartition::new(names::ROUTED, number);
            for record in self.all(&place).await {
                let routed: v1::RoutedRecord = decode(record.value.clone().unwrap()).unwrap();
                if let Some(v1::routed_record::Kind::Decision(decision)) = routed.kind
                    && let Some(source) = decision.source
                    && (source.topic, source.partition, source.offset) == wanted
                {
                    return (place, record);
                }
            }
        }
        panic!("{wanted:?} is not decided")
    }

    /// Opens a body.
    pub(crate) async fn open(&self, uid: &[u8], body: &v1::Body) -> Vec<u8> {
        let sealed = sealed(body.sealed.as_ref().unwrap());
        let shape = Shape::from(body.shape());
        let aad = body_aad(EventUid::from_slice(uid).unwrap(), shape);
        self.keys.open(&sealed, &aad).await.unwrap()
    }
}

async fn start_registry(
    broker: &Broker,
    ring: &KeyRing,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> (Registry, tidings_registry::RegistryTask) {
    Registry::start(broker.clone(), ring.clone(), Arc::clone(clock), Arc::clone(rng)).await.unwrap()
}

pub(crate) fn sealed(proto: &v1::Sealed) -> Sealed {
    Sealed {
        key: proto.key.clone(),
        nonce: proto.nonce.as_ref().try_into().unwrap(),
        data: proto.data.to_vec(),
    }
}

pub(crate) async fn create(broker: &Broker, name: TopicName, partitions: u32) {
    let spec = TopicSpec { name, partitions, retention: Retention::Forever, erase_buckets: None };
    broker.create_topic(spec).await.unwrap();
}

pub(crate) fn routed(decision: &v1::Decision) -> &v1::Routed {
    let Some(v1::decision::What::Routed(routed)) = &decision.what else {
        panic!("not routed: {decision:?}");
    };
    routed
}

/// `routed`, `filtered product`, `quarantined BAD_JSON`.
pub(crate) fn verdict(decision: &v1::Decision) -> String {
    match decision.what.as_ref().unwrap() {
        v1::decision::What::Routed(_) => "routed".to_owned(),
        v1::decision::What::Filtered(it) => format!("filtered {}", it.reason),
        v1::decision::What::Quarantined(it) => format!("quarantined {}", it.code),
    }
}

/// The webhooks that a decision names.
pub(crate) fn targets(decision: &v1::Decision) -> BTreeSet<WebhookId> {
    let targets = &routed(decision).targets;
    targets.iter().map(|target| WebhookId::from_slice(&target.webhook).unwrap()).collect()
}

pub(crate) fn notification(bytes: &[u8]) -> NotificationId {
    NotificationId::from_slice(bytes).unwrap()
}

/// Failpoints that hold a router at one step until they are released.
#[derive(Clone)]
pub(crate) struct Hold {
    armed: Arc<std::sync::atomic::AtomicBool>,
    reached: Arc<tokio::sync::Semaphore>,
    /// Of each step, whether it is passed again.
    released: BTreeMap<&'static str, CancellationToken>,
}

impl Hold {
    pub(crate) fn at(steps: &'static [&'static str]) -> Self {
        Self {
            armed: Arc::default(),
            reached: Arc::new(tokio::sync::Semaphore::new(0)),
            released: steps.iter().map(|step| (*step, CancellationToken::new())).collect(),
        }
    }

    pub(crate) fn arm(&self) {
        self.armed.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn failpoints(&self) -> Failpoints {
        let hold = self.clone();
        Failpoints::new(move |step| {
            if !hold.armed.load(std::sync::atomic::Ordering::SeqCst) {
                return None;
            }
            let released = hold.released.get(step)?.clone();
            let reached = Arc::clone(&hold.reached);
            Some(Box::pin(async move {
                reached.add_permits(1);
                released.cancelled().await;
            }))
        })
    }

    /// Waits until this many tasks are held.
    pub(crate) async fn reached(&self, tasks: u32) {
        let wait = self.reached.acquire_many(tasks);
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap().forget();
    }

    pub(crate) fn release(&self) {
        self.armed.store(false, std::sync::atomic::Ordering::SeqCst);
        self.released.values().for_each(CancellationToken::cancel);
    }

    /// Lets those who are held at one step go on, before the others.
    pub(crate) fn release_step(&self, step: &str) {
        self.released[step].cancel();
    }
}
