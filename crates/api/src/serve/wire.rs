//! The bytes of one connection, between the socket and hyper.
//!
//! hyper answers by itself what it cannot read, with an empty body, and has no hook for
//! that. Its answer is recognised here, kept back, and given anew with a body that says
//! what is wrong. A client that takes nothing of its answer for too long is let go.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::StatusCode;
use tidings_types::{BoxFuture, Clock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Framing;

/// The longest answer that hyper makes by itself.
const MAX_REFUSAL: usize = 256;

/// A connection that is being read and written.
pub(super) struct Wire<S> {
    stream: S,
    framing: Framing,
    /// What hyper answered by itself.
    refusal: Option<StatusCode>,
    clock: Arc<dyn Clock>,
    /// How long a client may take nothing of what is written.
    patience: Duration,
    /// Ends when that is over.
    stall: Option<BoxFuture<'static, ()>>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, clock: Arc<dyn Clock>, patience: Duration) -> Self {
        Self { stream, framing: Framing::new(), refusal: None, clock, patience, stall: None }
    }

    /// The status of the answer that was kept back.
    pub(super) fn refusal(&self) -> Option<StatusCode> {
        self.refusal
    }

    /// Whether a request's head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.framing.is_in_head()
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Lets what was written wait, but not for ever.
    fn wait<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| self.clock.sleep(self.patience));
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The status of an answer that only hyper makes: one of these with nothing in it. An
/// answer of ours that says so has a body.
fn status_of_refusal(bytes: &[u8]) -> Option<StatusCode> {
    if bytes.len() > MAX_REFUSAL || !bytes.starts_with(b"HTTP/1.") {
        return None;
    }
    let status = match bytes.get(8..13)? {
        b" 400 " => StatusCode::BAD_REQUEST,
        b" 414 " => StatusCode::URI_TOO_LONG,
        b" 431 " => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => return None,
    };
    let empty = b"\r\ncontent-length: 0\r\n";
    let is_empty = bytes.windows(empty.len()).any(|part| part == empty);
    (is_empty && bytes.ends_with(b"\r\n\r\n")).then_some(status)
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, into);
        if let Some(new) = into.filled_mut().get_mut(before..) {
            this.framing.read(new);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(status) = status_of_refusal(bytes) {
            this.refusal = Some(status);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wait(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next())
            && let Some(status) = status_of_refusal(only)
        {
            this.refusal = Some(status);
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.wait(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.wait(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closed = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.wait(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_answers_are_kept_back() {
        let of = |text: &str| status_of_refusal(text.as_bytes()).map(|status| status.as_u16());
        let date = "date: Sun, 17 Mar 2024 12:00:00 GMT\r\n\r\n";
        for (line, status) in [
            ("400 Bad Request", 400),
            ("414 URI Too Long", 414),
            ("431 Request Header Fields Too Large", 431),
        ] {
            let head = format!("HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\n");
            assert_eq!(of(&format!("{head}{date}")), Some(status));
        }
        for ours in [
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 20\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP",
            "",
        ] {
            assert_eq!(of(ours), None, "{ours:?}");
        }
    }
}
