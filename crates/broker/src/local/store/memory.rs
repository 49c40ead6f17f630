//! The store of simulations and tests: what it was given by `commit` counts as
//! durable and is still there for the next broker after a simulated crash.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tidings_types::Offset;

use super::{Leftover, REMOVE_STEP, Visit, Write};
use crate::local::batch::{BatchKey, PartId};

#[derive(Debug, Default)]
struct Contents {
    batches: BTreeMap<BatchKey, Bytes>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A store in memory. Clones share their contents.
#[derive(Clone, Debug, Default)]
pub(in crate::local) struct MemoryStore(Arc<Mutex<Contents>>);

impl MemoryStore {
    pub(super) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.lock().entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn last(&self, part: PartId) -> Option<(BatchKey, Bytes)> {
        let range = BatchKey::new(part, 0)..=BatchKey::new(part, Offset::MAX);
        let contents = self.0.lock();
        contents.batches.range(range).next_back().map(|(key, value)| (*key, value.clone()))
    }

    pub(super) fn scan(&self, part: PartId, from: Offset, end: Offset, visit: Visit<'_>) {
        if from >= end {
            return;
        }
        let contents = self.0.lock();
        let range = BatchKey::new(part, from)..BatchKey::new(part, end);
        for (key, value) in contents.batches.range(range) {
            if !visit(*key, value.clone()) {
                return;
            }
        }
    }

    pub(super) fn commit(&self, writes: Vec<Write>) -> Leftover {
        let mut contents = self.0.lock();
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
