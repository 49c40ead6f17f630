//! What operators have stopped: nothing of it is sent, everything of it is recorded
//! and waits until it goes on.
//!
//! A pause is an entity of the registry, one at most of each thing; its id says of
//! what. The senders honour it (`tidings-sender`); nothing here touches what waits.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value as Json, json};
use tidings_catalogue::json::{Kind, Value};
use tidings_registry::{
    Change, EntityKey, Pause, PauseOf, ProposeError, Snapshot, State as Entity,
};
use tidings_types::{IssuerId, MerchantKey, PmId, WebhookId};

use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    input::{self, Object, wrong},
    state::State,
    webhooks::change::TRIES,
};

/// Characters of a reason.
const MAX_REASON: usize = 500;
/// Pauses at a time: each is looked at for each webhook.
const MAX_PAUSES: usize = 1000;

/// What can be named in a request, one of them.
const OF: [&str; 6] =
    ["everything", "eventType", "webhookId", "issuer", "programmeManager", "merchant"];

/// `POST /admin/v1/pauses`: a repeat changes the reason.
pub(crate) async fn create(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let document = input::parse(&request.body)?;
    let (of, reason) = read(document.root(), state)?;
    let id = of.to_string();
    for _ in 0..TRIES {
        let decide = |snapshot: &Arc<Snapshot>| {
            check(&of, snapshot)?;
            if !snapshot.pauses.contains_key(&id) && snapshot.pauses.len() >= MAX_PAUSES {
                let message = "there are 1,000 pauses; end some, or pause a tenant or everything";
                return Err(Fault::new(Code::InvalidRequestBody).saying(message).into());
            }
            Ok(Arc::clone(snapshot))
        };
        let snapshot = state.decide(decide).await?;
        let before = snapshot.pauses.get(&id);
        let since = before.map_or_else(|| state.now(), |before| before.since);
        let actor = request.caller.subject.clone();
        let pause = Pause { of: of.clone(), reason: reason.clone(), actor, since };
        if propose(state, request, &snapshot, &id, Entity::Pause(pause.clone())).await? {
            return Ok(Answer::success(StatusCode::CREATED, &shape(&pause)));
        }
    }
    Err(unavailable())
}

/// `GET /admin/v1/pauses`.
pub(crate) fn list(state: &State) -> Answer {
    let snapshot = state.deps.registry.snapshot();
    let content: Vec<Json> = snapshot.pauses.values().map(|pause| shape(pause)).collect();
    let total = content.len();
    Answer::ok(&json!({ "content": content, "totalCount": total }))
}

/// `DELETE /admin/v1/pauses/{pauseId}`: it goes on.
pub(crate) async fn delete(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let id = request.param("pauseId");
    for _ in 0..TRIES {
        let decide = |snapshot: &Arc<Snapshot>| {
            let is_there = snapshot.pauses.contains_key(id);
            let missing = || Fault::at(Code::NotFound, "pauseId").saying("nothing is paused so");
            is_there.then(|| Arc::clone(snapshot)).ok_or_else(|| missing().into())
        };
        let snapshot = state.decide(decide).await?;
        let gone = Entity::Deleted { topic_deleted: false, at: state.now() };
        if propose(state, request, &snapshot, id, gone).await? {
            return Ok(Answer::no_content());
        }
    }
    Err(unavailable())
}

/// Whether the registry took it; false: somebody else was first, look again.
async fn propose(
    state: &State,
    request: &Request,
    snapshot: &Snapshot,
    id: &str,
    next: Entity,
) -> Result<bool, ApiError> {
    let entity = EntityKey::new("pause", id);
    let change = Change {
        expected_version: snapshot.entity_version(&entity),
        entity,
        claims: Vec::new(),
        command: None,
        actor: request.caller.subject.clone(),
        trace: request.trace.as_str().to_owned(),
        state: next,
    };
    match state.deps.registry.propose(change).await {
        Ok(_accepted) => Ok(true),
        Err(ProposeError::VersionConflict { .. }) => Ok(false),
        Err(error) => Err(crate::webhooks::change::refused(&error)),
    }
}

fn shape(pause: &Pause) -> Json {
    let mut shape = json!({
        "pauseId": pause.of.to_string(),
        "reason": pause.reason,
        "actor": pause.actor,
        "since": pause.since.to_rfc3339(),
    });
    let (name, value) = match &pause.of {
        PauseOf::Everything => ("everything", true.into()),
        PauseOf::EventType(name) => ("eventType", name.as_ref().into()),
        PauseOf::Webhook(id) => ("webhookId", id.to_string().into()),
        PauseOf::Issuer(id) => ("issuer", id.to_string().into()),
        PauseOf::ProgrammeManager(id) => ("programmeManager", id.0.into()),
        PauseOf::Merchant(key) => ("merchant", key.to_string().into()),
    };
    shape[name] = value;
    shape
}

fn read(root: Value<'_>, state: &State) -> Result<(PauseOf, String), ApiError> {
    let mut faults = Vec::new();
    let known: Vec<&str> = OF.into_iter().chain(["reason"]).collect();
    let object = Object::take(root, &known, &mut faults);
    let reason = object.and_then(|object| object.required_string("reason", &mut faults));
    if let Some(reason) = &reason
        && (reason.trim().is_empty()
            || reason.chars().count() > MAX_REASON
            || reason.chars().any(char::is_control))
    {
        faults.push(wrong("reason", "must have 1 to 500 characters, none of them control ones"));
    }
    let named: Vec<&str> = match object {
        Some(object) => OF.into_iter().filter(|name| object.has(name)).collect(),
        None => Vec::new(),
    };
    let of = match (object, named.as_slice()) {
        (Some(object), [name]) => object.get(name).and_then(|value| {
            let of = of(name, value, state);
            if of.is_none() {
                faults.push(wrong(value.path(), "names nothing that can be paused"));
            }
            of
        }),
        (Some(_), _) => {
            let message = "name one of everything, eventType, webhookId, issuer, programmeManager, \
                           merchant";
            faults.push(Fault::new(Code::InvalidRequestBody).saying(message));
            None
        }
        (None, _) => None,
    };
    ApiError::check(faults)?;
    of.zip(reason.map(|reason| reason.into_owned())).ok_or_else(unavailable)
}

/// What one member names, as far as its form goes.
fn of(name: &str, value: Value<'_>, state: &State) -> Option<PauseOf> {
    let text = || value.id_text().filter(|text| !text.is_empty());
    match name {
        "everything" => {
            (value.kind() == Kind::Boolean && value.raw() == "true").then_some(PauseOf::Everything)
        }
        "eventType" => {
            let kind = state.deps.catalogue.get(&text()?)?;
            Some(PauseOf::EventType(kind.name().into()))
        }
        "webhookId" => text()?.parse::<WebhookId>().ok().map(PauseOf::Webhook),
        "issuer" => Some(PauseOf::Issuer(IssuerId(text()?.as_ref().into()))),
        "programmeManager" => value.integer().map(|id| PauseOf::ProgrammeManager(PmId(id))),
        "merchant" => Some(PauseOf::Merchant(MerchantKey(text()?.as_ref().into()))),
        _ => None,
    }
}

/// A pause of something that is not there would be a mistake that nobody notices.
fn check(of: &PauseOf, snapshot: &Snapshot) -> Result<(), ApiError> {
    let (name, is_there) = match of {
        PauseOf::Everything => ("everything", true),
        // The catalogue knows it.
        PauseOf::EventType(_) => ("eventType", true),
        PauseOf::Webhook(id) => ("webhookId", snapshot.webhooks.contains_key(id)),
        PauseOf::Issuer(id) => ("issuer", snapshot.issuers.contains_key(id)),
        PauseOf::ProgrammeManager(id) => ("programmeManager", snapshot.pms.contains_key(id)),
        PauseOf::Merchant(key) => ("merchant", snapshot.merchants.contains_key(key)),
    };
    if is_there { Ok(()) } else { Err(wrong(name, "there is no such one").into()) }
}
