//! Which connections are used again, and which never.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, mpsc},
    time::Duration,
};

use tidings_egress::Config;
use tidings_testkit::{
    Behaviour, Receiver, Step,
    certificate::{Authority, Validity},
};
use tidings_types::AttemptCode;

use crate::kit::{Kit, LIMIT, assert_answered, assert_failed, dev, webhook};

#[tokio::test]
async fn a_connection_is_used_again_whatever_the_answer_was() {
    let receiver = Receiver::start().await.unwrap();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    receiver.behave_in_turn([
        Behaviour::status(200),
        Behaviour::answer(200, &[], b"ok"),
        Behaviour::status(204),
        Behaviour::raw(chunked),
        Behaviour::answer(500, &[], b"not ok"),
        Behaviour::answer(302, &[("location", "https://x/")], b"there"),
        Behaviour::answer(200, &[], &[b'x'; 16 * 1024]),
    ]);
    let kit = Kit::on_loopback();
    for number in 0..8 {
        let report = kit.post(&receiver.url("/")).await;
        assert_eq!(report.reused, number > 0, "attempt {number}: {report:?}");
        // The long body is read after its report.
        assert!(receiver.wait_for_requests(number + 1, LIMIT).await);
        while kit.metric("tidings_egress_draining") > 0.0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(receiver.connections(), 1);
    assert_eq!(kit.metric("tidings_egress_connections_total{origin=\"kept\"}"), 7.0);
    assert_eq!(kit.metric("tidings_egress_open_connections"), 1.0);
}

#[tokio::test]
async fn webhooks_never_share_a_connection() {
    let receiver = Receiver::start().await.unwrap();
    let kit = Kit::on_loopback();
    for number in [1, 2, 1, 2] {
        let mut request = kit.request(&receiver.url("/"));
        request.webhook = webhook(number);
        assert_answered(&kit.egress.attempt(request).await, AttemptCode::Delivered, 200);
    }
    assert_eq!(receiver.connections(), 2);
    let connections: Vec<_> =
        receiver.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections, [0, 1, 0, 1]);
}

#[tokio::test]
async fn a_changed_url_gets_a_new_connection_and_a_changed_path_does_not() {
    let old = Receiver::start().await.unwrap();
    let new = Receiver::start().await.unwrap();
    let kit = Kit::on_loopback();
    kit.post(&old.url("/a")).await;
    assert!(kit.post(&old.url("/b")).await.reused);
    assert!(!kit.post(&new.url("/b")).await.reused);
    assert!(old.wait_for_open(0, LIMIT).await, "the old connection is closed");
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own() {
    let receiver = Receiver::start().await.unwrap();
    receiver.behave(Behaviour::status(200).after(Duration::from_millis(20)));
    let kit = Kit::on_loopback();
    let url = receiver.url("/");
    let (first, second, third) = tokio::join!(kit.post(&url), kit.post(&url), kit.post(&url));
    assert!(!first.reused && !second.reused && !third.reused);
    assert_eq!(receiver.connections(), 3);
    assert!(kit.post(&url).await.reused);
}

#[tokio::test]
async fn a_connection_that_is_to_be_closed_is_not_kept() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let receiver = Receiver::start().await.unwrap();
        receiver.behave(Behaviour::raw(answer));
        let kit = Kit::on_loopback();
        for _ in 0..2 {
            let report = kit.post(&receiver.url("/")).await;
            assert_answered(&report, AttemptCode::Delivered, 200);
            assert!(!report.reused);
        }
        assert_eq!(receiver.connections(), 2);
    }
}

#[tokio::test]
async fn ep33_a_kept_connection_that_was_closed_is_noticed_before_it_is_used() {
    let receiver = Receiver::start().await.unwrap();
    receiver.behave(Behaviour::status(200).then(Step::Close));
    let kit = Kit::on_loopback();
    for number in 1..=20 {
        let report = kit.post(&receiver.url("/")).await;
        assert_answered(&report, AttemptCode::Delivered, 200);
        assert!(receiver.wait_for_open(0, LIMIT).await);
        assert_eq!(receiver.requests(), number, "each request once");
    }
}

#[tokio::test(start_paused = true)]
async fn ep33_a_request_that_was_written_is_not_sent_again_by_itself() {
    let receiver = Arc::new(Receiver::in_memory());
    let kit = Kit::in_memory(&receiver);
    assert_answered(&kit.post("http://localhost/").await, AttemptCode::Delivered, 200);
    receiver.behave_in_turn([Behaviour::close()]);
    let report = kit.post("http://localhost/").await;
    assert_failed(&report, AttemptCode::ClosedEarly, true);
    assert!(report.reused);
    assert_eq!(receiver.requests(), 2, "what was written is the caller's to repeat");
    assert!(!kit.post("http://localhost/").await.reused);
}

#[tokio::test]
async fn ep44_bytes_that_nobody_asked_for_are_never_taken_for_an_answer() {
    let poison =
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 299 x\r\ncontent-length: 0\r\n\r\n";
    let receiver = Receiver::start().await.unwrap();
    receiver.behave_in_turn([Behaviour::raw(poison)]);
    receiver.behave_in_turn([Behaviour::status(500)]);
    let kit = Kit::on_loopback();
    assert_answered(&kit.post(&receiver.url("/")).await, AttemptCode::Delivered, 200);
    let report = kit.post(&receiver.url("/")).await;
    assert_answered(&report, AttemptCode::Http, 500);
    assert!(!report.reused);
}

#[tokio::test(start_paused = true)]
async fn ep44_bytes_that_come_later_spoil_the_connection_too() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave_in_turn([Behaviour::status(200)
        .then(Step::Wait(Duration::from_millis(1)))
        .then(Step::Send("HTTP/1.1 299 x\r\ncontent-length: 0\r\n\r\n".into()))]);
    receiver.behave_in_turn([Behaviour::status(500)]);
    let kit = Kit::in_memory(&receiver);
    assert_answered(&kit.post("http://localhost/").await, AttemptCode::Delivered, 200);
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(2)).await;
    let report = kit.post("http://localhost/").await;
    assert_answered(&report, AttemptCode::Http, 500);
    assert!(!report.reused);
}

/// A server that speaks on a kept connection without being asked, and says when it
/// has: by then the bytes are here, and the test's own runtime has not looked.
fn speaks_unasked(stray: &'static [u8]) -> (std::net::SocketAddr, mpsc::Receiver<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (spoken, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(first.read(&mut request).unwrap() > 0);
        first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        // Not with the answer: that would show when the answer is read.
        if spoken.send(()).is_err() {
            return;
        }
        first.write_all(stray).unwrap();
        spoken.send(()).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        assert!(second.read(&mut request).unwrap() > 0);
        second.write_all(b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n").unwrap();
        drop(first);
    });
    (address, heard)
}

#[tokio::test]
async fn ep44_bytes_that_the_runtime_has_not_seen_yet_are_no_answer_either() {
    let stray = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (address, heard) = speaks_unasked(stray);
    let kit = Kit::on_loopback();
    let url = format!("http://{address}/");
    assert_answered(&kit.post(&url).await, AttemptCode::Delivered, 200);
    // Blocks the runtime on purpose: it cannot learn what has arrived.
    heard.recv().unwrap();
    heard.recv().unwrap();
    let report = kit.post(&url).await;
    assert_answered(&report, AttemptCode::Http, 500);
    assert!(!report.reused);
}

#[tokio::test]
async fn ep43_after_an_answer_that_came_too_early_the_next_request_goes_elsewhere() {
    let receiver = Receiver::start().await.unwrap();
    // The early answer is a failure; the real one, which comes late, a success.
    receiver.greet(Behaviour::raw("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"));
    receiver.behave_in_turn([
        Behaviour::status(200).after(Duration::from_millis(300)),
        Behaviour::status(500),
    ]);
    let kit = Kit::of_listeners();
    assert_answered(&kit.post(&receiver.url("/")).await, AttemptCode::Http, 503);
    assert!(receiver.wait_for_requests(1, LIMIT).await);
    receiver.greet(Behaviour::steps([]));
    let report = kit.post(&receiver.url("/")).await;
    assert_answered(&report, AttemptCode::Http, 500);
    assert!(!report.reused);
}

#[tokio::test]
async fn ep43_over_tls_too() {
    let authority = Authority::new();
    let server = authority.issue(&["127.0.0.1"], Validity::Now).server_config();
    let receiver = Receiver::start_tls(server).await.unwrap();
    let config = Config { extra_roots: vec![authority.root()], ..dev() };
    let kit = Kit::on_the_network(&config);
    let complete = "HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n";
    for _ in 0..20 {
        receiver.greet(Behaviour::raw_then_close(complete));
        assert_answered(&kit.post(&receiver.url("/")).await, AttemptCode::Http, 413);
        receiver.greet(Behaviour::raw_then_close("HTTP/1.1 413 x\r\ncontent-le"));
        assert_eq!(kit.post(&receiver.url("/")).await.code, AttemptCode::ClosedEarly);
    }
}

#[tokio::test]
async fn an_answer_that_announces_a_body_that_it_cannot_have_is_the_last_of_its_connection() {
    for answer in [
        "HTTP/1.1 204 x\r\ncontent-length: 39\r\n\r\n",
        "HTTP/1.1 204 x\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 x\r\ncontent-length: 39\r\n\r\n",
    ] {
        let receiver = Receiver::start().await.unwrap();
        receiver.behave_in_turn([
            Behaviour::raw(answer)
                .then(Step::Wait(Duration::from_millis(300)))
                .then(Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into())),
            Behaviour::status(500),
        ]);
        let kit = Kit::on_loopback();
        kit.post(&receiver.url("/")).await;
        let report = kit.post(&receiver.url("/")).await;
        assert_answered(&report, AttemptCode::Http, 500);
        assert!(!report.reused);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_time() {
    let receiver = Arc::new(Receiver::in_memory());
    let kit = Kit::in_memory(&receiver);
    kit.post("http://localhost/").await;
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(kit.post("http://localhost/").await.reused);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(!kit.post("http://localhost/").await.reused, "idle for too long");
    assert_eq!(receiver.open_connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_housekeeper_closes_idle_connections_without_traffic_and_all_at_the_end() {
    let receiver = Arc::new(Receiver::in_memory());
    let kit = Kit::in_memory(&receiver);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let (egress, token) = (Arc::clone(&kit.egress), shutdown.clone());
    tasks.spawn(async move { egress.run(token).await });
    kit.post("http://localhost/").await;
    assert_eq!(receiver.open_connections(), 1);
    assert!(receiver.wait_for_open(0, Duration::from_secs(36)).await);
    kit.post("http://localhost/").await;
    assert_eq!(receiver.open_connections(), 1);
    shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert!(receiver.wait_for_open(0, Duration::from_secs(1)).await);
    assert_eq!(kit.metric("tidings_egress_open_connections"), 0.0);
}

#[tokio::test]
async fn a_full_pool_closes_what_was_used_longest_ago_and_keeps_the_newcomer() {
    let receiver = Receiver::start().await.unwrap();
    receiver.behave(Behaviour::status(200).after(Duration::from_millis(20)));
    let kit = Kit::on_the_network(&Config { max_idle: 4, ..dev() });
    let post = async |number| {
        let mut request = kit.request(&receiver.url("/"));
        request.webhook = webhook(number);
        kit.egress.attempt(request).await.reused
    };
    // One webhook has all there may be.
    tokio::join!(post(1), post(1), post(1), post(1));
    assert!(!post(2).await);
    assert!(post(2).await, "others have their share");
    assert!(!post(3).await);
    assert!(post(3).await && post(2).await);
    assert!(receiver.wait_for_open(4, LIMIT).await);
    // One that has its share gives up one of its own.
    let both = tokio::join!(post(1), post(1), post(1));
    assert_eq!(both, (true, true, false));
    assert!(receiver.wait_for_open(4, LIMIT).await);
    assert!(post(3).await && post(2).await);
    assert_eq!(receiver.connections(), 7);
}
