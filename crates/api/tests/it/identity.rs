//! `config.tls`: certificates and keys that come in, and what is shown of them.

use serde_json::{Value, json};
use tidings_testkit::certificate::{Authority, Identity, Validity};

use crate::world::{MANAGER, World};

fn body(tls: &Value) -> Value {
    json!({"events": [103], "config": {"url": "https://example.com/hook", "tls": tls}})
}

fn tls(client: &Identity) -> Value {
    json!({"clientCertificate": client.certificate_pem(), "clientKey": client.key_pem()})
}

#[tokio::test(start_paused = true)]
async fn a_key_comes_in_is_never_shown_and_stays_where_it_is_masked() {
    let world = World::start().await;
    let authority = Authority::new();
    let client = authority.issue(&["tidings"], Validity::Now);
    let mut sent = tls(&client);
    sent["caBundle"] = authority.root_pem().into();
    let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body(&sent))).await.is(201);
    let created = reply.response();
    let shown = &created["config"]["tls"];
    assert_eq!(shown["clientKey"], "***");
    assert_eq!(shown["clientCertificate"], client.certificate_pem());
    assert_eq!(shown["caBundle"], authority.root_pem());
    assert_eq!(shown["clientCertificateNotAfter"], "4096-01-01T00:00:00Z");
    let path = format!("/api/v1/Webhooks/{}", created["webhookId"].as_str().unwrap());
    let stored = || {
        let snapshot = world.registry.snapshot();
        snapshot.webhooks.values().next().unwrap().tls.clone()
    };
    let before = stored();
    assert_eq!(before.clone().unwrap().client.unwrap().key.expose(), client.key_pem().as_bytes());

    // What was read can be sent back.
    let read = world.send("GET", &path, MANAGER, None).await.is(200).response();
    assert_eq!(read["config"], created["config"]);
    let back = json!({"events": [103], "config": read["config"]});
    let reply = world.send("PUT", &path, MANAGER, Some(&back)).await.is(200);
    assert_eq!(stored(), before);
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("PRIVATE KEY"));

    // The stored key fits its own certificate alone.
    let other = authority.issue(&["other"], Validity::Now);
    let wrong = body(&json!({"clientCertificate": other.certificate_pem(), "clientKey": "***"}));
    let reply = world.send("PUT", &path, MANAGER, Some(&wrong)).await;
    reply.refuses(400, "INVALID_TLS_IDENTITY", "config.tls.clientKey");
    assert_eq!(stored(), before);
    world.send("PUT", &path, MANAGER, Some(&body(&tls(&other)))).await.is(200);
    let after = stored().unwrap();
    assert_eq!(
        (after.ca_bundle, after.client.unwrap().certificate),
        (None, other.certificate_pem())
    );

    // A replacement that names none takes it away.
    let none = json!({"events": [103], "config": {"url": "https://example.com/hook"}});
    let reply = world.send("PUT", &path, MANAGER, Some(&none)).await.is(200);
    assert!(reply.response()["config"].get("tls").is_none());
    assert_eq!(stored(), None);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_refused_with_its_place() {
    let world = World::start().await;
    let authority = Authority::new();
    let one = authority.issue(&["one"], Validity::Now);
    let two = authority.issue(&["two"], Validity::Now);
    let with =
        |certificate: &str, key: &str| json!({"clientCertificate": certificate, "clientKey": key});
    let (pem, key) = (one.certificate_pem(), one.key_pem());
    let own = "INVALID_TLS_IDENTITY";
    let form = "INVALID_REQUEST_BODY";
    let cases = [
        (json!({}), form, "config.tls"),
        (json!([]), form, "config.tls"),
        (json!({"caBundle": 1}), form, "config.tls.caBundle"),
        (json!({"caBundle": pem, "insecure": true}), form, "config.tls.insecure"),
        (json!({"caBundle": "x"}), own, "config.tls.caBundle"),
        (json!({"caBundle": key}), own, "config.tls.caBundle"),
        (json!({"caBundle": "x".repeat(33_000)}), own, "config.tls.caBundle"),
        (json!({"clientCertificate": pem}), own, "config.tls.clientKey"),
        (json!({"clientKey": key}), own, "config.tls.clientCertificate"),
        (with("x", &key), own, "config.tls.clientCertificate"),
        (with(&pem, "x"), own, "config.tls.clientKey"),
        (with(&pem, "***"), own, "config.tls.clientKey"),
        (with(&pem, &two.key_pem()), own, "config.tls.clientKey"),
        (tls(&authority.issue(&["a"], Validity::Past)), own, "config.tls.clientCertificate"),
        (tls(&authority.issue(&["a"], Validity::Future)), own, "config.tls.clientCertificate"),
    ];
    for (tls, code, field) in cases {
        let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body(&tls))).await;
        assert!(!String::from_utf8_lossy(&reply.bytes).contains("MII"), "no value is shown");
        reply.refuses(400, code, field);
    }
    assert!(world.registry.snapshot().webhooks.is_empty());
}
