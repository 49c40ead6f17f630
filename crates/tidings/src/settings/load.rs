//! Reads the sources and makes [`Settings`] of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tidings_api::{Compat, Rate};
use tidings_broker::KafkaConfig;
use tidings_egress::{Policy, Proxy};

use super::{
    BrokerChoice, DeliverySettings, File, Listen, Settings, SettingsError, TlsClients, TlsFiles,
};

/// Environment variables of ours that are not settings.
const NOT_SETTINGS: &[&str] =
    &["TIDINGS_URL", "TIDINGS_TOKEN", "TIDINGS_FAILPOINTS", "TIDINGS_SABOTAGE"];
const PREFIX: &str = "TIDINGS_";

/// What the command line says; wins over everything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) dev: bool,
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: Option<String>,
    pub(crate) broker: Option<String>,
    pub(crate) master_key: Option<PathBuf>,
}

/// Where a tree of settings came from.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) file: Option<&'a Path>,
    /// The environment, sorted; only names that begin with `TIDINGS_` are looked at.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Loads, merges and checks the settings.
pub(crate) fn load(source: &Source<'_>, flags: &Flags) -> Result<Settings, SettingsError> {
    let mut origin = "built in".to_owned();
    let mut tree = toml::Table::new();
    if let Some(path) = source.file {
        origin = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        tree = text.parse().map_err(|source| SettingsError::Toml {
            origin: origin.clone(),
            source: Box::new(source),
        })?;
        // The file alone first, so that its mistakes are reported as its own.
        parse_tree(tree.clone(), &origin)?;
    }
    for (name, value) in &source.environment {
        if !name.starts_with(PREFIX) || NOT_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        overlay(&mut tree, name, value)?;
        origin = "environment".to_owned();
    }
    let file = parse_tree(tree, &origin)?;
    build(&file, flags)
}

fn parse_tree(tree: toml::Table, origin: &str) -> Result<File, SettingsError> {
    let value = toml::Value::Table(tree);
    serde_path_to_error::deserialize::<_, File>(value).map_err(|error| {
        let problem = error.inner().message().to_owned();
        let path = error.path().to_string();
        // `deny_unknown_fields` reports the parent's path; the name is in the text.
        let key =
            match problem.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
                Some(name) if path == "." || path.is_empty() => name.to_owned(),
                Some(name) if path.rsplit('.').next() == Some(name) => path,
                Some(name) => format!("{path}.{name}"),
                None => path,
            };
        SettingsError::Key { key, origin: origin.to_owned(), problem }
    })
}

/// Puts one variable into the tree: `TIDINGS_DELIVERY__MAX_OPEN` is `delivery.max_open`.
fn overlay(tree: &mut toml::Table, name: &str, value: &str) -> Result<(), SettingsError> {
    let path: Vec<String> =
        name.trim_start_matches(PREFIX).split("__").map(str::to_lowercase).collect();
    let wrong = |problem: &str| SettingsError::Key {
        key: path.join("."),
        origin: name.to_owned(),
        problem: problem.to_owned(),
    };
    if path.iter().any(String::is_empty) {
        return Err(wrong("the name has an empty part"));
    }
    let parsed = parse_scalar(&path, value);
    let Some((last, parents)) = path.split_last() else {
        return Err(wrong("the name is empty"));
    };
    let mut table = tree;
    for parent in parents {
        let slot =
            table.entry(parent.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = slot.as_table_mut().ok_or_else(|| wrong("a part of the name is not a section"))?;
    }
    table.insert(last.clone(), parsed);
    Ok(())
}

/// TOML where it is TOML and not a bare word; a text where it is not.
fn parse_scalar(path: &[String], value: &str) -> toml::Value {
    #[derive(Deserialize)]
    struct One {
        v: toml::Value,
    }
    // Settings that are texts even when they look like numbers.
    if path.first().is_some_and(|section| section == "kafka") {
        return toml::Value::String(value.to_owned());
    }
    toml::from_str::<One>(&format!("v = {value}"))
        .map_or_else(|_not_toml| toml::Value::String(value.to_owned()), |one| one.v)
}

fn duration(key: &str, text: Option<&str>, default: Duration) -> Result<Duration, SettingsError> {
    let Some(text) = text else { return Ok(default) };
    humantime::parse_duration(text).map_err(|_bad| SettingsError::Key {
        key: key.to_owned(),
        origin: "settings".to_owned(),
        problem: format!("{text:?} is not a duration such as \"5s\" or \"250ms\""),
    })
}

/// A duration that must not be nothing.
fn some_time(key: &str, text: Option<&str>, default: Duration) -> Result<Duration, SettingsError> {
    match duration(key, text, default)? {
        Duration::ZERO => Err(bad(key, "must be longer than 0s")),
        some => Ok(some),
    }
}

/// A duration of at least `least`.
fn at_least(
    key: &str,
    text: Option<&str>,
    default: Duration,
    least: Duration,
) -> Result<Duration, SettingsError> {
    let given = duration(key, text, default)?;
    if given < least {
        return Err(bad(key, format!("must be at least {}", super::duration_text(least))));
    }
    Ok(given)
}

fn bad(key: &str, problem: impl Into<String>) -> SettingsError {
    SettingsError::Key {
        key: key.to_owned(),
        origin: "settings".to_owned(),
        problem: problem.into(),
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `HOST:PORT`, as one broker of Kafka is named.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[expect(clippy::too_many_lines, reason = "one line per setting; a table in code")]
fn build(file: &File, flags: &Flags) -> Result<Settings, SettingsError> {
    let dev = flags.dev;
    let data = flags
        .data
        .clone()
        .or_else(|| file.data.as_ref().map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("./tidings-data"));
    let broker = flags.broker.as_deref().or(file.broker.as_deref()).unwrap_or("local");
    let broker = match broker.strip_prefix("kafka://") {
        _ if broker == "local" => BrokerChoice::Local,
        Some(bootstrap) if bootstrap.split(',').all(is_host_and_port) => {
            BrokerChoice::Kafka(bootstrap.to_owned())
        }
        Some(_) | None => {
            return Err(bad("broker", "must be `local` or `kafka://HOST:PORT,…`"));
        }
    };
    let ladders = ladders(file)?;
    let fallback = if dev { "fast" } else { "standard" };
    let default_ladder =
        file.delivery.default_ladder.clone().unwrap_or_else(|| fallback.to_owned());
    let merchant_ladder = if dev && file.delivery.default_ladder.is_none() {
        "fast".to_owned()
    } else if dev {
        default_ladder.clone()
    } else {
        "merchant".to_owned()
    };
    if !["standard", "merchant", "fast"].contains(&default_ladder.as_str())
        && !ladders.contains_key(&default_ladder)
    {
        return Err(bad(
            "delivery.default_ladder",
            format!("there is no ladder {default_ladder:?}"),
        ));
    }
    let gone_gap_default = if dev { SECOND } else { HOUR };
    let delivery = DeliverySettings {
        default_ladder,
        merchant_ladder,
        ladders,
        max_open: positive("delivery.max_open", file.delivery.max_open, 100_000)?,
        remembered: positive("delivery.remembered", file.delivery.remembered, 20_000)?,
        suspend_after: some_time(
            "delivery.suspend_after",
            file.delivery.suspend_after.as_deref(),
            72 * HOUR,
        )?,
        failing_after: duration(
            "delivery.failing_after",
            file.delivery.failing_after.as_deref(),
            if dev { SECOND } else { 5 * MINUTE },
        )?,
        tenant_in_flight: positive(
            "delivery.tenant_in_flight",
            file.delivery.tenant_in_flight,
            1000,
        )?,
        host_in_flight: positive("delivery.host_in_flight", file.delivery.host_in_flight, 1500)?,
        gone_count: gone_count(file)?,
        gone_gap: duration(
            "delivery.gone_gap",
            file.delivery.gone_gap.as_deref(),
            gone_gap_default,
        )?,
    };
    let egress_allow = match &file.egress.allow {
        Some(networks) => nets("egress.allow", networks)?,
        None if dev => Policy::loopback(),
        None => Vec::new(),
    };
    let egress_deny = nets("egress.deny", file.egress.deny.as_deref().unwrap_or_default())?;
    if file.region.is_some_and(|region| region > 2) {
        return Err(bad("region", "must be 0, 1 or 2"));
    }
    // A code has to reach its endpoint before its key is gone.
    let keys_retention =
        at_least("keys.retention", file.keys.retention.as_deref(), 6 * HOUR, MINUTE)?;
    let session = duration("slots.session", file.slots.session.as_deref(), 6 * SECOND)?;
    if session < Duration::from_millis(100) {
        return Err(bad("slots.session", "must be at least 100ms"));
    }
    Ok(Settings {
        dev,
        data,
        broker,
        kafka: kafka(file)?,
        master_key: flags
            .master_key
            .clone()
            .or_else(|| file.master_key.as_ref().map(PathBuf::from)),
        metrics_listen: metrics_listen(file, flags)?,
        listen: listen(file, flags)?,
        metrics_public: file.metrics.public.unwrap_or(false),
        region: file.region,
        local_issuer: file.auth.local_issuer.unwrap_or(dev),
        issuers: file.auth.issuers.clone().unwrap_or_default(),
        token_max_ttl: duration("auth.max_ttl", file.auth.max_ttl.as_deref(), DAY)?,
        external_token_max_ttl: duration("auth.max_ttl", file.auth.max_ttl.as_deref(), HOUR)?,
        webhooks_per_scope: positive(
            "webhooks.per_scope",
            file.webhooks.per_scope,
            if dev { 1000 } else { 1 },
        )?,
        certificate_warning: duration(
            "webhooks.certificate_warning",
            file.webhooks.certificate_warning.as_deref(),
            30 * DAY,
        )?,
        min_timeout: if dev { Duration::from_millis(50) } else { SECOND },
        delivery,
        egress_allow,
        egress_deny,
        allow_http: file.egress.allow_http.unwrap_or(dev),
        ports: ports(file)?,
        egress_bind: ips("egress.bind", file.egress.bind.as_deref().unwrap_or_default())?,
        egress_proxy: egress_proxy(file)?,
        egress_addresses: egress_addresses(file)?,
        // What is forgotten cannot be accounted for, shown or sent again.
        eventlog_retention: at_least(
            "eventlog.retention",
            file.eventlog.retention.as_deref(),
            90 * DAY,
            HOUR,
        )?,
        eventlog_max_lag: duration(
            "eventlog.max_lag",
            file.eventlog.max_lag.as_deref(),
            30 * SECOND,
        )?,
        keys_retention,
        session,
        checkpoint_interval: some_time(
            "slots.checkpoint_interval",
            file.slots.checkpoint_interval.as_deref(),
            SECOND,
        )?,
        api_rate: rate(&file.quotas, dev),
        compat: Compat {
            paylod: file.compat.paylod.unwrap_or(false),
            empty_as_error: file.compat.empty_as_error.unwrap_or(false),
            config_fanout: file.compat.config_fanout.unwrap_or(false),
        },
        source_epoch: file.ingest.source_epoch.unwrap_or(0),
        event_partitions: file.events.partitions.clone().unwrap_or_default(),
        event_types: file.events.types.as_ref().map(PathBuf::from),
        fraud_answer_window: some_time(
            "fraud.answer_window",
            file.fraud.answer_window.as_deref(),
            72 * HOUR,
        )?,
        shutdown_grace: duration("shutdown.grace", file.shutdown.grace.as_deref(), 10 * SECOND)?,
        log_level: log_level(file)?,
    })
}

/// `--dev` has no quotas unless the settings name some.
fn rate(quotas: &super::file::Quotas, dev: bool) -> Rate {
    let default = |rate| if dev { 0 } else { rate };
    Rate {
        reads: quotas.reads_per_second.unwrap_or(default(200)),
        writes: quotas.writes_per_second.unwrap_or(default(20)),
        resends_per_hour: quotas.resends_per_hour.unwrap_or(default(10_000)),
    }
}

/// The client's settings are texts; TOML's numbers and truth values are accepted.
fn kafka(file: &File) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut settings = BTreeMap::new();
    flatten("", &file.kafka, &mut settings)?;
    let checked = KafkaConfig::new("", settings.clone()).check();
    checked.map_err(|error| SettingsError::Relation(error.to_string()))?;
    Ok(settings)
}

/// `sasl.password = "x"` is a table in TOML unless it is quoted; both are meant.
fn flatten<'v>(
    prefix: &str,
    table: impl IntoIterator<Item = (&'v String, &'v toml::Value)>,
    settings: &mut BTreeMap<String, String>,
) -> Result<(), SettingsError> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Table(inner) => {
                flatten(&key, inner, settings)?;
                continue;
            }
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) => {
                return Err(bad(
                    &format!("kafka.{key}"),
                    "must be a text, a number or a truth value",
                ));
            }
        };
        settings.insert(key, text);
    }
    Ok(())
}

fn positive(key: &str, value: Option<usize>, default: usize) -> Result<usize, SettingsError> {
    match value {
        Some(0) => Err(bad(key, "must be at least 1")),
        Some(value) => Ok(value),
        None => Ok(default),
    }
}

fn gone_count(file: &File) -> Result<u32, SettingsError> {
    match file.delivery.gone_count {
        Some(0) => Err(bad("delivery.gone_count", "must be at least 1")),
        Some(count) => Ok(count),
        None => Ok(3),
    }
}

fn ports(file: &File) -> Result<Vec<u16>, SettingsError> {
    let Some(ports) = &file.egress.ports else { return Ok(vec![443, 8443]) };
    if ports.is_empty() || ports.contains(&0) {
        return Err(bad("egress.ports", "must name at least one port, and none is 0"));
    }
    Ok(ports.clone())
}

fn ips(key: &str, texts: &[String]) -> Result<Vec<IpAddr>, SettingsError> {
    let parse = |text: &String| {
        text.parse().map_err(|_bad| bad(key, format!("{text:?} is not an address")))
    };
    texts.iter().map(parse).collect()
}

fn egress_proxy(file: &File) -> Result<Option<Proxy>, SettingsError> {
    let proxy = file.egress.proxy.as_deref().map(Proxy::parse).transpose();
    proxy.map_err(|error| bad("egress.proxy", error.to_string()))
}

fn egress_addresses(file: &File) -> Result<BTreeMap<String, Vec<IpAddr>>, SettingsError> {
    let is_legal = |name: &str| {
        (1..=32).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let of = |(region, texts): (&String, &Vec<String>)| {
        let key = format!("egress.addresses.{region}");
        if !is_legal(region) {
            return Err(bad(&key, "a region has 1 to 32 letters, digits and hyphens"));
        }
        Ok((region.clone(), ips(&key, texts)?))
    };
    file.egress.addresses.iter().flatten().map(of).collect()
}

fn log_level(file: &File) -> Result<String, SettingsError> {
    let level = file.log.level.clone().unwrap_or_else(|| "info".to_owned());
    if ["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        Ok(level)
    } else {
        Err(bad("log.level", "must be error, warn, info, debug or trace"))
    }
}

fn nets(key: &str, texts: &[String]) -> Result<Vec<ipnet::IpNet>, SettingsError> {
    let parse = |text: &String| {
        text.parse::<ipnet::IpNet>()
            .or_else(|_not_a_net| text.parse::<IpAddr>().map(ipnet::IpNet::from))
            .map_err(|_bad| bad(key, format!("{text:?} is not a network such as 10.0.0.0/8")))
    };
    texts.iter().map(parse).collect()
}

fn ladders(file: &File) -> Result<BTreeMap<String, Vec<Duration>>, SettingsError> {
    let mut ladders = BTreeMap::new();
    for (name, steps) in file.delivery.ladders.iter().flatten() {
        let key = format!("delivery.ladders.{name}");
        if steps.is_empty() || steps.len() > 100 {
            return Err(bad(&key, "must have 1 to 100 steps"));
        }
        let steps = steps
            .iter()
            .map(|step| duration(&key, Some(step), Duration::ZERO))
            .collect::<Result<Vec<_>, _>>()?;
        ladders.insert(name.clone(), steps);
    }
    Ok(ladders)
}

/// Whose client certificates are taken, if any are asked for.
fn tls_clients(file: &File) -> Result<Option<TlsClients>, SettingsError> {
    let listen = &file.listen;
    let Some(authorities) = &listen.tls_client_ca else {
        for (key, given) in [
            ("listen.tls_client_crl", &listen.tls_client_crl),
            ("listen.tls_client_auth", &listen.tls_client_auth),
        ] {
            if given.is_some() {
                return Err(bad(key, "needs listen.tls_client_ca"));
            }
        }
        return Ok(None);
    };
    let required = match listen.tls_client_auth.as_deref() {
        None | Some("required") => true,
        Some("optional") => false,
        Some(_) => return Err(bad("listen.tls_client_auth", "must be required or optional")),
    };
    Ok(Some(TlsClients {
        authorities: authorities.into(),
        revoked: listen.tls_client_crl.as_ref().map(PathBuf::from),
        required,
    }))
}

/// Plain HTTP only on loopback or when it is asked for (contract §2).
fn listen(file: &File, flags: &Flags) -> Result<Listen, SettingsError> {
    let text =
        flags.listen.as_deref().or(file.listen.address.as_deref()).unwrap_or("127.0.0.1:8080");
    let address = socket_address("listen.address", text)?;
    let tls = match (&file.listen.tls_certificate, &file.listen.tls_key) {
        (Some(certificate), Some(key)) => {
            let clients = tls_clients(file)?;
            Some(TlsFiles { certificate: certificate.into(), key: key.into(), clients })
        }
        (None, None) => None,
        (Some(_), None) => {
            return Err(bad("listen.tls_key", "is missing beside listen.tls_certificate"));
        }
        (None, Some(_)) => {
            return Err(bad("listen.tls_certificate", "is missing beside listen.tls_key"));
        }
    };
    if tls.is_none() && file.listen.tls_client_ca.is_some() {
        return Err(bad("listen.tls_certificate", "is missing beside listen.tls_client_ca"));
    }
    let asks = tls.as_ref().is_some_and(|tls: &TlsFiles| tls.clients.is_some());
    let bound = file.auth.issuers.iter().flatten().find(|issuer| issuer.certificate_bound);
    if let Some(issuer) = bound.filter(|_| !asks) {
        return Err(SettingsError::Relation(format!(
            "auth.issuers: certificate_bound of {:?} needs listen.tls_client_ca, so that clients \
             show their certificates",
            issuer.issuer
        )));
    }
    check_address(address, file, flags)?;
    let plain = file.listen.plain.unwrap_or(false);
    let max_connections = file.listen.max_connections;
    if max_connections == Some(0) {
        return Err(bad("listen.max_connections", "must be at least 1"));
    }
    let connections_per_peer = match file.listen.connections_per_peer {
        Some(0) => None,
        Some(most) => Some(most),
        // All clients of a proxy have its address.
        None if plain || address.ip().is_loopback() => None,
        None => Some(Listen::CONNECTIONS_PER_PEER),
    };
    Ok(Listen { address, tls, plain, max_connections, connections_per_peer })
}

/// The listener of `/metrics` alone, by the same rules.
fn metrics_listen(file: &File, flags: &Flags) -> Result<Option<SocketAddr>, SettingsError> {
    let Some(text) = &file.metrics.listen else { return Ok(None) };
    let address = socket_address("metrics.listen", text)?;
    check_address(address, file, flags)?;
    Ok(Some(address))
}

fn socket_address(key: &str, text: &str) -> Result<SocketAddr, SettingsError> {
    text.replace("localhost", "127.0.0.1")
        .parse()
        .map_err(|_bad| bad(key, format!("{text:?} is not ADDR:PORT")))
}

fn check_address(address: SocketAddr, file: &File, flags: &Flags) -> Result<(), SettingsError> {
    let loopback = address.ip().is_loopback();
    if flags.dev && !loopback {
        return Err(SettingsError::Relation(format!(
            "--dev listens on loopback only, not on {address}; use 127.0.0.1 or leave out --dev"
        )));
    }
    let plain = file.listen.plain.unwrap_or(false);
    if !loopback && file.listen.tls_certificate.is_none() && !plain {
        return Err(SettingsError::Relation(format!(
            "listening on {address} needs TLS: set listen.tls_certificate and listen.tls_key, \
             or listen.plain = true behind a proxy"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(
        text: &str,
        environment: &[(&str, &str)],
        flags: &Flags,
    ) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidings.toml");
        std::fs::write(&path, text).unwrap();
        let environment =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load(&Source { file: Some(&path), environment }, flags).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_key_is_named_with_its_section() {
        let error = load_text("[delivery]\nmax_opn = 1\n", &[], &Flags::default()).unwrap_err();
        assert!(error.contains("`delivery.max_opn`"), "{error}");
        let error = load_text("regio = 1\n", &[], &Flags::default()).unwrap_err();
        assert!(error.contains("`regio`"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key() {
        let error =
            load_text("[delivery]\nmax_open = \"x\"\n", &[], &Flags::default()).unwrap_err();
        assert!(error.contains("delivery.max_open"), "{error}");
        let error = load_text("[slots]\nsession = \"soon\"\n", &[], &Flags::default()).unwrap_err();
        assert!(error.contains("slots.session"), "{error}");
    }

    #[test]
    fn ways_out_are_addresses_and_a_proxy_without_a_user() {
        let text = "[egress]\nbind = [\"203.0.113.4\", \"2001:db8::4\"]\n\
                    proxy = \"http://proxy.internal:3128\"\n\
                    [egress.addresses]\ndefault = [\"3.8.229.11\"]\n";
        let settings = load_text(text, &[], &Flags::default()).unwrap();
        assert_eq!((settings.egress_bind.len(), settings.egress_addresses.len()), (2, 1));
        let proxy = settings.egress_proxy.unwrap().to_string();
        assert_eq!(proxy, "http://proxy.internal:3128");
        for (text, key) in [
            ("[egress]\nbind = [\"x\"]\n", "egress.bind"),
            ("[egress]\nproxy = \"http://user:word@proxy:3128\"\n", "egress.proxy"),
            ("[egress]\nproxy = \"https://proxy:3128\"\n", "egress.proxy"),
            ("[egress.addresses]\ndefault = [\"10.0.0.0/8\"]\n", "egress.addresses.default"),
            ("[egress.addresses]\n\"a b\" = []\n", "egress.addresses.a b"),
        ] {
            let error = load_text(text, &[], &Flags::default()).unwrap_err();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_a_flag_over_both() {
        let flags = Flags { listen: Some("127.0.0.1:7".to_owned()), ..Flags::default() };
        let settings = load_text(
            "[webhooks]\nper_scope = 2\n[listen]\naddress = \"127.0.0.1:5\"\n",
            &[
                ("TIDINGS_WEBHOOKS__PER_SCOPE", "3"),
                ("TIDINGS_LISTEN__ADDRESS", "127.0.0.1:6"),
                ("TIDINGS_EGRESS__ALLOW", "[\"10.0.0.0/8\"]"),
                ("TIDINGS_DELIVERY__LADDERS", "{ quick = [\"0s\", \"1ms\"] }"),
            ],
            &flags,
        )
        .unwrap();
        assert_eq!(settings.webhooks_per_scope, 3);
        assert_eq!(settings.listen.address.port(), 7);
        assert_eq!(settings.egress_allow.len(), 1);
        assert_eq!(settings.delivery.ladders["quick"].len(), 2);
    }

    #[test]
    fn a_setting_wins_over_a_default_of_dev() {
        let dev = Flags { dev: true, ..Flags::default() };
        let settings = load_text("", &[], &dev).unwrap();
        assert_eq!(settings.webhooks_per_scope, 1000);
        assert_eq!(settings.delivery.default_ladder, "fast");
        assert!(settings.local_issuer && settings.allow_http);
        assert_eq!(settings.egress_allow, Policy::loopback());
        assert_eq!((settings.delivery.gone_gap, settings.ports.len()), (SECOND, 2));
        let text = "[webhooks]\nper_scope = 1\n[auth]\nlocal_issuer = false\n\
                    [delivery]\ndefault_ladder = \"standard\"\ngone_gap = \"2h\"\n\
                    [egress]\nallow = []\nallow_http = false\nports = [443]\n";
        let settings = load_text(text, &[], &dev).unwrap();
        assert_eq!(settings.webhooks_per_scope, 1);
        assert!(!settings.local_issuer && !settings.allow_http);
        assert_eq!((settings.egress_allow, settings.ports), (Vec::new(), vec![443]));
        assert_eq!(settings.delivery.default_ladder, "standard");
        assert_eq!(settings.delivery.merchant_ladder, "standard");
        assert_eq!(settings.delivery.gone_gap, 2 * HOUR);
        let environment = [("TIDINGS_EGRESS__ALLOW_HTTP", "false")];
        assert!(!load_text("", &environment, &dev).unwrap().allow_http);
    }

    #[test]
    fn the_listener_of_metrics_keeps_the_rules_of_the_other() {
        let open = "[metrics]\nlisten = \"0.0.0.0:9000\"\n";
        assert!(load_text(open, &[], &Flags::default()).unwrap_err().contains("TLS"));
        let dev = Flags { dev: true, ..Flags::default() };
        assert!(load_text(open, &[], &dev).unwrap_err().contains("--dev"));
        let behind_a_proxy = format!("{open}[listen]\nplain = true\n");
        let settings = load_text(&behind_a_proxy, &[], &Flags::default()).unwrap();
        assert_eq!(settings.metrics_listen.map(|address| address.port()), Some(9000));
        let wrong = load_text("[metrics]\nlisten = \"x\"\n", &[], &Flags::default());
        assert!(wrong.unwrap_err().contains("metrics.listen"));
    }

    #[test]
    fn a_peer_is_limited_where_each_client_is_its_own() {
        let per_peer = |text: &str, address: &str| {
            let flags = Flags { listen: Some(address.to_owned()), ..Flags::default() };
            load_text(text, &[], &flags).unwrap().listen.connections_per_peer
        };
        let tls = "[listen]\ntls_certificate = \"a\"\ntls_key = \"b\"\n";
        let open = "0.0.0.0:8443";
        assert_eq!(per_peer(tls, open), Some(256));
        assert_eq!(per_peer(tls, "127.0.0.1:8443"), None);
        assert_eq!(per_peer("[listen]\nplain = true\n", open), None);
        let set = |most: u32| format!("[listen]\nconnections_per_peer = {most}\n");
        assert_eq!(per_peer(&set(3), "127.0.0.1:8443"), Some(3));
        assert_eq!(per_peer(&format!("{}plain = true\n", set(0)), open), None);
        let none = load_text("[listen]\nmax_connections = 0\n", &[], &Flags::default());
        assert!(none.unwrap_err().contains("listen.max_connections"));
    }

    #[test]
    fn off_loopback_needs_tls_and_dev_never_leaves_it() {
        let open = Flags { listen: Some("0.0.0.0:8080".to_owned()), ..Flags::default() };
        assert!(load_text("", &[], &open).unwrap_err().contains("TLS"));
        assert!(load_text("[listen]\nplain = true\n", &[], &open).is_ok());
        let dev = Flags { dev: true, ..open };
        assert!(load_text("[listen]\nplain = true\n", &[], &dev).unwrap_err().contains("--dev"));
    }
}
