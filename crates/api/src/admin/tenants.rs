//! `PUT /admin/v1/tenants`: brings the registry to what a document says. The plan
//! is all or nothing, and one document at a time is planned and applied, so that a
//! refused one changes nothing; a plan that was interrupted goes on when it is sent
//! again.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tidings_catalogue::json::{Kind, Value};
use tidings_registry::{Change, ProposeError, TenantsDocument, plan_tenants};

use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    input,
    state::State,
};

/// How often a plan is made anew when others changed the registry meanwhile.
const TRIES: usize = 4;
/// Changes that wait for the registry at once, where their order does not matter.
const AT_ONCE: usize = 128;

/// Applies a document; `?prune=true` removes what it does not name.
pub(crate) async fn apply(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let prune = match request.query.get("prune") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(input::wrong("prune", "must be true or false").into()),
    };
    let document = read(&request.body)?;
    let _turn = state.tenants.lock().await;
    for _ in 0..TRIES {
        let snapshot = state.registry_end().await?;
        let planned = plan_tenants(&snapshot, &document, prune, state.now());
        let (changes, counts) = planned.map_err(|refusals| {
            let faults: Vec<Fault> = refusals
                .into_iter()
                .map(|refusal| {
                    Fault::at(Code::InvalidRequestBody, refusal.field).saying(refusal.message)
                })
                .collect();
            ApiError::from(faults)
        })?;
        let overtaken = match propose(state, request, changes).await {
            Ok(()) => false,
            Err(ProposeError::VersionConflict { .. } | ProposeError::Claimed { .. }) => true,
            Err(error) => {
                tracing::warn!(%error, "the tenants were applied in part; send them again");
                return Err(unavailable());
            }
        };
        if !overtaken {
            return Ok(Answer::ok(&json!({
                "added": counts.added,
                "changed": counts.changed,
                "removed": counts.removed,
            })));
        }
    }
    Err(unavailable())
}

/// Proposes the changes of a plan. Those of one kind that claim no name are about
/// different things, so they go to the registry side by side.
async fn propose(
    state: &State,
    request: &Request,
    changes: Vec<Change>,
) -> Result<(), ProposeError> {
    let kind = |change: &Change| {
        let name = change.entity.as_str().split('/').next().unwrap_or_default();
        (std::mem::discriminant(&change.state), name.to_owned())
    };
    let mut rest = changes.into_iter().peekable();
    while let Some(first) = rest.next() {
        let alike = kind(&first);
        let mut group = vec![first];
        while let Some(next) = rest.next_if(|next| next.claims.is_empty() && kind(next) == alike) {
            group.push(next);
        }
        stream::iter(group)
            .map(|mut change| {
                request.caller.subject.clone_into(&mut change.actor);
                request.trace.as_str().clone_into(&mut change.trace);
                state.deps.registry.propose(change)
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_accepted| std::future::ready(Ok(())))
            .await?;
    }
    Ok(())
}

/// The first value that has to be an object and is none. serde would take an array
/// for one, by position.
fn not_an_object(root: Value<'_>) -> Option<String> {
    let is_object = |value: &Value<'_>| value.kind() == Kind::Object;
    if !is_object(&root) {
        return Some(root.path());
    }
    for list in root.children().filter(|list| list.kind() == Kind::Array) {
        for entry in list.children() {
            if !is_object(&entry) {
                return Some(entry.path());
            }
            let nested = entry.children().filter(|member| member.kind() == Kind::Array);
            let mut inner = nested.flat_map(|list| list.children());
            if let Some(wrong) = inner.find(|value| !is_object(value)) {
                return Some(wrong.path());
            }
        }
    }
    None
}

/// Reads the document; a member that it does not know is refused by its place.
fn read(body: &[u8]) -> Result<TenantsDocument, ApiError> {
    // The strict checker first: repeated keys, a second document, depth.
    let parsed = input::parse(body)?;
    if let Some(path) = not_an_object(parsed.root()) {
        return Err(input::wrong(path, "must be an object").into());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let mut path = match error.path().to_string().as_str() {
            "." => String::new(),
            path => path.to_owned(),
        };
        let text = error.inner().to_string();
        if let Some(name) = missing(&text) {
            let dot = if path.is_empty() { "" } else { "." };
            path = format!("{path}{dot}{name}");
            return Fault::at(Code::InvalidRequestBody, path).saying("is required").into();
        }
        // serde's text may quote a value, and a value may be a source key.
        let message = match error.inner().classify() {
            serde_json::error::Category::Data => "has a member or a type that is not known here",
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => "is not JSON",
        };
        Fault::at(Code::InvalidRequestBody, path).saying(message).into()
    })
}

/// The member that serde misses. Names are ours; only values may be secret.
fn missing(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.split('`').next()
}
