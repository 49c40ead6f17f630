//! The ids and runs of the notifications that a webhook's owner took up last, so
//! that a record which a router's replay appended a second time is not sent a
//! second time. Rule: remembered ids.

use std::collections::VecDeque;

use hashbrown::HashTable;
use tidings_types::{NotificationId, RunId};

use crate::At;

/// A notification id, and over its second half the half of a run id that is random
/// (62 bits of it; the first run is zero). Ids are the output of an HMAC, so that two
/// pairs agree no sooner than two ids do. Two words instead of a `u128`, which would
/// make each entry longer by half.
type Key = [u64; 2];

fn key(notification: NotificationId, run: RunId) -> Key {
    let [mut id, mut random] = [[0; 8]; 2];
    let (first, second) = notification.as_bytes().split_at(8);
    id.copy_from_slice(first);
    let first = u64::from_be_bytes(id);
    id.copy_from_slice(second);
    random.copy_from_slice(&run.as_bytes()[8..]);
    [first, u64::from_be_bytes(id) ^ u64::from_be_bytes(random)]
}

/// Ids of one event begin alike, and so do the runs of one notification: both halves
/// make the hash.
fn hash([first, second]: Key) -> u64 {
    first ^ second
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    at: At,
}

/// The last ids and runs of one webhook, oldest first. Bounded by the limit that
/// each insertion is given. A process has up to two million of them: some 45 bytes
/// each, where a map beside a queue takes 130.
#[derive(Debug, Default)]
pub struct Remembered {
    order: VecDeque<Entry>,
    /// By key: the entry's place in `order`, plus the number of those forgotten
    /// before. Counted modulo 2^32, which is more than a webhook may remember.
    places: HashTable<u32>,
    /// The place of the oldest one.
    first: u32,
}

fn place_in(order: &VecDeque<Entry>, first: u32, place: u32) -> Option<&Entry> {
    order.get(usize::try_from(place.wrapping_sub(first)).ok()?)
}

impl Remembered {
    /// Where the record of this id and run stands, if it is remembered.
    pub fn find(&self, notification: NotificationId, run: RunId) -> Option<At> {
        let key = key(notification, run);
        let place = self.places.find(hash(key), |place| self.is_at(*place, key))?;
        place_in(&self.order, self.first, *place).map(|entry| entry.at)
    }

    fn is_at(&self, place: u32, key: Key) -> bool {
        place_in(&self.order, self.first, place).is_some_and(|entry| entry.key == key)
    }

    /// Remembers an id and run, and forgets the oldest ones past `limit`.
    pub fn insert(&mut self, notification: NotificationId, run: RunId, at: At, limit: usize) {
        let key = key(notification, run);
        if let Some(place) = self.places.find(hash(key), |place| self.is_at(*place, key)) {
            let behind = usize::try_from(place.wrapping_sub(self.first)).unwrap_or(usize::MAX);
            if let Some(entry) = self.order.get_mut(behind) {
                entry.at = at;
            }
        } else {
            let behind = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
            self.make_room();
            self.order.push_back(Entry { key, at });
            let (order, first) = (&self.order, self.first);
            self.places.insert_unique(hash(key), first.wrapping_add(behind), |place| {
                place_in(order, first, *place).map_or(0, |entry| hash(entry.key))
            });
        }
        self.shrink(limit);
    }

    /// Grows by a quarter: doubling would leave half of it empty.
    fn make_room(&mut self) {
        if self.order.len() == self.order.capacity() {
            self.order.reserve_exact((self.order.len() / 4).max(8));
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the oldest ones past `limit`.
    pub fn shrink(&mut self, limit: usize) {
        while self.order.len() > limit {
            let Some(oldest) = self.order.pop_front() else { break };
            let first = self.first;
            if let Ok(found) = self.places.find_entry(hash(oldest.key), |place| *place == first) {
                found.remove();
            }
            self.first = first.wrapping_add(1);
        }
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NotificationId {
        NotificationId::from_bytes([n; 16])
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_a_repeat_takes_no_place() {
        let mut remembered = Remembered::default();
        for offset in 0..4 {
            let at = At { partition: 0, offset };
            remembered.insert(id(u8::try_from(offset).unwrap()), RunId::FIRST, at, 3);
        }
        remembered.insert(id(3), RunId::FIRST, At { partition: 0, offset: 3 }, 3);
        assert_eq!(remembered.len(), 3);
        assert_eq!(remembered.find(id(0), RunId::FIRST), None);
        assert_eq!(remembered.find(id(1), RunId::FIRST), Some(At { partition: 0, offset: 1 }));
    }

    #[test]
    fn it_says_what_a_map_and_a_queue_say() {
        let mut remembered = Remembered { first: u32::MAX - 20, ..Remembered::default() };
        let mut order = VecDeque::new();
        let mut map = std::collections::HashMap::new();
        let mut random = 7_u64;
        for offset in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (n, run) = ((random >> 33) % 90, (random >> 50) % 3);
            let [mut id, mut of_run] = [[0; 16]; 2];
            id[8..].copy_from_slice(&n.to_be_bytes());
            of_run[8..].copy_from_slice(&(run << 32).to_be_bytes());
            let (id, of_run) = (NotificationId::from_bytes(id), RunId::from_bytes(of_run));
            let at = At { partition: 0, offset };
            remembered.insert(id, of_run, at, 50);
            if map.insert((id, of_run), at).is_none() {
                order.push_back((id, of_run));
            }
            while order.len() > 50 {
                map.remove(&order.pop_front().unwrap());
            }
            assert_eq!(remembered.len(), order.len());
            for n in 0..90_u64 {
                let mut other = [0; 16];
                other[8..].copy_from_slice(&n.to_be_bytes());
                let other = NotificationId::from_bytes(other);
                let stands = map.get(&(other, of_run)).copied();
                assert_eq!(remembered.find(other, of_run), stands);
            }
        }
    }

    #[test]
    fn another_run_is_another_entry() {
        let mut remembered = Remembered::default();
        remembered.insert(id(1), RunId::FIRST, At { partition: 0, offset: 1 }, 3);
        assert_eq!(remembered.find(id(1), RunId::from_bytes([9; 16])), None);
    }
}
