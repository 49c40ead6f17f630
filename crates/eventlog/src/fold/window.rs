//! Keeps the window within its bounds: what leaves it gets rows.

use tidings_proto::{decode, v1};
use tidings_types::NotificationId;

use super::{Fold, routed::targets, routed_of};
use crate::{
    facts,
    notification::Notification,
    rows,
    store::StoreError,
    wire::{Malformed, put_i64},
};

/// Entries of a list's index that are written together.
pub(super) const TAIL_ENTRIES: usize = 512;

impl Fold<'_, '_> {
    /// Lets the oldest chunks leave the window if it is too large. Then a quarter
    /// of it goes, so that the rows of its indexes are worth writing.
    pub(super) fn narrow_window(&mut self) -> Result<(), StoreError> {
        let (notifications, bytes) =
            (self.view.limits.window_notifications, self.view.limits.window_bytes);
        let over = |fold: &Self, part: usize| {
            fold.view.window_notifications > notifications / 4 * part
                || fold.view.window_bytes > bytes / 4 * part
                || fold.view.window.len() > notifications / 4 * part
        };
        if !over(self, 4) {
            return Ok(());
        }
        while over(self, 3) && !self.view.window.is_empty() {
            self.leave_window()?;
        }
        self.write_tails()
    }

    /// Lets the oldest chunk leave the window. [`Self::write_tails`] must follow.
    pub(super) fn leave_window(&mut self) -> Result<(), StoreError> {
        let Some(chunk) = self.view.window.front() else { return Ok(()) };
        let number = self.view.meta.floor;
        if chunk.waiting > 0 {
            self.write_waiting(number)?;
        }
        if let Some(chunk) = self.view.window.pop_front() {
            self.view.window_notifications -= chunk.notifications;
            self.view.window_bytes -= chunk.bytes;
        }
        self.view.meta.floor += 1;
        Ok(())
    }

    /// Gives what waits in a chunk rows of its own.
    fn write_waiting(&mut self, chunk: u64) -> Result<(), StoreError> {
        let Some(decisions) = self.rows.get(&rows::decisions_key(chunk))? else {
            return Err(StoreError::damaged("a chunk is missing"));
        };
        let decisions = facts::decisions(decisions.to_vec())?;
        for (record, raw) in (0..).zip(decisions) {
            let decoded = decode::<v1::RoutedRecord>(raw).map_err(|_undecodable| Malformed)?;
            let (_, routed) = routed_of(&decoded).ok_or(Malformed)?;
            for target in targets(routed).ok_or(Malformed)? {
                let id = target.notification;
                let Some(waiting) = self.view.waiting.get(&id).copied() else { continue };
                if (waiting.chunk, waiting.record) != (chunk, record) {
                    continue;
                }
                let mut known = Notification::default();
                known.set_origin(self.view.origin(&waiting)?, false);
                self.put(&id, &known, None)?;
                self.view.waiting.remove(&id);
            }
        }
        Ok(())
    }

    /// Writes the indexes that have entries of chunks outside the window.
    pub(super) fn write_tails(&mut self) -> Result<(), StoreError> {
        let floor = self.view.meta.floor;
        let due = self.view.tails.iter().filter(|(_, tail)| tail.oldest < floor);
        let due: Vec<_> = due.map(|(key, _)| *key).collect();
        due.into_iter().try_for_each(|key| self.write_tail(key))
    }

    /// Writes what an index has in memory, a row per bucket of time.
    pub(super) fn write_tail(&mut self, key: (u32, u32)) -> Result<(), StoreError> {
        let Some(tail) = self.view.tails.remove(&key) else { return Ok(()) };
        let webhook = self.view.webhooks.get(key.0).ok_or(Malformed)?;
        let mut entries = tail.entries;
        entries.sort_unstable();
        entries.dedup();
        for entries in entries.chunk_by(|a, b| rows::bucket(a.0) == rows::bucket(b.0)) {
            let bucket = rows::bucket(entries[0].0);
            let start = rows::bucket_start(bucket);
            let mut row = Vec::with_capacity(entries.len() * 20);
            for (created, id) in entries {
                put_i64(&mut row, created.as_millis() - start.as_millis());
                put_id(&mut row, id);
            }
            let number = self.view.meta.next_index;
            self.view.meta.next_index += 1;
            self.rows.put_new(rows::index_key(&webhook, key.1, bucket, number), row);
        }
        Ok(())
    }
}

fn put_id(row: &mut Vec<u8>, id: &NotificationId) {
    row.extend_from_slice(id.as_bytes());
}
