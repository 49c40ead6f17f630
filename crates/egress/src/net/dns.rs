//! Names to addresses: absolute names only, a bounded memory, a bounded time.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::Name,
};
use tidings_types::AttemptCode;
use tokio::time::timeout;

use crate::config::{Config, MAX_CACHE_TIME, MAX_CACHED_NAMES, MAX_NEGATIVE_CACHE_TIME};

pub(super) struct Dns {
    resolver: Option<TokioResolver>,
    timeout: Duration,
}

impl Dns {
    pub(super) fn new(config: &Config) -> Self {
        let resolver = match build(config) {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::error!(%error, "no name server can be asked, check /etc/resolv.conf");
                None
            }
        };
        Self { resolver, timeout: config.dns_timeout }
    }

    /// All addresses of the absolute name.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, AttemptCode> {
        // This name is this machine's by definition (RFC 6761), never a question.
        if name == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = self.resolver.as_ref().ok_or(AttemptCode::DnsFailed)?;
        // Not by the parser of text names, which refuses underscores.
        let name =
            Name::from_ascii(format!("{name}.")).map_err(|_not_a_name| AttemptCode::DnsNotFound)?;
        match timeout(self.timeout, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => Ok(found.iter().collect()),
            Ok(Err(error)) if error.is_no_records_found() => Err(AttemptCode::DnsNotFound),
            Ok(Err(_failed)) => Err(AttemptCode::DnsFailed),
            Err(_late) => Err(AttemptCode::DnsFailed),
        }
    }
}

fn build(config: &Config) -> Result<TokioResolver, NetError> {
    let builder = if config.name_servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = config.name_servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
    };
    builder.with_options(options(config.dns_timeout)).build()
}

/// Written out, so that nothing in `/etc/resolv.conf` can stretch or bend them.
fn options(dns_timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = dns_timeout / 2;
    options.attempts = 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = MAX_CACHED_NAMES;
    options.positive_max_ttl = Some(MAX_CACHE_TIME);
    options.negative_max_ttl = Some(MAX_NEGATIVE_CACHE_TIME);
    options
}
