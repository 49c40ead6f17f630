//! Reading from the store: behind what memory holds, and by time.

use std::sync::Arc;

use bytes::Bytes;
use tidings_types::{Offset, Timestamp};

use super::{
    batch::{self, BatchHeader, BatchKey, Decoder},
    core::Core,
    partition::{Look, Part},
    store::StoreError,
};
use crate::seam::{Damage, ReadError, Record};

impl Core {
    /// Runs `work` where it may block: in place on memory, on a blocking thread
    /// on disk.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        if self.store.is_memory() {
            return work(self);
        }
        let core = Arc::clone(self);
        // The join fails only if the runtime is shutting down or the work
        // panicked, which the panic hook has reported.
        tokio::task::spawn_blocking(move || work(&core))
            .await
            .unwrap_or(Err(ReadError::Unavailable))
    }

    /// Reads from memory or from the store.
    pub(super) async fn read(
        self: &Arc<Self>,
        part: Arc<Part>,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        match part.look(offset, max_bytes)? {
            Look::Here(records) => {
                self.metrics.tail_reads.inc();
                Ok(records)
            }
            Look::InStore(end) => self.read_store(part, offset, end, max_bytes).await,
        }
    }

    /// Reads `offset..end` from the store.
    pub(super) async fn read_store(
        self: &Arc<Self>,
        part: Arc<Part>,
        offset: Offset,
        end: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.metrics.store_reads.inc();
        self.blocking(move |core| core.read_stored(&part, offset, end, max_bytes)).await
    }

    fn read_stored(
        &self,
        part: &Part,
        offset: Offset,
        end: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let mut budget = max_bytes.max(1);
        let mut next = offset;
        let mut decoder = Decoder::default();
        let mut damaged = false;
        self.scan(part, offset, end, |header, stored| {
            let Some(header) = header else {
                damaged = true;
                return false;
            };
            // Batches stand without gaps; a gap means that one was lost.
            if header.base > next {
                damaged = true;
                return false;
            }
            match decoder.take(&header, stored, next, budget, &mut records) {
                Ok(left) => budget = left,
                Err(batch::Damage) => damaged = true,
            }
            next = records.last().map_or(next, |record| record.offset + 1);
            budget > 0 && !damaged
        })?;
        // What was read before the damage is good; the damage is met next time.
        if !records.is_empty() {
            return Ok(records);
        }
        // Trimmed or deleted meanwhile?
        part.check(offset)?;
        Err(self.damaged(part, offset))
    }

    /// Visits the batches that end in `from..end`; `None` for a damaged one.
    fn scan(
        &self,
        part: &Part,
        from: Offset,
        end: Offset,
        mut visit: impl FnMut(Option<BatchHeader>, &Bytes) -> bool,
    ) -> Result<(), ReadError> {
        let mut each =
            |key: BatchKey, stored: Bytes| visit(batch::check(key, &stored).ok(), &stored);
        self.store
            .scan(part.id, part.erase, from, end, &mut each)
            .map_err(|error| self.unreadable(part, from, &error))
    }

    fn damaged(&self, part: &Part, offset: Offset) -> ReadError {
        self.metrics.damaged_batches.inc();
        tracing::error!(partition = %part.name, offset, "a stored batch is damaged");
        ReadError::Damaged { partition: part.name.clone(), offset, damage: Damage::Broken }
    }

    fn unreadable(&self, part: &Part, offset: Offset, error: &StoreError) -> ReadError {
        tracing::error!(partition = %part.name, offset, %error, "the store cannot be read");
        self.damaged(part, offset)
    }

    /// The header of the batch that holds `offset`.
    pub(super) fn header_at(
        &self,
        part: &Part,
        offset: Offset,
        end: Offset,
    ) -> Result<Option<BatchHeader>, ReadError> {
        let mut found = None;
        self.scan(part, offset, end, |header, _stored| {
            found = Some(header);
            false
        })?;
        match found {
            Some(Some(header)) => Ok(Some(header)),
            Some(None) => Err(self.damaged(part, offset)),
            None => Ok(None),
        }
    }

    /// The first offset whose record is not older than `time`.
    ///
    /// The newest time up to each batch only grows from batch to batch, so a
    /// binary search finds the first batch in which it reaches `time`; no record
    /// before that batch can be the answer.
    pub(super) fn find_time(&self, part: &Part, time: Timestamp) -> Result<Offset, ReadError> {
        let ends = part.ends()?;
        let (mut low, mut high) = (ends.first, ends.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.header_at(part, middle, ends.end)? {
                Some(header) if header.running_max < time => low = header.end().max(middle + 1),
                Some(header) if header.base > low => high = header.base.min(middle),
                Some(_) | None => break,
            }
        }
        let mut decoder = Decoder::default();
        let mut found = None;
        let mut damaged = None;
        self.scan(part, low, ends.end, |header, stored| {
            let Some(header) = header else {
                damaged = Some(low);
                return false;
            };
            let mut records = Vec::new();
            if header.max_time >= time || part.erase {
                let from = ends.first.max(low);
                if decoder.take(&header, stored, from, usize::MAX, &mut records).is_err() {
                    damaged = Some(header.base);
                    return false;
                }
            }
            found = records.iter().find(|record| record.timestamp >= time).map(|r| r.offset);
            found.is_none()
        })?;
        match (found, damaged) {
            (Some(offset), _) => Ok(offset),
            (None, Some(offset)) => Err(self.damaged(part, offset)),
            (None, None) => Ok(ends.end),
        }
    }
}
