//! Why an event is not taken.

use std::{borrow::Cow, fmt};

use tidings_types::QuarantineCode;

use crate::json;

/// Why ingest refuses an event, and the router sets a record aside. Never holds
/// a value of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: QuarantineCode,
    /// The field, such as `payload.fraudAlertId`, where one can be named.
    pub field: Option<String>,
    /// What is wrong with it, for the producer's engineer.
    pub message: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(
        code: QuarantineCode,
        field: Option<String>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, field, message: message.into() }
    }

    /// A field that is missing or has the wrong type or value.
    pub(crate) fn field(field: impl Into<String>, message: &'static str) -> Self {
        Self::new(QuarantineCode::BadField, Some(field.into()), message)
    }

    pub(crate) fn too_large(message: &'static str) -> Self {
        Self::new(QuarantineCode::TooLarge, Some("payload".to_owned()), message)
    }
}

impl From<json::Error> for Refusal {
    fn from(error: json::Error) -> Self {
        if error.code == QuarantineCode::TooLarge {
            return Self::too_large(error.what);
        }
        let message = error.to_string();
        Self::new(error.code, error.path.filter(|path| !path.is_empty()), message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(field) = &self.field {
            write!(f, " {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Refusal {}
