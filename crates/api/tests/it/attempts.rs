//! The attempts of a notification.

use serde_json::{Value, json};
use tidings_proto::v1::{self, OutcomeKind};
use tidings_registry::to_proto;
use tidings_signing::SealKey;
use tidings_types::{Clock as _, NotificationId, RunId, snippet_aad};

use crate::world::{FOREIGN, MANAGER, World};

fn event(world: &World, code: &str) -> Value {
    let kind = world.catalogue.get(code).unwrap();
    serde_json::from_slice(&kind.sample(world.clock.now(), 1, 20, "m")).unwrap()
}

/// What a sender says of one attempt.
fn said(world: &World, id: NotificationId, kind: OutcomeKind, attempt: u32) -> v1::Outcome {
    let failed = kind != OutcomeKind::Delivered;
    let now = world.clock.now();
    let plain: &[u8] = if failed { b"down for repair" } else { b"thank you" };
    let snippet = world.registry.ring().seal(&SealKey::Snippet, &snippet_aad(id), plain, [7; 12]);
    v1::Outcome {
        kind: kind.into(),
        time: now.as_millis(),
        attempt,
        next_due: now.as_millis() + 5_000,
        code: if failed { "HTTP_503" } else { "DELIVERED" }.to_owned(),
        http_status: if failed { 503 } else { 204 },
        duration_ms: 250,
        snippet: Some(to_proto(snippet)),
        ..v1::Outcome::default()
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_listed_with_what_the_endpoint_said() {
    let mut world = World::start().await;
    let webhook = world.webhook(MANAGER, &[101]).await;
    let event = event(&world, "101");
    let id = world.route(&webhook, &event).await;
    let path = format!("/api/v1/Webhooks/{webhook}/notifications/{id}/attempts");
    let none = world.send("GET", &path, MANAGER, None).await.is(200).response();
    assert_eq!(
        none,
        json!({"webhookId": webhook, "notificationId": id.to_string(), "content": []})
    );

    let failed = said(&world, id, OutcomeKind::AttemptFailed, 1);
    world.say(&webhook, id, RunId::FIRST, failed).await;
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    let delivered = said(&world, id, OutcomeKind::Delivered, 2);
    world.say(&webhook, id, RunId::FIRST, delivered).await;
    let resend = RunId::from_bytes([5; 16]);
    let refused = said(&world, id, OutcomeKind::Undelivered, 1);
    world.say(&webhook, id, resend, v1::Outcome { http_status: 0, snippet: None, ..refused }).await;

    let reply = world.send("GET", &path, MANAGER, None).await.is(200);
    assert!(!reply.header("x-tidings-as-of").is_empty());
    let first = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        reply.response()["content"],
        json!([
            {
                "attempt": 1, "startedTime": "2024-03-17T11:59:59.750Z", "durationMs": 250,
                "outcome": "failed", "code": "HTTP_503", "httpStatus": 503, "run": first,
                "nextDueTime": "2024-03-17T12:00:05.000Z", "responseSnippet": "down for repair",
            },
            {
                "attempt": 2, "startedTime": "2024-03-17T12:00:04.750Z", "durationMs": 250,
                "outcome": "delivered", "code": "DELIVERED", "httpStatus": 204, "run": first,
                "nextDueTime": null, "responseSnippet": "thank you",
            },
            {
                "attempt": 1, "startedTime": "2024-03-17T12:00:04.750Z", "durationMs": 250,
                "outcome": "failed", "code": "HTTP_503", "httpStatus": null,
                "run": resend.to_string(), "nextDueTime": null, "responseSnippet": null,
            },
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn the_table_of_attempts_that_are_not_shown() {
    let mut world = World::start().await;
    let webhook = world.webhook(MANAGER, &[101, 107]).await;
    let (alert, code) = (event(&world, "101"), event(&world, "107"));
    let id = world.route(&webhook, &alert).await;
    let other = world.webhook(FOREIGN, &[101]).await;
    let of =
        |webhook: &str, id: &str| format!("/api/v1/Webhooks/{webhook}/notifications/{id}/attempts");
    let field = "notificationId";
    let unknown = "00000000-0000-8000-8000-000000000000";
    for (webhook, id, status, code, field) in [
        (&webhook, "a_b", 400, "INVALID_NOTIFICATION_ID", field),
        (&webhook, "1212-8543434-232", 404, "NOTIFICATION_NOTFOUND", field),
        (&webhook, unknown, 404, "NOTIFICATION_NOTFOUND", field),
        (&other, &id.to_string(), 404, "WEBHOOK_NOT_REGISTERED", "webhookId"),
    ] {
        world.send("GET", &of(webhook, id), MANAGER, None).await.refuses(status, code, field);
    }
    let reply = world.send("GET", &of(&other, &id.to_string()), FOREIGN, None).await;
    reply.refuses(404, "NOTIFICATION_NOTFOUND", field);

    // Answers about one-time codes are never shown, whatever a record says.
    let id = world.route(&webhook, &code).await;
    let delivered = said(&world, id, OutcomeKind::Delivered, 1);
    world.say(&webhook, id, RunId::FIRST, delivered).await;
    let path = of(&webhook, &id.to_string());
    let content = world.send("GET", &path, MANAGER, None).await.response()["content"].clone();
    assert_eq!(content[0]["outcome"], "delivered");
    assert_eq!(content[0]["responseSnippet"], Value::Null);
}
