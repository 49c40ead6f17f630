//! Which source partitions a partition of `tidings.routed` decides, and the
//! topics that the router makes.

use std::{collections::BTreeSet, sync::Arc};

use tidings_broker::{Retention, TopicDescription, TopicSpec};
use tidings_catalogue::Catalogue;
use tidings_signing::sha256;
use tidings_types::{Partition, ROUTED_PARTITIONS, TopicName, TopicPartition, names};

use crate::config::Retentions;

/// The partition of `tidings.routed` that holds the decisions on a source
/// partition, for ever: the first 8 bytes, big-endian, of SHA-256 over the topic's
/// name, a zero byte and the partition as decimal, modulo 12.
pub fn routed_partition(source: &TopicPartition) -> Partition {
    Partition::try_from(hash(source) % u64::from(ROUTED_PARTITIONS)).unwrap_or(0)
}

/// A short name of a source partition.
pub(crate) fn hash(source: &TopicPartition) -> u64 {
    let number = source.partition.to_string();
    let digest = sha256(&[source.topic.as_str().as_bytes(), &[0], number.as_bytes()]);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// The event topics that there are, by name, with their partitions.
pub(crate) type EventTopics = Arc<[(TopicName, u32)]>;

/// The event topics among all.
pub(crate) fn event_topics(all: &[TopicDescription]) -> EventTopics {
    let mut found: Vec<(TopicName, u32)> = all
        .iter()
        .filter(|topic| topic.name.as_str().starts_with(names::EVENTS_PREFIX))
        .map(|topic| (topic.name.clone(), topic.partitions))
        .collect();
    found.sort_unstable();
    found.into()
}

/// The source partitions whose decisions stand in `routed`.
pub(crate) fn sources(topics: &EventTopics, routed: Partition) -> BTreeSet<TopicPartition> {
    topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(move |n| TopicPartition::new(topic, n)))
        .filter(|source| routed_partition(source) == routed)
        .collect()
}

/// The topics that a router makes where they are missing: `tidings.routed`,
/// `tidings.quarantine`, and one for each event type.
pub fn topics(catalogue: &Catalogue, retention: &Retentions) -> Vec<TopicSpec> {
    let spec = |name: TopicName, partitions, keep| TopicSpec {
        name,
        partitions,
        retention: Retention::For(keep),
        erase_buckets: None,
    };
    let mut specs = vec![
        spec(TopicName::new(names::ROUTED), ROUTED_PARTITIONS, retention.routed),
        spec(TopicName::new(names::QUARANTINE), 1, retention.quarantine),
    ];
    let mut seen = BTreeSet::new();
    for kind in catalogue.types() {
        let keep =
            if kind.ephemeral().is_empty() { retention.events } else { retention.ephemeral_events };
        // Several types of Tidings' own share one topic.
        if seen.insert(kind.topic()) {
            specs.push(spec(kind.topic(), kind.partitions(), keep));
        }
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_of_a_source_partition_never_changes() {
        let of = |topic: &str, n| routed_partition(&TopicPartition::new(topic, n));
        assert_eq!(
            [
                of("tidings.events.101", 0),
                of("tidings.events.101", 1),
                of("tidings.events.101", 11),
                of("tidings.events.transaction.sale.success", 2),
                of("tidings.events.ops", 0),
            ],
            GOLDEN
        );
    }

    /// Taken from Python's hashlib.
    const GOLDEN: [u32; 5] = [2, 9, 8, 8, 4];

    #[test]
    fn every_source_partition_has_exactly_one_home() {
        let catalogue = Catalogue::builtin();
        let all: Vec<TopicDescription> = topics(&catalogue, &crate::Config::default().retention)
            .into_iter()
            .map(|it| TopicDescription {
                name: it.name,
                partitions: it.partitions,
                retention: it.retention,
                message_bytes: None,
            })
            .collect();
        let topics = event_topics(&all);
        assert!(topics.iter().all(|(name, _)| name.as_str().starts_with("tidings.events.")));
        let total: u32 = topics.iter().map(|(_, count)| *count).sum();
        let shares: Vec<usize> =
            (0..ROUTED_PARTITIONS).map(|n| sources(&topics, n).len()).collect();
        assert_eq!(shares.iter().sum::<usize>(), usize::try_from(total).unwrap());
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    }
}
