//! The quarantine: what the router set aside, and publishing it again.
//!
//! An entry's id is its offset in `tidings.quarantine`. A router that repeats its
//! work may set one source record aside twice: only its first entry counts. That
//! an entry was redriven is a record of its own in the same topic, without an
//! original.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tidings_broker::{AppendBatch, Header, NewRecord, ReadError};
use tidings_proto::{decode, encode, format_header, v1};
use tidings_registry::to_sealed;
use tidings_signing::OpenError;
use tidings_types::{Offset, Timestamp, TopicPartition, names, quarantine_aad};

use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    ingest::batch::{OTP_HEADER, UID_HEADER},
    paging::{self, List},
    state::State,
};

/// The most entries of one page.
pub(crate) const MOST: usize = 10_000;
const READ_BYTES: usize = 1 << 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: String,
    topic: String,
    partition: u32,
    offset: Offset,
    reason: String,
    field: String,
    time: String,
    redriven: bool,
}

fn place() -> TopicPartition {
    TopicPartition::new(names::QUARANTINE, 0)
}

/// `GET /admin/v1/quarantine`: oldest first.
pub(crate) async fn list(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let limit = request.query.limit(MOST)?;
    let list = List::of("quarantine");
    let after = match list.place(state, &request.query)? {
        Some(text) => Some(text.parse::<Offset>().map_err(|_bad| paging::invalid())?),
        None => None,
    };
    let entries = read(state).await?;
    let total = entries.len();
    let mut rest = entries
        .into_iter()
        .filter(|(offset, _)| after.is_none_or(|after| *offset > after))
        .map(|(_, entry)| entry);
    let content: Vec<Entry> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(content.last()).map(|entry| entry.id.clone());
    let mut response = json!({ "content": content, "totalCount": total });
    if let Some(next) = next {
        response["nextCursor"] = list.cursor(state, &next)?.into();
    }
    Ok(Answer::ok(&response))
}

/// `GET /admin/v1/quarantine/{id}`: with the record itself, for the operator who
/// has to mend it.
pub(crate) async fn show(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let (offset, record) = find(state, request).await?;
    let entries = read(state).await?;
    let entry = entries.get(&offset).ok_or(Code::NotFound)?;
    let mut response = serde_json::to_value(entry).map_err(|_never| Code::TechnicalError)?;
    response["sha256"] = hex::encode(&record.sha256).into();
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|header| json!({ "name": header.name, "value": text(&header.value) }))
        .collect();
    response["headers"] = headers.into();
    match original(state, &record).await? {
        Some(bytes) => match std::str::from_utf8(&bytes) {
            Ok(text) => response["original"] = text.into(),
            Err(_not_utf8) => response["originalBase64"] = STANDARD.encode(&bytes).into(),
        },
        None => response["original"] = Value::Null,
    }
    Ok(Answer::ok(&response))
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_not_utf8| STANDARD.encode(bytes), str::to_owned)
}

/// `POST /admin/v1/quarantine/{id}/redrive`: publishes the record again as a new
/// one, with the request's body in its place if there is one.
pub(crate) async fn redrive(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let (offset, record) = find(state, request).await?;
    let source = record.source.clone().unwrap_or_default();
    let value = if request.body.is_empty() {
        original(state, &record).await?.map(Bytes::from)
    } else {
        Some(request.body.clone())
    };
    let Some(value) = value else {
        let message = "the record is not kept: it was too large, or the time of its one-time \
                       code is over; send it as the body";
        return Err(Fault::new(Code::InvalidRequestBody).saying(message).into());
    };
    let replaced = !request.body.is_empty();
    let headers: Vec<Header> = record
        .headers
        .iter()
        // A sealed code belongs to the body that it was taken out of.
        .filter(|header| !replaced || (header.name != OTP_HEADER && header.name != UID_HEADER))
        .map(|header| (std::sync::Arc::from(header.name.as_str()), header.value.clone()))
        .collect();
    let to = TopicPartition::new(source.topic.as_str(), source.partition);
    let published = NewRecord {
        key: (!record.key.is_empty()).then(|| record.key.clone()),
        headers,
        value: Some(value),
        timestamp: None,
    };
    let at = append(state, &to, published).await?;
    // Only after the record is durable: a crash in between shows an entry as not
    // redriven that was, and never the other way round.
    let mark = v1::QuarantineRecord {
        source: Some(source),
        time: state.now().as_millis(),
        redrive_of: offset.to_string(),
        ..v1::QuarantineRecord::default()
    };
    let mark = NewRecord {
        key: None,
        headers: vec![format_header()],
        value: Some(encode(&mark)),
        timestamp: None,
    };
    append(state, &place(), mark).await?;
    let response = json!({
        "id": offset.to_string(),
        "topic": to.topic.as_str(),
        "partition": to.partition,
        "offset": at,
    });
    Ok(Answer::success(StatusCode::OK, &response))
}

async fn append(state: &State, to: &TopicPartition, record: NewRecord) -> Result<Offset, ApiError> {
    let batch = AppendBatch { to: to.clone(), records: vec![record] };
    match state.append(vec![batch]).await.pop() {
        Some(Ok(offsets)) => offsets.first().ok_or_else(unavailable),
        Some(Err(error)) => {
            tracing::warn!(partition = %to, %error, "a record could not be redriven");
            Err(unavailable())
        }
        None => Err(unavailable()),
    }
}

/// The record of the path's id.
async fn find(
    state: &State,
    request: &Request,
) -> Result<(Offset, v1::QuarantineRecord), ApiError> {
    let missing = || ApiError::at(Code::NotFound, "id");
    let id = request.param("id");
    let offset: Offset = id.parse().map_err(|_bad| missing())?;
    if offset.to_string() != id {
        return Err(missing());
    }
    let records = match state.deps.broker.read(&place(), offset, 1).await {
        Ok(records) => records,
        Err(ReadError::Trimmed { .. } | ReadError::BeyondEnd { .. }) => return Err(missing()),
        Err(error) => return Err(failed(&error)),
    };
    let record = records.into_iter().next().filter(|record| record.offset == offset);
    let value = record.and_then(|record| record.value).ok_or_else(missing)?;
    match decode::<v1::QuarantineRecord>(value) {
        Ok(record) if record.redrive_of.is_empty() => Ok((offset, record)),
        Ok(_mark) => Err(missing()),
        Err(error) => {
            tracing::error!(offset, %error, "a quarantine record does not decode");
            Err(missing())
        }
    }
}

/// The bytes that were set aside, unless they were too large to be kept, or may hold a
/// one-time code whose key is gone.
async fn original(
    state: &State,
    record: &v1::QuarantineRecord,
) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(sealed) = &record.original else { return Ok(None) };
    let source = record.source.clone().unwrap_or_default();
    let from = TopicPartition::new(source.topic.as_str(), source.partition);
    let aad = quarantine_aad(&from, source.offset);
    let Some(sealed) = to_sealed(sealed) else { return Err(Code::TechnicalError.into()) };
    match state.deps.keys.open(&sealed, &aad).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(OpenError::UnknownKey(_)) => Ok(None),
        Err(error) => {
            tracing::error!(%error, "a quarantined record does not open");
            Err(Code::TechnicalError.into())
        }
    }
}

/// Every entry, by its offset. Reads the whole topic, which retention bounds.
async fn read(state: &State) -> Result<BTreeMap<Offset, Entry>, ApiError> {
    let broker = &state.deps.broker;
    let ends = broker.ends(&place()).await.map_err(|error| failed(&error))?;
    let mut entries = BTreeMap::new();
    let mut sources = BTreeSet::new();
    let mut next = ends.first;
    while next < ends.end {
        let records =
            broker.read(&place(), next, READ_BYTES).await.map_err(|error| failed(&error))?;
        // The end was further than this: no part of the list passes for all of it.
        let last = records.last().ok_or_else(unavailable)?;
        next = last.offset + 1;
        for record in records {
            let Some(value) = record.value else { continue };
            match decode::<v1::QuarantineRecord>(value) {
                Ok(decoded) => take(record.offset, decoded, &mut entries, &mut sources),
                Err(error) => {
                    tracing::error!(offset = record.offset, %error, "a quarantine record does not decode");
                }
            }
        }
    }
    Ok(entries)
}

fn take(
    offset: Offset,
    record: v1::QuarantineRecord,
    entries: &mut BTreeMap<Offset, Entry>,
    sources: &mut BTreeSet<(String, u32, Offset)>,
) {
    if !record.redrive_of.is_empty() {
        let of = record.redrive_of.parse::<Offset>().ok();
        if let Some(entry) = of.and_then(|of| entries.get_mut(&of)) {
            entry.redriven = true;
        }
        return;
    }
    let source = record.source.unwrap_or_default();
    if !sources.insert((source.topic.clone(), source.partition, source.offset)) {
        return;
    }
    entries.insert(
        offset,
        Entry {
            id: offset.to_string(),
            topic: source.topic,
            partition: source.partition,
            offset: source.offset,
            reason: record.code,
            field: record.field,
            time: Timestamp::from_millis(record.time).to_rfc3339(),
            redriven: false,
        },
    );
}

fn failed(error: &ReadError) -> ApiError {
    tracing::warn!(%error, "the quarantine cannot be read");
    ApiError::new(Code::ServiceUnavailable).retry_after(1)
}
