//! Two APIs on one log: what one of them answered, the other must not contradict.

use serde_json::{Value, json};
use tidings_proto::v1;

use crate::world::{ISSUER, MANAGER, World};

const WEBHOOKS: &str = "/api/v1/Webhooks";

fn of(events: &[u16]) -> Value {
    json!({"events": events, "config": {"url": "https://example.com/hook"}})
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_another_process_deleted_is_in_nobodys_way() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[101]).await;
    let mut other = world.behind().await;
    let one = format!("{WEBHOOKS}/{id}");
    world.send("DELETE", &one, MANAGER, None).await.is(204);
    let create = ("POST", WEBHOOKS, MANAGER);
    let made = other.send(&world, create, &[], Some(&of(&[101]))).await.is(201).response();
    world
        .send("GET", &format!("{WEBHOOKS}/{}", made["webhookId"].as_str().unwrap()), MANAGER, None)
        .await
        .is(200);
    other.send(&world, ("GET", &one, MANAGER), &[], None).await.is(404);
    // One that stands is still in the way.
    let reply = other.send(&world, create, &[], Some(&of(&[101]))).await;
    reply.refuses(409, "DUPLICATE_WEBHOOK", "productId");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_refused_for_what_the_registry_says_at_its_end() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[101]).await;
    let mut other = world.behind().await;
    let one = format!("{WEBHOOKS}/{id}");
    let (status, events) = (format!("{one}/status"), format!("{one}/subscriptions"));
    let set = |status: &str| json!({ "webhookStatus": status });
    let list = |code: u16| json!({ "events": [code] });

    world.send("PUT", &status, MANAGER, Some(&set("inactive"))).await.is(200);
    other.send(&world, ("PUT", &status, MANAGER), &[], Some(&set("active"))).await.is(200);
    world.send("PUT", &events, MANAGER, Some(&list(104))).await.is(200);
    other.send(&world, ("DELETE", &events, MANAGER), &[], Some(&list(104))).await.is(200);
    world.send("DELETE", &events, MANAGER, Some(&list(101))).await.is(200);
    other.send(&world, ("PUT", &events, MANAGER), &[], Some(&list(101))).await.is(200);

    // The version that the one answered with is the one to change, also to delete.
    let reply = world.send("PUT", &one, MANAGER, Some(&of(&[102]))).await.is(200);
    let newest = [("if-match", reply.header("etag"))];
    let put = ("PUT", one.as_str(), MANAGER);
    other.send(&world, put, &newest, Some(&of(&[103]))).await.is(200);
    other.send(&world, put, &newest, Some(&of(&[103]))).await.is(412);
    let reply = world.send("PUT", &one, MANAGER, Some(&of(&[102]))).await.is(200);
    let newest = [("if-match", reply.header("etag"))];
    other.send(&world, ("DELETE", &one, MANAGER), &newest, None).await.is(204);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_made_can_be_named() {
    let world = World::start().await;
    let mut other = world.behind().await;
    let document = json!({
        "issuers": [{"id": "7003"}],
        "programmeManagers": [{"id": 40, "code": "NEW", "issuer": "7003"}],
        "products": [{"id": 444, "programmeManager": 40}],
    });
    world.send("PUT", "/admin/v1/tenants", "admin", Some(&document)).await.is(200);
    let mut body = of(&[101]);
    body["productId"] = 444.into();
    other.send(&world, ("POST", WEBHOOKS, "pm:40"), &[], Some(&body)).await.is(201);

    let more = json!({
        "merchants": [{"key": "m_new", "programmeManager": 40}],
        "products": [{"id": 445, "programmeManager": 40}],
    });
    world.send("PUT", "/admin/v1/tenants", "admin", Some(&more)).await.is(200);
    let hook = json!({
        "merchant": "m_new", "label": "till", "url": "https://example.com/hook",
        "events": ["transaction.sale.success"],
    });
    other.send(&world, ("POST", "/admin/v1/hooks", "admin"), &[], Some(&hook)).await.is(201);

    let product = |id: u32| {
        json!({
            "products": [{"id": id, "programmeManager": 40}],
        })
    };
    world.send("PUT", "/admin/v1/tenants", "admin", Some(&product(446))).await.is(200);
    let configuration = json!({"productId": 446, "status": "active", "messageTypeFilter": [1]});
    let create = ("POST", "/api/v1/Configs", "pm:40");
    let made = other.send(&world, create, &[], Some(&configuration)).await.is(201).response();
    let path = format!("/api/v1/Configs/{}", made["content"][0]["configId"].as_str().unwrap());
    let wish = json!({"status": "inactive", "messageTypeFilter": [2]});
    let reply = world.send("PUT", &path, "pm:40", Some(&wish)).await.is(200);
    let newest = [("if-match", reply.header("etag"))];
    other.send(&world, ("PUT", &path, "pm:40"), &newest, Some(&wish)).await.is(200);

    let id = world.webhook(ISSUER, &[101]).await;
    let pauses = "/admin/v1/pauses";
    let pause = json!({"webhookId": id, "reason": "moves house"});
    let made = other.send(&world, ("POST", pauses, "admin"), &[], Some(&pause)).await.is(201);
    let path = format!("{pauses}/{}", made.response()["pauseId"].as_str().unwrap());
    world.send("DELETE", &path, "admin", None).await.is(204);
    world.send("POST", pauses, "admin", Some(&pause)).await.is(201);
    other.send(&world, ("DELETE", &path, "admin"), &[], None).await.is(204);
}

#[tokio::test(start_paused = true)]
async fn a_resend_goes_by_the_status_that_another_process_set() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[104]).await;
    let kind = world.catalogue.get("104").unwrap();
    let event = serde_json::from_slice(&kind.sample(crate::world::NOON, 1, 20, "m")).unwrap();
    let notification = world.route(&id, &event).await;
    world.outcome(&id, notification, v1::OutcomeKind::Undelivered).await;
    let status = format!("{WEBHOOKS}/{id}/status");
    let set = |status: &str| json!({ "webhookStatus": status });
    world.send("PUT", &status, MANAGER, Some(&set("inactive"))).await.is(200);
    let mut other = world.behind().await;
    world.send("PUT", &status, MANAGER, Some(&set("active"))).await.is(200);
    let path = format!("{WEBHOOKS}/{id}/resend");
    let body = json!({"notificationIds": [notification.to_string()]});
    let resend = ("POST", path.as_str(), MANAGER);
    other.send(&world, resend, &[], Some(&body)).await.is(200);
    world.send("DELETE", &format!("{WEBHOOKS}/{id}"), MANAGER, None).await.is(204);
    let reply = other.send(&world, resend, &[], Some(&body)).await;
    assert_eq!(reply.status.as_u16(), 404);
}
