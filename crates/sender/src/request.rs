//! One request: the fixed head of its webhook, what this attempt adds, the body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tidings_egress::Request;
use tidings_proto::v1;
use tidings_signing::x_signature;
use tidings_types::{AttemptCode, Lane, NotificationId, Timestamp};

use crate::webhook::{Signing, Webhook};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const EVENT_CODE: HeaderName = HeaderName::from_static("x-eds-event-code");
const ATTEMPT: HeaderName = HeaderName::from_static("x-eds-attempt");
const SEQUENCE: HeaderName = HeaderName::from_static("x-eds-sequence");
const X_SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

/// Headers that come to those of the webhook at most: the ones here, and `host` and
/// `accept-encoding`, which `egress` adds.
const ADDED_HEADERS: usize = 9;
/// Of one signature, which most webhooks have: `v1,` and base64 of 32 bytes.
const SIGNATURE_LENGTH: usize = 47;

/// The 36 characters of a notification id.
pub(crate) fn id_text(id: NotificationId) -> [u8; 36] {
    let mut text = [0; 36];
    id.encode_text(&mut text);
    text
}

/// Makes the request of one attempt: its number within the run, and the lane and
/// number of an ordered webhook's notification.
///
/// # Errors
/// With what the attempt comes to if the webhook's URL is not allowed.
pub(crate) fn build(
    webhook: &Webhook,
    record: &v1::DeliveryRecord,
    id: &[u8; 36],
    (attempt, order): (u32, Option<(Lane, u64)>),
    body: Bytes,
    now: Timestamp,
) -> Result<Request, AttemptCode> {
    let target = webhook.target.clone()?;
    let id = std::str::from_utf8(id).map_err(|_never| AttemptCode::BadConfig)?;
    let mut headers = webhook.headers.clone();
    headers.reserve(ADDED_HEADERS);
    insert(&mut headers, ID, id);
    insert(&mut headers, TIMESTAMP, itoa::Buffer::new().format(now.as_secs()));
    insert(&mut headers, EVENT_CODE, &record.event_type);
    insert(&mut headers, ATTEMPT, itoa::Buffer::new().format(attempt));
    if let Some((lane, number)) = order {
        let mut sequence = format!("{}.{number}", lane.as_str());
        if let Some(newest) = webhook.signing.newest(now) {
            sequence.push_str("; v1=");
            sequence.push_str(&newest.sign_sequence(id, now.as_secs(), lane, number));
        }
        insert(&mut headers, SEQUENCE, &sequence);
    }
    match &webhook.signing {
        Signing::Standard(secrets) => {
            let mut signatures = String::with_capacity(SIGNATURE_LENGTH);
            for live in secrets {
                if live.not_after.is_some_and(|end| end <= now) {
                    continue;
                }
                if live.signs_v1 {
                    live.secret.append_v1(&mut signatures, id, now.as_secs(), &body);
                }
                if let Some(key) = &live.asymmetric {
                    key.append_v1a(&mut signatures, id, now.as_secs(), &body);
                }
            }
            if !signatures.is_empty() {
                insert(&mut headers, SIGNATURE, &signatures);
            }
        }
        Signing::Merchant(Some(key)) => {
            insert(&mut headers, X_SIGNATURE, &x_signature(key.expose(), &body));
        }
        Signing::Merchant(None) => {}
    }
    Ok(Request {
        webhook: webhook.id,
        target,
        identity: webhook.identity.clone(),
        sign_in: webhook.sign_in.clone(),
        headers,
        body,
        timeout: webhook.timeout,
    })
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
