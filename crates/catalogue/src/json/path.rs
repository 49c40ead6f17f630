//! Paths of values, fit to be printed: they go into errors, logs and lists.

use super::{Kind, Node, Span, text};

/// The longest path that is printed in full, in bytes.
const MAX_PATH: usize = 256;
/// The longest member name that is printed, in characters.
const MAX_NAME: usize = 64;
/// A name with this many digits may be a card number.
const MAX_DIGITS: usize = 11;

/// The path of a node, found from the root down.
pub(super) fn of(text: &str, nodes: &[Node], target: usize) -> String {
    let mut path = String::new();
    let mut parent = 0;
    while parent < target {
        let is_array = nodes[parent].kind == Kind::Array;
        let mut child = parent + 1;
        let mut position = 0;
        while child <= target && (nodes[child].next as usize) <= target {
            child = nodes[child].next as usize;
            position += 1;
        }
        if is_array {
            path.push_str(&format!("[{position}]"));
        } else {
            path = join(path, &name(text, &nodes[child]));
        }
        if path.len() > MAX_PATH {
            path.push('…');
            break;
        }
        parent = child;
    }
    path
}

/// `path.name`.
pub(super) fn join(mut path: String, name: &str) -> String {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
    path
}

fn name(text: &str, node: &Node) -> String {
    if node.key == Span::NONE {
        return String::new();
    }
    let name = text::unescape(node.key.of(text));
    let printable = !name.is_empty()
        && name.chars().count() <= MAX_NAME
        && name.chars().all(|char| char.is_alphanumeric() || "_-$@#:/ ".contains(char))
        && name.chars().filter(char::is_ascii_digit).count() <= MAX_DIGITS;
    if printable { name.into_owned() } else { "*".to_owned() }
}
