//! Decisions: who they are void for, and what they make.

use std::collections::BTreeSet;

use tidings_proto::v1::{self, decision::What, routed_record::Kind};
use tidings_types::{EventUid, FilterReason, NotificationId, Timestamp, WebhookId};

use super::{CHUNK_BYTES, CHUNK_DECISIONS, Fold, add_tail, note_producer};
use crate::{
    batch::DecodedRouted,
    facts::{DecisionFact, Event, FactKind, Kept, SourceAt},
    notification::{Notification, Origin},
    rows,
    store::StoreError,
    view::{Decided, Waiting},
};

/// One webhook that a decision names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) notification: NotificationId,
    pub(super) webhook: WebhookId,
    pub(super) suspended: bool,
}

/// A decision that routed an event, checked.
#[derive(Debug)]
pub(super) struct Routed<'a> {
    pub(super) raw: &'a [u8],
    pub(super) uid: EventUid,
    pub(super) event_type: u32,
    pub(super) created: Timestamp,
    pub(super) source: SourceAt,
    pub(super) skipped: u64,
    pub(super) targets: Vec<Target>,
}

impl Fold<'_, '_> {
    /// A decision whose owner is earlier than one that a record before it names
    /// is void: the later owner decides anew what it had not read (design §5).
    pub(super) fn routed(&mut self, read: DecodedRouted) -> Result<(), StoreError> {
        let DecodedRouted { partition, offset, raw, record } = read;
        let fence = self.view.meta.tooks.entry(partition).or_default();
        match record.kind {
            Some(Kind::TookOver(_)) => *fence = (*fence).max(offset),
            Some(Kind::Decision(_)) if record.took < *fence => {
                self.view.metrics.void_decisions.inc();
            }
            Some(Kind::Decision(decision)) => {
                *fence = record.took;
                if self.decision(&raw, &decision)?.is_none() {
                    tracing::error!(partition, offset, "a decision makes no sense and is left out");
                    self.view.metrics.undecodable.inc();
                }
                let full = self.building.decisions.len() >= CHUNK_BYTES
                    || self.building.facts.decisions.len() >= CHUNK_DECISIONS;
                if full {
                    self.close_chunk();
                }
            }
            None => {
                tracing::error!(partition, offset, "a record says nothing and is left out");
                self.view.metrics.undecodable.inc();
            }
        }
        Ok(())
    }

    /// None if the record cannot be understood.
    fn decision(&mut self, raw: &[u8], decision: &v1::Decision) -> Result<Option<()>, StoreError> {
        let Some(at) = &decision.source else { return Ok(None) };
        let source = (self.view.names.source(&at.topic, at.partition), at.offset);
        let created = Timestamp::from_millis(decision.time);
        let skipped = decision.skipped;
        let latest = &mut self.building.facts.latest;
        *latest = created.max(*latest);
        let kind = match &decision.what {
            Some(What::Filtered(filtered)) => {
                let Some(reason) = FilterReason::from_name(&filtered.reason) else {
                    return Ok(None);
                };
                FactKind::Filtered(reason)
            }
            Some(What::Quarantined(_)) => FactKind::Quarantined,
            Some(What::Routed(routed)) => {
                let Some(uid) = EventUid::from_slice(&routed.uid) else { return Ok(None) };
                let Some(targets) = targets(routed) else { return Ok(None) };
                let limit = self.view.limits.producer_ids;
                if note_producer(&mut self.view.producers, routed, &uid, limit) {
                    self.view.metrics.reused_ids.inc();
                }
                let event_type = self.view.names.event_type(&routed.event_type);
                let routed = Routed { raw, uid, event_type, created, source, skipped, targets };
                return self.event(&routed).map(Some);
            }
            None => return Ok(None),
        };
        self.fact(DecisionFact {
            source,
            skipped,
            kind,
            notifications: 0,
            record: None,
            home: source,
        });
        Ok(Some(()))
    }

    /// Adds a fact to the chunk that is being filled; gives its place there.
    pub(super) fn fact(&mut self, fact: DecisionFact) -> u32 {
        let facts = &mut self.building.facts.decisions;
        facts.push(fact);
        u32::try_from(facts.len() - 1).unwrap_or(u32::MAX)
    }

    fn event(&mut self, routed: &Routed<'_>) -> Result<(), StoreError> {
        let key = rows::event_key(&routed.uid);
        if let Some(event) = self.rows.get(&key)? {
            let event = Event::decode(event)?;
            return self.again(routed, event);
        }
        let (source, chunk) = (routed.source, self.chunk());
        let record = self.keep(routed.raw, decided(routed, source));
        let notifications = u32::try_from(routed.targets.len()).unwrap_or(u32::MAX);
        let fact = self.fact(DecisionFact {
            source,
            skipped: routed.skipped,
            kind: FactKind::Routed,
            notifications,
            record: Some(record),
            home: source,
        });
        let kept = Kept { chunk, record, fact, created: routed.created, source };
        let event = Event { home: source, home_fact: (chunk, fact), kept: vec![kept] };
        self.rows.put(&key, event.encode())?;
        for target in &routed.targets {
            self.target(routed, target, record, source)?;
        }
        Ok(())
    }

    /// A notification that no earlier decision named.
    pub(super) fn target(
        &mut self,
        routed: &Routed<'_>,
        target: &Target,
        record: u32,
        home: SourceAt,
    ) -> Result<(), StoreError> {
        self.applied.notifications += 1;
        let id = target.notification;
        self.index(routed, target)?;
        let orphan = self.take_orphan(&id)?;
        if orphan.is_none() && !target.suspended {
            self.wait(target, record);
            return Ok(());
        }
        let mut known: Notification = orphan.unwrap_or_default();
        known.set_origin(self.origin(routed, target, record, home), target.suspended);
        self.put(&id, &known, None)
    }

    /// Puts a notification into the list of its webhook and type.
    pub(super) fn index(&mut self, routed: &Routed<'_>, target: &Target) -> Result<(), StoreError> {
        let webhook = self.view.webhooks.number(target.webhook);
        let (key, chunk) = ((webhook, routed.event_type), self.chunk());
        let entry = (routed.created, target.notification);
        self.building.chunk.notifications += 1;
        let entries = add_tail(&mut self.view.tails, key, chunk, entry);
        if entries >= super::window::TAIL_ENTRIES {
            self.write_tail(key)?;
        }
        Ok(())
    }

    /// Lets a notification of the chunk that is being filled wait.
    pub(super) fn wait(&mut self, target: &Target, record: u32) {
        let webhook = self.view.webhooks.number(target.webhook);
        let waiting = Waiting { chunk: self.chunk(), record, webhook };
        self.view.waiting.insert(target.notification, waiting);
        self.building.chunk.waiting += 1;
    }

    pub(super) fn origin(
        &self,
        routed: &Routed<'_>,
        target: &Target,
        record: u32,
        home: SourceAt,
    ) -> Origin {
        Origin {
            chunk: self.chunk(),
            record,
            webhook: target.webhook,
            event_type: routed.event_type,
            created: routed.created,
            home,
        }
    }

    /// Takes what was said of a notification before its decision was read.
    fn take_orphan(&mut self, id: &NotificationId) -> Result<Option<Notification>, StoreError> {
        let key = rows::orphan_key(id);
        let orphan = match self.view.orphans.remove(id) {
            Some(orphan) => orphan,
            None if self.view.orphans_on_disk() => match self.rows.get(&key)? {
                Some(row) => Notification::decode(row)?,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        self.rows.remove(&key)?;
        self.view.meta.orphans -= 1;
        Ok(Some(orphan))
    }
}

pub(super) fn decided(routed: &Routed<'_>, home: SourceAt) -> Decided {
    let Routed { created, source, event_type, .. } = *routed;
    Decided { created, source, home, event_type }
}

/// The webhooks that a decision names, each once. None if one has no proper id.
pub(super) fn targets(routed: &v1::Routed) -> Option<Vec<Target>> {
    let mut seen = BTreeSet::new();
    let mut targets = Vec::with_capacity(routed.targets.len());
    for target in &routed.targets {
        let target = Target {
            notification: NotificationId::from_slice(&target.notification)?,
            webhook: WebhookId::from_slice(&target.webhook)?,
            suspended: target.suspended,
        };
        if seen.insert(target.notification) {
            targets.push(target);
        }
    }
    Some(targets)
}
