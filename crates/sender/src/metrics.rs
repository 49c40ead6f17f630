//! Every metric of this crate.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tidings_delivery::Condition;

/// A lane as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LaneLabel {
    lane: &'static str,
}

/// In which condition a webhook is, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StateLabel {
    state: &'static str,
}

/// What a fact says, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    kind: &'static str,
}

/// The sender's metrics. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Age of the oldest notification that has been attempted and has no end, by lane
    oldest_unfinished: Family<LaneLabel, Gauge>,
    /// Attempts in flight, by lane
    in_flight: Family<LaneLabel, Gauge>,
    /// Webhooks of this process, by what their breaker and their answers say of them
    webhooks: Family<StateLabel, Gauge>,
    /// Attempts in flight of webhooks that fail, come back, are silent or are unproven
    pub(crate) suspects: Gauge,
    /// Circuit breakers that opened
    pub(crate) breakers_opened: Counter,
    /// Circuit breakers that a success closed
    pub(crate) breakers_closed: Counter,
    /// Webhooks that fell silent with requests in flight
    pub(crate) silences: Counter,
    /// Facts acknowledged in tidings.outcomes, by kind
    outcomes: Family<KindLabel, Counter>,
    /// Operational events in tidings.events.ops, by kind
    notices: Family<KindLabel, Counter>,
    /// Attempts started
    pub(crate) attempts: Counter,
    /// 1 while no endpoint of many unrelated webhooks is found: our own fault
    pub(crate) own_fault: Gauge,
    /// Endpoints that were looked for meanwhile
    pub(crate) own_fault_probes: Counter,
    /// Attempts that did not count because of it
    pub(crate) not_counted: Counter,
    /// Records dropped because their notification and run were taken up already
    pub(crate) duplicates: Counter,
    /// Records and outcomes that name one offset but differ in id or run
    pub(crate) disagreeing: Counter,
    /// Records skipped because they had ended before a takeover
    pub(crate) skipped: Counter,
    /// Open notifications whose record is gone from the log; always zero in a healthy system
    pub(crate) lost: Counter,
    /// Reads of open notifications' records that failed and are tried again
    pub(crate) unread: Counter,
    /// Delivery records that do not decode and were passed over
    pub(crate) undecodable: Counter,
    /// Records refused because they belong to another tenant than the webhook; always zero in a healthy system
    pub(crate) wrong_tenant: Counter,
    /// Slots taken over
    pub(crate) takeovers: Counter,
    /// Slots lost to another owner or revoked
    pub(crate) slots_lost: Counter,
    /// Slots owned
    pub(crate) slots: Gauge,
    /// Delivery partitions that are read
    pub(crate) partitions: Gauge,
    /// Delivery partitions of the consumer that has most; a further consumer is made at 250
    pub(crate) reader_partitions: Gauge,
    /// Consumers of delivery partitions
    pub(crate) readers: Gauge,
    /// Bytes of checkpoints written
    pub(crate) checkpoint_bytes: Counter,
    /// Appends to tidings.outcomes or tidings.slots that failed and were tried again
    pub(crate) append_retries: Counter,
    /// Delivery partitions whose end was before their checkpoint: the log lost its tail
    pub(crate) lost_tails: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register(
            "tidings_sender_oldest_unfinished_seconds",
            "Age of the oldest notification that has been attempted and has no end, by lane",
            m.oldest_unfinished.clone(),
        );
        registry.register(
            "tidings_sender_in_flight_attempts",
            "Attempts in flight, by lane",
            m.in_flight.clone(),
        );
        registry.register(
            "tidings_sender_webhooks",
            "Webhooks of this process, by what their breaker and their answers say of them",
            m.webhooks.clone(),
        );
        registry.register(
            "tidings_sender_suspect_attempts",
            "Attempts in flight of webhooks that fail, come back, are silent or are unproven",
            m.suspects.clone(),
        );
        registry.register(
            "tidings_sender_breakers_opened",
            "Circuit breakers that opened",
            m.breakers_opened.clone(),
        );
        registry.register(
            "tidings_sender_breakers_closed",
            "Circuit breakers that a success closed",
            m.breakers_closed.clone(),
        );
        registry.register(
            "tidings_sender_silences",
            "Webhooks that fell silent with requests in flight",
            m.silences.clone(),
        );
        registry.register(
            "tidings_sender_outcomes",
            "Facts acknowledged in tidings.outcomes, by kind",
            m.outcomes.clone(),
        );
        registry.register(
            "tidings_sender_notices",
            "Operational events in tidings.events.ops, by kind",
            m.notices.clone(),
        );
        registry.register("tidings_sender_attempts", "Attempts started", m.attempts.clone());
        m.register_own_fault(registry);
        registry.register(
            "tidings_sender_duplicates",
            "Records dropped because their notification and run were taken up already",
            m.duplicates.clone(),
        );
        registry.register(
            "tidings_sender_disagreeing",
            "Records and outcomes that name one offset but differ in id or run",
            m.disagreeing.clone(),
        );
        registry.register(
            "tidings_sender_skipped",
            "Records skipped because they had ended before a takeover",
            m.skipped.clone(),
        );
        m.register_lost(registry);
        registry.register(
            "tidings_sender_undecodable",
            "Delivery records that do not decode and were passed over",
            m.undecodable.clone(),
        );
        registry.register("tidings_sender_wrong_tenant", "Records refused because they belong to another tenant than the webhook; always zero in a healthy system", m.wrong_tenant.clone());
        registry.register("tidings_sender_takeovers", "Slots taken over", m.takeovers.clone());
        registry.register(
            "tidings_sender_slots_lost",
            "Slots lost to another owner or revoked",
            m.slots_lost.clone(),
        );
        registry.register("tidings_sender_slots", "Slots owned", m.slots.clone());
        m.register_readers(registry);
        registry.register(
            "tidings_sender_checkpoint_bytes",
            "Bytes of checkpoints written",
            m.checkpoint_bytes.clone(),
        );
        registry.register(
            "tidings_sender_append_retries",
            "Appends to tidings.outcomes or tidings.slots that failed and were tried again",
            m.append_retries.clone(),
        );
        m
    }

    fn register_lost(&self, registry: &mut Registry) {
        registry.register(
            "tidings_sender_lost",
            "Open notifications whose record is gone from the log; always zero in a healthy system",
            self.lost.clone(),
        );
        registry.register(
            "tidings_sender_unread_records",
            "Reads of open notifications' records that failed and are tried again",
            self.unread.clone(),
        );
        registry.register(
            "tidings_sender_lost_tails",
            "Delivery partitions whose end was before their checkpoint: the log lost its tail",
            self.lost_tails.clone(),
        );
    }

    fn register_own_fault(&self, registry: &mut Registry) {
        registry.register(
            "tidings_sender_own_fault",
            "1 while no endpoint of many unrelated webhooks is found: our own fault",
            self.own_fault.clone(),
        );
        registry.register(
            "tidings_sender_own_fault_probes",
            "Endpoints that were looked for meanwhile",
            self.own_fault_probes.clone(),
        );
        registry.register(
            "tidings_sender_not_counted",
            "Attempts that did not count because of our own fault",
            self.not_counted.clone(),
        );
    }

    fn register_readers(&self, registry: &mut Registry) {
        registry.register(
            "tidings_sender_partitions",
            "Delivery partitions that are read",
            self.partitions.clone(),
        );
        registry.register(
            "tidings_sender_reader_partitions",
            "Delivery partitions of the consumer that has most; a further consumer is made at 250",
            self.reader_partitions.clone(),
        );
        registry.register(
            "tidings_sender_readers",
            "Consumers of delivery partitions",
            self.readers.clone(),
        );
    }

    pub(crate) fn set_readers(&self, partitions: usize, fullest: usize, readers: usize) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.partitions.set(count(partitions));
        self.reader_partitions.set(count(fullest));
        self.readers.set(count(readers));
    }

    pub(crate) fn said(&self, kind: &'static str, count: u64) {
        self.outcomes.get_or_create(&KindLabel { kind }).inc_by(count);
    }

    pub(crate) fn noticed(&self, kind: &'static str) {
        self.notices.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn set_oldest(&self, lane: &'static str, seconds: u64) {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        self.oldest_unfinished.get_or_create(&LaneLabel { lane }).set(seconds);
    }

    pub(crate) fn set_webhooks(&self, counts: impl IntoIterator<Item = (Condition, i64)>) {
        for (condition, count) in counts {
            self.webhooks.get_or_create(&StateLabel { state: condition.as_str() }).set(count);
        }
    }

    pub(crate) fn set_in_flight(&self, lane: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.in_flight.get_or_create(&LaneLabel { lane }).set(count);
    }
}
