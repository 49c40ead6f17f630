//! What egress counts.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tidings_types::AttemptCode;

use crate::filter::Class;

/// Every metric of this crate; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Attempts made, by what they came to
    attempts: Family<CodeLabel, Counter>,
    /// Time from the start of an attempt to the end of the answer's head or to its failure
    attempt_duration: Histogram,
    /// Time to resolve, connect and secure a new connection
    connect_duration: Histogram,
    /// Connections taken for an attempt, by where they came from
    connections: Family<OriginLabel, Counter>,
    /// Idle connections that were not used again, by why
    connections_dropped: Family<DropLabel, Counter>,
    /// Addresses that names led to and that were not dialled, by what they are
    blocked_addresses: Family<ClassLabel, Counter>,
    /// Connections that are open now
    open_connections: Gauge,
    /// Answers whose bodies are being read after their reports were given
    draining: Gauge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: Code,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Code(AttemptCode);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Block(Class);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OriginLabel {
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabel {
    reason: Dropped,
}

/// Where the connection of an attempt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Kept,
    Opened,
}

/// Why a connection was not kept or not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dropped {
    /// The other side had closed it, or sent what nobody asked for.
    Closed,
    /// It had been idle for too long.
    Idle,
    /// There were enough already.
    Full,
    /// The webhook has another address now.
    Moved,
    /// The answer did not end within its limits.
    Unread,
}

impl Origin {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Opened => "opened",
        }
    }
}

impl Dropped {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Full => "full",
            Self::Moved => "moved",
            Self::Unread => "unread",
        }
    }
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

impl EncodeLabelValue for Block {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

impl EncodeLabelValue for Origin {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl EncodeLabelValue for Dropped {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Seconds, from a local answer to the longest time-out.
const BUCKETS: [f64; 12] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 15.0, 45.0];

impl Metrics {
    /// Makes the metrics and puts them into `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            attempt_duration: Histogram::new(BUCKETS),
            connect_duration: Histogram::new(BUCKETS),
            connections: Family::default(),
            connections_dropped: Family::default(),
            blocked_addresses: Family::default(),
            open_connections: Gauge::default(),
            draining: Gauge::default(),
        };
        registry.register(
            "tidings_egress_attempts",
            "Attempts made, by what they came to",
            metrics.attempts.clone(),
        );
        registry.register_with_unit(
            "tidings_egress_attempt_duration",
            "Time from the start of an attempt to the end of the answer's head or to its failure",
            Unit::Seconds,
            metrics.attempt_duration.clone(),
        );
        registry.register_with_unit(
            "tidings_egress_connect_duration",
            "Time to resolve, connect and secure a new connection",
            Unit::Seconds,
            metrics.connect_duration.clone(),
        );
        registry.register(
            "tidings_egress_connections",
            "Connections taken for an attempt, by where they came from",
            metrics.connections.clone(),
        );
        registry.register(
            "tidings_egress_connections_dropped",
            "Idle connections that were not used again, by why",
            metrics.connections_dropped.clone(),
        );
        registry.register(
            "tidings_egress_blocked_addresses",
            "Addresses that names led to and that were not dialled, by what they are",
            metrics.blocked_addresses.clone(),
        );
        registry.register(
            "tidings_egress_open_connections",
            "Connections that are open now",
            metrics.open_connections.clone(),
        );
        registry.register(
            "tidings_egress_draining",
            "Answers whose bodies are being read after their reports were given",
            metrics.draining.clone(),
        );
        metrics
    }

    pub(crate) fn attempted(&self, code: AttemptCode, duration: Duration) {
        self.attempts.get_or_create(&CodeLabel { code: Code(code) }).inc();
        self.attempt_duration.observe(duration.as_secs_f64());
    }

    pub(crate) fn connected(&self, duration: Duration) {
        self.connect_duration.observe(duration.as_secs_f64());
    }

    pub(crate) fn connection_taken(&self, origin: Origin) {
        self.connections.get_or_create(&OriginLabel { origin }).inc();
    }

    pub(crate) fn connection_dropped(&self, reason: Dropped) {
        self.connections_dropped.get_or_create(&DropLabel { reason }).inc();
    }

    pub(crate) fn address_blocked(&self, class: Class) {
        self.blocked_addresses.get_or_create(&ClassLabel { class: Block(class) }).inc();
    }

    /// Counts an open connection until the guard is dropped.
    pub(crate) fn count_open(&self) -> Counted {
        Counted::new(&self.open_connections)
    }

    /// Counts a body being read until the guard is dropped.
    pub(crate) fn count_draining(&self) -> Counted {
        Counted::new(&self.draining)
    }
}

/// One of the things that a gauge counts.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
