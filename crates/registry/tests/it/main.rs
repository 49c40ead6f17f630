//! The registry over the local broker in memory.
#![expect(clippy::unwrap_used, reason = "in a test, also in what it is made of")]

mod fold;
mod keys;
mod service;
mod tenants;
mod world;
