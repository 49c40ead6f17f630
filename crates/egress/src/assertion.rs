//! How we prove to an authorization server that we have a client's key: the signed
//! assertion of RFC 7523 (`private_key_jwt`).

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use tidings_signing::Secret;

/// How long a key may be in PEM: one of RSA with 8,192 bits is half of it.
const MAX_PEM: usize = 12 * 1024;
/// RSA keys that are shorter are not secure; longer ones take too long.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Why a key cannot sign assertions. The text is for the client who registers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AssertionKeyError(&'static str);

/// A key that signs assertions, ready to use.
#[derive(Clone)]
pub struct AssertionKey {
    pem: Secret,
    pair: Arc<Pair>,
}

impl PartialEq for AssertionKey {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for AssertionKey {}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertionKey(***)")
    }
}

impl AssertionKey {
    /// The key of a PEM text (PKCS #8, not encrypted).
    ///
    /// # Errors
    /// When it is none, or of a kind that cannot sign.
    pub fn from_pem(pem: &Secret) -> Result<Self, AssertionKeyError> {
        let not_pem = AssertionKeyError("is not a private key in PEM (PKCS #8)");
        let text = pem.expose_text().filter(|text| text.len() <= MAX_PEM).ok_or(not_pem)?;
        let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let body: String = body.ok_or(not_pem)?.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_not_base64| not_pem)?;
        let der = Secret::new(der);
        let der = der.expose();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::of(pem, Pair::Ed25519(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Ok(Self::of(pem, Pair::P256(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der) {
            return Ok(Self::of(pem, Pair::P384(pair)));
        }
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_rejected| {
            AssertionKeyError("is of a kind that cannot sign: RSA, P-256, P-384 and Ed25519 can")
        })?;
        if !RSA_BYTES.contains(&pair.public_modulus_len()) {
            return Err(AssertionKeyError("must have 2,048 to 8,192 bits if it is one of RSA"));
        }
        Ok(Self::of(pem, Pair::Rsa(pair)))
    }

    fn of(pem: &Secret, pair: Pair) -> Self {
        Self { pem: pem.clone(), pair: Arc::new(pair) }
    }

    /// The `alg` of what it signs.
    pub fn algorithm(&self) -> &'static str {
        match &*self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The signed JWT with these claims (a JSON object) and this key id, if it has one.
    /// `None` if the key could not sign.
    pub fn sign(&self, claims: &str, key_id: Option<&str>) -> Option<String> {
        let mut header = format!(r#"{{"alg":"{}","typ":"JWT""#, self.algorithm());
        // Checked when it was registered: it needs no escape.
        if let Some(id) = key_id {
            header.push_str(r#","kid":""#);
            header.push_str(id);
            header.push('"');
        }
        header.push('}');
        let mut jwt = URL_SAFE_NO_PAD.encode(header);
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut jwt);
        let signature = self.signature(jwt.as_bytes())?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Some(jwt)
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &*self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                Some(pair.sign(&random, message).ok()?.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rsa::KeySize,
        signature::{
            self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, KeyPair as _,
            RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        },
    };

    use super::*;

    fn pem(der: &[u8]) -> Secret {
        Secret::from(format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der)))
    }

    #[track_caller]
    fn check(
        der: &[u8],
        algorithm: &str,
        public: &[u8],
        by: &'static dyn signature::VerificationAlgorithm,
    ) {
        let key = AssertionKey::from_pem(&pem(der)).unwrap();
        assert_eq!(
            (key.algorithm(), format!("{key:?}").as_str()),
            (algorithm, "AssertionKey(***)")
        );
        let jwt = key.sign(r#"{"iss":"me"}"#, Some("k1")).unwrap();
        let (message, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let verified = UnparsedPublicKey::new(by, public).verify(message.as_bytes(), &signature);
        assert!(verified.is_ok(), "{algorithm}");
        let (header, claims) = message.split_once('.').unwrap();
        let text = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(text(header), format!(r#"{{"alg":"{algorithm}","typ":"JWT","kid":"k1"}}"#));
        assert_eq!(text(claims), r#"{"iss":"me"}"#);
    }

    #[test]
    fn each_kind_of_key_signs_what_its_public_half_verifies() {
        let random = SystemRandom::new();
        let der = Ed25519KeyPair::generate_pkcs8v1(&random).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.as_ref()).unwrap();
        check(der.as_ref(), "EdDSA", pair.public_key().as_ref(), &ED25519);
        let of = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(of, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(of, der.as_ref()).unwrap();
        check(der.as_ref(), "ES256", pair.public_key().as_ref(), &ECDSA_P256_SHA256_FIXED);
        let of = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(of, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(of, der.as_ref()).unwrap();
        check(der.as_ref(), "ES384", pair.public_key().as_ref(), &ECDSA_P384_SHA384_FIXED);
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public = pair.public_key().as_ref();
        check(der.as_ref(), "RS256", public, &RSA_PKCS1_2048_8192_SHA256);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "x", BEGIN, &format!("{BEGIN}AAAA{END}"), &format!("{BEGIN}*{END}")] {
            assert!(AssertionKey::from_pem(&Secret::from(bad)).is_err(), "{bad}");
        }
        let text = format!("{BEGIN}{}{END}", "A".repeat(MAX_PEM));
        assert!(AssertionKey::from_pem(&Secret::from(text)).is_err());
    }
}
