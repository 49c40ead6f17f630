//! Deadlines of what waits in the log while its webhook stands still.
//!
//! A webhook that is inactive, or that an operator stopped, takes nothing up: the topic
//! is the backlog. What has a deadline ends at it all the same (design §10). So the lanes
//! whose event types may have one are read on, past what was taken up, and nothing but
//! the deadlines is kept. What ends there ends before its turn, as if an earlier owner
//! had said so: once the log has it, a checkpoint tells of it (`folded`), and the record
//! is passed over when its turn comes. It takes no number.

use std::collections::BTreeMap;

use tidings_types::{Offset, Partition, Timestamp};

use super::{BOTH, Hook, index};
use crate::{
    Arrived, Entry, Fact, FactKind, Folded, Process, Totals,
    entry::UNKNOWN_KIND,
    partition::{Ahead, PartitionState},
};

/// What is known of a partition that is only looked through.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The next offset to look at.
    next: Offset,
    /// What ends unless its turn comes before.
    deadlines: BTreeMap<(Timestamp, Offset), Entry>,
}

impl<B> PartitionState<B> {
    /// The next offset to look at for deadlines. Of those that a checkpoint alone told of
    /// they are not known either.
    pub(super) fn watch_from(&self) -> Offset {
        let unknown = || self.open.values().find(|open| open.kind == UNKNOWN_KIND);
        self.watch.as_ref().map_or_else(
            || unknown().map_or(self.next, |open| open.entry.at.offset.min(self.next)),
            |watch| watch.next,
        )
    }

    fn watched(&self) -> usize {
        self.watch.as_ref().map_or(0, |watch| watch.deadlines.len())
    }
}

impl<B: Clone> Hook<B> {
    /// Whether a partition is only looked through for deadlines.
    pub(super) fn watches(&self) -> bool {
        self.gate.standing().waits()
    }

    /// Whether so many deadlines are known that no more are looked for until some have
    /// passed. Those who passed stay in the checkpoint until their turn comes.
    pub(super) fn watches_enough(&self, partition: Partition, process: &Process) -> bool {
        self.lane(partition)
            .is_some_and(|state| state.watched() + state.folded.len() >= process.limits.remembered)
    }

    /// Notes the deadline of a record that has not its turn.
    pub(super) fn look_at(&mut self, partition: Partition, ahead: &Ahead<B>) {
        let Some(state) = self.lane_mut(partition) else { return };
        let next = state.watch_from();
        let watch = state.watch.get_or_insert(Watch { next, deadlines: BTreeMap::new() });
        if ahead.offset() < watch.next {
            return;
        }
        watch.next = ahead.offset() + 1;
        let Ahead::Record(arrived) = ahead else { return };
        let Some(deadline) = arrived.deadline else { return };
        if arrived.offset < state.next {
            if let Some(open) = state.open.get_mut(&arrived.offset)
                && open.entry.notification == arrived.notification
                && open.entry.run == arrived.run
            {
                (open.deadline, open.kind) = (Some(deadline), arrived.kind);
            }
            return;
        }
        let Some(entry) = self.entry_ahead(partition, arrived) else { return };
        if let Some(watch) = self.lane_mut(partition).and_then(|state| state.watch.as_mut()) {
            watch.deadlines.insert((deadline, arrived.offset), entry);
        }
    }

    /// What ends if its deadline passes before its turn. `None`: it has ended, or is one
    /// that was taken up from another offset.
    fn entry_ahead(&self, partition: Partition, arrived: &Arrived<B>) -> Option<Entry> {
        let at = crate::At { partition, offset: arrived.offset };
        let (notification, run) = (arrived.notification, arrived.run);
        let folded = self.lane(partition)?.folded.get(&at.offset);
        if let Some(Folded { entry, ended }) = folded
            && (entry.notification, entry.run) == (notification, run)
        {
            return (!ended).then_some(*entry);
        }
        let is_elsewhere = self.remembered.find(notification, run).is_some_and(|known| known != at);
        let totals = Totals { number: arrived.number, ..Totals::default() };
        let lane = tidings_types::Lane::from_partition(partition);
        (!is_elsewhere).then_some(Entry { at, notification, run, lane, totals, queue: None })
    }

    /// When the next of them ends.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let watches = self.lanes.iter().flatten().filter_map(|state| state.watch.as_ref());
        watches.filter_map(|watch| watch.deadlines.keys().next()).map(|(at, _)| *at).min()
    }

    /// Ends those whose deadline has passed.
    pub(super) fn expire_ahead(&mut self, now: Timestamp, process: &mut Process) {
        for lane in BOTH {
            while process.may_say() {
                let watch = self.lanes[index(lane)].as_mut().and_then(|it| it.watch.as_mut());
                let first = watch.and_then(|watch| {
                    watch.deadlines.first_entry().filter(|first| first.key().0 <= now)
                });
                let Some(entry) = first.map(|first| first.remove()) else { break };
                let fact = Fact { kind: FactKind::Expired, entry, time: now, attempt: None };
                self.say(process, fact);
            }
        }
    }

    /// The log has acknowledged the end of one that has not been taken up.
    pub(super) fn ended_ahead(&mut self, fact: &Fact) {
        let at = fact.entry.at;
        let Some(state) = self.lane_mut(at.partition) else { return };
        if fact.kind == FactKind::Expired && at.offset >= state.next {
            state.folded.insert(at.offset, Folded { entry: fact.entry, ended: true });
            state.changed = true;
        }
    }

    /// The webhook takes up again, or ends what is queued: from where it stopped.
    pub(super) fn stop_watching(&mut self) {
        self.lanes.iter_mut().flatten().for_each(|state| state.watch = None);
    }
}
