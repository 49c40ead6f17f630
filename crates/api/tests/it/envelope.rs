//! What all routes have in common: the envelope, tokens, content types, probes.

use serde_json::{Value, json};
use tidings_eventlog::Status;
use tidings_types::Timestamp;

use crate::world::{FOREIGN, MANAGER, World, config};

#[tokio::test(start_paused = true)]
async fn every_error_has_the_envelope_and_the_callers_trace() {
    let world = World::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/api/v1/Webhooks/x/heartbeat", 404, "WEBHOOK_NOT_REGISTERED"),
        ("GET", "/api/v1/Webhooks/x/heartbeats", 404, "NOT_FOUND"),
        ("GET", "/api/v1/Webhooks/a_b/heartbeat", 400, "INVALID_WEBHOOK_ID"),
        ("POST", "/api/v1/Webhooks/x/signingSecret/rotate", 404, "WEBHOOK_NOT_REGISTERED"),
        ("GET", "/api/v1/Webhooks/x/notifications/y/attempts", 404, "WEBHOOK_NOT_REGISTERED"),
        ("POST", "/api/v1/fraudalertresponse", 400, "INVALID_REQUEST_BODY"),
        ("PUT", "/api/v1/Configs", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/v1/Configs/1", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/Configs/1", 404, "CONFIG_NOT_FOUND"),
        ("GET", "/EDS/API/V1/CONFIGS/1/", 404, "CONFIG_NOT_FOUND"),
        ("TRACE", "/api/v1/Webhooks", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/api/v1/Webhooks", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/admin/v1/raw/101", 404, "NOT_FOUND"),
    ] {
        let headers = [("traceparent", trace)];
        let reply = world.send_with(method, path, MANAGER, &headers, None).await;
        let body = reply.json();
        assert_eq!(body["status"], "error", "{method} {path}");
        assert_eq!(reply.refusal().0, status, "{method} {path}");
        assert_eq!(reply.refusal().1, code, "{method} {path}");
        assert!(body["errors"][0]["message"].is_string());
        let id = body["traceId"].as_str().unwrap();
        assert!(id.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{id}");
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(status == 405, !reply.header("allow").is_empty(), "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_by_the_open_routes_only() {
    let world = World::start().await;
    world.send_raw("HEAD", "/healthz", &[], None).await.is(200);
    world.send("HEAD", "/api/v1/Webhooks", MANAGER, None).await.is(405);
}

#[tokio::test(start_paused = true)]
async fn every_route_of_the_description_wants_its_scope() {
    let world = World::start().await;
    let document: Value = world.send_raw("GET", "/openapi.json", &[], None).await.is(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let all = ["eds.read", "eds.write", "eds.publish", "admin"];
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{webhookId}", "af2d48de-2ad7-42f8-a252-8422cd9e6078")
            .replace("{hookId}", "af2d48de-2ad7-42f8-a252-8422cd9e6078")
            .replace("{eventCode}", "101")
            .replace("{name}", "transaction.sale.success")
            .replace("{id}", "1");
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let Some(scope) = operation["x-scope"].as_str() else { continue };
            seen += 1;
            let none = world.send_raw(&method, &path, &[], None).await;
            assert_eq!(none.refusal().1, "UNAUTHORIZED", "{method} {path}");
            let challenge = "Bearer realm=\"tidings\"";
            assert_eq!(none.header("www-authenticate"), challenge);
            let bad = [("authorization", "Bearer x.y.z".to_owned())];
            let bad = world.send_raw(&method, &path, &bad, None).await.is(401);
            let invalid = format!("{challenge}, error=\"invalid_token\"");
            assert_eq!(bad.header("www-authenticate"), invalid);
            let others: Vec<&str> = all.into_iter().filter(|other| *other != scope).collect();
            let token = format!("Bearer {}", world.token_with(MANAGER, &others));
            let lacking = world.send_raw(&method, &path, &[("authorization", token)], None).await;
            assert_eq!(lacking.refusal().1, "FORBIDDEN", "{method} {path}");
            let lacks = format!("{challenge}, error=\"insufficient_scope\", scope=\"{scope}\"");
            assert_eq!(lacking.header("www-authenticate"), lacks);
            let token = format!("Bearer {}", world.token_with(MANAGER, &[scope]));
            let having = world.send_raw(&method, &path, &[("authorization", token)], None).await;
            let (status, code, _) = having.refusal();
            assert!(!["UNAUTHORIZED", "FORBIDDEN", "TECHNICAL_ERROR"].contains(&code.as_str()));
            assert_ne!(status, 405, "{method} {path}");
        }
    }
    assert!(seen > 40, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_json_of_the_right_type_and_size() {
    let world = World::start().await;
    let token = [("authorization", format!("Bearer {}", world.token(MANAGER)))];
    let send = async |kind: &str, body: String| {
        world.send_raw("POST", "/api/v1/Webhooks", &token, Some((kind, body))).await.refusal()
    };
    let good = r#"{"config":{"url":"https://example.com"}}"#;
    let (status, code, _) = send("text/plain", good.to_owned()).await;
    assert_eq!((status, code.as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    let (status, code, _) = send("application/x-ndjson", good.to_owned()).await;
    assert_eq!((status, code.as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    let large = format!(r#"{{"config":"{}"}}"#, "x".repeat(64 * 1024));
    let (status, code, _) = send("application/json", large).await;
    assert_eq!((status, code.as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let deep = format!(r#"{{"config":{}{}}}"#, "[".repeat(16), "]".repeat(16));
    for (body, field) in [
        ("", ""),
        ("{", ""),
        (r#"{"config":{"url":"a"}}{}"#, ""),
        (r#"{"config":1,"config":2}"#, "config"),
        (deep.as_str(), "config[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]"),
    ] {
        let (status, code, at) = send("application/json", body.to_owned()).await;
        assert_eq!(
            (status, code.as_str(), at.as_str()),
            (400, "INVALID_REQUEST_BODY", field),
            "{body}"
        );
    }
    let with_charset = world.send_raw(
        "POST",
        "/api/v1/Webhooks",
        &token,
        Some(("Application/JSON; charset=utf-8", good.to_owned())),
    );
    with_charset.await.is(201);
}

#[tokio::test(start_paused = true)]
async fn regions_and_managers_select_and_never_widen() {
    let world = World::start().await;
    let list = async |who: &str, headers: &[(&str, &str)]| {
        world.send_with("GET", "/api/v1/Webhooks", who, headers, None).await
    };
    list(MANAGER, &[("x-region", "2")]).await.is(200);
    list(MANAGER, &[("x-region", "3")]).await.refuses(400, "INVALID_REGION", "X-Region");
    list(MANAGER, &[("x-pm-code", "TRD")]).await.is(200);
    list(MANAGER, &[("x-pm-code", "20")]).await.is(200);
    list(MANAGER, &[("x-pm-code", "21")]).await.refuses(403, "PMCODE_NOT_VALID", "X-PM-Code");
    list("issuer:7001", &[("x-pm-code", "ABC")]).await.is(200);
    for code in ["XYZ", "30", "nobody", ""] {
        let reply = list("issuer:7001", &[("x-pm-code", code)]).await;
        reply.refuses(400, "PMCODE_NOT_VALID", "X-PM-Code");
    }
    // 403 is for managers' tokens only, also where an issuer speaks of one manager.
    let body = json!({"pmId": 21, "status": "active", "messageTypeFilter": [0]});
    let narrowed = [("x-pm-code", "TRD")];
    let reply =
        world.send_with("POST", "/api/v1/Configs", "issuer:7001", &narrowed, Some(&body)).await;
    reply.refuses(400, "PMCODE_NOT_VALID", "pmId");
    list("", &[]).await.refuses(400, "PMCODE_REQUIRED", "");
    list("", &[("x-pm-code", "TRD")]).await.refuses(403, "PMCODE_NOT_VALID", "X-PM-Code");
    list("issuer:9", &[]).await.refuses(403, "FORBIDDEN", "");
    list("pm:99", &[]).await.refuses(403, "PMCODE_NOT_VALID", "");
    let mut pinned = config(false);
    pinned.region = Some(1);
    let world = World::with(pinned).await;
    let reply =
        world.send_with("GET", "/api/v1/Webhooks", MANAGER, &[("x-region", "0")], None).await;
    reply.refuses(400, "INVALID_REGION", "X-Region");
}

#[tokio::test(start_paused = true)]
async fn the_probes_say_what_they_should() {
    let world = World::start().await;
    let get = async |path: &str| world.send_raw("GET", path, &[], None).await;
    get("/healthz").await.is(200);
    get("/readyz").await.is(200);
    world.writer.set_status(Status { complete: false, progress: 0.5, as_of: Timestamp::ZERO });
    let reply = get("/readyz").await;
    assert_eq!(reply.json()["progress"], json!({"complete": false, "progress": 0.5}));
    reply.refuses(503, "SERVICE_UNAVAILABLE", "");
    get("/healthz").await.is(200);
    world.say_complete();
    world.started.send_replace(false);
    get("/readyz").await.refuses(503, "SERVICE_UNAVAILABLE", "");
    get("/metrics").await.refuses(404, "NOT_FOUND", "");
    let mut public = config(false);
    public.metrics_public = true;
    let world = World::with(public).await;
    let reply = world.send_raw("GET", "/metrics", &[], None).await.is(200);
    assert_eq!(&reply.bytes[..], b"# EOF\n");
}

#[tokio::test(start_paused = true)]
async fn half_a_character_is_refused_where_it_stands() {
    let world = World::start().await;
    let headers = [("authorization", format!("Bearer {}", world.token(MANAGER)))];
    for (custom, field) in [
        (r#"{"a":"\ud800"}"#, "config.customHeaders.a"),
        (r#"{"a":"\\\udc00x"}"#, "config.customHeaders.a"),
        (r#"{"a\ud800":"x"}"#, "config.customHeaders.*"),
    ] {
        let body = format!(
            r#"{{"events":[104],"config":{{"url":"https://example.com/","customHeaders":{custom}}}}}"#
        );
        let body = Some(("application/json", body));
        let reply = world.send_raw("POST", "/api/v1/Webhooks", &headers, body).await;
        reply.refuses(400, "INVALID_REQUEST_BODY", field);
    }
    let body = r#"{"events":[104],"config":{"url":"https://example.com/","customHeaders":{"a":"\\ud800"}}}"#;
    let body = Some(("application/json", body.to_owned()));
    world.send_raw("POST", "/api/v1/Webhooks", &headers, body).await.is(201);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_asks_too_often_is_told_when_to_come_again() {
    let mut limited = config(false);
    limited.rate = tidings_api::Rate { reads: 1, writes: 1, resends_per_hour: 0 };
    let world = World::with(limited).await;
    for _ in 0..10 {
        world.send("GET", "/api/v1/Webhooks", MANAGER, None).await.is(200);
    }
    let refused = world.send("GET", "/api/v1/Webhooks", MANAGER, None).await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.refuses(429, "RATE_LIMITED", "");
    world.send("GET", "/api/v1/Webhooks", FOREIGN, None).await.is(200);
    world.send("GET", "/admin/v1/hooks", "admin", None).await.is(200);
}
