//! Whether a reader stands still, after something went wrong between its client and a
//! broker. Pure: it is told the time and the ends of partitions.
//!
//! A broker that its controller took for dead for a moment answers a fetch with "this
//! partition has no leader"; librdkafka (2.12 to 2.14 at least,
//! confluentinc/librdkafka#5430) then keeps the partition without a leader for good, and
//! neither an error nor the next metadata tells of it. What tells is the log: records
//! stand behind a position that does not move.

use std::{collections::BTreeMap, time::Duration};

use tidings_types::{Instant, Offset, TopicPartition};

/// After trouble, when positions are compared with the ends. In pairs: what the first
/// look of a pair finds behind a position must have been read by the second.
const LOOKS: [Duration; 10] = [
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(25),
    Duration::from_secs(40),
    Duration::from_secs(45),
    Duration::from_secs(80),
    Duration::from_secs(85),
    Duration::from_secs(160),
    Duration::from_secs(165),
];

/// A position and the end that was found after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Tells this assignment from an earlier one of the same partition.
    pub(super) era: u64,
    /// The offset that is read next.
    pub(super) expected: Offset,
    pub(super) end: Offset,
}

/// Watches the positions of one reader.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The last trouble, and how many looks came after it.
    trouble: Option<(Instant, usize)>,
    before: BTreeMap<TopicPartition, Seen>,
}

impl Watch {
    /// Something went wrong. Looks that are due for an earlier trouble still come, in
    /// time: trouble that never ends puts none of them off.
    pub(super) fn trouble(&mut self, now: Instant) {
        if self.trouble.is_none_or(|(_, looks)| looks >= 2) {
            self.trouble = Some((now, 0));
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.trouble.is_some_and(|(since, looks)| {
            LOOKS.get(looks).is_some_and(|after| now.since(since) >= *after)
        })
    }

    /// A look is made: what is the next one's time.
    pub(super) fn look(&mut self) {
        self.trouble = match self.trouble {
            Some((since, looks)) if looks + 1 < LOOKS.len() => Some((since, looks + 1)),
            Some(_) | None => None,
        };
    }

    /// The ends could not be asked for: all looks come again.
    pub(super) fn saw_nothing(&mut self, now: Instant) {
        self.trouble = Some((now, 0));
    }

    /// Takes what a look found of the partitions that are read; answers with those that
    /// did not move since the last look although there was something to read.
    pub(super) fn compare(
        &mut self,
        found: impl IntoIterator<Item = (TopicPartition, Seen)>,
    ) -> Vec<TopicPartition> {
        let before = std::mem::take(&mut self.before);
        let mut still = Vec::new();
        for (partition, now) in found {
            let stands = before.get(&partition).is_some_and(|then| {
                then.era == now.era && then.expected == now.expected && then.expected < then.end
            });
            if stands {
                still.push(partition.clone());
            }
            self.before.insert(partition, now);
        }
        if !still.is_empty() {
            // Whoever reads them from now on is not to be blamed for this.
            self.before.clear();
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn one(expected: Offset, end: Offset) -> [(TopicPartition, Seen); 1] {
        [(TopicPartition::new("t", 0), Seen { era: 1, expected, end })]
    }

    #[test]
    fn without_trouble_nothing_is_looked_at() {
        assert!(!Watch::default().is_due(at(1_000)));
    }

    #[test]
    fn looks_come_in_pairs_and_end() {
        let mut watch = Watch::default();
        watch.trouble(at(100));
        let mut looked = Vec::new();
        for second in 100..1_000 {
            if watch.is_due(at(second)) {
                watch.look();
                looked.push(second - 100);
            }
        }
        assert_eq!(looked, [5, 10, 20, 25, 40, 45, 80, 85, 160, 165]);
    }

    #[test]
    fn trouble_every_second_puts_no_look_off() {
        let mut watch = Watch::default();
        let mut looked = Vec::new();
        for second in 0..31 {
            watch.trouble(at(second));
            if watch.is_due(at(second)) {
                watch.look();
                looked.push(second);
            }
        }
        assert_eq!(looked, [5, 10, 16, 21, 27]);
    }

    #[test]
    fn who_does_not_move_although_there_is_something_stands_still() {
        let mut watch = Watch::default();
        assert!(watch.compare(one(7, 9)).is_empty(), "it may be on its way");
        assert_eq!(watch.compare(one(7, 9)), [TopicPartition::new("t", 0)]);
        assert!(watch.compare(one(7, 9)).is_empty(), "another reader has its own two looks");
    }

    #[test]
    fn who_moves_or_has_nothing_to_read_does_not() {
        let mut watch = Watch::default();
        assert!(watch.compare(one(7, 9)).is_empty());
        assert!(watch.compare(one(8, 9)).is_empty(), "it moved");
        assert!(watch.compare(one(9, 9)).is_empty());
        assert!(watch.compare(one(9, 12)).is_empty(), "they are new");
    }

    #[test]
    fn an_assignment_is_not_blamed_for_an_earlier_one() {
        let mut watch = Watch::default();
        assert!(watch.compare(one(7, 9)).is_empty());
        let again = Seen { era: 2, expected: 7, end: 9 };
        assert!(watch.compare([(TopicPartition::new("t", 0), again)]).is_empty());
    }
}
