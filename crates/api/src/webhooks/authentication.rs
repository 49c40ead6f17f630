//! `config.authentication`: how requests sign in at the endpoint, with Basic or with a
//! token of the endpoint's authorization server (OAuth 2 client credentials).
//!
//! Secrets are never answered: `***` stands for them, and sent back in an update keeps
//! what is stored, but no stored secret goes to another token endpoint.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidings_egress::{AssertionKey, ClientProof, Policy, SignIn, SignInParts, Target, UrlRefusal};
use tidings_registry::{Basic, OAuth, OAuthMethod};
use tidings_signing::Secret;

use super::{body::check_url, headers::MASK};
use crate::{
    config::Config,
    errors::{ApiError, Code, Fault},
    input::{Object, wrong},
};

const BASIC: &[&str] = &["username", "password"];
const OAUTH: &[&str] =
    &["tokenUrl", "clientId", "clientSecret", "privateKey", "keyId", "method", "scope", "audience"];
/// Of names, Basic passwords and the like, and of what a client secret or scope may be.
const MAX_TEXT: usize = 255;
const MAX_SECRET: usize = 1024;

/// `config.authentication` as it was sent. Shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) enum AuthenticationInput {
    #[default]
    None,
    Basic {
        username: String,
        /// `None`: keep the one that is stored.
        password: Option<Secret>,
        path: String,
    },
    OAuth(Box<OAuthInput>),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OAuthInput {
    token_url: String,
    client_id: String,
    method: OAuthMethod,
    /// `None`: keep the one that is stored.
    secret: Option<Secret>,
    key_id: Option<String>,
    scope: Option<String>,
    audience: Option<String>,
    path: String,
}

impl std::fmt::Debug for AuthenticationInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::OAuth(_) => "OAuth",
        })
    }
}

/// Reads `authentication` of `config`.
pub(crate) fn read(
    config: Object<'_>,
    settings: &Config,
    faults: &mut Vec<Fault>,
) -> AuthenticationInput {
    let known = [&["type"], BASIC, OAUTH].concat();
    let Some(object) = config.object("authentication", &known, faults) else {
        return AuthenticationInput::None;
    };
    match object.required_string("type", faults).as_deref() {
        None => AuthenticationInput::None,
        Some("none") => {
            unused(object, &[BASIC, OAUTH].concat(), faults);
            AuthenticationInput::None
        }
        Some("basic") => {
            unused(object, OAUTH, faults);
            let username = credential(object, "username", faults);
            if username.contains(':') {
                faults.push(wrong(object.path("username"), "must not contain a colon"));
            }
            let password = credential(object, "password", faults);
            AuthenticationInput::Basic {
                username,
                password: unmasked(password),
                path: config.path("authentication"),
            }
        }
        Some("oauth2") => {
            unused(object, BASIC, faults);
            let path = config.path("authentication");
            let oauth = read_oauth(object, (settings, path), faults);
            oauth.map_or(AuthenticationInput::None, |it| AuthenticationInput::OAuth(Box::new(it)))
        }
        Some(_) => {
            faults.push(wrong(object.path("type"), "must be none, basic or oauth2"));
            AuthenticationInput::None
        }
    }
}

fn read_oauth(
    object: Object<'_>,
    (settings, path): (&Config, String),
    faults: &mut Vec<Fault>,
) -> Option<OAuthInput> {
    let token_url = object.required_string("tokenUrl", faults).unwrap_or_default();
    if object.has("tokenUrl") {
        check_url(&token_url, &object.path("tokenUrl"), settings, faults);
    }
    let client_id = object.required_string("clientId", faults).unwrap_or_default();
    if object.has("clientId") && !is_visible(&client_id, MAX_TEXT) {
        let message = "must have 1 to 255 characters, all of them visible ASCII";
        faults.push(wrong(object.path("clientId"), message));
    }
    let method = match object.string("method", faults).as_deref() {
        None => Some(OAuthMethod::SecretBasic),
        Some(name) => OAuthMethod::from_name(name),
    };
    let Some(method) = method else {
        let message = "must be client_secret_basic, client_secret_post or private_key_jwt";
        faults.push(wrong(object.path("method"), message));
        return None;
    };
    let secret = match method {
        OAuthMethod::SecretBasic | OAuthMethod::SecretPost => {
            unused(object, &["privateKey", "keyId"], faults);
            let secret = object.required_string("clientSecret", faults).unwrap_or_default();
            if object.has("clientSecret") && !is_visible(&secret, MAX_SECRET) {
                let message = "must have 1 to 1,024 characters, all of them visible ASCII";
                faults.push(wrong(object.path("clientSecret"), message));
            }
            unmasked(secret.into_owned())
        }
        OAuthMethod::PrivateKey => {
            unused(object, &["clientSecret"], faults);
            let key = object.required_string("privateKey", faults).unwrap_or_default();
            let key = unmasked(key.into_owned());
            if object.has("privateKey")
                && let Some(Err(error)) = key.as_ref().map(AssertionKey::from_pem)
            {
                let fault = Fault::at(Code::InvalidAuthentication, object.path("privateKey"));
                faults.push(fault.saying(error.to_string()));
            }
            key
        }
    };
    let mut text = |name, is_legal: fn(&str) -> bool, message| {
        let text = object.string(name, faults)?;
        if !is_legal(&text) {
            faults.push(wrong(object.path(name), message));
        }
        Some(text.into_owned())
    };
    Some(OAuthInput {
        key_id: text("keyId", is_plain, "must have 1 to 255 visible characters without quotes"),
        scope: text("scope", is_scope, "must be words of visible ASCII with single blanks between"),
        audience: text(
            "audience",
            |text| is_visible(text, MAX_TEXT),
            "must have 1 to 255 characters, all of them visible ASCII",
        ),
        token_url: token_url.into_owned(),
        client_id: client_id.into_owned(),
        method,
        secret,
        path,
    })
}

/// What the chosen type would drop is refused: the client means another one.
fn unused(object: Object<'_>, names: &[&str], faults: &mut Vec<Fault>) {
    for name in names.iter().filter(|name| object.has(name)) {
        faults.push(wrong(object.path(name), "goes with another type or method"));
    }
}

fn credential(object: Object<'_>, name: &str, faults: &mut Vec<Fault>) -> String {
    let text = object.required_string(name, faults).unwrap_or_default();
    let legal = (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
    if object.has(name) && !legal {
        faults.push(wrong(object.path(name), "must have 1 to 255 bytes, none of them for control"));
    }
    text.into_owned()
}

fn unmasked(text: String) -> Option<Secret> {
    (text != MASK).then(|| Secret::from(text))
}

fn is_visible(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What stands between quotes without an escape.
fn is_plain(text: &str) -> bool {
    is_visible(text, MAX_TEXT) && !text.contains(['"', '\\'])
}

/// RFC 6749 §3.3.
fn is_scope(text: &str) -> bool {
    text.len() <= MAX_SECRET && text.split(' ').all(is_plain)
}

/// The sign-in as it is stored.
///
/// # Errors
/// `INVALID_AUTHENTICATION` at the part that cannot be used or kept.
pub(crate) fn merge(
    sent: &AuthenticationInput,
    stored: (Option<&Basic>, Option<&OAuth>),
) -> Result<(Option<Basic>, Option<OAuth>), ApiError> {
    let nothing = |path: &str, name: &str, message: &'static str| {
        let fault = Fault::at(Code::InvalidAuthentication, format!("{path}.{name}"));
        ApiError::from(fault.saying(message))
    };
    match sent {
        AuthenticationInput::None => Ok((None, None)),
        AuthenticationInput::Basic { username, password, path } => {
            let kept = || stored.0.map(|stored| stored.password.clone());
            let password = password.clone().or_else(kept).ok_or_else(|| {
                nothing(path, "password", "has no stored value that *** could keep")
            })?;
            Ok((Some(Basic { username: username.clone(), password }), None))
        }
        AuthenticationInput::OAuth(sent) => {
            let is_key = |method| method == OAuthMethod::PrivateKey;
            let name = if is_key(sent.method) { "privateKey" } else { "clientSecret" };
            let kept = stored.1.filter(|stored| is_key(stored.method) == is_key(sent.method));
            let secret = match (&sent.secret, kept) {
                (Some(secret), _) => secret.clone(),
                (None, None) => {
                    let message = "has no stored value that *** could keep";
                    return Err(nothing(&sent.path, name, message));
                }
                (None, Some(kept)) if !is_key(sent.method) && kept.token_url != sent.token_url => {
                    let message = "must be sent again with another tokenUrl";
                    return Err(nothing(&sent.path, name, message));
                }
                (None, Some(kept)) => kept.secret.clone(),
            };
            let oauth = OAuth {
                token_url: sent.token_url.clone(),
                client_id: sent.client_id.clone(),
                method: sent.method,
                secret,
                key_id: sent.key_id.clone(),
                scope: sent.scope.clone(),
                audience: sent.audience.clone(),
            };
            Ok((None, Some(oauth)))
        }
    }
}

/// What the endpoint is signed in to with, for one request.
///
/// # Errors
/// When what is stored cannot be used (any more): then nothing may be sent.
pub(crate) fn sign_in(stored: &OAuth, policy: &Policy) -> Result<SignIn, Option<UrlRefusal>> {
    let secret = || stored.secret.clone();
    let proof = match stored.method {
        OAuthMethod::SecretBasic => ClientProof::Basic(secret()),
        OAuthMethod::SecretPost => ClientProof::Post(secret()),
        OAuthMethod::PrivateKey => ClientProof::Key {
            key: AssertionKey::from_pem(&stored.secret).map_err(|_unusable| None)?,
            key_id: stored.key_id.clone(),
        },
    };
    Ok(SignIn::new(SignInParts {
        target: Arc::new(Target::parse(&stored.token_url, policy)?),
        client_id: stored.client_id.clone(),
        proof,
        scope: stored.scope.clone(),
        audience: stored.audience.clone(),
    }))
}

/// `config.authentication` as answers show it.
pub(crate) fn shape(basic: Option<&Basic>, oauth: Option<&OAuth>) -> Option<Value> {
    if let Some(basic) = basic {
        return Some(json!({"type": "basic", "username": basic.username, "password": MASK}));
    }
    let oauth = oauth?;
    let secret = match oauth.method {
        OAuthMethod::SecretBasic | OAuthMethod::SecretPost => "clientSecret",
        OAuthMethod::PrivateKey => "privateKey",
    };
    let mut shape = Map::new();
    let mut put = |name: &str, value: &str| shape.insert(name.to_owned(), Value::from(value));
    put("type", "oauth2");
    put("tokenUrl", &oauth.token_url);
    put("clientId", &oauth.client_id);
    put("method", oauth.method.as_str());
    put(secret, MASK);
    let optional =
        [("keyId", &oauth.key_id), ("scope", &oauth.scope), ("audience", &oauth.audience)];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value);
        }
    }
    Some(shape.into())
}
