//! The body of an answer: three members, all required.

use tidings_types::is_opaque_id;

use super::log::YesOrNo;
use crate::{
    errors::{ApiError, Code, Fault},
    input::{self, Object},
};

/// What a client answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) alert: String,
    pub(crate) notification: String,
    pub(crate) answer: YesOrNo,
}

/// # Errors
/// `INVALID_FRAUD_ALERT_ID`, `INVALID_NOTIFICATION_ID`, `INVALID_FRAUD_RESPONSE`.
pub(crate) fn read(bytes: &[u8]) -> Result<Asked, ApiError> {
    let document = input::parse(bytes)?;
    let mut faults = Vec::new();
    let known = ["fraudAlertId", "notificationId", "response"];
    let object = Object::take(document.root(), &known, &mut faults);
    ApiError::check(std::mem::take(&mut faults))?;
    let mut text = |name: &str, code: Code, is_sound: fn(&str) -> bool| {
        let text = object.and_then(|object| object.get(name)?.string());
        let text = text.filter(|text| is_sound(text)).map(std::borrow::Cow::into_owned);
        if text.is_none() {
            faults.push(Fault::at(code, name));
        }
        text
    };
    let alert = text("fraudAlertId", Code::InvalidFraudAlertId, is_opaque_id);
    let notification = text("notificationId", Code::InvalidNotificationId, is_opaque_id);
    let answer = text("response", Code::InvalidFraudResponse, |text| YesOrNo::read(text).is_some());
    let answer = answer.and_then(|text| YesOrNo::read(&text));
    match (alert, notification, answer) {
        (Some(alert), Some(notification), Some(answer)) => {
            Ok(Asked { alert, notification, answer })
        }
        (_, _, _) => Err(faults.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_answers() {
        let codes = |body: &str| match read(body.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(error) => error.faults.into_iter().map(|fault| fault.code).collect(),
        };
        let of = |alert: &str, id: &str, response: &str| {
            format!(r#"{{"fraudAlertId":{alert},"notificationId":{id},"response":{response}}}"#)
        };
        for response in [r#""YES""#, r#""Yes""#, r#""no""#] {
            assert_eq!(codes(&of(r#""60b83k64-a""#, r#""1212-8543434-232""#, response)), []);
        }
        for bad in ["null", "\"\"", "\"a b\"", "7", "{}"] {
            assert_eq!(codes(&of(bad, "\"n\"", "\"No\"")), [Code::InvalidFraudAlertId], "{bad}");
            assert_eq!(codes(&of("\"a\"", bad, "\"No\"")), [Code::InvalidNotificationId], "{bad}");
            assert_eq!(codes(&of("\"a\"", "\"n\"", bad)), [Code::InvalidFraudResponse], "{bad}");
        }
        assert_eq!(codes(&of("\"a\"", "\"n\"", "\"maybe\"")), [Code::InvalidFraudResponse]);
        assert_eq!(
            codes("{}"),
            [Code::InvalidFraudAlertId, Code::InvalidNotificationId, Code::InvalidFraudResponse]
        );
        assert_eq!(codes(r#"{"extra":1}"#), [Code::InvalidRequestBody]);
        assert_eq!(codes("[]"), [Code::InvalidRequestBody]);
    }
}
