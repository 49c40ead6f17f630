//! `config.tls`: the client certificate that a webhook's connections show, and the
//! authorities that they believe in place of the public ones.
//!
//! The key is never answered: `***` stands for it, and sent back in an update keeps the
//! one that is stored, which must fit the certificate of the update.

use serde::Serialize;
use tidings_egress::{Identity, IdentityPart, IdentityParts, certificate_not_after};
use tidings_registry::{ClientCertificate, TlsIdentity};
use tidings_signing::Secret;
use tidings_types::Timestamp;

use super::headers::MASK;
use crate::{
    errors::{ApiError, Code, Fault},
    input::{Object, wrong},
};

const BUNDLE: &str = "caBundle";
const CERTIFICATE: &str = "clientCertificate";
const KEY: &str = "clientKey";
/// Only in answers; an update may send it back, and it is not looked at.
const NOT_AFTER: &str = "clientCertificateNotAfter";
const MEMBERS: &[&str] = &[BUNDLE, CERTIFICATE, KEY, NOT_AFTER];

/// `config.tls` as it was sent. Shows nothing of the key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TlsInput {
    path: String,
    ca_bundle: Option<String>,
    certificate: Option<String>,
    key: KeyInput,
}

#[derive(Clone, PartialEq, Eq)]
enum KeyInput {
    None,
    /// Keep the one that is stored.
    Kept,
    New(Secret),
}

impl std::fmt::Debug for TlsInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsInput").finish_non_exhaustive()
    }
}

/// Reads `tls` of `config`. What stands in it is looked at by [`merge`].
pub(crate) fn read(config: Object<'_>, faults: &mut Vec<Fault>) -> Option<TlsInput> {
    let object = config.object("tls", MEMBERS, faults)?;
    let mut text = |name| object.string(name, faults).map(std::borrow::Cow::into_owned);
    let input = TlsInput {
        path: config.path("tls"),
        ca_bundle: text(BUNDLE),
        certificate: text(CERTIFICATE),
        key: match text(KEY) {
            None => KeyInput::None,
            Some(key) if key == MASK => KeyInput::Kept,
            Some(key) => KeyInput::New(Secret::from(key)),
        },
    };
    object.string(NOT_AFTER, faults);
    if input.ca_bundle.is_none() && input.certificate.is_none() && input.key == KeyInput::None {
        let message = "must have caBundle, or clientCertificate and clientKey, or all of them";
        faults.push(wrong(config.path("tls"), message));
        return None;
    }
    Some(input)
}

/// The identity as it is stored, if it can be used now for `url`.
///
/// # Errors
/// `INVALID_TLS_IDENTITY` at the part that cannot be used.
pub(crate) fn merge(
    sent: Option<&TlsInput>,
    stored: Option<&TlsIdentity>,
    (url, now): (&str, Timestamp),
) -> Result<Option<TlsIdentity>, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    let fault = |part: Option<&str>, message: String| {
        let path = part.map_or_else(|| sent.path.clone(), |part| format!("{}.{part}", sent.path));
        ApiError::from(Fault::at(Code::InvalidTlsIdentity, path).saying(message))
    };
    if !url.starts_with("https:") {
        return Err(fault(None, "goes with an https:// URL".to_owned()));
    }
    let kept = stored.and_then(|stored| stored.client.as_ref()).map(|client| &client.key);
    let key = match &sent.key {
        KeyInput::None => None,
        KeyInput::New(key) => Some(key),
        KeyInput::Kept => Some(kept.ok_or_else(|| {
            fault(Some(KEY), "has no stored value that *** could keep".to_owned())
        })?),
    };
    let parts = IdentityParts {
        ca_bundle: sent.ca_bundle.as_deref(),
        certificate: sent.certificate.as_deref(),
        key,
    };
    let checked = Identity::new(&parts).and_then(|identity| identity.check_time(now));
    checked.map_err(|refusal| {
        let part = match refusal.part() {
            IdentityPart::CaBundle => BUNDLE,
            IdentityPart::Certificate => CERTIFICATE,
            IdentityPart::Key => KEY,
        };
        fault(Some(part), refusal.to_string())
    })?;
    let client = sent.certificate.clone().zip(key.cloned());
    Ok(Some(TlsIdentity {
        ca_bundle: sent.ca_bundle.clone(),
        client: client.map(|(certificate, key)| ClientCertificate { certificate, key }),
    }))
}

/// What the endpoint's connections are made with.
///
/// # Errors
/// When what is stored cannot be used: then nothing may be sent.
pub(crate) fn identity(stored: &TlsIdentity) -> Result<Identity, tidings_egress::IdentityRefusal> {
    let client = stored.client.as_ref();
    Identity::new(&IdentityParts {
        ca_bundle: stored.ca_bundle.as_deref(),
        certificate: client.map(|client| client.certificate.as_str()),
        key: client.map(|client| &client.key),
    })
}

/// `config.tls` as answers show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_not_after: Option<String>,
}

pub(crate) fn shape(stored: &TlsIdentity) -> TlsShape {
    let client = stored.client.as_ref();
    let not_after = client.and_then(|client| certificate_not_after(&client.certificate));
    TlsShape {
        ca_bundle: stored.ca_bundle.clone(),
        client_certificate: client.map(|client| client.certificate.clone()),
        client_key: client.map(|_client| MASK),
        client_certificate_not_after: not_after.map(Timestamp::to_rfc3339),
    }
}
