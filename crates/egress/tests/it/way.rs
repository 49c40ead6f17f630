//! Ways out: source addresses and proxies.

use std::{sync::Arc, time::Duration};

use tidings_egress::{
    ClientProof, Config, Proxy as ProxyAddress, Request, SignIn, SignInParts, Target,
};
use tidings_signing::Secret;
use tidings_testkit::{
    Answer, NameServer, Proxy, Receiver, Tunnel,
    certificate::{Authority, Validity},
};
use tidings_types::AttemptCode;

use crate::kit::{Kit, assert_answered, assert_failed, dev};

fn through(proxy: &Proxy) -> Config {
    let address = ProxyAddress::parse(&proxy.url()).unwrap();
    Config { proxy: Some(address), connect_timeout: Duration::from_millis(1500), ..dev() }
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_address_that_was_judged_and_tls_goes_through_it() {
    const NAME: &str = "secure.example.com";
    let names = NameServer::start().await.unwrap();
    names.say(NAME, Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]));
    let authority = Authority::new();
    let server = authority.issue(&[NAME], Validity::Now).server_config();
    let receiver = Receiver::start_tls(server).await.unwrap();
    let proxy = Proxy::start().await.unwrap();
    let kit = Kit::on_the_network(&Config {
        name_servers: vec![names.address()],
        extra_roots: vec![authority.root()],
        ..through(&proxy)
    });
    let url = format!("https://{NAME}:{}/", receiver.address().port());
    for number in 0..3 {
        let report = kit.post(&url).await;
        assert_answered(&report, AttemptCode::Delivered, 200);
        assert_eq!(report.reused, number > 0);
    }
    assert_eq!(proxy.asked(), [receiver.address().to_string()]);
}

#[tokio::test]
async fn the_filter_of_addresses_stands_before_the_proxy() {
    let canary = Receiver::start().await.unwrap();
    let proxy = Proxy::start().await.unwrap();
    let config = through(&proxy);
    let policy = tidings_egress::Policy { allow: Vec::new(), ..config.policy.clone() };
    let kit = Kit::on_the_network(&Config { policy, ..config });
    // As it was registered when that was allowed.
    let request = Kit::on_loopback().request(&canary.url("/"));
    assert_failed(&kit.egress.attempt(request).await, AttemptCode::BlockedAddress, false);
    assert_eq!((proxy.asked().len(), canary.connections()), (0, 0));
}

#[tokio::test]
async fn faults_of_a_proxy_are_ours_and_what_it_says_of_an_endpoint_is_the_endpoints() {
    let receiver = Receiver::start().await.unwrap();
    let proxy = Proxy::start().await.unwrap();
    let kit = Kit::on_the_network(&through(&proxy));
    let say = |line: &str| Tunnel::Say(format!("HTTP/1.1 {line}\r\n\r\n"));
    for (tunnel, code) in [
        (say("407 Proxy Authentication Required"), AttemptCode::ProxyFailed),
        (say("429 Too Many Requests"), AttemptCode::ProxyFailed),
        (say("302 Found"), AttemptCode::ProxyFailed),
        (Tunnel::Say("hello\r\n\r\n".to_owned()), AttemptCode::ProxyFailed),
        (Tunnel::Say(String::new()), AttemptCode::ProxyFailed),
        (Tunnel::Say("x".repeat(20_000)), AttemptCode::ProxyFailed),
        (say("403 Forbidden"), AttemptCode::BlockedAddress),
        (say("502 Bad Gateway"), AttemptCode::ConnectRefused),
        (say("503 Service Unavailable"), AttemptCode::ConnectRefused),
        (say("504 Gateway Timeout"), AttemptCode::ConnectTimeout),
        (Tunnel::Say("HTTP/1.1 200 OK\r\n\r\nearly".to_owned()), AttemptCode::ProtocolError),
        (Tunnel::Hang, AttemptCode::ConnectTimeout),
    ] {
        proxy.does(tunnel.clone());
        let report = kit.post(&receiver.url("/")).await;
        assert_failed(&report, code, false);
        let is_ours = code == AttemptCode::ProxyFailed;
        assert_eq!(report.code.is_ours(), is_ours, "{tunnel:?}");
    }
    assert_eq!(receiver.connections(), 0);
    // One that is not there at all, and one whose name nobody knows.
    let gone = Config { proxy: ProxyAddress::parse("http://127.0.0.1:9").ok(), ..dev() };
    let report = Kit::on_the_network(&gone).post(&receiver.url("/")).await;
    assert_failed(&report, AttemptCode::ProxyFailed, false);
    let names = NameServer::start().await.unwrap();
    let nameless = Config {
        proxy: ProxyAddress::parse("http://proxy.example.com:3128").ok(),
        name_servers: vec![names.address()],
        ..dev()
    };
    let report = Kit::on_the_network(&nameless).post(&receiver.url("/")).await;
    assert_failed(&report, AttemptCode::ProxyFailed, false);
    assert_eq!(report.found, None, "says nothing of the endpoint");
}

#[tokio::test]
async fn a_token_is_asked_for_through_the_proxy_too_and_its_fault_stays_ours() {
    let (server, receiver) = (Receiver::start().await.unwrap(), Receiver::start().await.unwrap());
    let proxy = Proxy::start().await.unwrap();
    proxy.does(Tunnel::Say("HTTP/1.1 407 x\r\n\r\n".to_owned()));
    let kit = Kit::on_the_network(&through(&proxy));
    let sign_in = SignIn::new(SignInParts {
        target: Arc::new(Target::parse(&server.url("/"), &dev().policy).unwrap()),
        client_id: "us".to_owned(),
        proof: ClientProof::Basic(Secret::from("secret")),
        scope: None,
        audience: None,
    });
    let request = kit.request(&receiver.url("/"));
    let request = Request { sign_in: Some(Arc::new(sign_in)), ..request };
    assert_failed(&kit.egress.attempt(request).await, AttemptCode::ProxyFailed, false);
    assert_eq!(proxy.asked(), [server.address().to_string()]);
}

#[tokio::test]
async fn requests_go_out_from_the_addresses_that_are_set_in_turn() {
    let receiver = Receiver::start().await.unwrap();
    // All of 127/8 is this machine's.
    let sources = ["127.0.0.2", "127.0.0.3", "::1"].map(|text| text.parse().unwrap());
    let config = Config { bind: sources.to_vec(), max_idle: 0, ..dev() };
    let kit = Kit::on_the_network(&config);
    for _ in 0..4 {
        assert_answered(&kit.post(&receiver.url("/")).await, AttemptCode::Delivered, 200);
    }
    let peers: Vec<String> =
        receiver.received().iter().map(|it| it.peer.unwrap().ip().to_string()).collect();
    assert_eq!(peers, ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]);

    // One that this machine does not have is our own fault.
    let foreign = vec!["198.51.100.7".parse().unwrap()];
    let kit = Kit::on_the_network(&Config { bind: foreign, ..dev() });
    let report = kit.post(&receiver.url("/")).await;
    assert_failed(&report, AttemptCode::BindFailed, false);
    assert!(report.code.is_ours());
    // Of another kind than the endpoint's address: there is no way to it.
    let kit = Kit::on_the_network(&Config { bind: vec!["::1".parse().unwrap()], ..dev() });
    let report = kit.post(&receiver.url("/")).await;
    assert_failed(&report, AttemptCode::ConnectRefused, false);
}
