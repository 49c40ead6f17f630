//! Source partitions that stand still until a person acts, told as a metric that names
//! them and where they stand.

use std::collections::BTreeMap;

use tidings_types::{Offset, TopicPartition};

use crate::metrics::Metrics;

/// Those of one owner. What it told ends with it.
#[derive(Debug)]
pub(super) struct Stopped<'a> {
    metrics: &'a Metrics,
    /// How often each was found to stand.
    found: BTreeMap<TopicPartition, u32>,
}

impl<'a> Stopped<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, found: BTreeMap::new() }
    }

    /// It stands at this offset. Says whether that is worth a line: the first time, and
    /// then ever less often.
    pub(super) fn stands(&mut self, source: &TopicPartition, at: Offset) -> bool {
        self.metrics.stop(source, at);
        let times = self.found.entry(source.clone()).or_default();
        *times = times.saturating_add(1);
        times.is_power_of_two()
    }

    pub(super) fn goes_on(&mut self, source: &TopicPartition) {
        if self.found.remove(source).is_some() {
            self.metrics.go_on(source);
        }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.found.keys().for_each(|source| self.metrics.go_on(source));
    }
}
