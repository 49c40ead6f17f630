//! The way out of this machine: from which address, and through which proxy.
//!
//! What goes wrong on it is ours, not the endpoint's ([`AttemptCode::is_ours`]): an
//! address that this machine does not have, a proxy that is not there or does not let us
//! in. What a proxy says of an endpoint (it is not there, does not answer, is not allowed)
//! is the endpoint's, as it would be without a proxy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tidings_types::AttemptCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};
use url::{Host, Url};

use super::dns::Dns;
use crate::{
    config::Config,
    connect::{ConnectError, io_code},
};

/// The least that one of several addresses gets of the time to connect.
const MIN_ADDRESS_TIME: Duration = Duration::from_millis(500);
/// How much of a proxy's answer is read.
const MAX_PROXY_HEAD: usize = 8 * 1024;

/// An HTTP proxy that connections go through (`CONNECT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    host: Host<String>,
    port: u16,
}

/// What is wrong with the text of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be http://HOST:PORT, without a user, a path or anything else")]
pub struct ProxyError;

impl Proxy {
    /// Reads `http://HOST:PORT`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        let url = Url::parse(text).map_err(|_bad| ProxyError)?;
        let is_bare = url.scheme() == "http"
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let (Some(host), Some(port), true) = (url.host(), url.port_or_known_default(), is_bare)
        else {
            return Err(ProxyError);
        };
        if port == 0 {
            return Err(ProxyError);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

pub(super) struct Way {
    /// Addresses of this machine to go out from; none: the system chooses.
    bind: Vec<IpAddr>,
    /// In turn.
    next: AtomicUsize,
    proxy: Option<Proxy>,
}

impl Way {
    pub(super) fn new(config: &Config) -> Self {
        Self { bind: config.bind.clone(), next: AtomicUsize::new(0), proxy: config.proxy.clone() }
    }

    /// Tries the addresses in turn. Each gets its share of the time that is left, so
    /// that one that swallows packets does not use up the others' (§7.5, EP6).
    pub(super) async fn dial(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
        dns: &Dns,
    ) -> Result<TcpStream, ConnectError> {
        let Some(proxy) = &self.proxy else { return self.dial_each(addresses, deadline).await };
        let proxies = proxy_addresses(proxy, dns).await?;
        let mut last = ConnectError::from(AttemptCode::ConnectTimeout);
        for address in addresses {
            // Long before the deadline, which says something of the endpoint.
            let left = deadline.saturating_duration_since(Instant::now());
            let stream = self.dial_each(&proxies, Instant::now() + left / 2).await;
            let stream = stream.map_err(|error| {
                if error.code.is_ours() { error } else { AttemptCode::ProxyFailed.into() }
            })?;
            match through(stream, *address).await {
                Ok(stream) => return Ok(stream),
                Err(code) if code.is_ours() => return Err(code.into()),
                Err(code) => last = code.into(),
            }
        }
        Err(last)
    }

    async fn dial_each(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<TcpStream, ConnectError> {
        let mut last = ConnectError::from(AttemptCode::ConnectTimeout);
        let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = (left / untried.max(1)).max(MIN_ADDRESS_TIME);
            untried = untried.saturating_sub(1);
            match timeout_at(Instant::now() + share, self.dial_one(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_late) => last = AttemptCode::ConnectTimeout.into(),
            }
        }
        Err(last)
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = match self.source(address)? {
            None => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the one door: the address is vetted"
                )]
                let connecting = TcpStream::connect(address);
                connecting.await
            }
            Some(source) => {
                let socket = bound(source)?;
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the one door: the address is vetted"
                )]
                let connecting = socket.connect(address);
                connecting.await
            }
        };
        let stream = stream.map_err(|error| connect_error(&error))?;
        if stream.peer_addr().map_err(|error| ConnectError::from(io_code(&error)))? != address {
            return Err(AttemptCode::BlockedAddress.into());
        }
        stream.set_nodelay(true).map_err(|error| ConnectError::from(io_code(&error)))?;
        Ok(stream)
    }

    /// Where to go out from to an address; `None`: wherever the system wants.
    fn source(&self, to: SocketAddr) -> Result<Option<IpAddr>, AttemptCode> {
        if self.bind.is_empty() {
            return Ok(None);
        }
        let mut fitting = self.bind.iter().filter(|from| from.is_ipv4() == to.is_ipv4());
        let count = fitting.clone().count();
        // Of an endpoint with addresses of both kinds the other one is tried.
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count);
        let turn = turn.ok_or(AttemptCode::ConnectRefused)?;
        Ok(fitting.nth(turn).copied())
    }
}

fn bound(source: IpAddr) -> Result<TcpSocket, AttemptCode> {
    let made = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = made.and_then(|socket| {
        socket.bind(SocketAddr::new(source, 0))?;
        Ok(socket)
    });
    bound.map_err(|_error| AttemptCode::BindFailed)
}

async fn proxy_addresses(proxy: &Proxy, dns: &Dns) -> Result<Vec<SocketAddr>, AttemptCode> {
    let found = match &proxy.host {
        Host::Ipv4(v4) => vec![IpAddr::V4(*v4)],
        Host::Ipv6(v6) => vec![IpAddr::V6(*v6)],
        Host::Domain(name) => {
            let found = dns.addresses(name.trim_end_matches('.')).await;
            found.map_err(|_not_found| AttemptCode::ProxyFailed)?
        }
    };
    Ok(found.into_iter().map(|address| SocketAddr::new(address, proxy.port)).collect())
}

/// Has a proxy connect to the very address that was judged, never to a name.
async fn through(mut stream: TcpStream, to: SocketAddr) -> Result<TcpStream, AttemptCode> {
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let gone = |_error: std::io::Error| AttemptCode::ProxyFailed;
    stream.write_all(request.as_bytes()).await.map_err(gone)?;
    let mut head = Vec::new();
    let mut piece = [0; 512];
    loop {
        let read = stream.read(&mut piece).await.map_err(gone)?;
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            verdict(&head)?;
            // The endpoint speaks before it was asked anything.
            let is_early = head.len() > end + 4;
            return if is_early { Err(AttemptCode::ProtocolError) } else { Ok(stream) };
        }
        if read == 0 || head.len() > MAX_PROXY_HEAD {
            return Err(AttemptCode::ProxyFailed);
        }
    }
}

/// What a proxy's answer says. Proxies say that an endpoint is not there with different
/// codes (500, 502, 503): taken for our own fault, a dead endpoint would never count.
fn verdict(head: &[u8]) -> Result<(), AttemptCode> {
    let digits = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..5));
    let status = digits
        .and_then(|digits| digits.strip_prefix(b" "))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(403) => Err(AttemptCode::BlockedAddress),
        Some(504) => Err(AttemptCode::ConnectTimeout),
        Some(500..=599) => Err(AttemptCode::ConnectRefused),
        Some(_) | None => Err(AttemptCode::ProxyFailed),
    }
}

/// Unreachable networks and hosts count as refusals: somebody said no at once. Where
/// that was this machine, no way was found.
fn connect_error(error: &std::io::Error) -> ConnectError {
    use std::io::ErrorKind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign and not exhaustive")]
    let (code, is_lost) = match error.kind() {
        ErrorKind::ConnectionReset => (AttemptCode::ConnectionReset, false),
        ErrorKind::TimedOut => (AttemptCode::ConnectTimeout, false),
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable => {
            (AttemptCode::ConnectRefused, false)
        }
        // No route, no free port or descriptor, a firewall of this machine.
        _ => (AttemptCode::ConnectRefused, true),
    };
    ConnectError { code, is_lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        for (text, shown) in [
            ("http://proxy.internal:3128", "http://proxy.internal:3128"),
            ("http://10.0.0.1:80/", "http://10.0.0.1:80"),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("http://proxy", "http://proxy:80"),
        ] {
            assert_eq!(Proxy::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://user:word@proxy:3128",
            "http://proxy:3128/path",
            "http://proxy:3128?x",
            "http://proxy:0",
        ] {
            assert_eq!(Proxy::parse(text), Err(ProxyError), "{text}");
        }
    }

    #[test]
    fn what_a_proxy_says_of_the_endpoint_is_the_endpoints() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.0 200 Connection established\r\n\r\n", Ok(())),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", Err(AttemptCode::BlockedAddress)),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Err(AttemptCode::ConnectRefused)),
            ("HTTP/1.1 503 x\r\n\r\n", Err(AttemptCode::ConnectRefused)),
            ("HTTP/1.1 504 x\r\n\r\n", Err(AttemptCode::ConnectTimeout)),
            ("HTTP/1.1 407 x\r\n\r\n", Err(AttemptCode::ProxyFailed)),
            ("HTTP/1.1 302 x\r\n\r\n", Err(AttemptCode::ProxyFailed)),
            ("SSH-2.0-x\r\n\r\n", Err(AttemptCode::ProxyFailed)),
            ("\r\n\r\n", Err(AttemptCode::ProxyFailed)),
        ] {
            assert_eq!(verdict(head.as_bytes()), expected, "{head}");
        }
    }
}
