//! What arrives at an endpoint, what history says, and what survives a restart.

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_e2e::{
    http::Client,
    receiver::{Arrived, Behaviour},
    wait_for,
};
use tidings_signing::WebhookSecret;

use crate::stage::{PATIENCE, Stage, first_code, today};

async fn state(client: &Client, webhook: &str, id: &str) -> Value {
    let path = format!("/api/v1/Webhooks/{webhook}/notifications");
    let answer = client.json("PUT", &path, &json!({"notificationIds": [id]})).await.unwrap();
    answer.response(200).unwrap()["content"][0].clone()
}

async fn until(client: &Client, webhook: &str, id: &str, status: &str) -> Value {
    wait_for(status, PATIENCE, async || {
        let state = state(client, webhook, id).await;
        Ok((state["notificationStatus"] == status).then_some(state))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn the_request_is_as_the_contract_says() {
    let stage = Stage::start().await;
    let config = json!({
        "url": stage.receiver.url("w"),
        "customHeaders": {"X(Key)": "v1", "key 1": "v2", "Authorization": "Bearer z"},
    });
    let body = json!({"events": [104, 105], "config": config});
    let answer = stage.manager("20").json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    let webhook = answer.response(201).unwrap();
    assert_eq!(webhook["webhookid"], webhook["webhookId"]);
    assert_eq!(webhook["config"]["customHeaders"]["Authorization"], "***");
    let secret = WebhookSecret::parse(webhook["signingSecret"].as_str().unwrap()).unwrap();

    stage
        .publish(
            r#"{"messageHeaders":{"schemaId":1},"context":{"correlationId":"c1","own":{"b" : 1},"programManagerId":20,"productId":345678,"creator":"z","eventCode":104,"notificationTime":"2026-01-01T00:00:00Z"},"payload":{"messageId":"m","publicToken":"t"}}"#,
        )
        .await;
    stage
        .publish(
            r#"{"context":{"programManagerId":20,"eventCode":105,"notificationTime":"2026-01-01T00:00:00Z"},"messageHeaders":{"schemaId":1},"payload":{"transactionId":"t","eventid":"e","reviewStatus":"risk","reviewDate":"2026-01-01T00:00:00.000Z"}}"#,
        )
        .await;
    let mut arrived = stage.arrived("w", 2).await;
    arrived.sort_by_key(|request| {
        request.headers.get("x-eds-event-code").unwrap().to_str().unwrap().to_owned()
    });
    let request = &arrived[0];
    let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
    let id = header("webhook-id").unwrap();
    assert_eq!(header("content-type"), Some("application/json"));
    assert!(header("user-agent").unwrap().starts_with("Tidings/"));
    assert_eq!(header("x-eds-event-code"), Some("104"));
    assert_eq!(header("x-eds-attempt"), Some("1"));
    assert_eq!(header("x-key-"), Some("v1"));
    assert_eq!(header("key-1"), Some("v2"));
    assert_eq!(header("authorization"), Some("Bearer z"));
    let seconds = header("webhook-timestamp").unwrap().parse().unwrap();
    let signature = secret.sign_v1(id, seconds, &request.body);
    assert_eq!(header("webhook-signature"), Some(signature.as_str()));
    assert_eq!(
        std::str::from_utf8(&request.body).unwrap(),
        format!(
            r#"{{"context":{{"notificationId":"{id}","eventCode":104,"eventVersion":"v1","notificationTime":"2026-01-01T00:00:00Z","own":{{"b" : 1}}}},"payload":{{"messageId":"m","publicToken":"t"}}}}"#
        )
    );
    let request = &arrived[1];
    assert_eq!(
        std::str::from_utf8(&request.body).unwrap(),
        format!(
            r#"{{"context":{{"notificationId":"{}","eventCode":105,"eventVersion":"v1","notificationTime":"2026-01-01T00:00:00Z","programManagerId":20}},"messageHeaders":{{"schemaId":1}},"payload":{{"transactionId":"t","eventid":"e","reviewStatus":"risk","reviewDate":"2026-01-01T00:00:00.000Z"}}}}"#,
            request.notification
        )
    );
}

#[tokio::test]
async fn an_endpoint_that_is_down_gets_everything_after_all() {
    let mut stage = Stage::start().await;
    stage.receiver.behave("w", Behaviour::Dead);
    let webhook = stage.webhook("w", &[104]).await;
    let webhook = webhook["webhookId"].as_str().unwrap();
    let client = stage.manager("20");
    stage.publish(&crate::stage::event(r#"{"messageId":"m","publicToken":"t"}"#)).await;
    let id = stage.arrived("w", 1).await.remove(0).notification;
    let state = until(&client, webhook, &id, "Undelivered").await;
    assert_eq!(state["reason"], "exhausted", "{state}");
    assert_eq!(state["lastCode"], "HTTP_500", "{state}");
    assert_eq!(stage.receiver.request_count(), 8, "ladder `fast` has eight steps");

    let from = today(&stage).await;
    let undelivered = format!("/api/v1/Webhooks/{webhook}/notifications/undelivered?from={from}");
    let listed = json!([{"eventCode": 104, "count": 1, "notificationId": [&id]}]);
    let answer = client.get(&undelivered).await.unwrap();
    assert!(answer.headers.contains_key("x-tidings-as-of"));
    let answer = answer.response(200).unwrap();
    assert_eq!((&answer["content"], &answer["totalCount"]), (&listed, &json!(1)));

    // A restart with the view deleted in between changes nothing of it.
    assert_eq!(stage.stop().await, Some(0));
    std::fs::remove_dir_all(stage.data().join("eventlog")).unwrap();
    stage.serve().await;
    let client = stage.manager("20");
    let answer = client.get(&undelivered).await.unwrap().response(200).unwrap();
    assert_eq!(answer["content"], listed);

    stage.receiver.behave("w", Behaviour::Good);
    let resend = format!("/api/v1/Webhooks/{webhook}/resend");
    let body = Bytes::from(json!({"notificationIds": [&id, "unknown-id"]}).to_string());
    for _repeat in 0..2 {
        let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
        let answer = client.send("POST", &resend, &headers, body.clone()).await.unwrap();
        let answer = answer.response(200).unwrap();
        assert_eq!(
            answer["content"],
            json!([
                {"notificationId": &id, "resendStatus": "Resend request initiated"},
                {"notificationId": "unknown-id", "resendStatus": "Invalid notification details"},
            ])
        );
    }
    until(&client, webhook, &id, "Delivered").await;
    assert_eq!(client.get(&undelivered).await.unwrap().response(200).unwrap()["totalCount"], 0);
    let requests = stage.arrived("w", 9).await;
    assert_eq!(requests.len(), 9, "the repeated resend sends nothing");
    let last = requests.last().unwrap();
    assert_eq!((last.attempt, &last.notification), (1, &id));
    assert!(requests.iter().all(|request| request.body == last.body), "the same bytes");

    let account = stage.run(&["account"], "");
    assert_eq!(account.code, Some(0), "{}", account.out);
    let deleted = client
        .send("DELETE", &format!("/api/v1/Webhooks/{webhook}"), &[], Bytes::new())
        .await
        .unwrap();
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    let one = json!({"notificationIds": [&id]});
    let update = json!({"events": [104], "config": {"url": stage.receiver.url("w")}});
    for (method, path, body) in [
        ("GET", String::new(), None),
        ("PUT", String::new(), Some(&update)),
        ("DELETE", String::new(), None),
        ("PUT", "/status".to_owned(), Some(&json!({"webhookStatus": "active"}))),
        ("GET", "/subscriptions".to_owned(), None),
        ("PUT", "/subscriptions".to_owned(), Some(&json!({"events": [101]}))),
        ("DELETE", "/subscriptions/104".to_owned(), None),
        ("GET", format!("/events/104/notifications?from={from}"), None),
        ("GET", format!("/notifications/undelivered?from={from}"), None),
        ("PUT", "/notifications".to_owned(), Some(&one)),
        ("POST", "/resend".to_owned(), Some(&one)),
    ] {
        let path = format!("/api/v1/Webhooks/{webhook}{path}");
        let answer = match body {
            Some(body) => client.json(method, &path, body).await.unwrap(),
            None => client.send(method, &path, &[], Bytes::new()).await.unwrap(),
        };
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(first_code(&answer), "WEBHOOK_NOT_REGISTERED", "{method} {path}");
    }
}

#[tokio::test]
async fn a_one_time_code_ends_with_its_time() {
    let stage = Stage::start().await;
    let webhook = stage.webhook("w", &[107]).await;
    let webhook = webhook["webhookId"].as_str().unwrap();
    let client = stage.manager("20");
    stage.publish(r#"{"context":{"programManagerId":20,"eventCode":107},"payload":{"publicToken":"t","otpValue":"739155","otpExpirationDate":"2020-01-01T00:00:00Z"}}"#).await;
    stage.publish(r#"{"context":{"programManagerId":20,"eventCode":107},"payload":{"publicToken":"t","otpValue":"739155"}}"#).await;
    stage.arrived("w", 1).await;
    let path =
        format!("/api/v1/Webhooks/{webhook}/events/107/notifications?from={}", today(&stage).await);
    let (old, new) = wait_for("both", PATIENCE, async || {
        let answer = client.get(&path).await?.response(200)?;
        let find = |status: &str| {
            let all = answer["content"].as_array()?;
            all.iter().find(|item| item["notificationStatus"] == status).cloned()
        };
        Ok(find("Undelivered").zip(find("Delivered")))
    })
    .await
    .unwrap();
    assert_eq!(old["reason"], "expired");
    assert_eq!(
        old["payload"],
        json!({"publicToken": "t", "otpExpirationDate": "2020-01-01T00:00:00Z"})
    );
    assert_eq!(new["payload"]["otpValue"], "739155");
    assert_eq!(stage.receiver.request_count(), 1);
}

#[tokio::test]
async fn a_resend_keeps_the_number_and_the_lane_that_gave_it() {
    let stage = Stage::start().await;
    let config = json!({"url": stage.receiver.url("w"), "ordering": "strict"});
    let body = json!({"events": [102], "config": config});
    let manager = stage.manager("20");
    let answer = manager.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    let webhook = answer.response(201).unwrap();
    stage
        .publish(
            r#"{"context":{"programManagerId":20,"eventCode":102},"payload":{"fraudAlertId":"a","fraudAlertType":"Timeout","notificationMessageContent":"c"}}"#,
        )
        .await;
    let first = stage.arrived("w", 1).await;
    let text = |request: &Arrived, name: &str| {
        request.headers.get(name).unwrap().to_str().unwrap().to_owned()
    };
    let id = text(&first[0], "webhook-id");
    let webhook = webhook["webhookId"].as_str().unwrap();
    until(&manager, webhook, &id, "Delivered").await;
    let path = format!("/api/v1/Webhooks/{webhook}/resend");
    let resend = json!({"notificationIds": [id]});
    let answer = manager.json("POST", &path, &resend).await.unwrap();
    assert_eq!(
        answer.response(200).unwrap()["content"][0]["resendStatus"],
        "Resend request initiated"
    );
    stage.arrived("w", 2).await;
    // Its order is another one now; the number is still the old lane's.
    let config = json!({"url": stage.receiver.url("w"), "ordering": "perKey"});
    let body = json!({"events": [102], "config": config});
    let place = format!("/api/v1/Webhooks/{webhook}");
    manager.json("PUT", &place, &body).await.unwrap().response(200).unwrap();
    until(&manager, webhook, &id, "Delivered").await;
    manager.json("POST", &path, &resend).await.unwrap().response(200).unwrap();
    for request in stage.arrived("w", 3).await {
        let sequence = text(&request, "x-eds-sequence");
        assert!(sequence.starts_with("standard.1; v1="), "{sequence}");
    }
    let read = json!({"notificationIds": [id]});
    let answer = manager.json("PUT", &format!("{place}/notifications"), &read).await.unwrap();
    assert_eq!(answer.response(200).unwrap()["content"][0]["sequence"], "standard.1");
}
