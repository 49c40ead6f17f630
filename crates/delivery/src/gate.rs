//! "May I send now": what a webhook's state allows, as one pure function of that
//! state and the room that the process has.
//!
//! The state is the webhook's status, how many attempts are in flight in each
//! lane, its breaker and what concurrency it takes, since when it only fails, when it
//! answered 410, its rate limit, and until when it asked for a pause of a lane.

use std::time::Duration;

use tidings_types::{Lane, NotificationId, Timestamp, WebhookStatus};

use crate::{
    Failed, Pace, Report, Rules, adapt::Adaptive, breaker::Breaker, rate::RateLimit,
    retry_after::MAX_RETRY_AFTER,
};

/// A webhook that has not accepted anything yet may have so many in flight.
const UNPROVEN: usize = 2;
/// A webhook with requests in flight that answers none of them for so long, and four
/// times what it takes at best, is silent.
const SILENCE: Duration = Duration::from_secs(1);
/// When one asks again that found no place among those that it shares with others.
const POOL_IS_FULL: Duration = Duration::from_millis(200);

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
    /// Queued notifications wait; those whose window or deadline passes meanwhile end.
    Inactive,
    /// An operator stopped it: queued notifications wait, and the time does not count
    /// against their windows.
    Paused,
    /// What is queued ends as Undelivered.
    Suspended,
    /// What is queued ends as Cancelled.
    Deleted,
}

impl Standing {
    /// Whether nothing is taken up, though what is queued may go out one day.
    pub const fn waits(self) -> bool {
        match self {
            Self::Inactive | Self::Paused => true,
            Self::Active | Self::Suspended | Self::Deleted => false,
        }
    }
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

/// What a webhook finds left of the places that it shares: those of the process, of its
/// tenant and of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Places that any lane may take.
    pub any: usize,
    /// Places beyond those that only the urgent lane may take.
    pub urgent: usize,
    /// Places that suspects may take.
    pub suspect: usize,
    /// How many requests one webhook may have in flight: the fewer places are left, the
    /// less.
    pub each: usize,
}

/// One question to a gate.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub lane: Lane,
    pub asks: Asks,
    /// Of an open one: whether it is due by its ladder.
    pub is_due: bool,
    /// How many open notifications its lane has.
    pub open: usize,
    pub room: Room,
    pub now: Timestamp,
}

/// How a webhook has fared: what of it survives its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since when it only fails.
    pub failing_since: Option<Timestamp>,
    /// When it answered 410.
    pub gone: Vec<Timestamp>,
    /// What has failed since the last success.
    pub failed: Failed,
    /// The endpoint asked for no request of a lane before then: standard, urgent.
    pub paused_until: [Timestamp; 2],
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
    /// The endpoint asked (`Retry-After`) for no request of a lane before then.
    paused_until: [Timestamp; 2],
    breaker: Breaker,
    pace: Pace,
    adaptive: Adaptive,
    /// Whether it has accepted anything, as far as is known.
    is_proven: bool,
    gone: Vec<Timestamp>,
    /// Since when it has requests in flight and has answered none of them.
    quiet_since: Option<Timestamp>,
    /// That was seen to have gone on for too long. Until it answers or nothing is in
    /// flight it may have two in flight, and holds the places of a suspect, not for a
    /// whole timeout those of a healthy one.
    is_silent: bool,
}

/// In which condition a webhook is, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    NotActive,
    /// An operator stopped it.
    Paused,
    /// Its breaker is open: it is probed only.
    Broken,
    /// It has requests in flight and answers none of them.
    Silent,
    /// Its breaker has closed; it starts slowly.
    Recovering,
    /// It has not accepted anything yet.
    Unproven,
    Healthy,
}

impl Condition {
    pub const ALL: [Self; 7] = [
        Self::NotActive,
        Self::Paused,
        Self::Broken,
        Self::Silent,
        Self::Recovering,
        Self::Unproven,
        Self::Healthy,
    ];

    /// The word in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotActive => "notActive",
            Self::Paused => "paused",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Recovering => "recovering",
            Self::Unproven => "unproven",
            Self::Healthy => "healthy",
        }
    }
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
            paused_until: [Timestamp::ZERO; 2],
            breaker: Breaker::default(),
            pace: Pace::default(),
            adaptive: Adaptive::default(),
            is_proven: false,
            gone: Vec::new(),
            quiet_since: None,
            is_silent: false,
        }
    }

    /// How it is probed when it is broken.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The one question.
    pub fn may_start(&self, ask: &Ask) -> Verdict {
        let Ask { lane, asks, is_due, open, room, now } = *ask;
        match self.standing {
            Standing::Active => {}
            Standing::Inactive | Standing::Paused | Standing::Suspended | Standing::Deleted => {
                return Verdict::NotActive;
            }
        }
        if self.breaker.is_open() {
            if asks == Asks::New && !self.breaker.takes_up(open, now) {
                return Verdict::Failing;
            }
            if self.in_flight() > 0 {
                // One probe at a time.
                return Verdict::Full;
            }
            if let Some(wake) = self.breaker.wait_until(is_due, open, now) {
                return Verdict::WaitUntil(wake);
            }
        }
        let process_full = match lane {
            Lane::Standard => room.any == 0,
            Lane::Urgent => room.any + room.urgent == 0,
        };
        if process_full || !self.has_place(lane, now) {
            return Verdict::Full;
        }
        // One request is kept for the urgent lane, beside any share.
        let is_kept = lane == Lane::Urgent && self.in_flight[index(lane)] == 0;
        let is_greedy = !is_kept && self.in_flight() >= room.each;
        if is_greedy || (self.is_suspect() && room.suspect == 0) {
            return Verdict::WaitUntil(now + POOL_IS_FULL);
        }
        let paused_until = self.paused_until[index(lane)];
        if paused_until > now {
            return Verdict::WaitUntil(paused_until);
        }
        self.rate.wait_until(now).map_or(Verdict::Go, Verdict::WaitUntil)
    }

    /// Whether its requests count among those of the suspects.
    pub fn is_suspect(&self) -> bool {
        !self.is_proven || self.is_silent || self.breaker.is_suspect()
    }

    pub fn condition(&self) -> Condition {
        if self.standing == Standing::Paused {
            Condition::Paused
        } else if self.standing != Standing::Active {
            Condition::NotActive
        } else if self.breaker.is_open() {
            Condition::Broken
        } else if self.is_silent {
            Condition::Silent
        } else if self.breaker.is_suspect() {
            Condition::Recovering
        } else if self.is_proven {
            Condition::Healthy
        } else {
            Condition::Unproven
        }
    }

    /// When it will be silent unless it answers before.
    pub fn silent_at(&self) -> Option<Timestamp> {
        let best = self.adaptive.best().unwrap_or_default();
        Some(self.quiet_since? + SILENCE + best * 4)
    }

    /// Looks whether it is silent. Says whether that is new.
    pub fn listen(&mut self, now: Timestamp) -> bool {
        let is_news = !self.is_silent && self.silent_at().is_some_and(|at| at <= now);
        self.is_silent |= is_news;
        is_news
    }

    /// When the next probe of a broken webhook may start.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.breaker.probe_at()
    }

    /// Whether one that waits may be tried before it is due, as a probe.
    pub fn probes_early(&self, open: usize, now: Timestamp) -> bool {
        self.in_flight() == 0 && self.breaker.early_probe(open).is_some_and(|at| at <= now)
    }

    /// How many requests it may have in flight now.
    fn limit(&self, now: Timestamp) -> usize {
        let trusted = if self.is_silent {
            // A second one shows whether it is only the first that gets no answer.
            UNPROVEN + usize::from(self.has_urgent)
        } else if self.is_proven {
            usize::MAX
        } else {
            UNPROVEN
        };
        let recovering = self.breaker.limit(now, &self.pace).unwrap_or(usize::MAX);
        self.max_in_flight.min(self.adaptive.limit()).min(trusted).min(recovering)
    }

    /// The endpoint asks for no request of a lane within the next `pause`.
    pub fn pause(&mut self, lane: Lane, now: Timestamp, pause: Duration) {
        let until = &mut self.paused_until[index(lane)];
        *until = (*until).max(now + pause);
    }

    /// What the endpoint asked for no longer holds: it is another one, or repaired.
    pub fn resume(&mut self) {
        self.paused_until = [Timestamp::ZERO; 2];
    }

    /// Whether something new may be taken up, beside `open` ones: not while the next
    /// probe of a broken webhook is far.
    pub fn takes_up(&self, open: usize, now: Timestamp) -> bool {
        self.standing == Standing::Active && self.breaker.takes_up(open, now)
    }

    /// Whether a lane has a place left, never more than the webhook allows. One of them is
    /// kept for the urgent lane, if there is one; where the webhook allows a single request
    /// the urgent lane has the first turn instead.
    fn has_place(&self, lane: Lane, now: Timestamp) -> bool {
        let (limit, all, own) = (self.limit(now), self.in_flight(), self.in_flight[index(lane)]);
        match lane {
            Lane::Standard => {
                let kept = usize::from(self.has_urgent && limit > 1);
                all < limit && own < limit - kept
            }
            // Its place is there also where less is sent than the webhook allows.
            Lane::Urgent => all < limit || (own == 0 && all < self.max_in_flight),
        }
    }

    /// An attempt (or the reading of its body) that may start takes a place.
    pub fn started(&mut self, ask: &Ask) {
        let Ask { lane, is_due, open, now, .. } = *ask;
        self.rate.take(now);
        self.in_flight[index(lane)] += 1;
        self.quiet_since.get_or_insert(now);
        self.breaker.started(is_due, open, now, &self.pace);
    }

    /// Something new was taken up that asks as an open one from its first attempt on.
    pub fn took_up(&mut self, now: Timestamp) {
        self.breaker.took_up(now, &self.pace);
    }

    /// An attempt gives its place back.
    pub fn finished(&mut self, lane: Lane) {
        let places = &mut self.in_flight[index(lane)];
        debug_assert!(*places > 0, "an attempt gives back a place that it did not take");
        *places = places.saturating_sub(1);
        if self.in_flight() == 0 {
            (self.quiet_since, self.is_silent) = (None, false);
        }
    }

    /// An attempt ended. Comes before [`Gate::finished`].
    pub fn ended(&mut self, report: &Report, now: Timestamp) {
        let took = report.attempt.duration;
        self.adaptive.ended(report.strain(), took, self.max_in_flight);
        if !report.is_silence() {
            (self.quiet_since, self.is_silent) = (Some(now), false);
        }
    }

    /// An attempt was accepted: the webhook is well. A pause that the
    /// endpoint asked for stands: this attempt began before it.
    pub fn succeeded(&mut self, now: Timestamp) {
        self.is_proven = true;
        if self.breaker.succeeded(now, &self.pace) {
            // What it took while it failed says nothing of what it takes now.
            self.adaptive = Adaptive::default();
        }
        self.gone.clear();
    }

    /// An attempt of `id` failed at `now`. Says whether to propose the
    /// webhook's suspension; asked again at each failure until the registry has
    /// followed.
    pub fn failed(
        &mut self,
        id: NotificationId,
        now: Timestamp,
        rules: &SuspendRules,
    ) -> Option<Proposal> {
        self.breaker.failed(id, now, &self.pace);
        let since = self.breaker.failing_since().unwrap_or(now);
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

    /// Takes over what the registry says now.
    pub fn set(&mut self, standing: Standing, rules: &Rules) {
        self.standing = standing;
        self.max_in_flight = rules.max_in_flight.max(1);
        self.rate.set(rules.rate_per_second);
    }

    pub fn set_urgent(&mut self, has_urgent: bool) {
        self.has_urgent = has_urgent;
    }

    /// Whether it is probed only.
    pub fn is_broken(&self) -> bool {
        self.breaker.is_open()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.iter().sum()
    }

    /// Since when it only fails.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.breaker.failing_since()
    }

    /// Its owner says that it is repaired: it starts with a clean slate, and slowly.
    pub fn trust(&mut self, now: Timestamp) {
        self.resume();
        self.breaker.trust(now);
        self.adaptive = Adaptive::default();
        self.gone.clear();
    }

    /// The time that has passed since then does not count against it.
    pub fn pass_over(&mut self, time: Duration, now: Timestamp) {
        self.breaker.pass_over(time, now);
    }

    /// What a checkpoint says.
    pub fn health(&self) -> Health {
        Health {
            failing_since: self.breaker.failing_since(),
            gone: self.gone.clone(),
            failed: self.breaker.what_failed().clone(),
            paused_until: self.paused_until,
        }
    }

    /// Puts back what a checkpoint says, at `now`. What the rate limit allowed the
    /// owner before is not known: nothing is sent for as long as it counts.
    pub fn restore(&mut self, health: &Health, now: Timestamp) {
        let Health { failing_since, gone, failed, paused_until } = health;
        self.breaker.restore(failed.clone(), *failing_since, now, &self.pace);
        self.gone = gone.iter().copied().take(GONE_KEPT).collect();
        // Whatever another process's clock said.
        self.paused_until = paused_until.map(|until| until.min(now + MAX_RETRY_AFTER));
        self.rate.take_over(now);
        // It was served before, and did not fail.
        self.is_proven = failing_since.is_none();
    }
}

#[cfg(test)]
mod tests {
    use tidings_types::AttemptCode;

    use super::*;

    const ROOM: Room = Room { any: 100, urgent: 10, suspect: 100, each: usize::MAX };

    fn ask(lane: Lane, asks: Asks, open: usize, now: Timestamp) -> Ask {
        Ask { lane, asks, is_due: true, open, room: ROOM, now }
    }

    fn start(gate: &mut Gate, lane: Lane, now: Timestamp) {
        gate.started(&ask(lane, Asks::New, 0, now));
    }

    fn id(n: u8) -> NotificationId {
        NotificationId::from_bytes([n; 16])
    }

    fn proven(rules: &Rules) -> Gate {
        let mut gate = Gate::new(Standing::Active, rules);
        gate.succeeded(at(0));
        gate
    }

    fn rules(max_in_flight: usize) -> Rules {
        Rules::plain(max_in_flight, std::sync::Arc::new(crate::Ladder::standard()))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_place_is_kept_for_the_urgent_lane_inside_what_the_webhook_allows() {
        let may = |gate: &Gate, lane| gate.may_start(&ask(lane, Asks::New, 0, at(9)));
        for max in [1, 2, 5] {
            let mut gate = proven(&rules(max));
            gate.set_urgent(true);
            while may(&gate, Lane::Standard) == Verdict::Go {
                start(&mut gate, Lane::Standard, at(9));
            }
            assert_eq!(gate.in_flight(), if max == 1 { 1 } else { max - 1 });
            while may(&gate, Lane::Urgent) == Verdict::Go {
                start(&mut gate, Lane::Urgent, at(9));
            }
            assert_eq!(gate.in_flight(), max);
            while gate.in_flight[index(Lane::Standard)] > 0 {
                gate.finished(Lane::Standard);
                assert_eq!(may(&gate, Lane::Urgent), Verdict::Go);
                start(&mut gate, Lane::Urgent, at(9));
            }
            assert_eq!(may(&gate, Lane::Standard), Verdict::Full, "urgent ones have all of them");
            assert_eq!(gate.in_flight(), max);
        }
    }

    #[test]
    fn the_urgent_lanes_place_is_there_also_while_less_is_sent_than_the_webhook_allows() {
        let mut gate = proven(&rules(64));
        gate.set_urgent(true);
        gate.adaptive.limit_to(1);
        start(&mut gate, Lane::Standard, at(9));
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 0, at(9))), Verdict::Full);
        assert_eq!(gate.may_start(&ask(Lane::Urgent, Asks::New, 0, at(9))), Verdict::Go);
        start(&mut gate, Lane::Urgent, at(9));
        assert_eq!(gate.may_start(&ask(Lane::Urgent, Asks::New, 0, at(9))), Verdict::Full);
    }

    #[test]
    fn a_full_process_still_takes_urgent_ones() {
        let gate = proven(&rules(64));
        let room = Room { any: 0, urgent: 1, ..ROOM };
        assert_eq!(
            gate.may_start(&Ask { room, ..ask(Lane::Standard, Asks::New, 0, at(9)) }),
            Verdict::Full
        );
        assert_eq!(
            gate.may_start(&Ask { room, ..ask(Lane::Urgent, Asks::New, 0, at(9)) }),
            Verdict::Go
        );
    }

    #[test]
    fn after_eight_failures_it_is_probed_until_one_gets_through() {
        let mut gate = proven(&rules(64));
        let suspend = SuspendRules::default();
        for n in 0..8 {
            assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 9, at(9))), Verdict::Go);
            assert_eq!(gate.failed(id(n), at(9), &suspend), None);
        }
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 9, at(9))), Verdict::Failing);
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::Open, 9, at(9))), Verdict::Go);
        start(&mut gate, Lane::Standard, at(9));
        assert_eq!(gate.may_start(&ask(Lane::Urgent, Asks::Open, 9, at(9))), Verdict::Full);
        gate.finished(Lane::Standard);
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::New, 9, at(10))), Verdict::Go);
        gate.succeeded(at(10));
        assert_eq!((gate.limit(at(10)), gate.limit(at(20))), (1, 2), "slow start");
    }

    #[test]
    fn suspects_have_places_of_their_own_and_a_crowd_gives_each_its_share() {
        let unproven = Gate::new(Standing::Active, &rules(64));
        let full = Room { suspect: 0, ..ROOM };
        let new = Ask { room: full, ..ask(Lane::Standard, Asks::New, 0, at(9)) };
        assert!(matches!(unproven.may_start(&new), Verdict::WaitUntil(_)));
        let mut gate = proven(&rules(64));
        let crowded = Room { each: 3, ..full };
        let new = Ask { room: crowded, ..new };
        for _ in 0..3 {
            assert_eq!(gate.may_start(&new), Verdict::Go);
            start(&mut gate, Lane::Standard, at(9));
        }
        assert!(matches!(gate.may_start(&new), Verdict::WaitUntil(_)));
        let urgent = Ask { lane: Lane::Urgent, ..new };
        assert_eq!(gate.may_start(&urgent), Verdict::Go, "one is kept for it");
        start(&mut gate, Lane::Urgent, at(9));
        assert!(matches!(gate.may_start(&urgent), Verdict::WaitUntil(_)));
    }

    #[test]
    fn a_takeover_keeps_the_breaker_the_pause_and_the_rate() {
        let limited = Rules { rate_per_second: 10, ..rules(64) };
        let mut before = proven(&limited);
        (0..8).for_each(|n| {
            before.failed(id(n), at(9), &SuspendRules::default());
        });
        before.pause(Lane::Standard, at(9), Duration::from_secs(90));
        let mut gate = Gate::new(Standing::Active, &limited);
        gate.restore(&before.health(), at(20));
        assert!(gate.is_broken() && gate.is_suspect());
        assert_eq!(gate.health(), before.health());
        assert_eq!(
            gate.may_start(&ask(Lane::Standard, Asks::Open, 1, at(40))),
            Verdict::WaitUntil(at(99))
        );
        let mut gate = Gate::new(Standing::Active, &limited);
        gate.restore(&Health::default(), at(20));
        assert_eq!(
            gate.may_start(&ask(Lane::Standard, Asks::Open, 1, at(20))),
            Verdict::WaitUntil(at(21))
        );
        assert_eq!(gate.may_start(&ask(Lane::Standard, Asks::Open, 1, at(21))), Verdict::Go);
    }

    #[test]
    fn three_410s_at_least_the_gap_apart_propose_a_suspension() {
        let mut gate = proven(&rules(64));
        let rules = SuspendRules::default();
        for second in [0, 1, 3600, 7199] {
            assert_eq!(gate.gone(at(second), &rules), None);
        }
        assert_eq!(gate.gone(at(7200), &rules), Some(Proposal::SuspendGone));
    }

    #[test]
    fn nothing_but_failures_for_72_hours_proposes_a_suspension() {
        let mut gate = proven(&rules(64));
        let rules = SuspendRules::default();
        assert_eq!(gate.failed(id(1), at(10), &rules), None);
        assert_eq!(gate.failed(id(1), at(9 + 72 * 3600), &rules), None);
        gate.succeeded(at(100));
        assert_eq!(gate.failed(id(1), at(10 + 72 * 3600), &rules), None);
        assert_eq!(gate.failed(id(1), at(10 + 144 * 3600), &rules), Some(Proposal::SuspendFailing));
    }

    #[test]
    fn only_an_active_webhook_is_sent_to() {
        for standing in
            [Standing::Inactive, Standing::Paused, Standing::Suspended, Standing::Deleted]
        {
            let gate = Gate::new(standing, &rules(64));
            for asks in [Asks::Open, Asks::New] {
                assert_eq!(gate.may_start(&ask(Lane::Urgent, asks, 0, at(9))), Verdict::NotActive);
            }
        }
    }

    fn report(code: AttemptCode, millis: u64) -> Report {
        let duration = Duration::from_millis(millis);
        let attempt = crate::AttemptFact { code, http_status: 0, duration };
        Report { attempt, retry_after: None }
    }

    #[test]
    fn a_webhook_that_answers_nothing_is_a_suspect_long_before_its_timeout() {
        let mut gate = proven(&rules(64));
        gate.set_urgent(true);
        let new = |gate: &Gate, lane, now| gate.may_start(&ask(lane, Asks::New, 0, now));
        for second in [10, 11] {
            start(&mut gate, Lane::Standard, at(second));
            start(&mut gate, Lane::Standard, at(second));
            assert_eq!(gate.silent_at(), Some(at(second) + SILENCE));
            gate.ended(&report(AttemptCode::Delivered, 10), at(second + 1));
            assert!(!gate.listen(at(second + 1)), "it answers");
            gate.finished(Lane::Standard);
            gate.finished(Lane::Standard);
            assert_eq!(gate.silent_at(), None, "nothing is asked");
        }
        start(&mut gate, Lane::Standard, at(20));
        assert_eq!(new(&gate, Lane::Standard, at(21)), Verdict::Go);
        assert!(gate.listen(at(21)) && !gate.listen(at(21)), "news once");
        assert!(gate.is_suspect());
        assert_eq!(gate.condition(), Condition::Silent);
        assert_eq!(new(&gate, Lane::Standard, at(21)), Verdict::Go, "others may answer");
        start(&mut gate, Lane::Standard, at(21));
        assert_eq!(new(&gate, Lane::Standard, at(21)), Verdict::Full);
        // Its lane is kept for the urgent one all the same.
        assert_eq!(new(&gate, Lane::Urgent, at(21)), Verdict::Go);
        start(&mut gate, Lane::Urgent, at(21));
        assert_eq!(new(&gate, Lane::Urgent, at(21)), Verdict::Full);
        gate.ended(&report(AttemptCode::Timeout, 15_000), at(35));
        gate.finished(Lane::Standard);
        assert!(gate.is_suspect(), "a timeout is no answer");
        gate.ended(&report(AttemptCode::Http, 14_000), at(35));
        assert!(!gate.is_suspect());
        assert_eq!(new(&gate, Lane::Standard, at(35)), Verdict::Go);
    }

    #[test]
    fn what_an_endpoint_takes_at_best_is_no_silence() {
        let mut gate = proven(&rules(64));
        for _ in 0..16 {
            start(&mut gate, Lane::Standard, at(10));
            gate.ended(&report(AttemptCode::Delivered, 2000), at(12));
            gate.finished(Lane::Standard);
        }
        start(&mut gate, Lane::Standard, at(20));
        assert!(!gate.listen(at(28)));
        assert!(gate.listen(at(29)));
    }

    #[test]
    fn retry_after_pauses_the_lane_until_then_or_until_the_endpoint_is_another() {
        let mut gate = proven(&rules(64));
        gate.pause(Lane::Standard, at(9), Duration::from_secs(5));
        let ask = |gate: &Gate, lane, now| gate.may_start(&ask(lane, Asks::New, 0, now));
        assert_eq!(ask(&gate, Lane::Standard, at(9)), Verdict::WaitUntil(at(14)));
        assert_eq!(ask(&gate, Lane::Urgent, at(9)), Verdict::Go);
        assert_eq!(ask(&gate, Lane::Standard, at(14)), Verdict::Go);
        gate.resume();
        assert_eq!(ask(&gate, Lane::Standard, at(9)), Verdict::Go);
    }
}
