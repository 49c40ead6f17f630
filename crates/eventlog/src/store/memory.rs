//! Rows in memory, for simulations and tests: a crash takes back what was not
//! flushed, whole writes at a time.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use parking_lot::RwLock;

use super::{Each, Store, StoreError, Write};

#[derive(Debug, Default)]
struct Rows {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the rows held that were written since the last flush, latest last.
    undo: Vec<Write>,
}

/// Memory that outlives the view that is kept in it, as a disk would.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    rows: Arc<RwLock<Rows>>,
}

impl MemoryDisk {
    /// Takes back what was not flushed. The view that uses it must be gone.
    pub fn crash(&self) {
        let rows = &mut *self.rows.write();
        for (key, value) in std::mem::take(&mut rows.undo).into_iter().rev() {
            match value {
                Some(value) => rows.now.insert(key, value),
                None => rows.now.remove(&key),
            };
        }
    }

    /// Forgets everything, as if the directory had been deleted.
    pub fn wipe(&self) {
        *self.rows.write() = Rows::default();
    }

    /// Flips one bit of a row that is stored, for tests of damage. `nth` counts
    /// rows in the order of their keys. Says whether there is such a row.
    pub fn flip(&self, nth: usize) -> bool {
        match self.rows.write().now.values_mut().nth(nth).and_then(|value| value.last_mut()) {
            Some(byte) => {
                *byte ^= 1;
                true
            }
            None => false,
        }
    }

    /// Removes a row that is stored, for tests of damage; gives its key. `nth` counts
    /// as for [`Self::flip`].
    pub fn remove(&self, nth: usize) -> Option<Vec<u8>> {
        let rows = &mut *self.rows.write();
        let key = rows.now.keys().nth(nth)?.clone();
        rows.now.remove(&key);
        Some(key)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.read().now.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store for MemoryDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.read_recursive().now.get(key).cloned())
    }

    fn scan(&self, from: &[u8], below: &[u8], each: &mut Each<'_>) -> Result<(), StoreError> {
        let rows = self.rows.read_recursive();
        let range = (Bound::Included(from), Bound::Excluded(below));
        for (key, value) in rows.now.range::<[u8], _>(range) {
            if !each(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let rows = &mut *self.rows.write();
        for (key, value) in writes {
            let before = match value {
                Some(value) => rows.now.insert(key.clone(), value),
                None => rows.now.remove(&key),
            };
            rows.undo.push((key, before));
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.rows.write().undo.clear();
        Ok(())
    }

    fn size(&self) -> Result<u64, StoreError> {
        let rows = self.rows.read_recursive();
        let bytes: usize = rows.now.iter().map(|(key, value)| key.len() + value.len()).sum();
        Ok(bytes as u64)
    }
}
