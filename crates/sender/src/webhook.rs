//! A webhook as the sender needs it: prepared once per version, so that an attempt
//! only adds what differs from attempt to attempt.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tidings_delivery::{Ladders, Rules, Standing, Suspended};
use tidings_egress::{Identity, SignIn, Target};
use tidings_proto::v1;
use tidings_signing::{AsymmetricKey, Secret, WebhookSecret, sha256};
use tidings_types::{AttemptCode, Ordering, StuckKey, Timestamp, WebhookId};

/// Whose a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Issuer(String),
    ProgrammeManager(i64),
    Merchant(String),
    Operator,
}

impl Owner {
    /// The name of it that operators read: `pm:20`, `issuer:7001`, `m:m_9f2` or `ops`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Issuer(id) => format!("issuer:{id}"),
            Self::ProgrammeManager(id) => format!("pm:{id}"),
            Self::Merchant(key) => format!("m:{key}"),
            Self::Operator => "ops".to_owned(),
        }
    }

    /// Whether a delivery record belongs to this owner. The last check before a
    /// request is made: no tenant ever receives another's notification (I4).
    pub fn may_receive(&self, record: &v1::DeliveryRecord) -> bool {
        match self {
            Self::Issuer(issuer) => !issuer.is_empty() && record.issuer == *issuer,
            Self::ProgrammeManager(id) => {
                record.tenant.strip_prefix("pm:").is_some_and(|text| text.parse() == Ok(*id))
            }
            Self::Merchant(key) => record.tenant.strip_prefix("m:") == Some(key.as_str()),
            Self::Operator => record.tenant == "ops",
        }
    }
}

/// A signing secret, what it signs with, and until when.
#[derive(Clone, Debug)]
pub struct LiveSecret {
    pub secret: WebhookSecret,
    /// Whether requests carry its `v1`.
    pub signs_v1: bool,
    /// The key whose `v1a` requests carry.
    pub asymmetric: Option<AsymmetricKey>,
    pub not_after: Option<Timestamp>,
}

/// How a request is signed.
#[derive(Clone, Debug)]
pub enum Signing {
    /// Standard Webhooks, by every live secret.
    Standard(Vec<LiveSecret>),
    /// Merchant hooks: the plain `X-Signature`, if the merchant chose it.
    Merchant(Option<Secret>),
}

impl Signing {
    /// The newest secret that signs now: the one that lives longest.
    pub(crate) fn newest(&self, now: Timestamp) -> Option<&WebhookSecret> {
        let Self::Standard(secrets) = self else { return None };
        let end = |live: &LiveSecret| live.not_after.map_or(i64::MAX, Timestamp::as_millis);
        let live = secrets.iter().filter(|live| end(live) > now.as_millis());
        live.max_by_key(|live| end(live)).map(|live| &live.secret)
    }
}

/// A webhook, ready to be sent to.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: WebhookId,
    /// The registry's version of it.
    pub version: u64,
    pub standing: Standing,
    /// Of one that the platform has suspended.
    pub suspended: Option<Suspended>,
    /// When it was deleted.
    pub deleted: Option<Timestamp>,
    pub owner: Owner,
    /// If the stored URL is not allowed (any more), or what else its requests need
    /// cannot be used, what attempts end as.
    pub target: Result<Arc<Target>, AttemptCode>,
    /// As whom its connections are made. One that cannot be used stands in the place of
    /// the target: nothing is sent without it.
    pub identity: Option<Arc<Identity>>,
    /// How its requests sign in at the endpoint, with the token that there is. One that
    /// cannot be used stands in the place of the target too.
    pub sign_in: Option<Arc<SignIn>>,
    /// What is shown to the authorization server.
    pub sign_in_secret: Option<Secret>,
    /// Headers that every request carries, as [`fixed_headers`] makes them.
    pub headers: HeaderMap,
    pub timeout: Duration,
    pub max_in_flight: usize,
    pub ladder: String,
    /// Zero: no limit.
    pub rate_per_second: u32,
    pub ordering: Ordering,
    pub stuck_key: StuckKey,
    /// Partitions of its delivery topic.
    pub partitions: u32,
    pub signing: Signing,
    pub secret_texts: SecretTexts,
}

/// The secrets of a webhook as texts, to be hidden. Not shown, and not taken along by a
/// clone, which may be about to get other ones.
#[derive(Default)]
pub struct SecretTexts(OnceLock<Vec<String>>);

impl Clone for SecretTexts {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for SecretTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretTexts")
    }
}

impl Webhook {
    /// Its tenant and its host, hashed.
    pub(crate) fn shares(&self) -> [u64; 2] {
        let host =
            self.target.as_ref().map_or(0, |target| hash("host", &target.host().to_string()));
        [hash("tenant", &self.owner.name()), host]
    }

    /// The secrets of a request, as an endpoint could echo them; made when they are asked
    /// for first.
    pub(crate) fn secret_texts(&self) -> &[String] {
        self.secret_texts.0.get_or_init(|| self.make_secret_texts())
    }

    fn make_secret_texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut hide = |secret: &[u8]| encodings(secret, &mut texts);
        match &self.signing {
            Signing::Standard(secrets) => {
                secrets.iter().for_each(|live| hide(live.secret.expose()));
            }
            Signing::Merchant(key) => key.iter().for_each(|key| hide(key.expose())),
        }
        for value in self.headers.values().filter(|value| value.is_sensitive()) {
            hide(value.as_bytes());
            // `Basic …`, `Bearer …`: the word before it is no secret.
            let Some((_scheme, credentials)) = value.to_str().ok().and_then(|v| v.split_once(' '))
            else {
                continue;
            };
            hide(credentials.as_bytes());
            let decoded = STANDARD.decode(credentials).ok().map(String::from_utf8);
            if let Some(Ok(pair)) = decoded
                && let Some((_user, password)) = pair.split_once(':')
            {
                hide(password.as_bytes());
            }
        }
        if let Some(secret) = &self.sign_in_secret {
            hide(secret.expose());
            // As it stands in a form.
            let form: String = url::form_urlencoded::byte_serialize(secret.expose()).collect();
            hide(form.as_bytes());
        }
        // The longer ones first: one may be a part of another.
        texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
        texts
    }

    /// What its owner chose, with the ladder that it names.
    pub(crate) fn rules(&self, ladders: &Ladders) -> Rules {
        Rules {
            max_in_flight: self.max_in_flight,
            ladder: Arc::clone(ladders.get_or_standard(&self.ladder)),
            rate_per_second: self.rate_per_second,
            ordering: self.ordering,
            stuck_key: self.stuck_key,
            shares: self.shares(),
            target: self.target.as_ref().map_or(0, |target| hash("url", target.as_str())),
        }
    }
}

/// A secret as an endpoint may write it: as it is, in hexadecimal, and in base64 of both
/// alphabets. Within something longer that is in base64 its letters depend on where it
/// begins: of those on which its neighbours have a say there are none here.
fn encodings(secret: &[u8], out: &mut Vec<String>) {
    out.extend(std::str::from_utf8(secret).ok().map(str::to_owned));
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    out.extend([hex.to_uppercase(), hex]);
    let mut base64 = |text: &str| {
        let in_urls = text.replace('+', "-").replace('/', "_");
        out.extend((in_urls != text).then_some(in_urls));
        out.push(text.to_owned());
    };
    base64(&STANDARD.encode(secret));
    base64(STANDARD.encode(secret).trim_end_matches('='));
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret);
        let own = (before * 8).div_ceil(6)..(bytes.len() * 8) / 6;
        STANDARD.encode(&bytes).get(own).into_iter().for_each(&mut base64);
    }
}

/// What was shown to a server on one attempt, as that may echo it.
pub(crate) fn shown_texts(shown: &HeaderValue) -> Vec<String> {
    let mut texts = Vec::new();
    let whole = shown.as_bytes();
    encodings(whole, &mut texts);
    if let Some(token) = whole.strip_prefix(b"Bearer ") {
        encodings(token, &mut texts);
    }
    texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
    texts
}

/// Never zero.
fn hash(what: &str, name: &str) -> u64 {
    let digest = sha256(&[what.as_bytes(), b"/", name.as_bytes()]);
    digest.iter().take(8).fold(0_u64, |hash, byte| (hash << 8) | u64::from(*byte)).max(1)
}

/// The part of the request head that is the same for every attempt: content type,
/// user agent, the webhook's custom headers, Basic authentication. Custom headers
/// whose name or value is not legal are left out; their registration was checked.
pub fn fixed_headers(
    user_agent: &str,
    custom: impl IntoIterator<Item = (String, Secret)>,
    basic: Option<&HeaderValue>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(value) = HeaderValue::from_str(user_agent) {
        headers.insert(header::USER_AGENT, value);
    }
    if let Some(basic) = basic {
        let mut basic = basic.clone();
        basic.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, basic);
    }
    for (name, value) in custom {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.expose());
        if let (Ok(name), Ok(mut value)) = (name, value) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever stands round it, none of a secret's letters but those at its edges are
    /// left.
    #[test]
    fn a_secret_is_known_in_each_common_encoding() {
        let secret = b"\xfb\xef\xffk?ey~0123456789\xfe";
        let mut texts = Vec::new();
        encodings(secret, &mut texts);
        let has = |text: &str| texts.iter().any(|known| text.contains(known.as_str()));
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(has(&hex) && has(&hex.to_uppercase()));
        for around in ["", "a", "ab", "abc", "abcd"] {
            let inside = [around.as_bytes(), secret, b"!}"].concat();
            let text = STANDARD.encode(&inside);
            assert!(has(&text), "{text}");
            assert!(has(&text.replace('+', "-").replace('/', "_")), "{text}");
        }
        let mut plain = Vec::new();
        encodings(b"HDRVAL123456", &mut plain);
        assert!(plain.contains(&"HDRVAL123456".to_owned()));
        assert!(plain.contains(&STANDARD.encode("HDRVAL123456")));
    }
}
