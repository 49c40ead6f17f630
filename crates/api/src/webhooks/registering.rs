//! Registering a webhook or hook: its topic first, then the entity, and the
//! answer of a command kept for its repeat.

use std::sync::Arc;

use tidings_registry::{
    Accepted, Change, EntityKey, ProposeError, Snapshot, State as Entity, Webhook,
};
use tidings_types::WebhookId;

use super::{
    change::{TRIES, refused},
    place,
};
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
    let snapshot = state.registry_end().await?;
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
    let version = command.version(&state.deps.registry.snapshot());
    let kept = command.keep(state, request, version, answer.into(), Vec::new(), Stage::Done);
    if let Err(error) = kept.await {
        tracing::warn!(%error, "the answer of a command was not kept");
    }
}

/// Registers a webhook or hook: makes its topic and proposes it. The same command
/// may have made it before, and its answer was not kept: then it is that one, as
/// it is now.
///
/// # Errors
/// `DUPLICATE_WEBHOOK`, `IDEMPOTENCY_KEY_REUSED`, 503.
pub(crate) async fn register(
    state: &State,
    request: &Request,
    webhook: Webhook,
    command: Option<&Command>,
) -> Result<(Arc<Webhook>, Arc<Snapshot>), ApiError> {
    let registry = &state.deps.registry;
    if let Some(command) = command {
        let snapshot = registry.snapshot();
        if let Some(entity) = command.made(&snapshot)? {
            return made_before(&entity, snapshot);
        }
    }
    let (id, per_scope) = (webhook.id, state.config.webhooks_per_scope);
    let mut claims = state.decide(|snapshot| place::names(&webhook, snapshot, per_scope)).await?;
    topics::make(state, id, webhook.partitions).await?;
    for _ in 0..TRIES {
        let change = Change {
            entity: EntityKey::new("webhook", id),
            expected_version: 0,
            claims,
            command: command.map(Command::reference),
            actor: request.caller.subject.clone(),
            trace: request.trace.as_str().to_owned(),
            state: Entity::Webhook(Box::new(webhook.clone())),
        };
        let error = match registry.propose(change).await {
            Ok(Accepted { snapshot, .. }) => return found(id, snapshot),
            Err(error) => error,
        };
        let next = match error {
            // The change may stand, and then the topic is needed.
            ProposeError::Unknown | ProposeError::Unavailable => return Err(refused(&error)),
            // Another one took the place first.
            ProposeError::Claimed { .. } => place::names(&webhook, &registry.snapshot(), per_scope),
            ProposeError::Repeated { entity, same_body: true } => {
                topics::take_back(state, id).await;
                return made_before(&entity, registry.snapshot());
            }
            ProposeError::Repeated { same_body: false, .. }
            | ProposeError::VersionConflict { .. } => Err(refused(&error)),
        };
        match next {
            Ok(names) => claims = names,
            Err(refusal) => {
                topics::take_back(state, id).await;
                return Err(refusal);
            }
        }
    }
    topics::take_back(state, id).await;
    Err(commands::unavailable())
}

fn made_before(
    entity: &EntityKey,
    snapshot: Arc<Snapshot>,
) -> Result<(Arc<Webhook>, Arc<Snapshot>), ApiError> {
    let id = entity.as_str().strip_prefix("webhook/").and_then(|id| id.parse::<WebhookId>().ok());
    found(id.ok_or(Code::WebhookNotRegistered)?, snapshot)
}

fn found(
    id: WebhookId,
    snapshot: Arc<Snapshot>,
) -> Result<(Arc<Webhook>, Arc<Snapshot>), ApiError> {
    let webhook = snapshot.webhooks.get(&id).map(Arc::clone).ok_or(Code::WebhookNotRegistered)?;
    Ok((webhook, snapshot))
}
