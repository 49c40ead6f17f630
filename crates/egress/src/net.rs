//! The real network: resolves a name, looks at every address, dials, secures.
//!
//! The one place that opens sockets to strangers. A name is resolved once per
//! connection, and the sockets go to the very addresses that were looked at, so
//! that a name cannot answer twice. No proxy, no search domain.

mod dns;
mod tls;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls_pki_types::ServerName;
use tidings_types::{AttemptCode, BoxFuture};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use url::Host;

use crate::{
    config::Config,
    connect::{ConnectError, Connector, Io, io_code},
    identity::Identity,
    metrics::Metrics,
    target::{Policy, Target},
};

use self::{dns::Dns, tls::Tls};

/// The least that one of several addresses gets of the time to connect.
const MIN_ADDRESS_TIME: Duration = Duration::from_millis(500);

/// Connects over TCP, and TLS where the target wants it.
pub struct NetConnector {
    policy: Policy,
    connect_timeout: Duration,
    max_addresses: usize,
    dns: Dns,
    tls: Tls,
    metrics: Metrics,
}

impl fmt::Debug for NetConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConnector").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl NetConnector {
    /// Makes a connector. A certificate of `extra_roots` that cannot be used is
    /// logged and left out.
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        Self {
            policy: config.policy.clone(),
            connect_timeout: config.connect_timeout,
            max_addresses: config.max_addresses,
            dns: Dns::new(config),
            tls: Tls::new(&config.extra_roots),
            metrics,
        }
    }

    async fn open(
        &self,
        target: &Target,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Io>, ConnectError> {
        if identity.is_some() && !target.is_https() {
            // Nobody would be shown the certificate, nor be asked for one.
            return Err(AttemptCode::BadConfig.into());
        }
        let addresses = self.vetted(target).await?;
        let deadline = Instant::now() + self.connect_timeout;
        let secured = timeout_at(deadline, async {
            let stream = dial(&addresses, deadline).await?;
            self.secure(target, stream, identity).await.map_err(ConnectError::from)
        });
        secured.await.unwrap_or(Err(AttemptCode::ConnectTimeout.into()))
    }

    /// The addresses of the target that may be dialled.
    async fn vetted(&self, target: &Target) -> Result<Vec<SocketAddr>, AttemptCode> {
        let mut found = match target.host() {
            Host::Ipv4(v4) => vec![IpAddr::V4(*v4)],
            Host::Ipv6(v6) => vec![IpAddr::V6(*v6)],
            Host::Domain(name) => self.dns.addresses(name).await?,
        };
        found.truncate(self.max_addresses);
        let mut vetted = Vec::with_capacity(found.len());
        for address in found {
            match target.may_dial(address, &self.policy) {
                Ok(()) => vetted.push(SocketAddr::new(address.to_canonical(), target.port())),
                Err(class) => self.metrics.address_blocked(class),
            }
        }
        if vetted.is_empty() { Err(AttemptCode::BlockedAddress) } else { Ok(vetted) }
    }

    async fn secure(
        &self,
        target: &Target,
        stream: TcpStream,
        identity: Option<&Identity>,
    ) -> Result<Box<dyn Io>, AttemptCode> {
        if !target.is_https() {
            return Ok(Box::new(stream));
        }
        let name = match target.host() {
            Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|_not_a_dns_name| AttemptCode::TlsNameMismatch)?,
            Host::Ipv4(v4) => ServerName::from(IpAddr::V4(*v4)),
            Host::Ipv6(v6) => ServerName::from(IpAddr::V6(*v6)),
        };
        Ok(Box::new(self.tls.connect(name, stream, identity).await?))
    }
}

impl Connector for NetConnector {
    fn connect<'a>(
        &'a self,
        target: &'a Target,
        identity: Option<&'a Identity>,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(self.open(target, identity))
    }
}

/// Tries the addresses in turn. Each gets its share of the time that is left, so
/// that one that swallows packets does not use up the others' (§7.5, EP6).
async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::from(AttemptCode::ConnectTimeout);
    let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = (left / untried.max(1)).max(MIN_ADDRESS_TIME);
        untried = untried.saturating_sub(1);
        match timeout(share, dial_one(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_late) => last = AttemptCode::ConnectTimeout.into(),
        }
    }
    Err(last)
}

async fn dial_one(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    #[expect(clippy::disallowed_methods, reason = "the one door: the address is vetted")]
    let connecting = TcpStream::connect(address);
    let stream = connecting.await.map_err(|error| connect_error(&error))?;
    if stream.peer_addr().map_err(|error| ConnectError::from(io_code(&error)))? != address {
        return Err(AttemptCode::BlockedAddress.into());
    }
    stream.set_nodelay(true).map_err(|error| ConnectError::from(io_code(&error)))?;
    Ok(stream)
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
