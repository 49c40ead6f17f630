//! Notes down, at the end of a run, what the checker compares.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;
use tidings_broker::Record;
use tidings_checker::{Observed, Reported, Request, Resent, Seen, State, Told, Took, Within};
use tidings_eventlog::{Item, MemoryDisk};
use tidings_proto::{decode, v1};
use tidings_signing::slot;
use tidings_testkit::verify_standard_webhook;
use tidings_types::{
    EndReason, NotificationId, NotificationState, OUTCOME_PARTITIONS, Offset, ROUTED_PARTITIONS,
    SLOTS, Timestamp, TopicPartition, WebhookId, WebhookStatus, names,
};

use crate::{
    plan::{LADDER, STANDARD, URGENT},
    run::Run,
    trace::since_start,
    world::secret,
};

/// Everything at once.
pub(crate) async fn observe(run: &mut Run) -> anyhow::Result<Observed> {
    let markers = markers(run).await?;
    let mut observed = Observed {
        published: run.events.iter().map(|event| event.published.clone()).collect(),
        resent: run.resends.iter().map(|resend| resend.notification.clone()).collect(),
        broken: std::mem::take(&mut run.broken),
        ..Observed::default()
    };
    let account = run.recorder.handle.account(None).await;
    observed.account_agrees = account.as_ref().is_ok_and(tidings_eventlog::Account::agrees);
    observed.account_notifications = account
        .map(|account| account.partitions.iter().map(|row| row.notifications).sum())
        .unwrap_or_default();
    let mut exhausted = BTreeSet::new();
    for (name, item) in items(run).await? {
        let marker = markers.get(&item.source).cloned().unwrap_or_default();
        if item.reason == Some(EndReason::Exhausted) {
            exhausted.insert((name.clone(), item.notification.to_string()));
        }
        observed.reported.push(Reported {
            webhook: name,
            notification: item.notification.to_string(),
            marker,
            state: match item.state {
                NotificationState::Pending => State::Pending,
                NotificationState::Delivered => State::Delivered,
                NotificationState::Undelivered
                | NotificationState::Expired
                | NotificationState::Cancelled
                | NotificationState::Superseded => State::Ended,
            },
        });
    }
    observed.seen = seen(run)?;
    observed.within = Some(within(run, exhausted).await?);
    rebuilt(run, &mut observed).await?;
    Ok(observed)
}

fn name_of(run: &Run, id: WebhookId) -> String {
    run.world.hook(id).map_or_else(|| id.to_string(), |hook| hook.name.to_owned())
}

/// Every record of a partition that is still there.
async fn all(run: &Run, topic: &str, partition: u32) -> anyhow::Result<Vec<Record>> {
    let of = TopicPartition::new(topic, partition);
    let broker = run.world.broker();
    let ends = broker.ends(&of).await?;
    let mut records: Vec<Record> = Vec::new();
    let mut at = ends.first;
    while at < ends.end {
        records.extend(broker.read(&of, at, 1 << 20).await?);
        at = records.last().context("a partition ends early")?.offset + 1;
    }
    for record in &records {
        run.world.trace.bytes(&record.offset.to_be_bytes());
        run.world.trace.bytes(&record.timestamp.as_millis().to_be_bytes());
        run.world.trace.bytes(record.value.as_deref().unwrap_or_default());
    }
    Ok(records)
}

/// Which event stands where.
async fn markers(run: &Run) -> anyhow::Result<BTreeMap<(TopicPartition, Offset), String>> {
    let mut markers = BTreeMap::new();
    for kind in [STANDARD, URGENT] {
        let topic = names::events(kind);
        for partition in 0..2 {
            for record in all(run, topic.as_str(), partition).await? {
                let value: Value =
                    serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
                let marker = value["context"]["correlationId"].as_str().unwrap_or_default();
                let at = (TopicPartition::new(&topic, partition), record.offset);
                markers.insert(at, marker.to_owned());
            }
        }
    }
    Ok(markers)
}

/// Everything in history.
async fn items(run: &Run) -> anyhow::Result<Vec<(String, Item)>> {
    let log = run.recorder.handle.event_log();
    let mut items = Vec::new();
    for hook in &run.world.plan.hooks {
        for kind in [STANDARD, URGENT] {
            let page = log.list(hook.id, kind, Timestamp::ZERO, 100_000, None).await?;
            items.extend(page.items.into_iter().map(|item| (hook.name.to_owned(), item)));
        }
    }
    Ok(items)
}

/// The payload member of a delivered body.
fn payload(body: &Bytes) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"\"payload\":";
    let at = body.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    Some(body.get(at..body.len().checked_sub(1)?)?.to_vec())
}

fn seen(run: &Run) -> anyhow::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for call in run.world.endpoints.calls() {
        let payload = payload(&call.body).context("a body without a payload")?;
        let value: Value = serde_json::from_slice(&payload)?;
        let marker = value.get("messageId").or_else(|| value.get("AlertId"));
        let secret = secret(call.webhook).to_text();
        seen.push(Seen {
            webhook: name_of(run, call.webhook),
            notification: call.notification.clone(),
            marker: marker.and_then(Value::as_str).unwrap_or_default().to_owned(),
            payload,
            signature_right: Some(
                verify_standard_webhook(&secret, &call.headers, &call.body).is_ok(),
            ),
            at: call.arrived,
            accepted: call.accepted,
        });
    }
    Ok(seen)
}

/// What the topics of the senders say.
async fn within(run: &Run, exhausted: BTreeSet<(String, String)>) -> anyhow::Result<Within> {
    let mut within = Within {
        ladder_steps: LADDER.len(),
        exhausted,
        hung: run.hung.clone(),
        ..Within::default()
    };
    for call in run.world.endpoints.calls() {
        within.requests.push(Request {
            webhook: name_of(run, call.webhook),
            notification: call.notification.clone(),
            attempt: call.attempt,
            started: call.started,
            answered: call.answered,
            accepted: call.accepted,
        });
    }
    let mut tooks: BTreeMap<u32, Vec<Took>> = BTreeMap::new();
    for slot in 0..SLOTS {
        for record in all(run, names::SLOTS, slot).await? {
            let value = record.value.clone().unwrap_or_default();
            let decoded: v1::SlotRecord = decode(value)?;
            if matches!(decoded.kind, Some(v1::slot_record::Kind::TookOver(_))) {
                let took = Took { at: since_start(record.timestamp), offset: record.offset };
                tooks.entry(slot).or_default().push(took);
            }
        }
    }
    let snapshot = run.registry().snapshot();
    for hook in &run.world.plan.hooks {
        let of = tooks.get(&slot(hook.id).0).cloned().unwrap_or_default();
        within.tooks.insert(hook.name.to_owned(), of);
        let active = snapshot.webhooks.get(&hook.id);
        if active.is_some_and(|webhook| webhook.status != WebhookStatus::Active) {
            within.stopped.insert(hook.name.to_owned());
        }
    }
    for partition in 0..ROUTED_PARTITIONS {
        all(run, names::ROUTED, partition).await?;
    }
    let mut attempted = BTreeSet::new();
    for partition in 0..OUTCOME_PARTITIONS {
        for record in all(run, names::OUTCOMES, partition).await? {
            let batch: v1::OutcomeBatch = decode(record.value.clone().unwrap_or_default())?;
            for outcome in batch.outcomes {
                let (Some(id), Some(webhook)) = (
                    NotificationId::from_slice(&outcome.notification),
                    WebhookId::from_slice(&outcome.webhook),
                ) else {
                    continue;
                };
                let key = (name_of(run, webhook), id.to_string());
                let kind = outcome.kind();
                let reports = matches!(
                    kind,
                    v1::OutcomeKind::AttemptFailed
                        | v1::OutcomeKind::Delivered
                        | v1::OutcomeKind::Undelivered
                );
                if reports && !outcome.code.is_empty() {
                    attempted.insert((key.1.clone(), outcome.run));
                    within.told.entry(key).or_default().push(Told {
                        at: since_start(record.timestamp),
                        attempt: outcome.attempt,
                        delivered: kind == v1::OutcomeKind::Delivered,
                        took: batch.took.unwrap_or(0),
                    });
                }
            }
        }
    }
    within.resent = run
        .resends
        .iter()
        .filter_map(|resend| {
            Some(Resent {
                webhook: resend.hook.to_owned(),
                notification: resend.notification.clone(),
                at: resend.at?,
                attempted: attempted.contains(&(resend.notification.clone(), resend.run.clone())),
            })
        })
        .collect();
    Ok(within)
}

/// A view made anew from the topics says the same.
async fn rebuilt(run: &Run, observed: &mut Observed) -> anyhow::Result<()> {
    let anew = run.world.recorder_on(MemoryDisk::default());
    // Everything stands in the topics, so this takes moments.
    anew.handle.account(None).await.context("the rebuilt view does not come up")?;
    for hook in &run.world.plan.hooks {
        let before = run.recorder.handle.event_log().dump(hook.id).await?;
        let after = anew.handle.event_log().dump(hook.id).await?;
        if before != after {
            observed.broken.push(format!("the rebuilt history of {} differs", hook.name));
        }
    }
    Ok(())
}
