//! The outer contract, against the real binary: commands, routes, shapes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod account;
mod authorization;
mod commands;
mod delivery;
mod deploy;
mod edge;
mod golden;
mod guarded;
mod headers;
mod help;
mod identities;
mod ingest;
mod life;
mod merchants;
mod metrics;
mod neighbours;
mod new_types;
mod openapi;
mod pauses;
mod roles;
mod sign_in;
mod stage;
mod tight;
mod tls;
mod upkeep;
mod verifiers;
mod verify;
mod ways_out;
mod webhooks;
