//! The simulation: the services of `tidings serve` in one process, on the memory
//! broker and the memory event log, under paused time and a seed.
//!
//! The services are the real ones; only the stores, the clock, the randomness and
//! who answers requests differ. A seed draws the webhooks, how their endpoints
//! behave, which appends fail, and a schedule of crashes, takeovers, hung owners,
//! events published twice, resends and changed subscriptions (`plan`,
//! `run`). When everything has settled, the checker of the crash run compares
//! what producers published, what endpoints saw and what history says, with a look
//! into the log for what the outside cannot tell.
//!
//! The same seed is the same run: it has the same trace hash. It does not test the
//! API, the sockets, or a disk.

mod endpoints;
mod faults;
mod hang;
mod node;
mod observe;
mod plan;
mod resend;
mod run;
mod trace;
mod world;

pub use run::{Outcome, run_seed};
