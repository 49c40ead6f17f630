//! An event type that a deployment adds with a file.

use serde_json::{Value, json};

use crate::stage::{Stage, TENANTS, first_code, post, today};

const TYPES: &str = r#"
[defaults]
surface = "eds"

[[type]]
name = "140"
description = "Card Shipped"
order_key = "parcel"
fields = ["parcel id required", "carrier string"]
sample = '{"parcel":"{{digits9:parcel}}"}'
"#;

#[tokio::test]
async fn a_type_from_a_file_is_subscribed_published_and_received() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("parcels.toml"), TYPES).unwrap();
    let types = folder.path().to_str().unwrap();
    let mut stage = Stage::with(true, &[("TIDINGS_EVENTS__TYPES", types)]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let webhook = stage.webhook("shipped", &[140]).await;
    let id = webhook["webhookId"].as_str().unwrap();

    let event = |payload: &str| {
        format!(r#"{{"context":{{"programManagerId":20,"eventCode":140}},"payload":{payload}}}"#)
    };
    let payload = r#"{ "parcel": 7, "carrier":"van" }"#;
    let accepted = stage.publish(&event(payload)).await;
    assert_eq!(accepted["content"][0]["topic"], "tidings.events.140");
    let arrived = stage.arrived("shipped", 1).await;
    let body = String::from_utf8(arrived[0].body.to_vec()).unwrap();
    assert!(body.ends_with(&format!(r#""payload":{payload}}}"#)), "{body}");
    let refused = post(&stage.admin(), &event("{}"), "application/json").await;
    assert_eq!(first_code(&refused), "BAD_FIELD");

    // It is what every other type is: described, listed, and there after a restart.
    assert_eq!(stage.stop().await, Some(0));
    stage.serve().await;
    let manager = stage.manager("20");
    let path = format!("/api/v1/Webhooks/{id}");
    let listed = manager.get(&format!("{path}/subscriptions")).await.unwrap();
    assert_eq!(
        listed.response(200).unwrap()["content"],
        json!([{"eventCode": 140, "description": "Card Shipped"}])
    );
    let from = today(&stage).await;
    let history = format!("{path}/events/140/notifications?from={from}");
    let listed: Value = manager.get(&history).await.unwrap().response(200).unwrap();
    assert_eq!(listed["content"][0]["notificationStatus"], "Delivered", "{listed}");
}
