//! The formats on Tidings' own topics: generated records, and the conversions
//! between them and the vocabulary of `tidings-types`.
//!
//! [`v1`] is generated from `proto/tidings/v1/*.proto` and committed; the test
//! `generated_code_is_current` compares. No `protoc` is needed. What a record
//! means stands in design §2 and beside the code that writes it.

mod convert;

/// Generated records, format version 1.
#[expect(clippy::all, clippy::doc_markdown, reason = "generated code keeps its own style")]
#[rustfmt::skip]
#[path = "generated/tidings.v1.rs"]
pub mod v1;

pub use convert::{DecodeError, FORMAT_HEADER, FORMAT_VERSION, decode, encode, format_header};
