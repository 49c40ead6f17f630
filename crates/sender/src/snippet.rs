//! The first bytes of an endpoint's answer, made fit to be kept: text, without
//! our own secrets (an endpoint may echo the request) and what looks like a card
//! number, sealed.

use bytes::Bytes;
use http::HeaderValue;
use tidings_proto::v1;
use tidings_signing::{KeyRing, SealKey};
use tidings_types::{NotificationId, snippet_aad};

use crate::webhook::{Webhook, shown_texts};

/// Longest text that is kept, in bytes.
const MAX_TEXT: usize = 1024;
/// This many digits in a row, also in groups, may be a card number.
const CARD_DIGITS: usize = 12;
/// So many letters of a secret are worth hiding.
const MIN_SECRET: usize = 6;
/// What stands for what is hidden.
const MASK: &str = "***";

/// Whether answers to this event type may be kept at all (contract §3: null for
/// 106–111).
pub(crate) fn may_be_kept(event_type: &str) -> bool {
    !event_type.parse::<u16>().is_ok_and(|code| (106..=111).contains(&code))
}

/// What an attempt was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) bytes: &'a Bytes,
    /// What it had shown beside what the webhook's settings hold.
    pub(crate) shown: Option<&'a HeaderValue>,
}

/// Seals a snippet.
pub(crate) fn seal(
    ring: &KeyRing,
    notification: NotificationId,
    answer: Answer<'_>,
    webhook: &Webhook,
    nonce: [u8; 12],
) -> v1::Sealed {
    let mut text = String::from_utf8_lossy(answer.bytes).into_owned();
    if text.len() >= MIN_SECRET {
        if let Some(shown) = answer.shown {
            hide(&mut text, &shown_texts(shown));
        }
        hide(&mut text, webhook.secret_texts());
    }
    let text = redact(&text);
    let aad = snippet_aad(notification);
    let sealed = ring.seal(&SealKey::Snippet, &aad, text.as_bytes(), nonce);
    v1::Sealed {
        key: sealed.key,
        nonce: Bytes::copy_from_slice(&sealed.nonce),
        data: sealed.data.into(),
    }
}

/// Hides secrets, and the beginning of one at the end of the text: what is kept of an
/// answer may have been cut within it.
fn hide(text: &mut String, secrets: &[String]) {
    for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET) {
        if text.contains(secret.as_str()) {
            *text = text.replace(secret.as_str(), MASK);
        }
        let end = text.as_bytes();
        let last = end.get(end.len().saturating_sub(MIN_SECRET)..).unwrap_or_default();
        let starts = (MIN_SECRET..secret.len()).rev().filter_map(|length| secret.get(..length));
        let cut = starts
            .filter(|start| start.as_bytes().ends_with(last))
            .find(|start| text.ends_with(start))
            .map(str::len);
        if let Some(cut) = cut {
            text.truncate(text.len() - cut);
            text.push_str(MASK);
        }
    }
}

/// Replaces control characters, marks that change the direction of text, and long
/// runs of digits; cuts to [`MAX_TEXT`].
fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT));
    let mut digits = String::new();
    for letter in text.chars() {
        let groups = (letter == ' ' || letter == '-')
            && digits.ends_with(|last: char| last.is_ascii_digit());
        if letter.is_ascii_digit() || groups {
            digits.push(letter);
            continue;
        }
        flush_digits(&mut out, &mut digits);
        let unfit = (letter.is_control() && letter != '\n') || changes_direction(letter);
        out.push(if unfit { ' ' } else { letter });
    }
    flush_digits(&mut out, &mut digits);
    out.truncate(out.floor_char_boundary(MAX_TEXT));
    out
}

/// Unicode's controls of bidirectional text: what is shown would not be what is there.
fn changes_direction(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn flush_digits(out: &mut String, digits: &mut String) {
    if digits.bytes().filter(u8::is_ascii_digit).count() >= CARD_DIGITS {
        out.push_str(MASK);
        // The separator that ended the last group.
        if let Some(last) = digits.pop().filter(|last| !last.is_ascii_digit()) {
            out.push(last);
        }
    } else {
        out.push_str(digits);
    }
    digits.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_and_control_characters_are_not_kept() {
        assert_eq!(redact("pan 4111111111111111\u{0} code 123"), "pan ***  code 123");
        assert_eq!(redact("4111 1111 1111 1111 and 4111-1111-1111-1111."), "*** and ***.");
        assert_eq!(redact("on 2024-03-17 at 12:30 - 5 of 10"), "on 2024-03-17 at 12:30 - 5 of 10");
        assert_eq!(redact("a\u{202e}b\u{2066}c\u{1b}[31m"), "a b c [31m");
        assert_eq!(redact(&"\u{e9}".repeat(2000)).len(), 1024);
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_stands_and_where_the_answer_was_cut() {
        let secrets = ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), "short".to_owned()];
        let hidden = |text: &str| {
            let mut text = text.to_owned();
            hide(&mut text, &secrets);
            text
        };
        let secret = &secrets[0];
        assert_eq!(hidden(&format!("whsec_{secret} {secret}!")), "whsec_*** ***!");
        assert_eq!(hidden("x-key: MfKQ9r8GKYq"), "x-key: ***");
        assert_eq!(hidden("MfKQ9"), "MfKQ9", "so little says nothing");
        assert_eq!(hidden("a short one"), "a short one");
    }

    #[test]
    fn answers_to_events_about_tokens_and_codes_are_not_kept() {
        assert!(may_be_kept("101"));
        assert!(may_be_kept("transaction.sale.success"));
        assert!(!may_be_kept("107"));
    }
}
