//! The router: reads published events, decides whom each goes to, and appends
//! delivery records.
//!
//! A member of the group `tidings-router` owns partitions of `tidings.routed`. Of
//! each it reads the source partitions that belong to it ([`routed_partition`]),
//! decides their records in batches that grow with load, appends the decisions to
//! `tidings.routed`, and when those are acknowledged the deliveries; then it
//! commits (design §2). A decision is made once: whoever takes a partition over
//! reads what is decided and only repeats deliveries.
//!
//! It does not talk to endpoints, does not judge whether a webhook works, and
//! keeps nothing but what stands in topics.

mod config;
mod decide;
mod deliver;
mod front;
mod metrics;
mod owner;
mod patience;
mod position;
mod progress;
mod records;
mod service;
mod sources;
mod storm;
mod takeover;

pub use config::{Config, Deps, Failpoints, Retentions, StormRule};
pub use metrics::Metrics;
pub use service::{Handle, RunError, Service};
pub use sources::{routed_partition, topics};
