//! The router from outside: on the broker's memory store, with a registry made
//! for each test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test, also in what it is made of")]

mod anew;
mod crash;
mod lab;
mod one_time_codes;
mod poison;
mod routes;
mod sabotage;
mod unread;
