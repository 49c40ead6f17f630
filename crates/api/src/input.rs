//! Reading what a request carries: JSON bodies, query parameters, ids of paths.
//!
//! Bodies go through the catalogue's strict checker, so that a repeated key, a
//! second document or a deep nest is refused in the API as it is in events. The
//! readers here collect every fault with its field; a member that is null counts
//! as absent.

use std::{borrow::Cow, collections::BTreeMap};

use tidings_catalogue::json::{Document, Kind, Value};
use tidings_types::{Timestamp, WebhookId, is_opaque_id};

use crate::errors::{ApiError, Code, Fault};

/// How deep a body may nest (`reliability-security.md` §3.6).
const MAX_DEPTH: usize = 16;

/// Checks a body.
///
/// # Errors
/// `INVALID_REQUEST_BODY`, with the field where one can be named.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document<'_>, ApiError> {
    let document = Document::parse(bytes).map_err(|error| {
        let message = error.to_string();
        Fault::at(Code::InvalidRequestBody, error.path.unwrap_or_default()).saying(message)
    })?;
    if let Some(path) = document.lone_surrogate() {
        return Err(wrong(path, "has half of a surrogate pair, which is no character").into());
    }
    if let Some(path) = too_deep(document.root(), 1) {
        let fault = Fault::at(Code::InvalidRequestBody, path)
            .saying(format!("the body may nest {MAX_DEPTH} levels deep"));
        return Err(fault.into());
    }
    Ok(document)
}

/// The first array or object beyond the allowed depth.
fn too_deep(value: Value<'_>, level: usize) -> Option<String> {
    match value.kind() {
        Kind::Array | Kind::Object if level > MAX_DEPTH => Some(value.path()),
        Kind::Array | Kind::Object => value.children().find_map(|child| too_deep(child, level + 1)),
        Kind::Null | Kind::Boolean | Kind::Integer | Kind::Decimal | Kind::String => None,
    }
}

/// An object of a body, of which only known members are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'d> {
    value: Value<'d>,
}

impl<'d> Object<'d> {
    /// Takes `value` if it is an object, and notes every member not in `known`.
    pub(crate) fn take(value: Value<'d>, known: &[&str], faults: &mut Vec<Fault>) -> Option<Self> {
        if value.kind() != Kind::Object {
            faults.push(wrong(value.path(), "must be an object"));
            return None;
        }
        for member in value.children() {
            if !known.iter().any(|name| member.key_is(name)) {
                faults.push(wrong(member.path(), "is not a member of this request"));
            }
        }
        Some(Self { value })
    }

    /// The path of a member, whether it is there or not.
    pub(crate) fn path(&self, name: &str) -> String {
        self.value.path_of(name)
    }

    /// Whether the member is there and not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value<'d>> {
        self.value.get(name).filter(|value| value.kind() != Kind::Null)
    }

    /// The member, or a fault if it is not there.
    pub(crate) fn required(&self, name: &str, faults: &mut Vec<Fault>) -> Option<Value<'d>> {
        let value = self.get(name);
        if value.is_none() {
            faults.push(wrong(self.path(name), "is required"));
        }
        value
    }

    pub(crate) fn string(&self, name: &str, faults: &mut Vec<Fault>) -> Option<Cow<'d, str>> {
        string(self.get(name)?, faults)
    }

    pub(crate) fn required_string(
        &self,
        name: &str,
        faults: &mut Vec<Fault>,
    ) -> Option<Cow<'d, str>> {
        string(self.required(name, faults)?, faults)
    }

    pub(crate) fn flag(&self, name: &str, faults: &mut Vec<Fault>) -> Option<bool> {
        let value = self.get(name)?;
        if value.kind() != Kind::Boolean {
            faults.push(wrong(value.path(), "must be true or false"));
            return None;
        }
        Some(value.raw() == "true")
    }

    /// An integer between `least` and `most`.
    pub(crate) fn number(
        &self,
        name: &str,
        least: u32,
        most: u32,
        faults: &mut Vec<Fault>,
    ) -> Option<u32> {
        let value = self.get(name)?;
        let number = value
            .integer()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message = format!("must be an integer from {least} to {most}");
            faults.push(Fault::at(Code::InvalidRequestBody, value.path()).saying(message));
        }
        number
    }

    pub(crate) fn object(
        &self,
        name: &str,
        known: &[&str],
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        Self::take(self.get(name)?, known, faults)
    }

    pub(crate) fn array(&self, name: &str, faults: &mut Vec<Fault>) -> Option<Vec<Value<'d>>> {
        let value = self.get(name)?;
        if value.kind() != Kind::Array {
            faults.push(wrong(value.path(), "must be an array"));
            return None;
        }
        Some(value.children().collect())
    }
}

fn string<'d>(value: Value<'d>, faults: &mut Vec<Fault>) -> Option<Cow<'d, str>> {
    let text = value.string();
    if text.is_none() {
        faults.push(wrong(value.path(), "must be a string"));
    }
    text
}

/// A fault of the body's form.
pub(crate) fn wrong(path: impl Into<String>, message: &'static str) -> Fault {
    Fault::at(Code::InvalidRequestBody, path).saying(message)
}

/// The parameters of a query, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query. Of two values of one parameter nobody knows which is meant.
    ///
    /// # Errors
    /// `INVALID_REQUEST_BODY` with the parameter's name.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if parameters.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(wrong(name, "is given more than once").into());
            }
        }
        Ok(Self(parameters))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The day from which on a list is asked for, as its first moment in UTC.
    ///
    /// # Errors
    /// `INVALID_DATE`, `FUTURE_DATE`.
    pub(crate) fn from(&self, now: Timestamp) -> Result<Timestamp, ApiError> {
        let day = self
            .get("from")
            .and_then(day)
            .ok_or_else(|| ApiError::at(Code::InvalidDate, "from"))?;
        if day > now {
            return Err(ApiError::at(Code::FutureDate, "from"));
        }
        Ok(day)
    }

    /// How many items are asked for: 1 to 100, 100 if the query does not say.
    ///
    /// # Errors
    /// `INVALID_COUNT`, or `NOTIFICATION_BULK_GET_LIMIT_EXCEEDED` over 100.
    pub(crate) fn count(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("count") else { return Ok(100) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<usize>() {
            Ok(count @ 1..=100) if digits => Ok(count),
            Ok(0) => Err(ApiError::at(Code::InvalidCount, "count")),
            Ok(_) | Err(_) if digits => {
                Err(ApiError::at(Code::NotificationBulkGetLimitExceeded, "count"))
            }
            Ok(_) | Err(_) => Err(ApiError::at(Code::InvalidCount, "count")),
        }
    }

    /// How many entries of a list are asked for: 1 to `most`, `most` if the query
    /// does not say.
    ///
    /// # Errors
    /// `INVALID_COUNT`.
    pub(crate) fn limit(&self, most: usize) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(most) };
        // `parse` would take a plus sign.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let limit = text.parse::<usize>().ok().filter(|_| digits);
        let limit = limit.filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| {
            Fault::at(Code::InvalidCount, "limit")
                .saying(format!("must be an integer from 1 to {most}"))
                .into()
        })
    }
}

/// `yyyy-MM-dd`.
fn day(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(place, byte)| match place {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !shape {
        return None;
    }
    let mut parts = text.split('-');
    let year = parts.next()?.parse().ok()?;
    let month = parts.next()?.parse().ok()?;
    let day = parts.next()?.parse().ok()?;
    Timestamp::from_civil_day(year, month, day)
}

/// The webhook id of a path.
///
/// # Errors
/// `INVALID_WEBHOOK_ID` if the text cannot be any platform's id, `None` if it is
/// one that this platform never gave.
pub(crate) fn webhook_id(text: &str) -> Result<Option<WebhookId>, ApiError> {
    if !is_opaque_id(text) {
        return Err(ApiError::at(Code::InvalidWebhookId, "webhookId"));
    }
    // Ids are compared as they were given out: lower case.
    Ok(text.parse::<WebhookId>().ok().filter(|id| id.to_string() == text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(body: &str) -> Option<(Code, Option<String>)> {
        let error = parse(body.as_bytes()).err()?;
        let fault = error.faults.into_iter().next()?;
        Some((fault.code, fault.field))
    }

    #[test]
    fn a_body_that_two_parsers_could_read_differently_is_refused() {
        for bad in ["", "{", "{}{}", "{} x", "\u{feff}{}", r#"{"a":1,"a":2}"#, r#"{"a":01}"#] {
            let (code, _) = code_of(bad).unwrap();
            assert_eq!(code, Code::InvalidRequestBody, "{bad}");
        }
        let (_, field) = code_of(r#"{"config":{"url":"a","url":"b"}}"#).unwrap();
        assert_eq!(field.as_deref(), Some("config.url"));
    }

    #[test]
    fn a_body_may_nest_sixteen_levels() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(code_of(&nested(16)), None);
        assert_eq!(code_of(&nested(17)).unwrap().0, Code::InvalidRequestBody);
    }

    #[test]
    fn a_day_is_a_civil_day_and_nothing_else() {
        assert!(day("2024-02-29").is_some());
        for bad in [
            "",
            "2023-02-29",
            "2024-2-29",
            "24-02-29",
            "2024-02-29T00:00:00Z",
            "2024-13-01",
            "2024-00-10",
            "2024/02/10",
            "20240210",
            " 2024-02-10",
            "2024-02-1o",
        ] {
            assert_eq!(day(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_count_is_one_to_a_hundred() {
        let count = |text: &str| {
            Query::parse(Some(&format!("count={text}")))
                .unwrap()
                .count()
                .map_err(|error| error.faults[0].code)
        };
        assert_eq!(Query::parse(None).unwrap().count(), Ok(100));
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count("100"), Ok(100));
        assert_eq!(count("101"), Err(Code::NotificationBulkGetLimitExceeded));
        assert_eq!(count("18446744073709551616"), Err(Code::NotificationBulkGetLimitExceeded));
        for bad in ["0", "-1", "ten", "", "1.5", "%2B5"] {
            assert_eq!(count(bad), Err(Code::InvalidCount), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_digits_up_to_the_most() {
        let limit = |text: &str| {
            let query = Query::parse(Some(&format!("limit={text}"))).unwrap();
            query.limit(50).map_err(|error| error.faults[0].code)
        };
        assert_eq!(Query::parse(None).unwrap().limit(50), Ok(50));
        assert_eq!((limit("1"), limit("50")), (Ok(1), Ok(50)));
        for bad in ["0", "51", "-1", "%2B5", "", "1.5", "five", "18446744073709551616"] {
            assert_eq!(limit(bad), Err(Code::InvalidCount), "{bad}");
        }
    }

    #[test]
    fn a_parameter_is_given_once() {
        let wrong = |query| Query::parse(Some(query)).map(drop).map_err(|it| it.faults[0].clone());
        for good in ["", "a=1&b=1", "a=1&A=1"] {
            assert_eq!(wrong(good), Ok(()), "{good}");
        }
        for bad in ["a=1&b=2&a=1", "a&a", "a=1&%61=2"] {
            let fault = wrong(bad).unwrap_err();
            assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidRequestBody, Some("a")));
        }
    }

    #[test]
    fn an_id_that_was_never_given_out_is_unknown_and_not_malformed() {
        assert_eq!(webhook_id("1234"), Ok(None));
        assert_eq!(webhook_id("AF2D48DE-2AD7-42F8-A252-8422CD9E6078"), Ok(None));
        assert!(webhook_id("af2d48de-2ad7-42f8-a252-8422cd9e6078").unwrap().is_some());
        for bad in ["", "a/b", "a b", "../x", &"a".repeat(65)] {
            assert!(webhook_id(bad).is_err(), "{bad}");
        }
    }
}
