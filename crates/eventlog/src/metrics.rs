//! What the event log counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The metrics of the event log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Rows written to the store.
    pub(crate) rows_written: Counter,
    /// Notifications that decisions named.
    pub(crate) notifications: Counter,
    /// Facts about notifications that were folded.
    pub(crate) facts: Counter,
    /// Decisions left out because a later owner had taken the partition over.
    pub(crate) void_decisions: Counter,
    /// Decisions left out because their source record had been decided already.
    pub(crate) repeated_decisions: Counter,
    /// Decisions on an event that had been routed before.
    pub(crate) duplicate_events: Counter,
    /// Producer ids that came again with other content.
    pub(crate) reused_ids: Counter,
    /// Records or facts left out because they could not be understood.
    pub(crate) undecodable: Counter,
    /// Facts that contradict what the log says of the same notification and run.
    pub(crate) disagreeing_outcomes: Counter,
    /// Outcomes dropped because they are older than history is kept.
    pub(crate) expired_outcomes: Counter,
    /// Outcomes that wait for the decision they belong to.
    pub(crate) orphans: Gauge,
    /// Notifications without a row of their own, nothing being known of them yet.
    pub(crate) waiting: Gauge,
    /// Decisions removed because history is not kept longer.
    pub(crate) removed_chunks: Counter,
    /// Stores set aside because they could not be trusted.
    pub(crate) set_aside: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            rows_written: Counter::default(),
            notifications: Counter::default(),
            facts: Counter::default(),
            void_decisions: Counter::default(),
            repeated_decisions: Counter::default(),
            duplicate_events: Counter::default(),
            reused_ids: Counter::default(),
            undecodable: Counter::default(),
            disagreeing_outcomes: Counter::default(),
            expired_outcomes: Counter::default(),
            orphans: Gauge::default(),
            waiting: Gauge::default(),
            removed_chunks: Counter::default(),
            set_aside: Counter::default(),
        };
        let mut counter = |name: &str, help: &str, metric: &Counter| {
            registry.register(format!("tidings_eventlog_{name}"), help, metric.clone());
        };
        counter("rows_written", "Rows written to the store", &metrics.rows_written);
        counter("notifications", "Notifications that decisions named", &metrics.notifications);
        counter("facts", "Facts about notifications that were folded", &metrics.facts);
        counter(
            "void_decisions",
            "Decisions left out because a later owner had taken the partition over",
            &metrics.void_decisions,
        );
        counter(
            "repeated_decisions",
            "Decisions left out because their source record had been decided already",
            &metrics.repeated_decisions,
        );
        counter(
            "duplicate_events",
            "Decisions on an event that had been routed before",
            &metrics.duplicate_events,
        );
        counter(
            "reused_ids",
            "Producer ids that came again with other content",
            &metrics.reused_ids,
        );
        counter(
            "undecodable",
            "Records or facts left out because they could not be understood",
            &metrics.undecodable,
        );
        counter(
            "disagreeing_outcomes",
            "Facts that contradict what the log says of the same notification and run",
            &metrics.disagreeing_outcomes,
        );
        counter(
            "expired_outcomes",
            "Outcomes dropped because they are older than history is kept",
            &metrics.expired_outcomes,
        );
        counter(
            "removed_chunks",
            "Groups of decisions removed because history is not kept longer",
            &metrics.removed_chunks,
        );
        counter(
            "set_aside",
            "Stores set aside because they could not be trusted",
            &metrics.set_aside,
        );
        registry.register(
            "tidings_eventlog_orphans",
            "Outcomes that wait for the decision they belong to",
            metrics.orphans.clone(),
        );
        registry.register(
            "tidings_eventlog_waiting_notifications",
            "Notifications without a row of their own, nothing being known of them yet",
            metrics.waiting.clone(),
        );
        metrics
    }

    /// Rows written so far, for the budget of rows per delivery.
    pub fn rows_written(&self) -> u64 {
        self.rows_written.get()
    }

    /// Notifications named by decisions so far.
    pub fn notifications(&self) -> u64 {
        self.notifications.get()
    }

    /// Outcomes that wait for their decision.
    pub fn orphans(&self) -> i64 {
        self.orphans.get()
    }

    /// Producer ids that came again with other content.
    pub fn reused_ids(&self) -> u64 {
        self.reused_ids.get()
    }

    /// Facts that contradict the log.
    pub fn disagreeing_outcomes(&self) -> u64 {
        self.disagreeing_outcomes.get()
    }

    /// Decisions left out because of a later owner.
    pub fn void_decisions(&self) -> u64 {
        self.void_decisions.get()
    }
}
