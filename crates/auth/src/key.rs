//! The public keys that tokens are verified with.

use std::{fmt, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey};

/// A public key, with the one algorithm that it is for.
#[derive(Clone)]
pub struct VerificationKey {
    pub(crate) id: String,
    algorithm: Algorithm,
    /// The algorithm as a token's header names it.
    pub(crate) name: &'static str,
    pub(crate) key: DecodingKey,
}

impl VerificationKey {
    /// An Ed25519 key (algorithm `EdDSA`) of its 32 bytes.
    pub fn ed25519(id: &str, public: &[u8]) -> Self {
        Self {
            id: id.to_owned(),
            algorithm: Algorithm::EdDSA,
            name: "EdDSA",
            key: DecodingKey::from_ed_der(public),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(crate) fn verifies(&self, signature: &str, message: &[u8]) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm).unwrap_or(false)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationKey({}, {})", self.id, self.name)
    }
}

/// The keys of one issuer.
pub trait KeySource: Send + Sync + fmt::Debug + 'static {
    /// The key of an id; without an id the issuer's only key.
    fn key(&self, id: Option<&str>) -> Option<Arc<VerificationKey>>;
}

/// One key that does not change.
#[derive(Clone, Debug)]
pub(crate) struct OneKey(pub(crate) Arc<VerificationKey>);

impl KeySource for OneKey {
    fn key(&self, id: Option<&str>) -> Option<Arc<VerificationKey>> {
        id.is_none_or(|id| id == self.0.id).then(|| Arc::clone(&self.0))
    }
}
