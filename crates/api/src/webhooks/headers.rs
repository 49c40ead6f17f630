//! Custom headers of a webhook: which ones are taken, and the name that each has
//! on the wire (design §10; `spec.md` §6.10; `reliability-security.md` §3.2).
//!
//! A name is stored as it was given. Where a character of it is not legal in a
//! header's name it is sent as `-` (`key 1` as `key-1`); two names that come to
//! the same are refused, and so is what only the platform may say.

use std::collections::BTreeSet;

use tidings_catalogue::json::{Kind, Value};
use tidings_registry::wire_name;

use crate::{
    errors::{Code, Fault},
    input::wrong,
};

/// How many custom headers a webhook may have.
const MAX_HEADERS: usize = 3;
/// How many characters their names and values may have in all.
const MAX_CHARACTERS: usize = 500;
/// How long one name may be.
const MAX_NAME: usize = 64;
/// What stands for the value of a secret header, in answers and in updates.
pub(crate) const MASK: &str = "***";

/// Headers whose values are secrets: answered as [`MASK`].
const SECRET: &[&str] = &["authorization", "proxy-authorization", "cookie"];

const RESERVED: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "content-type",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "via",
    "forwarded",
    "x-real-ip",
    "date",
    "user-agent",
    "accept-encoding",
    "set-cookie",
    "metadata-flavor",
    "x-signature",
    "traceparent",
    "tracestate",
];

const RESERVED_PREFIXES: &[&str] =
    &["proxy-", "x-forwarded-", "x-amz-", "x-goog-", "x-google", "x-azure-", "webhook-", "x-eds-"];

/// A custom header as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct HeaderInput {
    /// As given.
    pub(crate) name: String,
    /// `None`: keep the value that is stored under this name.
    pub(crate) value: Option<String>,
    /// Whether the value is shown as [`MASK`].
    pub(crate) is_secret: bool,
    /// Where it stands in the body.
    pub(crate) path: String,
}

impl HeaderInput {
    /// Whether it is what a sign-in at the endpoint sets.
    pub(crate) fn is_authorization(&self) -> bool {
        comparable(&self.name) == "authorization"
    }
}

impl std::fmt::Debug for HeaderInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Any value may hold a key of the customer's.
        f.debug_struct("HeaderInput").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The form in which names are compared: servers fold `_`, and some whatever is
/// neither letter nor digit, into `-`.
fn comparable(name: &str) -> String {
    wire_name(name).replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}

/// Whether the value of this header is a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRET.contains(&comparable(name).as_str())
}

/// Reads `config.customHeaders`.
pub(crate) fn read(value: Value<'_>, faults: &mut Vec<Fault>) -> Vec<HeaderInput> {
    if value.kind() != Kind::Object {
        faults.push(wrong(value.path(), "must be an object of strings"));
        return Vec::new();
    }
    let mut headers = Vec::new();
    let mut characters = 0;
    let mut seen = BTreeSet::new();
    for member in value.children() {
        let name = member.key();
        let Some(text) = member.string() else {
            faults.push(wrong(member.path(), "must be a string"));
            continue;
        };
        characters += name.chars().count() + text.chars().count();
        let refused = name_problem(&name)
            .or_else(|| value_problem(&text))
            .or_else(|| (!seen.insert(comparable(&name))).then_some("is given twice"));
        if let Some(problem) = refused {
            faults.push(Fault::at(Code::InvalidCustomHeader, member.path()).saying(problem));
            continue;
        }
        let is_secret = is_secret(&name);
        let keep = is_secret && text == MASK;
        headers.push(HeaderInput {
            name: name.into_owned(),
            value: (!keep).then(|| text.into_owned()),
            is_secret,
            path: member.path(),
        });
    }
    if value.children().count() > MAX_HEADERS || characters > MAX_CHARACTERS {
        faults.push(Fault::at(Code::ExceedsMaximumCustomHeaderLimit, value.path()));
    }
    headers
}

fn name_problem(name: &str) -> Option<&'static str> {
    let compared = comparable(name);
    let reserved = RESERVED.contains(&compared.as_str())
        || (RESERVED_PREFIXES.iter().any(|prefix| compared.starts_with(prefix))
            && !SECRET.contains(&compared.as_str()));
    if name.is_empty() {
        Some("has no name")
    } else if name.len() > MAX_NAME {
        Some("has a name of more than 64 characters")
    } else if !name.is_ascii() || name.bytes().any(|byte| byte.is_ascii_control() || byte == b':') {
        Some("has a control character, a colon or a character beyond ASCII in its name")
    } else if name.trim() != name {
        Some("has a space around its name")
    } else if !compared.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        Some("has no letter or digit in its name")
    } else if reserved {
        Some("is set by the platform")
    } else {
        None
    }
}

fn value_problem(value: &str) -> Option<&'static str> {
    let inside = |byte: u8| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic();
    if value.trim() != value {
        Some("has a space around its value")
    } else if !value.bytes().all(inside) {
        Some("has a value with a character other than visible ASCII, space and tab")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use tidings_catalogue::json::Document;

    use super::*;

    fn check(json: &str) -> Result<Vec<HeaderInput>, Vec<Code>> {
        let document = Document::parse(json.as_bytes()).unwrap();
        let mut faults = Vec::new();
        let headers = read(document.root(), &mut faults);
        if faults.is_empty() {
            Ok(headers)
        } else {
            Err(faults.into_iter().map(|fault| fault.code).collect())
        }
    }

    #[test]
    fn the_documents_own_sample_is_taken_and_has_a_legal_name_on_the_wire() {
        let headers = check(r#"{"key 1":"Value 1"}"#).unwrap();
        assert_eq!(headers[0].name, "key 1");
        assert_eq!(wire_name(&headers[0].name), "key-1");
        assert_eq!(headers[0].value.as_deref(), Some("Value 1"));
    }

    #[test]
    fn a_name_or_value_that_could_break_the_request_is_refused() {
        let long = format!(r#"{{"{}":"v"}}"#, "k".repeat(65));
        for bad in [
            r#"{"":"v"}"#,
            r#"{"a:b":"v"}"#,
            r#"{":path":"v"}"#,
            r#"{"a\r\nb":"v"}"#,
            r#"{"a\u0000":"v"}"#,
            r#"{"é":"v"}"#,
            r#"{" a":"v"}"#,
            r#"{"a ":"v"}"#,
            r#"{" ":"v"}"#,
            r#"{"a":"v\r\nx: y"}"#,
            r#"{"a":"v\u0000"}"#,
            r#"{"a":"é"}"#,
            r#"{"a":" v"}"#,
            r#"{"a":"v\t"}"#,
            r#"{"@@":"v"}"#,
            long.as_str(),
        ] {
            assert_eq!(check(bad), Err(vec![Code::InvalidCustomHeader]), "{bad}");
        }
        assert!(check(r#"{"a":"","b":"x y\tz"}"#).is_ok());
    }

    #[test]
    fn what_the_platform_says_itself_is_refused_in_every_spelling() {
        for name in [
            "Host",
            "Content-Length",
            "content_length",
            "Transfer-Encoding",
            "Connection",
            "Upgrade",
            "Expect",
            "TE",
            "webhook-signature",
            "Webhook_Id",
            "X-EDS-Attempt",
            "x_eds_x",
            "X-Signature",
            "Proxy-Connection",
            "X-Forwarded-For",
            "Set-Cookie",
            "X-Amz-Date",
            "metadata-flavor",
            "content type",
            "x.eds.attempt",
            "content~length",
            "traceparent",
        ] {
            let json = format!(r#"{{"{name}":"v"}}"#);
            assert_eq!(check(&json), Err(vec![Code::InvalidCustomHeader]), "{name}");
        }
    }

    #[test]
    fn names_that_come_to_the_same_on_the_wire_are_refused() {
        for bad in [
            r#"{"X-A":"1","x-a":"2"}"#,
            r#"{"X_A":"1","x-a":"2"}"#,
            r#"{"X A":"1","x-a":"2"}"#,
            r#"{"X.A":"1","x-a":"2"}"#,
        ] {
            assert_eq!(check(bad), Err(vec![Code::InvalidCustomHeader]), "{bad}");
        }
    }

    #[test]
    fn three_headers_and_five_hundred_characters_are_the_limit() {
        let limit = Err(vec![Code::ExceedsMaximumCustomHeaderLimit]);
        assert_eq!(check(r#"{"a":"1","b":"2","c":"3","d":"4"}"#), limit);
        assert!(check(r#"{"a":"1","b":"2","c":"3"}"#).is_ok());
        assert!(check(&format!(r#"{{"a":"{}"}}"#, "v".repeat(499))).is_ok());
        assert_eq!(check(&format!(r#"{{"a":"{}"}}"#, "v".repeat(500))), limit);
    }

    #[test]
    fn the_mask_of_a_secret_keeps_its_value_and_is_a_plain_value_elsewhere() {
        let headers =
            check(r#"{"Authorization":"***","proxy_authorization":"x","X-Key":"***"}"#).unwrap();
        assert!(headers[0].is_secret && headers[0].value.is_none());
        assert!(headers[1].is_secret && headers[1].value.as_deref() == Some("x"));
        assert!(!headers[2].is_secret && headers[2].value.as_deref() == Some("***"));
    }
}
