//! What a process answers while its parts are still being built, as they are while
//! the broker is away: that it lives, and that it cannot do anything yet.

use std::sync::Arc;

use axum::{Router, body::Body, extract::State as Extract};
use http::{Request, Response};
use tidings_types::Rng;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{
    answer::{self, Answer},
    dispatch::Upload,
    errors::{ApiError, Code, Fault},
    probes,
    routes::{self, Match, Open, Operation},
    trace::Trace,
};

#[derive(Clone)]
struct Starting {
    built: watch::Receiver<Option<Router>>,
    rng: Arc<dyn Rng>,
}

/// Answers by itself until `built` has a router, and by that from then on.
pub fn starting(built: watch::Receiver<Option<Router>>, rng: Arc<dyn Rng>) -> Router {
    Router::new().fallback(handle).with_state(Starting { built, rng })
}

async fn handle(Extract(starting): Extract<Starting>, request: Request<Body>) -> Response<Body> {
    let built = starting.built.borrow().clone();
    if let Some(router) = built {
        return router.oneshot(request).await.unwrap_or_else(|never| match never {});
    }
    let (parts, body) = request.into_parts();
    match routes::find(parts.method.as_str(), parts.uri.path()) {
        Match::Found { route, .. } if route.operation == Operation::Open(Open::Health) => {
            probes::health().into_response()
        }
        Match::Found { .. } | Match::OtherMethod(_) | Match::None => {
            Upload::of(&parts.headers, body).drain().await;
            refuse(&Trace::of(&parts.headers, &*starting.rng)).into_response()
        }
    }
}

fn refuse(trace: &Trace) -> Answer {
    let message = "the process is starting, or waits for its broker; try again after Retry-After";
    let fault = Fault::new(Code::ServiceUnavailable).saying(message);
    answer::refuse(&ApiError::from(fault).retry_after(1), trace)
}
