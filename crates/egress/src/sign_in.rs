//! Signs in at a webhook's endpoint: a token of its authorization server, by OAuth 2
//! client credentials (RFC 6749 §4.4), on every request.
//!
//! The authorization server is a stranger like the endpoint: its address is judged, what
//! it answers is bounded and timed, no redirect is followed. A token is kept until shortly
//! before it ends, and one attempt at a time asks for the next one. What the endpoint
//! answers with 401 drops the token, but only once until the endpoint takes one again: a
//! server that refuses every token does not make us ask for tokens without end.
//!
//! Without a token nothing is sent.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use parking_lot::Mutex;
use serde::Deserialize;
use tidings_signing::Secret;
use tidings_types::{AttemptCode, Clock, Instant};
use tokio::time::timeout;
use url::form_urlencoded;

use crate::{
    assertion::AssertionKey,
    connect::Connector,
    connection::{Connection, Failure, Post},
    metrics::Metrics,
    target::Target,
};

/// For one token, and for waiting until another attempt has one.
const TOKEN_TIME: Duration = Duration::from_secs(10);
/// So long after a failure nobody asks again.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// How much of an authorization server's answer is read.
const MAX_ANSWER: usize = 32 * 1024;
/// How long a token may be.
const MAX_TOKEN: usize = 8 * 1024;
/// How much of an answer without a token is shown.
const MAX_SHOWN: usize = 900;
/// The life of a token whose server does not say it.
const UNSAID_LIFE: Duration = Duration::from_secs(300);
/// No token is kept longer, whatever its server says.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// So long before its end a token is not used any more; of a short life a tenth.
const EARLY: Duration = Duration::from_secs(30);
/// The life of an assertion: for clocks that differ.
const ASSERTION_LIFE: i64 = 60;

/// How we prove to the authorization server who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum ClientProof {
    /// The secret in the `authorization` header (`client_secret_basic`).
    Basic(Secret),
    /// The secret in the body (`client_secret_post`).
    Post(Secret),
    /// An assertion signed with a key (`private_key_jwt`).
    Key { key: AssertionKey, key_id: Option<String> },
}

/// What a sign-in is made of.
#[derive(Clone)]
pub struct SignInParts {
    /// The token endpoint.
    pub target: Arc<Target>,
    pub client_id: String,
    pub proof: ClientProof,
    pub scope: Option<String>,
    pub audience: Option<String>,
}

impl fmt::Debug for ClientProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic(***)",
            Self::Post(_) => "Post(***)",
            Self::Key { .. } => "Key(***)",
        })
    }
}

impl PartialEq for SignInParts {
    fn eq(&self, other: &Self) -> bool {
        self.target.as_str() == other.target.as_str()
            && self.client_id == other.client_id
            && self.proof == other.proof
            && self.scope == other.scope
            && self.audience == other.audience
    }
}

impl Eq for SignInParts {}

impl fmt::Debug for SignInParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignInParts")
            .field("target", &self.target.as_str())
            .field("proof", &self.proof)
            .finish_non_exhaustive()
    }
}

/// A webhook's sign-in, with the token that it has.
#[derive(Debug)]
pub struct SignIn {
    parts: SignInParts,
    tokens: Mutex<Tokens>,
    /// Whoever asks for a token.
    turn: tokio::sync::Mutex<()>,
}

/// Why there is no token.
#[derive(Clone)]
pub(crate) struct NoToken {
    /// What the attempt comes to: `OAUTH_TOKEN_FAILED`, or a fault of ours.
    pub(crate) code: AttemptCode,
    /// For the client: what happened, and the beginning of what the server answered.
    pub(crate) said: Bytes,
    /// What was shown to the server beside what the settings hold.
    pub(crate) shown: Option<HeaderValue>,
}

/// The network, time, and what is counted.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) connector: &'a dyn Connector,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) metrics: &'a Metrics,
}

impl SignIn {
    pub fn new(parts: SignInParts) -> Self {
        Self { parts, tokens: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Whether it is made of these parts.
    pub fn is_of(&self, parts: &SignInParts) -> bool {
        self.parts == *parts
    }

    /// The `authorization` header of a request now.
    pub(crate) async fn header(
        &self,
        means: Means<'_>,
        user_agent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, NoToken> {
        let look = || self.tokens.lock().known(means.clock.monotonic());
        if let Some(known) = look() {
            return known;
        }
        let asking = async {
            let _turn = self.turn.lock().await;
            // Another attempt may have got it meanwhile.
            if let Some(known) = look() {
                return known;
            }
            let asked = self.ask(means, user_agent).await;
            self.tokens.lock().take(asked, means.clock.monotonic())
        };
        match timeout(TOKEN_TIME, asking).await {
            Ok(asked) => asked,
            Err(_late) => {
                let late = NoToken::saying("did not answer in time");
                self.tokens.lock().take(Err(late), means.clock.monotonic())
            }
        }
    }

    /// The endpoint answered 401 to a request with this header.
    pub(crate) fn refused(&self, header: &HeaderValue) {
        self.tokens.lock().refused(header);
    }

    /// The endpoint took a request.
    pub(crate) fn accepted(&self) {
        self.tokens.lock().has_dropped = false;
    }

    async fn ask(
        &self,
        means: Means<'_>,
        user_agent: Option<&HeaderValue>,
    ) -> Result<Token, NoToken> {
        let (post, shown) = self.post(means.clock, user_agent)?;
        let answered = exchange(means, &self.parts.target, post).await;
        let (status, body) = answered.map_err(|code| NoToken {
            code: if code.is_ours() { code } else { AttemptCode::OauthTokenFailed },
            said: format!("the token endpoint: {code}").into(),
            shown: shown.clone(),
        })?;
        Token::read(status, &body).ok_or_else(|| NoToken::answered(status, &body, shown))
    }

    /// The request for a token, and what it shows that the settings do not hold.
    fn post(
        &self,
        clock: &dyn Clock,
        user_agent: Option<&HeaderValue>,
    ) -> Result<(Post, Option<HeaderValue>), NoToken> {
        let parts = &self.parts;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &parts.scope), ("audience", &parts.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        let mut authorization = None;
        let mut shown = None;
        match &parts.proof {
            ClientProof::Basic(secret) => {
                // RFC 6749 §2.3.1: each is encoded as in a form.
                let encoded = |text: &[u8]| form_urlencoded::byte_serialize(text).collect();
                let (id, secret): (String, String) =
                    (encoded(parts.client_id.as_bytes()), encoded(secret.expose()));
                let pair = STANDARD.encode(format!("{id}:{secret}"));
                let value = HeaderValue::try_from(format!("Basic {pair}"));
                authorization = Some(value.map_err(|_never| NoToken::saying("cannot be asked"))?);
            }
            ClientProof::Post(secret) => {
                form.append_pair("client_id", &parts.client_id);
                form.append_pair("client_secret", secret.expose_text().unwrap_or_default());
            }
            ClientProof::Key { key, key_id } => {
                let unsigned = || NoToken::saying("cannot be asked: the key does not sign");
                let claims = claims(&parts.client_id, parts.target.as_str(), clock);
                let assertion = claims.and_then(|claims| key.sign(&claims, key_id.as_deref()));
                let assertion = assertion.ok_or_else(unsigned)?;
                form.append_pair("client_id", &parts.client_id);
                form.append_pair("client_assertion_type", ASSERTION_TYPE);
                form.append_pair("client_assertion", &assertion);
                shown = HeaderValue::try_from(assertion).ok();
            }
        }
        let mut post = http::Request::new(Full::new(Bytes::from(form.finish())));
        *post.method_mut() = Method::POST;
        *post.uri_mut() = parts.target.uri().clone();
        let headers = post.headers_mut();
        headers.insert(header::HOST, parts.target.authority().clone());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(user_agent) = user_agent {
            headers.insert(header::USER_AGENT, user_agent.clone());
        }
        if let Some(mut authorization) = authorization {
            authorization.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, authorization);
        }
        Ok((post, shown))
    }
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The claims of an assertion (RFC 7523 §3).
fn claims(client_id: &str, audience: &str, clock: &dyn Clock) -> Option<String> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).ok()?;
    let jti = id.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").map_or_else(|_never| String::new(), |()| text)
    });
    let now = clock.now().as_secs();
    let claims = serde_json::json!({
        "iss": client_id, "sub": client_id, "aud": audience, "jti": jti,
        "iat": now, "exp": now + ASSERTION_LIFE,
    });
    Some(claims.to_string())
}

/// Asks once, on a connection of its own.
async fn exchange(
    means: Means<'_>,
    target: &Arc<Target>,
    post: Post,
) -> Result<(StatusCode, Bytes), AttemptCode> {
    let io = means.connector.connect(target, None).await.map_err(|error| error.code)?;
    let mut connection = Connection::start(io, Arc::clone(target), None, means.metrics).await?;
    let answer = match connection.exchange(post).await {
        Ok(answer) => answer,
        Err(Failure::Endpoint(code)) => return Err(code),
        Err(Failure::Unused(_unsent)) => return Err(AttemptCode::ClosedEarly),
    };
    let (status, mut body) = (answer.status(), answer.into_body());
    let mut bytes = BytesMut::new();
    while let Some(frame) =
        std::future::poll_fn(|context| connection.poll_frame(&mut body, context)).await
    {
        let frame = frame.map_err(|_cut| AttemptCode::ClosedEarly)?;
        let Ok(data) = frame.into_data() else { continue };
        let room = MAX_ANSWER.saturating_sub(bytes.len());
        bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() >= room {
            break;
        }
    }
    Ok((status, bytes.freeze()))
}

impl NoToken {
    fn saying(what: &str) -> Self {
        let said = format!("the token endpoint {what}").into();
        Self { code: AttemptCode::OauthTokenFailed, said, shown: None }
    }

    fn answered(status: StatusCode, body: &[u8], shown: Option<HeaderValue>) -> Self {
        let mut said = format!("the token endpoint answered {}", status.as_u16()).into_bytes();
        if status == StatusCode::OK {
            // What is no token here may be one all the same, in another form.
            said.extend_from_slice(b" without a bearer token");
        } else {
            said.extend_from_slice(b": ");
            said.extend_from_slice(body.get(..MAX_SHOWN).unwrap_or(body));
        }
        Self { code: AttemptCode::OauthTokenFailed, said: said.into(), shown }
    }
}

impl fmt::Debug for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoToken")
    }
}

/// A token as it was answered.
#[derive(Clone)]
struct Token {
    header: HeaderValue,
    life: Duration,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl Token {
    /// The bearer token of an answer, if it is one.
    fn read(status: StatusCode, body: &[u8]) -> Option<Self> {
        if status != StatusCode::OK {
            return None;
        }
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let token = answer.access_token;
        // RFC 6750 §2.1.
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let is_bearer = answer.token_type.eq_ignore_ascii_case("bearer")
            && (1..=MAX_TOKEN).contains(&token.len())
            && token.bytes().all(is_legal);
        if !is_bearer {
            return None;
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        // Some servers write it as a text.
        let said = answer
            .expires_in
            .and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        let life = said.map_or(UNSAID_LIFE, Duration::from_secs).min(MAX_LIFE);
        Some(Self { header, life })
    }
}

/// What is known of a sign-in's tokens. Pure.
#[derive(Default)]
struct Tokens {
    /// The header, and until when it is used.
    current: Option<(HeaderValue, Instant)>,
    /// Why there is none, and until when nobody asks again.
    failed: Option<(NoToken, Instant)>,
    /// Whether a 401 has dropped a token since the endpoint took one.
    has_dropped: bool,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(***)")
    }
}

impl Tokens {
    /// What is known without asking; `None`: it is time to ask.
    fn known(&self, now: Instant) -> Option<Result<HeaderValue, NoToken>> {
        match (&self.current, &self.failed) {
            (Some((header, until)), _) if now < *until => Some(Ok(header.clone())),
            (_, Some((why, until))) if now < *until => Some(Err(why.clone())),
            _ => None,
        }
    }

    /// Takes in what was asked for.
    fn take(
        &mut self,
        asked: Result<Token, NoToken>,
        now: Instant,
    ) -> Result<HeaderValue, NoToken> {
        match asked {
            Ok(token) => {
                let used = token.life.saturating_sub(EARLY.min(token.life / 10));
                self.failed = None;
                self.current = Some((token.header.clone(), now + used));
                Ok(token.header)
            }
            Err(why) => {
                self.failed = Some((why.clone(), now + FAILED_FOR));
                Err(why)
            }
        }
    }

    fn refused(&mut self, header: &HeaderValue) {
        let is_current = self.current.as_ref().is_some_and(|(current, _)| current == header);
        if is_current && !self.has_dropped {
            self.current = None;
            self.has_dropped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn answer(text: &str) -> Option<Token> {
        Token::read(StatusCode::OK, text.as_bytes())
    }

    fn token(name: &str, life: u64) -> Token {
        let text =
            format!(r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":{life}}}"#);
        answer(&text).unwrap()
    }

    fn known(tokens: &Tokens, seconds: u64) -> Option<String> {
        let header = tokens.known(at(seconds))?.ok()?;
        Some(header.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        for (life, last) in [(3600, 3570), (100, 90), (10, 9), (0, 0), (u64::MAX, 86_370)] {
            let mut tokens = Tokens::default();
            tokens.take(Ok(token("t", life)), at(1000)).unwrap();
            assert_eq!(known(&tokens, 1000 + last), None, "{life}");
            if last > 0 {
                assert_eq!(known(&tokens, 999 + last).as_deref(), Some("Bearer t"), "{life}");
            }
        }
    }

    #[test]
    fn only_a_bearer_token_that_can_be_sent_is_one() {
        let lives = [
            (r#"{"access_token":"a.b-c_d~e+f/g=","token_type":"bearer"}"#, 300),
            (r#"{"access_token":"t","token_type":"Bearer","expires_in":"60"}"#, 60),
            (r#"{"access_token":"t","token_type":"Bearer","expires_in":-1,"more":[]}"#, 300),
        ];
        for (text, life) in lives {
            assert_eq!(answer(text).unwrap().life.as_secs(), life, "{text}");
        }
        let long = format!(r#"{{"access_token":"{}","token_type":"bearer"}}"#, "a".repeat(8193));
        for text in [
            "",
            "[]",
            r#"{"access_token":"t"}"#,
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
            r#"{"access_token":"a b","token_type":"bearer"}"#,
            r#"{"access_token":"a\r\nx: y","token_type":"bearer"}"#,
            r#"{"access_token":1,"token_type":"bearer"}"#,
            &long,
        ] {
            assert!(answer(text).is_none(), "{text}");
        }
        let good = br#"{"access_token":"t","token_type":"bearer"}"#;
        assert!(Token::read(StatusCode::CREATED, good).is_none());
    }

    #[test]
    fn a_refused_token_is_dropped_once_until_one_is_taken() {
        let mut tokens = Tokens::default();
        let first = tokens.take(Ok(token("one", 600)), at(0)).unwrap();
        tokens.refused(&first);
        assert_eq!(known(&tokens, 1), None);
        let second = tokens.take(Ok(token("two", 600)), at(1)).unwrap();
        // Of a request that was under way with the first.
        tokens.refused(&first);
        tokens.refused(&second);
        assert_eq!(known(&tokens, 2).as_deref(), Some("Bearer two"), "not asked without end");
        tokens.has_dropped = false;
        tokens.refused(&second);
        assert_eq!(known(&tokens, 3), None);
    }

    #[test]
    fn after_a_failure_nobody_asks_for_a_while_and_a_token_that_is_there_is_used() {
        let mut tokens = Tokens::default();
        assert!(tokens.take(Err(NoToken::saying("is down")), at(10)).is_err());
        assert!(matches!(tokens.known(at(14)), Some(Err(_))));
        assert!(tokens.known(at(15)).is_none());
        tokens.take(Ok(token("t", 600)), at(15)).unwrap();
        assert_eq!(known(&tokens, 15).as_deref(), Some("Bearer t"));
        assert_eq!(format!("{tokens:?}"), "Tokens(***)");
    }
}
