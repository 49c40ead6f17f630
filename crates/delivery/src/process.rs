//! What all webhooks of a process share: limits, room, and counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidings_types::{Lane, Sabotage};

use crate::{Pace, Room, SuspendRules, gate::CROWDED};

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
    /// Attempts in flight of one tenant's webhooks (setting
    /// `delivery.tenant_in_flight`)...
    pub tenant_in_flight: usize,
    /// ...and to one host (setting `delivery.host_in_flight`).
    pub host_in_flight: usize,
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
            tenant_in_flight: 1000,
            host_in_flight: 500,
            facts: 8192,
            ahead_records: 256,
            ahead_bytes: 1 << 20,
            ahead_bytes_in_process: 64 << 20,
            kept_bytes_in_process: 16 << 20,
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
    /// Attempts in flight by tenant and by host, hashed; those that have some.
    crowds: BTreeMap<u64, usize>,
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

    /// Takes a place for an attempt of a webhook that shares so.
    pub(crate) fn take(&mut self, lane: Lane, shares: [u64; 2]) {
        *self.place(lane) += 1;
        self.join_crowds(shares, 1);
    }

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, lane: Lane, shares: [u64; 2]) {
        let place = self.place(lane);
        *place = place.saturating_sub(1);
        self.leave_crowds(shares, 1);
    }

    pub(crate) fn join_crowds(&mut self, shares: [u64; 2], attempts: usize) {
        for share in shares.into_iter().filter(|share| *share != 0 && attempts > 0) {
            *self.crowds.entry(share).or_default() += attempts;
        }
    }

    pub(crate) fn leave_crowds(&mut self, shares: [u64; 2], attempts: usize) {
        for share in shares {
            if let Some(count) = self.crowds.get_mut(&share) {
                *count = count.saturating_sub(attempts);
                if *count == 0 {
                    self.crowds.remove(&share);
                }
            }
        }
    }

    /// Whether a webhook's tenant and host have a place left for one that has `own` in
    /// flight. When three quarters are taken, nobody of them starts a ninth, so that
    /// they share what is left.
    pub(crate) fn has_share(&self, shares: [u64; 2], own: usize) -> bool {
        let most = [self.limits.tenant_in_flight, self.limits.host_in_flight];
        shares.into_iter().zip(most).all(|(share, most)| {
            let taken = self.crowds.get(&share).copied().unwrap_or(0);
            taken < most && (own < CROWDED || taken < most / 4 * 3)
        })
    }

    fn place(&mut self, lane: Lane) -> &mut usize {
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
    fn a_tenant_and_a_host_have_their_places_and_share_them() {
        let limits = Limits { tenant_in_flight: 40, host_in_flight: 60, ..Limits::default() };
        let mut process = Process::new(limits);
        let (one, other) = ([1, 10], [2, 10]);
        (0..30).for_each(|_| process.take(Lane::Standard, one));
        assert!(process.has_share(one, 7) && !process.has_share(one, 8), "crowded: no ninth");
        (0..10).for_each(|_| process.take(Lane::Urgent, one));
        assert!(!process.has_share(one, 0), "the tenant has all it may");
        assert!(process.has_share(other, 20), "another one does not feel it");
        (0..20).for_each(|_| process.take(Lane::Standard, other));
        assert!(!process.has_share([3, 10], 0), "the host has all it may");
        assert!(process.has_share([0, 0], 100), "nobody is everybody");
        process.give_back(Lane::Standard, other);
        assert!(process.has_share([3, 10], 0));
        (0..40).for_each(|_| process.give_back(Lane::Standard, one));
        (0..19).for_each(|_| process.give_back(Lane::Standard, other));
        assert_eq!(process.crowds.len(), 0, "who has nothing in flight is forgotten");
    }

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
