//! Webhooks that break: what operators are told, and what the others feel of it.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_e2e::{receiver::Behaviour, wait_for};

use crate::stage::{PATIENCE, Stage, event};

const PAYLOAD: &str = r#"{"messageId":"m","publicToken":"t"}"#;

/// An operator's hook at the receiver's path `ops`. Gives its key.
async fn operator(stage: &Stage) -> String {
    let hook = json!({
        "label": "operations", "url": stage.receiver.url("ops"),
        "events": ["webhook.failing", "webhook.suspended", "webhook.recovered"],
        "authentication": {"type": "none"}, "signature": {"type": "signatureKey"},
    });
    let answer = stage.admin().json("POST", "/admin/v1/hooks", &hook).await.unwrap();
    let made = answer.response(201).unwrap();
    made["signatureKey"].as_str().unwrap().to_owned()
}

/// A metric of the process.
async fn metric(stage: &Stage, name: &str) -> Option<u64> {
    let text = stage.admin().get("/metrics").await.unwrap().body;
    let text = std::str::from_utf8(&text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn operators_are_told_that_a_webhook_fails_and_that_it_has_recovered() {
    let mut stage = Stage::start().await;
    let key = operator(&stage).await;
    stage.receiver.behave("w", Behaviour::Dead);
    let webhook = stage.webhook("w", &[104]).await;
    stage.publish(&event(PAYLOAD)).await;
    let failing = stage.arrived("ops", 1).await.remove(0);
    assert_eq!(failing.headers["x-eds-event-code"], "webhook.failing");
    let signed = tidings_signing::x_signature(key.as_bytes(), &failing.body);
    assert_eq!(failing.headers["x-signature"], signed.as_str());
    let told: Value = serde_json::from_slice(&failing.body).unwrap();
    let object = &told["event_body"]["object"];
    assert_eq!(object["key"], webhook["webhookId"], "{told}");
    assert_eq!((&object["owner"], &object["last_code"]), (&json!("pm:20"), &json!("HTTP_500")));

    // It is still failing after a crash, and that is the same event.
    stage.kill();
    stage.serve().await;
    stage.receiver.behave("w", Behaviour::Good);
    stage.publish(&event(r#"{"messageId":"n","publicToken":"t"}"#)).await;
    let kinds = wait_for("the recovery", PATIENCE, async || {
        let mut told = stage.receiver.requests();
        told.retain(|request| request.path == "ops");
        told.sort_by(|a, b| a.notification.cmp(&b.notification));
        told.dedup_by(|a, b| a.notification == b.notification);
        let mut kinds: Vec<_> = told
            .iter()
            .map(|it| it.headers["x-eds-event-code"].to_str().unwrap().to_owned())
            .collect();
        kinds.sort_unstable();
        Ok((kinds.len() >= 2).then_some(kinds))
    })
    .await
    .unwrap();
    assert_eq!(kinds, ["webhook.failing", "webhook.recovered"]);
}

#[tokio::test]
async fn webhooks_that_begin_to_hang_hold_the_places_of_suspects_and_nobody_up() {
    const HANGING: usize = 20;
    let stage = Stage::start().await;
    for n in 0..HANGING {
        stage.webhook(&format!("h{n}"), &[104]).await;
    }
    stage.webhook("good", &[108]).await;
    let healthy = |n: usize| {
        format!(
            r#"{{"context":{{"programManagerId":20,"eventCode":108}},"payload":{{"publicToken":"g{n}"}}}}"#
        )
    };
    // All of them have proven that they take deliveries.
    stage.publish(&event(PAYLOAD)).await;
    stage.publish(&healthy(0)).await;
    for n in 0..HANGING {
        stage.arrived(&format!("h{n}"), 1).await;
        stage.receiver.behave(&format!("h{n}"), Behaviour::Slow(Duration::from_secs(600)));
    }
    stage.arrived("good", 1).await;

    for n in 0..50 {
        stage.publish(&event(&format!(r#"{{"messageId":"{n}","publicToken":"t"}}"#))).await;
    }
    const SILENT: &str = "tidings_sender_webhooks{state=\"silent\"}";
    wait_for("all to be seen as silent", PATIENCE, async || {
        let silent = metric(&stage, SILENT).await;
        Ok((silent == u64::try_from(HANGING).ok()).then_some(()))
    })
    .await
    .unwrap();
    let hanging = metric(&stage, "tidings_sender_suspect_attempts").await.unwrap();
    assert!(hanging >= 20, "{hanging} requests hang");
    let attempts = metric(&stage, "tidings_sender_attempts_total").await.unwrap();

    for n in 1..=100 {
        stage.publish(&healthy(n)).await;
    }
    stage.arrived("good", 101).await;
    // They took no further place meanwhile, and none of their requests has ended.
    assert_eq!(metric(&stage, "tidings_sender_attempts_total").await, Some(attempts + 100));
    assert_eq!(stage.receiver.request_count(), HANGING + 101);
    assert_eq!(metric(&stage, SILENT).await, u64::try_from(HANGING).ok());
}

/// H5 of `reliability-security.md` §7.10, with names that no name server knows.
#[tokio::test]
async fn while_no_name_is_found_nothing_is_sent_but_to_those_that_were_reached() {
    let stage = Stage::start().await;
    for (n, pm) in ["20", "21", "22"].into_iter().cycle().take(12).enumerate() {
        let url = format!("https://endpoint-{n}.invalid/hook");
        let body = json!({"events": [104], "config": {"url": url}});
        let made = stage.manager(pm).json("POST", "/api/v1/Webhooks", &body).await.unwrap();
        made.response(201).unwrap();
    }
    stage.webhook("good", &[108]).await;
    for pm in 20..23 {
        let context = format!(r#"{{"programManagerId":{pm},"eventCode":104}}"#);
        stage.publish(&format!(r#"{{"context":{context},"payload":{PAYLOAD}}}"#)).await;
    }
    let probed = async |times: u64| {
        wait_for("looks for an endpoint", PATIENCE, async || {
            let probes = metric(&stage, "tidings_sender_own_fault_probes_total ").await;
            Ok(probes.filter(|probes| *probes >= times))
        })
        .await
        .unwrap()
    };
    let so_far = probed(3).await;
    assert_eq!(metric(&stage, "tidings_sender_own_fault ").await, Some(1));
    let attempts = metric(&stage, "tidings_sender_attempts_total ").await.unwrap();
    probed(so_far + 4).await;
    assert_eq!(metric(&stage, "tidings_sender_attempts_total ").await, Some(attempts));
    let healthy =
        r#"{"context":{"programManagerId":20,"eventCode":108},"payload":{"publicToken":"t"}}"#;
    stage.publish(healthy).await;
    stage.arrived("good", 1).await;
}
