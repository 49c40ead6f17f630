//! The endpoints of the runs: one server, a webhook per path, that notes down
//! every request before it answers, and behaves as its script says.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

/// As many connections as the system lets wait: a sender opens up to 2,000 at once,
/// and one that finds no place tries again only a second later.
const BACKLOG: u32 = 4096;
const MAX_BODY: usize = 2 * 1024 * 1024;

/// How a path behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 at once.
    Good,
    /// 503 for the first so many requests of each notification, then 200.
    FailsFirst(u32),
    /// 200 after a while.
    Slow(Duration),
    /// 500 always.
    Dead,
}

/// A request as it was noted down.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub path: String,
    pub notification: String,
    pub attempt: u32,
    pub signature: Option<String>,
    pub timestamp: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    pub at_ms: u64,
    pub accepted: bool,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    behaviours: Mutex<BTreeMap<String, Behaviour>>,
    attempts: Mutex<BTreeMap<(String, String), u32>>,
    requests: Mutex<Vec<Arrived>>,
    /// Only count: the bench keeps nothing.
    counting: AtomicBool,
    /// Only count what is accepted, by path.
    by_path: Mutex<Option<BTreeMap<String, u64>>>,
    count: AtomicU64,
    last_at_us: AtomicU64,
    latencies_us: Mutex<Vec<u64>>,
}

/// A running receiver.
#[derive(Debug)]
pub struct Receiver {
    pub port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[expect(clippy::disallowed_methods, reason = "the observer's own clock")]
fn monotonic() -> Instant {
    Instant::now()
}

impl Receiver {
    /// # Errors
    /// When no port can be opened.
    pub fn start() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4().context("cannot open a socket")?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).context("cannot open a port")?;
        let listener = socket.listen(BACKLOG).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            started: monotonic(),
            behaviours: Mutex::default(),
            attempts: Mutex::default(),
            requests: Mutex::default(),
            counting: AtomicBool::new(false),
            by_path: Mutex::default(),
            count: AtomicU64::new(0),
            last_at_us: AtomicU64::new(0),
            latencies_us: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, _tasks: tasks })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        self.shared.behaviours.lock().insert(path.to_owned(), behaviour);
    }

    /// Milliseconds on the clock of [`Arrived::at_ms`].
    pub fn now_ms(&self) -> u64 {
        millis(self.shared.started)
    }

    pub fn requests(&self) -> Vec<Arrived> {
        self.shared.requests.lock().clone()
    }

    pub fn request_count(&self) -> usize {
        self.shared.requests.lock().len()
    }

    /// From now on only counts, and keeps the latency of bodies that carry
    /// `"sentUs":<microseconds>`.
    pub fn count_only(&self) {
        self.shared.counting.store(true, Ordering::Release);
        self.shared.count.store(0, Ordering::Release);
        self.shared.latencies_us.lock().clear();
    }

    /// From now on counts what is accepted by path, and keeps nothing else.
    pub fn count_paths(&self) {
        *self.shared.by_path.lock() = Some(BTreeMap::new());
    }

    /// How many were accepted at paths that begin with `path`, since
    /// [`Receiver::count_paths`].
    pub fn counted(&self, path: &str) -> u64 {
        let counts = self.shared.by_path.lock();
        let of_path = counts.iter().flatten().filter(|(known, _)| known.starts_with(path));
        of_path.map(|(_, count)| *count).sum()
    }

    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Acquire)
    }

    /// Microseconds since the receiver started at which the last request came.
    pub fn last_at_us(&self) -> u64 {
        self.shared.last_at_us.load(Ordering::Acquire)
    }

    pub fn now_us(&self) -> u64 {
        micros(self.shared.started)
    }

    /// The latencies noted since [`Receiver::count_only`], sorted.
    pub fn latencies_us(&self) -> Vec<u64> {
        let mut latencies = self.shared.latencies_us.lock().clone();
        latencies.sort_unstable();
        latencies
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(monotonic().duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(monotonic().duration_since(since).as_micros()).unwrap_or(u64::MAX)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| receive(request, Arc::clone(&shared)));
            let connection = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service);
            // The system under test is killed in mid-request: that is the run's point.
            if connection.await.is_err() {}
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn receive(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    #[expect(clippy::disallowed_methods, reason = "capped by `Limited`")]
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(answer(StatusCode::BAD_REQUEST));
    };
    let body = body.to_bytes();
    if shared.counting.load(Ordering::Acquire) {
        let now = micros(shared.started);
        shared.count.fetch_add(1, Ordering::AcqRel);
        shared.last_at_us.fetch_max(now, Ordering::AcqRel);
        if let Some(sent) = sent_us(&body) {
            shared.latencies_us.lock().push(now.saturating_sub(sent));
        }
        return Ok(answer(StatusCode::OK));
    }
    let text = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let path = head.uri.path().trim_start_matches('/').to_owned();
    let notification = text("webhook-id").unwrap_or_else(String::new);
    let behaviour = shared.behaviours.lock().get(&path).copied().unwrap_or(Behaviour::Good);
    if let Some(counts) = shared.by_path.lock().as_mut() {
        if behaviour == Behaviour::Dead {
            return Ok(answer(StatusCode::INTERNAL_SERVER_ERROR));
        }
        *counts.entry(path).or_insert(0) += 1;
        return Ok(answer(StatusCode::OK));
    }
    let seen_before = {
        let mut attempts = shared.attempts.lock();
        let count = attempts.entry((path.clone(), notification.clone())).or_insert(0);
        *count += 1;
        *count - 1
    };
    let status = match behaviour {
        Behaviour::Good => StatusCode::OK,
        Behaviour::FailsFirst(times) if seen_before < times => StatusCode::SERVICE_UNAVAILABLE,
        Behaviour::FailsFirst(_) => StatusCode::OK,
        Behaviour::Slow(delay) => {
            tokio::time::sleep_until(tokio::time::Instant::now() + delay).await;
            StatusCode::OK
        }
        Behaviour::Dead => StatusCode::INTERNAL_SERVER_ERROR,
    };
    shared.requests.lock().push(Arrived {
        path,
        notification,
        attempt: text("x-eds-attempt").and_then(|number| number.parse().ok()).unwrap_or(0),
        signature: text("webhook-signature"),
        timestamp: text("webhook-timestamp").unwrap_or_else(String::new),
        headers: head.headers.clone(),
        body,
        at_ms: millis(shared.started),
        accepted: status.is_success(),
    });
    Ok(answer(status))
}

/// The number behind `"sentUs":` in a body.
fn sent_us(body: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"sentUs\":\"";
    let at = body.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let digits = body.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = 0_u64;
    for digit in digits {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(number)
}

fn answer(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
