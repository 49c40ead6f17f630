//! Registering a webhook or hook: its topic first, then the entity, and the
//! answer of a command kept for its repeat.

use std::sync::Arc;

use tidings_registry::{
    Accepted, Change, EntityKey, ProposeError, Snapshot, State as Entity, Webhook,
};
use tidings_types::WebhookId;

use super::change::refused;
use crate::{
    answer::Answer,
    commands::{self, Command, Known, Stage},
    dispatch::Request,
    errors::{ApiError, Code},
    state::State,
    topics,
};

/// The first answer of a command that was done before.
///
/// # Errors
/// `IDEMPOTENCY_KEY_REUSED`; 503 if the registry cannot be read to its end, for
/// then nobody knows whether it was done.
pub(crate) async fn replayed(
    state: &State,
    command: Option<&Command>,
) -> Result<Option<Answer>, ApiError> {
    let Some(command) = command else { return Ok(None) };
    let snapshot =
        state.deps.registry.fold_to_end().await.map_err(|_error| commands::unavailable())?;
    match command.look_up(&snapshot, state.now())? {
        Known::Done(record) => Ok(Some(commands::replay(&record))),
        Known::New | Known::Begun(_) => Ok(None),
    }
}

/// Keeps a first answer. If that fails, a repeat still finds the entity that the
/// command made and answers with it as it is then.
pub(crate) async fn remember(
    state: &State,
    request: &Request,
    command: Option<&Command>,
    answer: &Answer,
) {
    let Some(command) = command else { return };
    let kept = (answer.status(), answer.body().to_vec());
    if let Err(error) = command.keep(state, request, kept, Vec::new(), Stage::Done).await {
        tracing::warn!(%error, "the answer of a command was not kept");
    }
}

/// A webhook or hook to register.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) webhook: Webhook,
    pub(crate) claims: Vec<String>,
    pub(crate) command: Option<Command>,
}

/// How a webhook came to be registered.
#[derive(Debug)]
pub(crate) enum Registered {
    Now(Arc<Webhook>, Arc<Snapshot>),
    /// The same command made it before; its answer was not kept.
    Before(Arc<Webhook>, Arc<Snapshot>),
}

/// Makes the topic and proposes the webhook.
///
/// # Errors
/// `DUPLICATE_WEBHOOK`, `IDEMPOTENCY_KEY_REUSED`, 503.
pub(crate) async fn register(
    state: &State,
    request: &Request,
    proposal: Proposal,
) -> Result<Registered, ApiError> {
    let id = proposal.webhook.id;
    topics::make(state, id, proposal.webhook.partitions).await?;
    let change = Change {
        entity: EntityKey::new("webhook", id),
        expected_version: 0,
        claims: proposal.claims,
        command: proposal.command.as_ref().map(Command::reference),
        actor: request.caller.subject.clone(),
        trace: request.trace.as_str().to_owned(),
        state: Entity::Webhook(Box::new(proposal.webhook)),
    };
    match state.deps.registry.propose(change).await {
        Ok(Accepted { snapshot, .. }) => match snapshot.webhooks.get(&id) {
            Some(webhook) => Ok(Registered::Now(Arc::clone(webhook), snapshot)),
            None => Err(Code::WebhookNotRegistered.into()),
        },
        // The change may stand, and then the topic is needed.
        Err(error @ (ProposeError::Unknown | ProposeError::Unavailable)) => Err(refused(&error)),
        Err(error) => {
            topics::take_back(state, id).await;
            made_before(state, &error)
        }
    }
}

fn made_before(state: &State, error: &ProposeError) -> Result<Registered, ApiError> {
    let ProposeError::Repeated { entity, same_body: true } = error else {
        return Err(refused(error));
    };
    let snapshot = state.deps.registry.snapshot();
    let id = entity.as_str().strip_prefix("webhook/").and_then(|id| id.parse::<WebhookId>().ok());
    let webhook = id.and_then(|id| snapshot.webhooks.get(&id)).map(Arc::clone);
    match webhook {
        Some(webhook) => Ok(Registered::Before(webhook, snapshot)),
        None => Err(Code::WebhookNotRegistered.into()),
    }
}
