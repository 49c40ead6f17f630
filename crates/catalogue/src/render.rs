//! The bodies that webhooks get, made once per event and shape.
//!
//! An EDS body is a new `context`, then the payload's bytes as published. Where
//! the notification's id goes there is a hole of [`HOLE`] bytes, which each
//! delivery fills. A merchant's body is the producer's bytes.

use std::ops::Range;

use tidings_types::{Shape, Timestamp};

use crate::{event::Event, event_type::EventType, json};

/// The length of a notification id's text.
pub const HOLE: usize = 36;

/// What stands in the hole until it is filled.
const EMPTY_HOLE: &[u8; HOLE] = b"00000000-0000-0000-0000-000000000000";

/// The members of a producer's context that `spec.md` §3.7 names, and the one
/// that the platform makes: all others are delivered as they came.
const NAMED: [&str; 9] = [
    "programManagerId",
    "eventCode",
    "eventVersion",
    "notificationTime",
    "productId",
    "notificationType",
    "creator",
    "correlationId",
    "notificationId",
];

/// A body of an event.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    pub bytes: Vec<u8>,
    /// Where the notification id's [`HOLE`] bytes begin.
    pub hole: Option<usize>,
    /// The bytes that the history shows as `payload`: the payload member; of a
    /// merchant's body the whole.
    pub payload: Range<usize>,
}

/// The shape in which an event of this type goes out to a webhook that asks for
/// `wanted`: `Plain` where `wanted` would give the same bytes.
pub fn effective_shape(kind: &EventType, wanted: Shape) -> Shape {
    let differs = match wanted {
        Shape::Plain => false,
        Shape::StrictLegacy => kind.has_raw_envelope(),
        Shape::WireNames => kind.wire_name().is_some(),
    };
    if differs { wanted } else { Shape::Plain }
}

/// Makes the body. `now` stands in for a missing `notificationTime`.
pub fn render(event: &Event<'_>, shape: Shape, now: Timestamp) -> Rendered {
    let shape = effective_shape(event.kind(), shape);
    if event.kind().is_eds() {
        eds(event, event.payload().as_bytes(), shape, now)
    } else {
        merchant(event, shape)
    }
}

/// The body of a type with ephemeral members, without them: what is kept past
/// the deadline. `None` if the event has none of them.
pub fn render_redacted(event: &Event<'_>, shape: Shape, now: Timestamp) -> Option<Rendered> {
    if !event.kind().is_eds() || event.ephemeral_spans().is_empty() {
        return None;
    }
    let payload = json::without(event.payload_value(), |member| event.is_ephemeral(member));
    Some(eds(event, &payload, effective_shape(event.kind(), shape), now))
}

/// Puts a notification id into the hole at `hole` of a body.
///
/// A body that is too short for its hole is left as it is: `false`.
#[must_use]
pub fn fill(body: &mut [u8], hole: usize, id: &[u8; HOLE]) -> bool {
    match hole.checked_add(HOLE).and_then(|end| body.get_mut(hole..end)) {
        Some(place) => {
            place.copy_from_slice(id);
            true
        }
        None => false,
    }
}

fn eds(event: &Event<'_>, payload: &[u8], shape: Shape, now: Timestamp) -> Rendered {
    let kind = event.kind();
    let has_id = match shape {
        Shape::Plain | Shape::WireNames => true,
        Shape::StrictLegacy => false,
    };
    let context = event.context();
    let mut bytes = Vec::with_capacity(payload.len() + 256);
    let mut hole = None;
    bytes.extend_from_slice(br#"{"context":{"#);
    if has_id {
        bytes.extend_from_slice(br#""notificationId":""#);
        hole = Some(bytes.len());
        bytes.extend_from_slice(EMPTY_HOLE);
        bytes.extend_from_slice(br#"","#);
    }
    bytes.extend_from_slice(br#""eventCode":"#);
    bytes.extend_from_slice(kind.name().as_bytes());
    bytes.extend_from_slice(br#","eventVersion":"v1","notificationTime":"#);
    match context.and_then(|context| context.get("notificationTime")) {
        Some(time) => bytes.extend_from_slice(time.raw().as_bytes()),
        None => {
            bytes.push(b'"');
            bytes.extend_from_slice(now.to_rfc3339().as_bytes());
            bytes.push(b'"');
        }
    }
    let others = context.into_iter().flat_map(|context| context.children());
    for member in others {
        let is_kept = kind.has_raw_envelope() && member.key_is("programManagerId");
        if is_kept || !NAMED.iter().any(|name| member.key_is(name)) {
            bytes.extend_from_slice(br#",""#);
            bytes.extend_from_slice(member.raw_key().as_bytes());
            bytes.extend_from_slice(br#"":"#);
            bytes.extend_from_slice(member.raw().as_bytes());
        }
    }
    bytes.push(b'}');
    if kind.has_raw_envelope()
        && let Some(headers) = event.document().root().get("messageHeaders")
    {
        bytes.extend_from_slice(br#","messageHeaders":"#);
        bytes.extend_from_slice(headers.raw().as_bytes());
    }
    bytes.extend_from_slice(br#","payload":"#);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    let payload = start..bytes.len();
    bytes.push(b'}');
    Rendered { bytes, hole, payload }
}

fn merchant(event: &Event<'_>, shape: Shape) -> Rendered {
    let source = event.text().as_bytes();
    let wire_name = match shape {
        Shape::WireNames => event.kind().wire_name(),
        Shape::Plain | Shape::StrictLegacy => None,
    };
    let bytes = match (wire_name, event.document().root().get("event_type")) {
        (Some(name), Some(value)) => {
            json::replace(source, &[(value.span(), format!("\"{name}\"").as_bytes())])
        }
        (Some(_) | None, _) => source.to_vec(),
    };
    Rendered { hole: None, payload: 0..bytes.len(), bytes }
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rendered({} bytes, hole at {:?})", self.bytes.len(), self.hole)
    }
}
