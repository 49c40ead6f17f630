//! How many webhooks one scope may have. Each holds a name that says which of the
//! scope's places it has, and nobody else can hold that name: however many are
//! registered at once, there are never more than places.

use tidings_registry::{EntityKey, Snapshot, Webhook};
use tidings_types::{HookOwner, Scope};

use crate::errors::{ApiError, Code};

/// The names that `webhook` has to claim: those that it holds, or that of a free
/// place of its scope. Merchants' hooks are not counted.
///
/// # Errors
/// `DUPLICATE_WEBHOOK` if the scope is full.
pub(crate) fn names(
    webhook: &Webhook,
    snapshot: &Snapshot,
    per_scope: usize,
) -> Result<Vec<String>, ApiError> {
    let owner = match &webhook.owner {
        HookOwner::Client(Scope::Issuer(id)) => format!("issuer:{id}"),
        HookOwner::Client(Scope::ProgrammeManager(id)) => format!("pm:{id}"),
        HookOwner::Merchant(_) | HookOwner::Operator => return Ok(Vec::new()),
    };
    let product = webhook.product.as_ref().map_or("", |product| product.0.as_ref());
    let scope = format!("scope/{owner}/{product}");
    // It stays where it is, also if fewer are allowed by now.
    let held = snapshot.names_of(&EntityKey::new("webhook", webhook.id));
    if held.iter().any(|name| is_of(name, &scope)) {
        return Ok(held.to_vec());
    }
    let full = || ApiError::at(Code::DuplicateWebhook, "productId");
    let beside = snapshot.webhooks.values().filter(|other| {
        other.id != webhook.id && other.owner == webhook.owner && other.product == webhook.product
    });
    if beside.count() >= per_scope {
        return Err(full());
    }
    // Webhooks that come at once look from different places on.
    let first = usize::try_from(webhook.slot.0).unwrap_or(0);
    let mut places = (0..per_scope).map(|step| match (first + step) % per_scope {
        0 => scope.clone(),
        place => format!("{scope}/{place}"),
    });
    let free = places.find(|name| snapshot.claimed_by(name).is_none()).ok_or_else(full)?;
    Ok(vec![free])
}

/// Whether `name` is a place of `scope`.
fn is_of(name: &str, scope: &str) -> bool {
    name.strip_prefix(scope).is_some_and(|place| place.is_empty() || place.starts_with('/'))
}
