//! Every metric of the API.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::routes::Operation;

/// Metrics of requests and of what they did.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests answered, by operation and class of status
    requests: Family<RequestLabels, Counter>,
    /// Time from the head of a request to its answer
    request_seconds: Histogram,
    /// Events taken at ingest
    ingested_events: Counter,
    /// Events that made ingest refuse a batch
    refused_events: Counter,
    /// Notifications for which a resend was started
    resends: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: OperationLabel,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct OperationLabel(Option<Operation>);

impl EncodeLabelValue for OperationLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            Some(operation) => operation.name().encode(encoder),
            None => "none".encode(encoder),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    Success,
    Refused,
    Failed,
}

impl EncodeLabelValue for Class {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Success => "2xx",
            Self::Refused => "4xx",
            Self::Failed => "5xx",
        }
        .encode(encoder)
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            ingested_events: Counter::default(),
            refused_events: Counter::default(),
            resends: Counter::default(),
        };
        registry.register(
            "tidings_api_requests",
            "Requests answered, by operation and class of status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "tidings_api_request",
            "Time from the head of a request to its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register(
            "tidings_api_ingested_events",
            "Events taken at ingest",
            metrics.ingested_events.clone(),
        );
        registry.register(
            "tidings_api_refused_events",
            "Events that made ingest refuse a batch",
            metrics.refused_events.clone(),
        );
        registry.register(
            "tidings_api_resends",
            "Notifications for which a resend was started",
            metrics.resends.clone(),
        );
        metrics
    }

    pub(crate) fn answered(&self, operation: Option<Operation>, status: u16, seconds: f64) {
        let class = match status {
            ..400 => Class::Success,
            400..500 => Class::Refused,
            500.. => Class::Failed,
        };
        self.requests
            .get_or_create(&RequestLabels { operation: OperationLabel(operation), class })
            .inc();
        self.request_seconds.observe(seconds);
    }

    pub(crate) fn ingested(&self, events: usize) {
        self.ingested_events.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    pub(crate) fn refused(&self, events: usize) {
        self.refused_events.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    pub(crate) fn resent(&self, notifications: usize) {
        self.resends.inc_by(u64::try_from(notifications).unwrap_or(u64::MAX));
    }
}
