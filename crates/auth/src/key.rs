//! The public keys that tokens are verified with.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::jwks::Jwks;

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
        Self::new(id, Algorithm::EdDSA, "EdDSA", DecodingKey::from_ed_der(public))
    }

    fn new(id: &str, algorithm: Algorithm, name: &'static str, key: DecodingKey) -> Self {
        Self { id: id.to_owned(), algorithm, name, key }
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
