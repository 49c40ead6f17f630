//! What a fold takes: records of the two topics, and the positions behind them.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidings_proto::{decode, v1};
use tidings_types::{Offset, Partition, Timestamp, TopicPartition, names};

/// Which of the two topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Routed,
    Outcomes,
}

impl Source {
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Routed => names::ROUTED,
            Self::Outcomes => names::OUTCOMES,
        }
    }

    pub fn of(topic: &str) -> Option<Self> {
        match topic {
            names::ROUTED => Some(Self::Routed),
            names::OUTCOMES => Some(Self::Outcomes),
            _ => None,
        }
    }

    pub fn partition(self, partition: Partition) -> TopicPartition {
        TopicPartition::new(self.topic(), partition)
    }
}

/// One record as it stands in a topic.
#[derive(Clone, Debug)]
pub struct Record {
    pub offset: Offset,
    /// The record's time in the topic.
    pub time: Timestamp,
    /// Whether the record's header names the format that this release knows.
    pub known_format: bool,
    pub value: Option<Bytes>,
}

/// Records of any partitions. Those of one partition follow on what was applied
/// before.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    parts: Vec<(Source, Partition, Vec<Record>)>,
    skipped: Vec<(Source, Partition, Offset)>,
}

impl Batch {
    /// Adds records of one partition, in the order in which they stand there.
    pub fn push(&mut self, source: Source, partition: Partition, records: Vec<Record>) {
        if !records.is_empty() {
            self.parts.push((source, partition, records));
        }
    }

    /// Says that a partition has nothing (any more) before `next`.
    pub fn skip(&mut self, source: Source, partition: Partition, next: Offset) {
        self.skipped.push((source, partition, next));
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.skipped.is_empty()
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(_, _, records)| records.len()).sum()
    }

    /// Decodes all records. One that cannot be decoded is counted and void, so
    /// that it cannot stop history for everyone.
    pub(crate) fn decode(self) -> Decoded {
        let skipped = self.skipped.into_iter();
        let positions = skipped.map(|(source, partition, next)| ReadUpTo {
            source,
            partition,
            run: None,
            next,
        });
        let mut decoded = Decoded { positions: positions.collect(), ..Decoded::default() };
        for (source, partition, records) in self.parts {
            let (Some(first), Some(last)) = (records.first(), records.last()) else { continue };
            let (run, next) = (Some((first.offset, records.len() as u64)), last.offset + 1);
            decoded.positions.push(ReadUpTo { source, partition, run, next });
            match source {
                Source::Routed => decoded.routed(partition, records),
                Source::Outcomes => decoded.outcomes(partition, records),
            }
        }
        decoded
    }
}

#[derive(Debug)]
pub(crate) struct DecodedRouted {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    /// The record's bytes, kept as they are.
    pub(crate) raw: Bytes,
    pub(crate) record: v1::RoutedRecord,
}

#[derive(Debug)]
pub(crate) struct DecodedOutcomes {
    pub(crate) offset: Offset,
    pub(crate) batch: v1::OutcomeBatch,
}

#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) routed: Vec<DecodedRouted>,
    pub(crate) outcomes: Vec<DecodedOutcomes>,
    pub(crate) positions: Vec<ReadUpTo>,
    pub(crate) undecodable: u64,
}

/// A step forward in one partition.
#[derive(Debug)]
pub(crate) struct ReadUpTo {
    pub(crate) source: Source,
    pub(crate) partition: Partition,
    /// The first record and how many came; `None` if what was there is gone.
    pub(crate) run: Option<(Offset, u64)>,
    pub(crate) next: Offset,
}

impl ReadUpTo {
    /// How many records should have come from `expected` on and did not. Records
    /// stand in their partition without gaps.
    pub(crate) fn missing(&self, expected: Offset) -> u64 {
        let Some((first, count)) = self.run else {
            // What was gone before the view came to the partition is no gap.
            return if expected == 0 { 0 } else { self.next.saturating_sub(expected) };
        };
        self.next.saturating_sub(expected.min(first)).saturating_sub(count)
    }
}

impl Decoded {
    fn routed(&mut self, partition: Partition, records: Vec<Record>) {
        for Record { offset, known_format, value, .. } in records {
            let raw = value.filter(|_| known_format);
            match raw.map(|raw| (decode::<v1::RoutedRecord>(raw.clone()), raw)) {
                Some((Ok(record), raw)) => {
                    self.routed.push(DecodedRouted { partition, offset, raw, record });
                }
                Some((Err(_), _)) | None => self.void(Source::Routed, partition, offset),
            }
        }
    }

    fn outcomes(&mut self, partition: Partition, records: Vec<Record>) {
        for Record { offset, known_format, value, .. } in records {
            let raw = value.filter(|_| known_format);
            match raw.map(decode::<v1::OutcomeBatch>) {
                Some(Ok(batch)) => self.outcomes.push(DecodedOutcomes { offset, batch }),
                Some(Err(_)) | None => self.void(Source::Outcomes, partition, offset),
            }
        }
    }

    fn void(&mut self, source: Source, partition: Partition, offset: Offset) {
        self.undecodable += 1;
        tracing::error!(
            topic = source.topic(),
            partition,
            offset,
            "a record does not decode and is left out; it was written by another release"
        );
    }
}

/// The next offset of each partition that has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    next: BTreeMap<(Source, Partition), Offset>,
}

impl Positions {
    pub(crate) fn next(&self, of: &TopicPartition) -> Option<Offset> {
        let source = Source::of(of.topic.as_str())?;
        self.next.get(&(source, of.partition)).copied()
    }

    /// The next offset of a partition; a partition that was never read has its
    /// beginning before it.
    pub(crate) fn of(&self, source: Source, partition: Partition) -> Offset {
        self.next.get(&(source, partition)).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, source: Source, partition: Partition, next: Offset) {
        self.next.insert((source, partition), next);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Source, Partition, Offset)> {
        self.next.iter().map(|((source, partition), next)| (*source, *partition, *next))
    }

    pub(crate) fn to_map(&self) -> BTreeMap<TopicPartition, Offset> {
        self.iter().map(|(source, partition, next)| (source.partition(partition), next)).collect()
    }
}
