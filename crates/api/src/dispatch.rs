//! From a request to its answer: match the route, verify the token, read the body
//! within its bounds, call the handler, put the envelope around what it says.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State as Extract};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, Request as HttpRequest, Response, StatusCode, Version, header, request::Parts,
};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use serde_json::json;
use tidings_auth::{Principal, Thumbprint};
use tidings_registry::Snapshot;
use tracing::Instrument as _;

use crate::{
    admin, answer,
    answer::Answer,
    caller::{self, Sight},
    configurations,
    errors::{ApiError, Code, Fault},
    fraud, heartbeat,
    history::{self, Surface},
    hooks, ingest,
    input::Query,
    jwks, probes,
    quotas::{self, Kind},
    routes::{self, Access, BodyRule, Eds, Match, Open, Operation, Platform, Route},
    serve::{ClientCertificate, Peer},
    state::State,
    trace::Trace,
    webhooks,
};

/// Makes the router that answers every request.
pub fn router(state: State) -> Router {
    Router::new().fallback(handle).with_state(state)
}

/// A request whose token has been verified and whose body has been read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// The route's path, without what the client wrote in the place of parameters.
    pub(crate) path: &'static str,
    pub(crate) params: Vec<(&'static str, String)>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) caller: Principal,
    pub(crate) trace: Trace,
}

impl Request {
    /// A parameter of the path; the table of routes says which there are.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.as_str())
    }
}

/// A request of the EDS API with what it is about.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) state: &'a State,
    pub(crate) request: &'a Request,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) sight: Sight,
}

/// The most that is read and thrown away of a refused request's body, and for how
/// long, so that a client that is still sending reads its answer and not a reset.
const MAX_DRAIN: usize = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

async fn handle(Extract(state): Extract<State>, request: HttpRequest<Body>) -> Response<Body> {
    let trace = Trace::of(request.headers(), &*state.deps.rng);
    // Whatever is logged on the way to the answer says of which request.
    let span = tracing::info_span!("request", trace = trace.as_str());
    respond(state, request, trace).instrument(span).await
}

async fn respond(state: State, request: HttpRequest<Body>, trace: Trace) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut body = Upload::of(&parts.headers, body);
    let began = state.deps.clock.monotonic();
    let (operation, result) = match find(&state, &parts) {
        Ok((route, params)) => {
            let result = Box::pin(answer(&state, route, params, parts, &mut body, &trace)).await;
            (Some(route.operation), result)
        }
        Err(error) => (None, Err(error)),
    };
    match &result {
        // What is late is not waited for again.
        Ok(_) => {}
        Err(error) if error.http_status() == StatusCode::REQUEST_TIMEOUT => {}
        Err(_) => body.drain().await,
    }
    let answer = result.unwrap_or_else(|error| {
        state.refusals.log(operation, &error, &trace, state.deps.clock.monotonic());
        answer::refuse(&error, &trace)
    });
    let seconds = state.deps.clock.monotonic().since(began).as_secs_f64();
    state.deps.metrics.answered(operation, answer.status().as_u16(), seconds);
    answer.into_response()
}

/// A request's body. Reading of it tells a client that waits for a word
/// (`Expect: 100-continue`) to send it.
pub(crate) struct Upload {
    body: Body,
    is_held_back: bool,
}

impl Upload {
    pub(crate) fn of(headers: &HeaderMap, body: Body) -> Self {
        let expected = headers.get(header::EXPECT).map_or(&b""[..], |value| value.as_bytes());
        Self { body, is_held_back: expected.eq_ignore_ascii_case(b"100-continue") }
    }

    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, axum::Error>> {
        self.is_held_back = false;
        self.body.frame().await
    }

    /// Reads and drops what is left, within bounds. Of what the client has not been
    /// asked for it reads the answer first.
    pub(crate) async fn drain(&mut self) {
        if self.is_held_back {
            return;
        }
        let rest = async {
            let mut dropped = 0;
            while let Some(Ok(frame)) = self.frame().await {
                dropped += frame.data_ref().map_or(0, Bytes::len);
                if dropped > MAX_DRAIN {
                    break;
                }
            }
        };
        if tokio::time::timeout(DRAIN_TIME, rest).await.is_err() {
            tracing::debug!("a refused request's body did not end");
        }
    }
}

type Found = (&'static Route, Vec<(&'static str, String)>);

fn find(state: &State, parts: &Parts) -> Result<Found, ApiError> {
    match routes::find(parts.method.as_str(), parts.uri.path()) {
        Match::Found { route, params } => match route.access {
            Access::Dev(_) if !state.config.dev => Err(Code::NotFound.into()),
            Access::Open | Access::Scope(_) | Access::Dev(_) => Ok((route, params)),
        },
        Match::OtherMethod(allow) => {
            Err(ApiError { allow: Some(allow), ..Code::MethodNotAllowed.into() })
        }
        Match::None => Err(Code::NotFound.into()),
    }
}

async fn answer(
    state: &State,
    route: &'static Route,
    params: Vec<(&'static str, String)>,
    parts: Parts,
    body: &mut Upload,
    trace: &Trace,
) -> Result<Answer, ApiError> {
    if parts.headers.contains_key(header::TRANSFER_ENCODING)
        && parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        let message = "the request frames its body in two ways";
        return Err(Fault::new(Code::InvalidRequestBody).saying(message).into());
    }
    if !names_its_host(&parts) {
        return Err(Code::InvalidHost.into());
    }
    let scope = match (route.operation, route.access) {
        (Operation::Open(operation), _) => return open(state, operation, &parts),
        (_, Access::Scope(scope) | Access::Dev(scope)) => scope,
        (Operation::Platform(_) | Operation::Eds(_), Access::Open) => {
            tracing::error!(path = route.path, "a route that wants a token names no scope");
            return Err(Code::Forbidden.into());
        }
    };
    let certificate = parts.extensions.get::<ClientCertificate>().map(|certificate| certificate.0);
    let caller = authenticate(state, &parts.headers, certificate, scope).await?;
    match route.operation {
        Operation::Eds(_) => {
            take_quota(state, &caller, scope)?;
            caller::check_region(&parts.headers, state.config.region)?;
        }
        Operation::Open(_) | Operation::Platform(_) => {}
    }
    let reading = read_body(body, route.body, &parts.headers);
    let body = tokio::time::timeout(state.config.request_timeout, reading)
        .await
        .map_err(|_late| ApiError::new(Code::RequestTimeout))??;
    let request = Request {
        method: route.methods.first().copied().unwrap_or_default(),
        path: route.path,
        params,
        query: Query::parse(parts.uri.query())?,
        headers: parts.headers,
        body,
        caller,
        trace: trace.clone(),
    };
    Box::pin(run(state, route, &request)).await
}

/// Whether a request says once to whom it is: a proxy before us may have gone by
/// another name than we do. One that came over no connection needs to say nothing.
fn names_its_host(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => false,
        (Some(host), None) => parts.uri.authority().is_none_or(|authority| {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        }),
        (None, None) => {
            parts.version < Version::HTTP_11 || parts.extensions.get::<Peer>().is_none()
        }
    }
}

fn open(state: &State, operation: Open, parts: &Parts) -> Result<Answer, ApiError> {
    match operation {
        Open::Health => Ok(probes::health()),
        Open::Ready => probes::ready(state),
        Open::Metrics => probes::metrics(state, parts.extensions.get::<Peer>().copied()),
        Open::Keys => Ok(jwks::list(state)),
        Open::Describe => Ok(Answer::json(StatusCode::OK, state.openapi.clone())),
    }
}

async fn authenticate(
    state: &State,
    headers: &HeaderMap,
    certificate: Option<Thumbprint>,
    scope: &'static str,
) -> Result<Principal, ApiError> {
    let token = caller::bearer(headers)?;
    let verified = state.deps.verifier.verify_fresh(token, certificate, state.now()).await;
    verified.and_then(|caller| caller.require(scope).map(|()| caller)).map_err(|error| {
        tracing::debug!(reason = error.reason(), "a token was turned away");
        caller::refused(error)
    })
}

/// Counts a request of a tenant.
///
/// # Errors
/// `RATE_LIMITED`.
fn take_quota(state: &State, caller: &Principal, scope: &str) -> Result<(), ApiError> {
    let kind = if scope == "eds.read" { Kind::Read } else { Kind::Write };
    let now = state.deps.clock.monotonic();
    state
        .quotas
        .take(quotas::tenant(caller), kind, state.config.rate, now)
        .map_err(|wait| ApiError::new(Code::RateLimited).retry_after(quotas::seconds(wait)))
}

/// Reads a body up to the route's limit and checks its content type.
async fn read_body(
    body: &mut Upload,
    rule: BodyRule,
    headers: &HeaderMap,
) -> Result<Bytes, ApiError> {
    if rule == BodyRule::None {
        return Ok(Bytes::new());
    }
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if announced.is_some_and(|length| length > rule.limit()) {
        return Err(Code::PayloadTooLarge.into());
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_error| ApiError::from(input_broken());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > rule.limit() {
            return Err(Code::PayloadTooLarge.into());
        }
        bytes.extend_from_slice(&data);
    }
    if !bytes.is_empty() && !fits(rule, media_type(headers).as_deref()) {
        return Err(Code::UnsupportedMediaType.into());
    }
    Ok(bytes.freeze())
}

fn input_broken() -> Fault {
    Fault::new(Code::InvalidRequestBody).saying("the body broke off")
}

fn fits(rule: BodyRule, media_type: Option<&str>) -> bool {
    match (rule, media_type) {
        (BodyRule::None, _)
        | (
            BodyRule::Json | BodyRule::LargeJson | BodyRule::OptionalJson | BodyRule::Events,
            Some("application/json"),
        )
        | (BodyRule::Events, Some("application/x-ndjson")) => true,
        (BodyRule::Json | BodyRule::LargeJson | BodyRule::OptionalJson | BodyRule::Events, _) => {
            false
        }
    }
}

/// The media type without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

async fn run(state: &State, route: &Route, request: &Request) -> Result<Answer, ApiError> {
    match route.operation {
        Operation::Open(_) => Err(Code::NotFound.into()),
        Operation::Platform(operation) => run_platform(state, operation, request).await,
        Operation::Eds(operation) => {
            let resolve = |snapshot: &Arc<Snapshot>| {
                let sight = caller::resolve(&request.caller, &request.headers, snapshot)?;
                Ok((Arc::clone(snapshot), sight))
            };
            let (snapshot, sight) = state.decide(resolve).await?;
            let call = Call { state, request, snapshot, sight };
            run_eds(&call, operation).await
        }
    }
    .map(|answer| {
        let is_old = route.operation.reads_registry();
        if is_old { answer.with_as_of(state.deps.registry.as_of()) } else { answer }
    })
}

async fn run_platform(
    state: &State,
    operation: Platform,
    request: &Request,
) -> Result<Answer, ApiError> {
    match operation {
        Platform::Ingest => ingest::ingest(state, request).await,
        Platform::ApplyTenants => admin::tenants::apply(state, request).await,
        Platform::CreateHook => hooks::create(state, request).await,
        Platform::ListHooks => hooks::list(state, request),
        Platform::GetHook => hooks::get(state, request).await,
        Platform::UpdateHook => hooks::update(state, request).await,
        Platform::DeleteHook => hooks::delete(state, request).await,
        Platform::HookNotificationsByType => {
            let hook = hooks::find(state, request).await?;
            let name = hooks::event_of_path(state, request.param("name"))?;
            history::by_type(state, request, Surface::Hooks, &hook, &name).await
        }
        Platform::HookNotifications => {
            let hook = hooks::find(state, request).await?;
            history::by_ids(state, request, Surface::Hooks, &hook).await
        }
        Platform::HookUndelivered => {
            let hook = hooks::find(state, request).await?;
            history::undelivered(state, request, Surface::Hooks, &hook).await
        }
        Platform::HookResend => {
            let hook = hooks::find(state, request).await?;
            history::resend::resend(state, request, Surface::Hooks, &hook).await
        }
        Platform::HookAttempts => {
            let hook = hooks::find(state, request).await?;
            history::attempts::list(state, request, Surface::Hooks, &hook).await
        }
        Platform::FraudResponses => fraud::list(state, request).await,
        Platform::CreatePause => admin::pauses::create(state, request).await,
        Platform::ListPauses => Ok(admin::pauses::list(state)),
        Platform::DeletePause => admin::pauses::delete(state, request).await,
        Platform::Account => admin::account::account(state, request).await,
        Platform::Explain => admin::explain::explain(state, request).await,
        Platform::ListQuarantine => admin::quarantine::list(state, request).await,
        Platform::ShowQuarantine => admin::quarantine::show(state, request).await,
        Platform::Redrive => admin::quarantine::redrive(state, request).await,
        Platform::Raw => admin::raw::write(state, request).await,
    }
}

async fn run_eds(call: &Call<'_>, operation: Eds) -> Result<Answer, ApiError> {
    let (state, request) = (call.state, call.request);
    match operation {
        Eds::CreateWebhook => webhooks::create(call).await,
        Eds::ListWebhooks => webhooks::list(call),
        Eds::GetWebhook => webhooks::get(call).await,
        Eds::UpdateWebhook => webhooks::update(call).await,
        Eds::SetStatus => webhooks::set_status(call).await,
        Eds::DeleteWebhook => webhooks::delete(call).await,
        Eds::ListSubscriptions => webhooks::subscriptions::list(call).await,
        Eds::AddSubscriptions => webhooks::subscriptions::add(call).await,
        Eds::RemoveSubscriptions => webhooks::subscriptions::remove(call).await,
        Eds::RemoveSubscription => webhooks::subscriptions::remove_one(call).await,
        Eds::NotificationsByCode => {
            let webhook = webhooks::find(call).await?;
            let code =
                webhooks::body::code_of_path(request.param("eventCode"), &state.deps.catalogue)?;
            history::by_type(state, request, Surface::Eds, &webhook, &code).await
        }
        Eds::Undelivered => {
            let webhook = webhooks::find(call).await?;
            history::undelivered(state, request, Surface::Eds, &webhook).await
        }
        Eds::Notifications => {
            let webhook = webhooks::find(call).await?;
            history::by_ids(state, request, Surface::Eds, &webhook).await
        }
        Eds::Resend => {
            let webhook = webhooks::find(call).await?;
            history::resend::resend(state, request, Surface::Eds, &webhook).await
        }
        Eds::Attempts => {
            let webhook = webhooks::find(call).await?;
            history::attempts::list(state, request, Surface::Eds, &webhook).await
        }
        Eds::RotateSecret => webhooks::rotate::rotate(call).await,
        Eds::Heartbeat | Eds::Ping => heartbeat::heartbeat(call).await,
        Eds::AnswerFraudAlert => fraud::answer(call).await,
        Eds::CreateConfiguration => configurations::create(call).await,
        Eds::ListConfigurations => configurations::list(call),
        Eds::GetConfiguration => configurations::get(call).await,
        Eds::UpdateConfiguration => configurations::update(call).await,
        Eds::EgressAddresses => Ok(addresses(state)),
    }
}

/// `GET /egress/addresses`: where requests come from, for clients to let in
/// (`spec.md` §3.6).
fn addresses(state: &State) -> Answer {
    let content: Vec<_> = state
        .config
        .egress_addresses
        .iter()
        .map(|(region, addresses)| json!({ "region": region, "addresses": addresses }))
        .collect();
    Answer::ok(&json!({ "content": content }))
}
