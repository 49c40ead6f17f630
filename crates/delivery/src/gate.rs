//! "May I send now": what a webhook's state allows, as one pure function of that
//! state and the room that the process has.
//!
//! The state is the webhook's status, how many attempts are in flight in each
//! lane, how many failed in a row, since when it only fails, when it answered 410,
//! its rate limit, and until when it asked for a pause.

use std::time::Duration;

use tidings_types::{Lane, Timestamp, WebhookStatus};

use crate::{Rules, rate::RateLimit};

/// After so many failed attempts in a row nothing new is taken up until an open
/// notification gets through.
pub const FAILED_IN_A_ROW_LIMIT: u32 = 8;

/// How many times of 410 are kept at most, whatever the settings say.
const GONE_KEPT: usize = 16;

/// When the platform suspends a webhook (contract §3, `[delivery]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspendRules {
    /// Nothing but failures for so long.
    pub suspend_after: Duration,
    /// So many 410s...
    pub gone_count: u32,
    /// ...at least so far apart.
    pub gone_gap: Duration,
}

impl Default for SuspendRules {
    fn default() -> Self {
        Self {
            suspend_after: Duration::from_secs(72 * 3600),
            gone_count: 3,
            gone_gap: Duration::from_secs(3600),
        }
    }
}

/// What the registry says that a webhook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// Queued notifications wait.
    Inactive,
    /// What is queued ends as Undelivered.
    Suspended,
    /// What is queued ends as Cancelled.
    Deleted,
}

impl From<WebhookStatus> for Standing {
    fn from(status: WebhookStatus) -> Self {
        match status {
            WebhookStatus::Active => Self::Active,
            WebhookStatus::Inactive => Self::Inactive,
            WebhookStatus::Suspended => Self::Suspended,
        }
    }
}

/// Which notification asks: one that is open already, or the next one of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Open,
    New,
}

/// What the process has left, over all webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Places that any lane may take.
    pub any: usize,
    /// Places beyond those that only the urgent lane may take.
    pub urgent: usize,
}

/// Whether an attempt may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// The lane, the webhook or the process has no place left; ask again when an
    /// attempt has finished.
    Full,
    /// The webhook fails; ask again when an open notification got through.
    Failing,
    /// Its rate limit or the endpoint asks to wait until then.
    WaitUntil(Timestamp),
    /// The webhook is not active; ask again when its status changes.
    NotActive,
}

/// What failed attempts add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// Nothing but failures for `suspend_after`.
    SuspendFailing,
    /// Enough 410s, far enough apart.
    SuspendGone,
}

/// The state of one webhook that decides whether it is sent to.
#[derive(Clone, Debug)]
pub struct Gate {
    standing: Standing,
    max_in_flight: usize,
    in_flight: [usize; 2],
    /// Whether the webhook has an urgent lane at all.
    has_urgent: bool,
    rate: RateLimit,
    /// The endpoint asked (`Retry-After`) for no request before then.
    paused_until: Timestamp,
    failed_in_a_row: u32,
    failing_since: Option<Timestamp>,
    gone: Vec<Timestamp>,
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Standard => 0,
        Lane::Urgent => 1,
    }
}

impl Gate {
    pub fn new(standing: Standing, rules: &Rules) -> Self {
        let mut rate = RateLimit::default();
        rate.set(rules.rate_per_second);
        Self {
            standing,
            max_in_flight: rules.max_in_flight.max(1),
            in_flight: [0; 2],
            has_urgent: false,
            rate,
            paused_until: Timestamp::ZERO,
            failed_in_a_row: 0,
            failing_since: None,
            gone: Vec::new(),
        }
    }

    /// The one question. `open` is how many open notifications the webhook has:
    /// a failing webhook that has none left may try one new one, or it would wait
    /// for ever.
    pub fn may_start(
        &self,
        lane: Lane,
        asks: Asks,
        open: usize,
        room: Room,
        now: Timestamp,
    ) -> Verdict {
        match self.standing {
            Standing::Active => {}
            Standing::Inactive | Standing::Suspended | Standing::Deleted => {
                return Verdict::NotActive;
            }
        }
        if asks == Asks::New && self.failed_in_a_row >= FAILED_IN_A_ROW_LIMIT && open > 0 {
            return Verdict::Failing;
        }
        let process_full = match lane {
            Lane::Standard => room.any == 0,
            Lane::Urgent => room.any + room.urgent == 0,
        };
        if process_full || self.in_flight[index(lane)] >= self.share(lane) {
            return Verdict::Full;
        }
        if self.paused_until > now {
            return Verdict::WaitUntil(self.paused_until);
        }
        self.rate.wait_until(now).map_or(Verdict::Go, Verdict::WaitUntil)
    }

    /// The endpoint asks for no request within the next `pause`.
    pub fn pause(&mut self, now: Timestamp, pause: Duration) {
        self.paused_until = self.paused_until.max(now + pause);
    }

    /// A person asked for a resend: what the endpoint asked for no longer holds.
    pub fn resume(&mut self) {
        self.paused_until = Timestamp::ZERO;
    }

    /// Whether an ordered webhook's notifications may be taken up, that is numbered.
    pub fn takes_up(&self, open: usize) -> bool {
        self.standing == Standing::Active && !(self.is_failing() && open > 0)
    }

    /// How many attempts of a lane may be in flight now. One place is kept for the
    /// urgent lane if there is one, also where the webhook allows a single request.
    fn share(&self, lane: Lane) -> usize {
        match lane {
            Lane::Standard if self.has_urgent => (self.max_in_flight - 1).max(1),
            Lane::Standard => self.max_in_flight,
            Lane::Urgent => {
                self.max_in_flight.saturating_sub(self.in_flight[index(Lane::Standard)]).max(1)
            }
        }
    }

    /// An attempt (or the reading of its body) takes a place.
    pub fn started(&mut self, lane: Lane, now: Timestamp) {
        self.rate.take(now);
        self.in_flight[index(lane)] += 1;
    }

    /// An attempt gives its place back.
    pub fn finished(&mut self, lane: Lane) {
        let places = &mut self.in_flight[index(lane)];
        debug_assert!(*places > 0, "an attempt gives back a place that it did not take");
        *places = places.saturating_sub(1);
    }

    /// An attempt was accepted: the webhook is well.
    pub fn succeeded(&mut self) {
        self.resume();
        self.failed_in_a_row = 0;
        self.failing_since = None;
        self.gone.clear();
    }

    /// An attempt failed at `now`. Says whether to propose the webhook's suspension;
    /// asked again at each failure until the registry has followed.
    pub fn failed(&mut self, now: Timestamp, rules: &SuspendRules) -> Option<Proposal> {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        (self.standing == Standing::Active && now.since(since) >= rules.suspend_after)
            .then_some(Proposal::SuspendFailing)
    }

    /// The endpoint answered 410 at `now`. Counted only if the last counted one is
    /// at least `gone_gap` ago. Comes before [`Gate::failed`].
    pub fn gone(&mut self, now: Timestamp, rules: &SuspendRules) -> Option<Proposal> {
        if self.gone.last().is_none_or(|last| now.since(*last) >= rules.gone_gap) {
            self.gone.push(now);
            if self.gone.len() > GONE_KEPT {
                self.gone.remove(0);
            }
        }
        let counted = u32::try_from(self.gone.len()).unwrap_or(u32::MAX);
        (self.standing == Standing::Active && counted >= rules.gone_count.max(1))
            .then_some(Proposal::SuspendGone)
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Takes over what the registry says now. A webhook that comes back starts with
    /// a clean slate: its owner has said that it is repaired.
    pub fn set(&mut self, standing: Standing, rules: &Rules) {
        if standing == Standing::Active && self.standing != Standing::Active {
            self.succeeded();
        }
        self.standing = standing;
        self.max_in_flight = rules.max_in_flight.max(1);
        self.rate.set(rules.rate_per_second);
    }

    pub fn set_urgent(&mut self, has_urgent: bool) {
        self.has_urgent = has_urgent;
    }

    /// Whether nothing new is taken up because the webhook fails.
    pub fn is_failing(&self) -> bool {
        self.failed_in_a_row >= FAILED_IN_A_ROW_LIMIT
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.iter().sum()
    }

    pub fn failed_in_a_row(&self) -> u32 {
        self.failed_in_a_row
    }

    pub fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    pub fn gone_times(&self) -> &[Timestamp] {
        &self.gone
    }

    /// Puts back what a checkpoint says.
    pub fn restore(
        &mut self,
        failed_in_a_row: u32,
        failing_since: Option<Timestamp>,
        gone: &[Timestamp],
    ) {
        self.failed_in_a_row = failed_in_a_row;
        self.failing_since = failing_since;
        self.gone = gone.iter().copied().take(GONE_KEPT).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { any: 100, urgent: 10 };

    fn rules(max_in_flight: usize) -> Rules {
        Rules::plain(max_in_flight, std::sync::Arc::new(crate::Ladder::standard()))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_place_is_kept_for_the_urgent_lane() {
        for max in [1, 2, 5] {
            let mut gate = Gate::new(Standing::Active, &rules(max));
            gate.set_urgent(true);
            while gate.may_start(Lane::Standard, Asks::New, 0, ROOM, at(9)) == Verdict::Go {
                gate.started(Lane::Standard, at(9));
            }
            assert_eq!(gate.may_start(Lane::Urgent, Asks::New, 0, ROOM, at(9)), Verdict::Go);
            gate.started(Lane::Urgent, at(9));
            assert_eq!(gate.may_start(Lane::Urgent, Asks::New, 0, ROOM, at(9)), Verdict::Full);
            assert!(gate.in_flight() <= max.max(2));
        }
    }

    #[test]
    fn a_full_process_still_takes_urgent_ones() {
        let gate = Gate::new(Standing::Active, &rules(64));
        let room = Room { any: 0, urgent: 1 };
        assert_eq!(gate.may_start(Lane::Standard, Asks::New, 0, room, at(9)), Verdict::Full);
        assert_eq!(gate.may_start(Lane::Urgent, Asks::New, 0, room, at(9)), Verdict::Go);
    }

    #[test]
    fn after_eight_failures_in_a_row_nothing_new_is_taken_up_until_one_gets_through() {
        let mut gate = Gate::new(Standing::Active, &rules(64));
        let rules = SuspendRules::default();
        for second in 0..8 {
            assert_eq!(gate.may_start(Lane::Standard, Asks::New, 9, ROOM, at(9)), Verdict::Go);
            assert_eq!(gate.failed(at(second), &rules), None);
        }
        assert_eq!(gate.may_start(Lane::Standard, Asks::New, 9, ROOM, at(9)), Verdict::Failing);
        assert_eq!(gate.may_start(Lane::Standard, Asks::Open, 9, ROOM, at(9)), Verdict::Go);
        assert_eq!(
            gate.may_start(Lane::Standard, Asks::New, 0, ROOM, at(9)),
            Verdict::Go,
            "a probe"
        );
        gate.succeeded();
        assert_eq!(gate.may_start(Lane::Standard, Asks::New, 9, ROOM, at(9)), Verdict::Go);
    }

    #[test]
    fn three_410s_at_least_the_gap_apart_propose_a_suspension() {
        let mut gate = Gate::new(Standing::Active, &rules(64));
        let rules = SuspendRules::default();
        for second in [0, 1, 3600, 7199] {
            assert_eq!(gate.gone(at(second), &rules), None);
        }
        assert_eq!(gate.gone(at(7200), &rules), Some(Proposal::SuspendGone));
    }

    #[test]
    fn nothing_but_failures_for_72_hours_proposes_a_suspension() {
        let mut gate = Gate::new(Standing::Active, &rules(64));
        let rules = SuspendRules::default();
        assert_eq!(gate.failed(at(10), &rules), None);
        assert_eq!(gate.failed(at(9 + 72 * 3600), &rules), None);
        gate.succeeded();
        assert_eq!(gate.failed(at(10 + 72 * 3600), &rules), None);
        assert_eq!(gate.failed(at(10 + 144 * 3600), &rules), Some(Proposal::SuspendFailing));
    }

    #[test]
    fn only_an_active_webhook_is_sent_to() {
        for standing in [Standing::Inactive, Standing::Suspended, Standing::Deleted] {
            let gate = Gate::new(standing, &rules(64));
            for asks in [Asks::Open, Asks::New] {
                assert_eq!(gate.may_start(Lane::Urgent, asks, 0, ROOM, at(9)), Verdict::NotActive);
            }
        }
    }

    #[test]
    fn retry_after_pauses_the_webhook_until_then_or_until_a_person_asks() {
        let mut gate = Gate::new(Standing::Active, &rules(64));
        gate.pause(at(9), Duration::from_secs(5));
        let ask = |gate: &Gate, now| gate.may_start(Lane::Standard, Asks::New, 0, ROOM, now);
        assert_eq!(ask(&gate, at(9)), Verdict::WaitUntil(at(14)));
        assert_eq!(ask(&gate, at(14)), Verdict::Go);
        gate.resume();
        assert_eq!(ask(&gate, at(9)), Verdict::Go);
    }
}
