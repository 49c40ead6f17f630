//! Prints the settings in use. Secrets are files or masked: nothing here can
//! print one.

use std::fmt::Write as _;

use super::{BrokerChoice, Settings};

/// The settings as TOML, with secrets masked.
pub(crate) fn show(settings: &Settings) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a `String` cannot fail.
        writeln!(out, "{text}").unwrap_or_else(|error| unreachable!("{error}"));
    };
    let secs = |duration: std::time::Duration| humantime::format_duration(duration).to_string();
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
        settings
            .issuers
            .iter()
            .map(|issuer| format!(
                "{{ issuer = {:?}, audience = {:?}, jwks_url = {:?} }}",
                issuer.issuer, issuer.audience, issuer.jwks_url
            ))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    line(format!("max_ttl = {:?}", secs(settings.token_max_ttl)));
    line(format!("[webhooks]\nper_scope = {}", settings.webhooks_per_scope));
    let delivery = &settings.delivery;
    line(format!("[delivery]\ndefault_ladder = {:?}", delivery.default_ladder));
    line(format!("max_open = {}\nremembered = {}", delivery.max_open, delivery.remembered));
    line(format!("suspend_after = {:?}", secs(delivery.suspend_after)));
    line(format!("gone_count = {}\ngone_gap = {:?}", delivery.gone_count, secs(delivery.gone_gap)));
    line("[delivery.ladders]".to_owned());
    for (name, steps) in &delivery.ladders {
        let steps: Vec<_> = steps.iter().map(|step| format!("{:?}", secs(*step))).collect();
        line(format!("{name} = [{}]", steps.join(", ")));
    }
    let nets: Vec<_> = settings.egress_allow.iter().map(|net| format!("\"{net}\"")).collect();
    line(format!("[egress]\nallow = [{}]\nallow_http = {}", nets.join(", "), settings.allow_http));
    line(format!("ports = {:?}", settings.ports));
    line(format!("[eventlog]\nretention = {:?}", secs(settings.eventlog_retention)));
    line(format!("max_lag = {:?}", secs(settings.eventlog_max_lag)));
    line(format!("[keys]\nretention = {:?}", secs(settings.keys_retention)));
    line(format!("[slots]\nsession = {:?}", secs(settings.session)));
    line(format!("checkpoint_interval = {:?}", secs(settings.checkpoint_interval)));
    line(format!("[ingest]\nsource_epoch = {}", settings.source_epoch));
    line(format!("[listen]\naddress = \"{}\"", settings.listen.address));
    if let Some(tls) = &settings.listen.tls {
        line(format!("tls_certificate = {:?}", tls.certificate.display().to_string()));
        line(format!("tls_key = {:?}", tls.key.display().to_string()));
    }
    line(format!("[metrics]\npublic = {}", settings.metrics_public));
    line(format!("[shutdown]\ngrace = {:?}", secs(settings.shutdown_grace)));
    line(format!("[log]\nlevel = {:?}", settings.log_level));
    out
}
