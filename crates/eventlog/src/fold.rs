//! Folds batches into rows. Pure but for the rows that it looks up: the same
//! records, however they are cut into batches and whichever topic comes first,
//! give the same view.

mod again;
mod outcomes;
mod routed;
mod window;

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use tidings_proto::v1;
use tidings_types::{EventUid, NotificationId, Timestamp};

use crate::{
    batch::{Decoded, ReadUpTo},
    facts::{self, Facts},
    notification::{Notification, Origin},
    overlay::Overlay,
    rows,
    store::StoreError,
    view::{Applied, Chunk, Decided, Producers, Tail, View},
};

/// A chunk is closed once it holds this many bytes of decisions, or this many
/// decisions. sled keeps leaves of nine to seventeen rows, and lets go of one only
/// after 64 more accesses to its 256th of the pages, whatever the size of its
/// cache: chunks of 16 KiB cost 200 MiB so, these cost half of it.
const CHUNK_BYTES: usize = 8 << 10;
const CHUNK_DECISIONS: usize = 1_024;

/// The chunk that is being filled. It ends with the batch at the latest.
#[derive(Debug, Default)]
struct Building {
    facts: Facts,
    decisions: Vec<u8>,
    chunk: Chunk,
}

/// One batch on its way into the view.
#[derive(Debug)]
struct Fold<'a, 's> {
    view: &'a mut View,
    rows: &'a mut Overlay<'s>,
    building: Building,
    now: Timestamp,
    applied: Applied,
}

impl View {
    /// Folds a batch and writes what it changed.
    pub(crate) fn apply(&mut self, batch: Decoded, now: Timestamp) -> Result<Applied, StoreError> {
        let store = Arc::clone(&self.store);
        let mut rows = Overlay::new(&*store);
        self.metrics.undecodable.inc_by(batch.undecodable);
        let mut fold = Fold {
            view: self,
            rows: &mut rows,
            building: Building::default(),
            now,
            applied: Applied::default(),
        };
        for record in batch.routed {
            fold.routed(record)?;
        }
        fold.close_chunk();
        for record in &batch.outcomes {
            fold.outcomes(record)?;
        }
        fold.narrow_window()?;
        let mut applied = fold.applied;
        for read in batch.positions {
            self.note(&read);
        }
        applied.rows = self.commit(rows)?;
        self.metrics.notifications.inc_by(applied.notifications);
        self.metrics.facts.inc_by(applied.facts);
        Ok(applied)
    }
}

impl View {
    /// Notes how far a partition was read, and what was missing on the way.
    fn note(&mut self, read: &ReadUpTo) {
        let ReadUpTo { source, partition, next, .. } = *read;
        let missing = read.missing(self.meta.positions.of(source, partition));
        if missing > 0 {
            let topic = source.topic();
            tracing::error!(topic, partition, next, missing, "records are missing in a topic");
            *self.meta.missing.entry((source, partition)).or_default() += missing;
        }
        self.meta.positions.set(source, partition, next);
    }

    /// Lets the oldest chunk leave the window because it will be removed.
    pub(crate) fn leave_window_for_good(
        &mut self,
        rows: &mut Overlay<'_>,
    ) -> Result<(), StoreError> {
        let mut fold = Fold {
            view: self,
            rows,
            building: Building::default(),
            now: Timestamp::ZERO,
            applied: Applied::default(),
        };
        fold.leave_window()?;
        fold.write_tails()
    }
}

impl Fold<'_, '_> {
    /// The number of the chunk that is being filled.
    fn chunk(&self) -> u64 {
        self.view.meta.next_chunk
    }

    /// Puts the chunk away that is being filled, if there is anything in it.
    fn close_chunk(&mut self) {
        let Building { facts, decisions, mut chunk } = std::mem::take(&mut self.building);
        if facts.decisions.is_empty() {
            return;
        }
        let number = self.chunk();
        self.rows.put_new(rows::facts_key(number), facts.encode());
        chunk.bytes = decisions.len();
        if !decisions.is_empty() {
            self.rows.put_new(rows::decisions_key(number), decisions);
        }
        self.view.window_bytes += chunk.bytes;
        self.view.window_notifications += chunk.notifications;
        self.view.window.push_back(chunk);
        self.view.meta.next_chunk += 1;
    }

    /// Keeps a decision in the chunk that is being filled; gives its place there.
    fn keep(&mut self, raw: &[u8], decided: Decided) -> u32 {
        facts::put_decision(&mut self.building.decisions, raw);
        self.building.chunk.decided.push(decided);
        u32::try_from(self.building.chunk.decided.len() - 1).unwrap_or(u32::MAX)
    }

    fn notification(&mut self, id: &NotificationId) -> Result<Option<Notification>, StoreError> {
        let known = self.rows.notification(id)?;
        Ok(known.as_deref().map(Notification::decode).transpose()?)
    }

    /// Writes what is known of a notification, and puts it into the list of
    /// undelivered ones or takes it out. `was` says whether and where it was in.
    fn put(
        &mut self,
        id: &NotificationId,
        known: &Notification,
        was: Option<Origin>,
    ) -> Result<(), StoreError> {
        self.rows.put_notification(id, known.encode())?;
        let is = known.origin.filter(|_| known.is_missed());
        let key = |origin: &Origin| {
            rows::missed_key(&origin.webhook, origin.event_type, origin.created, id)
        };
        let (was, is) = (was.as_ref().map(key), is.as_ref().map(key));
        if was != is {
            if let Some(was) = was {
                self.rows.remove(&was)?;
            }
            if let Some(is) = is {
                self.rows.put(&is, Vec::new())?;
            }
        }
        Ok(())
    }
}

/// The decision of a record, if it routed something.
pub(crate) fn routed_of(record: &v1::RoutedRecord) -> Option<(&v1::Decision, &v1::Routed)> {
    let Some(v1::routed_record::Kind::Decision(decision)) = &record.kind else { return None };
    match &decision.what {
        Some(v1::decision::What::Routed(routed)) => Some((decision, routed)),
        Some(v1::decision::What::Filtered(_) | v1::decision::What::Quarantined(_)) | None => None,
    }
}

/// Remembers a producer's id; says whether it came with another event before.
pub(crate) fn note_producer(
    producers: &mut Producers,
    routed: &v1::Routed,
    uid: &EventUid,
    limit: usize,
) -> bool {
    if routed.producer_id.is_empty() {
        return false;
    }
    let mut hasher = DefaultHasher::new();
    (&routed.tenant, &routed.event_type, &routed.producer_id).hash(&mut hasher);
    let (event, _) = uid.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
    producers.reused(hasher.finish(), u64::from_le_bytes(*event), limit)
}

/// Adds an entry of a list's index that has no row yet.
pub(crate) fn add_tail(
    tails: &mut BTreeMap<(u32, u32), Tail>,
    key: (u32, u32),
    chunk: u64,
    entry: (Timestamp, NotificationId),
) -> usize {
    let tail = tails.entry(key).or_insert_with(|| Tail { oldest: chunk, entries: Vec::new() });
    tail.entries.push(entry);
    tail.entries.len()
}
