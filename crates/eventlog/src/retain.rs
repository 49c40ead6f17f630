//! Removes what is past retention, a chunk of decisions at a time: sled deletes
//! slowly, so a sweep would hold everything up.

use std::{collections::BTreeSet, sync::Arc};

use tidings_proto::{decode, v1};
use tidings_types::{EventUid, NotificationId, Timestamp, WebhookId};

use crate::{
    facts::{self, Event, Facts},
    fold,
    notification::Notification,
    overlay::Overlay,
    rows,
    store::StoreError,
    view::View,
    wire::Malformed,
};

/// Orphans that one step removes at most.
const ORPHANS: usize = 256;

/// Rows of one list's index that one step removes at most.
const INDEX_ROWS: usize = 256;

impl View {
    /// Removes the oldest chunk if all of it is past retention, else some facts
    /// that never found their decision. Says whether there is more.
    pub(crate) fn retain(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let kept = now.minus(self.limits.retention);
        let chunk = self.meta.first_chunk;
        if chunk >= self.meta.next_chunk {
            return self.retain_orphans(kept);
        }
        let store = Arc::clone(&self.store);
        let row = rows::get(&*store, &rows::facts_key(chunk))?;
        let row = row.ok_or_else(|| StoreError::damaged("a chunk is missing"))?;
        if Facts::decode(&row.value)?.latest >= kept {
            return self.retain_orphans(kept);
        }
        let mut rows = Overlay::new(&*store);
        if chunk >= self.meta.floor {
            self.leave_window_for_good(&mut rows)?;
        }
        self.remove_chunk(&mut rows, chunk, kept)?;
        self.meta.first_chunk += 1;
        self.commit(rows)?;
        self.metrics.removed_chunks.inc();
        Ok(true)
    }

    fn remove_chunk(
        &self,
        changes: &mut Overlay<'_>,
        chunk: u64,
        kept: Timestamp,
    ) -> Result<(), StoreError> {
        let mut lists = BTreeSet::new();
        let key = rows::decisions_key(chunk);
        if let Some(decisions) = changes.get(&key)? {
            for raw in facts::decisions(decisions.to_vec())? {
                let record = decode::<v1::RoutedRecord>(raw).map_err(|_undecodable| Malformed)?;
                let (_, routed) = fold::routed_of(&record).ok_or(Malformed)?;
                remove_event(changes, chunk, routed)?;
                let event_type = self.names.find_type(&routed.event_type).ok_or(Malformed)?;
                for target in &routed.targets {
                    let ids = NotificationId::from_slice(&target.notification)
                        .zip(WebhookId::from_slice(&target.webhook));
                    let Some((id, webhook)) = ids else { continue };
                    remove_notification(changes, chunk, &id)?;
                    lists.insert((webhook, event_type));
                }
            }
            changes.remove(&key)?;
        }
        changes.remove(&rows::facts_key(chunk))?;
        for (webhook, event_type) in lists {
            self.remove_index(changes, &webhook, event_type, kept)?;
        }
        Ok(())
    }

    /// Removes rows of a list's index that have nothing but what is too old.
    fn remove_index(
        &self,
        changes: &mut Overlay<'_>,
        webhook: &WebhookId,
        event_type: u32,
        kept: Timestamp,
    ) -> Result<(), StoreError> {
        let from = rows::index_from(webhook, event_type, i64::MIN);
        let below = rows::index_from(webhook, event_type, rows::bucket(kept));
        let mut old = Vec::new();
        self.store.scan(&from, &below, &mut |key, _| {
            old.push(key.to_vec());
            Ok(old.len() < INDEX_ROWS)
        })?;
        old.iter().try_for_each(|key| changes.remove(key))
    }

    fn retain_orphans(&mut self, kept: Timestamp) -> Result<bool, StoreError> {
        let old = self.orphans.iter().filter(|(_, orphan)| orphan.latest < kept);
        let old: Vec<_> = old.map(|(id, _)| *id).take(ORPHANS).collect();
        if old.is_empty() {
            return Ok(false);
        }
        let store = Arc::clone(&self.store);
        let mut rows = Overlay::new(&*store);
        for id in &old {
            self.orphans.remove(id);
            rows.remove(&rows::orphan_key(id))?;
            self.meta.orphans -= 1;
        }
        self.metrics.expired_outcomes.inc_by(old.len() as u64);
        self.commit(rows)?;
        Ok(old.len() == ORPHANS)
    }
}

/// Removes an event's row with the last chunk that it speaks of.
fn remove_event(
    changes: &mut Overlay<'_>,
    chunk: u64,
    routed: &v1::Routed,
) -> Result<(), StoreError> {
    let key = rows::event_key(&EventUid::from_slice(&routed.uid).ok_or(Malformed)?);
    let Some(row) = changes.get(&key)? else { return Ok(()) };
    let mut event = Event::decode(row)?;
    event.kept.retain(|kept| kept.chunk > chunk);
    if event.kept.is_empty() && event.home_fact.0 <= chunk {
        changes.remove(&key)
    } else {
        changes.put(&key, event.encode())
    }
}

/// Removes a notification that a decision of this chunk made.
fn remove_notification(
    changes: &mut Overlay<'_>,
    chunk: u64,
    id: &NotificationId,
) -> Result<(), StoreError> {
    let Some(known) = changes.notification(id)? else { return Ok(()) };
    let known = Notification::decode(&known)?;
    let Some(origin) = known.origin.filter(|origin| origin.chunk == chunk) else { return Ok(()) };
    if known.is_missed() {
        let missed = rows::missed_key(&origin.webhook, origin.event_type, origin.created, id);
        changes.remove(&missed)?;
    }
    changes.remove_notification(id)
}
