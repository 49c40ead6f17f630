//! Changes of a document that leave every other byte as it is.

use std::ops::Range;

use super::Value;

/// `bytes` with each range replaced. The ranges must be in order and apart;
/// what lies before or outside is left alone.
pub fn replace(bytes: &[u8], changes: &[(Range<usize>, &[u8])]) -> Vec<u8> {
    let grown: usize = changes.iter().map(|(_, new)| new.len()).sum();
    let mut result = Vec::with_capacity(bytes.len() + grown);
    let mut copied = 0;
    for (range, new) in changes {
        result.extend_from_slice(bytes.get(copied..range.start).unwrap_or_default());
        result.extend_from_slice(new);
        copied = range.end.max(copied);
    }
    result.extend_from_slice(bytes.get(copied..).unwrap_or_default());
    result
}

/// The bytes of an object with the members that `remove` names taken out,
/// together with one comma each. All other bytes stay as they are. Looks only at
/// the object's own members, not into them.
pub fn without(object: Value<'_>, remove: impl Fn(&Value<'_>) -> bool) -> Vec<u8> {
    let base = object.span().start;
    let members: Vec<(bool, Range<usize>)> = object
        .children()
        .map(|member| {
            // From the quote before the key to the end of the value.
            let start = member.node().key.start as usize - 1;
            (remove(&member), start - base..member.span().end - base)
        })
        .collect();
    let mut cuts: Vec<(Range<usize>, &[u8])> = Vec::new();
    let mut kept: Option<usize> = None;
    for (index, (is_removed, span)) in members.iter().enumerate() {
        if !is_removed {
            kept = Some(index);
            continue;
        }
        let cut = match (kept, members.get(index + 1)) {
            // What stands behind the last member kept, its comma included.
            (Some(_), _) => members[index - 1].1.end..span.end,
            // The first member: up to the next one's key, so that its comma goes.
            (None, Some((_, next))) => span.start..next.start,
            (None, None) => span.clone(),
        };
        cuts.push((cut, b""));
    }
    replace(object.raw().as_bytes(), &cuts)
}
