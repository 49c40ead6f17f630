//! Prints the settings in use. Secrets are files or masked: nothing here can
//! print one.

use std::{fmt::Write as _, time::Duration};

use super::{BrokerChoice, ExternalIssuer, Listen, Settings};

/// The settings as TOML, with secrets masked.
pub(crate) fn show(settings: &Settings) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a `String` cannot fail.
        writeln!(out, "{text}").unwrap_or_else(|error| unreachable!("{error}"));
    };
    let secs = duration;
    line(format!("data = {:?}", settings.data.display().to_string()));
    line(format!(
        "broker = {:?}",
        match &settings.broker {
            BrokerChoice::Local => "local".to_owned(),
            BrokerChoice::Kafka(bootstrap) => format!("kafka://{bootstrap}"),
        }
    ));
    match settings.region {
        Some(region) => line(format!("region = {region}")),
        None => line("# region is unset: 0, 1 and 2 are accepted".to_owned()),
    }
    line("# master_key = ***".to_owned());
    line(format!("[auth]\nlocal_issuer = {}", settings.local_issuer));
    line(format!(
        "issuers = [{}]",
        settings.issuers.iter().map(issuer).collect::<Vec<_>>().join(", ")
    ));
    line(format!("max_ttl = {:?}", secs(settings.token_max_ttl)));
    line(format!("[webhooks]\nper_scope = {}", settings.webhooks_per_scope));
    line(format!("certificate_warning = {:?}", secs(settings.certificate_warning)));
    let delivery = &settings.delivery;
    line(format!("[delivery]\ndefault_ladder = {:?}", delivery.default_ladder));
    line(format!("max_open = {}\nremembered = {}", delivery.max_open, delivery.remembered));
    line(format!("suspend_after = {:?}", secs(delivery.suspend_after)));
    line(format!("failing_after = {:?}", secs(delivery.failing_after)));
    line(format!(
        "tenant_in_flight = {}\nhost_in_flight = {}",
        delivery.tenant_in_flight, delivery.host_in_flight
    ));
    line(format!("gone_count = {}\ngone_gap = {:?}", delivery.gone_count, secs(delivery.gone_gap)));
    line("[delivery.ladders]".to_owned());
    for (name, steps) in &delivery.ladders {
        let steps: Vec<_> = steps.iter().map(|step| format!("{:?}", secs(*step))).collect();
        line(format!("{name} = [{}]", steps.join(", ")));
    }
    line(egress(settings));
    line(format!("[eventlog]\nretention = {:?}", secs(settings.eventlog_retention)));
    line(format!("max_lag = {:?}", secs(settings.eventlog_max_lag)));
    line(format!("[keys]\nretention = {:?}", secs(settings.keys_retention)));
    line(format!("[slots]\nsession = {:?}", secs(settings.session)));
    line(format!("checkpoint_interval = {:?}", secs(settings.checkpoint_interval)));
    line(format!("[ingest]\nsource_epoch = {}", settings.source_epoch));
    line(format!("[fraud]\nanswer_window = {:?}", secs(settings.fraud_answer_window)));
    line(format!("[quotas]\nreads_per_second = {}", settings.api_rate.reads));
    line(format!("writes_per_second = {}", settings.api_rate.writes));
    line(format!("resends_per_hour = {}", settings.api_rate.resends_per_hour));
    line(compat(settings.compat));
    line("[events]".to_owned());
    if let Some(types) = &settings.event_types {
        line(format!("types = {:?}", types.display().to_string()));
    }
    line("[events.partitions]".to_owned());
    for (name, partitions) in &settings.event_partitions {
        line(format!("{name:?} = {partitions}"));
    }
    line(format!("[listen]\naddress = \"{}\"", settings.listen.address));
    line(format!("plain = {}", settings.listen.plain));
    let most = settings.listen.max_connections.unwrap_or(Listen::MAX_CONNECTIONS);
    line(format!("max_connections = {most}"));
    let per_peer = settings.listen.connections_per_peer.unwrap_or(0);
    line(format!("connections_per_peer = {per_peer}"));
    if let Some(tls) = &settings.listen.tls {
        line(format!("tls_certificate = {:?}", tls.certificate.display().to_string()));
        line(format!("tls_key = {:?}", tls.key.display().to_string()));
        if let Some(clients) = &tls.clients {
            let authorities = clients.authorities.display().to_string();
            line(format!("tls_client_ca = {authorities:?}"));
            if let Some(revoked) = &clients.revoked {
                line(format!("tls_client_crl = {:?}", revoked.display().to_string()));
            }
            let auth = if clients.required { "required" } else { "optional" };
            line(format!("tls_client_auth = {auth:?}"));
        }
    }
    if !settings.kafka.is_empty() {
        line("[kafka]".to_owned());
        for name in settings.kafka.keys() {
            line(format!("{name:?} = \"***\""));
        }
    }
    line(format!("[metrics]\npublic = {}", settings.metrics_public));
    if let Some(address) = settings.metrics_listen {
        line(format!("listen = \"{address}\""));
    }
    line(format!("[shutdown]\ngrace = {:?}", secs(settings.shutdown_grace)));
    line(format!("[log]\nlevel = {:?}", settings.log_level));
    out
}

fn compat(compat: tidings_api::Compat) -> String {
    format!(
        "[compat]\npaylod = {}\nempty_as_error = {}\nconfig_fanout = {}",
        compat.paylod, compat.empty_as_error, compat.config_fanout
    )
}

fn issuer(issuer: &ExternalIssuer) -> String {
    let ca_file = issuer.ca_file.as_ref();
    let ca_file = ca_file.map(|path| format!(", ca_file = {path:?}")).unwrap_or_default();
    format!(
        "{{ issuer = {:?}, audience = {:?}, jwks_url = {:?}{ca_file}, certificate_bound = {} }}",
        issuer.issuer, issuer.audience, issuer.jwks_url, issuer.certificate_bound
    )
}

/// The section `[egress]` and what is below it.
fn egress(settings: &Settings) -> String {
    let nets = |nets: &[ipnet::IpNet]| {
        nets.iter().map(|net| format!("\"{net}\"")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![
        "[egress]".to_owned(),
        format!("allow = [{}]", nets(&settings.egress_allow)),
        format!("deny = [{}]", nets(&settings.egress_deny)),
        format!("allow_http = {}", settings.allow_http),
        format!("ports = {:?}", settings.ports),
    ];
    let ips = |ips: &[std::net::IpAddr]| {
        ips.iter().map(|ip| format!("\"{ip}\"")).collect::<Vec<_>>().join(", ")
    };
    lines.push(format!("bind = [{}]", ips(&settings.egress_bind)));
    if let Some(proxy) = &settings.egress_proxy {
        lines.push(format!("proxy = \"{proxy}\""));
    }
    lines.push("[egress.addresses]".to_owned());
    for (region, addresses) in &settings.egress_addresses {
        lines.push(format!("{region} = [{}]", ips(addresses)));
    }
    lines.join("\n")
}

/// A duration as the settings file takes it, in one unit: `250ms`, `72h`, `90d`.
pub(crate) fn duration(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const WEEK: u64 = 7 * DAY;
    if duration.subsec_nanos() != 0 {
        return humantime::format_duration(duration).to_string();
    }
    match duration.as_secs() {
        days if days >= WEEK && days % DAY == 0 => format!("{}d", days / DAY),
        hours if hours >= HOUR && hours % HOUR == 0 => format!("{}h", hours / HOUR),
        minutes if minutes >= MINUTE && minutes % MINUTE == 0 => {
            format!("{}m", minutes / MINUTE)
        }
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["0s", "250ms", "1s", "90s", "5m", "90m", "6h", "24h", "72h", "90d"] {
            let parsed = humantime::parse_duration(text).unwrap();
            assert_eq!(duration(parsed), text);
        }
    }
}
