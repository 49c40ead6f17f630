//! A webhook's own rate limit: attempts are paced, not sent in bursts.
//!
//! The endpoint must never count more than the limit in any second, and not much
//! less. So the pace is 96 % of the limit, and an attempt that is late by up to
//! [`CATCH_UP`] (a busy loop, a timer of whole milliseconds) is made up for: then at
//! most `1 + (1 s + CATCH_UP) / pace`, which is no more than the limit, start within
//! one second.

use std::time::Duration;

use tidings_types::Timestamp;

/// The lateness that is made up for.
const CATCH_UP: i64 = 30_000_000;
/// Nanoseconds of one second at 96 % of the limit.
const PACED_SECOND: i64 = 1_000_000_000 / 96 * 100;

/// The pace of one webhook's attempts.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateLimit {
    /// Nanoseconds between attempts; zero: no limit.
    pace: i64,
    /// When the next attempt is due by the pace, in nanoseconds since `since`.
    next: i64,
    since: Timestamp,
}

impl RateLimit {
    /// Takes over a limit; an attempt that was made before it counts on.
    pub(crate) fn set(&mut self, per_second: u32) {
        let pace = if per_second == 0 { 0 } else { PACED_SECOND / i64::from(per_second) };
        self.next = self.next - self.pace + pace;
        self.pace = pace;
    }

    /// Another owner may have used up the second that ends now.
    pub(crate) fn take_over(&mut self, now: Timestamp) {
        if self.pace != 0 {
            self.since = now;
            self.next = 1_000_000_000 + CATCH_UP;
        }
    }

    /// When the next attempt may start; `None`: now.
    pub(crate) fn wait_until(&self, now: Timestamp) -> Option<Timestamp> {
        if self.pace == 0 {
            return None;
        }
        let early = self.next - CATCH_UP - self.nanos(now);
        let millis = u64::try_from(early).ok()?.div_ceil(1_000_000);
        (millis > 0).then(|| now + Duration::from_millis(millis))
    }

    /// An attempt starts.
    pub(crate) fn take(&mut self, now: Timestamp) {
        if self.pace == 0 {
            return;
        }
        let at = self.nanos(now);
        if self.since == Timestamp::ZERO || at > self.next {
            // After a pause, or at the first attempt: nothing is saved up.
            self.since = now;
            self.next = 0;
        }
        self.next += self.pace;
    }

    fn nanos(&self, now: Timestamp) -> i64 {
        (now.as_millis() - self.since.as_millis()).saturating_mul(1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The times of attempts when the limiter is asked again `late` after it said.
    fn starts(per_second: u32, seconds: i64, late: impl Fn(usize) -> u64) -> Vec<i64> {
        let mut limit = RateLimit::default();
        limit.set(per_second);
        let mut now = Timestamp::from_secs(1000);
        let mut starts = Vec::new();
        while now < Timestamp::from_secs(1000 + seconds) {
            match limit.wait_until(now) {
                None => {
                    limit.take(now);
                    starts.push(now.as_millis());
                }
                Some(at) => now = at + Duration::from_millis(late(starts.len())),
            }
        }
        starts
    }

    fn most_in_a_second(starts: &[i64]) -> usize {
        (0..starts.len())
            .map(|first| {
                starts[first..].iter().take_while(|at| **at < starts[first] + 1000).count()
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn at_fifty_a_second_each_second_has_45_to_50() {
        let starts = starts(50, 60, |_| 1);
        for second in 1..59 {
            let from = (1000 + second) * 1000;
            let count = starts.iter().filter(|at| (from..from + 1000).contains(*at)).count();
            assert!((45..=50).contains(&count), "{count} in second {second}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_second(
            per_second in 1_u32..1000,
            late in proptest::collection::vec(0_u64..40, 7),
        ) {
            let starts = starts(per_second, 5, |n| late[n % late.len()]);
            let limit = usize::try_from(per_second).unwrap();
            prop_assert!(most_in_a_second(&starts) <= limit.max(1));
        }
    }

    #[test]
    fn without_a_limit_nothing_waits_and_a_pause_saves_nothing_up() {
        let mut limit = RateLimit::default();
        assert_eq!(limit.wait_until(Timestamp::from_secs(1)), None);
        limit.set(1);
        limit.take(Timestamp::from_secs(1));
        assert!(limit.wait_until(Timestamp::from_secs(1)).is_some());
        limit.take(Timestamp::from_secs(100));
        assert!(limit.wait_until(Timestamp::from_secs(100)).is_some());
    }
}
