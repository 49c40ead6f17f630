//! The associated data of sealed values that several services open: it says
//! where a value stands, so that it cannot be moved to another place.

use crate::{EventUid, NotificationId, Shape, TopicPartition};

/// Of a body in `tidings.routed` and in delivery records: `body`, the event's
/// uid, the number of the shape as in the records.
pub fn body_aad(uid: EventUid, shape: Shape) -> [u8; 37] {
    let number = match shape {
        Shape::Plain => 1,
        Shape::StrictLegacy => 2,
        Shape::WireNames => 3,
    };
    let mut aad = [number; 37];
    aad[..4].copy_from_slice(b"body");
    aad[4..36].copy_from_slice(&uid.0);
    aad
}

/// Of a one-time code that ingest took out of an event (the record header
/// `tidings-otp`): `otp` and the event's uid.
pub fn otp_aad(uid: EventUid) -> [u8; 35] {
    let mut aad = [0; 35];
    aad[..3].copy_from_slice(b"otp");
    aad[3..].copy_from_slice(&uid.0);
    aad
}

/// Of the start of an endpoint's answer in `tidings.outcomes`: `snippet` and the
/// notification's id.
pub fn snippet_aad(notification: NotificationId) -> [u8; 23] {
    let mut aad = [0; 23];
    aad[..7].copy_from_slice(b"snippet");
    aad[7..].copy_from_slice(notification.as_bytes());
    aad
}

/// Of a record in `tidings.quarantine`: `quarantine` and where it stood.
pub fn quarantine_aad(from: &TopicPartition, offset: u64) -> Vec<u8> {
    format!("quarantine {from}/{offset}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_associated_data_of_its_own() {
        let (one, other) = (EventUid([1; 32]), EventUid([2; 32]));
        assert_ne!(body_aad(one, Shape::Plain), body_aad(other, Shape::Plain));
        assert_ne!(body_aad(one, Shape::Plain), body_aad(one, Shape::WireNames));
        assert_eq!(body_aad(one, Shape::StrictLegacy)[36], 2);
        assert_ne!(otp_aad(one), otp_aad(other));
        let place = TopicPartition::new("t", 1);
        assert_ne!(quarantine_aad(&place, 1), quarantine_aad(&place, 11));
    }
}
