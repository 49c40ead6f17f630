//! Notifications of event types that an operator stopped: taken up and kept, without an
//! attempt, so that those behind them go on.
//!
//! They wait in phase Held, outside the due times. A held one never ends because too
//! many are open, nor does one that stands behind it in its order; once as many wait so as
//! may be open, the webhook reads on only when its types go on. Past its deadline one
//! expires.

use tidings_types::Timestamp;

use super::{Hook, SWEEP};
use crate::{At, FactKind, Process, entry::Phase};

impl<B: Clone> Hook<B> {
    /// Open notifications that may be tried: neither held nor behind one that is.
    pub(super) fn tried(&self) -> usize {
        self.open().saturating_sub(self.held + self.order.behind_held())
    }

    /// Keeps a notification that waits, or was just taken up, until its type goes on.
    pub(super) fn hold(&mut self, at: At, now: Timestamp) {
        let Some(state) = self.lane_mut(at.partition) else { return };
        state.stop_waiting(at.offset);
        let Some(open) = state.open.get_mut(&at.offset) else { return };
        open.phase = Phase::Held;
        let entry = open.entry;
        state.changed = true;
        self.order.hold(&entry, true);
        if self.held == 0 {
            self.held_sweep = now + SWEEP;
        }
        self.held += 1;
    }

    /// The types that operators stop have changed: what may go on waits for its turn.
    pub fn pauses_changed(&mut self, process: &Process) {
        self.release_held(|kind| !process.paused.contains(&kind));
    }

    pub(super) fn release_held(&mut self, may_go: impl Fn(u64) -> bool) {
        if self.held == 0 {
            return;
        }
        let mut released = 0;
        for state in self.lanes.iter_mut().flatten() {
            let held = state.open.values().filter(|it| it.phase == Phase::Held && may_go(it.kind));
            let entries: Vec<_> = held.map(|open| open.entry).collect();
            released += entries.len();
            for entry in entries {
                state.wait(entry.at.offset);
                self.order.hold(&entry, false);
            }
        }
        self.held = self.held.saturating_sub(released);
    }

    /// Ends held ones whose deadline has passed.
    pub(super) fn sweep_held(&mut self, now: Timestamp, process: &mut Process) {
        if self.held == 0 || now < self.held_sweep {
            return;
        }
        self.held_sweep = now + SWEEP;
        let held = self.lanes.iter().flatten().flat_map(|lane| lane.open.values());
        let over: Vec<At> = held
            .filter(|open| open.phase == Phase::Held)
            .filter(|open| open.deadline.is_some_and(|deadline| deadline <= now))
            .map(|open| open.entry.at)
            .collect();
        for at in over {
            if !process.may_say() {
                return;
            }
            self.held = self.held.saturating_sub(1);
            self.end(process, at, FactKind::Expired, now, None);
        }
    }
}
