//! Between entities and records: secrets are sealed with entity and field as
//! associated data, so that a sealed value cannot be moved to another place.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidings_proto::v1;
use tidings_signing::{
    AsymmetricKey, KeyRing, OpenError, SealKey, Sealed, Secret, WebhookSecret, slot,
};
use tidings_types::{
    HookOwner, IssuerId, MerchantKey, NotificationId, PmId, ProductId, Rng, RunId, Scope,
    Timestamp, WebhookId, WebhookStatus,
};
use v1::registry_record::State as Proto;

use crate::entity::{
    Basic, ClientCertificate, CommandRecord, Configuration, CustomHeader, HookSettings,
    HookSignature, IdKey, Issuer, Merchant, OAuth, OAuthMethod, Pause, PauseOf, Product,
    ProgrammeManager, SigningSecret, SourceKey, State, Suspension, TlsIdentity, Webhook,
};

/// A sealed value as it stands in records.
pub fn to_proto(sealed: Sealed) -> v1::Sealed {
    v1::Sealed {
        key: sealed.key,
        nonce: Bytes::copy_from_slice(&sealed.nonce),
        data: Bytes::from(sealed.data),
    }
}

/// The other way round; `None` when the nonce has not its length.
pub fn to_sealed(proto: &v1::Sealed) -> Option<Sealed> {
    Some(Sealed {
        key: proto.key.clone(),
        nonce: proto.nonce.as_ref().try_into().ok()?,
        data: proto.data.to_vec(),
    })
}

/// Opens a sealed value of a record.
///
/// # Errors
/// As [`KeyRing::open`].
pub fn open_sealed(ring: &KeyRing, proto: &v1::Sealed, aad: &[u8]) -> Result<Vec<u8>, OpenError> {
    ring.open(&to_sealed(proto).ok_or(OpenError::Damaged)?, aad)
}

/// Seals for one entity.
struct Sealer<'a> {
    ring: &'a KeyRing,
    rng: &'a dyn Rng,
    entity: &'a str,
}

impl Sealer<'_> {
    fn seal(&self, key: &SealKey<'_>, field: &str, plain: &[u8]) -> Option<v1::Sealed> {
        let mut nonce = [0; 12];
        self.rng.fill(&mut nonce);
        let aad = format!("{}#{field}", self.entity);
        Some(to_proto(self.ring.seal(key, aad.as_bytes(), plain, nonce)))
    }

    fn secret(&self, field: &str, plain: &[u8]) -> Option<v1::Sealed> {
        self.seal(&SealKey::Registry, field, plain)
    }
}

/// Opens for one entity.
struct Opener<'a> {
    ring: &'a KeyRing,
    entity: &'a str,
}

impl Opener<'_> {
    fn secret(&self, field: &str, sealed: Option<&v1::Sealed>) -> Result<Secret, OpenError> {
        let aad = format!("{}#{field}", self.entity);
        let sealed = sealed.ok_or(OpenError::Damaged)?;
        open_sealed(self.ring, sealed, aad.as_bytes()).map(Secret::new)
    }
}

/// The record's form of a state.
pub(crate) fn encode(state: &State, entity: &str, ring: &KeyRing, rng: &dyn Rng) -> Proto {
    let sealer = Sealer { ring, rng, entity };
    match state {
        State::Deleted { topic_deleted, at } => {
            Proto::Deleted(v1::Deleted { topic_deleted: *topic_deleted, time: at.as_millis() })
        }
        State::Issuer(issuer) => {
            Proto::Issuer(v1::Issuer { id: issuer.id.to_string(), name: issuer.name.clone() })
        }
        State::ProgrammeManager(pm) => Proto::ProgrammeManager(v1::ProgrammeManager {
            id: pm.id.0,
            code: pm.code.clone(),
            issuer: pm.issuer.to_string(),
            name: pm.name.clone(),
        }),
        State::Product(product) => Proto::Product(v1::Product {
            id: product.id.to_string(),
            programme_manager: product.programme_manager.0,
        }),
        State::Merchant(merchant) => Proto::Merchant(v1::Merchant {
            key: merchant.key.to_string(),
            programme_manager: merchant.programme_manager.0,
            source_keys: merchant
                .source_keys
                .iter()
                .map(|key| v1::SourceKey {
                    id: key.id.clone(),
                    value: sealer.secret(&format!("source/{}", key.id), key.value.expose()),
                })
                .collect(),
        }),
        State::Webhook(webhook) => Proto::Webhook(encode_webhook(webhook, &sealer)),
        State::Configuration(configuration) => Proto::Configuration(v1::Configuration {
            id: configuration.id.clone(),
            owner: Some(match &configuration.owner {
                Scope::Issuer(id) => v1::configuration::Owner::Issuer(id.to_string()),
                Scope::ProgrammeManager(id) => v1::configuration::Owner::ProgrammeManager(id.0),
            }),
            pm: configuration.pm.map(|pm| pm.0),
            product: configuration.product.as_ref().map_or_else(String::new, ToString::to_string),
            active: configuration.active,
            filter: configuration.filter.clone(),
            created: configuration.created.as_millis(),
            modified: configuration.modified.as_millis(),
            status: String::new(),
        }),
        State::Pause(pause) => Proto::Pause(encode_pause(pause)),
        State::IdKey(key) => Proto::DeploymentKeys(v1::DeploymentKeys {
            id_key: sealer.secret("id_key", key.expose()),
        }),
        State::Command(command) => Proto::Command(v1::Command {
            subject: command.subject.clone(),
            status: u32::from(command.status),
            answer: sealer.seal(&SealKey::Command, "answer", command.answer.expose()),
            runs: command
                .runs
                .iter()
                .map(|(notification, run)| v1::CommandRun {
                    notification: Bytes::copy_from_slice(notification.as_bytes()),
                    run: Bytes::copy_from_slice(run.as_bytes()),
                })
                .collect(),
            done: command.done,
            expires: command.expires.as_millis(),
            headers: command
                .headers
                .iter()
                .map(|(name, value)| v1::HeaderEntry {
                    name: name.clone(),
                    value: Bytes::copy_from_slice(value.as_bytes()),
                })
                .collect(),
        }),
    }
}

fn encode_pause(pause: &Pause) -> v1::Pause {
    use v1::pause::Of;
    v1::Pause {
        of: Some(match &pause.of {
            PauseOf::Everything => Of::Everything(true),
            PauseOf::EventType(name) => Of::EventType(name.to_string()),
            PauseOf::Webhook(id) => Of::Webhook(Bytes::copy_from_slice(id.as_bytes())),
            PauseOf::Issuer(id) => Of::Issuer(id.to_string()),
            PauseOf::ProgrammeManager(id) => Of::ProgrammeManager(id.0),
            PauseOf::Merchant(key) => Of::Merchant(key.to_string()),
        }),
        reason: pause.reason.clone(),
        actor: pause.actor.clone(),
        since: pause.since.as_millis(),
    }
}

fn decode_pause(pause: &v1::Pause) -> Result<Pause, OpenError> {
    use v1::pause::Of;
    Ok(Pause {
        of: match pause.of.as_ref().ok_or(OpenError::Damaged)? {
            Of::Everything(_) => PauseOf::Everything,
            Of::EventType(name) => PauseOf::EventType(name.as_str().into()),
            Of::Webhook(id) => {
                PauseOf::Webhook(WebhookId::from_slice(id).ok_or(OpenError::Damaged)?)
            }
            Of::Issuer(id) => PauseOf::Issuer(IssuerId(id.as_str().into())),
            Of::ProgrammeManager(id) => PauseOf::ProgrammeManager(PmId(*id)),
            Of::Merchant(key) => PauseOf::Merchant(MerchantKey(key.as_str().into())),
        },
        reason: pause.reason.clone(),
        actor: pause.actor.clone(),
        since: Timestamp::from_millis(pause.since),
    })
}

fn encode_webhook(webhook: &Webhook, sealer: &Sealer<'_>) -> v1::Webhook {
    let settings = &webhook.settings;
    let suspension = webhook.suspension.as_ref();
    v1::Webhook {
        id: Bytes::copy_from_slice(webhook.id.as_bytes()),
        owner: Some(match &webhook.owner {
            HookOwner::Client(Scope::Issuer(id)) => v1::webhook::Owner::Issuer(id.to_string()),
            HookOwner::Client(Scope::ProgrammeManager(id)) => {
                v1::webhook::Owner::ProgrammeManager(id.0)
            }
            HookOwner::Merchant(key) => v1::webhook::Owner::Merchant(key.to_string()),
            HookOwner::Operator => v1::webhook::Owner::Operator(true),
        }),
        product: webhook.product.as_ref().map_or_else(String::new, ToString::to_string),
        events: webhook.events.iter().map(ToString::to_string).collect(),
        status: webhook.status.as_str().to_owned(),
        url: webhook.url.clone(),
        headers: webhook
            .headers
            .iter()
            .map(|header| v1::CustomHeader {
                name: header.name.clone(),
                value: sealer.secret(&format!("header/{}", header.name), header.value.expose()),
                secret: header.secret,
            })
            .collect(),
        signing_secrets: webhook
            .signing_secrets
            .iter()
            .map(|secret| v1::SigningSecret {
                id: secret.id.clone(),
                value: sealer.secret(&format!("signing/{}", secret.id), secret.secret.expose()),
                not_after: secret.not_after.map_or(0, Timestamp::as_millis),
                ed25519_seed: secret.asymmetric.as_ref().and_then(|key| {
                    sealer.secret(&format!("ed25519/{}", secret.id), key.expose_seed())
                }),
            })
            .collect(),
        settings: Some(v1::Settings {
            ordering: settings.ordering.clone(),
            stuck_key: settings.stuck_key.clone(),
            ladder: settings.ladder.clone().unwrap_or_default(),
            rate_limit_per_second: settings.rate_limit_per_second,
            max_in_flight: settings.max_in_flight,
            timeout_ms: u32::try_from(settings.timeout.as_millis()).unwrap_or(u32::MAX),
            signatures: settings.signatures.clone(),
            strict_legacy_envelope: settings.strict_legacy_envelope,
        }),
        created: webhook.created.as_millis(),
        modified: webhook.modified.as_millis(),
        label: webhook.label.clone(),
        basic: webhook.basic.as_ref().map(|basic| v1::BasicAuth {
            username: basic.username.clone(),
            password: sealer.secret("basic", basic.password.expose()),
        }),
        merchant_signature: Some(match &webhook.signature {
            HookSignature::None => {
                v1::MerchantSignature { kind: "none".to_owned(), ..Default::default() }
            }
            HookSignature::SourceKey(id) => v1::MerchantSignature {
                kind: "sourceKey".to_owned(),
                source_key_id: id.clone(),
                signature_key: None,
            },
            HookSignature::SignatureKey(key) => v1::MerchantSignature {
                kind: "signatureKey".to_owned(),
                source_key_id: String::new(),
                signature_key: sealer.secret("signature_key", key.expose()),
            },
        }),
        wire_names: webhook.wire_names,
        endpoint_sign_in: webhook
            .oauth
            .as_ref()
            .map_or_else(Bytes::new, |oauth| encode_oauth(oauth, sealer)),
        tls_identity: webhook.tls.as_ref().map_or_else(Bytes::new, |tls| encode_tls(tls, sealer)),
        partitions: webhook.partitions,
        suspended_reason: suspension.map(|it| it.reason.clone()).unwrap_or_default(),
        suspended_at: suspension.map_or(0, |it| it.at.as_millis()),
        suspended_failing_since: suspension.map_or(0, |it| it.failing_since.as_millis()),
        suspended_last_code: suspension.map(|it| it.last_code.clone()).unwrap_or_default(),
    }
}

fn encode_oauth(oauth: &OAuth, sealer: &Sealer<'_>) -> Bytes {
    tidings_proto::encode(&v1::EndpointSignIn {
        token_url: oauth.token_url.clone(),
        client_id: oauth.client_id.clone(),
        method: oauth.method.as_str().to_owned(),
        secret: sealer.secret("oauth", oauth.secret.expose()),
        key_id: oauth.key_id.clone().unwrap_or_default(),
        scope: oauth.scope.clone().unwrap_or_default(),
        audience: oauth.audience.clone().unwrap_or_default(),
    })
}

fn decode_oauth(bytes: &Bytes, opener: &Opener<'_>) -> Result<Option<OAuth>, OpenError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let oauth: v1::EndpointSignIn =
        tidings_proto::decode(bytes.clone()).map_err(|_malformed| OpenError::Damaged)?;
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(Some(OAuth {
        method: OAuthMethod::from_name(&oauth.method).ok_or(OpenError::Damaged)?,
        secret: opener.secret("oauth", oauth.secret.as_ref())?,
        token_url: oauth.token_url,
        client_id: oauth.client_id,
        key_id: some(oauth.key_id),
        scope: some(oauth.scope),
        audience: some(oauth.audience),
    }))
}

fn encode_tls(tls: &TlsIdentity, sealer: &Sealer<'_>) -> Bytes {
    let client = tls.client.as_ref();
    tidings_proto::encode(&v1::TlsIdentity {
        ca_bundle: tls.ca_bundle.clone().unwrap_or_default(),
        certificate: client.map(|client| client.certificate.clone()).unwrap_or_default(),
        key: client.and_then(|client| sealer.secret("tls_key", client.key.expose())),
    })
}

fn decode_tls(bytes: &Bytes, opener: &Opener<'_>) -> Result<Option<TlsIdentity>, OpenError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tls: v1::TlsIdentity =
        tidings_proto::decode(bytes.clone()).map_err(|_malformed| OpenError::Damaged)?;
    let client = if tls.certificate.is_empty() {
        None
    } else {
        let key = opener.secret("tls_key", tls.key.as_ref())?;
        Some(ClientCertificate { certificate: tls.certificate, key })
    };
    let ca_bundle = (!tls.ca_bundle.is_empty()).then_some(tls.ca_bundle);
    Ok(Some(TlsIdentity { ca_bundle, client }))
}

/// The typed form of a record's state.
pub(crate) fn decode(
    proto: &Proto,
    entity: &str,
    version: u64,
    command_hash: &[u8],
    ring: &KeyRing,
) -> Result<State, OpenError> {
    let opener = Opener { ring, entity };
    Ok(match proto {
        Proto::Deleted(deleted) => State::Deleted {
            topic_deleted: deleted.topic_deleted,
            at: Timestamp::from_millis(deleted.time),
        },
        Proto::Issuer(issuer) => State::Issuer(Issuer {
            id: IssuerId(Arc::from(issuer.id.as_str())),
            name: issuer.name.clone(),
        }),
        Proto::ProgrammeManager(pm) => State::ProgrammeManager(ProgrammeManager {
            id: PmId(pm.id),
            code: pm.code.clone(),
            issuer: IssuerId(Arc::from(pm.issuer.as_str())),
            name: pm.name.clone(),
        }),
        Proto::Product(product) => State::Product(Product {
            id: ProductId(Arc::from(product.id.as_str())),
            programme_manager: PmId(product.programme_manager),
        }),
        Proto::Merchant(merchant) => State::Merchant(Merchant {
            key: MerchantKey(Arc::from(merchant.key.as_str())),
            programme_manager: PmId(merchant.programme_manager),
            source_keys: merchant
                .source_keys
                .iter()
                .map(|key| {
                    let value = opener.secret(&format!("source/{}", key.id), key.value.as_ref())?;
                    Ok(SourceKey { id: key.id.clone(), value })
                })
                .collect::<Result<_, OpenError>>()?,
        }),
        Proto::Webhook(webhook) => {
            State::Webhook(Box::new(decode_webhook(webhook, version, &opener)?))
        }
        Proto::Configuration(configuration) => State::Configuration(Configuration {
            id: configuration.id.clone(),
            owner: match configuration.owner.as_ref().ok_or(OpenError::Damaged)? {
                v1::configuration::Owner::Issuer(id) => {
                    Scope::Issuer(IssuerId(Arc::from(id.as_str())))
                }
                v1::configuration::Owner::ProgrammeManager(id) => {
                    Scope::ProgrammeManager(PmId(*id))
                }
            },
            pm: configuration.pm.map(PmId),
            product: product(&configuration.product),
            active: configuration.active,
            filter: configuration.filter.clone(),
            created: Timestamp::from_millis(configuration.created),
            modified: Timestamp::from_millis(configuration.modified),
        }),
        Proto::Pause(pause) => State::Pause(decode_pause(pause)?),
        Proto::DeploymentKeys(keys) => {
            let key = opener.secret("id_key", keys.id_key.as_ref())?;
            let bytes = key.expose().try_into().map_err(|_length| OpenError::Damaged)?;
            State::IdKey(IdKey::new(bytes))
        }
        Proto::Command(command) => State::Command(CommandRecord {
            subject: command.subject.clone(),
            hash: command_hash.try_into().unwrap_or([0; 32]),
            status: u16::try_from(command.status).unwrap_or(0),
            answer: opener.secret("answer", command.answer.as_ref())?,
            runs: command
                .runs
                .iter()
                .filter_map(|run| {
                    Some((
                        NotificationId::from_slice(&run.notification)?,
                        RunId::from_slice(&run.run)?,
                    ))
                })
                .collect(),
            headers: command
                .headers
                .iter()
                .filter_map(|header| {
                    let value = std::str::from_utf8(&header.value).ok()?;
                    Some((header.name.clone(), value.to_owned()))
                })
                .collect(),
            done: command.done,
            expires: Timestamp::from_millis(command.expires),
            version,
        }),
    })
}

fn product(text: &str) -> Option<ProductId> {
    (!text.is_empty()).then(|| ProductId(Arc::from(text)))
}

fn decode_webhook(
    proto: &v1::Webhook,
    version: u64,
    opener: &Opener<'_>,
) -> Result<Webhook, OpenError> {
    let id = WebhookId::from_slice(&proto.id).ok_or(OpenError::Damaged)?;
    let owner = match proto.owner.as_ref().ok_or(OpenError::Damaged)? {
        v1::webhook::Owner::Issuer(id) => {
            HookOwner::Client(Scope::Issuer(IssuerId(Arc::from(id.as_str()))))
        }
        v1::webhook::Owner::ProgrammeManager(id) => {
            HookOwner::Client(Scope::ProgrammeManager(PmId(*id)))
        }
        v1::webhook::Owner::Merchant(key) => {
            HookOwner::Merchant(MerchantKey(Arc::from(key.as_str())))
        }
        v1::webhook::Owner::Operator(_) => HookOwner::Operator,
    };
    let headers = proto.headers.iter().map(|header| {
        let value = opener.secret(&format!("header/{}", header.name), header.value.as_ref())?;
        Ok(CustomHeader { name: header.name.clone(), value, secret: header.secret })
    });
    let secrets = proto.signing_secrets.iter().map(|secret| {
        let bytes = opener.secret(&format!("signing/{}", secret.id), secret.value.as_ref())?;
        Ok(SigningSecret {
            id: secret.id.clone(),
            secret: WebhookSecret::from_bytes(bytes.expose()),
            asymmetric: asymmetric(secret, opener)?,
            not_after: (secret.not_after != 0).then(|| Timestamp::from_millis(secret.not_after)),
        })
    });
    let basic = match &proto.basic {
        None => None,
        Some(basic) => Some(Basic {
            username: basic.username.clone(),
            password: opener.secret("basic", basic.password.as_ref())?,
        }),
    };
    let signature = match proto.merchant_signature.as_ref() {
        Some(signature) if signature.kind == "sourceKey" => {
            HookSignature::SourceKey(signature.source_key_id.clone())
        }
        Some(signature) if signature.kind == "signatureKey" => HookSignature::SignatureKey(
            opener.secret("signature_key", signature.signature_key.as_ref())?,
        ),
        Some(_) | None => HookSignature::None,
    };
    Ok(Webhook {
        id,
        slot: slot(id),
        version,
        owner,
        product: product(&proto.product),
        events: proto.events.iter().map(|name| Arc::from(name.as_str())).collect(),
        status: WebhookStatus::from_name(&proto.status).ok_or(OpenError::Damaged)?,
        url: proto.url.clone(),
        headers: headers.collect::<Result<_, OpenError>>()?,
        signing_secrets: secrets.collect::<Result<_, OpenError>>()?,
        settings: proto.settings.as_ref().map_or_else(HookSettings::default, settings),
        created: Timestamp::from_millis(proto.created),
        modified: Timestamp::from_millis(proto.modified),
        label: proto.label.clone(),
        basic,
        oauth: decode_oauth(&proto.endpoint_sign_in, opener)?,
        tls: decode_tls(&proto.tls_identity, opener)?,
        signature,
        wire_names: proto.wire_names,
        partitions: proto.partitions.max(1),
        suspension: (!proto.suspended_reason.is_empty()).then(|| Suspension {
            reason: proto.suspended_reason.clone(),
            at: Timestamp::from_millis(proto.suspended_at),
            failing_since: Timestamp::from_millis(proto.suspended_failing_since),
            last_code: proto.suspended_last_code.clone(),
        }),
    })
}

fn asymmetric(
    proto: &v1::SigningSecret,
    opener: &Opener<'_>,
) -> Result<Option<AsymmetricKey>, OpenError> {
    let Some(sealed) = &proto.ed25519_seed else { return Ok(None) };
    let seed = opener.secret(&format!("ed25519/{}", proto.id), Some(sealed))?;
    let seed: &[u8; 32] = seed.expose().try_into().map_err(|_length| OpenError::Damaged)?;
    Ok(Some(AsymmetricKey::from_seed(seed)))
}

fn settings(proto: &v1::Settings) -> HookSettings {
    HookSettings {
        ordering: proto.ordering.clone(),
        stuck_key: proto.stuck_key.clone(),
        ladder: (!proto.ladder.is_empty()).then(|| proto.ladder.clone()),
        rate_limit_per_second: proto.rate_limit_per_second,
        max_in_flight: proto.max_in_flight,
        timeout: Duration::from_millis(u64::from(proto.timeout_ms)),
        signatures: proto.signatures.clone(),
        strict_legacy_envelope: proto.strict_legacy_envelope,
    }
}
