//! The crate from outside: the files, the events, the bodies.

mod catalogue;
mod docs;
mod event;
mod render;

use tidings_catalogue::{Catalogue, Event, Refusal, decode};
use tidings_types::Timestamp;

/// 2024-10-29T15:16:30.086Z.
const NOW: Timestamp = Timestamp::from_millis(1_730_214_990_086);

/// An EDS event with the given code and payload.
fn eds(code: u16, payload: &str) -> String {
    format!(r#"{{"context":{{"programManagerId":20,"eventCode":{code}}},"payload":{payload}}}"#)
}

/// The smallest payload of a 101.
const PAYLOAD_101: &str = r#"{"fraudAlertId":"a","transactionId":1,"tokenId":2,"transactionAmount":"1","currency":"USD","dateTime":"x","notificationMessageContent":"m"}"#;

/// Code and field of a refusal, as `BAD_FIELD payload.x`.
fn verdict(event: &Result<Event<'_>, Refusal>) -> String {
    match event {
        Ok(event) => format!("ok {}", event.kind().name()),
        Err(Refusal { code, field: Some(field), .. }) => format!("{code} {field}"),
        Err(Refusal { code, .. }) => code.to_string(),
    }
}

fn judge(topic: Option<&str>, bytes: impl AsRef<[u8]>) -> String {
    let catalogue = Catalogue::builtin();
    let bytes = bytes.as_ref();
    verdict(&decode(&catalogue, topic, bytes))
}
