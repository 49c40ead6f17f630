//! The asymmetric signature of Standard Webhooks, `v1a`: Ed25519, so that whoever
//! verifies cannot sign.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::Secret;

/// Base64 of 64 bytes.
const SIGNATURE_TEXT: usize = 88;

/// The Ed25519 key of a webhook, ready to sign. It is not derived from the signing
/// secret, which the client has.
#[derive(Clone)]
pub struct AsymmetricKey {
    seed: Secret,
    pair: Arc<Ed25519KeyPair>,
}

impl AsymmetricKey {
    /// The key of a seed of 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        let pair = pair.unwrap_or_else(|_| unreachable!("Ed25519 takes every seed of 32 bytes"));
        Self { seed: Secret::new(seed.to_vec()), pair: Arc::new(pair) }
    }

    pub fn expose_seed(&self) -> &[u8] {
        self.seed.expose()
    }

    /// The 32 bytes that others verify with.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Adds `v1a,<base64>` over `id.timestamp.body` behind what `out` holds
    /// already; `timestamp` is in seconds.
    pub fn append_v1a(&self, out: &mut String, id: &str, timestamp: i64, body: &[u8]) {
        let mut digits = itoa::Buffer::new();
        let time = digits.format(timestamp).as_bytes();
        let mut message = Vec::with_capacity(id.len() + time.len() + body.len() + 2);
        for (index, part) in [id.as_bytes(), time, body].into_iter().enumerate() {
            if index > 0 {
                message.push(b'.');
            }
            message.extend_from_slice(part);
        }
        out.reserve(SIGNATURE_TEXT + 5);
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str("v1a,");
        STANDARD.encode_string(self.pair.sign(&message).as_ref(), out);
    }
}

impl fmt::Debug for AsymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsymmetricKey(***)")
    }
}

impl PartialEq for AsymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed
    }
}

impl Eq for AsymmetricKey {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the signature are of Python's `cryptography`, made with the
    /// seed of RFC 8032, test 1.
    #[test]
    fn the_key_of_rfc_8032_signs_id_time_and_body() {
        let mut seed = [0; 32];
        let text = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        assert!(hex::decode_to_slice(text, &mut seed).is_ok());
        let key = AsymmetricKey::from_seed(&seed);
        assert_eq!(
            hex::encode(key.public()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let mut header = "v1,x".to_owned();
        key.append_v1a(&mut header, "msg_1", 1_614_265_330, br#"{"test": 2432232314}"#);
        let signature = "9R51FvFauxjqIc6hSozSE339O2Fke3xc0nsxhGiPk/kZfMkkMQOlUEgS+zteZmB8WjIzSChY1/lZ0uvG/8M4Dg==";
        assert_eq!(header, format!("v1,x v1a,{signature}"));
        assert_eq!(format!("{key:?}"), "AsymmetricKey(***)");
        assert_eq!(key, AsymmetricKey::from_seed(&seed));
        assert_ne!(key, AsymmetricKey::from_seed(&[1; 32]));
    }
}
