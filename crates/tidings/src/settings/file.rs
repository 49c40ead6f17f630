//! The settings as they are written. Every key is optional; an unknown one is an
//! error. Durations are texts such as `"5s"` or `"250ms"`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The settings file, or the same tree from the environment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// `local`, or `kafka://HOST:PORT,…`.
    pub(crate) broker: Option<String>,
    /// The data directory.
    pub(crate) data: Option<String>,
    /// The master key file. Default: `keys/master.key` in the data directory.
    pub(crate) master_key: Option<String>,
    /// The one region that this deployment serves; unset: 0-2 are all accepted.
    pub(crate) region: Option<u8>,
    pub(crate) auth: Auth,
    pub(crate) webhooks: Webhooks,
    pub(crate) delivery: Delivery,
    pub(crate) egress: Egress,
    pub(crate) eventlog: EventLog,
    pub(crate) keys: Keys,
    pub(crate) slots: Slots,
    pub(crate) ingest: Ingest,
    pub(crate) fraud: Fraud,
    pub(crate) quotas: Quotas,
    pub(crate) compat: CompatFile,
    pub(crate) events: Events,
    pub(crate) listen: ListenFile,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    pub(crate) log: Log,
    /// Passed to the Kafka client.
    pub(crate) kafka: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// Whether tokens of `tidings token` are accepted without `--dev`.
    pub(crate) local_issuer: Option<bool>,
    /// Authorization servers whose tokens are accepted.
    pub(crate) issuers: Option<Vec<ExternalIssuer>>,
    /// The longest life of a token that is accepted: a day, of other issuers' tokens
    /// an hour, if not set.
    pub(crate) max_ttl: Option<String>,
}

/// An authorization server whose tokens are accepted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalIssuer {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) jwks_url: String,
    /// Authorities (PEM) that vouch for the server of `jwks_url`, beside the public ones.
    #[serde(default)]
    pub(crate) ca_file: Option<String>,
    /// Whether its tokens are taken only if they are bound to the client's
    /// certificate (RFC 8705).
    #[serde(default)]
    pub(crate) certificate_bound: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Webhooks {
    /// How many webhooks one scope (owner and product) may have.
    pub(crate) per_scope: Option<usize>,
    /// How long before a webhook's client certificate ends operators are told.
    pub(crate) certificate_warning: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Delivery {
    /// The ladder of webhooks that name none.
    pub(crate) default_ladder: Option<String>,
    /// How many notifications of one webhook may be open at once.
    pub(crate) max_open: Option<usize>,
    /// How many notifications per webhook are remembered to drop repeats.
    pub(crate) remembered: Option<usize>,
    /// After how long a time of nothing but failures a webhook is suspended.
    pub(crate) suspend_after: Option<String>,
    /// How many requests to one tenant's webhooks, and to one host, may be under way.
    pub(crate) tenant_in_flight: Option<usize>,
    pub(crate) host_in_flight: Option<usize>,
    /// After how long a time of nothing but failures operators are told.
    pub(crate) failing_after: Option<String>,
    /// How many `410 Gone`, each `gone_gap` apart, suspend a webhook.
    pub(crate) gone_count: Option<u32>,
    pub(crate) gone_gap: Option<String>,
    /// Further ladders: the wait before each attempt.
    pub(crate) ladders: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Egress {
    /// Networks that the address filter lets through; under `--dev` loopback if not
    /// set.
    pub(crate) allow: Option<Vec<String>>,
    /// Networks that are never dialled, whatever else lets them through: this
    /// installation's own public addresses.
    pub(crate) deny: Option<Vec<String>>,
    /// Whether `http://` endpoints are accepted.
    pub(crate) allow_http: Option<bool>,
    /// The ports that endpoints may use.
    pub(crate) ports: Option<Vec<u16>>,
    /// Addresses of this machine that requests go out from, in turn.
    pub(crate) bind: Option<Vec<String>>,
    /// The CONNECT proxy that requests go out through, as `http://HOST:PORT`.
    pub(crate) proxy: Option<String>,
    /// The addresses that clients see requests come from, by region, for them to let in:
    /// shown by the API, not used.
    pub(crate) addresses: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EventLog {
    /// How long history is kept.
    pub(crate) retention: Option<String>,
    /// How far history may lag before it answers 503.
    pub(crate) max_lag: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keys {
    /// How long keys of one-time codes are kept.
    pub(crate) retention: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Slots {
    /// How long a process may be silent before others take its slots.
    pub(crate) session: Option<String>,
    /// How often a sender writes down what has changed.
    pub(crate) checkpoint_interval: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ingest {
    /// Raised by the operator when a source topic is made anew.
    pub(crate) source_epoch: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fraud {
    /// How long a fraud alert may be answered.
    pub(crate) answer_window: Option<String>,
}

/// How many requests a second a tenant may make to the EDS API, and how many
/// notifications of one webhook may be sent again in an hour; 0 is no limit. Each process
/// counts for itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Quotas {
    pub(crate) reads_per_second: Option<u32>,
    pub(crate) writes_per_second: Option<u32>,
    pub(crate) resends_per_hour: Option<u32>,
}

/// Answers in the forms that older documents of the EDS API show; all off by default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CompatFile {
    /// Notifications read by id have their payload as `paylod` too.
    pub(crate) paylod: Option<bool>,
    /// An empty list of webhooks, notifications or undelivered ones is 404.
    pub(crate) empty_as_error: Option<bool>,
    /// A configuration with `pmId` and `productId` is answered as two when it is made.
    pub(crate) config_fanout: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Events {
    /// Partitions of event topics, by event type, where the catalogue's do not fit.
    pub(crate) partitions: Option<BTreeMap<String, u32>>,
    /// A directory with further event types, one TOML file each.
    pub(crate) types: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ListenFile {
    pub(crate) address: Option<String>,
    /// Whether plain HTTP is served off loopback (behind a proxy).
    pub(crate) plain: Option<bool>,
    pub(crate) tls_certificate: Option<String>,
    pub(crate) tls_key: Option<String>,
    /// The authorities whose client certificates are taken (PEM).
    pub(crate) tls_client_ca: Option<String>,
    /// Client certificates that are taken no longer (CRLs in PEM).
    pub(crate) tls_client_crl: Option<String>,
    /// Whether a client must have a certificate: `required` (default) or `optional`.
    pub(crate) tls_client_auth: Option<String>,
    /// How many connections there may be at once. When all are taken, the one that has
    /// been without a request for longest is closed for a new one.
    pub(crate) max_connections: Option<usize>,
    /// How many of them one address may have, of IPv6 one network of 64 bits; 0 is no
    /// limit. Without it there is none on loopback and behind a proxy (`plain`).
    pub(crate) connections_per_peer: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// Whether `/metrics` answers off loopback.
    pub(crate) public: Option<bool>,
    /// Where a listener of its own serves `/metrics` alone, as ADDR:PORT: with the TLS
    /// of `[listen]` where that is set.
    pub(crate) listen: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Shutdown {
    /// How long a drain may take.
    pub(crate) grace: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) level: Option<String>,
}
