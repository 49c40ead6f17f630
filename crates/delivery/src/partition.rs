//! One delivery partition: how far it has been read, what is open, what has been
//! read ahead, and from where on the log is still needed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidings_types::{NotificationId, Offset, RunId, Timestamp};

use crate::{
    Arrived, Folded,
    entry::{Open, Phase},
    hook::Watch,
};

/// A record that has been read and not been taken up.
#[derive(Debug)]
pub(crate) enum Ahead<B> {
    Record(Arrived<B>),
    /// A record that does not decode: counted by who read it, passed over here.
    Void(Offset),
}

impl<B> Ahead<B> {
    pub(crate) fn offset(&self) -> Offset {
        match self {
            Self::Record(arrived) => arrived.offset,
            Self::Void(offset) => *offset,
        }
    }

    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Record(arrived) => arrived.size,
            Self::Void(_) => 0,
        }
    }
}

/// What is known of one delivery partition.
#[derive(Debug)]
pub(crate) struct PartitionState<B> {
    /// The next offset to take up.
    pub(crate) next: Offset,
    /// Id and run of the record at `next - 1`.
    pub(crate) last: Option<(NotificationId, RunId)>,
    pub(crate) open: BTreeMap<Offset, Open<B>>,
    /// The open ones that wait, by due time.
    pub(crate) waiting: BTreeSet<(Timestamp, Offset)>,
    pub(crate) folded: BTreeMap<Offset, Folded>,
    pub(crate) ahead: VecDeque<Ahead<B>>,
    pub(crate) ahead_bytes: usize,
    /// Of one that is only looked through for deadlines.
    pub(crate) watch: Option<Watch>,
    /// Something changed that the last checkpoint does not say.
    pub(crate) changed: bool,
    /// The offset before which the log is not needed, by the state of the last
    /// mark. Rule: a trim uses the state of the last mark.
    pub(crate) marked_trim: Offset,
    /// Up to where the log was trimmed.
    pub(crate) trimmed: Offset,
}

impl<B> PartitionState<B> {
    pub(crate) fn new(next: Offset) -> Self {
        Self {
            next,
            last: None,
            open: BTreeMap::new(),
            waiting: BTreeSet::new(),
            folded: BTreeMap::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            watch: None,
            changed: false,
            marked_trim: 0,
            trimmed: 0,
        }
    }

    /// The next offset to read from the log.
    pub(crate) fn read_from(&self) -> Offset {
        self.ahead.back().map_or(self.next, |last| last.offset() + 1)
    }

    /// The offset before which this state does not need the log: the oldest open
    /// notification, and the record before `next`, by which a lost tail is seen.
    pub(crate) fn needed_from(&self) -> Offset {
        let before_next = self.next.saturating_sub(1);
        self.open.first_key_value().map_or(before_next, |(oldest, _)| before_next.min(*oldest))
    }

    /// Everything up to and with `offset` has been taken up.
    pub(crate) fn passed(&mut self, offset: Offset, last: Option<(NotificationId, RunId)>) {
        debug_assert!(offset >= self.next, "a partition is taken up in order");
        self.next = offset + 1;
        self.last = last;
        self.changed = true;
        // What outcomes said of offsets that hold no record is of no use either.
        while self.folded.first_key_value().is_some_and(|(first, _)| *first <= offset) {
            self.folded.pop_first();
        }
    }

    /// Moves an open notification to waiting.
    pub(crate) fn wait(&mut self, offset: Offset) {
        if let Some(open) = self.open.get_mut(&offset) {
            open.phase = Phase::Waiting;
            self.waiting.insert((open.entry.totals.due, offset));
        }
    }

    /// Takes an open notification out of waiting.
    pub(crate) fn stop_waiting(&mut self, offset: Offset) {
        if let Some(open) = self.open.get(&offset) {
            self.waiting.remove(&(open.entry.totals.due, offset));
        }
    }
}
