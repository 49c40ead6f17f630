//! `POST /admin/v1/raw/{topic}`, under `--dev` only: writes lines to an event
//! topic without looking at them, for trying out what the router refuses.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use tidings_broker::{AppendBatch, NewRecord};
use tidings_types::{TopicName, TopicPartition, names};

use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::Request,
    errors::{ApiError, Code},
    ingest::{
        Placed, Published,
        batch::{self, MAX_EVENTS},
        form,
    },
    state::State,
};

/// Appends the lines of the body to an event topic, by its name or its type.
pub(crate) async fn write(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let given = request.param("topic");
    let topic = match given.strip_prefix(names::EVENTS_PREFIX) {
        Some(_) => TopicName::new(given),
        None => names::events(given),
    };
    let found = match TopicName::is_legal(topic.as_str()) {
        true => state.event_partitions(&topic).await.map_err(|_error| unavailable())?,
        false => None,
    };
    let partitions = found.ok_or_else(|| ApiError::at(Code::NotFound, "topic"))?;
    let lines = batch::split(form(request), &request.body)?;
    debug_assert!(lines.len() <= MAX_EVENTS, "split keeps to the limit");
    let mut batches: BTreeMap<u32, (Vec<usize>, Vec<NewRecord>)> = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let key = order_key(state, line);
        let partition = tidings_broker::partition_of(key.as_deref().unwrap_or(line), partitions);
        let (indices, records) = batches.entry(partition).or_default();
        indices.push(index);
        records.push(NewRecord {
            key: key.map(Bytes::from),
            value: Some(line.clone()),
            ..NewRecord::default()
        });
    }
    let mut places = Vec::new();
    let mut appends = Vec::new();
    for (partition, (indices, records)) in batches {
        let to = TopicPartition { topic: topic.clone(), partition };
        places.push((partition, indices));
        appends.push(AppendBatch { to, records });
    }
    let mut content: BTreeMap<usize, Placed> = BTreeMap::new();
    let results = state.append(appends).await;
    for ((partition, indices), result) in places.into_iter().zip(results) {
        let offsets = result.map_err(|error| {
            tracing::warn!(%topic, %error, "raw lines could not be written");
            unavailable()
        })?;
        for (number, index) in indices.into_iter().enumerate() {
            let offset = offsets.get(number).ok_or_else(unavailable)?;
            let topic = topic.as_str().to_owned();
            content.insert(index, Placed { topic, partition, offset, uid: None });
        }
    }
    let content: Vec<Placed> = content.into_values().collect();
    let published = Published { accepted: content.len(), content };
    Ok(Answer::success(StatusCode::ACCEPTED, &published))
}

/// The key that a producer would give the event, where it is one.
fn order_key(state: &State, line: &[u8]) -> Option<Vec<u8>> {
    let event = tidings_catalogue::decode(&state.deps.catalogue, None, line).ok()?;
    event.order_key().map(|key| key.as_bytes().to_vec())
}
