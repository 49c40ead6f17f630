//! Serves the router on a listener: HTTP/1.1, plain or TLS, with a bound on
//! connections and on how long a client may take to send a request's head.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tidings_auth::Thumbprint;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// Bounds of the listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a client may take to send a request's head, also on a connection
    /// that is kept open.
    pub header_timeout: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            max_connections: 4096,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the listener failed; look for exhausted file handles")]
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
/// When the listener cannot accept any more.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let mut connections = JoinSet::new();
    let result = loop {
        while connections.try_join_next().is_some() {}
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break Ok(()) };
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_one_connections(&error) => continue,
                Err(source) => break Err(ServeError::Accept(source)),
            },
        };
        let (router, limits) = (router.clone(), limits.clone());
        let tls = tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.borrow())));
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            connection(stream, Peer(peer), tls, router, limits, shutdown).await;
            drop(permit);
        });
    };
    while connections.join_next().await.is_some() {}
    result
}

/// Whether a failed accept concerns only the connection that it was for.
fn is_one_connections(error: &io::Error) -> bool {
    [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ]
    .contains(&error.kind())
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection closed before it was served");
        return;
    }
    let Some(tls) = tls else {
        return exchange(stream, peer, None, router, &limits, shutdown).await;
    };
    match tokio::time::timeout(limits.handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates();
            let certificate = chain.and_then(<[_]>::first);
            let certificate = certificate.map(|der| ClientCertificate(Thumbprint::of(der)));
            exchange(stream, peer, certificate, router, &limits, shutdown).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_late) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn exchange<S>(
    stream: S,
    peer: Peer,
    certificate: Option<ClientCertificate>,
    router: Router,
    limits: &Limits,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(certificate) = certificate {
            request.extensions_mut().insert(certificate);
        }
        request.map(axum::body::Body::new)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(served);
    let result = tokio::select! {
        biased;
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        result = &mut served => result,
    };
    if let Err(error) = result {
        // The client's doing: broken off, too slow, not HTTP.
        tracing::debug!(%error, "a connection ended early");
    }
}
