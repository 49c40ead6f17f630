//! Topics, partitions, offsets, slots, and the names that design §2 fixes.

use std::{fmt, sync::Arc};

use crate::WebhookId;

/// The number of slots, for ever (design §2).
pub const SLOTS: u32 = 128;
/// Partitions of `tidings.outcomes`: slot mod 16, for ever.
pub const OUTCOME_PARTITIONS: u32 = 16;
/// Partitions of `tidings.routed`.
pub const ROUTED_PARTITIONS: u32 = 12;

pub type Partition = u32;
pub type Offset = u64;

/// The name of a topic: `[a-zA-Z0-9._-]{1,249}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether brokers accept this name.
    pub fn is_legal(name: &str) -> bool {
        (1..=249).contains(&name.len())
            && name != "."
            && name != ".."
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// One partition of one topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: Partition,
}

impl TopicPartition {
    pub fn new(topic: impl Into<TopicName>, partition: Partition) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl From<&Self> for TopicName {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the [`SLOTS`]: a share of the webhooks that one sender owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot of a webhook, given SHA-256 of its 16 bytes (design §5).
    pub fn from_digest(sha256_of_webhook_id: &[u8; 32]) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&sha256_of_webhook_id[..8]);
        let slot = u64::from_be_bytes(first) % u64::from(SLOTS);
        Self(u32::try_from(slot).unwrap_or(0))
    }

    /// The partition of `tidings.outcomes` that this slot's outcomes go to.
    pub const fn outcome_partition(self) -> Partition {
        self.0 % OUTCOME_PARTITIONS
    }
}

/// The names that design §2 fixes.
pub mod names {
    use super::{Arc, TopicName, WebhookId};

    pub const EVENTS_PREFIX: &str = "tidings.events.";
    pub const DELIVERY_PREFIX: &str = "tidings.delivery.";
    pub const ROUTED: &str = "tidings.routed";
    pub const OUTCOMES: &str = "tidings.outcomes";
    pub const SLOTS: &str = "tidings.slots";
    pub const REGISTRY: &str = "tidings.registry";
    pub const KEYS: &str = "tidings.keys";
    pub const FRAUD_RESPONSES: &str = "tidings.fraud-responses";
    pub const QUARANTINE: &str = "tidings.quarantine";

    /// `tidings.events.<type>`; the type is `101`, `transaction.sale.success` or `ops`.
    pub fn events(event_type: &str) -> TopicName {
        TopicName(Arc::from(format!("{EVENTS_PREFIX}{event_type}")))
    }

    /// `tidings.delivery.<webhook>`.
    pub fn delivery(webhook: WebhookId) -> TopicName {
        TopicName(Arc::from(format!("{DELIVERY_PREFIX}{webhook}")))
    }

    /// The webhook of a delivery topic's name.
    pub fn delivery_webhook(topic: &TopicName) -> Option<WebhookId> {
        topic.as_str().strip_prefix(DELIVERY_PREFIX)?.parse().ok()
    }
}
