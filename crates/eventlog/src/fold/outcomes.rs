//! Facts about notifications.

use tidings_proto::v1::{self, OutcomeKind, Writer};
use tidings_types::{NotificationId, RunId, Timestamp, WebhookId};

use super::Fold;
use crate::{
    batch::DecodedOutcomes,
    notification::{Fact, Folded, Notification, Place},
    rows,
    store::StoreError,
};

impl Fold<'_, '_> {
    pub(super) fn outcomes(&mut self, read: &DecodedOutcomes) -> Result<(), StoreError> {
        // A router and an api own no slot: they count as earlier than any sender.
        let took = match read.batch.writer() {
            Writer::Router | Writer::Api => None,
            Writer::Sender | Writer::Unspecified => read.batch.took,
        };
        for (index, outcome) in (1..).zip(&read.batch.outcomes) {
            self.applied.facts += 1;
            let place = Place { offset: read.offset, index };
            let ids = NotificationId::from_slice(&outcome.notification)
                .zip(WebhookId::from_slice(&outcome.webhook))
                .zip(RunId::from_slice(&outcome.run));
            let kind = OutcomeKind::try_from(outcome.kind).unwrap_or_default();
            match (ids, kind) {
                (None, _) | (_, OutcomeKind::Unspecified) => {
                    tracing::error!(offset = read.offset, "an outcome makes no sense");
                    self.view.metrics.undecodable.inc();
                }
                // Says that another record of the same run was dropped.
                (_, OutcomeKind::Duplicate) => {}
                (Some(((id, webhook), run)), _) => {
                    let fact = Fact { took, run, kind, place, outcome };
                    self.fold_fact(&id, &webhook, &fact)?;
                }
            }
        }
        Ok(())
    }

    fn fold_fact(
        &mut self,
        id: &NotificationId,
        webhook: &WebhookId,
        fact: &Fact<'_>,
    ) -> Result<(), StoreError> {
        let (mut known, new) = match self.view.waiting.get(id).copied() {
            Some(waiting) => {
                let mut known = Notification::default();
                known.set_origin(self.view.origin(&waiting)?, false);
                (known, Some(waiting))
            }
            None => match self.notification(id)? {
                Some(known) => (known, None),
                None => return self.fold_orphan(id, fact),
            },
        };
        if known.origin.is_some_and(|origin| origin.webhook != *webhook) {
            self.disagrees(fact.outcome, "its notification is of another webhook");
            return Ok(());
        }
        let was = known.origin.filter(|_| new.is_none() && known.is_missed());
        let before = new.is_none().then(|| known.clone());
        if known.fold(fact) == Folded::Disagrees {
            self.disagrees(fact.outcome, "its owner said that the run ended otherwise");
        }
        if before.as_ref() == Some(&known) {
            return Ok(());
        }
        if let Some(waiting) = new {
            self.view.waiting.remove(id);
            if let Some(chunk) = self.view.chunk_mut(waiting.chunk) {
                chunk.waiting -= 1;
            }
        }
        self.put(id, &known, was)
    }

    /// Keeps a fact whose decision has not been read.
    fn fold_orphan(&mut self, id: &NotificationId, fact: &Fact<'_>) -> Result<(), StoreError> {
        let expires = self.now.minus(self.view.limits.retention);
        if Timestamp::from_millis(fact.outcome.time) < expires {
            self.view.metrics.expired_outcomes.inc();
            return Ok(());
        }
        let key = rows::orphan_key(id);
        let in_memory = self.view.orphans.remove(id);
        let known = match in_memory {
            Some(known) => Some(known),
            None if self.view.orphans_on_disk() => {
                self.rows.get(&key)?.map(Notification::decode).transpose()?
            }
            None => None,
        };
        if known.is_none() {
            self.view.meta.orphans += 1;
        }
        let mut known = known.unwrap_or_default();
        if known.fold(fact) == Folded::Disagrees {
            self.disagrees(fact.outcome, "its owner said that the run ended otherwise");
        }
        self.rows.put(&key, known.encode())?;
        if self.view.orphans.len() < self.view.limits.orphans {
            self.view.orphans.insert(*id, known);
        }
        Ok(())
    }

    fn disagrees(&self, outcome: &v1::Outcome, why: &str) {
        self.view.metrics.disagreeing_outcomes.inc();
        let id = NotificationId::from_slice(&outcome.notification);
        tracing::warn!(notification = ?id, why, "an outcome disagrees with the log");
    }
}
