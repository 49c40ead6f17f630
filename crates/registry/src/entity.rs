//! What the registry holds, as the rest of Tidings sees it. Secrets are opened and
//! stand in types that do not print.

use std::{fmt, sync::Arc, time::Duration};

use tidings_signing::{AsymmetricKey, Secret, WebhookSecret};
use tidings_types::{
    HookOwner, IssuerId, MerchantKey, NotificationId, PmId, ProductId, RunId, Scope, Shape, Slot,
    Timestamp, WebhookId, WebhookStatus,
};

/// The name of one entity, as it stands in records: `<kind>/<id>`. Kinds are
/// `issuer`, `pm`, `product`, `merchant`, `webhook`, `config`, `pause`, `command` and
/// `deployment`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityKey(pub Arc<str>);

impl EntityKey {
    pub fn new(kind: &str, id: impl fmt::Display) -> Self {
        Self(format!("{kind}/{id}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole state of one entity.
#[derive(Clone, Debug)]
pub enum State {
    /// It is gone; of a webhook, perhaps its delivery topic too.
    Deleted {
        topic_deleted: bool,
        /// When the entity was deleted (not its topic).
        at: Timestamp,
    },
    Issuer(Issuer),
    ProgrammeManager(ProgrammeManager),
    Product(Product),
    Merchant(Merchant),
    Webhook(Box<Webhook>),
    Configuration(Configuration),
    IdKey(IdKey),
    Pause(Pause),
    Command(CommandRecord),
}

/// A BIN sponsor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    pub id: IssuerId,
    pub name: String,
}

/// A programme manager of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgrammeManager {
    pub id: PmId,
    pub code: String,
    pub issuer: IssuerId,
    pub name: String,
}

/// A product of a programme manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    pub id: ProductId,
    pub programme_manager: PmId,
}

/// A merchant of a programme manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merchant {
    pub key: MerchantKey,
    pub programme_manager: PmId,
    pub source_keys: Vec<SourceKey>,
}

impl Merchant {
    /// The value of a source key.
    pub fn source_key(&self, id: &str) -> Option<&Secret> {
        self.source_keys.iter().find(|key| key.id == id).map(|key| &key.value)
    }
}

/// A key of a merchant that can sign its hooks' requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceKey {
    pub id: String,
    pub value: Secret,
}

/// Which 112 an issuer or a programme manager wants (`spec.md` §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub id: String,
    pub owner: Scope,
    pub pm: Option<PmId>,
    pub product: Option<ProductId>,
    pub active: bool,
    /// The filter codes as they were sent, 0 to 6.
    pub filter: Vec<u32>,
    pub created: Timestamp,
    pub modified: Timestamp,
}

/// A webhook of a client, or a hook of a merchant or of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    pub slot: Slot,
    /// The entity's version, which a change of it expects. Not read from a change.
    pub version: u64,
    pub owner: HookOwner,
    pub product: Option<ProductId>,
    /// Names of event types, in the order given.
    pub events: Vec<Arc<str>>,
    pub status: WebhookStatus,
    pub url: String,
    pub headers: Vec<CustomHeader>,
    /// Oldest first. Empty for hooks of merchants.
    pub signing_secrets: Vec<SigningSecret>,
    pub settings: HookSettings,
    pub created: Timestamp,
    pub modified: Timestamp,
    pub label: String,
    pub basic: Option<Basic>,
    pub oauth: Option<OAuth>,
    pub tls: Option<TlsIdentity>,
    pub signature: HookSignature,
    /// Whether bodies name the types as the vendor does.
    pub wire_names: bool,
    /// How many partitions the delivery topic has: 2 once the webhook has wanted
    /// an urgent type.
    pub partitions: u32,
    /// Of one that the platform has suspended.
    pub suspension: Option<Suspension>,
}

/// Why the platform suspended a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// `failing` or `gone`.
    pub reason: String,
    pub at: Timestamp,
    /// Since when it had failed.
    pub failing_since: Timestamp,
    /// What its last attempt had come to.
    pub last_code: String,
}

impl Webhook {
    /// Which form of a body it gets.
    pub fn shape(&self) -> Shape {
        if self.wire_names {
            Shape::WireNames
        } else if self.settings.strict_legacy_envelope {
            Shape::StrictLegacy
        } else {
            Shape::Plain
        }
    }
}

/// A header that the client wants on every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomHeader {
    /// As the client gave it; requests carry its [`wire_name`].
    pub name: String,
    pub value: Secret,
    /// Whether the API answers `***` instead of the value.
    pub secret: bool,
}

/// The name that a custom header has on the wire: in lower case, each character
/// that a header's name may not have as a hyphen (design §10: `key 1` is `key-1`).
pub fn wire_name(name: &str) -> String {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    name.chars()
        .map(|letter| if legal(letter) { letter.to_ascii_lowercase() } else { '-' })
        .collect()
}

/// One of the secrets that requests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecret {
    pub id: String,
    pub secret: WebhookSecret,
    /// The key of `v1a` with the same number; `None` until the webhook wants one.
    pub asymmetric: Option<AsymmetricKey>,
    /// When it retires; `None` for the newest.
    pub not_after: Option<Timestamp>,
}

/// A user name and a password for HTTP Basic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    pub username: String,
    pub password: Secret,
}

/// How requests sign in at the endpoint with OAuth 2 client credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    pub token_url: String,
    pub client_id: String,
    pub method: OAuthMethod,
    /// The client's secret, or its key in PEM.
    pub secret: Secret,
    /// Of the key, if it has one.
    pub key_id: Option<String>,
    pub scope: Option<String>,
    pub audience: Option<String>,
}

/// How the client proves who it is (OpenID Connect Core §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthMethod {
    SecretBasic,
    SecretPost,
    PrivateKey,
}

impl OAuthMethod {
    pub const ALL: &'static [Self] = &[Self::SecretBasic, Self::SecretPost, Self::PrivateKey];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecretBasic => "client_secret_basic",
            Self::SecretPost => "client_secret_post",
            Self::PrivateKey => "private_key_jwt",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == name)
    }
}

/// As whom a webhook's connections are made, and whom they believe; all in PEM. At
/// least one of both is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The authorities that are believed in place of the public ones.
    pub ca_bundle: Option<String>,
    pub client: Option<ClientCertificate>,
}

/// A client certificate, with those between it and its authority, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: String,
    pub key: Secret,
}

/// What the plain `X-Signature` of a merchant's hook is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HookSignature {
    #[default]
    None,
    /// The value of the merchant's source key with this id.
    SourceKey(String),
    /// A key of the hook's own.
    SignatureKey(Secret),
}

/// How a webhook wants to be delivered to (contract §3, `config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// `none`, `perKey` or `strict`.
    pub ordering: String,
    /// `wait`, `skip` or `supersede`.
    pub stuck_key: String,
    /// The ladder's name; `None`: the deployment's default for its owner.
    pub ladder: Option<String>,
    /// 0: no limit.
    pub rate_limit_per_second: u32,
    pub max_in_flight: u32,
    pub timeout: Duration,
    /// `v1`, `v1a` or both.
    pub signatures: Vec<String>,
    pub strict_legacy_envelope: bool,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            ordering: "none".to_owned(),
            stuck_key: "wait".to_owned(),
            ladder: None,
            rate_limit_per_second: 0,
            max_in_flight: 64,
            timeout: Duration::from_secs(15),
            signatures: vec!["v1".to_owned()],
            strict_legacy_envelope: false,
        }
    }
}

/// What an operator can stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseOf {
    Everything,
    /// The name of an event type.
    EventType(Arc<str>),
    Webhook(WebhookId),
    /// Its webhooks, those of its programme managers, and their merchants' hooks.
    Issuer(IssuerId),
    /// Its webhooks and its merchants' hooks.
    ProgrammeManager(PmId),
    Merchant(MerchantKey),
}

impl fmt::Display for PauseOf {
    /// The pause's id: there is one at most of each thing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::EventType(name) => write!(f, "event:{name}"),
            Self::Webhook(id) => write!(f, "webhook:{id}"),
            Self::Issuer(id) => write!(f, "issuer:{id}"),
            Self::ProgrammeManager(id) => write!(f, "pm:{id}"),
            Self::Merchant(key) => write!(f, "merchant:{key}"),
        }
    }
}

/// Something that an operator has stopped: nothing of it is sent, everything waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub of: PauseOf,
    pub reason: String,
    /// Who stopped it.
    pub actor: String,
    pub since: Timestamp,
}

/// An answer kept for a repeated `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRecord {
    pub subject: String,
    /// SHA-256 of the request.
    pub hash: [u8; 32],
    /// HTTP status of the first answer.
    pub status: u16,
    /// The body of the first answer.
    pub answer: Secret,
    /// Its headers beside those that every answer has.
    pub headers: Vec<(String, String)>,
    /// Of a resend: the runs that it starts, so that a repeat appends the same.
    pub runs: Vec<(NotificationId, RunId)>,
    /// Whether all that it starts has been appended.
    pub done: bool,
    pub expires: Timestamp,
    /// The entity's version. Not read from a change.
    pub version: u64,
}

/// The key that notification ids are made with. Prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct IdKey(Secret);

impl IdKey {
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Secret::new(bytes.to_vec()))
    }

    /// The bytes themselves, for `tidings_signing::NotificationIds`.
    pub fn expose(&self) -> &[u8; 32] {
        let bytes = self.0.expose().try_into();
        bytes.unwrap_or_else(|_other_length| unreachable!("made of 32 bytes"))
    }
}

impl fmt::Debug for IdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdKey(***)")
    }
}
