//! The settings of the API, already checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::errors::{ApiError, Code};

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
    /// The addresses that requests come from, by region, for clients to let in.
    pub egress_addresses: BTreeMap<String, Vec<IpAddr>>,
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
    /// What older clients were written against.
    pub compat: Compat,
    /// How long a whole request may take, its body included.
    pub request_timeout: Duration,
}

/// Answers in the forms that older documents of the EDS API show (`spec.md` §6), each of
/// which a client may depend on; all off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// Notifications read by id have their payload as `paylod` too (§6.3).
    pub paylod: bool,
    /// A list of webhooks, notifications or undelivered ones that is empty is 404 (§6.12).
    pub empty_as_error: bool,
    /// A configuration with `pmId` and `productId` is answered as two when it is made, one
    /// with each; it is one all the same (§6.14).
    pub config_fanout: bool,
}

impl Compat {
    /// The answer to an empty list, where it is to be an error.
    ///
    /// # Errors
    /// `code`.
    pub(crate) fn check_not_empty(self, is_empty: bool, code: Code) -> Result<(), ApiError> {
        if self.empty_as_error && is_empty { Err(code.into()) } else { Ok(()) }
    }
}
