//! Circuit breaker: what a webhook that only fails may still do.
//!
//! It opens when [`TRIPS_AT`] different notifications have failed since the last
//! success: one that nobody takes does not make its webhook broken, however often it
//! is tried. Open, it lets one request through at a time. Its open notifications
//! keep to their ladders while they are few, because the ladder itself spaces them;
//! beside that a probe, mostly a new notification, may start once a gap has passed
//! since the last probe; what the ladders do meanwhile does not put it off. The gap
//! is as long as the webhook has been failing, within limits, so it doubles with each
//! probe. The first success closes it, and concurrency grows again step by step: 1,
//! 2, 4, 8.

use std::time::Duration;

use tidings_types::{NotificationId, Timestamp};

/// When so many different notifications have failed since the last success, a
/// webhook is probed only.
pub const TRIPS_AT: usize = 8;
/// So many open notifications are few: their ladders are the pace.
const FEW: usize = 64;
/// The steps of slow start; after the last one concurrency adapts by itself.
const SLOW_START: [usize; 4] = [1, 2, 4, 8];

/// The notifications that have failed since the last success, at most
/// [`TRIPS_AT`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed(Vec<NotificationId>);

impl Failed {
    /// One has failed.
    pub fn add(&mut self, id: NotificationId) {
        if !self.is_broken() && !self.0.contains(&id) {
            self.0.push(id);
        }
    }

    /// One was accepted.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether so many failed that their webhook is broken.
    pub fn is_broken(&self) -> bool {
        self.0.len() >= TRIPS_AT
    }

    /// Those that failed.
    pub fn ids(&self) -> &[NotificationId] {
        &self.0
    }
}

impl FromIterator<NotificationId> for Failed {
    fn from_iter<I: IntoIterator<Item = NotificationId>>(ids: I) -> Self {
        let mut failed = Self::default();
        ids.into_iter().for_each(|id| failed.add(id));
        failed
    }
}

/// How fast a broken webhook is probed, and a repaired one is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first gap between probes...
    pub first_gap: Duration,
    /// ...and the longest.
    pub longest_gap: Duration,
    /// How long a step of slow start lasts.
    pub step: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_gap: Duration::from_secs(1),
            longest_gap: Duration::from_secs(300),
            step: Duration::from_secs(10),
        }
    }
}

impl Pace {
    /// Nothing over a second, for development (contract §1): fifty notifications to a
    /// dead endpoint end within about ten seconds on the ladder `fast`.
    pub fn quick() -> Self {
        Self {
            first_gap: Duration::from_millis(100),
            longest_gap: Duration::from_millis(200),
            step: Duration::from_millis(500),
        }
    }
}

impl Pace {
    /// The gap after a probe of a webhook that has been failing for so long.
    fn gap(&self, failing_for: Duration) -> Duration {
        failing_for.max(self.first_gap).min(self.longest_gap)
    }
}

/// The breaker of one webhook.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    failed: Failed,
    failing_since: Option<Timestamp>,
    /// When the next probe may start, while it is open.
    probe_at: Timestamp,
    /// The request in flight is a probe.
    is_probing: bool,
    /// When it closed after it had been open; slow start runs from there.
    recovers_since: Option<Timestamp>,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.failed.is_broken()
    }

    /// Whether it fails, or is coming back: it sends from the pool of the suspects.
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_open() || self.recovers_since.is_some()
    }

    pub(crate) fn what_failed(&self) -> &Failed {
        &self.failed
    }

    pub(crate) fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    /// As a checkpoint has it. How long the next probe was to wait is not known any
    /// more: it waits a whole gap.
    pub(crate) fn restore(
        &mut self,
        failed: Failed,
        failing_since: Option<Timestamp>,
        now: Timestamp,
        pace: &Pace,
    ) {
        self.failed = failed;
        self.failing_since = failing_since;
        self.probe_at = now + pace.gap(now.since(failing_since.unwrap_or(now)));
    }

    /// A request starts; see [`Breaker::wait_until`].
    pub(crate) fn started(&mut self, is_due: bool, open: usize, now: Timestamp, pace: &Pace) {
        self.is_probing = self.is_open() && !is_by_ladder(is_due, open);
        if self.is_probing {
            self.put_off(now, pace);
        }
    }

    /// Something new was taken up that is tried by its ladder from the first attempt on.
    pub(crate) fn took_up(&mut self, now: Timestamp, pace: &Pace) {
        if self.is_open() {
            self.put_off(now, pace);
        }
    }

    /// The next probe waits a gap.
    fn put_off(&mut self, now: Timestamp, pace: &Pace) {
        self.probe_at = now + pace.gap(now.since(self.failing_since.unwrap_or(now)));
    }

    /// An attempt of `id` failed.
    pub(crate) fn failed(&mut self, id: NotificationId, now: Timestamp, pace: &Pace) {
        let was_open = self.is_open();
        self.failed.add(id);
        self.failing_since.get_or_insert(now);
        if self.is_open() {
            self.recovers_since = None;
            // A probe without an answer for long is no reason to probe at once again.
            if !was_open || std::mem::take(&mut self.is_probing) {
                self.put_off(now, pace);
            }
        }
    }

    /// An attempt was accepted. Says whether that closed it.
    pub(crate) fn succeeded(&mut self, now: Timestamp, pace: &Pace) -> bool {
        let closes = self.is_open();
        if closes {
            self.recovers_since = Some(now);
        }
        self.failed.clear();
        self.failing_since = None;
        self.end_slow_start(now, pace);
        closes
    }

    fn end_slow_start(&mut self, now: Timestamp, pace: &Pace) {
        let ends = pace.step * u32::try_from(SLOW_START.len()).unwrap_or(1);
        if self.recovers_since.is_some_and(|since| now.since(since) >= ends) {
            self.recovers_since = None;
        }
    }

    /// Its owner says that it is repaired: it starts slowly, with a clean slate.
    pub(crate) fn trust(&mut self, now: Timestamp) {
        self.failed.clear();
        self.failing_since = None;
        self.recovers_since = Some(now);
    }

    /// So much of the time that it has been failing says nothing.
    pub(crate) fn pass_over(&mut self, time: Duration, now: Timestamp) {
        self.failing_since = self.failing_since.map(|since| now.min(since + time));
    }

    /// How many requests may be in flight; `None`: as many as adapts.
    pub(crate) fn limit(&self, now: Timestamp, pace: &Pace) -> Option<usize> {
        if self.is_open() {
            return Some(1);
        }
        let since = now.since(self.recovers_since?);
        let step = since.as_millis() / pace.step.as_millis().max(1);
        SLOW_START.get(usize::try_from(step).unwrap_or(usize::MAX)).copied()
    }

    /// When an open breaker lets the next request start; `is_due` says that an open
    /// notification asks by its ladder, `open` how many there are. `None`: now.
    pub(crate) fn wait_until(
        &self,
        is_due: bool,
        open: usize,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let by_ladder = is_by_ladder(is_due, open);
        (self.is_open() && !by_ladder && self.probe_at > now).then_some(self.probe_at)
    }

    /// Whether something new may be the probe: while few are open.
    pub(crate) fn takes_up(&self, open: usize, now: Timestamp) -> bool {
        !self.is_open() || (open < FEW && self.probe_at <= now)
    }

    /// When the next probe may start, if it is open.
    pub(crate) fn probe_at(&self) -> Option<Timestamp> {
        self.is_open().then_some(self.probe_at)
    }

    /// When one of many that wait long may be tried before it is due, as a probe.
    pub(crate) fn early_probe(&self, open: usize) -> Option<Timestamp> {
        self.probe_at().filter(|_| open >= FEW)
    }
}

/// Whether one that asks may go by its ladder: while few are open.
fn is_by_ladder(is_due: bool, open: usize) -> bool {
    is_due && open <= FEW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn id(n: u8) -> NotificationId {
        NotificationId::from_bytes([n; 16])
    }

    fn broken(pace: &Pace) -> Breaker {
        let mut breaker = Breaker::default();
        (0..8).for_each(|n| breaker.failed(id(n), at(0), pace));
        breaker
    }

    #[test]
    fn an_open_breaker_probes_with_growing_gaps_and_closes_by_slow_start() {
        let pace = Pace::default();
        let mut breaker = broken(&pace);
        assert_eq!(breaker.limit(at(0), &pace), Some(1));
        assert_eq!(breaker.wait_until(false, 8, at(0)), Some(at(1000)));
        assert_eq!(breaker.wait_until(true, 8, at(0)), None, "a ladder's step is kept");
        assert_eq!(breaker.wait_until(true, 65, at(0)), Some(at(1000)), "but not of many");
        let mut gaps = Vec::new();
        let mut now = at(0);
        for _ in 0..11 {
            now = breaker.probe_at().unwrap();
            breaker.started(false, 8, now, &pace);
            breaker.failed(id(9), now, &pace);
            gaps.push(breaker.probe_at.since(now).as_secs());
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(breaker.succeeded(now, &pace));
        let later = |secs| now + Duration::from_secs(secs);
        let limits = [0, 9, 10, 20, 30, 39, 40].map(|s| breaker.limit(later(s), &pace));
        let expected = [Some(1), Some(1), Some(2), Some(4), Some(8), Some(8), None];
        assert_eq!(limits, expected);
        assert!(breaker.is_suspect());
        assert!(!breaker.succeeded(later(40), &pace));
        assert!(!breaker.is_suspect());
    }

    #[test]
    fn only_probes_put_the_next_probe_off() {
        let pace = Pace::default();
        let mut breaker = broken(&pace);
        (8..64).for_each(|n| breaker.failed(id(n), at(20), &pace));
        assert_eq!(breaker.probe_at, at(1000), "what was in flight when it opened");
        breaker.started(true, 8, at(900), &pace);
        breaker.failed(id(0), at(950), &pace);
        assert_eq!(breaker.probe_at, at(1000), "a step of a ladder");
        breaker.started(false, 8, at(1000), &pace);
        assert_eq!(breaker.probe_at, at(2000), "a probe, from its start on...");
        breaker.failed(id(8), at(16_000), &pace);
        assert_eq!(breaker.probe_at, at(32_000), "...and after an end that took long");
        breaker.took_up(at(32_000), &pace);
        assert_eq!(breaker.probe_at, at(64_000), "one that will be tried by its ladder");
    }

    #[test]
    fn few_notifications_that_nobody_takes_do_not_open_it() {
        let (mut breaker, pace) = (Breaker::default(), Pace::default());
        for round in 0..100 {
            (0..7).for_each(|n| breaker.failed(id(n), at(round), &pace));
        }
        assert!(!breaker.is_open());
        breaker.failed(id(7), at(100), &pace);
        assert!(breaker.is_open());
    }

    #[test]
    fn after_a_takeover_a_probe_waits_as_long_as_it_has_been_failing() {
        let pace = Pace::default();
        let before = broken(&pace);
        let mut breaker = Breaker::default();
        breaker.restore(before.failed.clone(), before.failing_since, at(60_000), &pace);
        assert_eq!(breaker.probe_at(), Some(at(120_000)));
    }

    #[test]
    fn in_development_nothing_takes_over_a_second() {
        let pace = Pace::quick();
        let mut breaker = broken(&pace);
        breaker.started(false, 8, at(900_000), &pace);
        breaker.failed(id(0), at(900_000), &pace);
        assert!(breaker.probe_at.since(at(900_000)) <= Duration::from_secs(1));
        assert!(pace.step <= Duration::from_secs(1));
    }
}
