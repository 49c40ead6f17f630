//! The router from outside: on the broker's memory store, with a registry made
//! for each test.

mod crash;
mod lab;
mod one_time_codes;
mod poison;
mod routes;
mod sabotage;
