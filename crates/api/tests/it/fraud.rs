//! Answers to fraud alerts.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_types::{Clock as _, NotificationId, TopicName, names};

use crate::world::{FOREIGN, ISSUER, MANAGER, SIBLING, World};

const PATH: &str = "/api/v1/fraudalertresponse";

struct Alert {
    alert: String,
    notification: NotificationId,
}

impl Alert {
    async fn raise(world: &mut World, webhook: &str, seed: u64) -> Self {
        let kind = world.catalogue.get("101").unwrap();
        let sample = kind.sample(world.clock.now(), seed, 20, "m");
        let event: Value = serde_json::from_slice(&sample).unwrap();
        let notification = world.route(webhook, &event).await;
        let alert = event["payload"]["fraudAlertId"].as_str().unwrap().to_owned();
        Self { alert, notification }
    }

    fn answered(&self, response: &str) -> Value {
        json!({
            "fraudAlertId": self.alert,
            "notificationId": self.notification.to_string(),
            "response": response,
        })
    }
}

async fn written(world: &World) -> Vec<Value> {
    let records = world.records(&TopicName::new(names::FRAUD_RESPONSES)).await;
    records.iter().map(|it| serde_json::from_slice(it.value.as_ref().unwrap()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_written_once_and_the_first_one_stands() {
    let mut world = World::start().await;
    let webhook = world.webhook(MANAGER, &[101]).await;
    let alert = Alert::raise(&mut world, &webhook, 1).await;
    for response in ["YES", "Yes", "yes"] {
        let body = alert.answered(response);
        let reply = world.send("POST", PATH, MANAGER, Some(&body)).await.is(200);
        let expected = json!({"status": "success", "response": "The request was successful"});
        assert_eq!(reply.json(), expected);
    }
    let no = alert.answered("No");
    let reply = world.send("POST", PATH, MANAGER, Some(&no)).await;
    reply.refuses(400, "FRAUD_RESPONSE_CONFLICT", "response");
    let record = json!({
        "fraudAlertId": alert.alert, "notificationId": alert.notification.to_string(),
        "response": "Yes", "issuerId": "7001", "programManagerId": 20,
        "time": "2024-03-17T12:00:00.000Z", "actor": "tester",
    });
    assert_eq!(written(&world).await, std::slice::from_ref(&record));

    // The topic for those who run embedded.
    let list = "/admin/v1/fraud-responses?after=";
    let response = world.send("GET", list, "admin", None).await.is(200).response();
    assert_eq!(response["content"].as_array().unwrap().len(), 1);
    assert_eq!(response["content"][0]["response"], "Yes");
    let next = format!("{list}{}", response["next"].as_str().unwrap());
    let response = world.send("GET", &next, "admin", None).await.is(200).response();
    assert_eq!(response["content"], json!([]));
    for bad in ["x", "1", "1-2-3-4", "-1-0-0"] {
        let path = format!("{list}{bad}");
        world.send("GET", &path, "admin", None).await.refuses(400, "INVALID_CURSOR", "after");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_answers_the_first_in_log_order_decides_also_from_another_process() {
    let mut world = World::start().await;
    let webhook = world.webhook(MANAGER, &[101]).await;
    let alert = Alert::raise(&mut world, &webhook, 1).await;
    world.restart();
    world.send("POST", PATH, MANAGER, Some(&alert.answered("No"))).await.is(200);
    // A process that has read nothing of it yet.
    world.restart();
    let reply = world.send("POST", PATH, MANAGER, Some(&alert.answered("Yes"))).await;
    reply.refuses(400, "FRAUD_RESPONSE_CONFLICT", "response");
    world.send("POST", PATH, MANAGER, Some(&alert.answered("no"))).await.is(200);
    assert_eq!(written(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_answered_by_whoever_got_it_and_within_its_window() {
    let mut world = World::start().await;
    let webhook = world.webhook(MANAGER, &[101, 102]).await;
    let first = Alert::raise(&mut world, &webhook, 1).await;
    let second = Alert::raise(&mut world, &webhook, 2).await;
    let crossed = Alert { alert: first.alert.clone(), notification: second.notification };
    let unknown = Alert { alert: "60b83k64-a".to_owned(), notification: first.notification };
    for (who, alert) in
        [(FOREIGN, &first), (SIBLING, &first), (MANAGER, &crossed), (MANAGER, &unknown)]
    {
        let reply = world.send("POST", PATH, who, Some(&alert.answered("Yes"))).await;
        reply.refuses(400, "FRAUD_ALERT_NOTFOUND", "fraudAlertId");
    }
    let mut body = first.answered("Yes");
    body["notificationId"] = "1212-8543434-232".into();
    let reply = world.send("POST", PATH, MANAGER, Some(&body)).await;
    reply.refuses(400, "FRAUD_ALERT_NOTFOUND", "fraudAlertId");
    let read_only = world.token_with(MANAGER, &["eds.read"]);
    let headers = [("authorization", format!("Bearer {read_only}"))];
    let sent = Some(("application/json", first.answered("Yes").to_string()));
    world.send_raw("POST", PATH, &headers, sent).await.refuses(403, "FORBIDDEN", "");

    // An issuer sees what its manager got.
    world.send("POST", PATH, ISSUER, Some(&first.answered("Yes"))).await.is(200);
    tokio::time::advance(Duration::from_secs(72 * 3600)).await;
    world.say_complete();
    world.send("POST", PATH, MANAGER, Some(&first.answered("Yes"))).await.is(200);
    tokio::time::advance(Duration::from_secs(1)).await;
    world.say_complete();
    let reply = world.send("POST", PATH, MANAGER, Some(&second.answered("Yes"))).await;
    reply.refuses(400, "FRAUD_ALERT_EXPIRED", "fraudAlertId");
    assert_eq!(written(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_in_time_can_be_repeated_for_as_long_as_the_alert_is_known() {
    let mut world = World::start().await;
    let webhook = world.webhook(MANAGER, &[101]).await;
    let answered = Alert::raise(&mut world, &webhook, 1).await;
    let unanswered = Alert::raise(&mut world, &webhook, 2).await;
    world.send("POST", PATH, MANAGER, Some(&answered.answered("Yes"))).await.is(200);
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(80 * 3600)).await;
        world.say_complete();
        world.send("POST", PATH, MANAGER, Some(&answered.answered("yes"))).await.is(200);
        let reply = world.send("POST", PATH, MANAGER, Some(&answered.answered("No"))).await;
        reply.refuses(400, "FRAUD_RESPONSE_CONFLICT", "response");
        let reply = world.send("POST", PATH, MANAGER, Some(&unanswered.answered("Yes"))).await;
        reply.refuses(400, "FRAUD_ALERT_EXPIRED", "fraudAlertId");
        // The next time in a process that has read nothing of it.
        world.restart();
    }
    assert_eq!(written(&world).await.len(), 1);
}
