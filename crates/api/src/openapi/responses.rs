//! What a route answers: its success with what may be done next, and every error.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{id, is_eds, path_parameters, reference};
use crate::{
    errors::Code,
    probes::METRICS_TYPE,
    routes::{Access, BodyRule, Eds, Operation, Platform, ROUTES, Route},
};

/// What each shape, or an operation by its own name, answers.
const EXAMPLES: &str = include_str!("examples.json");

/// What any route with a token may answer.
const COMMON: &[Code] = &[
    Code::Unauthorized,
    Code::Forbidden,
    Code::BadRequest,
    Code::HeadTooLarge,
    Code::InvalidHost,
    Code::MethodNotAllowed,
    Code::TechnicalError,
    Code::ServiceUnavailable,
];
const COMMON_EDS: &[Code] =
    &[Code::InvalidRegion, Code::PmcodeNotValid, Code::PmcodeRequired, Code::RateLimited];
const COMMON_BODY: &[Code] =
    &[Code::PayloadTooLarge, Code::UnsupportedMediaType, Code::RequestTimeout];

/// The answers of a route that stands under its prefix of this number.
pub(super) fn of(route: &Route, number: usize) -> Value {
    let mut responses = Map::new();
    responses.insert(route.status.to_string(), success(route, number));
    let mut by_status: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for code in codes(route) {
        by_status.entry(code.status()).or_default().insert(code.as_str());
    }
    for (status, codes) in by_status {
        let examples: Map<String, Value> = codes
            .iter()
            .map(|code| {
                let place = format!("#/components/examples/{code}");
                ((*code).to_owned(), json!({ "$ref": place }))
            })
            .collect();
        let description = codes.into_iter().collect::<Vec<_>>().join(", ");
        let content = json!({ "schema": reference("Error"), "examples": examples });
        let mut response =
            json!({ "description": description, "content": { "application/json": content } });
        let header = match status {
            401 => Some(("WWW-Authenticate", json!({ "type": "string" }))),
            405 => Some(("Allow", json!({ "type": "string" }))),
            429 | 503 => Some(("Retry-After", json!({ "type": "integer", "minimum": 0 }))),
            _ => None,
        };
        if let Some((name, schema)) = header {
            response["headers"] = json!({ name: { "schema": schema } });
        }
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}

fn success(route: &Route, number: usize) -> Value {
    let mut success = json!({ "description": route.summary });
    let example = example(route);
    match (route.response, route.access) {
        ("", _) => {}
        ("Metrics", _) => {
            success["content"] =
                json!({ METRICS_TYPE: { "schema": reference("Metrics"), "example": example } });
        }
        (name, Access::Open) => {
            success["content"] =
                json!({ "application/json": { "schema": reference(name), "example": example } });
        }
        (name, Access::Scope(_) | Access::Dev(_)) => {
            let schema = json!({
                "type": "object",
                "required": ["status", "response"],
                "properties": { "status": { "const": "success" }, "response": reference(name) },
            });
            let example = json!({ "status": "success", "response": example });
            success["content"] =
                json!({ "application/json": { "schema": schema, "example": example } });
        }
    }
    if let Some((parameter, place)) = made(route.operation) {
        success["links"] = links(parameter, place, number);
        success["headers"] = json!({ "Location": { "schema": { "type": "string" } } });
    }
    success
}

/// What an operation answers, for example: its own, or that of its shape.
fn example(route: &Route) -> Value {
    let mut examples: Map<String, Value> =
        serde_json::from_str(EXAMPLES).expect("a test reads the file that is compiled in");
    let own = examples.remove(&route.operation.name());
    own.or_else(|| examples.remove(route.response)).unwrap_or(Value::Null)
}

/// The parameter that names what an operation makes, and where its answer has it.
fn made(operation: Operation) -> Option<(&'static str, &'static str)> {
    match operation {
        Operation::Eds(Eds::CreateWebhook) => Some(("webhookId", "/response/webhookId")),
        Operation::Eds(Eds::CreateConfiguration) => {
            Some(("configId", "/response/content/0/configId"))
        }
        Operation::Platform(Platform::CreateHook) => Some(("hookId", "/response/hookId")),
        Operation::Platform(Platform::CreatePause) => Some(("pauseId", "/response/pauseId")),
        Operation::Open(_) | Operation::Platform(_) | Operation::Eds(_) => None,
    }
}

/// Every operation that takes what was made, under the same prefix.
fn links(parameter: &str, place: &str, number: usize) -> Value {
    let takes = |route: &&Route| path_parameters(route.path).any(|name| name == parameter);
    let mut links = Map::new();
    for route in ROUTES.iter().filter(takes) {
        for method in route.methods {
            let id = id(route, method, number);
            let link = json!({
                "operationId": id, "parameters": { parameter: format!("$response.body#{place}") },
            });
            links.insert(id, link);
        }
    }
    Value::Object(links)
}

/// Every code that a route may answer.
pub(super) fn codes(route: &Route) -> Vec<Code> {
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

/// An answer with each error alone, by the error's code.
pub(super) fn examples() -> Map<String, Value> {
    let example = |code: &Code| {
        let value = json!({
            "status": "error",
            "errors": [{ "code": code.as_str(), "message": code.text() }],
            "traceId": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        });
        (code.as_str().to_owned(), json!({ "summary": code.text(), "value": value }))
    };
    Code::ALL.iter().map(example).collect()
}
