//! Settings: what was written ([`File`]) and what is used ([`Settings`]).
//!
//! Sources, later wins: built-in defaults (with those of `--dev`), the TOML file,
//! the environment (`TIDINGS_<SECTION>__<NAME>`, lists and tables as TOML), flags.
//! An unknown or wrong key is an error that names it. Nothing else in the program
//! reads files or the environment for settings.

mod file;
mod load;
mod show;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub(crate) use file::{ExternalIssuer, File};
pub(crate) use load::{Flags, Source, load};
pub(crate) use show::{duration as duration_text, show};

/// Settings that can be used: parsed, complete and checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) dev: bool,
    pub(crate) data: PathBuf,
    pub(crate) broker: BrokerChoice,
    /// Passed to the Kafka client. May hold passwords: never printed.
    pub(crate) kafka: BTreeMap<String, String>,
    pub(crate) master_key: Option<PathBuf>,
    pub(crate) listen: Listen,
    pub(crate) metrics_public: bool,
    /// A listener that serves `/metrics` alone.
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) region: Option<u8>,
    pub(crate) local_issuer: bool,
    pub(crate) issuers: Vec<ExternalIssuer>,
    pub(crate) token_max_ttl: Duration,
    /// Of tokens of external issuers.
    pub(crate) external_token_max_ttl: Duration,
    pub(crate) webhooks_per_scope: usize,
    pub(crate) certificate_warning: Duration,
    pub(crate) min_timeout: Duration,
    pub(crate) delivery: DeliverySettings,
    pub(crate) egress_allow: Vec<ipnet::IpNet>,
    pub(crate) egress_deny: Vec<ipnet::IpNet>,
    pub(crate) allow_http: bool,
    pub(crate) ports: Vec<u16>,
    pub(crate) egress_bind: Vec<IpAddr>,
    pub(crate) egress_proxy: Option<tidings_egress::Proxy>,
    pub(crate) egress_addresses: BTreeMap<String, Vec<IpAddr>>,
    pub(crate) eventlog_retention: Duration,
    pub(crate) eventlog_max_lag: Duration,
    pub(crate) keys_retention: Duration,
    pub(crate) session: Duration,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) source_epoch: u64,
    pub(crate) fraud_answer_window: Duration,
    pub(crate) api_rate: tidings_api::Rate,
    pub(crate) compat: tidings_api::Compat,
    pub(crate) event_partitions: BTreeMap<String, u32>,
    pub(crate) event_types: Option<PathBuf>,
    pub(crate) shutdown_grace: Duration,
    pub(crate) log_level: String,
}

/// Which broker stands behind the seam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BrokerChoice {
    Local,
    Kafka(String),
}

/// Where and how the API listens.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsFiles>,
    /// Whether plain HTTP is served off loopback.
    pub(crate) plain: bool,
    /// `None`: as many as there are by default, or as the limit of open files lets.
    pub(crate) max_connections: Option<usize>,
    pub(crate) connections_per_peer: Option<usize>,
}

impl Listen {
    /// Connections at once, where the settings say nothing else.
    pub(crate) const MAX_CONNECTIONS: usize = 4096;
    /// Those of one peer off loopback with our own TLS: a client keeps a few, a bank's
    /// many machines may come from one address.
    pub(crate) const CONNECTIONS_PER_PEER: usize = 256;
}

#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Client certificates are asked for.
    pub(crate) clients: Option<TlsClients>,
}

/// Whose client certificates are taken.
#[derive(Clone, Debug)]
pub(crate) struct TlsClients {
    pub(crate) authorities: PathBuf,
    pub(crate) revoked: Option<PathBuf>,
    /// Whether a client without one is turned away.
    pub(crate) required: bool,
}

/// Settings of sending.
#[derive(Clone, Debug)]
pub(crate) struct DeliverySettings {
    pub(crate) default_ladder: String,
    pub(crate) merchant_ladder: String,
    pub(crate) ladders: BTreeMap<String, Vec<Duration>>,
    pub(crate) max_open: usize,
    pub(crate) remembered: usize,
    pub(crate) suspend_after: Duration,
    pub(crate) failing_after: Duration,
    pub(crate) tenant_in_flight: usize,
    pub(crate) host_in_flight: usize,
    pub(crate) gone_count: u32,
    pub(crate) gone_gap: Duration,
}

/// Settings that cannot be used; each names its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the settings file {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin} is not TOML")]
    Toml { origin: String, source: Box<toml::de::Error> },
    #[error("setting `{key}` ({origin}): {problem}")]
    Key { key: String, origin: String, problem: String },
    #[error("{0}")]
    Relation(String),
}
