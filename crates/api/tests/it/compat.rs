//! The forms of older documents (`spec.md` §6), each behind a setting that is off.

use serde_json::json;
use tidings_api::Compat;

use crate::world::{MANAGER, World, config};

async fn world(compat: Compat) -> World {
    let mut config = config(false);
    config.compat = compat;
    World::with(config).await
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_spelled_as_in_the_older_document_too() {
    for is_on in [false, true] {
        let mut world = world(Compat { paylod: is_on, ..Compat::default() }).await;
        let id = world.webhook(MANAGER, &[103]).await;
        let kind = world.catalogue.get("103").unwrap();
        let now = tidings_types::Clock::now(&*world.clock);
        let event = serde_json::from_slice(&kind.sample(now, 1, 20, "m")).unwrap();
        let notification = world.route(&id, &event).await.to_string();
        world.fold().await;
        let path = format!("/api/v1/Webhooks/{id}/notifications");
        let body = json!({"notificationIds": [notification]});
        let read = world.send("PUT", &path, MANAGER, Some(&body)).await.is(200).response();
        let item = &read["content"][0];
        assert!(item["payload"].is_object());
        assert_eq!(item.get("paylod"), is_on.then_some(&item["payload"]));
        let path = format!("/api/v1/Webhooks/{id}/events/103/notifications?from=2024-03-17");
        let list = world.send("GET", &path, MANAGER, None).await.is(200).response();
        assert!(list["content"][0].get("paylod").is_none(), "only in a read by ids");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_an_error_where_that_is_asked_for() {
    for is_on in [false, true] {
        let mut world = world(Compat { empty_as_error: is_on, ..Compat::default() }).await;
        let expect = async |world: &World, path: &str, code: &str| {
            let reply = world.send("GET", path, MANAGER, None).await;
            if is_on {
                reply.refuses(404, code, "");
            } else {
                assert_eq!(reply.is(200).response()["content"], json!([]));
            }
        };
        expect(&world, "/api/v1/Webhooks", "WEBHOOK_DETAILS_NOTFOUND").await;
        let id = world.webhook(MANAGER, &[103]).await;
        world.fold().await;
        world.send("GET", "/api/v1/Webhooks", MANAGER, None).await.is(200);
        let base = format!("/api/v1/Webhooks/{id}");
        let path = format!("{base}/events/103/notifications?from=2024-03-17");
        expect(&world, &path, "NOTIFICATION_NOTFOUND").await;
        let path = format!("{base}/notifications/undelivered?from=2024-03-17");
        expect(&world, &path, "UNDELIVERED_NOTIFICATIONS_NOTFOUND").await;
        // Lists that no document calls an error stay as they are.
        world.send("GET", "/api/v1/Configs", MANAGER, None).await.is(200);
        world.send("GET", "/admin/v1/hooks", "admin", None).await.is(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_with_both_ids_is_answered_as_two_where_that_is_asked_for() {
    for is_on in [false, true] {
        let world = world(Compat { config_fanout: is_on, ..Compat::default() }).await;
        let both = json!({
            "pmId": 20, "productId": 345_678, "status": "active", "messageTypeFilter": [1],
        });
        let made = world.send("POST", "/api/v1/Configs", "issuer:7001", Some(&both)).await;
        let made = made.is(201).response();
        let count = if is_on { 2 } else { 1 };
        assert_eq!(made["totalCount"], count);
        assert_eq!(made["content"].as_array().unwrap().len(), count);
        if is_on {
            let ids =
                |item: usize| (&made["content"][item]["pmId"], &made["content"][item]["productId"]);
            assert_eq!(ids(0), (&json!(20), &json!(null)));
            assert_eq!(ids(1), (&json!(null), &json!(345_678)));
        }
        // It is one all the same.
        let list = world.send("GET", "/api/v1/Configs", "issuer:7001", None).await.is(200);
        assert_eq!(list.response()["totalCount"], 1);
        assert_eq!(list.response()["content"][0]["pmId"], 20);
        assert_eq!(list.response()["content"][0]["productId"], 345_678);
    }
}
