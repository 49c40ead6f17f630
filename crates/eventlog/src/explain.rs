//! The whole life of one event, for an operator: where it was published, what the
//! router decided, and what became of each of its notifications.

use std::collections::{BTreeMap, BTreeSet};

use tidings_types::{
    EventUid, FilterReason, NotificationId, Offset, Timestamp, TopicPartition, WebhookId,
};

use crate::{
    facts::{DecisionFact, Event, FactKind, Facts, SourceAt},
    fold,
    item::{AttemptItem, Item},
    query::Decisions,
    rows,
    store::StoreError,
    view::View,
    wire::Malformed,
};

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Event(EventUid),
    Notification(NotificationId),
    /// A source record.
    Source(TopicPartition, Offset),
}

/// What the router decided on a source record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Routed,
    /// The event had been routed from another source record.
    Duplicate,
    Filtered(FilterReason),
    Quarantined,
}

/// One source record that held the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub source: TopicPartition,
    pub offset: Offset,
    pub verdict: Verdict,
    /// Of a decision that named webhooks: when it was made, and by which version of
    /// the registry.
    pub decided: Option<(Timestamp, u64)>,
}

/// What is known of one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Life {
    /// None of what was not routed.
    pub uid: Option<EventUid>,
    pub published: Vec<Published>,
    /// Its notifications with their latest attempts, by webhook.
    pub notifications: Vec<(Item, Vec<AttemptItem>)>,
}

impl View {
    /// The life of what `subject` names; `None` if the view does not know it. Reads
    /// the facts of all decisions.
    pub(crate) fn explain(
        &self,
        subject: &Subject,
        now: Timestamp,
    ) -> Result<Option<Life>, StoreError> {
        let uid = match subject {
            Subject::Event(uid) => Some(*uid),
            Subject::Notification(id) => self.by_id(*id, now)?.map(|item| item.uid),
            Subject::Source(source, offset) => {
                let Some(number) = self.number_of(source) else { return Ok(None) };
                let at = (number, *offset);
                let found = self.facts_where(|fact| fact.source == at)?;
                let Some((_, fact)) = found.first() else { return Ok(None) };
                match fact.kind {
                    FactKind::Routed | FactKind::Duplicate => self.uid_at(fact.home)?,
                    FactKind::Filtered(_) | FactKind::Quarantined => {
                        let published = vec![self.published(fact, &BTreeMap::new())?];
                        return Ok(Some(Life { published, ..Life::default() }));
                    }
                }
            }
        };
        uid.map_or(Ok(None), |uid| self.life(uid, now))
    }

    fn life(&self, uid: EventUid, now: Timestamp) -> Result<Option<Life>, StoreError> {
        let Some(row) = rows::get(&*self.store, &rows::event_key(&uid))? else { return Ok(None) };
        let event = Event::decode(&row.value)?;
        let mut decisions = Decisions::default();
        let mut decided = BTreeMap::new();
        let mut targets = BTreeSet::new();
        for kept in &event.kept {
            let record = decisions.record(self, kept.chunk, kept.record)?;
            let (decision, routed) = fold::routed_of(&record).ok_or(Malformed)?;
            decided.insert(kept.source, (kept.created, decision.registry_version));
            for target in &routed.targets {
                let webhook = WebhookId::from_slice(&target.webhook).ok_or(Malformed)?;
                let id = NotificationId::from_slice(&target.notification).ok_or(Malformed)?;
                targets.insert((webhook, id));
            }
        }
        let facts = self.facts_where(|fact| fact.home == event.home && is_of_event(fact))?;
        let published = facts.iter().map(|(_, fact)| self.published(fact, &decided));
        let mut life = Life {
            uid: Some(uid),
            published: published.collect::<Result<_, _>>()?,
            notifications: Vec::new(),
        };
        for (webhook, id) in targets {
            let Some(item) = self.by_id(id, now)? else { continue };
            let attempts = self.attempts(webhook, id, now)?;
            life.notifications.push((item, attempts.map(|it| it.attempts).unwrap_or_default()));
        }
        Ok(Some(life))
    }

    fn published(
        &self,
        fact: &DecisionFact,
        decided: &BTreeMap<SourceAt, (Timestamp, u64)>,
    ) -> Result<Published, StoreError> {
        let named = self.names.sources().find(|(number, _)| *number == fact.source.0);
        let (_, source) = named.ok_or(Malformed)?;
        Ok(Published {
            source,
            offset: fact.source.1,
            verdict: match fact.kind {
                FactKind::Routed => Verdict::Routed,
                FactKind::Duplicate => Verdict::Duplicate,
                FactKind::Filtered(reason) => Verdict::Filtered(reason),
                FactKind::Quarantined => Verdict::Quarantined,
            },
            decided: decided.get(&fact.source).copied(),
        })
    }

    /// The event that is counted at a source record.
    fn uid_at(&self, home: SourceAt) -> Result<Option<EventUid>, StoreError> {
        let found = self.facts_where(|fact| fact.home == home && fact.record.is_some())?;
        let kept = found.iter().find_map(|(chunk, fact)| Some((*chunk, fact.record?)));
        let Some((chunk, record)) = kept else { return Ok(None) };
        let record = Decisions::default().record(self, chunk, record)?;
        let (_, routed) = fold::routed_of(&record).ok_or(Malformed)?;
        Ok(EventUid::from_slice(&routed.uid))
    }

    fn number_of(&self, source: &TopicPartition) -> Option<u32> {
        self.names.sources().find(|(_, known)| known == source).map(|(number, _)| number)
    }

    /// The facts of decisions that `wanted` picks, each with its chunk.
    fn facts_where(
        &self,
        wanted: impl Fn(&DecisionFact) -> bool,
    ) -> Result<Vec<(u64, DecisionFact)>, StoreError> {
        let mut found = Vec::new();
        self.store.scan(b"c", b"d", &mut |key, stored| {
            let row = rows::read(&*self.store, key, stored)?;
            let chunk = key.get(1..).and_then(|rest| rest.try_into().ok()).ok_or(Malformed)?;
            let facts = Facts::decode(&row.value)?.decisions.into_iter();
            let picked = facts.filter(|fact| wanted(fact));
            found.extend(picked.map(|fact| (u64::from_be_bytes(chunk), fact)));
            Ok(true)
        })?;
        Ok(found)
    }
}

fn is_of_event(fact: &DecisionFact) -> bool {
    match fact.kind {
        FactKind::Routed | FactKind::Duplicate => true,
        FactKind::Filtered(_) | FactKind::Quarantined => false,
    }
}
