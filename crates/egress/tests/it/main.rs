//! Egress against endpoints that do as they are told: the rows of
//! `reliability-security.md` §7.5 and §7.11.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test, also in what it is made of")]

mod answers;
mod identity;
mod kit;
mod names;
mod reuse;
mod sign_in;
mod ssrf;
mod time;
mod tls;
mod way;
