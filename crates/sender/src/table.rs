//! The webhooks that this process owns, by id, by delivery partition, by slot, and
//! in the order in which they get their turn.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use tidings_delivery::{Fence, Hook};
use tidings_types::{
    Instant, Offset, Partition, Slot, Timestamp, TopicName, TopicPartition, WebhookId, names,
};

use crate::{records::Delivery, webhook::Webhook};

/// Names a row; a row that took the place of another has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowKey {
    index: usize,
    generation: u64,
}

/// Whether a delivery partition is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReadState {
    #[default]
    Off,
    On,
    Paused,
}

/// One webhook.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) slot: Slot,
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) hook: Hook<Delivery>,
    pub(crate) topic: TopicName,
    pub(crate) reading: [ReadState; 2],
    /// Bytes of the last checkpoint of each partition.
    pub(crate) checkpoint_bytes: [usize; 2],
    is_ready: bool,
    timer: Option<Timestamp>,
    /// The registry is being told something about it.
    pub(crate) is_telling: bool,
}

impl Row {
    pub(crate) fn partition(&self, partition: Partition) -> TopicPartition {
        TopicPartition::new(&self.topic, partition)
    }
}

/// A slot that this process owns.
#[derive(Debug)]
pub(crate) struct SlotOwner {
    pub(crate) fence: Fence,
    pub(crate) rows: BTreeSet<RowKey>,
    /// Behind the last fact of its own that the log acknowledged.
    pub(crate) position: Offset,
    /// Where its last mark stands.
    pub(crate) marked: Offset,
    pub(crate) marked_at: Instant,
    /// Facts handed to the log and not acknowledged.
    pub(crate) unacknowledged: usize,
    /// Facts ever handed to the log.
    pub(crate) said: u64,
    pub(crate) log_bytes: usize,
    pub(crate) cut: u64,
    pub(crate) next_write: Instant,
    /// A write to its log is under way.
    pub(crate) is_writing: bool,
    /// Whether its fence has been asked since the last gap in polling the group.
    pub(crate) is_proven: bool,
}

/// The rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Option<(u64, Row)>>,
    free: Vec<usize>,
    generation: u64,
    by_id: HashMap<WebhookId, RowKey>,
    by_partition: HashMap<TopicPartition, (RowKey, Partition)>,
    ready: VecDeque<RowKey>,
    timers: BTreeSet<(Timestamp, RowKey)>,
    pub(crate) owners: BTreeMap<Slot, SlotOwner>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, key: RowKey) -> Option<&Row> {
        let (generation, row) = self.rows.get(key.index)?.as_ref()?;
        (*generation == key.generation).then_some(row)
    }

    pub(crate) fn get_mut(&mut self, key: RowKey) -> Option<&mut Row> {
        let (generation, row) = self.rows.get_mut(key.index)?.as_mut()?;
        (*generation == key.generation).then_some(row)
    }

    pub(crate) fn by_id(&self, id: WebhookId) -> Option<RowKey> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn by_partition(&self, of: &TopicPartition) -> Option<(RowKey, Partition)> {
        self.by_partition.get(of).copied()
    }

    /// All keys of all slots, in order.
    pub(crate) fn keys(&self) -> Vec<RowKey> {
        self.owners.values().flat_map(|owner| owner.rows.iter().copied()).collect()
    }

    pub(crate) fn insert(
        &mut self,
        slot: Slot,
        webhook: Arc<Webhook>,
        hook: Hook<Delivery>,
    ) -> RowKey {
        self.generation += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            self.rows.len() - 1
        });
        let key = RowKey { index, generation: self.generation };
        self.by_id.insert(webhook.id, key);
        let topic = names::delivery(webhook.id);
        for partition in [0, 1] {
            self.by_partition.insert(TopicPartition::new(&topic, partition), (key, partition));
        }
        let row = Row {
            slot,
            webhook,
            hook,
            topic,
            reading: [ReadState::Off; 2],
            checkpoint_bytes: [0; 2],
            is_ready: false,
            timer: None,
            is_telling: false,
        };
        if let Some(place) = self.rows.get_mut(index) {
            *place = Some((self.generation, row));
        }
        if let Some(owner) = self.owners.get_mut(&slot) {
            owner.rows.insert(key);
        }
        key
    }

    pub(crate) fn remove(&mut self, key: RowKey) -> Option<Row> {
        self.get(key)?;
        let (_, row) = self.rows.get_mut(key.index)?.take()?;
        self.free.push(key.index);
        self.by_id.remove(&row.webhook.id);
        for partition in [0, 1] {
            self.by_partition.remove(&row.partition(partition));
        }
        if let Some(timer) = row.timer {
            self.timers.remove(&(timer, key));
        }
        if let Some(owner) = self.owners.get_mut(&row.slot) {
            owner.rows.remove(&key);
        }
        Some(row)
    }

    /// Puts a webhook at the end of the queue, if it does not wait there already.
    pub(crate) fn make_ready(&mut self, key: RowKey) {
        let Some(row) = self.get_mut(key) else { return };
        if !row.is_ready {
            row.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// The webhook whose turn it is.
    pub(crate) fn next_ready(&mut self) -> Option<RowKey> {
        loop {
            let key = self.ready.pop_front()?;
            if let Some(row) = self.get_mut(key) {
                row.is_ready = false;
                return Some(key);
            }
        }
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn set_timer(&mut self, key: RowKey, due: Option<Timestamp>) {
        let Some(row) = self.get_mut(key) else { return };
        let before = std::mem::replace(&mut row.timer, due);
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, key));
        }
        if let Some(due) = due {
            self.timers.insert((due, key));
        }
    }

    /// Makes those ready whose time has come.
    pub(crate) fn fire(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(row) = self.get_mut(key) {
                row.timer = None;
            }
            self.make_ready(key);
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }
}
