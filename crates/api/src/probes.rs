//! `/healthz`, `/readyz`, `/metrics`.

use http::StatusCode;
use serde_json::json;

use crate::{
    answer::Answer,
    errors::{ApiError, Code, Fault},
    history,
    serve::Peer,
    state::State,
};

/// The process lives; says nothing of what it depends on.
pub(crate) fn health() -> Answer {
    Answer::ok(&json!({ "health": "alive" }))
}

/// Every service has started and the history has been read once.
///
/// # Errors
/// 503 with how far the history has come.
pub(crate) fn ready(state: &State) -> Result<Answer, ApiError> {
    let status = state.deps.event_log.status();
    if *state.deps.started.borrow() && status.complete {
        return Ok(Answer::ok(&json!({ "ready": true })));
    }
    let fault = Fault::new(Code::ServiceUnavailable).saying("the process is starting");
    let progress = Some(Box::new(history::progress(&status)));
    Err(ApiError { progress, ..fault.into() }.retry_after(1))
}

/// What metrics are written in.
pub(crate) const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics, to callers on this machine or to all (`metrics.public`).
///
/// # Errors
/// 404 to others.
pub(crate) fn metrics(state: &State, peer: Option<Peer>) -> Result<Answer, ApiError> {
    let is_local = peer.is_some_and(|peer| peer.0.ip().is_loopback());
    if !is_local && !state.config.metrics_public {
        return Err(Code::NotFound.into());
    }
    let text = (state.deps.metrics_text)();
    Ok(Answer::text(StatusCode::OK, METRICS_TYPE, text))
}
