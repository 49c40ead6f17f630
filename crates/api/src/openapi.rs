//! The description of the API (OpenAPI 3.1), written from the table of routes and
//! the table of error codes; the shapes stand in `openapi/schemas.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use tidings_catalogue::{Catalogue, EventType};

use crate::{
    admin,
    errors::Code,
    fraud, paging,
    probes::METRICS_TYPE,
    routes::{Access, BodyRule, Operation, Platform, ROUTES, Route},
};

const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// What any route with a token may answer.
const COMMON: &[Code] = &[
    Code::Unauthorized,
    Code::Forbidden,
    Code::InvalidHost,
    Code::MethodNotAllowed,
    Code::TechnicalError,
    Code::ServiceUnavailable,
];
const COMMON_EDS: &[Code] =
    &[Code::InvalidRegion, Code::PmcodeNotValid, Code::PmcodeRequired, Code::RateLimited];
const COMMON_BODY: &[Code] =
    &[Code::PayloadTooLarge, Code::UnsupportedMediaType, Code::RequestTimeout];

/// Requests whose members may be null instead of absent (`input`).
const REQUESTS: &[&str] = &[
    "ConfigSave",
    "WebhookCreate",
    "WebhookUpdate",
    "Rotate",
    "ConfigurationCreate",
    "HookCreate",
    "HookUpdate",
];

/// Lets the members of an object that are not required be null.
fn let_be_null(schema: &mut Value) {
    let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, member) in schema["properties"].as_object_mut().into_iter().flatten() {
        if !required.iter().any(|required| required == name) {
            *member = json!({ "anyOf": [member.take(), { "type": "null" }] });
        }
    }
}

/// What of a deployment its description says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deployment<'a> {
    /// Whether the routes of `--dev` are part of it.
    pub(crate) dev: bool,
    pub(crate) ladders: &'a BTreeSet<String>,
    pub(crate) min_timeout_ms: u32,
    pub(crate) catalogue: &'a Catalogue,
}

/// The whole document.
pub(crate) fn document(of: Deployment<'_>) -> Value {
    let Deployment { dev, ladders, min_timeout_ms, catalogue } = of;
    let mut schemas: Map<String, Value> =
        serde_json::from_str(SCHEMAS).expect("a test reads the file that is compiled in");
    for name in REQUESTS {
        let_be_null(&mut schemas[*name]);
    }
    let codes: Vec<u16> = catalogue.types().filter_map(EventType::code).collect();
    schemas.insert(
        "KnownEventCode".to_owned(),
        json!({ "type": "integer", "enum": codes, "examples": [104] }),
    );
    let hooks: Vec<&str> =
        catalogue.types().filter(|kind| !kind.is_eds()).map(EventType::name).collect();
    schemas.insert(
        "HookEventType".to_owned(),
        json!({
            "type": "string",
            "enum": hooks,
            "description": "A merchant's hook takes the merchants' events, the operator's webhook.*",
        }),
    );
    schemas.insert("LadderName".to_owned(), json!({ "type": "string", "enum": ladders }));
    schemas["ConfigSave"]["properties"]["timeoutMs"]["anyOf"][0]["minimum"] = min_timeout_ms.into();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let texts: BTreeMap<&str, String> = Code::ALL
        .iter()
        .map(|code| (code.as_str(), format!("{}: {}", code.status(), code.text())))
        .collect();
    schemas.insert(
        "ErrorCode".to_owned(),
        json!({ "type": "string", "enum": codes, "x-enum-descriptions": texts }),
    );
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES.iter().filter(|route| dev || !is_dev(route)) {
        for (number, prefix) in route.operation.prefixes().iter().enumerate() {
            let path = paths.entry(format!("{prefix}{}", route.path)).or_default();
            for method in route.methods {
                path.insert(method.to_ascii_lowercase(), operation(route, method, number));
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidings",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Delivers a card processor's events to its clients' webhooks.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
            },
        },
    })
}

fn is_dev(route: &Route) -> bool {
    match route.access {
        Access::Dev(_) => true,
        Access::Open | Access::Scope(_) => false,
    }
}

fn is_eds(route: &Route) -> bool {
    match route.operation {
        Operation::Eds(_) => true,
        Operation::Open(_) | Operation::Platform(_) => false,
    }
}

fn operation(route: &Route, method: &str, number: usize) -> Value {
    let mut operation = Map::new();
    let id = format!("{}{}{}", route.operation.name(), alias(route, method), prefix_name(number));
    operation.insert("operationId".to_owned(), id.into());
    operation.insert("summary".to_owned(), route.summary.into());
    operation.insert("parameters".to_owned(), parameters(route));
    if let Some(scope) = scope(route) {
        operation.insert("security".to_owned(), json!([{ "token": [] }]));
        operation.insert("x-scope".to_owned(), scope.into());
    }
    if !route.request.is_empty() {
        operation.insert("requestBody".to_owned(), request_body(route));
    }
    operation.insert("responses".to_owned(), responses(route));
    Value::Object(operation)
}

/// An operation id is said once: further methods and prefixes add their name.
fn alias(route: &Route, method: &str) -> String {
    match route.methods.first() {
        Some(first) if *first == method => String::new(),
        Some(_) | None => format!("By{method}"),
    }
}

fn prefix_name(number: usize) -> &'static str {
    if number == 0 { "" } else { "OfHub" }
}

fn scope(route: &Route) -> Option<&'static str> {
    match route.access {
        Access::Open => None,
        Access::Scope(scope) | Access::Dev(scope) => Some(scope),
    }
}

fn parameters(route: &Route) -> Value {
    let mut list = Vec::new();
    for part in route.path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            list.push(json!({
                "name": name, "in": "path", "required": true, "schema": path_parameter(name),
            }));
        }
    }
    for name in route.query {
        let schema = match *name {
            "from" => json!({ "type": "string", "format": "date" }),
            "count" => json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 100 }),
            "limit" => {
                let most = most(route.operation);
                json!({ "type": "integer", "minimum": 1, "maximum": most, "default": most })
            }
            "prune" => json!({ "type": "boolean", "default": false }),
            "status" => reference("WebhookStatus"),
            "productId" => json!({ "type": "string", "pattern": "^[0-9]{1,32}$" }),
            "cursor" => {
                json!({ "type": "string", "description": "`nextCursor` of the page before" })
            }
            "after" => json!({ "type": "string", "description": "`next` of the answer before" }),
            _ => json!({ "type": "string" }),
        };
        let required = matches!(*name, "from" | "what");
        list.push(json!({ "name": name, "in": "query", "required": required, "schema": schema }));
    }
    if is_eds(route) {
        let code = json!({ "type": "string", "minLength": 1 });
        list.push(header("X-PM-Code", "A programme manager's code or id", &code));
        let region = json!({ "type": "string", "enum": ["0", "1", "2"] });
        list.push(header("X-Region", "Default, EMEA or APAC", &region));
    }
    if route.errors.contains(&Code::IdempotencyKeyReused) || route.body == BodyRule::Events {
        let key = json!({ "type": "string", "minLength": 1, "maxLength": 255 });
        list.push(header("Idempotency-Key", "Makes a repeat safe for 24 hours", &key));
    }
    if route.errors.contains(&Code::PreconditionFailed) {
        let tag = json!({ "type": "string" });
        list.push(header("If-Match", "The ETag that the change is meant for", &tag));
    }
    Value::Array(list)
}

fn header(name: &str, description: &str, schema: &Value) -> Value {
    json!({
        "name": name, "in": "header", "required": false, "description": description,
        "schema": schema,
    })
}

/// The most entries of a page.
fn most(operation: Operation) -> usize {
    match operation {
        Operation::Platform(Platform::FraudResponses) => fraud::MOST,
        Operation::Platform(Platform::ListQuarantine) => admin::quarantine::MOST,
        Operation::Open(_) | Operation::Platform(_) | Operation::Eds(_) => paging::MOST,
    }
}

fn path_parameter(name: &str) -> Value {
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

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn request_body(route: &Route) -> Value {
    let schema = reference(route.request);
    let mut content = json!({ "application/json": { "schema": schema } });
    if route.body == BodyRule::Events {
        content["application/x-ndjson"] = json!({ "schema": { "type": "string" } });
    }
    json!({ "required": route.body != BodyRule::OptionalJson, "content": content })
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    let mut success = json!({ "description": route.summary });
    match (route.response, route.access) {
        ("", _) => {}
        ("Metrics", _) => {
            success["content"] = json!({ METRICS_TYPE: { "schema": reference("Metrics") } });
        }
        (name, Access::Open) => {
            success["content"] = json!({ "application/json": { "schema": reference(name) } });
        }
        (name, Access::Scope(_) | Access::Dev(_)) => {
            success["content"] = json!({ "application/json": { "schema": {
                "type": "object",
                "required": ["status", "response"],
                "properties": { "status": { "const": "success" }, "response": reference(name) },
            } } });
        }
    }
    responses.insert(route.status.to_string(), success);
    let mut by_status: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for code in codes(route) {
        by_status.entry(code.status()).or_default().insert(code.as_str());
    }
    for (status, codes) in by_status {
        let description = codes.into_iter().collect::<Vec<_>>().join(", ");
        responses.insert(
            status.to_string(),
            json!({
                "description": description,
                "content": { "application/json": { "schema": reference("Error") } },
            }),
        );
    }
    Value::Object(responses)
}

/// Every code that a route may answer.
fn codes(route: &Route) -> Vec<Code> {
    let mut codes = route.errors.to_vec();
    if route.access == Access::Open {
        codes.push(Code::InvalidHost);
    } else {
        codes.extend(COMMON);
    }
    if is_eds(route) {
        codes.extend(COMMON_EDS);
    }
    if route.body != BodyRule::None {
        codes.extend(COMMON_BODY);
    }
    if route.access == Access::Open || route.path.contains('{') {
        codes.push(Code::NotFound);
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(dev: bool) -> Value {
        let ladders = BTreeSet::from(["standard".to_owned()]);
        let catalogue = Catalogue::builtin();
        super::document(Deployment {
            dev,
            ladders: &ladders,
            min_timeout_ms: 1000,
            catalogue: &catalogue,
        })
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.insert(target.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document(true);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for target in &found {
            let name = target.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas.contains_key(name), "{target} leads nowhere");
        }
        for name in schemas.keys() {
            assert!(found.contains(&format!("#/components/schemas/{name}")), "{name} is unused");
        }
    }

    #[test]
    fn every_route_and_method_is_described_and_operation_ids_differ() {
        let document = document(true);
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            for prefix in route.operation.prefixes() {
                for method in route.methods {
                    let path = format!("{prefix}{}", route.path);
                    let operation = &document["paths"][&path][method.to_ascii_lowercase()];
                    let id = operation["operationId"].as_str().unwrap().to_owned();
                    assert!(ids.insert(id.clone()), "{id} twice");
                }
            }
        }
    }

    #[test]
    fn every_code_is_one_that_some_route_answers() {
        let mut answered: BTreeSet<Code> = ROUTES.iter().flat_map(codes).collect();
        answered.insert(Code::NotFound);
        for code in Code::ALL {
            assert!(answered.contains(code), "no route answers {code:?}");
        }
    }

    #[test]
    fn what_only_dev_has_is_described_only_there() {
        let path = "/admin/v1/raw/{topic}";
        assert!(document(true)["paths"].get(path).is_some());
        assert!(document(false)["paths"].get(path).is_none());
    }
}
