//! Where batches and the small map are kept: on disk or in memory, one surface.
//!
//! A store knows nothing of offsets beyond the order of its keys, and nothing of
//! who waits. `commit` is called by one caller at a time and returns when its
//! writes are durable; reads may run beside it.

mod disk;
mod erase;
mod journal;
mod memory;

use std::sync::Arc;

use bytes::Bytes;
use tidings_types::Offset;

pub(super) use self::{
    disk::{DiskStore, OpenFailure},
    memory::MemoryStore,
};
use super::{
    batch::{BatchKey, PartId, TopicId},
    meta::Entry,
};

/// Batches that one commit removes per partition or topic. The rest follows in
/// later steps, so that a large trim does not hold up appends.
pub(super) const REMOVE_STEP: usize = 4096;

/// One change of a commit.
#[derive(Debug)]
pub(super) enum Write {
    /// A batch; `bucket` names the file for topics that must be erased.
    Batch {
        key: BatchKey,
        value: Vec<u8>,
        bucket: Option<Bucket>,
    },
    Put(Entry),
    /// Removes an entry of the small map.
    Remove(Vec<u8>),
    /// Removes up to [`REMOVE_STEP`] batches that end in `from..below`.
    RemoveBatches {
        part: PartId,
        erase: bool,
        from: Offset,
        below: Offset,
    },
    /// Removes up to [`REMOVE_STEP`] batches of a deleted topic.
    RemoveTopic(TopicId),
}

/// The time bucket of a topic whose records must leave the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    pub(super) topic: TopicId,
    /// Time divided by the bucket's length.
    pub(super) number: i64,
}

/// Where removal has to go on.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    pub(super) parts: Vec<PartId>,
    pub(super) topics: Vec<TopicId>,
}

/// How much space there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Enough for appends.
    Plenty,
    /// Enough for small changes that free space, such as a trim.
    Scarce,
    Full,
}

/// The store could not do it. After a failed commit its state is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreError(pub(super) Arc<str>);

impl StoreError {
    pub(super) fn new(doing: &str, error: &dyn std::fmt::Display) -> Self {
        Self(format!("{doing}: {error}").into())
    }
}

/// The store behind a broker.
#[derive(Debug)]
pub(super) enum Store {
    Memory(MemoryStore),
    Disk(Box<DiskStore>),
}

/// A key and a value of the small map.
pub(super) type RawEntry = (Vec<u8>, Vec<u8>);

/// Called with each batch of a scan; says whether to go on.
pub(super) type Visit<'a> = &'a mut dyn FnMut(BatchKey, Bytes) -> bool;

impl Store {
    /// The memory store is driven by those who wait, without threads.
    pub(super) fn is_memory(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Disk(_) => false,
        }
    }

    /// All entries of the small map, in the order of their keys.
    pub(super) fn entries(&self) -> Result<Vec<RawEntry>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.entries()),
            Self::Disk(store) => store.entries(),
        }
    }

    /// The last batch of a partition.
    pub(super) fn last(
        &self,
        part: PartId,
        erase: bool,
    ) -> Result<Option<(BatchKey, Bytes)>, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.last(part)),
            Self::Disk(store) => store.last(part, erase),
        }
    }

    /// Visits the batches that end in `from..end`, in order.
    pub(super) fn scan(
        &self,
        part: PartId,
        erase: bool,
        from: Offset,
        end: Offset,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => {
                store.scan(part, from, end, visit);
                Ok(())
            }
            Self::Disk(store) => store.scan(part, erase, from, end, visit),
        }
    }

    /// Makes all writes durable, together.
    pub(super) fn commit(&self, writes: Vec<Write>) -> Result<Leftover, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.commit(writes)),
            Self::Disk(store) => store.commit(writes),
        }
    }

    /// Whether `bytes` more fit.
    pub(super) fn space(&self, bytes: usize) -> Space {
        match self {
            Self::Memory(_) => Space::Plenty,
            Self::Disk(store) => store.space(bytes),
        }
    }

    /// Whether the store has failed behind the back of its caller.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Disk(store) => store.health(),
        }
    }
}
