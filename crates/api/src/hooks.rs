//! Hooks: those of merchants, any number for each, and the operator's own
//! (contract §2, §3).

mod body;
mod shape;

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use tidings_registry::{Basic, HookSettings, HookSignature, Snapshot, Webhook};
use tidings_signing::Secret;
use tidings_types::{HookOwner, MerchantKey, WebhookStatus};

use self::body::{Authentication, HookInput, Signature};
use crate::{
    answer::Answer,
    commands,
    dispatch::Request,
    errors::{ApiError, Code, Fault},
    input::{self, wrong},
    paging::{self, List},
    state::State,
    topics,
    webhooks::{
        body::Purpose,
        change,
        registering::{register, remember, replayed},
    },
};

/// Finds the hook that the path names.
///
/// # Errors
/// `INVALID_WEBHOOK_ID`, `WEBHOOK_NOT_REGISTERED`.
pub(crate) async fn find(state: &State, request: &Request) -> Result<Arc<Webhook>, ApiError> {
    let unknown = || ApiError::at(Code::WebhookNotRegistered, "hookId");
    let id = input::webhook_id(request.param("hookId"))
        .map_err(|_format| ApiError::at(Code::InvalidWebhookId, "hookId"))?
        .ok_or_else(unknown)?;
    let visible = |snapshot: &Arc<Snapshot>| {
        let found = snapshot.webhooks.get(&id).filter(|hook| is_hook(hook));
        found.map(Arc::clone).ok_or_else(unknown)
    };
    state.decide(visible).await
}

fn is_hook(webhook: &Webhook) -> bool {
    match webhook.owner {
        HookOwner::Merchant(_) | HookOwner::Operator => true,
        HookOwner::Client(_) => false,
    }
}

/// The event type of a path; another name for one is taken for it.
///
/// # Errors
/// `EVENTCODE_NOTFOUND`.
pub(crate) fn event_of_path(state: &State, name: &str) -> Result<String, ApiError> {
    let kind = state.deps.catalogue.get(name).filter(|kind| !kind.is_eds());
    kind.map(|kind| kind.name().to_owned())
        .ok_or_else(|| ApiError::at(Code::EventcodeNotfound, "name"))
}

/// `POST /admin/v1/hooks`.
pub(crate) async fn create(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let command = commands::of(request)?;
    if let Some(answer) = replayed(state, command.as_ref()).await? {
        return Ok(answer);
    }
    let document = input::parse(&request.body)?;
    let input = body::read(document.root(), Purpose::Create, &state.deps.catalogue, &state.config)?;
    let hook = state.decide(|snapshot| build(state, &input, snapshot)).await?;
    let (hook, _) = register(state, request, hook, command.as_ref()).await?;
    let answer = Answer::success(StatusCode::CREATED, &shape::with_key(&hook))
        .etag(hook.version)
        .with(http::header::LOCATION, &format!("/admin/v1/hooks/{}", hook.id));
    remember(state, request, command.as_ref(), &answer).await;
    Ok(answer)
}

/// `GET /admin/v1/hooks`.
pub(crate) fn list(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let limit = request.query.limit(paging::MOST)?;
    let wanted = request.query.get("merchant");
    let snapshot = state.deps.registry.snapshot();
    let matching = snapshot.webhooks.values().filter(|hook| {
        let key = shape::merchant(&hook.owner);
        is_hook(hook) && wanted.is_none_or(|wanted| key.is_some_and(|key| *key.0 == *wanted))
    });
    let list = List::of("hooks").filtered(wanted);
    let page = paging::page(matching, limit, list.place(state, &request.query)?)?;
    let content: Vec<_> = page.items.iter().map(|hook| shape::shape(hook)).collect();
    let mut response = json!({ "content": content, "totalCount": page.total });
    if let Some(next) = page.next {
        response["nextCursor"] = list.cursor(state, &next)?.into();
    }
    Ok(Answer::ok(&response))
}

/// `GET /admin/v1/hooks/{hookId}`.
pub(crate) async fn get(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let hook = find(state, request).await?;
    Ok(Answer::ok(&shape::shape(&hook)).etag(hook.version))
}

/// `PUT /admin/v1/hooks/{hookId}`: replaces everything but the merchant.
pub(crate) async fn update(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let hook = find(state, request).await?;
    let document = input::parse(&request.body)?;
    let input = body::read(document.root(), Purpose::Update, &state.deps.catalogue, &state.config)?;
    let fresh = new_key(state);
    let saved =
        change::save(state, request, hook.id, Code::WebhookNotRegistered, |snapshot, hook| {
            replace(&input, hook, snapshot, &fresh)
        })
        .await?;
    // A key that this change made is shown now and never again.
    let is_new = matches!(&saved.signature, HookSignature::SignatureKey(key) if *key == fresh);
    let shape = if is_new { shape::with_key(&saved) } else { shape::shape(&saved) };
    Ok(Answer::ok(&shape).etag(saved.version))
}

/// `DELETE /admin/v1/hooks/{hookId}`.
pub(crate) async fn delete(state: &State, request: &Request) -> Result<Answer, ApiError> {
    let hook = find(state, request).await?;
    change::delete(state, request, hook.id, Code::WebhookNotRegistered).await
}

/// A signature key: its text is the key (`spec.md` §3.2).
fn new_key(state: &State) -> Secret {
    Secret::new(format!("whk_{}", hex::encode(state.random::<32>())).into_bytes())
}

fn build(state: &State, input: &HookInput, snapshot: &Snapshot) -> Result<Webhook, ApiError> {
    let owner = owner(input, snapshot)?;
    let id = state.new_webhook_id();
    let now = state.now();
    let names = input.events.iter().map(String::as_str);
    let hook = Webhook {
        id,
        slot: tidings_signing::slot(id),
        version: 1,
        owner,
        product: None,
        partitions: topics::partitions(names.clone(), &state.deps.catalogue),
        events: names.map(Arc::from).collect(),
        status: input.status.unwrap_or(WebhookStatus::Active),
        url: input.url.clone(),
        headers: Vec::new(),
        signing_secrets: Vec::new(),
        settings: HookSettings {
            ladder: Some(state.config.merchant_ladder.clone()),
            ..HookSettings::default()
        },
        created: now,
        modified: now,
        label: input.label.clone(),
        basic: None,
        oauth: None,
        tls: None,
        signature: HookSignature::None,
        wire_names: input.wire_names,
        suspension: None,
    };
    Ok(Webhook {
        basic: basic(&input.authentication, None)?,
        signature: signature(&input.signature, &hook, snapshot, &new_key(state))?,
        ..hook
    })
}

fn replace(
    input: &HookInput,
    hook: &Webhook,
    snapshot: &Snapshot,
    fresh: &Secret,
) -> Result<Webhook, ApiError> {
    if input.echoed_id.as_ref().is_some_and(|id| *id != hook.id.to_string()) {
        return Err(wrong("hookId", "cannot be changed").into());
    }
    if owner(input, snapshot)? != hook.owner {
        return Err(wrong("merchant", "cannot be changed").into());
    }
    let mut next = hook.clone();
    next.label.clone_from(&input.label);
    next.url.clone_from(&input.url);
    next.events = input.events.iter().map(|name| Arc::from(name.as_str())).collect();
    next.wire_names = input.wire_names;
    next.basic = basic(&input.authentication, hook.basic.as_ref())?;
    next.signature = signature(&input.signature, hook, snapshot, fresh)?;
    match (input.status, hook.status) {
        (None, _) | (Some(WebhookStatus::Suspended), WebhookStatus::Suspended) => {}
        (Some(WebhookStatus::Suspended), _) => {
            return Err(ApiError::at(Code::InvalidStatus, "status"));
        }
        (Some(status), _) => {
            next.status = status;
            next.suspension = None;
        }
    }
    Ok(next)
}

fn owner(input: &HookInput, snapshot: &Snapshot) -> Result<HookOwner, ApiError> {
    let Some(key) = &input.merchant else { return Ok(HookOwner::Operator) };
    let key = MerchantKey(Arc::from(key.as_str()));
    if snapshot.merchants.contains_key(&key) {
        return Ok(HookOwner::Merchant(key));
    }
    Err(wrong("merchant", "there is no such merchant").into())
}

fn basic(sent: &Authentication, stored: Option<&Basic>) -> Result<Option<Basic>, ApiError> {
    let (username, password) = match sent {
        Authentication::None => return Ok(None),
        Authentication::Basic { username, password } => (username, password),
    };
    let password = match (password, stored) {
        (Some(password), _) => Secret::new(password.clone().into_bytes()),
        (None, Some(stored)) => stored.password.clone(),
        (None, None) => {
            let message = "there is no stored password that *** could keep";
            return Err(wrong("authentication.password", message).into());
        }
    };
    Ok(Some(Basic { username: username.clone(), password }))
}

/// How the hook is signed from now on; a signature key is kept once it is there.
fn signature(
    sent: &Signature,
    hook: &Webhook,
    snapshot: &Snapshot,
    fresh: &Secret,
) -> Result<HookSignature, ApiError> {
    Ok(match sent {
        Signature::None => HookSignature::None,
        Signature::OwnKey => match &hook.signature {
            HookSignature::SignatureKey(key) => HookSignature::SignatureKey(key.clone()),
            HookSignature::None | HookSignature::SourceKey(_) => {
                HookSignature::SignatureKey(fresh.clone())
            }
        },
        Signature::SourceKey(id) => {
            let known = shape::merchant(&hook.owner)
                .and_then(|key| snapshot.merchants.get(key))
                .is_some_and(|merchant| merchant.source_keys.iter().any(|key| key.id == *id));
            if !known {
                let fault = Fault::at(Code::InvalidRequestBody, "signature.sourceKeyId");
                return Err(fault.saying("the merchant has no source key of this id").into());
            }
            HookSignature::SourceKey(id.clone())
        }
    })
}
