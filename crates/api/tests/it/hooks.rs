//! Hooks of merchants and of the operator.

use serde_json::{Value, json};

use crate::world::{NOON, World};

const PATH: &str = "/admin/v1/hooks";

fn hook() -> Value {
    json!({
        "merchant": "m_9f2", "label": "Till", "url": "https://example.com/till",
        "events": ["transaction.sale.success"],
        "authentication": {"type": "basic", "username": "u", "password": "p"},
        "signature": {"type": "signatureKey"},
        "wireNames": "vendor",
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = hook();
    body[member] = value;
    body
}

#[tokio::test(start_paused = true)]
async fn a_hook_shows_its_key_once_and_its_password_never() {
    let world = World::start().await;
    let created = world.send("POST", PATH, "admin", Some(&hook())).await.is(201).response();
    let key = created["signatureKey"].as_str().unwrap().to_owned();
    assert!(key.starts_with("whk_"));
    let path = format!("{PATH}/{}", created["hookId"].as_str().unwrap());
    let read = world.send("GET", &path, "admin", None).await.is(200).response();
    assert!(read.get("signatureKey").is_none());
    assert_eq!(
        read["authentication"],
        json!({"type": "basic", "username": "u", "password": "***"})
    );
    assert_eq!(read["signature"], json!({"type": "signatureKey"}));
    assert_eq!(read["wireNames"], "vendor");
    assert_eq!(read["status"], "active");
    // What was read may be sent back: the password and the key stay.
    let updated = world.send("PUT", &path, "admin", Some(&read)).await.is(200).response();
    assert!(updated.get("signatureKey").is_none());
    let id = created["hookId"].as_str().unwrap().parse().unwrap();
    let stored = world.registry.snapshot().webhooks[&id].clone();
    assert_eq!(stored.basic.as_ref().unwrap().password.expose(), b"p");
    // A key that is given up and taken again is a new one.
    let none = with("signature", json!({"type": "none"}));
    world.send("PUT", &path, "admin", Some(&none)).await.is(200);
    let again = world.send("PUT", &path, "admin", Some(&hook())).await.is(200).response();
    assert_ne!(again["signatureKey"].as_str().unwrap(), key);
    // A merchant may have any number of hooks.
    world.send("POST", PATH, "admin", Some(&hook())).await.is(201);
    let list = world.send("GET", &format!("{PATH}?merchant=m_9f2"), "admin", None).await.response();
    assert_eq!(list["totalCount"], 2);
    world.send("DELETE", &path, "admin", None).await.is(204);
    world.send("GET", &path, "admin", None).await.refuses(404, "WEBHOOK_NOT_REGISTERED", "hookId");
}

#[tokio::test(start_paused = true)]
async fn a_hook_without_a_merchant_takes_the_platforms_own_events_only() {
    let world = World::start().await;
    let own = world.catalogue.types().find(|kind| kind.is_ops()).unwrap().name().to_owned();
    let operators = json!({"label": "Ops", "url": "https://example.com/ops", "events": [own]});
    let created = world.send("POST", PATH, "admin", Some(&operators)).await.is(201).response();
    assert!(created.get("merchant").is_none());
    let mut bad = operators.clone();
    bad["events"] = json!(["transaction.sale.success"]);
    let reply = world.send("POST", PATH, "admin", Some(&bad)).await;
    reply.refuses(400, "INVALID_EVENTCODE", "events[0]");
    let reply = world.send("POST", PATH, "admin", Some(&with("events", json!([own])))).await;
    reply.refuses(400, "INVALID_EVENTCODE", "events[0]");
}

#[tokio::test(start_paused = true)]
async fn the_table_of_bad_hooks() {
    let world = World::start().await;
    let invalid = "INVALID_REQUEST_BODY";
    for (body, status, code, field) in [
        (json!({}), 400, invalid, "url"),
        (with("extra", 1.into()), 400, invalid, "extra"),
        (with("merchant", "nobody".into()), 400, invalid, "merchant"),
        (with("url", "http://example.com".into()), 400, "INVALID_URL", "url"),
        (with("events", json!([])), 400, "EMPTY_EVENTCODES", "events"),
        (with("events", json!([101])), 400, "INVALID_EVENTCODE", "events[0]"),
        (with("events", json!(["101"])), 404, "EVENTCODE_NOTFOUND", "events[0]"),
        (with("events", json!(["no.such"])), 404, "EVENTCODE_NOTFOUND", "events[0]"),
        (
            with("events", json!(["cau.submitted", "cardupdate.submitted"])),
            400,
            "DUPLICATE_EVENT_IN_EVENT_ARRAY",
            "events[1]",
        ),
        (with("authentication", json!({"type": "oauth"})), 400, invalid, "authentication.type"),
        (
            with("authentication", json!({"type": "basic", "username": "u"})),
            400,
            invalid,
            "authentication.password",
        ),
        (
            with("authentication", json!({"type": "basic", "username": "u:", "password": "p"})),
            400,
            invalid,
            "authentication.username",
        ),
        (
            with("authentication", json!({"type": "basic", "username": "u", "password": "***"})),
            400,
            invalid,
            "authentication.password",
        ),
        (with("signature", json!({"type": "sourceKey"})), 400, invalid, "signature.sourceKeyId"),
        (
            with("signature", json!({"type": "sourceKey", "sourceKeyId": "src9"})),
            400,
            invalid,
            "signature.sourceKeyId",
        ),
        (with("wireNames", "mine".into()), 400, invalid, "wireNames"),
        (with("status", "suspended".into()), 400, "INVALID_STATUS", "status"),
        (with("label", "x".repeat(201).into()), 400, invalid, "label"),
    ] {
        let reply = world.send("POST", PATH, "admin", Some(&body)).await;
        assert_eq!(reply.refusal(), (status, code.to_owned(), field.to_owned()), "{body}");
    }
    let good = with("signature", json!({"type": "sourceKey", "sourceKeyId": "src1"}));
    let created = world.send("POST", PATH, "admin", Some(&good)).await.is(201).response();
    assert!(created.get("signatureKey").is_none());
    let path = format!("{PATH}/{}", created["hookId"].as_str().unwrap());
    let reply = world.send("PUT", &path, "admin", Some(&with("hookId", "x".into()))).await;
    reply.refuses(400, invalid, "hookId");
}

#[tokio::test(start_paused = true)]
async fn a_hooks_history_names_types_and_takes_either_name_of_one() {
    let mut world = World::start().await;
    let body = with("events", json!(["cardupdate.submitted"]));
    let created = world.send("POST", PATH, "admin", Some(&body)).await.is(201).response();
    assert_eq!(created["events"], json!(["cau.submitted"]));
    let id = created["hookId"].as_str().unwrap().to_owned();
    let kind = world.catalogue.get("cau.submitted").unwrap();
    let event: Value = serde_json::from_slice(&kind.sample(NOON, 1, 20, "m_9f2")).unwrap();
    let notification = world.route(&id, &event).await;
    for name in ["cau.submitted", "cardupdate.submitted"] {
        let path = format!("{PATH}/{id}/events/{name}/notifications?from=2024-03-17");
        let response = world.send("GET", &path, "admin", None).await.is(200).response();
        assert_eq!(response["hookId"], id.as_str());
        assert!(response.get("webhookId").is_none());
        let item = &response["content"][0];
        assert_eq!(item["eventType"], "cau.submitted");
        assert_eq!(item["notificationId"], notification.to_string());
        assert_eq!(item["payload"], event, "a merchant's body is the producer's");
    }
    let path = format!("{PATH}/{id}/events/101/notifications?from=2024-03-17");
    world.send("GET", &path, "admin", None).await.refuses(404, "EVENTCODE_NOTFOUND", "name");
    let ids = json!({"notificationIds": [notification.to_string()]});
    let path = format!("{PATH}/{id}/resend");
    let response = world.send("POST", &path, "admin", Some(&ids)).await.is(200).response();
    assert_eq!(response["content"][0]["resendStatus"], "Resend request initiated");
}
