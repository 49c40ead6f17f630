//! The times that producers write, read and made without a clock.

use std::{fmt::Write as _, time::Duration};

use tidings_types::Timestamp;

/// Reads `yyyy-MM-ddTHH:mm:ss`, with a blank for the `T`, with a fraction, with
/// `Z` or an offset, or with neither: then it is UTC, as in the documents'
/// samples (`2024-10-29 15:16:30.000`). The fraction is cut to milliseconds.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = *b"dddd-dd-dd?dd:dd:dd";
    let head = bytes.get(..shape.len())?;
    let fits = head.iter().zip(shape).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'?' => matches!(byte, b'T' | b't' | b' '),
        other => *byte == other,
    });
    if !fits {
        return None;
    }
    let day = Timestamp::from_civil_day(
        number(bytes, 0, 4)?,
        u32::try_from(number(bytes, 5, 7)?).ok()?,
        u32::try_from(number(bytes, 8, 10)?).ok()?,
    )?;
    let (hour, minute, second) =
        (number(bytes, 11, 13)?, number(bytes, 14, 16)?, number(bytes, 17, 19)?);
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(bytes.get(shape.len()..)?)?;
    let offset = zone_minutes(zone)?;
    let millis = ((hour * 60 + minute - offset) * 60 + second) * 1000 + fraction;
    Some(Timestamp::from_millis(day.as_millis() + millis))
}

fn number(bytes: &[u8], from: usize, to: usize) -> Option<i64> {
    bytes.get(from..to)?.iter().try_fold(0, |sum: i64, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
    })
}

/// Milliseconds of `.123456789`, and what follows it.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = bytes.strip_prefix(b".") else { return Some((0, bytes)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let millis = (0..3).fold(0, |sum, place| {
        sum * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0'))
    });
    Some((millis, rest))
}

fn zone_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone, 1, 3)?, number(zone, 4, 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 60 + minutes;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

/// Expands a sample's placeholder `now`, `now-5m`, `now+2h:millis`. `None` if it
/// is none. The forms after the colon: `seconds` (the default,
/// `yyyy-MM-ddTHH:mm:ssZ`), `millis`, `micros`, `date`, `datetime`
/// (`yyyy-MM-dd HH:mm:ss`), `compact` (`yyyyMMdd`), `epoch`.
pub(crate) fn expand(placeholder: &str, now: Timestamp) -> Option<String> {
    let (moment, form) = placeholder.split_once(':').unwrap_or((placeholder, "seconds"));
    let shift = moment.strip_prefix("now")?;
    let time = match shift.split_at_checked(1) {
        None => now,
        Some(("+", amount)) => now + duration(amount)?,
        Some(("-", amount)) => now.minus(duration(amount)?),
        Some(_) => return None,
    };
    let (year, month, day, hour, minute, second, milli) = time.civil();
    let mut text = String::with_capacity(32);
    let written = match form {
        "seconds" => write!(text, "{time}"),
        "millis" => write!(
            text,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        ),
        "micros" => write!(
            text,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}000Z"
        ),
        "date" => write!(text, "{year:04}-{month:02}-{day:02}"),
        "datetime" => {
            write!(text, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
        }
        "compact" => write!(text, "{year:04}{month:02}{day:02}"),
        "epoch" => write!(text, "{}", time.as_secs()),
        _ => return None,
    };
    written.is_ok().then_some(text)
}

fn duration(amount: &str) -> Option<Duration> {
    let (count, unit) = amount.split_at_checked(amount.len().checked_sub(1)?)?;
    let count: u64 = count.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(count.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<i64> {
        parse(text).map(Timestamp::as_millis)
    }

    #[test]
    fn every_form_in_the_documents_is_read() {
        let second = 1_730_214_990_000;
        assert_eq!(millis("2024-10-29T15:16:30Z"), Some(second));
        assert_eq!(millis("2024-10-29 15:16:30"), Some(second));
        assert_eq!(millis("2024-10-29 15:16:30.000"), Some(second));
        assert_eq!(millis("2024-10-29T15:16:30.086Z"), Some(second + 86));
        assert_eq!(millis("2024-10-29T15:16:30.149118Z"), Some(second + 149));
        assert_eq!(millis("2024-10-29T15:16:30.1Z"), Some(second + 100));
        assert_eq!(millis("2024-10-29T16:46:30+01:30"), Some(second));
        assert_eq!(millis("2024-10-29T10:16:30-05:00"), Some(second));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "soon",
            "2024-10-29",
            "2024-10-29T15:16",
            "2024-13-29T15:16:30Z",
            "2023-02-29T15:16:30Z",
            "2024-10-29T24:16:30Z",
            "2024-10-29T15:60:30Z",
            "2024-10-29T15:16:61Z",
            "2024-10-29T15:16:30.Z",
            "2024-10-29T15:16:30.1234567890Z",
            "2024-10-29T15:16:30+0100",
            "2024-10-29T15:16:30Zulu",
            "2024-10-29T15:16:30ü",
            "1730214990",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_placeholder_gives_a_time_relative_to_now() {
        let now = Timestamp::from_millis(1_730_214_990_086);
        let expanded = |text| expand(text, now).unwrap();
        assert_eq!(expanded("now"), "2024-10-29T15:16:30Z");
        assert_eq!(expanded("now-5m"), "2024-10-29T15:11:30Z");
        assert_eq!(expanded("now+1d:millis"), "2024-10-30T15:16:30.086Z");
        assert_eq!(expanded("now:micros"), "2024-10-29T15:16:30.086000Z");
        assert_eq!(expanded("now:date"), "2024-10-29");
        assert_eq!(expanded("now-30s:datetime"), "2024-10-29 15:16:00");
        assert_eq!(expanded("now:compact"), "20241029");
        assert_eq!(expanded("now:epoch"), "1730214990");
        for none in ["nowish", "now-5x", "now-m", "now:other", "later", "now*5m"] {
            assert_eq!(expand(none, now), None, "{none}");
        }
    }
}
