//! The real clock: wall time from the system, monotonic time from a clock that
//! also runs while the machine sleeps (design §5).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tidings_types::{BoxFuture, Clock, Instant, Timestamp};

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn now(&self) -> Timestamp {
        // Before 1970 the clock is wrong beyond use; zero is as good as anything.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Instant {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Instant::from_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_forward_from_a_plausible_moment() {
        let clock = SystemClock;
        assert!(clock.now() > Timestamp::from_secs(1_700_000_000));
        let first = clock.monotonic();
        assert!(first > Instant::ZERO);
        assert!(clock.monotonic() >= first);
    }
}
