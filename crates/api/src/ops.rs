//! What a process answers over HTTP that does not serve the API: whether it lives,
//! whether it is ready, and its metrics.

use std::sync::Arc;

use axum::{Router, extract::Extension, routing::get};
use http::{StatusCode, header::CONTENT_TYPE};
use tokio::sync::watch;

use crate::serve::Peer;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics` alone, to everybody: for a listener of its own (contract §2).
pub fn metrics_router(metrics: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    Router::new().route("/metrics", get(async move || ([(CONTENT_TYPE, TEXT)], metrics())))
}

/// `/healthz`, `/readyz` and `/metrics` alone.
pub fn ops_router(
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    is_public: bool,
    started: watch::Receiver<bool>,
) -> Router {
    let ready = async move || {
        if *started.borrow() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
    };
    let metrics = async move |peer: Option<Extension<Peer>>| {
        if is_public || peer.is_some_and(|peer| peer.0.0.ip().is_loopback()) {
            (StatusCode::OK, [(CONTENT_TYPE, TEXT)], metrics())
        } else {
            (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain")], String::new())
        }
    };
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
