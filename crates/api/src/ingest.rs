//! `POST /ingest/v1/events`: checks a batch as a whole, then appends it, and
//! answers when everything is durable (contract §2).

pub(crate) mod batch;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidings_broker::{AppendBatch, AppendError};
use tidings_catalogue::Tenant;
use tidings_proto::encode;
use tidings_registry::{KeysError, Snapshot, to_proto};
use tidings_types::{EventUid, Offset, ProductId, TopicName, TopicPartition, otp_aad};

use self::batch::{Draft, Form, IdSource, OTP_HEADER, Rules, UID_HEADER};
use crate::{
    answer::Answer,
    commands::{self, unavailable},
    dispatch::{Request, media_type},
    errors::{ApiError, Code, Fault},
    state::{APPEND_PATIENCE, State},
};

/// Where an event came to stand.
#[derive(Debug, Serialize)]
pub(crate) struct Placed {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
}

/// The answer to what was published.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    pub(crate) accepted: usize,
    pub(crate) content: Vec<Placed>,
}

/// Publishes one event or a batch.
pub(crate) async fn ingest(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let key = match commands::key(request) {
        Ok(Some(key)) => key.to_owned(),
        // Nobody can repeat a request without a key: its events are new ones.
        Ok(None) => hex::encode(state.random::<16>()),
        Err(_bad_key) => return Err(ApiError::at(Code::BadHeader, "Idempotency-Key")),
    };
    let events = batch::split(form(request), &request.body)?;
    let check = |snapshot: &Snapshot| {
        let is_foreign =
            |tenant: &Tenant, product: &ProductId| is_foreign(snapshot, tenant, product);
        let rules = Rules {
            catalogue: &state.deps.catalogue,
            is_foreign: &is_foreign,
            ids: IdSource { subject: &request.caller.subject, key: &key },
            trace: request.trace.as_str(),
            now: state.now(),
        };
        batch::check(&events, &rules)
    };
    let mut checked = check(&state.deps.registry.snapshot());
    let is_tenants = |error: &ApiError| error.faults.iter().any(|it| it.code == Code::BadTenant);
    if checked.as_ref().is_err_and(is_tenants) {
        // The product may have another owner since.
        let end = state.registry_end().await?;
        checked = check(&end);
    }
    let mut drafts = checked.inspect_err(|error| state.deps.metrics.refused(error.faults.len()))?;
    for draft in &mut drafts {
        seal(state, draft).await?;
    }
    let content = append(state, drafts).await?;
    state.deps.metrics.ingested(content.len());
    let published = Published { accepted: content.len(), content };
    Ok(Answer::success(StatusCode::ACCEPTED, &published))
}

/// How a request's body holds its events.
pub(crate) fn form(request: &Request) -> Form {
    match media_type(&request.headers).as_deref() {
        Some("application/x-ndjson") => Form::Lines,
        Some(_) | None => Form::One,
    }
}

/// Whether a product is registered under another programme manager than the
/// event's. Whose events nobody knows is decided later: they go to nobody.
fn is_foreign(snapshot: &Snapshot, tenant: &Tenant, product: &ProductId) -> bool {
    let manager = match tenant {
        Tenant::ProgrammeManager(pm) => *pm,
        Tenant::Merchant(_) | Tenant::Operator => return false,
    };
    snapshot.products.get(product).is_some_and(|known| known.programme_manager != manager)
}

/// Seals what nobody may keep past the deadline under the key of the ten minutes
/// in which it expires.
pub(crate) async fn seal(state: &State, draft: &mut Draft) -> Result<(), ApiError> {
    let Some(ephemeral) = draft.ephemeral.take() else { return Ok(()) };
    let keys = &state.deps.keys;
    let latest = keys.latest_deadline();
    let deadline = ephemeral.deadline.min(latest).max(state.now().min(latest));
    let made = tokio::select! {
        biased;
        made = keys.ensure_bucket(deadline) => made,
        () = state.deps.clock.sleep(APPEND_PATIENCE) => Err(KeysError::Unavailable),
    };
    let key = made.map_err(|error| {
        tracing::warn!(%error, "the key of a one-time code could not be made");
        unavailable()
    })?;
    let sealed = key.seal(&otp_aad(draft.uid), &ephemeral.value, state.random());
    let sealed = encode(&to_proto(sealed));
    draft.record.headers.push((Arc::from(OTP_HEADER), sealed));
    draft.record.headers.push((Arc::from(UID_HEADER), Bytes::from(draft.uid.to_string())));
    Ok(())
}

/// Appends every draft; gives the places in the drafts' order.
///
/// # Errors
/// 503 if one of them could not be written: others may have been.
pub(crate) async fn append(state: &State, drafts: Vec<Draft>) -> Result<Vec<Placed>, ApiError> {
    let mut uids: BTreeMap<TopicPartition, Vec<(usize, EventUid)>> = BTreeMap::new();
    let mut batches: BTreeMap<TopicPartition, AppendBatch> = BTreeMap::new();
    let count = drafts.len();
    for (index, draft) in drafts.into_iter().enumerate() {
        let partitions = partitions(state, &draft.topic).await?;
        let partition = tidings_broker::partition_of(&draft.order_key, partitions);
        let to = TopicPartition { topic: draft.topic, partition };
        uids.entry(to.clone()).or_default().push((index, draft.uid));
        let batch =
            batches.entry(to.clone()).or_insert_with(|| AppendBatch { to, records: Vec::new() });
        batch.records.push(draft.record);
    }
    let results = state.append(batches.into_values().collect()).await;
    let mut placed: BTreeMap<usize, Placed> = BTreeMap::new();
    for ((to, events), result) in uids.into_iter().zip(results) {
        let offsets = result.map_err(|error| not_appended(&to, &error))?;
        for (number, (index, uid)) in events.into_iter().enumerate() {
            let offset = offsets.get(number).ok_or_else(unavailable)?;
            let uid = Some(uid.to_string());
            let topic = to.topic.as_str().to_owned();
            placed.insert(index, Placed { topic, partition: to.partition, offset, uid });
        }
    }
    if placed.len() != count {
        return Err(unavailable());
    }
    Ok(placed.into_values().collect())
}

pub(crate) async fn partitions(state: &State, topic: &TopicName) -> Result<u32, ApiError> {
    match state.event_partitions(topic).await {
        Ok(Some(partitions)) => Ok(partitions),
        Ok(None) => {
            tracing::error!(%topic, "an event topic is missing; it is made at the start");
            Err(unavailable())
        }
        Err(error) => {
            tracing::warn!(%topic, %error, "an event topic cannot be described");
            Err(unavailable())
        }
    }
}

fn not_appended(to: &TopicPartition, error: &AppendError) -> ApiError {
    match error {
        AppendError::TooLarge { .. } => {
            Fault::at(Code::TooLarge, "payload").saying("the record is too large").into()
        }
        AppendError::UnknownTopic(_)
        | AppendError::UnknownPartition(_)
        | AppendError::NoSpace
        | AppendError::Unavailable
        | AppendError::Unknown
        | AppendError::Fatal(_) => {
            tracing::warn!(partition = %to, %error, "events could not be written");
            unavailable()
        }
    }
}
