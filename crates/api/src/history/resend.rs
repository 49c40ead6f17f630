//! Resend: new runs of notifications (`spec.md` §1.8.4, design §6).
//!
//! The order of the writes is the argument. With an `Idempotency-Key` the runs
//! and the answer are kept first, so that a repeat after a crash starts the same
//! runs. Then the delivery records are appended: from then on the runs happen,
//! whatever else fails. Last comes the fact that a resend was asked for, which
//! makes the history show the notification as pending at once. A fact without
//! its record would stay pending for ever, so it is never written first.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use tidings_broker::{AppendBatch, AppendError, NewRecord};
use tidings_eventlog::Item;
use tidings_proto::{encode, format_header, v1};
use tidings_registry::{ProposeError, Snapshot, Webhook};
use tidings_types::{
    Lane, NotificationId, Partition, RunId, Timestamp, TopicPartition, WebhookStatus, names,
};

use super::{Ids, Surface, ids, payload, readable};
use crate::{
    answer::Answer,
    commands::{self, Command, Kept, Known, Stage, unavailable},
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    quotas,
    state::State,
};

/// The most notifications of one resend (`spec.md` §1.5).
const MAX_RESEND: usize = 25;
/// How often the fact that a resend was asked for is tried to be written.
const TRIES: usize = 3;

const INITIATED: &str = "Resend request initiated";
const UNABLE: &str = "Unable to resend request";
const INVALID: &str = "Invalid notification details";

#[derive(Serialize)]
struct Resent {
    #[serde(flatten)]
    ids: Ids,
    content: Vec<ResentItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResentItem {
    notification_id: String,
    resend_status: &'static str,
}

/// `POST …/resend`.
pub(crate) async fn resend(
    state: &State,
    request: &Request,
    surface: Surface,
    webhook: &Webhook,
) -> Result<Answer, ApiError> {
    let asked = ids::read(&request.body, MAX_RESEND, Code::NotificationResendLimitExceeded)?;
    let command = commands::of(request)?;
    // The runs are appended whatever the registry says by then: it is read first.
    let registry = state.registry_end().await?;
    let webhook = &registry.webhooks.get(&webhook.id).ok_or(Code::WebhookNotRegistered)?;
    let (known, version) = look_up(state, command.as_ref(), &registry)?;
    match known {
        Known::Done(record) => return Ok(commands::replay(&record)),
        Known::Begun(record) => {
            return finish(state, request, webhook, command.as_ref(), &record).await;
        }
        Known::New => {}
    }
    match webhook.status {
        WebhookStatus::Active => {}
        WebhookStatus::Inactive | WebhookStatus::Suspended => {
            return Err(Code::WebhookIsNotActive.into());
        }
    }
    let as_of = readable(state).await?;
    let items = find(state, webhook, &asked).await?;
    let mut content = Vec::with_capacity(asked.len());
    let mut runs = Vec::new();
    for text in asked {
        let item = ids::parse(&text).and_then(|id| items.get(&id));
        let resend_status = match item {
            None => INVALID,
            Some(item) if payload::can_be_sent(state, item).await => {
                let run = RunId::from_parts(state.now(), state.random());
                runs.push((item.notification, run));
                INITIATED
            }
            Some(_) => UNABLE,
        };
        content.push(ResentItem { notification_id: text, resend_status });
    }
    // Before anything is written: a resend is counted and begun as a whole or not at all.
    let now = state.deps.clock.monotonic();
    let taken = state.resends.take(webhook.id, runs.len(), state.config.rate, now);
    taken.map_err(|wait| {
        let message = "the webhook's quota of resends is used up (quotas.resends_per_hour)";
        let refused = Fault::new(Code::RateLimited).saying(message);
        ApiError::from(refused).retry_after(quotas::seconds(wait))
    })?;
    let answer = Answer::ok(&Resent { ids: surface.id(webhook), content }).with_as_of(as_of);
    let kept = Kept::from(&answer);
    if let Some(command) = &command {
        let begun = (kept.clone(), runs.clone());
        let kept = command.keep(state, request, version, begun.0, begun.1, Stage::Begun);
        match kept.await {
            Ok(()) => {}
            // The same request came twice at once: the first one's runs count.
            Err(ProposeError::VersionConflict { .. }) => {
                let registry = state.registry_end().await?;
                return match look_up(state, Some(command), &registry)?.0 {
                    Known::Done(record) => Ok(commands::replay(&record)),
                    Known::Begun(record) => {
                        finish(state, request, webhook, Some(command), &record).await
                    }
                    Known::New => Err(unavailable()),
                };
            }
            Err(_unavailable) => return Err(unavailable()),
        }
    }
    start(state, request, webhook, &items, &runs).await?;
    done(state, request, (command.as_ref(), version + 1), kept, runs).await;
    Ok(answer)
}

/// What is known of a command, and the version of that.
fn look_up(
    state: &State,
    command: Option<&Command>,
    registry: &Snapshot,
) -> Result<(Known, u64), ApiError> {
    let Some(command) = command else { return Ok((Known::New, 0)) };
    Ok((command.look_up(registry, state.now())?, command.version(registry)))
}

/// Goes on with a command that was begun: the runs that it names, once more. The
/// slot's owner drops those that it has taken up already.
async fn finish(
    state: &State,
    request: &Request,
    webhook: &Webhook,
    command: Option<&Command>,
    record: &tidings_registry::CommandRecord,
) -> Result<Answer, ApiError> {
    readable(state).await?;
    let asked: Vec<String> = record.runs.iter().map(|(id, _)| id.to_string()).collect();
    let items = find(state, webhook, &asked).await?;
    start(state, request, webhook, &items, &record.runs).await?;
    done(state, request, (command, record.version), record.into(), record.runs.clone()).await;
    Ok(commands::replay(record))
}

/// Notes that a command is done. If that fails, a repeat appends the same runs
/// again, and their owner drops them.
async fn done(
    state: &State,
    request: &Request,
    (command, version): (Option<&Command>, u64),
    kept: Kept,
    runs: Vec<(NotificationId, RunId)>,
) {
    let Some(command) = command else { return };
    match command.keep(state, request, version, kept, runs, Stage::Done).await {
        // Another request of the same key went on with it and noted that.
        Ok(()) | Err(ProposeError::VersionConflict { .. }) => {}
        Err(error) => tracing::warn!(%error, "a resend was not noted as done"),
    }
}

type Items = BTreeMap<NotificationId, Item>;

async fn find(state: &State, webhook: &Webhook, asked: &[String]) -> Result<Items, ApiError> {
    let items = ids::find(state, webhook, asked).await?;
    Ok(items.into_iter().map(|item| (item.notification, item)).collect())
}

/// Appends the delivery records, then the facts.
async fn start(
    state: &State,
    request: &Request,
    webhook: &Webhook,
    items: &Items,
    runs: &[(NotificationId, RunId)],
) -> Result<(), ApiError> {
    let mut by_partition: BTreeMap<Partition, Vec<NewRecord>> = BTreeMap::new();
    let mut facts = Vec::new();
    for (id, run) in runs {
        let Some(item) = items.get(id) else { continue };
        let record = delivery(item, *run, request.trace.as_str());
        by_partition.entry(partition(webhook, item.lane)).or_default().push(record);
        facts.push(asked(webhook, item, *run, state.now()));
    }
    if facts.is_empty() {
        return Ok(());
    }
    let topic = names::delivery(webhook.id);
    let batches = by_partition
        .into_iter()
        .map(|(partition, records)| AppendBatch {
            to: TopicPartition::new(&topic, partition),
            records,
        })
        .collect();
    for appended in state.append(batches).await {
        if let Err(error) = appended {
            tracing::warn!(webhook = %webhook.id, %error, "a resend could not be queued");
            return Err(unavailable());
        }
    }
    state.deps.metrics.resent(facts.len());
    write_facts(state, webhook, facts).await
}

/// The partition of a notification's lane.
fn partition(webhook: &Webhook, lane: Lane) -> Partition {
    lane.partition().min(webhook.partitions.saturating_sub(1))
}

fn delivery(item: &Item, run: RunId, trace: &str) -> NewRecord {
    let (source, offset) = &item.source;
    let record = v1::DeliveryRecord {
        notification: Bytes::copy_from_slice(item.notification.as_bytes()),
        run: Bytes::copy_from_slice(run.as_bytes()),
        uid: Bytes::copy_from_slice(&item.uid.0),
        event_type: item.event_type.to_string(),
        tenant: item.tenant.to_string(),
        issuer: item.issuer.to_string(),
        lane: v1::Lane::from(item.lane).into(),
        deadline: item.deadline.map_or(0, Timestamp::as_millis),
        order_key: item.order_key.to_string(),
        body: item.body.clone(),
        source: Some(v1::Source {
            topic: source.topic.as_str().to_owned(),
            partition: source.partition,
            offset: *offset,
        }),
        created: item.created.as_millis(),
        traceparent: trace.to_owned(),
        resends: item.resends + 1,
        number: item.number.map_or(0, |(_, number)| number),
        number_lane: item.number.map(|(lane, _)| v1::Lane::from(lane).into()),
    };
    NewRecord {
        key: Some(Bytes::copy_from_slice(item.order_key.as_bytes())),
        headers: vec![format_header()],
        value: Some(encode(&record)),
        timestamp: None,
    }
}

fn asked(webhook: &Webhook, item: &Item, run: RunId, now: Timestamp) -> v1::Outcome {
    v1::Outcome {
        webhook: Bytes::copy_from_slice(webhook.id.as_bytes()),
        notification: Bytes::copy_from_slice(item.notification.as_bytes()),
        run: Bytes::copy_from_slice(run.as_bytes()),
        kind: v1::OutcomeKind::ResendAsked.into(),
        time: now.as_millis(),
        lane: v1::Lane::from(item.lane).into(),
        ..v1::Outcome::default()
    }
}

async fn write_facts(
    state: &State,
    webhook: &Webhook,
    outcomes: Vec<v1::Outcome>,
) -> Result<(), ApiError> {
    let to = TopicPartition::new(names::OUTCOMES, webhook.slot.outcome_partition());
    let batch = v1::OutcomeBatch {
        slot: webhook.slot.0,
        took: None,
        writer: v1::Writer::Api.into(),
        outcomes,
    };
    let record = NewRecord {
        key: Some(Bytes::copy_from_slice(&webhook.slot.0.to_be_bytes())),
        headers: vec![format_header()],
        value: Some(encode(&batch)),
        timestamp: None,
    };
    for _ in 0..TRIES {
        let batch = AppendBatch { to: to.clone(), records: vec![record.clone()] };
        // The same facts twice change nothing, so an unknown fate is tried again.
        match state.append(vec![batch]).await.pop() {
            Some(Ok(offsets)) => {
                if let Some(last) = offsets.last() {
                    state.note_written(to.clone(), last + 1);
                }
                return Ok(());
            }
            Some(Err(AppendError::Unavailable | AppendError::Unknown)) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the facts of a resend could not be written");
                return Err(unavailable());
            }
            None => {}
        }
    }
    Err(unavailable())
}
