//! The vocabulary of Tidings: ids, times, names of topics, tenants, lanes,
//! outcomes and reasons.
//!
//! The types here carry meaning and nothing else: no I/O, no clock, no
//! randomness, no serialisation. Every other crate speaks in them.

mod aad;
mod clock;
mod delivery;
mod ids;
mod lane;
mod sabotage;
mod tenant;
mod time;
mod topic;

pub use aad::{body_aad, otp_aad, quarantine_aad, snippet_aad};
pub use clock::{BoxFuture, Clock, Rng};
pub use delivery::{
    AttemptCode, EndReason, FilterReason, NotificationState, Ordering, QuarantineCode, Shape,
    StuckKey, WebhookStatus,
};
pub use ids::{
    EventUid, HookOwner, IdError, NotificationId, RunId, TraceId, WebhookId, is_opaque_id,
};
pub use lane::Lane;
pub use sabotage::Sabotage;
pub use tenant::{IssuerId, MerchantKey, PmId, ProductId, Scope};
pub use time::{Instant, Timestamp};
pub use topic::{
    OUTCOME_PARTITIONS, Offset, Partition, ROUTED_PARTITIONS, SLOTS, Slot, TopicName,
    TopicPartition, names,
};
