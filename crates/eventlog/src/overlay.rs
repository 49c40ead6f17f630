//! The rows that one batch reads and changes, on top of the store, until all are
//! written in one step.

use std::collections::HashMap;

use crate::{
    rows::{self, Digest},
    store::{Store, StoreError, Write},
};

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    /// Checksum and length of what is stored.
    stored: Option<(u32, usize)>,
    value: Option<Vec<u8>>,
    changed: bool,
}

/// Changes in the order in which they were first touched.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    store: &'a dyn Store,
    entries: Vec<Entry>,
    at: HashMap<Vec<u8>, usize>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self { store, entries: Vec::new(), at: HashMap::new() }
    }

    fn load(&mut self, key: &[u8]) -> Result<&mut Entry, StoreError> {
        let at = match self.at.get(key) {
            Some(at) => *at,
            None => {
                let row = rows::get(self.store, key)?;
                let stored = row.as_ref().map(|row| (row.crc, row.value.len()));
                self.insert(key.to_vec(), stored, row.map(|row| row.value))
            }
        };
        Ok(&mut self.entries[at])
    }

    fn insert(
        &mut self,
        key: Vec<u8>,
        stored: Option<(u32, usize)>,
        value: Option<Vec<u8>>,
    ) -> usize {
        let at = self.entries.len();
        self.at.insert(key.clone(), at);
        self.entries.push(Entry { key, stored, value, changed: false });
        at
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.load(key)?.value.as_deref())
    }

    /// Writes a row, whatever stands there.
    pub(crate) fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        let entry = self.load(key)?;
        entry.changed = true;
        entry.value = Some(value);
        Ok(())
    }

    /// Writes a row that the store does not have, without asking it.
    pub(crate) fn put_new(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let at = match self.at.get(&key) {
            Some(at) => *at,
            None => self.insert(key, None, None),
        };
        let entry = &mut self.entries[at];
        entry.changed = true;
        entry.value = Some(value);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let entry = self.load(key)?;
        entry.changed = true;
        entry.value = None;
        Ok(())
    }

    /// The writes, and what they do to the digest. Counts rows put.
    pub(crate) fn finish(self, digest: &mut Digest) -> (Vec<Write>, u64) {
        let mut writes = Vec::with_capacity(self.entries.len() + 1);
        let mut put = 0;
        for Entry { key, stored, value, changed } in self.entries {
            if !changed {
                continue;
            }
            if let Some((crc, _)) = stored {
                digest.take(crc);
            }
            match (stored, value) {
                (Some((_, before)), Some(value)) if before > value.len() => {
                    // A value in parts may shrink: no part of it may stay.
                    rows::remove(&mut writes, key.clone(), before);
                    digest.add(rows::store(&mut writes, key, &value));
                    put += 1;
                }
                (_, Some(value)) => {
                    digest.add(rows::store(&mut writes, key, &value));
                    put += 1;
                }
                (Some((_, before)), None) => rows::remove(&mut writes, key, before),
                (None, None) => {}
            }
        }
        (writes, put)
    }
}
