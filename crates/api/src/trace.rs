//! W3C trace context: the caller's trace goes on, or a new one begins.

use http::HeaderMap;
use tidings_types::Rng;

/// The trace that a request belongs to, with a span of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace(String);

impl Trace {
    /// Takes the trace id of a valid `traceparent`, else makes one.
    pub(crate) fn of(headers: &HeaderMap, rng: &dyn Rng) -> Self {
        let mut values = headers.get_all("traceparent").iter();
        let incoming = match (values.next(), values.next()) {
            (Some(only), None) => only.to_str().ok().and_then(trace_id),
            (None, _) | (Some(_), Some(_)) => None,
        };
        let mut random = [0; 24];
        rng.fill(&mut random);
        // An id of zeros only is invalid.
        random[15] |= 1;
        random[23] |= 1;
        let (trace, span) = random.split_at(16);
        let trace = incoming.map_or_else(|| hex::encode(trace), str::to_owned);
        Self(format!("00-{trace}-{}-01", hex::encode(span)))
    }

    /// `00-<trace id>-<span id>-01`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The trace id of `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(text: &str) -> Option<&str> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let whole = version == "00" && parts.next().is_none();
    (whole && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zero(trace) && !zero(span))
        .then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Zeros;
    impl Rng for Zeros {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    fn trace_of(value: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", value.parse().unwrap());
        Trace::of(&headers, &Zeros).as_str().to_owned()
    }

    #[test]
    fn the_callers_trace_goes_on_with_a_span_of_our_own() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_of(given), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01");
    }

    #[test]
    fn an_invalid_trace_is_replaced() {
        let made = "00-00000000000000000000000000000001-0000000000000001-01";
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(trace_of(bad), made, "{bad}");
        }
    }
}
