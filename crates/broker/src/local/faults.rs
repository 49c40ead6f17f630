//! The faults that a simulation plants in the memory store. Production has none.

use std::{fmt, time::Duration};

use tidings_types::{Offset, TopicPartition};

use crate::seam::ReadError;

/// What goes wrong with one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written; the answer is `Unavailable`.
    Refuse,
    /// The batch, and everything queued behind it, is written this much later.
    Slow(Duration),
    /// Written, but the answer is `Unknown`.
    LoseAnswer,
    /// Not written, and the answer is `Unknown`.
    DropSilently,
}

/// Decides which appends go wrong. Asked once for each batch, in the order in
/// which the batches are handed over.
pub trait Faults: Send + Sync + fmt::Debug {
    fn on_append(&self, to: &TopicPartition, records: usize) -> Option<Fault>;

    /// What a question after the ends of a partition, or with an offset a read, is
    /// answered with instead. Readers are not asked.
    fn on_read(&self, _of: &TopicPartition, _offset: Option<Offset>) -> Option<ReadError> {
        None
    }

    /// Whether a member of a group, by the number of its joining, cannot reach the
    /// group now. Its polls fail, and its session runs out.
    fn is_cut_off(&self, _group: &str, _member: u64) -> bool {
        false
    }
}
