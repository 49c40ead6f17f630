//! The API as its clients see it: requests in, answers and records out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test, also in what it is made of")]

mod attempts;
mod authentication;
mod compat;
mod docs;
mod envelope;
mod fraud;
mod history;
mod hooks;
mod identity;
mod ingest;
mod matrix;
mod operations;
mod signing;
mod ssrf;
mod tenants;
mod two;
mod webhooks;
mod world;
