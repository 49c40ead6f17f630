//! What follows from decisions: delivery records, and outcomes for notifications
//! that get none because their webhook is suspended or deleted.
//!
//! Written from the decision as it stands in `tidings.routed`, so that a takeover
//! writes the same again. Repeats are harmless: the slot owner knows them by id
//! and run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_broker::{
    AppendBatch, AppendError, Appended, NewRecord, Retention, TopicError, TopicSpec,
};
use tidings_proto::{encode, v1};
use tidings_registry::Snapshot;
use tidings_signing::slot;
use tidings_types::{
    EndReason, Lane, Partition, RunId, Slot, TopicName, TopicPartition, WebhookId, names,
};
use v1::decision::What;

use crate::{
    patience::{End, Patience, Tries},
    records::{delivery, delivery_tail, new_record, source_of},
    service::Shared,
};

/// What an item costs beside its value, about.
const ITEM_BYTES: usize = 128;

/// Appends what follows from decisions.
#[derive(Debug)]
pub(crate) struct Deliverer<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) patience: &'a Patience,
}

/// One delivery record to append.
struct Item {
    key: Bytes,
    value: Bytes,
    /// The notification that it is, and when it was decided, in case that its
    /// webhook is gone.
    notification: Bytes,
}

/// What is appended in one call.
#[derive(Default)]
pub(crate) struct Chunk {
    /// By the place where the records go; the webhook's lane is its partition.
    deliveries: BTreeMap<(WebhookId, Partition), Vec<Item>>,
    outcomes: BTreeMap<Slot, Vec<v1::Outcome>>,
    bytes: usize,
}

/// Where one batch of an append came from.
pub(crate) enum Origin {
    Delivery((WebhookId, Partition)),
    Outcomes(Slot),
}

impl Origin {
    fn topic(&self) -> TopicName {
        match self {
            Self::Delivery((webhook, _)) => names::delivery(*webhook),
            Self::Outcomes(_) => TopicName::new(names::OUTCOMES),
        }
    }
}

impl Chunk {
    pub(crate) fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.outcomes.is_empty()
    }

    /// The notification ends here: nothing is sent.
    fn end(&mut self, webhook: WebhookId, outcome: v1::Outcome) {
        self.bytes += ITEM_BYTES;
        self.outcomes.entry(slot(webhook)).or_default().push(outcome);
    }

    /// Turns what waits for deleted webhooks into outcomes.
    fn cancel_deleted(&mut self, snapshot: &Snapshot, now: i64) {
        let gone: Vec<_> = self
            .deliveries
            .keys()
            .filter(|(webhook, _)| snapshot.deleted_webhooks.contains_key(webhook))
            .copied()
            .collect();
        for place in gone {
            for item in self.deliveries.remove(&place).into_iter().flatten() {
                let lane = lane(Lane::from_partition(place.1));
                self.end(place.0, cancelled(place.0, item.notification, lane, now));
            }
        }
    }

    pub(crate) fn batches(&self) -> (Vec<Origin>, Vec<AppendBatch>) {
        let mut origins = Vec::new();
        let mut batches = Vec::new();
        for (place, items) in &self.deliveries {
            let to = TopicPartition { topic: names::delivery(place.0), partition: place.1 };
            let records = items.iter().map(Item::record).collect();
            origins.push(Origin::Delivery(*place));
            batches.push(AppendBatch { to, records });
        }
        for (slot, outcomes) in &self.outcomes {
            let batch = v1::OutcomeBatch {
                slot: slot.0,
                took: None,
                writer: v1::Writer::Router.into(),
                outcomes: outcomes.clone(),
            };
            let record = new_record(slot.0.to_string(), encode(&batch));
            origins.push(Origin::Outcomes(*slot));
            let to = TopicPartition::new(names::OUTCOMES, slot.outcome_partition());
            batches.push(AppendBatch { to, records: vec![record] });
        }
        (origins, batches)
    }

    /// How many records a batch has.
    fn records(&self, origin: &Origin) -> u64 {
        let count = match origin {
            Origin::Delivery(place) => self.deliveries.get(place).map_or(0, Vec::len),
            Origin::Outcomes(_) => 1,
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn remove(&mut self, origin: &Origin) {
        match origin {
            Origin::Delivery(place) => {
                self.deliveries.remove(place);
            }
            Origin::Outcomes(slot) => {
                self.outcomes.remove(slot);
            }
        }
    }

    /// Half of the webhooks, for a crash between the two halves.
    fn split_half(&mut self) -> Self {
        let half = self.deliveries.keys().nth(self.deliveries.len() / 2).copied();
        let rest = half.map(|place| self.deliveries.split_off(&place)).unwrap_or_default();
        let first = std::mem::replace(&mut self.deliveries, rest);
        Self { deliveries: first, ..Self::default() }
    }
}

impl Item {
    fn record(&self) -> NewRecord {
        new_record(self.key.clone(), self.value.clone())
    }
}

impl Deliverer<'_> {
    /// Appends what follows from these decisions, in their order, and returns how
    /// many records that took. With a `snapshot` (a takeover) webhooks that it
    /// shows as deleted get outcomes instead of records.
    ///
    /// # Errors
    /// When it is stopped, or the log failed for good.
    pub(crate) async fn deliver(
        &self,
        decisions: &[v1::Decision],
        snapshot: Option<&Snapshot>,
    ) -> Result<u64, End> {
        let mut appended = 0;
        let mut from = Some((0, 0));
        while let Some(place) = from {
            let (chunk, next) = self.chunk(decisions, place);
            appended += self.append(chunk, snapshot).await?;
            from = next;
        }
        Ok(appended)
    }

    /// What follows from decisions, if it is small enough to be appended at once.
    pub(crate) fn whole(&self, decisions: &[v1::Decision]) -> Option<Chunk> {
        let (chunk, next) = self.chunk(decisions, (0, 0));
        next.is_none().then_some(chunk)
    }

    /// What follows from a target of a decision on, until it is large; then also the
    /// decision and target at which to go on.
    fn chunk(
        &self,
        decisions: &[v1::Decision],
        (first, first_target): (usize, usize),
    ) -> (Chunk, Option<(usize, usize)>) {
        let mut chunk = Chunk::default();
        let mut skipped = first_target;
        for (index, decision) in decisions.iter().enumerate().skip(first) {
            let skipped = std::mem::take(&mut skipped);
            let Some(What::Routed(routed)) = &decision.what else { continue };
            let tails: Vec<(i32, Bytes)> = routed
                .bodies
                .iter()
                .map(|body| (body.shape, delivery_tail(decision, routed, body)))
                .collect();
            let key = Bytes::copy_from_slice(routed.order_key.as_bytes());
            for (position, target) in routed.targets.iter().enumerate().skip(skipped) {
                if chunk.bytes >= self.shared.config.append_bytes {
                    return (chunk, Some((index, position)));
                }
                let Some(webhook) = WebhookId::from_slice(&target.webhook) else {
                    self.unusable(decision);
                    continue;
                };
                if target.suspended {
                    let outcome = suspended(decision, routed, target);
                    chunk.end(webhook, outcome);
                } else if let Some((_, tail)) =
                    tails.iter().find(|(shape, _)| *shape == target.shape)
                {
                    let notification = target.notification.clone();
                    let value = delivery(&notification, tail);
                    chunk.bytes += value.len() + ITEM_BYTES;
                    let place = (webhook, Lane::from(routed.lane()).partition());
                    let item = Item { key: key.clone(), value, notification };
                    chunk.deliveries.entry(place).or_default().push(item);
                } else {
                    self.unusable(decision);
                }
            }
        }
        (chunk, None)
    }

    fn unusable(&self, decision: &v1::Decision) {
        self.shared.deps.metrics.void_records.inc();
        tracing::error!(
            source = ?source_of(decision),
            trace = decision.traceparent,
            "a decision names a webhook or a body that cannot be; it was written by another release"
        );
    }

    async fn append(&self, mut chunk: Chunk, snapshot: Option<&Snapshot>) -> Result<u64, End> {
        if let Some(snapshot) = snapshot {
            chunk.cancel_deleted(snapshot, self.shared.deps.clock.now().as_millis());
        }
        let mut appended = 0;
        if self.shared.deps.failpoints.are_armed() && chunk.deliveries.len() > 1 {
            appended += self.append_all(chunk.split_half()).await?;
            self.shared.deps.failpoints.reach("router.after_some_deliveries").await;
        }
        Ok(appended + self.append_all(chunk).await?)
    }

    /// Tries until everything is acknowledged, or said of a deleted webhook.
    pub(crate) async fn append_all(&self, mut chunk: Chunk) -> Result<u64, End> {
        let mut tries = self.patience.tries();
        let mut appended = 0;
        while !chunk.is_empty() {
            let (origins, batches) = chunk.batches();
            let results = self.shared.deps.broker.append(batches).await;
            let missing = missing(&origins, &results);
            let (count, failure) = self.acknowledge(&mut chunk, &origins, results)?;
            appended += count;
            let Some(error) = failure else { break };
            self.shared.deps.metrics.failed_appends.inc();
            if tries.is_worth_a_line() {
                tracing::warn!(%error, left = chunk.deliveries.len(), "deliveries wait");
            }
            tries.again().await?;
            // Only the registry, folded to its end, says that a webhook is gone.
            if let Ok(snapshot) = self.shared.deps.registry.fold_to_end().await {
                chunk.cancel_deleted(&snapshot, self.shared.deps.clock.now().as_millis());
                for webhook in missing {
                    self.make_again(webhook, &snapshot, &tries).await;
                }
            }
        }
        Ok(appended)
    }

    /// Makes the topic of a webhook anew that the registry has and the broker has not:
    /// somebody deleted it, and everything that is routed behind its deliveries waits.
    async fn make_again(&self, webhook: WebhookId, snapshot: &Snapshot, tries: &Tries<'_>) {
        let Some(registered) = snapshot.webhooks.get(&webhook) else { return };
        let name = names::delivery(webhook);
        let spec = TopicSpec {
            name: name.clone(),
            partitions: registered.partitions,
            retention: Retention::Forever,
            erase_buckets: None,
        };
        match self.shared.deps.broker.create_topic(spec).await {
            Ok(()) => {
                self.shared.deps.metrics.remade_topics.inc();
                tracing::error!(
                    topic = %name,
                    "a webhook's topic was gone and was made again; what stood in it and had not \
                     been sent is pending for ever unless it is resent"
                );
            }
            // Not everybody knows it yet.
            Err(TopicError::Exists(_)) => {}
            Err(error) => {
                if tries.is_worth_a_line() {
                    tracing::error!(
                        topic = %name, %error,
                        "a webhook's topic is gone and cannot be made again; what is routed \
                         behind its deliveries waits until somebody makes it"
                    );
                }
            }
        }
    }

    /// Takes what is acknowledged out of the chunk. Gives the number of records, and
    /// the last error if there is one.
    ///
    /// # Errors
    /// When the log failed for good.
    pub(crate) fn acknowledge(
        &self,
        chunk: &mut Chunk,
        origins: &[Origin],
        results: Vec<Appended>,
    ) -> Result<(u64, Option<AppendError>), End> {
        let (mut appended, mut failure) = (0, None);
        for (origin, result) in origins.iter().zip(results) {
            match result {
                Ok(_) => {
                    let count = chunk.records(origin);
                    appended += count;
                    self.count(origin, count, chunk);
                    chunk.remove(origin);
                }
                Err(AppendError::Fatal(why)) => return Err(End::Fatal(why)),
                Err(error) => {
                    if matches!(error, AppendError::TooLarge { .. }) {
                        self.shared.refused_as_too_large(&origin.topic());
                    }
                    failure = Some(error);
                }
            }
        }
        Ok((appended, failure))
    }

    fn count(&self, origin: &Origin, count: u64, chunk: &Chunk) {
        let metrics = &self.shared.deps.metrics;
        match origin {
            Origin::Delivery(_) => {
                metrics.deliveries.inc_by(count);
            }
            Origin::Outcomes(slot) => {
                let ended = chunk.outcomes.get(slot).map_or(0, Vec::len);
                metrics.ended.inc_by(u64::try_from(ended).unwrap_or(u64::MAX));
            }
        }
    }
}

/// Whose topic the broker does not know.
fn missing(origins: &[Origin], results: &[Appended]) -> BTreeSet<WebhookId> {
    let failed = origins.iter().zip(results);
    failed
        .filter(|(_, result)| matches!(result, Err(AppendError::UnknownTopic(_))))
        .filter_map(|(origin, _)| match origin {
            Origin::Delivery((webhook, _)) => Some(*webhook),
            Origin::Outcomes(_) => None,
        })
        .collect()
}

fn lane(lane: Lane) -> i32 {
    v1::Lane::from(lane).into()
}

/// A notification for a suspended webhook. Its time is the decision's, so that a
/// repeat says the same.
fn suspended(
    decision: &v1::Decision,
    routed: &v1::Routed,
    target: &v1::RoutedTarget,
) -> v1::Outcome {
    v1::Outcome {
        webhook: target.webhook.clone(),
        notification: target.notification.clone(),
        run: Bytes::copy_from_slice(RunId::FIRST.as_bytes()),
        kind: v1::OutcomeKind::Undelivered.into(),
        reason: EndReason::Suspended.as_str().to_owned(),
        time: decision.time,
        lane: routed.lane,
        ..v1::Outcome::default()
    }
}

fn cancelled(webhook: WebhookId, notification: Bytes, lane: i32, time: i64) -> v1::Outcome {
    v1::Outcome {
        webhook: Bytes::copy_from_slice(webhook.as_bytes()),
        notification,
        run: Bytes::copy_from_slice(RunId::FIRST.as_bytes()),
        kind: v1::OutcomeKind::Cancelled.into(),
        reason: EndReason::Cancelled.as_str().to_owned(),
        time,
        lane,
        ..v1::Outcome::default()
    }
}

/// What is still to be appended of a batch of decisions.
pub(crate) enum Rest {
    /// Everything that follows from these.
    Of(Vec<v1::Decision>),
    Chunk(Chunk),
}

/// A batch of decisions that stand in `tidings.routed`.
pub(crate) struct Decided {
    pub(crate) rest: Rest,
    /// The records that were appended already, those of the decisions too.
    pub(crate) written: u64,
    /// The offset behind the last of them in `tidings.routed`.
    pub(crate) routed_next: u64,
    /// Up to where they decide their source partitions.
    pub(crate) positions: BTreeMap<TopicPartition, u64>,
}
