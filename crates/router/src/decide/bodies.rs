//! The bodies of a routed event: rendered once for each shape, sealed once, the
//! same bytes for `tidings.routed` and for every delivery.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidings_catalogue::{
    Event,
    render::{Rendered, effective_shape, render, render_redacted},
};
use tidings_proto::v1;
use tidings_routing::Target;
use tidings_signing::{BucketKey, NotificationIds, SealKey};
use tidings_types::{EventUid, Shape, Timestamp, body_aad};

use super::{Judge, order_key};
use crate::{patience::End, records::sealed_proto};

/// The type whose events clients answer by this id.
const FRAUD_ALERT: &str = "101";
/// In the place of an issuer: Tidings' own events.
const OPERATOR: &str = "ops";

/// What is known of an event beside itself.
pub(super) struct Facts<'a> {
    pub(super) uid: EventUid,
    pub(super) producer_id: Option<&'a str>,
    /// Its one-time code cannot be read any more.
    pub(super) has_lost_code: bool,
    /// The record's time.
    pub(super) published: Timestamp,
}

impl Judge<'_> {
    /// What `tidings.routed` says of an event that goes to these webhooks.
    pub(super) async fn routed(
        &self,
        event: &Event<'_>,
        facts: &Facts<'_>,
        targets: &[Target],
    ) -> Result<v1::Routed, End> {
        let kind = event.kind();
        let has_code = !event.ephemeral_spans().is_empty();
        let deadline = self.deadline(event, facts, has_code);
        // A code that is past its deadline is sent to nobody, so it is not kept.
        let keeps_code =
            has_code && !facts.has_lost_code && deadline.is_some_and(|at| at > self.now);
        let bucket = match deadline.filter(|_| keeps_code) {
            Some(deadline) => Some(self.bucket(deadline).await?),
            None => None,
        };
        let issuer = self.table.issuer(event.tenant()).map_or(OPERATOR, |issuer| &issuer.0);
        let shapes: BTreeSet<Shape> =
            targets.iter().map(|target| effective_shape(kind, target.shape)).collect();
        let body = |shape: Shape| {
            let redacted = if has_code && !keeps_code {
                render_redacted(event, shape, self.now)
            } else {
                None
            };
            let rendered = redacted.unwrap_or_else(|| render(event, shape, self.now));
            self.body(&rendered, facts.uid, shape, issuer, bucket.as_ref())
        };
        let redacted = render_redacted(event, Shape::Plain, self.now)
            .map(|rendered| self.body(&rendered, facts.uid, Shape::Plain, issuer, None));
        let ids = NotificationIds::new(&self.id_key, facts.uid);
        let target = |target: &Target| {
            let notification = ids.of(target.webhook);
            v1::RoutedTarget {
                webhook: Bytes::copy_from_slice(target.webhook.as_bytes()),
                notification: Bytes::copy_from_slice(notification.as_bytes()),
                shape: v1::Shape::from(effective_shape(kind, target.shape)).into(),
                suspended: target.is_suspended,
            }
        };
        let fraud_alert = if kind.name() == FRAUD_ALERT {
            event.id_text("fraudAlertId").filter(|id| id.len() <= tidings_catalogue::MAX_ID)
        } else {
            None
        };
        Ok(v1::Routed {
            uid: Bytes::copy_from_slice(&facts.uid.0),
            event_type: kind.name().to_owned(),
            tenant: event.tenant().to_string(),
            issuer: issuer.to_owned(),
            lane: v1::Lane::from(kind.lane()).into(),
            deadline: deadline.map_or(0, Timestamp::as_millis),
            order_key: order_key(event, facts.uid),
            producer_id: facts.producer_id.unwrap_or_default().to_owned(),
            bodies: shapes.into_iter().map(body).collect(),
            targets: targets.iter().map(target).collect(),
            redacted,
            fraud_alert_id: fraud_alert.map_or_else(String::new, std::borrow::Cow::into_owned),
        })
    }

    /// A code lives no longer than an hour less than its key (design §7).
    fn deadline(&self, event: &Event<'_>, facts: &Facts<'_>, has_code: bool) -> Option<Timestamp> {
        let deadline = event.deadline(facts.published)?;
        if !has_code {
            return Some(deadline);
        }
        let age = self.now.since(facts.published);
        Some(deadline.min(self.shared.deps.keys.latest_deadline().minus(age)))
    }

    /// The key for codes with this deadline, acknowledged before it is used.
    pub(super) async fn bucket(&self, deadline: Timestamp) -> Result<BucketKey, End> {
        let mut tries = self.patience.tries();
        loop {
            match self.shared.deps.keys.ensure_bucket(deadline).await {
                Ok(key) => return Ok(key),
                Err(error) => {
                    if tries.is_worth_a_line() {
                        tracing::warn!(%error, "routing waits for the key of a one-time code");
                    }
                    tries.again().await?;
                }
            }
        }
    }

    fn body(
        &self,
        rendered: &Rendered,
        uid: EventUid,
        shape: Shape,
        issuer: &str,
        bucket: Option<&BucketKey>,
    ) -> v1::Body {
        let aad = body_aad(uid, shape);
        let nonce = self.shared.nonce();
        let sealed = match bucket {
            Some(bucket) => bucket.seal(&aad, &rendered.bytes, nonce),
            None => {
                let key = SealKey::Body { issuer, at: self.now };
                self.shared.deps.keyring.seal(&key, &aad, &rendered.bytes, nonce)
            }
        };
        let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        v1::Body {
            sealed: Some(sealed_proto(sealed)),
            hole: rendered.hole.map(number),
            payload_start: number(rendered.payload.start),
            payload_len: number(rendered.payload.len()),
            shape: v1::Shape::from(shape).into(),
        }
    }
}
