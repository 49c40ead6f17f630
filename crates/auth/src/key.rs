//! The public keys that tokens are verified with.

use std::{collections::HashSet, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use serde_json::Value;
use tidings_signing::sha256;

use crate::jwks::Jwks;

/// Signatures that a key remembers as its own. A client sends the same token with
/// every request, and looking at a signature costs more than a small request.
const REMEMBERED: usize = 4096;

/// A public key, with the one algorithm that it is for.
#[derive(Clone)]
pub struct VerificationKey {
    pub(crate) id: String,
    algorithm: Algorithm,
    /// The algorithm as a token's header names it.
    pub(crate) name: &'static str,
    pub(crate) key: DecodingKey,
    /// Hashes of what this key was found to have signed, with the signature. Another
    /// key remembers nothing of it, and times and claims are looked at each time.
    genuine: Arc<Mutex<HashSet<[u8; 32]>>>,
}

impl VerificationKey {
    /// An Ed25519 key (algorithm `EdDSA`) of its 32 bytes.
    pub fn ed25519(id: &str, public: &[u8]) -> Self {
        Self::new(id, Algorithm::EdDSA, "EdDSA", DecodingKey::from_ed_der(public))
    }

    fn new(id: &str, algorithm: Algorithm, name: &'static str, key: DecodingKey) -> Self {
        Self { id: id.to_owned(), algorithm, name, key, genuine: Arc::default() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(crate) fn verifies(&self, signature: &str, message: &[u8]) -> bool {
        // The token as it came: a signature has no dot, so no other pair gives it.
        let hash = sha256(&[message, b".", signature.as_bytes()]);
        if self.genuine.lock().contains(&hash) {
            return true;
        }
        let is_genuine =
            jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm)
                .unwrap_or(false);
        if is_genuine {
            let mut genuine = self.genuine.lock();
            if genuine.len() >= REMEMBERED {
                genuine.clear();
            }
            genuine.insert(hash);
        }
        is_genuine
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationKey({}, {})", self.id, self.name)
    }
}

/// The keys of one issuer.
pub(crate) trait KeySource: Send + Sync + fmt::Debug + 'static {
    /// The key of an id; without an id the issuer's only key.
    fn key(&self, id: Option<&str>) -> Option<Arc<VerificationKey>>;

    /// The set that can be fetched again, if the keys are of one.
    fn jwks(&self) -> Option<&Jwks> {
        None
    }
}

/// The modulus of an RSA key, in bytes: 2,048 to 8,192 bits.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// Reads a key of a set (RFC 7517). `None` for what cannot verify tokens here:
/// shared secrets, keys for encryption, weak ones, algorithms that are not allowed.
/// An RSA key that names no algorithm is for RS256.
pub(crate) fn of_jwk(jwk: &Value) -> Option<VerificationKey> {
    let text = |name: &str| jwk.get(name).map(|value| value.as_str().unwrap_or_default());
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        operations.as_array()?.iter().find(|operation| *operation == "verify")?;
    }
    let id = text("kid").unwrap_or_default();
    match (text("kty")?, text("alg"), text("crv")) {
        ("RSA", algorithm @ (None | Some("RS256" | "PS256")), None) => {
            let (modulus, exponent) = (text("n")?, text("e")?);
            let bytes = URL_SAFE_NO_PAD.decode(modulus).ok()?;
            if !RSA_MODULUS.contains(&bytes.len()) {
                return None;
            }
            let key = DecodingKey::from_rsa_components(modulus, exponent).ok()?;
            Some(match algorithm {
                Some("PS256") => VerificationKey::new(id, Algorithm::PS256, "PS256", key),
                Some(_) | None => VerificationKey::new(id, Algorithm::RS256, "RS256", key),
            })
        }
        ("EC", None | Some("ES256"), Some("P-256")) => {
            let key = DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?;
            Some(VerificationKey::new(id, Algorithm::ES256, "ES256", key))
        }
        ("OKP", None | Some("EdDSA"), Some("Ed25519")) => {
            let key = DecodingKey::from_ed_components(text("x")?).ok()?;
            Some(VerificationKey::new(id, Algorithm::EdDSA, "EdDSA", key))
        }
        (_, _, _) => None,
    }
}

/// One key that does not change.
#[derive(Clone, Debug)]
pub(crate) struct OneKey(pub(crate) Arc<VerificationKey>);

impl KeySource for OneKey {
    fn key(&self, id: Option<&str>) -> Option<Arc<VerificationKey>> {
        id.is_none_or(|id| id == self.0.id).then(|| Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn what_was_verified_once_is_remembered_and_nothing_else_is() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = VerificationKey::ed25519("one", pair.public_key().as_ref());
        let sign = |message: &[u8]| URL_SAFE_NO_PAD.encode(pair.sign(message));
        let signature = sign(b"header.claims");
        for _ in 0..2 {
            assert!(key.verifies(&signature, b"header.claims"));
            assert!(!key.verifies(&signature, b"header.other"));
            assert!(!key.verifies(&sign(b"header.other"), b"header.claims"));
        }
        assert_eq!(key.genuine.lock().len(), 1);
        let other = Ed25519KeyPair::generate().unwrap();
        let other = VerificationKey::ed25519("one", other.public_key().as_ref());
        assert!(!other.verifies(&signature, b"header.claims"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = VerificationKey::ed25519("one", pair.public_key().as_ref());
        for number in 0..=REMEMBERED {
            let message = number.to_be_bytes();
            assert!(key.verifies(&URL_SAFE_NO_PAD.encode(pair.sign(&message)), &message));
        }
        assert!(key.genuine.lock().len() <= REMEMBERED);
    }
}
