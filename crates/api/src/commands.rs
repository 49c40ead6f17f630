//! `Idempotency-Key`: the same request under the same key gets the first answer,
//! for 24 hours and over restarts; another request under it is refused.
//!
//! What is kept is an entity of the registry, named by a hash of who asked and
//! the key. It holds the first answer, sealed, and of a resend the runs that it
//! starts, so that a repeat after a crash starts the same ones.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};
use tidings_registry::{
    Change, CommandRecord, CommandRef, EntityKey, ProposeError, Snapshot, State as Entity,
};
use tidings_signing::{Secret, sha256};
use tidings_types::{NotificationId, RunId, Timestamp};

use crate::{
    answer::Answer,
    dispatch::Request,
    errors::{ApiError, Code},
    state::State,
};

const KEPT: Duration = Duration::from_secs(24 * 3600);
const MAX_KEY: usize = 255;

/// A command that a client gave a key.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    id: String,
    hash: [u8; 32],
    subject: String,
}

/// The value of `Idempotency-Key`, if there is one.
///
/// # Errors
/// `INVALID_IDEMPOTENCY_KEY`.
pub(crate) fn key(request: &Request) -> Result<Option<&str>, ApiError> {
    let mut values = request.headers.get_all("idempotency-key").iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    // `to_str` lets spaces and tabs pass.
    let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if second.is_some() || !is_visible || !(1..=MAX_KEY).contains(&text.len()) {
        return Err(ApiError::at(Code::InvalidIdempotencyKey, "Idempotency-Key"));
    }
    Ok(Some(text))
}

/// Who asks, with the tenant: two tenants' clients may have the same subject.
pub(crate) fn subject(request: &Request) -> String {
    let caller = &request.caller;
    let issuer = caller.issuer.as_ref().map_or("", |issuer| issuer.0.as_ref());
    let pm = caller.pm.map_or_else(String::new, |pm| pm.to_string());
    format!("{issuer}\n{pm}\n{}", caller.subject)
}

/// The command that a request is, if it has a key.
///
/// # Errors
/// As [`key`].
pub(crate) fn of(request: &Request) -> Result<Option<Command>, ApiError> {
    let Some(key) = key(request)? else { return Ok(None) };
    let subject = subject(request);
    let id = hex::encode(sha256(&[
        b"tidings command 1\n",
        &u64::try_from(subject.len()).unwrap_or(u64::MAX).to_be_bytes(),
        subject.as_bytes(),
        key.as_bytes(),
    ]));
    // What makes it the same request: method, route, its parameters, its body.
    let mut place = format!("{}\n{}\n", request.method, request.path);
    for (name, value) in &request.params {
        place.push_str(&format!("{name}={value}\n"));
    }
    let narrowed = request.headers.get("x-pm-code").map_or(&b""[..], |value| value.as_bytes());
    let hash = sha256(&[place.as_bytes(), narrowed, b"\n", &request.body]);
    Ok(Some(Command { id, hash, subject }))
}

/// What is known of a command.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    New,
    /// It was done: the first answer.
    Done(Arc<CommandRecord>),
    /// It was begun and may not have been finished.
    Begun(Arc<CommandRecord>),
}

impl Command {
    fn entity(&self) -> EntityKey {
        EntityKey::new("command", &self.id)
    }

    /// The command as a change of another entity carries it.
    pub(crate) fn reference(&self) -> CommandRef {
        CommandRef { id: self.id.clone(), hash: self.hash }
    }

    /// The version of what is kept of it: what [`Command::keep`] builds on.
    pub(crate) fn version(&self, snapshot: &Snapshot) -> u64 {
        snapshot.entity_version(&self.entity())
    }

    /// What `snapshot` knows of it.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED`.
    pub(crate) fn look_up(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Known, ApiError> {
        match snapshot.commands.get(&self.id).filter(|known| known.expires > now) {
            None => Ok(Known::New),
            Some(known) if known.hash != self.hash => Err(reused()),
            Some(known) if known.done => Ok(Known::Done(Arc::clone(known))),
            Some(known) => Ok(Known::Begun(Arc::clone(known))),
        }
    }

    /// The entity that it made, also if its answer was never kept.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED`.
    pub(crate) fn made(&self, snapshot: &Snapshot) -> Result<Option<EntityKey>, ApiError> {
        match snapshot.made_by(&self.id) {
            None => Ok(None),
            Some(made) if made.hash != self.hash => Err(reused()),
            Some(made) => Ok(Some(made.entity.clone())),
        }
    }

    /// Keeps the answer of a command, and the runs that it starts.
    /// `expected_version` is of the moment at which it was looked up, so that of two
    /// requests at once one is first.
    ///
    /// # Errors
    /// As the registry's; after a version conflict another request of the same
    /// key was first.
    pub(crate) async fn keep(
        &self,
        state: &State,
        request: &Request,
        expected_version: u64,
        answer: Kept,
        runs: Vec<(NotificationId, RunId)>,
        stage: Stage,
    ) -> Result<(), ProposeError> {
        let record = CommandRecord {
            subject: self.subject.clone(),
            hash: self.hash,
            status: answer.status,
            answer: answer.body,
            headers: answer.headers,
            runs,
            done: stage == Stage::Done,
            expires: state.now() + KEPT,
            version: expected_version + 1,
        };
        let change = Change {
            entity: self.entity(),
            expected_version,
            claims: Vec::new(),
            command: None,
            actor: request.caller.subject.clone(),
            trace: request.trace.as_str().to_owned(),
            state: Entity::Command(record),
        };
        state.deps.registry.propose(change).await.map(|_accepted| ())
    }
}

/// How far a command is when it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Begun,
    Done,
}

/// An answer as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    status: u16,
    body: Secret,
    headers: Vec<(String, String)>,
}

impl From<&Answer> for Kept {
    fn from(answer: &Answer) -> Self {
        let headers = answer.headers().iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Self {
            status: answer.status().as_u16(),
            body: Secret::new(answer.body().to_vec()),
            headers: headers.collect(),
        }
    }
}

impl From<&CommandRecord> for Kept {
    fn from(record: &CommandRecord) -> Self {
        Self { status: record.status, body: record.answer.clone(), headers: record.headers.clone() }
    }
}

/// The first answer again.
pub(crate) fn replay(record: &CommandRecord) -> Answer {
    let status = StatusCode::from_u16(record.status).unwrap_or(StatusCode::OK);
    let answer = Answer::json(status, record.answer.expose().to_vec().into());
    record.headers.iter().fold(answer, |answer, (name, value)| {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => answer.with(name, value),
            Err(_no_name) => answer,
        }
    })
}

pub(crate) fn reused() -> ApiError {
    ApiError::at(Code::IdempotencyKeyReused, "Idempotency-Key")
}

/// A registry that does not answer.
pub(crate) fn unavailable() -> ApiError {
    ApiError::new(Code::ServiceUnavailable).retry_after(1)
}
