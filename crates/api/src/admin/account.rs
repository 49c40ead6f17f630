//! `GET /admin/v1/account`: every source record and every notification, accounted
//! for (invariant I11).
//!
//! The router's commits are read first, then the view is waited for until it has
//! read what stood in both topics after that: so whatever was committed is in the
//! sums.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use tidings_eventlog::AccountRow;
use tidings_types::{OUTCOME_PARTITIONS, Offset, ROUTED_PARTITIONS, TopicPartition, names};

use crate::{
    answer::Answer,
    commands::unavailable,
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    history::{readable, unreadable},
    state::State,
};

/// The group under whose name routers commit source positions.
const ROUTERS: &str = "tidings-router";
/// How long the view may take to read up to the ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sums, of one topic if `?topic=` names it.
pub(crate) async fn account(state: &State, request: &Request) -> Result<Answer, ApiError> {
    readable(state).await?;
    let wanted = request.query.get("topic").map(full_name);
    let sources = sources(state).await?;
    if let Some(topic) = &wanted
        && !sources.iter().any(|source| source.topic.as_str() == topic)
    {
        return Err(Fault::at(Code::NotFound, "topic").saying("there is no such topic").into());
    }
    let committed = committed(state, sources).await?;
    let ends = ends(state).await?;
    let log = &state.deps.event_log;
    if tokio::time::timeout(PATIENCE, log.wait_for(&ends)).await.is_err() {
        return Err(unavailable());
    }
    let account = log.account(&committed).await.map_err(|error| unreadable(state, &error))?;
    let rows: Vec<&AccountRow> = account
        .partitions
        .iter()
        .filter(|row| wanted.as_ref().is_none_or(|topic| row.source.topic.as_str() == topic))
        .collect();
    let agree = account.missing.is_empty() && rows.iter().all(|row| row.agrees());
    let partitions: Vec<Value> = rows.into_iter().map(shape).collect();
    let mut response = json!({ "agree": agree, "partitions": partitions });
    if !account.missing.is_empty() {
        // Of `tidings.routed` and `tidings.outcomes`, which belong to all topics.
        let missing = account.missing.iter().map(|(of, records)| {
            json!({ "topic": of.topic.as_str(), "partition": of.partition, "records": records })
        });
        response["missing"] = missing.collect();
    }
    Ok(Answer::ok(&response).with_as_of(log.status().as_of))
}

/// A topic by its name or by its event type.
fn full_name(text: &str) -> String {
    if text.starts_with(names::EVENTS_PREFIX) {
        text.to_owned()
    } else {
        names::events(text).as_str().to_owned()
    }
}

async fn sources(state: &State) -> Result<Vec<TopicPartition>, ApiError> {
    let topics = state.deps.broker.topics().await.map_err(|error| failed(&error))?;
    Ok(topics
        .iter()
        .filter(|topic| topic.name.as_str().starts_with(names::EVENTS_PREFIX))
        .flat_map(|topic| {
            (0..topic.partitions).map(|partition| TopicPartition::new(&topic.name, partition))
        })
        .collect())
}

async fn committed(
    state: &State,
    sources: Vec<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Offset>, ApiError> {
    let broker = &state.deps.broker;
    let positions = broker.committed(ROUTERS, &sources).await.map_err(|error| failed(&error))?;
    let known = sources.into_iter().zip(positions);
    Ok(known.filter_map(|(of, position)| Some((of, position?.next))).collect())
}

/// What stands in both topics now.
async fn ends(state: &State) -> Result<Vec<(TopicPartition, Offset)>, ApiError> {
    let routed = (0..ROUTED_PARTITIONS).map(|number| TopicPartition::new(names::ROUTED, number));
    let outcomes =
        (0..OUTCOME_PARTITIONS).map(|number| TopicPartition::new(names::OUTCOMES, number));
    let mut ends = Vec::new();
    for partition in routed.chain(outcomes) {
        let end = state.deps.broker.ends(&partition).await.map_err(|error| failed(&error))?.end;
        // Nothing to wait for where nothing ever stood.
        if end > 0 {
            ends.push((partition, end));
        }
    }
    Ok(ends)
}

fn failed(error: &dyn std::error::Error) -> ApiError {
    tracing::warn!(%error, "the account could not be made up");
    unavailable()
}

fn shape(row: &AccountRow) -> Value {
    let by: Map<String, Value> = row
        .filtered_by
        .iter()
        .map(|(reason, count)| (reason.as_str().to_owned(), Value::from(*count)))
        .collect();
    json!({
        "topic": row.source.topic.as_str(),
        "partition": row.source.partition,
        "from": row.from,
        "committed": row.committed,
        "skipped": row.skipped,
        "routed": row.routed,
        "filtered": row.filtered,
        "filteredBy": by,
        "quarantined": row.quarantined,
        "duplicate": row.duplicate,
        "notifications": row.notifications,
        "delivered": row.delivered,
        "undelivered": row.undelivered,
        "pending": row.pending,
        "cancelled": row.cancelled,
        "expired": row.expired,
        "superseded": row.superseded,
    })
}
