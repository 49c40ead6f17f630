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
use tidings_types::{Offset, Partition, TopicPartition};

use crate::seam::Damage;

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
    /// Batches that could not be read. Few: the client waits before it tries one again.
    unreadable: Mutex<Vec<Unreadable>>,
}

/// A batch that the client cannot read, and does not pass over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) partition: TopicPartition,
    /// Its first offset.
    pub(super) offset: Offset,
    pub(super) damage: Damage,
}

/// How librdkafka, as it is patched here, names its lines about such batches.
const UNREADABLE: &str = "UNREADABLE";
/// As many are kept until somebody asks.
const UNREADABLE_KEPT: usize = 100;

impl Unreadable {
    /// From `<topic> [<partition>] <offset> <large|broken>`, behind what the client puts
    /// before each of its lines.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.rsplit(' ');
        let damage = match words.next()? {
            "large" => Damage::TooLarge,
            "broken" => Damage::Broken,
            _ => return None,
        };
        let offset = words.next()?.parse().ok()?;
        let number = words.next()?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
        let partition = TopicPartition::new(words.next()?, number);
        Some(Self { partition, offset, damage })
    }
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

    /// The batches that could not be read since this was asked last.
    pub(super) fn take_unreadable(&self) -> Vec<Unreadable> {
        std::mem::take(&mut *self.unreadable.lock())
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
        if facility == UNREADABLE {
            // Whoever reads says so, once.
            tracing::debug!(facility, message, "kafka client");
            let mut unreadable = self.unreadable.lock();
            if unreadable.len() < UNREADABLE_KEPT {
                unreadable.extend(Unreadable::parse(message));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_batch_that_cannot_be_read() {
        let line = "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: tidings.events.104 [2] 17 large";
        let found = Unreadable {
            partition: TopicPartition::new("tidings.events.104", 2),
            offset: 17,
            damage: Damage::TooLarge,
        };
        assert_eq!(Unreadable::parse(line), Some(found.clone()));
        let broken = Unreadable { damage: Damage::Broken, ..found };
        assert_eq!(Unreadable::parse("tidings.events.104 [2] 17 broken"), Some(broken));
        for line in ["", "large", "17 large", "[2] 17 large", "t [2] x large", "t 2 17 broken"] {
            assert_eq!(Unreadable::parse(line), None, "{line:?}");
        }
    }
}
