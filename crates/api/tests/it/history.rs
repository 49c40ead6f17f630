//! History and resend.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tidings_eventlog::Status;
use tidings_proto::v1::{self, OutcomeKind};
use tidings_types::{Clock as _, TopicName, WebhookId, names};

use crate::world::{MANAGER, NOON, World, config};

fn event(world: &World, code: &str, seed: u64) -> Value {
    let kind = world.catalogue.get(code).unwrap();
    serde_json::from_slice(&kind.sample(world.clock.now(), seed, 20, "m")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_documents_own_history_shows_the_payload_byte_for_byte() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[101]).await;
    let event = event(&world, "101", 1);
    let first = world.route(&id, &event).await;
    let second = world.route(&id, &event).await;
    world.outcome(&id, first, OutcomeKind::Delivered).await;
    world.fold().await;

    let path = format!("/api/v1/Webhooks/{id}/events/101/notifications?from=2024-03-17&count=10");
    let reply = world.send("GET", &path, MANAGER, None).await.is(200);
    assert!(!reply.header("x-tidings-as-of").is_empty());
    let response = reply.response();
    assert_eq!(response["webhookid"], id.as_str());
    assert_eq!(response["webhookId"], id.as_str());
    let mut content = response["content"].as_array().unwrap().clone();
    content.sort_by_key(|item| item["notificationId"] != first.to_string());
    assert_eq!(
        content[0],
        json!({
            "eventCode": 101,
            "notificationId": first.to_string(),
            "notificationStatus": "Delivered",
            "payload": event["payload"],
            "createdTime": "2024-03-17T12:00:00Z",
            "lastSentTime": "2024-03-17T12:00:00Z",
        })
    );
    assert_eq!(content[1]["notificationStatus"], "Pending");
    assert_eq!(content[1]["lastSentTime"], Value::Null);
    let text = std::str::from_utf8(&reply.bytes).unwrap();
    assert!(text.contains(&event["payload"].to_string()));

    // Details keep the order asked for and leave out what is unknown (seed 001).
    let ids =
        json!({"notificationIds": [second.to_string(), "1212-8543434-232", first.to_string()]});
    let path = format!("/api/v1/Webhooks/{id}/notifications");
    for method in ["PUT", "POST"] {
        let response = world.send(method, &path, MANAGER, Some(&ids)).await.is(200).response();
        assert!(response.get("webhookid").is_none());
        let found: Vec<_> = response["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["notificationId"])
            .collect();
        assert_eq!(found, [&json!(second.to_string()), &json!(first.to_string())]);
    }
    let unknown = json!({"notificationIds": ["1212-8543434-232"]});
    let reply = world.send("PUT", &path, MANAGER, Some(&unknown)).await;
    reply.refuses(404, "NOTIFICATION_NOTFOUND", "notificationIds");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_delivered_is_listed_by_code_with_true_counts() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[101, 103]).await;
    let (alert, change) = (event(&world, "101", 1), event(&world, "103", 1));
    let failed = world.route(&id, &change).await;
    let ended = world.route(&id, &alert).await;
    let delivered = world.route(&id, &alert).await;
    let waiting = world.route(&id, &alert).await;
    world.outcome(&id, failed, OutcomeKind::AttemptFailed).await;
    world.outcome(&id, ended, OutcomeKind::Undelivered).await;
    world.outcome(&id, delivered, OutcomeKind::Delivered).await;
    let path = format!("/api/v1/Webhooks/{id}/notifications/undelivered?from=2024-03-17");
    let response = world.send("GET", &path, MANAGER, None).await.is(200).response();
    assert_eq!(
        response,
        json!({
            "webhookId": id, "webhookid": id,
            "content": [
                {"eventCode": 101, "count": 1, "notificationId": [ended.to_string()]},
                {"eventCode": 103, "count": 1, "notificationId": [failed.to_string()]},
            ],
            "totalCount": 2,
        })
    );
    let ids = json!({"notificationIds": [ended.to_string(), waiting.to_string()]});
    let path = format!("/api/v1/Webhooks/{id}/notifications");
    let content = world.send("PUT", &path, MANAGER, Some(&ids)).await.response()["content"].clone();
    assert_eq!(content[0]["notificationStatus"], "Undelivered");
    assert_eq!(content[0]["reason"], "exhausted");
    assert_eq!(content[0]["lastCode"], "HTTP_503");
    assert!(content[1].get("reason").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_table_of_bad_reads() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[101]).await;
    let base = format!("/api/v1/Webhooks/{id}");
    for (rest, status, code, field) in [
        ("/events/101/notifications", 400, "INVALID_DATE", "from"),
        ("/events/101/notifications?from=17-03-2024", 400, "INVALID_DATE", "from"),
        ("/events/101/notifications?from=2024-03-17T00:00:00Z", 400, "INVALID_DATE", "from"),
        ("/events/101/notifications?from=2024-03-18", 400, "FUTURE_DATE", "from"),
        ("/events/101/notifications?from=2024-03-17&count=0", 400, "INVALID_COUNT", "count"),
        (
            "/events/101/notifications?from=2024-03-17&count=101",
            400,
            "NOTIFICATION_BULK_GET_LIMIT_EXCEEDED",
            "count",
        ),
        ("/events/101/notifications?from=2024-03-17&cursor=x", 400, "INVALID_CURSOR", "cursor"),
        ("/events/5678/notifications?from=2024-03-17", 400, "INVALID_EVENTCODE", "eventCode"),
        ("/events/999/notifications?from=2024-03-17", 404, "EVENTCODE_NOTFOUND", "eventCode"),
        ("/notifications/undelivered", 400, "INVALID_DATE", "from"),
        ("/notifications/undelivered?from=2030-01-01", 400, "FUTURE_DATE", "from"),
    ] {
        let reply = world.send("GET", &format!("{base}{rest}"), MANAGER, None).await;
        assert_eq!(reply.refusal(), (status, code.to_owned(), field.to_owned()), "{rest}");
    }
    // A code that the webhook does not want has an empty list; so has a quiet one.
    for code in ["101", "103"] {
        let path = format!("{base}/events/{code}/notifications?from=2024-03-17");
        let response = world.send("GET", &path, MANAGER, None).await.is(200).response();
        assert_eq!(response["content"], json!([]));
    }
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    let body = json!({"notificationIds": many});
    let reply = world.send("PUT", &format!("{base}/notifications"), MANAGER, Some(&body)).await;
    reply.refuses(400, "NOTIFICATION_BULK_GET_LIMIT_EXCEEDED", "notificationIds");
    let body = json!({"notificationIds": many[..26]});
    let reply = world.send("POST", &format!("{base}/resend"), MANAGER, Some(&body)).await;
    reply.refuses(400, "NOTIFICATION_RESEND_LIMIT_EXCEEDED", "notificationIds");
}

#[tokio::test(start_paused = true)]
async fn a_list_goes_on_where_its_cursor_says() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let mut all = Vec::new();
    for seed in 0..5 {
        let event = event(&world, "103", seed);
        all.push(world.route(&id, &event).await.to_string());
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    world.fold().await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!(
            "/api/v1/Webhooks/{id}/events/103/notifications?from=2024-03-17&count=2{cursor}"
        );
        let response = world.send("GET", &path, MANAGER, None).await.is(200).response();
        for item in response["content"].as_array().unwrap() {
            seen.push(item["notificationId"].as_str().unwrap().to_owned());
        }
        match response["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);

    // Of another list it is none, nor changed by hand.
    let list = |id: &str, code: &str, from: &str, cursor: &str| {
        format!(
            "/api/v1/Webhooks/{id}/events/{code}/notifications?from={from}&count=2&cursor={cursor}"
        )
    };
    let first = list(&id, "103", "2024-03-17", "").replace("&cursor=", "");
    let response = world.send("GET", &first, MANAGER, None).await.is(200).response();
    let cursor = response["nextCursor"].as_str().unwrap();
    let shifted = cursor.replacen("17106", "17105", 1);
    assert_ne!(shifted, cursor);
    let other = world.webhook("issuer:7001", &[103]).await;
    for (path, who) in [
        (list(&other, "103", "2024-03-17", cursor), "issuer:7001"),
        (list(&id, "104", "2024-03-17", cursor), MANAGER),
        (list(&id, "103", "2024-03-16", cursor), MANAGER),
        (list(&id, "103", "2024-03-17", &shifted), MANAGER),
        (list(&id, "103", "2024-03-17", cursor.trim_end_matches(char::is_alphanumeric)), MANAGER),
        (format!("/api/v1/Webhooks?cursor={cursor}"), MANAGER),
        (format!("/api/v1/Configs?cursor={cursor}"), MANAGER),
        (format!("/admin/v1/hooks?cursor={cursor}"), "admin"),
        (format!("/admin/v1/quarantine?cursor={cursor}"), "admin"),
    ] {
        world.send("GET", &path, who, None).await.refuses(400, "INVALID_CURSOR", "cursor");
    }
    world.send("GET", &list(&id, "103", "2024-03-17", cursor), MANAGER, None).await.is(200);
    // Of two dates nobody knows which is meant.
    let twice = format!("{first}&from=2024-03-16");
    world.send("GET", &twice, MANAGER, None).await.refuses(400, "INVALID_REQUEST_BODY", "from");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_delivered_goes_on_behind_the_thousandth_of_a_type() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103, 104]).await;
    let mut all = BTreeSet::new();
    for seed in 0..1_002 {
        let event = event(&world, if seed == 0 { "104" } else { "103" }, seed);
        let notification = world.route(&id, &event).await;
        world.outcome(&id, notification, OutcomeKind::Undelivered).await;
        all.insert(notification.to_string());
    }
    world.fold().await;
    let path = format!("/api/v1/Webhooks/{id}/notifications/undelivered?from=2024-03-17");
    let first = world.send("GET", &path, MANAGER, None).await.is(200).response();
    let cursor = first["nextCursor"].as_str().unwrap();
    let next = format!("{path}&cursor={cursor}");
    let second = world.send("GET", &next, MANAGER, None).await.is(200).response();
    assert_eq!((&first["totalCount"], &second["totalCount"]), (&json!(1_002), &json!(1_002)));
    assert!(second.get("nextCursor").is_none(), "{second}");
    let content = |page: &Value| page["content"].as_array().unwrap().clone();
    assert_eq!(content(&first).len(), 2);
    let [rest] = &content(&second)[..] else { panic!("{second}") };
    assert_eq!((&rest["eventCode"], &rest["count"]), (&json!(103), &json!(1_001)));
    let pages = content(&first).into_iter().chain([rest.clone()]);
    let ids: Vec<String> = pages
        .flat_map(|group| group["notificationId"].as_array().unwrap().clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), ids.into_iter().collect::<BTreeSet<_>>()), (1_002, all));
    // It is of this day and this list.
    let other = format!("{path}&cursor={cursor}").replace("03-17", "03-16");
    world.send("GET", &other, MANAGER, None).await.refuses(400, "INVALID_CURSOR", "cursor");
}

#[tokio::test(start_paused = true)]
async fn a_view_that_lags_or_is_not_whole_is_not_answered_from() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let event = event(&world, "103", 1);
    let notification = world.route(&id, &event).await.to_string();
    let path = format!("/api/v1/Webhooks/{id}/events/103/notifications?from=2024-03-17");
    let ids = json!({"notificationIds": [notification]});
    let late = Status { complete: true, progress: 1.0, as_of: NOON.minus(Duration::from_secs(31)) };
    let partial = Status { complete: false, progress: 0.25, as_of: NOON };
    for status in [late, partial] {
        world.writer.set_status(status);
        let reply = world.send("GET", &path, MANAGER, None).await;
        let progress = reply.json()["progress"].clone();
        let behind = NOON.since(status.as_of).as_secs();
        assert_eq!(
            (&progress["complete"], &progress["behindSeconds"]),
            (&json!(false), &json!(behind))
        );
        assert_eq!(progress["asOf"], status.as_of.to_rfc3339());
        assert!(!reply.header("retry-after").is_empty());
        reply.refuses(503, "UNABLE_TO_GET_RESULTS_FROM_DATABASE", "");
        let resend = format!("/api/v1/Webhooks/{id}/resend");
        let reply = world.send("POST", &resend, MANAGER, Some(&ids)).await;
        reply.refuses(503, "UNABLE_TO_GET_RESULTS_FROM_DATABASE", "");
        world.send("GET", &format!("/api/v1/Webhooks/{id}"), MANAGER, None).await.is(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_one_time_code_is_shown_until_it_expires_and_not_sent_afterwards() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[107]).await;
    let event = event(&world, "107", 1);
    let notification = world.route(&id, &event).await;
    let ids = json!({"notificationIds": [notification.to_string()]});
    let details = format!("/api/v1/Webhooks/{id}/notifications");
    let payload = async |world: &World| {
        let reply = world.send("PUT", &details, MANAGER, Some(&ids)).await.is(200).response();
        reply["content"][0]["payload"].clone()
    };
    assert_eq!(payload(&world).await, event["payload"]);
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    world.fold().await;
    let mut without = event["payload"].clone();
    without.as_object_mut().unwrap().remove("otpValue");
    assert_eq!(payload(&world).await, without);
    let resend = format!("/api/v1/Webhooks/{id}/resend");
    let response = world.send("POST", &resend, MANAGER, Some(&ids)).await.is(200).response();
    assert_eq!(response["content"][0]["resendStatus"], "Unable to resend request");
}

async fn deliveries(world: &World, id: &str) -> Vec<v1::DeliveryRecord> {
    let topic: TopicName = names::delivery(id.parse::<WebhookId>().unwrap());
    let records = world.records(&topic).await;
    records
        .into_iter()
        .map(|record| tidings_proto::decode(record.value.unwrap()).unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_resend_queues_a_new_run_and_shows_at_once() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[101]).await;
    let event = event(&world, "101", 1);
    let ended = world.route(&id, &event).await;
    world.outcome(&id, ended, OutcomeKind::Undelivered).await;
    let other = world.webhook("pm:21", &[101]).await;
    let theirs = world.route(&other, &event).await;
    let path = format!("/api/v1/Webhooks/{id}/resend");
    let body = json!({"notificationIds": [
        ended.to_string(), "34343-7989-46", theirs.to_string(),
    ]});
    let response = world.send("POST", &path, MANAGER, Some(&body)).await.is(200).response();
    assert_eq!(
        response,
        json!({
            "webhookId": id,
            "content": [
                {"notificationId": ended.to_string(), "resendStatus": "Resend request initiated"},
                {"notificationId": "34343-7989-46", "resendStatus": "Invalid notification details"},
                {"notificationId": theirs.to_string(), "resendStatus": "Invalid notification details"},
            ],
        })
    );
    let records = deliveries(&world, &id).await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(&record.notification[..], ended.as_bytes());
    assert_eq!(record.run[6] >> 4, 7, "a run of a resend is a UUIDv7");
    assert_eq!(record.event_type, "101");
    assert_eq!(record.created, NOON.as_millis());
    assert!(record.body.is_some());
    assert_eq!(record.resends, 1);

    // Until the view has read what was written, it does not answer from before.
    let details = format!("/api/v1/Webhooks/{id}/notifications");
    let ids = json!({"notificationIds": [ended.to_string()]});
    let reply = world.send("PUT", &details, MANAGER, Some(&ids)).await;
    reply.refuses(503, "UNABLE_TO_GET_RESULTS_FROM_DATABASE", "");
    world.fold().await;
    let item = world.send("PUT", &details, MANAGER, Some(&ids)).await.is(200).response();
    assert_eq!(item["content"][0]["notificationStatus"], "Pending");
}

#[tokio::test(start_paused = true)]
async fn a_resend_of_a_webhook_that_is_not_active_is_refused() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let event = event(&world, "103", 1);
    let notification = world.route(&id, &event).await;
    let base = format!("/api/v1/Webhooks/{id}");
    let body = json!({"webhookStatus": "inactive"});
    world.send("PUT", &format!("{base}/status"), MANAGER, Some(&body)).await.is(200);
    let body = json!({"notificationIds": [notification.to_string()]});
    let reply = world.send("POST", &format!("{base}/resend"), MANAGER, Some(&body)).await;
    reply.refuses(409, "WEBHOOK_IS_NOT_ACTIVE_IN_STATUS", "");
    assert!(deliveries(&world, &id).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_got_too_much_again_gets_nothing_more_for_an_hour() {
    let mut limited = config(false);
    limited.rate.resends_per_hour = 3;
    let mut world = World::with(limited).await;
    let id = world.webhook(MANAGER, &[103]).await;
    let mut all = Vec::new();
    for seed in 0..2 {
        let event = event(&world, "103", seed);
        all.push(world.route(&id, &event).await.to_string());
    }
    world.fold().await;
    let path = format!("/api/v1/Webhooks/{id}/resend");
    let body = json!({"notificationIds": all});
    world.send("POST", &path, MANAGER, Some(&body)).await.is(200);
    world.fold().await;
    // Two more would be four: none of them is sent, and nothing is kept of the key.
    let key = [("idempotency-key", "again")];
    let refused = world.send_with("POST", &path, MANAGER, &key, Some(&body)).await;
    assert_eq!(refused.header("retry-after"), "3600");
    refused.refuses(429, "RATE_LIMITED", "");
    assert_eq!(deliveries(&world, &id).await.len(), 2);
    // What cannot be sent does not count.
    let unknown = json!({"notificationIds": ["34343-7989-46"]});
    world.send("POST", &path, MANAGER, Some(&unknown)).await.is(200);
    tokio::time::advance(Duration::from_secs(3600)).await;
    world.fold().await;
    world.send_with("POST", &path, MANAGER, &key, Some(&body)).await.is(200);
    assert_eq!(deliveries(&world, &id).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_resend_starts_the_same_runs_and_no_others() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let event = event(&world, "103", 1);
    let notification = world.route(&id, &event).await;
    let path = format!("/api/v1/Webhooks/{id}/resend");
    let body = json!({"notificationIds": [notification.to_string()]});
    let key = [("idempotency-key", "again")];
    let first = world.send_with("POST", &path, MANAGER, &key, Some(&body)).await.is(200);
    world.fold().await;
    let second = world.send_with("POST", &path, MANAGER, &key, Some(&body)).await.is(200);
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(first.header("x-tidings-as-of"), second.header("x-tidings-as-of"));
    assert!(!first.header("x-tidings-as-of").is_empty());
    assert_eq!(deliveries(&world, &id).await.len(), 1);
    let other = json!({"notificationIds": [notification.to_string(), "x"]});
    let reply = world.send_with("POST", &path, MANAGER, &key, Some(&other)).await;
    reply.refuses(422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key");
    // Without a key, or with another one, it is another resend.
    world.send_with("POST", &path, MANAGER, &[("idempotency-key", "b")], Some(&body)).await.is(200);
    let records = deliveries(&world, &id).await;
    assert_eq!(records.len(), 2);
    assert_ne!(records[0].run, records[1].run);
}

#[tokio::test(start_paused = true)]
async fn requests_with_one_key_at_the_same_time_are_one_resend() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let event = event(&world, "103", 1);
    let notification = world.route(&id, &event).await;
    let path = format!("/api/v1/Webhooks/{id}/resend");
    let body = json!({"notificationIds": [notification.to_string()]});
    let other = json!({"notificationIds": [notification.to_string(), "x"]});
    for round in 0..10 {
        let before = deliveries(&world, &id).await.len();
        let key = format!("at-once-{round}");
        let send = async |body: &Value| {
            let key = [("idempotency-key", key.as_str())];
            world.send_with("POST", &path, MANAGER, &key, Some(body)).await.status
        };
        let bodies = (0..12).map(|number| if number == 5 { &other } else { &body });
        let statuses = futures::future::join_all(bodies.map(&send)).await;
        let reused = statuses.iter().filter(|status| **status == 422).count();
        assert!(matches!(reused, 1 | 11), "one body is the key's: {statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 12 - reused);
        let runs: BTreeSet<_> =
            deliveries(&world, &id).await.into_iter().skip(before).map(|one| one.run).collect();
        assert_eq!(runs.len(), 1, "a repeat starts the run that the first one names");
        world.fold().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_notification_is_unknown_as_of_a_time() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let unknown = "1212-8543434-232";
    let body = json!({"notificationIds": [unknown]});
    let path = format!("/api/v1/Webhooks/{id}/notifications");
    let read = world.send("PUT", &path, MANAGER, Some(&body)).await.is(404);
    assert!(!read.header("x-tidings-as-of").is_empty());
    let attempts = world.send("GET", &format!("{path}/{unknown}/attempts"), MANAGER, None).await;
    assert!(!attempts.is(404).header("x-tidings-as-of").is_empty());
}
