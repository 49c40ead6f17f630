//! The shapes of the records that the router writes.

use bytes::Bytes;
use prost::Message as _;
use tidings_broker::{AppendBatch, Header, NewRecord};
use tidings_proto::{encode, format_header, v1};
use tidings_signing::Sealed;
use tidings_types::{Offset, Partition, RunId, Timestamp, TopicPartition, names};

/// A record of ours.
pub(crate) fn new_record(key: impl Into<Bytes>, value: Bytes) -> NewRecord {
    NewRecord {
        key: Some(key.into()),
        headers: vec![format_header()],
        value: Some(value),
        timestamp: None,
    }
}

/// The name of the format in a record's headers, if it is the one that this
/// release knows.
pub(crate) fn is_known_format(headers: &[Header]) -> bool {
    headers.iter().any(|(name, value)| {
        &**name == tidings_proto::FORMAT_HEADER && value.as_ref() == tidings_proto::FORMAT_VERSION
    })
}

pub(crate) fn routed_place(partition: Partition) -> TopicPartition {
    TopicPartition::new(names::ROUTED, partition)
}

pub(crate) fn source_proto(from: &TopicPartition, offset: Offset) -> v1::Source {
    v1::Source { topic: from.topic.as_str().to_owned(), partition: from.partition, offset }
}

/// The partition that a decision is about.
pub(crate) fn source_of(decision: &v1::Decision) -> Option<(TopicPartition, Offset)> {
    let source = decision.source.as_ref()?;
    Some((TopicPartition::new(source.topic.as_str(), source.partition), source.offset))
}

/// The start of an ownership.
pub(crate) fn took(owner: [u8; 16], now: Timestamp, partition: Partition) -> AppendBatch {
    let took = v1::Took { owner: Bytes::copy_from_slice(&owner), time: now.as_millis() };
    let record = v1::RoutedRecord { took: 0, kind: Some(v1::routed_record::Kind::TookOver(took)) };
    AppendBatch { to: routed_place(partition), records: vec![new_record("took", encode(&record))] }
}

/// A decision as it stands in `tidings.routed`, written by the owner of `took`.
/// Put together from encoded parts, so that the decision is not copied before.
pub(crate) fn decision(took: Offset, decision: &v1::Decision) -> NewRecord {
    /// Field 3 of `RoutedRecord`, of a length.
    const DECISION: u8 = 3 << 3 | 2;
    let length = decision.encoded_len();
    let mut value = Vec::with_capacity(length + 32);
    value.extend_from_slice(&encode(&v1::RoutedRecord { took, kind: None }));
    value.push(DECISION);
    value.extend_from_slice(&decision.encode_length_delimited_to_vec());
    new_record(source_key(decision.source.as_ref()), Bytes::from(value))
}

/// `tidings.events.101/3`: the key of records about a source partition.
pub(crate) fn source_key(source: Option<&v1::Source>) -> String {
    source.map(|source| format!("{}/{}", source.topic, source.partition)).unwrap_or_default()
}

/// All of a delivery record that is the same for every webhook with this body.
/// The encoding of a record's notification can be put before it: fields of a
/// protobuf message may be concatenated.
pub(crate) fn delivery_tail(
    decision: &v1::Decision,
    routed: &v1::Routed,
    body: &v1::Body,
) -> Bytes {
    encode(&v1::DeliveryRecord {
        notification: Bytes::new(),
        run: Bytes::copy_from_slice(RunId::FIRST.as_bytes()),
        uid: routed.uid.clone(),
        event_type: routed.event_type.clone(),
        tenant: routed.tenant.clone(),
        issuer: routed.issuer.clone(),
        lane: routed.lane,
        deadline: routed.deadline,
        order_key: routed.order_key.clone(),
        body: Some(body.clone()),
        source: decision.source.clone(),
        created: decision.time,
        traceparent: decision.traceparent.clone(),
        resends: 0,
        number: 0,
        number_lane: None,
    })
}

/// One webhook's delivery record: its notification and the tail.
pub(crate) fn delivery(notification: &Bytes, tail: &Bytes) -> Bytes {
    let head = encode(&v1::DeliveryRecord {
        notification: notification.clone(),
        ..v1::DeliveryRecord::default()
    });
    let mut value = Vec::with_capacity(head.len() + tail.len());
    value.extend_from_slice(&head);
    value.extend_from_slice(tail);
    Bytes::from(value)
}

/// A sealed value as it stands in records.
pub(crate) fn sealed_proto(sealed: Sealed) -> v1::Sealed {
    v1::Sealed {
        key: sealed.key,
        nonce: Bytes::copy_from_slice(&sealed.nonce),
        data: Bytes::from(sealed.data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_put_together_reads_as_one_record() {
        let decision = v1::Decision {
            source: Some(v1::Source { topic: "t".to_owned(), partition: 1, offset: 300 }),
            traceparent: "x".repeat(500),
            ..v1::Decision::default()
        };
        for took in [0, 1, 1 << 40] {
            let record = super::decision(took, &decision);
            assert_eq!(record.key.as_deref(), Some(b"t/1".as_slice()));
            let read: v1::RoutedRecord = tidings_proto::decode(record.value.unwrap()).unwrap();
            let kind = Some(v1::routed_record::Kind::Decision(decision.clone()));
            assert_eq!(read, v1::RoutedRecord { took, kind });
        }
    }

    #[test]
    fn a_delivery_put_together_reads_as_one_record() {
        let body = v1::Body { payload_len: 3, ..v1::Body::default() };
        let routed = v1::Routed {
            uid: Bytes::from_static(&[7; 32]),
            event_type: "101".to_owned(),
            lane: v1::Lane::Urgent.into(),
            ..v1::Routed::default()
        };
        let decision = v1::Decision { time: 5, ..v1::Decision::default() };
        let tail = delivery_tail(&decision, &routed, &body);
        let value = delivery(&Bytes::from_static(&[9; 16]), &tail);
        let record: v1::DeliveryRecord = tidings_proto::decode(value).unwrap();
        assert_eq!(record.notification.as_ref(), &[9; 16]);
        assert_eq!(record.run.as_ref(), RunId::FIRST.as_bytes());
        assert_eq!((record.created, record.event_type.as_str()), (5, "101"));
        assert_eq!(record.body, Some(body));
    }
}
