//! What operators are told, as events of `tidings.events.ops`.
//!
//! The bytes of an event are made of nothing but the notice and what a webhook keeps
//! all its life, so that a notice that is told again is the same event.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tidings_broker::{AppendBatch, NewRecord, partition_of};
use tidings_delivery::{Notice, NoticeKind};
use tidings_signing::sha256;
use tidings_types::{Timestamp, TopicName, TopicPartition, names};

use crate::{deps::Deps, webhook::Webhook};

/// Tells the router which event a record is (design §4).
const EVENT_ID_HEADER: &str = "tidings-event-id";

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    shape: &'static str,
    event_triggered: String,
    event_type: String,
    event_body: Body<'a>,
    event_id: &'a str,
}

#[derive(Serialize)]
struct Body<'a> {
    object: Object<'a>,
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "type")]
    shape: &'static str,
    key: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// When the client certificate ends, and the SHA-256 of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a str>,
}

/// The topic of the platform's own events.
pub(crate) fn topic() -> TopicName {
    names::events("ops")
}

/// The record that tells of a notice. Its key is the webhook's id, the order key of
/// these types.
pub(crate) fn record(webhook: &Webhook, notice: &Notice) -> NewRecord {
    let key = webhook.id.to_string();
    let id = id(webhook, notice);
    let event = Event {
        shape: "event",
        event_triggered: triggered(notice.at),
        event_type: format!("webhook.{}", notice.kind.as_str()),
        event_body: Body { object: object(webhook, notice, key.clone()) },
        event_id: &id,
    };
    // Texts alone: it cannot fail.
    let value = serde_json::to_vec(&event).unwrap_or_default();
    NewRecord {
        key: Some(key.into()),
        headers: vec![(Arc::from(EVENT_ID_HEADER), Bytes::from(id.clone()))],
        value: Some(value.into()),
        timestamp: None,
    }
}

fn object<'a>(webhook: &Webhook, notice: &'a Notice, key: String) -> Object<'a> {
    let object = Object {
        shape: "webhook",
        key,
        owner: webhook.owner.name(),
        since: None,
        last_code: None,
        reason: None,
        expires: None,
        certificate: None,
    };
    match notice.kind {
        NoticeKind::Failing | NoticeKind::Recovered | NoticeKind::Suspended => Object {
            since: Some(notice.since.to_rfc3339()),
            last_code: Some(&notice.code),
            reason: (!notice.reason.is_empty()).then_some(&notice.reason),
            ..object
        },
        NoticeKind::CertificateExpiring => Object {
            expires: Some(notice.since.to_rfc3339()),
            certificate: Some(&notice.reason),
            ..object
        },
    }
}

/// The same notice has the same id, whoever tells it.
fn id(webhook: &Webhook, notice: &Notice) -> String {
    let identity = notice.identity().as_millis().to_be_bytes();
    let certificate = match notice.kind {
        NoticeKind::Failing | NoticeKind::Recovered | NoticeKind::Suspended => "",
        NoticeKind::CertificateExpiring => notice.reason.as_str(),
    };
    let kind = notice.kind.as_str().as_bytes();
    let digest = sha256(&[webhook.id.as_bytes(), kind, &identity, certificate.as_bytes()]);
    hex(&digest)
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `yyyy-MM-dd HH:mm:ss`, as the merchants' events have it.
fn triggered(at: Timestamp) -> String {
    let (year, month, day, hour, minute, second, _) = at.civil();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Appends records to the topic of the platform's own events, in their order. Gives
/// for each whether it stands there.
pub(crate) async fn tell(deps: &Deps, records: Vec<NewRecord>) -> Vec<bool> {
    let topic = topic();
    let partitions = match deps.broker.describe(&topic).await {
        Ok(described) => described.partitions,
        Err(error) => {
            tracing::warn!(%topic, %error, "operators cannot be told of a webhook now; trying again");
            return vec![false; records.len()];
        }
    };
    // One append per record keeps the order of a webhook also when one fails.
    let batches = records
        .into_iter()
        .map(|record| {
            let partition = partition_of(record.key.as_deref().unwrap_or_default(), partitions);
            AppendBatch { to: TopicPartition::new(&topic, partition), records: vec![record] }
        })
        .collect();
    let appended = deps.broker.append(batches).await;
    let told = appended.into_iter().map(|result| match result {
        Ok(_offsets) => true,
        Err(error) => {
            tracing::warn!(%topic, %error, "operators cannot be told of a webhook now; trying again");
            false
        }
    });
    told.collect()
}
