//! Delivery topics. The API alone makes them, before the registry names the
//! webhook, so that a webhook in the registry always has its topic (design §5).

use std::time::Duration;

use tidings_broker::{Retention, TopicError, TopicSpec};
use tidings_catalogue::Catalogue;
use tidings_types::{Lane, TopicName, WebhookId, names};

use crate::{commands::unavailable, errors::ApiError, state::State};

/// How long a new topic may take until every broker knows it.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// How many partitions a webhook needs that wants these events: the second one is
/// the urgent lane's.
pub(crate) fn partitions<'n>(
    events: impl IntoIterator<Item = &'n str>,
    catalogue: &Catalogue,
) -> u32 {
    let urgent = events
        .into_iter()
        .filter_map(|name| catalogue.get(name))
        .any(|kind| kind.lane() == Lane::Urgent);
    if urgent { Lane::Urgent.partition() + 1 } else { 1 }
}

/// Makes the delivery topic of a new webhook and waits until it can be written.
///
/// # Errors
/// 503 when the broker does not make it.
pub(crate) async fn make(
    state: &State,
    webhook: WebhookId,
    partitions: u32,
) -> Result<(), ApiError> {
    let name = names::delivery(webhook);
    let spec = TopicSpec {
        name: name.clone(),
        partitions,
        retention: Retention::Forever,
        erase_buckets: None,
    };
    match state.deps.broker.create_topic(spec).await {
        Ok(()) | Err(TopicError::Exists(_)) => wait(state, &name, partitions).await,
        Err(error) => Err(failed(&name, &error)),
    }
}

/// Adds the urgent lane's partition and waits until it can be written.
///
/// # Errors
/// 503 when the broker does not add it.
pub(crate) async fn widen(
    state: &State,
    webhook: WebhookId,
    partitions: u32,
) -> Result<(), ApiError> {
    let name = names::delivery(webhook);
    match state.deps.broker.add_partitions(&name, partitions).await {
        Ok(()) => wait(state, &name, partitions).await,
        Err(error) => Err(failed(&name, &error)),
    }
}

/// Takes back a topic whose webhook was refused. If that fails, the topic is
/// removed later: it is empty and belongs to nobody.
pub(crate) async fn take_back(state: &State, webhook: WebhookId) {
    let name = names::delivery(webhook);
    if let Err(error) = state.deps.broker.delete_topic(&name).await {
        tracing::warn!(topic = %name, %error, "an unused delivery topic stays for now");
    }
}

async fn wait(state: &State, name: &TopicName, partitions: u32) -> Result<(), ApiError> {
    let known = async {
        loop {
            match state.deps.broker.describe(name).await {
                Ok(topic) if topic.partitions >= partitions => return Ok(()),
                Ok(_) | Err(TopicError::Unknown(_)) => state.deps.clock.sleep(PAUSE).await,
                Err(error) => return Err(failed(name, &error)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap_or_else(|_late| Err(unavailable()))
}

fn failed(name: &TopicName, error: &TopicError) -> ApiError {
    tracing::warn!(topic = %name, %error, "a delivery topic could not be made");
    unavailable()
}
