//! Every metric of signing in.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Metrics of the keys of authorization servers elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Fetches of an authorization server's keys that failed or gave none
    failed_key_fetches: Counter,
    /// Authorization servers whose keys could not be fetched at the last try
    unreachable_issuers: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "tidings_auth_failed_key_fetches",
            "Fetches of an authorization server's keys that failed or gave none",
            metrics.failed_key_fetches.clone(),
        );
        registry.register(
            "tidings_auth_unreachable_issuers",
            "Authorization servers whose keys could not be fetched at the last try",
            metrics.unreachable_issuers.clone(),
        );
        metrics
    }

    /// `had_failed` says how the try before this one ended.
    pub(crate) fn fetched(&self, had_failed: bool, has_failed: bool) {
        if has_failed {
            self.failed_key_fetches.inc();
        }
        if has_failed && !had_failed {
            self.unreachable_issuers.inc();
        }
        if had_failed && !has_failed {
            self.unreachable_issuers.dec();
        }
    }
}
