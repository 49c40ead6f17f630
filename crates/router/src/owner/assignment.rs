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
            let next = self.next.remove(&source).unwrap_or(0);
            self.progress.remove(&source, next);
            self.parked.remove(&source);
            self.stopped.goes_on(&source);
        }
        for source in std::mem::take(&mut self.anew) {
            if wanted.contains(&source) {
                self.anew.insert(source);
            } else {
                self.stopped.goes_on(&source);
            }
        }
        let is_new = |source: &TopicPartition| {
            !self.next.contains_key(source) && !self.anew.contains(source)
        };
        let new: Vec<TopicPartition> = wanted.into_iter().filter(is_new).collect();
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
        let epoch = self.shared.config.source_epoch;
        let is_anew = |source: &TopicPartition| {
            self.progress.reached(source).is_some_and(|reached| reached.epoch >= epoch)
        };
        let (anew, new): (Vec<_>, Vec<_>) = new.into_iter().partition(is_anew);
        self.wait_for_epoch(anew);
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

    /// Nothing of these is read until the source epoch is raised. They get no commit, which
    /// would say that nothing is wrong.
    pub(super) fn wait_for_epoch(&mut self, anew: Vec<TopicPartition>) {
        for source in anew {
            let reached = self.progress.reached(&source).map_or(0, |reached| reached.next);
            self.shared.deps.metrics.unreadable.inc();
            if self.stopped.stands(&source, reached) {
                tracing::error!(
                    %source, reached,
                    "a source topic was made anew: the broker has forgotten how far it was \
                     routed. Its events wait, since events without a producer's id could be \
                     taken for those that stood at the same offsets before; raise \
                     ingest.source_epoch and restart the routers"
                );
            }
            self.anew.insert(source);
        }
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
                self.stopped.goes_on(&source);
                self.reader.assign(source, *first);
                return;
            }
            ReadError::BeyondEnd { offset, .. } => {
                if self.stopped.stands(&source, *offset) {
                    tracing::error!(
                        %source, %error,
                        "the topic was made anew or lost its tail, and its events wait; raise \
                         ingest.source_epoch if it was made anew, and restart the routers"
                    );
                }
            }
            ReadError::Damaged { offset, .. } => {
                if self.stopped.stands(&source, *offset) {
                    tracing::error!(
                        %source, %error,
                        "a batch cannot be read, and what stands behind it in its partition \
                         waits; once it is certain that nobody needs the batch, delete the \
                         records before the next one"
                    );
                }
            }
            ReadError::UnknownPartition(_) | ReadError::Unavailable => {
                tracing::warn!(%source, %error, "a source partition is tried again");
            }
        }
        let until = self.shared.deps.clock.monotonic() + UNREADABLE;
        self.park(source, until);
    }
}
