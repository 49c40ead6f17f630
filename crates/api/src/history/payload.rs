//! Opens the bodies of notifications.

use serde_json::value::RawValue;
use tidings_eventlog::Item;
use tidings_proto::v1;
use tidings_registry::to_sealed;
use tidings_signing::OpenError;
use tidings_types::{Shape, body_aad};

use crate::{
    errors::{ApiError, Code},
    state::State,
};

/// The payload as it was delivered, byte for byte; `None` when its key is gone.
///
/// # Errors
/// `TECHNICAL_ERROR` when what is stored does not open: it is damaged, or the
/// master key is not the one it was sealed with.
pub(crate) async fn open(state: &State, item: &Item) -> Result<Option<Box<RawValue>>, ApiError> {
    let Some(body) = &item.body else { return Ok(None) };
    let plain = match plain(state, item, body).await {
        Ok(plain) => plain,
        Err(OpenError::UnknownKey(key)) if key.starts_with("bucket/") => return Ok(None),
        Err(error) => {
            tracing::error!(notification = %item.notification, %error, "a body does not open");
            return Err(Code::TechnicalError.into());
        }
    };
    let start = usize::try_from(body.payload_start).unwrap_or(usize::MAX);
    let length = usize::try_from(body.payload_len).unwrap_or(usize::MAX);
    let payload = start
        .checked_add(length)
        .and_then(|end| plain.get(start..end))
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| RawValue::from_string(text.to_owned()).ok());
    if payload.is_none() {
        tracing::error!(notification = %item.notification, "a body has no payload in its place");
        return Err(Code::TechnicalError.into());
    }
    Ok(payload)
}

/// Whether a notification's body can still be sent as it was.
pub(crate) async fn can_be_sent(state: &State, item: &Item) -> bool {
    let Some(body) = item.body.as_ref().filter(|_| !item.redacted) else { return false };
    if item.deadline.is_some_and(|deadline| deadline <= state.now()) {
        return false;
    }
    plain(state, item, body).await.is_ok()
}

async fn plain(state: &State, item: &Item, body: &v1::Body) -> Result<Vec<u8>, OpenError> {
    let sealed = body.sealed.as_ref().and_then(to_sealed).ok_or(OpenError::Damaged)?;
    let aad = body_aad(item.uid, Shape::from(body.shape()));
    state.deps.keys.open(&sealed, &aad).await
}
