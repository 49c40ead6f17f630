//! Signatures, sealing, keyed ids and the secret types.
//!
//! Pure: randomness comes in as bytes. Secrets do not print and are wiped when
//! they are dropped. Nothing here stores or sends anything.

mod asymmetric;
mod ids;
mod keys;
mod secret;
mod webhook;

pub use asymmetric::AsymmetricKey;
pub use ids::{NotificationIds, sha256, slot};
pub use keys::{BucketKey, KeyBook, KeyFileError, KeyRing, MasterKey, OpenError, SealKey, Sealed};
pub use secret::{Secret, same};
pub use webhook::{WebhookSecret, x_signature};
