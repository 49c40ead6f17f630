//! Adaptive concurrency: how many requests an endpoint takes at a time.
//!
//! Additive increase, multiplicative decrease, by windows of as many answers as
//! may be in flight. While nothing has gone wrong the limit doubles per window, so
//! that a healthy endpoint has all it allows after two round trips. A window with
//! more than a tenth of failures, or in which answers take four times as long as at
//! best, halves it.

use std::time::Duration;

/// The limit of a webhook of which nothing is known.
const FIRST: usize = 16;
/// The fewest answers that a window has.
const LEAST_WINDOW: usize = 8;
/// Slow answers alone never lower the limit below this.
const SLOW_FLOOR: usize = 8;
/// What an answer may take however fast the best ones are.
const GRACE: Duration = Duration::from_millis(200);

/// The concurrency of one webhook.
#[derive(Clone, Debug)]
pub(crate) struct Adaptive {
    limit: usize,
    /// Whether it has never been lowered.
    doubles: bool,
    answers: usize,
    failures: usize,
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

    /// What answers take at best, once enough of them have come.
    pub(crate) fn best(&self) -> Option<Duration> {
        self.best
    }

    /// An attempt ended; the webhook allows `most`.
    pub(crate) fn ended(&mut self, failed: bool, took: Duration, most: usize) {
        self.answers += 1;
        self.failures += usize::from(failed);
        self.took = self.took.saturating_add(took);
        if self.answers < self.limit.max(LEAST_WINDOW) {
            return;
        }
        let mean = self.took / u32::try_from(self.answers).unwrap_or(u32::MAX).max(1);
        let is_slow = self.best.is_some_and(|best| mean > best * 4 + GRACE);
        if self.failures * 10 > self.answers {
            self.lower(1);
        } else if is_slow && self.limit > SLOW_FLOOR {
            self.lower(SLOW_FLOOR);
            // The endpoint may have become slower for good.
            self.best = self.best.map(|best| best + best / 4);
        } else if self.doubles {
            self.limit *= 2;
        } else {
            self.limit += 1;
        }
        self.limit = self.limit.min(most.max(1));
        if self.failures == 0 {
            self.best = Some(self.best.map_or(mean, |best| best.min(mean)));
        }
        (self.answers, self.failures, self.took) = (0, 0, Duration::ZERO);
    }

    fn lower(&mut self, floor: usize) {
        self.limit = (self.limit / 2).max(floor);
        self.doubles = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(adaptive: &mut Adaptive, count: usize, failed: bool, millis: u64) {
        for _ in 0..count {
            adaptive.ended(failed, Duration::from_millis(millis), 64);
        }
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
    fn failures_halve_it_and_it_grows_back_by_one() {
        let mut adaptive = Adaptive::default();
        answers(&mut adaptive, 48, false, 100);
        answers(&mut adaptive, 64, true, 100);
        assert_eq!(adaptive.limit(), 32);
        answers(&mut adaptive, 32, false, 100);
        assert_eq!(adaptive.limit(), 33);
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
        assert!(adaptive.limit() >= SLOW_FLOOR);
    }
}
