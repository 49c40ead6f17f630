//! One attempt: one request, one time limit, one report.

use std::{fmt, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header, response::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use tidings_types::{AttemptCode, Clock, WebhookId};
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    connect::{ConnectError, Connector},
    connection::{Connection, Failure, Post},
    identity::Identity,
    metrics::{Dropped, Metrics, Origin},
    pool::Pool,
    request::Request,
    sign_in::{Means, NoToken},
    target::Target,
};

/// How much of a `Retry-After` and of a `Location` a report keeps.
const MAX_RETRY_AFTER: usize = 64;
const MAX_LOCATION: usize = 256;
/// How long it may take to find an endpoint.
const LOOK: Duration = Duration::from_secs(10);
/// How often idle connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What an attempt came to: a fact about the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    pub code: AttemptCode,
    /// 0 when there was no complete head of an answer.
    pub http_status: u16,
    /// Until the end of the answer's head or the failure.
    pub duration: Duration,
    /// The first `Retry-After`, not yet understood; `None` also if it is longer
    /// than any valid one.
    pub retry_after: Option<Bytes>,
    /// The first 256 bytes of the `Location` of a refused redirect.
    pub location: Option<Bytes>,
    /// The first 1 KiB of the answer's body; of a success only what came with the
    /// head. Bytes as they came: neither text nor redacted.
    pub snippet: Bytes,
    /// Whether a kept connection was used.
    pub reused: bool,
    /// Whether something of the request may have reached the endpoint.
    pub written: bool,
    /// Whether the endpoint's name and a way to it were found. `None` if nobody looked: on
    /// a kept connection, for an address in the place of a name, or out of time.
    pub found: Option<bool>,
    /// What was shown, to the endpoint or to its authorization server, that no setting
    /// holds: to be hidden where the snippet is kept.
    pub shown: Option<HeaderValue>,
}

/// Makes attempts. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Egress {
    shared: Arc<Shared>,
    /// Bodies that are read after their reports were given.
    drains: TaskTracker,
}

struct Shared {
    connector: Arc<dyn Connector>,
    pool: Pool,
    drain_slots: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    max_body: usize,
    max_snippet: usize,
    body_timeout: Duration,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("connector", &self.connector)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// What is known of an attempt even if its time runs out.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    reused: bool,
    written: bool,
    found: Option<bool>,
}

/// An answer whose head is complete.
struct Answer {
    connection: Box<Connection>,
    parts: Parts,
    body: Incoming,
}

impl Egress {
    /// Makes an egress that opens its connections through `connector`.
    pub fn new(
        config: &Config,
        connector: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let shared = Shared {
            connector,
            pool: Pool::new(config, metrics.clone()),
            drain_slots: Arc::new(Semaphore::new(config.max_draining)),
            clock,
            metrics,
            max_body: config.max_response_body,
            max_snippet: config.max_snippet,
            body_timeout: config.response_body_timeout,
        };
        Self { shared: Arc::new(shared), drains: TaskTracker::new() }
    }

    /// Makes one attempt. What went wrong is in the report.
    ///
    /// Dropping the future closes the connection; the request may have reached
    /// the endpoint. A token that is missing is asked for before the request's own time
    /// begins.
    pub async fn attempt(&self, mut request: Request) -> AttemptReport {
        let shared = &self.shared;
        let started = shared.clock.monotonic();
        let token = match shared.sign_in(&mut request).await {
            Ok(token) => token,
            Err(NoToken { code, said, shown }) => {
                let duration = shared.clock.monotonic().since(started);
                shared.metrics.attempted(code, duration);
                let report = AttemptReport::without_answer(code);
                return AttemptReport { duration, snippet: said, shown, ..report };
            }
        };
        let mut progress = Progress::default();
        let answered = timeout(request.timeout, shared.exchange(&mut request, &mut progress)).await;
        let duration = shared.clock.monotonic().since(started);
        let mut report = match answered {
            Ok(Ok(answer)) => self.answered(&request, answer, duration).await,
            Ok(Err(code)) => AttemptReport::without_answer(code),
            Err(_late) => AttemptReport::without_answer(AttemptCode::Timeout),
        };
        report.duration = duration;
        report.reused = progress.reused;
        report.found = progress.found;
        report.written |= progress.written;
        if let (Some(sign_in), Some(token)) = (&request.sign_in, token) {
            match (report.code, report.http_status) {
                (AttemptCode::Delivered, _) => sign_in.accepted(),
                (_, 401) => sign_in.refused(&token),
                _ => {}
            }
            report.shown = Some(token);
        }
        shared.metrics.attempted(report.code, duration);
        report
    }

    /// Looks whether an endpoint is found: connects, and closes again. `None` if nothing
    /// was found out, as for an address in the place of a name.
    pub async fn look(&self, target: &Target, identity: Option<&Identity>) -> Option<bool> {
        let connected = timeout(LOOK, self.shared.connector.connect(target, identity)).await;
        connected.ok().and_then(|connected| way(target, connected.as_ref().err()))
    }

    /// Closes the idle connections of a webhook, which is another one from now on.
    pub fn forget(&self, webhook: WebhookId) {
        self.shared.pool.forget(webhook);
    }

    /// Closes idle connections in time until `shutdown`, then all of them, and
    /// returns when no body is being read any more (a second at most).
    ///
    /// Attempts work without it, but then a process without traffic keeps its
    /// idle connections.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // Cancel safe: a lost tick is only a later sweep.
                _ = ticks.tick() => self.shared.pool.sweep(self.shared.clock.monotonic()),
            }
        }
        self.drains.close();
        self.drains.wait().await;
        self.shared.pool.clear();
    }

    /// Reads what is worth reading of the body, keeps the connection if it can be
    /// kept, and reports.
    async fn answered(&self, request: &Request, answer: Answer, so_far: Duration) -> AttemptReport {
        let Answer { connection, parts, body } = answer;
        let shared = &self.shared;
        let code = code_of(&parts);
        if has_body_without_place(&parts) {
            connection.spoil();
        }
        let mut reading = Reading::new(shared, connection, body);
        let webhook = request.webhook;
        if code == AttemptCode::ProtocolError {
            shared.metrics.connection_dropped(Dropped::Unread);
        } else if code == AttemptCode::Delivered {
            // Nothing that comes after the head may delay a success.
            if let Some(complete) = poll_fn(|context| match reading.poll(context) {
                Poll::Ready(complete) => Poll::Ready(Some(complete)),
                Poll::Pending => Poll::Ready(None),
            })
            .await
            {
                shared.keep(webhook, reading.connection, complete);
            } else {
                return self.drain(webhook, reading, parts);
            }
        } else {
            let left = request.timeout.saturating_sub(so_far).min(shared.body_timeout);
            let complete = timeout(left, poll_fn(|context| reading.poll(context)));
            let complete = complete.await.unwrap_or(End::Cut);
            shared.keep(webhook, reading.connection, complete);
        }
        AttemptReport::of_answer(code, &parts, reading.snippet)
    }

    /// Reports a success and goes on reading its body elsewhere.
    fn drain(&self, webhook: WebhookId, mut reading: Reading, parts: Parts) -> AttemptReport {
        let snippet = reading.snippet.split();
        let report = AttemptReport::of_answer(AttemptCode::Delivered, &parts, snippet);
        let slot = Arc::clone(&self.shared.drain_slots).try_acquire_owned();
        let (Ok(slot), false) = (slot, reading.is_too_long || self.drains.is_closed()) else {
            self.shared.metrics.connection_dropped(Dropped::Unread);
            return report;
        };
        let shared = Arc::clone(&self.shared);
        let counted = shared.metrics.count_draining();
        self.drains.spawn(async move {
            let _held = (slot, counted);
            let complete = timeout(shared.body_timeout, poll_fn(|context| reading.poll(context)));
            let complete = complete.await.unwrap_or(End::Cut);
            shared.keep(webhook, reading.connection, complete);
        });
        report
    }
}

impl Shared {
    /// Signs in, if the webhook wants that, and gives what it shows.
    async fn sign_in(&self, request: &mut Request) -> Result<Option<HeaderValue>, NoToken> {
        let Some(sign_in) = &request.sign_in else { return Ok(None) };
        let means =
            Means { connector: &*self.connector, clock: &*self.clock, metrics: &self.metrics };
        let user_agent = request.headers.get(header::USER_AGENT);
        // In a box of its own, so that attempts without a sign-in do not carry it.
        let token = Box::pin(sign_in.header(means, user_agent)).await?;
        request.headers.insert(header::AUTHORIZATION, token.clone());
        Ok(Some(token))
    }

    async fn exchange(
        &self,
        request: &mut Request,
        progress: &mut Progress,
    ) -> Result<Answer, AttemptCode> {
        if !request.is_sound() {
            return Err(AttemptCode::BadConfig);
        }
        let mut post = request.take_post();
        while let Some(mut connection) = self.take(request).await {
            progress.reused = true;
            match on(&mut connection, post, progress).await {
                Ok((parts, body)) => return Ok(Answer { connection, parts, body }),
                Err(Failure::Endpoint(code)) => return Err(code),
                // Nothing of the request was sent, so this is not an attempt yet.
                Err(Failure::Unused(unsent)) => post = *unsent,
            }
            self.metrics.connection_dropped(Dropped::Closed);
        }
        progress.reused = false;
        self.metrics.connection_taken(Origin::Opened);
        let started = self.clock.monotonic();
        let identity = request.identity.as_deref();
        let connected = self.connector.connect(&request.target, identity).await;
        progress.found = way(&request.target, connected.as_ref().err());
        let io = connected.map_err(|error| error.code)?;
        self.metrics.connected(self.clock.monotonic().since(started));
        let target = Arc::clone(&request.target);
        let mut connection = Connection::start(io, target, identity, &self.metrics).await?;
        match on(&mut connection, post, progress).await {
            Ok((parts, body)) => Ok(Answer { connection, parts, body }),
            Err(Failure::Endpoint(code)) => Err(code),
            Err(Failure::Unused(_unsent)) => Err(AttemptCode::ClosedEarly),
        }
    }

    /// A kept connection that is still good.
    async fn take(&self, request: &Request) -> Option<Box<Connection>> {
        let now = self.clock.monotonic();
        let way = (&*request.target, request.identity.as_deref());
        loop {
            let mut connection = self.pool.take(request.webhook, way, now)?;
            if poll_fn(|context| Poll::Ready(connection.poll_is_idle(context))).await {
                self.metrics.connection_taken(Origin::Kept);
                return Some(connection);
            }
            self.metrics.connection_dropped(Dropped::Closed);
        }
    }

    fn keep(&self, webhook: WebhookId, connection: Box<Connection>, end: End) {
        match end {
            End::Idle => self.pool.put(webhook, connection, self.clock.monotonic()),
            End::Closed => self.metrics.connection_dropped(Dropped::Closed),
            End::Cut => self.metrics.connection_dropped(Dropped::Unread),
        }
    }
}

/// What connecting says of our own name server and network. That an address can be
/// reached says nothing of the name server.
fn way(target: &Target, failed: Option<&ConnectError>) -> Option<bool> {
    if failed.is_some_and(|error| error.code.is_ours()) {
        return None;
    }
    if failed.is_some_and(|error| error.is_lost) {
        return Some(false);
    }
    matches!(target.host(), url::Host::Domain(name) if name != "localhost").then_some(true)
}

/// Sends the request on a connection and waits for the head of its answer.
async fn on(
    connection: &mut Connection,
    post: Post,
    progress: &mut Progress,
) -> Result<(Parts, Incoming), Failure> {
    // Until the exchange says otherwise: this future may be dropped in it.
    progress.written = true;
    let answer = connection.exchange(post).await;
    progress.written = connection.has_written();
    Ok(answer?.into_parts())
}

/// How the reading of a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Complete, and the connection can carry another request.
    Idle,
    /// Complete or not, the connection cannot be used again.
    Closed,
    /// Longer in size or time than is read.
    Cut,
}

/// A body that is being read.
struct Reading {
    connection: Box<Connection>,
    body: Incoming,
    snippet: BytesMut,
    left: usize,
    max_snippet: usize,
    /// The body is known to be longer than is read: no use in going on after the
    /// snippet.
    is_too_long: bool,
}

impl Reading {
    fn new(shared: &Shared, connection: Box<Connection>, body: Incoming) -> Self {
        let limit = u64::try_from(shared.max_body).unwrap_or(u64::MAX);
        let is_too_long = body.size_hint().lower() > limit;
        Self {
            connection,
            body,
            snippet: BytesMut::new(),
            left: shared.max_body,
            max_snippet: shared.max_snippet,
            is_too_long,
        }
    }

    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<End> {
        while !self.body.is_end_stream() {
            match std::task::ready!(self.connection.poll_frame(&mut self.body, context)) {
                None => break,
                Some(Err(_cut_by_the_endpoint)) => return Poll::Ready(End::Closed),
                Some(Ok(frame)) => {
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    let room = self.max_snippet.saturating_sub(self.snippet.len());
                    let (kept, rest) = data.split_at(room.min(data.len()));
                    self.snippet.extend_from_slice(kept);
                    let is_full = self.is_too_long && !rest.is_empty();
                    match self.left.checked_sub(data.len()) {
                        Some(left) if !is_full => self.left = left,
                        _ => return Poll::Ready(End::Cut),
                    }
                }
            }
        }
        let is_idle = self.connection.poll_is_idle(context);
        Poll::Ready(if is_idle { End::Idle } else { End::Closed })
    }
}

impl AttemptReport {
    /// The report of an attempt that got no answer, or was not made at all.
    pub fn without_answer(code: AttemptCode) -> Self {
        Self {
            code,
            http_status: 0,
            duration: Duration::ZERO,
            retry_after: None,
            location: None,
            snippet: Bytes::new(),
            reused: false,
            written: false,
            found: None,
            shown: None,
        }
    }

    fn of_answer(code: AttemptCode, parts: &Parts, snippet: BytesMut) -> Self {
        let first = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
        let retry_after = first(header::RETRY_AFTER).filter(|value| value.len() <= MAX_RETRY_AFTER);
        let location = first(header::LOCATION)
            .filter(|_| code == AttemptCode::RedirectRefused)
            .map(|value| value.get(..MAX_LOCATION).unwrap_or(value));
        Self {
            http_status: parts.status.as_u16(),
            retry_after: retry_after.map(Bytes::copy_from_slice),
            location: location.map(Bytes::copy_from_slice),
            snippet: snippet.freeze(),
            written: true,
            ..Self::without_answer(code)
        }
    }
}

/// The code of a complete head (`reliability-security.md` §7.5, EP21 to EP27).
fn code_of(parts: &Parts) -> AttemptCode {
    let status = parts.status;
    if !has_one_length(&parts.headers) || status.is_informational() {
        AttemptCode::ProtocolError
    } else if status.is_success() {
        AttemptCode::Delivered
    } else if status.is_redirection()
        && status != StatusCode::NOT_MODIFIED
        && parts.headers.contains_key(header::LOCATION)
    {
        AttemptCode::RedirectRefused
    } else {
        AttemptCode::Http
    }
}

/// Whether the head announces a body that an answer of its status does not have.
/// What follows may be that body: nobody reads it, so nothing else is read either.
fn has_body_without_place(parts: &Parts) -> bool {
    let has_none = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = parts.headers.get(header::CONTENT_LENGTH);
    has_none
        && (length.is_some_and(|length| length.as_bytes() != b"0")
            || parts.headers.contains_key(header::TRANSFER_ENCODING))
}

/// Whether the head says at most once how long the body is. hyper accepts equal
/// lengths twice and a length beside an encoding; where two readers may disagree
/// about the end of an answer, the answer does not count.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    let is_number = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none()
        && length.is_none_or(is_number)
        && !(length.is_some() && headers.contains_key(header::TRANSFER_ENCODING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, headers: &[(&'static str, &'static str)], expected: AttemptCode) {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let (parts, ()) = response.body(()).unwrap().into_parts();
        assert_eq!(code_of(&parts), expected, "{status} {headers:?}");
    }

    #[test]
    fn the_status_decides_what_an_answer_means() {
        for status in [200, 201, 202, 204, 206, 299] {
            check(status, &[], AttemptCode::Delivered);
            check(status, &[("location", "https://x/")], AttemptCode::Delivered);
        }
        for status in [300, 301, 302, 303, 307, 308, 399] {
            check(status, &[], AttemptCode::Http);
            check(status, &[("location", "https://x/")], AttemptCode::RedirectRefused);
        }
        check(304, &[], AttemptCode::Http);
        check(304, &[("location", "https://x/")], AttemptCode::Http);
        for status in [400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503, 599, 999] {
            check(status, &[], AttemptCode::Http);
        }
        check(101, &[], AttemptCode::ProtocolError);
    }

    #[test]
    fn a_length_is_given_once_or_the_answer_does_not_count() {
        check(200, &[("content-length", "5")], AttemptCode::Delivered);
        check(200, &[("transfer-encoding", "chunked")], AttemptCode::Delivered);
        for headers in [
            &[("content-length", "5"), ("content-length", "5")][..],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("content-length", "-5")],
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
        ] {
            check(200, headers, AttemptCode::ProtocolError);
        }
    }
}
