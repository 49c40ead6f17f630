//! Secrets and signatures: rotation, `v1a`, published keys, heartbeats.

use std::{collections::BTreeMap, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use tidings_signing::WebhookSecret;
use tidings_testkit::{Behaviour, Received, Receiver};

use crate::world::{ISSUER, MANAGER, World, config};

/// A world whose endpoints may stand on loopback.
async fn world() -> World {
    let mut config = config(true);
    config.url_policy = tidings_egress::Policy::dev();
    World::with(config).await
}

async fn register(world: &World, url: &str, signatures: &[&str]) -> Value {
    let body = json!({
        "events": [101],
        "config": {"url": url, "signatures": signatures, "customHeaders": {"key 1": "Value 1"}},
    });
    world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await.is(201).response()
}

fn secret(response: &Value) -> WebhookSecret {
    WebhookSecret::parse(response["signingSecret"].as_str().unwrap()).unwrap()
}

fn text<'a>(received: &'a Received, name: &str) -> &'a str {
    received.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// The `v1` that a secret would have made of a request.
fn v1(secret: &WebhookSecret, received: &Received) -> String {
    let time = text(received, "webhook-timestamp").parse().unwrap();
    secret.sign_v1(text(received, "webhook-id"), time, &received.body)
}

async fn beat(world: &World, path: &str, receiver: &Receiver) -> Received {
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    let reply = world.send("GET", &format!("{path}/heartbeat"), MANAGER, None).await.is(200);
    tokio::time::pause();
    assert_eq!(reply.response()["healthStatus"], "healthy");
    receiver.received().pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_a_signed_request_and_there_is_one_in_ten_seconds() {
    let world = world().await;
    tokio::time::resume();
    let receiver = Receiver::start().await.unwrap();
    let created = register(&world, &receiver.url("/hook"), &["v1"]).await;
    let id = created["webhookId"].as_str().unwrap();
    let path = format!("/api/v1/Webhooks/{id}/heartbeat");
    let response = world.send("GET", &path, MANAGER, None).await.is(200).response();
    assert_eq!(response["webhookId"], id);
    assert_eq!(response["healthStatus"], "healthy");
    assert_eq!((&response["code"], &response["httpStatus"]), (&json!("DELIVERED"), &json!(200)));
    let [received] = receiver.received().try_into().unwrap();
    assert_eq!(received.method, "POST");
    assert_eq!(text(&received, "webhook-signature"), v1(&secret(&created), &received));
    assert_eq!(text(&received, "x-eds-test"), "true");
    assert_eq!(text(&received, "x-eds-event-code"), "0");
    assert_eq!(text(&received, "key-1"), "Value 1");
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(body["context"]["eventCode"], 0);
    assert_eq!(body["context"]["notificationId"], text(&received, "webhook-id"));
    assert_eq!(body["payload"], json!({}));

    // The other name is the same heartbeat.
    let ping = format!("/eds/api/v1/Webhooks/{id}/ping");
    let reply = world.send("GET", &ping, MANAGER, None).await;
    let wait: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    reply.refuses(429, "RATE_LIMITED", "");
    assert_eq!(receiver.requests(), 1);
    let token = world.token_with(MANAGER, &["eds.read"]);
    let headers = [("authorization", format!("Bearer {token}"))];
    world.send_raw("GET", &path, &headers, None).await.refuses(403, "FORBIDDEN", "");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_unhealthy_and_an_inactive_webhook_is_asked_too() {
    let world = world().await;
    tokio::time::resume();
    let receiver = Receiver::start().await.unwrap();
    receiver.behave(Behaviour::status(503));
    let created = register(&world, &receiver.url("/hook"), &["v1"]).await;
    let path = format!("/api/v1/Webhooks/{}", created["webhookId"].as_str().unwrap());
    let inactive = json!({"webhookStatus": "inactive"});
    world.send("PUT", &format!("{path}/status"), MANAGER, Some(&inactive)).await.is(200);
    let heartbeat = format!("{path}/heartbeat");
    let response = world.send("GET", &heartbeat, MANAGER, None).await.is(200).response();
    assert_eq!(response["healthStatus"], "unhealthy");
    assert_eq!((&response["code"], &response["httpStatus"]), (&json!("HTTP_503"), &json!(503)));
}

#[tokio::test(start_paused = true)]
async fn after_a_rotation_both_secrets_sign_until_the_grace_is_over() {
    let world = world().await;
    let receiver = Receiver::start().await.unwrap();
    let created = register(&world, &receiver.url("/hook"), &["v1"]).await;
    let path = format!("/api/v1/Webhooks/{}", created["webhookId"].as_str().unwrap());
    let rotate = format!("{path}/signingSecret/rotate");
    let body = json!({"graceHours": 1});
    let rotated = world.send("POST", &rotate, MANAGER, Some(&body)).await.is(200).response();
    let (old, new) = (secret(&created), secret(&rotated));
    assert_ne!(old, new);
    let read = world.send("GET", &path, MANAGER, None).await.is(200).response();
    assert!(read.get("signingSecret").is_none());
    let received = beat(&world, &path, &receiver).await;
    let both = format!("{} {}", v1(&old, &received), v1(&new, &received));
    assert_eq!(text(&received, "webhook-signature"), both);
    tokio::time::advance(Duration::from_secs(3600)).await;
    let received = beat(&world, &path, &receiver).await;
    assert_eq!(text(&received, "webhook-signature"), v1(&new, &received));

    // Without grace the old one is gone at once; without a body it is a day.
    let at_once = json!({"graceHours": 0});
    let newest = secret(&world.send("POST", &rotate, MANAGER, Some(&at_once)).await.response());
    let received = beat(&world, &path, &receiver).await;
    assert_eq!(text(&received, "webhook-signature"), v1(&newest, &received));
    for _ in 0..7 {
        world.send("POST", &rotate, MANAGER, None).await.is(200);
    }
    // Eight sign at the same time and no more.
    let reply = world.send("POST", &rotate, MANAGER, None).await;
    assert_eq!(reply.header("retry-after"), "86401");
    reply.refuses(429, "RATE_LIMITED", "");
    for (bad, field) in [
        (json!({"graceHours": -1}), "graceHours"),
        (json!({"graceHours": 721}), "graceHours"),
        (json!({"graceHours": "24"}), "graceHours"),
        (json!({"hours": 1}), "hours"),
    ] {
        let reply = world.send("POST", &rotate, MANAGER, Some(&bad)).await;
        reply.refuses(400, "INVALID_REQUEST_BODY", field);
    }
}

/// The keys at `/.well-known/jwks.json` by their ids.
async fn published(world: &World) -> BTreeMap<String, Vec<u8>> {
    let reply = world.send_raw("GET", "/.well-known/jwks.json", &[], None).await.is(200);
    let document = reply.json();
    let keys = document["keys"].as_array().unwrap().iter().map(|key| {
        assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
        assert_eq!((&key["alg"], &key["use"]), (&json!("EdDSA"), &json!("sig")));
        assert!(key.get("d").is_none(), "no private key is ever published");
        let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        (key["kid"].as_str().unwrap().to_owned(), public)
    });
    keys.collect()
}

/// Whether a `v1a` of the request is made with this key, by an implementation that
/// the product does not use.
fn is_signed_by(public: &[u8], received: &Received) -> bool {
    let mut message =
        format!("{}.{}.", text(received, "webhook-id"), text(received, "webhook-timestamp"))
            .into_bytes();
    message.extend_from_slice(&received.body);
    let public = ed25519_compact::PublicKey::from_slice(public).unwrap();
    text(received, "webhook-signature").split(' ').any(|signature| {
        let Some(signature) = signature.strip_prefix("v1a,") else { return false };
        let signature = STANDARD.decode(signature).unwrap();
        let signature = ed25519_compact::Signature::from_slice(&signature).unwrap();
        public.verify(&message, &signature).is_ok()
    })
}

#[tokio::test(start_paused = true)]
async fn v1a_verifies_with_the_published_key_alone_or_beside_v1() {
    let world = world().await;
    let receiver = Receiver::start().await.unwrap();
    let plain = register(&world, &receiver.url("/plain"), &["v1"]).await;
    let both = register(&world, &receiver.url("/both"), &["v1", "v1a"]).await;
    let alone = register(&world, &receiver.url("/alone"), &["v1a"]).await;
    assert_eq!(both["config"]["signatures"], json!(["v1", "v1a"]));
    let id = |created: &Value| created["webhookId"].as_str().unwrap().to_owned();
    let path = |created: &Value| format!("/api/v1/Webhooks/{}", id(created));
    let keys = published(&world).await;
    let mut expected = vec![format!("{}.1", id(&both)), format!("{}.1", id(&alone))];
    expected.sort_unstable();
    assert_eq!(keys.keys().cloned().collect::<Vec<_>>(), expected);

    let received = beat(&world, &path(&both), &receiver).await;
    let key_of_both = &keys[&format!("{}.1", id(&both))];
    let key_of_alone = &keys[&format!("{}.1", id(&alone))];
    assert!(text(&received, "webhook-signature").starts_with(&v1(&secret(&both), &received)));
    assert!(is_signed_by(key_of_both, &received));
    assert!(!is_signed_by(key_of_alone, &received));
    let received = beat(&world, &path(&alone), &receiver).await;
    assert!(text(&received, "webhook-signature").starts_with("v1a,"));
    assert!(!text(&received, "webhook-signature").contains(' '));
    assert!(is_signed_by(key_of_alone, &received));

    // A rotation makes a key of its own; both are published and sign in the window.
    let rotate = format!("{}/signingSecret/rotate", path(&alone));
    world.send("POST", &rotate, MANAGER, None).await.is(200);
    let keys = published(&world).await;
    let new = &keys[&format!("{}.2", id(&alone))];
    assert_eq!(&keys[&format!("{}.1", id(&alone))], key_of_alone);
    let received = beat(&world, &path(&alone), &receiver).await;
    assert!(is_signed_by(key_of_alone, &received) && is_signed_by(new, &received));

    // A webhook that turns to v1a gets a key then, and keeps it.
    let update = json!({"events": [101], "config": {
        "url": receiver.url("/plain"), "signatures": ["v1a"],
    }});
    world.send("PUT", &path(&plain), MANAGER, Some(&update)).await.is(200);
    let first = published(&world).await;
    world.send("PUT", &path(&plain), MANAGER, Some(&update)).await.is(200);
    assert_eq!(published(&world).await, first);
    let received = beat(&world, &path(&plain), &receiver).await;
    assert!(is_signed_by(&first[&format!("{}.1", id(&plain))], &received));

    let bad = |signatures: Value| json!({"config": {"url": "https://a.example/", "signatures": signatures}});
    for signatures in [json!([]), json!(["v2"]), json!(["v1", "v1"]), json!("v1"), json!([1])] {
        let reply = world.send("POST", "/api/v1/Webhooks", ISSUER, Some(&bad(signatures))).await;
        reply.refuses(400, "INVALID_REQUEST_BODY", "config.signatures");
    }
}
