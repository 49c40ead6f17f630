//! What all webhooks of a process share: limits, room, and counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidings_types::{Lane, Sabotage};

use crate::{Pace, Room, SuspendRules};

/// Of places three quarters of which are taken, one webhook may have so many...
const CROWDED: usize = 8;
/// ...and so many once seven eighths are taken: the rest is for newcomers.
const PACKED: usize = 2;

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
    /// The lanes whose event types may have a deadline: standard, urgent.
    pub expiring: [bool; 2],
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
            host_in_flight: 1500,
            facts: 8192,
            ahead_records: 256,
            ahead_bytes: 1 << 20,
            ahead_bytes_in_process: 64 << 20,
            kept_bytes_in_process: 16 << 20,
            keep_body: Duration::from_secs(60),
            expiring: [false, true],
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

/// What the webhooks of one tenant, or at one host, have in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    attempts: usize,
    /// Of them, those of suspects.
    suspects: usize,
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
    /// What tenants and hosts, hashed, have in flight; those that have some.
    crowds: BTreeMap<u64, Crowd>,
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
            suspect: suspects_left(self.suspects, self.limits.in_flight),
            each: fair_share(standard + urgent, self.limits.in_flight),
        }
    }

    /// The places that are left for a webhook with this tenant and this host.
    pub(crate) fn room_of(&self, shares: [u64; 2]) -> Room {
        let most = [self.limits.tenant_in_flight, self.limits.host_in_flight];
        let mut room = self.room();
        for (share, most) in shares.into_iter().zip(most) {
            if let Some(crowd) = self.crowds.get(&share) {
                room.suspect = room.suspect.min(suspects_left(crowd.suspects, most));
                room.each = room.each.min(fair_share(crowd.attempts, most));
            }
        }
        room
    }

    /// Whether another fact may be made.
    pub fn may_say(&self) -> bool {
        self.facts < self.limits.facts
    }

    /// Takes a place for an attempt of a webhook that shares so.
    pub(crate) fn take(&mut self, lane: Lane, shares: [u64; 2]) {
        *self.place(lane) += 1;
        self.join_crowds(shares, 1, 0);
    }

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, lane: Lane, shares: [u64; 2]) {
        let place = self.place(lane);
        *place = place.saturating_sub(1);
        self.leave_crowds(shares, 1, 0);
    }

    /// So many attempts, of them so many of suspects, begin to count among their
    /// tenant's and their host's.
    pub(crate) fn join_crowds(&mut self, shares: [u64; 2], attempts: usize, suspects: usize) {
        for share in shares.into_iter().filter(|share| *share != 0 && attempts + suspects > 0) {
            let crowd = self.crowds.entry(share).or_default();
            crowd.attempts += attempts;
            crowd.suspects += suspects;
        }
    }

    /// The opposite of [`Process::join_crowds`].
    pub(crate) fn leave_crowds(&mut self, shares: [u64; 2], attempts: usize, suspects: usize) {
        for share in shares {
            if let Some(crowd) = self.crowds.get_mut(&share) {
                crowd.attempts = crowd.attempts.saturating_sub(attempts);
                crowd.suspects = crowd.suspects.saturating_sub(suspects);
                if crowd.attempts + crowd.suspects == 0 {
                    self.crowds.remove(&share);
                }
            }
        }
    }

    /// A webhook that had `before` attempts among the suspects has `now`.
    pub(crate) fn count_suspects(&mut self, shares: [u64; 2], before: usize, now: usize) {
        self.suspects = (self.suspects + now).saturating_sub(before);
        self.join_crowds(shares, 0, now);
        self.leave_crowds(shares, 0, before);
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

/// All suspects together have a quarter of any places, so that the healthy keep three.
fn suspects_left(suspects: usize, places: usize) -> usize {
    (places / 4).max(1).saturating_sub(suspects)
}

/// How many requests one of those that share `places` may have in flight while `taken`
/// are taken: the fewer are left, the less, so that a newcomer finds a place however many
/// others there are and however slowly they answer.
fn fair_share(taken: usize, places: usize) -> usize {
    if taken >= places {
        0
    } else if taken >= places - places / 8 {
        PACKED
    } else if taken >= places - places / 4 {
        CROWDED
    } else {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_and_a_host_have_their_places_and_share_them() {
        let limits = Limits { tenant_in_flight: 40, host_in_flight: 64, ..Limits::default() };
        let mut process = Process::new(limits);
        let (one, other) = ([1, 10], [2, 10]);
        let each = |process: &Process, shares| process.room_of(shares).each;
        assert_eq!(each(&process, one), usize::MAX);
        (0..30).for_each(|_| process.take(Lane::Standard, one));
        assert_eq!(each(&process, one), CROWDED);
        (0..5).for_each(|_| process.take(Lane::Urgent, one));
        assert_eq!(each(&process, one), PACKED);
        (0..5).for_each(|_| process.take(Lane::Urgent, one));
        assert_eq!(each(&process, one), 0, "the tenant has all it may");
        assert_eq!(each(&process, other), usize::MAX, "another one does not feel it");
        (0..16).for_each(|_| process.take(Lane::Standard, other));
        assert_eq!(each(&process, [3, 10]), PACKED, "the host's last places are for newcomers");
        (0..8).for_each(|_| process.take(Lane::Standard, other));
        assert_eq!(each(&process, [3, 10]), 0, "the host has all it may");
        assert_eq!(each(&process, [0, 0]), usize::MAX, "nobody is everybody");
        process.give_back(Lane::Standard, other);
        assert_eq!(each(&process, [3, 10]), PACKED);
        (0..40).for_each(|_| process.give_back(Lane::Standard, one));
        (0..23).for_each(|_| process.give_back(Lane::Standard, other));
        assert_eq!(process.crowds.len(), 0, "who has nothing in flight is forgotten");
    }

    #[test]
    fn suspects_have_a_quarter_of_each_share() {
        let limits = Limits { tenant_in_flight: 40, host_in_flight: 60, ..Limits::default() };
        let mut process = Process::new(limits);
        let suspect = |process: &Process, shares| process.room_of(shares).suspect;
        process.count_suspects([1, 10], 0, 10);
        assert_eq!(suspect(&process, [1, 11]), 0, "of the tenant's");
        assert_eq!(suspect(&process, [2, 10]), 5, "of the host's");
        assert_eq!(suspect(&process, [2, 11]), 490, "of the process's");
        process.count_suspects([1, 10], 10, 0);
        assert_eq!((process.crowds.len(), process.suspects), (0, 0));
    }

    /// What may start of webhooks at one host that never answer, or answer slowly: of each
    /// of `hooks` the next request, in turn, until none may.
    fn fill(process: &mut Process, shares: [u64; 2], hooks: usize, is_suspect: bool) -> usize {
        let mut own = vec![0; hooks];
        loop {
            let mut started = 0;
            for own in &mut own {
                let room = process.room_of(shares);
                if room.any > 0 && *own < room.each.min(64) && (!is_suspect || room.suspect > 0) {
                    process.take(Lane::Standard, shares);
                    process.count_suspects(shares, 0, usize::from(is_suspect));
                    *own += 1;
                    started += 1;
                }
            }
            if started == 0 {
                return own.iter().sum();
            }
        }
    }

    #[test]
    fn one_tenants_webhooks_never_take_a_hosts_places_from_another_ones() {
        for (hooks, is_suspect) in [(260, true), (70, false), (260, false), (2000, false)] {
            let mut process = Process::new(Limits::default());
            let taken = fill(&mut process, [1, 10], hooks, is_suspect);
            assert!(taken >= 250, "{taken}");
            let healthy = process.room_of([2, 10]);
            assert_eq!(healthy.each, usize::MAX, "{hooks} have {taken}");
            assert!(healthy.any >= 400 && healthy.suspect >= 100, "{healthy:?}");
        }
    }

    #[test]
    fn a_newcomer_finds_a_place_beside_many_slow_webhooks_of_its_own_host() {
        let mut process = Process::new(Limits::default());
        // Two tenants, so that their own places do not end before the host's.
        fill(&mut process, [1, 10], 80, false);
        fill(&mut process, [2, 10], 80, false);
        assert!(process.room_of([3, 10]).each >= PACKED);
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
