//! Which webhooks an event goes to.
//!
//! [`RouteTable`] is an immutable index over the registry's tenants, webhooks and
//! configurations; [`RouteTable::route`] is a pure function of it and of what is
//! known of an event. It makes no ids and no bodies and remembers nothing.

mod configuration;
mod table;

pub use configuration::{Configuration, MessageTypes};
pub use table::{Decision, EventFacts, Hook, RouteTable, Target, Tenants};
