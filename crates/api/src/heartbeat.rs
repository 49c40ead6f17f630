//! `GET /Webhooks/{webhookId}/heartbeat`: one real, signed request to a webhook's
//! endpoint, which no history shows (`spec.md` §1.6.6).
//!
//! It makes our machines send requests, so it needs `eds.write` and is held to one
//! in ten seconds for each webhook (design §10).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use serde_json::json;
use tidings_egress::{Request, Target};
use tidings_registry::Webhook;
use tidings_types::{AttemptCode, Instant, Timestamp, WebhookId};

use crate::{
    answer::Answer,
    dispatch::Call,
    errors::{ApiError, Code},
    state::State,
    webhooks,
};

/// One in so long a time for each webhook.
const INTERVAL: Duration = Duration::from_secs(10);
/// For the whole attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Webhooks remembered at once: heartbeats of ten seconds. Past it a heartbeat has
/// to wait.
const MAX_RECENT: usize = 10_000;

/// When each webhook had its latest heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<BTreeMap<WebhookId, Instant>>);

impl Recent {
    /// Takes the place of a heartbeat now, or says how long to wait for one.
    fn take(&self, webhook: WebhookId, now: Instant) -> Result<(), Duration> {
        let mut recent = self.0.lock();
        let left = |began: &Instant| INTERVAL.saturating_sub(now.since(*began));
        if let Some(wait) = recent.get(&webhook).map(left).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        recent.retain(|_, began| !left(began).is_zero());
        if recent.len() >= MAX_RECENT {
            return Err(INTERVAL);
        }
        recent.insert(webhook, now);
        Ok(())
    }
}

/// Asks the endpoint, and says whether it answered with a success.
pub(crate) async fn heartbeat(call: &Call<'_>) -> Result<Answer, ApiError> {
    let state = call.state;
    let webhook = webhooks::find(call).await?;
    state.heartbeats.take(webhook.id, state.deps.clock.monotonic()).map_err(|wait| {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        ApiError::new(Code::RateLimited).retry_after(seconds)
    })?;
    let (code, http_status, duration) = match request(state, &webhook) {
        Ok(request) => {
            let report = state.deps.egress.attempt(request).await;
            (report.code, report.http_status, report.duration)
        }
        Err(code) => (code, 0, Duration::ZERO),
    };
    let healthy = code == AttemptCode::Delivered;
    Ok(Answer::ok(&json!({
        "webhookId": webhook.id.to_string(),
        "healthStatus": if healthy { "healthy" } else { "unhealthy" },
        "code": code.text(http_status),
        "httpStatus": (http_status != 0).then_some(http_status),
        "durationMs": u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    })))
}

/// The request; if the stored URL is not allowed (any more), what it comes to.
fn request(state: &State, webhook: &Webhook) -> Result<Request, AttemptCode> {
    let target =
        Target::parse(&webhook.url, &state.config.url_policy).map_err(|refusal| refusal.code())?;
    let now = state.now();
    let id = state.new_webhook_id().to_string();
    // In the order of a notification's context; neither value has to be escaped.
    let time = now.to_rfc3339();
    let body = Bytes::from(format!(
        r#"{{"context":{{"notificationId":"{id}","eventCode":0,"eventVersion":"v1","notificationTime":"{time}"}},"payload":{{}}}}"#
    ));
    let mut headers = HeaderMap::new();
    for header in &webhook.headers {
        let name = tidings_registry::wire_name(&header.name);
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(header.value.expose());
        if let (Ok(name), Ok(mut value)) = (name, value) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    if let Some(basic) = &webhook.basic {
        let mut plain = format!("{}:", basic.username).into_bytes();
        plain.extend_from_slice(basic.password.expose());
        let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain)));
        if let Ok(mut value) = value {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
    }
    let (time, signatures) = (now.as_secs().to_string(), signatures(webhook, &id, now, &body));
    let fixed = [
        (header::CONTENT_TYPE, "application/json"),
        (header::USER_AGENT, state.config.user_agent.as_str()),
        (HeaderName::from_static("webhook-id"), id.as_str()),
        (HeaderName::from_static("webhook-timestamp"), time.as_str()),
        (HeaderName::from_static("webhook-signature"), signatures.as_str()),
        (HeaderName::from_static("x-eds-event-code"), "0"),
        (HeaderName::from_static("x-eds-attempt"), "1"),
        (HeaderName::from_static("x-eds-test"), "true"),
    ];
    for (name, text) in fixed {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    let policy = &state.config.url_policy;
    let sign_in = webhook.oauth.as_ref();
    let sign_in = sign_in.map(|oauth| webhooks::authentication::sign_in(oauth, policy));
    let sign_in = sign_in
        .transpose()
        .map_err(|refusal| refusal.map_or(AttemptCode::BadConfig, |refusal| refusal.code()))?;
    let identity = webhook.tls.as_ref().map(webhooks::tls::identity).transpose();
    Ok(Request {
        webhook: webhook.id,
        target: Arc::new(target),
        identity: identity.map_err(|_refusal| AttemptCode::BadConfig)?.map(Arc::new),
        sign_in: sign_in.map(Arc::new),
        headers,
        body,
        timeout: TIMEOUT,
    })
}

/// As the sender signs a notification.
fn signatures(webhook: &Webhook, id: &str, now: Timestamp, body: &[u8]) -> String {
    let wants = |name| webhook.settings.signatures.iter().any(|scheme| scheme == name);
    let (signs_v1, signs_v1a) = (wants("v1"), wants("v1a"));
    let mut text = String::new();
    for live in &webhook.signing_secrets {
        if live.not_after.is_some_and(|end| end <= now) {
            continue;
        }
        if signs_v1 {
            live.secret.append_v1(&mut text, id, now.as_secs(), body);
        }
        if let Some(key) = live.asymmetric.as_ref().filter(|_| signs_v1a) {
            key.append_v1a(&mut text, id, now.as_secs(), body);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_has_one_heartbeat_in_ten_seconds_and_others_do_not_wait_for_it() {
        let recent = Recent::default();
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        let (one, other) = (WebhookId::from_random([1; 16]), WebhookId::from_random([2; 16]));
        assert_eq!(recent.take(one, at(100)), Ok(()));
        assert_eq!(recent.take(one, at(103)), Err(Duration::from_secs(7)));
        assert_eq!(recent.take(other, at(103)), Ok(()));
        assert_eq!(recent.take(one, at(110)), Ok(()));
        assert_eq!(recent.0.lock().len(), 2);
        assert_eq!(recent.take(one, at(130)), Ok(()));
        assert_eq!(recent.0.lock().len(), 1);
    }
}
