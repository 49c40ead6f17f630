//! What the registry says of webhooks, and what it is told.

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt as _;
use tidings_delivery::{Proposal, Standing, Suspended};
use tidings_types::Slot;

use super::{Running, tick::Chore};
use crate::{records, table::RowKey, webhook::Webhook};

impl Running {
    /// Takes over what has changed of the webhooks since the last look. Comes before each
    /// attempt too: one that starts after a client was told of a change follows it.
    pub(super) fn look_at_registry(&mut self) {
        let version = self.deps.webhooks.version();
        if self.registry_seen == version {
            return;
        }
        self.registry_seen = version;
        self.look_at_pauses();
        let slots: Vec<Slot> = self.table.owners.keys().copied().collect();
        for slot in slots {
            self.compare(slot);
        }
    }

    /// Takes over which event types operators have stopped.
    pub(super) fn look_at_pauses(&mut self) {
        let paused = self.deps.webhooks.paused_types();
        let paused = paused.iter().map(|name| records::kind_hash(name)).collect();
        if self.process.paused == paused {
            return;
        }
        self.process.paused = paused;
        for key in self.table.keys() {
            if let Some(row) = self.table.get_mut(key) {
                row.hook.pauses_changed(&self.process);
            }
            self.table.make_ready(key);
            self.settle(key);
        }
    }

    /// Compares the webhooks of a slot with what the registry has.
    fn compare(&mut self, slot: Slot) {
        let webhooks = self.deps.webhooks.in_slot(slot);
        let mut gone: std::collections::BTreeSet<RowKey> =
            self.table.owners.get(&slot).map(|owner| owner.rows.clone()).unwrap_or_default();
        for webhook in webhooks {
            match self.table.by_id(webhook.id) {
                Some(key) => {
                    gone.remove(&key);
                    self.update(key, webhook);
                }
                None => {
                    // A new webhook costs no rebalance: its slot is ours already.
                    let key = self.add_row(slot, webhook, &BTreeMap::new());
                    self.table.make_ready(key);
                    self.settle(key);
                }
            }
        }
        for key in gone {
            self.drop_row(key);
        }
    }

    fn update(&mut self, key: RowKey, webhook: Arc<Webhook>) {
        let Some(row) = self.table.get(key) else { return };
        if Arc::ptr_eq(&row.webhook, &webhook) {
            return;
        }
        let url = |of: &Webhook| of.target.as_ref().ok().map(|target| target.as_str().to_owned());
        if url(&row.webhook) != url(&webhook) {
            // Nobody has looked for this endpoint yet.
            self.forget_way(&webhook);
        }
        let Some(row) = self.table.get(key) else { return };
        if row.webhook.identity != webhook.identity {
            self.deps.attempts.forget(webhook.id);
            if let Some(row) = self.table.get_mut(key) {
                row.hook.certificate_changed();
            }
        }
        self.apply(key, webhook);
    }

    /// From now on a row is as its webhook and our own faults want it.
    pub(super) fn apply(&mut self, key: RowKey, webhook: Arc<Webhook>) {
        let now = self.now();
        let is_lost = self.own_fault.holds(webhook.id);
        let Some(row) = self.table.get_mut(key) else { return };
        let rules = webhook.rules(&self.config.ladders);
        let waited = row.hook.gate().standing().waits();
        row.hook.set(webhook.standing, rules, now, &mut self.process);
        row.hook.stand_still(is_lost, now);
        for partition in 0..webhook.partitions.clamp(1, 2) {
            row.hook.add_partition(partition, 0);
        }
        // What was read ahead has no order keys, or needs none.
        let reorders = row.webhook.ordering != webhook.ordering;
        // It is read on from elsewhere: to be taken up, or only for deadlines.
        let turns = waited != row.hook.gate().standing().waits();
        if let Some(suspended) = &webhook.suspended {
            row.hook.suspended(suspended);
        }
        row.webhook = webhook;
        if reorders || turns {
            for partition in [0, 1] {
                self.readers.unassign(&row.partition(partition));
                row.hook.drop_ahead(partition, &mut self.process);
            }
            row.reading = Default::default();
        }
        self.table.make_ready(key);
        self.settle(key);
        self.look_for_notices(key);
        self.look_at_certificate(key);
    }

    /// Proposes what a webhook's answers call for.
    pub(super) fn propose(&mut self, key: RowKey) {
        let now = self.now();
        let Some(row) = self.table.get_mut(key) else { return };
        let Some(proposal) = row.hook.take_proposal() else { return };
        if row.is_telling || row.webhook.standing != Standing::Active {
            return;
        }
        row.is_telling = true;
        let reason = match proposal {
            Proposal::SuspendFailing => "failing",
            Proposal::SuspendGone => "gone",
        };
        tracing::warn!(webhook = %row.webhook.id, reason, "a webhook is to be suspended");
        let (since, code) = row.hook.failing();
        let (id, version) = (row.webhook.id, row.webhook.version);
        let since = since.unwrap_or(now);
        let why = Suspended { at: now, since, code, reason: reason.to_owned() };
        let told = self.deps.webhooks.suspend(id, version, why);
        self.chores.push(Box::pin(told.map(move |result| {
            if let Err(error) = result {
                tracing::warn!(%error, "a webhook could not be suspended; its next failure proposes it again");
            }
            Chore::Told(key)
        })));
    }

    /// Looks whether a deleted webhook's topic can go: a day has passed, and the
    /// position is the topic's end.
    pub(super) fn look_at_deleted(&mut self, key: RowKey) {
        let now = self.now();
        let Some(row) = self.table.get_mut(key) else { return };
        let is_due = row.webhook.standing == Standing::Deleted
            && !row.is_telling
            && row.webhook.deleted.is_none_or(|at| now.since(at) >= self.config.keep_deleted)
            && row.hook.is_settled();
        if !is_due {
            return;
        }
        row.is_telling = true;
        let positions: Vec<_> = row
            .hook
            .partitions()
            .filter_map(|partition| {
                Some((row.partition(partition), row.hook.read_from(partition)?))
            })
            .collect();
        let (topic, id, version) = (row.topic.clone(), row.webhook.id, row.webhook.version);
        let (broker, webhooks) = (self.deps.broker.clone(), Arc::clone(&self.deps.webhooks));
        self.chores.push(Box::pin(async move {
            for (of, position) in positions {
                match broker.ends(&of).await {
                    Ok(ends) if ends.end <= position => {}
                    Err(tidings_broker::ReadError::UnknownPartition(_)) => {}
                    Ok(_) | Err(_) => return Chore::Told(key),
                }
            }
            match broker.delete_topic(&topic).await {
                Ok(()) | Err(tidings_broker::TopicError::Unknown(_)) => {}
                Err(error) => {
                    tracing::warn!(%topic, %error, "a deleted webhook's topic could not be deleted; trying again later");
                    return Chore::Told(key);
                }
            }
            if let Err(error) = webhooks.topic_deleted(id, version).await {
                tracing::warn!(%topic, %error, "the registry could not be told that a topic is gone; trying again later");
            }
            Chore::Told(key)
        }));
    }
}
