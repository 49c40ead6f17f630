//! One HTTP/1.1 connection, driven by whoever uses it.
//!
//! hyper wants the connection's future polled for bytes to move. It is polled
//! inside the attempt's own future, together with the answer: no task, nothing
//! that wakes another thread. Nobody polls an idle connection; it is polled once
//! before it is used again, which shows a close or stray bytes.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use http_body_util::Full;
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tidings_types::{AttemptCode, Instant};

use crate::{
    config::{MAX_RESPONSE_HEAD, MAX_RESPONSE_HEADERS},
    connect::Io,
    identity::Identity,
    metrics::{Counted, Metrics},
    target::Target,
    wire::{Watch, Watched},
};

type Driver = http1::Connection<TokioIo<Watched>, Full<Bytes>>;
/// A request as hyper takes it.
pub(crate) type Post = http::Request<Full<Bytes>>;

/// A connection to one target.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended. An ended driver is dropped at once: what waits
    /// for it learns of the end by that.
    driver: Option<Driver>,
    watch: Arc<Watch>,
    target: Arc<Target>,
    /// The identity's fingerprint, if it was opened as one.
    identity: Option<[u8; 32]>,
    idle_since: Instant,
    _open: Counted,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection was closed before a byte of the request was written; here it
    /// is back.
    Unused(Box<Post>),
    /// A fact about the endpoint.
    Endpoint(AttemptCode),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("target", &self.target.as_str())
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on `io`, a stream to `target` that was opened as `identity`.
    pub(crate) async fn start(
        io: Box<dyn Io>,
        target: Arc<Target>,
        identity: Option<&Identity>,
        metrics: &Metrics,
    ) -> Result<Box<Self>, AttemptCode> {
        let (mut watched, watch) = Watched::new(io);
        poll_fn(|context| watched.poll_settle(context)).await?;
        // Writes nothing: HTTP/1.1 has no greeting.
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_RESPONSE_HEAD)
            .max_headers(MAX_RESPONSE_HEADERS)
            .handshake(TokioIo::new(watched))
            .await
            .map_err(|error| code_of(&error))?;
        Ok(Box::new(Self {
            sender,
            driver: Some(driver),
            watch,
            target,
            identity: identity.map(|identity| *identity.fingerprint()),
            idle_since: Instant::ZERO,
            _open: metrics.count_open(),
        }))
    }

    pub(crate) const fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Notes since when the connection is idle.
    pub(crate) const fn rest(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// Whether requests to `target` as `identity` may go this way.
    pub(crate) fn serves(&self, target: &Target, identity: Option<&Identity>) -> bool {
        self.identity.as_ref() == identity.map(Identity::fingerprint)
            && self.target.is_same_origin(target)
    }

    /// Whether something of the last request may have reached the endpoint.
    pub(crate) fn has_written(&self) -> bool {
        self.watch.has_written()
    }

    /// Whether another request can be sent now: the answer before it has ended,
    /// the other side has not closed, and nothing came that was not asked for.
    pub(crate) fn poll_is_idle(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context);
        self.driver.is_some()
            && !self.watch.is_spoiled()
            && matches!(self.sender.poll_ready(context), Poll::Ready(Ok(())))
    }

    /// From now on no other request goes this way.
    pub(crate) fn spoil(&self) {
        self.watch.spoil();
    }

    /// Sends the request and waits for the head of the answer.
    pub(crate) async fn exchange(&mut self, post: Post) -> Result<Response<Incoming>, Failure> {
        self.watch.begin();
        let mut answer = std::pin::pin!(self.sender.try_send_request(post));
        let driver = &mut self.driver;
        let answer = poll_fn(|context| {
            drive(driver, context);
            answer.as_mut().poll(context)
        })
        .await;
        answer.map_err(|mut error| match (self.watch.fault(), error.take_message()) {
            (Some(code), _) => Failure::Endpoint(code),
            (None, Some(post)) if !self.has_written() => Failure::Unused(Box::new(post)),
            (None, _) => Failure::Endpoint(code_of(&error.into_error())),
        })
    }

    /// The next piece of an answer's body.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Asking first tells the driver that bytes are wanted.
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        self.drive(context);
        Pin::new(body).poll_frame(context)
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        drive(&mut self.driver, context);
    }
}

fn drive(driver: &mut Option<Driver>, context: &mut Context<'_>) {
    // How it ended, the waiting answer or body is told too.
    if let Some(running) = driver
        && Pin::new(running).poll(context).is_ready()
    {
        *driver = None;
    }
}

/// The code of a failure that the watch did not see.
fn code_of(error: &hyper::Error) -> AttemptCode {
    if error.is_parse_too_large() {
        AttemptCode::ResponseHeadersTooLarge
    } else if error.is_parse() {
        AttemptCode::ProtocolError
    } else {
        AttemptCode::ClosedEarly
    }
}
