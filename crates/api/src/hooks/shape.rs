//! Hooks as the administrator sees them.

use serde::Serialize;
use serde_json::{Value, json};
use tidings_registry::{HookSignature, Webhook};
use tidings_types::{HookOwner, MerchantKey};

use crate::webhooks::headers::MASK;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookShape {
    hook_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant: Option<String>,
    label: String,
    url: String,
    events: Vec<String>,
    status: &'static str,
    authentication: Value,
    signature: Value,
    wire_names: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_key: Option<String>,
    created_time: String,
    last_modified_time: String,
}

/// A hook as every read shows it: without its password and key.
pub(crate) fn shape(hook: &Webhook) -> HookShape {
    HookShape {
        hook_id: hook.id.to_string(),
        merchant: merchant(&hook.owner).map(|key| key.to_string()),
        label: hook.label.clone(),
        url: hook.url.clone(),
        events: hook.events.iter().map(ToString::to_string).collect(),
        status: hook.status.as_str(),
        authentication: match &hook.basic {
            None => json!({ "type": "none" }),
            Some(basic) => {
                json!({ "type": "basic", "username": basic.username, "password": MASK })
            }
        },
        signature: match &hook.signature {
            HookSignature::None => json!({ "type": "none" }),
            HookSignature::SourceKey(id) => json!({ "type": "sourceKey", "sourceKeyId": id }),
            HookSignature::SignatureKey(_) => json!({ "type": "signatureKey" }),
        },
        wire_names: if hook.wire_names { "vendor" } else { "standard" },
        signature_key: None,
        created_time: hook.created.to_rfc3339(),
        last_modified_time: hook.modified.to_rfc3339(),
    }
}

/// A hook as the answer shows it that made its key.
pub(crate) fn with_key(hook: &Webhook) -> HookShape {
    let key = match &hook.signature {
        HookSignature::SignatureKey(key) => key.expose_text().map(str::to_owned),
        HookSignature::None | HookSignature::SourceKey(_) => None,
    };
    HookShape { signature_key: key, ..shape(hook) }
}

pub(crate) fn merchant(owner: &HookOwner) -> Option<&MerchantKey> {
    match owner {
        HookOwner::Merchant(key) => Some(key),
        HookOwner::Client(_) | HookOwner::Operator => None,
    }
}
