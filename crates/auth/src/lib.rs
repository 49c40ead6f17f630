//! Who calls: bearer tokens, and the issuer of a machine that has no other.
//!
//! [`Verifier`] checks a token and says whose it is. The algorithm comes from the
//! key's record, never from the token; every claim has one type and no other
//! (`reliability-security.md` §3.4). [`LocalIssuer`] signs the tokens of
//! `tidings token`, with a key in the data directory.
//!
//! Time is handed in. The keys of authorization servers elsewhere
//! ([`ExternalIssuer`]) are fetched through `egress` and kept ([`Verifier::run`]).

mod binding;
mod claims;
mod jwks;
mod key;
mod local;
mod metrics;
mod principal;
mod verify;

pub use binding::Thumbprint;
pub use key::VerificationKey;
pub use local::{AUDIENCE, ISSUER, LocalIssuer, LocalIssuerError, TokenRequest};
pub use metrics::Metrics;
pub use principal::{Principal, TenantScope, scopes};
pub use verify::{
    AuthError, External, ExternalIssuer, MAX_TOKEN, Verifier, VerifierConfig, VerifierError,
};
