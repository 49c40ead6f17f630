//! The demo's endpoint: answers 200 and verifies what it got, as a client would.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// No body of ours is larger.
const MAX_BODY: usize = 1024 * 1024;
/// Arrivals that nobody has read yet.
const MAX_ARRIVALS: usize = 10_000;

/// One request that arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) event_type: String,
    pub(crate) notification: String,
    /// `None` when everything was right, else what was not.
    pub(crate) verdict: Option<String>,
}

#[derive(Debug, Default)]
struct Keys {
    webhook: Option<tidings_signing::WebhookSecret>,
    merchant: Vec<u8>,
}

/// A running endpoint; stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    url: String,
    keys: Arc<RwLock<Keys>>,
    arrivals: mpsc::Receiver<Arrival>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(shutdown: CancellationToken) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot open a port")?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let keys = Arc::new(RwLock::new(Keys::default()));
        let (sender, arrivals) = mpsc::channel(MAX_ARRIVALS);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&keys), sender, shutdown));
        Ok(Self { url, keys, arrivals, _tasks: tasks })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Gives the receiver what a client gets when it registers.
    pub(crate) fn trust(
        &self,
        signing_secret: String,
        signature_key: String,
    ) -> anyhow::Result<()> {
        let webhook = tidings_signing::WebhookSecret::parse(&signing_secret)
            .context("signingSecret has not the form whsec_…")?;
        *self.keys.write() = Keys { webhook: Some(webhook), merchant: signature_key.into_bytes() };
        Ok(())
    }

    pub(crate) async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

async fn accept(
    listener: TcpListener,
    keys: Arc<RwLock<Keys>>,
    sender: mpsc::Sender<Arrival>,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the demo's receiver cannot accept");
                    return;
                }
            },
        };
        let keys = Arc::clone(&keys);
        let sender = sender.clone();
        connections.spawn(async move {
            let service =
                service_fn(move |request| receive(request, Arc::clone(&keys), sender.clone()));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the demo's receiver broke");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn receive(
    request: Request<Incoming>,
    keys: Arc<RwLock<Keys>>,
    sender: mpsc::Sender<Arrival>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    #[expect(clippy::disallowed_methods, reason = "capped by `Limited`")]
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            tracing::warn!(%error, "a request to the demo's receiver was cut");
            return Ok(answer(StatusCode::BAD_REQUEST));
        }
    };
    let verdict = verify(&keys.read(), &head.headers, &body).err();
    let text = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let arrival =
        Arrival { event_type: text("x-eds-event-code"), notification: text("webhook-id"), verdict };
    match sender.send_timeout(arrival, Duration::from_secs(1)).await {
        Ok(()) => Ok(answer(StatusCode::OK)),
        Err(_full) => Ok(answer(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

fn answer(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// What a client should check: the signature, then that body and header agree.
fn verify(keys: &Keys, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(|| format!("no {name}"))
    };
    let id = text("webhook-id")?;
    if headers.contains_key("webhook-signature") {
        let secret = keys.webhook.as_ref().ok_or("no secret known")?;
        let timestamp =
            text("webhook-timestamp")?.parse::<i64>().map_err(|_bad| "bad timestamp")?;
        let signed = secret.sign_v1(id, timestamp, body);
        if !text("webhook-signature")?.split(' ').any(|signature| signature == signed) {
            return Err("WRONG SIGNATURE".to_owned());
        }
        let document: serde_json::Value =
            serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        if document["context"]["notificationId"].as_str() != Some(id) {
            return Err("id of body and header differ".to_owned());
        }
        return Ok(());
    }
    if text("x-signature")? != tidings_signing::x_signature(&keys.merchant, body) {
        return Err("WRONG X-SIGNATURE".to_owned());
    }
    Ok(())
}
