//! Adaptive concurrency: how many requests an endpoint takes at a time.
//!
//! By windows of as many answers as may be in flight. While nothing has gone wrong the
//! limit doubles per window, so that a healthy endpoint has all it allows after two
//! round trips; later it grows by an eighth. Three things halve it: more than a tenth
//! of answers that say "too much" (429, 503, no answer in time), more than a tenth that
//! fail otherwise, and answers that take four times as long as at best.
//!
//! A window with a failure in it has enough answers to tell a tenth from bad luck. And
//! failures that fewer requests do not make fewer, as long as most answers are good, do
//! not take the last places.

use std::time::Duration;

/// The limit of a webhook of which nothing is known.
const FIRST: usize = 16;
/// The fewest answers that a window has...
const LEAST_WINDOW: usize = 8;
/// ...and one in which something failed.
const LEAST_FAILING_WINDOW: usize = 32;
/// Slow answers alone, or a minority of failures, never lower the limit below this.
const FLOOR: usize = 8;
/// What an answer may take however fast the best ones are.
const GRACE: Duration = Duration::from_millis(200);

/// What an answer says of how much its endpoint takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strain {
    None,
    /// It failed, for whatever reason.
    Failed,
    /// It is too much now.
    TooMuch,
}

/// The concurrency of one webhook.
#[derive(Clone, Debug)]
pub(crate) struct Adaptive {
    limit: usize,
    /// Whether it has never been lowered.
    doubles: bool,
    answers: usize,
    /// That failed, for whatever reason...
    failures: usize,
    /// ...and of them, those that say "too much".
    too_much: usize,
    took: Duration,
    /// The mean of the best window.
    best: Option<Duration>,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            limit: FIRST,
            doubles: true,
            answers: 0,
            failures: 0,
            too_much: 0,
            took: Duration::ZERO,
            best: None,
        }
    }
}

impl Adaptive {
    /// How many requests may be in flight.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    #[cfg(test)]
    pub(crate) fn limit_to(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// What answers take at best, once enough of them have come.
    pub(crate) fn best(&self) -> Option<Duration> {
        self.best
    }

    /// An attempt ended; the webhook allows `most`.
    pub(crate) fn ended(&mut self, strain: Strain, took: Duration, most: usize) {
        self.answers += 1;
        self.failures += usize::from(strain != Strain::None);
        self.too_much += usize::from(strain == Strain::TooMuch);
        self.took = self.took.saturating_add(took);
        let least = if self.failures == 0 { LEAST_WINDOW } else { LEAST_FAILING_WINDOW };
        if self.answers < self.limit.max(least) {
            return;
        }
        let mean = self.took / u32::try_from(self.answers).unwrap_or(u32::MAX).max(1);
        let is_slow = self.best.is_some_and(|best| mean > best * 4 + GRACE);
        if self.too_much * 10 > self.answers || self.failures * 2 > self.answers {
            self.lower(1);
        } else if self.failures * 10 > self.answers {
            self.lower(FLOOR);
        } else if is_slow && self.limit > FLOOR {
            self.lower(FLOOR);
            // The endpoint may have become slower for good.
            self.best = self.best.map(|best| best + best / 4);
        } else if self.doubles {
            self.limit *= 2;
        } else {
            self.limit += (self.limit / 8).max(1);
        }
        self.limit = self.limit.min(most.max(1));
        if self.failures == 0 {
            self.best = Some(self.best.map_or(mean, |best| best.min(mean)));
        }
        (self.answers, self.failures, self.too_much) = (0, 0, 0);
        self.took = Duration::ZERO;
    }

    fn lower(&mut self, floor: usize) {
        self.limit = (self.limit / 2).max(floor.min(self.limit));
        self.doubles = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(adaptive: &mut Adaptive, count: usize, failed: bool, millis: u64) {
        let strain = if failed { Strain::TooMuch } else { Strain::None };
        for _ in 0..count {
            adaptive.ended(strain, Duration::from_millis(millis), 64);
        }
    }

    /// How long 3,000 answers of 20 ms take, of which so many percent fail at random.
    fn takes(percent: u64, strain: Strain) -> Duration {
        let (mut adaptive, mut random, mut took) = (Adaptive::default(), 1_u64, Duration::ZERO);
        let answer = Duration::from_millis(20);
        for _ in 0..3000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let failed = (random >> 33) % 100 < percent;
            took += answer / u32::try_from(adaptive.limit()).unwrap();
            adaptive.ended(if failed { strain } else { Strain::None }, answer, 64);
        }
        took
    }

    #[test]
    fn an_endpoint_that_fails_a_few_percent_keeps_its_throughput() {
        let healthy = takes(0, Strain::Failed);
        assert!(takes(5, Strain::Failed) <= healthy * 3 / 2, "{:?}", takes(5, Strain::Failed));
        assert!(takes(5, Strain::TooMuch) <= healthy * 3 / 2);
        let fifth = takes(20, Strain::Failed);
        assert!(fifth >= healthy * 2 && fifth <= healthy * 8, "less, but no collapse: {fifth:?}");
        assert!(takes(20, Strain::TooMuch) >= healthy * 10, "what is too much backs off");
    }

    #[test]
    fn a_healthy_endpoint_has_all_it_allows_after_two_windows() {
        let mut adaptive = Adaptive::default();
        answers(&mut adaptive, 16 + 32, false, 100);
        assert_eq!(adaptive.limit(), 64);
        answers(&mut adaptive, 1000, false, 100);
        assert_eq!(adaptive.limit(), 64, "never more than it allows");
    }

    #[test]
    fn failures_halve_it_and_it_grows_back_by_an_eighth() {
        let mut adaptive = Adaptive::default();
        answers(&mut adaptive, 48, false, 100);
        answers(&mut adaptive, 64, true, 100);
        assert_eq!(adaptive.limit(), 32);
        answers(&mut adaptive, 32, false, 100);
        assert_eq!(adaptive.limit(), 36);
        answers(&mut adaptive, 500, true, 100);
        assert_eq!(adaptive.limit(), 1);
    }

    #[test]
    fn slow_answers_lower_it_but_single_failures_do_not() {
        let mut adaptive = Adaptive::default();
        answers(&mut adaptive, 48, false, 10);
        answers(&mut adaptive, 1, true, 10);
        answers(&mut adaptive, 63, false, 10);
        assert_eq!(adaptive.limit(), 64);
        answers(&mut adaptive, 64, false, 2000);
        assert_eq!(adaptive.limit(), 32);
        answers(&mut adaptive, 2000, false, 2000);
        assert!(adaptive.limit() >= FLOOR);
    }
}
