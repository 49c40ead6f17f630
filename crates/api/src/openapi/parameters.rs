//! What stands in the path, the query and the headers of a request.

use serde_json::{Value, json};

use super::{is_eds, reference};
use crate::{
    admin,
    errors::Code,
    fraud, paging,
    routes::{Operation, Platform, Route},
};

/// The parameters of a route.
pub(super) fn of(route: &Route) -> Value {
    let mut list = Vec::new();
    for name in super::path_parameters(route.path) {
        list.push(json!({
            "name": name, "in": "path", "required": true, "schema": in_path(name),
        }));
    }
    for name in route.query {
        let required = matches!(*name, "from" | "what");
        let schema = in_query(name, route.operation);
        list.push(json!({ "name": name, "in": "query", "required": required, "schema": schema }));
    }
    if is_eds(route) {
        let code = reference("ManagerCode");
        list.push(header("X-PM-Code", "A programme manager's code or id", &code));
        let region = json!({ "type": "string", "enum": ["0", "1", "2"] });
        list.push(header("X-Region", "Default, EMEA or APAC", &region));
    }
    let is_ingest = route.operation == Operation::Platform(Platform::Ingest);
    if route.errors.contains(&Code::IdempotencyKeyReused) || is_ingest {
        let key = json!({
            "type": "string", "pattern": "^[!-~]{1,255}$", "examples": ["order-4711"],
        });
        list.push(header("Idempotency-Key", "Makes a repeat safe for 24 hours", &key));
    }
    if route.errors.contains(&Code::PreconditionFailed) {
        let tag = json!({
            "type": "string",
            "pattern": "^(\\*|\"[0-9]{1,19}\"(, ?\"[0-9]{1,19}\")*)$",
            "examples": ["*"],
        });
        list.push(header("If-Match", "The ETag that the change is meant for", &tag));
    }
    let trace = json!({
        "type": "string",
        "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    });
    let what = "The caller's trace (W3C), which goes on; one that cannot be read is replaced";
    list.push(header("traceparent", what, &trace));
    Value::Array(list)
}

fn header(name: &str, description: &str, schema: &Value) -> Value {
    json!({
        "name": name, "in": "header", "required": false, "description": description,
        "schema": schema,
    })
}

fn in_query(name: &str, operation: Operation) -> Value {
    match name {
        "from" => json!({
            "type": "string", "format": "date", "description": "A day in UTC that has begun",
            "examples": ["2024-01-24"],
        }),
        "count" => json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 100 }),
        "limit" => {
            let most = most(operation);
            json!({ "type": "integer", "minimum": 1, "maximum": most, "default": most })
        }
        "prune" => json!({ "type": "boolean", "default": false }),
        "status" => reference("WebhookStatus"),
        "productId" => json!({ "type": "string", "pattern": "^[0-9]{1,32}$" }),
        "cursor" => json!({
            "type": "string", "pattern": "^.+\\.[0-9a-f]{16}$",
            "description": "`nextCursor` of the page before",
        }),
        "after" => json!({
            "type": "string", "pattern": "^([0-9]{1,18}-[0-9]{1,18}-[0-9]{1,18})?$",
            "description": "`next` of the answer before",
        }),
        "what" => json!({
            "type": "string",
            "description": "An event's uid, topic/partition/offset, or a notification's id",
            "anyOf": [
                { "pattern": "^[0-9a-f]{64}$" },
                { "pattern": "^[0-9A-Za-z._-]{1,200}/[0-9]{1,9}/[0-9]{1,18}$" },
                { "format": "uuid" },
            ],
            "examples": ["tidings.events.104/0/0"],
        }),
        _ => json!({ "type": "string" }),
    }
}

/// The most entries of a page.
fn most(operation: Operation) -> usize {
    match operation {
        Operation::Platform(Platform::FraudResponses) => fraud::MOST,
        Operation::Platform(Platform::ListQuarantine) => admin::quarantine::MOST,
        Operation::Open(_) | Operation::Platform(_) | Operation::Eds(_) => paging::MOST,
    }
}

fn in_path(name: &str) -> Value {
    match name {
        "webhookId" | "hookId" => json!({
            "type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$",
            "examples": ["af2d48de-2ad7-42f8-a252-8422cd9e6078"],
        }),
        "notificationId" => reference("NotificationId"),
        "eventCode" => reference("KnownEventCode"),
        "name" => reference("HookEventType"),
        "configId" => json!({ "type": "string", "examples": ["5789653-20250602063331"] }),
        "id" => json!({ "type": "string", "examples": ["0"] }),
        "topic" => json!({ "type": "string", "examples": ["104"] }),
        _ => json!({ "type": "string" }),
    }
}
