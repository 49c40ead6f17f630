//! What all webhooks of a process share: limits, room, and counts.

use std::{collections::BTreeSet, time::Duration};

use tidings_types::{Lane, Sabotage};

use crate::{Pace, Room, SuspendRules};

/// The bounds of sending. Everything that a webhook can make grow is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open notifications of one webhook (setting `delivery.max_open`).
    pub max_open: usize,
    /// Remembered ids of one webhook (setting `delivery.remembered`)...
    pub remembered: usize,
    /// ...and of the process.
    pub remembered_in_process: usize,
    /// Attempts in flight in the process...
    pub in_flight: usize,
    /// ...and how many of them only the urgent lane may take.
    pub in_flight_urgent: usize,
    /// Facts that the log has not acknowledged; no work starts beyond.
    pub facts: usize,
    /// Records of one partition read ahead.
    pub ahead_records: usize,
    /// Bytes of one partition read ahead...
    pub ahead_bytes: usize,
    /// ...and of the process: beyond it only webhooks with nothing ahead are read.
    pub ahead_bytes_in_process: usize,
    /// Bytes of bodies kept for notifications that wait.
    pub kept_bytes_in_process: usize,
    /// A body is dropped when its notification waits longer.
    pub keep_body: Duration,
    pub suspend: SuspendRules,
    /// The operator is told of a webhook that had nothing but failures for so long
    /// (setting `delivery.failing_after`).
    pub failing_after: Duration,
    /// How broken webhooks are probed, and repaired ones trusted.
    pub pace: Pace,
    pub sabotage: Sabotage,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_open: 100_000,
            remembered: 20_000,
            remembered_in_process: 2_000_000,
            in_flight: 2000,
            in_flight_urgent: 100,
            facts: 8192,
            ahead_records: 256,
            ahead_bytes: 1 << 20,
            ahead_bytes_in_process: 256 << 20,
            kept_bytes_in_process: 64 << 20,
            keep_body: Duration::from_secs(60),
            suspend: SuspendRules::default(),
            failing_after: Duration::from_secs(300),
            pace: Pace::default(),
            sabotage: Sabotage::None,
        }
    }
}

/// Things that happened and need no fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records dropped because their id and run were taken up from another offset.
    pub duplicates: u64,
    /// Records that a takeover's outcomes named with another id or run.
    pub disagreeing: u64,
    /// Records skipped because they had ended before the takeover.
    pub skipped: u64,
    /// Open notifications whose record is gone from the log.
    pub lost: u64,
    /// Breakers that opened...
    pub breakers_opened: u64,
    /// ...and closed.
    pub breakers_closed: u64,
    /// Webhooks that fell silent with requests in flight.
    pub silences: u64,
}

/// What the webhooks of one process share.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub limits: Limits,
    pub in_flight: [usize; 2],
    /// Of them, those of suspects: webhooks that fail, come back, or have not
    /// accepted anything yet.
    pub suspects: usize,
    /// Facts made and not acknowledged.
    pub facts: usize,
    pub ahead_bytes: usize,
    pub kept_bytes: usize,
    pub remembered: usize,
    pub hooks: usize,
    /// Event types, hashed, that an operator stopped.
    pub paused: BTreeSet<u64>,
    pub counts: Counts,
}

impl Process {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The places that are left.
    pub fn room(&self) -> Room {
        let urgent_places = self.limits.in_flight_urgent.min(self.limits.in_flight);
        let [standard, urgent] = self.in_flight;
        let beyond = urgent.saturating_sub(urgent_places);
        Room {
            any: (self.limits.in_flight - urgent_places).saturating_sub(standard + beyond),
            urgent: urgent_places.saturating_sub(urgent),
            // Healthy traffic keeps three quarters.
            suspect: (self.limits.in_flight / 4).max(1).saturating_sub(self.suspects),
            is_crowded: standard + urgent >= self.limits.in_flight / 4 * 3,
        }
    }

    /// Whether another fact may be made.
    pub fn may_say(&self) -> bool {
        self.facts < self.limits.facts
    }

    pub(crate) fn place(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Standard => &mut self.in_flight[0],
            Lane::Urgent => &mut self.in_flight[1],
        }
    }

    /// How many ids one webhook may remember now: its own limit while the process
    /// has room, else its fair share.
    pub fn remember_limit(&self) -> usize {
        let Limits { remembered, remembered_in_process, .. } = self.limits;
        if self.remembered < remembered_in_process {
            remembered
        } else {
            remembered.min(remembered_in_process / self.hooks.max(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_places_are_kept_and_the_sum_never_exceeds_the_limit() {
        let limits = Limits { in_flight: 10, in_flight_urgent: 3, ..Limits::default() };
        for standard in 0..=7 {
            for urgent in 0..=(10 - standard) {
                let mut process = Process::new(limits);
                process.in_flight = [standard, urgent];
                let room = process.room();
                assert!(standard + urgent + room.any + room.urgent <= 10);
                assert!(urgent >= 3 || room.urgent >= 1, "{standard} {urgent} {room:?}");
            }
        }
    }
}
