//! Merchant hooks: `/admin/v1/hooks`.

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_e2e::wait_for;

use crate::stage::{PATIENCE, Stage, errors, first_code, today};

const HOOKS: &str = "/admin/v1/hooks";

fn sale(number: u32) -> String {
    format!(
        r#"{{ "type":"event","event_triggered":"2026-01-01 10:00:00","event_type":"transaction.sale.success","event_body":{{"merchant":{{"merch_key":"m_9f2"}},"object":{{"type":"transaction","key":"k{number}","refnum":12345}}}},"event_id":"{number:064x}"}}"#
    )
}

#[tokio::test]
async fn a_merchants_hook_gets_the_producers_bytes() {
    let stage = Stage::start().await;
    let admin = stage.admin();
    let hook = json!({
        "merchant": "m_9f2", "label": "L", "url": stage.receiver.url("h"),
        "events": ["transaction.sale.success"],
        "authentication": {"type": "basic", "username": "u", "password": "p:w"},
        "signature": {"type": "signatureKey"},
    });
    let made = admin.json("POST", HOOKS, &hook).await.unwrap().response(201).unwrap();
    let key = made["signatureKey"].as_str().unwrap();
    let id = made["hookId"].as_str().unwrap();
    let read = admin.get(&format!("{HOOKS}/{id}")).await.unwrap();
    let text = std::str::from_utf8(&read.body).unwrap();
    assert!(!text.contains(key) && !text.contains("p:w"), "{text}");
    let mut keyed = hook.clone();
    keyed["url"] = json!(stage.receiver.url("s"));
    keyed["signature"] = json!({"type": "sourceKey", "sourceKeyId": "src1"});
    admin.json("POST", HOOKS, &keyed).await.unwrap().response(201).unwrap();

    stage.publish(&sale(1)).await;
    for (path, key) in [("h", key), ("s", "a-source-keys-value")] {
        let request = stage.arrived(path, 1).await.remove(0);
        let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(std::str::from_utf8(&request.body).unwrap(), sale(1));
        assert_eq!(header("authorization"), Some("Basic dTpwOnc="));
        let signed = tidings_signing::x_signature(key.as_bytes(), &request.body);
        assert_eq!(header("x-signature"), Some(signed.as_str()));
        assert_eq!(header("webhook-signature"), None);
        assert_eq!(header("x-eds-event-code"), Some("transaction.sale.success"));
    }
    let path = format!(
        "{HOOKS}/{id}/events/transaction.sale.success/notifications?from={}",
        today(&stage).await
    );
    let item = wait_for("history", PATIENCE, async || {
        let answer = admin.get(&path).await?.response(200)?;
        let item = answer["content"][0].clone();
        Ok((item["notificationStatus"] == "Delivered").then_some(item))
    })
    .await
    .unwrap();
    assert_eq!(item["eventType"], "transaction.sale.success");
    let one = json!({"notificationIds": [item["notificationId"]]});
    let answer = admin.json("POST", &format!("{HOOKS}/{id}/resend"), &one).await.unwrap();
    assert_eq!(
        answer.response(200).unwrap()["content"][0]["resendStatus"],
        "Resend request initiated"
    );
    stage.arrived("h", 2).await;
    let answer = admin.send("DELETE", &format!("{HOOKS}/{id}"), &[], Bytes::new()).await.unwrap();
    assert_eq!(answer.status, 204);
    let answer = admin.get(&path).await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (404, "WEBHOOK_NOT_REGISTERED"));
}

#[tokio::test]
async fn what_is_no_hook_is_refused_with_its_field() {
    let stage = Stage::start().await;
    let admin = stage.admin();
    let hook = |name: &str, value: Value| {
        let mut hook = json!({
            "merchant": "m_9f2", "label": "L", "url": stage.receiver.url("h"),
            "events": ["transaction.sale.success"],
            "authentication": {"type": "none"}, "signature": {"type": "none"},
        });
        hook[name] = value;
        hook
    };
    for (body, status, code, field) in [
        (hook("bogus", json!(1)), 400, "INVALID_REQUEST_BODY", "bogus"),
        (hook("merchant", json!("nobody")), 400, "INVALID_REQUEST_BODY", "merchant"),
        (hook("merchant", Value::Null), 400, "INVALID_EVENTCODE", "events[0]"),
        (hook("events", json!(["webhook.suspended"])), 400, "INVALID_EVENTCODE", "events[0]"),
        (hook("events", json!(["sale.x"])), 404, "EVENTCODE_NOTFOUND", "events[0]"),
        (hook("events", json!([])), 400, "EMPTY_EVENTCODES", "events"),
        (hook("url", json!("x")), 400, "INVALID_URL", "url"),
        (
            hook("authentication", json!({"type": "basic", "username": "u"})),
            400,
            "INVALID_REQUEST_BODY",
            "authentication.password",
        ),
        (
            hook("signature", json!({"type": "sourceKey", "sourceKeyId": "none"})),
            400,
            "INVALID_REQUEST_BODY",
            "signature.sourceKeyId",
        ),
        (
            hook("authentication", json!({"type": "none", "password": "p"})),
            400,
            "INVALID_REQUEST_BODY",
            "authentication.password",
        ),
        (
            hook("signature", json!({"type": "signatureKey", "sourceKeyId": "src1"})),
            400,
            "INVALID_REQUEST_BODY",
            "signature.sourceKeyId",
        ),
    ] {
        let answer = admin.json("POST", HOOKS, &body).await.unwrap();
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(errors(&answer).remove(0), (code.to_owned(), field.to_owned()), "{body}");
    }
    let client = stage.manager("20");
    let answer = client.get(HOOKS).await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (403, "FORBIDDEN"));
}
