//! `tidings pause` and `resume`, and their routes.

use serde_json::{Value, json};
use tidings_e2e::wait_for;

use crate::stage::{PATIENCE, Stage, errors, event, today};

const PAUSES: &str = "/admin/v1/pauses";

#[tokio::test]
async fn what_is_paused_is_recorded_and_waits_also_over_a_restart() {
    let mut stage = Stage::start().await;
    let webhook = stage.webhook("w", &[104, 108]).await;
    let id = webhook["webhookId"].as_str().unwrap().to_owned();
    let ended = stage.run(&["pause", "--pm", "20", "--reason", "wrong amounts"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    stage.publish(&event(r#"{"messageId":"m","publicToken":"t"}"#)).await;
    let path =
        format!("/api/v1/Webhooks/{id}/events/104/notifications?from={}", today(&stage).await);
    let listed = async |stage: &Stage, status: &str| {
        wait_for(status, PATIENCE, async || {
            let answer = stage.manager("20").get(&path).await?.response(200)?;
            Ok((answer["content"][0]["notificationStatus"] == status).then_some(()))
        })
        .await
        .unwrap();
    };
    listed(&stage, "Pending").await;
    assert_eq!(stage.stop().await, Some(0));
    stage.serve().await;
    let ended = stage.run(&["pause", "list"], "");
    assert!(ended.out.starts_with("pm:20 paused since 20"), "{} {}", ended.out, ended.err);
    assert!(ended.out.ends_with(" by tidings-cli: wrong amounts\n"), "{}", ended.out);
    // Another tenant's traffic shows that sending goes on.
    let body = json!({"events": [104], "config": {"url": stage.receiver.url("other")}});
    let other = stage.manager("21").json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    other.response(201).unwrap();
    stage
        .publish(
            r#"{"context":{"programManagerId":21,"eventCode":104},"payload":{"messageId":"o","publicToken":"t"}}"#,
        )
        .await;
    stage.arrived("other", 1).await;
    assert_eq!(stage.receiver.request_count(), 1, "nothing of the paused one");
    // One type instead of all.
    let ended = stage.run(&["pause", "--event-type", "104", "--reason", "still wrong"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let ended = stage.run(&["resume", "--pm", "20"], "");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "pm:20 goes on\n"), "{}", ended.err);
    stage
        .publish(
            r#"{"context":{"programManagerId":20,"eventCode":108},"payload":{"publicToken":"t"}}"#,
        )
        .await;
    stage.arrived("w", 1).await;
    assert_eq!(stage.receiver.request_count(), 2, "of 104 still nothing");
    assert_eq!(stage.run(&["resume", "--event-type", "104"], "").code, Some(0));
    stage.arrived("w", 2).await;
    listed(&stage, "Delivered").await;
    assert_eq!(stage.run(&["pause", "list", "--json"], "").out, "[]\n");
}

#[tokio::test]
async fn a_pause_of_nothing_is_refused_with_its_field() {
    let stage = Stage::start().await;
    let admin = stage.admin();
    for (body, field) in [
        (json!({"everything": true}), "reason"),
        (json!({"reason": "r"}), ""),
        (json!({"reason": "r", "everything": true, "issuer": "7001"}), ""),
        (json!({"reason": "r", "everything": false}), "everything"),
        (json!({"reason": "r", "issuer": "7009"}), "issuer"),
        (json!({"reason": "r", "programmeManager": "20"}), "programmeManager"),
        (json!({"reason": "r", "programmeManager": 99}), "programmeManager"),
        (json!({"reason": "r", "merchant": "nobody"}), "merchant"),
        (json!({"reason": "r", "eventType": "999"}), "eventType"),
        (json!({"reason": "r", "webhookId": "x"}), "webhookId"),
        (json!({"reason": " ", "everything": true}), "reason"),
        (json!({"reason": "r", "everything": true, "all": 1}), "all"),
    ] {
        let answer = admin.json("POST", PAUSES, &body).await.unwrap();
        assert_eq!(answer.status, 400, "{body}");
        let expected = ("INVALID_REQUEST_BODY".to_owned(), field.to_owned());
        assert_eq!(errors(&answer).remove(0), expected, "{body}");
    }
    let answer = admin.send("DELETE", &format!("{PAUSES}/pm:20"), &[], Default::default()).await;
    assert_eq!(answer.unwrap().status, 404);
    let answer = stage.manager("20").get(PAUSES).await.unwrap();
    assert_eq!(answer.status, 403);
    let made = json!({"reason": "first", "merchant": "m_9f2"});
    let answer = admin.json("POST", PAUSES, &made).await.unwrap().response(201).unwrap();
    assert_eq!(answer["pauseId"], "merchant:m_9f2");
    let again = json!({"reason": "second", "merchant": "m_9f2"});
    admin.json("POST", PAUSES, &again).await.unwrap().response(201).unwrap();
    let listed: Value = admin.get(PAUSES).await.unwrap().response(200).unwrap();
    assert_eq!(listed["totalCount"], 1);
    assert_eq!(listed["content"][0]["reason"], "second");
    assert_eq!(listed["content"][0]["since"], answer["since"]);
}
