//! The registry over the local broker in memory.

mod fold;
mod keys;
mod service;
mod tenants;
mod world;
