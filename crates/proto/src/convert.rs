//! Encoding with a version, decoding with an error that names the record, and
//! conversions of enums.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidings_types::{Lane, Shape};

use crate::v1;

/// The record header that carries [`FORMAT_VERSION`].
pub const FORMAT_HEADER: &str = "v";
/// The version of the formats in [`v1`], as the header's bytes.
pub const FORMAT_VERSION: &[u8] = b"1";

/// A record that does not follow its format.
#[derive(Debug, thiserror::Error)]
#[error("a record does not decode as {record}; it was written by something else or is damaged")]
pub struct DecodeError {
    record: &'static str,
    source: prost::DecodeError,
}

/// Encodes a record's value.
pub fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Decodes a record's value.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, DecodeError> {
    let record = std::any::type_name::<M>();
    M::decode(bytes).map_err(|source| DecodeError { record, source })
}

/// The header that every record of ours carries.
pub fn format_header() -> (Arc<str>, Bytes) {
    (Arc::from(FORMAT_HEADER), Bytes::from_static(FORMAT_VERSION))
}

impl From<Lane> for v1::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Standard => Self::Standard,
            Lane::Urgent => Self::Urgent,
        }
    }
}

impl From<v1::Lane> for Lane {
    fn from(lane: v1::Lane) -> Self {
        match lane {
            v1::Lane::Standard => Self::Standard,
            v1::Lane::Urgent => Self::Urgent,
        }
    }
}

impl From<Shape> for v1::Shape {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Plain => Self::Plain,
            Shape::StrictLegacy => Self::StrictLegacy,
            Shape::WireNames => Self::WireNames,
        }
    }
}

impl From<v1::Shape> for Shape {
    fn from(shape: v1::Shape) -> Self {
        match shape {
            v1::Shape::Unspecified | v1::Shape::Plain => Self::Plain,
            v1::Shape::StrictLegacy => Self::StrictLegacy,
            v1::Shape::WireNames => Self::WireNames,
        }
    }
}
