//! The real network: resolves a name, looks at every address, dials, secures.
//!
//! The one place that opens sockets to strangers. A name is resolved once per
//! connection, and the sockets go to the very addresses that were looked at, so
//! that a name cannot answer twice. No proxy but the operator's, no search domain.

mod dns;
mod tls;
mod way;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls_pki_types::ServerName;
use tidings_types::{AttemptCode, BoxFuture};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use url::Host;

use crate::{
    config::Config,
    connect::{ConnectError, Connector, Io},
    identity::Identity,
    metrics::Metrics,
    target::{Policy, Target},
};

use self::{dns::Dns, tls::Tls, way::Way};

pub use self::way::{Proxy, ProxyError};

/// Connects over TCP, and TLS where the target wants it.
pub struct NetConnector {
    policy: Policy,
    connect_timeout: Duration,
    max_addresses: usize,
    dns: Dns,
    tls: Tls,
    way: Way,
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
            way: Way::new(config),
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
            let stream = self.way.dial(&addresses, deadline, &self.dns).await?;
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
