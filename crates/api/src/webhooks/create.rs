//! `POST /Webhooks`.

use std::sync::Arc;

use http::{StatusCode, header};
use tidings_registry::{HookSettings, HookSignature, SigningSecret, Snapshot, Webhook};
use tidings_signing::WebhookSecret;
use tidings_types::{HookOwner, WebhookStatus};

use super::{
    apply_settings, authentication,
    body::{self, Purpose, WebhookInput},
    check_product, merge_headers,
    registering::{register, remember, replayed},
    rotate::ensure_asymmetric,
    shape, tls,
};
use crate::{
    answer::Answer, caller::select, commands, dispatch::Call, errors::ApiError, input, topics,
};

/// Registers a webhook: its topic first, so that a webhook in the registry always
/// has one, then the webhook with its secret.
pub(crate) async fn create(call: &Call<'_>) -> Result<Answer, ApiError> {
    let state = call.state;
    let command = commands::of(call.request)?;
    if let Some(answer) = replayed(state, command.as_ref()).await? {
        return Ok(answer);
    }
    let document = input::parse(&call.request.body)?;
    let input = body::read(document.root(), Purpose::Create, &state.deps.catalogue, &state.config)?;
    let webhook = state.decide(|snapshot| build(call, &input, snapshot)).await?;
    let (webhook, snapshot) = register(state, call.request, webhook, command.as_ref()).await?;
    let shape = shape::created(&webhook, &snapshot, &state.config);
    let answer = Answer::success(StatusCode::CREATED, &shape)
        .etag(webhook.version)
        .with(header::LOCATION, &format!("/api/v1/Webhooks/{}", webhook.id));
    remember(state, call.request, command.as_ref(), &answer).await;
    Ok(answer)
}

fn build(call: &Call<'_>, input: &WebhookInput, snapshot: &Snapshot) -> Result<Webhook, ApiError> {
    let state = call.state;
    let sight = match &input.programme_manager {
        Some(code) => {
            select(&call.request.caller, &call.sight, (code, "programManagerCode"), snapshot)?
        }
        None => call.sight.clone(),
    };
    let owner = HookOwner::Client(sight.scope());
    check_product(input.product.as_ref(), &owner, snapshot)?;
    let id = state.new_webhook_id();
    let now = state.now();
    let events: Vec<&str> = input.events.iter().flatten().map(String::as_str).collect();
    let mut settings = HookSettings::default();
    apply_settings(&mut settings, &input.config.settings);
    let (basic, oauth) = authentication::merge(&input.config.authentication, (None, None))?;
    let mut webhook = Webhook {
        id,
        slot: tidings_signing::slot(id),
        version: 1,
        owner,
        product: input.product.clone(),
        partitions: topics::partitions(events.iter().copied(), &state.deps.catalogue),
        events: events.into_iter().map(Arc::from).collect(),
        status: input.status.unwrap_or(WebhookStatus::Active),
        url: input.config.url.clone(),
        headers: merge_headers(&input.config.headers, &[])?,
        signing_secrets: vec![SigningSecret {
            id: "1".to_owned(),
            secret: WebhookSecret::from_bytes(&state.random::<32>()),
            asymmetric: None,
            not_after: None,
        }],
        settings,
        created: now,
        modified: now,
        label: String::new(),
        basic,
        oauth,
        tls: tls::merge(input.config.tls.as_ref(), None, (&input.config.url, now))?,
        signature: HookSignature::None,
        wire_names: false,
        suspension: None,
    };
    ensure_asymmetric(state, &mut webhook);
    Ok(webhook)
}
