//! One connection of an endpoint.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_rustls::server::TlsStream;

use super::{Behaviour, Received, Recording, Shared, Step};

pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Memory(DuplexStream),
}

/// Whether the connection goes on.
enum Next {
    GoOn,
    End,
}

/// Serves until the other side closes or a step ends it. A broken connection is
/// the client's business.
pub(super) async fn serve(shared: Arc<Shared>, mut stream: Stream, number: u64) {
    if let Some(greeting) = shared.greeting()
        && !matches!(perform(&mut stream, &greeting).await, Ok(Next::GoOn))
    {
        return;
    }
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        let read = match shared.recording {
            Recording::Everything => read_request(&mut stream, &mut buffer).await.map(Some),
            Recording::Number => skip_request(&mut stream, &mut buffer).await.map(|()| None),
        };
        let Ok(received) = read else { return };
        // Chosen in the order in which the requests are recorded.
        let behaviour = {
            let mut all = shared.received.lock();
            if let Some(mut received) = received {
                received.connection = number;
                received.peer = stream.peer();
                all.push(received);
            }
            shared.requests.fetch_add(1, Ordering::AcqRel);
            shared.next_behaviour()
        };
        shared.changed();
        if !matches!(perform(&mut stream, &behaviour).await, Ok(Next::GoOn)) {
            return;
        }
    }
}

async fn perform(stream: &mut Stream, behaviour: &Behaviour) -> io::Result<Next> {
    for step in behaviour.as_steps() {
        match step {
            Step::Send(bytes) => stream.send(bytes).await?,
            Step::SendTimes { piece, times, pause } => {
                for _ in 0..*times {
                    sleep_until(Instant::now() + *pause).await;
                    stream.send(piece).await?;
                }
            }
            Step::SendForEver(piece) => loop {
                stream.send(piece).await?;
            },
            Step::Wait(delay) => sleep_until(Instant::now() + *delay).await,
            Step::Close => {
                stream.shutdown().await?;
                return Ok(Next::End);
            }
            Step::Reset => {
                match stream {
                    Stream::Tcp(tcp) => tcp.set_zero_linger()?,
                    Stream::Tls(tls) => tls.get_ref().0.set_zero_linger()?,
                    Stream::Memory(_) => {}
                }
                return Ok(Next::End);
            }
            Step::Hang => {
                let mut ignored = [0; 1024];
                while stream.read(&mut ignored).await? > 0 {}
                return Ok(Next::End);
            }
        }
    }
    Ok(Next::GoOn)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn fill(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn read_request(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<Received> {
    let (mut received, head, length) = loop {
        if let Some(parsed) = parse(buffer)? {
            break parsed;
        }
        fill(stream, buffer).await?;
    };
    while buffer.len() < head + length {
        fill(stream, buffer).await?;
    }
    buffer.advance(head);
    received.body = buffer.split_to(length).freeze();
    received.at = Instant::now();
    Ok(received)
}

/// The head of the request, its length and that of the body; `None` if it is not
/// complete.
fn parse(buffer: &[u8]) -> io::Result<Option<(Received, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buffer).map_err(invalid)? else {
        return Ok(None);
    };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(invalid)?;
        map.append(name, HeaderValue::from_bytes(header.value).map_err(invalid)?);
    }
    let length = match map.get(http::header::CONTENT_LENGTH) {
        Some(length) => length.to_str().map_err(invalid)?.parse().map_err(invalid)?,
        None => 0,
    };
    let received = Received {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        headers: map,
        body: Bytes::new(),
        at: Instant::now(),
        connection: 0,
        peer: None,
    };
    Ok(Some((received, head, length)))
}

/// As [`read_request`], but as fast as can be and keeping nothing.
async fn skip_request(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<()> {
    loop {
        if let Some(head) = buffer.windows(4).position(|end| end == b"\r\n\r\n") {
            let length = content_length(buffer.get(..head).unwrap_or_default());
            let whole = head + 4 + length;
            while buffer.len() < whole {
                fill(stream, buffer).await?;
            }
            buffer.advance(whole);
            if buffer.is_empty() {
                buffer.clear();
                buffer.reserve(16 * 1024);
            }
            return Ok(());
        }
        fill(stream, buffer).await?;
    }
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length: ";
    head.split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
        .and_then(|line| std::str::from_utf8(line.get(NAME.len()..)?).ok())
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0)
}

impl Stream {
    fn peer(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
            Self::Memory(_) => None,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    fn io(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
            Self::Memory(stream) => Pin::new(stream),
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(context)
    }
}
