//! What the broker counts and times.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The metrics of the local broker.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Seconds from handing over an append to its answer.
    pub(crate) append_duration: Histogram,
    /// Seconds that one commit to the store took, its sync included.
    pub(crate) sync_duration: Histogram,
    /// Records made durable by one sync.
    pub(crate) records_per_sync: Histogram,
    /// Syncs of the store.
    pub(crate) syncs: Counter,
    /// Records appended and durable.
    pub(crate) appended_records: Counter,
    /// Bytes of keys, values and headers appended and durable.
    pub(crate) appended_bytes: Counter,
    /// Appends and commits refused because the disk was nearly full.
    pub(crate) space_refusals: Counter,
    /// Appends refused because too much waited already.
    pub(crate) queue_refusals: Counter,
    /// Reads that the memory of recent batches served.
    pub(crate) tail_reads: Counter,
    /// Reads that went to the store.
    pub(crate) store_reads: Counter,
    /// Stored batches found damaged.
    pub(crate) damaged_batches: Counter,
    /// Records removed by retention or trimming.
    pub(crate) removed_records: Counter,
    /// Committed positions of partitions that do not exist (any more).
    pub(crate) unknown_positions: Counter,
    /// Group members expelled because they did not poll in time.
    pub(crate) expelled_members: Counter,
    /// Bytes of recent batches held in memory.
    pub(crate) tail_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 50 us (a fast disk) to 26 s (a stalled one).
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        let metrics = Self {
            append_duration: seconds(),
            sync_duration: seconds(),
            records_per_sync: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            syncs: Counter::default(),
            appended_records: Counter::default(),
            appended_bytes: Counter::default(),
            space_refusals: Counter::default(),
            queue_refusals: Counter::default(),
            tail_reads: Counter::default(),
            store_reads: Counter::default(),
            damaged_batches: Counter::default(),
            removed_records: Counter::default(),
            unknown_positions: Counter::default(),
            expelled_members: Counter::default(),
            tail_bytes: Gauge::default(),
        };
        metrics.register_all(registry);
        metrics
    }

    fn register_all(&self, registry: &mut Registry) {
        let mut histogram = |name: &str, help: &str, metric: &Histogram| {
            registry.register(format!("tidings_broker_{name}"), help, metric.clone());
        };
        histogram(
            "append_duration_seconds",
            "Seconds from handing over an append to its answer",
            &self.append_duration,
        );
        histogram(
            "sync_duration_seconds",
            "Seconds that one commit to the store took, its sync included",
            &self.sync_duration,
        );
        histogram("sync_records", "Records made durable by one sync", &self.records_per_sync);
        let mut counter = |name: &str, help: &str, metric: &Counter| {
            registry.register(format!("tidings_broker_{name}"), help, metric.clone());
        };
        counter("syncs", "Syncs of the store", &self.syncs);
        counter("appended_records", "Records appended and durable", &self.appended_records);
        counter(
            "appended_bytes",
            "Bytes of keys, values and headers appended and durable",
            &self.appended_bytes,
        );
        counter(
            "space_refusals",
            "Appends and commits refused because the disk was nearly full",
            &self.space_refusals,
        );
        counter(
            "queue_refusals",
            "Appends refused because too much waited already",
            &self.queue_refusals,
        );
        counter("tail_reads", "Reads that the memory of recent batches served", &self.tail_reads);
        counter("store_reads", "Reads that went to the store", &self.store_reads);
        counter("damaged_batches", "Stored batches found damaged", &self.damaged_batches);
        counter(
            "removed_records",
            "Records removed by retention or trimming",
            &self.removed_records,
        );
        counter(
            "unknown_positions",
            "Committed positions of partitions that do not exist",
            &self.unknown_positions,
        );
        counter(
            "expelled_members",
            "Group members expelled because they did not poll in time",
            &self.expelled_members,
        );
        registry.register(
            "tidings_broker_tail_bytes",
            "Bytes of recent batches held in memory",
            self.tail_bytes.clone(),
        );
    }
}
