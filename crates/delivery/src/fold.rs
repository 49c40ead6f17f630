//! The fold of a takeover: from a slot's own records and the outcomes since its
//! last mark to the state that its new owner starts with.
//!
//! Pure: the caller reads both topics and hands the records in, in log order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidings_types::{Lane, Offset, Partition, Sabotage, WebhookId};

use crate::{Assembler, At, AttemptFact, Checkpoint, Entry, FactKind, Folded, Part, TookOrder};

/// The last checkpoint of each delivery partition.
type Checkpoints = BTreeMap<(WebhookId, Partition), Checkpoint>;

/// An endpoint that may have asked for a pause after the last mark, of which only its
/// outcomes tell, is left alone for so long at most.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(60);

/// One record of a slot's partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotEvent {
    /// A `took` stands at this record's offset.
    Took,
    Checkpoint(Box<Part>),
    /// All checkpoints before it are complete up to this offset of the slot's
    /// outcomes partition.
    Mark {
        outcomes_next: Offset,
    },
}

/// One fact as it is read from `tidings.outcomes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeSeen {
    pub webhook: WebhookId,
    pub entry: Entry,
    pub kind: FactKind,
    /// The `took` of its owner.
    pub took: Offset,
    /// When it was said.
    pub time: tidings_types::Timestamp,
    /// Whether the attempt was answered with 410.
    pub gone: bool,
    /// Whether it was answered with 429 or 503, with which an endpoint may ask for a
    /// pause.
    pub is_busy: bool,
    /// What the attempt came to that it is about.
    pub attempt: Option<AttemptFact>,
}

/// The last mark that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkSeen {
    pub took: Offset,
    pub outcomes_next: Offset,
}

/// The state of one slot while it is folded.
#[derive(Debug, Default)]
pub struct SlotFold {
    sabotage: Sabotage,
    /// See [`crate::Limits::failing_after`].
    failing_after: Duration,
    order: TookOrder,
    parts: Assembler,
    /// Checkpoints since the last mark.
    unmarked: BTreeMap<(WebhookId, Partition), Checkpoint>,
    /// Rule: only what stands before the last mark counts.
    marked: BTreeMap<(WebhookId, Partition), Checkpoint>,
    mark: Option<MarkSeen>,
    changed: BTreeSet<(WebhookId, Partition)>,
    void: u64,
    disagreeing: u64,
}

impl SlotFold {
    pub fn new(sabotage: Sabotage, failing_after: Duration) -> Self {
        Self { sabotage, failing_after, ..Self::default() }
    }

    /// A record of the slot's partition; `named` is the `took` that it names (its
    /// own offset for a `took`).
    pub fn slot_record(&mut self, offset: Offset, named: Offset, event: SlotEvent) {
        if event == SlotEvent::Took {
            self.order.took(offset);
            // What an earlier owner wrote after its last mark does not count, also
            // not by the mark of a later one.
            if self.sabotage.is(Sabotage::UseBeyondMark) {
                self.marked.append(&mut self.unmarked);
            }
            self.unmarked.clear();
            self.parts = Assembler::default();
            return;
        }
        if !self.order.counts(named) && !self.sabotage.is(Sabotage::RecordsWithoutTook) {
            self.void += 1;
            return;
        }
        match event {
            SlotEvent::Took => {}
            SlotEvent::Checkpoint(part) => {
                if let Some((of, checkpoint)) = self.parts.add(*part) {
                    self.unmarked.insert(of, checkpoint);
                }
            }
            SlotEvent::Mark { outcomes_next } => {
                self.marked.append(&mut self.unmarked);
                self.mark = Some(MarkSeen { took: named, outcomes_next });
            }
        }
    }

    pub fn mark(&self) -> Option<MarkSeen> {
        self.mark
    }

    /// A fact from the last mark on, in log order.
    pub fn outcome(&mut self, seen: &OutcomeSeen) {
        // Rule: of an outcome whose owner is older than the mark's, a takeover uses
        // only `delivered`.
        let stale = self.mark.is_some_and(|mark| seen.took < mark.took);
        if stale && seen.kind != FactKind::Delivered {
            return;
        }
        let At { partition, offset } = seen.entry.at;
        let of = (seen.webhook, partition);
        let checkpoint = self.marked.entry(of).or_default();
        let differences = self.sabotage.is(Sabotage::OutcomesAsDifferences);
        let changed = if offset < checkpoint.next {
            fold_open(checkpoint, seen, differences)
        } else {
            fold_ahead(checkpoint, seen, differences)
        };
        match changed {
            Change::None => {}
            Change::Disagrees => {
                self.disagreeing += 1;
                self.changed.insert(of);
            }
            Change::Made => {
                self.changed.insert(of);
                if !stale {
                    self.fold_health(seen);
                }
            }
        }
        if !stale && seen.entry.totals.number > 0 {
            self.fold_number(seen);
        }
        if !stale {
            self.fold_alarm(seen);
        }
    }

    /// The last number that was given in its lane; kept in partition 0.
    fn fold_number(&mut self, seen: &OutcomeSeen) {
        let of = (seen.webhook, 0);
        let counters = self.marked.entry(of).or_default();
        let counter = match seen.entry.lane {
            Lane::Standard => &mut counters.standard_number,
            Lane::Urgent => &mut counters.urgent_number,
        };
        if seen.entry.totals.number > *counter {
            *counter = seen.entry.totals.number;
            self.changed.insert(of);
        }
    }

    /// What the operator is told, as the owner made it of the same facts; kept in
    /// partition 0.
    fn fold_alarm(&mut self, seen: &OutcomeSeen) {
        let Some(attempt) = seen.attempt else { return };
        let alarm = &mut self.marked.entry((seen.webhook, 0)).or_default().alarm;
        if alarm.fold(seen.kind, seen.time, &attempt, self.failing_after) {
            self.changed.insert((seen.webhook, 0));
        }
    }

    /// How the webhook has fared, as its owner counted it; kept in partition 0.
    fn fold_health(&mut self, seen: &OutcomeSeen) {
        let of = (seen.webhook, 0);
        let health = &mut self.marked.entry(of).or_default().health;
        match seen.kind {
            FactKind::Delivered => {
                health.failed.clear();
                health.failing_since = None;
                health.gone.clear();
            }
            FactKind::AttemptFailed | FactKind::Undelivered(_) if seen.attempt.is_some() => {
                health.failed.add(seen.entry.notification);
                health.failing_since = health.failing_since.or(Some(seen.time));
                if seen.is_busy {
                    // What it asked for is not said; the next attempt waits as long.
                    let until = seen.entry.totals.due.min(seen.time + UNKNOWN_PAUSE);
                    let [standard, urgent] = &mut health.paused_until;
                    let lane = match seen.entry.lane {
                        Lane::Standard => standard,
                        Lane::Urgent => urgent,
                    };
                    *lane = (*lane).max(until);
                }
                if seen.gone {
                    health.gone.push(seen.time);
                }
            }
            FactKind::AttemptFailed
            | FactKind::Undelivered(_)
            | FactKind::TakenUp
            | FactKind::Expired
            | FactKind::Cancelled
            | FactKind::Superseded
            | FactKind::Joined => return,
        }
        self.changed.insert(of);
    }

    /// Records that a later owner's `took` made void.
    pub fn void(&self) -> u64 {
        self.void
    }

    /// Outcomes that named another id or run than the checkpoint at their offset.
    pub fn disagreeing(&self) -> u64 {
        self.disagreeing
    }

    /// The state, and which of it the outcomes changed (those checkpoints are
    /// written before the owner goes on).
    pub fn finish(self) -> (Checkpoints, BTreeSet<(WebhookId, Partition)>) {
        (self.marked, self.changed)
    }
}

enum Change {
    None,
    Made,
    Disagrees,
}

fn agrees(entry: &Entry, seen: &OutcomeSeen) -> bool {
    entry.at == seen.entry.at
        && entry.notification == seen.entry.notification
        && entry.run == seen.entry.run
}

fn take_totals(entry: &mut Entry, seen: &OutcomeSeen, differences: bool) {
    let before = entry.totals.attempts;
    entry.totals = seen.entry.totals;
    if differences && seen.kind == FactKind::AttemptFailed {
        entry.totals.attempts = before + 1;
    }
}

/// An offset that was taken up before the checkpoint: open there, or ended.
fn fold_open(checkpoint: &mut Checkpoint, seen: &OutcomeSeen, differences: bool) -> Change {
    let offset = seen.entry.at.offset;
    let Ok(index) = checkpoint.open.binary_search_by_key(&offset, |open| open.at.offset) else {
        return Change::None;
    };
    let Some(open) = checkpoint.open.get_mut(index) else { return Change::None };
    if !agrees(open, seen) {
        return Change::Disagrees;
    }
    if seen.kind.is_end() {
        checkpoint.open.remove(index);
    } else {
        take_totals(open, seen, differences);
    }
    Change::Made
}

/// An offset that will be read again: what was said of it is kept until then.
fn fold_ahead(checkpoint: &mut Checkpoint, seen: &OutcomeSeen, differences: bool) -> Change {
    let offset = seen.entry.at.offset;
    let ended = seen.kind.is_end();
    match checkpoint.folded.binary_search_by_key(&offset, |folded| folded.entry.at.offset) {
        Err(index) => {
            checkpoint.folded.insert(index, Folded { entry: seen.entry, ended });
            Change::Made
        }
        Ok(index) => {
            let Some(folded) = checkpoint.folded.get_mut(index) else { return Change::None };
            if !agrees(&folded.entry, seen) {
                // The later one wins; the record itself will say which agrees.
                *folded = Folded { entry: seen.entry, ended };
                return Change::Disagrees;
            }
            // An end stays an end.
            folded.ended |= ended;
            take_totals(&mut folded.entry, seen, differences);
            Change::Made
        }
    }
}
