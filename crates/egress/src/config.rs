//! The limits under which connections are opened and answers are read.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustls_pki_types::CertificateDer;

use crate::{net::Proxy, target::Policy};

/// How this crate behaves; see the field texts for where each limit comes from
/// (`reliability-security.md` §2.5 unless another source is named).
#[derive(Clone, Debug)]
pub struct Config {
    /// Which URLs and addresses are acceptable.
    pub policy: Policy,
    /// TCP and TLS together, over all addresses of the name.
    pub connect_timeout: Duration,
    /// All questions about one name.
    pub dns_timeout: Duration,
    /// At most this many addresses of a name are looked at.
    pub max_addresses: usize,
    /// Name servers to ask instead of the system's.
    pub name_servers: Vec<SocketAddr>,
    /// Addresses of this machine that connections go out from, in turn; none: the
    /// system chooses. An endpoint's addresses of a kind (IPv4, IPv6) that none of them
    /// is of are not dialled.
    pub bind: Vec<IpAddr>,
    /// The proxy that every connection goes through. It is asked for the address that
    /// was judged, never for a name.
    pub proxy: Option<Proxy>,
    /// Certificate authorities trusted beside the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Idle connections kept for one webhook: as many as it may have in flight
    /// by default, so that a steady load opens none anew.
    pub max_idle_per_webhook: usize,
    /// Idle connections kept in all: the process's limit of requests in flight.
    pub max_idle: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How much of an answer's body is read so that its connection can be kept.
    pub max_response_body: usize,
    /// For how long.
    pub response_body_timeout: Duration,
    /// How much of an answer's body a report keeps (contract §3, attempts).
    pub max_snippet: usize,
    /// Answers whose bodies are read after the report was given; past it the
    /// connection is closed instead.
    pub max_draining: usize,
}

/// How much of an answer's head is read, per head. Not a setting: hyper's buffer
/// is this long.
pub(crate) const MAX_RESPONSE_HEAD: usize = 16 * 1024;
/// Lines of an answer's head, without the status line.
pub(crate) const MAX_RESPONSE_HEADERS: usize = 64;
/// Informational answers before the final one (§7.5, EP20).
pub(crate) const MAX_INFORMATIONAL: usize = 16;
/// Names whose addresses are remembered, and for how long at most.
pub(crate) const MAX_CACHED_NAMES: u64 = 10_000;
pub(crate) const MAX_CACHE_TIME: Duration = Duration::from_secs(60);
pub(crate) const MAX_NEGATIVE_CACHE_TIME: Duration = Duration::from_secs(10);

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            connect_timeout: Duration::from_secs(5),
            dns_timeout: Duration::from_secs(2),
            max_addresses: 8,
            name_servers: Vec::new(),
            bind: Vec::new(),
            proxy: None,
            extra_roots: Vec::new(),
            max_idle_per_webhook: 64,
            max_idle: 2_000,
            idle_timeout: Duration::from_secs(30),
            max_response_body: 16 * 1024,
            response_body_timeout: Duration::from_secs(1),
            max_snippet: 1024,
            max_draining: 256,
        }
    }
}
