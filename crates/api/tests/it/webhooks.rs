//! Webhooks: a table of good and bad input for each route.

use futures::future::join_all;
use serde_json::{Value, json};
use tidings_api::Config;
use tidings_types::{TopicName, WebhookId, names};

use crate::world::{FOREIGN, ISSUER, MANAGER, World, config};

fn with(member: &str, value: Value) -> Value {
    let mut body = json!({"events": [103], "config": {"url": "https://example.com/hook"}});
    body[member] = value;
    body
}

fn with_config(member: &str, value: Value) -> Value {
    let mut body = with("webhookStatus", "active".into());
    body["config"][member] = value;
    body
}

#[tokio::test(start_paused = true)]
async fn the_documents_own_registration_is_taken() {
    let world = World::start().await;
    // Seed 003.
    let body = json!({
        "events": [112],
        "webhookStatus": "active",
        "config": {
            "url": "https://client_domain.com/webhook",
            "customHeaders": {"key 1": "Value 1"},
        },
    });
    let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await.is(201);
    let created = reply.response();
    assert_eq!(created["webhookid"], created["webhookId"]);
    assert_eq!(created["programManagerCode"], "TRD");
    assert_eq!(created["events"], json!([112]));
    assert_eq!(created["webhookStatus"], "active");
    assert_eq!(created["createdTime"], "2024-03-17T12:00:00Z");
    assert_eq!(created["config"]["customHeaders"], json!({"key 1": "Value 1"}));
    assert_eq!(
        created["config"],
        json!({
            "url": "https://client_domain.com/webhook",
            "customHeaders": {"key 1": "Value 1"},
            "ordering": "none", "stuckKey": "wait", "ladder": "standard", "maxInFlight": 64, "timeoutMs": 15000,
            "signatures": ["v1"], "strictLegacyEnvelope": false,
        })
    );
    assert!(created["signingSecret"].as_str().unwrap().starts_with("whsec_"));

    let path = format!("/api/v1/Webhooks/{}", created["webhookId"].as_str().unwrap());
    let read = world.send("GET", &path, MANAGER, None).await.is(200);
    assert_eq!(read.header("etag"), reply.header("etag"));
    let read = read.response();
    assert!(read.get("signingSecret").is_none(), "the secret is shown once");
    assert!(read.get("webhookid").is_none());
    assert_eq!(read["lastModifiedTime"], "2024-03-17T12:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn the_table_of_bad_registrations() {
    let world = World::start().await;
    let long_url = format!("https://example.com/{}", "a".repeat(240));
    let headers = |json: Value| with_config("customHeaders", json);
    let cases: Vec<(Value, u16, &str, &str)> = vec![
        (json!({}), 400, "INVALID_REQUEST_BODY", "config"),
        (json!([]), 400, "INVALID_REQUEST_BODY", ""),
        (json!({"config": {}}), 400, "INVALID_REQUEST_BODY", "config.url"),
        (json!({"config": "x"}), 400, "INVALID_REQUEST_BODY", "config"),
        (with("extra", 1.into()), 400, "INVALID_REQUEST_BODY", "extra"),
        (with_config("extra", 1.into()), 400, "INVALID_REQUEST_BODY", "config.extra"),
        (with("events", json!([])), 400, "EMPTY_EVENTCODES", "events"),
        (with("events", json!("101")), 400, "INVALID_REQUEST_BODY", "events"),
        (with("events", json!(["101"])), 400, "INVALID_EVENTCODE", "events[0]"),
        (with("events", json!([99])), 400, "INVALID_EVENTCODE", "events[0]"),
        (with("events", json!([1000])), 400, "INVALID_EVENTCODE", "events[0]"),
        (with("events", json!([101.5])), 400, "INVALID_EVENTCODE", "events[0]"),
        (with("events", json!([113])), 404, "EVENTCODE_NOTFOUND", "events[0]"),
        (with("events", json!([113, "x"])), 400, "INVALID_EVENTCODE", "events[1]"),
        (
            with("events", json!([101, 102, 101])),
            400,
            "DUPLICATE_EVENT_IN_EVENT_ARRAY",
            "events[2]",
        ),
        (with("webhookStatus", json!("suspended")), 400, "INVALID_STATUS", "webhookStatus"),
        (with("webhookStatus", json!("on")), 400, "INVALID_STATUS", "webhookStatus"),
        (with("webhookStatus", json!(1)), 400, "INVALID_REQUEST_BODY", "webhookStatus"),
        (with("productId", json!(999)), 400, "PRODUCT_NOT_VALID", "productId"),
        (with("productId", json!(333)), 400, "PRODUCT_NOT_VALID", "productId"),
        (with("productId", json!("x")), 400, "PRODUCT_NOT_VALID", "productId"),
        (with("productId", json!(-1)), 400, "PRODUCT_NOT_VALID", "productId"),
        (with("productId", json!(true)), 400, "INVALID_REQUEST_BODY", "productId"),
        (with("programManagerCode", json!("XYZ")), 403, "PMCODE_NOT_VALID", "programManagerCode"),
        (with_config("url", json!(7)), 400, "INVALID_REQUEST_BODY", "config.url"),
        (with_config("url", json!("")), 400, "INVALID_URL", "config.url"),
        (with_config("url", json!("/hook")), 400, "INVALID_URL", "config.url"),
        (with_config("url", json!("http://example.com")), 400, "INVALID_URL", "config.url"),
        (with_config("url", json!("https://127.0.0.1/")), 400, "INVALID_URL", "config.url"),
        (with_config("url", json!("https://u:p@example.com")), 400, "INVALID_URL", "config.url"),
        (with_config("url", json!(long_url)), 400, "INVALID_URL", "config.url"),
        (headers(json!([])), 400, "INVALID_REQUEST_BODY", "config.customHeaders"),
        (headers(json!({"a": 1})), 400, "INVALID_REQUEST_BODY", "config.customHeaders.a"),
        (headers(json!({"Host": "x"})), 400, "INVALID_CUSTOM_HEADER", "config.customHeaders.Host"),
        (
            headers(json!({"Authorization": "***"})),
            400,
            "INVALID_CUSTOM_HEADER",
            "config.customHeaders.Authorization",
        ),
        (
            headers(json!({"a": "1", "b": "2", "c": "3", "d": "4"})),
            400,
            "EXCEEDS_MAXIMUM_CUSTOM_HEADER_LIMIT",
            "config.customHeaders",
        ),
        (with_config("ordering", json!("perkey")), 400, "INVALID_REQUEST_BODY", "config.ordering"),
        (with_config("stuckKey", json!(1)), 400, "INVALID_REQUEST_BODY", "config.stuckKey"),
        (
            with_config("rateLimitPerSecond", json!(0)),
            400,
            "INVALID_REQUEST_BODY",
            "config.rateLimitPerSecond",
        ),
        (
            with_config("signatures", json!(["v1", "v2"])),
            400,
            "INVALID_REQUEST_BODY",
            "config.signatures",
        ),
        (with_config("signatures", json!([])), 400, "INVALID_REQUEST_BODY", "config.signatures"),
        (with_config("ladder", json!("none")), 400, "INVALID_REQUEST_BODY", "config.ladder"),
        (with_config("maxInFlight", json!(0)), 400, "INVALID_REQUEST_BODY", "config.maxInFlight"),
        (with_config("maxInFlight", json!(257)), 400, "INVALID_REQUEST_BODY", "config.maxInFlight"),
        (with_config("timeoutMs", json!(999)), 400, "INVALID_REQUEST_BODY", "config.timeoutMs"),
        (with_config("timeoutMs", json!(45_001)), 400, "INVALID_REQUEST_BODY", "config.timeoutMs"),
        (
            with_config("strictLegacyEnvelope", json!("yes")),
            400,
            "INVALID_REQUEST_BODY",
            "config.strictLegacyEnvelope",
        ),
    ];
    for (body, status, code, field) in cases {
        let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await;
        assert_eq!(reply.refusal(), (status, code.to_owned(), field.to_owned()), "{body}");
    }
    let list = world.send("GET", "/api/v1/Webhooks", MANAGER, None).await.is(200).response();
    assert_eq!(list, json!({"content": [], "totalCount": 0}), "nothing was stored");
    let topics = world.broker.topics().await.unwrap();
    assert!(
        !topics.iter().any(|topic| topic.name.as_str().starts_with(names::DELIVERY_PREFIX)),
        "no topic was made"
    );
}

#[tokio::test(start_paused = true)]
async fn a_webhook_has_its_topic_with_a_partition_for_each_lane_that_it_wants() {
    let world = World::start().await;
    let partitions = async |id: &str| {
        let topic: TopicName = names::delivery(id.parse::<WebhookId>().unwrap());
        world.broker.describe(&topic).await.unwrap().partitions
    };
    let standard = world.webhook(MANAGER, &[103, 112]).await;
    assert_eq!(partitions(&standard).await, 1);
    let urgent = world.webhook(ISSUER, &[101]).await;
    assert_eq!(partitions(&urgent).await, 2);
    let path = format!("/api/v1/Webhooks/{standard}/subscriptions");
    world.send("PUT", &path, MANAGER, Some(&json!({"events": [107]}))).await.is(200);
    assert_eq!(partitions(&standard).await, 2, "the urgent lane is added before it is wanted");
}

#[tokio::test(start_paused = true)]
async fn a_second_webhook_of_the_same_scope_and_product_is_refused() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let body = with("productId", json!("345678"));
    let product = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await.is(201);
    assert_eq!(product.response()["productId"], 345_678);
    for body in [with("events", json!([101])), body] {
        let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await;
        reply.refuses(409, "DUPLICATE_WEBHOOK", "productId");
    }
    // The issuer's own is another scope, and so is a manager's that was deleted.
    world.webhook(ISSUER, &[103]).await;
    let path = format!("/api/v1/Webhooks/{id}");
    world.send("DELETE", &path, MANAGER, None).await.is(204);
    world.send("GET", &path, MANAGER, None).await.refuses(
        404,
        "WEBHOOK_NOT_REGISTERED",
        "webhookId",
    );
    world.webhook(MANAGER, &[103]).await;
    // Taking a product that another webhook has is refused as well.
    let mine = world.send("GET", "/api/v1/Webhooks", MANAGER, None).await.response();
    let other = mine["content"]
        .as_array()
        .unwrap()
        .iter()
        .find(|webhook| webhook.get("productId").is_none())
        .unwrap();
    let path = format!("/api/v1/Webhooks/{}", other["webhookId"].as_str().unwrap());
    let reply = world.send("PUT", &path, MANAGER, Some(&with("productId", 345_678.into()))).await;
    reply.refuses(409, "DUPLICATE_WEBHOOK", "productId");
}

#[tokio::test(start_paused = true)]
async fn under_dev_a_scope_may_have_many_webhooks() {
    let world = World::with(config(true)).await;
    for _ in 0..3 {
        world.webhook(MANAGER, &[103]).await;
    }
    let first = world.send("GET", "/api/v1/Webhooks?limit=2", MANAGER, None).await.response();
    assert_eq!(first["totalCount"], 3);
    assert_eq!(first["content"].as_array().unwrap().len(), 2);
    let path = format!("/api/v1/Webhooks?cursor={}", first["nextCursor"].as_str().unwrap());
    let second = world.send("GET", &path, MANAGER, None).await.response();
    assert_eq!(second["content"].as_array().unwrap().len(), 1);
    assert!(second.get("nextCursor").is_none());
    let narrowed = world.send("GET", &format!("{path}&status=active"), MANAGER, None).await;
    narrowed.refuses(400, "INVALID_CURSOR", "cursor");
    world.send("GET", &path, "issuer:7001", None).await.refuses(400, "INVALID_CURSOR", "cursor");
    for (query, code, field) in [
        ("limit=0", "INVALID_COUNT", "limit"),
        ("limit=101", "INVALID_COUNT", "limit"),
        ("cursor=x", "INVALID_CURSOR", "cursor"),
        ("status=on", "INVALID_STATUS", "status"),
        ("productId=x", "PRODUCT_NOT_VALID", "productId"),
    ] {
        let reply = world.send("GET", &format!("/api/v1/Webhooks?{query}"), MANAGER, None).await;
        reply.refuses(400, code, field);
    }
    let none = world.send("GET", "/api/v1/Webhooks?status=inactive", MANAGER, None).await;
    assert_eq!(none.response()["totalCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn an_update_replaces_everything_and_keeps_masked_values() {
    let world = World::start().await;
    let mut body = with_config("customHeaders", json!({"Authorization": "Bearer x", "X-A": "1"}));
    body["config"]["maxInFlight"] = 7.into();
    let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await.is(201);
    let created = reply.response();
    let path = format!("/api/v1/Webhooks/{}", created["webhookId"].as_str().unwrap());
    let read = world.send("GET", &path, MANAGER, None).await.response();
    assert_eq!(
        read["config"]["customHeaders"],
        json!({"Authorization": "***", "X-A": "1"}),
        "a secret is never shown again"
    );

    // What was read may be sent back as it is, with a change.
    let mut next = read.clone();
    next["events"] = json!([104]);
    let updated = world.send("PUT", &path, MANAGER, Some(&next)).await.is(200);
    assert_eq!(updated.response()["events"], json!([104]));
    assert_eq!(updated.response()["config"], read["config"]);
    let id: WebhookId = created["webhookId"].as_str().unwrap().parse().unwrap();
    let stored = world.registry.snapshot().webhooks[&id].clone();
    let authorization = stored.headers.iter().find(|header| header.secret).unwrap();
    assert_eq!(authorization.value.expose(), b"Bearer x");
    assert_ne!(updated.header("etag"), reply.header("etag"));

    // What is left out goes back to its default.
    let bare = json!({"events": [104], "config": {"url": "https://example.com/2"}});
    let updated = world.send("PUT", &path, MANAGER, Some(&bare)).await.is(200).response();
    assert_eq!(updated["config"]["customHeaders"], json!({}));
    assert_eq!(updated["config"]["maxInFlight"], 64);
    assert_eq!(updated["webhookStatus"], "active");
}

#[tokio::test(start_paused = true)]
async fn the_table_of_bad_updates() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let path = format!("/api/v1/Webhooks/{id}");
    let no_events = json!({"config": {"url": "https://example.com"}});
    for (body, status, code, field) in [
        (no_events.clone(), 400, "EMPTY_EVENTCODES", "events"),
        (with("events", json!([])), 400, "EMPTY_EVENTCODES", "events"),
        (with("webhookId", "x".into()), 400, "INVALID_REQUEST_BODY", "webhookId"),
        (with("createdTime", "x".into()), 400, "INVALID_REQUEST_BODY", "createdTime"),
        (with("webhookStatus", "suspended".into()), 400, "INVALID_STATUS", "webhookStatus"),
        (with("programManagerCode", "ABC".into()), 403, "PMCODE_NOT_VALID", "programManagerCode"),
        (with("productId", 333.into()), 400, "PRODUCT_NOT_VALID", "productId"),
        (with("signingSecret", "x".into()), 400, "INVALID_REQUEST_BODY", "signingSecret"),
    ] {
        let reply = world.send("PUT", &path, MANAGER, Some(&body)).await;
        assert_eq!(reply.refusal(), (status, code.to_owned(), field.to_owned()), "{body}");
    }
    for (who, path, status, code) in [
        (FOREIGN, path.as_str(), 404, "WEBHOOK_NOT_REGISTERED"),
        (MANAGER, "/api/v1/Webhooks/1234", 404, "WEBHOOK_NOT_REGISTERED"),
        (MANAGER, "/api/v1/Webhooks/a%2Fb", 400, "INVALID_WEBHOOK_ID"),
        (MANAGER, "/api/v1/Webhooks/..%2F..%2Fetc", 400, "INVALID_WEBHOOK_ID"),
    ] {
        let reply = world.send("PUT", path, who, Some(&with("events", json!([103])))).await;
        reply.refuses(status, code, "webhookId");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_if_match_changes_nothing() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let path = format!("/api/v1/Webhooks/{id}");
    let etag = world.send("GET", &path, MANAGER, None).await.header("etag").to_owned();
    let body = with("events", json!([104]));
    let fresh = [("if-match", etag.as_str())];
    world.send_with("PUT", &path, MANAGER, &fresh, Some(&body)).await.is(200);
    for tag in [etag.as_str(), "\"0\"", "x", &format!("W/{etag}")] {
        let stale = [("if-match", tag)];
        let reply = world.send_with("PUT", &path, MANAGER, &stale, Some(&body)).await;
        reply.refuses(412, "PRECONDITION_FAILED", "If-Match");
        let reply = world.send_with("DELETE", &path, MANAGER, &stale, None).await;
        reply.refuses(412, "PRECONDITION_FAILED", "If-Match");
    }
    world.send_with("DELETE", &path, MANAGER, &[("if-match", "*")], None).await.is(204);
}

#[tokio::test(start_paused = true)]
async fn the_status_changes_by_put_and_patch_and_not_to_itself() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let path = format!("/eds/api/v1/webhooks/{id}/STATUS/");
    let body = |status: &str| json!({"webhookStatus": status});
    let reply = world.send("PUT", &path, MANAGER, Some(&body("active"))).await;
    reply.refuses(409, "CURRENT_STATUS_IS_SAME_AS_ENTERED_STATUS", "webhookStatus");
    let reply = world.send("PATCH", &path, MANAGER, Some(&body("inactive"))).await.is(200);
    assert_eq!(reply.response()["webhookStatus"], "inactive");
    let reply = world.send("PUT", &path, MANAGER, Some(&body("suspended"))).await;
    reply.refuses(400, "INVALID_STATUS", "webhookStatus");
    let reply = world.send("PUT", &path, MANAGER, Some(&json!({}))).await;
    reply.refuses(400, "INVALID_REQUEST_BODY", "webhookStatus");
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_added_and_removed_all_or_none() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[101]).await;
    let path = format!("/api/v1/Webhooks/{id}/subscriptions");
    let events = |codes: Value| json!({"events": codes});
    let added = world
        .send("PUT", &path, MANAGER, Some(&events(json!([102, {"eventCode": 103}]))))
        .await
        .is(200);
    assert_eq!(
        added.response(),
        json!({"webhookId": id, "responseStatus": "Webhook events updated"})
    );
    for (method, body, status, code, field) in [
        ("PUT", events(json!([104, 101])), 409, "SUBSCRIBED_EVENTCODE", "events[1]"),
        ("POST", events(json!([104, 104])), 400, "DUPLICATE_EVENTCODE", "events[1]"),
        ("PUT", events(json!([])), 400, "EMPTY_EVENTCODES", "events"),
        ("PUT", events(json!([113])), 404, "EVENTCODE_NOTFOUND", "events[0]"),
        ("PUT", events(json!(["104"])), 400, "INVALID_EVENTCODE", "events[0]"),
        ("PUT", json!({}), 400, "INVALID_REQUEST_BODY", "events"),
        ("PUT", events(json!([{"code": 104}])), 400, "INVALID_REQUEST_BODY", "events[0].code"),
        ("DELETE", events(json!([101, 104])), 404, "EVENTCODE_NOT_SUBSCRIBED", "events[1]"),
    ] {
        let reply = world.send(method, &path, MANAGER, Some(&body)).await;
        assert_eq!(reply.refusal(), (status, code.to_owned(), field.to_owned()), "{body}");
    }
    let codes = async || {
        let reply = world.send("GET", &path, MANAGER, None).await.is(200).response();
        let content = reply["content"].as_array().unwrap().clone();
        assert!(content.iter().all(|item| item["description"].is_string()));
        content.iter().map(|item| item["eventCode"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(codes().await, [101, 102, 103], "nothing was changed by the refused ones");
    world.send("DELETE", &path, MANAGER, Some(&events(json!([101, 102])))).await.is(200);
    world.send("DELETE", &format!("{path}/103"), MANAGER, None).await.is(200);
    assert_eq!(codes().await, [] as [u64; 0]);
    for (code, status, expected) in [
        ("103", 404, "EVENTCODE_NOT_SUBSCRIBED"),
        ("113", 404, "EVENTCODE_NOTFOUND"),
        ("0103", 400, "INVALID_EVENTCODE"),
        ("x", 400, "INVALID_EVENTCODE"),
    ] {
        let reply = world.send("DELETE", &format!("{path}/{code}"), MANAGER, None).await;
        reply.refuses(status, expected, "eventCode");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_gives_the_first_answer_and_another_body_is_refused() {
    let world = World::start().await;
    let body = with("events", json!([103]));
    let key = [("idempotency-key", "one")];
    let first =
        world.send_with("POST", "/api/v1/Webhooks", MANAGER, &key, Some(&body)).await.is(201);
    let id = first.response()["webhookId"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/Webhooks/{id}");
    world.send("PUT", &path, MANAGER, Some(&with("events", json!([104])))).await.is(200);
    let again =
        world.send_with("POST", "/api/v1/Webhooks", MANAGER, &key, Some(&body)).await.is(201);
    assert_eq!(again.bytes, first.bytes, "with the secret, and as it was then");
    assert_eq!(first.header("etag"), "\"1\"");
    assert_eq!(first.header("location"), path);
    for name in ["etag", "location"] {
        assert_eq!(again.header(name), first.header(name));
    }
    let other = with("events", json!([105]));
    let reply = world.send_with("POST", "/api/v1/Webhooks", MANAGER, &key, Some(&other)).await;
    reply.refuses(422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key");
    // The same key of another tenant with the same subject is another key.
    let reply = world.send_with("POST", "/api/v1/Webhooks", FOREIGN, &key, Some(&body)).await;
    assert_ne!(reply.is(201).response()["webhookId"], id.as_str());
    let long = "x".repeat(256);
    for bad in ["", "a b", "a\tb", &long] {
        let bad = [("idempotency-key", bad)];
        let reply = world.send_with("POST", "/api/v1/Webhooks", MANAGER, &bad, Some(&body)).await;
        reply.refuses(400, "INVALID_IDEMPOTENCY_KEY", "Idempotency-Key");
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_come_at_once_a_scope_takes_what_it_has_places_for() {
    for per_scope in [1, 3] {
        let world = World::with(Config { webhooks_per_scope: per_scope, ..config(false) }).await;
        let body = with("events", json!([103]));
        let created =
            join_all((0..12).map(|_| world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body))))
                .await;
        let refused = created.iter().filter(|reply| reply.status != 201);
        for reply in refused.clone() {
            assert_eq!(reply.refusal(), (409, "DUPLICATE_WEBHOOK".into(), "productId".into()));
        }
        assert_eq!(refused.count(), 12 - per_scope);
        let listed = world.send("GET", "/api/v1/Webhooks", MANAGER, None).await.is(200).response();
        assert_eq!(listed["totalCount"], per_scope);

        // One that goes frees its place; one that changes keeps its own.
        let id = |at: usize| listed["content"][at]["webhookId"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/Webhooks/{}", id(per_scope - 1));
        world.send("PUT", &path, MANAGER, Some(&with("events", json!([104])))).await.is(200);
        world.send("DELETE", &path, MANAGER, None).await.is(204);
        world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await.is(201);
        let reply = world.send("POST", "/api/v1/Webhooks", MANAGER, Some(&body)).await;
        reply.refuses(409, "DUPLICATE_WEBHOOK", "productId");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_finds_what_was_made_though_its_answer_was_not_kept() {
    let world = World::start().await;
    let body = with("events", json!([103]));
    let key = [("idempotency-key", "one")];
    let send = || world.send_with("POST", "/api/v1/Webhooks", MANAGER, &key, Some(&body));
    // The process dies as soon as the webhook stands in the registry.
    let mut version = world.registry.subscribe();
    let made = version.wait_for(|_| !world.registry.snapshot().webhooks.is_empty());
    tokio::select! {
        biased;
        made = made => assert!(made.is_ok()),
        _ = send() => panic!("the answer came first"),
    }
    let told = send().await.is(201).response();
    assert_eq!(told, send().await.is(201).response());
    let snapshot = world.registry.snapshot();
    let made: Vec<String> = snapshot.webhooks.keys().map(ToString::to_string).collect();
    assert_eq!(json!(made), json!([told["webhookId"]]));
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_at_once_are_all_made() {
    let world = World::start().await;
    let path = format!("/api/v1/Webhooks/{}", world.webhook(MANAGER, &[103]).await);
    let body = with("events", json!([104]));
    let replies = join_all((0..20).map(|_| world.send("PUT", &path, MANAGER, Some(&body)))).await;
    for reply in replies {
        reply.is(200);
    }
    assert_eq!(world.send("GET", &path, MANAGER, None).await.header("etag"), "\"21\"");
}
