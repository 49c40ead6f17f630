//! Egress against endpoints that do as they are told: the rows of
//! `reliability-security.md` §7.5 and §7.11.

mod answers;
mod kit;
mod names;
mod reuse;
mod time;
mod tls;
