//! `config.authentication`: secrets that come in, and what is shown of them.

use serde_json::{Value, json};
use tidings_registry::{OAuthMethod, Webhook};
use tidings_testkit::certificate::Authority;

use crate::world::{MANAGER, World};

const TOKEN_URL: &str = "https://as.example.com/token";

fn body(authentication: &Value) -> Value {
    let config = json!({"url": "https://example.com/hook", "authentication": authentication});
    json!({"events": [103], "config": config})
}

fn oauth() -> Value {
    json!({"type": "oauth2", "tokenUrl": TOKEN_URL, "clientId": "us", "clientSecret": "shh-shh"})
}

fn stored(world: &World) -> Webhook {
    let snapshot = world.registry.snapshot();
    Webhook::clone(snapshot.webhooks.values().next().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_secret_comes_in_is_never_shown_and_stays_where_it_is_masked() {
    let world = World::start().await;
    let reply =
        world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body(&oauth()))).await.is(201);
    let created = reply.response();
    assert_eq!(
        created["config"]["authentication"],
        json!({
            "type": "oauth2", "tokenUrl": TOKEN_URL, "clientId": "us", "clientSecret": "***",
            "method": "client_secret_basic",
        })
    );
    let path = format!("/api/v1/Webhooks/{}", created["webhookId"].as_str().unwrap());
    let put = async |authentication: &Value| {
        world.send("PUT", &path, MANAGER, Some(&body(authentication))).await
    };
    // What was read can be sent back, and another way to show the same secret.
    let mut next = created["config"]["authentication"].clone();
    put(&next).await.is(200);
    next["method"] = "client_secret_post".into();
    next["scope"] = "a b".into();
    put(&next).await.is(200);
    let oauth = stored(&world).oauth.unwrap();
    assert_eq!((oauth.secret.expose(), oauth.method), (&b"shh-shh"[..], OAuthMethod::SecretPost));

    // A secret that nobody may read is sent to no other server.
    next["tokenUrl"] = "https://as.example.org/token".into();
    let reply = put(&next).await;
    reply.refuses(400, "INVALID_AUTHENTICATION", "config.authentication.clientSecret");
    next["clientSecret"] = "another".into();
    put(&next).await.is(200);

    let basic = json!({"type": "basic", "username": "u", "password": "the-password"});
    let reply = put(&basic).await.is(200);
    let shown = json!({"type": "basic", "username": "u", "password": "***"});
    assert_eq!(reply.response()["config"]["authentication"], shown);
    put(&shown).await.is(200);
    let webhook = stored(&world);
    assert_eq!(webhook.basic.unwrap().password.expose(), b"the-password");
    assert_eq!(webhook.oauth, None);

    let reply = put(&json!({"type": "none"})).await.is(200);
    assert!(reply.response()["config"].get("authentication").is_none());
    assert_eq!((stored(&world).basic, stored(&world).oauth), (None, None));
    let reply = put(&shown).await;
    reply.refuses(400, "INVALID_AUTHENTICATION", "config.authentication.password");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_refused_with_its_place() {
    let world = World::start().await;
    let with = |name: &str, value: Value| {
        let mut oauth = oauth();
        oauth[name] = value;
        oauth
    };
    let key = |pem: &str| {
        json!({
            "type": "oauth2", "tokenUrl": TOKEN_URL, "clientId": "us",
            "method": "private_key_jwt", "privateKey": pem,
        })
    };
    let certificate = Authority::new().root_pem();
    let form = "INVALID_REQUEST_BODY";
    let own = "INVALID_AUTHENTICATION";
    let cases = [
        (json!("basic"), form, ""),
        (json!({}), form, ".type"),
        (json!({"type": "bearer"}), form, ".type"),
        (json!({"type": "none", "username": "u"}), form, ".username"),
        (json!({"type": "basic", "username": "a:b", "password": "p"}), form, ".username"),
        (json!({"type": "basic", "username": "u"}), form, ".password"),
        (json!({"type": "basic", "username": "u", "password": "***"}), own, ".password"),
        (with("password", "x".into()), form, ".password"),
        (with("insecure", true.into()), form, ".insecure"),
        (with("tokenUrl", Value::Null), form, ".tokenUrl"),
        (with("tokenUrl", "http://as.example.com/".into()), "INVALID_URL", ".tokenUrl"),
        (with("tokenUrl", "https://127.0.0.1/".into()), "INVALID_URL", ".tokenUrl"),
        (with("clientId", "a b".into()), form, ".clientId"),
        (with("clientSecret", "".into()), form, ".clientSecret"),
        (with("clientSecret", "x".repeat(1025).into()), form, ".clientSecret"),
        (with("clientSecret", "***".into()), own, ".clientSecret"),
        (with("method", "none".into()), form, ".method"),
        (with("scope", "a  b".into()), form, ".scope"),
        (with("scope", "a\\b".into()), form, ".scope"),
        (with("audience", "a b".into()), form, ".audience"),
        (with("privateKey", "x".into()), form, ".privateKey"),
        (with("keyId", "x".into()), form, ".keyId"),
        (with("method", "private_key_jwt".into()), form, ".clientSecret"),
        (key("x"), own, ".privateKey"),
        (key(&certificate), own, ".privateKey"),
        (key("***"), own, ".privateKey"),
    ];
    for (authentication, code, place) in cases {
        let body = body(&authentication);
        let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await;
        assert!(!String::from_utf8_lossy(&reply.bytes).contains("shh"), "no value is shown");
        let (status, first, field) = reply.refusal();
        let place = format!("config.authentication{place}");
        assert_eq!((status, first.as_str()), (400, code), "{authentication} {field}");
        assert_eq!(field, place, "{authentication}");
    }
    let mut both = body(&oauth());
    both["config"]["customHeaders"] = json!({"Authorization": "Bearer x"});
    let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&both)).await;
    reply.refuses(400, form, "config.customHeaders.Authorization");
    assert!(world.registry.snapshot().webhooks.is_empty());
}
