//! Reads along with what a client sends, and spoils a request whose end two readers
//! could find in two places (request smuggling, `reliability-security.md` §7.12, B15).
//!
//! hyper reads bare line feeds, a length beside an encoding, and one length twice as
//! RFC 9112 lets it; a proxy before us may read them otherwise. The line that makes a
//! head ambiguous gets a zero byte in the place of its end, which hyper refuses with 400
//! and by closing. Nothing else of what is read changes, and bodies are passed over
//! by their length.

use std::mem;

/// The longest line that is looked at. One that begins as a header that frames a body
/// and is longer says nothing that is taken.
const MAX_LINE: usize = 64;

/// What the next line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    RequestLine,
    Header,
    /// The length of a chunk.
    Chunk,
    Trailer,
}

/// How far one connection has been read.
#[derive(Debug)]
pub(super) struct Framing {
    next: Next,
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// How long it is, and its last byte.
    length: usize,
    last: u8,
    /// Bytes of a body that are still to come.
    skip: u64,
    /// What the head says of its body.
    content_length: Option<u64>,
    is_chunked: bool,
    /// Spoilt, or not HTTP: what follows is not looked at.
    is_over: bool,
}

/// A line that is not taken.
struct Bad;

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            next: Next::RequestLine,
            line: Vec::with_capacity(MAX_LINE),
            length: 0,
            last: 0,
            skip: 0,
            content_length: None,
            is_chunked: false,
            is_over: false,
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        match self.next {
            Next::RequestLine => self.skip == 0 && self.length > 0,
            Next::Header => true,
            Next::Chunk | Next::Trailer => false,
        }
    }

    /// Looks at the bytes that came next, and spoils them if they have to be.
    pub(super) fn read(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !self.is_over && !rest.is_empty() {
            if self.skip > 0 {
                let length = u64::try_from(rest.len()).unwrap_or(u64::MAX).min(self.skip);
                self.skip -= length;
                let length = usize::try_from(length).unwrap_or(rest.len());
                rest = mem::take(&mut rest).split_at_mut(length).1;
                continue;
            }
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return self.keep(rest);
            };
            let (line, behind) = mem::take(&mut rest).split_at_mut(end + 1);
            self.keep(line.split_last().map_or(&[], |(_, line)| line));
            if self.line_ends().is_err() {
                self.is_over = true;
                if let Some(feed) = line.last_mut() {
                    *feed = 0;
                }
            }
            rest = behind;
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// At a line feed.
    fn line_ends(&mut self) -> Result<(), Bad> {
        let mut line = mem::take(&mut self.line);
        let length = mem::take(&mut self.length);
        if length == 0 || self.last != b'\r' {
            return Err(Bad);
        }
        let is_whole = length <= line.len();
        if is_whole {
            line.pop();
        }
        let taken = self.take(&line, is_whole);
        line.clear();
        self.line = line;
        taken
    }

    fn take(&mut self, line: &[u8], is_whole: bool) -> Result<(), Bad> {
        match (self.next, line.is_empty()) {
            // Empty lines before a request are passed over.
            (Next::RequestLine, true) => {}
            (Next::RequestLine, false) => self.next = Next::Header,
            (Next::Header, false) => self.header(line, is_whole)?,
            (Next::Header, true) => {
                self.skip = self.content_length.take().unwrap_or(0);
                let is_chunked = mem::take(&mut self.is_chunked);
                self.next = if is_chunked { Next::Chunk } else { Next::RequestLine };
            }
            (Next::Chunk, _) => match chunk_length(line) {
                Some(0) => self.next = Next::Trailer,
                // The line end behind the chunk too.
                Some(length) => self.skip = length.saturating_add(2),
                // No chunk: hyper says so, or knows better than this reader.
                None => self.is_over = true,
            },
            (Next::Trailer, true) => self.next = Next::RequestLine,
            (Next::Trailer, false) => {}
        }
        Ok(())
    }

    fn header(&mut self, line: &[u8], is_whole: bool) -> Result<(), Bad> {
        // A folded line continues the one before for some readers.
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(Bad);
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default().trim_ascii();
        let (is_length, is_encoding) = (
            name.trim_ascii().eq_ignore_ascii_case(b"content-length"),
            name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding"),
        );
        if !is_length && !is_encoding {
            return Ok(());
        }
        if !is_whole || self.is_chunked || self.content_length.is_some() {
            return Err(Bad);
        }
        if is_encoding {
            self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
            return if self.is_chunked { Ok(()) } else { Err(Bad) };
        }
        let digits = std::str::from_utf8(value).ok();
        let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        self.content_length = digits.and_then(|text| text.parse().ok());
        if self.content_length.is_some() { Ok(()) } else { Err(Bad) }
    }
}

/// The length in a chunk's first line, without its extensions.
fn chunk_length(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?.trim();
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper gets to see when this comes in pieces of `size` bytes.
    fn passed(sent: &str, size: usize) -> (String, Framing) {
        let mut bytes = sent.as_bytes().to_vec();
        let mut framing = Framing::new();
        bytes.chunks_mut(size).for_each(|piece| framing.read(piece));
        (String::from_utf8(bytes).unwrap(), framing)
    }

    const SIZES: [usize; 4] = [1, 2, 7, 10_000];

    #[test]
    fn what_can_be_read_one_way_only_passes_as_it_is() {
        let long = "x".repeat(300);
        let all = [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            format!(
                "POST / HTTP/1.1\r\nx: {long}\r\nContent-Length:  7 \r\n\r\na\nb\n\n c\
                     GET / HTTP/1.1\r\nhost: a\r\n\r\n"
            ),
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\na\nb\n\n\r\n1F\r\n\
             0123456789\n0123456789\n012345678\r\n0\r\ntrailer: x\r\n\r\n\
             POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n\n\n"
                .to_owned(),
        ];
        for sent in all {
            for size in SIZES {
                let (passed, framing) = passed(&sent, size);
                assert_eq!(passed, sent);
                assert!(!framing.is_over && !framing.is_in_head(), "{sent:?}: {framing:?}");
                assert_eq!((framing.next, framing.skip), (Next::RequestLine, 0), "{sent:?}");
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_spoilt_where_it_becomes_so() {
        let ends = [
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nhost: a\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\nContent-Length: 1\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: identity\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n",
            "POST / HTTP/1.1\r\ncontent-length: +1\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 0x1\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n",
            "POST / HTTP/1.1\r\ncontent-length:\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding : chunked\r\n",
            "POST / HTTP/1.1\r\nx: y\r\n content-length: 1\r\n",
            "POST / HTTP/1.1\r\nx: y\r\n\tz\r\n",
            // Behind another request.
            "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: a\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\n",
        ];
        let spaces = " ".repeat(MAX_LINE);
        let long = format!("POST / HTTP/1.1\r\ntransfer-encoding:{spaces}chunked\r\n");
        for end in ends.into_iter().chain([long.as_str()]) {
            for size in SIZES {
                let (passed, framing) = passed(end, size);
                let expected = format!("{}\0", end.strip_suffix('\n').unwrap());
                assert_eq!(passed, expected, "in pieces of {size}");
                assert!(framing.is_over);
            }
        }
    }
}
