//! A broker, and processes that share it.

use std::{sync::Arc, time::Duration};

use tidings_broker::{Broker, Fault, Faults, LocalBroker, LocalConfig};
use tidings_registry::{
    Basic, Change, ClientCertificate, CustomHeader, EntityKey, HookSettings, HookSignature, OAuth,
    OAuthMethod, Registry, RegistryError, SigningSecret, State, Suspension, TlsIdentity, Webhook,
};
use tidings_signing::{AsymmetricKey, KeyRing, Secret, WebhookSecret, slot};
use tidings_testkit::{SeededRng, TokioClock};
use tidings_types::{
    Clock, HookOwner, MerchantKey, PmId, Scope, Timestamp, TopicPartition, WebhookId,
    WebhookStatus, names,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
pub(crate) const MASTER: [u8; 32] = [7; 32];

/// Faults for the next appends to the registry, first one first.
#[derive(Debug, Default)]
pub(crate) struct Planted(pub(crate) parking_lot::Mutex<Vec<Fault>>);

impl Faults for Planted {
    fn on_append(&self, to: &TopicPartition, _count: usize) -> Option<Fault> {
        let mut faults = self.0.lock();
        (to.topic.as_str() == names::REGISTRY && !faults.is_empty()).then(|| faults.remove(0))
    }
}

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) faults: Arc<Planted>,
}

/// One process: its handle, and the task that dies with it.
pub(crate) struct Process {
    pub(crate) registry: Registry,
    _task: JoinSet<()>,
}

impl std::ops::Deref for Process {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(NOW));
        let faults = Arc::new(Planted::default());
        let mut metrics = prometheus_client::registry::Registry::default();
        let planted: Arc<dyn Faults> = faults.clone();
        let local = LocalBroker::memory(
            LocalConfig::default(),
            Arc::clone(&clock),
            &mut metrics,
            Some(planted),
        );
        Self { broker: Broker::Local(local.unwrap()), clock, faults }
    }

    pub(crate) async fn process(&self, seed: u64) -> Process {
        self.process_with(seed, &KeyRing::generate(&MASTER)).await.unwrap()
    }

    pub(crate) async fn process_with(
        &self,
        seed: u64,
        ring: &KeyRing,
    ) -> Result<Process, RegistryError> {
        let rng = Arc::new(SeededRng::new(seed));
        let (broker, clock) = (self.broker.clone(), Arc::clone(&self.clock));
        let (registry, task) = Registry::start(broker, ring.clone(), clock, rng).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { task.run(CancellationToken::new()).await.unwrap() });
        Ok(Process { registry, _task: tasks })
    }

    pub(crate) async fn later(&self, by: Duration) {
        self.clock.sleep(by).await;
    }

    /// All bytes of a topic's values and keys.
    pub(crate) async fn bytes_of(&self, topic: &str) -> Vec<u8> {
        let place = TopicPartition::new(topic, 0);
        let mut bytes = Vec::new();
        let mut next = 0;
        loop {
            let records = self.broker.read(&place, next, 1 << 20).await.unwrap();
            let Some(last) = records.last() else { return bytes };
            next = last.offset + 1;
            for record in records {
                bytes.extend_from_slice(&record.key.unwrap_or_default());
                bytes.extend_from_slice(&record.value.unwrap_or_default());
            }
        }
    }
}

pub(crate) fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

pub(crate) fn change(entity: EntityKey, expected_version: u64, state: State) -> Change {
    Change {
        entity,
        expected_version,
        claims: Vec::new(),
        command: None,
        actor: "test".to_owned(),
        trace: String::new(),
        state,
    }
}

/// A webhook with something in every field.
pub(crate) fn webhook(number: u8) -> Webhook {
    let id = WebhookId::from_random([number; 16]);
    let secret = |name: &str, byte| SigningSecret {
        id: name.to_owned(),
        secret: WebhookSecret::from_bytes(&[byte; 32]),
        asymmetric: (byte == b'b').then(|| AsymmetricKey::from_seed(&[byte; 32])),
        not_after: (byte == b'a').then_some(NOW),
    };
    Webhook {
        id,
        slot: slot(id),
        version: 1,
        owner: HookOwner::Client(Scope::ProgrammeManager(PmId(20))),
        product: Some(tidings_types::ProductId("345678".into())),
        events: vec!["101".into(), "104".into()],
        status: WebhookStatus::Active,
        url: "https://client.example/hook".to_owned(),
        headers: vec![CustomHeader {
            name: "key 1".to_owned(),
            value: Secret::from("the-header-secret"),
            secret: true,
        }],
        signing_secrets: vec![secret("s1", b'a'), secret("s2", b'b')],
        settings: HookSettings {
            ordering: "perKey".to_owned(),
            stuck_key: "skip".to_owned(),
            ladder: Some("fast".to_owned()),
            rate_limit_per_second: 9,
            max_in_flight: 3,
            timeout: Duration::from_millis(2500),
            signatures: vec!["v1".to_owned(), "v1a".to_owned()],
            strict_legacy_envelope: true,
        },
        created: NOW,
        modified: NOW,
        label: "a label".to_owned(),
        basic: Some(Basic {
            username: "user".to_owned(),
            password: Secret::from("the-basic-password"),
        }),
        oauth: Some(OAuth {
            token_url: "https://as.client.example/token".to_owned(),
            client_id: "tidings".to_owned(),
            method: OAuthMethod::SecretPost,
            secret: Secret::from("the-oauth-secret"),
            key_id: Some("k1".to_owned()),
            scope: Some("hooks".to_owned()),
            audience: Some("the audience".to_owned()),
        }),
        tls: Some(TlsIdentity {
            ca_bundle: Some("the authorities".to_owned()),
            client: Some(ClientCertificate {
                certificate: "the certificate".to_owned(),
                key: Secret::from("the-tls-key"),
            }),
        }),
        signature: HookSignature::SignatureKey(Secret::from("the-signature-key")),
        wire_names: true,
        partitions: 2,
        suspension: Some(Suspension {
            reason: "gone".to_owned(),
            at: NOW,
            failing_since: Timestamp::from_secs(1_699_000_000),
            last_code: "HTTP_410".to_owned(),
        }),
    }
}

pub(crate) fn create(webhook: &Webhook) -> Change {
    let entity = EntityKey::new("webhook", webhook.id);
    change(entity, 0, State::Webhook(Box::new(webhook.clone())))
}

pub(crate) fn merchant_hook(number: u8, merchant: &str, source_key: &str) -> Webhook {
    Webhook {
        owner: HookOwner::Merchant(MerchantKey(merchant.into())),
        product: None,
        signing_secrets: Vec::new(),
        signature: HookSignature::SourceKey(source_key.to_owned()),
        ..webhook(number)
    }
}
