//! The headers of a source record.

use tidings_broker::Header;
use tidings_catalogue::{Refusal, header_id};
use tidings_proto::{decode, v1};
use tidings_signing::Sealed;
use tidings_types::{EventUid, QuarantineCode};

/// The id that ingest gives to an event without one.
const EVENT_ID: &str = "tidings-event-id";
/// A one-time code that ingest took out of the event: an encoded `v1.Sealed`.
const OTP: &str = "tidings-otp";
/// The hex of the uid of an event whose code was taken out.
const UID: &str = "tidings-uid";
const TRACEPARENT: &str = "traceparent";

/// What all headers of a record may have together, in bytes (P15).
const MAX_BYTES: usize = 64 << 10;

/// What the router reads in headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) event_id: Option<String>,
    /// A W3C trace context, or nothing: one that is none is left out.
    pub(super) traceparent: String,
    /// The sealed code and the uid that was made with it.
    pub(super) code: Option<(Sealed, EventUid)>,
}

/// Reads headers.
///
/// # Errors
/// `BAD_HEADER`, with the header's name.
pub(super) fn read(headers: &[Header]) -> Result<Heading, Refusal> {
    if headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_BYTES {
        return Err(bad("headers", "all headers together have at most 64 KiB"));
    }
    let ids = headers.iter().filter(|(name, _)| &**name == EVENT_ID);
    let event_id = header_id(ids.map(|(_, value)| value.as_ref()))?.map(str::to_owned);
    let trace = headers.iter().find(|(name, _)| &**name == TRACEPARENT);
    let traceparent = trace.and_then(|(_, value)| traceparent(value)).unwrap_or_default();
    let code = match (single(headers, OTP)?, single(headers, UID)?) {
        (None, _) => None,
        (Some(_), None) => return Err(bad(UID, "is missing beside tidings-otp")),
        (Some(sealed), Some(uid)) => {
            let sealed = sealed_value(sealed).ok_or_else(|| bad(OTP, "is no sealed value"))?;
            let uid = uid_value(uid).ok_or_else(|| bad(UID, "must be the hex of 32 bytes"))?;
            Some((sealed, uid))
        }
    };
    Ok(Heading { event_id, traceparent, code })
}

pub(super) fn bad_code() -> Refusal {
    bad(OTP, "does not open: it was damaged or moved")
}

fn bad(name: &str, message: &'static str) -> Refusal {
    let field = Some(name.to_owned());
    Refusal { code: QuarantineCode::BadHeader, field, message: message.into() }
}

fn single<'a>(headers: &'a [Header], name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.iter().filter(|(given, _)| &**given == name);
    let first = values.next().map(|(_, value)| value.as_ref());
    if values.next().is_some() { Err(bad(name, "is given more than once")) } else { Ok(first) }
}

fn sealed_value(bytes: &[u8]) -> Option<Sealed> {
    let proto = decode::<v1::Sealed>(bytes.to_vec().into()).ok()?;
    let nonce = proto.nonce.as_ref().try_into().ok()?;
    Some(Sealed { key: proto.key, nonce, data: proto.data.to_vec() })
}

fn uid_value(bytes: &[u8]) -> Option<EventUid> {
    EventUid::from_slice(&hex::decode(bytes).ok()?)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`.
fn traceparent(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let lengths = text.split('-').map(str::len);
    let is_one = lengths.eq([2, 32, 16, 2])
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    is_one.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn verdict(headers: &[(&str, &[u8])]) -> String {
        let headers: Vec<Header> = headers
            .iter()
            .map(|(name, value)| ((*name).into(), Bytes::copy_from_slice(value)))
            .collect();
        match read(&headers) {
            Ok(heading) => format!("{:?} {:?}", heading.event_id, heading.traceparent),
            Err(refusal) => refusal.field.unwrap_or_default(),
        }
    }

    #[test]
    fn unknown_headers_and_bad_traces_are_passed_over() {
        assert_eq!(verdict(&[]), "None \"\"");
        assert_eq!(verdict(&[("x", b"\xff"), ("traceparent", b"nonsense")]), "None \"\"");
        assert_eq!(verdict(&[("traceparent", b"00-zz-00-01")]), "None \"\"");
        let all = [("traceparent", TRACE.as_bytes()), ("tidings-event-id", b"e-1".as_slice())];
        assert_eq!(verdict(&all), format!("Some(\"e-1\") {TRACE:?}"));
    }

    #[test]
    fn headers_that_would_change_the_event_must_be_right() {
        assert_eq!(verdict(&[("tidings-event-id", b"")]), "tidings-event-id");
        let twice = [("tidings-event-id", b"a".as_slice()), ("tidings-event-id", b"a")];
        assert_eq!(verdict(&twice), "tidings-event-id");
        assert_eq!(verdict(&[("x", &[b'a'; 70_000])]), "headers");
        assert_eq!(verdict(&[("tidings-otp", b"x")]), "tidings-uid");
        let uid = hex::encode([1; 32]);
        let uid = ("tidings-uid", uid.as_bytes());
        assert_eq!(verdict(&[uid, ("tidings-otp", b"x")]), "tidings-otp");
        let sealed = v1::Sealed { nonce: Bytes::from_static(&[0; 12]), ..v1::Sealed::default() };
        let sealed = tidings_proto::encode(&sealed);
        assert_eq!(verdict(&[("tidings-uid", b"12"), ("tidings-otp", &sealed)]), "tidings-uid");
        assert_eq!(verdict(&[uid, ("tidings-otp", &sealed)]), "None \"\"");
        let twice = [uid, ("tidings-otp", &sealed), ("tidings-otp", &sealed)];
        assert_eq!(verdict(&twice), "tidings-otp");
    }
}
