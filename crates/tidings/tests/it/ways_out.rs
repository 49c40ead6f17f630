//! Proxies and source addresses of the settings, and the addresses that clients let in.

use serde_json::json;
use tidings_e2e::{process::free_port, wait_for};
use tidings_testkit::{Proxy, Receiver};

use crate::stage::{PATIENCE, Stage, TENANTS, event};

const PAYLOAD: &str = r#"{"messageId":"m","publicToken":"t"}"#;

#[tokio::test]
async fn what_a_proxy_does_wrong_is_not_charged_to_the_endpoint() {
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let url = format!("http://{address}");
    let settings =
        [("TIDINGS_EGRESS__PROXY", url.as_str()), ("TIDINGS_EGRESS__BIND", r#"["127.0.0.9"]"#)];
    let stage = Stage::with(true, &settings).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let receiver = Receiver::start().await.unwrap();
    let manager = stage.manager("20");
    let body = json!({"events": [104], "config": {"url": receiver.url("/")}});
    let made = manager.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    let made = made.response(201).unwrap();
    let path = format!("/api/v1/Webhooks/{}", made["webhookId"].as_str().unwrap());
    stage.publish(&event(PAYLOAD)).await;
    wait_for("two attempts that do not count", PATIENCE, async || {
        let text = stage.admin().get("/metrics").await?.body;
        let text = std::str::from_utf8(&text)?;
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let failed = of(r#"tidings_egress_attempts_total{code="PROXY_FAILED"}"#);
        Ok((failed >= Some(2)).then_some(()))
    })
    .await
    .unwrap();
    let today = crate::stage::today(&stage).await;
    let list = format!("{path}/events/104/notifications?from={today}");
    let list = manager.get(&list).await.unwrap().response(200).unwrap();
    let item = &list["content"][0];
    assert_eq!(item["notificationStatus"], "Pending", "{list}");
    assert!(item["lastCode"].is_null(), "{list}");
    let id = item["notificationId"].as_str().unwrap();
    let attempts = manager.get(&format!("{path}/notifications/{id}/attempts")).await.unwrap();
    assert_eq!(attempts.response(200).unwrap()["content"], json!([]));
    assert_eq!(receiver.connections(), 0);

    // There it is, and what waited goes out through it, from our address.
    let proxy = Proxy::start_at(address.parse().unwrap()).await.unwrap();
    assert!(receiver.wait_for_requests(1, PATIENCE).await);
    assert_eq!(proxy.asked()[0], receiver.address().to_string());
    let peers: Vec<_> = proxy.peers().iter().map(|peer| peer.ip().to_string()).collect();
    assert_eq!(peers[0], "127.0.0.9");
}

#[tokio::test]
async fn clients_are_told_which_addresses_to_let_in() {
    let settings = [(
        "TIDINGS_EGRESS__ADDRESSES",
        r#"{ default = ["3.8.229.11", "3.9.48.101", "13.40.21.77"], apac = ["18.138.137.80"] }"#,
    )];
    let stage = Stage::with(true, &settings).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let answer = stage.manager("20").get("/api/v1/egress/addresses").await.unwrap();
    assert_eq!(
        answer.response(200).unwrap(),
        json!({"content": [
            {"region": "apac", "addresses": ["18.138.137.80"]},
            {"region": "default", "addresses": ["3.8.229.11", "3.9.48.101", "13.40.21.77"]},
        ]})
    );
    let none = stage.client(&["--scope", "eds.publish"]);
    assert_eq!(none.get("/api/v1/egress/addresses").await.unwrap().status, 403);
}
