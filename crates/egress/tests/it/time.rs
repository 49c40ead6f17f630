//! Time limits, on paused time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidings_testkit::{Behaviour, Receiver, Step};
use tidings_types::AttemptCode;

use crate::kit::{Kit, assert_answered, assert_failed};

const URL: &str = "http://localhost/";

#[tokio::test(start_paused = true)]
async fn ep13_an_endpoint_that_never_answers_times_out_and_its_socket_is_closed() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave(Behaviour::hang());
    let kit = Kit::in_memory(&receiver);
    let started = tokio::time::Instant::now();
    let report = kit.post(URL).await;
    assert_failed(&report, AttemptCode::Timeout, true);
    assert_eq!(started.elapsed().as_secs(), 15);
    assert_eq!(report.duration.as_secs(), 15);
    assert!(receiver.wait_for_open(0, Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn ep14_a_slow_head_does_not_stretch_the_limit() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave(Behaviour::raw("HTTP/1.1 200 OK\r\na: ").then(Step::SendTimes {
        piece: Bytes::from_static(b"x"),
        times: 1000,
        pause: Duration::from_secs(1),
    }));
    let kit = Kit::in_memory(&receiver);
    let started = tokio::time::Instant::now();
    assert_failed(&kit.post(URL).await, AttemptCode::Timeout, true);
    assert_eq!(started.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn ep15_an_endpoint_that_never_reads_times_out() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.greet(Behaviour::steps([Step::Wait(Duration::from_secs(1000))]));
    let kit = Kit::in_memory(&receiver);
    let mut request = kit.request(URL);
    // More than the stream takes.
    request.body = Bytes::from(vec![b'x'; 256 * 1024]);
    let report = kit.egress.attempt(request).await;
    assert_failed(&report, AttemptCode::Timeout, true);
    assert_eq!(receiver.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn ep16_a_success_is_reported_before_its_slow_body() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave(Behaviour::raw("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").then(
        Step::SendTimes {
            piece: Bytes::from_static(b"x"),
            times: 1000,
            pause: Duration::from_secs(1),
        },
    ));
    let kit = Kit::in_memory(&receiver);
    let started = tokio::time::Instant::now();
    let report = kit.post(URL).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    assert_eq!(started.elapsed(), Duration::ZERO);
    // Reading stops after a second, and nothing may be sent on what is left.
    assert!(!kit.post(URL).await.reused);
    assert!(receiver.wait_for_open(0, Duration::from_secs(3)).await);
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_complete_within_a_second_leaves_its_connection_for_the_next() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave_in_turn([Behaviour::steps([
        Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n".into()),
        Step::Wait(Duration::from_millis(900)),
        Step::Send("ok".into()),
    ])]);
    let kit = Kit::in_memory(&receiver);
    assert_answered(&kit.post(URL).await, AttemptCode::Delivered, 200);
    assert_eq!(kit.metric("tidings_egress_draining"), 1.0);
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(950)).await;
    assert_eq!(kit.metric("tidings_egress_draining"), 0.0);
    assert!(kit.post(URL).await.reused);
}

#[tokio::test(start_paused = true)]
async fn a_failure_waits_a_second_at_most_for_its_snippet() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave(Behaviour::steps([
        Step::Send("HTTP/1.1 500 x\r\ncontent-length: 8\r\n\r\nhalf".into()),
        Step::Wait(Duration::from_secs(60)),
        Step::Send("rest".into()),
    ]));
    let kit = Kit::in_memory(&receiver);
    let started = tokio::time::Instant::now();
    let report = kit.post(URL).await;
    assert_answered(&report, AttemptCode::Http, 500);
    assert_eq!(&report.snippet[..], b"half");
    assert_eq!(started.elapsed().as_secs(), 1);
    assert_eq!(report.duration, Duration::ZERO, "the endpoint's time, not ours");
}

#[tokio::test(start_paused = true)]
async fn ep37_a_connection_that_died_in_silence_costs_one_time_out() {
    let receiver = Arc::new(Receiver::in_memory());
    let kit = Kit::in_memory(&receiver);
    kit.post(URL).await;
    receiver.behave_in_turn([Behaviour::hang()]);
    let report = kit.post(URL).await;
    assert_failed(&report, AttemptCode::Timeout, true);
    assert!(report.reused);
    let report = kit.post(URL).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    assert!(!report.reused);
}

#[tokio::test(start_paused = true)]
async fn ep48_an_answer_just_within_the_limit_counts() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave(Behaviour::status(200).after(Duration::from_millis(14_900)));
    let kit = Kit::in_memory(&receiver);
    let report = kit.post(URL).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    assert_eq!(report.duration.as_millis(), 14_900);
}

#[tokio::test(start_paused = true)]
async fn the_limit_covers_the_connection_too() {
    let kit = Kit::stuck();
    let mut request = kit.request(URL);
    request.timeout = Duration::from_secs(3);
    let report = kit.egress.attempt(request).await;
    assert_failed(&report, AttemptCode::Timeout, false);
    assert_eq!(report.duration.as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_attempt_closes_its_connection() {
    let receiver = Arc::new(Receiver::in_memory());
    receiver.behave(Behaviour::hang());
    let kit = Kit::in_memory(&receiver);
    let late = tokio::time::timeout(Duration::from_secs(1), kit.post(URL)).await;
    assert!(late.is_err());
    assert!(receiver.wait_for_open(0, Duration::from_secs(1)).await);
    assert_eq!(kit.metric("tidings_egress_open_connections"), 0.0);
}
