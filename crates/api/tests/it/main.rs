//! The API as its clients see it: requests in, answers and records out.
#![expect(
    clippy::unwrap_used,
    clippy::missing_docs_in_private_items,
    reason = "helpers of tests"
)]

mod envelope;
mod history;
mod hooks;
mod ingest;
mod operations;
mod tenants;
mod webhooks;
mod world;
