//! One event: its bytes, checked against its type.

mod check;

use std::{borrow::Cow, fmt, ops::Range, sync::Arc, time::Duration};

use tidings_types::{MerchantKey, PmId, ProductId, QuarantineCode, Timestamp};

use crate::{
    Refusal,
    catalogue::Catalogue,
    event_type::EventType,
    json::{Document, Value},
};

/// The longest event, in bytes (design §10).
pub const MAX_RECORD: usize = 1 << 20;
/// The longest payload, in bytes; of a merchant event, the longest `event_body`.
pub const MAX_PAYLOAD: usize = 256 << 10;
/// The longest id that a producer gives an event, in bytes.
pub const MAX_ID: usize = 256;

/// Whose event it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tenant {
    ProgrammeManager(PmId),
    Merchant(MerchantKey),
    /// The deployment's operator: Tidings' own events.
    Operator,
}

/// An event that was checked. Prints nothing of its content.
pub struct Event<'a> {
    kind: &'a EventType,
    document: Document<'a>,
    tenant: Tenant,
    product: Option<ProductId>,
    producer_id: Option<String>,
    /// The value that the catalogue's paths are relative to: `payload`, or a
    /// merchant event's `event_body`.
    payload: usize,
    notification_time: Option<Timestamp>,
    deadline: Option<Timestamp>,
    unknown_fields: usize,
}

/// Reads an event.
///
/// `topic_type` is what follows `tidings.events.` in the name of the topic that
/// the event stands in (`101`, `transaction.sale.success`, `ops`); `None` at
/// ingest, which has no topic yet and takes no `webhook.*` events.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn decode<'a>(
    catalogue: &'a Catalogue,
    topic_type: Option<&str>,
    bytes: &'a [u8],
) -> Result<Event<'a>, Refusal> {
    check::decode(catalogue, topic_type, bytes)
}

/// Reads the values of a record's headers `tidings-event-id`.
///
/// # Errors
/// `BAD_HEADER` if there are several, or the value is empty, longer than
/// [`MAX_ID`] or no UTF-8.
pub fn header_id<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<&'a str>, Refusal> {
    let refuse = |message: &'static str| {
        Refusal::new(QuarantineCode::BadHeader, Some("tidings-event-id".to_owned()), message)
    };
    let mut values = values.into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("is given more than once"));
    }
    match std::str::from_utf8(value) {
        Ok(id) if (1..=MAX_ID).contains(&id.len()) => Ok(Some(id)),
        Ok(_) => Err(refuse("must have 1 to 256 bytes")),
        Err(_not_utf8) => Err(refuse("must be UTF-8")),
    }
}

impl<'a> Event<'a> {
    pub fn kind(&self) -> &'a EventType {
        self.kind
    }

    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// `context.productId`, else the payload's product.
    pub fn product(&self) -> Option<&ProductId> {
        self.product.as_ref()
    }

    /// Where the product stands, for whoever must correct it.
    pub fn product_path(&self) -> Option<String> {
        match self.document.root().at("context.productId") {
            Some(value) => Some(value.path()),
            None => self.kind.product().map(|path| format!("payload.{path}")),
        }
    }

    /// The id in the event itself: `context.correlationId` or `event_id`.
    pub fn producer_id(&self) -> Option<&str> {
        self.producer_id.as_deref()
    }

    /// `context.notificationTime`, or when a merchant event was triggered, if
    /// there is one and it can be read.
    pub fn notification_time(&self) -> Option<Timestamp> {
        self.notification_time
    }

    /// When its notifications end unsent; `None` if the type has no deadline. The
    /// time of the record stands in for a missing `notificationTime`.
    pub fn deadline(&self, record_time: Timestamp) -> Option<Timestamp> {
        self.kind.deadline()?;
        Some(self.deadline.unwrap_or_else(|| {
            let minutes = u64::from(self.kind.deadline_default_minutes());
            self.notification_time.unwrap_or(record_time) + Duration::from_secs(minutes * 60)
        }))
    }

    /// What it is ordered by, without quotes: a number and a string are one key.
    /// `None` if it has no such field: the event's uid stands in.
    pub fn order_key(&self) -> Option<Cow<'_, str>> {
        self.id_text(self.kind.order_key()?)
    }

    /// The `mtid` of a transaction confirmation.
    pub fn mtid(&self) -> Option<Cow<'_, str>> {
        self.id_text("mtid")
    }

    /// The text of a string or integer at a dotted path of the payload.
    pub fn id_text(&self, dotted: &str) -> Option<Cow<'_, str>> {
        self.payload_value().at(dotted)?.id_text()
    }

    /// How many members the type does not name: its producer's schema has grown.
    pub fn unknown_fields(&self) -> usize {
        self.unknown_fields
    }

    /// The payload as published; of a merchant event, `event_body`.
    pub fn payload(&self) -> &str {
        self.payload_value().raw()
    }

    /// The whole event as published.
    pub fn text(&self) -> &'a str {
        self.document.text()
    }

    /// Where the values of the type's ephemeral members stand in the event, in
    /// the order of the text. Ingest seals them in place.
    pub fn ephemeral_spans(&self) -> Vec<Range<usize>> {
        let payload = self.payload_value();
        payload.children().filter(|member| self.is_ephemeral(member)).map(|it| it.span()).collect()
    }

    pub(crate) fn is_ephemeral(&self, member: &Value<'_>) -> bool {
        self.kind.ephemeral().iter().any(|name| member.key_is(name))
    }

    pub(crate) fn document(&self) -> &Document<'a> {
        &self.document
    }

    pub(crate) fn payload_value(&self) -> Value<'_> {
        self.document.value(self.payload)
    }

    pub(crate) fn context(&self) -> Option<Value<'_>> {
        self.document.root().get("context")
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({}, {}, {} bytes)", self.kind.name(), self.tenant, self.text().len())
    }
}

impl Tenant {
    /// Reads what [`fmt::Display`] writes.
    pub fn from_text(text: &str) -> Option<Self> {
        if text == "ops" {
            return Some(Self::Operator);
        }
        if let Some(id) = text.strip_prefix("pm:") {
            return id.parse().ok().map(|id| Self::ProgrammeManager(PmId(id)));
        }
        text.strip_prefix("m:").map(|key| Self::Merchant(MerchantKey(Arc::from(key))))
    }
}

impl fmt::Display for Tenant {
    /// `pm:20`, `m:m_9f2` or `ops`, as in `tidings.routed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProgrammeManager(id) => write!(f, "pm:{id}"),
            Self::Merchant(key) => write!(f, "m:{key}"),
            Self::Operator => f.write_str("ops"),
        }
    }
}
