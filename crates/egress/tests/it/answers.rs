//! What an answer, or the lack of one, is taken for.

use std::time::Duration;

use bytes::Bytes;
use tidings_testkit::{Behaviour, Receiver, Step};
use tidings_types::AttemptCode;

use crate::kit::{Kit, LIMIT, assert_answered, assert_failed};

/// Attempts once against an endpoint that behaves so.
async fn attempt(behaviour: Behaviour) -> tidings_egress::AttemptReport {
    let receiver = Receiver::start().await.unwrap();
    receiver.behave(behaviour);
    let kit = Kit::on_loopback();
    kit.post(&receiver.url("/")).await
}

#[tokio::test]
async fn the_request_arrives_as_it_was_made() {
    let receiver = Receiver::start().await.unwrap();
    let kit = Kit::on_loopback();
    let report = kit.post(&receiver.url("/hook?a=b%20c")).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    let received = receiver.received().pop().unwrap();
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/hook?a=b%20c"));
    assert_eq!(&received.body[..], b"{\"a\":1}");
    let mut headers: Vec<_> = received
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let host = receiver.address().to_string();
    let expected = [
        ("accept-encoding", "identity"),
        ("content-length", "7"),
        ("content-type", "application/json"),
        ("host", &host),
        ("webhook-id", "id-1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers, expected, "and no other header");
}

#[tokio::test]
async fn a_header_of_the_connection_is_never_sent() {
    let receiver = Receiver::start().await.unwrap();
    let kit = Kit::on_loopback();
    let mut request = kit.request(&receiver.url("/"));
    request.headers.insert("transfer-encoding", http::HeaderValue::from_static("chunked"));
    let report = kit.egress.attempt(request).await;
    assert_failed(&report, AttemptCode::BadConfig, false);
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn ep1_a_refused_connection() {
    let receiver = Receiver::start().await.unwrap();
    receiver.refuse();
    assert!(receiver.wait_for_open(0, LIMIT).await);
    let kit = Kit::on_loopback();
    // The listener's task may still be ending.
    let url = receiver.url("/");
    drop(receiver);
    let mut report = kit.post(&url).await;
    while report.code == AttemptCode::ConnectionReset || report.code == AttemptCode::ClosedEarly {
        tokio::task::yield_now().await;
        report = kit.post(&url).await;
    }
    assert_failed(&report, AttemptCode::ConnectRefused, false);
}

#[tokio::test]
async fn ep17_a_body_without_end_is_delivered_and_given_up() {
    for head in ["content-length: 10000000000", "transfer-encoding: chunked"] {
        let receiver = Receiver::start().await.unwrap();
        let piece = if head.starts_with('t') { "400\r\n" } else { "" };
        let piece =
            format!("{piece}{}{}", "x".repeat(1024), if piece.is_empty() { "" } else { "\r\n" });
        receiver.behave(
            Behaviour::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"))
                .then(Step::SendForEver(Bytes::from(piece))),
        );
        let kit = Kit::on_loopback();
        let report = kit.post(&receiver.url("/")).await;
        assert_answered(&report, AttemptCode::Delivered, 200);
        assert!(receiver.wait_for_open(0, LIMIT).await, "the connection is closed");
    }
}

#[tokio::test]
async fn ep18_a_compressed_body_is_kept_as_it_came() {
    let body = b"\x1f\x8b\x08\x00not really gzip";
    let report = attempt(Behaviour::answer(500, &[("content-encoding", "gzip")], body)).await;
    assert_answered(&report, AttemptCode::Http, 500);
    assert_eq!(&report.snippet[..], body);
}

#[tokio::test]
async fn ep19_a_head_without_end_is_refused() {
    let line = Bytes::from_static(b"x-more: 0123456789\r\n");
    let endless = Behaviour::raw("HTTP/1.1 200 OK\r\n").then(Step::SendForEver(line));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(1_000_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let few_too_many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(65));
    let behaviours =
        [endless, Behaviour::raw(long), Behaviour::raw(many), Behaviour::raw(few_too_many)];
    for behaviour in behaviours {
        let report = attempt(behaviour).await;
        assert_failed(&report, AttemptCode::ResponseHeadersTooLarge, true);
    }
    let most = format!(
        "HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n",
        format!("a: {}\r\n", "b".repeat(240)).repeat(63)
    );
    assert_answered(&attempt(Behaviour::raw(most)).await, AttemptCode::Delivered, 200);
}

#[tokio::test]
async fn ep20_more_than_sixteen_informational_answers_are_too_many() {
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let endless = Behaviour::steps([Step::SendForEver(Bytes::from_static(hint.as_bytes()))]);
    assert_failed(&attempt(endless).await, AttemptCode::ProtocolError, true);
    let end = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let seventeen = Behaviour::raw(hint.repeat(17) + end);
    assert_failed(&attempt(seventeen).await, AttemptCode::ProtocolError, true);
    let sixteen = Behaviour::raw(hint.repeat(16) + end);
    assert_answered(&attempt(sixteen).await, AttemptCode::Delivered, 200);
}

#[tokio::test]
async fn ep21_an_informational_answer_is_not_the_answer() {
    for status in [100, 102, 103] {
        let report = attempt(Behaviour::steps([
            Step::Send(format!("HTTP/1.1 {status} x\r\n\r\n").into()),
            Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()),
        ]))
        .await;
        assert_answered(&report, AttemptCode::Delivered, 200);
    }
}

#[tokio::test]
async fn ep22_switching_protocols_is_an_error() {
    let switch = "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let report = attempt(Behaviour::raw(switch)).await;
    assert_answered(&report, AttemptCode::ProtocolError, 101);
}

#[tokio::test]
async fn ep23_every_2xx_is_a_success() {
    for status in [200, 201, 202, 204, 206, 299] {
        let report = attempt(Behaviour::status(status)).await;
        assert_answered(&report, AttemptCode::Delivered, status);
    }
}

#[tokio::test]
async fn ep24_a_redirection_that_leads_nowhere_is_a_failure() {
    for status in [300, 302, 304, 307] {
        let report = attempt(Behaviour::status(status)).await;
        assert_answered(&report, AttemptCode::Http, status);
        assert_eq!(report.location, None);
    }
}

#[tokio::test]
async fn ep25_ep26_a_redirection_is_refused_and_its_target_sees_nothing() {
    let hostile = Receiver::start().await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        for location in
            [hostile.url("/stolen").as_str(), "http://169.254.169.254/", "file:///etc/passwd"]
        {
            let report = attempt(Behaviour::answer(status, &[("location", location)], b"")).await;
            assert_answered(&report, AttemptCode::RedirectRefused, status);
            assert_eq!(report.location.as_deref(), Some(location.as_bytes()));
        }
    }
    let long = format!("https://{}/", "x".repeat(1000));
    let report = attempt(Behaviour::answer(302, &[("location", &long)], b"")).await;
    assert_eq!(report.location.map(|location| location.len()), Some(256));
    assert_eq!(hostile.connections(), 0);
}

#[tokio::test]
async fn ep27_a_status_of_failure_comes_with_the_beginning_of_its_body() {
    for status in [400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 502, 503, 599] {
        let report = attempt(Behaviour::answer(status, &[], &[b'x'; 3000])).await;
        assert_answered(&report, AttemptCode::Http, status);
        assert_eq!(report.snippet, vec![b'x'; 1024]);
    }
}

#[tokio::test]
async fn ep29_retry_after_is_reported_as_it_came() {
    let report = attempt(Behaviour::answer(429, &[("retry-after", "120")], b"")).await;
    assert_eq!(report.retry_after.as_deref(), Some(&b"120"[..]));
    let twice = [("retry-after", "1"), ("retry-after", "2")];
    let report = attempt(Behaviour::answer(503, &twice, b"")).await;
    assert_eq!(report.retry_after.as_deref(), Some(&b"1"[..]), "the first");
    let long = "9".repeat(8 * 1024);
    let report = attempt(Behaviour::answer(503, &[("retry-after", &long)], b"")).await;
    assert_answered(&report, AttemptCode::Http, 503);
    assert_eq!(report.retry_after, None, "longer than any valid one");
}

#[tokio::test]
async fn ep33_ep34_a_close_before_the_end_of_the_head() {
    for behaviour in [
        Behaviour::close(),
        Behaviour::raw_then_close("HTTP/1.1 200 OK\r\ncontent-le"),
        Behaviour::raw_then_close("HTTP/1.1 103 Early Hints\r\n\r\n"),
        Behaviour::raw_then_close("HT"),
    ] {
        let receiver = Receiver::start().await.unwrap();
        receiver.behave(behaviour);
        let kit = Kit::on_loopback();
        let report = kit.post(&receiver.url("/")).await;
        assert_failed(&report, AttemptCode::ClosedEarly, true);
        assert_eq!(receiver.requests(), 1, "no second try by itself");
    }
}

#[tokio::test]
async fn ep35_a_success_whose_body_is_cut_is_a_success() {
    for body in ["content-length: 100\r\n\r\nshort", "transfer-encoding: chunked\r\n\r\n5\r\nsho"] {
        let report = attempt(Behaviour::raw_then_close(format!("HTTP/1.1 200 OK\r\n{body}"))).await;
        assert_answered(&report, AttemptCode::Delivered, 200);
    }
}

#[tokio::test]
async fn ep36_a_reset() {
    assert_failed(&attempt(Behaviour::reset()).await, AttemptCode::ConnectionReset, true);
    let midway = Behaviour::raw("HTTP/1.1 200 OK\r\n")
        .then(Step::Wait(Duration::from_millis(50)))
        .then(Step::Reset);
    // A server that closes with something unread resets too: within an answer both
    // are the same.
    assert_failed(&attempt(midway).await, AttemptCode::ClosedEarly, true);
}

#[tokio::test]
async fn ep42_what_is_not_http_is_an_error() {
    for (text, seen_status) in [
        ("GARBAGE\r\n\r\n", 0),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n", 0),
        ("HTTP/9.9 200 OK\r\n\r\n", 0),
        ("HTTP/2.0 200 OK\r\n\r\n", 0),
        ("HTTP/1.1 20 OK\r\n\r\n", 0),
        ("HTTP/1.1 2000 OK\r\n\r\n", 0),
        ("HTTP/1.1 -20 OK\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\n\n", 0),
        ("HTTP/1.1 200 OK\r\na: b\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\na : b\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\na: b\u{0}c\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabcde", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nabcde", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde", 0),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nabcde", 200),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nabcde", 200),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nabcde", 0),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            200,
        ),
    ] {
        let receiver = Receiver::start().await.unwrap();
        receiver.behave(Behaviour::raw(text));
        let kit = Kit::on_loopback();
        let report = kit.post(&receiver.url("/")).await;
        assert_eq!(report.code, AttemptCode::ProtocolError, "{text:?}: {report:?}");
        assert_eq!(report.http_status, seen_status, "{text:?}");
        assert!(receiver.wait_for_open(0, LIMIT).await, "the connection is dropped: {text:?}");
    }
}

#[tokio::test]
async fn ep43_an_answer_before_the_request_counts_if_it_is_complete() {
    let receiver = Receiver::start().await.unwrap();
    let complete = "HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n";
    let cut = "HTTP/1.1 413 x\r\ncontent-le";
    let large = Bytes::from(vec![b'x'; 1024 * 1024]);
    // Whether it comes before the request or beside it is a race that decides nothing.
    for round in 0..40 {
        for body in [Bytes::from_static(b"{}"), large.clone()] {
            let attempt = async || {
                // Of its own: else a connection of the last attempt may be taken.
                let kit = Kit::on_loopback();
                let mut request = kit.request(&receiver.url("/"));
                request.body = body.clone();
                kit.egress.attempt(request).await
            };
            receiver.greet(Behaviour::raw(complete));
            receiver.behave(Behaviour::close());
            assert_answered(&attempt().await, AttemptCode::Http, 413);
            receiver.greet(Behaviour::raw_then_close(complete));
            assert_answered(&attempt().await, AttemptCode::Http, 413);
            receiver.greet(Behaviour::raw_then_close(cut));
            let report = attempt().await;
            assert_eq!(report.code, AttemptCode::ClosedEarly, "round {round}: {report:?}");
        }
    }
}

#[tokio::test]
async fn ep50_cookies_and_promises_of_the_endpoint_are_forgotten() {
    let receiver = Receiver::start().await.unwrap();
    let promises = [
        ("set-cookie", "a=b"),
        ("alt-svc", "h2=\":443\""),
        ("strict-transport-security", "max-age=9"),
    ];
    receiver.behave(Behaviour::answer(200, &promises, b""));
    let kit = Kit::on_loopback();
    for _ in 0..2 {
        assert_answered(&kit.post(&receiver.url("/")).await, AttemptCode::Delivered, 200);
    }
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers, received[1].headers);
}
