//! Webhooks with a TLS identity of their own.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tidings_egress::{Config, Identity, IdentityPart, IdentityParts, IdentityRefusal, Policy};
use tidings_signing::Secret;
use tidings_testkit::{
    Answer, Behaviour, NameServer, Receiver,
    certificate::{Authority, Identity as Keys, Validity},
};
use tidings_types::{AttemptCode, Timestamp};

use crate::kit::{Kit, LIMIT, assert_answered, assert_failed, webhook};

const NAME: &str = "secure.example.com";
/// When the certificates of these tests are looked at.
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// An identity of what is given.
fn made(bundle: Option<&Authority>, client: Option<&Keys>) -> Result<Identity, IdentityRefusal> {
    let bundle = bundle.map(Authority::root_pem);
    let client = client.map(|keys| (keys.certificate_pem(), Secret::from(keys.key_pem())));
    Identity::new(&IdentityParts {
        ca_bundle: bundle.as_deref(),
        certificate: client.as_ref().map(|(certificate, _)| certificate.as_str()),
        key: client.as_ref().map(|(_, key)| key),
    })
}

fn identity(bundle: Option<&Authority>, client: Option<&Keys>) -> Arc<Identity> {
    Arc::new(made(bundle, client).unwrap())
}

/// An egress that trusts `authority` as a public one.
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

async fn server(config: Arc<ServerConfig>) -> (Receiver, String) {
    let receiver = Receiver::start_tls(config).await.unwrap();
    let url = format!("https://{NAME}:{}/", receiver.address().port());
    (receiver, url)
}

#[tokio::test]
async fn ep9_a_webhooks_own_authority_is_believed_for_it_alone_and_in_place_of_the_others() {
    let (public, private) = (Authority::new(), Authority::new());
    let (kit, _names) = kit(&public).await;
    let own = identity(Some(&private), None);
    let (inside, url) = server(private.issue(&[NAME], Validity::Now).server_config()).await;
    assert_failed(&kit.post(&url).await, AttemptCode::TlsUntrusted, false);
    for number in 0..3 {
        let report = kit.post_as(&own, &url).await;
        assert_answered(&report, AttemptCode::Delivered, 200);
        assert_eq!(report.reused, number > 0);
    }
    // What the webhook trusts is no reason for another to go the same way.
    assert_failed(&kit.post(&url).await, AttemptCode::TlsUntrusted, false);
    assert_eq!(inside.requests(), 3);
    let (outside, url) = server(public.issue(&[NAME], Validity::Now).server_config()).await;
    assert_failed(&kit.post_as(&own, &url).await, AttemptCode::TlsUntrusted, false);
    assert_eq!(outside.requests(), 0);
}

#[tokio::test]
async fn ep49_the_certificate_is_shown_to_a_server_that_asks_for_it() {
    let (public, clients) = (Authority::new(), Authority::new());
    let (kit, _names) = kit(&public).await;
    let keys = public.issue(&[NAME], Validity::Now);
    let (receiver, url) = server(keys.server_config_wanting(&clients)).await;
    let mine = identity(None, Some(&clients.issue(&["tidings"], Validity::Now)));
    assert_answered(&kit.post_as(&mine, &url).await, AttemptCode::Delivered, 200);
    assert!(kit.post_as(&mine, &url).await.reused);
    assert_eq!(receiver.requests(), 2);
    assert_eq!(kit.post(&url).await.code, AttemptCode::TlsClientAuth);
    let other = identity(None, Some(&Authority::new().issue(&["tidings"], Validity::Now)));
    assert_eq!(kit.post_as(&other, &url).await.code, AttemptCode::TlsRejected);
    let expired = identity(None, Some(&clients.issue(&["tidings"], Validity::Past)));
    assert_eq!(kit.post_as(&expired, &url).await.code, AttemptCode::TlsRejected);
    assert_eq!(receiver.requests(), 2, "nothing of a request reached the server");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_does_not_ask_for_the_certificate() {
    let public = Authority::new();
    let (kit, _names) = kit(&public).await;
    let (receiver, url) = server(public.issue(&[NAME], Validity::Now).server_config()).await;
    let mine = identity(None, Some(&public.issue(&["tidings"], Validity::Now)));
    let report = kit.post_as(&mine, &url).await;
    assert_failed(&report, AttemptCode::TlsClientAuthNotAsked, false);
    // Also not over a connection that is there without it.
    assert_answered(&kit.post(&url).await, AttemptCode::Delivered, 200);
    let report = kit.post_as(&mine, &url).await;
    assert_failed(&report, AttemptCode::TlsClientAuthNotAsked, false);
    assert_eq!(receiver.requests(), 1);
}

#[tokio::test]
async fn nothing_is_sent_in_plain_as_somebody() {
    let kit = Kit::on_loopback();
    let receiver = Receiver::start().await.unwrap();
    let mine = identity(Some(&Authority::new()), None);
    let report = kit.post_as(&mine, &receiver.url("/")).await;
    assert_failed(&report, AttemptCode::BadConfig, false);
    assert_eq!((receiver.requests(), receiver.connections()), (0, 0));
}

#[tokio::test]
async fn a_new_certificate_counts_for_the_next_connection_and_what_runs_ends_as_it_began() {
    let (public, clients) = (Authority::new(), Authority::new());
    let (kit, _names) = kit(&public).await;
    let keys = public.issue(&[NAME], Validity::Now);
    let (receiver, url) = server(keys.server_config_wanting(&clients)).await;
    let before = identity(None, Some(&clients.issue(&["tidings"], Validity::Now)));
    let after = identity(None, Some(&clients.issue(&["tidings"], Validity::Now)));
    assert_ne!(before, after);
    assert!(!kit.post_as(&before, &url).await.reused);
    receiver.behave(Behaviour::status(200).after(Duration::from_millis(300)));
    let (running, changed) = tokio::join!(kit.post_as(&before, &url), async {
        assert!(receiver.wait_for_requests(2, LIMIT).await);
        kit.post_as(&after, &url).await
    });
    assert_answered(&running, AttemptCode::Delivered, 200);
    assert_answered(&changed, AttemptCode::Delivered, 200);
    assert!(running.reused && !changed.reused);
    assert_eq!(receiver.connections(), 2);
    // What the old one was kept for closes when the new one looks for a connection.
    for _ in 0..2 {
        assert_answered(&kit.post_as(&after, &url).await, AttemptCode::Delivered, 200);
    }
    assert!(receiver.wait_for_open(1, LIMIT).await);
    assert_eq!(receiver.connections(), 2);
    kit.egress.forget(webhook(1));
    assert!(receiver.wait_for_open(0, LIMIT).await, "a webhook that is another one keeps nothing");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_part() {
    let authority = Authority::new();
    let (one, two) =
        (authority.issue(&["a"], Validity::Now), authority.issue(&["b"], Validity::Now));
    let (pem, key) = (one.certificate_pem(), one.key_pem());
    let long = format!("{}{pem}", " ".repeat(16 * 1024));
    let many = authority.root_pem().repeat(17);
    let cut = pem.replace("-----END CERTIFICATE-----", "");
    let no_certificate = pem.replace("MII", "AII");
    let cases = [
        (Some("nonsense"), None, None, IdentityPart::CaBundle),
        (Some(cut.as_str()), None, None, IdentityPart::CaBundle),
        (Some(no_certificate.as_str()), None, None, IdentityPart::CaBundle),
        (Some(many.as_str()), None, None, IdentityPart::CaBundle),
        (None, Some("nonsense"), Some(key.as_str()), IdentityPart::Certificate),
        (None, Some(no_certificate.as_str()), Some(&key), IdentityPart::Certificate),
        (None, Some(long.as_str()), Some(&key), IdentityPart::Certificate),
        (None, Some(key.as_str()), Some(&key), IdentityPart::Certificate),
        (None, None, Some(&key), IdentityPart::Certificate),
        (None, Some(pem.as_str()), None, IdentityPart::Key),
        (None, Some(&pem), Some("nonsense"), IdentityPart::Key),
        (None, Some(&pem), Some(&pem), IdentityPart::Key),
        (None, Some(&pem), Some(&two.key_pem()), IdentityPart::Key),
    ];
    for (ca_bundle, certificate, key, part) in cases {
        let key = key.map(Secret::from);
        let parts = IdentityParts { ca_bundle, certificate, key: key.as_ref() };
        let refusal = Identity::new(&parts).unwrap_err();
        assert_eq!(refusal.part(), part, "{refusal}: {certificate:?}");
    }
    let secret = Secret::from(key.as_str());
    let chain = format!("{pem}{}", authority.root_pem());
    let parts = IdentityParts { ca_bundle: None, certificate: Some(&chain), key: Some(&secret) };
    let identity = Identity::new(&parts).unwrap();
    assert_eq!(identity.check_time(NOW), Ok(()));
    assert_eq!(format!("{identity:?}{parts:?}"), "Identity(***)IdentityParts { .. }");
}

#[test]
fn a_certificate_holds_from_its_first_to_its_last_second() {
    let authority = Authority::new();
    let of = |validity| made(None, Some(&authority.issue(&["a"], validity))).unwrap();
    assert!(of(Validity::Now).check_time(NOW).is_ok());
    for validity in [Validity::Past, Validity::Future] {
        let refusal = of(validity).check_time(NOW).unwrap_err();
        assert_eq!(refusal.part(), IdentityPart::Certificate);
    }
    let midnight = Timestamp::from_civil_day(2023, 11, 15).unwrap();
    let last = of(Validity::Until(NOW));
    assert_eq!(last.not_after(), Some(midnight));
    assert!(last.check_time(midnight).is_ok());
    assert!(last.check_time(Timestamp::from_secs(midnight.as_secs() + 1)).is_err());
    let bundle_alone = made(Some(&authority), None).unwrap();
    assert_eq!((bundle_alone.not_after(), bundle_alone.check_time(NOW)), (None, Ok(())));
}
