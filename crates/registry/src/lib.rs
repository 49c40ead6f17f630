//! The registry: issuers, programme managers, products, merchants, webhooks,
//! configurations, the deployment's id key, and the answers kept for repeated
//! commands.
//!
//! Every process folds the topic `tidings.registry` into an immutable
//! [`Snapshot`]; [`Registry::propose`] is the only writer of that topic. A record
//! is the whole new state of one entity, and the fold accepts it if and only if
//! the entity is at the version that the record expects and no other entity holds
//! a name that it claims (design §2). What a client may ask for is checked by
//! whoever proposes, never here.
//!
//! [`KeysTopic`] keeps the short-lived keys of one-time codes in `tidings.keys`.

mod entity;
mod fold;
mod keys_topic;
mod metrics;
mod proposals;
mod sealing;
mod service;
mod shards;
mod snapshot;
mod tenants;

pub use entity::{
    Basic, ClientCertificate, CommandRecord, Configuration, CustomHeader, EntityKey, HookSettings,
    HookSignature, IdKey, Issuer, Merchant, OAuth, OAuthMethod, Pause, PauseOf, Product,
    ProgrammeManager, SigningSecret, SourceKey, State, Suspension, TlsIdentity, Webhook, wire_name,
};
pub use fold::{Fold, Unreadable, Verdict};
pub use keys_topic::{KeysError, KeysTopic};
pub use sealing::{open_sealed, to_proto, to_sealed};
pub use service::{
    Accepted, Change, CommandRef, ProposeError, Registry, RegistryError, RegistryTask,
};
pub use shards::Shards;
pub use snapshot::{Made, Snapshot, TombStone};
pub use tenants::{
    Counts, IdText, IssuerEntry, MerchantEntry, PmEntry, ProductEntry, Refusal, SourceKeyEntry,
    TenantsDocument, plan_tenants,
};
