//! An authorization server elsewhere: its algorithms, its keys as they change, and
//! what it may answer (rows J1, J3, J5, J7, J10, J11 of
//! `reliability-security.md` §7.13).

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tidings_testkit::{Behaviour, Receiver};
use tidings_types::{BoxFuture, Timestamp};

use super::*;
use crate::{
    AuthError, External, ExternalIssuer, Principal, Verifier, VerifierConfig, VerifierError,
};

const NOW: i64 = 1_700_000_000;
const THEIRS: &str = "https://login.bank.example/";
const OURS: &str = "tidings-api";

/// A clock that moves when it is told to.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Hand {
    fn advance(&self, secs: u64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(NOW)
    }

    fn monotonic(&self) -> Instant {
        Instant::from_nanos((self.0.load(Ordering::SeqCst) + 1_000) * 1_000_000_000)
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// A private key of the server.
enum Key {
    Rsa(RsaKeyPair, &'static str),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn rsa(algorithm: &'static str) -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), algorithm)
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed(seed: u8) -> Self {
        Self::Ed(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_, algorithm) => algorithm,
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn public(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Rsa(pair, _) => {
                // PKCS#1: a sequence of the modulus of 256 bytes and the exponent of 3.
                let der = pair.public_key().as_ref();
                assert_eq!(der.len(), 270);
                json!({"kty": "RSA", "n": text(&der[9..265]), "e": text(&der[267..])})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = id.into();
        jwk["alg"] = self.algorithm().into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair, algorithm) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let scheme: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if *algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(scheme, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn token(&self, id: &str) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "kid": id}), &claims())
    }
}

fn claims() -> Value {
    json!({
        "iss": THEIRS, "aud": ["other", OURS], "sub": "client-7", "iat": NOW, "exp": NOW + 3600,
        "scope": "eds.read", "issuerid": "7001", "pmid": 20,
    })
}

struct World {
    server: Receiver,
    clock: Arc<Hand>,
    verifier: Verifier,
    metrics: Registry,
}

fn external(url: &str, clock: Arc<Hand>, metrics: &mut Registry) -> External {
    let egress_metrics = tidings_egress::Metrics::register(metrics);
    External {
        issuers: vec![ExternalIssuer {
            issuer: THEIRS.to_owned(),
            audience: OURS.to_owned(),
            jwks_url: url.to_owned(),
            certificate_bound: false,
            fetcher: Arc::new(Fetcher::new(Vec::new(), egress_metrics)),
        }],
        max_lifetime: VerifierConfig::MAX_EXTERNAL_LIFETIME,
        clock,
        metrics: Metrics::register(metrics),
    }
}

fn made(external: External) -> Result<Verifier, VerifierError> {
    let max_lifetime = VerifierConfig::MAX_LIFETIME;
    Verifier::new(VerifierConfig { local: None, external: Some(external), max_lifetime })
}

impl World {
    async fn start() -> Self {
        let server = Receiver::start().await.unwrap();
        let clock = Arc::new(Hand::default());
        let mut metrics = Registry::default();
        let external = external(&server.url("/keys"), Arc::clone(&clock), &mut metrics);
        Self { server, clock, verifier: made(external).unwrap(), metrics }
    }

    /// How many fetches failed, and how many servers cannot be reached now.
    fn failures(&self) -> (u64, u64) {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        let failed = value("tidings_auth_failed_key_fetches_total");
        (failed, value("tidings_auth_unreachable_issuers "))
    }

    fn publishes(&self, keys: &[Value]) {
        let set = json!({"keys": keys}).to_string();
        self.server.behave(Behaviour::answer(200, &[], set.as_bytes()));
    }

    async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        self.verifier.verify_fresh(token, None, Timestamp::from_secs(NOW)).await
    }

    async fn status(&self, token: &str) -> u16 {
        self.verify(token).await.map_or_else(|error| error.status(), |_| 200)
    }
}

#[tokio::test]
async fn every_allowed_algorithm_is_verified_and_says_whose_token_it_is() {
    let world = World::start().await;
    let keys = [Key::rsa("RS256"), Key::rsa("PS256"), Key::ec(), Key::ed(1)];
    let ids = ["a", "b", "c", "d"];
    let mut set: Vec<Value> = keys.iter().zip(ids).map(|(key, id)| key.public(id)).collect();
    // What is no key for us is passed over.
    set.push(json!({"kty": "oct", "kid": "e", "alg": "HS256", "k": "AAAA"}));
    set.push(json!({"kty": "RSA", "kid": "f", "use": "enc", "n": "AAAA", "e": "AQAB"}));
    set.push(json!({"kty": "RSA", "kid": "g", "n": "AAAA", "e": "AQAB"}));
    set.push(json!({"kty": "EC", "kid": "h", "crv": "P-384", "x": "AAAA", "y": "AAAA"}));
    world.publishes(&set);
    for (key, id) in keys.iter().zip(ids) {
        let principal = world.verify(&key.token(id)).await.unwrap();
        assert_eq!(principal.subject, "client-7");
        assert_eq!(principal.issuer.unwrap().to_string(), "7001");
        assert_eq!(principal.pm.unwrap().0, 20);
        principal_has_only_read(&world, key, id).await;
    }
    assert_eq!(world.server.requests(), 1);
    // J1: the algorithm is the key's, whatever the token says.
    for alg in ["none", "HS256", "PS256", "ES256", "rs256"] {
        let token = keys[0].token_with(&json!({"alg": alg, "kid": "a"}), &claims());
        assert_eq!(world.status(&token).await, 401, "{alg}");
    }
    for id in ["b", "c", "d", "e", "f", "g", "h"] {
        let token = keys[0].token_with(&json!({"alg": "RS256", "kid": id}), &claims());
        assert_eq!(world.status(&token).await, 401, "{id}");
    }
}

async fn principal_has_only_read(world: &World, key: &Key, id: &str) {
    let principal = world.verify(&key.token(id)).await.unwrap();
    assert_eq!(principal.require("eds.read"), Ok(()));
    assert_eq!(principal.require("eds.write"), Err(AuthError::Scope("eds.write")));
}

/// J5, J7, J12.
#[tokio::test]
async fn the_table_of_claims_that_are_not_for_us() {
    let world = World::start().await;
    let key = Key::ed(1);
    world.publishes(&[key.public("a")]);
    let header = json!({"alg": "EdDSA", "kid": "a"});
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        key.token_with(&header, &claims)
    };
    assert_eq!(world.status(&key.token("a")).await, 200);
    for (name, value) in [
        ("iss", json!("https://login.bank.example")),
        ("iss", json!("tidings-local")),
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("exp", json!(NOW + 3601)),
        ("exp", json!(NOW - 61)),
        ("nbf", json!(NOW + 61)),
        ("sub", json!("")),
        ("cnf", json!({"x5t#S256": "AAAA"})),
    ] {
        let token = with(name, value.clone());
        assert_eq!(world.status(&token).await, 401, "{name} {value}");
    }
    assert_eq!(world.status(&with("pmid", json!("20"))).await, 403);
}

/// J3.
#[tokio::test]
async fn unknown_keys_make_one_fetch_a_minute() {
    let world = World::start().await;
    let key = Key::ed(1);
    world.publishes(&[key.public("a")]);
    assert_eq!(world.status(&key.token("a")).await, 200);
    for number in 0..200 {
        assert_eq!(world.status(&key.token(&format!("x{number}"))).await, 401);
    }
    assert_eq!(world.server.requests(), 1);
    world.clock.advance(60);
    for number in 0..200 {
        assert_eq!(world.status(&key.token(&format!("x{number}"))).await, 401);
    }
    assert_eq!(world.server.requests(), 2);
    let long = "k".repeat(300);
    world.clock.advance(60);
    assert_eq!(world.status(&key.token(&long)).await, 401);
    assert_eq!(world.server.requests(), 2);
}

/// J10.
#[tokio::test]
async fn keys_roll_over_without_a_refused_token_and_a_removed_one_goes() {
    let world = World::start().await;
    let (old, new) = (Key::ed(1), Key::ec());
    world.publishes(&[old.public("old")]);
    assert_eq!(world.status(&old.token("old")).await, 200);
    world.publishes(&[old.public("old"), new.public("new")]);
    world.clock.advance(61);
    assert_eq!(world.status(&new.token("new")).await, 200);
    assert_eq!(world.status(&old.token("old")).await, 200);
    world.publishes(&[new.public("new")]);
    world.clock.advance(240);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let (verifier, ended) = (world.verifier.clone(), stop.clone());
    tasks.spawn(async move { verifier.run(ended).await });
    assert!(world.server.wait_for_requests(3, Duration::from_secs(10)).await);
    while world.status(&old.token("old")).await != 401 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.status(&new.token("new")).await, 200);
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

/// J11.
#[tokio::test]
async fn a_server_that_is_down_or_answers_nonsense_changes_nothing_for_a_day() {
    let world = World::start().await;
    let key = Key::ed(1);
    world.server.behave(Behaviour::status(500));
    assert_eq!(world.status(&key.token("a")).await, 401);
    assert_eq!(world.failures(), (1, 1));
    world.publishes(&[key.public("a")]);
    world.clock.advance(6);
    assert_eq!(world.status(&key.token("a")).await, 200);
    assert_eq!(world.failures(), (1, 0));
    let many: Vec<Value> = (0..21).map(|n| Key::ed(n).public(&n.to_string())).collect();
    let large = format!("{{\"keys\":[],\"fill\":\"{}\"}}", "x".repeat(MAX_BYTES));
    for body in [
        Behaviour::status(500),
        Behaviour::answer(302, &[("location", "http://127.0.0.1:1/")], b""),
        Behaviour::answer(200, &[], b"<html>"),
        Behaviour::answer(200, &[], b"{\"keys\":[]}"),
        Behaviour::answer(200, &[], json!({"keys": many}).to_string().as_bytes()),
        Behaviour::answer(200, &[], large.as_bytes()),
        Behaviour::close(),
    ] {
        world.server.behave(body);
        world.clock.advance(60);
        let before = world.server.requests();
        assert_eq!(world.status(&key.token("b")).await, 401);
        assert!(world.server.requests() > before);
        assert_eq!(world.status(&key.token("a")).await, 200);
    }
    assert_eq!(world.failures(), (8, 1));
    world.clock.advance(24 * 3600);
    assert_eq!(world.status(&key.token("a")).await, 401);
}

#[tokio::test]
async fn the_table_of_issuers_that_cannot_be_used() {
    let url = |url: &str| external(url, Arc::default(), &mut Registry::default());
    assert!(made(url("https://login.bank.example/keys")).is_ok());
    assert!(made(url("https://login.internal:8444/keys")).is_ok());
    assert!(made(url("http://localhost:9/keys")).is_ok());
    for bad in ["", "keys", "http://login.bank.example/keys", "file:///etc/passwd"] {
        let error = made(url(bad)).unwrap_err();
        assert!(matches!(error, VerifierError::Url { .. }), "{bad} {error}");
    }
    let mut twice = url("https://login.bank.example/keys");
    twice.issuers.push(twice.issuers[0].clone());
    assert!(matches!(made(twice), Err(VerifierError::Issuer(_))));
    let mut open = url("https://login.bank.example/keys");
    open.issuers[0].audience.clear();
    assert!(matches!(made(open), Err(VerifierError::Audience(_))));
}
