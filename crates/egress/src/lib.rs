//! Opens connections to customers' addresses; the only crate that may.
//!
//! One [`Egress::attempt`] is one HTTP/1.1 request with its time limit, on a kept
//! connection where there is one, to an address that was looked at *after* the
//! name was resolved (`reliability-security.md` §3.1). What the endpoint did is a
//! value ([`AttemptReport`]), never an error.
//!
//! It follows no redirect, decodes no compression, knows no proxy of the environment, reads at most
//! 16 KiB of an answer, and decides nothing about retries.

mod assertion;
mod attempt;
mod config;
mod connect;
mod connection;
mod fetch;
mod filter;
mod identity;
mod metrics;
mod net;
mod pool;
mod request;
mod sign_in;
mod target;
mod wire;

pub use assertion::{AssertionKey, AssertionKeyError};
pub use attempt::{AttemptReport, Egress};
pub use config::Config;
pub use connect::{ConnectError, Connector, Io};
pub use fetch::{FetchError, Fetcher};
pub use filter::{Class, classify};
pub use identity::{Identity, IdentityPart, IdentityParts, IdentityRefusal, certificate_not_after};
pub use metrics::Metrics;
pub use net::{NetConnector, Proxy, ProxyError};
pub use request::Request;
pub use sign_in::{ClientProof, SignIn, SignInParts};
pub use target::{Policy, Target, UrlRefusal};
