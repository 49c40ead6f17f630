//! Who calls: bearer tokens, and the issuer of a machine that has no other.
//!
//! [`Verifier`] checks a token and says whose it is. The algorithm comes from the
//! key's record, never from the token; every claim has one type and no other
//! (`reliability-security.md` §3.4). [`LocalIssuer`] signs the tokens of
//! `tidings token`, with a key in the data directory.
//!
//! Time is handed in. Nothing here does network I/O: authorization servers
//! elsewhere ([`ExternalIssuer`]) are refused at start until their keys can be
//! fetched ([`KeySource`] is their place).

mod claims;
mod key;
mod local;
mod principal;
mod verify;

pub use key::{KeySource, VerificationKey};
pub use local::{AUDIENCE, ISSUER, LocalIssuer, LocalIssuerError, TokenRequest};
pub use principal::{Principal, TenantScope, scopes};
pub use verify::{AuthError, ExternalIssuer, MAX_TOKEN, Verifier, VerifierConfig, VerifierError};
