//! Who owns a slot, as its own log says it.
//!
//! Two sides: [`TookOrder`] tells a reader which records are void, [`Fence`] tells
//! a writer whether an acknowledgement proves that it is still the owner.

use tidings_types::Offset;

/// Reads a slot's partition in order. Rule: records name their owner's `took`; one
/// that names an earlier one than a record before it is void.
#[derive(Clone, Copy, Debug, Default)]
pub struct TookOrder {
    latest: Option<Offset>,
}

impl TookOrder {
    /// A `took` stands at `offset`.
    pub fn took(&mut self, offset: Offset) {
        self.latest = self.latest.max(Some(offset));
    }

    /// Whether a record that names the `took` at `named` counts.
    pub fn counts(&mut self, named: Offset) -> bool {
        let counts = self.latest.is_none_or(|latest| named >= latest);
        if counts {
            self.latest = Some(named);
        }
        counts
    }
}

/// What an acknowledgement proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The record stands directly behind the owner's previous one: still the owner.
    Owner,
    /// Something stands between `from` and `to` (exclusive): read it; another's
    /// `took` there ends the ownership.
    ReadBetween { from: Offset, to: Offset },
}

/// The writer's side. Rule: a record is acknowledged at the offset after its
/// owner's previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    took: Offset,
    next: Offset,
}

impl Fence {
    /// After one's own `took` was acknowledged at `took`.
    pub fn new(took: Offset) -> Self {
        Self { took, next: took + 1 }
    }

    /// The offset of the owner's `took`.
    pub fn took(&self) -> Offset {
        self.took
    }

    /// Where the owner's next record must stand.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Records were acknowledged from `first` to `last`.
    pub fn acknowledged(&mut self, first: Offset, last: Offset) -> Proof {
        let expected = self.next;
        self.next = self.next.max(last + 1);
        if first == expected {
            Proof::Owner
        } else {
            Proof::ReadBetween { from: expected, to: first }
        }
    }

    /// What stood in between was read up to `next` and held no other's `took`.
    pub fn seen(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_earlier_owner_is_void_after_a_later_took() {
        let mut order = TookOrder::default();
        order.took(0);
        assert!(order.counts(0));
        order.took(2);
        assert!(!order.counts(0));
        assert!(order.counts(2));
    }

    #[test]
    fn a_record_may_name_a_took_that_is_trimmed_away() {
        let mut order = TookOrder::default();
        assert!(order.counts(7));
        assert!(!order.counts(6));
    }

    #[test]
    fn only_the_next_offset_proves_the_ownership() {
        let mut fence = Fence::new(4);
        assert_eq!(fence.acknowledged(5, 6), Proof::Owner);
        assert_eq!(fence.acknowledged(8, 8), Proof::ReadBetween { from: 7, to: 8 });
        assert_eq!(fence.acknowledged(9, 9), Proof::Owner);
    }
}
