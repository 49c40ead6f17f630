//! Watches the bytes of a connection, so that a report can say what really
//! happened on it, and no answer is taken for that of another request.
//!
//! hyper tells neither whether a byte of the request left this process, nor how
//! many informational answers came, and its parser is lenient about line ends.
//! The watch reads along: it counts what was written, remembers the first fault,
//! and checks the heads of answers for size, number and line ends. Bodies are
//! not looked at.
//!
//! An endpoint may answer before it has read the request. On a new connection
//! such an answer is kept back until the request is written, so that it counts
//! however early it comes; but the connection carries no other request. On a
//! kept connection bytes that are there before the request are nobody's answer:
//! the system is asked just before the write, since the runtime may not know yet
//! what has arrived. When the endpoint stops reading, the rest of the request is
//! dropped and what it says or does decides.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tidings_types::AttemptCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    config::{MAX_INFORMATIONAL, MAX_RESPONSE_HEAD, MAX_RESPONSE_HEADERS},
    connect::{Io, io_code},
};

/// A stream with a watch on it.
pub(crate) struct Watched {
    io: Box<dyn Io>,
    watch: Arc<Watch>,
    /// What came before anything was written.
    early: Bytes,
}

/// What was seen since [`Watch::begin`].
#[derive(Debug, Default)]
pub(crate) struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    phase: Phase,
    /// Who waits for reads that are held back.
    reader: Option<Waker>,
    /// Nothing may follow on this connection.
    is_spoiled: bool,
    written: bool,
    /// Whether a byte of an answer was read.
    is_answered: bool,
    fault: Option<AttemptCode>,
    /// Why no more of the request can be written.
    broken: Option<AttemptCode>,
    heads: Heads,
}

/// How far the present exchange is, as far as reading goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Of the first request nothing is written yet: reads wait.
    #[default]
    First,
    /// Of a later request nothing is written yet: nothing may have come.
    Next,
    /// The request is being written or is written.
    Open,
}

/// An answer that breaks the rules; hyper passes it on without a look.
#[derive(Debug, thiserror::Error)]
#[error("the answer was refused with {0}")]
struct Refused(AttemptCode);

/// Bytes or an end on a kept connection, before the next request.
#[derive(Debug, thiserror::Error)]
#[error("something came that nobody asked for")]
struct Unasked;

impl Watched {
    pub(crate) fn new(io: Box<dyn Io>) -> (Self, Arc<Watch>) {
        let watch = Arc::default();
        (Self { io, watch: Arc::clone(&watch), early: Bytes::new() }, watch)
    }

    /// Takes what a new connection's endpoint has said before it was asked.
    pub(crate) fn poll_settle(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), AttemptCode>> {
        let mut space = [0; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut self.io).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Err(AttemptCode::ClosedEarly))
            }
            Poll::Ready(Ok(())) => {
                self.early = Bytes::copy_from_slice(buffer.filled());
                self.watch.spoil();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(io_code(&error))),
            Poll::Pending if self.io.is_quiet() => Poll::Ready(Ok(())),
            // The runtime learns of it in a moment and wakes this task.
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Watch {
    /// Forgets the last exchange.
    pub(crate) fn begin(&self) {
        let mut seen = self.0.lock();
        let phase = if seen.phase == Phase::First { Phase::First } else { Phase::Next };
        let is_spoiled = seen.is_spoiled;
        *seen = Seen { heads: Heads::expected(), phase, is_spoiled, ..Seen::default() };
    }

    /// Whether the endpoint may have seen something of the request.
    pub(crate) fn has_written(&self) -> bool {
        self.0.lock().written
    }

    /// From now on nothing may follow on this connection.
    pub(crate) fn spoil(&self) {
        self.0.lock().is_spoiled = true;
    }

    /// Whether nothing may follow on this connection.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.0.lock().is_spoiled
    }

    /// The first fault of the stream or of an answer's head.
    ///
    /// A server that closes while there is something that it has not read resets
    /// the connection: once an answer has begun, both are the same (§7.5, EP34,
    /// EP43).
    pub(crate) fn fault(&self) -> Option<AttemptCode> {
        let seen = self.0.lock();
        match seen.fault.or(seen.broken) {
            Some(AttemptCode::ConnectionReset) if seen.is_answered => {
                Some(AttemptCode::ClosedEarly)
            }
            fault => fault,
        }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.0.lock().fault.get_or_insert(io_code(error));
        }
        result
    }

    /// Notes how a write of `length` bytes went, and lets reads through.
    fn note_written(&self, result: io::Result<usize>, length: usize) -> io::Result<usize> {
        let mut seen = self.0.lock();
        seen.phase = Phase::Open;
        if let Some(reader) = seen.reader.take() {
            reader.wake();
        }
        match result {
            Ok(written) => {
                seen.written |= written > 0;
                Ok(written)
            }
            Err(error) => {
                // In order before it was reset: that is for the reader to find.
                let in_order = error.kind() == io::ErrorKind::BrokenPipe;
                let code = if in_order { AttemptCode::ClosedEarly } else { io_code(&error) };
                seen.broken.get_or_insert(code);
                seen.is_spoiled = true;
                Ok(length)
            }
        }
    }

    /// Whether writing is of no use any more.
    fn is_broken(&self) -> bool {
        self.0.lock().broken.is_some()
    }

    fn note_read(&self, bytes: &[u8]) -> io::Result<()> {
        let mut seen = self.0.lock();
        seen.is_answered |= !bytes.is_empty();
        match seen.heads.read(bytes) {
            Ok(()) => Ok(()),
            Err(code) => {
                seen.fault.get_or_insert(code);
                Err(io::Error::other(Refused(code)))
            }
        }
    }

    /// Whether a read may go on now; if not, `context` is woken when it may.
    fn poll_read_phase(&self, context: &Context<'_>) -> Poll<Phase> {
        let mut seen = self.0.lock();
        if seen.phase == Phase::First {
            seen.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(seen.phase)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("watch", &self.watch).finish_non_exhaustive()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = ready!(self.watch.poll_read_phase(context));
        if phase == Phase::Next && !self.io.is_quiet() {
            return Poll::Ready(Err(io::Error::other(Unasked)));
        }
        if !self.early.is_empty() {
            let length = self.early.len().min(buffer.remaining());
            let piece = self.early.split_to(length);
            buffer.put_slice(piece.chunk());
            return Poll::Ready(self.watch.note_read(&piece));
        }
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
        self.watch.note(result)?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.watch.note_read(read))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.watch.is_broken() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        Poll::Ready(self.watch.note_written(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.watch.is_broken() {
            return Poll::Ready(Ok(length));
        }
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(context, slices));
        Poll::Ready(self.watch.note_written(result, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.is_broken() {
            return Poll::Ready(Ok(()));
        }
        // TLS may hold back what it was given: what fails here is a write.
        let result = ready!(Pin::new(&mut self.io).poll_flush(context));
        Poll::Ready(match result {
            Ok(()) => Ok(()),
            Err(error) => self.watch.note_written(Err(error), 0).map(|_nothing| ()),
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Follows the heads of the answers to one request, in pieces of any size.
#[derive(Debug, Default)]
struct Heads {
    /// Whether the next byte belongs to a head.
    in_head: bool,
    informational: usize,
    /// Of the present head.
    bytes: usize,
    lines: usize,
    is_informational: bool,
    /// Of the present line.
    line_bytes: usize,
    last: u8,
}

/// Where the first digit of the status stands in `HTTP/1.1 200 OK`.
const STATUS_AT: usize = 9;

impl Heads {
    fn expected() -> Self {
        Self { in_head: true, ..Self::default() }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), AttemptCode> {
        while self.in_head && !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let (piece, rest) = bytes.split_at(end);
            bytes = rest;
            self.piece(piece)?;
        }
        Ok(())
    }

    /// Takes the rest of a line or a part of it.
    fn piece(&mut self, piece: &[u8]) -> Result<(), AttemptCode> {
        self.bytes += piece.len();
        if self.bytes > MAX_RESPONSE_HEAD {
            return Err(AttemptCode::ResponseHeadersTooLarge);
        }
        if self.lines == 0
            && let Some(status) = STATUS_AT.checked_sub(self.line_bytes)
            && let Some(digit) = piece.get(status)
        {
            self.is_informational = *digit == b'1';
        }
        let Some((b'\n', before)) = piece.split_last() else {
            self.line_bytes += piece.len();
            self.last = piece.last().copied().unwrap_or(self.last);
            return Ok(());
        };
        if before.last().copied().unwrap_or(self.last) != b'\r' {
            return Err(AttemptCode::ProtocolError);
        }
        let is_empty = self.line_bytes + piece.len() == 2;
        self.line_bytes = 0;
        self.last = b'\n';
        if !is_empty {
            self.lines += 1;
            // The status line is the first.
            if self.lines > MAX_RESPONSE_HEADERS + 1 {
                return Err(AttemptCode::ResponseHeadersTooLarge);
            }
            return Ok(());
        }
        if self.lines == 0 {
            // Empty lines before a head are skipped, here as by hyper.
            return Ok(());
        }
        if !self.is_informational {
            self.in_head = false;
            return Ok(());
        }
        self.informational += 1;
        if self.informational > MAX_INFORMATIONAL {
            return Err(AttemptCode::ProtocolError);
        }
        let informational = self.informational;
        *self = Self { informational, ..Self::expected() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on `text`, the same however it is cut.
    #[track_caller]
    fn check(text: &str, expected: Result<(), AttemptCode>) {
        for size in [1, 2, 3, 7, 64, usize::MAX] {
            let mut heads = Heads::expected();
            let result = text
                .as_bytes()
                .chunks(size.min(text.len()))
                .try_for_each(|piece| heads.read(piece));
            assert_eq!(result, expected, "{text:?} in pieces of {size}");
        }
    }

    #[test]
    fn heads_are_told_from_bodies() {
        check("HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\nwith\nlines\n\n", Ok(()));
        check("HTTP/1.1 103 x\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody\n", Ok(()));
        check("HTTP/1.1 103 x\r\na: b\r\n\r\nHTTP/1.1 200 OK\n", Err(AttemptCode::ProtocolError));
    }

    #[test]
    fn a_bare_line_feed_in_a_head_is_refused() {
        check("HTTP/1.1 200 OK\n\n", Err(AttemptCode::ProtocolError));
        check("HTTP/1.1 200 OK\r\na: b\n\r\n", Err(AttemptCode::ProtocolError));
        check("HTTP/1.1 200 OK\r\na: b\r\n\n", Err(AttemptCode::ProtocolError));
    }

    #[test]
    fn sixteen_informational_answers_are_borne() {
        let informational = |count: usize| {
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count) + "HTTP/1.1 200 OK\r\n\r\n"
        };
        check(&informational(16), Ok(()));
        check(&informational(17), Err(AttemptCode::ProtocolError));
    }

    #[test]
    fn heads_have_limits() {
        let lines = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        check(&lines(64), Ok(()));
        check(&lines(65), Err(AttemptCode::ResponseHeadersTooLarge));
        let long = |length: usize| format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(length));
        check(&long(16_000), Ok(()));
        check(&long(17_000), Err(AttemptCode::ResponseHeadersTooLarge));
        check(&"x".repeat(17_000), Err(AttemptCode::ResponseHeadersTooLarge));
    }
}
