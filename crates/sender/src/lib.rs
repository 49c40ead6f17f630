//! Sends notifications: owns slots, reads deliveries, makes attempts, writes
//! outcomes, keeps checkpoints.
//!
//! One loop (`service`) owns all state; the rules are in `tidings-delivery`, this
//! crate turns them into I/O. What one healthy delivery costs stands in
//! `service`. Nothing here decides what a retry is, and nothing opens connections
//! (`tidings-egress`).

mod bodies;
mod config;
mod deps;
mod metrics;
mod notice;
mod outbox;
mod readers;
mod records;
mod registry_webhooks;
mod request;
mod service;
mod slot_log;
mod snippet;
mod table;
mod takeover;
mod webhook;

pub use config::Config;
pub use deps::{Attempts, BucketKeys, Deps, Failpoints, Webhooks, WebhooksError};
pub use metrics::Metrics;
pub use registry_webhooks::{RegistryWebhooks, RegistryWebhooksConfig};
pub use service::{RunError, Service};
pub use webhook::{LiveSecret, Owner, SecretTexts, Signing, Webhook, fixed_headers};
