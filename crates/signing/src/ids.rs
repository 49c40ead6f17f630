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

/// The ids of one event for its webhooks: the same on any router at any time, and not
/// to be guessed without the deployment's id key.
///
/// The first half of an id is a keyed digest of the event, the second one of event and
/// webhook. So the ids of one event stand side by side wherever ids are sorted, and
/// what becomes of its notifications can be kept together.
#[derive(Debug)]
pub struct NotificationIds {
    key: hmac::Key,
    uid: EventUid,
    event: [u8; 8],
}

impl NotificationIds {
    pub fn new(id_key: &[u8; 32], uid: EventUid) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, id_key);
        let event = eight(&hmac::sign(&key, &uid.0));
        Self { key, uid, event }
    }

    /// The id for a webhook.
    pub fn of(&self, webhook: WebhookId) -> NotificationId {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&self.uid.0);
        context.update(webhook.as_bytes());
        let mut digest = [0; 16];
        let (event, both) = digest.split_at_mut(8);
        event.copy_from_slice(&self.event);
        both.copy_from_slice(&eight(&context.sign()));
        NotificationId::from_digest(digest)
    }
}

/// The start of a tag.
fn eight(tag: &hmac::Tag) -> [u8; 8] {
    let mut start = [0; 8];
    start.copy_from_slice(&tag.as_ref()[..8]);
    start
}

/// The slot of a webhook.
pub fn slot(webhook: WebhookId) -> Slot {
    Slot::from_digest(&sha256(&[webhook.as_bytes()]))
}
