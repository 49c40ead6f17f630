//! Metrics of the listeners. They exist before the registry of metrics that they are
//! shown by, since a process listens before its parts are built.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Metrics of connections to this process.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    /// Connections of clients that are open
    open: Gauge,
    /// Connections of clients that were closed from our side before their time, by why
    closed: Family<ClosedLabels, Counter>,
    /// Connections that could not be accepted, as when the process has no file left
    failed_accepts: Counter,
}

/// Why a connection was closed from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Closed {
    /// It was idle, and its place was wanted.
    Idle,
    /// Its peer had as many as it may have.
    Peer,
    /// A head or a handshake did not come in time.
    Late,
    /// It was not HTTP, or ambiguous.
    Malformed,
    /// The client took nothing of its answer.
    Stalled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    reason: Closed,
}

impl EncodeLabelValue for Closed {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Idle => "idle",
            Self::Peer => "peer",
            Self::Late => "late",
            Self::Malformed => "malformed",
            Self::Stalled => "stalled",
        }
        .encode(encoder)
    }
}

impl ConnectionMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tidings_api_open_connections",
            "Connections of clients that are open",
            self.open.clone(),
        );
        registry.register(
            "tidings_api_connections_closed",
            "Connections of clients that were closed from our side before their time, by why",
            self.closed.clone(),
        );
        registry.register(
            "tidings_api_failed_accepts",
            "Connections that could not be accepted, as when the process has no file left",
            self.failed_accepts.clone(),
        );
    }

    pub(super) fn opened(&self) {
        self.open.inc();
    }

    pub(super) fn ended(&self) {
        self.open.dec();
    }

    pub(super) fn closed(&self, reason: Closed) {
        self.closed.get_or_create(&ClosedLabels { reason }).inc();
    }

    pub(super) fn accept_failed(&self) {
        self.failed_accepts.inc();
    }
}
