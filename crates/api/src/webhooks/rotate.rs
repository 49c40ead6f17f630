//! `POST /Webhooks/{webhookId}/signingSecret/rotate`: a new signing secret, beside
//! which the older ones go on signing for a while, so that the client can change
//! over without losing a notification.

use std::time::Duration;

use tidings_registry::{HookSettings, SigningSecret, Webhook};
use tidings_signing::{AsymmetricKey, WebhookSecret};

use super::{change, shape};
use crate::{
    answer::Answer,
    dispatch::Call,
    errors::{ApiError, Code},
    input::{self, Object},
    state::State,
};

/// How long the older secrets go on signing when the request does not say.
const GRACE_HOURS: u32 = 24;
/// 30 days.
const MAX_GRACE_HOURS: u32 = 720;
/// Secrets that sign at the same time. Every one adds to each request's head.
const MAX_LIVE: usize = 8;

/// Makes a new secret, which the answer shows once.
pub(crate) async fn rotate(call: &Call<'_>) -> Result<Answer, ApiError> {
    super::find(call).await?;
    let state = call.state;
    let grace = read(&call.request.body)?;
    let fresh: [u8; 32] = state.random();
    let edited = change::change(call, |_, webhook| {
        let now = state.now();
        let mut next = webhook.clone();
        next.signing_secrets.retain(|secret| secret.not_after.is_none_or(|end| end > now));
        let retires = now + grace;
        for secret in &mut next.signing_secrets {
            let end = secret.not_after.map_or(retires, |end| end.min(retires));
            secret.not_after = Some(end);
        }
        next.signing_secrets.retain(|secret| secret.not_after.is_none_or(|end| end > now));
        if next.signing_secrets.len() >= MAX_LIVE {
            let first = next.signing_secrets.iter().filter_map(|secret| secret.not_after).min();
            let wait = first.map_or(0, |end| end.since(now).as_secs()).saturating_add(1);
            let seconds = u32::try_from(wait).unwrap_or(u32::MAX);
            return Err(ApiError::new(Code::RateLimited).retry_after(seconds));
        }
        next.signing_secrets.push(SigningSecret {
            id: number_after(webhook).to_string(),
            secret: WebhookSecret::from_bytes(&fresh),
            asymmetric: None,
            not_after: None,
        });
        ensure_asymmetric(state, &mut next);
        Ok(next)
    })
    .await?;
    let snapshot = state.deps.registry.snapshot();
    let shape = shape::rotated(&edited, &snapshot, &state.config);
    Ok(Answer::ok(&shape).etag(edited.version))
}

/// Gives the newest secret its Ed25519 key if the webhook wants `v1a`.
pub(crate) fn ensure_asymmetric(state: &State, webhook: &mut Webhook) {
    if !signs_v1a(&webhook.settings) {
        return;
    }
    if let Some(newest) = webhook.signing_secrets.last_mut() {
        newest.asymmetric.get_or_insert_with(|| AsymmetricKey::from_seed(&state.random()));
    }
}

/// Whether requests carry `v1a`.
pub(crate) fn signs_v1a(settings: &HookSettings) -> bool {
    settings.signatures.iter().any(|scheme| scheme == "v1a")
}

/// Secrets are numbered from 1; a number is never given twice.
fn number_after(webhook: &Webhook) -> u32 {
    let numbers = webhook.signing_secrets.iter().filter_map(|secret| secret.id.parse().ok());
    numbers.max().unwrap_or(0_u32).saturating_add(1)
}

fn read(body: &[u8]) -> Result<Duration, ApiError> {
    let hours = if body.is_empty() {
        None
    } else {
        let document = input::parse(body)?;
        let mut faults = Vec::new();
        let object = Object::take(document.root(), &["graceHours"], &mut faults);
        let hours =
            object.and_then(|object| object.number("graceHours", 0, MAX_GRACE_HOURS, &mut faults));
        ApiError::check(faults)?;
        hours
    };
    Ok(Duration::from_secs(3600) * hours.unwrap_or(GRACE_HOURS))
}
