//! Clients that are slow, many, or not HTTP (`reliability-security.md` §7.4 A7, §7.12
//! B15): real sockets, the real binary, and a healthy client beside them.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;
use tidings_e2e::{
    http::Client,
    process::{Server, Spec, free_port},
    wait_for,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::stage::{PATIENCE, Stage, binary, event};

/// Within so long a healthy client has its answer, on a machine that is busy with tests.
const IN_TIME: Duration = Duration::from_secs(5);

#[expect(clippy::disallowed_methods, reason = "a client of the tests, on loopback")]
async fn connect(base: &str) -> TcpStream {
    TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// As many files as the system lets this process open.
fn raise_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// Asks over a connection of its own and says how long that took.
async fn ask(base: &str) -> Duration {
    let began = now();
    let answer = Client::new(base, "").unwrap().get("/healthz").await.unwrap();
    assert_eq!(answer.status, 200);
    began.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch")]
fn now() -> Instant {
    Instant::now()
}

/// The value of a metric, 0 if it is not served.
async fn metric(base: &str, name: &str) -> u64 {
    let text = Client::new(base, "").unwrap().get("/metrics").await.unwrap().body;
    let text = std::str::from_utf8(&text).unwrap().to_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Everything that comes until the other side closes, which it has to do.
async fn rest(stream: &mut TcpStream, patience: Duration) -> String {
    let mut bytes = Vec::new();
    let read = timeout(patience, stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "still open after {:?}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

/// Status, code and trace of the only answer in `text`.
#[track_caller]
fn refusal(text: &str) -> (u16, String, String) {
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text:?}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(head.contains("\r\ndate: ") && head.contains("application/json"), "{head}");
    let code = body["errors"][0]["code"].as_str().unwrap().to_owned();
    (status, code, body["traceId"].as_str().unwrap().to_owned())
}

/// A `tidings serve` with so many files to open.
async fn serve_with_files(files: u32, environment: &[(&str, &str)]) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let spec = Spec {
        binary: binary(),
        data: folder.path().join("data"),
        port: free_port().unwrap(),
        dev: true,
        environment: environment.iter().map(owned).collect(),
    };
    let limited = format!("ulimit -n {files} && exec \"$@\"");
    let mut server = Server::spawn_under(&["sh", "-c", &limited, "sh"], &spec, &[]).unwrap();
    server.ready(PATIENCE).await.unwrap();
    (folder, server)
}

#[tokio::test]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let stage = Stage::with(true, &[]).await;
    let base = stage.base();
    let many = 10_000.min(raise_files().saturating_sub(2_000));
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut healthy = JoinSet::new();
    let (at, kept) = (base.clone(), Client::new(&base, "").unwrap());
    healthy.spawn(async move {
        let (mut asked, mut slowest) = (0, Duration::ZERO);
        while !*stopped.borrow_and_update() {
            slowest = slowest.max(ask(&at).await);
            // Its connection is kept as long as it is used.
            let began = now();
            assert_eq!(kept.get("/healthz").await.unwrap().status, 200);
            (asked, slowest) = (asked + 1, slowest.max(began.elapsed()));
        }
        (asked, slowest)
    });
    let mut idle = Vec::new();
    for _ in 0..many {
        idle.push(connect(&base).await);
    }
    assert!(ask(&base).await < IN_TIME);
    stop.send_replace(true);
    let (asked, slowest) = healthy.join_next().await.unwrap().unwrap();
    assert!(asked > 20 && slowest < IN_TIME, "{asked} answers, the slowest after {slowest:?}");
    assert!(metric(&base, "tidings_api_open_connections").await <= 4096);
    if many > 5_000 {
        let closed = metric(&base, "tidings_api_connections_closed_total{reason=\"idle\"}").await;
        assert!(closed > 500, "{closed}");
    }
}

/// Sends a byte a second until the other side has closed, and gives its answer.
async fn drip(base: &str, start: &str, patience: Duration) -> (String, Duration) {
    let (mut from, mut to) = connect(base).await.into_split();
    to.write_all(start.as_bytes()).await.unwrap();
    let (began, mut answer) = (now(), Vec::new());
    let dripping = async {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            if to.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        read = timeout(patience, from.read_to_end(&mut answer)) => {
            // A reset may come after the answer.
            assert!(read.is_ok(), "still open after {patience:?}");
        }
        () = dripping => {}
    }
    (String::from_utf8(answer).unwrap(), began.elapsed())
}

#[tokio::test]
async fn slow_heads_bodies_and_readers_are_let_go_and_harm_nobody() {
    let stage = Stage::with(true, &[]).await;
    let base = stage.base();
    let token = stage.token(&["--scope", "eds.publish"]);
    let body = format!(
        "POST /ingest/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    );
    let reader = async {
        let mut stream = connect(&base).await;
        let request = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(20);
        stream.write_all(request.as_bytes()).await.unwrap();
        let stalled = "tidings_api_connections_closed_total{reason=\"stalled\"}";
        wait_for("the reader to be let go", Duration::from_secs(60), async || {
            Ok((metric(&base, stalled).await > 0).then_some(()))
        })
        .await
        .unwrap();
    };
    let healthy = async {
        let mut ticks = interval(Duration::from_millis(250));
        for _ in 0..120 {
            ticks.tick().await;
            assert!(ask(&base).await < IN_TIME);
        }
    };
    let patience = Duration::from_secs(60);
    let (head, body, (), ()) = tokio::join!(
        drip(&base, "GET /healthz HTTP/1.1\r\nhost: ", patience),
        drip(&base, &body, patience),
        reader,
        healthy,
    );
    for ((answer, took), limit) in [(head, 10), (body, 30)] {
        let (status, code, _) = refusal(&answer);
        assert_eq!((status, code.as_str()), (408, "REQUEST_TIMEOUT"));
        let limit = Duration::from_secs(limit);
        assert!(took > limit / 2 && took < limit + Duration::from_secs(5), "{took:?}");
    }
}

#[tokio::test]
async fn a_process_without_files_goes_on_and_answers_again_when_it_has_some() {
    // Told to take more than there are files for.
    let most = [("TIDINGS_LISTEN__MAX_CONNECTIONS", "4096")];
    let (_folder, mut server) = serve_with_files(256, &most).await;
    let base = server.base();
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(connect(&base).await);
    }
    // A file is won back with each idle connection that is closed.
    wait_for("accepting to have failed", PATIENCE, async || {
        Ok((metric(&base, "tidings_api_failed_accepts_total").await > 0).then_some(()))
    })
    .await
    .unwrap();
    assert!(!server.has_ended().unwrap());
    drop(idle);
    assert!(ask(&base).await < IN_TIME);
    let log = std::fs::read_to_string(server.log()).unwrap();
    for said in ["connections cannot be accepted for now", "may open fewer files than its limits"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert_eq!(server.terminate(PATIENCE).await.unwrap(), Some(0));

    // By itself it takes no more than fit.
    let (_folder, mut server) = serve_with_files(256, &[]).await;
    let base = server.base();
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(connect(&base).await);
    }
    assert!(ask(&base).await < IN_TIME);
    assert!(metric(&base, "tidings_api_open_connections").await <= 128);
    assert!(!server.has_ended().unwrap());
}

#[tokio::test]
async fn one_peer_has_so_many_connections_and_no_more() {
    let environment = [("TIDINGS_LISTEN__CONNECTIONS_PER_PEER", "5")];
    let stage = Stage::with(true, &environment).await;
    let base = stage.base();
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(connect(&base).await);
    }
    for stream in &mut idle[..3] {
        assert_eq!(rest(stream, PATIENCE).await, "", "the longest idle made room");
    }
    drop(idle);
    // With a request on each there is no room to make.
    let token = stage.token(&["--scope", "eds.publish"]);
    let begun = format!(
        "POST /ingest/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n"
    );
    let mut busy = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&base).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut word = [0; 12];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"HTTP/1.1 100");
        busy.push(stream);
    }
    assert_eq!(rest(&mut connect(&base).await, PATIENCE).await, "");
    let log = std::fs::read_to_string(stage.data().with_extension("log")).unwrap();
    assert!(log.contains("listen.connections_per_peer"), "{log}");
    drop(busy);
    wait_for("a place", PATIENCE, async || Ok(Client::new(&base, "")?.get("/healthz").await.ok()))
        .await
        .unwrap();
}

/// What is not HTTP, or could be read in two ways; each is followed by another request.
const AMBIGUOUS: &[&str] = &[
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2, 2\r\n\r\nab",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +2\r\n\r\nab",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 2\r\n\r\nab",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nhost: a\r\nx: b\r\n c\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nhost: a\r\nx: b\r\n\tcontent-length: 5\r\n\r\n",
    "GET /healthz HTTP/1.1\r\n host: a\r\n\r\n",
    "GET /healthz HTTP/1.1\nhost: a\n\n",
    "GET /healthz HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nhost: a\r\n\n",
    "GET /healthz HTTP/1.1\r\nhost: a\r\nx: b\rc\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nhost: a\r\nx: b\0c\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nhost a\r\n\r\n",
    "GET /healthz HTTP/3.7\r\nhost: a\r\n\r\n",
    "GET  /healthz  HTTP/1.1\r\nhost: a\r\n\r\n",
    "nonsense\r\n\r\n",
    "\u{16}\u{3}\u{1}",
];

#[tokio::test]
async fn b15_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let stage = Stage::with(true, &[]).await;
    let base = stage.base();
    let next = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut traces = Vec::new();
    for sent in AMBIGUOUS {
        // At once, and behind a good request on the same connection.
        for (before, answers) in [("", 0), (next, 1)] {
            let mut stream = connect(&base).await;
            stream.write_all(format!("{before}{sent}{next}").as_bytes()).await.unwrap();
            let all = rest(&mut stream, PATIENCE).await;
            assert_eq!(all.matches("HTTP/1.1 200").count(), answers, "{sent:?}: {all:?}");
            let last = all.split_at(all.rfind("HTTP/1.1 ").unwrap()).1;
            if before.is_empty() {
                let (status, code, trace) = refusal(last);
                assert_eq!((status, code.as_str()), (400, "BAD_REQUEST"), "{sent:?}");
                traces.push(trace);
            } else {
                assert!(last.starts_with("HTTP/1.1 400 "), "{sent:?}: {all:?}");
            }
        }
    }
    let log = stage.data().with_extension("log");
    wait_for("the traces in the log", PATIENCE, async || {
        let log = std::fs::read_to_string(&log)?;
        Ok(traces.iter().all(|trace| log.contains(trace)).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_too_large_says_so_and_what_is_good_passes() {
    let stage = Stage::with(true, &[]).await;
    let base = stage.base();
    let long = "a".repeat(200_000);
    let many: String = (0..70).map(|number| format!("x-{number}: a\r\n")).collect();
    for head in [
        format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let mut stream = connect(&base).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let (status, code, _) = refusal(&rest(&mut stream, PATIENCE).await);
        assert_eq!((status, code.as_str()), (431, "HEAD_TOO_LARGE"));
    }
    // Several requests at once, one of them in chunks, one after empty lines.
    let token = stage.token(&["--scope", "eds.publish"]);
    let event = event(r#"{"messageId":"m","publicToken":"t"}"#);
    let (half, other) = event.split_at(event.len() / 2);
    let ingest = format!(
        "POST /ingest/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n"
    );
    let chunked = format!(
        "{ingest}Transfer-Encoding: Chunked\r\n\r\n{:x};a=b\r\n{half}\r\n{:X}\r\n{other}\r\n0\r\n\r\n",
        half.len(),
        other.len()
    );
    let whole = format!("{ingest}Content-Length:  {} \r\n\r\n{event}", event.len());
    let last = "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut stream = connect(&base).await;
    let all = format!("{whole}{chunked}\r\n{whole}{last}");
    // In pieces, so that lines are cut anywhere.
    for piece in all.as_bytes().chunks(37) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answers = rest(&mut stream, PATIENCE).await;
    assert_eq!(answers.matches("HTTP/1.1 202 ").count(), 3, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 1, "{answers}");
}

#[tokio::test]
async fn the_trace_of_a_refusal_is_in_the_log() {
    let stage = Stage::start().await;
    let client = stage.manager("20");
    let mut traces = Vec::new();
    for (method, path) in [("POST", "/api/v1/Webhooks"), ("GET", "/api/v1/Webhooks/x/none")] {
        let answer = client.json(method, path, &serde_json::json!({"events": 1})).await.unwrap();
        assert!(answer.status >= 400);
        traces.push(answer.json().unwrap()["traceId"].as_str().unwrap().to_owned());
    }
    let log = stage.data().with_extension("log");
    wait_for("the traces in the log", PATIENCE, async || {
        let log = std::fs::read_to_string(&log)?;
        Ok(traces.iter().all(|trace| log.contains(trace)).then_some(()))
    })
    .await
    .unwrap();
}
