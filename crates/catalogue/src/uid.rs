//! What makes an event this event and no other (design §4).

use crate::event::Event;

/// What tells two events with the same content apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// The producer's id: `context.correlationId`, `event_id` or the header
    /// `tidings-event-id`.
    Producer(&'a str),
    /// Without one, the place in the source topic. The epoch is a setting that is
    /// raised when a topic is made anew.
    Source { epoch: u64, topic: &'a str, partition: u32, offset: u64 },
}

/// Feeds the bytes of which SHA-256 is the event's uid to `digest`, in order.
/// Every part has its length before it, so that no two events give the same
/// bytes.
pub fn write_uid(event: &Event<'_>, identity: Identity<'_>, mut digest: impl FnMut(&[u8])) {
    let mut part = |bytes: &[u8]| {
        digest(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest(bytes);
    };
    part(b"tidings event uid 1");
    part(event.tenant().to_string().as_bytes());
    part(event.kind().name().as_bytes());
    match identity {
        Identity::Producer(id) => {
            part(b"producer");
            part(id.as_bytes());
        }
        Identity::Source { epoch, topic, partition, offset } => {
            part(b"source");
            part(&epoch.to_be_bytes());
            part(topic.as_bytes());
            part(&partition.to_be_bytes());
            part(&offset.to_be_bytes());
        }
    }
    part(event.payload().as_bytes());
}
