//! One flow each.

use std::time::Duration;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use tidings_e2e::wait_for;
use tidings_testkit::{Behaviour, Received};

use crate::installation::{Installation, PATIENCE, secret, text, v1};

async fn register(installation: &Installation, events: &[u16], signatures: &[&str]) -> Value {
    let url = installation.receiver.url("/hook");
    let body = json!({"events": events, "config": {"url": url, "signatures": signatures}});
    installation.ask("POST", "/api/v1/Webhooks", body, 201).await
}

#[tokio::test]
async fn attempts_show_what_the_endpoint_said_and_rotated_secrets_both_sign() {
    let installation = Installation::start(&[]).await;
    let receiver = &installation.receiver;
    receiver.behave_in_turn([
        Behaviour::answer(503, &[], b"down, card 4111111111111111"),
        Behaviour::answer(200, &[], b"thank you"),
    ]);
    let created = register(&installation, &[103, 106], &["v1", "v1a"]).await;
    let webhook = created["webhookId"].as_str().unwrap();
    installation.publish("103", 1, |_| {}).await;
    let received = installation.received(2).await;
    let id = text(&received, "webhook-id");
    let attempts = installation.attempts(webhook, id, 2).await;
    let shown = |attempt: &Value, names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| attempt[*name].clone()).collect()
    };
    let names = ["attempt", "outcome", "code", "httpStatus", "responseSnippet"];
    assert_eq!(
        shown(&attempts[0], &names),
        [json!(1), json!("failed"), json!("HTTP_503"), json!(503), json!("down, card ***")]
    );
    assert!(attempts[0]["nextDueTime"].is_string());
    assert_eq!(
        shown(&attempts[1], &names[..4]),
        [json!(2), json!("delivered"), json!("DELIVERED"), json!(200)]
    );
    assert_eq!(attempts[1]["nextDueTime"], Value::Null);
    assert_eq!(attempts[0]["run"], attempts[1]["run"]);

    // A resend is a run of its own.
    receiver.behave(Behaviour::status(204));
    let resend = format!("/api/v1/Webhooks/{webhook}/resend");
    installation.ask("POST", &resend, json!({"notificationIds": [id]}), 200).await;
    let attempts = installation.attempts(webhook, id, 3).await;
    assert_eq!((&attempts[2]["attempt"], &attempts[2]["httpStatus"]), (&json!(1), &json!(204)));
    assert_ne!(attempts[2]["run"], attempts[0]["run"]);

    // What answers to events about tokens said is never shown.
    receiver.behave(Behaviour::answer(200, &[], b"secret"));
    installation.publish("106", 2, |_| {}).await;
    let received = installation.received(4).await;
    let attempts = installation.attempts(webhook, text(&received, "webhook-id"), 1).await;
    assert_eq!(attempts[0]["responseSnippet"], Value::Null);

    // Old and new sign in the window, with v1 and with v1a.
    let rotate = format!("/api/v1/Webhooks/{webhook}/signingSecret/rotate");
    let rotated = installation.ask("POST", &rotate, json!({"graceHours": 24}), 200).await;
    // The very next event: whoever starts an attempt knows what was answered before.
    installation.publish("103", 5, |_| {}).await;
    let received = installation.received(5).await;
    let signatures: Vec<_> = text(&received, "webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 4);
    assert!(signatures.contains(&v1(&secret(&created), &received).as_str()));
    assert!(signatures.contains(&v1(&secret(&rotated), &received).as_str()));
    let keys = installation.client.get("/.well-known/jwks.json").await.unwrap().json().unwrap();
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert!(key["kid"].as_str().unwrap().starts_with(webhook));
        let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
        assert!(is_signed_by(&public, &received), "{}", key["kid"]);
    }
}

/// By an implementation that the product does not use.
fn is_signed_by(public: &[u8], received: &Received) -> bool {
    let (id, time) = (text(received, "webhook-id"), text(received, "webhook-timestamp"));
    let mut message = format!("{id}.{time}.").into_bytes();
    message.extend_from_slice(&received.body);
    let public = ed25519_compact::PublicKey::from_slice(public).unwrap();
    text(received, "webhook-signature").split(' ').any(|signature| {
        let Some(signature) = signature.strip_prefix("v1a,") else { return false };
        let signature = STANDARD.decode(signature).unwrap();
        let signature = ed25519_compact::Signature::from_slice(&signature).unwrap();
        public.verify(&message, &signature).is_ok()
    })
}

#[tokio::test]
async fn a_fraud_alert_is_answered_once_and_not_after_its_window() {
    let installation = Installation::start(&[("TIDINGS_FRAUD__ANSWER_WINDOW", "10s")]).await;
    register(&installation, &[101], &["v1"]).await;
    let path = "/api/v1/fraudalertresponse";
    let event = installation.publish("101", 1, |_| {}).await;
    let first = installation.received(1).await;
    let answer = |event: &Value, received: &Received, response: &str| {
        json!({
            "fraudAlertId": event["payload"]["fraudAlertId"],
            "notificationId": text(received, "webhook-id"),
            "response": response,
        })
    };
    let said = installation.ask("POST", path, answer(&event, &first, "YES"), 200).await;
    assert_eq!(said, "The request was successful");
    installation.ask("POST", path, answer(&event, &first, "yes"), 200).await;
    let refusal = installation.refusal("POST", path, answer(&event, &first, "No")).await;
    assert_eq!(refusal, (400, "FRAUD_RESPONSE_CONFLICT".to_owned()));
    let mut unknown = answer(&event, &first, "Yes");
    unknown["fraudAlertId"] = "60b83k64-0000".into();
    let refusal = installation.refusal("POST", path, unknown).await;
    assert_eq!(refusal, (400, "FRAUD_ALERT_NOTFOUND".to_owned()));

    let late = installation.publish("101", 2, |_| {}).await;
    let second = installation.received(2).await;
    let began = tokio::time::Instant::now();
    wait_for("the window to close", PATIENCE, async || {
        Ok((began.elapsed() > Duration::from_secs(11)).then_some(()))
    })
    .await
    .unwrap();
    let refusal = installation.refusal("POST", path, answer(&late, &second, "Yes")).await;
    assert_eq!(refusal, (400, "FRAUD_ALERT_EXPIRED".to_owned()));
    let listed = installation.admin.get("/admin/v1/fraud-responses?after=").await.unwrap();
    let listed = listed.response(200).unwrap();
    assert_eq!(listed["content"].as_array().unwrap().len(), 1);
    assert_eq!(listed["content"][0]["fraudAlertId"], event["payload"]["fraudAlertId"]);
    assert_eq!(listed["content"][0]["response"], "Yes");
}

#[tokio::test]
async fn a_configuration_decides_which_112_are_sent_from_the_next_event_on() {
    let installation = Installation::start(&[]).await;
    register(&installation, &[112], &["v1"]).await;
    let mtid = |mtid: &'static str| move |event: &mut Value| event["payload"]["mtid"] = mtid.into();
    // Nothing is wanted before there is a configuration.
    installation.publish("112", 1, mtid("0100")).await;
    let body = json!({"status": "active", "messageTypeFilter": [1, 2]});
    let made = installation.ask("POST", "/eds/api/v1/Configs", body, 201).await;
    let path = format!("/eds/api/v1/Configs/{}", made["content"][0]["configId"].as_str().unwrap());
    installation.publish("112", 2, mtid("0400")).await;
    let wanted = installation.publish("112", 3, mtid("0120")).await;
    let received = installation.received(1).await;
    let payload = |received: &Received| {
        serde_json::from_slice::<Value>(&received.body).unwrap()["payload"].clone()
    };
    assert_eq!(payload(&received), wanted["payload"]);
    let reversals = json!({"status": "active", "messageTypeFilter": [5]});
    installation.ask("PUT", &path, reversals, 200).await;
    installation.publish("112", 4, mtid("0120")).await;
    let wanted = installation.publish("112", 5, mtid("0400")).await;
    assert_eq!(payload(&installation.received(2).await), wanted["payload"]);
    let inactive = json!({"status": "inactive", "messageTypeFilter": [0]});
    installation.ask("PUT", &path, inactive, 200).await;
    installation.publish("112", 6, mtid("0400")).await;
    let found = installation.get(&path).await;
    assert_eq!((&found["status"], &found["messageTypeFilter"]), (&json!("inactive"), &json!([0])));
    let account = wait_for("the account of six 112", PATIENCE, async || {
        let account = installation.admin.get("/admin/v1/account?topic=tidings.events.112").await?;
        let account = account.response(200)?;
        let partitions = account["partitions"].as_array().cloned().unwrap_or_default();
        let sum = |name: &str| partitions.iter().filter_map(|it| it[name].as_u64()).sum::<u64>();
        Ok((sum("committed") == 6).then(|| (sum("routed"), sum("filtered"))))
    })
    .await
    .unwrap();
    assert_eq!(account, (2, 4));
    assert_eq!(installation.receiver.requests(), 2);
}

#[tokio::test]
async fn a_heartbeat_reaches_the_endpoint_and_leaves_no_history() {
    let installation = Installation::start(&[]).await;
    let created = register(&installation, &[103], &["v1"]).await;
    let webhook = created["webhookId"].as_str().unwrap();
    let path = format!("/api/v1/Webhooks/{webhook}/heartbeat");
    assert_eq!(installation.get(&path).await["healthStatus"], "healthy");
    let received = installation.received(1).await;
    assert_eq!(text(&received, "webhook-signature"), v1(&secret(&created), &received));
    let again = installation.client.get(&path).await.unwrap();
    assert_eq!(again.status, 429);
    assert!(again.headers.contains_key("retry-after"));
    let id = text(&received, "webhook-id");
    let details = format!("/api/v1/Webhooks/{webhook}/notifications");
    let refusal = installation.refusal("PUT", &details, json!({"notificationIds": [id]})).await;
    assert_eq!(refusal, (404, "NOTIFICATION_NOTFOUND".to_owned()));
}

#[tokio::test]
async fn a_heartbeat_and_an_attempt_say_the_same_of_the_same_answer() {
    for (headers, code) in
        [(&[("location", "https://x.example/")][..], "REDIRECT_REFUSED"), (&[], "HTTP_302")]
    {
        let installation = Installation::start(&[]).await;
        installation.receiver.behave(Behaviour::answer(302, headers, b""));
        let created = register(&installation, &[103], &["v1"]).await;
        let webhook = created["webhookId"].as_str().unwrap();
        let heartbeat = format!("/api/v1/Webhooks/{webhook}/heartbeat");
        assert_eq!(installation.get(&heartbeat).await["code"], code);
        installation.publish("103", 1, |_| {}).await;
        let id = text(&installation.received(2).await, "webhook-id").to_owned();
        assert_eq!(installation.attempts(webhook, &id, 1).await[0]["code"], code);
    }
}
