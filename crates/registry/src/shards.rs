//! A map by text that is cheap to clone and cheap to change after it: only the
//! share that a key falls into is copied.

use std::{collections::BTreeMap, sync::Arc};

const SHARDS: usize = 64;

type Shard<V> = Arc<BTreeMap<Arc<str>, V>>;

/// A map from text to `V`, in shares of about equal size.
#[derive(Clone, Debug)]
pub struct Shards<V>(Arc<[Shard<V>]>);

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }
}

impl<V> Shards<V> {
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0[place(key)].get(key)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|shard| shard.is_empty())
    }
}

impl<V: Clone> Shards<V> {
    pub(crate) fn insert(&mut self, key: Arc<str>, value: V) {
        let place = place(&key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[place]).insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<V> {
        if !self.contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[place(key)]).remove(key)
    }
}

/// FNV-1a: the same on every machine.
fn place(key: &str) -> usize {
    let hash = key
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    usize::try_from(hash % 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut map = Shards::default();
        for number in 0..1000 {
            map.insert(number.to_string().into(), number);
        }
        let before = map.clone();
        map.insert("7".into(), 0);
        assert_eq!(map.remove("8"), Some(8));
        assert_eq!(map.remove("8"), None);
        assert_eq!((before.get("7"), before.get("8"), before.len()), (Some(&7), Some(&8), 1000));
        assert_eq!((map.get("7"), map.get("8"), map.len()), (Some(&0), None, 999));
    }

    #[test]
    fn keys_spread_over_all_shares() {
        let places: std::collections::BTreeSet<usize> =
            (0..2000).map(|number| place(&format!("webhook/{number}"))).collect();
        assert_eq!(places.len(), SHARDS);
    }
}
