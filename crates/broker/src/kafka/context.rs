//! What the clients call back: logs, and for members of a group, rebalances.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tidings_types::Partition;

/// A change of ownership, not acted on yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Assign(Vec<Partition>),
    Revoke(Vec<Partition>),
}

/// The context of every consumer. Nothing in it blocks.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Something was handled inside of a poll that returned nothing.
    handled: AtomicBool,
    /// What the group decided; whoever polls acts on it when it has told its owner.
    changes: Mutex<VecDeque<Change>>,
    /// Nobody is told any more: give everything back at once.
    closing: AtomicBool,
    /// All brokers were down.
    has_lost: AtomicBool,
    /// Something went wrong between the client and a broker.
    trouble: AtomicBool,
}

/// How librdkafka names its lines when a broker's answer says that a partition has no
/// leader: to an append, and to a fetch.
const LEADERLESS: [&str; 2] = ["METADATAUPDATE", "NOLEADER"];

impl Context {
    /// Whether the last poll handled something, so that there may be more.
    pub(super) fn take_handled(&self) -> bool {
        self.handled.swap(false, Ordering::AcqRel)
    }

    pub(super) fn next_change(&self) -> Option<Change> {
        self.changes.lock().pop_front()
    }

    /// Whether all brokers were down since the client was made.
    pub(super) fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::Acquire)
    }

    /// Whether something went wrong since this was asked last.
    pub(super) fn take_trouble(&self) -> bool {
        self.trouble.swap(false, Ordering::AcqRel)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.handled.store(true, Ordering::Release);
        if LEADERLESS.contains(&facility) {
            self.trouble.store(true, Ordering::Release);
            // As often as it fetches.
            tracing::debug!(facility, message, "kafka client");
            return;
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.handled.store(true, Ordering::Release);
        tracing::debug!(%error, reason, "kafka client");
        self.trouble.store(true, Ordering::Release);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.has_lost.store(true, Ordering::Release);
        }
    }
}

impl ConsumerContext for Context {
    /// Only notes what was decided. librdkafka waits until the partitions are
    /// assigned or given back, and meanwhile nobody else gets them.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.handled.store(true, Ordering::Release);
        let is_assign = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let done = if is_assign {
                consumer.incremental_assign(partitions)
            } else {
                consumer.incremental_unassign(partitions)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a consumer that closes could not give back its partitions");
            }
            return;
        }
        let mut numbers: Vec<Partition> = partitions
            .elements()
            .iter()
            .filter_map(|element| Partition::try_from(element.partition()).ok())
            .collect();
        numbers.sort_unstable();
        let change = if is_assign { Change::Assign(numbers) } else { Change::Revoke(numbers) };
        self.changes.lock().push_back(change);
    }
}

/// What librdkafka says. It repeats itself while a broker is away, so only what a
/// person must read is a warning.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "kafka client");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(facility, message, "kafka client");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, message, "kafka client");
        }
    }
}
