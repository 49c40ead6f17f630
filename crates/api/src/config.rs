//! The settings of the API, already checked.

use std::{collections::BTreeSet, time::Duration};

/// Settings of the API. Only `tidings` makes one; there are no defaults here, so
/// that no setting is forgotten.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--dev`: more webhooks per scope, raw writes.
    pub dev: bool,
    /// The one region that `X-Region` may name; `None`: 0 to 2.
    pub region: Option<u8>,
    /// How many webhooks one programme manager or issuer may have for the same
    /// product or without one.
    pub webhooks_per_scope: usize,
    /// The least `timeoutMs`: 1,000, under `--dev` 50.
    pub min_timeout_ms: u32,
    /// The ladder of webhooks that name none.
    pub default_ladder: String,
    /// The ladder of merchants' hooks.
    pub merchant_ladder: String,
    /// The names of all ladders.
    pub ladders: BTreeSet<String>,
    /// Which URLs may be endpoints.
    pub url_policy: tidings_egress::Policy,
    /// What heartbeats name themselves.
    pub user_agent: String,
    /// How long a fraud alert may be answered.
    pub fraud_answer_window: Duration,
    /// Whether `/metrics` answers off loopback.
    pub metrics_public: bool,
    /// How far behind the history may be before it answers 503.
    pub max_lag: Duration,
    /// How long a read waits for what this process wrote before.
    pub write_wait: Duration,
    /// How often a tenant may ask.
    pub rate: crate::Rate,
    /// How long a whole request may take, its body included.
    pub request_timeout: Duration,
}
