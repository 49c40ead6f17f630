//! What the router counts and times.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tidings_types::{FilterReason, Offset, QuarantineCode, TopicPartition};

/// A reason, one of a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// A source partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Source {
    topic: String,
    partition: u32,
}

impl From<&TopicPartition> for Source {
    fn from(of: &TopicPartition) -> Self {
        Self { topic: of.topic.as_str().to_owned(), partition: of.partition }
    }
}

/// The metrics of the router.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events that were routed to at least one webhook.
    pub(crate) routed: Counter,
    /// Events that went to nobody, by reason.
    filtered: Family<Reason, Counter>,
    /// Records set aside, by reason.
    quarantined: Family<Reason, Counter>,
    /// Delivery records appended, repeated ones included.
    pub(crate) deliveries: Counter,
    /// Notifications of suspended or deleted webhooks, recorded as ended.
    pub(crate) ended: Counter,
    /// Members of events that their type does not name: producers' schemas have grown.
    pub(crate) unknown_fields: Counter,
    /// Offsets of source partitions that were passed because their records are gone.
    pub(crate) skipped_offsets: Counter,
    /// Source records that are not decided yet, of the partitions owned here.
    pub(crate) lag: Gauge,
    /// Partitions of tidings.routed owned here.
    pub(crate) owned: Gauge,
    /// Records in one batch of decisions.
    pub(crate) batch_records: Histogram,
    /// Seconds from reading a batch to its decisions, without appending them.
    pub(crate) decide_duration: Histogram,
    /// Seconds from a record's time to the decision on it.
    pub(crate) decision_age: Histogram,
    /// Appends that failed and were tried again.
    pub(crate) failed_appends: Counter,
    /// Records that their topic does not take, its max.message.bytes being too small;
    /// always zero in a healthy system.
    pub(crate) too_large: Counter,
    /// Takeovers of a partition of tidings.routed.
    pub(crate) takeovers: Counter,
    /// Decisions whose deliveries a takeover repeated.
    pub(crate) repeated_decisions: Counter,
    /// Ownerships that ended because of another's took or an unknown append.
    pub(crate) lost_ownerships: Counter,
    /// Records of tidings.routed that do not decode or contradict an earlier one.
    pub(crate) void_records: Counter,
    /// Topics paused because most of their records were bad.
    pub(crate) storms: Counter,
    /// Source partitions that could not be read.
    pub(crate) unreadable: Counter,
    /// Source partitions that are listed and not read, since the broker does not say where
    /// they begin.
    pub(crate) unread: Gauge,
    /// Source partitions that stand still until a person acts, and at which offset.
    stopped: Family<Source, Gauge>,
    /// Delivery topics that were gone and were made again; what they held is not sent.
    pub(crate) remade_topics: Counter,
    /// One-time codes whose key was gone before they were routed.
    pub(crate) lost_codes: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        // 50 us to 26 s.
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        let metrics = Self {
            routed: Counter::default(),
            filtered: Family::default(),
            quarantined: Family::default(),
            deliveries: Counter::default(),
            ended: Counter::default(),
            unknown_fields: Counter::default(),
            skipped_offsets: Counter::default(),
            lag: Gauge::default(),
            owned: Gauge::default(),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            decide_duration: seconds(),
            decision_age: seconds(),
            failed_appends: Counter::default(),
            too_large: Counter::default(),
            takeovers: Counter::default(),
            repeated_decisions: Counter::default(),
            lost_ownerships: Counter::default(),
            void_records: Counter::default(),
            storms: Counter::default(),
            unreadable: Counter::default(),
            unread: Gauge::default(),
            stopped: Family::default(),
            remade_topics: Counter::default(),
            lost_codes: Counter::default(),
        };
        metrics.register_counters(registry);
        metrics.register_others(registry);
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, metric: &Counter| {
            registry.register(format!("tidings_router_{name}"), help, metric.clone());
        };
        counter("routed_events", "Events that were routed to at least one webhook", &self.routed);
        counter(
            "delivery_records",
            "Delivery records appended, repeated ones included",
            &self.deliveries,
        );
        counter(
            "ended_notifications",
            "Notifications of suspended or deleted webhooks, recorded as ended",
            &self.ended,
        );
        counter(
            "unknown_fields",
            "Members of events that their type does not name: producers' schemas have grown",
            &self.unknown_fields,
        );
        counter(
            "skipped_offsets",
            "Offsets of source partitions that were passed because their records are gone",
            &self.skipped_offsets,
        );
        counter("failed_appends", "Appends that failed and were tried again", &self.failed_appends);
        counter(
            "too_large_records",
            "Records that their topic does not take, its max.message.bytes being too small; \
             always zero in a healthy system",
            &self.too_large,
        );
        counter("takeovers", "Takeovers of a partition of tidings.routed", &self.takeovers);
        counter(
            "repeated_decisions",
            "Decisions whose deliveries a takeover repeated",
            &self.repeated_decisions,
        );
        counter(
            "lost_ownerships",
            "Ownerships that ended because of another's took or an unknown append",
            &self.lost_ownerships,
        );
        counter(
            "void_records",
            "Records of tidings.routed that do not decode or contradict an earlier one",
            &self.void_records,
        );
        counter("storms", "Topics paused because most of their records were bad", &self.storms);
        counter("unreadable_sources", "Source partitions that could not be read", &self.unreadable);
        counter(
            "remade_topics",
            "Delivery topics that were gone and were made again; what they held is not sent",
            &self.remade_topics,
        );
        counter(
            "lost_codes",
            "One-time codes whose key was gone before they were routed",
            &self.lost_codes,
        );
    }

    fn register_others(&self, registry: &mut Registry) {
        registry.register(
            "tidings_router_filtered_events",
            "Events that went to nobody, by reason",
            self.filtered.clone(),
        );
        registry.register(
            "tidings_router_quarantined_records",
            "Records set aside, by reason",
            self.quarantined.clone(),
        );
        registry.register(
            "tidings_router_unread_sources",
            "Source partitions that are listed and not read, since the broker does not say \
             where they begin",
            self.unread.clone(),
        );
        registry.register(
            "tidings_router_stopped_sources",
            "Source partitions that stand still until a person acts, and at which offset",
            self.stopped.clone(),
        );
        registry.register(
            "tidings_router_lag_records",
            "Source records that are not decided yet, of the partitions owned here",
            self.lag.clone(),
        );
        registry.register(
            "tidings_router_owned_partitions",
            "Partitions of tidings.routed owned here",
            self.owned.clone(),
        );
        registry.register(
            "tidings_router_batch_records",
            "Records in one batch of decisions",
            self.batch_records.clone(),
        );
        registry.register(
            "tidings_router_decide_duration_seconds",
            "Seconds from reading a batch to its decisions, without appending them",
            self.decide_duration.clone(),
        );
        registry.register(
            "tidings_router_decision_age_seconds",
            "Seconds from a record's time to the decision on it",
            self.decision_age.clone(),
        );
    }

    pub(crate) fn filter(&self, reason: FilterReason) {
        self.filtered.get_or_create(&Reason { reason: reason.as_str() }).inc();
    }

    pub(crate) fn stop(&self, source: &TopicPartition, at: Offset) {
        self.stopped.get_or_create(&source.into()).set(i64::try_from(at).unwrap_or(i64::MAX));
    }

    pub(crate) fn go_on(&self, source: &TopicPartition) {
        self.stopped.remove(&source.into());
    }

    /// At which offset a source partition stands still, if it does.
    pub fn stopped_at(&self, source: &TopicPartition) -> Option<i64> {
        self.stopped.get(&source.into()).map(|at| at.get())
    }

    /// How many source partitions are listed and not read.
    pub fn unread(&self) -> i64 {
        self.unread.get()
    }

    /// Delivery topics made again so far.
    pub fn remade_topics(&self) -> u64 {
        self.remade_topics.get()
    }

    pub(crate) fn quarantine(&self, code: QuarantineCode) {
        self.quarantined.get_or_create(&Reason { reason: code.as_str() }).inc();
    }

    /// Events routed so far.
    pub fn routed(&self) -> u64 {
        self.routed.get()
    }

    /// Delivery records appended so far.
    pub fn deliveries(&self) -> u64 {
        self.deliveries.get()
    }

    /// Records set aside so far for this reason.
    pub fn quarantined(&self, code: QuarantineCode) -> u64 {
        self.quarantined.get_or_create(&Reason { reason: code.as_str() }).get()
    }

    /// Events that went to nobody so far for this reason.
    pub fn filtered(&self, reason: FilterReason) -> u64 {
        self.filtered.get_or_create(&Reason { reason: reason.as_str() }).get()
    }
}
