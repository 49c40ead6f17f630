//! `POST /ingest/v1/events`.

use bytes::Bytes;
use serde_json::Value;

use crate::stage::{Stage, errors, event, first_code, post};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

fn with(extra: &str) -> String {
    event(&format!(r#"{{"messageId":"m","publicToken":"t"{extra}}}"#))
}

#[tokio::test]
async fn what_is_taken_and_what_is_refused() {
    let stage = Stage::start().await;
    let client = stage.admin();
    let good = with("");
    for content_type in [JSON, "application/json; charset=utf-8", LINES] {
        assert_eq!(post(&client, &good, content_type).await.status, 202, "{content_type}");
    }
    let answer = post(&client, &good, "text/plain").await;
    assert_eq!((answer.status, first_code(&answer).as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    let array = format!("[{good}]");
    let two = format!("{good}\n{good}");
    for (body, content_type) in [
        ("[]", JSON),
        ("", JSON),
        (array.as_str(), JSON),
        (two.as_str(), JSON),
        ("", LINES),
        ("\n\n", LINES),
    ] {
        assert_eq!(
            post(&client, body, content_type).await.status,
            400,
            "{body:.20} {content_type}"
        );
    }

    let context = |context: &str| {
        format!(r#"{{"context":{{{context}}},"payload":{{"messageId":"m","publicToken":"t"}}}}"#)
    };
    let nested =
        |levels: usize| with(&format!(r#","a":{}{}"#, "[".repeat(levels), "]".repeat(levels)));
    let filled = |bytes: usize| {
        let frame = r#"{"messageId":"m","publicToken":"t","f":""}"#.len();
        with(&format!(r#","f":"{}""#, "x".repeat(bytes - frame)))
    };
    assert_eq!(post(&client, &nested(30), JSON).await.status, 202);
    assert_eq!(post(&client, &filled(256 * 1024), JSON).await.status, 202);
    for (body, code, field) in [
        ("{".to_owned(), "BAD_JSON", ""),
        (context(r#""eventCode":104"#), "BAD_FIELD", "context.programManagerId"),
        (context(r#""programManagerId":20"#), "BAD_FIELD", "context.eventCode"),
        (context(r#""programManagerId":20,"eventCode":"104""#), "BAD_FIELD", "context.eventCode"),
        (context(r#""programManagerId":20,"eventCode":113"#), "UNKNOWN_CODE", "context.eventCode"),
        (
            context(r#""programManagerId":20,"eventCode":104,"productId":999"#),
            "BAD_TENANT",
            "context.productId",
        ),
        (event(r#"{"messageId":"m"}"#), "BAD_FIELD", "payload.publicToken"),
        (event("[]"), "BAD_FIELD", "payload"),
        (with(r#","messageId":"n""#), "DUPLICATE_KEY", "payload.messageId"),
        (nested(31), "TOO_DEEP", "*"),
        (filled(256 * 1024 + 1), "TOO_LARGE", "payload"),
        (with(r#","pan":"4111""#), "FORBIDDEN_DATA", "payload.pan"),
        (with(r#","a":[{"cvv2":123}]"#), "FORBIDDEN_DATA", "payload.a[0].cvv2"),
        (with(r#","pinBlock":"0A1""#), "FORBIDDEN_DATA", "payload.pinBlock"),
    ] {
        let answer = post(&client, &body, JSON).await;
        assert_eq!(answer.status, 400, "{code} {field}");
        let (said, place) = errors(&answer).remove(0);
        assert_eq!(said, code, "{field}");
        assert!(field == "*" || place == field, "{code}: {place} instead of {field}");
        assert_eq!(answer.json().unwrap()["errors"][0]["index"], 0);
    }
    assert_eq!(post(&client, &with(r#","pan":"none""#), JSON).await.status, 202);
    // A tenant that is not known is accounted for as filtered.
    let stranger = good.replace("\"programManagerId\":20", "\"programManagerId\":4711");
    assert_eq!(post(&client, &stranger, JSON).await.status, 202);
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let stage = Stage::start().await;
    let client = stage.admin();
    let good = with("");
    let bad = good.replace("104", "113");
    let answer = post(&client, &format!("{good}\n{bad}\n{good}\n{{\n"), LINES).await;
    let body = answer.json().unwrap();
    let found: Vec<(&Value, &Value)> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (&error["index"], &error["code"]))
        .collect();
    assert_eq!(answer.status, 400);
    assert_eq!(
        format!("{found:?}"),
        r#"[(Number(1), String("UNKNOWN_CODE")), (Number(3), String("BAD_JSON"))]"#
    );
    let account = stage.run(&["account", "--json", "--topic", "tidings.events.104"], "");
    assert!(!account.out.contains(r#""committed":1"#), "{}", account.out);

    assert_eq!(post(&client, &format!("{good}\n").repeat(1000), LINES).await.status, 202);
    let answer = post(&client, &format!("{good}\n").repeat(1001), LINES).await;
    assert_eq!((answer.status, first_code(&answer).as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let most = 4 * 1024 * 1024;
    let exact = format!("{good}\n{}", " ".repeat(most - good.len() - 1));
    assert_eq!(post(&client, &exact, LINES).await.status, 202);
    // The answer is read although the client is still sending.
    for size in [most + 1, 8 * most] {
        let answer = post(&client, &" ".repeat(size), LINES).await;
        assert_eq!((answer.status, first_code(&answer).as_str()), (413, "PAYLOAD_TOO_LARGE"));
    }
}

#[tokio::test]
async fn a_payload_leaves_as_it_came() {
    let stage = Stage::start().await;
    stage.webhook("w", &[104]).await;
    let payload = concat!(
        r#"{ "messageId" : "m","publicToken":"\u0000\ud800 \/é",	"n":1e400,"z" : -0 ,"#,
        r#" "f":1.10,"deep":[ { } ,[]] } "#
    );
    stage.publish(&event(payload)).await;
    let arrived = stage.arrived("w", 1).await.remove(0);
    let text = std::str::from_utf8(&arrived.body).unwrap();
    assert!(text.contains(&format!("\"payload\":{}}}", payload.trim())), "{text}");
}

#[tokio::test]
async fn a_repeat_with_the_same_key_makes_no_second_event() {
    let stage = Stage::start().await;
    stage.webhook("w", &[104]).await;
    let client = stage.admin();
    let mut uids = Vec::new();
    for key in ["k1", "k1", "k2"] {
        let headers = [("content-type", JSON), ("idempotency-key", key)];
        let body = Bytes::from(with(""));
        let answer = client.send("POST", "/ingest/v1/events", &headers, body).await.unwrap();
        let answer = answer.response(202).unwrap();
        uids.push(answer["content"][0]["uid"].as_str().unwrap().to_owned());
    }
    assert_eq!(uids[0], uids[1]);
    assert_ne!(uids[0], uids[2]);
    let mut ids: Vec<_> =
        stage.arrived("w", 2).await.into_iter().map(|request| request.notification).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn a_token_needs_the_scope() {
    let stage = Stage::start().await;
    let client = stage.manager("20");
    let answer = post(&client, &with(""), JSON).await;
    assert_eq!((answer.status, first_code(&answer).as_str()), (403, "FORBIDDEN"));
    let nobody = tidings_e2e::http::Client::new(&stage.base(), "x.y.z").unwrap();
    let answer = post(&nobody, &with(""), JSON).await;
    assert_eq!((answer.status, first_code(&answer).as_str()), (401, "UNAUTHORIZED"));
}
