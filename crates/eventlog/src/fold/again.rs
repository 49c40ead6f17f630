//! An event that was routed before: published twice, in one partition or two.
//!
//! There is one row per event, with the webhooks of all its decisions, counted at
//! its lowest source record (design §3, I11). Each notification is that of the
//! earliest decision that names it. Partitions are read in any order, so both may
//! turn out to lie elsewhere than thought; then what was written is moved.

use std::collections::BTreeMap;

use tidings_proto::{decode, v1};
use tidings_types::NotificationId;

use super::{
    Fold,
    routed::{Routed, Target, decided, targets},
    routed_of,
};
use crate::{
    facts::{self, DecisionFact, Event, FactKind, Facts, Kept},
    rows,
    store::StoreError,
    wire::Malformed,
};

impl Fold<'_, '_> {
    pub(super) fn again(
        &mut self,
        routed: &Routed<'_>,
        mut event: Event,
    ) -> Result<(), StoreError> {
        let source = routed.source;
        if event.home == source || event.kept.iter().any(|kept| kept.source == source) {
            self.view.metrics.repeated_decisions.inc();
            return Ok(());
        }
        self.view.metrics.duplicate_events.inc();
        let known = self.known(&event)?;
        let earlier = |kept: &Kept| {
            self.view.rank(routed.created, source) < self.view.rank(kept.created, kept.source)
        };
        let (mut fresh, mut moved, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for target in &routed.targets {
            match known.get(&target.notification) {
                None => fresh.push(*target),
                Some(kept) if earlier(kept) => moved.push(*target),
                Some(_) => later.push(*target),
            }
        }
        let keep = !fresh.is_empty() || !moved.is_empty();
        let lower = self.view.names.rank(source) < self.view.names.rank(event.home);
        let home = if lower { source } else { event.home };
        let chunk = self.chunk();
        let record = keep.then(|| self.keep(routed.raw, decided(routed, home)));
        let added = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        let fact = self.fact(DecisionFact {
            source,
            skipped: routed.skipped,
            kind: if lower { FactKind::Routed } else { FactKind::Duplicate },
            notifications: 0,
            record,
            home,
        });
        if lower {
            let before = self.change_fact(event.home_fact, |fact| {
                fact.kind = FactKind::Duplicate;
                std::mem::take(&mut fact.notifications)
            })?;
            let sum = before.unwrap_or(0).saturating_add(added);
            self.change_fact((chunk, fact), |fact| fact.notifications = sum)?;
            self.move_home(&event, &known, source)?;
            (event.home, event.home_fact) = (source, (chunk, fact));
        } else if added > 0 {
            self.change_fact(event.home_fact, |fact| {
                fact.notifications = fact.notifications.saturating_add(added);
            })?;
        }
        if let Some(record) = record {
            for target in &moved {
                self.move_origin(routed, target, record, home)?;
            }
            for target in &fresh {
                self.target(routed, target, record, home)?;
            }
            event.kept.push(Kept { chunk, record, fact, created: routed.created, source });
        }
        for target in later.iter().filter(|target| !target.suspended) {
            self.queued_after_all(&target.notification)?;
        }
        self.rows.put(&rows::event_key(&routed.uid), event.encode())
    }

    /// A later decision found the webhook active that an earlier one found
    /// suspended: there is a delivery record.
    fn queued_after_all(&mut self, id: &NotificationId) -> Result<(), StoreError> {
        if self.view.waiting.contains_key(id) {
            return Ok(());
        }
        let Some(mut known) = self.notification(id)?.filter(|known| known.suspended) else {
            return Ok(());
        };
        let was = known.origin.filter(|_| known.is_missed());
        known.suspended = false;
        self.put(id, &known, was)
    }

    /// The notifications of an event, each with the decision that made it.
    fn known(&mut self, event: &Event) -> Result<BTreeMap<NotificationId, Kept>, StoreError> {
        let mut known: BTreeMap<NotificationId, Kept> = BTreeMap::new();
        for kept in &event.kept {
            for target in self.kept_targets(kept)? {
                let made = known.entry(target.notification).or_insert(*kept);
                let rank = |kept: &Kept| self.view.rank(kept.created, kept.source);
                if rank(kept) < rank(made) {
                    *made = *kept;
                }
            }
        }
        Ok(known)
    }

    /// The webhooks that a kept decision names. None once retention has removed it.
    fn kept_targets(&mut self, kept: &Kept) -> Result<Vec<Target>, StoreError> {
        let decisions = if kept.chunk == self.chunk() {
            self.building.decisions.clone()
        } else {
            match self.rows.get(&rows::decisions_key(kept.chunk))? {
                Some(row) => row.to_vec(),
                None => return Ok(Vec::new()),
            }
        };
        let at = usize::try_from(kept.record).map_err(|_large| Malformed)?;
        let raw = facts::decisions(decisions)?.into_iter().nth(at).ok_or(Malformed)?;
        let record = decode::<v1::RoutedRecord>(raw).map_err(|_undecodable| Malformed)?;
        let (_, routed) = routed_of(&record).ok_or(Malformed)?;
        Ok(targets(routed).ok_or(Malformed)?)
    }

    /// Changes one fact, here or in its row. None once retention has removed it.
    fn change_fact<T>(
        &mut self,
        (chunk, fact): (u64, u32),
        change: impl FnOnce(&mut DecisionFact) -> T,
    ) -> Result<Option<T>, StoreError> {
        let at = usize::try_from(fact).map_err(|_large| Malformed)?;
        if chunk == self.chunk() {
            return Ok(self.building.facts.decisions.get_mut(at).map(change));
        }
        let key = rows::facts_key(chunk);
        let Some(row) = self.rows.get(&key)? else { return Ok(None) };
        let mut facts = Facts::decode(row)?;
        let changed = facts.decisions.get_mut(at).map(change).ok_or(Malformed)?;
        self.rows.put(&key, facts.encode())?;
        Ok(Some(changed))
    }

    /// Counts an event at another source record.
    fn move_home(
        &mut self,
        event: &Event,
        known: &BTreeMap<NotificationId, Kept>,
        home: (u32, u64),
    ) -> Result<(), StoreError> {
        for kept in &event.kept {
            self.change_fact((kept.chunk, kept.fact), |fact| fact.home = home)?;
            let chunk = if kept.chunk == self.chunk() {
                Some(&mut self.building.chunk)
            } else {
                self.view.chunk_mut(kept.chunk)
            };
            let at = usize::try_from(kept.record).map_err(|_large| Malformed)?;
            if let Some(decided) = chunk.and_then(|chunk| chunk.decided.get_mut(at)) {
                decided.home = home;
            }
        }
        for id in known.keys() {
            if self.view.waiting.contains_key(id) {
                continue;
            }
            let Some(mut notification) = self.notification(id)? else { continue };
            if let Some(origin) = &mut notification.origin {
                origin.home = home;
            }
            self.rows.put_notification(id, notification.encode())?;
        }
        Ok(())
    }

    /// Makes an earlier decision that of a notification.
    fn move_origin(
        &mut self,
        routed: &Routed<'_>,
        target: &Target,
        record: u32,
        home: (u32, u64),
    ) -> Result<(), StoreError> {
        let id = target.notification;
        self.index(routed, target)?;
        if let Some(waiting) = self.view.waiting.get(&id).copied() {
            let here = self.chunk();
            let chunk = if waiting.chunk == here {
                Some(&mut self.building.chunk)
            } else {
                self.view.chunk_mut(waiting.chunk)
            };
            if let Some(chunk) = chunk {
                chunk.waiting -= 1;
            }
            self.wait(target, record);
            return Ok(());
        }
        let Some(mut known) = self.notification(&id)? else { return Ok(()) };
        let was = known.origin.filter(|_| known.is_missed());
        let suspended = known.suspended && target.suspended;
        known.set_origin(self.origin(routed, target, record, home), suspended);
        self.put(&id, &known, was)
    }
}
