//! Opens a view: verifies what is stored, and reads the window again. What cannot
//! be trusted is set aside.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tidings_proto::{decode, v1};
use tidings_types::{EventUid, NotificationId, Timestamp, WebhookId};

use super::{ById, Chunk, Decided, Meta, Names, Producers, View, Waiting, Webhooks};
use crate::{
    facts::{self, Facts},
    fold,
    log::{Backing, Limits, OpenError},
    metrics::Metrics,
    notification::Notification,
    pack, rows,
    store::{DirLock, DiskStore, Store, StoreError},
    wire::Malformed,
};

impl From<Malformed> for StoreError {
    fn from(_: Malformed) -> Self {
        Self::damaged("a row of another format")
    }
}

impl View {
    /// Opens what is stored or, if it cannot be trusted, sets it aside and makes a
    /// new view. Says why it did.
    pub(crate) fn open(
        backing: &Backing,
        limits: &Limits,
        metrics: &Metrics,
        now: Timestamp,
    ) -> Result<(Self, Option<Arc<str>>), OpenError> {
        let mut why: Option<Arc<str>> = None;
        loop {
            let doubt = match attempt(backing, limits, metrics)? {
                ControlFlow::Break(view) => return Ok((*view, why)),
                ControlFlow::Continue(doubt) => doubt,
            };
            if why.is_some() {
                return Err(OpenError::Store(doubt.to_string().into()));
            }
            tracing::error!(error = %doubt, "the event log is set aside and rebuilt");
            metrics.set_aside.inc();
            Self::set_aside(None, backing, now)?;
            why = Some(doubt.to_string().into());
        }
    }

    /// Closes a view and moves what it stored out of the way.
    pub(crate) fn set_aside(
        view: Option<Self>,
        backing: &Backing,
        now: Timestamp,
    ) -> Result<(), OpenError> {
        // sled may break off while it closes what is damaged.
        if catch_unwind(AssertUnwindSafe(|| drop(view))).is_err() {
            tracing::warn!("the damaged event log could not be closed in order");
        }
        match backing {
            Backing::Memory(disk) => disk.wipe(),
            Backing::Disk(dir) => {
                let _lock = DirLock::take(dir)?;
                DiskStore::set_aside(dir, now)?;
            }
        }
        Ok(())
    }
}

/// Breaks with the view, or goes on with what is doubtful.
fn attempt(
    backing: &Backing,
    limits: &Limits,
    metrics: &Metrics,
) -> Result<ControlFlow<Box<View>, StoreError>, OpenError> {
    let (store, new): (Result<Arc<dyn Store>, StoreError>, bool) = match backing {
        Backing::Memory(disk) => (Ok(Arc::new(disk.clone())), disk.is_empty()),
        Backing::Disk(dir) => {
            let lock = DirLock::take(dir)?;
            let new = DiskStore::is_new(dir)?;
            let store = DiskStore::open(dir, limits.cache_bytes, lock);
            (store.map(|store| Arc::new(store) as Arc<dyn Store>), new)
        }
    };
    let loaded = store.and_then(|store| {
        catch_unwind(AssertUnwindSafe(|| load(store, new, limits, metrics)))
            .unwrap_or_else(|_panicked| Err(StoreError::damaged("the store broke off")))
    });
    Ok(match loaded {
        Ok(view) => ControlFlow::Break(Box::new(view)),
        Err(doubt) => ControlFlow::Continue(doubt),
    })
}

fn load(
    store: Arc<dyn Store>,
    new: bool,
    limits: &Limits,
    metrics: &Metrics,
) -> Result<View, StoreError> {
    let meta = match rows::get(&*store, rows::META)? {
        Some(row) => Meta::decode(&row.value)?,
        None if new => Meta::default(),
        None => return Err(StoreError::damaged("it was never written to its end")),
    };
    if store.size()? <= limits.verify_bytes {
        let (digest, _) = rows::verify(&*store, &[], usize::MAX)?;
        if digest != meta.digest {
            return Err(StoreError::damaged("rows are missing or from an earlier time"));
        }
    }
    let names = match rows::get(&*store, rows::NAMES)? {
        Some(row) => Names::decode(&row.value)?,
        None => Names::default(),
    };
    let mut view = View {
        store,
        limits: limits.clone(),
        metrics: metrics.clone(),
        meta,
        names,
        webhooks: Webhooks::default(),
        waiting: ById::default(),
        window: VecDeque::new(),
        window_notifications: 0,
        window_bytes: 0,
        tails: BTreeMap::new(),
        orphans: BTreeMap::new(),
        producers: Producers::default(),
        scrub_from: Vec::new(),
    };
    if new {
        let store = Arc::clone(&view.store);
        view.commit(crate::overlay::Overlay::new(&*store))?;
        view.flush()?;
    }
    view.load_orphans()?;
    view.load_window()?;
    Ok(view)
}

impl View {
    fn load_orphans(&mut self) -> Result<(), StoreError> {
        let (store, limit) = (Arc::clone(&self.store), self.limits.orphans);
        store.scan(b"o", b"p", &mut |key, stored| {
            let row = rows::read(&*store, key, stored)?;
            let id = key.get(1..).and_then(NotificationId::from_slice).ok_or(Malformed)?;
            self.orphans.insert(id, Notification::decode(&row.value)?);
            Ok(self.orphans.len() < limit)
        })
    }

    /// Reads the chunks of the window: what has no row of its own waits.
    fn load_window(&mut self) -> Result<(), StoreError> {
        for chunk in self.meta.floor..self.meta.next_chunk {
            let row = rows::get(&*self.store, &rows::facts_key(chunk))?;
            let row = row.ok_or_else(|| StoreError::damaged("a chunk is missing"))?;
            let facts = Facts::decode(&row.value)?;
            let decisions = match rows::get(&*self.store, &rows::decisions_key(chunk))? {
                Some(row) => row.value,
                None => Vec::new(),
            };
            let bytes = decisions.len();
            self.window.push_back(Chunk { bytes, ..Chunk::default() });
            self.window_bytes += bytes;
            let kept = facts.decisions.iter().filter(|fact| fact.record.is_some());
            for (fact, raw) in kept.zip(facts::decisions(decisions)?) {
                let record = decode::<v1::RoutedRecord>(raw).map_err(|_undecodable| Malformed)?;
                self.load_decision(chunk, fact.home, &record)?;
            }
        }
        Ok(())
    }

    fn load_decision(
        &mut self,
        chunk: u64,
        home: (u32, u64),
        record: &v1::RoutedRecord,
    ) -> Result<(), StoreError> {
        let (decision, routed) = fold::routed_of(record).ok_or(Malformed)?;
        let event_type = self.names.event_type(&routed.event_type);
        let created = Timestamp::from_millis(decision.time);
        let source = decision.source.as_ref().ok_or(Malformed)?;
        let source = (self.names.source(&source.topic, source.partition), source.offset);
        let Some(at) = self.window.back_mut() else { return Ok(()) };
        let record = u32::try_from(at.decided.len()).map_err(|_many| Malformed)?;
        at.decided.push(Decided { created, source, home, event_type });
        if let Some(uid) = EventUid::from_slice(&routed.uid) {
            fold::note_producer(&mut self.producers, routed, &uid, self.limits.producer_ids);
        }
        for target in &routed.targets {
            let ids = NotificationId::from_slice(&target.notification)
                .zip(WebhookId::from_slice(&target.webhook));
            let Some((id, webhook)) = ids else { continue };
            let webhook = self.webhooks.number(webhook);
            fold::add_tail(&mut self.tails, (webhook, event_type), chunk, (created, id));
            self.window_notifications += 1;
            if let Some(at) = self.window.back_mut() {
                at.notifications += 1;
            }
            if pack::get(&*self.store, &id)?.is_none() {
                self.load_waiting(id, Waiting { chunk, record, webhook });
            }
        }
        Ok(())
    }

    /// Of two decisions that name a notification the earlier one counts.
    fn load_waiting(&mut self, id: NotificationId, waiting: Waiting) {
        if let Some(other) = self.waiting.get(&id).copied() {
            if self.rank_of(&other) <= self.rank_of(&waiting) {
                return;
            }
            if let Some(chunk) = self.chunk_mut(other.chunk) {
                chunk.waiting -= 1;
            }
        }
        self.waiting.insert(id, waiting);
        if let Some(chunk) = self.chunk_mut(waiting.chunk) {
            chunk.waiting += 1;
        }
    }
}
