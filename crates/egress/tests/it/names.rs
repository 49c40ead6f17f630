//! Names and addresses: what is asked, what is dialled, what is not.

use std::net::IpAddr;

use tidings_egress::{Config, Policy};
use tidings_testkit::{Answer, NameServer, Receiver};
use tidings_types::AttemptCode;

use crate::kit::{Kit, asking, assert_answered, assert_failed};

/// Lets through 127.0.0.0/24 and nothing else that is special.
fn allowing(network: &str) -> Policy {
    Policy { allow: vec![network.parse().unwrap()], allow_http: true, ..Policy::default() }
}

fn addresses(texts: &[&str]) -> Answer {
    Answer::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

/// A URL on the canary's port.
fn url(name: &str, canary: &Receiver) -> String {
    format!("http://{name}:{}/", canary.address().port())
}

/// Accepts the canary's port, and only public addresses.
fn public_only(canary: &Receiver) -> Policy {
    Policy { allow_http: true, ports: vec![canary.address().port()], ..Policy::default() }
}

#[tokio::test]
async fn a_name_is_resolved_and_its_address_dialled() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    names.say("hooks.client_domain.com", addresses(&["127.0.0.1"]));
    let kit = Kit::on_the_network(&asking(names.address(), allowing("127.0.0.0/24")));
    let report = kit.post(&url("hooks.client_domain.com", &canary)).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    let received = canary.received().pop().unwrap();
    let host = format!("hooks.client_domain.com:{}", canary.address().port());
    assert_eq!(received.headers["host"], host);
    assert!(names.asked().iter().all(|name| name == "hooks.client_domain.com"), "absolute only");
}

#[tokio::test]
async fn x6_a_name_that_leads_inside_is_blocked_and_the_canary_sees_no_packet() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    names.say("inside.example.com", addresses(&["127.0.0.1"]));
    names.say("six.example.com", addresses(&["::1"]));
    names.say("mapped.example.com", addresses(&["::ffff:127.0.0.1"]));
    names.say("many.example.com", addresses(&["10.0.0.1", "169.254.169.254", "127.0.0.1"]));
    names.say("localhost", addresses(&["127.0.0.1"]));
    let kit = Kit::on_the_network(&asking(names.address(), public_only(&canary)));
    for name in ["inside", "six", "mapped", "many"] {
        let report = kit.post(&url(&format!("{name}.example.com"), &canary)).await;
        assert_failed(&report, AttemptCode::BlockedAddress, false);
    }
    assert_eq!(canary.connections(), 0);
    assert_eq!(kit.metric("tidings_egress_blocked_addresses_total{class=\"loopback\"}"), 3.0);
    assert_eq!(kit.metric("tidings_egress_attempts_total{code=\"BLOCKED_ADDRESS\"}"), 4.0);
}

#[tokio::test]
async fn x6_a_name_that_rebinds_gets_no_second_question() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    let turn = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    // Public for a check, inside for a connection: here there is one question for
    // both. The first address is public and unreachable from here.
    names.say("rebind.example.com", Answer::InTurn(vec![turn("127.0.0.2"), turn("127.0.0.1")]));
    let policy = Policy { allow: vec!["127.0.0.2/32".parse().unwrap()], ..public_only(&canary) };
    let kit = Kit::on_the_network(&asking(names.address(), policy));
    let first = kit.post(&url("rebind.example.com", &canary)).await;
    assert_failed(&first, AttemptCode::ConnectRefused, false);
    let second = kit.post(&url("rebind.example.com", &canary)).await;
    assert_failed(&second, AttemptCode::BlockedAddress, false);
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn x6_of_several_addresses_only_the_good_ones_are_dialled() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    names.say("both.example.com", addresses(&["10.9.9.9", "127.0.0.1", "192.168.1.1"]));
    let kit = Kit::on_the_network(&asking(names.address(), allowing("127.0.0.0/24")));
    let report = kit.post(&url("both.example.com", &canary)).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    assert_eq!(kit.metric("tidings_egress_blocked_addresses_total{class=\"private\"}"), 2.0);
}

#[tokio::test]
async fn ep6_the_next_address_is_tried_when_one_is_dead() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    names.say("two.example.com", addresses(&["127.0.0.77", "127.0.0.1"]));
    let kit = Kit::on_the_network(&asking(names.address(), allowing("127.0.0.0/24")));
    let report = kit.post(&url("two.example.com", &canary)).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
}

#[tokio::test]
async fn ep3_a_name_that_does_not_exist() {
    let names = NameServer::start().await.unwrap();
    let kit = Kit::on_the_network(&asking(names.address(), Policy::default()));
    let report = kit.post("https://nowhere.example.com/").await;
    assert_failed(&report, AttemptCode::DnsNotFound, false);
    names.say("empty.example.com", addresses(&[]));
    let report = kit.post("https://empty.example.com/").await;
    assert_failed(&report, AttemptCode::DnsNotFound, false);
}

#[tokio::test]
async fn ep4_a_name_server_that_fails_or_is_silent() {
    let names = NameServer::start().await.unwrap();
    let kit = Kit::on_the_network(&asking(names.address(), Policy::default()));
    names.say("failure.example.com", Answer::Failure);
    let report = kit.post("https://failure.example.com/").await;
    assert_failed(&report, AttemptCode::DnsFailed, false);
    names.say("silence.example.com", Answer::Silence);
    let report = kit.post("https://silence.example.com/").await;
    assert_failed(&report, AttemptCode::DnsFailed, false);
    assert!(report.duration.as_millis() < 2500, "{report:?}");
}

#[tokio::test]
async fn ep5_an_answer_of_a_thousand_addresses_and_a_loop_of_names() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    let many: Vec<IpAddr> =
        (0..1000_u32).map(|n| IpAddr::from((0x7f00_0100 + n).to_be_bytes())).collect();
    names.say("many.example.com", Answer::Addresses(many));
    names.say("a.example.com", Answer::Alias("b.example.com".to_owned()));
    names.say("b.example.com", Answer::Alias("a.example.com".to_owned()));
    let kit = Kit::on_the_network(&asking(names.address(), public_only(&canary)));
    let report = kit.post(&url("many.example.com", &canary)).await;
    assert!(
        [AttemptCode::BlockedAddress, AttemptCode::DnsFailed].contains(&report.code),
        "{report:?}"
    );
    let looked_at = kit.metric("tidings_egress_blocked_addresses_total{class=\"loopback\"}");
    assert!(looked_at <= 8.0, "{looked_at} addresses were looked at");
    let report = kit.post(&url("a.example.com", &canary)).await;
    assert!(
        [AttemptCode::DnsNotFound, AttemptCode::DnsFailed].contains(&report.code),
        "{report:?}"
    );
}

#[tokio::test]
async fn x6_an_alias_of_an_internal_name_is_blocked() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    names.say("alias.example.com", Answer::Alias("db.internal".to_owned()));
    names.say("db.internal", addresses(&["127.0.0.1"]));
    let kit = Kit::on_the_network(&asking(names.address(), public_only(&canary)));
    let report = kit.post(&url("alias.example.com", &canary)).await;
    assert_failed(&report, AttemptCode::BlockedAddress, false);
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn localhost_is_this_machine_and_no_question() {
    let canary = Receiver::start().await.unwrap();
    let names = NameServer::start().await.unwrap();
    let kit = Kit::on_the_network(&asking(names.address(), Policy::dev()));
    let report = kit.post(&url("localhost", &canary)).await;
    assert_answered(&report, AttemptCode::Delivered, 200);
    assert!(names.asked().is_empty());
}

#[tokio::test]
async fn without_a_name_server_names_do_not_resolve() {
    let unused = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let config = Config {
        dns_timeout: std::time::Duration::from_millis(200),
        ..asking(unused.local_addr().unwrap(), Policy::default())
    };
    let kit = Kit::on_the_network(&config);
    let report = kit.post("https://example.com/").await;
    assert_failed(&report, AttemptCode::DnsFailed, false);
}
