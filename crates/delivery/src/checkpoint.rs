//! What a slot's owner writes down about one delivery partition, and how a
//! checkpoint that is too large for one record is cut into parts and put together.

use std::collections::BTreeMap;

use tidings_types::{NotificationId, Offset, Partition, RunId, WebhookId};

use crate::{Alarm, Entry, Health};

/// Entries in one part: at most about 160 bytes each, so that a part stays under
/// 256 KiB (design §5).
pub const PART_ENTRIES: usize = 1500;

/// What outcomes have said of an offset that is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    pub entry: Entry,
    pub ended: bool,
}

/// The state of one delivery partition of one webhook at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The next offset to read: everything before it is open or has ended.
    pub next: Offset,
    /// By offset, each before `next`.
    pub open: Vec<Entry>,
    /// By offset, each from `next` on. Rule: a checkpoint says, for offsets from
    /// the next one on, what outcomes said.
    pub folded: Vec<Folded>,
    /// The counters of the lanes, in partition 0 only.
    pub standard_number: u64,
    pub urgent_number: u64,
    /// In partition 0 only, as the rest.
    pub health: Health,
    /// What the operator is told of it.
    pub alarm: Alarm,
    /// Id and run at `next - 1`, if a good record stood there.
    pub last: Option<(NotificationId, RunId)>,
}

/// One record's worth of a [`Checkpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub webhook: WebhookId,
    pub partition: Partition,
    /// 0-based.
    pub part: u32,
    pub parts: u32,
    /// All parts of one moment share it.
    pub cut: u64,
    /// `open` and `folded` are this part's share; the rest is in each part.
    pub share: Checkpoint,
}

impl Checkpoint {
    /// Cuts into parts of at most `entries` entries. Rule: the parts of a
    /// checkpoint are cut from one moment (they share `cut`).
    pub fn into_parts(
        self,
        webhook: WebhookId,
        partition: Partition,
        cut: u64,
        entries: usize,
    ) -> Vec<Part> {
        let entries = entries.max(1);
        let count = (self.open.len() + self.folded.len()).div_ceil(entries).max(1);
        let parts = u32::try_from(count).unwrap_or(u32::MAX);
        let rest = Self { open: Vec::new(), folded: Vec::new(), ..self.clone() };
        let mut open = self.open.into_iter();
        let mut folded = self.folded.into_iter();
        (0..parts)
            .map(|part| {
                let open: Vec<Entry> = open.by_ref().take(entries).collect();
                let folded = folded.by_ref().take(entries - open.len()).collect();
                let share = Self { open, folded, ..rest.clone() };
                Part { webhook, partition, part, parts, cut, share }
            })
            .collect()
    }

    /// The partition lost its tail: it is read from `first` on; what is known as
    /// ended is dropped, and an open notification counts only once its record has
    /// been found again (design §5). The caller forgets the webhook's ids.
    pub fn lost_tail(&mut self, first: Offset) {
        let open = std::mem::take(&mut self.open);
        let folded = std::mem::take(&mut self.folded);
        self.folded = open
            .into_iter()
            .chain(folded.into_iter().filter(|folded| !folded.ended).map(|folded| folded.entry))
            .map(|entry| Folded { entry, ended: false })
            .collect();
        self.next = first;
        self.last = None;
    }
}

/// Puts parts together: a checkpoint counts once all parts of one cut are there.
#[derive(Debug, Default)]
pub struct Assembler {
    waiting: BTreeMap<(WebhookId, Partition), Vec<Part>>,
}

impl Assembler {
    /// Takes a part; gives the whole checkpoint when it was the last one missing.
    /// A part of another cut, or out of order, drops what was gathered.
    pub fn add(&mut self, part: Part) -> Option<((WebhookId, Partition), Checkpoint)> {
        let of = (part.webhook, part.partition);
        let gathered = self.waiting.entry(of).or_default();
        let fits = gathered.last().map_or(part.part == 0, |before| {
            before.cut == part.cut && before.parts == part.parts && before.part + 1 == part.part
        });
        if !fits {
            gathered.clear();
            if part.part != 0 {
                return None;
            }
        }
        let is_last = part.part + 1 >= part.parts;
        gathered.push(part);
        if !is_last {
            return None;
        }
        let mut parts = self.waiting.remove(&of)?.into_iter();
        let mut whole = parts.next()?.share;
        for part in parts {
            whole.open.extend(part.share.open);
            whole.folded.extend(part.share.folded);
        }
        Some((of, whole))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_types::{Lane, Timestamp};

    use super::*;
    use crate::{At, Totals};

    fn entry(offset: Offset) -> Entry {
        Entry {
            at: At { partition: 0, offset },
            notification: NotificationId::from_bytes([1; 16]),
            run: RunId::FIRST,
            lane: Lane::Standard,
            totals: Totals::default(),
            queue: None,
        }
    }

    fn checkpoint(open: u64, folded: u64) -> Checkpoint {
        Checkpoint {
            next: open,
            open: (0..open).map(entry).collect(),
            folded: (open..open + folded)
                .map(|offset| Folded { entry: entry(offset), ended: offset % 2 == 0 })
                .collect(),
            health: Health { failing_since: Some(Timestamp::from_secs(3)), ..Health::default() },
            ..Checkpoint::default()
        }
    }

    const HOOK: WebhookId = WebhookId::from_bytes([7; 16]);

    proptest! {
        #[test]
        fn parts_put_together_are_the_checkpoint(
            open in 0_u64..30, folded in 0_u64..30, entries in 1_usize..10,
        ) {
            let whole = checkpoint(open, folded);
            let parts = whole.clone().into_parts(HOOK, 0, 5, entries);
            prop_assert!(parts.iter().all(|p| p.share.open.len() + p.share.folded.len() <= entries));
            let mut assembler = Assembler::default();
            let mut made = None;
            for part in parts {
                prop_assert_eq!(&made, &None);
                made = assembler.add(part);
            }
            prop_assert_eq!(made, Some(((HOOK, 0), whole)));
        }
    }

    #[test]
    fn parts_of_two_cuts_make_no_checkpoint() {
        let first = checkpoint(4, 0).into_parts(HOOK, 0, 1, 2);
        let second = checkpoint(4, 0).into_parts(HOOK, 0, 2, 2);
        let mut assembler = Assembler::default();
        assert_eq!(assembler.add(first[0].clone()), None);
        assert_eq!(assembler.add(second[1].clone()), None);
        assert_eq!(assembler.add(first[1].clone()), None);
        assert_eq!(assembler.add(second[0].clone()), None);
        assert!(assembler.add(second[1].clone()).is_some());
    }

    #[test]
    fn a_lost_tail_forgets_ends_and_keeps_open_ones_until_they_are_seen_again() {
        let mut lost = checkpoint(2, 4);
        lost.lost_tail(1);
        assert_eq!(lost.next, 1);
        assert!(lost.open.is_empty());
        let offsets: Vec<Offset> = lost.folded.iter().map(|f| f.entry.at.offset).collect();
        assert_eq!(offsets, [0, 1, 3, 5]);
        assert!(lost.folded.iter().all(|folded| !folded.ended));
    }
}
