//! The checks between bytes and an [`Event`], in the order in which a producer
//! wants to hear of them: what cannot be read, what must not be there, what is
//! too large, then the fields.

use std::{borrow::Cow, sync::Arc};

use tidings_types::{MerchantKey, PmId, ProductId, QuarantineCode, Timestamp};

use super::{Event, MAX_ID, MAX_PAYLOAD, MAX_RECORD, Tenant};
use crate::{
    Refusal,
    catalogue::{Catalogue, OPS},
    event_type::{EventType, Surface},
    json::{Document, Kind, Value},
    when,
};

/// Members that may not hold digits: sensitive authentication data must not be
/// kept, sealed or not (`reliability-security.md` §3.8). Compared without case.
const FORBIDDEN: [&str; 7] = ["pan", "cvv", "pin", "cvv2", "track1", "track2", "pinblock"];

const LONGEST_FORBIDDEN: usize = 8;

pub(super) fn decode<'a>(
    catalogue: &'a Catalogue,
    topic_type: Option<&str>,
    bytes: &'a [u8],
) -> Result<Event<'a>, Refusal> {
    if bytes.is_empty() && topic_type.is_some() {
        return Err(empty());
    }
    if bytes.len() > MAX_RECORD {
        return Err(Refusal::too_large("an event has at most 1 MiB"));
    }
    let document = Document::parse(bytes)?;
    match document.root().kind() {
        Kind::Object => {}
        Kind::Null if topic_type.is_some() => return Err(empty()),
        Kind::Null | Kind::Boolean | Kind::Integer | Kind::Decimal | Kind::String | Kind::Array => {
            let message = "an event is a JSON object";
            return Err(Refusal::new(QuarantineCode::BadJson, None, message));
        }
    }
    refuse_forbidden(&document)?;
    let expected = match topic_type {
        None | Some(OPS) => None,
        Some(name) => Some(catalogue.get(name).ok_or_else(|| {
            let message = "the catalogue does not know this topic's type";
            Refusal::new(QuarantineCode::UnknownCode, None, message)
        })?),
    };
    let root = document.root();
    let is_eds = match (topic_type, expected) {
        (Some(OPS), _) => false,
        (_, Some(kind)) => kind.is_eds(),
        // At ingest a merchant event is one that says so.
        (_, None) => {
            let says_so = |name| root.get(name).is_some();
            says_so("context") || !(says_so("event_type") || says_so("event_body"))
        }
    };
    let draft = if is_eds {
        eds(catalogue, expected, root)?
    } else {
        merchant(catalogue, topic_type, expected, root)?
    };
    finish(draft, document)
}

/// What the two surfaces find out, each in its way.
struct Draft<'a> {
    kind: &'a EventType,
    tenant: Tenant,
    /// The product of the context.
    product: Option<ProductId>,
    producer_id: Option<String>,
    time: Time,
    payload: usize,
}

/// When the producer says that it made the event.
#[derive(Clone, Copy)]
enum Time {
    Absent,
    Read(Timestamp),
    /// A text that is no time, at this path. It matters only to a deadline.
    Unreadable(&'static str),
}

impl Time {
    fn of(text: Option<Cow<'_, str>>, path: &'static str) -> Self {
        match text {
            None => Self::Absent,
            Some(text) => when::parse(&text).map_or(Self::Unreadable(path), Self::Read),
        }
    }
}

fn finish<'a>(draft: Draft<'a>, document: Document<'a>) -> Result<Event<'a>, Refusal> {
    let Draft { kind, tenant, product, producer_id, time, payload } = draft;
    let value = document.value(payload);
    let mut unknown_fields = 0;
    kind.schema().check(value, &mut unknown_fields)?;
    let product = product.or_else(|| product_of(value.at(kind.product()?)?));
    let notification_time = match time {
        Time::Read(time) => Some(time),
        Time::Absent | Time::Unreadable(_) => None,
    };
    let mut deadline = None;
    if let Some(path) = kind.deadline() {
        if let Some(given) = value.at(path) {
            let text = given.string().unwrap_or_default();
            deadline = Some(when::parse(&text).ok_or_else(|| {
                Refusal::field(given.path(), "must be a time such as 2024-01-24T23:20:28Z")
            })?);
        } else if let Time::Unreadable(path) = time {
            let message = "must be a time such as 2024-01-24T23:20:28Z: the deadline depends on it";
            return Err(Refusal::field(path, message));
        }
    }
    Ok(Event {
        kind,
        tenant,
        product,
        producer_id,
        payload,
        notification_time,
        deadline,
        unknown_fields,
        document,
    })
}

fn eds<'a>(
    catalogue: &'a Catalogue,
    expected: Option<&'a EventType>,
    root: Value<'_>,
) -> Result<Draft<'a>, Refusal> {
    let context = object(root, "context")?.ok_or_else(|| required(root, "context"))?;
    let code = context.get("eventCode").ok_or_else(|| required(context, "eventCode"))?;
    if code.kind() != Kind::Integer {
        return Err(Refusal::field(code.path(), "must be an integer"));
    }
    let kind = catalogue.get(code.raw()).filter(|kind| kind.is_eds()).ok_or_else(|| {
        let message = "the catalogue does not know this code";
        Refusal::new(QuarantineCode::UnknownCode, Some(code.path()), message)
    })?;
    if expected.is_some_and(|expected| expected.name() != kind.name()) {
        return Err(Refusal::field(code.path(), "is not the code of the topic"));
    }
    let manager =
        context.get("programManagerId").ok_or_else(|| required(context, "programManagerId"))?;
    let manager_id = manager
        .integer()
        .ok_or_else(|| Refusal::field(manager.path(), "must be an integer of 64 bits"))?;
    if let Some(version) = context.get("eventVersion")
        && version.string().is_none_or(|text| text != "v1")
    {
        return Err(Refusal::field(version.path(), "must be \"v1\""));
    }
    let time = Time::of(string(context, "notificationTime")?, "context.notificationTime");
    let product = match context.get("productId") {
        Some(product) => {
            check_id(product)?;
            product_of(product)
        }
        None => None,
    };
    let producer_id = context.get("correlationId").map(producer_id).transpose()?;
    object(root, "messageHeaders")?;
    let payload = object(root, "payload")?.ok_or_else(|| required(root, "payload"))?;
    check_size(payload)?;
    Ok(Draft {
        kind,
        tenant: Tenant::ProgrammeManager(PmId(manager_id)),
        product,
        producer_id,
        time,
        payload: payload.index(),
    })
}

fn merchant<'a>(
    catalogue: &'a Catalogue,
    topic_type: Option<&str>,
    expected: Option<&'a EventType>,
    root: Value<'_>,
) -> Result<Draft<'a>, Refusal> {
    let name = string(root, "event_type")?.ok_or_else(|| required(root, "event_type"))?;
    let is_ops_topic = topic_type == Some(OPS);
    let fits = |kind: &&EventType| match kind.surface() {
        Surface::Eds => false,
        Surface::Merchant => !is_ops_topic,
        Surface::Ops => is_ops_topic,
    };
    let kind = catalogue.get(&name).filter(fits).ok_or_else(|| {
        let message = "the catalogue does not know this event type";
        Refusal::new(QuarantineCode::UnknownCode, Some("event_type".to_owned()), message)
    })?;
    if expected.is_some_and(|expected| expected.name() != kind.name()) {
        return Err(Refusal::field("event_type", "is not the type of the topic"));
    }
    if string(root, "type")?.is_some_and(|text| text != "event") {
        return Err(Refusal::field("type", "must be \"event\""));
    }
    let time = Time::of(string(root, "event_triggered")?, "event_triggered");
    let producer_id = root.get("event_id").map(producer_id).transpose()?;
    let body = object(root, "event_body")?.ok_or_else(|| required(root, "event_body"))?;
    check_size(body)?;
    let tenant = match kind.surface() {
        Surface::Ops => Tenant::Operator,
        Surface::Eds | Surface::Merchant => {
            let merchant = object(body, "merchant")?.ok_or_else(|| required(body, "merchant"))?;
            let key = merchant.get("merch_key").ok_or_else(|| required(merchant, "merch_key"))?;
            let text = key.id_text().ok_or_else(|| {
                Refusal::field(key.path(), "must be a string with something in it")
            })?;
            Tenant::Merchant(MerchantKey(Arc::from(text)))
        }
    };
    Ok(Draft { kind, tenant, product: None, producer_id, time, payload: body.index() })
}

fn empty() -> Refusal {
    Refusal::new(QuarantineCode::Empty, None, "the record has no value")
}

fn required(parent: Value<'_>, name: &str) -> Refusal {
    Refusal::field(parent.path_of(name), "is required")
}

/// The member `name`, which must be an object if it is there.
fn object<'d>(parent: Value<'d>, name: &str) -> Result<Option<Value<'d>>, Refusal> {
    match parent.get(name) {
        Some(value) if value.kind() != Kind::Object => {
            Err(Refusal::field(value.path(), "must be an object"))
        }
        found => Ok(found),
    }
}

/// The member `name`, which must be a string if it is there.
fn string<'d>(parent: Value<'d>, name: &str) -> Result<Option<Cow<'d, str>>, Refusal> {
    let Some(value) = parent.get(name) else { return Ok(None) };
    let text = value.string();
    if text.is_none() {
        return Err(Refusal::field(value.path(), "must be a string"));
    }
    Ok(text)
}

fn check_id(value: Value<'_>) -> Result<(), Refusal> {
    if matches!(value.kind(), Kind::String | Kind::Integer) {
        return Ok(());
    }
    Err(Refusal::field(value.path(), "must be a string or an integer"))
}

/// The producer's id of an event. An empty one would make all its events with
/// the same payload one, so it is refused.
fn producer_id(value: Value<'_>) -> Result<String, Refusal> {
    check_id(value)?;
    match value.id_text() {
        Some(id) if id.len() <= MAX_ID => Ok(id.into_owned()),
        Some(_) | None => Err(Refusal::field(value.path(), "must have 1 to 256 bytes")),
    }
}

fn product_of(value: Value<'_>) -> Option<ProductId> {
    value.id_text().map(|text| ProductId(Arc::from(text)))
}

fn check_size(payload: Value<'_>) -> Result<(), Refusal> {
    if payload.span().len() > MAX_PAYLOAD {
        return Err(Refusal::too_large("a payload has at most 256 KiB"));
    }
    Ok(())
}

fn refuse_forbidden(document: &Document<'_>) -> Result<(), Refusal> {
    for member in document.members() {
        let key = member.key();
        if key.len() > LONGEST_FORBIDDEN {
            continue;
        }
        if FORBIDDEN.iter().any(|name| key.eq_ignore_ascii_case(name)) && has_digits(member) {
            let message = "this member must not hold digits: card secrets are not taken";
            let path = Some(member.path());
            return Err(Refusal::new(QuarantineCode::ForbiddenData, path, message));
        }
    }
    Ok(())
}

fn has_digits(member: Value<'_>) -> bool {
    let text = member.string().unwrap_or(Cow::Borrowed(member.raw()));
    text.bytes().any(|byte| byte.is_ascii_digit())
}
