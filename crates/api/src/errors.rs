//! The one table of error codes: the code that clients match on, the HTTP
//! status, and the text for people. Handlers return an [`ApiError`]; the envelope
//! around it is made in `answer`.
//!
//! Codes up to `INVALID_REQUEST_BODY` are those of the EDS API (`spec.md` §1.5),
//! the others ours (contract §2 and §3).

use std::borrow::Cow;

use http::StatusCode;
use tidings_types::{QuarantineCode, Timestamp};

macro_rules! codes {
    ($($variant:ident = $name:literal, $status:literal, $text:literal;)*) => {
        /// What went wrong, as clients see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $text] $variant,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The text that clients match on.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status of an answer whose first error this is.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means and what the caller can do.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    TechnicalError = "TECHNICAL_ERROR", 500, "The platform failed; report the traceId.";
    UnableToRead = "UNABLE_TO_GET_RESULTS_FROM_DATABASE", 503,
        "The history cannot be read completely now; try again after Retry-After.";
    ServiceUnavailable = "SERVICE_UNAVAILABLE", 503,
        "The change could not be made, or it is not known whether it was; repeat the request.";
    WebhookNotRegistered = "WEBHOOK_NOT_REGISTERED", 404, "There is no such webhook.";
    InvalidWebhookId = "INVALID_WEBHOOK_ID", 400,
        "A webhook id has 1 to 64 letters, digits and hyphens.";
    EmptyEventcodes = "EMPTY_EVENTCODES", 400, "The list of events is empty; name at least one.";
    InvalidEventcode = "INVALID_EVENTCODE", 400, "An event code is an integer from 100 to 999.";
    DuplicateEventcode = "DUPLICATE_EVENTCODE", 400, "An event code is listed twice.";
    DuplicateEventInEventArray = "DUPLICATE_EVENT_IN_EVENT_ARRAY", 400,
        "An event code is listed twice.";
    SubscribedEventcode = "SUBSCRIBED_EVENTCODE", 409,
        "The webhook is subscribed to this event code already; nothing was changed.";
    EventcodeNotfound = "EVENTCODE_NOTFOUND", 404, "The platform knows no such event.";
    EventcodeNotSubscribed = "EVENTCODE_NOT_SUBSCRIBED", 404,
        "The webhook is not subscribed to this event code.";
    DuplicateWebhook = "DUPLICATE_WEBHOOK", 409,
        "A webhook is registered for this programme manager and product already; update that one.";
    InvalidNotificationId = "INVALID_NOTIFICATION_ID", 400,
        "A notification id has 1 to 64 letters, digits and hyphens.";
    IsRequiredNotificationId = "IS_REQUIRED_NOTIFICATION_ID", 400,
        "The request names no notification id.";
    DuplicateNotificationId = "DUPLICATE_NOTIFICATION_ID", 400,
        "A notification id is listed twice.";
    NotificationNotfound = "NOTIFICATION_NOTFOUND", 404,
        "The webhook has none of these notifications.";
    UndeliveredNotificationsNotfound = "UNDELIVERED_NOTIFICATIONS_NOTFOUND", 404,
        "Everything was delivered; said so only with the setting compat.empty_as_error.";
    WebhookDetailsNotfound = "WEBHOOK_DETAILS_NOTFOUND", 404,
        "There is no webhook on the list; said so only with the setting compat.empty_as_error.";
    NotificationBulkGetLimitExceeded = "NOTIFICATION_BULK_GET_LIMIT_EXCEEDED", 400,
        "At most 100 notifications can be read at once.";
    NotificationResendLimitExceeded = "NOTIFICATION_RESEND_LIMIT_EXCEEDED", 400,
        "At most 25 notifications can be resent at once.";
    InvalidDate = "INVALID_DATE", 400, "The date is not a day in the form yyyy-MM-dd.";
    FutureDate = "FUTURE_DATE", 400, "The date is in the future (UTC).";
    CurrentStatusIsSame = "CURRENT_STATUS_IS_SAME_AS_ENTERED_STATUS", 409,
        "The webhook has this status already.";
    ExceedsMaximumCustomHeaderLimit = "EXCEEDS_MAXIMUM_CUSTOM_HEADER_LIMIT", 400,
        "At most 3 custom headers with 500 characters in all are allowed.";
    WebhookIsNotActive = "WEBHOOK_IS_NOT_ACTIVE_IN_STATUS", 409,
        "The webhook is not active; activate it first.";
    PmcodeNotValid = "PMCODE_NOT_VALID", 400, "This is no programme manager of the caller.";
    PmcodeRequired = "PMCODE_REQUIRED", 400,
        "Neither the token nor X-PM-Code says whose resources are meant.";
    InvalidRequestBody = "INVALID_REQUEST_BODY", 400, "The body is not what this request takes.";
    InvalidUrl = "INVALID_URL", 400, "The URL cannot be an endpoint.";
    InvalidCustomHeader = "INVALID_CUSTOM_HEADER", 400, "The custom header cannot be sent.";
    InvalidAuthentication = "INVALID_AUTHENTICATION", 400,
        "The sign-in of config.authentication cannot be used.";
    InvalidTlsIdentity = "INVALID_TLS_IDENTITY", 400,
        "The certificates or the key of config.tls cannot be used.";
    InvalidStatus = "INVALID_STATUS", 400, "The status must be active or inactive.";
    InvalidCount = "INVALID_COUNT", 400, "The count must be an integer from 1 to 100.";
    InvalidCursor = "INVALID_CURSOR", 400, "The cursor is not one that this list gave.";
    InvalidRegion = "INVALID_REGION", 400, "X-Region must name this deployment's region.";
    ProductNotValid = "PRODUCT_NOT_VALID", 400, "This is no product of the caller.";
    InvalidMessageTypeFilter = "INVALID_MESSAGE_TYPE_FILTER", 400,
        "The filter must list codes from 0 to 6, each once.";
    DuplicateConfiguration = "DUPLICATE_CONFIGURATION", 409,
        "A configuration of this scope exists already.";
    ConfigNotFound = "CONFIG_NOT_FOUND", 404, "There is no such configuration.";
    RateLimited = "RATE_LIMITED", 429, "Too soon; try again after Retry-After.";
    InvalidFraudAlertId = "INVALID_FRAUD_ALERT_ID", 400,
        "A fraud alert id has 1 to 64 letters, digits and hyphens.";
    InvalidFraudResponse = "INVALID_FRAUD_RESPONSE", 400, "The response must be Yes or No.";
    FraudAlertNotfound = "FRAUD_ALERT_NOTFOUND", 400,
        "The caller got no alert with this id in this notification.";
    FraudAlertExpired = "FRAUD_ALERT_EXPIRED", 400, "The alert can no longer be answered.";
    FraudResponseConflict = "FRAUD_RESPONSE_CONFLICT", 400,
        "The alert has been answered otherwise; the first answer stands.";
    Unauthorized = "UNAUTHORIZED", 401, "The request has no valid bearer token.";
    Forbidden = "FORBIDDEN", 403, "The token does not allow this request.";
    InvalidHost = "INVALID_HOST", 400,
        "The request must name its host once, and the same one in its address.";
    NotFound = "NOT_FOUND", 404, "There is nothing at this address.";
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, "The address does not take this method.";
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", 413, "The body is larger than this request takes.";
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", 415,
        "The content type is not one that this request takes.";
    RequestTimeout = "REQUEST_TIMEOUT", 408, "The body did not arrive in time.";
    BadRequest = "BAD_REQUEST", 400,
        "The request cannot be read in one way only, or not at all; its connection is closed.";
    HeadTooLarge = "HEAD_TOO_LARGE", 431,
        "The head of a request, its address included, has at most 32 KiB and 64 headers.";
    PreconditionFailed = "PRECONDITION_FAILED", 412,
        "The webhook has changed since the version in If-Match; read it again.";
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", 422,
        "The Idempotency-Key was used for another request.";
    InvalidIdempotencyKey = "INVALID_IDEMPOTENCY_KEY", 400,
        "An Idempotency-Key has 1 to 255 visible characters.";
    BadJson = "BAD_JSON", 400, "The event is not one JSON document.";
    BadUtf8 = "BAD_UTF8", 400, "The event is not UTF-8.";
    BadField = "BAD_FIELD", 400, "A field is missing or has the wrong type or value.";
    UnknownEvent = "UNKNOWN_CODE", 400, "The platform knows no such event.";
    DuplicateKey = "DUPLICATE_KEY", 400, "A member stands twice in one object.";
    TooDeep = "TOO_DEEP", 400, "The event is nested too deep.";
    TooLarge = "TOO_LARGE", 400, "The event is too large.";
    BadTenant = "BAD_TENANT", 400, "The product belongs to another programme manager.";
    BadHeader = "BAD_HEADER", 400, "A header of the record cannot be used.";
    ForbiddenData = "FORBIDDEN_DATA", 400, "The event holds data that may not be stored.";
    Empty = "EMPTY", 400, "The record is empty.";
}

impl Code {
    /// The status as `http` has it.
    pub(crate) fn http_status(self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<QuarantineCode> for Code {
    fn from(code: QuarantineCode) -> Self {
        match code {
            QuarantineCode::BadJson => Self::BadJson,
            QuarantineCode::BadUtf8 => Self::BadUtf8,
            QuarantineCode::BadField => Self::BadField,
            QuarantineCode::UnknownCode => Self::UnknownEvent,
            QuarantineCode::DuplicateKey => Self::DuplicateKey,
            QuarantineCode::TooDeep => Self::TooDeep,
            QuarantineCode::TooLarge => Self::TooLarge,
            QuarantineCode::BadTenant => Self::BadTenant,
            QuarantineCode::BadHeader => Self::BadHeader,
            QuarantineCode::ForbiddenData => Self::ForbiddenData,
            QuarantineCode::Empty => Self::Empty,
        }
    }
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub code: Code,
    /// For people; without a value of the request.
    pub message: Cow<'static, str>,
    /// Where in the request, such as `config.url`.
    pub field: Option<String>,
    /// Which event of a batch, counted from 0.
    pub index: Option<usize>,
}

impl Fault {
    pub(crate) fn new(code: Code) -> Self {
        Self { code, message: Cow::Borrowed(code.text()), field: None, index: None }
    }

    /// A fault of the field at `path`.
    pub(crate) fn at(code: Code, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { field: (!path.is_empty()).then_some(path), ..Self::new(code) }
    }

    /// The same fault, said more exactly.
    #[must_use]
    pub(crate) fn saying(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..self }
    }
}

/// Why a request is not answered as asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    /// At least one; the first one's status is the answer's.
    pub faults: Vec<Fault>,
    /// A status other than the first code's (403 on a token mismatch).
    pub status: Option<StatusCode>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// The methods for `Allow`.
    pub allow: Option<String>,
    /// What `WWW-Authenticate` says of a token that is not taken.
    pub challenge: Option<Challenge>,
    /// How far a view has come that cannot be read yet.
    pub progress: Option<Box<Progress>>,
    /// The time of the view that says so.
    pub as_of: Option<Timestamp>,
}

/// What is wrong with a token, as RFC 6750 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    InvalidToken,
    /// The scope that it lacks.
    InsufficientScope(&'static str),
}

/// How far the history has come that cannot be read yet.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    /// Whether everything has been read that has to be for an answer.
    pub complete: bool,
    /// The part of what stood in the topics at the start that has been read, 0 to 1.
    pub progress: f64,
    /// How far behind a view is that is asked for what it has not read yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<u64>,
    /// The time up to which everything has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
}

impl ApiError {
    pub(crate) fn new(code: Code) -> Self {
        Fault::new(code).into()
    }

    /// An error of the field at `path`.
    pub(crate) fn at(code: Code, path: impl Into<String>) -> Self {
        Fault::at(code, path).into()
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn with_as_of(self, time: Timestamp) -> Self {
        Self { as_of: Some(time), ..self }
    }

    /// All of `faults`, or `Ok` if there are none.
    pub(crate) fn check(faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(faults.into()) }
    }

    pub(crate) fn http_status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| {
            self.faults
                .first()
                .map_or(StatusCode::INTERNAL_SERVER_ERROR, |fault| fault.code.http_status())
        })
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        vec![fault].into()
    }
}

impl From<Vec<Fault>> for ApiError {
    fn from(faults: Vec<Fault>) -> Self {
        Self {
            faults,
            status: None,
            retry_after: None,
            allow: None,
            challenge: None,
            progress: None,
            as_of: None,
        }
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_own_text_and_an_error_status() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.http_status().as_u16() >= 400, "{code:?}");
            assert!(code.text().ends_with('.'), "{code:?}");
        }
    }

    #[test]
    fn every_quarantine_code_is_in_the_table_under_its_own_name() {
        for code in QuarantineCode::ALL {
            assert_eq!(Code::from(*code).as_str(), code.as_str());
        }
    }
}
