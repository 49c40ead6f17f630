//! `tidings resend` and `tidings explain`.

use serde_json::{Value, json};
use tidings_e2e::{receiver::Behaviour, wait_for};

use crate::stage::{PATIENCE, Stage, event, today};

#[tokio::test]
async fn what_a_webhook_did_not_get_is_counted_confirmed_sent_again_and_explained() {
    let stage = Stage::start().await;
    stage.receiver.behave("w", Behaviour::Dead);
    let webhook = stage.webhook("w", &[104]).await;
    let id = webhook["webhookId"].as_str().unwrap();
    let mut published = Value::Null;
    for n in 0..6 {
        let payload = format!(r#"{{"messageId":"{n}","publicToken":"t"}}"#);
        published = stage.publish(&event(&payload)).await["content"][0].clone();
    }
    let since = today(&stage).await;
    let path = format!("/api/v1/Webhooks/{id}/notifications/undelivered?from={since}");
    wait_for("all to be on the list", PATIENCE, async || {
        let answer = stage.manager("20").get(&path).await?.response(200)?;
        Ok((answer["totalCount"] == 6).then_some(()))
    })
    .await
    .unwrap();
    let resend = |last: &[&str]| {
        let mut arguments = vec!["resend", "--webhook", id, "--undelivered", "--pm", "20"];
        arguments.extend(["--since", since.as_str()]);
        arguments.extend(last);
        stage.run(&arguments, "")
    };
    let counted = resend(&["--dry-run"]);
    assert_eq!(counted.out, "6 would be sent again; repeat with --confirm 6\n", "{}", counted.err);
    let refused = resend(&["--confirm", "5"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("there are 6 now, not 5"), "{}", refused.err);

    stage.receiver.behave("w", Behaviour::Good);
    let sent = resend(&["--confirm", "6"]);
    assert_eq!((sent.code, sent.out.as_str()), (Some(0), "sent 6 of 6 again\n"), "{}", sent.err);
    let uid = published["uid"].as_str().unwrap();
    let life = wait_for("the delivery", PATIENCE, async || {
        let ended = stage.run(&["explain", uid, "--json"], "");
        let life: Value = serde_json::from_str(&ended.out)?;
        Ok((life["notifications"][0]["state"] == "delivered").then_some(life))
    })
    .await
    .unwrap();
    assert_eq!((&life["eventType"], &life["tenant"]), (&json!("104"), &json!("pm:20")));
    let place = format!(
        "{}/{}/{}",
        published["topic"].as_str().unwrap(),
        published["partition"],
        published["offset"]
    );
    let notification = life["notifications"][0]["notificationId"].as_str().unwrap();
    for what in [uid, &place, notification] {
        let ended = stage.run(&["explain", what], "");
        assert_eq!(ended.code, Some(0), "{what}: {}", ended.err);
        let said = format!("event 104 of pm:20, uid {uid}\npublished {place}: routed at 20");
        assert!(ended.out.starts_with(&said), "{}", ended.out);
        assert!(ended.out.contains(&format!("notification {notification} delivered\n")));
        assert!(ended.out.contains(": HTTP_500 after "), "{}", ended.out);
        assert!(ended.out.contains(": DELIVERED after "), "{}", ended.out);
    }
}

#[tokio::test]
async fn an_event_that_nobody_got_is_explained_by_the_rule_that_kept_it() {
    let stage = Stage::start().await;
    let published = stage.publish(&event(r#"{"messageId":"m","publicToken":"t"}"#)).await;
    let place = format!("tidings.events.104/{}/0", published["content"][0]["partition"]);
    let told = wait_for("the decision", PATIENCE, async || {
        let ended = stage.run(&["explain", &place], "");
        Ok((ended.code == Some(0)).then_some(ended.out))
    })
    .await
    .unwrap();
    let rule = "filtered (notSubscribed): no webhook of the tenant wanted this type";
    assert_eq!(told, format!("published {place}: {rule}\n"));
    for (what, why) in [
        ("tidings.events.104/0/77", "NOT_FOUND"),
        ("tidings.events.none/0/0", "NOT_FOUND"),
        ("a/b", "INVALID_REQUEST_BODY"),
        ("x", "INVALID_REQUEST_BODY"),
    ] {
        let ended = stage.run(&["explain", what], "");
        assert_eq!(ended.code, Some(1), "{what}");
        assert!(ended.err.contains(why), "{what}: {}", ended.err);
    }
}
