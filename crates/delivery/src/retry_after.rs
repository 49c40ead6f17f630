//! Reads `Retry-After`, which a stranger wrote.

use std::time::{Duration, UNIX_EPOCH};

use tidings_types::Timestamp;

/// The longest that an endpoint may ask us to wait (design §10).
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How long an endpoint asks us to wait from `now` on: digits only (at most 10 of
/// them) or an HTTP date, clamped to [`MAX_RETRY_AFTER`]. Anything else is `None`;
/// a date in the past is zero. The caller takes the longer of this and its step:
/// a step is never shortened.
pub fn parse(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        if text.len() > 10 {
            return None;
        }
        let seconds: u64 = text.parse().ok()?;
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    if text.len() > 64 {
        return None;
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let millis = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(Timestamp::from_millis(millis).since(now).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        // Sun, 06 Nov 1994 08:49:37 GMT
        Timestamp::from_secs(784_111_777)
    }

    #[test]
    fn seconds_and_dates_are_read_and_clamped_to_an_hour() {
        assert_eq!(parse(b"120", now()), Some(Duration::from_secs(120)));
        assert_eq!(parse(b" 7\t", now()), Some(Duration::from_secs(7)));
        assert_eq!(parse(b"9999999999", now()), Some(MAX_RETRY_AFTER));
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:50:37 GMT", now()), Some(Duration::from_secs(60)));
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:00:00 GMT", now()), Some(Duration::ZERO));
        assert_eq!(parse(b"Fri, 31 Dec 9999 23:59:59 GMT", now()), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn anything_else_is_ignored() {
        for odd in ["", "-1", "+5", "1.5", "12345678901", "soon", "0x10", "\u{0661}", "1 2"] {
            assert_eq!(parse(odd.as_bytes(), now()), None, "{odd:?}");
        }
        assert_eq!(parse(&[0xff, 0xfe], now()), None);
    }

    proptest! {
        #[test]
        fn no_value_panics_or_asks_for_more_than_an_hour(
            value in proptest::collection::vec(any::<u8>(), 0..80), now: i64,
        ) {
            if let Some(wait) = parse(&value, Timestamp::from_millis(now)) {
                prop_assert!(wait <= MAX_RETRY_AFTER);
            }
        }
    }
}
