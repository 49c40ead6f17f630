//! Checks a bearer token (`reliability-security.md` §3.4).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tidings_egress::{FetchError, Fetcher};
use tidings_types::{Clock, IssuerId, PmId, Timestamp, is_opaque_id};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    binding::{self, Thumbprint},
    claims::{BadClaim, Members},
    jwks::Jwks,
    key::{KeySource, OneKey, VerificationKey},
    local::{AUDIENCE, ISSUER},
    metrics::Metrics,
    principal::Principal,
};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;
/// The key that a token names is not one of its issuer's.
const UNKNOWN_KEY: &str = "key";
/// The longest subject and key id.
const MAX_NAME: usize = 256;

/// Why a caller is turned away. No text says which check failed: that is in
/// [`AuthError::reason`], for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401.
    #[error("the request has no bearer token; get one and send it as `Authorization: Bearer`")]
    Missing,
    /// 401.
    #[error("the token is not valid; get a new one")]
    Invalid(&'static str),
    /// 403: the token is genuine, its claims `issuerid` or `pmid` are not usable.
    #[error(
        "the token names no usable tenant; get one whose issuerid is a text and whose pmid is an integer"
    )]
    Tenant,
    /// 403.
    #[error("the token lacks the scope {0}; get one that has it")]
    Scope(&'static str),
}

impl AuthError {
    /// The HTTP status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Missing | Self::Invalid(_) => 401,
            Self::Tenant | Self::Scope(_) => 403,
        }
    }

    /// Which check failed, for logs and metrics; one of a few fixed words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid(reason) => reason,
            Self::Tenant => "tenant",
            Self::Scope(_) => "scope",
        }
    }
}

/// An authorization server elsewhere.
#[derive(Clone, Debug)]
pub struct ExternalIssuer {
    pub issuer: String,
    pub audience: String,
    pub jwks_url: String,
    /// Whether its tokens are taken only if they are bound to a client certificate.
    pub certificate_bound: bool,
    /// What its keys are fetched with, and whose certificates vouch for it.
    pub fetcher: Arc<Fetcher>,
}

/// Authorization servers elsewhere.
#[derive(Clone, Debug)]
pub struct External {
    pub issuers: Vec<ExternalIssuer>,
    /// The longest life of a token of theirs.
    pub max_lifetime: Duration,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
}

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct VerifierConfig {
    /// The local issuer's key; `None`: its tokens are refused.
    pub local: Option<Arc<VerificationKey>>,
    pub external: Option<External>,
    /// The longest life of a token of the local issuer.
    pub max_lifetime: Duration,
}

impl VerifierConfig {
    /// A day.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
    /// An hour (`reliability-security.md` §3.4).
    pub const MAX_EXTERNAL_LIFETIME: Duration = Duration::from_secs(3600);
}

/// Settings that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    #[error("setting `auth.issuers`: {issuer:?} has a jwks_url that cannot be used")]
    Url { issuer: String, source: FetchError },
    #[error("setting `auth.issuers`: {0:?} has no audience, so that any token would do; name it")]
    Audience(String),
    #[error("setting `auth.issuers`: {0:?} is empty, stands there twice or is the local issuer")]
    Issuer(String),
}

#[derive(Debug)]
struct Trusted {
    issuer: String,
    audience: String,
    keys: Box<dyn KeySource>,
    certificate_bound: bool,
    /// In seconds.
    max_lifetime: i64,
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verifier {
    trusted: Arc<[Trusted]>,
    /// For the pauses between fetches; there are none without external issuers.
    clock: Option<Arc<dyn Clock>>,
}

/// A token taken apart; nothing of it has been verified.
struct Parsed<'t> {
    header: Members,
    claims: Members,
    message: &'t str,
    signature: &'t str,
}

impl Verifier {
    /// # Errors
    /// When an external issuer cannot be used as it is configured.
    pub fn new(config: VerifierConfig) -> Result<Self, VerifierError> {
        let seconds = |life: Duration| i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        let local = config.local.map(|key| Trusted {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            keys: Box::new(OneKey(key)),
            certificate_bound: false,
            max_lifetime: seconds(config.max_lifetime),
        });
        let mut trusted: Vec<Trusted> = local.into_iter().collect();
        let clock = config.external.as_ref().map(|external| Arc::clone(&external.clock));
        if let Some(External { issuers, max_lifetime, clock, metrics }) = config.external {
            for external in issuers {
                let ExternalIssuer { issuer, audience, jwks_url, certificate_bound, fetcher } =
                    external;
                let known = trusted.iter().any(|trusted| trusted.issuer == issuer);
                if issuer.is_empty() || issuer == ISSUER || known {
                    return Err(VerifierError::Issuer(issuer));
                }
                if audience.is_empty() {
                    return Err(VerifierError::Audience(issuer));
                }
                if let Err(source) = fetcher.check(&jwks_url) {
                    return Err(VerifierError::Url { issuer, source });
                }
                let keys = Jwks::new(jwks_url, fetcher, Arc::clone(&clock), metrics.clone());
                trusted.push(Trusted {
                    issuer,
                    audience,
                    keys: Box::new(keys),
                    certificate_bound,
                    max_lifetime: seconds(max_lifetime),
                });
            }
        }
        Ok(Self { trusted: trusted.into(), clock })
    }

    /// Fetches the keys of external issuers, now and again, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for keys in self.trusted.iter().filter_map(|trusted| trusted.keys.jwks()) {
            let Some(clock) = self.clock.clone() else { continue };
            let (keys, shutdown) = (keys.clone(), shutdown.clone());
            tasks.spawn(async move {
                loop {
                    keys.refresh().await;
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = clock.sleep(keys.pause()) => {}
                    }
                }
            });
        }
        shutdown.cancelled().await;
        tasks.shutdown().await;
    }

    /// As [`Verifier::verify`]; a key of an external issuer that is not known is
    /// fetched first, if that is allowed now.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub async fn verify_fresh(
        &self,
        token: &str,
        certificate: Option<Thumbprint>,
        now: Timestamp,
    ) -> Result<Principal, AuthError> {
        let verified = self.verify(token, certificate, now);
        if verified != Err(AuthError::Invalid(UNKNOWN_KEY)) {
            return verified;
        }
        let parsed = parse(token)?;
        match self.trusted_by(&parsed.claims)?.keys.jwks() {
            Some(keys) => {
                keys.refresh().await;
                self.verify(token, certificate, now)
            }
            None => verified,
        }
    }

    /// Says who the bearer of `token` is. `certificate` is the client's of the
    /// connection that it came over, `now` is wall-clock time.
    ///
    /// # Errors
    /// [`AuthError::Missing`] for an empty token, [`AuthError::Invalid`] for one
    /// that is not genuine or not valid now, [`AuthError::Tenant`] for one whose
    /// tenant cannot be used.
    pub fn verify(
        &self,
        token: &str,
        certificate: Option<Thumbprint>,
        now: Timestamp,
    ) -> Result<Principal, AuthError> {
        let Parsed { header, claims, message, signature } = parse(token)?;
        let trusted = self.trusted_by(&claims)?;
        let key = trusted.keys.key(key_id(&header)?).ok_or(AuthError::Invalid(UNKNOWN_KEY))?;
        check_header(&header, &key)?;
        if !key.verifies(signature, message.as_bytes()) {
            return Err(AuthError::Invalid("signature"));
        }
        // Only now does anything that the token says count.
        if !claims.is_for(&trusted.audience) {
            return Err(AuthError::Invalid("audience"));
        }
        check_times(&claims, now, trusted.max_lifetime)?;
        if !binding::holds(&claims, trusted.certificate_bound, certificate) {
            return Err(AuthError::Invalid("bound"));
        }
        principal(&claims)
    }

    /// Who would have to have signed it.
    fn trusted_by(&self, claims: &Members) -> Result<&Trusted, AuthError> {
        let issuer = claims.text("iss").map_err(|BadClaim| AuthError::Invalid("issuer"))?;
        self.trusted
            .iter()
            .find(|trusted| issuer == Some(trusted.issuer.as_str()))
            .ok_or(AuthError::Invalid("issuer"))
    }
}

/// Takes a token apart.
fn parse(token: &str) -> Result<Parsed<'_>, AuthError> {
    if token.is_empty() {
        return Err(AuthError::Missing);
    }
    if token.len() > MAX_TOKEN {
        return Err(AuthError::Invalid("size"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Invalid("form"))?;
    let (header, claims) = message.split_once('.').ok_or(AuthError::Invalid("form"))?;
    Ok(Parsed { header: part(header)?, claims: part(claims)?, message, signature })
}

fn check_times(claims: &Members, now: Timestamp, max_lifetime: i64) -> Result<(), AuthError> {
    let read = |name| claims.seconds(name).map_err(|BadClaim| AuthError::Invalid("times"));
    let (expires, not_before, issued) = (read("exp")?, read("nbf")?, read("iat")?);
    let expires = expires.ok_or(AuthError::Invalid("times"))?;
    let now = now.as_secs();
    if now > expires.saturating_add(LEEWAY) {
        return Err(AuthError::Invalid("expired"));
    }
    let early = |time: Option<i64>| time.is_some_and(|time| time > now.saturating_add(LEEWAY));
    if early(not_before) || early(issued) {
        return Err(AuthError::Invalid("early"));
    }
    let (from, leeway) = issued.map_or((now, LEEWAY), |issued| (issued, 0));
    if expires.saturating_sub(from) > max_lifetime.saturating_add(leeway) {
        return Err(AuthError::Invalid("lifetime"));
    }
    Ok(())
}

/// Decodes one part of a token.
fn part(text: &str) -> Result<Members, AuthError> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_not_base64| AuthError::Invalid("form"))?;
    let members = Members::parse(&json).ok_or(AuthError::Invalid("form"))?;
    if members.has_repeated() { Err(AuthError::Invalid("form")) } else { Ok(members) }
}

fn key_id(header: &Members) -> Result<Option<&str>, AuthError> {
    let id = header.text("kid").map_err(|BadClaim| AuthError::Invalid("key id"))?;
    if id.is_some_and(|id| id.len() > MAX_NAME) {
        return Err(AuthError::Invalid("key id"));
    }
    Ok(id)
}

/// The header has to say what the key's record says, and nothing that would make
/// the token mean something else.
fn check_header(header: &Members, key: &VerificationKey) -> Result<(), AuthError> {
    if header.text("alg") != Ok(Some(key.name)) {
        return Err(AuthError::Invalid("algorithm"));
    }
    // Keys come from settings alone; a token that brings one, or asks for rules
    // that are not known here, is not taken.
    if ["jku", "x5u", "jwk", "x5c", "crit", "b64"].iter().any(|name| header.has(name)) {
        return Err(AuthError::Invalid("header"));
    }
    let kind = header.text("typ").map_err(|BadClaim| AuthError::Invalid("type"))?;
    // With and without the prefix it is the same media type (RFC 7515 §4.1.9).
    match kind.map(str::to_ascii_lowercase).as_deref() {
        None | Some("jwt" | "application/jwt" | "at+jwt" | "application/at+jwt") => Ok(()),
        Some(_) => Err(AuthError::Invalid("type")),
    }
}

fn principal(claims: &Members) -> Result<Principal, AuthError> {
    let subject = claims.text("sub").ok().flatten();
    let subject = subject.filter(|subject| (1..=MAX_NAME).contains(&subject.len()));
    let subject = subject.ok_or(AuthError::Invalid("subject"))?;
    // Scopes that are not a text are none: the token reaches nothing (J9).
    let scopes: BTreeSet<String> = claims
        .text("scope")
        .ok()
        .flatten()
        .map(|text| text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    if crate::claims::TENANT.iter().any(|name| claims.is_repeated(name)) {
        return Err(AuthError::Tenant);
    }
    let issuer = claims.text("issuerid").map_err(|BadClaim| AuthError::Tenant)?;
    if issuer.is_some_and(|issuer| !is_opaque_id(issuer)) {
        return Err(AuthError::Tenant);
    }
    let pm = match claims.get("pmid") {
        None => None,
        Some(id) => Some(PmId(id.as_i64().ok_or(AuthError::Tenant)?)),
    };
    Ok(Principal {
        subject: subject.to_owned(),
        scopes,
        issuer: issuer.map(|issuer| IssuerId(issuer.into())),
        pm,
    })
}

#[cfg(test)]
mod tests;
