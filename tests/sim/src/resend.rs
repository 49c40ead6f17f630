//! A resend as the API makes it: first the delivery record, then the fact that it
//! was asked for.

use bytes::Bytes;
use tidings_broker::{AppendBatch, NewRecord};
use tidings_eventlog::Item;
use tidings_proto::{encode, format_header, v1};
use tidings_signing::slot;
use tidings_types::{Clock as _, RunId, Timestamp, TopicPartition, names};

use crate::{plan::HookPlan, world::World};

/// A resend that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Resend {
    pub(crate) hook: &'static str,
    pub(crate) notification: String,
    pub(crate) run: Bytes,
    /// When its record was acknowledged; none if its fate is unknown.
    pub(crate) at: Option<u64>,
}

pub(crate) async fn resend(
    world: &World,
    hook: &HookPlan,
    item: &Item,
    random: [u8; 10],
) -> Resend {
    let run = RunId::from_parts(world.clock.now(), random);
    let partition = item.lane.partition().min(hook.partitions - 1);
    let to = TopicPartition::new(names::delivery(hook.id), partition);
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
        traceparent: String::new(),
        number: item.number.map_or(0, |(_, number)| number),
        number_lane: item.number.map(|(lane, _)| v1::Lane::from(lane).into()),
        resends: item.resends + 1,
    };
    let mut resend = Resend {
        hook: hook.name,
        notification: item.notification.to_string(),
        run: record.run.clone(),
        at: None,
    };
    let appended = append(world, to, encode(&record)).await;
    world
        .trace
        .note(format_args!("resend of {} to {}: {appended}", resend.notification, hook.name));
    if !appended {
        return resend;
    }
    let at = world.trace.now();
    let outcome = v1::Outcome {
        webhook: Bytes::copy_from_slice(hook.id.as_bytes()),
        notification: Bytes::copy_from_slice(item.notification.as_bytes()),
        run: Bytes::copy_from_slice(run.as_bytes()),
        kind: v1::OutcomeKind::ResendAsked.into(),
        time: world.clock.now().as_millis(),
        lane: v1::Lane::from(item.lane).into(),
        ..v1::Outcome::default()
    };
    let slot = slot(hook.id);
    let batch = v1::OutcomeBatch {
        slot: slot.0,
        took: None,
        writer: v1::Writer::Api.into(),
        outcomes: vec![outcome],
    };
    let to = TopicPartition::new(names::OUTCOMES, slot.outcome_partition());
    for _ in 0..3 {
        if append(world, to.clone(), encode(&batch)).await {
            break;
        }
    }
    resend.at = Some(at);
    resend
}

async fn append(world: &World, to: TopicPartition, value: Bytes) -> bool {
    let record = NewRecord {
        key: None,
        headers: vec![format_header()],
        value: Some(value),
        timestamp: None,
    };
    let batch = AppendBatch { to, records: vec![record] };
    world.broker().append(vec![batch]).await.pop().is_some_and(|result| result.is_ok())
}
