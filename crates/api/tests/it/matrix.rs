//! Every route of the EDS API × every kind of foreign id × every kind of token
//! (`reliability-security.md` §3.5). The routes are those of the description,
//! which is written from the table of routes, so that a new one is in the matrix
//! by itself.

use serde_json::{Value, json};

use crate::world::{FOREIGN, FOREIGN_ISSUER, ISSUER, MANAGER, NOON, SIBLING, World};

/// One operation of the description.
struct Operation {
    method: String,
    path: String,
    name: String,
    scope: String,
}

async fn operations(world: &World) -> Vec<Operation> {
    let reply = world.send_raw("GET", "/openapi.json", &[], None).await.is(200);
    let document = reply.json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(scope) = operation["x-scope"].as_str() else { continue };
            operations.push(Operation {
                method: method.to_ascii_uppercase(),
                path: path.clone(),
                name: operation["operationId"].as_str().unwrap().to_owned(),
                scope: scope.to_owned(),
            });
        }
    }
    operations
}

/// What stands in the place of a path's parameters.
struct Ids<'i> {
    webhook: &'i str,
    config: &'i str,
    notification: &'i str,
}

impl Operation {
    fn is_eds(&self) -> bool {
        self.path.starts_with("/api/v1/") || self.path.starts_with("/eds/api/v1/")
    }

    fn names_an_entity(&self) -> bool {
        self.path.contains("{webhookId}") || self.path.contains("{configId}")
    }

    /// The operation's name without what aliases add.
    fn base_name(&self) -> &str {
        let name = self.name.strip_suffix("OfHub").unwrap_or(&self.name);
        name.split_once("By").filter(|(_, rest)| *rest != "Code").map_or(name, |(name, _)| name)
    }

    fn filled(&self, ids: &Ids<'_>) -> String {
        let path = self
            .path
            .replace("{webhookId}", ids.webhook)
            .replace("{configId}", ids.config)
            .replace("{notificationId}", ids.notification)
            .replace("{eventCode}", "103");
        match self.base_name() {
            "NotificationsByCode" | "Undelivered" => format!("{path}?from=2024-03-17"),
            _ => path,
        }
    }

    /// A sound body, so that only the id decides.
    fn body(&self, ids: &Ids<'_>) -> Option<Value> {
        let url = "https://example.com/changed";
        match self.base_name() {
            "UpdateWebhook" => Some(json!({"events": [104], "config": {"url": url}})),
            "SetStatus" => Some(json!({"webhookStatus": "inactive"})),
            "AddSubscriptions" => Some(json!({"events": [104]})),
            "RemoveSubscriptions" => Some(json!({"events": [103]})),
            "Notifications" | "Resend" => Some(json!({"notificationIds": [ids.notification]})),
            "RotateSecret" => Some(json!({"graceHours": 0})),
            "UpdateConfiguration" => Some(json!({"status": "inactive", "messageTypeFilter": [6]})),
            "GetWebhook"
            | "DeleteWebhook"
            | "ListSubscriptions"
            | "RemoveSubscription"
            | "NotificationsByCode"
            | "Undelivered"
            | "Attempts"
            | "Heartbeat"
            | "Ping"
            | "GetConfiguration" => None,
            name => panic!("{name} is new: say what body a caller sends"),
        }
    }
}

async fn ask(world: &World, operation: &Operation, who: &str, ids: &Ids<'_>) -> (u16, Value) {
    let (path, body) = (operation.filled(ids), operation.body(ids));
    let reply = world.send(&operation.method, &path, who, body.as_ref()).await;
    let mut answer = reply.json();
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("traceId");
    }
    (reply.status.as_u16(), answer)
}

#[tokio::test(start_paused = true)]
async fn what_is_foreign_answers_exactly_as_what_does_not_exist() {
    let mut world = World::start().await;
    let kind = world.catalogue.get("103").unwrap();
    let event: Value = serde_json::from_slice(&kind.sample(NOON, 1, 20, "m")).unwrap();
    let none = Ids {
        webhook: "5d0f9f3c-6f0b-4b57-9a3d-2f6a0f5c1d11",
        config: "1234567-20240317120000",
        notification: "3c9a52c4-0f0e-8d6b-9c1f-7f2a6d1b0e55",
    };
    let operations = operations(&world).await;
    let operations: Vec<_> =
        operations.iter().filter(|it| it.is_eds() && it.names_an_entity()).collect();
    assert!(operations.len() >= 36, "both prefixes have every route: {}", operations.len());
    for (owner, strangers) in [
        (ISSUER, [MANAGER, SIBLING, FOREIGN_ISSUER, FOREIGN].as_slice()),
        (MANAGER, &[SIBLING, FOREIGN_ISSUER, FOREIGN]),
        (FOREIGN, &[ISSUER, MANAGER, SIBLING]),
    ] {
        let webhook = world.webhook(owner, &[103]).await;
        let notification = world.route(&webhook, &event).await.to_string();
        let body = json!({"status": "active", "messageTypeFilter": [1]});
        let made = world.send("POST", "/api/v1/Configs", owner, Some(&body)).await.is(201);
        let made = made.response();
        let config = made["content"][0]["configId"].as_str().unwrap();
        let theirs = Ids { webhook: &webhook, config, notification: &notification };
        let version = world.registry.snapshot().version;
        for stranger in strangers {
            for operation in &operations {
                let (status, answer) = ask(&world, operation, stranger, &theirs).await;
                let what = format!("{stranger} {} {}", operation.method, operation.path);
                assert_eq!(status, 404, "{what}: {answer}");
                assert_eq!(
                    (status, answer),
                    ask(&world, operation, stranger, &none).await,
                    "{what}"
                );
            }
            for list in ["/api/v1/Webhooks", "/api/v1/Configs"] {
                let response = world.send("GET", list, stranger, None).await.is(200).response();
                let text = response.to_string();
                assert!(!text.contains(&webhook) && !text.contains(config), "{stranger} {list}");
            }
        }
        assert_eq!(world.registry.snapshot().version, version, "nothing was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn no_route_answers_without_its_scope_or_without_a_tenant() {
    let world = World::start().await;
    let ids = Ids { webhook: "w", config: "c", notification: "n" };
    let scopes = ["eds.read", "eds.write", "eds.publish", "admin"];
    for operation in operations(&world).await {
        let path = operation.filled(&ids).replace(['{', '}'], "");
        let what = format!("{} {path}", operation.method);
        let reply = world.send_raw(&operation.method, &path, &[], None).await;
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"tidings\"", "{what}");
        assert_eq!(reply.refusal().1, "UNAUTHORIZED", "{what}");
        let other: Vec<_> = scopes.into_iter().filter(|scope| *scope != operation.scope).collect();
        for (scopes, who, expected) in [
            (other.as_slice(), ISSUER, "FORBIDDEN"),
            (&["EDS.READ", "eds.readwrite", "Admin"], ISSUER, "FORBIDDEN"),
            (&scopes, "nobody", "PMCODE_REQUIRED"),
        ] {
            if expected == "PMCODE_REQUIRED" && !operation.is_eds() {
                continue;
            }
            let token = world.token_with(who, scopes);
            let headers = [("authorization", format!("Bearer {token}"))];
            let reply = world.send_raw(&operation.method, &path, &headers, None).await;
            assert_eq!(reply.refusal().1, expected, "{what} {scopes:?}");
        }
        // A token is taken from its header alone (J14).
        let token = world.token(ISSUER);
        let query = format!("{path}?access_token={token}");
        let headers = [("cookie", format!("token={token}"))];
        let reply = world.send_raw(&operation.method, &query, &headers, None).await;
        assert_eq!(reply.refusal().1, "UNAUTHORIZED", "{what}");
    }
}
