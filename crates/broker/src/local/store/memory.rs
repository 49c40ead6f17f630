//! The store of simulations and tests: what it was given by `commit` counts as
//! durable and is still there for the next broker after a simulated crash.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tidings_types::{Offset, Sabotage};

use super::{Leftover, REMOVE_STEP, Visit, Write};
use crate::local::batch::{BatchKey, PartId};

/// Commits that one late sync takes under [`Sabotage::AckBeforeFsync`].
const LATE: u64 = 16;

#[derive(Clone, Debug, Default)]
struct Contents {
    batches: BTreeMap<BatchKey, Bytes>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a crash leaves when commits are acknowledged before they are durable.
#[derive(Debug, Default)]
struct Late {
    commits: u64,
    synced: Contents,
}

/// A store in memory. Clones share their contents.
#[derive(Clone, Debug)]
pub(in crate::local) struct MemoryStore {
    contents: Arc<Mutex<Contents>>,
    /// Only under a planted fault.
    late: Option<Arc<Mutex<Late>>>,
}

impl MemoryStore {
    pub(in crate::local) fn new(sabotage: Sabotage) -> Self {
        let late = sabotage.is(Sabotage::AckBeforeFsync).then(Arc::default);
        Self { contents: Arc::default(), late }
    }

    /// A power cut: takes back what was not synced, if a planted fault left any.
    pub(in crate::local) fn crash(&self) {
        if let Some(late) = &self.late {
            *self.contents.lock() = late.lock().synced.clone();
        }
    }

    /// Under a planted fault: syncs only now and then.
    fn sync_late(&self, contents: &Contents) {
        if let Some(late) = &self.late {
            let mut late = late.lock();
            late.commits += 1;
            if late.commits.is_multiple_of(LATE) {
                late.synced = contents.clone();
            }
        }
    }

    pub(super) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.contents
            .lock()
            .entries
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn last(&self, part: PartId) -> Option<(BatchKey, Bytes)> {
        let range = BatchKey::new(part, 0)..=BatchKey::new(part, Offset::MAX);
        let contents = self.contents.lock();
        contents.batches.range(range).next_back().map(|(key, value)| (*key, value.clone()))
    }

    pub(super) fn scan(&self, part: PartId, from: Offset, end: Offset, visit: Visit<'_>) {
        if from >= end {
            return;
        }
        let contents = self.contents.lock();
        let range = BatchKey::new(part, from)..BatchKey::new(part, end);
        for (key, value) in contents.batches.range(range) {
            if !visit(*key, value.clone()) {
                return;
            }
        }
    }

    pub(super) fn commit(&self, writes: Vec<Write>) -> Leftover {
        let mut contents = self.contents.lock();
        let mut leftover = Leftover::default();
        for write in writes {
            match write {
                Write::Batch { key, value, bucket: _ } => {
                    contents.batches.insert(key, value.into());
                }
                Write::Put(entry) => {
                    contents.entries.insert(entry.key(), entry.value());
                }
                Write::Remove(key) => {
                    contents.entries.remove(&key);
                }
                Write::RemoveBatches { part, erase: _, from, below } => {
                    let range = BatchKey::new(part, from)..BatchKey::new(part, below);
                    if from < below && remove(&mut contents.batches, range) {
                        leftover.parts.push(part);
                    }
                }
                Write::RemoveTopic(topic) => {
                    let from = PartId { topic, partition: 0 };
                    let to = PartId { topic, partition: u32::MAX };
                    let range = BatchKey::new(from, 0)..BatchKey::new(to, Offset::MAX);
                    if remove(&mut contents.batches, range) {
                        leftover.topics.push(topic);
                    }
                }
            }
        }
        self.sync_late(&contents);
        leftover
    }
}

/// Removes up to a step of `range`. Returns whether some are left.
fn remove(batches: &mut BTreeMap<BatchKey, Bytes>, range: std::ops::Range<BatchKey>) -> bool {
    let keys: Vec<BatchKey> =
        batches.range(range).take(REMOVE_STEP + 1).map(|(key, _)| *key).collect();
    for key in keys.iter().take(REMOVE_STEP) {
        batches.remove(key);
    }
    keys.len() > REMOVE_STEP
}
