//! Ingest: batches in, records in event topics out.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidings_broker::{Fault, Faults};
use tidings_catalogue::{Identity, decode, write_uid};
use tidings_registry::to_sealed;
use tidings_types::{Clock as _, EventUid, TopicPartition, names, otp_aad};

use crate::world::{MANAGER, NOON, World, config};

fn alert(token: u64) -> Value {
    json!({
        "context": {"programManagerId": 20, "eventCode": 101},
        "payload": {
            "fraudAlertId": "af2d48de", "transactionId": 98_765, "tokenId": token,
            "transactionAmount": "50.75", "currency": "USD",
            "dateTime": "2024-01-24T14:30:00Z", "notificationMessageContent": "Was it you?",
        },
    })
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_sample_of_every_type_is_taken_and_stands_where_the_answer_says() {
    let world = World::start().await;
    let mut text = String::new();
    let mut topics = Vec::new();
    for (seed, kind) in (1..).zip(world.catalogue.types().filter(|kind| !kind.is_ops())) {
        text.push_str(std::str::from_utf8(&kind.sample(NOON, seed, 20, "m_9f2")).unwrap());
        text.push('\n');
        topics.push(kind.topic());
    }
    let reply = world.publish(&text, &[]).await.is(202).response();
    assert_eq!(reply["accepted"], 39);
    let content = reply["content"].as_array().unwrap();
    for (place, topic) in content.iter().zip(&topics) {
        assert_eq!(place["topic"], topic.as_str());
        assert_eq!(place["offset"], 0);
        assert_eq!(place["uid"].as_str().unwrap().len(), 64);
        let records = world.records(topic).await;
        assert_eq!(records.len(), 1, "{topic}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bytes_are_written_as_they_came_with_the_id_that_the_uid_is_made_of() {
    let world = World::start().await;
    let text = alert(5).to_string().replace("\"50.75\"", " \"50.75\" ");
    let headers = [("authorization", format!("Bearer {}", world.token("")))];
    let body = Some(("application/json", text.clone()));
    let reply = world.send_raw("POST", "/ingest/v1/events", &headers, body).await.is(202);
    let record = world.records(&names::events("101")).await.pop().unwrap();
    assert_eq!(record.value.as_deref(), Some(text.as_bytes()));
    assert_eq!(record.key.as_deref(), Some(b"5".as_slice()));
    let header = |name: &str| {
        let found = record.headers.iter().find(|(key, _)| &**key == name);
        found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
    };
    assert!(header("traceparent").unwrap().starts_with("00-"));
    let id = header("tidings-event-id").unwrap();
    let event = decode(&world.catalogue, Some("101"), text.as_bytes()).unwrap();
    let mut parts = Vec::new();
    write_uid(&event, Identity::Producer(&id), |part| parts.extend_from_slice(part));
    let uid = EventUid(tidings_signing::sha256(&[&parts]));
    assert_eq!(reply.response()["content"][0]["uid"], uid.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_repeat_with_the_same_key_is_the_same_events_and_without_one_new_ones() {
    let world = World::start().await;
    let batch = lines(&[alert(1), alert(1)]);
    let uids = async |headers: &[(&str, &str)]| {
        let reply = world.publish(&batch, headers).await.is(202).response();
        let content = reply["content"].as_array().unwrap().clone();
        content.into_iter().map(|place| place["uid"].to_string()).collect::<Vec<_>>()
    };
    let first = uids(&[("idempotency-key", "k")]).await;
    assert_ne!(first[0], first[1], "two events of one batch are two events");
    assert_eq!(first, uids(&[("idempotency-key", "k")]).await);
    assert_ne!(first, uids(&[("idempotency-key", "l")]).await);
    assert_ne!(uids(&[]).await, uids(&[]).await);
    let mut own = alert(1);
    own["context"]["correlationId"] = "mine".into();
    let own = lines(&[own]);
    let one = world.publish(&own, &[]).await.response()["content"][0]["uid"].clone();
    let two = world.publish(&own, &[("idempotency-key", "k")]).await.response();
    assert_eq!(one, two["content"][0]["uid"]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_event_refuses_the_batch_and_every_bad_one_is_named() {
    let world = World::start().await;
    let mut foreign = alert(3);
    foreign["payload"]["productId"] = 333.into();
    let mut declared = alert(3);
    declared["context"]["productId"] = 111.into();
    let text = format!("{}\nnot json\n\n{}\n{}\n", alert(1), foreign, declared);
    let reply = world.publish(&text, &[]).await.is(400);
    let errors: Vec<_> = reply.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["code"].clone(), error["index"].clone(), error["field"].clone()))
        .collect();
    assert_eq!(
        errors,
        [
            (json!("BAD_JSON"), json!(1), Value::Null),
            (json!("BAD_TENANT"), json!(2), json!("payload.productId")),
            (json!("BAD_TENANT"), json!(3), json!("context.productId")),
        ]
    );
    assert!(world.records(&names::events("101")).await.is_empty(), "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn the_table_of_bad_events() {
    let world = World::start().await;
    let change = |path: &str, value: Value| {
        let mut event = alert(1);
        *event.pointer_mut(path).unwrap() = value;
        event.to_string()
    };
    let add = |member: &str, value: Value| {
        let mut event = alert(1);
        event["payload"][member] = value;
        event.to_string()
    };
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let raw = |member: &str, text: &str| add(member, "HERE".into()).replace("\"HERE\"", text);
    let cases: Vec<(String, &str, &str)> = vec![
        ("[]".to_owned(), "BAD_JSON", ""),
        ("7".to_owned(), "BAD_JSON", ""),
        ("{}{}".to_owned(), "BAD_JSON", ""),
        ("{\"context\":".to_owned(), "BAD_JSON", ""),
        ("{}".to_owned(), "BAD_FIELD", "context"),
        (change("/context/eventCode", 113.into()), "UNKNOWN_CODE", "context.eventCode"),
        (change("/context/eventCode", "101".into()), "BAD_FIELD", "context.eventCode"),
        (change("/context/programManagerId", Value::Null), "BAD_FIELD", "context.programManagerId"),
        (change("/payload/tokenId", Value::Null), "BAD_FIELD", "payload.tokenId"),
        (change("/payload", json!([])), "BAD_FIELD", "payload"),
        (add("pan", "4111111111111111".into()), "FORBIDDEN_DATA", "payload.pan"),
        (add("cvv2", "123".into()), "FORBIDDEN_DATA", "payload.cvv2"),
        (raw("x", &deep(31)), "TOO_DEEP", ""),
        (add("x", "y".repeat(256 << 10).into()), "TOO_LARGE", "payload"),
        (raw("x", "1e400,\"x\":1"), "DUPLICATE_KEY", "payload.x"),
        (
            json!({"type": "event", "event_type": "webhook.suspended", "event_body": {}})
                .to_string(),
            "UNKNOWN_CODE",
            "event_type",
        ),
        (
            json!({"type": "event", "event_type": "nothing.known", "event_body": {}}).to_string(),
            "UNKNOWN_CODE",
            "event_type",
        ),
    ];
    for (event, code, field) in cases {
        let reply = world.publish(&event, &[]).await;
        let shown = event.chars().take(120).collect::<String>();
        let (status, found, at) = reply.refusal();
        assert_eq!((status, found.as_str()), (400, code), "{shown}");
        if !field.is_empty() {
            assert_eq!(at, field, "{shown}");
        }
        assert_eq!(reply.json()["errors"][0]["index"], 0, "{shown}");
    }
    let long = "x".repeat(300);
    for bad in [long.as_str(), "a b"] {
        let reply = world.publish(&alert(1).to_string(), &[("idempotency-key", bad)]).await;
        reply.refuses(400, "BAD_HEADER", "Idempotency-Key");
    }
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_request() {
    let world = World::start().await;
    let headers = [("authorization", format!("Bearer {}", world.token("")))];
    let send = async |kind: &'static str, body: String| {
        world.send_raw("POST", "/ingest/v1/events", &headers, Some((kind, body))).await.refusal()
    };
    let (status, code, _) = send("application/json", lines(&[alert(1), alert(2)])).await;
    assert_eq!((status, code.as_str()), (400, "BAD_JSON"), "two documents are not one event");
    let (status, code, _) = send("application/json", String::new()).await;
    assert_eq!((status, code.as_str()), (400, "BAD_JSON"));
    let (status, code, _) = send("application/x-ndjson", "\n\n".to_owned()).await;
    assert_eq!((status, code.as_str()), (400, "BAD_JSON"));
    let (status, code, _) = send("text/csv", "a,b".to_owned()).await;
    assert_eq!((status, code.as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    let many: Vec<Value> = (0..1001).map(alert).collect();
    let (status, code, _) = send("application/x-ndjson", lines(&many)).await;
    assert_eq!((status, code.as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let (status, code, _) = send("application/x-ndjson", "x".repeat((4 << 20) + 1)).await;
    assert_eq!((status, code.as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let (status, _, _) = send("application/x-ndjson", lines(&many[1..])).await;
    assert_eq!(status, 202);
}

#[tokio::test(start_paused = true)]
async fn a_one_time_code_is_written_sealed_and_only_the_code() {
    let world = World::start().await;
    let kind = world.catalogue.get("107").unwrap();
    let mut event: Value = serde_json::from_slice(&kind.sample(NOON, 1, 20, "m")).unwrap();
    event["payload"]["otpValue"] = "483291".into();
    let plain = event.to_string();
    let reply = world.publish(&plain, &[]).await.is(202).response();
    let record = world.records(&names::events("107")).await.pop().unwrap();
    let value = record.value.unwrap();
    assert_eq!(
        std::str::from_utf8(&value).unwrap(),
        plain.replace("\"483291\"", "\"\""),
        "every other byte is as it came"
    );
    let header = |name: &str| {
        record.headers.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.clone())
    };
    let uid = header("tidings-uid").unwrap();
    assert_eq!(reply["content"][0]["uid"], std::str::from_utf8(&uid).unwrap());
    let sealed: tidings_proto::v1::Sealed =
        tidings_proto::decode(header("tidings-otp").unwrap()).unwrap();
    assert!(sealed.key.starts_with("bucket/"));
    let mut bytes = [0; 32];
    hex::decode_to_slice(&uid, &mut bytes).unwrap();
    let code = world.keys.open(&to_sealed(&sealed).unwrap(), &otp_aad(EventUid(bytes))).await;
    assert_eq!(code.unwrap(), b"\"483291\"");
}

#[tokio::test(start_paused = true)]
async fn equal_order_keys_share_a_partition_written_as_number_or_text() {
    let world = World::start().await;
    let mut as_text = alert(7);
    as_text["payload"]["tokenId"] = "7".into();
    let batch = lines(&[alert(7), as_text, alert(7)]);
    let reply = world.publish(&batch, &[]).await.is(202).response();
    let content = reply["content"].as_array().unwrap();
    assert_eq!(content[0]["partition"], content[1]["partition"]);
    let offsets: Vec<_> = content.iter().map(|place| place["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [0, 1, 2], "in the order of the batch");
}

#[tokio::test(start_paused = true)]
async fn raw_lines_are_written_unchecked_under_dev_only() {
    let world = World::with(config(true)).await;
    let headers = [("authorization", format!("Bearer {}", world.token("")))];
    let body = Some(("application/x-ndjson", "garbage\n{\"a\":1}\n".to_owned()));
    let reply = world.send_raw("POST", "/admin/v1/raw/tidings.events.103", &headers, body).await;
    assert_eq!(reply.is(202).response()["accepted"], 2);
    assert_eq!(world.records(&names::events("103")).await.len(), 2);
    for topic in ["nothing", "tidings.registry", "a%2Fb"] {
        let body = Some(("application/x-ndjson", "x".to_owned()));
        let path = format!("/admin/v1/raw/{topic}");
        let reply = world.send_raw("POST", &path, &headers, body).await;
        reply.refuses(404, "NOT_FOUND", "topic");
    }
}

/// A log that takes an hour for events, and for nothing else.
#[derive(Debug)]
struct Away;

impl Faults for Away {
    fn on_append(&self, to: &TopicPartition, _records: usize) -> Option<Fault> {
        let is_event = to.topic.as_str().starts_with(names::EVENTS_PREFIX);
        is_event.then_some(Fault::Slow(Duration::from_secs(3600)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_is_503_soon() {
    let world = World::with_faults(config(false), Some(Arc::new(Away))).await;
    let event = json!({"context": {"programManagerId": 20, "eventCode": 104},
        "payload": {"messageId": "m", "publicToken": "t"}});
    let started = world.clock.monotonic();
    let reply = world.send("POST", "/ingest/v1/events", "", Some(&event)).await;
    assert_eq!(reply.header("retry-after"), "1");
    reply.refuses(503, "SERVICE_UNAVAILABLE", "");
    assert!(world.clock.monotonic().since(started) < Duration::from_secs(15));
    world.send("GET", "/api/v1/Webhooks", MANAGER, None).await.is(200);
}
