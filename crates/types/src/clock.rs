//! The seams for time and randomness. Real ones are made in the binary; the
//! simulation hands in its own.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use crate::{Instant, Timestamp};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tells the time and waits.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Wall-clock time, UTC, in milliseconds. May jump.
    fn now(&self) -> Timestamp;

    /// Time since the process began. Never goes back, and runs while the
    /// machine sleeps.
    fn monotonic(&self) -> Instant;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Gives random bits. Seeded in tests and in the simulation.
pub trait Rng: Send + Sync + fmt::Debug + 'static {
    /// Fills `bytes` with random bits; from the system's source in production.
    fn fill(&self, bytes: &mut [u8]);

    /// Returns a random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
