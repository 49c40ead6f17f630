//! The HTTP surfaces: the EDS API, the admin API, ingest, and the probes.
//!
//! [`router`] makes the axum router over a [`State`]; [`serve()`] serves it. Every
//! request is matched against one table of routes (`routes`), from which the
//! description at `/openapi.json` is written too. Handlers read the registry's
//! snapshot, change it through the registry's one writer, append to the broker
//! and read the history from the event log; they keep nothing of their own.
//!
//! JSON shapes live here and nowhere below. What may be an endpoint is
//! `egress`'s decision, who a caller is `auth`'s.

mod admin;
mod answer;
mod caller;
mod commands;
mod config;
mod configurations;
mod dispatch;
mod errors;
mod fraud;
mod heartbeat;
mod history;
mod hooks;
mod ingest;
mod input;
mod jwks;
mod metrics;
mod openapi;
mod ops;
mod paging;
mod probes;
mod quotas;
mod refusals;
mod routes;
mod serve;
mod starting;
mod state;
mod topics;
mod trace;
mod webhooks;

pub use axum::Router;
pub use config::{Compat, Config};
pub use dispatch::router;
pub use errors::Code;
pub use metrics::Metrics;
pub use ops::{metrics_router, ops_router};
pub use quotas::Rate;
pub use serve::{ConnectionMetrics, Limits, ServeError, Serving, Tls, serve};
pub use starting::starting;
pub use state::{Deps, MetricsText, State};
