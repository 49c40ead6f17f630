//! The first bytes of an endpoint's answer, made fit to be kept: text, without
//! what looks like a card number, sealed.

use bytes::Bytes;
use tidings_proto::v1;
use tidings_signing::{KeyRing, SealKey};
use tidings_types::{NotificationId, snippet_aad};

/// Longest text that is kept, in bytes.
const MAX_TEXT: usize = 1024;
/// This many digits in a row may be a card number.
const CARD_DIGITS: usize = 12;

/// Whether answers to this event type may be kept at all (contract §3: null for
/// 106–111).
pub(crate) fn may_be_kept(event_type: &str) -> bool {
    !event_type.parse::<u16>().is_ok_and(|code| (106..=111).contains(&code))
}

/// Seals a snippet.
pub(crate) fn seal(
    ring: &KeyRing,
    notification: NotificationId,
    answer: &Bytes,
    nonce: [u8; 12],
) -> v1::Sealed {
    let text = redact(&String::from_utf8_lossy(answer));
    let aad = snippet_aad(notification);
    let sealed = ring.seal(&SealKey::Snippet, &aad, text.as_bytes(), nonce);
    v1::Sealed {
        key: sealed.key,
        nonce: Bytes::copy_from_slice(&sealed.nonce),
        data: sealed.data.into(),
    }
}

/// Replaces control characters and long runs of digits; cuts to [`MAX_TEXT`].
fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT));
    let mut digits = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        flush_digits(&mut out, &mut digits);
        out.push(if letter.is_control() && letter != '\n' { ' ' } else { letter });
    }
    flush_digits(&mut out, &mut digits);
    out.truncate(out.floor_char_boundary(MAX_TEXT));
    out
}

fn flush_digits(out: &mut String, digits: &mut String) {
    out.push_str(if digits.len() >= CARD_DIGITS { "***" } else { digits });
    digits.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_and_control_characters_are_not_kept() {
        assert_eq!(redact("pan 4111111111111111\u{0} code 123"), "pan ***  code 123");
        assert_eq!(redact(&"\u{e9}".repeat(2000)).len(), 1024);
    }

    #[test]
    fn answers_to_events_about_tokens_and_codes_are_not_kept() {
        assert!(may_be_kept("101"));
        assert!(may_be_kept("transaction.sale.success"));
        assert!(!may_be_kept("107"));
    }
}
