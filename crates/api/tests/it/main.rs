//! The API as its clients see it: requests in, answers and records out.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod envelope;
mod history;
mod hooks;
mod ingest;
mod operations;
mod tenants;
mod webhooks;
mod world;
