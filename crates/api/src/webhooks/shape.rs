//! Webhooks as clients see them.

use serde::Serialize;
use serde_json::{Map, Value};
use tidings_registry::{Snapshot, Webhook};
use tidings_types::{HookOwner, ProductId, Scope};

use super::{
    authentication,
    headers::MASK,
    tls::{self, TlsShape},
};
use crate::config::Config;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookShape {
    webhook_id: String,
    /// The documents spell it both ways (`spec.md` §6.1).
    #[serde(rename = "webhookid", skip_serializing_if = "Option::is_none")]
    lower_case_id: Option<String>,
    #[serde(rename = "programManagerCode", skip_serializing_if = "Option::is_none")]
    programme_manager_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<Value>,
    events: Vec<u16>,
    webhook_status: &'static str,
    config: ConfigShape,
    created_time: String,
    last_modified_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigShape {
    url: String,
    custom_headers: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsShape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication: Option<Value>,
    ordering: String,
    stuck_key: String,
    ladder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_per_second: Option<u32>,
    max_in_flight: u32,
    timeout_ms: u64,
    signatures: Vec<String>,
    strict_legacy_envelope: bool,
}

/// A webhook as every read shows it.
pub(crate) fn shape(webhook: &Webhook, snapshot: &Snapshot, config: &Config) -> WebhookShape {
    let settings = &webhook.settings;
    let code = match &webhook.owner {
        HookOwner::Client(Scope::ProgrammeManager(id)) => {
            snapshot.pms.get(id).map(|pm| pm.code.clone())
        }
        HookOwner::Client(Scope::Issuer(_)) | HookOwner::Merchant(_) | HookOwner::Operator => None,
    };
    WebhookShape {
        webhook_id: webhook.id.to_string(),
        lower_case_id: None,
        programme_manager_code: code,
        product_id: webhook.product.as_ref().map(product),
        events: webhook.events.iter().filter_map(|name| name.parse().ok()).collect(),
        webhook_status: webhook.status.as_str(),
        config: ConfigShape {
            url: webhook.url.clone(),
            custom_headers: headers(webhook),
            tls: webhook.tls.as_ref().map(tls::shape),
            authentication: authentication::shape(webhook.basic.as_ref(), webhook.oauth.as_ref()),
            ordering: settings.ordering.clone(),
            stuck_key: settings.stuck_key.clone(),
            ladder: settings.ladder.clone().unwrap_or_else(|| config.default_ladder.clone()),
            rate_limit_per_second: (settings.rate_limit_per_second > 0)
                .then_some(settings.rate_limit_per_second),
            max_in_flight: settings.max_in_flight,
            timeout_ms: u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX),
            signatures: settings.signatures.clone(),
            strict_legacy_envelope: settings.strict_legacy_envelope,
        },
        created_time: webhook.created.to_rfc3339(),
        last_modified_time: webhook.modified.to_rfc3339(),
        signing_secret: None,
    }
}

/// A webhook as the answer to its creation shows it, with the secret.
pub(crate) fn created(webhook: &Webhook, snapshot: &Snapshot, config: &Config) -> WebhookShape {
    WebhookShape {
        lower_case_id: Some(webhook.id.to_string()),
        ..rotated(webhook, snapshot, config)
    }
}

/// A webhook as the answer to a rotation shows it, with the newest secret.
pub(crate) fn rotated(webhook: &Webhook, snapshot: &Snapshot, config: &Config) -> WebhookShape {
    let secret = webhook.signing_secrets.last().map(|secret| secret.secret.to_text());
    WebhookShape { signing_secret: secret, ..shape(webhook, snapshot, config) }
}

/// A product id as a number where it is one, else as it was registered.
pub(crate) fn product(product: &ProductId) -> Value {
    match product.0.parse::<u64>() {
        Ok(number) if number.to_string() == *product.0 => Value::from(number),
        Ok(_) | Err(_) => Value::from(product.0.as_ref()),
    }
}

fn headers(webhook: &Webhook) -> Map<String, Value> {
    webhook
        .headers
        .iter()
        .map(|header| {
            let value =
                if header.secret { MASK } else { header.value.expose_text().unwrap_or(MASK) };
            (header.name.clone(), Value::from(value))
        })
        .collect()
}
