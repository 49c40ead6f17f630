//! Digests and the ids made of them (design §4, §5).

use aws_lc_rs::{digest, hmac};
use tidings_types::{EventUid, NotificationId, Slot, WebhookId};

/// SHA-256 over the parts, one behind the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The id of one event for one webhook: the same on any router at any time, and
/// not to be guessed without the deployment's id key.
pub fn notification_id(id_key: &[u8; 32], uid: EventUid, webhook: WebhookId) -> NotificationId {
    let key = hmac::Key::new(hmac::HMAC_SHA256, id_key);
    let mut context = hmac::Context::with_key(&key);
    context.update(&uid.0);
    context.update(webhook.as_bytes());
    let tag = context.sign();
    let mut first = [0; 16];
    first.copy_from_slice(&tag.as_ref()[..16]);
    NotificationId::from_digest(first)
}

/// The slot of a webhook.
pub fn slot(webhook: WebhookId) -> Slot {
    Slot::from_digest(&sha256(&[webhook.as_bytes()]))
}
