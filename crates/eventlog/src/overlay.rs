//! The rows that one batch reads and changes, on top of the store, until all are
//! written in one step.

use std::collections::{BTreeMap, HashMap};

use tidings_types::NotificationId;

use crate::{
    pack::{self, Half, Pack, Stands},
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
    packs: BTreeMap<Half, Open>,
}

/// A pack that is looked at, and whether it has changed.
#[derive(Debug)]
struct Open {
    pack: Pack,
    changed: bool,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(store: &'a dyn Store) -> Self {
        Self { store, entries: Vec::new(), at: HashMap::new(), packs: BTreeMap::new() }
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

    fn open(&mut self, half: Half) -> Result<&mut Open, StoreError> {
        if !self.packs.contains_key(&half) {
            let row = self.get(&rows::pack_key(half))?;
            let pack = row.map(Pack::decode).transpose()?.unwrap_or_default();
            self.packs.insert(half, Open { pack, changed: false });
        }
        Ok(self.packs.entry(half).or_insert_with(|| Open { pack: Pack::default(), changed: true }))
    }

    /// What is known of a notification.
    pub(crate) fn notification(
        &mut self,
        id: &NotificationId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (of_pack, of_place) = pack::halves(id);
        let open = self.open(of_pack)?;
        match open.pack.stands(of_place) {
            Stands::Here(place) => Ok(open.pack.at(place).map(<[u8]>::to_vec)),
            Stands::Outside => Ok(self.get(&rows::notification_key(id))?.map(<[u8]>::to_vec)),
            Stands::Nowhere => Ok(None),
        }
    }

    /// Writes what is known of a notification, whatever was known before.
    pub(crate) fn put_notification(
        &mut self,
        id: &NotificationId,
        known: Vec<u8>,
    ) -> Result<(), StoreError> {
        let (of_pack, of_place) = pack::halves(id);
        let stands = self.open(of_pack)?.pack.stands(of_place);
        let key = rows::notification_key(id);
        if stands == Stands::Outside && self.get(&key)?.is_some() {
            return self.put(&key, known);
        }
        let open = self.open(of_pack)?;
        open.changed = true;
        let outside = match stands {
            Stands::Here(place) => {
                open.pack.set(place, known);
                None
            }
            Stands::Outside | Stands::Nowhere => open.pack.add(of_place, known),
        };
        outside.map_or(Ok(()), |known| self.put(&key, known))
    }

    pub(crate) fn remove_notification(&mut self, id: &NotificationId) -> Result<(), StoreError> {
        let (of_pack, of_place) = pack::halves(id);
        let open = self.open(of_pack)?;
        match open.pack.stands(of_place) {
            Stands::Here(place) => {
                open.pack.remove(place);
                open.changed = true;
            }
            Stands::Outside => {
                let key = rows::notification_key(id);
                if self.get(&key)?.is_some() {
                    self.remove(&key)?;
                    let open = self.open(of_pack)?;
                    open.pack.removed_outside();
                    open.changed = true;
                }
            }
            Stands::Nowhere => {}
        }
        Ok(())
    }

    /// Puts what changed in packs into their rows.
    fn close_packs(&mut self) -> Result<(), StoreError> {
        for (half, open) in std::mem::take(&mut self.packs) {
            let key = rows::pack_key(half);
            match (open.changed, open.pack.is_empty()) {
                (false, _) => {}
                (true, true) => self.remove(&key)?,
                (true, false) => self.put(&key, open.pack.encode())?,
            }
        }
        Ok(())
    }

    /// The writes, and what they do to the digest. Counts rows put.
    pub(crate) fn finish(mut self, digest: &mut Digest) -> Result<(Vec<Write>, u64), StoreError> {
        self.close_packs()?;
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
        Ok((writes, put))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryDisk;

    fn id(event: u8, webhook: u8) -> NotificationId {
        let mut bytes = [event; 16];
        bytes[15] = webhook;
        NotificationId::from_bytes(bytes)
    }

    /// What stands in packs and beside them is what a map has, however it came there.
    #[test]
    fn more_notifications_than_a_pack_takes_are_put_and_removed_like_rows() {
        let disk = MemoryDisk::default();
        let (mut map, mut digest) = (BTreeMap::new(), Digest::default());
        let mut random = 3_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from((random >> 33) % below).unwrap()
        };
        for round in 0..300 {
            let mut rows = Overlay::new(&disk);
            // Fills the packs, then empties them.
            let puts = if round % 100 < 50 { 9 } else { 2 };
            for _ in 0..20 {
                let id = id(next(2), next(60));
                if next(10) < puts {
                    let known = vec![next(200); usize::from(next(90))];
                    rows.put_notification(&id, known.clone()).unwrap();
                    map.insert(id, known);
                } else {
                    rows.remove_notification(&id).unwrap();
                    map.remove(&id);
                }
                assert_eq!(rows.notification(&id).unwrap(), map.get(&id).cloned());
            }
            let (writes, _) = rows.finish(&mut digest).unwrap();
            disk.apply(writes).unwrap();
            for event in 0..2 {
                for webhook in 0..60 {
                    let id = id(event, webhook);
                    assert_eq!(pack::get(&disk, &id).unwrap(), map.get(&id).cloned());
                }
            }
            let mut all = 0;
            pack::each(&disk, &mut |_| {
                all += 1;
                Ok(())
            })
            .unwrap();
            assert_eq!(all, map.len());
            assert_eq!(rows::verify(&disk, b"", usize::MAX).unwrap().0, digest);
        }
        let mut rows = Overlay::new(&disk);
        for id in map.keys() {
            rows.remove_notification(id).unwrap();
        }
        disk.apply(rows.finish(&mut digest).unwrap().0).unwrap();
        assert_eq!(digest, Digest::default(), "nothing stays behind");
    }
}
