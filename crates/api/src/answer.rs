//! The envelope around every answer: `{"status":"success","response":…}` or
//! `{"status":"error","errors":[…],"traceId":"00-…"}` (`spec.md` §1.4).

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tidings_types::Timestamp;

use crate::{
    errors::{ApiError, Challenge},
    trace::Trace,
};

/// The time up to which a view was read when it answered.
pub(crate) const AS_OF: HeaderName = HeaderName::from_static("x-tidings-as-of");

/// The tokens that are taken.
const BEARER: &str = "Bearer realm=\"tidings\"";

/// The answer that cannot fail to be encoded.
const UNENCODABLE: &[u8] = br#"{"status":"error","errors":[{"code":"TECHNICAL_ERROR","message":"the answer cannot be encoded"}]}"#;

/// What a handler gives back.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Success<'a, T> {
    status: &'static str,
    response: &'a T,
}

#[derive(Serialize)]
struct Failure<'a> {
    status: &'static str,
    errors: Vec<FailureItem<'a>>,
    #[serde(rename = "traceId")]
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a crate::errors::Progress>,
}

#[derive(Serialize)]
struct FailureItem<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl Answer {
    /// `response` in the envelope of a success.
    pub(crate) fn success<T: Serialize>(status: StatusCode, response: &T) -> Self {
        Self::encode(status, &Success { status: "success", response })
    }

    /// `document` as it is, where a standard says what an answer looks like.
    pub(crate) fn bare<T: Serialize>(document: &T) -> Self {
        Self::encode(StatusCode::OK, document)
    }

    fn encode<T: Serialize>(status: StatusCode, document: &T) -> Self {
        match serde_json::to_vec(document) {
            Ok(body) => Self::json(status, body.into()),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be encoded");
                Self::json(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(UNENCODABLE))
            }
        }
    }

    pub(crate) fn ok<T: Serialize>(response: &T) -> Self {
        Self::success(StatusCode::OK, response)
    }

    pub(crate) fn json(status: StatusCode, body: Bytes) -> Self {
        Self { status, content_type: "application/json", body, headers: Vec::new() }
    }

    pub(crate) fn text(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body: body.into(), headers: Vec::new() }
    }

    pub(crate) fn no_content() -> Self {
        Self::json(StatusCode::NO_CONTENT, Bytes::new())
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.headers.push((name, value)),
            Err(_bad) => tracing::error!(header = %name, "a header of an answer cannot be encoded"),
        }
        self
    }

    /// The version of an entity as `ETag`.
    pub(crate) fn etag(self, version: u64) -> Self {
        self.with(header::ETAG, &etag(version))
    }

    pub(crate) fn with_as_of(self, time: Timestamp) -> Self {
        self.with(AS_OF, &time.to_rfc3339())
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The headers beside those that every answer has.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        // Answers hold card data and secrets: nobody on the way keeps them.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

/// The `ETag` of a version.
pub(crate) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// The envelope of an error.
pub(crate) fn refuse(error: &ApiError, trace: &Trace) -> Answer {
    let status = error.http_status();
    let failure = Failure {
        status: "error",
        errors: error
            .faults
            .iter()
            .map(|fault| FailureItem {
                code: fault.code.as_str(),
                message: &fault.message,
                field: fault.field.as_deref(),
                index: fault.index,
            })
            .collect(),
        trace_id: trace.as_str(),
        progress: error.progress.as_deref(),
    };
    let mut answer = Answer::encode(status, &failure);
    if let Some(seconds) = error.retry_after {
        answer = answer.with(header::RETRY_AFTER, &seconds.to_string());
    }
    if let Some(allow) = &error.allow {
        answer = answer.with(header::ALLOW, allow);
    }
    if let Some(time) = error.as_of {
        answer = answer.with_as_of(time);
    }
    // Who sent no token is told only which kind is wanted (RFC 6750 §3.1).
    let challenge = match error.challenge {
        Some(Challenge::InvalidToken) => Some(format!("{BEARER}, error=\"invalid_token\"")),
        Some(Challenge::InsufficientScope(scope)) => {
            Some(format!("{BEARER}, error=\"insufficient_scope\", scope=\"{scope}\""))
        }
        None => (status == StatusCode::UNAUTHORIZED).then(|| BEARER.to_owned()),
    };
    if let Some(challenge) = challenge {
        answer = answer.with(header::WWW_AUTHENTICATE, &challenge);
    }
    answer
}
