//! The list of notification ids that a read or a resend names.

use std::collections::BTreeSet;

use tidings_eventlog::Item;
use tidings_registry::Webhook;
use tidings_types::{NotificationId, is_opaque_id};

use super::unreadable;
use crate::{
    errors::{ApiError, Code, Fault},
    input::{self, Object},
    state::State,
};

/// Reads `{"notificationIds":[…]}`, at most `most` of them, each once.
///
/// # Errors
/// `IS_REQUIRED_…`, `INVALID_…`, `DUPLICATE_NOTIFICATION_ID`, or `too_many`.
pub(crate) fn read(body: &[u8], most: usize, too_many: Code) -> Result<Vec<String>, ApiError> {
    let document = input::parse(body)?;
    let mut faults = Vec::new();
    let object = Object::take(document.root(), &["notificationIds"], &mut faults);
    let values = object.and_then(|object| object.array("notificationIds", &mut faults));
    ApiError::check(faults)?;
    let values = values.unwrap_or_default();
    if values.is_empty() {
        return Err(ApiError::at(Code::IsRequiredNotificationId, "notificationIds"));
    }
    if values.len() > most {
        return Err(ApiError::at(too_many, "notificationIds"));
    }
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    let mut ids = Vec::with_capacity(values.len());
    for value in values {
        let Some(id) = value.string().filter(|text| is_opaque_id(text)) else {
            faults.push(Fault::at(Code::InvalidNotificationId, value.path()));
            continue;
        };
        if !seen.insert(id.to_string()) {
            faults.push(Fault::at(Code::DuplicateNotificationId, value.path()));
        }
        ids.push(id.into_owned());
    }
    ApiError::check(faults)?;
    Ok(ids)
}

/// What is known of the notifications `asked` for, in this order; ids that are
/// unknown or another webhook's are left out.
///
/// # Errors
/// When the event log cannot be read.
pub(crate) async fn find(
    state: &State,
    webhook: &Webhook,
    asked: &[String],
) -> Result<Vec<Item>, ApiError> {
    let wanted: Vec<NotificationId> = asked.iter().filter_map(|text| parse(text)).collect();
    let found = state.deps.event_log.by_ids(webhook.id, &wanted).await;
    found.map_err(|error| unreadable(state, &error))
}

/// The id that a text is, if this platform could have given it.
pub(crate) fn parse(text: &str) -> Option<NotificationId> {
    text.parse::<NotificationId>().ok().filter(|id| id.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(body: &str) -> Vec<Code> {
        match read(body.as_bytes(), 3, Code::NotificationResendLimitExceeded) {
            Ok(_) => Vec::new(),
            Err(error) => error.faults.into_iter().map(|fault| fault.code).collect(),
        }
    }

    #[test]
    fn the_table_of_lists() {
        let required = vec![Code::IsRequiredNotificationId];
        let invalid = vec![Code::InvalidNotificationId];
        assert_eq!(codes(r#"{"notificationIds":["1212-8543434-232","a"]}"#), []);
        assert_eq!(codes("{}"), required);
        assert_eq!(codes(r#"{"notificationIds":null}"#), required);
        assert_eq!(codes(r#"{"notificationIds":[]}"#), required);
        assert_eq!(codes(r#"{"notificationIds":"a"}"#), [Code::InvalidRequestBody]);
        assert_eq!(codes(r#"{"notificationIds":["a"],"x":1}"#), [Code::InvalidRequestBody]);
        assert_eq!(codes(r#"{"notificationIds":[""]}"#), invalid);
        assert_eq!(codes(r#"{"notificationIds":[1]}"#), invalid);
        assert_eq!(codes(r#"{"notificationIds":["a b"]}"#), invalid);
        let long = format!(r#"{{"notificationIds":["{}"]}}"#, "a".repeat(65));
        assert_eq!(codes(&long), invalid);
        assert_eq!(codes(r#"{"notificationIds":["a","a"]}"#), [Code::DuplicateNotificationId]);
        assert_eq!(
            codes(r#"{"notificationIds":["a","b","c","d"]}"#),
            [Code::NotificationResendLimitExceeded]
        );
    }
}
