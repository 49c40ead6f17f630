//! What the platform knows of event types, and how it reads and writes events.
//!
//! Event types are data: the files in `types/` say of each type which fields it
//! has, its lane, order key, deadline and so on, so that a new type needs no
//! code ([`Catalogue`]). [`Event`] is one event that was checked against its
//! type; [`render`] makes the body that webhooks get. [`json`] is the checker
//! below both.
//!
//! Pure: no I/O, no clock, no randomness. Whose webhooks an event goes to is
//! `tidings-routing`'s decision.

mod catalogue;
mod event;
mod event_type;
pub mod json;
mod refusal;
pub mod render;
mod sample;
mod schema;
mod uid;
pub mod when;

pub use catalogue::{Catalogue, CatalogueError};
pub use event::{Event, MAX_ID, MAX_PAYLOAD, MAX_RECORD, Tenant, decode, header_id};
pub use event_type::{EventType, Surface};
pub use refusal::Refusal;
pub use schema::{Field, FieldType};
pub use uid::{Identity, write_uid};
