//! A strict JSON checker that keeps where things stand.
//!
//! One pass says whether bytes are exactly one JSON document (RFC 8259) in
//! UTF-8, without a repeated key, not nested deeper than [`MAX_DEPTH`] and with
//! fewer than [`MAX_ELEMENTS`] array elements, and gives the spans of all values.
//! It never changes or interprets a value: numbers stay text (`-0`, `1e400`, 30
//! decimals), strings keep their escapes. General-purpose parsers do not do this:
//! they fold numbers into doubles or take the last of two equal keys, and two
//! receivers then disagree.
//!
//! It does not know what an event is; that is [`crate::Event`].

mod edit;
mod path;
mod scan;
mod text;

use std::{borrow::Cow, fmt, ops::Range};

use tidings_types::QuarantineCode;

pub use edit::{replace, without};

/// How deep arrays and objects may nest; the document itself is the first level
/// (`reliability-security.md` §7.8, P7).
pub const MAX_DEPTH: usize = 32;
/// From how many array elements in all a document is refused (P18).
pub const MAX_ELEMENTS: usize = 100_000;
/// The longest document, in bytes. Events are held to less; a rendered body is
/// an event's bytes and a little more.
pub const MAX_BYTES: usize = 2 << 20;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Boolean,
    /// A number without fraction and exponent.
    Integer,
    /// A number with a fraction or an exponent.
    Decimal,
    String,
    Array,
    Object,
}

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct Error {
    /// `BAD_JSON`, `BAD_UTF8`, `DUPLICATE_KEY`, `TOO_DEEP` or `TOO_LARGE`.
    pub code: QuarantineCode,
    /// Where, counted from 0.
    pub offset: usize,
    /// The member, where one can be named: `payload.accounts[0].id`.
    pub path: Option<String>,
    /// What is wrong; never quotes the document.
    pub what: &'static str,
}

/// A checked document: its text and the place of every value in it.
#[derive(Clone)]
pub struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// One value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'d> {
    text: &'d str,
    nodes: &'d [Node],
    index: usize,
}

/// Values stand in the order of the text: an object's or array's children follow
/// it, and `next` is the first node after them.
#[derive(Clone, Copy)]
struct Node {
    /// The key without its quotes; empty at `u32::MAX` where there is none.
    key: Span,
    /// The value with its quotes or brackets.
    value: Span,
    next: u32,
    kind: Kind,
    key_escaped: bool,
    value_escaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const NONE: Self = Self { start: u32::MAX, end: u32::MAX };

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn of(self, text: &str) -> &str {
        text.get(self.range()).unwrap_or_default()
    }
}

impl<'a> Document<'a> {
    /// Checks `bytes` and notes where each value stands.
    ///
    /// # Errors
    /// The first fault found, front to back; encoding faults come before all
    /// others.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        scan::scan(bytes)
    }

    /// The whole document.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        self.value(0)
    }

    pub(crate) fn value(&self, index: usize) -> Value<'_> {
        Value { text: self.text, nodes: &self.nodes, index }
    }

    /// The path of the first value whose text, or whose key, has half of a surrogate
    /// pair: legal JSON, but no text.
    pub fn lone_surrogate(&self) -> Option<String> {
        let mut values = (0..self.nodes.len()).map(|index| self.value(index));
        values.find(Value::has_lone_surrogate).map(|value| value.path())
    }

    /// All values with a key, in the order of the text.
    pub fn members(&self) -> impl Iterator<Item = Value<'_>> {
        (0..self.nodes.len()).map(|index| self.value(index)).filter(Value::has_key)
    }
}

impl fmt::Debug for Document<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents hold card data: say how large, not what.
        write!(f, "Document({} bytes, {} values)", self.text.len(), self.nodes.len())
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({:?}, {} bytes)", self.kind(), self.raw().len())
    }
}

impl<'d> Value<'d> {
    fn node(&self) -> &'d Node {
        &self.nodes[self.index]
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub fn kind(&self) -> Kind {
        self.node().kind
    }

    /// The bytes of the value within the document, quotes and brackets included.
    pub fn span(&self) -> Range<usize> {
        self.node().value.range()
    }

    /// The value as it stands in the document.
    pub fn raw(&self) -> &'d str {
        self.node().value.of(self.text)
    }

    fn has_key(&self) -> bool {
        self.node().key != Span::NONE
    }

    /// The key as it stands in the document, without quotes; empty for the root
    /// and for array elements.
    pub fn raw_key(&self) -> &'d str {
        self.node().key.of(self.text)
    }

    /// The key with its escapes resolved.
    pub fn key(&self) -> Cow<'d, str> {
        if self.node().key_escaped { text::unescape(self.raw_key()) } else { self.raw_key().into() }
    }

    /// Whether the key is `name`, however it is escaped.
    pub fn key_is(&self, name: &str) -> bool {
        if self.node().key_escaped { self.key() == name } else { self.raw_key() == name }
    }

    fn has_lone_surrogate(&self) -> bool {
        let node = self.node();
        (node.key_escaped && text::has_lone_surrogate(self.raw_key()))
            || (node.value_escaped && text::has_lone_surrogate(self.raw()))
    }

    /// The content of a string with its escapes resolved.
    pub fn string(&self) -> Option<Cow<'d, str>> {
        if self.kind() != Kind::String {
            return None;
        }
        let raw = self.raw();
        let inside = raw.get(1..raw.len() - 1).unwrap_or_default();
        Some(if self.node().value_escaped { text::unescape(inside) } else { inside.into() })
    }

    /// The text of an id: a string's content, or an integer's digits (`-0` is
    /// `0`), so that a number and a string are one id. `None` for anything else
    /// and for an empty string.
    pub fn id_text(&self) -> Option<Cow<'d, str>> {
        match self.kind() {
            Kind::String => self.string().filter(|text| !text.is_empty()),
            Kind::Integer if self.raw() == "-0" => Some("0".into()),
            Kind::Integer => Some(self.raw().into()),
            Kind::Null | Kind::Boolean | Kind::Decimal | Kind::Array | Kind::Object => None,
        }
    }

    /// The value of an integer that fits.
    pub fn integer(&self) -> Option<i64> {
        (self.kind() == Kind::Integer).then(|| self.raw().parse().ok()).flatten()
    }

    /// An object's members or an array's elements, in the order of the text.
    pub fn children(&self) -> Children<'d> {
        Children {
            text: self.text,
            nodes: self.nodes,
            index: self.index + 1,
            end: self.node().next as usize,
        }
    }

    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<Self> {
        match self.kind() {
            Kind::Object => self.children().find(|member| member.key_is(name)),
            Kind::Null
            | Kind::Boolean
            | Kind::Integer
            | Kind::Decimal
            | Kind::String
            | Kind::Array => None,
        }
    }

    /// The member at a dotted path of member names, such as `card.externalId`.
    pub fn at(&self, dotted: &str) -> Option<Self> {
        dotted.split('.').try_fold(*self, |value, name| value.get(name))
    }

    /// Where the value stands, such as `payload.accounts[0].id`; empty for the
    /// root. Names that no platform would give a field are shown as `*`, so that
    /// a path can be printed anywhere.
    pub fn path(&self) -> String {
        path::of(self.text, self.nodes, self.index)
    }

    /// The path that a member `name` of this object would have.
    pub fn path_of(&self, name: &str) -> String {
        path::join(self.path(), name)
    }
}

/// The members of an object or the elements of an array.
pub struct Children<'d> {
    text: &'d str,
    nodes: &'d [Node],
    index: usize,
    end: usize,
}

impl<'d> Iterator for Children<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Value<'d>> {
        if self.index >= self.end {
            return None;
        }
        let value = Value { text: self.text, nodes: self.nodes, index: self.index };
        self.index = value.node().next as usize;
        Some(value)
    }
}

impl fmt::Debug for Children<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Children({}..{})", self.index, self.end)
    }
}

#[cfg(test)]
mod tests;
