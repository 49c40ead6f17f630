//! What a sender is given: the broker, time, randomness, the webhooks, and who
//! makes the attempts.

use std::{collections::BTreeSet, fmt, sync::Arc};

use tidings_broker::Broker;
use tidings_delivery::Suspended;
use tidings_egress::{AttemptReport, Egress, Identity, Request, Target};
use tidings_signing::KeyBook;
use tidings_types::{BoxFuture, Clock, Rng, Sabotage, Slot, WebhookId};
use tokio::sync::watch;

use crate::{metrics::Metrics, webhook::Webhook};

/// The webhooks, as the registry has them.
pub trait Webhooks: Send + Sync + fmt::Debug + 'static {
    /// Reads the registry up to the end that it has now.
    fn fold_to_end(&self) -> BoxFuture<'static, Result<(), WebhooksError>>;

    /// Changes whenever a webhook may have changed.
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// Grows whenever a webhook may have changed: whoever has been told of a change finds
    /// another number here. Costs nothing, so that each attempt can look.
    fn version(&self) -> u64;

    /// The webhooks of a slot, deleted ones until their topic is gone too.
    fn in_slot(&self, slot: Slot) -> Vec<Arc<Webhook>>;

    /// The event types that an operator has stopped.
    fn paused_types(&self) -> BTreeSet<String>;

    /// Proposes to suspend a webhook that is at `version`; `why` stands in the registry
    /// from then on.
    fn suspend(
        &self,
        webhook: WebhookId,
        version: u64,
        why: Suspended,
    ) -> BoxFuture<'static, Result<(), WebhooksError>>;

    /// Says that a deleted webhook's topic is gone.
    fn topic_deleted(
        &self,
        webhook: WebhookId,
        version: u64,
    ) -> BoxFuture<'static, Result<(), WebhooksError>>;
}

/// The registry could not be read or written now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WebhooksError {
    #[error("the registry cannot be reached now; the sender goes on by what it knows")]
    Unavailable,
    #[error("the webhook has changed meanwhile; its present state is looked at again")]
    Conflict,
}

/// Reads the topic of bucket keys to its end.
pub trait BucketKeys: Send + Sync + fmt::Debug + 'static {
    /// True if the topic was read to the end that it had when asked.
    fn fold_to_end(&self) -> BoxFuture<'static, bool>;
}

/// Makes attempts.
pub trait Attempts: Send + Sync + fmt::Debug + 'static {
    fn attempt(&self, request: Request) -> BoxFuture<'static, AttemptReport>;

    /// Whether an endpoint is found now, without a request; `None` if that cannot be said.
    fn look(
        &self,
        target: Arc<Target>,
        identity: Option<Arc<Identity>>,
    ) -> BoxFuture<'static, Option<bool>>;

    /// A webhook's connections are made as somebody else from now on: those that are
    /// kept are closed.
    fn forget(&self, webhook: WebhookId);
}

impl Attempts for Arc<Egress> {
    fn attempt(&self, request: Request) -> BoxFuture<'static, AttemptReport> {
        let egress = Self::clone(self);
        // Named, because this trait has a method of the same name.
        Box::pin(async move { Egress::attempt(&egress, request).await })
    }

    fn look(
        &self,
        target: Arc<Target>,
        identity: Option<Arc<Identity>>,
    ) -> BoxFuture<'static, Option<bool>> {
        let egress = Self::clone(self);
        Box::pin(async move { Egress::look(&egress, &target, identity.as_deref()).await })
    }

    fn forget(&self, webhook: WebhookId) {
        Egress::forget(self, webhook);
    }
}

/// Named steps at which a crash test ends the process.
pub trait Failpoints: Send + Sync + fmt::Debug + 'static {
    fn hit(&self, name: &'static str);
}

/// The parts that a sender works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deps {
    pub broker: Broker,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub webhooks: Arc<dyn Webhooks>,
    pub attempts: Arc<dyn Attempts>,
    pub keys: KeyBook,
    pub bucket_keys: Arc<dyn BucketKeys>,
    /// None in production.
    pub failpoints: Option<Arc<dyn Failpoints>>,
    /// [`Sabotage::None`] in production.
    pub sabotage: Sabotage,
    pub metrics: Metrics,
}

impl Deps {
    pub(crate) fn hit(&self, name: &'static str) {
        if let Some(failpoints) = &self.failpoints {
            failpoints.hit(name);
        }
    }
}
