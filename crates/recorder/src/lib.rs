//! The recorder: reads `tidings.routed` and `tidings.outcomes` whole and feeds the
//! event log with them.
//!
//! Every recorder reads everything; two of them are two replicas. It owns nothing
//! in the broker: its positions stand in the event log, written in one step with
//! what was folded up to them. So what is folded is visible at once, before it is
//! durable: a crash takes both back together, and the topics have them. Flushes
//! (every second, or after many rows) only shorten what is read again.
//!
//! When the store is missing, damaged or half-written, or ahead of a topic that
//! lost its tail, it is set aside and made anew from the topics, while the handle
//! says how far that is.

mod fold;
mod follow;
mod handle;
mod metrics;
mod progress;
mod service;

pub use handle::{AccountError, Handle};
pub use metrics::Metrics;
pub use service::{Config, Deps, Failpoints, RunError, Service};
