//! The readers of delivery partitions: as many as are needed, each with at most so
//! many partitions (a consumer with thousands stands still, `kafka-run.md`).

use std::{collections::HashMap, future::Future, pin::Pin};

use futures::future::select_all;
use tidings_broker::{Broker, Fetched, Reader};
use tidings_types::{Offset, TopicPartition};

use crate::metrics::Metrics;

#[derive(Debug)]
struct Place {
    reader: Reader,
    partitions: usize,
}

/// Readers that share the work.
#[derive(Debug)]
pub(crate) struct Readers {
    broker: Broker,
    places: Vec<Place>,
    of: HashMap<TopicPartition, usize>,
    per_reader: usize,
    metrics: Metrics,
}

impl Readers {
    pub(crate) fn new(broker: Broker, per_reader: usize, metrics: Metrics) -> Self {
        let per_reader = per_reader.max(1);
        Self { broker, places: Vec::new(), of: HashMap::new(), per_reader, metrics }
    }

    /// Reads a partition from `offset` on.
    pub(crate) fn assign(&mut self, partition: TopicPartition, offset: Offset) {
        let index = match self.of.get(&partition) {
            Some(index) => *index,
            None => {
                let free = self.places.iter().position(|p| p.partitions < self.per_reader);
                let index = free.unwrap_or_else(|| {
                    self.places.push(Place { reader: self.broker.reader(), partitions: 0 });
                    self.places.len() - 1
                });
                self.of.insert(partition.clone(), index);
                if let Some(place) = self.places.get_mut(index) {
                    place.partitions += 1;
                }
                self.count();
                index
            }
        };
        if let Some(place) = self.places.get_mut(index) {
            place.reader.assign(partition, offset);
        }
    }

    pub(crate) fn unassign(&mut self, partition: &TopicPartition) {
        if let Some(place) = self.of.remove(partition).and_then(|i| self.places.get_mut(i)) {
            place.partitions = place.partitions.saturating_sub(1);
            place.reader.unassign(partition);
            self.count();
        }
    }

    fn count(&self) {
        let fullest = self.places.iter().map(|place| place.partitions).max();
        self.metrics.set_readers(self.of.len(), fullest.unwrap_or(0), self.places.len());
    }

    pub(crate) fn pause(&mut self, partition: &TopicPartition) {
        if let Some(place) = self.of.get(partition).and_then(|i| self.places.get_mut(*i)) {
            place.reader.pause(partition);
        }
    }

    pub(crate) fn resume(&mut self, partition: &TopicPartition) {
        if let Some(place) = self.of.get(partition).and_then(|i| self.places.get_mut(*i)) {
            place.reader.resume(partition);
        }
    }

    /// Waits until there is something to read. Safe to drop while waiting.
    pub(crate) async fn poll(&mut self, max_bytes: usize) -> Vec<Fetched> {
        match self.places.as_mut_slice() {
            [] => std::future::pending().await,
            [one] => one.reader.poll(max_bytes).await,
            many => {
                type Poll<'a> = Pin<Box<dyn Future<Output = Vec<Fetched>> + Send + 'a>>;
                let polls = many
                    .iter_mut()
                    .map(|place| -> Poll<'_> { Box::pin(place.reader.poll(max_bytes)) });
                select_all(polls).await.0
            }
        }
    }
}
