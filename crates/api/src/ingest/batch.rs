//! From the bytes of a request to events that may be written: splitting,
//! checking, and what each event's record will say. Writes nothing.
//!
//! A batch is checked as a whole; every bad event is named with its place.

use std::sync::Arc;

use bytes::Bytes;
use tidings_broker::{Header, NewRecord};
use tidings_catalogue::{Catalogue, Event, Identity, Refusal, Tenant, decode, json, write_uid};
use tidings_types::{EventUid, ProductId, QuarantineCode, Timestamp, TopicName};

use crate::errors::{ApiError, Code, Fault};

/// The most events of one request (contract §2).
pub(crate) const MAX_EVENTS: usize = 1_000;

/// The record header with the id that ingest gives to an event without one.
pub(crate) const EVENT_ID_HEADER: &str = "tidings-event-id";
/// The record header with the sealed one-time code, an encoded `v1.Sealed`.
pub(crate) const OTP_HEADER: &str = "tidings-otp";
/// The record header with the hex of the uid, where the body in the record is not
/// the one that the uid was taken from.
pub(crate) const UID_HEADER: &str = "tidings-uid";
/// The record header with the trace that published it.
pub(crate) const TRACE_HEADER: &str = "traceparent";

/// How the events stand in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The body is one event.
    One,
    /// One event per line; lines without anything are passed over.
    Lines,
}

/// Cuts a body into events.
///
/// # Errors
/// `BAD_JSON` if there is none, `PAYLOAD_TOO_LARGE` if there are too many.
pub(crate) fn split(form: Form, body: &Bytes) -> Result<Vec<Bytes>, ApiError> {
    let events: Vec<Bytes> = match form {
        Form::One => vec![body.clone()],
        Form::Lines => body
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
            .take(MAX_EVENTS + 1)
            .map(|line| body.slice_ref(line))
            .collect(),
    };
    if events.len() > MAX_EVENTS {
        let message = "a request takes at most 1,000 events";
        return Err(Fault::new(Code::PayloadTooLarge).saying(message).into());
    }
    if events.iter().all(Bytes::is_empty) {
        let message = "the body holds no event";
        return Err(Fault { index: Some(0), ..Fault::new(Code::BadJson).saying(message) }.into());
    }
    Ok(events)
}

/// Where ids of events without one come from: the same request gives the same.
#[derive(Clone, Debug)]
pub(crate) struct IdSource<'a> {
    pub(crate) subject: &'a str,
    pub(crate) key: &'a str,
}

impl IdSource<'_> {
    fn id(&self, index: usize) -> String {
        let length = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes();
        let index = u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes();
        let digest = tidings_signing::sha256(&[
            b"tidings event id 1",
            &length(self.subject),
            self.subject.as_bytes(),
            &length(self.key),
            self.key.as_bytes(),
            &index,
        ]);
        hex::encode(digest)
    }
}

/// A part of an event that is sealed before it is written.
#[derive(Clone)]
pub(crate) struct Ephemeral {
    /// The value as it stood in the event, quotes included.
    pub(crate) value: Vec<u8>,
    /// Until when somebody may need it.
    pub(crate) deadline: Timestamp,
}

impl std::fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ephemeral(until {})", self.deadline)
    }
}

/// One event, ready to be written but for what must be sealed.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) topic: TopicName,
    /// What its partition is chosen by.
    pub(crate) order_key: Vec<u8>,
    pub(crate) uid: EventUid,
    pub(crate) record: NewRecord,
    pub(crate) ephemeral: Option<Ephemeral>,
}

/// What a batch is checked against.
pub(crate) struct Rules<'a> {
    pub(crate) catalogue: &'a Catalogue,
    /// Whether a product is registered under another programme manager.
    pub(crate) is_foreign: &'a (dyn Fn(&Tenant, &ProductId) -> bool + Sync),
    pub(crate) ids: IdSource<'a>,
    pub(crate) trace: &'a str,
    pub(crate) now: Timestamp,
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Checks every event of a batch.
///
/// # Errors
/// All bad events, each with its place and field.
pub(crate) fn check(events: &[Bytes], rules: &Rules<'_>) -> Result<Vec<Draft>, ApiError> {
    let mut drafts = Vec::with_capacity(events.len());
    let mut faults = Vec::new();
    for (index, bytes) in events.iter().enumerate() {
        match draft(index, bytes, rules) {
            Ok(draft) => drafts.push(draft),
            Err(refusal) => faults.push(Fault {
                code: refusal.code.into(),
                message: refusal.message,
                field: refusal.field,
                index: Some(index),
            }),
        }
    }
    ApiError::check(faults)?;
    Ok(drafts)
}

fn draft(index: usize, bytes: &Bytes, rules: &Rules<'_>) -> Result<Draft, Refusal> {
    let event = decode(rules.catalogue, None, bytes)?;
    if let Some(product) = event.product()
        && (rules.is_foreign)(event.tenant(), product)
    {
        return Err(Refusal {
            code: QuarantineCode::BadTenant,
            field: event.product_path(),
            message: "the product is registered under another programme manager".into(),
        });
    }
    let mut headers: Vec<Header> =
        vec![(Arc::from(TRACE_HEADER), Bytes::copy_from_slice(rules.trace.as_bytes()))];
    let made = event.producer_id().is_none().then(|| rules.ids.id(index));
    let uid = uid(&event, made.as_deref().or(event.producer_id()).unwrap_or_default());
    if let Some(id) = made {
        headers.push((Arc::from(EVENT_ID_HEADER), Bytes::from(id)));
    }
    let order_key = match event.order_key() {
        Some(key) => key.as_bytes().to_vec(),
        None => uid.0.to_vec(),
    };
    let (value, ephemeral) = take_ephemeral(&event, bytes, rules.now);
    Ok(Draft {
        topic: event.kind().topic(),
        record: NewRecord {
            key: Some(Bytes::from(order_key.clone())),
            headers,
            value: Some(value),
            timestamp: None,
        },
        order_key,
        uid,
        ephemeral,
    })
}

fn uid(event: &Event<'_>, id: &str) -> EventUid {
    let mut bytes = Vec::with_capacity(event.payload().len() + 256);
    write_uid(event, Identity::Producer(id), |part| bytes.extend_from_slice(part));
    EventUid(tidings_signing::sha256(&[&bytes]))
}

/// Takes out what nobody may keep past the deadline (107: `otpValue`); `""` stays
/// in its place.
fn take_ephemeral(event: &Event<'_>, bytes: &Bytes, now: Timestamp) -> (Bytes, Option<Ephemeral>) {
    let spans = event.ephemeral_spans();
    // One value per event: a type with several would need a list in the header.
    let Some(span) = spans.first().cloned() else { return (bytes.clone(), None) };
    let Some(value) = bytes.get(span.clone()) else { return (bytes.clone(), None) };
    let ephemeral =
        Ephemeral { value: value.to_vec(), deadline: event.deadline(now).unwrap_or(now) };
    let emptied: Vec<_> = spans.into_iter().map(|span| (span, b"\"\"".as_slice())).collect();
    (json::replace(bytes, &emptied).into(), Some(ephemeral))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_empty_ones_passed_over() {
        let body = Bytes::from_static(b"{}\n\n  \r\n{}\r\n{}");
        assert_eq!(split(Form::Lines, &body).unwrap().len(), 3);
        assert_eq!(split(Form::One, &body).unwrap().len(), 1);
        let none = split(Form::Lines, &Bytes::from_static(b"\n \n")).unwrap_err();
        assert_eq!(none.faults[0].code, Code::BadJson);
        let many = Bytes::from("{}\n".repeat(1001));
        let error = split(Form::Lines, &many).unwrap_err();
        assert_eq!(error.faults[0].code, Code::PayloadTooLarge);
        assert!(split(Form::Lines, &many.slice(3..)).is_ok());
    }

    #[test]
    fn the_same_request_gives_the_same_ids_and_another_one_others() {
        let one = IdSource { subject: "a", key: "bc" };
        let other = IdSource { subject: "ab", key: "c" };
        assert_eq!(one.id(0), one.id(0));
        assert_ne!(one.id(0), one.id(1));
        assert_ne!(one.id(0), other.id(0));
    }
}
