//! What is to be sent.

use std::{fmt, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::Full;
use tidings_types::WebhookId;

use crate::{connection::Post, identity::Identity, sign_in::SignIn, target::Target};

/// Headers that only the connection may set: a request with one of its own could
/// smuggle another request past a proxy (`reliability-security.md` §3.2).
const OF_THE_CONNECTION: &[HeaderName] = &[
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONTENT_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::EXPECT,
    header::TE,
    header::TRAILER,
];

/// One POST to make.
#[derive(Clone)]
pub struct Request {
    /// Whose connections may be used.
    pub webhook: WebhookId,
    pub target: Arc<Target>,
    /// As whom its connection is made, and whom that believes. Without it there is no
    /// client certificate, and the public authorities are believed.
    pub identity: Option<Arc<Identity>>,
    /// How it signs in at the endpoint: sets the `authorization` header.
    pub sign_in: Option<Arc<SignIn>>,
    /// All headers but those of the connection: `host`, `content-length` and
    /// `accept-encoding` are added. A request that sets another of them (such as
    /// `transfer-encoding`) is not sent and ends as `BAD_CONFIG`.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// For the whole attempt, from the first DNS question to the last byte of
    /// the answer's head.
    pub timeout: Duration,
}

impl fmt::Debug for Request {
    /// Bodies and header values are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("webhook", &self.webhook)
            .field("target", &self.target.as_str())
            .field("body_bytes", &self.body.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Whether the headers leave the connection's alone.
    pub(crate) fn is_sound(&self) -> bool {
        !OF_THE_CONNECTION.iter().any(|name| self.headers.contains_key(name))
    }

    /// The request as hyper takes it. Takes the headers and the body out.
    pub(crate) fn take_post(&mut self) -> Post {
        let mut post = http::Request::new(Full::new(mem::take(&mut self.body)));
        *post.method_mut() = Method::POST;
        *post.uri_mut() = self.target.uri().clone();
        let headers = post.headers_mut();
        *headers = mem::take(&mut self.headers);
        headers.insert(header::HOST, self.target.authority().clone());
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        post
    }
}
