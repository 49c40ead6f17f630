//! The API as its clients see it: requests in, answers and records out.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod attempts;
mod docs;
mod envelope;
mod fraud;
mod history;
mod hooks;
mod ingest;
mod matrix;
mod operations;
mod signing;
mod tenants;
mod webhooks;
mod world;
