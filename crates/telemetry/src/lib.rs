//! Logs, metrics, and the real clock and randomness of a process. Decides nothing.

mod clock;
mod logs;
mod metrics;
mod random;

pub use clock::SystemClock;
pub use logs::init_logs;
pub use metrics::{Metrics, encode};
pub use random::SystemRng;
