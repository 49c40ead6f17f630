//! What tests share: a clock that obeys, randomness under a seed, an endpoint that
//! does as it is told, a name server, a proxy, certificates, and a receiver's check of a
//! signature.
//!
//! For tests and benches only; nothing here is careful with memory or secrets.

pub mod certificate;
mod clock;
pub mod hostile;
mod name_server;
mod proxy;
pub mod receiver;
mod signature;
pub mod ssrf;

pub use clock::{SeededRng, TokioClock};
pub use name_server::{Answer, NameServer};
pub use proxy::{Proxy, Tunnel};
pub use receiver::{Behaviour, Received, Receiver, Recording, Step};
pub use signature::verify_standard_webhook;
