//! Tenants: the document, and who sees whose webhooks.

use serde_json::{Value, json};
use tidings_types::NotificationId;

use crate::world::{FOREIGN, FOREIGN_ISSUER, ISSUER, MANAGER, SIBLING, World};

#[tokio::test(start_paused = true)]
async fn a_document_is_applied_whole_or_not_at_all() {
    let world = World::start().await;
    let apply = async |query: &str, document: Value| {
        let path = format!("/admin/v1/tenants{query}");
        world.send("PUT", &path, "admin", Some(&document)).await
    };
    for (document, field) in [
        (
            json!({"programmeManagers": [{"id": 40, "code": "20", "issuer": "7001"}]}),
            "programmeManagers[0].code",
        ),
        (
            json!({"programmeManagers": [{"id": 40, "code": "TRD", "issuer": "7001"}]}),
            "programmeManagers[0].code",
        ),
        (
            json!({"programmeManagers": [{"id": 40, "code": "NEW", "issuer": "9"}]}),
            "programmeManagers[0].issuer",
        ),
        (
            json!({"merchants": [{"key": "m1", "programmeManager": 99}]}),
            "merchants[0].programmeManager",
        ),
        (
            json!({"issuers": [{"id": "8000"}], "products": [{"id": 1, "programmeManager": 99}]}),
            "products[0].programmeManager",
        ),
        (json!({"issuers": [{"id": "8000", "extra": 1}]}), "issuers[0].extra"),
        (json!({"things": []}), "things"),
        (json!([]), ""),
        (json!({"issuers": [["55", "by position"]]}), "issuers[0]"),
        (
            json!({"merchants": [
                {"key": "m1", "programmeManager": 20, "sourceKeys": [["a", "b"]]}
            ]}),
            "merchants[0].sourceKeys[0]",
        ),
    ] {
        let reply = apply("", document.clone()).await;
        assert_eq!(
            reply.refusal(),
            (400, "INVALID_REQUEST_BODY".to_owned(), field.to_owned()),
            "{document}"
        );
    }
    assert!(!world.registry.snapshot().issuers.keys().any(|id| *id.0 == *"8000"));
    let document = json!({
        "issuers": [{"id": "7001", "name": "New name"}, {"id": "7002"}],
        "programmeManagers": [{"id": 20, "code": "TRD", "issuer": "7001"}],
    });
    let reply = apply("", document.clone()).await.is(200).response();
    assert_eq!(reply, json!({"added": 0, "changed": 1, "removed": 0}));
    let reply = apply("?prune=true", document).await.is(200).response();
    assert_eq!(reply, json!({"added": 0, "changed": 0, "removed": 6}));
    apply("?prune=1", json!({})).await.refuses(400, "INVALID_REQUEST_BODY", "prune");
}

#[tokio::test(start_paused = true)]
async fn of_two_documents_at_once_the_refused_one_changes_nothing() {
    let world = World::start().await;
    let apply = async |number: u64| {
        let issuer = format!("90{number:02}");
        let document = json!({
            "issuers": [{"id": issuer}],
            "programmeManagers": [{"id": 900 + number, "code": "SAME", "issuer": issuer}],
        });
        world.send("PUT", "/admin/v1/tenants", "admin", Some(&document)).await.status
    };
    let statuses = futures::future::join_all((0..12).map(apply)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), 11, "{statuses:?}");
    let snapshot = world.registry.snapshot();
    let made = snapshot.issuers.keys().filter(|id| id.0.starts_with("90")).count();
    assert_eq!(made, 1, "only the accepted document's issuer");
}

/// Every caller against every owner: own, child, parent, sibling, foreign.
#[tokio::test(start_paused = true)]
async fn nobody_reaches_a_webhook_that_is_not_in_its_part_of_the_tree() {
    let mut world = World::start().await;
    let callers: [(&str, Option<&str>); 7] = [
        (ISSUER, None),
        (ISSUER, Some("TRD")),
        (MANAGER, None),
        (SIBLING, None),
        (FOREIGN_ISSUER, None),
        (FOREIGN, None),
        (FOREIGN_ISSUER, Some("30")),
    ];
    // Whether each caller sees what each owner has.
    let owners: [(&str, [bool; 7]); 4] = [
        (ISSUER, [true, false, false, false, false, false, false]),
        (MANAGER, [true, true, true, false, false, false, false]),
        (SIBLING, [true, false, false, true, false, false, false]),
        (FOREIGN, [false, false, false, false, true, true, true]),
    ];
    for (owner, seen) in owners {
        let id = world.webhook(owner, &[103]).await;
        let sample = world.catalogue.get("103").unwrap();
        let event: Value =
            serde_json::from_slice(&sample.sample(crate::world::NOON, 1, 20, "m")).unwrap();
        let notification = world.route(&id, &event).await;
        for ((caller, code), sees) in callers.into_iter().zip(seen) {
            check(&world, (caller, code), &id, notification, sees).await;
        }
        world.send("DELETE", &format!("/api/v1/Webhooks/{id}"), owner, None).await.is(204);
        check(&world, (owner, None), &id, notification, false).await;
    }
}

async fn check(
    world: &World,
    (caller, code): (&str, Option<&str>),
    id: &str,
    notification: NotificationId,
    sees: bool,
) {
    let headers: Vec<(&str, &str)> = code.map(|code| ("x-pm-code", code)).into_iter().collect();
    let ids = json!({"notificationIds": [notification.to_string()]});
    let update = json!({"events": [103], "config": {"url": "https://example.com/hook"}});
    let routes: [(&str, &str, Option<&Value>); 9] = [
        ("GET", "", None),
        ("PUT", "", Some(&update)),
        ("GET", "/subscriptions", None),
        ("GET", "/events/103/notifications?from=2024-03-17", None),
        ("GET", "/notifications/undelivered?from=2024-03-17", None),
        ("PUT", "/notifications", Some(&ids)),
        ("DELETE", "/subscriptions/104", None),
        ("PUT", "/status", Some(&json!({"webhookStatus": "active"}))),
        ("POST", "/resend", Some(&ids)),
    ];
    for (method, rest, body) in routes {
        let path = format!("/api/v1/Webhooks/{id}{rest}");
        let reply = world.send_with(method, &path, caller, &headers, body).await;
        let hidden = reply.refusal().1 == "WEBHOOK_NOT_REGISTERED";
        assert_eq!(!hidden, sees, "{caller} {code:?} {method} {rest}: {:?}", reply.refusal());
        assert!(hidden || reply.status.as_u16() != 404 || rest.contains("104"));
    }
    let list = world.send_with("GET", "/api/v1/Webhooks", caller, &headers, None).await.is(200);
    let listed = list.response()["content"]
        .as_array()
        .unwrap()
        .iter()
        .any(|webhook| webhook["webhookId"] == id);
    assert_eq!(listed, sees, "{caller} {code:?} lists");
    // Nothing of the EDS API is seen through the administrator's routes for hooks.
    let path = format!("/admin/v1/hooks/{id}");
    world.send("GET", &path, caller, None).await.refuses(404, "WEBHOOK_NOT_REGISTERED", "hookId");
}
