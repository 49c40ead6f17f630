//! What the registry counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::fold::Verdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Said {
    Accepted,
    Conflict,
    Claimed,
    Repeated,
    Void,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: Said,
}

/// The registry's metrics. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    folded: Family<VerdictLabel, Counter>,
    /// Accepted records of `tidings.registry` whose content cannot be read here: a
    /// master key is missing, a value is damaged, or a later release wrote it.
    pub(crate) unreadable: Counter,
    /// Appends to `tidings.registry` that were repeated because the fate of the
    /// one before was unknown.
    pub(crate) append_retries: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tidings_registry_folded_records",
            "Records of tidings.registry that were folded, by what the fold said",
            self.folded.clone(),
        );
        registry.register(
            "tidings_registry_unreadable_records",
            "Accepted registry records whose content cannot be read; always zero in a healthy system",
            self.unreadable.clone(),
        );
        registry.register(
            "tidings_registry_append_retries",
            "Appends to tidings.registry repeated because the fate of the one before was unknown",
            self.append_retries.clone(),
        );
    }

    pub(crate) fn folded(&self, verdict: &Verdict) {
        let verdict = match verdict {
            Verdict::Accepted { .. } => Said::Accepted,
            Verdict::Conflict { .. } => Said::Conflict,
            Verdict::Claimed { .. } => Said::Claimed,
            Verdict::Repeated { .. } => Said::Repeated,
            Verdict::Void => Said::Void,
        };
        self.folded.get_or_create(&VerdictLabel { verdict }).inc();
    }
}
