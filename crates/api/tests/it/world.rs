//! An API in one process: a broker and an event log in memory, a registry, a local
//! issuer of tokens, and by hand what a router and a recorder would do.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use prometheus_client::registry::Registry as MetricsRegistry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_api::{Config, Deps, Metrics, State, router};
use tidings_auth::{LocalIssuer, TokenRequest, Verifier, VerifierConfig};
use tidings_broker::{
    AppendBatch, Broker, Faults, LocalBroker, LocalConfig, NewRecord, Retention, TopicSpec,
};
use tidings_catalogue::{Catalogue, Identity, decode, render, write_uid};
use tidings_egress::{Egress, NetConnector};
use tidings_eventlog::{
    Backing, Batch, EventLog, Limits, MemoryDisk, Record, Source, Status, Writer,
};
use tidings_proto::{encode, format_header, v1};
use tidings_registry::{KeysTopic, Registry, to_proto};
use tidings_signing::{KeyBook, KeyRing, NotificationIds, SealKey, sha256};
use tidings_testkit::{SeededRng, TokioClock};
use tidings_types::{
    Clock, EventUid, NotificationId, OUTCOME_PARTITIONS, ROUTED_PARTITIONS, Rng, RunId, Shape,
    Timestamp, TopicName, TopicPartition, WebhookId, body_aad, names, quarantine_aad,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// 2024-03-17T12:00:00Z.
pub(crate) const NOON: Timestamp = Timestamp::from_secs(1_710_676_800);

pub(crate) const ISSUER: &str = "issuer:7001";
pub(crate) const MANAGER: &str = "pm:20";
pub(crate) const SIBLING: &str = "pm:21";
pub(crate) const FOREIGN_ISSUER: &str = "issuer:7002";
pub(crate) const FOREIGN: &str = "pm:30";

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) broker: Broker,
    pub(crate) registry: Registry,
    pub(crate) keys: KeysTopic,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) rng: Arc<SeededRng>,
    pub(crate) writer: Writer,
    pub(crate) catalogue: Catalogue,
    pub(crate) started: watch::Sender<bool>,
    parts: Parts,
    issuer: LocalIssuer,
    positions: BTreeMap<TopicPartition, u64>,
    _tasks: JoinSet<()>,
    _dir: TempDir,
}

/// Another API on the same log, with a registry of its own that is folded only while a
/// request to this API waits for something.
pub(crate) struct Behind {
    router: Router,
    reading: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Behind {
    pub(crate) async fn send(
        &mut self,
        world: &World,
        (method, path, who): (&str, &str, &str),
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let mut all = vec![("authorization", format!("Bearer {}", world.token(who)))];
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let body = body.map(|body| ("application/json", body.to_string()));
        tokio::select! {
            biased;
            reply = exchange(&self.router, method, path, &all, body) => reply,
            () = &mut self.reading => panic!("nobody reads the registry any more"),
        }
    }
}

/// What an API is made of beside what the world uses itself.
#[derive(Clone)]
struct Parts {
    config: Config,
    event_log: EventLog,
    egress: Arc<Egress>,
    verifier: Verifier,
    started: watch::Receiver<bool>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    pub(crate) fn response(&self) -> Value {
        self.json()["response"].clone()
    }

    /// Status, first code and its field.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let error = &self.json()["errors"][0];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text("code"), text("field"))
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    #[track_caller]
    pub(crate) fn refuses(self, status: u16, code: &str, field: &str) {
        assert_eq!(self.refusal(), (status, code.to_owned(), field.to_owned()));
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn config(dev: bool) -> Config {
    Config {
        dev,
        region: None,
        webhooks_per_scope: if dev { 1000 } else { 1 },
        min_timeout_ms: if dev { 50 } else { 1000 },
        default_ladder: "standard".to_owned(),
        merchant_ladder: "merchant".to_owned(),
        ladders: ["standard", "merchant", "fast"].map(str::to_owned).into(),
        url_policy: tidings_egress::Policy {
            ports: vec![443, 8443],
            ..tidings_egress::Policy::default()
        },
        egress_addresses: BTreeMap::from([(
            "default".to_owned(),
            vec!["3.8.229.11".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        )]),
        user_agent: "Tidings/test".to_owned(),
        fraud_answer_window: Duration::from_secs(72 * 3600),
        metrics_public: false,
        max_lag: Duration::from_secs(30),
        write_wait: Duration::from_secs(2),
        rate: tidings_api::Rate { reads: 0, writes: 0, resends_per_hour: 0 },
        compat: tidings_api::Compat::default(),
        request_timeout: Duration::from_secs(30),
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(config(false)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::with_faults(config, None).await
    }

    pub(crate) async fn with_faults(config: Config, faults: Option<Arc<dyn Faults>>) -> Self {
        let clock = Arc::new(TokioClock::new(NOON));
        let rng = Arc::new(SeededRng::new(7));
        let mut metrics = MetricsRegistry::default();
        let local =
            LocalBroker::memory(LocalConfig::default(), clock.clone(), &mut metrics, faults)
                .unwrap();
        let broker = Broker::Local(local);
        let catalogue = Catalogue::builtin();
        create_topics(&broker, &catalogue).await;
        let ring = KeyRing::generate(&[7; 32]);
        let (registry, task) =
            Registry::start(broker.clone(), ring.clone(), clock.clone(), rng.clone())
                .await
                .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { task.run(CancellationToken::new()).await.unwrap() });
        let keys = KeysTopic::new(
            broker.clone(),
            KeyBook::new(ring),
            clock.clone(),
            rng.clone(),
            Duration::from_secs(6 * 3600),
        );
        let (event_log, mut writer) = EventLog::new(
            Backing::Memory(MemoryDisk::default()),
            Limits::default(),
            clock.clone(),
            tidings_eventlog::Metrics::register(&mut metrics),
        );
        writer.open().await.unwrap();
        let egress_config = tidings_egress::Config {
            policy: config.url_policy.clone(),
            ..tidings_egress::Config::default()
        };
        let egress_metrics = tidings_egress::Metrics::register(&mut metrics);
        let connector = NetConnector::new(&egress_config, egress_metrics.clone());
        let egress =
            Egress::new(&egress_config, Arc::new(connector), clock.clone(), egress_metrics);
        let dir = TempDir::new().unwrap();
        let issuer = LocalIssuer::open_or_create(dir.path(), &*rng).unwrap();
        let verifier = Verifier::new(VerifierConfig {
            local: Some(issuer.public_key()),
            external: None,
            max_lifetime: VerifierConfig::MAX_LIFETIME,
        })
        .unwrap();
        let (started, started_receiver) = watch::channel(true);
        let parts = Parts {
            config,
            event_log,
            egress: Arc::new(egress),
            verifier,
            started: started_receiver,
        };
        let mut world = Self {
            router: Router::new(),
            parts,
            broker,
            registry,
            keys,
            clock,
            rng,
            writer,
            catalogue,
            started,
            issuer,
            positions: BTreeMap::new(),
            _tasks: tasks,
            _dir: dir,
        };
        world.restart();
        world.fold().await;
        world.tenants().await;
        world
    }

    /// Another API on the same log, which has read nothing yet.
    pub(crate) fn restart(&mut self) {
        self.router = self.router_of(self.registry.clone());
    }

    /// Another process on the same log, which has read the registry up to now.
    pub(crate) async fn behind(&self) -> Behind {
        let ring = self.registry.ring().clone();
        let (registry, task) =
            Registry::start(self.broker.clone(), ring, self.clock.clone(), self.rng.clone())
                .await
                .unwrap();
        let reading = Box::pin(async move { task.run(CancellationToken::new()).await.unwrap() });
        Behind { router: self.router_of(registry), reading }
    }

    fn router_of(&self, registry: Registry) -> Router {
        let parts = self.parts.clone();
        let deps = Deps {
            broker: self.broker.clone(),
            registry,
            keys: self.keys.clone(),
            catalogue: self.catalogue.clone(),
            event_log: parts.event_log,
            egress: parts.egress,
            verifier: parts.verifier,
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            metrics: Metrics::register(&mut MetricsRegistry::default()),
            metrics_text: Arc::new(|| "# EOF\n".to_owned()),
            started: parts.started,
        };
        router(State::new(parts.config, deps))
    }

    async fn tenants(&self) {
        let document = json!({
            "issuers": [{"id": "7001"}, {"id": "7002"}],
            "programmeManagers": [
                {"id": 20, "code": "TRD", "issuer": "7001"},
                {"id": 21, "code": "ABC", "issuer": "7001"},
                {"id": 30, "code": "XYZ", "issuer": "7002"},
            ],
            "products": [
                {"id": 345_678, "programmeManager": 20},
                {"id": 111, "programmeManager": 21},
                {"id": 333, "programmeManager": 30},
            ],
            "merchants": [{
                "key": "m_9f2", "programmeManager": 20,
                "sourceKeys": [{"id": "src1", "value": "source secret"}],
            }],
        });
        let reply = self.send("PUT", "/admin/v1/tenants", "admin", Some(&document)).await.is(200);
        assert_eq!(reply.response(), json!({"added": 9, "changed": 0, "removed": 0}));
    }

    /// A token with every scope for `issuer:…`, `pm:…` or nobody.
    pub(crate) fn token(&self, who: &str) -> String {
        let scopes = ["eds.read", "eds.write", "eds.publish", "admin"];
        self.token_with(who, &scopes)
    }

    pub(crate) fn token_with(&self, who: &str, scopes: &[&str]) -> String {
        let request = TokenRequest {
            subject: "tester".to_owned(),
            issuer: who.strip_prefix("issuer:").map(str::to_owned),
            pm: who.strip_prefix("pm:").map(|id| id.parse().unwrap()),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ttl: Duration::from_secs(600),
        };
        self.issuer.sign(&request, self.clock.now()).unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        who: &str,
        body: Option<&Value>,
    ) -> Reply {
        let headers = [("authorization", format!("Bearer {}", self.token(who)))];
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send_raw(method, path, &headers, body).await
    }

    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        who: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let mut all = vec![("authorization", format!("Bearer {}", self.token(who)))];
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let body = body.map(|body| ("application/json", body.to_string()));
        self.send_raw(method, path, &all, body).await
    }

    pub(crate) async fn send_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Option<(&str, String)>,
    ) -> Reply {
        exchange(&self.router, method, path, headers, body).await
    }

    /// Publishes lines as NDJSON.
    pub(crate) async fn publish(&self, lines: &str, headers: &[(&str, &str)]) -> Reply {
        let mut all = vec![("authorization", format!("Bearer {}", self.token("")))];
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self.send_raw(
            "POST",
            "/ingest/v1/events",
            &all,
            Some(("application/x-ndjson", lines.to_owned())),
        )
        .await
    }

    /// Registers a webhook and gives its id.
    pub(crate) async fn webhook(&self, who: &str, events: &[u16]) -> String {
        let body = json!({"events": events, "config": {"url": "https://example.com/hook"}});
        let reply = self.send("POST", "/api/v1/Webhooks", who, Some(&body)).await.is(201);
        reply.response()["webhookId"].as_str().unwrap().to_owned()
    }

    /// Writes the decision that a router would write: `event` goes to `webhook`.
    pub(crate) async fn route(&mut self, webhook: &str, event: &Value) -> NotificationId {
        let webhook: WebhookId = webhook.parse().unwrap();
        let alert = event["payload"]["fraudAlertId"].as_str().unwrap_or_default().to_owned();
        let bytes = event.to_string().into_bytes();
        let event = decode(&self.catalogue, None, &bytes).unwrap();
        let mut random = [0; 8];
        self.rng.fill(&mut random);
        let identity = hex::encode(random);
        let mut parts = Vec::new();
        write_uid(&event, Identity::Producer(&identity), |part| parts.extend_from_slice(part));
        let uid = EventUid(sha256(&[&parts]));
        let now = self.clock.now();
        let rendered = render::render(&event, Shape::Plain, now);
        let aad = body_aad(uid, Shape::Plain);
        let deadline = event.deadline(now);
        let sealed = match deadline {
            Some(deadline) => {
                let key = self.keys.ensure_bucket(deadline).await.unwrap();
                key.seal(&aad, &rendered.bytes, self.nonce())
            }
            None => {
                let key = SealKey::Body { issuer: "7001", at: now };
                self.registry.ring().seal(&key, &aad, &rendered.bytes, self.nonce())
            }
        };
        let body = |rendered: &render::Rendered, sealed| v1::Body {
            sealed: Some(to_proto(sealed)),
            hole: rendered.hole.map(|hole| u32::try_from(hole).unwrap()),
            payload_start: u32::try_from(rendered.payload.start).unwrap(),
            payload_len: u32::try_from(rendered.payload.len()).unwrap(),
            shape: v1::Shape::Plain.into(),
        };
        let redacted = render::render_redacted(&event, Shape::Plain, now).map(|rendered| {
            let key = SealKey::Body { issuer: "7001", at: now };
            let sealed = self.registry.ring().seal(&key, &aad, &rendered.bytes, self.nonce());
            body(&rendered, sealed)
        });
        let snapshot = self.registry.snapshot();
        let notification = NotificationIds::new(snapshot.id_key().unwrap(), uid).of(webhook);
        let routed = v1::Routed {
            uid: Bytes::copy_from_slice(&uid.0),
            event_type: event.kind().name().to_owned(),
            tenant: event.tenant().to_string(),
            issuer: "7001".to_owned(),
            lane: v1::Lane::from(event.kind().lane()).into(),
            deadline: deadline.map_or(0, Timestamp::as_millis),
            order_key: event.order_key().unwrap_or_default().into_owned(),
            producer_id: identity,
            bodies: vec![body(&rendered, sealed)],
            targets: vec![v1::RoutedTarget {
                webhook: Bytes::copy_from_slice(webhook.as_bytes()),
                notification: Bytes::copy_from_slice(notification.as_bytes()),
                shape: v1::Shape::Plain.into(),
                suspended: false,
            }],
            redacted,
            fraud_alert_id: alert,
        };
        self.decide(&event.kind().topic(), v1::decision::What::Routed(routed)).await;
        notification
    }

    async fn decide(&mut self, topic: &TopicName, what: v1::decision::What) {
        let to = TopicPartition::new(names::ROUTED, 0);
        let next = self.broker.ends(&to).await.unwrap().end;
        if next == 0 {
            let took = v1::RoutedRecord {
                took: 0,
                kind: Some(v1::routed_record::Kind::TookOver(v1::Took {
                    owner: Bytes::from_static(b"test"),
                    time: self.clock.now().as_millis(),
                })),
            };
            self.append(&to, &took).await;
        }
        let decision = v1::Decision {
            source: Some(v1::Source { topic: topic.to_string(), partition: 0, offset: next }),
            skipped: 0,
            registry_version: 1,
            time: self.clock.now().as_millis(),
            traceparent: String::new(),
            what: Some(what),
        };
        let kind = Some(v1::routed_record::Kind::Decision(decision));
        self.append(&to, &v1::RoutedRecord { took: 0, kind }).await;
        self.fold().await;
    }

    /// Writes a fact that a sender would write.
    pub(crate) async fn outcome(
        &mut self,
        webhook: &str,
        id: NotificationId,
        kind: v1::OutcomeKind,
    ) {
        let failed = kind == v1::OutcomeKind::Undelivered || kind == v1::OutcomeKind::AttemptFailed;
        let outcome = v1::Outcome {
            kind: kind.into(),
            reason: if kind == v1::OutcomeKind::Undelivered { "exhausted" } else { "" }.to_owned(),
            time: self.clock.now().as_millis(),
            attempt: 1,
            code: if failed { "HTTP_503" } else { "DELIVERED" }.to_owned(),
            http_status: if failed { 503 } else { 200 },
            ..v1::Outcome::default()
        };
        self.say(webhook, id, RunId::FIRST, outcome).await;
    }

    /// Writes a fact about a notification and a run.
    pub(crate) async fn say(
        &mut self,
        webhook: &str,
        id: NotificationId,
        run: RunId,
        fact: v1::Outcome,
    ) {
        let webhook: WebhookId = webhook.parse().unwrap();
        let slot = tidings_signing::slot(webhook);
        let outcome = v1::Outcome {
            webhook: Bytes::copy_from_slice(webhook.as_bytes()),
            notification: Bytes::copy_from_slice(id.as_bytes()),
            run: Bytes::copy_from_slice(run.as_bytes()),
            partition: Some(0),
            offset: Some(0),
            ..fact
        };
        let batch = v1::OutcomeBatch {
            slot: slot.0,
            took: Some(0),
            writer: v1::Writer::Sender.into(),
            outcomes: vec![outcome],
        };
        self.append(&TopicPartition::new(names::OUTCOMES, slot.outcome_partition()), &batch).await;
        self.fold().await;
    }

    /// Writes a record that a router would set aside; gives its id.
    pub(crate) async fn quarantine(
        &self,
        topic: &str,
        bytes: &[u8],
        code: &str,
        field: &str,
    ) -> String {
        let from = TopicPartition::new(topic, 0);
        let aad = quarantine_aad(&from, 5);
        let sealed = self.registry.ring().seal(&SealKey::Quarantine, &aad, bytes, self.nonce());
        let record = v1::QuarantineRecord {
            source: Some(v1::Source { topic: topic.to_owned(), partition: 0, offset: 5 }),
            code: code.to_owned(),
            field: field.to_owned(),
            time: self.clock.now().as_millis(),
            original: Some(to_proto(sealed)),
            sha256: Bytes::copy_from_slice(&sha256(&[bytes])),
            headers: Vec::new(),
            key: Bytes::from_static(b"k"),
            redrive_of: String::new(),
        };
        self.append(&TopicPartition::new(names::QUARANTINE, 0), &record).await.to_string()
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        self.rng.fill(&mut nonce);
        nonce
    }

    async fn append(&self, to: &TopicPartition, message: &impl prost::Message) -> u64 {
        let record = NewRecord {
            headers: vec![format_header()],
            value: Some(encode(message)),
            ..NewRecord::default()
        };
        let batch = AppendBatch { to: to.clone(), records: vec![record] };
        self.broker.append(vec![batch]).await.pop().unwrap().unwrap().first().unwrap()
    }

    /// Reads both topics to their ends, as a recorder does.
    pub(crate) async fn fold(&mut self) {
        let routed = (0..ROUTED_PARTITIONS).map(|number| (Source::Routed, number));
        let outcomes = (0..OUTCOME_PARTITIONS).map(|number| (Source::Outcomes, number));
        for (source, partition) in routed.chain(outcomes) {
            let from = source.partition(partition);
            let next = self.positions.entry(from.clone()).or_default();
            let records = self.broker.read(&from, *next, 16 << 20).await.unwrap();
            let Some(last) = records.last() else { continue };
            *next = last.offset + 1;
            let records = records
                .into_iter()
                .map(|record| Record {
                    offset: record.offset,
                    time: record.timestamp,
                    known_format: true,
                    value: record.value,
                })
                .collect();
            let mut batch = Batch::default();
            batch.push(source, partition, records);
            self.writer.apply(batch).await.unwrap();
        }
        self.say_complete();
    }

    pub(crate) fn say_complete(&self) {
        let as_of = self.clock.now() + Duration::from_secs(1);
        self.writer.set_status(Status { complete: true, progress: 1.0, as_of });
    }

    /// The values of all records of a topic.
    pub(crate) async fn records(&self, topic: &TopicName) -> Vec<tidings_broker::Record> {
        let mut all = Vec::new();
        for partition in 0..self.broker.describe(topic).await.unwrap().partitions {
            let of = TopicPartition::new(topic, partition);
            let first = self.broker.ends(&of).await.unwrap().first;
            all.extend(self.broker.read(&of, first, 16 << 20).await.unwrap());
        }
        all
    }
}

/// Sends a request to an API.
async fn exchange(
    router: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: Option<(&str, String)>,
) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let body = match body {
        Some((kind, text)) => {
            request = request.header("content-type", kind);
            Body::from(text)
        }
        None => Body::empty(),
    };
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, bytes }
}

async fn create_topics(broker: &Broker, catalogue: &Catalogue) {
    let mut specs = vec![
        (TopicName::new(names::ROUTED), ROUTED_PARTITIONS),
        (TopicName::new(names::OUTCOMES), OUTCOME_PARTITIONS),
        (TopicName::new(names::KEYS), 1),
        (TopicName::new(names::QUARANTINE), 1),
        (TopicName::new(names::FRAUD_RESPONSES), 3),
    ];
    for kind in catalogue.types() {
        if !specs.iter().any(|(name, _)| *name == kind.topic()) {
            specs.push((kind.topic(), kind.partitions()));
        }
    }
    for (name, partitions) in specs {
        let spec =
            TopicSpec { name, partitions, retention: Retention::Forever, erase_buckets: None };
        broker.create_topic(spec).await.unwrap();
    }
}
