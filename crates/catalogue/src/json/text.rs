//! The content of strings.

use std::borrow::Cow;

/// The value of four hexadecimal digits.
pub(super) fn hex4(digits: &str) -> Option<u32> {
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// Resolves the escapes of a string's content that the scanner has accepted.
///
/// Half of a surrogate pair has no character: it stays the text of its escape, in
/// lower case, so that two different halves stay different.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return raw.into();
    }
    let mut resolved = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        resolved.push_str(plain);
        let mut chars = escape.chars();
        match chars.next() {
            Some('b') => resolved.push('\u{8}'),
            Some('f') => resolved.push('\u{c}'),
            Some('n') => resolved.push('\n'),
            Some('r') => resolved.push('\r'),
            Some('t') => resolved.push('\t'),
            Some('u') => {
                let (decoded, after) = code_point(chars.as_str());
                match decoded {
                    Ok(character) => resolved.push(character),
                    Err(unit) => resolved.extend(format!("\\u{unit:04x}").chars()),
                }
                rest = after;
                continue;
            }
            Some(same) => resolved.push(same),
            None => {}
        }
        rest = chars.as_str();
    }
    resolved.push_str(rest);
    resolved.into()
}

/// Whether an escape of a string is half of a surrogate pair without its other half.
pub(super) fn has_lone_surrogate(raw: &str) -> bool {
    let mut rest = raw;
    while let Some((_, escape)) = rest.split_once('\\') {
        rest = match escape.strip_prefix('u') {
            Some(unit) => match code_point(unit) {
                (Ok(_), after) => after,
                (Err(_), _) => return true,
            },
            // What is escaped may be a backslash itself.
            None => escape.get(1..).unwrap_or_default(),
        };
    }
    false
}

/// The character of a `\u` escape (its `\u` is behind), or the half of a surrogate
/// pair that it is, and what follows it.
fn code_point(text: &str) -> (Result<char, u32>, &str) {
    let unit = text.get(..4).and_then(hex4).unwrap_or(0xFFFD);
    let after = text.get(4..).unwrap_or_default();
    if (0xD800..=0xDBFF).contains(&unit)
        && let Some(low) = after.strip_prefix("\\u").and_then(|low| low.get(..4)).and_then(hex4)
        && (0xDC00..=0xDFFF).contains(&low)
    {
        let point = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(point).ok_or(unit), after.get(6..).unwrap_or_default());
    }
    (char::from_u32(unit).ok_or(unit), after)
}
