//! One process: a router and a sender with a registry of their own. It can be
//! killed, stopped, or put to sleep.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry as Metrics;
use tidings_delivery::{Ladder, Ladders, Limits, Pace, SuspendRules};
use tidings_egress::Policy;
use tidings_sender::{RegistryWebhooks, RegistryWebhooksConfig};
use tidings_types::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    hang::Hang,
    plan::LADDER,
    world::{Folded, World},
};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) routes: bool,
    pub(crate) sends: bool,
}

impl Roles {
    pub(crate) const BOTH: Self = Self { routes: true, sends: true };
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) number: u64,
    pub(crate) roles: Roles,
    pub(crate) sender_hang: Hang,
    pub(crate) router_hang: Hang,
    stop: CancellationToken,
    folded: Folded,
    tasks: JoinSet<()>,
}

impl Node {
    pub(crate) async fn start(world: &World, number: u64, roles: Roles) -> anyhow::Result<Self> {
        let folded = world.fold().await?;
        let mut node = Self {
            number,
            roles,
            sender_hang: Hang::default(),
            router_hang: Hang::default(),
            stop: CancellationToken::new(),
            folded,
            tasks: JoinSet::new(),
        };
        if roles.routes {
            let service = node.router(world);
            let (stop, ended) = (node.stop.clone(), Arc::clone(&world.ended));
            node.tasks.spawn(async move {
                if let Err(error) = Box::pin(service.run(stop)).await {
                    ended.lock().push(format!("router {number} ended: {error}"));
                }
            });
        }
        if roles.sends {
            let service = node.sender(world)?;
            let (stop, ended) = (node.stop.clone(), Arc::clone(&world.ended));
            let run = node.sender_hang.clone().around(Box::pin(service.run(stop)));
            node.tasks.spawn(async move {
                if let Err(error) = run.await {
                    ended.lock().push(format!("sender {number} ended: {error}"));
                }
            });
        }
        Ok(node)
    }

    /// Ends it as `kill -9` would.
    pub(crate) async fn kill(mut self) -> Vec<String> {
        let broken = self.broken();
        self.tasks.shutdown().await;
        self.folded.tasks.shutdown().await;
        broken
    }

    /// Asks it to end, as `SIGTERM` would; it goes on until it is done.
    pub(crate) fn stop(&self) {
        self.resume();
        self.stop.cancel();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(crate) fn resume(&self) {
        self.sender_hang.resume();
        self.router_hang.resume();
    }

    /// Whether all its services have ended.
    pub(crate) fn has_ended(&mut self) -> (bool, Vec<String>) {
        let broken = self.broken();
        (self.tasks.is_empty(), broken)
    }

    /// Tasks that broke off.
    fn broken(&mut self) -> Vec<String> {
        let mut broken = Vec::new();
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                broken.push(format!("a service of process {} broke off: {error}", self.number));
            }
        }
        broken
    }

    fn router(&self, world: &World) -> tidings_router::Service {
        let config = tidings_router::Config {
            session: world.plan.session,
            commit_interval: world.plan.commit_interval,
            append_bytes: 4 << 10,
            drain: Duration::from_secs(2),
            ..tidings_router::Config::default()
        };
        let hang = self.router_hang.clone();
        let failpoints = tidings_router::Failpoints::new(move |_step| {
            let held = hang.is_hung().then(|| hang.clone().free());
            held.map(|free| -> BoxFuture<'static, ()> { Box::pin(free) })
        });
        let deps = tidings_router::Deps {
            broker: world.broker(),
            clock: world.clock(),
            rng: world.rng(),
            registry: self.folded.registry.clone(),
            keyring: world.ring.clone(),
            keys: self.folded.keys.clone(),
            catalogue: world.catalogue.clone(),
            metrics: tidings_router::Metrics::register(&mut Metrics::default()),
            sabotage: world.sabotage,
            failpoints,
        };
        tidings_router::Service::build(config, deps)
    }

    fn sender(&self, world: &World) -> anyhow::Result<tidings_sender::Service> {
        let mut ladders = Ladders::default();
        ladders.define("sim", Ladder::new(LADDER.map(Duration::from_millis).to_vec())?);
        let config = tidings_sender::Config {
            session: world.plan.session,
            checkpoint_interval: world.plan.checkpoint_interval,
            idle_mark: Duration::from_secs(5),
            ladders,
            limits: Limits {
                suspend: SuspendRules {
                    suspend_after: world.plan.suspend_after,
                    gone_count: 3,
                    gone_gap: Duration::from_secs(1),
                },
                pace: Pace::quick(),
                sabotage: world.sabotage,
                ..Limits::default()
            },
            part_entries: world.plan.part_entries,
            trim_records: 1,
            grace: Duration::from_secs(2),
            ..tidings_sender::Config::default()
        };
        let webhooks = RegistryWebhooks::new(
            self.folded.registry.clone(),
            RegistryWebhooksConfig {
                policy: Policy::dev(),
                user_agent: "sim".to_owned(),
                default_ladder: "sim".to_owned(),
                merchant_ladder: "sim".to_owned(),
            },
        );
        let deps = tidings_sender::Deps {
            broker: world.broker(),
            clock: world.clock(),
            rng: world.rng(),
            webhooks: Arc::new(webhooks),
            attempts: Arc::new(world.endpoints.clone()),
            keys: self.folded.keys.book().clone(),
            bucket_keys: Arc::new(Arc::new(self.folded.keys.clone())),
            failpoints: None,
            sabotage: world.sabotage,
            metrics: tidings_sender::Metrics::register(&mut Metrics::default()),
        };
        Ok(tidings_sender::Service::build(config, deps))
    }
}
