//! Webhooks of the EDS API: create, list, read, replace, status, delete
//! (`spec.md` §1.6).

pub(crate) mod authentication;
pub(crate) mod body;
pub(crate) mod change;
mod create;
pub(crate) mod headers;
mod place;
pub(crate) mod registering;
pub(crate) mod rotate;
mod shape;
pub(crate) mod subscriptions;
pub(crate) mod tls;

use std::{sync::Arc, time::Duration};

use http::header;
use serde_json::json;
use tidings_registry::{CustomHeader, HookSettings, Snapshot, Webhook, wire_name};
use tidings_signing::Secret;
use tidings_types::{HookOwner, Ordering, ProductId, Scope, StuckKey, WebhookStatus};

pub(crate) use create::create;
pub(crate) use shape::product as product_shape;

use self::{
    body::{Purpose, SettingsInput, WebhookInput},
    headers::HeaderInput,
};
use crate::{
    answer::{Answer, etag},
    caller::{Sight, select},
    dispatch::Call,
    errors::{ApiError, Code, Fault},
    input::{self, Object},
    paging::{self, List},
    state::State,
};

/// Finds the webhook that the path names, if this call may see it. Before it says
/// that there is none it folds the registry to its end: another process may have
/// made it just now.
///
/// # Errors
/// `INVALID_WEBHOOK_ID`, `WEBHOOK_NOT_REGISTERED` for unknown, deleted and foreign
/// ones alike.
pub(crate) async fn find(call: &Call<'_>) -> Result<Arc<Webhook>, ApiError> {
    let unknown = || ApiError::at(Code::WebhookNotRegistered, "webhookId");
    let id = input::webhook_id(call.request.param("webhookId"))?.ok_or_else(unknown)?;
    let visible = |snapshot: &Arc<Snapshot>| {
        let webhook = snapshot.webhooks.get(&id).ok_or_else(unknown)?;
        let is_seen = call.sight.sees(&webhook.owner, snapshot);
        is_seen.then(|| Arc::clone(webhook)).ok_or_else(unknown)
    };
    call.state.decide(visible).await
}

/// `GET /Webhooks/{webhookId}`.
pub(crate) async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    let webhook = find(call).await?;
    let snapshot = call.state.deps.registry.snapshot();
    let shape = shape::shape(&webhook, &snapshot, &call.state.config);
    Ok(Answer::ok(&shape).etag(webhook.version))
}

/// `GET /Webhooks`.
pub(crate) fn list(call: &Call<'_>) -> Result<Answer, ApiError> {
    let query = &call.request.query;
    let limit = query.limit(paging::MOST)?;
    let product = match query.get("productId") {
        Some(text) if body::is_digits(text) => Some(ProductId(Arc::from(text))),
        Some(_) => return Err(ApiError::at(Code::ProductNotValid, "productId")),
        None => None,
    };
    let status = match query.get("status") {
        Some(text) => Some(
            WebhookStatus::from_name(text)
                .ok_or_else(|| ApiError::at(Code::InvalidStatus, "status"))?,
        ),
        None => None,
    };
    let snapshot = &call.snapshot;
    let matching = snapshot.webhooks.values().filter(|webhook| {
        call.sight.sees(&webhook.owner, snapshot)
            && product.as_ref().is_none_or(|wanted| webhook.product.as_ref() == Some(wanted))
            && status.is_none_or(|wanted| webhook.status == wanted)
    });
    let list = List::of("webhooks")
        .seen_by(&call.sight)
        .filtered(query.get("productId"))
        .filtered(query.get("status"));
    let page = paging::page(matching, limit, list.place(call.state, query)?)?;
    let compat = call.state.config.compat;
    compat.check_not_empty(page.total == 0, Code::WebhookDetailsNotfound)?;
    let content: Vec<_> = page
        .items
        .iter()
        .map(|webhook| shape::shape(webhook, snapshot, &call.state.config))
        .collect();
    let mut response = json!({ "content": content, "totalCount": page.total });
    if let Some(next) = page.next {
        response["nextCursor"] = list.cursor(call.state, &next)?.into();
    }
    Ok(Answer::ok(&response))
}

/// `PUT /Webhooks/{webhookId}`: replaces everything but the owner.
pub(crate) async fn update(call: &Call<'_>) -> Result<Answer, ApiError> {
    let state = call.state;
    find(call).await?;
    let document = input::parse(&call.request.body)?;
    let input = body::read(document.root(), Purpose::Update, &state.deps.catalogue, &state.config)?;
    let edited = change::change(call, |snapshot, webhook| {
        check_echoes(&input, webhook)?;
        check_owner(call, &input, webhook, snapshot)?;
        check_product(input.product.as_ref(), &webhook.owner, snapshot)?;
        let mut next = webhook.clone();
        next.product.clone_from(&input.product);
        next.events = input.events.iter().flatten().map(|name| Arc::from(name.as_str())).collect();
        next.url.clone_from(&input.config.url);
        next.headers = merge_headers(&input.config.headers, &webhook.headers)?;
        let stored = (webhook.basic.as_ref(), webhook.oauth.as_ref());
        (next.basic, next.oauth) = authentication::merge(&input.config.authentication, stored)?;
        let way = (input.config.url.as_str(), state.now());
        next.tls = tls::merge(input.config.tls.as_ref(), webhook.tls.as_ref(), way)?;
        apply_settings(&mut next.settings, &input.config.settings);
        rotate::ensure_asymmetric(state, &mut next);
        if let Some(status) = input.status {
            set(&mut next, status)?;
        }
        Ok(next)
    })
    .await?;
    Ok(answer(state, &edited))
}

/// `PUT /Webhooks/{webhookId}/status`.
pub(crate) async fn set_status(call: &Call<'_>) -> Result<Answer, ApiError> {
    find(call).await?;
    let document = input::parse(&call.request.body)?;
    let mut faults = Vec::new();
    let status = Object::take(document.root(), &["webhookStatus"], &mut faults)
        .and_then(|object| object.required("webhookStatus", &mut faults))
        .and_then(|value| body::status(value, &mut faults));
    ApiError::check(faults)?;
    let edited = change::change(call, |_, webhook| {
        let mut next = webhook.clone();
        match status {
            Some(status) if status == webhook.status => {
                return Err(ApiError::at(Code::CurrentStatusIsSame, "webhookStatus"));
            }
            Some(status) => set(&mut next, status)?,
            None => {}
        }
        Ok(next)
    })
    .await?;
    Ok(answer(call.state, &edited))
}

/// `DELETE /Webhooks/{webhookId}`.
pub(crate) async fn delete(call: &Call<'_>) -> Result<Answer, ApiError> {
    let webhook = find(call).await?;
    change::delete(call.state, call.request, webhook.id, Code::WebhookNotRegistered).await
}

fn answer(state: &State, webhook: &Webhook) -> Answer {
    let snapshot = state.deps.registry.snapshot();
    Answer::ok(&shape::shape(webhook, &snapshot, &state.config)).etag(webhook.version)
}

/// Sets a status that a client asked for. `suspended` may be sent back where it
/// stands already; only the platform sets it.
fn set(webhook: &mut Webhook, status: WebhookStatus) -> Result<(), ApiError> {
    match (status, webhook.status) {
        (WebhookStatus::Suspended, WebhookStatus::Suspended) => {}
        (WebhookStatus::Suspended, WebhookStatus::Active | WebhookStatus::Inactive) => {
            return Err(ApiError::at(Code::InvalidStatus, "webhookStatus"));
        }
        (WebhookStatus::Active | WebhookStatus::Inactive, _) => {
            webhook.status = status;
            webhook.suspension = None;
        }
    }
    Ok(())
}

/// What an update sends back of an answer must be as it is.
fn check_echoes(input: &WebhookInput, webhook: &Webhook) -> Result<(), ApiError> {
    let faults = input.echoed.iter().filter_map(|(name, text)| {
        let current = match *name {
            "createdTime" => webhook.created.to_rfc3339(),
            "lastModifiedTime" => return None,
            _ => webhook.id.to_string(),
        };
        (*text != current).then(|| input::wrong(*name, "cannot be changed"))
    });
    ApiError::check(faults.collect())
}

/// `programManagerCode` names the webhook's manager or is left out: the owner of a
/// webhook cannot be changed.
fn check_owner(
    call: &Call<'_>,
    input: &WebhookInput,
    webhook: &Webhook,
    snapshot: &Snapshot,
) -> Result<(), ApiError> {
    let Some(code) = &input.programme_manager else { return Ok(()) };
    let field = "programManagerCode";
    let named = select(&call.request.caller, &call.sight, (code, field), snapshot)?;
    match &webhook.owner {
        HookOwner::Client(owner) if *owner == named.scope() => Ok(()),
        HookOwner::Client(_) | HookOwner::Merchant(_) | HookOwner::Operator => {
            Err(ApiError::at(Code::PmcodeNotValid, field))
        }
    }
}

/// A product must be registered, and under the owner.
fn check_product(
    product: Option<&ProductId>,
    owner: &HookOwner,
    snapshot: &Snapshot,
) -> Result<(), ApiError> {
    let Some(product) = product else { return Ok(()) };
    let sight = match owner {
        HookOwner::Client(Scope::Issuer(id)) => Sight::Issuer(id.clone()),
        HookOwner::Client(Scope::ProgrammeManager(id)) => Sight::Manager(*id),
        HookOwner::Merchant(_) | HookOwner::Operator => {
            return Err(ApiError::at(Code::ProductNotValid, "productId"));
        }
    };
    let owned = snapshot
        .products
        .get(product)
        .is_some_and(|known| sight.has_manager(known.programme_manager, snapshot));
    if owned { Ok(()) } else { Err(ApiError::at(Code::ProductNotValid, "productId")) }
}

/// The headers as they are stored; a mask keeps the value under the same name.
fn merge_headers(
    sent: &[HeaderInput],
    stored: &[CustomHeader],
) -> Result<Vec<CustomHeader>, ApiError> {
    let mut faults = Vec::new();
    let mut merged = Vec::new();
    for header in sent {
        let kept = || {
            let same = |known: &&CustomHeader| wire_name(&known.name) == wire_name(&header.name);
            stored.iter().find(same).map(|known| known.value.clone())
        };
        let value = match &header.value {
            Some(value) => Some(Secret::new(value.clone().into_bytes())),
            None => kept(),
        };
        match value {
            Some(value) => merged.push(CustomHeader {
                name: header.name.clone(),
                value,
                secret: header.is_secret,
            }),
            None => {
                let fault = Fault::at(Code::InvalidCustomHeader, header.path.as_str());
                faults.push(fault.saying("has no stored value that *** could keep"));
            }
        }
    }
    ApiError::check(faults)?;
    Ok(merged)
}

fn apply_settings(settings: &mut HookSettings, input: &SettingsInput) {
    settings.ladder.clone_from(&input.ladder);
    settings.max_in_flight = input.max_in_flight.unwrap_or(body::MAX_IN_FLIGHT);
    let timeout = input.timeout_ms.unwrap_or(body::TIMEOUT_MS);
    settings.timeout = Duration::from_millis(u64::from(timeout));
    let ordering = input.ordering.unwrap_or(Ordering::None);
    ordering.as_str().clone_into(&mut settings.ordering);
    input.stuck_key.unwrap_or(StuckKey::Wait).as_str().clone_into(&mut settings.stuck_key);
    settings.rate_limit_per_second = input.rate_limit_per_second.unwrap_or(0);
    settings.strict_legacy_envelope = input.strict_legacy_envelope;
    settings.signatures.clone_from(&input.signatures);
}

/// Whether `If-Match`, if there is one, names this version.
///
/// # Errors
/// `PRECONDITION_FAILED`.
pub(crate) fn check_if_match(headers: &http::HeaderMap, version: u64) -> Result<bool, ApiError> {
    let mut conditional = false;
    for value in headers.get_all(header::IF_MATCH) {
        conditional = true;
        let text = value.to_str().unwrap_or_default();
        let current = etag(version);
        if text.split(',').map(str::trim).any(|tag| tag == "*" || tag == current) {
            return Ok(true);
        }
    }
    if conditional { Err(ApiError::at(Code::PreconditionFailed, "If-Match")) } else { Ok(false) }
}
