//! The bodies that create and update a webhook, and the lists of event codes.

use std::{collections::BTreeSet, sync::Arc};

use tidings_catalogue::{
    Catalogue,
    json::{Kind, Value},
};
use tidings_types::{Ordering, ProductId, StuckKey, WebhookStatus};

use super::{
    authentication::{self, AuthenticationInput},
    headers::{self, HeaderInput},
    tls::{self, TlsInput},
};
use crate::{
    config::Config,
    errors::{ApiError, Code, Fault},
    input::{Object, wrong},
};

/// How long a URL may be, in characters (`spec.md` §1.6.1).
const MAX_URL: usize = 255;
/// What a webhook may have in flight when it does not say.
pub(crate) const MAX_IN_FLIGHT: u32 = 64;
/// The highest rate limit that can be asked for.
const MAX_RATE: u32 = 100_000;
/// How long an attempt may take when the webhook does not say.
pub(crate) const TIMEOUT_MS: u32 = 15_000;

/// Members of a webhook that clients send; the second group only answers have,
/// and an update may send them back unchanged.
const MEMBERS: &[&str] = &["programManagerCode", "productId", "events", "webhookStatus", "config"];
const ANSWER_MEMBERS: &[&str] = &["webhookId", "webhookid", "createdTime", "lastModifiedTime"];
const CONFIG_MEMBERS: &[&str] = &[
    "url",
    "customHeaders",
    "tls",
    "authentication",
    "ordering",
    "stuckKey",
    "ladder",
    "rateLimitPerSecond",
    "maxInFlight",
    "timeoutMs",
    "signatures",
    "strictLegacyEnvelope",
];

/// A webhook as a client sent it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebhookInput {
    pub(crate) programme_manager: Option<String>,
    pub(crate) product: Option<ProductId>,
    /// Codes, each once, in the order given.
    pub(crate) events: Option<Vec<String>>,
    pub(crate) status: Option<WebhookStatus>,
    pub(crate) config: ConfigInput,
    /// What an update sent back of an answer: names and texts.
    pub(crate) echoed: Vec<(&'static str, String)>,
}

/// `config` as a client sent it; what it left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigInput {
    pub(crate) url: String,
    pub(crate) headers: Vec<HeaderInput>,
    pub(crate) tls: Option<TlsInput>,
    pub(crate) authentication: AuthenticationInput,
    pub(crate) settings: SettingsInput,
}

/// Settings of delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettingsInput {
    /// `v1`, `v1a` or both, in this order.
    pub(crate) signatures: Vec<String>,
    pub(crate) ladder: Option<String>,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) timeout_ms: Option<u32>,
    pub(crate) rate_limit_per_second: Option<u32>,
    pub(crate) ordering: Option<Ordering>,
    pub(crate) stuck_key: Option<StuckKey>,
    pub(crate) strict_legacy_envelope: bool,
}

/// Whether a body creates a webhook or replaces one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Create,
    Update,
}

impl Purpose {
    /// Takes the body: it may have the members `sent`, on an update also those that
    /// `answers` alone have, sent back as they came.
    ///
    /// # Errors
    /// When it is no object.
    pub(crate) fn take<'d>(
        self,
        root: Value<'d>,
        sent: &[&'static str],
        answers: &[&'static str],
        faults: &mut Vec<Fault>,
    ) -> Result<Object<'d>, ApiError> {
        let answers = if self == Self::Update { answers } else { &[] };
        let known = [sent, answers].concat();
        Object::take(root, &known, faults).ok_or_else(|| std::mem::take(faults).into())
    }

    /// The status in the member `name`. An update may send back what the platform
    /// set; the change checks it.
    pub(crate) fn status(
        self,
        body: Object<'_>,
        name: &str,
        faults: &mut Vec<Fault>,
    ) -> Option<WebhookStatus> {
        let value = body.get(name)?;
        if self == Self::Update && value.string().as_deref() == Some("suspended") {
            return Some(WebhookStatus::Suspended);
        }
        status(value, faults)
    }
}

/// Reads the body of a create or an update.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(
    root: Value<'_>,
    purpose: Purpose,
    catalogue: &Catalogue,
    config: &Config,
) -> Result<WebhookInput, ApiError> {
    let mut faults = Vec::new();
    let body = purpose.take(root, MEMBERS, ANSWER_MEMBERS, &mut faults)?;
    let mut input = WebhookInput {
        programme_manager: body
            .string("programManagerCode", &mut faults)
            .map(std::borrow::Cow::into_owned),
        product: body.get("productId").and_then(|value| product(value, &mut faults)),
        status: purpose.status(body, "webhookStatus", &mut faults),
        ..WebhookInput::default()
    };
    match body.array("events", &mut faults) {
        Some(values) => {
            let path = body.path("events");
            let twice = Code::DuplicateEventInEventArray;
            input.events = Some(codes(&values, &path, twice, catalogue, &mut faults));
        }
        None if purpose == Purpose::Update && !body.has("events") => {
            faults.push(Fault::at(Code::EmptyEventcodes, body.path("events")));
        }
        None => {}
    }
    if body.required("config", &mut faults).is_some()
        && let Some(object) = body.object("config", CONFIG_MEMBERS, &mut faults)
    {
        input.config = read_config(object, config, &mut faults);
    }
    for name in ANSWER_MEMBERS {
        if let Some(text) = body.string(name, &mut faults) {
            input.echoed.push((name, text.into_owned()));
        }
    }
    ApiError::check(faults)?;
    Ok(input)
}

fn read_config(object: Object<'_>, config: &Config, faults: &mut Vec<Fault>) -> ConfigInput {
    let url = object.required_string("url", faults).unwrap_or_default();
    if object.has("url") {
        check_url(&url, &object.path("url"), config, faults);
    }
    let headers =
        object.get("customHeaders").map(|value| headers::read(value, faults)).unwrap_or_default();
    let tls = tls::read(object, faults);
    let authentication = authentication::read(object, config, faults);
    if authentication != AuthenticationInput::None
        && let Some(header) = headers.iter().find(|header| header.is_authorization())
    {
        faults.push(wrong(header.path.as_str(), "is set by config.authentication"));
    }
    let settings = read_settings(object, config, faults);
    ConfigInput { url: url.into_owned(), headers, tls, authentication, settings }
}

/// A URL as the operator's policy wants it (contract §3).
pub(crate) fn check_url(url: &str, path: &str, config: &Config, faults: &mut Vec<Fault>) {
    if url.chars().count() > MAX_URL {
        let message = "the URL is longer than 255 characters";
        faults.push(Fault::at(Code::InvalidUrl, path).saying(message));
    } else if let Err(refusal) = tidings_egress::Target::parse(url, &config.url_policy) {
        faults.push(Fault::at(Code::InvalidUrl, path).saying(refusal.to_string()));
    }
}

/// A member that is one of a few words.
fn word<T>(
    object: Object<'_>,
    name: &str,
    from_name: impl Fn(&str) -> Option<T>,
    message: &'static str,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let value = object.get(name)?;
    let read = value.string().and_then(|text| from_name(&text));
    if read.is_none() {
        faults.push(wrong(value.path(), message));
    }
    read
}

fn read_settings(object: Object<'_>, config: &Config, faults: &mut Vec<Fault>) -> SettingsInput {
    let ladder = object.string("ladder", faults).map(std::borrow::Cow::into_owned);
    if let Some(name) = &ladder
        && !config.ladders.contains(name)
    {
        faults.push(wrong(object.path("ladder"), "is no ladder of this deployment"));
    }
    SettingsInput {
        ladder,
        signatures: read_signatures(object, faults),
        max_in_flight: object.number("maxInFlight", 1, 256, faults),
        timeout_ms: object.number("timeoutMs", config.min_timeout_ms, 45_000, faults),
        rate_limit_per_second: object.number("rateLimitPerSecond", 1, MAX_RATE, faults),
        ordering: word(
            object,
            "ordering",
            Ordering::from_name,
            "must be none, perKey or strict",
            faults,
        ),
        stuck_key: word(
            object,
            "stuckKey",
            StuckKey::from_name,
            "must be wait, skip or supersede",
            faults,
        ),
        strict_legacy_envelope: object.flag("strictLegacyEnvelope", faults).unwrap_or(false),
    }
}

/// `v1`, `v1a` or both; `v1` if the webhook does not say.
fn read_signatures(object: Object<'_>, faults: &mut Vec<Fault>) -> Vec<String> {
    let Some(value) = object.get("signatures") else { return vec!["v1".to_owned()] };
    let listed: Vec<_> = value.children().filter_map(|child| child.string()).collect();
    let mut names: Vec<String> = listed.iter().map(|name| name.as_ref().to_owned()).collect();
    let known = names.iter().all(|name| name == "v1" || name == "v1a");
    let all_texts = value.kind() == Kind::Array && value.children().count() == names.len();
    names.sort_unstable();
    names.dedup();
    if !known || !all_texts || names.is_empty() || names.len() != listed.len() {
        faults.push(wrong(value.path(), "must list v1, v1a or both, each once"));
    }
    names
}

/// A product id: an integer or a string of digits (`spec.md` §6.5).
pub(crate) fn product(value: Value<'_>, faults: &mut Vec<Fault>) -> Option<ProductId> {
    let text = value.id_text();
    match text {
        Some(text) if is_digits(&text) => Some(ProductId(Arc::from(text.as_ref()))),
        Some(_) => {
            faults.push(Fault::at(Code::ProductNotValid, value.path()));
            None
        }
        None => {
            faults.push(wrong(value.path(), "must be an integer or a string of digits"));
            None
        }
    }
}

/// Whether a text can be the id of a product.
pub(crate) fn is_digits(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A status that clients may set.
pub(crate) fn status(value: Value<'_>, faults: &mut Vec<Fault>) -> Option<WebhookStatus> {
    let Some(text) = value.string() else {
        faults.push(wrong(value.path(), "must be a string"));
        return None;
    };
    match WebhookStatus::from_name(&text) {
        Some(status @ (WebhookStatus::Active | WebhookStatus::Inactive)) => Some(status),
        Some(WebhookStatus::Suspended) | None => {
            faults.push(Fault::at(Code::InvalidStatus, value.path()));
            None
        }
    }
}

/// Reads a list of event codes.
pub(crate) fn codes(
    values: &[Value<'_>],
    path: &str,
    twice: Code,
    catalogue: &Catalogue,
    faults: &mut Vec<Fault>,
) -> Vec<String> {
    if values.is_empty() {
        faults.push(Fault::at(Code::EmptyEventcodes, path));
    }
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    let before = faults.len();
    for value in values {
        match code(*value, catalogue) {
            Ok(name) => {
                if seen.insert(name.clone()) {
                    names.push(name);
                } else {
                    faults.push(Fault::at(twice, value.path()));
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    // What is malformed is said before what is unknown: the first code decides
    // the answer's status.
    if let Some(found) = faults.get_mut(before..) {
        found.sort_by_key(|fault| fault.code == Code::EventcodeNotfound);
    }
    names
}

fn code(value: Value<'_>, catalogue: &Catalogue) -> Result<String, Fault> {
    let number = value
        .integer()
        .filter(|number| (100..=999).contains(number))
        .ok_or_else(|| Fault::at(Code::InvalidEventcode, value.path()))?;
    let kind = catalogue
        .by_code(number)
        .ok_or_else(|| Fault::at(Code::EventcodeNotfound, value.path()))?;
    Ok(kind.name().to_owned())
}

/// The event code of a path.
///
/// # Errors
/// `INVALID_EVENTCODE`, `EVENTCODE_NOTFOUND`.
pub(crate) fn code_of_path(text: &str, catalogue: &Catalogue) -> Result<String, ApiError> {
    let three = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<i64>().ok().filter(|number| three && *number >= 100);
    let number = number.ok_or_else(|| ApiError::at(Code::InvalidEventcode, "eventCode"))?;
    let kind = catalogue
        .by_code(number)
        .ok_or_else(|| ApiError::at(Code::EventcodeNotfound, "eventCode"))?;
    Ok(kind.name().to_owned())
}
