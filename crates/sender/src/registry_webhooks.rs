//! The webhooks of the registry, prepared for sending.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use parking_lot::Mutex;
use tidings_delivery::{Standing, Suspended};
use tidings_egress::{
    AssertionKey, ClientProof, Identity, IdentityParts, Policy, SignIn, SignInParts, Target,
};
use tidings_registry::{
    Change, EntityKey, HookSignature, KeysTopic, OAuth, OAuthMethod, ProposeError, Registry,
    Snapshot, State, Suspension, TombStone, Webhook as Registered, wire_name,
};
use tidings_types::{
    AttemptCode, BoxFuture, HookOwner, Ordering, Scope, Slot, StuckKey, WebhookId, WebhookStatus,
};
use tokio::sync::watch;

use crate::{
    deps::{BucketKeys, Webhooks, WebhooksError},
    webhook::{LiveSecret, Owner, SecretTexts, Signing, Webhook, fixed_headers},
};

/// What turns a registered webhook into one that can be sent to.
#[derive(Clone, Debug)]
pub struct RegistryWebhooksConfig {
    /// Which URLs may be sent to; a stored one that is refused now ends attempts
    /// with the refusal's code.
    pub policy: Policy,
    pub user_agent: String,
    /// The ladder of a webhook that names none...
    pub default_ladder: String,
    /// ...and of a merchant's hook.
    pub merchant_ladder: String,
}

type Prepared = BTreeMap<WebhookId, Arc<Webhook>>;

struct Shared {
    registry: Registry,
    config: RegistryWebhooksConfig,
    /// By slot, what was handed out last: a webhook is prepared once per version.
    /// Bounded by the webhooks there are.
    prepared: Mutex<BTreeMap<Slot, Prepared>>,
}

/// [`Webhooks`] over the registry. Cheap to clone.
#[derive(Clone)]
pub struct RegistryWebhooks(Arc<Shared>);

impl fmt::Debug for RegistryWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryWebhooks")
    }
}

impl RegistryWebhooks {
    pub fn new(registry: Registry, config: RegistryWebhooksConfig) -> Self {
        Self(Arc::new(Shared { registry, config, prepared: Mutex::default() }))
    }

    /// Prepares a webhook; `before` is what it was prepared as last.
    fn prepare(
        &self,
        snapshot: &Snapshot,
        registered: &Registered,
        before: Option<&Webhook>,
    ) -> Webhook {
        let config = &self.0.config;
        let settings = &registered.settings;
        let default = match registered.owner {
            HookOwner::Merchant(_) => &config.merchant_ladder,
            HookOwner::Client(_) | HookOwner::Operator => &config.default_ladder,
        };
        let basic = registered.basic.as_ref().and_then(|basic| {
            let mut plain = basic.username.clone().into_bytes();
            plain.push(b':');
            plain.extend_from_slice(basic.password.expose());
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(&plain))).ok()
        });
        let custom =
            registered.headers.iter().map(|header| (wire_name(&header.name), header.value.clone()));
        let target = Target::parse(&registered.url, &config.policy)
            .map(Arc::new)
            .map_err(|refusal| refusal.code());
        let (target, identity) = match identity(registered) {
            Ok(identity) => (target, identity),
            Err(code) => (Err(code), None),
        };
        let (target, sign_in) = match sign_in(registered, &config.policy, before) {
            Ok(sign_in) => (target, sign_in),
            Err(code) => (Err(code), None),
        };
        Webhook {
            id: registered.id,
            version: registered.version,
            standing: standing(snapshot, registered),
            suspended: registered.suspension.as_ref().map(suspended),
            deleted: None,
            owner: owner(&registered.owner),
            target,
            identity,
            sign_in,
            sign_in_secret: registered.oauth.as_ref().map(|oauth| oauth.secret.clone()),
            headers: fixed_headers(&config.user_agent, custom, basic.as_ref()),
            timeout: settings.timeout,
            max_in_flight: usize::try_from(settings.max_in_flight).unwrap_or(1),
            ladder: settings.ladder.clone().unwrap_or_else(|| default.clone()),
            rate_per_second: settings.rate_limit_per_second,
            ordering: Ordering::from_name(&settings.ordering).unwrap_or(Ordering::None),
            stuck_key: StuckKey::from_name(&settings.stuck_key).unwrap_or(StuckKey::Wait),
            partitions: registered.partitions,
            signing: signing(snapshot, registered),
            secret_texts: SecretTexts::default(),
        }
    }
}

/// As whom a webhook's connections are made.
///
/// # Errors
/// When what is stored cannot be used.
fn identity(registered: &Registered) -> Result<Option<Arc<Identity>>, AttemptCode> {
    let Some(tls) = &registered.tls else { return Ok(None) };
    let client = tls.client.as_ref();
    let made = Identity::new(&IdentityParts {
        ca_bundle: tls.ca_bundle.as_deref(),
        certificate: client.map(|client| client.certificate.as_str()),
        key: client.map(|client| &client.key),
    });
    match made {
        Ok(identity) => Ok(Some(Arc::new(identity))),
        Err(refusal) => {
            tracing::error!(webhook = %registered.id, %refusal, "the TLS identity of a webhook cannot be used; nothing is sent to it");
            Err(AttemptCode::BadConfig)
        }
    }
}

/// How a webhook's requests sign in. What has not changed keeps the token that it has.
///
/// # Errors
/// When what is stored cannot be used.
fn sign_in(
    registered: &Registered,
    policy: &Policy,
    before: Option<&Webhook>,
) -> Result<Option<Arc<SignIn>>, AttemptCode> {
    let Some(oauth) = &registered.oauth else { return Ok(None) };
    let parts = sign_in_parts(oauth, policy)?;
    let kept = before.and_then(|before| before.sign_in.as_ref());
    Ok(Some(match kept.filter(|kept| kept.is_of(&parts)) {
        Some(kept) => Arc::clone(kept),
        None => Arc::new(SignIn::new(parts)),
    }))
}

fn sign_in_parts(oauth: &OAuth, policy: &Policy) -> Result<SignInParts, AttemptCode> {
    let target = Target::parse(&oauth.token_url, policy).map_err(|refusal| refusal.code())?;
    let secret = || oauth.secret.clone();
    let proof = match oauth.method {
        OAuthMethod::SecretBasic => ClientProof::Basic(secret()),
        OAuthMethod::SecretPost => ClientProof::Post(secret()),
        OAuthMethod::PrivateKey => ClientProof::Key {
            key: AssertionKey::from_pem(&oauth.secret)
                .map_err(|_unusable| AttemptCode::BadConfig)?,
            key_id: oauth.key_id.clone(),
        },
    };
    Ok(SignInParts {
        target: Arc::new(target),
        client_id: oauth.client_id.clone(),
        proof,
        scope: oauth.scope.clone(),
        audience: oauth.audience.clone(),
    })
}

/// A pause stops what would be sent, and nothing else.
fn standing(snapshot: &Snapshot, registered: &Registered) -> Standing {
    match registered.status {
        WebhookStatus::Active if snapshot.is_paused(registered) => Standing::Paused,
        WebhookStatus::Active | WebhookStatus::Inactive | WebhookStatus::Suspended => {
            registered.status.into()
        }
    }
}

fn suspended(suspension: &Suspension) -> Suspended {
    Suspended {
        at: suspension.at,
        since: suspension.failing_since,
        code: suspension.last_code.clone(),
        reason: suspension.reason.clone(),
    }
}

fn owner(owner: &HookOwner) -> Owner {
    match owner {
        HookOwner::Client(Scope::Issuer(id)) => Owner::Issuer(id.0.as_ref().to_owned()),
        HookOwner::Client(Scope::ProgrammeManager(id)) => Owner::ProgrammeManager(id.0),
        HookOwner::Merchant(key) => Owner::Merchant(key.0.as_ref().to_owned()),
        HookOwner::Operator => Owner::Operator,
    }
}

fn signing(snapshot: &Snapshot, registered: &Registered) -> Signing {
    if let HookOwner::Client(_) = &registered.owner {
        let wants = |name| registered.settings.signatures.iter().any(|scheme| scheme == name);
        let (signs_v1, signs_v1a) = (wants("v1"), wants("v1a"));
        let live = registered.signing_secrets.iter().map(|live| LiveSecret {
            secret: live.secret.clone(),
            signs_v1,
            asymmetric: live.asymmetric.clone().filter(|_| signs_v1a),
            not_after: live.not_after,
        });
        return Signing::Standard(live.collect());
    }
    Signing::Merchant(match (&registered.signature, &registered.owner) {
        (HookSignature::SignatureKey(key), _) => Some(key.clone()),
        (HookSignature::SourceKey(id), HookOwner::Merchant(merchant)) => {
            snapshot.merchants.get(merchant).and_then(|merchant| merchant.source_key(id)).cloned()
        }
        // Nobody but a merchant has source keys.
        (HookSignature::SourceKey(_), HookOwner::Client(_) | HookOwner::Operator)
        | (HookSignature::None, _) => None,
    })
}

/// Whether what was prepared may depend on more than the webhook's version.
fn depends_on_merchant(registered: &Registered) -> bool {
    matches!(registered.signature, HookSignature::SourceKey(_))
}

/// A deleted webhook: nothing is sent to it, its queue ends.
fn deleted(id: WebhookId, stone: &TombStone) -> Webhook {
    Webhook {
        id,
        version: stone.version,
        standing: Standing::Deleted,
        suspended: None,
        deleted: Some(stone.deleted),
        owner: Owner::Operator,
        target: Err(AttemptCode::BadConfig),
        identity: None,
        sign_in: None,
        sign_in_secret: None,
        headers: http::HeaderMap::new(),
        timeout: std::time::Duration::from_secs(15),
        max_in_flight: 1,
        ladder: String::new(),
        rate_per_second: 0,
        ordering: Ordering::None,
        stuck_key: StuckKey::Wait,
        // It may have had an urgent one.
        partitions: 2,
        signing: Signing::Merchant(None),
        secret_texts: SecretTexts::default(),
    }
}

impl Webhooks for RegistryWebhooks {
    fn fold_to_end(&self) -> BoxFuture<'static, Result<(), WebhooksError>> {
        let registry = self.0.registry.clone();
        Box::pin(async move {
            match registry.fold_to_end().await {
                Ok(_snapshot) => Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the registry cannot be read to its end");
                    Err(WebhooksError::Unavailable)
                }
            }
        })
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.registry.subscribe()
    }

    fn version(&self) -> u64 {
        // Not what subscribers are told, which comes later than the answer to a client.
        self.0.registry.snapshot().version
    }

    fn in_slot(&self, slot: Slot) -> Vec<Arc<Webhook>> {
        let snapshot = self.0.registry.snapshot();
        let mut prepared = self.0.prepared.lock();
        let before = prepared.remove(&slot).unwrap_or_default();
        let known = |id: &WebhookId, version: u64, standing: Standing| {
            let known = before.get(id)?;
            (known.version == version && known.standing == standing).then(|| Arc::clone(known))
        };
        let mut now = Prepared::new();
        for registered in snapshot.webhooks_in_slot(slot) {
            let standing = standing(&snapshot, registered);
            let reused = known(&registered.id, registered.version, standing)
                .filter(|_| !depends_on_merchant(registered));
            let webhook = reused.unwrap_or_else(|| {
                let before = before.get(&registered.id).map(AsRef::as_ref);
                Arc::new(self.prepare(&snapshot, registered, before))
            });
            now.insert(registered.id, webhook);
        }
        for (id, stone) in snapshot.deleted_webhooks.iter() {
            if stone.slot != slot || stone.topic_deleted {
                continue;
            }
            let webhook = known(id, stone.version, Standing::Deleted)
                .unwrap_or_else(|| Arc::new(deleted(*id, stone)));
            now.insert(*id, webhook);
        }
        let webhooks = now.values().cloned().collect();
        prepared.insert(slot, now);
        webhooks
    }

    fn paused_types(&self) -> BTreeSet<String> {
        self.0.registry.snapshot().paused_types().map(str::to_owned).collect()
    }

    fn suspend(
        &self,
        webhook: WebhookId,
        version: u64,
        why: Suspended,
    ) -> BoxFuture<'static, Result<(), WebhooksError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let snapshot = shared.registry.snapshot();
            let registered = snapshot.webhooks.get(&webhook).ok_or(WebhooksError::Conflict)?;
            if registered.version != version || registered.status != WebhookStatus::Active {
                return Err(WebhooksError::Conflict);
            }
            let mut state = registered.as_ref().clone();
            state.status = WebhookStatus::Suspended;
            state.suspension = Some(Suspension {
                reason: why.reason,
                at: why.at,
                failing_since: why.since,
                last_code: why.code,
            });
            let claims = snapshot.names_of(&EntityKey::new("webhook", webhook)).to_vec();
            let state = State::Webhook(Box::new(state));
            propose(&shared.registry, webhook, version, claims, state).await
        })
    }

    fn topic_deleted(
        &self,
        webhook: WebhookId,
        version: u64,
    ) -> BoxFuture<'static, Result<(), WebhooksError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let snapshot = shared.registry.snapshot();
            let stone = snapshot.deleted_webhooks.get(&webhook).ok_or(WebhooksError::Conflict)?;
            let state = State::Deleted { topic_deleted: true, at: stone.deleted };
            propose(&shared.registry, webhook, version, Vec::new(), state).await
        })
    }
}

async fn propose(
    registry: &Registry,
    webhook: WebhookId,
    expected_version: u64,
    claims: Vec<String>,
    state: State,
) -> Result<(), WebhooksError> {
    let change = Change {
        entity: EntityKey::new("webhook", webhook),
        expected_version,
        claims,
        command: None,
        actor: "platform".to_owned(),
        trace: String::new(),
        state,
    };
    match registry.propose(change).await {
        Ok(_accepted) => Ok(()),
        Err(
            ProposeError::VersionConflict { .. }
            | ProposeError::Claimed { .. }
            | ProposeError::Repeated { .. },
        ) => Err(WebhooksError::Conflict),
        Err(ProposeError::Unavailable | ProposeError::Unknown) => Err(WebhooksError::Unavailable),
    }
}

impl BucketKeys for Arc<KeysTopic> {
    fn fold_to_end(&self) -> BoxFuture<'static, bool> {
        let topic = Self::clone(self);
        Box::pin(async move {
            match topic.read_to_end().await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "the topic of bucket keys cannot be read to its end");
                    false
                }
            }
        })
    }
}
