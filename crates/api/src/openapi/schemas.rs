//! The shapes of bodies: those of `schemas.json`, completed with what the catalogue and
//! the deployment's settings say.

use serde_json::{Map, Value, json};
use tidings_catalogue::{Catalogue, EventType, Field, FieldType, Surface};
use tidings_egress::Policy;

use super::{Deployment, reference};

const SCHEMAS: &str = include_str!("schemas.json");

/// Requests whose members may be null instead of absent (`input`).
const REQUESTS: &[&str] =
    &["ConfigSave", "WebhookCreate", "WebhookUpdate", "Rotate", "ConfigurationCreate"];
/// Requests of which a merchant's hook and the operator's have one form each.
const HOOKS: &[&str] = &["HookCreate", "HookUpdate"];
/// What can be paused, one at a time.
const PAUSED: &[&str] =
    &["everything", "eventType", "webhookId", "issuer", "programmeManager", "merchant"];

/// Every shape by its name.
pub(super) fn all(of: Deployment<'_>) -> Map<String, Value> {
    let mut schemas: Map<String, Value> =
        serde_json::from_str(SCHEMAS).expect("a test reads the file that is compiled in");
    for name in REQUESTS {
        let_be_null(&mut schemas[*name]);
    }
    event_names(&mut schemas, of.catalogue);
    for name in HOOKS {
        let hook = schemas[*name].take();
        schemas[*name] = of_two_kinds(hook, of.catalogue);
    }
    events(&mut schemas, of.catalogue);
    one_pause(&mut schemas["PauseSave"]);
    schemas["Url"]["pattern"] = url_pattern(of.url_policy).into();
    schemas.insert("LadderName".to_owned(), json!({ "type": "string", "enum": of.ladders }));
    schemas["ConfigSave"]["properties"]["timeoutMs"]["anyOf"][0]["minimum"] =
        of.min_timeout_ms.into();
    schemas
}

/// Lets the members of an object that are not required be null.
fn let_be_null(schema: &mut Value) {
    let required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, member) in schema["properties"].as_object_mut().into_iter().flatten() {
        if !required.iter().any(|required| required == name) {
            *member = json!({ "anyOf": [member.take(), { "type": "null" }] });
        }
    }
}

fn event_names(schemas: &mut Map<String, Value>, catalogue: &Catalogue) {
    let codes: Vec<u16> = catalogue.types().filter_map(EventType::code).collect();
    let names: Vec<&str> = catalogue.types().map(EventType::name).collect();
    schemas.insert(
        "EventTypeName".to_owned(),
        json!({ "oneOf": [{ "type": "string", "enum": names }, { "type": "integer", "enum": codes }] }),
    );
    schemas.insert(
        "KnownEventCode".to_owned(),
        json!({ "type": "integer", "enum": codes, "examples": [104] }),
    );
    let hooks = names_of(catalogue, |kind| !kind.is_eds());
    schemas.insert(
        "HookEventType".to_owned(),
        json!({
            "type": "string",
            "enum": hooks,
            "description": "A merchant's hook takes the merchants' events, the operator's webhook.*",
        }),
    );
}

fn names_of(catalogue: &Catalogue, wanted: fn(&EventType) -> bool) -> Vec<&str> {
    catalogue.types().filter(|kind| wanted(kind)).map(EventType::name).collect()
}

/// A hook with a merchant takes merchants' events and may sign with one of the merchant's
/// keys; one without takes the platform's own events.
fn of_two_kinds(mut hook: Value, catalogue: &Catalogue) -> Value {
    let examples = hook["examples"].take();
    let description = hook["description"].take();
    for taken in ["examples", "description"] {
        hook.as_object_mut().map(|hook| hook.remove(taken));
    }
    let kind = |title: &str, names: Vec<&str>| {
        let mut kind = hook.clone();
        kind["title"] = title.into();
        kind["properties"]["events"]["items"] = json!({ "type": "string", "enum": names });
        kind
    };
    let mut merchants = kind("A merchant's", names_of(catalogue, EventType::is_merchant));
    if let Some(required) = merchants["required"].as_array_mut() {
        required.push("merchant".into());
    }
    let_be_null(&mut merchants);
    let mut operators = kind("The operator's", names_of(catalogue, EventType::is_ops));
    if let Some(signatures) = operators["properties"]["signature"]["oneOf"].as_array_mut() {
        signatures.retain(|signature| signature["properties"].get("sourceKeyId").is_none());
    }
    let_be_null(&mut operators);
    operators["properties"]["merchant"] = json!({ "type": "null" });
    json!({ "description": description, "examples": examples, "oneOf": [merchants, operators] })
}

/// A pause names one thing; what is null is not named.
fn one_pause(schema: &mut Value) {
    let named = PAUSED.iter().map(|name| {
        let others = PAUSED.iter().filter(|other| *other != name);
        let absent: Map<String, Value> =
            others.map(|other| ((*other).to_owned(), json!({ "type": "null" }))).collect();
        let mut members =
            Map::from_iter([((*name).to_owned(), schema["properties"][*name].clone())]);
        members.extend(absent);
        members.insert("reason".to_owned(), schema["properties"]["reason"].clone());
        json!({
            "type": "object",
            "required": [name, "reason"],
            "additionalProperties": false,
            "properties": members,
        })
    });
    let named: Vec<Value> = named.collect();
    *schema = json!({
        "description": schema["description"],
        "examples": schema["examples"],
        "oneOf": named,
    });
}

/// One shape for each event type that producers publish.
fn events(schemas: &mut Map<String, Value>, catalogue: &Catalogue) {
    let client = schemas.remove("ClientEvent").unwrap_or_default();
    let merchant = schemas.remove("MerchantEvent").unwrap_or_default();
    let mut kinds = Vec::new();
    for kind in catalogue.types() {
        let mut payload = object(kind.fields());
        let mut event = match kind.surface() {
            Surface::Eds => client.clone(),
            Surface::Merchant => merchant.clone(),
            // Tidings publishes these itself.
            Surface::Ops => continue,
        };
        event["title"] = kind.description().into();
        let mut either = None;
        let members = &mut event["properties"];
        if let Some(code) = kind.code() {
            if let Some(deadline) = kind.deadline() {
                let time = json!({ "type": "string", "format": "date-time" });
                payload["properties"][deadline] = time.clone();
                // Without a deadline of its own the event's time decides.
                let told = json!({ "properties": { "notificationTime": time } });
                either = Some(json!([
                    { "properties": { "payload": { "required": [deadline] } } },
                    { "properties": { "context": told } },
                ]));
            }
            members["context"]["properties"]["eventCode"] = json!({ "const": code });
            members["payload"] = payload;
        } else {
            let key = json!({ "type": ["string", "integer"], "minLength": 1 });
            payload["properties"]["merchant"] = json!({
                "type": "object",
                "required": ["merch_key"],
                "properties": { "merch_key": key },
            });
            members["event_type"] = json!({ "const": kind.name() });
            members["event_body"] = payload;
        }
        if let Some(either) = either {
            event["anyOf"] = either;
        }
        let name = format!("Event.{}", kind.name());
        kinds.push(reference(&name));
        schemas.insert(name, event);
    }
    schemas["Event"]["oneOf"] = kinds.into();
}

/// An object with at least these members.
fn object(fields: &[Field]) -> Value {
    let members: Map<String, Value> =
        fields.iter().map(|field| (field.name().to_owned(), member(field))).collect();
    let required: Vec<&str> =
        fields.iter().filter(|field| field.is_required()).map(Field::name).collect();
    let mut schema = json!({ "type": "object", "properties": members });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn member(field: &Field) -> Value {
    let schema = match field.kind() {
        FieldType::String => json!({ "type": "string" }),
        FieldType::Integer => json!({ "type": "integer" }),
        FieldType::Number => json!({ "type": "number" }),
        FieldType::Boolean => json!({ "type": "boolean" }),
        FieldType::Object => object(field.members()),
        FieldType::Array => match field.element() {
            Some(element) => json!({ "type": "array", "items": member(element) }),
            None => json!({ "type": "array" }),
        },
        FieldType::Id => json!({ "type": ["string", "integer"] }),
        FieldType::Guid => json!({
            "oneOf": [{ "type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$" }, { "type": "integer" }],
        }),
        FieldType::Amount => json!({ "type": ["string", "number"] }),
        FieldType::Any => return json!({}),
    };
    if field.is_nullable() { json!({ "anyOf": [schema, { "type": "null" }] }) } else { schema }
}

/// What a URL looks like that any deployment with these settings takes.
fn url_pattern(policy: &Policy) -> String {
    let scheme = if policy.allow_http { "https?" } else { "https" };
    let label = "[0-9A-Za-z]([0-9A-Za-z_-]{0,61}[0-9A-Za-z])?";
    let ports: Vec<String> = policy.ports.iter().map(u16::to_string).collect();
    let ports = ports.join("|");
    let rest = "([0-9A-Za-z._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*";
    let loopback = if policy.allow.is_empty() { "" } else { "|127\\.0\\.0\\.1|localhost" };
    let port =
        if policy.allow.is_empty() { format!("({ports})") } else { "[1-9][0-9]{0,3}".to_owned() };
    format!(
        "^{scheme}://(({label}\\.)+[A-Za-z]{{2,63}}{loopback})(:{port})?(/{rest})?(\\?{rest})?$"
    )
}
