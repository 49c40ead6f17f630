//! `/Configs`: which transaction confirmations (112) a recipient wants (`spec.md`
//! §1.10 and §4). There is no deletion: one that is inactive wants nothing.

use std::sync::Arc;

use http::{StatusCode, header};
use serde_json::{Map, Value as Json, json};
use tidings_catalogue::json::Value;
use tidings_registry::{Change, Configuration, EntityKey, ProposeError, Snapshot, State as Entity};
use tidings_types::{PmId, ProductId, Scope, Timestamp};

use crate::{
    answer::Answer,
    caller::{Sight, select},
    commands,
    config::Compat,
    dispatch::Call,
    errors::{ApiError, Code, Fault},
    input::{self, Object, wrong},
    paging::{self, List},
    webhooks::{
        body, check_if_match, product_shape,
        registering::{remember, replayed},
    },
};

/// How often an id is made anew when two configurations get the same one, and a
/// change is tried again when another one came first.
const TRIES: usize = 4;

/// What a client sent.
#[derive(Clone, Debug, Default)]
struct Input {
    pm: Option<PmId>,
    product: Option<ProductId>,
    active: bool,
    filter: Vec<u32>,
}

/// Creates a configuration.
pub(crate) async fn create(call: &Call<'_>) -> Result<Answer, ApiError> {
    let state = call.state;
    let command = commands::of(call.request)?;
    if let Some(answer) = replayed(state, command.as_ref()).await? {
        return Ok(answer);
    }
    let input = read(call)?;
    state.decide(|snapshot| check_scope(call, &input, snapshot)).await?;
    for _ in 0..TRIES {
        let configuration = build(call, &input);
        let change = Change {
            entity: EntityKey::new("config", &configuration.id),
            expected_version: 0,
            claims: vec![claim(&configuration)],
            command: command.as_ref().map(commands::Command::reference),
            actor: call.request.caller.subject.clone(),
            trace: call.request.trace.as_str().to_owned(),
            state: Entity::Configuration(configuration.clone()),
        };
        let made = match state.deps.registry.propose(change).await {
            Ok(_accepted) => configuration,
            Err(ProposeError::VersionConflict { .. }) => continue,
            Err(error) => before(&state.deps.registry.snapshot(), &error)?,
        };
        let answer = Answer::success(StatusCode::CREATED, &shape(&made, state.config.compat))
            .etag(1)
            .with(header::LOCATION, &format!("/api/v1/Configs/{}", made.id));
        remember(state, call.request, command.as_ref(), &answer).await;
        return Ok(answer);
    }
    Err(commands::unavailable())
}

/// The configuration that the same command made before, or what the refusal is to
/// a client.
fn before(snapshot: &Snapshot, error: &ProposeError) -> Result<Configuration, ApiError> {
    match error {
        ProposeError::Claimed { .. } => Err(Code::DuplicateConfiguration.into()),
        ProposeError::Repeated { same_body: false, .. } => Err(commands::reused()),
        ProposeError::Repeated { entity, same_body: true } => entity
            .as_str()
            .strip_prefix("config/")
            .and_then(|id| snapshot.configurations.get(id))
            .map(|configuration| configuration.as_ref().clone())
            .ok_or_else(commands::unavailable),
        ProposeError::VersionConflict { .. }
        | ProposeError::Unavailable
        | ProposeError::Unknown => Err(commands::unavailable()),
    }
}

fn read(call: &Call<'_>) -> Result<Input, ApiError> {
    let document = input::parse(&call.request.body)?;
    let mut faults = Vec::new();
    let known = ["pmId", "productId", "status", "messageTypeFilter"];
    let Some(object) = Object::take(document.root(), &known, &mut faults) else {
        return Err(faults.into());
    };
    let pm = object.get("pmId").and_then(|value| {
        let id = value.id_text().and_then(|text| text.parse().ok());
        if id.is_none() {
            faults.push(wrong(value.path(), "must be an integer"));
        }
        id.map(PmId)
    });
    let product = object.get("productId").and_then(|value| body::product(value, &mut faults));
    let (active, filter) = read_wish(object, &mut faults);
    ApiError::check(faults)?;
    Ok(Input { pm, product, active, filter })
}

/// Status and filter, both required.
fn read_wish(object: Object<'_>, faults: &mut Vec<Fault>) -> (bool, Vec<u32>) {
    let active = match object.required_string("status", faults) {
        Some(text) if text.eq_ignore_ascii_case("active") => true,
        Some(text) if text.eq_ignore_ascii_case("inactive") => false,
        Some(_) => {
            faults.push(Fault::at(Code::InvalidStatus, "status"));
            false
        }
        None => false,
    };
    let filter = object
        .required("messageTypeFilter", faults)
        .and_then(|_| object.array("messageTypeFilter", faults))
        .map(|values| filter(&values, faults))
        .unwrap_or_default();
    (active, filter)
}

/// `GET /Configs`: those that this call may see, in the order in which they were
/// made.
pub(crate) fn list(call: &Call<'_>) -> Result<Answer, ApiError> {
    let query = &call.request.query;
    let limit = query.limit(paging::MOST)?;
    let snapshot = &call.snapshot;
    let mut matching: Vec<_> = snapshot
        .configurations
        .values()
        .filter(|configuration| call.sight.sees_scope(&configuration.owner, snapshot))
        .map(|configuration| ((configuration.created, configuration.id.as_str()), configuration))
        .collect();
    matching.sort_by_key(|(place, _)| *place);
    let total = matching.len();
    let list = List::of("configurations").seen_by(&call.sight);
    let after = match list.place(call.state, query)? {
        Some(text) => Some(place(text).ok_or_else(paging::invalid)?),
        None => None,
    };
    let is_next = |at: (Timestamp, &str)| {
        after.as_ref().is_none_or(|(created, id)| at > (*created, id.as_str()))
    };
    let mut rest = matching.into_iter().filter(|(at, _)| is_next(*at));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let content: Vec<_> = page.iter().map(|(_, found)| stored_shape(found)).collect();
    let mut response = json!({ "content": content, "totalCount": total });
    if let (Some(_), Some(((created, id), _))) = (rest.next(), page.last()) {
        let next = format!("{}.{id}", created.as_millis());
        response["nextCursor"] = list.cursor(call.state, &next)?.into();
    }
    Ok(Answer::ok(&response))
}

/// The place that a cursor names.
fn place(text: &str) -> Option<(Timestamp, String)> {
    let (created, id) = text.split_once('.')?;
    Some((Timestamp::from_millis(created.parse().ok()?), id.to_owned()))
}

/// `GET /Configs/{configId}`.
pub(crate) async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    let configuration = find(call).await?;
    let snapshot = call.state.deps.registry.snapshot();
    let version = snapshot.entity_version(&entity(&configuration));
    Ok(Answer::ok(&stored_shape(&configuration)).etag(version))
}

/// `PUT /Configs/{configId}`: replaces status and filter. The scope stays.
pub(crate) async fn update(call: &Call<'_>) -> Result<Answer, ApiError> {
    let state = call.state;
    let id = find(call).await?.id.clone();
    let document = input::parse(&call.request.body)?;
    let mut faults = Vec::new();
    let known = ["status", "messageTypeFilter"];
    let object = Object::take(document.root(), &known, &mut faults);
    let wish = object.map(|object| read_wish(object, &mut faults));
    ApiError::check(faults)?;
    let (active, filter) = wish.unwrap_or_default();
    for _ in 0..TRIES {
        let decide = |snapshot: &Arc<Snapshot>| {
            let current = snapshot.configurations.get(&id).ok_or_else(unknown)?;
            let version = snapshot.entity_version(&entity(current));
            let conditional = check_if_match(&call.request.headers, version)?;
            Ok((current.as_ref().clone(), version, conditional))
        };
        let (mut next, expected_version, conditional) = state.decide(decide).await?;
        next.active = active;
        next.filter.clone_from(&filter);
        next.modified = state.now();
        let change = Change {
            entity: entity(&next),
            expected_version,
            claims: vec![claim(&next)],
            command: None,
            actor: call.request.caller.subject.clone(),
            trace: call.request.trace.as_str().to_owned(),
            state: Entity::Configuration(next.clone()),
        };
        match state.deps.registry.propose(change).await {
            Ok(_accepted) => {
                return Ok(Answer::ok(&stored_shape(&next)).etag(expected_version + 1));
            }
            Err(ProposeError::VersionConflict { .. }) if conditional => {
                return Err(ApiError::at(Code::PreconditionFailed, "If-Match"));
            }
            Err(ProposeError::VersionConflict { .. }) => {}
            Err(error) => {
                let snapshot = state.deps.registry.snapshot();
                return Err(before(&snapshot, &error).err().unwrap_or_else(unknown));
            }
        }
    }
    Err(commands::unavailable())
}

fn unknown() -> ApiError {
    ApiError::at(Code::ConfigNotFound, "configId")
}

fn entity(configuration: &Configuration) -> EntityKey {
    EntityKey::new("config", &configuration.id)
}

/// Finds the configuration that the path names, if this call may see it.
async fn find(call: &Call<'_>) -> Result<Arc<Configuration>, ApiError> {
    let id = call.request.param("configId");
    let visible = |snapshot: &Arc<Snapshot>| {
        let configuration = snapshot.configurations.get(id).ok_or_else(unknown)?;
        let sees = call.sight.sees_scope(&configuration.owner, snapshot);
        sees.then(|| Arc::clone(configuration)).ok_or_else(unknown)
    };
    call.state.decide(visible).await
}

/// Codes 0 to 6, each once; 0 may stand beside others (`spec.md` §4.2).
fn filter(values: &[Value<'_>], faults: &mut Vec<Fault>) -> Vec<u32> {
    let field = "messageTypeFilter";
    let mut codes: Vec<u32> = Vec::new();
    for value in values {
        let code = value.integer().and_then(|code| u32::try_from(code).ok());
        match code.filter(|code| *code <= 6 && !codes.contains(code)) {
            Some(code) => codes.push(code),
            None => faults.push(Fault::at(Code::InvalidMessageTypeFilter, value.path())),
        }
    }
    if values.is_empty() {
        faults.push(Fault::at(Code::InvalidMessageTypeFilter, field));
    }
    codes
}

/// Who may configure what (`spec.md` §4.1).
fn check_scope(call: &Call<'_>, input: &Input, snapshot: &Snapshot) -> Result<(), ApiError> {
    let within = match input.pm {
        None => call.sight.clone(),
        Some(pm) => select(&call.request.caller, &call.sight, (&pm.to_string(), "pmId"), snapshot)
            .and_then(|named| same(&named, pm))?,
    };
    let Some(product) = &input.product else { return Ok(()) };
    let owned = snapshot
        .products
        .get(product)
        .is_some_and(|known| within.has_manager(known.programme_manager, snapshot));
    if owned { Ok(()) } else { Err(ApiError::at(Code::ProductNotValid, "productId")) }
}

/// `pmId` is an id and not a code that looks like one.
fn same(named: &Sight, pm: PmId) -> Result<Sight, ApiError> {
    match named {
        Sight::Manager(id) if *id == pm => Ok(named.clone()),
        Sight::Manager(_) | Sight::Issuer(_) => Err(ApiError::at(Code::PmcodeNotValid, "pmId")),
    }
}

fn build(call: &Call<'_>, input: &Input) -> Configuration {
    let now = call.state.now();
    Configuration {
        id: id(call.state.random(), now),
        owner: call.sight.scope(),
        pm: input.pm,
        product: input.product.clone(),
        active: input.active,
        filter: input.filter.clone(),
        created: now,
        modified: now,
    }
}

/// A number, a dash and the time, as in `5789653-20250602063331`.
fn id(random: [u8; 4], now: Timestamp) -> String {
    let number = 1_000_000 + u32::from_le_bytes(random) % 9_000_000;
    let (year, month, day, hour, minute, second, _) = now.civil();
    format!("{number}-{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

/// The scope as a name that one configuration holds. A product belongs to one
/// manager, so naming both is the product's scope; a manager that names itself
/// means all its products.
fn claim(configuration: &Configuration) -> String {
    let (owner, own) = match &configuration.owner {
        Scope::Issuer(id) => (format!("issuer:{id}"), None),
        Scope::ProgrammeManager(id) => (format!("pm:{id}"), Some(*id)),
    };
    let scope = match (&configuration.product, configuration.pm) {
        (Some(product), _) => format!("product:{product}"),
        (None, Some(pm)) if Some(pm) != own => format!("pm:{pm}"),
        (None, Some(_) | None) => "all".to_owned(),
    };
    format!("configuration/{owner}/{scope}")
}

/// As the answer to its creation shows it.
fn shape(configuration: &Configuration, compat: Compat) -> Json {
    let mut item = fields(configuration);
    item.insert("message".to_owned(), "Configuration created successfully.".into());
    let has_both = item.contains_key("pmId") && item.contains_key("productId");
    let content = if compat.config_fanout && has_both {
        let mut of_manager = item.clone();
        of_manager.remove("productId");
        item.remove("pmId");
        vec![of_manager, item]
    } else {
        vec![item]
    };
    json!({ "totalCount": content.len(), "content": content })
}

/// As reads show it.
fn stored_shape(configuration: &Configuration) -> Json {
    let mut item = fields(configuration);
    item.insert("createdDate".to_owned(), configuration.created.to_rfc3339().into());
    item.insert("lastUpdatedDate".to_owned(), configuration.modified.to_rfc3339().into());
    Json::Object(item)
}

fn fields(configuration: &Configuration) -> Map<String, Json> {
    let mut item = Map::new();
    item.insert("configId".to_owned(), configuration.id.as_str().into());
    if let Some(pm) = configuration.pm {
        item.insert("pmId".to_owned(), pm.0.into());
    }
    if let Some(product) = &configuration.product {
        item.insert("productId".to_owned(), product_shape(product));
    }
    let status = if configuration.active { "active" } else { "inactive" };
    item.insert("status".to_owned(), status.into());
    item.insert("messageTypeFilter".to_owned(), json!(configuration.filter));
    item
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn configuration(owner: Scope, pm: Option<i64>, product: Option<&str>) -> Configuration {
        Configuration {
            id: "1".to_owned(),
            owner,
            pm: pm.map(PmId),
            product: product.map(|id| ProductId(Arc::from(id))),
            active: true,
            filter: vec![0],
            created: Timestamp::ZERO,
            modified: Timestamp::ZERO,
        }
    }

    #[test]
    fn a_scope_has_one_name_however_it_is_written() {
        let issuer = || Scope::Issuer(tidings_types::IssuerId(Arc::from("7001")));
        let manager = || Scope::ProgrammeManager(PmId(20));
        let name = |owner, pm, product| claim(&configuration(owner, pm, product));
        assert_eq!(name(issuer(), Some(20), Some("5")), name(issuer(), None, Some("5")));
        assert_eq!(name(manager(), Some(20), None), name(manager(), None, None));
        assert_ne!(name(issuer(), Some(20), None), name(issuer(), None, None));
        assert_ne!(name(issuer(), None, None), name(manager(), None, None));
    }

    #[test]
    fn an_id_has_the_documents_form() {
        let now = Timestamp::from_secs(1_748_846_011);
        assert_eq!(id([0; 4], now), "1000000-20250602063331");
    }
}
