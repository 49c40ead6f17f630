//! An endpoint that does as it is told: good, slow, rude or hostile.
//!
//! It speaks HTTP/1.1 by hand, so that it can also speak it wrongly. What it does
//! is a list of steps, changed while it runs; what it got is kept and can be
//! waited for. On a real port, with or without TLS, or in memory for paused time.

mod behaviour;
mod serve;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::behaviour::{Behaviour, Step};
use self::serve::{Stream, serve};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When its last byte was read.
    pub at: Instant,
    /// The how many-th connection it came on, from 0.
    pub connection: u64,
    /// Where it came from; `None` in memory.
    pub peer: Option<SocketAddr>,
}

/// What is kept of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    Everything,
    /// Only their number: for load.
    Number,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    received: Mutex<Vec<Received>>,
    requests: AtomicU64,
    connections: AtomicU64,
    ended: AtomicU64,
    recording: Recording,
    /// Changes whenever there is something new.
    changes: watch::Sender<u64>,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
struct Script {
    /// For the next requests, one each, before the standing behaviour.
    next: std::collections::VecDeque<Behaviour>,
    standing: Behaviour,
    /// What happens on a new connection before anything is read.
    greeting: Option<Behaviour>,
}

/// The endpoint. Ends with all its connections when dropped.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: TaskTracker,
    /// Ends everything.
    end: CancellationToken,
    /// Ends the listener and its connections.
    open: Mutex<CancellationToken>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Receiver {
    /// Starts on a free port of loopback; answers 200 to everything.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Recording::Everything, None).await
    }

    /// As [`Receiver::start`], with TLS.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start_tls(config: Arc<ServerConfig>) -> io::Result<Self> {
        Self::start_with(Recording::Everything, Some(config)).await
    }

    /// As [`Receiver::start`], with a choice of what is kept and of TLS.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start_with(
        recording: Recording,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let receiver = Self::new(recording, tls, listener.local_addr()?);
        receiver.listen(listener);
        Ok(receiver)
    }

    /// An endpoint without a port: connections come from [`Receiver::connect`].
    pub fn in_memory() -> Self {
        Self::new(Recording::Everything, None, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn new(recording: Recording, tls: Option<Arc<ServerConfig>>, address: SocketAddr) -> Self {
        let script = Script {
            next: std::collections::VecDeque::new(),
            standing: Behaviour::status(200),
            greeting: None,
        };
        let shared = Shared {
            script: Mutex::new(script),
            received: Mutex::default(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            recording,
            changes: watch::Sender::new(0),
            tls,
        };
        let end = CancellationToken::new();
        Self {
            shared: Arc::new(shared),
            address,
            tasks: TaskTracker::new(),
            open: Mutex::new(end.child_token()),
            end,
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path (with its slash) by address.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Opens a connection in memory.
    pub fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.serve(Stream::Memory(far));
        near
    }

    /// Does this for every request from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut script = self.shared.script.lock();
        script.next.clear();
        script.standing = behaviour;
    }

    /// Does these for the next requests, one each, before what it does otherwise.
    pub fn behave_in_turn(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.script.lock().next.extend(behaviours);
    }

    /// Does this on every new connection before it reads anything.
    pub fn greet(&self, behaviour: Behaviour) {
        self.shared.script.lock().greeting = Some(behaviour);
    }

    /// Closes the port and all connections: new ones are refused.
    pub fn refuse(&self) {
        self.open.lock().cancel();
    }

    /// Opens the same port again.
    ///
    /// # Errors
    /// If somebody else has taken the port.
    pub async fn reopen(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        *self.open.lock() = self.end.child_token();
        self.listen(listener);
        Ok(())
    }

    /// Everything that was received, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().clone()
    }

    /// How many requests were read.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// How many connections were accepted, also such that sent nothing.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> u64 {
        let ended = self.shared.ended.load(Ordering::Acquire);
        self.connections().saturating_sub(ended)
    }

    /// Waits until so many connections are open. False if it does not come to
    /// that within `limit`.
    pub async fn wait_for_open(&self, number: u64, limit: Duration) -> bool {
        self.wait(limit, || self.open_connections() == number).await
    }

    /// Waits until `condition` holds of what was received. False if it does not
    /// within `limit`.
    pub async fn wait_for(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&[Received]) -> bool,
    ) -> bool {
        self.wait(limit, || condition(&self.shared.received.lock())).await
    }

    /// Waits for a number of requests. False if they do not come within `limit`.
    pub async fn wait_for_requests(&self, number: u64, limit: Duration) -> bool {
        self.wait(limit, || self.requests() >= number).await
    }

    async fn wait(&self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let waiting = async {
            while !condition() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // The condition decides, not the clock: it may have come true at the end.
        let in_time = tokio::time::timeout(limit, waiting).await.is_ok();
        in_time || condition()
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let open = self.open.lock().clone();
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            let accepting = async {
                while let Ok((stream, _from)) = listener.accept().await {
                    let shared = Arc::clone(&shared);
                    let open = open.clone();
                    tasks.spawn(async move {
                        open.run_until_cancelled(accept(Arc::clone(&shared), stream)).await;
                        shared.ended();
                    });
                }
            };
            open.run_until_cancelled(accepting).await;
        });
    }

    fn serve(&self, stream: Stream) {
        let shared = Arc::clone(&self.shared);
        let open = self.open.lock().clone();
        self.tasks.spawn(async move {
            let number = shared.accepted();
            open.run_until_cancelled(serve(Arc::clone(&shared), stream, number)).await;
            shared.ended();
        });
    }
}

async fn accept(shared: Arc<Shared>, stream: TcpStream) {
    let number = shared.accepted();
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(config) = &shared.tls else {
        return serve(shared, Stream::Tcp(stream), number).await;
    };
    // A client that refuses the certificate is what some tests are about.
    if let Ok(stream) = TlsAcceptor::from(Arc::clone(config)).accept(stream).await {
        serve(shared, Stream::Tls(Box::new(stream)), number).await;
    }
}

impl Shared {
    fn accepted(&self) -> u64 {
        let number = self.connections.fetch_add(1, Ordering::AcqRel);
        self.changed();
        number
    }

    fn ended(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.changed();
    }

    fn greeting(&self) -> Option<Behaviour> {
        self.script.lock().greeting.clone()
    }

    fn next_behaviour(&self) -> Behaviour {
        let mut script = self.script.lock();
        script.next.pop_front().unwrap_or_else(|| script.standing.clone())
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}
