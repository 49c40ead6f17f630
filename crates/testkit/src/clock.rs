//! A clock over tokio's time, which a test may pause, and a seeded [`Rng`].

use std::time::Duration;

use parking_lot::Mutex;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use tidings_types::{BoxFuture, Clock, Instant, Rng, Timestamp};

/// Wall time and monotonic time are tokio's time since the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    started: tokio::time::Instant,
    base: Timestamp,
}

impl TokioClock {
    /// A clock that shows `base` now. Needs a runtime.
    pub fn new(base: Timestamp) -> Self {
        Self { started: tokio::time::Instant::now(), base }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::ZERO + self.started.elapsed() + Duration::from_secs(1)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::now() + duration))
    }
}

/// Randomness that is the same for the same seed.
#[derive(Debug)]
pub struct SeededRng(Mutex<StdRng>);

impl SeededRng {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}
