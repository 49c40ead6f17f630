//! Changing a webhook or hook that exists: read, edit, widen its topic if it now
//! wants an urgent type, propose; once more if another change came first.

use std::sync::Arc;

use tidings_registry::{Change, EntityKey, ProposeError, Snapshot, State as Entity, Webhook};
use tidings_types::WebhookId;

use super::{check_if_match, place};
use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::{Call, Request},
    errors::{ApiError, Code},
    state::State,
    topics,
};

/// How often a change is tried again: how many others may come first.
pub(crate) const TRIES: usize = 64;

/// Changes the webhook of a call.
///
/// # Errors
/// What `edit` refuses; `PRECONDITION_FAILED`; `DUPLICATE_WEBHOOK`.
pub(crate) async fn change(
    call: &Call<'_>,
    edit: impl Fn(&Snapshot, &Webhook) -> Result<Webhook, ApiError>,
) -> Result<Arc<Webhook>, ApiError> {
    let webhook = super::find(call).await?;
    save(call.state, call.request, webhook.id, Code::WebhookNotRegistered, edit).await
}

/// Changes the webhook or hook `id`.
///
/// # Errors
/// As [`change`], and `missing` if it is gone.
pub(crate) async fn save(
    state: &State,
    request: &Request,
    id: WebhookId,
    missing: Code,
    edit: impl Fn(&Snapshot, &Webhook) -> Result<Webhook, ApiError>,
) -> Result<Arc<Webhook>, ApiError> {
    let per_scope = state.config.webhooks_per_scope;
    for _ in 0..TRIES {
        let decide = |snapshot: &Arc<Snapshot>| {
            let current = snapshot.webhooks.get(&id).ok_or_else(|| ApiError::new(missing))?;
            let conditional = check_if_match(&request.headers, current.version)?;
            let mut next = edit(snapshot, current)?;
            next.modified = state.now();
            let claims = place::names(&next, snapshot, per_scope)?;
            Ok((current.version, conditional, next, claims))
        };
        let (expected_version, conditional, mut next, claims) = state.decide(decide).await?;
        let wanted =
            topics::partitions(next.events.iter().map(AsRef::as_ref), &state.deps.catalogue);
        if wanted > next.partitions {
            topics::widen(state, id, wanted).await?;
            next.partitions = wanted;
        }
        let proposed = Change {
            entity: EntityKey::new("webhook", id),
            expected_version,
            claims,
            command: None,
            actor: request.caller.subject.clone(),
            trace: request.trace.as_str().to_owned(),
            state: Entity::Webhook(Box::new(next)),
        };
        match state.deps.registry.propose(proposed).await {
            Ok(accepted) => {
                let saved = accepted.snapshot.webhooks.get(&id).map(Arc::clone);
                return saved.ok_or_else(|| ApiError::new(missing));
            }
            Err(ProposeError::VersionConflict { .. }) if conditional => {
                return Err(ApiError::at(Code::PreconditionFailed, "If-Match"));
            }
            Err(ProposeError::VersionConflict { .. } | ProposeError::Claimed { .. }) => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(unavailable())
}

/// Deletes a webhook or hook: its history is no longer addressable, what is queued
/// is cancelled by its owner, and its scope is free at once.
///
/// # Errors
/// `PRECONDITION_FAILED`, `missing` if another request was first.
pub(crate) async fn delete(
    state: &State,
    request: &Request,
    id: WebhookId,
    missing: Code,
) -> Result<Answer, ApiError> {
    for _ in 0..TRIES {
        let decide = |snapshot: &Arc<Snapshot>| {
            let current = snapshot.webhooks.get(&id).ok_or_else(|| ApiError::new(missing))?;
            Ok((current.version, check_if_match(&request.headers, current.version)?))
        };
        let (expected_version, conditional) = state.decide(decide).await?;
        let proposed = Change {
            entity: EntityKey::new("webhook", id),
            expected_version,
            claims: Vec::new(),
            command: None,
            actor: request.caller.subject.clone(),
            trace: request.trace.as_str().to_owned(),
            state: Entity::Deleted { topic_deleted: false, at: state.now() },
        };
        match state.deps.registry.propose(proposed).await {
            Ok(_accepted) => return Ok(Answer::no_content()),
            Err(ProposeError::VersionConflict { .. }) if conditional => {
                return Err(ApiError::at(Code::PreconditionFailed, "If-Match"));
            }
            Err(ProposeError::VersionConflict { .. }) => {}
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(unavailable())
}

/// What a refused change of a webhook is to a client.
pub(crate) fn refused(error: &ProposeError) -> ApiError {
    match error {
        ProposeError::Claimed { .. } => ApiError::at(Code::DuplicateWebhook, "productId"),
        ProposeError::Repeated { same_body: false, .. } => crate::commands::reused(),
        ProposeError::Repeated { same_body: true, .. }
        | ProposeError::VersionConflict { .. }
        | ProposeError::Unavailable
        | ProposeError::Unknown => unavailable(),
    }
}
