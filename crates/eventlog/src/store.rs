//! Where rows are kept: a sorted map of bytes that takes many writes in one step
//! and says when they are durable. It knows nothing of what rows mean.

mod disk;
mod memory;

use std::{fmt, sync::Arc};

pub(crate) use self::disk::{DirLock, DiskStore};
pub use self::memory::MemoryDisk;

/// Why a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What is stored cannot be trusted; it can be made anew from the topics.
    #[error("what is stored is damaged: {0}; it is made anew from the topics")]
    Damaged(Arc<str>),
    /// The disk or the store does not work; trying again would hide that.
    #[error("the store failed: {0}; free space or replace the disk")]
    Failed(Arc<str>),
}

impl StoreError {
    pub(crate) fn damaged(what: impl fmt::Display) -> Self {
        Self::Damaged(what.to_string().into())
    }
}

/// A key, and its value or that it goes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// Takes a row of a scan and says whether to go on.
pub(crate) type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// The store behind a view.
pub(crate) trait Store: Send + Sync + fmt::Debug {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Gives the rows of `from..below` in order.
    fn scan(&self, from: &[u8], below: &[u8], each: &mut Each<'_>) -> Result<(), StoreError>;

    /// All of it or nothing, also after a crash. Durable after the next flush.
    fn apply(&self, writes: Vec<Write>) -> Result<(), StoreError>;

    /// Returns when everything that was applied is durable.
    fn flush(&self) -> Result<(), StoreError>;

    /// The bytes that it takes.
    fn size(&self) -> Result<u64, StoreError>;
}
