//! Webhooks whose endpoints want a token of their authorization server (npm
//! `oidc-provider`), delivered to by the real binary.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tidings_e2e::wait_for;
use tidings_testkit::{Behaviour, Received, Receiver};

use crate::{
    authorization::{Provider, key_pair},
    stage::{PATIENCE, Stage, event},
};

const SECRET: &str = "S3cret+of/the=client%of:a&merchant";

/// An authorization server with a client for each way to prove who it is.
fn provider(key: &ed25519_compact::KeyPair) -> Provider {
    let secret = |id: &str, method: &str| {
        json!({
            "client_id": id, "client_secret": SECRET, "scope": "eds.read",
            "token_endpoint_auth_method": method,
        })
    };
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k1",
        "x": URL_SAFE_NO_PAD.encode(*key.pk),
    });
    Provider::with(&json!({
        "clients": [
            secret("basic", "client_secret_basic"),
            secret("post", "client_secret_post"),
            {
                "client_id": "key", "scope": "eds.read", "jwks": {"keys": [jwk]},
                "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": "EdDSA",
            },
        ],
        "claims": {},
    }))
}

/// The claims of the token of a request.
fn token(received: &Received) -> Value {
    let header = received.headers["authorization"].to_str().unwrap();
    let token = header.strip_prefix("Bearer ").unwrap();
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// A webhook at `url` that signs in like this.
async fn webhook(stage: &Stage, url: &str, authentication: &Value) -> Value {
    let config = json!({"url": url, "authentication": authentication});
    let body = json!({"events": [104], "config": config});
    let made = stage.manager("20").json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    let made = made.response(201).unwrap();
    let shown = made["config"]["authentication"].to_string();
    assert!(!shown.contains(SECRET) && !shown.contains("PRIVATE"), "{shown}");
    made
}

#[tokio::test]
async fn each_way_to_sign_in_gets_a_token_that_stays_until_it_is_refused() {
    let key = key_pair();
    let provider = provider(&key);
    let token_url = format!("{}/token", provider.issuer);
    let stage = Stage::start().await;
    // PKCS #8 of an Ed25519 key: a fixed head and the seed.
    let mut der = hex::decode("302e020100300506032b657004220420").unwrap();
    der.extend_from_slice(&*key.sk.seed());
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(der)
    );
    let secret = |id: &str| {
        json!({
            "type": "oauth2", "tokenUrl": token_url, "clientId": id, "clientSecret": SECRET,
            "method": format!("client_secret_{id}"), "scope": "eds.read",
        })
    };
    let signed = json!({
        "type": "oauth2", "tokenUrl": token_url, "clientId": "key", "privateKey": pem,
        "keyId": "k1", "method": "private_key_jwt",
    });
    for (id, authentication) in
        [("basic", secret("basic")), ("post", secret("post")), ("key", signed)]
    {
        let receiver = Receiver::start().await.unwrap();
        let made = webhook(&stage, &receiver.url("/"), &authentication).await;
        for number in 0..3 {
            let payload = format!(r#"{{"messageId":"{id}{number}","publicToken":"t"}}"#);
            stage.publish(&event(&payload)).await;
            assert!(receiver.wait_for_requests(number + 1, PATIENCE).await, "{id}");
        }
        let received = receiver.received();
        let first = token(&received[0]);
        assert_eq!((&first["client_id"], &first["iss"]), (&json!(id), &json!(provider.issuer)));
        let jti: Vec<_> = received.iter().map(|it| token(it)["jti"].clone()).collect();
        assert!(jti.iter().all(|it| *it == jti[0]), "one token for all of {id}: {jti:?}");

        // The endpoint takes it no longer: the next attempt has a new one.
        receiver.behave_in_turn([Behaviour::status(401), Behaviour::status(200)]);
        stage.publish(&event(r#"{"messageId":"n","publicToken":"t"}"#)).await;
        assert!(receiver.wait_for_requests(5, PATIENCE).await, "{id}");
        let received = receiver.received();
        assert_eq!(token(&received[3])["jti"], jti[0]);
        assert_ne!(token(&received[4])["jti"], jti[0]);

        // A heartbeat signs in too.
        let path = format!("/api/v1/Webhooks/{}", made["webhookId"].as_str().unwrap());
        let manager = stage.manager("20");
        let beat = manager.get(&format!("{path}/heartbeat")).await.unwrap();
        assert_eq!(beat.response(200).unwrap()["code"], "DELIVERED");
        assert_eq!(token(receiver.received().last().unwrap())["client_id"], id);
        manager.send("DELETE", &path, &[], bytes::Bytes::new()).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_history_says_why() {
    let key = key_pair();
    let provider = provider(&key);
    let stage = Stage::start().await;
    let receiver = Receiver::start().await.unwrap();
    let wrong = json!({
        "type": "oauth2", "tokenUrl": format!("{}/token", provider.issuer),
        "clientId": "basic", "clientSecret": "not-the-secret",
    });
    let made = webhook(&stage, &receiver.url("/"), &wrong).await;
    stage.publish(&event(r#"{"messageId":"m","publicToken":"t"}"#)).await;
    let path = format!("/api/v1/Webhooks/{}", made["webhookId"].as_str().unwrap());
    let manager = stage.manager("20");
    let today = crate::stage::today(&stage).await;
    let list = format!("{path}/events/104/notifications?from={today}");
    let item = wait_for("the notification to end", PATIENCE, async || {
        let list = manager.get(&list).await?.response(200)?;
        let ended = |item: &&Value| item["notificationStatus"] == "Undelivered";
        Ok(list["content"].as_array().and_then(|list| list.iter().find(ended)).cloned())
    });
    let item = item.await.unwrap();
    assert_eq!(item["lastCode"], "OAUTH_TOKEN_FAILED", "{item}");
    let id = item["notificationId"].as_str().unwrap();
    let attempts = manager.get(&format!("{path}/notifications/{id}/attempts")).await.unwrap();
    let attempts = attempts.response(200).unwrap();
    let said = attempts["content"][0]["responseSnippet"].as_str().unwrap();
    assert!(said.starts_with("the token endpoint answered 401: "), "{said}");
    assert!(said.contains("invalid_client") && !said.contains("not-the-secret"), "{said}");
    assert_eq!(receiver.requests(), 0);

    // With the right one it goes out.
    let mut body = json!({"events": [104], "config": {"url": receiver.url("/")}});
    body["config"]["authentication"] = wrong;
    body["config"]["authentication"]["clientSecret"] = SECRET.into();
    manager.json("PUT", &path, &body).await.unwrap().response(200).unwrap();
    let again = json!({"notificationIds": [id]});
    let resent = manager.json("POST", &format!("{path}/resend"), &again).await.unwrap();
    assert_eq!(resent.status, 200);
    assert!(receiver.wait_for_requests(1, PATIENCE).await);
    assert_eq!(token(&receiver.received()[0])["client_id"], "basic");
}
