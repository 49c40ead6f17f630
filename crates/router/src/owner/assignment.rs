//! Which source partitions a decider reads, and what it does about those that
//! cannot be read.

use std::time::Duration;

use tidings_broker::ReadError;
use tidings_types::{Instant, TopicPartition};

use super::Decider;
use crate::{patience::End, service::GROUP, sources::sources};

/// How long an unreadable partition is left alone.
const UNREADABLE: Duration = Duration::from_secs(1);

impl Decider<'_> {
    /// Takes new topics and partitions up, and drops those that are gone.
    pub(super) async fn update_sources(&mut self) -> Result<(), End> {
        let topics = self.topics.borrow_and_update().clone();
        let wanted = sources(&topics, self.partition);
        let gone: Vec<TopicPartition> =
            self.next.keys().filter(|source| !wanted.contains(source)).cloned().collect();
        for source in gone {
            tracing::warn!(%source, "a source partition is gone");
            self.reader.unassign(&source);
            self.progress.remove(&source);
            self.next.remove(&source);
            self.parked.remove(&source);
        }
        let new: Vec<TopicPartition> =
            wanted.into_iter().filter(|source| !self.next.contains_key(source)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let Ok(committed) = self.shared.deps.broker.committed(GROUP, &new).await else {
            return Err(End::Lost);
        };
        if committed.iter().any(Option::is_some) {
            // Something of it may be decided: only a takeover can tell what.
            return Err(End::Lost);
        }
        let mut added = false;
        for source in new {
            // One that is not there yet shows up at the next look.
            let Ok(ends) = self.shared.deps.broker.ends(&source).await else { continue };
            self.progress.add(source.clone(), ends.first);
            self.next.insert(source.clone(), ends.first);
            self.park(source, self.shared.deps.clock.monotonic());
            added = true;
        }
        if added {
            // Committed before the first record of them is decided.
            self.progress.commit(self.commits, self.patience).await?;
            self.unpark();
        }
        Ok(())
    }

    /// Reads nothing of it until then.
    pub(super) fn park(&mut self, source: TopicPartition, until: Instant) {
        self.reader.unassign(&source);
        self.parked.insert(source, until);
    }

    /// Reads on where the time has come.
    pub(super) fn unpark(&mut self) {
        let now = self.shared.deps.clock.monotonic();
        let due: Vec<TopicPartition> = self
            .parked
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(source, _)| source.clone())
            .collect();
        for source in due {
            self.parked.remove(&source);
            if let Some(next) = self.next.get(&source) {
                self.reader.assign(source, *next);
            }
        }
    }

    /// A read of `source` failed. The others go on.
    pub(super) fn unreadable(&mut self, source: TopicPartition, error: &ReadError) {
        self.shared.deps.metrics.unreadable.inc();
        match error {
            ReadError::Trimmed { first, .. } => {
                // The next decision says how many offsets were skipped.
                tracing::error!(%source, %error, "source records have expired before they were routed");
                self.reader.assign(source, *first);
                return;
            }
            ReadError::BeyondEnd { .. } => tracing::error!(
                %source, %error,
                "the topic was made anew or lost its tail; raise ingest.source_epoch if it was made anew"
            ),
            ReadError::Damaged { .. } => {
                tracing::error!(%source, %error, "this source partition stands still");
            }
            ReadError::UnknownPartition(_) | ReadError::Unavailable => {
                tracing::warn!(%source, %error, "a source partition is tried again");
            }
        }
        let until = self.shared.deps.clock.monotonic() + UNREADABLE;
        self.park(source, until);
    }
}
