//! The view: its rows, and what stands in memory beside them.

mod meta;
mod names;
mod open;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use tidings_types::{NotificationId, Timestamp, WebhookId};

pub(crate) use self::{meta::Meta, names::Names};
use crate::{
    batch::Positions,
    facts::SourceAt,
    log::Limits,
    metrics::Metrics,
    notification::{Notification, Origin},
    overlay::Overlay,
    rows,
    store::{Store, StoreError},
};

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows written.
    pub rows: u64,
    /// Notifications that decisions named.
    pub notifications: u64,
    /// Facts folded.
    pub facts: u64,
}

/// Ids are the output of an HMAC: their second half is as good as a hash (the first is
/// the same for all of an event). A client that sends made-up ids is only looked up,
/// never put in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some((_, half)) = bytes.split_last_chunk() {
            // The fixed bits of a UUID, at the start of this half, stay out of the low
            // ones, by which a table is laid out.
            self.0 ^= u64::from_be_bytes(*half);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

pub(crate) type ById<V> = HashMap<NotificationId, V, BuildHasherDefault<IdHasher>>;

/// A notification of which nothing is known but that it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) chunk: u64,
    pub(crate) record: u32,
    /// Its number in [`Webhooks`].
    pub(crate) webhook: u32,
}

/// A decision in the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) created: Timestamp,
    pub(crate) source: SourceAt,
    pub(crate) home: SourceAt,
    pub(crate) event_type: u32,
}

/// A chunk in the window.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) decided: Vec<Decided>,
    /// How many of its notifications are in `waiting`.
    pub(crate) waiting: usize,
    pub(crate) notifications: usize,
    pub(crate) bytes: usize,
}

/// Entries of a list's index that have no row yet.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The earliest chunk that one of them comes from.
    pub(crate) oldest: u64,
    pub(crate) entries: Vec<(Timestamp, NotificationId)>,
}

/// Numbers for the webhooks seen since the start, to keep memory small.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    ids: Vec<WebhookId>,
    at: HashMap<WebhookId, u32>,
}

impl Webhooks {
    pub(crate) fn number(&mut self, id: WebhookId) -> u32 {
        *self.at.entry(id).or_insert_with(|| {
            self.ids.push(id);
            u32::try_from(self.ids.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(crate) fn find(&self, id: &WebhookId) -> Option<u32> {
        self.at.get(id).copied()
    }

    pub(crate) fn get(&self, number: u32) -> Option<WebhookId> {
        self.ids.get(usize::try_from(number).ok()?).copied()
    }
}

/// Producer ids seen lately, to notice one that comes again with other content.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    /// From a hash of tenant, type and id to the first bytes of the event's uid.
    seen: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl Producers {
    /// Says whether the id was seen with another event.
    pub(crate) fn reused(&mut self, id: u64, event: u64, limit: usize) -> bool {
        match self.seen.get(&id) {
            Some(other) => *other != event,
            None => {
                self.seen.insert(id, event);
                self.order.push_back(id);
                if self.order.len() > limit
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.seen.remove(&oldest);
                }
                false
            }
        }
    }
}

/// See [`View::rank`].
pub(crate) type Rank<'a> = (Timestamp, (Option<(&'a str, u32)>, u64));

/// The view behind the lock of `log`.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) meta: Meta,
    pub(crate) names: Names,
    pub(crate) webhooks: Webhooks,
    pub(crate) waiting: ById<Waiting>,
    /// The chunks from `meta.floor` on.
    pub(crate) window: VecDeque<Chunk>,
    pub(crate) window_notifications: usize,
    pub(crate) window_bytes: usize,
    /// By number of webhook and of event type.
    pub(crate) tails: BTreeMap<(u32, u32), Tail>,
    /// Facts without a decision; those beyond the limit have rows only.
    pub(crate) orphans: BTreeMap<NotificationId, Notification>,
    pub(crate) producers: Producers,
    /// Where the next scrub begins.
    pub(crate) scrub_from: Vec<u8>,
}

/// Rows that one scrub verifies.
const SCRUB_ROWS: usize = 2_000;

impl View {
    pub(crate) fn positions(&self) -> &Positions {
        &self.meta.positions
    }

    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }

    pub(crate) fn scrub(&mut self) -> Result<(), StoreError> {
        let (_, next) = rows::verify(&*self.store, &self.scrub_from, SCRUB_ROWS)?;
        self.scrub_from = next.unwrap_or_default();
        Ok(())
    }

    /// A chunk of the window.
    pub(crate) fn chunk(&self, chunk: u64) -> Option<&Chunk> {
        self.window.get(usize::try_from(chunk.checked_sub(self.meta.floor)?).ok()?)
    }

    pub(crate) fn chunk_mut(&mut self, chunk: u64) -> Option<&mut Chunk> {
        self.window.get_mut(usize::try_from(chunk.checked_sub(self.meta.floor)?).ok()?)
    }

    /// Where a notification comes from that waits.
    pub(crate) fn origin(&self, waiting: &Waiting) -> Result<Origin, StoreError> {
        let decided = self
            .chunk(waiting.chunk)
            .and_then(|chunk| chunk.decided.get(usize::try_from(waiting.record).ok()?))
            .zip(self.webhooks.get(waiting.webhook));
        let Some((decided, webhook)) = decided else {
            return Err(StoreError::damaged("a waiting notification without its decision"));
        };
        Ok(Origin {
            chunk: waiting.chunk,
            record: waiting.record,
            webhook,
            event_type: decided.event_type,
            created: decided.created,
            home: decided.home,
        })
    }

    /// Of two decisions that name a notification, the one with the lower rank made
    /// it: the earlier, then the one with the lower source record.
    pub(crate) fn rank(&self, created: Timestamp, source: SourceAt) -> Rank<'_> {
        (created, self.names.rank(source))
    }

    pub(crate) fn rank_of(&self, waiting: &Waiting) -> Option<Rank<'_>> {
        let decided = &self.chunk(waiting.chunk)?.decided;
        let decided = decided.get(usize::try_from(waiting.record).ok()?)?;
        Some(self.rank(decided.created, decided.source))
    }

    /// Whether some orphans are not in memory.
    pub(crate) fn orphans_on_disk(&self) -> bool {
        self.meta.orphans > self.orphans.len() as u64
    }

    /// Writes everything that a batch changed, in one step.
    pub(crate) fn commit(&mut self, mut changes: Overlay<'_>) -> Result<u64, StoreError> {
        if let Some(names) = self.names.changed() {
            changes.put(rows::NAMES, names)?;
        }
        let (mut writes, put) = changes.finish(&mut self.meta.digest)?;
        rows::store(&mut writes, rows::META.to_vec(), &self.meta.encode());
        self.store.apply(writes)?;
        self.metrics.rows_written.inc_by(put + 1);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.waiting.set(gauge(self.waiting.len()));
        self.metrics.orphans.set(i64::try_from(self.meta.orphans).unwrap_or(i64::MAX));
        Ok(put + 1)
    }
}
