//! The ids and runs of the notifications that a webhook's owner took up last, so
//! that a record which a router's replay appended a second time is not sent a
//! second time. Rule: remembered ids.

use std::collections::{HashMap, VecDeque};

use tidings_types::{NotificationId, RunId};

use crate::At;

/// A notification id, and the half of a run id that is random (62 bits of it; the
/// first run is zero): 24 bytes where both would be 32.
type Key = (u128, u64);

fn key(notification: NotificationId, run: RunId) -> Key {
    let mut random = [0; 8];
    random.copy_from_slice(&run.as_bytes()[8..]);
    (u128::from_be_bytes(*notification.as_bytes()), u64::from_be_bytes(random))
}

/// The last ids and runs of one webhook, oldest first. Bounded by the limit that
/// each insertion is given.
#[derive(Debug, Default)]
pub struct Remembered {
    order: VecDeque<Key>,
    stands_at: HashMap<Key, At>,
}

impl Remembered {
    /// Where the record of this id and run stands, if it is remembered.
    pub fn find(&self, notification: NotificationId, run: RunId) -> Option<At> {
        self.stands_at.get(&key(notification, run)).copied()
    }

    /// Remembers an id and run, and forgets the oldest ones past `limit`.
    pub fn insert(&mut self, notification: NotificationId, run: RunId, at: At, limit: usize) {
        let key = key(notification, run);
        if self.stands_at.insert(key, at).is_none() {
            self.order.push_back(key);
        }
        self.shrink(limit);
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.order.clear();
        self.stands_at.clear();
    }

    /// Forgets the oldest ones past `limit`.
    pub fn shrink(&mut self, limit: usize) {
        while self.order.len() > limit {
            if let Some(oldest) = self.order.pop_front() {
                self.stands_at.remove(&oldest);
            }
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
    fn another_run_is_another_entry() {
        let mut remembered = Remembered::default();
        remembered.insert(id(1), RunId::FIRST, At { partition: 0, offset: 1 }, 3);
        assert_eq!(remembered.find(id(1), RunId::from_bytes([9; 16])), None);
    }
}
