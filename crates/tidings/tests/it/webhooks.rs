//! The EDS API: webhooks, subscriptions, configurations, and who sees what.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_e2e::{
    http::{Answer, Client},
    wait_for,
};

use crate::stage::{PATIENCE, Stage, errors, first_code, today};

const WEBHOOKS: &str = "/api/v1/Webhooks";

async fn with(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    client.send(method, path, &all, Bytes::from(body.to_string())).await.unwrap()
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_its_field() {
    let stage = Stage::start().await;
    let client = stage.manager("21");
    let url = stage.receiver.url("w");
    let config = |name: &str, value: Value| {
        let mut config = json!({"url": url});
        config[name] = value;
        json!({"events": [104], "config": config})
    };
    let events = |events: Value| json!({"events": events, "config": {"url": url}});
    let own = |name: &str, value: Value| {
        let mut body = json!({"events": [104], "config": {"url": url}});
        body[name] = value;
        body
    };
    let header = |name: &str, value: &str| config("customHeaders", json!({name: value}));
    for (body, status, code, field) in [
        (own("bogus", json!(1)), 400, "INVALID_REQUEST_BODY", "bogus"),
        (json!({"events": [104]}), 400, "INVALID_REQUEST_BODY", "config"),
        (json!({"events": [104], "config": {}}), 400, "INVALID_REQUEST_BODY", "config.url"),
        (config("bogus", json!(1)), 400, "INVALID_REQUEST_BODY", "config.bogus"),
        (config("url", json!("nowhere")), 400, "INVALID_URL", "config.url"),
        (config("url", json!("ftp://a.example/")), 400, "INVALID_URL", "config.url"),
        (config("url", json!("https://u:p@a.example/")), 400, "INVALID_URL", "config.url"),
        (config("timeoutMs", json!(49)), 400, "INVALID_REQUEST_BODY", "config.timeoutMs"),
        (config("maxInFlight", json!(257)), 400, "INVALID_REQUEST_BODY", "config.maxInFlight"),
        (config("ladder", json!("none")), 400, "INVALID_REQUEST_BODY", "config.ladder"),
        (config("signatures", json!([])), 400, "INVALID_REQUEST_BODY", "config.signatures"),
        (events(json!([])), 400, "EMPTY_EVENTCODES", "events"),
        (events(json!([99])), 400, "INVALID_EVENTCODE", "events[0]"),
        (events(json!([104, "104"])), 400, "INVALID_EVENTCODE", "events[1]"),
        (events(json!([113])), 404, "EVENTCODE_NOTFOUND", "events[0]"),
        (events(json!([104, 104])), 400, "DUPLICATE_EVENT_IN_EVENT_ARRAY", "events[1]"),
        (own("productId", json!(4711)), 400, "PRODUCT_NOT_VALID", "productId"),
        (own("productId", json!(345_678)), 400, "PRODUCT_NOT_VALID", "productId"),
        (own("webhookStatus", json!("suspended")), 400, "INVALID_STATUS", "webhookStatus"),
        (own("programManagerCode", json!("TRD")), 403, "PMCODE_NOT_VALID", "programManagerCode"),
        (header("Host", "x"), 400, "INVALID_CUSTOM_HEADER", "*"),
        (header("X-EDS-Own", "x"), 400, "INVALID_CUSTOM_HEADER", "*"),
        (header("a", "b\r\nc"), 400, "INVALID_CUSTOM_HEADER", "*"),
        (
            config("customHeaders", json!({"a": "", "b": "", "c": "", "d": ""})),
            400,
            "EXCEEDS_MAXIMUM_CUSTOM_HEADER_LIMIT",
            "config.customHeaders",
        ),
    ] {
        let answer = client.json("POST", WEBHOOKS, &body).await.unwrap();
        let (said, place) = errors(&answer).remove(0);
        assert_eq!((answer.status, said.as_str()), (status, code), "{body}");
        assert!(field == "*" || place == field, "{body}: {place}");
    }
    for body in ["", "[]", "{} {}", r#"{"events":[104],"events":[104]}"#] {
        let headers = [("content-type", "application/json")];
        let answer = client.send("POST", WEBHOOKS, &headers, Bytes::from(body)).await.unwrap();
        assert_eq!((answer.status, first_code(&answer).as_str()), (400, "INVALID_REQUEST_BODY"));
    }
    let list = client.get(WEBHOOKS).await.unwrap().response(200).unwrap();
    assert_eq!(list, json!({"content": [], "totalCount": 0}));
}

#[tokio::test]
async fn versions_and_keys_guard_against_double_writes() {
    let mut stage = Stage::start().await;
    let client = stage.manager("20");
    let body = json!({"events": [104], "config": {"url": stage.receiver.url("w")}});
    let other = json!({"events": [103], "config": {"url": stage.receiver.url("w")}});
    let key = [("idempotency-key", "k1")];
    let first = with(&client, "POST", WEBHOOKS, &key, &body).await.response(201).unwrap();
    assert!(first["signingSecret"].as_str().unwrap().starts_with("whsec_"));
    let path = format!("{WEBHOOKS}/{}", first["webhookId"].as_str().unwrap());

    let read = client.get(&path).await.unwrap();
    let tag = read.headers.get("etag").unwrap().to_str().unwrap().to_owned();
    assert_eq!(read.response(200).unwrap()["signingSecret"], Value::Null);
    let fresh = [("if-match", tag.as_str())];
    assert_eq!(with(&client, "PUT", &path, &fresh, &other).await.status, 200);
    let stale = with(&client, "PUT", &path, &fresh, &body).await;
    assert_eq!((stale.status, first_code(&stale).as_str()), (412, "PRECONDITION_FAILED"));
    let empty = json!({"config": {"url": stage.receiver.url("w")}});
    let answer = with(&client, "PUT", &path, &[], &empty).await;
    assert_eq!((answer.status, first_code(&answer).as_str()), (400, "EMPTY_EVENTCODES"));

    assert_eq!(stage.stop().await, Some(0));
    stage.serve().await;
    let client = stage.manager("20");
    let again = with(&client, "POST", WEBHOOKS, &key, &body).await.response(201).unwrap();
    assert_eq!(again, first, "the first answer, also after a restart");
    let reused = with(&client, "POST", WEBHOOKS, &key, &other).await;
    assert_eq!((reused.status, first_code(&reused).as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
}

#[tokio::test]
async fn a_tenant_sees_its_own_and_nothing_else() {
    let stage = Stage::start().await;
    let webhook = stage.webhook("w", &[104]).await;
    let path = format!("{WEBHOOKS}/{}", webhook["webhookId"].as_str().unwrap());
    let scope = ["--scope", "eds.read eds.write"];
    let token = |who: [&str; 2]| stage.client(&[&who[..], &scope].concat());
    let (own, sibling) = (token(["--pm", "20"]), token(["--pm", "21"]));
    let (issuer, foreign) = (token(["--issuer", "7001"]), token(["--issuer", "7002"]));
    let reader = stage.client(&["--pm", "20", "--scope", "eds.read"]);
    for (client, header, status, code) in [
        (&own, None, 200, ""),
        (&issuer, None, 200, ""),
        (&reader, None, 200, ""),
        (&sibling, None, 404, "WEBHOOK_NOT_REGISTERED"),
        (&foreign, None, 404, "WEBHOOK_NOT_REGISTERED"),
        (&own, Some(("x-pm-code", "TRD")), 200, ""),
        (&own, Some(("x-pm-code", "20")), 200, ""),
        (&own, Some(("x-pm-code", "ABC")), 403, "PMCODE_NOT_VALID"),
        (&issuer, Some(("x-pm-code", "TRD")), 200, ""),
        (&issuer, Some(("x-pm-code", "ABC")), 404, "WEBHOOK_NOT_REGISTERED"),
        (&issuer, Some(("x-pm-code", "XYZ")), 400, "PMCODE_NOT_VALID"),
        (&own, Some(("x-region", "2")), 200, ""),
        (&own, Some(("x-region", "3")), 400, "INVALID_REGION"),
    ] {
        let headers: Vec<(&str, &str)> = header.into_iter().collect();
        let answer = client.send("GET", &path, &headers, Bytes::new()).await.unwrap();
        assert_eq!(answer.status, status, "{header:?} {code}");
        if !code.is_empty() {
            assert_eq!(first_code(&answer), code, "{header:?}");
        }
    }
    let answer = reader.send("DELETE", &path, &[], Bytes::new()).await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (403, "FORBIDDEN"));
    let answer = own.get("/api/v1/Nothing").await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (404, "NOT_FOUND"));
    let answer = own.send("DELETE", WEBHOOKS, &[], Bytes::new()).await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (405, "METHOD_NOT_ALLOWED"));
    let lower = path.replace("/api/v1/Webhooks", "/eds/api/v1/webhooks");
    assert_eq!(own.get(&format!("{lower}/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn status_subscriptions_and_history_answer_with_their_codes() {
    let stage = Stage::start().await;
    let webhook = stage.webhook("w", &[104]).await;
    let path = format!("{WEBHOOKS}/{}", webhook["webhookId"].as_str().unwrap());
    let client = stage.manager("20");
    let day = today(&stage).await;
    let history = |code: &str, query: &str| (format!("/events/{code}/notifications{query}"), None);
    let subscriptions = |body: Value| ("/subscriptions".to_owned(), Some(body));
    let status = |body: Value| ("/status".to_owned(), Some(body));
    let ids = |list: Value| ("/notifications".to_owned(), Some(json!({"notificationIds": list})));
    let many = |count: usize| json!((0..count).map(|n| format!("n{n}")).collect::<Vec<_>>());
    for (method, (place, body), expected, code) in [
        (
            "PUT",
            status(json!({"webhookStatus": "active"})),
            409,
            "CURRENT_STATUS_IS_SAME_AS_ENTERED_STATUS",
        ),
        ("PUT", status(json!({"webhookStatus": "suspended"})), 400, "INVALID_STATUS"),
        ("PATCH", status(json!({"webhookStatus": "inactive"})), 200, ""),
        (
            "POST",
            ("/resend".to_owned(), Some(json!({"notificationIds": ["n"]}))),
            409,
            "WEBHOOK_IS_NOT_ACTIVE_IN_STATUS",
        ),
        ("PUT", status(json!({"webhookStatus": "active"})), 200, ""),
        ("PUT", subscriptions(json!({"events": [104]})), 409, "SUBSCRIBED_EVENTCODE"),
        ("PUT", subscriptions(json!({"events": [101, 101]})), 400, "DUPLICATE_EVENTCODE"),
        ("PUT", subscriptions(json!({"events": []})), 400, "EMPTY_EVENTCODES"),
        ("PUT", subscriptions(json!({"events": [113]})), 404, "EVENTCODE_NOTFOUND"),
        (
            "PUT",
            subscriptions(json!({"events": [101, {"eventCode": 102, "description": "x"}]})),
            200,
            "",
        ),
        ("DELETE", ("/subscriptions/101".to_owned(), None), 200, ""),
        ("DELETE", ("/subscriptions/101".to_owned(), None), 404, "EVENTCODE_NOT_SUBSCRIBED"),
        ("DELETE", ("/subscriptions/x".to_owned(), None), 400, "INVALID_EVENTCODE"),
        ("DELETE", subscriptions(json!({"events": [102]})), 200, ""),
        ("GET", history("104", &format!("?from={day}")), 200, ""),
        ("GET", history("104", ""), 400, "INVALID_DATE"),
        ("GET", history("104", "?from=2024-02-30"), 400, "INVALID_DATE"),
        ("GET", history("104", "?from=2999-01-01"), 400, "FUTURE_DATE"),
        ("GET", history("104", &format!("?from={day}&count=0")), 400, "INVALID_COUNT"),
        (
            "GET",
            history("104", &format!("?from={day}&count=101")),
            400,
            "NOTIFICATION_BULK_GET_LIMIT_EXCEEDED",
        ),
        ("GET", history("x", &format!("?from={day}")), 400, "INVALID_EVENTCODE"),
        ("GET", history("113", &format!("?from={day}")), 404, "EVENTCODE_NOTFOUND"),
        ("PUT", ids(json!([])), 400, "IS_REQUIRED_NOTIFICATION_ID"),
        ("PUT", ids(json!(["a", "a"])), 400, "DUPLICATE_NOTIFICATION_ID"),
        ("PUT", ids(json!(["a_b"])), 400, "INVALID_NOTIFICATION_ID"),
        ("PUT", ids(json!(["a"])), 404, "NOTIFICATION_NOTFOUND"),
        ("PUT", ids(many(101)), 400, "NOTIFICATION_BULK_GET_LIMIT_EXCEEDED"),
        (
            "POST",
            ("/resend".to_owned(), Some(json!({"notificationIds": many(26)}))),
            400,
            "NOTIFICATION_RESEND_LIMIT_EXCEEDED",
        ),
    ] {
        let place = format!("{path}{place}");
        let answer = match &body {
            Some(body) => client.json(method, &place, body).await.unwrap(),
            None => client.send(method, &place, &[], Bytes::new()).await.unwrap(),
        };
        assert_eq!(answer.status, expected, "{method} {place} {body:?}");
        if !code.is_empty() {
            assert_eq!(first_code(&answer), code, "{method} {place} {body:?}");
        }
    }
    let answer = client.get(&format!("{path}/subscriptions")).await.unwrap().response(200).unwrap();
    assert_eq!(
        answer["content"],
        json!([{"eventCode": 104, "description": "Custom PAN Creation"}])
    );
    for (id, code) in [("a%20b", "INVALID_WEBHOOK_ID"), ("1234", "WEBHOOK_NOT_REGISTERED")] {
        let answer = client.get(&format!("{WEBHOOKS}/{id}")).await.unwrap();
        assert_eq!(first_code(&answer), code);
    }
}

/// Confirmations of several kinds, of two products; the last one always passes.
async fn publish_confirmations(stage: &Stage) {
    for (id, product, mtid) in [
        ("a", "1", "0100"),
        ("b", "1", "0120"),
        ("c", "345678", "0400"),
        ("d", "345678", "0999"),
        ("last", "1", "0100"),
    ] {
        let payload = json!({
            "network": "Visa", "programManagerCode": "TRD", "token": "t", "transactionAmount": "1",
            "transactionCurrency": "840", "transactionId": id, "transactionType": "A",
            "productId": product, "transactionLifeCycleId": "l", "mtid": mtid,
        });
        let event =
            json!({"context": {"programManagerId": 20, "eventCode": 112}, "payload": payload});
        stage.publish(&event.to_string()).await;
    }
}

#[tokio::test]
async fn configurations_decide_which_confirmations_are_sent() {
    let stage = Stage::start().await;
    stage.webhook("w", &[112]).await;
    let manager = stage.manager("20");
    let issuer = stage.client(&["--issuer", "7001", "--scope", "eds.write"]);
    for (client, body, status, code) in [
        (&manager, json!({"status": "Active", "messageTypeFilter": [1]}), 201, ""),
        (
            &manager,
            json!({"status": "active", "messageTypeFilter": [2]}),
            409,
            "DUPLICATE_CONFIGURATION",
        ),
        (&manager, json!({"status": "on", "messageTypeFilter": [1]}), 400, "INVALID_STATUS"),
        (
            &manager,
            json!({"status": "active", "messageTypeFilter": []}),
            400,
            "INVALID_MESSAGE_TYPE_FILTER",
        ),
        (
            &manager,
            json!({"status": "active", "messageTypeFilter": [7]}),
            400,
            "INVALID_MESSAGE_TYPE_FILTER",
        ),
        (
            &manager,
            json!({"status": "active", "messageTypeFilter": [1], "pmId": 21}),
            403,
            "PMCODE_NOT_VALID",
        ),
        (
            &manager,
            json!({"status": "active", "messageTypeFilter": [1], "productId": 999}),
            400,
            "PRODUCT_NOT_VALID",
        ),
        (
            &issuer,
            json!({"status": "active", "messageTypeFilter": [1], "pmId": 22}),
            400,
            "PMCODE_NOT_VALID",
        ),
        (
            &issuer,
            json!({"status": "active", "messageTypeFilter": [1], "pmId": 20, "productId": 345_678}),
            201,
            "",
        ),
        (
            &manager,
            json!({"status": "active", "messageTypeFilter": [0, 2], "productId": 345_678}),
            201,
            "",
        ),
    ] {
        let answer = client.json("POST", "/eds/api/v1/Configs", &body).await.unwrap();
        assert_eq!(answer.status, status, "{body}");
        if code.is_empty() {
            let answer = answer.response(201).unwrap();
            assert_eq!(answer["totalCount"], 1);
            let item = &answer["content"][0];
            assert_eq!(item["message"], "Configuration created successfully.");
            assert_eq!(item["messageTypeFilter"], body["messageTypeFilter"]);
            assert_eq!(item["status"], "active");
        } else {
            assert_eq!(first_code(&answer), code, "{body}");
        }
    }
    publish_confirmations(&stage).await;
    let mut seen: Vec<String> = stage
        .arrived("w", 3)
        .await
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            body["payload"]["transactionId"].as_str().unwrap().to_owned()
        })
        .collect();
    seen.sort();
    assert_eq!(seen, ["a", "c", "last"]);
    wait_for("the account", PATIENCE, async || {
        let ended = stage.run(&["account", "--json", "--topic", "tidings.events.112"], "");
        Ok(ended.out.contains(r#""filteredBy":{"configuration":2}"#).then_some(()))
    })
    .await
    .unwrap();
}

/// A client that waits for a word before it sends its body is not told to send one that
/// nobody will look at.
#[tokio::test]
async fn a_body_that_is_held_back_is_asked_for_only_when_it_is_wanted() {
    let stage = Stage::start().await;
    let address = stage.base().trim_start_matches("http://").to_owned();
    let token = stage.token(&["--pm", "20", "--scope", "eds.write"]);
    let first_lines = |token: &str, length: usize| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let head = format!(
            "POST /api/v1/Webhooks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\
             expect: 100-continue\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).unwrap();
        if answer == b"HTTP/1.1 100" {
            stream.write_all(b"{}").unwrap();
        }
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        let codes = ["UNAUTHORIZED", "PAYLOAD_TOO_LARGE", "INVALID_REQUEST_BODY"];
        let code = codes.into_iter().find(|code| rest.contains(code));
        (String::from_utf8(answer).unwrap(), code)
    };
    assert_eq!(first_lines("x", 2), ("HTTP/1.1 401".to_owned(), Some("UNAUTHORIZED")));
    let large = first_lines(&token, 1 << 30);
    assert_eq!(large, ("HTTP/1.1 413".to_owned(), Some("PAYLOAD_TOO_LARGE")));
    let wanted = first_lines(&token, 2);
    assert_eq!(wanted, ("HTTP/1.1 100".to_owned(), Some("INVALID_REQUEST_BODY")));
}

#[tokio::test]
async fn a_request_names_its_host_once_or_is_refused() {
    let stage = Stage::start().await;
    let address = stage.base().trim_start_matches("http://").to_owned();
    let token = stage.token(&["--pm", "20", "--scope", "eds.read"]);
    let status = |target: &str, hosts: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\n{hosts}authorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let code = answer.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
        (answer.split(' ').nth(1).unwrap().to_owned(), code.unwrap_or_default().to_owned())
    };
    let good = ("200".to_owned(), String::new());
    let bad = ("400".to_owned(), "INVALID_HOST".to_owned());
    let whole = "http://tidings.example/api/v1/Webhooks";
    assert_eq!(status("/api/v1/Webhooks", "host: a\r\n"), good);
    assert_eq!(status(whole, "host: Tidings.Example\r\n"), good);
    assert_eq!(status("/api/v1/Webhooks", ""), bad);
    assert_eq!(status("/api/v1/Webhooks", "host: a\r\nhost: a\r\n"), bad);
    assert_eq!(status(whole, "host: other.example\r\n"), bad);
}
