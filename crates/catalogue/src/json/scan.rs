//! The pass over the bytes. No recursion: the open arrays and objects stand in a
//! stack of [`MAX_DEPTH`] places.

use tidings_types::QuarantineCode;

use super::{Document, Error, Kind, MAX_BYTES, MAX_DEPTH, MAX_ELEMENTS, Node, Span, path, text};

/// How many keys of one object are compared pairwise; more are sorted.
const PAIRWISE: usize = 12;
/// In an entry of `keys`, the low bits hold the node and the rest a fingerprint.
const NODE_BITS: u32 = 24;

#[derive(Clone, Copy, Default)]
struct Frame {
    node: usize,
    is_object: bool,
    /// Where this object's keys begin in `keys`.
    keys: usize,
}

#[derive(Clone, Copy)]
struct Key {
    span: Span,
    escaped: bool,
}

const NO_KEY: Key = Key { span: Span::NONE, escaped: false };

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    open: [Frame; MAX_DEPTH],
    depth: usize,
    /// The keys of all open objects, fingerprint and node.
    keys: Vec<u64>,
    elements: usize,
}

pub(super) fn scan(bytes: &[u8]) -> Result<Document<'_>, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(fault(QuarantineCode::TooLarge, MAX_BYTES, "the document is too large"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(bad) => {
            return Err(fault(QuarantineCode::BadUtf8, bad.valid_up_to(), "invalid UTF-8"));
        }
    };
    let mut scanner = Scanner {
        text,
        bytes,
        at: 0,
        nodes: Vec::with_capacity(16 + bytes.len().min(16 << 10) / 16),
        open: [Frame::default(); MAX_DEPTH],
        depth: 0,
        keys: Vec::with_capacity(64),
        elements: 0,
    };
    scanner.document()?;
    Ok(Document { text, nodes: scanner.nodes })
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Error> {
        let mut key = NO_KEY;
        loop {
            let opened = self.value(key)?;
            if !opened && !self.after_value()? {
                break;
            }
            key = if self.open[self.depth - 1].is_object { self.key()? } else { NO_KEY };
        }
        self.skip_space();
        if self.at < self.bytes.len() {
            return Err(self.bad("something follows the document"));
        }
        Ok(())
    }

    fn byte(&self) -> u8 {
        // NUL stands nowhere in a document, so it can stand for its end.
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Reads a value. True if it is an array or object with something in it: its
    /// first value (or key) comes next.
    fn value(&mut self, key: Key) -> Result<bool, Error> {
        self.skip_space();
        if self.depth > 0 && !self.open[self.depth - 1].is_object {
            self.elements += 1;
            if self.elements >= MAX_ELEMENTS {
                return Err(self.named(QuarantineCode::TooLarge, "too many array elements"));
            }
        }
        let start = self.at;
        let mut escaped = false;
        let kind = match self.byte() {
            b'"' => {
                self.at += 1;
                escaped = self.string()?;
                Kind::String
            }
            b'{' => return self.container(key, Kind::Object, b'}'),
            b'[' => return self.container(key, Kind::Array, b']'),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal(b"true", Kind::Boolean)?,
            b'f' => self.literal(b"false", Kind::Boolean)?,
            b'n' => self.literal(b"null", Kind::Null)?,
            _ => return Err(self.bad("a value is expected")),
        };
        let next = place(self.nodes.len() + 1);
        self.nodes.push(Node {
            key: key.span,
            value: Span { start: place(start), end: place(self.at) },
            next,
            kind,
            key_escaped: key.escaped,
            value_escaped: escaped,
        });
        Ok(false)
    }

    fn container(&mut self, key: Key, kind: Kind, close: u8) -> Result<bool, Error> {
        if self.depth == MAX_DEPTH {
            return Err(self.named(QuarantineCode::TooDeep, "nested too deep"));
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            key: key.span,
            value: Span { start: place(self.at), end: place(self.at) },
            next: place(node + 1),
            kind,
            key_escaped: key.escaped,
            value_escaped: false,
        });
        self.at += 1;
        self.skip_space();
        if self.byte() == close {
            self.at += 1;
            self.nodes[node].value.end = place(self.at);
            return Ok(false);
        }
        let is_object = kind == Kind::Object;
        self.open[self.depth] = Frame { node, is_object, keys: self.keys.len() };
        self.depth += 1;
        Ok(true)
    }

    /// Reads what follows a value, closing what ends there. True if another value
    /// of the innermost open array or object follows.
    fn after_value(&mut self) -> Result<bool, Error> {
        while self.depth > 0 {
            let frame = self.open[self.depth - 1];
            self.skip_space();
            match (self.byte(), frame.is_object) {
                (b',', _) => {
                    self.at += 1;
                    return Ok(true);
                }
                (b'}', true) => self.refuse_repeated_keys(frame)?,
                (b']', false) => {}
                _ => return Err(self.bad("a comma or a closing bracket is expected")),
            }
            self.at += 1;
            let next = place(self.nodes.len());
            let node = &mut self.nodes[frame.node];
            node.value.end = place(self.at);
            node.next = next;
            self.depth -= 1;
        }
        Ok(false)
    }

    /// Reads a key and its colon, and notes it for the search for repeated keys.
    fn key(&mut self) -> Result<Key, Error> {
        self.skip_space();
        if self.byte() != b'"' {
            return Err(self.bad("a key is expected"));
        }
        self.at += 1;
        let start = self.at;
        let escaped = self.string()?;
        let span = Span { start: place(start), end: place(self.at - 1) };
        self.skip_space();
        if self.byte() != b':' {
            return Err(self.bad("a colon is expected"));
        }
        self.at += 1;
        let raw = span.of(self.text);
        let print = if escaped {
            fingerprint(text::unescape(raw).as_bytes())
        } else {
            fingerprint(raw.as_bytes())
        };
        let node = u64::from(place(self.nodes.len()));
        self.keys.push((print << NODE_BITS) | node);
        Ok(Key { span, escaped })
    }

    fn refuse_repeated_keys(&mut self, frame: Frame) -> Result<(), Error> {
        let keys = &mut self.keys[frame.keys..];
        let repeated = if keys.len() <= PAIRWISE {
            repeated_in_few(self.text, &self.nodes, keys)
        } else {
            repeated_in_many(self.text, &self.nodes, keys)
        };
        self.keys.truncate(frame.keys);
        let Some(node) = repeated else { return Ok(()) };
        // The path looks into what is open, which ends nowhere yet.
        self.close_all();
        let path = path::of(self.text, &self.nodes, node);
        let offset = self.nodes[node].key.start as usize;
        Err(Error {
            path: Some(path),
            ..fault(QuarantineCode::DuplicateKey, offset, "a repeated key")
        })
    }

    /// Reads up to the closing quote; the opening one is behind. True if there
    /// are escapes.
    fn string(&mut self) -> Result<bool, Error> {
        let mut escaped = false;
        loop {
            self.at = plain_until(self.bytes, self.at);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ if self.at >= self.bytes.len() => return Err(self.bad("a string does not end")),
                _ => return Err(self.bad("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Error> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                // Half of a surrogate pair is legal JSON, and leaves as it came.
                self.check_unit(self.at)?;
                self.at += 6;
            }
            Some(_) | None => return Err(self.bad("an unknown escape")),
        }
        Ok(())
    }

    /// That the `\uXXXX` at `at` names a code unit.
    fn check_unit(&self, at: usize) -> Result<(), Error> {
        match self.text.get(at + 2..at + 6).and_then(text::hex4) {
            Some(_) => Ok(()),
            None => Err(self.bad("a \\u escape needs four hexadecimal digits")),
        }
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        self.at > start
    }

    fn number(&mut self) -> Result<Kind, Error> {
        let mut kind = Kind::Integer;
        if self.byte() == b'-' {
            self.at += 1;
        }
        if self.byte() == b'0' {
            self.at += 1;
            if self.byte().is_ascii_digit() {
                return Err(self.bad("a number with leading zeros"));
            }
        } else if !self.digits() {
            return Err(self.bad("a digit is expected"));
        }
        if self.byte() == b'.' {
            self.at += 1;
            kind = Kind::Decimal;
            if !self.digits() {
                return Err(self.bad("a digit is expected"));
            }
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            kind = Kind::Decimal;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            if !self.digits() {
                return Err(self.bad("a digit is expected"));
            }
        }
        Ok(kind)
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Result<Kind, Error> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) != Some(word) {
            return Err(self.bad("a value is expected"));
        }
        self.at = end;
        Ok(kind)
    }

    fn bad(&self, what: &'static str) -> Error {
        fault(QuarantineCode::BadJson, self.at, what)
    }

    /// A fault at the innermost open array or object, named.
    fn named(&mut self, code: QuarantineCode, what: &'static str) -> Error {
        let innermost = self.open[self.depth.saturating_sub(1)].node;
        self.close_all();
        let path = path::of(self.text, &self.nodes, innermost);
        Error { path: Some(path), ..fault(code, self.at, what) }
    }

    /// Ends all that is open here, so that the nodes form a whole. Only before an
    /// error.
    fn close_all(&mut self) {
        let end = place(self.nodes.len());
        for frame in &self.open[..self.depth] {
            self.nodes[frame.node].next = end;
        }
    }
}

fn fault(code: QuarantineCode, offset: usize, what: &'static str) -> Error {
    Error { code, offset, path: None, what }
}

/// A place in the document or the list of nodes; [`MAX_BYTES`] bounds both.
fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The first byte from `at` on that ends a run of plain characters in a string:
/// a quote, a backslash, a control character or the end. Eight bytes at a time.
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(at..at + 8).and_then(|chunk| chunk.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * 0x22);
        let slash = word ^ (ONES * 0x5C);
        // The lowest mark of each term is exact; those above it may be false.
        let marks = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let marks = marks & HIGH;
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1F) {
            break;
        }
        at += 1;
    }
    at
}

/// A number that equal keys share and different ones seldom do. It decides
/// nothing: keys with equal fingerprints are compared.
fn fingerprint(key: &[u8]) -> u64 {
    let (mut first, mut last) = ([0; 8], [0; 8]);
    if let (Some(head), Some(tail)) = (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (first, last) = (*head, *tail);
    } else {
        first[..key.len()].copy_from_slice(key);
    }
    let mixed = u64::from_le_bytes(first)
        .wrapping_add(u64::from(place(key.len())))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ u64::from_le_bytes(last).wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(31);
    mixed >> NODE_BITS
}

fn node_of(entry: u64) -> usize {
    usize::try_from(entry & ((1 << NODE_BITS) - 1)).unwrap_or(usize::MAX)
}

fn same_print(one: u64, other: u64) -> bool {
    (one ^ other) >> NODE_BITS == 0
}

fn key_text<'a>(text: &'a str, nodes: &[Node], entry: u64) -> std::borrow::Cow<'a, str> {
    let node = &nodes[node_of(entry)];
    let raw = node.key.of(text);
    if node.key_escaped { text::unescape(raw) } else { raw.into() }
}

fn repeated_in_few(text: &str, nodes: &[Node], keys: &[u64]) -> Option<usize> {
    for (index, &key) in keys.iter().enumerate() {
        for &earlier in &keys[..index] {
            if same_print(key, earlier)
                && key_text(text, nodes, key) == key_text(text, nodes, earlier)
            {
                return Some(node_of(key));
            }
        }
    }
    None
}

fn repeated_in_many(text: &str, nodes: &[Node], keys: &mut [u64]) -> Option<usize> {
    keys.sort_unstable();
    for run in keys.chunk_by_mut(|one, other| same_print(*one, *other)) {
        if run.len() == 1 {
            continue;
        }
        // Keys made to collide cost a sort, not a comparison of all pairs.
        run.sort_by(|one, other| key_text(text, nodes, *one).cmp(&key_text(text, nodes, *other)));
        for pair in run.windows(2) {
            if key_text(text, nodes, pair[0]) == key_text(text, nodes, pair[1]) {
                return Some(node_of(pair[1]));
            }
        }
    }
    None
}
