//! Builds every part from the settings.

use std::{
    collections::BTreeMap, fs, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Metrics;
use tidings_auth::{External, VerificationKey, Verifier, VerifierConfig};
use tidings_broker::{Broker, KafkaBroker, KafkaConfig, LocalBroker, LocalConfig};
use tidings_catalogue::Catalogue;
use tidings_delivery::{Ladder, Ladders, Limits, Pace, SuspendRules};
use tidings_egress::{Egress, Fetcher, NetConnector, Policy};
use tidings_eventlog::Backing;
use tidings_registry::{KeysTopic, Registry, RegistryTask};
use tidings_sender::{Attempts, RegistryWebhooks, RegistryWebhooksConfig};
use tidings_signing::{KeyBook, KeyRing};
use tidings_telemetry::{SystemClock, SystemRng};
use tidings_types::{Clock, Lane, Rng, Sabotage};
use tokio::sync::watch;

use super::{Roles, files as open_files, keys, provision, tls};
use crate::{
    commands::Failure,
    failpoints::{self, Failpoints},
    settings::{BrokerChoice, Settings},
};

/// The pause before a broker is looked for again that was not there.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const USER_AGENT: &str = concat!("Tidings/", env!("CARGO_PKG_VERSION"));

/// Everything that runs, not started yet.
pub(super) struct Parts {
    /// The local broker, which wants maintenance.
    pub(super) local: Option<LocalBroker>,
    pub(super) registry: Registry,
    pub(super) registry_task: RegistryTask,
    pub(super) recorder: Option<tidings_recorder::Service>,
    pub(super) router: Option<tidings_router::Service>,
    pub(super) sender: Option<tidings_sender::Service>,
    pub(super) egress: Arc<Egress>,
    pub(super) verifier: Verifier,
    pub(super) http: tidings_api::Router,
    /// `/metrics` alone, for its own listener.
    pub(super) metrics_http: tidings_api::Router,
}

/// What `/metrics` answers.
type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What most parts are given.
struct Shared {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    broker: Broker,
    catalogue: Catalogue,
    ring: KeyRing,
    registry: Registry,
    keys: KeysTopic,
    policy: Policy,
    /// None unless a test has armed some.
    failpoints: Option<Arc<Failpoints>>,
    sabotage: Sabotage,
}

impl Parts {
    /// Opens the log and reads the registry. `is_started` tells the API when all
    /// parts run.
    pub(super) async fn build(
        settings: Arc<Settings>,
        roles: Roles,
        is_started: watch::Receiver<bool>,
        connections: &tidings_api::ConnectionMetrics,
    ) -> Result<Self, Failure> {
        let mut metrics = Metrics::default();
        connections.register(&mut metrics);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
        let catalogue = catalogue(&settings).map_err(Failure::Usage)?;
        let (failpoints, sabotage) = faults(&settings).map_err(Failure::Usage)?;
        let egress_metrics = tidings_egress::Metrics::register(&mut metrics);
        let local =
            settings.local_issuer.then(|| keys::local_issuer(&settings.data)).transpose()?;
        let local = local.map(|issuer| issuer.public_key());
        let auth_metrics = tidings_auth::Metrics::register(&mut metrics);
        let sign_in = (auth_metrics, egress_metrics.clone());
        let verifier = verifier(&settings, local, &clock, sign_in).map_err(Failure::Usage)?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.data);
        made.with_context(|| {
            format!("cannot make the data directory {}", settings.data.display())
        })?;
        let (broker, local, ring) = match &settings.broker {
            BrokerChoice::Local => {
                let is_new = !settings.data.join("log").exists();
                let ring = keys::master_key(&settings, is_new, &*rng).map_err(Failure::Usage)?;
                let local = open_log(&settings, &clock, sabotage, &mut metrics)?;
                (Broker::Local(local.clone()), Some(local), ring)
            }
            BrokerChoice::Kafka(bootstrap) => {
                let broker = if roles.waits {
                    connect_patiently(bootstrap, &settings, &clock).await?
                } else {
                    connect(bootstrap, &settings, Arc::clone(&clock)).await?
                };
                let is_new = roles == Roles::ALL && provision::is_new(&broker).await?;
                let ring = keys::master_key(&settings, is_new, &*rng).map_err(Failure::Usage)?;
                (broker, None, ring)
            }
        };
        provision::topics(&broker, &settings).await?;
        let book = KeyBook::new(ring.clone());
        let keys = KeysTopic::new(
            broker.clone(),
            book,
            Arc::clone(&clock),
            Arc::clone(&rng),
            settings.keys_retention,
        );
        keys.create_topic().await.context("the topic of keys cannot be made")?;
        keys.register_metrics(&mut metrics);
        let (registry, registry_task) =
            Registry::start(broker.clone(), ring.clone(), Arc::clone(&clock), Arc::clone(&rng))
                .await
                .context("the registry cannot be read")?;
        registry.register_metrics(&mut metrics);
        let policy = policy(&settings);
        let shared = Shared {
            settings,
            clock,
            rng,
            broker,
            catalogue,
            ring,
            registry,
            keys,
            policy,
            failpoints,
            sabotage,
        };
        let router = roles.routes.then(|| shared.router(&mut metrics));
        let egress = shared.egress(egress_metrics);
        let sender = roles.sends.then(|| shared.sender(&mut metrics, &egress)).transpose()?;
        let recorder = roles.serves.then(|| shared.recorder(&mut metrics));
        let api_metrics = recorder.is_some().then(|| tidings_api::Metrics::register(&mut metrics));
        let metrics_text = metrics_text(metrics);
        let metrics_http = tidings_api::metrics_router(Arc::clone(&metrics_text));
        let http = match (&recorder, api_metrics) {
            (Some(recorder), Some(metrics)) => {
                let metrics = (metrics, metrics_text);
                shared.api(metrics, verifier.clone(), is_started, recorder, Arc::clone(&egress))
            }
            _ => tidings_api::ops_router(metrics_text, shared.settings.metrics_public, is_started),
        };
        Ok(Self {
            local,
            registry: shared.registry.clone(),
            registry_task,
            recorder,
            router,
            sender,
            egress,
            verifier,
            http,
            metrics_http,
        })
    }
}

impl Shared {
    fn recorder(&self, metrics: &mut Metrics) -> tidings_recorder::Service {
        let backing = Backing::Disk(self.settings.data.join("eventlog"));
        let mut config = tidings_recorder::Config::new(backing);
        config.limits.retention = self.settings.eventlog_retention;
        let failpoints = match &self.failpoints {
            Some(failpoints) => {
                let failpoints = Arc::clone(failpoints);
                tidings_recorder::Failpoints::new(move |name| failpoints.hit(name))
            }
            None => tidings_recorder::Failpoints::default(),
        };
        let deps = tidings_recorder::Deps {
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock),
            metrics: tidings_recorder::Metrics::register(metrics),
            log_metrics: tidings_eventlog::Metrics::register(metrics),
            failpoints,
        };
        tidings_recorder::Service::build(config, deps)
    }

    fn router(&self, metrics: &mut Metrics) -> tidings_router::Service {
        let mut config = tidings_router::Config {
            session: self.settings.session,
            source_epoch: self.settings.source_epoch,
            ..tidings_router::Config::default()
        };
        config.retention = router_retentions(&self.settings);
        let failpoints = match &self.failpoints {
            Some(failpoints) => {
                let failpoints = Arc::clone(failpoints);
                tidings_router::Failpoints::new(move |name| failpoints.hit_router(name))
            }
            None => tidings_router::Failpoints::default(),
        };
        let deps = tidings_router::Deps {
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock),
            rng: Arc::clone(&self.rng),
            registry: self.registry.clone(),
            keyring: self.ring.clone(),
            keys: self.keys.clone(),
            catalogue: self.catalogue.clone(),
            metrics: tidings_router::Metrics::register(metrics),
            sabotage: self.sabotage,
            failpoints,
        };
        tidings_router::Service::build(config, deps)
    }

    fn egress(&self, egress_metrics: tidings_egress::Metrics) -> Arc<Egress> {
        let egress_config = tidings_egress::Config {
            policy: self.policy.clone(),
            bind: self.settings.egress_bind.clone(),
            proxy: self.settings.egress_proxy.clone(),
            ..Default::default()
        };
        let net = Arc::new(NetConnector::new(&egress_config, egress_metrics.clone()));
        let connector: Arc<dyn tidings_egress::Connector> = match &self.failpoints {
            Some(points) => Arc::new(failpoints::BreakingConnector::new(net, Arc::clone(points))),
            None => net,
        };
        Arc::new(Egress::new(&egress_config, connector, Arc::clone(&self.clock), egress_metrics))
    }

    fn sender(
        &self,
        metrics: &mut Metrics,
        egress: &Arc<Egress>,
    ) -> Result<tidings_sender::Service, Failure> {
        let settings = &self.settings;
        let delivery = &settings.delivery;
        let limits = Limits {
            max_open: delivery.max_open,
            remembered: delivery.remembered,
            suspend: SuspendRules {
                suspend_after: delivery.suspend_after,
                gone_count: delivery.gone_count,
                gone_gap: delivery.gone_gap,
            },
            failing_after: delivery.failing_after,
            tenant_in_flight: delivery.tenant_in_flight,
            host_in_flight: delivery.host_in_flight,
            pace: if settings.dev { Pace::quick() } else { Pace::default() },
            expiring: [Lane::Standard, Lane::Urgent].map(|lane| {
                self.catalogue.types().any(|kind| kind.lane() == lane && kind.deadline().is_some())
            }),
            sabotage: self.sabotage,
            ..Limits::default()
        };
        let config = tidings_sender::Config {
            session: settings.session,
            checkpoint_interval: settings.checkpoint_interval,
            ladders: ladders(settings).map_err(Failure::Usage)?,
            states: self
                .catalogue
                .types()
                .filter(|kind| kind.is_state())
                .map(|kind| kind.name().to_owned())
                .collect(),
            limits,
            user_agent: USER_AGENT.to_owned(),
            certificate_ahead: settings.certificate_warning,
            ..tidings_sender::Config::default()
        };
        let attempts: Arc<dyn Attempts> = Arc::new(Arc::clone(egress));
        let webhooks = RegistryWebhooks::new(
            self.registry.clone(),
            RegistryWebhooksConfig {
                policy: self.policy.clone(),
                user_agent: USER_AGENT.to_owned(),
                default_ladder: delivery.default_ladder.clone(),
                merchant_ladder: delivery.merchant_ladder.clone(),
            },
        );
        let failpoints = self.failpoints.clone().map(|points| {
            let points: Arc<dyn tidings_sender::Failpoints> = points;
            points
        });
        let deps = tidings_sender::Deps {
            broker: self.broker.clone(),
            clock: Arc::clone(&self.clock),
            rng: Arc::clone(&self.rng),
            webhooks: Arc::new(webhooks),
            attempts,
            keys: self.keys.book().clone(),
            bucket_keys: Arc::new(Arc::new(self.keys.clone())),
            failpoints,
            sabotage: self.sabotage,
            metrics: tidings_sender::Metrics::register(metrics),
        };
        Ok(tidings_sender::Service::build(config, deps))
    }

    fn api(
        &self,
        (metrics, metrics_text): (tidings_api::Metrics, MetricsText),
        verifier: Verifier,
        started: watch::Receiver<bool>,
        recorder: &tidings_recorder::Service,
        egress: Arc<Egress>,
    ) -> tidings_api::Router {
        let settings = &self.settings;
        let config = tidings_api::Config {
            dev: settings.dev,
            region: settings.region,
            webhooks_per_scope: settings.webhooks_per_scope,
            min_timeout_ms: u32::try_from(settings.min_timeout.as_millis()).unwrap_or(u32::MAX),
            default_ladder: settings.delivery.default_ladder.clone(),
            merchant_ladder: settings.delivery.merchant_ladder.clone(),
            ladders: ["standard", "merchant", "fast"]
                .map(str::to_owned)
                .into_iter()
                .chain(settings.delivery.ladders.keys().cloned())
                .collect(),
            url_policy: self.policy.clone(),
            egress_addresses: settings.egress_addresses.clone(),
            user_agent: USER_AGENT.to_owned(),
            fraud_answer_window: settings.fraud_answer_window,
            metrics_public: settings.metrics_public,
            max_lag: settings.eventlog_max_lag,
            write_wait: Duration::from_secs(5),
            rate: settings.api_rate,
            compat: settings.compat,
            request_timeout: Duration::from_secs(30),
        };
        let deps = tidings_api::Deps {
            broker: self.broker.clone(),
            registry: self.registry.clone(),
            keys: self.keys.clone(),
            catalogue: self.catalogue.clone(),
            event_log: recorder.handle().event_log().clone(),
            egress,
            verifier,
            clock: Arc::clone(&self.clock),
            rng: Arc::clone(&self.rng),
            metrics,
            metrics_text,
            started,
        };
        tidings_api::router(tidings_api::State::new(config, deps))
    }
}

fn metrics_text(mut metrics: Metrics) -> MetricsText {
    let process = tidings_telemetry::Metrics::register(&mut metrics);
    // Encoding takes the registry by reference; the lock is for `Sync` alone.
    let metrics = Mutex::new(metrics);
    Arc::new(move || {
        process.refresh();
        tidings_telemetry::encode(&metrics.lock())
    })
}

/// Connects to Kafka.
pub(crate) async fn connect(
    bootstrap: &str,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Broker, Failure> {
    let config = KafkaConfig::new(bootstrap, settings.kafka.clone());
    match KafkaBroker::connect(config, clock).await {
        Ok(kafka) => Ok(Broker::Kafka(kafka)),
        Err(error @ tidings_broker::ConnectError::Unreachable { .. }) => {
            Err(Failure::Wrong(error.into()))
        }
        Err(error) => Err(Failure::Usage(error.into())),
    }
}

/// The same, for as long as it takes until a broker answers.
async fn connect_patiently(
    bootstrap: &str,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Broker, Failure> {
    loop {
        match connect(bootstrap, settings, Arc::clone(clock)).await {
            Err(Failure::Wrong(error)) => {
                tracing::warn!("{error}; waiting for it");
                clock.sleep(ASK_AGAIN).await;
            }
            Err(error) => return Err(error),
            Ok(broker) => return Ok(broker),
        }
    }
}

/// How long the router's topics keep their records.
pub(super) fn router_retentions(settings: &Settings) -> tidings_router::Retentions {
    let mut retentions = tidings_router::Config::default().retention;
    retentions.routed = settings.eventlog_retention;
    retentions
}

/// Opens the log; blocks while it reads, which at the start holds nobody up.
fn open_log(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    sabotage: Sabotage,
    metrics: &mut Metrics,
) -> anyhow::Result<LocalBroker> {
    let config = LocalConfig { sabotage, ..LocalConfig::default() };
    let directory = settings.data.join("log");
    LocalBroker::open(&directory, config, Arc::clone(clock), metrics)
        .with_context(|| format!("cannot open {}", directory.display()))
}

/// The built-in types and those of `events.types`, with the partitions of
/// `events.partitions`.
pub(super) fn catalogue(settings: &Settings) -> anyhow::Result<Catalogue> {
    let mut catalogue = Catalogue::builtin();
    if let Some(directory) = &settings.event_types {
        for (name, text) in files(directory).with_context(|| {
            format!("setting `events.types`: cannot read {}", directory.display())
        })? {
            catalogue = catalogue
                .with_file(&name, &text)
                .with_context(|| format!("setting `events.types`: {}", directory.display()))?;
        }
    }
    catalogue.with_partitions(&settings.event_partitions).context("setting `events.partitions`")
}

/// Checks what the settings name: event types, ladders, issuers, certificates.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    catalogue(settings)?;
    ladders(settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut metrics = Metrics::default();
    let auth_metrics = tidings_auth::Metrics::register(&mut metrics);
    let egress_metrics = tidings_egress::Metrics::register(&mut metrics);
    verifier(settings, None, &clock, (auth_metrics, egress_metrics))?;
    settings.listen.tls.as_ref().map(tls::check).transpose()?;
    open_files::check(&settings.listen)?;
    KafkaConfig::new("", settings.kafka.clone()).try_out()?;
    Ok(())
}

/// The TOML files of a directory, by name.
fn files(directory: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.insert(path.display().to_string(), fs::read_to_string(&path)?);
        }
    }
    Ok(found)
}

/// Armed failpoints and the planted fault, of a test; only under `--dev`.
fn faults(settings: &Settings) -> anyhow::Result<(Option<Arc<Failpoints>>, Sabotage)> {
    let environment = crate::commands::environment();
    let armed = |name: &str| environment.get(name).cloned().unwrap_or_default();
    let (points, sabotage) = (armed("TIDINGS_FAILPOINTS"), armed("TIDINGS_SABOTAGE"));
    if points.is_empty() && sabotage.is_empty() {
        return Ok((None, Sabotage::None));
    }
    if !settings.dev {
        return Err(anyhow!(
            "TIDINGS_FAILPOINTS and TIDINGS_SABOTAGE break the system on purpose and need --dev"
        ));
    }
    let points = Failpoints::parse(&points)?;
    let points = (!points.is_empty()).then(|| Arc::new(points));
    let sabotage = if sabotage.is_empty() {
        Sabotage::None
    } else {
        sabotage.parse().map_err(|error| anyhow!("TIDINGS_SABOTAGE: {error}"))?
    };
    Ok((points, sabotage))
}

fn verifier(
    settings: &Settings,
    local: Option<Arc<VerificationKey>>,
    clock: &Arc<dyn Clock>,
    (metrics, egress_metrics): (tidings_auth::Metrics, tidings_egress::Metrics),
) -> anyhow::Result<Verifier> {
    let external = settings.issuers.iter().map(|issuer| {
        let authorities = match &issuer.ca_file {
            Some(path) => tls::authorities("auth.issuers[].ca_file", Path::new(path))?,
            None => Vec::new(),
        };
        anyhow::Ok(tidings_auth::ExternalIssuer {
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            jwks_url: issuer.jwks_url.clone(),
            certificate_bound: issuer.certificate_bound,
            fetcher: Arc::new(Fetcher::new(authorities, egress_metrics.clone())),
        })
    });
    let external = External {
        issuers: external.collect::<Result<_, _>>()?,
        max_lifetime: settings.external_token_max_ttl,
        clock: Arc::clone(clock),
        metrics,
    };
    let config =
        VerifierConfig { local, external: Some(external), max_lifetime: settings.token_max_ttl };
    Ok(Verifier::new(config)?)
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        allow: settings.egress_allow.clone(),
        deny: settings.egress_deny.clone(),
        allow_http: settings.allow_http,
        ports: settings.ports.clone(),
    }
}

fn ladders(settings: &Settings) -> anyhow::Result<Ladders> {
    let mut ladders = Ladders::default();
    for (name, waits) in &settings.delivery.ladders {
        let ladder = Ladder::new(waits.clone())
            .with_context(|| format!("setting `delivery.ladders.{name}`"))?;
        ladders.define(name, ladder);
    }
    for name in ladders.names() {
        let ladder = ladders.get_or_standard(name);
        let window = ladder.window();
        tracing::info!(
            name,
            attempts = ladder.len(),
            at_least = ?window,
            at_most = ?(window + window / 10),
            "a ladder, and how long it takes from its first attempt to its last"
        );
    }
    Ok(ladders)
}
