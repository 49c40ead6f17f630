//! The body that creates and replaces a hook (contract §3).

use std::collections::BTreeSet;

use tidings_catalogue::{Catalogue, json::Value};
use tidings_types::WebhookStatus;

use crate::{
    config::Config,
    errors::{ApiError, Code, Fault},
    input::{Object, wrong},
    webhooks::body::{Purpose, check_url},
};

const MEMBERS: &[&str] =
    &["merchant", "label", "url", "events", "status", "authentication", "signature", "wireNames"];
/// Members that only answers have; a replacement may send them back unchanged.
const ANSWER_MEMBERS: &[&str] = &["hookId", "createdTime", "lastModifiedTime"];
const MAX_LABEL: usize = 200;
const MAX_CREDENTIAL: usize = 255;

/// A hook as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct HookInput {
    /// `None`: the operator's.
    pub(crate) merchant: Option<String>,
    pub(crate) label: String,
    pub(crate) url: String,
    pub(crate) events: BTreeSet<String>,
    pub(crate) status: Option<WebhookStatus>,
    pub(crate) authentication: Authentication,
    pub(crate) signature: Signature,
    pub(crate) wire_names: bool,
    pub(crate) echoed_id: Option<String>,
}

/// How the endpoint knows us.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Authentication {
    None,
    Basic {
        username: String,
        /// `None`: keep the one that is stored.
        password: Option<String>,
    },
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
        })
    }
}

/// How the endpoint knows that the body is ours (`spec.md` §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    None,
    SourceKey(String),
    OwnKey,
}

/// Reads the body of a hook.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(
    root: Value<'_>,
    purpose: Purpose,
    catalogue: &Catalogue,
    config: &Config,
) -> Result<HookInput, ApiError> {
    let mut faults = Vec::new();
    let body = purpose.take(root, MEMBERS, ANSWER_MEMBERS, &mut faults)?;
    let text = |name: &str, faults: &mut Vec<Fault>| {
        body.string(name, faults).map(std::borrow::Cow::into_owned)
    };
    let merchant = text("merchant", &mut faults);
    let label = text("label", &mut faults).unwrap_or_default();
    if label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
        faults.push(wrong("label", "must have at most 200 characters, none of them for control"));
    }
    let url = body.required_string("url", &mut faults).unwrap_or_default().into_owned();
    if body.has("url") {
        check_url(&url, "url", config, &mut faults);
    }
    let events = events(body, merchant.is_some(), catalogue, &mut faults);
    let input = HookInput {
        status: purpose.status(body, "status", &mut faults),
        authentication: authentication(body, &mut faults),
        signature: signature(body, &mut faults),
        wire_names: wire_names(body, &mut faults),
        echoed_id: text("hookId", &mut faults),
        merchant,
        label,
        url,
        events,
    };
    ApiError::check(faults)?;
    Ok(input)
}

/// A merchant's hook takes merchants' events, the operator's the platform's own.
fn events(
    body: Object<'_>,
    is_merchants: bool,
    catalogue: &Catalogue,
    faults: &mut Vec<Fault>,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if body.required("events", faults).is_none() {
        return names;
    }
    let Some(values) = body.array("events", faults) else { return names };
    if values.is_empty() {
        faults.push(Fault::at(Code::EmptyEventcodes, "events"));
    }
    for value in values {
        let Some(name) = value.string() else {
            let fault = Fault::at(Code::InvalidEventcode, value.path());
            faults.push(fault.saying("a hook names its events by their dotted names"));
            continue;
        };
        let fits = |kind: &&tidings_catalogue::EventType| {
            if is_merchants { kind.is_merchant() } else { kind.is_ops() }
        };
        match catalogue.get(&name).filter(|kind| !kind.is_eds()) {
            None => faults.push(Fault::at(Code::EventcodeNotfound, value.path())),
            Some(kind) if !fits(&kind) => {
                let fault = Fault::at(Code::InvalidEventcode, value.path());
                let message = "a merchant's hook takes merchants' events, one without a merchant \
                               the platform's own webhook.* events";
                faults.push(fault.saying(message));
            }
            Some(kind) => {
                if !names.insert(kind.name().to_owned()) {
                    faults.push(Fault::at(Code::DuplicateEventInEventArray, value.path()));
                }
            }
        }
    }
    names
}

fn authentication(body: Object<'_>, faults: &mut Vec<Fault>) -> Authentication {
    let known = ["type", "username", "password"];
    let Some(object) = body.object("authentication", &known, faults) else {
        return Authentication::None;
    };
    match object.required_string("type", faults).as_deref() {
        Some("none") => {
            unused(object, &["username", "password"], "basic", faults);
            Authentication::None
        }
        None => Authentication::None,
        Some("basic") => {
            let username = credential(object, "username", faults);
            let password = credential(object, "password", faults);
            if username.contains(':') {
                let path = object.path("username");
                faults.push(wrong(path, "must not contain a colon"));
            }
            let password = (password != crate::webhooks::headers::MASK).then_some(password);
            Authentication::Basic { username, password }
        }
        Some(_) => {
            faults.push(wrong(object.path("type"), "must be none or basic"));
            Authentication::None
        }
    }
}

/// What the chosen type would drop is refused: the client means another one.
fn unused(object: Object<'_>, names: &[&str], kind: &str, faults: &mut Vec<Fault>) {
    for name in names.iter().filter(|name| object.has(name)) {
        let fault = Fault::at(Code::InvalidRequestBody, object.path(name));
        faults.push(fault.saying(format!("goes with type {kind}")));
    }
}

fn credential(object: Object<'_>, name: &str, faults: &mut Vec<Fault>) -> String {
    let text = object.required_string(name, faults).unwrap_or_default();
    let legal = (1..=MAX_CREDENTIAL).contains(&text.len()) && !text.chars().any(char::is_control);
    if object.has(name) && !legal {
        faults.push(wrong(object.path(name), "must have 1 to 255 bytes, none of them for control"));
    }
    text.into_owned()
}

fn signature(body: Object<'_>, faults: &mut Vec<Fault>) -> Signature {
    let Some(object) = body.object("signature", &["type", "sourceKeyId"], faults) else {
        return Signature::None;
    };
    match object.required_string("type", faults).as_deref() {
        Some("none") => {
            unused(object, &["sourceKeyId"], "sourceKey", faults);
            Signature::None
        }
        None => Signature::None,
        Some("signatureKey") => {
            unused(object, &["sourceKeyId"], "sourceKey", faults);
            Signature::OwnKey
        }
        Some("sourceKey") => {
            let id = object.required_string("sourceKeyId", faults).unwrap_or_default();
            Signature::SourceKey(id.into_owned())
        }
        Some(_) => {
            faults.push(wrong(object.path("type"), "must be none, sourceKey or signatureKey"));
            Signature::None
        }
    }
}

fn wire_names(body: Object<'_>, faults: &mut Vec<Fault>) -> bool {
    match body.string("wireNames", faults).as_deref() {
        None | Some("standard") => false,
        Some("vendor") => true,
        Some(_) => {
            faults.push(wrong("wireNames", "must be standard or vendor"));
            false
        }
    }
}
