//! Signatures of deliveries: Standard Webhooks `v1`, the signature of the sequence
//! header (design §4), and the plain `X-Signature` of merchant hooks (`spec.md`
//! §3.2).

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidings_types::Lane;

use crate::Secret;

const PREFIX: &str = "whsec_";
/// Base64 of 32 bytes.
const TAG_TEXT: usize = 44;

/// The signing secret of a webhook, ready to sign.
#[derive(Clone)]
pub struct WebhookSecret {
    bytes: Secret,
    key: hmac::Key,
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(***)")
    }
}

impl PartialEq for WebhookSecret {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for WebhookSecret {}

impl WebhookSecret {
    /// A secret of 24 to 64 bytes; ours have 32.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self { bytes: Secret::new(bytes.to_vec()), key: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }

    /// Reads `whsec_<base64>`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then(|| Self::from_bytes(&bytes))
    }

    /// `whsec_<base64>`: shown once, when the webhook is made.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.bytes.expose()))
    }

    pub fn expose(&self) -> &[u8] {
        self.bytes.expose()
    }

    /// `v1,<base64>` over `id.timestamp.body` (Standard Webhooks); `timestamp` is
    /// in seconds.
    pub fn sign_v1(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut out = String::with_capacity(3 + TAG_TEXT);
        self.append_v1(&mut out, id, timestamp, body);
        out
    }

    /// As [`Self::sign_v1`], behind what `out` holds already: several signatures
    /// in one header are separated by a space (`reliability-security.md` §3.3).
    pub fn append_v1(&self, out: &mut String, id: &str, timestamp: i64, body: &[u8]) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str("v1,");
        let mut digits = itoa::Buffer::new();
        self.tag(out, &[id.as_bytes(), digits.format(timestamp).as_bytes(), body]);
    }

    /// The base64 behind `v1=` in `x-eds-sequence`: over
    /// `id.timestamp.lane.number`.
    pub fn sign_sequence(&self, id: &str, timestamp: i64, lane: Lane, number: u64) -> String {
        let mut out = String::with_capacity(TAG_TEXT);
        let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
        let parts = [
            id.as_bytes(),
            time.format(timestamp).as_bytes(),
            lane.as_str().as_bytes(),
            count.format(number).as_bytes(),
        ];
        self.tag(&mut out, &parts);
        out
    }

    /// Base64 of the HMAC over the parts with full stops between.
    fn tag(&self, out: &mut String, parts: &[&[u8]]) {
        let mut context = hmac::Context::with_key(&self.key);
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                context.update(b".");
            }
            context.update(part);
        }
        STANDARD.encode_string(context.sign().as_ref(), out);
    }
}

/// Lower-case hex of HMAC-SHA-256 over the body: `X-Signature` of merchant hooks.
pub fn x_signature(key: &[u8], body: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_vector_of_standard_webhooks() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let mut header = String::new();
        for _twice in 0..2 {
            let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
            secret.append_v1(&mut header, id, 1_614_265_330, body);
        }
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(header, format!("{signature} {signature}"));
    }

    #[test]
    fn the_vector_of_the_merchant_signature() {
        assert_eq!(
            x_signature(
                b"whk_test_0123456789",
                br#"{"type":"event","event_type":"transaction.sale.success"}"#
            ),
            "93c1433045767dd3f300c7c8a4e2bc78f16d1fe30a3e6c0f1e2b6c5a84ffb4b6"
        );
    }

    /// The value is of Python's `hmac`.
    #[test]
    fn the_sequence_is_signed_over_id_time_lane_and_number() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        assert_eq!(
            secret.sign_sequence("msg_1", 1_614_265_330, Lane::Urgent, 7),
            "Pzb9Y26G1Hna5MfewFXa9M7HqFpSbyzAvf74UGX5k0Q="
        );
    }

    #[test]
    fn a_secret_reads_back_what_it_wrote_and_refuses_the_rest() {
        let secret = WebhookSecret::from_bytes(&[9; 32]);
        assert_eq!(WebhookSecret::parse(&secret.to_text()), Some(secret.clone()));
        assert_eq!(WebhookSecret::parse(SECRET).unwrap().to_text(), SECRET);
        assert_eq!(format!("{secret:?}"), "WebhookSecret(***)");
        for bad in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_*"] {
            assert!(WebhookSecret::parse(bad).is_none(), "{bad}");
        }
    }
}
