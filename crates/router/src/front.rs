//! How far the records of one source partition are decided, as its decisions show.
//!
//! An owner decides in order and writes in order. Still, of one append a part in the
//! middle may fail while what follows it is written: a record that the topic does not
//! take, or one that had waited too long for its broker. Then a decision stands
//! behind a gap: what lies in the gap is not decided, and must be.

use std::{collections::BTreeMap, ops::Range};

use tidings_types::Offset;

/// The decided offsets of a source partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// Everything before it is decided.
    next: Offset,
    /// What is decided beyond a gap: the first offset and the one behind the last.
    /// No more than the decisions of one append.
    beyond: BTreeMap<Offset, Offset>,
}

impl Front {
    pub(crate) fn at(next: Offset) -> Self {
        Self { next, beyond: BTreeMap::new() }
    }

    /// Notes the decision on `offset`, before which `skipped` offsets hold nothing.
    /// False if it is decided already.
    pub(crate) fn note(&mut self, offset: Offset, skipped: u64) -> bool {
        if self.has(offset) {
            return false;
        }
        let first = offset.saturating_sub(skipped).max(self.next);
        self.beyond.insert(first, offset + 1);
        while let Some(gap_free) = self.beyond.first_entry()
            && *gap_free.key() <= self.next
        {
            self.next = self.next.max(gap_free.remove());
        }
        true
    }

    /// The same where a gap says nothing, since not everything before it was read.
    pub(crate) fn jump(&mut self, offset: Offset) -> bool {
        let is_new = offset >= self.next;
        self.next = self.next.max(offset + 1);
        is_new
    }

    fn has(&self, offset: Offset) -> bool {
        let before = self.beyond.range(..=offset).next_back();
        offset < self.next || before.is_some_and(|(_, end)| offset < *end)
    }

    /// Where to go on, and the gaps before that.
    pub(crate) fn close(self) -> (Offset, Vec<Range<Offset>>) {
        let (mut next, mut gaps) = (self.next, Vec::new());
        for (first, end) in self.beyond {
            if first > next {
                gaps.push(next..first);
            }
            next = next.max(end);
        }
        (next, gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes decisions, each with the offsets that it skips.
    fn after(next: Offset, decisions: &[(Offset, u64)]) -> (Offset, Vec<(Offset, Offset)>) {
        let mut front = Front::at(next);
        for (offset, skipped) in decisions {
            assert!(front.note(*offset, *skipped), "{offset} is decided once");
        }
        let (next, gaps) = front.close();
        (next, gaps.into_iter().map(|gap| (gap.start, gap.end)).collect())
    }

    #[test]
    fn decisions_in_order_leave_no_gap() {
        assert_eq!(after(5, &[(5, 0), (6, 0), (9, 2)]), (10, vec![]));
    }

    #[test]
    fn a_decision_that_is_missing_is_a_gap() {
        assert_eq!(after(5, &[(5, 0), (7, 0), (8, 0)]), (9, vec![(6, 7)]));
        assert_eq!(after(5, &[(7, 0), (9, 0)]), (10, vec![(5, 7), (8, 9)]));
        // What the later one skipped holds nothing.
        assert_eq!(after(5, &[(9, 2)]), (10, vec![(5, 7)]));
    }

    #[test]
    fn a_gap_that_is_made_up_for_is_none() {
        assert_eq!(after(5, &[(6, 0), (8, 0), (5, 0), (7, 0)]), (9, vec![]));
    }

    #[test]
    fn what_is_decided_is_not_decided_again() {
        let mut front = Front::at(5);
        assert!(!front.note(4, 0));
        assert!(front.note(7, 0));
        assert!(!front.note(7, 0), "it stands behind a gap");
        assert!(front.note(6, 1));
        assert!(!front.note(5, 0), "it was skipped");
        assert_eq!(front.close(), (8, vec![]));
    }

    #[test]
    fn a_jump_leaves_no_gap() {
        let mut front = Front::at(5);
        assert!(front.jump(100));
        assert!(!front.jump(50));
        assert_eq!(front.close(), (101, vec![]));
    }
}
