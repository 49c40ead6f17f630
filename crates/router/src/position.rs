//! What a commit of the router says beside the next offset: up to where in
//! `tidings.routed` every decision has its deliveries.
//!
//! All source partitions of one `routed` partition are committed together with
//! the same words, so that a takeover knows from where to repeat deliveries.

use tidings_types::Offset;

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

#[cfg(test)]
mod tests {
    use super::*;

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
