//! Serves the router on a listener: HTTP/1.1, plain or TLS, with bounds on connections,
//! in all and of one peer, and on how long a client may take.
//!
//! Nothing that a client does, and no lack of files, ends the listener. When all places
//! are taken the connection that has been without a request for longest makes room.

mod framing;
mod metrics;
mod places;
mod wire;

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use rustls::ServerConfig;
use tidings_auth::Thumbprint;
use tidings_types::{Clock, Instant, Rng};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    answer,
    errors::{ApiError, Code, Fault},
    trace::Trace,
};
use metrics::Closed;
pub use metrics::ConnectionMetrics;
use places::{Admission, Busy, Place, Places};
use wire::Wire;

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// How long nothing is accepted after accepting has failed.
const PAUSE: Duration = Duration::from_millis(50);
/// What goes on for long is said once in so long a time.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// The most that is read of a client that was refused, and for how long, so that it
/// reads its answer and not a reset.
const MAX_LINGER: u64 = 256 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// Bounds of the listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a client may take to send a request's head, also on a connection
    /// that is kept open.
    pub header_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once of one address (of IPv6 one network of 64 bits).
    pub max_per_peer: Option<usize>,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_per_peer: None,
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// What a listener serves, and by which bounds.
#[derive(Clone)]
pub struct Serving {
    pub tls: Option<Tls>,
    pub router: Router,
    pub limits: Limits,
    pub metrics: ConnectionMetrics,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the listener is closed or is none")]
    Accept(#[source] io::Error),
}

/// The address that a request came from; an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The certificate that the client proved to have the key of; an extension of the
/// request. Nothing in a request's head can set it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientCertificate(pub(crate) Thumbprint);

/// The TLS of a listener; each connection takes it as it is then.
pub type Tls = watch::Receiver<Arc<ServerConfig>>;

/// Accepts until `shutdown`, then lets what is in flight finish and returns.
///
/// # Errors
/// When the listener can never accept again.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let limits = &serving.limits;
    let metrics = serving.metrics.clone();
    let places = Places::new(limits.max_connections, limits.max_per_peer, metrics);
    let mut said = Said::default();
    let mut connections = JoinSet::new();
    let result = loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            accepted = accept(|| listener.accept(), &serving, &places, &mut said) => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => break Err(error),
        };
        let place = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            place = admit(&places, peer, &serving, &mut said) => place,
        };
        let Some(place) = place else { continue };
        let tls = serving.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let connection = Connection { place, peer: Peer(peer), serving: serving.clone() };
        let shutdown = shutdown.clone();
        connections.spawn(connection.run(stream, tls, shutdown));
    };
    while connections.join_next().await.is_some() {}
    result
}

/// When something was said last of what goes on for long.
#[derive(Debug, Default)]
struct Said {
    failures: Option<Instant>,
    crowds: Option<Instant>,
    peers: Option<Instant>,
}

/// Whether it is time to say it again.
fn is_due(said: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = said.is_none_or(|last| now.since(last) >= SAY_AGAIN);
    if is_due {
        *said = Some(now);
    }
    is_due
}

/// The next connection, however often accepting fails before.
async fn accept<S, F: Future<Output = io::Result<(S, SocketAddr)>>>(
    next: impl Fn() -> F,
    serving: &Serving,
    places: &Places,
    said: &mut Said,
) -> Result<(S, SocketAddr), ServeError> {
    loop {
        let error = match next().await {
            Ok(accepted) => return Ok(accepted),
            Err(error) => error,
        };
        match error.raw_os_error().map(Errno::from_raw) {
            // What became of one connection before it was accepted.
            Some(Errno::ECONNABORTED | Errno::ECONNRESET | Errno::EINTR | Errno::EPROTO) => {}
            Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) => {
                return Err(ServeError::Accept(error));
            }
            // Mostly: no file or no memory is left. That of an idle connection helps.
            Some(_) | None => {
                serving.metrics.accept_failed();
                let made_room = places.make_room();
                if is_due(&mut said.failures, serving.clock.monotonic()) {
                    tracing::error!(
                        %error, made_room,
                        "connections cannot be accepted for now; if files are exhausted, raise \
                         the limit of open files (LimitNOFILE, ulimit -n) or lower \
                         listen.max_connections"
                    );
                }
                serving.clock.sleep(PAUSE).await;
            }
        }
    }
}

/// Waits for a place; `None` if this peer gets none.
async fn admit(
    places: &Arc<Places>,
    peer: SocketAddr,
    serving: &Serving,
    said: &mut Said,
) -> Option<Arc<Place>> {
    loop {
        let now = serving.clock.monotonic();
        match places.admit(peer.ip()) {
            Admission::Admitted(place) => return Some(place),
            Admission::PeerHasEnough => {
                if is_due(&mut said.peers, now) {
                    tracing::warn!(
                        peer = %peer.ip(),
                        "a peer has a request on each of listen.connections_per_peer connections; \
                         further ones are closed"
                    );
                }
                return None;
            }
            Admission::Full => {
                if is_due(&mut said.crowds, now) {
                    tracing::warn!(
                        "each of listen.max_connections connections has a request; others wait"
                    );
                }
                places.released().await;
            }
        }
    }
}

/// One connection that has a place.
struct Connection {
    place: Arc<Place>,
    peer: Peer,
    serving: Serving,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
        let place = Arc::clone(&self.place);
        tokio::select! {
            biased;
            // Another one needs its place: it is closed where it stands.
            () = place.lost() => {}
            () = self.secure(stream, tls, shutdown) => {}
        }
    }

    async fn secure(
        self,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        shutdown: CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection closed before it was served");
            return;
        }
        let Some(tls) = tls else {
            return Box::pin(self.exchange(stream, None, shutdown)).await;
        };
        let limit = self.serving.limits.handshake_timeout;
        match timeout(limit, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain.and_then(<[_]>::first);
                let certificate = certificate.map(|der| ClientCertificate(Thumbprint::of(der)));
                Box::pin(self.exchange(stream, certificate, shutdown)).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_late) => {
                self.serving.metrics.closed(Closed::Late);
                tracing::debug!("a TLS handshake took too long");
            }
        }
    }

    async fn exchange<S>(
        self,
        stream: S,
        certificate: Option<ClientCertificate>,
        shutdown: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Serving { router, limits, metrics, clock, .. } = &self.serving;
        let (place, peer, router) = (Arc::clone(&self.place), self.peer, router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (place, router) = (Arc::clone(&place), router.clone());
            Box::pin(async move {
                // Whoever lost the place is dropped before this goes on.
                let Some(busy) = place.begin() else { return std::future::pending().await };
                request.extensions_mut().insert(peer);
                if let Some(certificate) = certificate {
                    request.extensions_mut().insert(certificate);
                }
                let answered = router.oneshot(request.map(Body::new)).await;
                answered.map(|response| response.map(|body| Answering { body, _busy: busy }))
            })
        });
        let wire = Wire::new(stream, Arc::clone(clock), limits.write_timeout);
        let mut served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(wire), service);
        // Not shut down by hyper: what it says by itself is said otherwise first.
        let result = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                Pin::new(&mut served).graceful_shutdown();
                poll_fn(|cx| served.poll_without_shutdown(cx)).await
            }
            result = poll_fn(|cx| served.poll_without_shutdown(cx)) => result,
        };
        let wire = served.into_parts().io.into_inner();
        let refusal = match (&result, wire.refusal()) {
            (_, Some(status)) => Some(refusal(status.as_u16())),
            (Err(error), None) if error.is_timeout() && wire.is_in_head() => Some(refusal(408)),
            (Ok(()) | Err(_), None) => None,
        };
        if let Err(error) = &result {
            // The client's doing: broken off, too slow, not HTTP.
            tracing::debug!(%error, "a connection ended early");
            if is_stalled(error) {
                metrics.closed(Closed::Stalled);
                return;
            }
            // One that was kept open and fell silent is closed as ever.
            if refusal.is_some() {
                metrics.closed(if error.is_timeout() { Closed::Late } else { Closed::Malformed });
            }
        }
        let mut stream = wire.into_stream();
        let closing = timeout(LINGER, close(&mut stream, refusal, &self.serving));
        if !matches!(closing.await, Ok(Ok(()))) {
            tracing::debug!("a connection was not closed in order");
        }
    }
}

/// Whether a client took nothing of its answer for too long.
fn is_stalled(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// What is said to a client whose request never was one.
fn refusal(status: u16) -> ApiError {
    match status {
        414 | 431 => Code::HeadTooLarge.into(),
        408 => Fault::new(Code::RequestTimeout)
            .saying("the request's head did not arrive in time")
            .into(),
        _ => Code::BadRequest.into(),
    }
}

/// Says what was wrong, if anything was, and closes.
async fn close<S>(stream: &mut S, refusal: Option<ApiError>, serving: &Serving) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(error) = refusal else { return stream.shutdown().await };
    let trace = Trace::of(&http::HeaderMap::new(), &*serving.rng);
    let code = error.faults.first().map_or("", |fault| fault.code.as_str());
    tracing::info!(code, trace = trace.as_str(), "a request was refused before it was one");
    let answer = answer::refuse(&error, &trace);
    let body = answer.body().clone();
    let mut head = Vec::new();
    let response = answer.into_response();
    let status = response.status();
    let line = format!(
        "HTTP/1.1 {} {}\r\ndate: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        httpdate::fmt_http_date(date(serving)),
        body.len(),
    );
    head.extend_from_slice(line.as_bytes());
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(&body);
    stream.write_all(&head).await?;
    stream.shutdown().await?;
    // With something unread left behind, the system would reset the connection and take
    // the answer back.
    tokio::io::copy(&mut stream.take(MAX_LINGER), &mut tokio::io::sink()).await?;
    Ok(())
}

fn date(serving: &Serving) -> std::time::SystemTime {
    let millis = u64::try_from(serving.clock.now().as_millis()).unwrap_or(0);
    std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

/// The body of an answer. The connection has a request until it has been handed over.
struct Answering {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tidings_telemetry::{SystemClock, SystemRng};

    use super::*;

    fn serving() -> Serving {
        Serving {
            tls: None,
            router: Router::new(),
            limits: Limits::default(),
            metrics: ConnectionMetrics::default(),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng::new()),
        }
    }

    /// The result of `accept` when the system answers with these errors, then with a
    /// connection.
    async fn accepted(errors: &[Errno]) -> Result<(), ServeError> {
        let (serving, at) = (serving(), Cell::new(0));
        let places = Places::new(1, None, serving.metrics.clone());
        let next = || {
            std::future::ready(match errors.get(at.replace(at.get() + 1)) {
                Some(error) => Err(io::Error::from_raw_os_error(*error as i32)),
                None => Ok(((), SocketAddr::from(([127, 0, 0, 1], 1)))),
            })
        };
        accept(next, &serving, &places, &mut Said::default()).await.map(|_accepted| ())
    }

    #[tokio::test(start_paused = true)]
    async fn no_lack_of_files_or_memory_ends_the_listener() {
        let errors = [
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::ECONNABORTED,
            Errno::EPERM,
            Errno::ENETDOWN,
        ];
        accepted(&errors).await.unwrap();
        accepted(&[Errno::EMFILE; 1000]).await.unwrap();
        accepted(&[Errno::EMFILE, Errno::EBADF]).await.unwrap_err();
    }

    #[test]
    fn what_goes_on_is_said_now_and_then() {
        let (mut said, start) = (None, Instant::from_nanos(0));
        assert!(is_due(&mut said, start) && !is_due(&mut said, start));
        assert!(!is_due(&mut said, start + Duration::from_secs(9)));
        assert!(is_due(&mut said, start + SAY_AGAIN));
    }
}
