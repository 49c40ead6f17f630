//! The EDS API against a running `tidings serve`: what clients see when events
//! really flow.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod flow;
mod installation;
