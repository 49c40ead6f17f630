//! Tokens that are bound to a client certificate (RFC 8705 §3): whoever sends one
//! has to have made the connection with that certificate's key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::claims::Members;

/// The SHA-256 of a client certificate's DER, of a connection whose client has
/// proved that it has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    pub fn of(certificate: &[u8]) -> Self {
        Self(tidings_signing::sha256(&[certificate]))
    }
}

/// Whether a token may come over a connection with this certificate. `must_bind`:
/// one that is not bound may not come at all.
pub(crate) fn holds(claims: &Members, must_bind: bool, certificate: Option<Thumbprint>) -> bool {
    let Some(confirmation) = claims.get("cnf") else { return !must_bind };
    // A second method would be one that nobody here checks.
    let only = confirmation.as_object().filter(|members| members.len() == 1);
    let bound = only.and_then(|members| members.get("x5t#S256")?.as_str());
    match (bound, certificate) {
        (Some(bound), Some(certificate)) => bound == URL_SAFE_NO_PAD.encode(certificate.0),
        (None, _) | (_, None) => false,
    }
}
