//! What the recorder counts and times.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The metrics of the recorder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records read from both topics.
    pub(crate) records: Counter,
    /// Records folded by one batch.
    pub(crate) batch_records: Histogram,
    /// Seconds that one batch took to fold and store.
    pub(crate) fold_duration: Histogram,
    /// Seconds that one flush took.
    pub(crate) flush_duration: Histogram,
    /// Records in the topics that have not been folded, at the last look.
    pub(crate) lag_records: Gauge,
    /// Outcomes held back until the decisions of their time have been read.
    pub(crate) held_records: Gauge,
    /// Milliseconds since 1970 up to which both topics have been read.
    pub(crate) as_of: Gauge,
    /// Looks at the ends of the topics that failed.
    pub(crate) failed_looks: Counter,
    /// Reads that failed and are tried again.
    pub(crate) failed_reads: Counter,
    /// Records that were gone from a topic before they had been read.
    pub(crate) gap_records: Counter,
    /// Rebuilds begun while running.
    pub(crate) rebuilds: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        // 0.1 ms to 26 s.
        let seconds = || Histogram::new(exponential_buckets(0.000_1, 2.0, 19));
        let metrics = Self {
            records: Counter::default(),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            fold_duration: seconds(),
            flush_duration: seconds(),
            lag_records: Gauge::default(),
            held_records: Gauge::default(),
            as_of: Gauge::default(),
            failed_looks: Counter::default(),
            failed_reads: Counter::default(),
            gap_records: Counter::default(),
            rebuilds: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("tidings_recorder");
        registry.register("records", "Records read from both topics", metrics.records.clone());
        registry.register(
            "batch_records",
            "Records folded by one batch",
            metrics.batch_records.clone(),
        );
        registry.register(
            "fold_duration_seconds",
            "Seconds that one batch took to fold and store",
            metrics.fold_duration.clone(),
        );
        registry.register(
            "flush_duration_seconds",
            "Seconds that one flush took",
            metrics.flush_duration.clone(),
        );
        registry.register(
            "lag_records",
            "Records in the topics that have not been folded, at the last look",
            metrics.lag_records.clone(),
        );
        registry.register(
            "held_records",
            "Outcomes held back until the decisions of their time have been read",
            metrics.held_records.clone(),
        );
        registry.register(
            "as_of_milliseconds",
            "Milliseconds since 1970 up to which both topics have been read",
            metrics.as_of.clone(),
        );
        registry.register(
            "failed_looks",
            "Looks at the ends of the topics that failed",
            metrics.failed_looks.clone(),
        );
        registry.register(
            "failed_reads",
            "Reads that failed and are tried again",
            metrics.failed_reads.clone(),
        );
        registry.register(
            "gap_records",
            "Records that were gone from a topic before they had been read",
            metrics.gap_records.clone(),
        );
        registry.register("rebuilds", "Rebuilds begun while running", metrics.rebuilds.clone());
        metrics
    }

    /// Rebuilds begun while running.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.get()
    }
}
