//! A receiver's check of a Standard Webhooks signature, written against the
//! specification and not against our signer.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;

/// Checks that one of the `v1` signatures of a request was made with `secret`
/// (`whsec_` and base64) over `id.timestamp.body`.
///
/// # Errors
/// Says what is missing or wrong.
pub fn verify_standard_webhook(
    secret: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), String> {
    let encoded = secret.strip_prefix("whsec_").ok_or("the secret has no prefix whsec_")?;
    let key = STANDARD.decode(encoded).map_err(|error| format!("the secret: {error}"))?;
    let header = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().ok_or_else(|| format!("no header {name}"))?;
        if values.next().is_some() {
            return Err(format!("two headers {name}"));
        }
        value.to_str().map_err(|error| format!("{name}: {error}"))
    };
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    if id.contains('.') || timestamp.is_empty() || !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("not an id and a time: {id:?}, {timestamp:?}"));
    }
    let mut signed = String::new();
    write!(signed, "{id}.{timestamp}.").map_err(|error| error.to_string())?;
    let signed = [signed.as_bytes(), body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signatures = header("webhook-signature")?;
    let matches = |text: &str| {
        text.strip_prefix("v1,")
            .and_then(|text| STANDARD.decode(text).ok())
            .is_some_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
    };
    if signatures.split(' ').any(matches) {
        Ok(())
    } else {
        Err(format!("no signature fits in {signatures:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the Standard Webhooks specification.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn headers(signature: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers
            .insert("webhook-id", http::HeaderValue::from_static("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        headers.insert("webhook-timestamp", http::HeaderValue::from_static("1614265330"));
        headers.insert("webhook-signature", http::HeaderValue::from_static(signature));
        headers
    }

    #[test]
    fn the_example_of_the_specification_verifies() {
        let good = headers("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(verify_standard_webhook(SECRET, &good, BODY), Ok(()));
        let two = headers("v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(verify_standard_webhook(SECRET, &two, BODY), Ok(()));
    }

    #[test]
    fn anything_else_does_not() {
        let good = headers("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(verify_standard_webhook(SECRET, &good, b"{}").is_err());
        assert!(verify_standard_webhook(SECRET, &headers("v1,"), BODY).is_err());
        assert!(verify_standard_webhook(SECRET, &HeaderMap::new(), BODY).is_err());
        assert!(verify_standard_webhook("whsec_AAAA", &good, BODY).is_err());
    }
}
