//! The decision on one source record: routed, filtered or quarantined.
//!
//! It is made with the registry as the batch's fold left it, and never made again:
//! what it says, with the bodies, goes to `tidings.routed` before anything follows
//! from it. What one event costs: one pass over its bytes, one SHA-256 over its
//! payload, one rendering and one AES-GCM for each shape that is wanted, one HMAC
//! for each webhook; then its share of two durable appends. A one-time code costs
//! a second rendering, and now and then a key.

mod bodies;
mod headers;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tidings_broker::Record;
use tidings_catalogue::{Event, Identity, Refusal, decode, json, write_uid};
use tidings_proto::v1;
use tidings_registry::Snapshot;
use tidings_routing::{EventFacts, RouteTable, Target};
use tidings_signing::{BucketKey, OpenError, SealKey, sha256};
use tidings_types::{
    EventUid, FilterReason, Offset, QuarantineCode, Sabotage, Timestamp, TopicPartition,
    WebhookStatus, names, otp_aad, quarantine_aad,
};
use v1::decision::What;

use self::headers::Heading;
use crate::{
    patience::{End, Patience},
    records::{sealed_proto, source_proto},
    service::Shared,
};

/// What a decision's record has beside the decision, at most: key, header, `took`.
pub(crate) const RECORD_OVERHEAD: usize = 1024;
/// Headers and key of a quarantined record are kept up to these sizes.
const KEPT_HEADERS: usize = 16 << 10;
const KEPT_KEY: usize = 4 << 10;
/// A longer order key is replaced by its hash.
const MAX_ORDER_KEY: usize = 128;

/// Decides records with one state of the registry.
pub(crate) struct Judge<'a> {
    shared: &'a Shared,
    patience: &'a Patience,
    snapshot: Arc<Snapshot>,
    table: Arc<RouteTable>,
    id_key: [u8; 32],
    now: Timestamp,
    /// What `tidings.routed` took when its owner last looked.
    limit: usize,
}

/// A decision, and what goes to quarantine before it.
pub(crate) struct Verdict {
    pub(crate) decision: v1::Decision,
    pub(crate) quarantined: Option<v1::QuarantineRecord>,
}

/// A record's event bytes.
enum Content {
    AsPublished(Bytes),
    /// With the one-time code back in its place.
    Restored(Vec<u8>),
    /// The key of its code is gone: the event without the code, and its uid.
    WithoutCode(Bytes, EventUid),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::AsPublished(bytes) | Self::WithoutCode(bytes, _) => bytes,
            Self::Restored(bytes) => bytes,
        }
    }
}

impl<'a> Judge<'a> {
    /// `None` while the registry has no id key yet.
    pub(crate) fn new(
        shared: &'a Shared,
        patience: &'a Patience,
        snapshot: Arc<Snapshot>,
        limit: usize,
    ) -> Option<Self> {
        let id_key = *snapshot.id_key()?;
        let table = snapshot.route_table();
        let now = shared.deps.clock.now();
        Some(Self { shared, patience, snapshot, table, id_key, now, limit })
    }

    /// Decides one record. `skipped` offsets before it hold nothing.
    ///
    /// # Errors
    /// When it is stopped while a key cannot be had.
    pub(crate) async fn decide(
        &self,
        from: &TopicPartition,
        skipped: u64,
        record: &Record,
    ) -> Result<Verdict, End> {
        let mut decision = v1::Decision {
            source: Some(source_proto(from, record.offset)),
            skipped,
            registry_version: self.snapshot.version,
            time: self.now.as_millis(),
            ..v1::Decision::default()
        };
        let judged = match headers::read(&record.headers) {
            Ok(heading) => {
                let judged = self.judge(from, record, &heading).await?;
                decision.traceparent = heading.traceparent;
                judged
            }
            Err(refusal) => Err(refusal),
        };
        let judged = match judged {
            Ok(what) => {
                decision.what = Some(what);
                let fits = self.fits(decision.encoded_len() + RECORD_OVERHEAD).await;
                if fits { Ok(()) } else { Err(too_large()) }
            }
            Err(refusal) => Err(refusal),
        };
        let quarantined = match judged {
            Ok(()) => None,
            Err(refusal) => {
                decision.what = Some(what_of(&refusal));
                let bucket = self.bucket_of_quarantine(from).await?;
                Some(self.quarantined(from, record, refusal, bucket.as_ref()))
            }
        };
        self.count(&decision, record);
        Ok(Verdict { decision, quarantined })
    }

    /// Decides a record that unpacks to more than is taken: nobody has seen what is in it.
    pub(crate) fn set_aside(&self, from: &TopicPartition, skipped: u64, offset: Offset) -> Verdict {
        let (timestamp, headers) = (self.now, Vec::new().into());
        let record = Record { offset, timestamp, key: None, headers, value: None };
        let refusal = too_large();
        let decision = v1::Decision {
            source: Some(source_proto(from, offset)),
            skipped,
            registry_version: self.snapshot.version,
            time: self.now.as_millis(),
            what: Some(what_of(&refusal)),
            ..v1::Decision::default()
        };
        tracing::error!(source = %from, offset, "a record unpacks to more than is taken and is set aside unread");
        let mut quarantined = self.quarantined(from, &record, refusal, None);
        (quarantined.original, quarantined.sha256) = (None, Bytes::new());
        self.count(&decision, &record);
        Verdict { decision, quarantined: Some(quarantined) }
    }

    /// Whether `tidings.routed` takes a record of so many bytes. One that it does not
    /// take must not be written: it would fail while others of its append stand.
    async fn fits(&self, bytes: usize) -> bool {
        if bytes <= self.limit {
            return true;
        }
        let ours = self.shared.config.max_record_bytes;
        // The topic may take more by now.
        if bytes > ours || bytes <= self.shared.routed_limit().await {
            return bytes <= ours;
        }
        self.shared.deps.metrics.too_large.inc();
        tracing::error!(
            topic = names::ROUTED,
            bytes,
            "a decision is larger than the topic takes, and its event is set aside; raise the \
             topic's max.message.bytes to what `tidings topics check` says, then publish it again \
             with `tidings quarantine redrive`"
        );
        false
    }

    fn count(&self, decision: &v1::Decision, record: &Record) {
        let metrics = &self.shared.deps.metrics;
        metrics.decision_age.observe(self.now.since(record.timestamp).as_secs_f64());
        metrics.skipped_offsets.inc_by(decision.skipped);
        match &decision.what {
            Some(What::Routed(_)) => {
                metrics.routed.inc();
            }
            Some(What::Filtered(filtered)) => {
                if let Some(reason) = FilterReason::from_name(&filtered.reason) {
                    metrics.filter(reason);
                }
            }
            Some(What::Quarantined(quarantined)) => {
                if let Some(code) = QuarantineCode::from_name(&quarantined.code) {
                    metrics.quarantine(code);
                }
            }
            None => {}
        }
    }

    async fn judge(
        &self,
        from: &TopicPartition,
        record: &Record,
        heading: &Heading,
    ) -> Result<Result<What, Refusal>, End> {
        let topic_type = from.topic.as_str().strip_prefix(names::EVENTS_PREFIX).unwrap_or_default();
        let value = record.value.clone().unwrap_or_default();
        let content = match self.content(topic_type, value, heading).await? {
            Ok(content) => content,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let event = match decode(&self.shared.deps.catalogue, Some(topic_type), content.bytes()) {
            Ok(event) => event,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let unknown = u64::try_from(event.unknown_fields()).unwrap_or(u64::MAX);
        self.shared.deps.metrics.unknown_fields.inc_by(unknown);
        let producer_id = event.producer_id().or(heading.event_id.as_deref());
        let uid = match &content {
            Content::AsPublished(_) | Content::Restored(_) => {
                self.uid(&event, producer_id, from, record.offset)
            }
            Content::WithoutCode(_, uid) => *uid,
        };
        let mtid = event.mtid();
        let targets = match self.table.route(&EventFacts::of(&event, mtid.as_deref())) {
            tidings_routing::Decision::BadTenant => return Ok(Err(foreign_product(&event))),
            tidings_routing::Decision::Filtered(reason) => {
                return Ok(Ok(What::Filtered(v1::Filtered {
                    uid: Bytes::copy_from_slice(&uid.0),
                    event_type: event.kind().name().to_owned(),
                    tenant: event.tenant().to_string(),
                    reason: reason.as_str().to_owned(),
                })));
            }
            tidings_routing::Decision::Routed(targets) => self.sabotaged(targets),
        };
        let facts = bodies::Facts {
            uid,
            producer_id,
            has_lost_code: matches!(content, Content::WithoutCode(..)),
            published: record.timestamp,
        };
        Ok(Ok(What::Routed(self.routed(&event, &facts, &targets).await?)))
    }

    /// Puts a code that ingest sealed back into its place.
    async fn content(
        &self,
        topic_type: &str,
        value: Bytes,
        heading: &Heading,
    ) -> Result<Result<Content, Refusal>, End> {
        let Some((sealed, uid)) = &heading.code else {
            return Ok(Ok(Content::AsPublished(value)));
        };
        let keys = &self.shared.deps.keys;
        let aad = otp_aad(*uid);
        let mut opened = keys.book().open(sealed, &aad);
        if matches!(opened, Err(OpenError::UnknownKey(_))) {
            // Only a topic that was read to its end can say that a key is gone.
            let mut tries = self.patience.tries();
            while keys.read_to_end().await.is_err() {
                tries.again().await?;
            }
            opened = keys.book().open(sealed, &aad);
        }
        let code = match opened {
            Ok(code) => code,
            Err(OpenError::Damaged) => return Ok(Err(headers::bad_code())),
            Err(OpenError::UnknownKey(_)) => {
                self.shared.deps.metrics.lost_codes.inc();
                tracing::warn!(uid = %uid, "the key of a one-time code is gone; the event goes on without it");
                return Ok(Ok(Content::WithoutCode(value, *uid)));
            }
        };
        let place = self.shared.deps.catalogue.get(topic_type).and_then(|kind| {
            let document = json::Document::parse(&value).ok()?;
            let payload = document.root().get("payload")?;
            kind.ephemeral().first().and_then(|name| Some(payload.get(name)?.span()))
        });
        Ok(Ok(match place {
            Some(place) => Content::Restored(json::replace(&value, &[(place, &code)])),
            // The checks say what is wrong with it.
            None => Content::AsPublished(value),
        }))
    }

    fn uid(
        &self,
        event: &Event<'_>,
        producer_id: Option<&str>,
        from: &TopicPartition,
        offset: u64,
    ) -> EventUid {
        let identity = producer_id.map_or(
            Identity::Source {
                epoch: self.shared.config.source_epoch,
                topic: from.topic.as_str(),
                partition: from.partition,
                offset,
            },
            Identity::Producer,
        );
        let mut bytes = Vec::with_capacity(event.payload().len() + 256);
        write_uid(event, identity, |part| bytes.extend_from_slice(part));
        EventUid(sha256(&[&bytes]))
    }

    /// A bad record of a type that has one-time codes may hold one, wherever that
    /// stands: it is kept no longer than codes are.
    async fn bucket_of_quarantine(&self, from: &TopicPartition) -> Result<Option<BucketKey>, End> {
        let name = from.topic.as_str().strip_prefix(names::EVENTS_PREFIX).unwrap_or_default();
        let kind = self.shared.deps.catalogue.get(name);
        if kind.is_none_or(|kind| kind.ephemeral().is_empty()) {
            return Ok(None);
        }
        self.bucket(self.shared.deps.keys.latest_deadline()).await.map(Some)
    }

    /// What goes to quarantine. The original is left out when it is too large;
    /// headers and key when they are long. All of it is sealed but what is needed
    /// to find it again.
    fn quarantined(
        &self,
        from: &TopicPartition,
        record: &Record,
        refusal: Refusal,
        bucket: Option<&BucketKey>,
    ) -> v1::QuarantineRecord {
        let value = record.value.as_deref().unwrap_or_default();
        let original = (value.len() <= tidings_catalogue::MAX_RECORD).then(|| {
            let aad = quarantine_aad(from, record.offset);
            let (ring, nonce) = (&self.shared.deps.keyring, self.shared.nonce());
            sealed_proto(match bucket {
                Some(bucket) => bucket.seal(&aad, value, nonce),
                None => ring.seal(&SealKey::Quarantine, &aad, value, nonce),
            })
        });
        let header_bytes: usize =
            record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let headers = if header_bytes <= KEPT_HEADERS { &*record.headers } else { &[] };
        v1::QuarantineRecord {
            source: Some(source_proto(from, record.offset)),
            code: refusal.code.as_str().to_owned(),
            field: refusal.field.unwrap_or_default(),
            time: self.now.as_millis(),
            original,
            sha256: Bytes::copy_from_slice(&sha256(&[value])),
            headers: headers
                .iter()
                .map(|(name, value)| v1::HeaderEntry {
                    name: name.to_string(),
                    value: value.clone(),
                })
                .collect(),
            key: record.key.clone().filter(|key| key.len() <= KEPT_KEY).unwrap_or_default(),
            redrive_of: String::new(),
        }
    }

    /// Plants the fault of a notification for another tenant, when told so.
    fn sabotaged(&self, mut targets: Vec<Target>) -> Vec<Target> {
        if self.shared.deps.sabotage != Sabotage::WrongTenantWebhook {
            return targets;
        }
        let owner = |webhook| self.snapshot.webhooks.get(webhook).map(|it| it.owner.clone());
        let own = targets.first().and_then(|target| owner(&target.webhook));
        let foreign = self.snapshot.webhooks.values().find(|webhook| {
            Some(&webhook.owner) != own.as_ref() && webhook.status == WebhookStatus::Active
        });
        if let (Some(foreign), Some(target)) = (foreign, targets.first_mut()) {
            target.webhook = foreign.id;
        }
        targets
    }
}

fn what_of(refusal: &Refusal) -> What {
    What::Quarantined(v1::Quarantined {
        code: refusal.code.as_str().to_owned(),
        field: refusal.field.clone().unwrap_or_default(),
    })
}

fn too_large() -> Refusal {
    let message = "the bodies of this event are larger than a record may be";
    let field = Some("payload".to_owned());
    Refusal { code: QuarantineCode::TooLarge, field, message: message.into() }
}

fn foreign_product(event: &Event<'_>) -> Refusal {
    Refusal {
        code: QuarantineCode::BadTenant,
        field: event.product_path(),
        message: "the product is registered under another programme manager".into(),
    }
}

/// What notifications are ordered by; a key that is long by its hash.
fn order_key(event: &Event<'_>, uid: EventUid) -> String {
    match event.order_key() {
        Some(key) if key.len() <= MAX_ORDER_KEY => key.into_owned(),
        Some(key) => format!("sha256:{}", hex::encode(sha256(&[key.as_bytes()]))),
        None => uid.to_string(),
    }
}
