//! What has been fetched, on its way into a batch. Outcomes are held back until
//! the decisions of their time have been read: otherwise a rebuild, which has both
//! topics before it whole, would keep millions of outcomes without their
//! decisions, and write each of them twice.

use std::collections::{BTreeMap, VecDeque};

use tidings_broker::Record as BrokerRecord;
use tidings_eventlog::{Batch, Record, Source};
use tidings_proto::{FORMAT_HEADER, FORMAT_VERSION};
use tidings_types::{Offset, Partition, Timestamp};

use crate::progress::{Part, Progress};

#[derive(Debug)]
pub(crate) struct Held {
    outcomes: BTreeMap<Partition, VecDeque<Record>>,
    bytes: usize,
    limit: usize,
    /// The time of the last decision read of each partition.
    decided: BTreeMap<Partition, Timestamp>,
}

/// A batch, and the positions behind it.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub(crate) batch: Batch,
    pub(crate) next: Vec<(Part, Offset)>,
}

fn size(record: &Record) -> usize {
    record.value.as_ref().map_or(0, |value| value.len()) + 64
}

fn converted(record: BrokerRecord) -> Record {
    let known = |(name, value): &(std::sync::Arc<str>, _)| {
        &**name == FORMAT_HEADER && *value == FORMAT_VERSION
    };
    Record {
        offset: record.offset,
        time: record.timestamp,
        known_format: record.headers.iter().any(known),
        value: record.value,
    }
}

impl Held {
    /// `routed`: the partitions of decisions there are.
    pub(crate) fn new(limit: usize, routed: impl Iterator<Item = Partition>) -> Self {
        // Before the first is read, nothing is known of its time.
        let decided = routed.map(|partition| (partition, Timestamp::from_millis(i64::MIN)));
        Self { outcomes: BTreeMap::new(), bytes: 0, limit, decided: decided.collect() }
    }

    /// Takes fetched records in.
    pub(crate) fn add(&mut self, ready: &mut Ready, part: Part, records: Vec<BrokerRecord>) {
        let records = records.into_iter().map(converted);
        match part {
            (Source::Routed, partition) => {
                let records: Vec<Record> = records.collect();
                let Some(last) = records.last() else { return };
                self.decided.insert(partition, last.time);
                ready.next.push((part, last.offset + 1));
                ready.batch.push(Source::Routed, partition, records);
            }
            (Source::Outcomes, partition) => {
                let held = self.outcomes.entry(partition).or_default();
                for record in records {
                    self.bytes += size(&record);
                    held.push_back(record);
                }
            }
        }
    }

    /// Releases outcomes: all of them once the decisions have been read to their
    /// end, or when there are too many, else those of an earlier time.
    pub(crate) fn release(&mut self, ready: &mut Ready, progress: &Progress) {
        let at_end = |partition: Partition| {
            let part = (Source::Routed, partition);
            let fetched = ready.next.iter().rev().find(|(of, _)| *of == part);
            progress.is_at_end(&part, fetched.map(|(_, next)| *next))
        };
        let behind = self.decided.iter().filter(|(partition, _)| !at_end(**partition));
        let until = behind.map(|(_, time)| *time).min();
        let all = until.is_none() || self.bytes > self.limit;
        for (partition, held) in &mut self.outcomes {
            let due = |record: &Record| all || until.is_none_or(|until| record.time <= until);
            // In the order of the log, even if a time in it goes back.
            let count = held.iter().take_while(|record| due(record)).count();
            let records: Vec<Record> = held.drain(..count).collect();
            let Some(last) = records.last() else { continue };
            self.bytes -= records.iter().map(size).sum::<usize>();
            ready.next.push(((Source::Outcomes, *partition), last.offset + 1));
            ready.batch.push(Source::Outcomes, *partition, records);
        }
    }

    /// Whether outcomes of a partition wait: no more of it should be fetched.
    pub(crate) fn holds(&self, partition: Partition) -> bool {
        self.outcomes.get(&partition).is_some_and(|held| !held.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.outcomes.values().map(VecDeque::len).sum()
    }

    /// Forgets what waits of a partition, because it will be read again.
    pub(crate) fn forget(&mut self, partition: Partition) {
        if let Some(held) = self.outcomes.remove(&partition) {
            self.bytes -= held.iter().map(size).sum::<usize>();
        }
    }
}
