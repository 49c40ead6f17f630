//! The description of the API (OpenAPI 3.1), written from the table of routes and
//! the table of error codes; the shapes stand in `openapi/schemas.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{
    errors::Code,
    routes::{Access, BodyRule, Operation, ROUTES, Route},
};

const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// What any route with a token may answer.
const COMMON: &[Code] = &[
    Code::Unauthorized,
    Code::Forbidden,
    Code::MethodNotAllowed,
    Code::TechnicalError,
    Code::ServiceUnavailable,
];
const COMMON_EDS: &[Code] = &[Code::InvalidRegion, Code::PmcodeNotValid, Code::PmcodeRequired];
const COMMON_BODY: &[Code] =
    &[Code::PayloadTooLarge, Code::UnsupportedMediaType, Code::RequestTimeout];

/// The whole document. `dev` says whether the routes of `--dev` are part of it.
pub(crate) fn document(dev: bool) -> Value {
    let mut schemas: Map<String, Value> =
        serde_json::from_str(SCHEMAS).expect("a test reads the file that is compiled in");
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
                "name": name, "in": "path", "required": true, "schema": { "type": "string" },
            }));
        }
    }
    for name in route.query {
        let schema = match *name {
            "from" => json!({ "type": "string", "format": "date" }),
            "count" | "limit" => json!({ "type": "integer", "minimum": 1 }),
            "prune" => json!({ "type": "boolean" }),
            _ => json!({ "type": "string" }),
        };
        let required = matches!(*name, "from" | "what");
        list.push(json!({ "name": name, "in": "query", "required": required, "schema": schema }));
    }
    if is_eds(route) {
        list.push(header("X-PM-Code", "A programme manager's code or id"));
        list.push(header("X-Region", "0, 1 or 2"));
    }
    if route.errors.contains(&Code::IdempotencyKeyReused) || route.body == BodyRule::Events {
        list.push(header("Idempotency-Key", "Makes a repeat safe for 24 hours"));
    }
    if route.errors.contains(&Code::PreconditionFailed) {
        list.push(header("If-Match", "The ETag that the change is meant for"));
    }
    Value::Array(list)
}

fn header(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "header", "required": false, "description": description,
        "schema": { "type": "string" },
    })
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
            success["content"] = json!({ "text/plain": { "schema": reference("Metrics") } });
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
    if route.access != Access::Open {
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
