//! What a commit of the router says beside the next offset: up to where in
//! `tidings.routed` every decision has its deliveries.
//!
//! All source partitions of one `routed` partition are committed together with
//! the same words, so that a takeover knows from where to repeat deliveries.

use std::{collections::BTreeMap, fmt::Write as _};

use tidings_types::{Offset, TopicPartition};

use crate::sources::hash;

/// A commit's text is kept up to 4,000 bytes; so many are for [`Known`].
const KNOWN_BYTES: usize = 3_500;

/// The words of a commit, as text: `1 routed=57 took=12 epoch=0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Covered {
    /// Every decision before this offset of `tidings.routed` has its deliveries.
    pub(crate) routed: Offset,
    /// The `took` under which this was written: a record behind `routed` that
    /// names an earlier one is void.
    pub(crate) took: Offset,
    /// The source epoch (a setting) at that time.
    pub(crate) epoch: u64,
}

impl Covered {
    pub(crate) fn to_text(self) -> String {
        format!("1 routed={} took={} epoch={}", self.routed, self.took, self.epoch)
    }

    /// `None` for words that something else wrote: nothing is known then.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some("1") {
            return None;
        }
        let mut number = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
        Some(Self { routed: number("routed=")?, took: number("took=")?, epoch: number("epoch=")? })
    }
}

/// How far a source partition was decided, under which source epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reached {
    pub(crate) epoch: u64,
    pub(crate) next: Offset,
}

/// How far source partitions were decided, also those that are gone. It follows the words
/// of some commits as ` known=<partition>:<next>:<epoch>,…`, a partition as 16 hex digits
/// of a hash: a broker forgets what was committed of a topic that is deleted, and this is
/// how one that is made anew under the same name is told from one that is new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known(BTreeMap<u64, Reached>);

impl Known {
    /// The later word counts.
    pub(crate) fn note(&mut self, source: &TopicPartition, reached: Reached) {
        self.put(hash(source), reached);
    }

    pub(crate) fn of(&self, source: &TopicPartition) -> Option<Reached> {
        self.0.get(&hash(source)).copied()
    }

    fn put(&mut self, source: u64, reached: Reached) {
        // Where nothing was decided nothing can be taken for something else.
        if reached.next > 0 {
            let known = self.0.entry(source).or_insert(reached);
            *known = reached.max(*known);
        }
    }

    /// Takes in what a commit says.
    pub(crate) fn read(&mut self, text: &str) {
        let Some(list) = text.split(' ').find_map(|word| word.strip_prefix("known=")) else {
            return;
        };
        for one in list.split(',') {
            let mut parts = one.split(':');
            let mut number =
                |radix| parts.next().and_then(|part| u64::from_str_radix(part, radix).ok());
            if let (Some(source), Some(next), Some(epoch)) = (number(16), number(10), number(10)) {
                self.put(source, Reached { epoch, next });
            }
        }
    }

    /// As a commit says it; of very many a part.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for (source, Reached { epoch, next }) in &self.0 {
            if text.len() >= KNOWN_BYTES - 64 {
                break;
            }
            let before = if text.is_empty() { " known=" } else { "," };
            if write!(text, "{before}{source:016x}:{next}:{epoch}").is_err() {
                break;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_sources_were_decided_is_read_as_it_was_written() {
        let source = |partition| TopicPartition::new("tidings.events.104", partition);
        let mut known = Known::default();
        known.note(&source(0), Reached { epoch: 0, next: 57 });
        known.note(&source(0), Reached { epoch: 0, next: 56 });
        known.note(&source(1), Reached { epoch: 0, next: 0 });
        known.note(&source(2), Reached { epoch: 0, next: 9 });
        known.note(&source(2), Reached { epoch: 1, next: 2 });
        let covered = Covered { routed: 57, took: 12, epoch: 3 };
        let text = covered.to_text() + &known.to_text();
        assert_eq!(Covered::parse(&text), Some(covered));
        let mut read = Known::default();
        read.read(&text);
        assert_eq!(read, known);
        assert_eq!(read.of(&source(0)), Some(Reached { epoch: 0, next: 57 }));
        assert_eq!(read.of(&source(1)), None);
        assert_eq!(read.of(&source(2)), Some(Reached { epoch: 1, next: 2 }));
        for text in ["", "1 routed=1 took=1 epoch=1", "known=", "known=x:1:1,5", "known=1:2"] {
            let mut read = Known::default();
            read.read(text);
            assert_eq!(read, Known::default(), "{text:?}");
        }
        (0..1000).for_each(|n| known.note(&source(n), Reached { epoch: 0, next: u64::MAX }));
        assert!(known.to_text().len() <= KNOWN_BYTES);
    }

    #[test]
    fn the_words_are_read_as_they_were_written() {
        let covered = Covered { routed: 57, took: 12, epoch: 3 };
        assert_eq!(covered.to_text(), "1 routed=57 took=12 epoch=3");
        assert_eq!(Covered::parse(&covered.to_text()), Some(covered));
    }

    #[test]
    fn foreign_words_say_nothing() {
        for text in ["", "1", "2 routed=1 took=1 epoch=1", "1 routed=x took=1 epoch=1", "hello"] {
            assert_eq!(Covered::parse(text), None, "{text:?}");
        }
    }
}
