//! One running Tidings: builds the parts that its roles need, starts them, and
//! ends them in an order in which nobody waits for somebody who has left.
//!
//! Nothing here decides anything about events; this is wiring. All parts can be
//! killed at any time, so the order of the end saves time, never correctness.

mod address;
mod files;
mod key_file;
mod keys;
mod parts;
mod provision;
mod tls;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tidings_api::{ConnectionMetrics, Limits, Serving};
use tidings_broker::LocalBroker;
use tidings_telemetry::{SystemClock, SystemRng};
use tidings_types::Timestamp;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(crate) use address::running_address;
pub(crate) use key_file::{MasterKeyFile, Role};
pub(crate) use keys::{check_data_directory, sign_token};
pub(crate) use parts::{check, connect};
pub(crate) use provision::{TopicState, tight_delivery_topics, wanted_topics};
pub(crate) use tidings_auth::TokenRequest;

use crate::{commands::Failure, settings::Settings};
use parts::Parts;

/// How often the log removes what has expired, and is asked whether it failed.
const MAINTENANCE: Duration = Duration::from_secs(5);

/// Connections at once of the listener of `/metrics` alone.
const METRICS_CONNECTIONS: usize = 64;

/// Which roles run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) routes: bool,
    pub(crate) sends: bool,
    /// Serves the API, with a recorder and a view of its own: every process that
    /// does so is a replica.
    pub(crate) serves: bool,
    /// Whether it waits for a broker that is not there yet.
    pub(crate) waits: bool,
    /// Whether others may find this process by its data directory's address file.
    pub(crate) announces: Announces,
}

/// Who stands in a data directory's address file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announces {
    No,
    /// The directory is this process' own as long as it lives.
    Alone,
    /// It keeps nothing there: several may have the same directory, and one to which it
    /// belongs stands in the file before them.
    Beside,
}

impl Roles {
    /// `tidings serve`.
    pub(crate) const ALL: Self =
        Self { routes: true, sends: true, serves: true, announces: Announces::Alone, ..Self::NONE };
    pub(crate) const ROUTER: Self =
        Self { routes: true, announces: Announces::Beside, ..Self::NONE };
    pub(crate) const SENDER: Self =
        Self { sends: true, announces: Announces::Beside, ..Self::NONE };
    /// `tidings api` and, as it serves the history with the same routes,
    /// `tidings recorder`.
    pub(crate) const API: Self = Self { serves: true, announces: Announces::Alone, ..Self::NONE };
    pub(crate) const RECORDER: Self = Self::API;
    /// A client command on a store that nobody serves: asks, and publishes, but
    /// moves nothing.
    pub(crate) const OFFLINE: Self = Self { serves: true, waits: false, ..Self::NONE };
    const NONE: Self =
        Self { routes: false, sends: false, serves: false, waits: true, announces: Announces::No };
}

/// Tasks that end together, each with its name.
type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

/// A running Tidings.
#[derive(Debug)]
pub(crate) struct App {
    base_url: String,
    shutdown: CancellationToken,
    ready: watch::Receiver<bool>,
    stages: Mutex<Vec<Stage>>,
}

/// Parts that end at the same time. The first stage ends at shutdown, each other
/// one when the one before it has ended.
#[derive(Debug)]
struct Stage {
    stop: CancellationToken,
    tasks: Tasks,
}

impl Stage {
    fn new() -> Self {
        Self { stop: CancellationToken::new(), tasks: JoinSet::new() }
    }

    fn spawn<E>(
        &mut self,
        name: &'static str,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<anyhow::Error> + Send + 'static,
    {
        self.tasks.spawn(async move { (name, run.await.map_err(Into::into)) });
    }
}

impl App {
    /// Opens the data directory and starts what `roles` say. Ends at `shutdown`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a key file or setting that cannot be used, else
    /// [`Failure::Wrong`].
    pub(crate) async fn start(
        settings: Settings,
        roles: Roles,
        shutdown: CancellationToken,
    ) -> Result<Self, Failure> {
        let settings = Arc::new(settings);
        let (started, is_started) = watch::channel(false);
        let (ready, is_ready) = watch::channel(false);
        let tls = settings.listen.tls.clone().map(tls::Tls::open).transpose();
        let tls = tls.map_err(Failure::Usage)?;
        let place = address::Place::of(&settings.data, roles.announces)?;
        place.as_ref().map(address::Place::clear).transpose()?;
        // Bound first: a port that is taken ends the start before anything moves.
        let listener = tokio::net::TcpListener::bind(settings.listen.address)
            .await
            .with_context(|| format!("cannot listen on {}", settings.listen.address))?;
        let metrics_listener = listen_for_metrics(&settings).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let local = listener.local_addr().context("the listener has no address")?;
        let base_url = format!("{scheme}://{local}");

        let mut front = Stage::new();
        let mut view = Stage::new();
        let mut base = Stage::new();
        let current = tls.as_ref().map(tls::Tls::current);
        // While the parts are built, also while the broker is away, it says that it lives.
        let (built, is_built) = watch::channel(None);
        let serving = serving(&settings, roles, current, is_built);
        let connections = serving.metrics.clone();
        front.spawn("api", tidings_api::serve(listener, serving.clone(), front.stop.clone()));
        tracing::info!(%base_url, data = %settings.data.display(), "listening");
        let parts = Parts::build(Arc::clone(&settings), roles, is_started, &connections).await?;
        let Parts {
            local,
            registry,
            registry_task,
            recorder,
            router,
            sender,
            egress,
            verifier,
            http,
            metrics_http,
        } = parts;
        base.spawn("registry", registry_task.run(base.stop.clone()));
        if roles.serves {
            let stop = base.stop.clone();
            base.spawn("registry's age", async move {
                registry.keep_age(stop).await;
                anyhow::Ok(())
            });
        }
        let stop = base.stop.clone();
        base.spawn("issuers' keys", async move {
            verifier.run(stop).await;
            anyhow::Ok(())
        });
        if let Some(local) = local {
            base.spawn("maintenance", maintain(local, base.stop.clone()));
        }
        let log = recorder.as_ref().map(|recorder| recorder.handle().event_log().clone());
        if let Some(recorder) = recorder {
            view.spawn("recorder", recorder.run(view.stop.clone()));
        }
        let router_handle = router.as_ref().map(tidings_router::Service::handle);
        if let Some(router) = router {
            front.spawn("router", router.run(front.stop.clone()));
        }
        if let Some(sender) = sender {
            front.spawn("sender", sender.run(front.stop.clone()));
        }
        let stop = front.stop.clone();
        front.spawn("egress", async move {
            egress.run(stop).await;
            anyhow::Ok(())
        });
        if let Some(listener) = metrics_listener {
            let address = listener.local_addr().context("the listener has no address")?;
            tracing::info!(%address, "listening for metrics");
            let limits = Limits { max_connections: METRICS_CONNECTIONS, ..serving.limits.clone() };
            let serving = Serving { router: metrics_http, limits, ..serving };
            front.spawn("metrics", tidings_api::serve(listener, serving, front.stop.clone()));
        }
        built.send_replace(Some(http));
        if let Some(tls) = tls {
            front.spawn("TLS files", tls.run(front.stop.clone()));
        }
        let announce =
            Announce { ready, started, address: place.map(|place| (place, base_url.clone())) };
        let is_ready_now = move || {
            router_handle.as_ref().is_none_or(tidings_router::Handle::is_ready)
                && log.as_ref().is_none_or(|log| log.status().complete)
        };
        front.spawn("announcement", announce.run(is_ready_now, front.stop.clone()));
        let stages = Mutex::new(vec![front, view, base]);
        Ok(Self { base_url, shutdown, ready: is_ready, stages })
    }

    /// Where the API listens: scheme, address and port.
    pub(crate) fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// Waits until everything runs and history has been read once. For ever if
    /// something fails before: then [`App::run`] ends.
    pub(crate) fn ready(&self) -> impl Future<Output = ()> + use<> {
        let mut ready = self.ready.clone();
        async move {
            if ready.wait_for(|ready| *ready).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs until `shutdown`, then lets every part end in order.
    ///
    /// # Errors
    /// When a part failed: the process should end.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let mut stages = self.stages.lock().await;
        let mut result = Ok(());
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            failure = first_end(&mut stages) => result = Err(failure),
        }
        for stage in stages.iter_mut() {
            stage.stop.cancel();
            while let Some(ended) = stage.tasks.join_next().await {
                let ended = match ended {
                    Ok((name, ended)) => ended.with_context(|| format!("the {name} failed")),
                    Err(error) => Err(anyhow!(error).context("a part of the process broke off")),
                };
                result = result.and(ended);
            }
        }
        result
    }
}

/// What is served until the parts are built, and by which bounds then too. The process
/// takes the files that it may have for that.
fn serving(
    settings: &Settings,
    roles: Roles,
    tls: Option<tidings_api::Tls>,
    is_built: watch::Receiver<Option<tidings_api::Router>>,
) -> Serving {
    let files = files::raise();
    if roles.waits {
        files::warn(&settings.listen, files);
    }
    let rng = Arc::new(SystemRng::new());
    Serving {
        tls,
        router: tidings_api::starting(is_built, rng.clone()),
        limits: Limits {
            max_connections: files::connections(&settings.listen, files),
            max_per_peer: settings.listen.connections_per_peer,
            ..Limits::default()
        },
        metrics: ConnectionMetrics::default(),
        clock: Arc::new(SystemClock),
        rng,
    }
}

/// The listener of `/metrics` alone, if there is to be one.
async fn listen_for_metrics(
    settings: &Settings,
) -> anyhow::Result<Option<tokio::net::TcpListener>> {
    let Some(address) = settings.metrics_listen else { return Ok(None) };
    let listener = tokio::net::TcpListener::bind(address).await;
    listener.map(Some).with_context(|| format!("cannot listen on {address} (metrics.listen)"))
}

/// Waits until a part ends although nobody asked it to.
async fn first_end(stages: &mut [Stage]) -> anyhow::Error {
    // A single role leaves a stage empty.
    let running = stages.iter_mut().filter(|stage| !stage.tasks.is_empty());
    let ends = running.map(|stage| Box::pin(stage.tasks.join_next()));
    let (ended, _, _) = futures::future::select_all(ends).await;
    match ended {
        Some(Ok((name, Err(error)))) => error.context(format!("the {name} failed")),
        Some(Ok((name, Ok(())))) => anyhow!("the {name} ended by itself"),
        Some(Err(error)) => anyhow!(error).context("a part of the process broke off"),
        None => anyhow!("nothing runs"),
    }
}

/// Says when all is ready.
struct Announce {
    ready: watch::Sender<bool>,
    started: watch::Sender<bool>,
    /// The data directory, and the address for its address file.
    address: Option<(address::Place, String)>,
}

impl Announce {
    /// How often the parts are asked.
    const POLL: Duration = Duration::from_millis(5);

    async fn run(
        self,
        is_ready: impl Fn() -> bool + Send,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Self::POLL);
        while !is_ready() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
        }
        self.started.send_replace(true);
        let file = match &self.address {
            Some((place, base_url)) => place.write(base_url)?,
            None => None,
        };
        self.ready.send_replace(true);
        stop.cancelled().await;
        if let Some(file) = file {
            file.remove()?;
        }
        Ok(())
    }
}

/// Lets the log remove what has expired, and ends when it has failed for good.
async fn maintain(broker: LocalBroker, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(MAINTENANCE);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        while broker.maintain().await.more && !stop.is_cancelled() {}
        if let Some(why) = broker.failure() {
            return Err(anyhow!(
                "the log failed for good ({why}); repair its disk and start again"
            ));
        }
    }
}

/// The time now, for what has no clock handed in.
pub(crate) fn system_now() -> Timestamp {
    use tidings_types::Clock as _;
    SystemClock.now()
}
