//! Secured connections: who is believed and who is not.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tidings_egress::{AttemptReport, Config, Policy};
use tidings_testkit::{
    Answer, Behaviour, NameServer, Receiver, Step,
    certificate::{Authority, Identity, Validity},
};
use tidings_types::AttemptCode;

use crate::kit::{Kit, assert_answered, assert_failed};

const NAME: &str = "secure.example.com";

/// Attempts once against a server with these settings, trusting `authority`, and
/// says how many requests the server read.
async fn attempt(authority: &Authority, server: Arc<ServerConfig>) -> (AttemptReport, u64) {
    let receiver = Receiver::start_tls(server).await.unwrap();
    let (kit, _names) = kit(authority).await;
    let report = kit.post(&url(&receiver)).await;
    (report, receiver.requests())
}

async fn kit(authority: &Authority) -> (Kit, NameServer) {
    let names = NameServer::start().await.unwrap();
    names.say(NAME, Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]));
    let policy = Policy { allow: vec!["127.0.0.1/32".parse().unwrap()], ..Policy::default() };
    let config = Config {
        policy,
        name_servers: vec![names.address()],
        extra_roots: vec![authority.root()],
        connect_timeout: Duration::from_millis(1500),
        ..Config::default()
    };
    (Kit::on_the_network(&config), names)
}

fn url(receiver: &Receiver) -> String {
    format!("https://{NAME}:{}/", receiver.address().port())
}

#[tokio::test]
async fn a_server_with_a_good_certificate_gets_the_request_on_a_kept_connection() {
    let authority = Authority::new();
    let server = authority.issue(&[NAME], Validity::Now).server_config();
    let receiver = Receiver::start_tls(server).await.unwrap();
    let (kit, _names) = kit(&authority).await;
    for number in 0..3 {
        let report = kit.post(&url(&receiver)).await;
        assert_answered(&report, AttemptCode::Delivered, 200);
        assert_eq!(report.reused, number > 0);
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_certificate_for_an_address_is_good_for_the_address() {
    let authority = Authority::new();
    let server = authority.issue(&["127.0.0.1"], Validity::Now).server_config();
    let receiver = Receiver::start_tls(server).await.unwrap();
    let (kit, _names) = kit(&authority).await;
    let report = kit.post(&receiver.url("/")).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
}

#[tokio::test]
async fn ep7_a_certificate_out_of_its_time() {
    let authority = Authority::new();
    for validity in [Validity::Past, Validity::Future] {
        let server = authority.issue(&[NAME], validity).server_config();
        let (report, requests) = attempt(&authority, server).await;
        assert_failed(&report, AttemptCode::TlsCertTime, false);
        assert_eq!(requests, 0, "no body is sent");
    }
}

#[tokio::test]
async fn ep8_a_certificate_for_another_name() {
    let authority = Authority::new();
    for identity in [
        authority.issue(&["other.example.com"], Validity::Now),
        authority.issue(&["*.secure.example.com"], Validity::Now),
        authority.issue_common_name(NAME),
    ] {
        let (report, requests) = attempt(&authority, identity.server_config()).await;
        assert_failed(&report, AttemptCode::TlsNameMismatch, false);
        assert_eq!(requests, 0, "no body is sent");
    }
}

#[tokio::test]
async fn ep9_a_certificate_that_nobody_trusted_vouches_for() {
    let authority = Authority::new();
    for identity in [
        Authority::new().issue(&[NAME], Validity::Now),
        Identity::self_signed(&[NAME]),
        Identity::self_signed_authority(&[NAME]),
    ] {
        let (report, requests) = attempt(&authority, identity.server_config()).await;
        assert_failed(&report, AttemptCode::TlsUntrusted, false);
        assert_eq!(requests, 0, "no body is sent");
    }
}

#[tokio::test]
async fn ep11_a_server_that_speaks_no_tls_or_an_old_one() {
    let authority = Authority::new();
    let alert_protocol_version = [0x15, 3, 1, 0, 2, 2, 70];
    let old_hello = [0x15, 3, 1, 0, 2, 2, 40];
    for (answer, code) in [
        (&alert_protocol_version[..], AttemptCode::TlsProtocol),
        (&old_hello, AttemptCode::TlsProtocol),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", AttemptCode::TlsProtocol),
    ] {
        let receiver = Receiver::start().await.unwrap();
        receiver.greet(Behaviour::raw(answer.to_vec()).then(Step::Hang));
        let (kit, _names) = kit(&authority).await;
        let report = kit.post(&url(&receiver)).await;
        assert_failed(&report, code, false);
    }
}

#[tokio::test]
async fn a_server_that_closes_within_the_handshake() {
    let authority = Authority::new();
    let receiver = Receiver::start().await.unwrap();
    receiver.greet(Behaviour::close());
    let (kit, _names) = kit(&authority).await;
    let report = kit.post(&url(&receiver)).await;
    assert!(
        [AttemptCode::ClosedEarly, AttemptCode::ConnectionReset].contains(&report.code),
        "{report:?}"
    );
    assert!(!report.written);
}

#[tokio::test]
async fn ep12_a_handshake_that_never_ends() {
    let authority = Authority::new();
    let receiver = Receiver::start().await.unwrap();
    receiver.greet(Behaviour::hang());
    let (kit, _names) = kit(&authority).await;
    let report = kit.post(&url(&receiver)).await;
    assert_failed(&report, AttemptCode::ConnectTimeout, false);
    assert!(report.duration.as_millis() >= 1500, "{report:?}");
}

#[tokio::test]
async fn ep49_a_server_that_wants_a_client_certificate() {
    let authority = Authority::new();
    let server = authority.issue(&[NAME], Validity::Now).server_config_wanting(&authority);
    let (report, requests) = attempt(&authority, server).await;
    assert_eq!(report.code, AttemptCode::TlsClientAuth, "{report:?}");
    assert_eq!(requests, 0);
}
