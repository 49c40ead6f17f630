//! Fills the templates of sample events.
//!
//! A template is the JSON of a payload with placeholders in double braces:
//! `{{now-5m:millis}}` (see [`when::expand`]), `{{pm}}`, `{{merchant}}`,
//! `{{type}}`, and ids that differ from seed to seed: `{{uuid:label}}`,
//! `{{digits12:label}}`, `{{hex64:label}}`. The same label gives the same id
//! within one event.

use std::fmt::Write as _;

use tidings_types::Timestamp;

use crate::{event_type::EventType, event_type::Surface, when};

/// What the placeholders stand for.
pub(crate) struct Frame<'a> {
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
    pub(crate) programme_manager: i64,
    pub(crate) merchant: &'a str,
}

/// A template on one line: templates hold no line breaks in strings.
pub(crate) fn compact(template: &str) -> String {
    template.lines().map(str::trim).collect()
}

/// Puts a payload's template into the envelope of its surface.
pub(crate) fn envelope(kind: &EventType, payload: &str) -> String {
    let merchant = match kind.surface() {
        Surface::Eds => {
            let headers =
                if kind.has_raw_envelope() { r#","messageHeaders":{"schemaId":1}"# } else { "" };
            return format!(
                "{{\"context\":{{\"programManagerId\":{{{{pm}}}},\"eventCode\":{{{{type}}}},\
                 \"eventVersion\":\"v1\",\"notificationTime\":\"{{{{now}}}}\",\
                 \"correlationId\":\"{{{{uuid:event}}}}\"}},\"payload\":{payload}{headers}}}"
            );
        }
        Surface::Merchant => r#""merchant":{"merch_key":"{{merchant}}"},"#,
        Surface::Ops => "",
    };
    // The template is an object: its members follow the merchant.
    let members = payload.strip_prefix('{').unwrap_or(payload);
    format!(
        "{{\"type\":\"event\",\"event_triggered\":\"{{{{now:datetime}}}}\",\
         \"event_type\":\"{{{{type}}}}\",\"event_body\":{{{merchant}{members},\
         \"event_id\":\"{{{{hex64:event}}}}\"}}"
    )
}

/// Replaces the placeholders; an unknown one is left as it stands.
pub(crate) fn fill(template: &str, event_type: &str, frame: &Frame<'_>) -> Vec<u8> {
    let mut filled = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        // Two braces also open nested objects; those hold a quote or a blank.
        let Some((placeholder, following)) =
            after.split_once("}}").filter(|(inside, _)| !inside.contains(['"', '{', ' ']))
        else {
            filled.push_str(before);
            filled.push_str("{{");
            rest = after;
            continue;
        };
        filled.push_str(before);
        match expand(placeholder, event_type, frame) {
            Some(text) => filled.push_str(&text),
            None => {
                filled.push_str("{{");
                filled.push_str(placeholder);
                filled.push_str("}}");
            }
        }
        rest = following;
    }
    filled.push_str(rest);
    filled.into_bytes()
}

fn expand(placeholder: &str, event_type: &str, frame: &Frame<'_>) -> Option<String> {
    match placeholder {
        "pm" => return Some(frame.programme_manager.to_string()),
        "merchant" => return Some(escape(frame.merchant)),
        "type" => return Some(event_type.to_owned()),
        _ => {}
    }
    if placeholder.starts_with("now") {
        return when::expand(placeholder, frame.now);
    }
    let (form, label) = placeholder.split_once(':')?;
    let mut bits = Bits::new(frame.seed, event_type, label);
    if form == "uuid" {
        let hex = bits.hex(32);
        let part = |from, to| hex.get(from..to).unwrap_or_default();
        return Some(format!(
            "{}-{}-4{}-8{}-{}",
            part(0, 8),
            part(8, 12),
            part(13, 16),
            part(17, 20),
            part(20, 32)
        ));
    }
    if let Some(count) = form.strip_prefix("digits") {
        return Some(bits.digits(count.parse().ok()?));
    }
    Some(bits.hex(form.strip_prefix("hex")?.parse().ok()?))
}

/// The characters of a JSON string.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\\' => escaped.extend(['\\', char]),
            '\0'..='\u{1f}' => {
                // Writing into a string cannot fail.
                let written = write!(escaped, "\\u{:04x}", u32::from(char));
                debug_assert!(written.is_ok());
            }
            _ => escaped.push(char),
        }
    }
    escaped
}

/// Numbers that a seed and a label decide (`SplitMix64`).
struct Bits(u64);

impl Bits {
    fn new(seed: u64, event_type: &str, label: &str) -> Self {
        // FNV-1a over the labels, so that each label has a sequence of its own.
        let labels = event_type.bytes().chain([0]).chain(label.bytes());
        let hash = labels.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        let mut bits = Self(seed);
        let spread = bits.next();
        Self(spread ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn hex(&mut self, count: usize) -> String {
        let mut hex = String::with_capacity(count + 16);
        while hex.len() < count {
            let written = write!(hex, "{:016x}", self.next());
            debug_assert!(written.is_ok());
        }
        hex.truncate(count);
        hex
    }

    /// A decimal number of `count` digits without leading zeros.
    fn digits(&mut self, count: usize) -> String {
        (0..count)
            .map(|place| {
                let digit = if place == 0 { 1 + self.next() % 9 } else { self.next() % 10 };
                char::from(b'0' + u8::try_from(digit).unwrap_or(0))
            })
            .collect()
    }
}
