//! `PUT /admin/v1/tenants`: brings the registry to what a document says. The plan
//! is all or nothing; a plan that was interrupted goes on when it is sent again.

use serde_json::json;
use tidings_registry::{ProposeError, TenantsDocument, plan_tenants};

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

/// Applies a document; `?prune=true` removes what it does not name.
pub(crate) async fn apply(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let prune = match request.query.get("prune") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(input::wrong("prune", "must be true or false").into()),
    };
    let document = read(&request.body)?;
    for _ in 0..TRIES {
        let snapshot = state.deps.registry.fold_to_end().await.map_err(|_error| unavailable())?;
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
        let mut overtaken = false;
        for mut change in changes {
            request.caller.subject.clone_into(&mut change.actor);
            request.trace.as_str().clone_into(&mut change.trace);
            match state.deps.registry.propose(change).await {
                Ok(_accepted) => {}
                Err(ProposeError::VersionConflict { .. } | ProposeError::Claimed { .. }) => {
                    overtaken = true;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "the tenants were applied in part; send them again");
                    return Err(unavailable());
                }
            }
        }
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

/// Reads the document; a member that it does not know is refused by its place.
fn read(body: &[u8]) -> Result<TenantsDocument, ApiError> {
    // The strict checker first: repeated keys, a second document, depth.
    input::parse(body)?;
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
