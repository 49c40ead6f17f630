//! Webhooks whose endpoints ask for a client certificate and whose own authority vouches
//! for them, delivered to by the real binary.

use serde_json::{Value, json};
use tidings_testkit::{
    Receiver,
    certificate::{Authority, Identity, Validity},
};
use tidings_types::Timestamp;

use crate::stage::{PATIENCE, Stage, event};

fn payload(number: usize) -> String {
    event(&format!(r#"{{"messageId":"m{number}","publicToken":"t"}}"#))
}

/// The body of a webhook at `url` that trusts `servers` and shows `client`.
fn webhook(url: &str, servers: &Authority, client: Option<&Identity>) -> Value {
    let mut tls = json!({"caBundle": servers.root_pem()});
    if let Some(client) = client {
        tls["clientCertificate"] = client.certificate_pem().into();
        tls["clientKey"] = client.key_pem().into();
    }
    json!({"events": [104], "config": {"url": url, "tls": tls}})
}

#[tokio::test]
async fn a_webhook_is_delivered_to_as_its_client_certificate_says_and_never_without() {
    let stage = Stage::start().await;
    let (servers, clients) = (Authority::new(), Authority::new());
    let server = servers.issue(&["127.0.0.1"], Validity::Now).server_config_wanting(&clients);
    let receiver = Receiver::start_tls(server).await.unwrap();
    let url = receiver.url("/");
    let manager = stage.manager("20");
    let body = webhook(&url, &servers, None);
    let made = manager.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    let made = made.response(201).unwrap();
    let path = format!("/api/v1/Webhooks/{}", made["webhookId"].as_str().unwrap());
    let heartbeat = async || {
        let answer = manager.get(&format!("{path}/heartbeat")).await.unwrap();
        answer.response(200).unwrap()["code"].clone()
    };
    assert_eq!(heartbeat().await, "TLS_CLIENT_AUTH");

    // What waits goes out as soon as there is a certificate, and so does the rest.
    stage.publish(&payload(0)).await;
    for number in 1..3_usize {
        let client = clients.issue(&["tidings"], Validity::Now);
        let body = webhook(&url, &servers, Some(&client));
        manager.json("PUT", &path, &body).await.unwrap().response(200).unwrap();
        stage.publish(&payload(number)).await;
        let wanted = u64::try_from(number).unwrap() + 1;
        assert!(receiver.wait_for_requests(wanted, PATIENCE).await, "{number}");
    }
    assert_eq!(receiver.requests(), 3);

    // One that nobody vouches for is shown all the same, and turned away.
    let stranger = Authority::new().issue(&["tidings"], Validity::Now);
    let body = webhook(&url, &servers, Some(&stranger));
    manager.json("PUT", &path, &body).await.unwrap().response(200).unwrap();
    stage.publish(&payload(3)).await;
    let today = crate::stage::today(&stage).await;
    let list = format!("{path}/events/104/notifications?from={today}");
    let attempts = tidings_e2e::wait_for("the notification to end", PATIENCE, async || {
        let list = manager.get(&list).await?.response(200)?;
        let ended = |item: &&Value| item["notificationStatus"] == "Undelivered";
        Ok(list["content"].as_array().and_then(|list| list.iter().find(ended)).cloned())
    });
    assert_eq!(attempts.await.unwrap()["lastCode"], "TLS_REJECTED");
    assert_eq!(receiver.requests(), 3);
}

#[tokio::test]
async fn operators_are_told_once_a_day_that_a_certificate_ends_soon() {
    let mut stage = Stage::start().await;
    let hook = json!({
        "label": "operations", "url": stage.receiver.url("ops"),
        "events": ["webhook.certificate-expiring"],
        "authentication": {"type": "none"}, "signature": {"type": "none"},
    });
    let answer = stage.admin().json("POST", "/admin/v1/hooks", &hook).await.unwrap();
    answer.response(201).unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let day = 24 * 3600;
    let at = |days: u64| Timestamp::from_secs(i64::try_from(since.as_secs() + days * day).unwrap());
    let url = "https://127.0.0.1:9/";
    let manager = stage.manager("20");
    let make = async |client: &Identity| {
        let body = webhook(url, &servers, Some(client));
        let made = manager.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
        made.response(201).unwrap()["webhookId"].clone()
    };
    make(&clients.issue(&["far"], Validity::Until(at(40)))).await;
    let near = clients.issue(&["near"], Validity::Until(at(10)));
    let first = make(&near).await;
    let arrived = stage.arrived("ops", 1).await;
    assert_eq!(arrived[0].headers["x-eds-event-code"], "webhook.certificate-expiring");
    let told: Value = serde_json::from_slice(&arrived[0].body).unwrap();
    let object = &told["event_body"]["object"];
    assert_eq!((&object["key"], &object["owner"]), (&first, &json!("pm:20")));
    let fingerprint = hex::encode(tidings_signing::sha256(&[near.certificate()]));
    assert_eq!(object["certificate"], fingerprint);
    let end = at(11).to_rfc3339();
    assert_eq!(object["expires"], format!("{}T00:00:00Z", end.split('T').next().unwrap()));

    // Another process says the same of the same day, which is the same event.
    stage.kill();
    stage.serve().await;
    let id = make(&clients.issue(&["next"], Validity::Until(at(20)))).await;
    let told = tidings_e2e::wait_for("what is told of the other", PATIENCE, async || {
        let mut told = stage.receiver.requests();
        told.retain(|request| request.path == "ops");
        told.sort_by(|a, b| a.notification.cmp(&b.notification));
        told.dedup_by(|a, b| a.notification == b.notification);
        Ok((told.len() >= 2).then_some(told))
    });
    let key = |body: &[u8]| {
        let told: Value = serde_json::from_slice(body).unwrap();
        told["event_body"]["object"]["key"].clone()
    };
    let keys: Vec<Value> = told.await.unwrap().iter().map(|it| key(&it.body)).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.contains(&id) && keys.contains(&first), "{keys:?}");
}
