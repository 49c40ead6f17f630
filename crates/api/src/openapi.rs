//! The description of the API (OpenAPI 3.1), written from the table of routes, the
//! table of error codes and the catalogue; the shapes stand in `openapi/schemas.json`.

mod parameters;
mod responses;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tidings_catalogue::Catalogue;
use tidings_egress::Policy;

use crate::{
    errors::Code,
    routes::{Access, BodyRule, Operation, ROUTES, Route},
};

/// What of a deployment its description says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deployment<'a> {
    /// Whether the routes of `--dev` are part of it.
    pub(crate) dev: bool,
    pub(crate) ladders: &'a BTreeSet<String>,
    pub(crate) min_timeout_ms: u32,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) url_policy: &'a Policy,
}

/// The whole document.
pub(crate) fn document(of: Deployment<'_>) -> Value {
    let mut schemas = schemas::all(of);
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
    for route in ROUTES.iter().filter(|route| of.dev || !is_dev(route)) {
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
            "examples": responses::examples(),
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
    operation.insert("operationId".to_owned(), id(route, method, number).into());
    operation.insert("summary".to_owned(), route.summary.into());
    operation.insert("parameters".to_owned(), parameters::of(route));
    if let Some(scope) = scope(route) {
        operation.insert("security".to_owned(), json!([{ "token": [] }]));
        operation.insert("x-scope".to_owned(), scope.into());
    }
    if !route.request.is_empty() {
        operation.insert("requestBody".to_owned(), request_body(route));
    }
    operation.insert("responses".to_owned(), responses::of(route, number));
    Value::Object(operation)
}

/// The name of an operation among all.
fn id(route: &Route, method: &str, number: usize) -> String {
    format!("{}{}{}", route.operation.name(), alias(route, method), prefix_name(number))
}

/// The names of the parameters of a path.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
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

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn request_body(route: &Route) -> Value {
    let schema = reference(route.request);
    let mut content = json!({ "application/json": { "schema": &schema } });
    if route.body == BodyRule::Events {
        let lines = match route.access {
            // As OpenAPI has it of formats of lines: what is said of an array is said of them.
            Access::Open | Access::Scope(_) => json!({
                "type": "array", "items": schema, "minItems": 1, "maxItems": 1000,
                "description": "One a line",
            }),
            // Whatever it is, it is written.
            Access::Dev(_) => schema,
        };
        content["application/x-ndjson"] = json!({ "schema": lines });
    }
    json!({ "required": route.body != BodyRule::OptionalJson, "content": content })
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
            url_policy: &Policy::default(),
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
            let place = target.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{target} leads nowhere");
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
        let mut answered: BTreeSet<Code> = ROUTES.iter().flat_map(responses::codes).collect();
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
