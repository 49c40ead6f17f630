//! What outlives every process of a run, and how processes are built on it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Metrics;
use tidings_broker::{Broker, LocalBroker, LocalConfig, Retention, TopicError, TopicSpec};
use tidings_catalogue::Catalogue;
use tidings_eventlog::{Backing, MemoryDisk};
use tidings_registry::{
    Change, EntityKey, HookSettings, HookSignature, Issuer, KeysTopic, ProgrammeManager, Registry,
    SigningSecret, State, Webhook,
};
use tidings_signing::{KeyBook, KeyRing, WebhookSecret, slot};
use tidings_testkit::{SeededRng, TokioClock};
use tidings_types::{
    Clock, HookOwner, IssuerId, OUTCOME_PARTITIONS, PmId, ROUTED_PARTITIONS, Rng, SLOTS, Sabotage,
    Scope, TopicName, WebhookId, WebhookStatus, names,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    endpoints::Endpoints,
    faults::SeededFaults,
    plan::{HookPlan, MANAGERS, Plan},
    trace::{BASE, Trace},
};

/// Partitions of every event topic.
const EVENT_PARTITIONS: u32 = 2;

/// A registry that is kept folded.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) registry: Registry,
    pub(crate) keys: KeysTopic,
    pub(crate) tasks: JoinSet<()>,
}

/// A recorder that runs.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) handle: tidings_recorder::Handle,
    pub(crate) tasks: JoinSet<()>,
}

/// What outlives every process.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) sabotage: Sabotage,
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) trace: Trace,
    pub(crate) endpoints: Endpoints,
    pub(crate) faults: Arc<SeededFaults>,
    pub(crate) catalogue: Catalogue,
    pub(crate) ring: KeyRing,
    pub(crate) local: LocalBroker,
    pub(crate) disk: MemoryDisk,
    /// What services said when they ended although nobody asked them to.
    pub(crate) ended: Arc<Mutex<Vec<String>>>,
    /// Makes the randomness of each process another one.
    processes: std::sync::atomic::AtomicU64,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        sabotage: Sabotage,
        catalogue: &Catalogue,
        keeps_lines: bool,
    ) -> anyhow::Result<Self> {
        let plan = Plan::draw(seed);
        let clock = Arc::new(TokioClock::new(BASE));
        let trace = Trace::new(Arc::clone(&clock), keeps_lines);
        let scripts = plan.hooks.iter().map(|hook| (hook.id, hook.script)).collect();
        let endpoints = Endpoints::new(seed, scripts, trace.clone());
        let faults = Arc::new(SeededFaults::new(seed));
        let as_dyn: Arc<dyn tidings_broker::Faults> = Arc::<SeededFaults>::clone(&faults);
        let config = LocalConfig {
            sync_delay: Duration::from_millis(2),
            // Every second seed runs what a broker does that cannot.
            one_sync_in_order: seed.is_multiple_of(2),
            sabotage,
            ..LocalConfig::default()
        };
        let dyn_clock: Arc<dyn Clock> = Arc::<TokioClock>::clone(&clock);
        let local = LocalBroker::memory(config, dyn_clock, &mut Metrics::default(), Some(as_dyn))?;
        let partitions: BTreeMap<String, u32> =
            catalogue.types().map(|kind| (kind.name().to_owned(), EVENT_PARTITIONS)).collect();
        let catalogue = catalogue.with_partitions(&partitions)?;
        Ok(Self {
            seed,
            sabotage,
            plan,
            clock,
            trace,
            endpoints,
            faults,
            catalogue,
            ring: KeyRing::generate(&[7; 32]),
            local,
            disk: MemoryDisk::default(),
            ended: Arc::default(),
            processes: std::sync::atomic::AtomicU64::new(1),
        })
    }

    pub(crate) fn broker(&self) -> Broker {
        Broker::Local(self.local.clone())
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::<TokioClock>::clone(&self.clock)
    }

    pub(crate) fn rng(&self) -> Arc<dyn Rng> {
        let process = self.processes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(SeededRng::new(self.seed.wrapping_mul(1009).wrapping_add(process)))
    }

    pub(crate) async fn pause(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// Makes the topics that no service makes, tenants and webhooks.
    pub(crate) async fn found(&self) -> anyhow::Result<()> {
        let topics = [
            (names::OUTCOMES, OUTCOME_PARTITIONS),
            (names::SLOTS, SLOTS),
            (names::ROUTED, ROUTED_PARTITIONS),
        ];
        for (name, partitions) in topics {
            self.create(TopicName::new(name), partitions).await?;
        }
        for spec in
            tidings_router::topics(&self.catalogue, &tidings_router::Config::default().retention)
        {
            match self.broker().create_topic(spec).await {
                Ok(()) | Err(TopicError::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let folded = self.fold().await?;
        folded.keys.create_topic().await?;
        let registry = &folded.registry;
        let issuer = IssuerId(Arc::from("7001"));
        let state = State::Issuer(Issuer { id: issuer.clone(), name: String::new() });
        propose(registry, "issuer/7001", state).await?;
        for pm in MANAGERS {
            let (id, code, issuer) = (PmId(pm), format!("P{pm}"), issuer.clone());
            let state = ProgrammeManager { id, code, issuer, name: String::new() };
            propose(registry, &format!("pm/{pm}"), State::ProgrammeManager(state)).await?;
        }
        for hook in &self.plan.hooks {
            self.create(names::delivery(hook.id), hook.partitions).await?;
            let state = State::Webhook(Box::new(webhook(hook)));
            propose(registry, &format!("webhook/{}", hook.id), state).await?;
        }
        Ok(())
    }

    async fn create(&self, name: TopicName, partitions: u32) -> anyhow::Result<()> {
        let spec =
            TopicSpec { name, partitions, retention: Retention::Forever, erase_buckets: None };
        self.broker().create_topic(spec).await?;
        Ok(())
    }

    /// A registry of a process of its own.
    pub(crate) async fn fold(&self) -> anyhow::Result<Folded> {
        let book = KeyBook::new(self.ring.clone());
        let retention = Duration::from_secs(6 * 3600);
        let keys = KeysTopic::new(self.broker(), book, self.clock(), self.rng(), retention);
        let (registry, task) =
            Registry::start(self.broker(), self.ring.clone(), self.clock(), self.rng()).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Ends when its broker has crashed.
            task.run(CancellationToken::new()).await.unwrap_or_default();
        });
        Ok(Folded { registry, keys, tasks })
    }

    pub(crate) fn recorder_on(&self, disk: MemoryDisk) -> Recorder {
        let mut metrics = Metrics::default();
        let mut config = tidings_recorder::Config::new(Backing::Memory(disk));
        config.account_wait = Duration::from_secs(20);
        let deps = tidings_recorder::Deps {
            broker: self.broker(),
            clock: self.clock(),
            metrics: tidings_recorder::Metrics::register(&mut metrics),
            log_metrics: tidings_eventlog::Metrics::register(&mut metrics),
            failpoints: tidings_recorder::Failpoints::default(),
        };
        let service = tidings_recorder::Service::build(config, deps);
        let handle = service.handle();
        let mut tasks = JoinSet::new();
        let ended = Arc::clone(&self.ended);
        tasks.spawn(async move {
            if let Err(error) = service.run(CancellationToken::new()).await {
                ended.lock().push(format!("the recorder ended: {error}"));
            }
        });
        Recorder { handle, tasks }
    }

    pub(crate) fn hook(&self, id: WebhookId) -> Option<&HookPlan> {
        self.plan.hooks.iter().find(|hook| hook.id == id)
    }
}

/// The signing secret of a webhook.
pub(crate) fn secret(id: WebhookId) -> WebhookSecret {
    let mut bytes = [1; 32];
    bytes[..16].copy_from_slice(id.as_bytes());
    WebhookSecret::from_bytes(&bytes)
}

fn webhook(hook: &HookPlan) -> Webhook {
    Webhook {
        id: hook.id,
        slot: slot(hook.id),
        version: 0,
        owner: HookOwner::Client(Scope::ProgrammeManager(PmId(hook.pm))),
        product: None,
        events: hook.events.iter().map(|name| Arc::from(*name)).collect(),
        status: WebhookStatus::Active,
        url: format!("http://127.0.0.1:9/{}", hook.name),
        headers: Vec::new(),
        signing_secrets: vec![SigningSecret {
            id: "1".to_owned(),
            secret: secret(hook.id),
            asymmetric: None,
            not_after: None,
        }],
        settings: HookSettings {
            timeout: hook.timeout,
            ladder: Some("sim".to_owned()),
            ..HookSettings::default()
        },
        created: BASE,
        modified: BASE,
        label: String::new(),
        basic: None,
        oauth: None,
        tls: None,
        signature: HookSignature::None,
        wire_names: false,
        partitions: hook.partitions,
        suspension: None,
    }
}

/// Changes one entity, whatever its version.
pub(crate) async fn propose(registry: &Registry, entity: &str, state: State) -> anyhow::Result<()> {
    let entity = EntityKey(Arc::from(entity));
    let change = Change {
        expected_version: registry.snapshot().entity_version(&entity),
        entity,
        claims: Vec::new(),
        command: None,
        actor: "sim".to_owned(),
        trace: String::new(),
        state,
    };
    registry.propose(change).await.context("the registry refused")?;
    Ok(())
}
