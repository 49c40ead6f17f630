//! `/.well-known/jwks.json`: the public keys of `v1a` (RFC 7517, RFC 8037), so
//! that clients verify with keys that they fetch.
//!
//! A key is listed while it signs. Its id is the webhook's id and the key's
//! number.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{answer::Answer, state::State, webhooks::rotate::signs_v1a};

#[derive(Serialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    kid: String,
    x: String,
}

pub(crate) fn list(state: &State) -> Answer {
    let now = state.now();
    let snapshot = state.deps.registry.snapshot();
    let webhooks = snapshot.webhooks.values().filter(|webhook| signs_v1a(&webhook.settings));
    let keys = webhooks.flat_map(|webhook| {
        let live = webhook.signing_secrets.iter();
        let live = live.filter(|secret| secret.not_after.is_none_or(|end| end > now));
        live.filter_map(|secret| {
            let key = secret.asymmetric.as_ref()?;
            Some(Key {
                kty: "OKP",
                crv: "Ed25519",
                alg: "EdDSA",
                purpose: "sig",
                kid: format!("{}.{}", webhook.id, secret.id),
                x: URL_SAFE_NO_PAD.encode(key.public()),
            })
        })
    });
    let set = Set { keys: keys.collect() };
    Answer::bare(&set)
}
