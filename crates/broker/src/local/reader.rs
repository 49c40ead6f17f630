//! A reader: positions in assigned partitions, and a list of those that may
//! have something to read. A partition that is idle is not in the list and costs
//! nothing; an append puts it there.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tidings_types::{Offset, TopicPartition};

use super::{
    core::Core,
    partition::{Look, Part, Ready, Watch},
};
use crate::seam::{Fetched, ReadError, Record};

#[derive(Debug)]
struct Assigned {
    offset: Offset,
    paused: bool,
    watch: Arc<Watch>,
    /// `None` until the partition has been found.
    part: Option<Arc<Part>>,
}

/// Reads assigned partitions. Has no place of its own in the broker: dropping it
/// is enough.
pub struct LocalReader {
    core: Arc<Core>,
    ready: Arc<Ready>,
    assigned: BTreeMap<TopicPartition, Assigned>,
}

impl fmt::Debug for LocalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalReader")
            .field("assigned", &self.assigned.len())
            .finish_non_exhaustive()
    }
}

/// What the look at one partition came to.
enum Turn {
    Records(Vec<Record>),
    Nothing,
    InStore(Arc<Part>, Offset, Offset),
    Failed(ReadError),
}

impl LocalReader {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, ready: Arc::default(), assigned: BTreeMap::new() }
    }

    pub(crate) fn assign(&mut self, partition: TopicPartition, offset: Offset) {
        if let Some(assigned) = self.assigned.get_mut(&partition) {
            assigned.offset = offset;
            assigned.watch.wake();
            return;
        }
        let watch = Watch::new(partition.clone(), Arc::clone(&self.ready));
        let part = self.core.part(&partition);
        if let Some(part) = &part {
            part.watch(&watch);
        }
        watch.wake();
        self.assigned.insert(partition, Assigned { offset, paused: false, watch, part });
    }

    pub(crate) fn unassign(&mut self, partition: &TopicPartition) {
        if let Some(assigned) = self.assigned.remove(partition) {
            assigned.forget();
            self.ready.queue.lock().retain(|watch| !Arc::ptr_eq(watch, &assigned.watch));
        }
    }

    pub(crate) fn pause(&mut self, partition: &TopicPartition) {
        if let Some(assigned) = self.assigned.get_mut(partition) {
            assigned.paused = true;
        }
    }

    pub(crate) fn resume(&mut self, partition: &TopicPartition) {
        if let Some(assigned) = self.assigned.get_mut(partition) {
            assigned.paused = false;
            assigned.watch.wake();
        }
    }

    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.assigned.get(partition).map(|assigned| assigned.offset)
    }

    pub(crate) async fn poll(&mut self, max_bytes: usize) -> Vec<Fetched> {
        loop {
            let fetched = self.turns(max_bytes).await;
            if !fetched.is_empty() {
                return fetched;
            }
            let ready = Arc::clone(&self.ready);
            // A wake-up that came since the list was empty is kept by `notify`.
            ready.notify.notified().await;
        }
    }

    /// Gives each partition of the list its turn until `max_bytes` are read.
    ///
    /// Waits only for the store, and only while it has nothing in its hands; so
    /// a poll that is dropped has moved no position past what it returned.
    async fn turns(&mut self, max_bytes: usize) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        let mut budget = max_bytes.max(1);
        let mut turns = self.ready.queue.lock().len();
        while turns > 0 && budget > 0 {
            turns -= 1;
            let Some(watch) = self.ready.queue.lock().front().cloned() else { break };
            let records = match self.turn(&watch, budget) {
                Turn::InStore(..) if !fetched.is_empty() => break,
                Turn::InStore(part, offset, end) => {
                    self.core.read_store(part, offset, end, budget).await
                }
                Turn::Records(records) => Ok(records),
                Turn::Nothing => {
                    self.take_turn_from(&watch);
                    continue;
                }
                Turn::Failed(error) => Err(error),
            };
            match &records {
                Ok(records) => {
                    budget = budget.saturating_sub(read_bytes(records));
                    if let Some(assigned) = self.assigned.get_mut(&watch.name) {
                        assigned.offset =
                            records.last().map_or(assigned.offset, |record| record.offset + 1);
                    }
                    self.take_turn_from(&watch);
                }
                Err(_) => self.unassign(&watch.name),
            }
            fetched.push(Fetched { from: watch.name.clone(), records });
        }
        fetched
    }

    /// Looks at the partition at the front of the list.
    fn turn(&mut self, watch: &Arc<Watch>, budget: usize) -> Turn {
        let assigned = self.assigned.get_mut(&watch.name);
        let Some(assigned) = assigned.filter(|assigned| !assigned.paused) else {
            return Turn::Nothing;
        };
        if self.core.is_crashed() {
            return Turn::Failed(ReadError::Unavailable);
        }
        let part = match &assigned.part {
            Some(part) => Arc::clone(part),
            None => match self.core.readable(&watch.name) {
                Ok(part) => {
                    part.watch(watch);
                    assigned.part = Some(Arc::clone(&part));
                    part
                }
                Err(error) => return Turn::Failed(error),
            },
        };
        match part.look(assigned.offset, budget) {
            Ok(Look::Here(records)) if records.is_empty() => Turn::Nothing,
            Ok(Look::Here(records)) => {
                self.core.metrics.tail_reads.inc();
                Turn::Records(records)
            }
            Ok(Look::InStore(end)) => {
                let offset = assigned.offset;
                Turn::InStore(part, offset, end)
            }
            Err(error) => Turn::Failed(error),
        }
    }

    /// Takes `watch` off the front of the list, and puts it at the back if there
    /// is more to read: an append that came while it was in the list did not add
    /// it again.
    fn take_turn_from(&self, watch: &Arc<Watch>) {
        let mut queue = self.ready.queue.lock();
        if queue.front().is_some_and(|front| Arc::ptr_eq(front, watch)) {
            queue.pop_front();
        }
        drop(queue);
        watch.taken();
        let assigned = self.assigned.get(&watch.name).filter(|assigned| !assigned.paused);
        if let Some(Assigned { offset, part: Some(part), .. }) = assigned
            && part.ends().map_or(true, |ends| ends.end != *offset)
        {
            watch.wake();
        }
    }
}

fn read_bytes(records: &[Record]) -> usize {
    records.iter().map(super::batch::stored_bytes).sum()
}

impl Assigned {
    fn forget(&self) {
        if let Some(part) = &self.part {
            part.unwatch(&self.watch);
        }
    }
}

impl Drop for LocalReader {
    fn drop(&mut self) {
        for assigned in self.assigned.values() {
            assigned.forget();
        }
    }
}
