//! Which source partitions a decider reads, and what it does about those that
//! cannot be read.
//!
//! One that is listed and that a broker cannot be asked about now is looked at again and
//! again, beside the loop that decides, so that it holds up no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidings_broker::{Broker, PartitionEnds, ReadError};
use tidings_types::{Instant, Offset, TopicPartition};

use super::Decider;
use crate::{metrics::Metrics, patience::End, service::GROUP, sources::sources};

/// How long an unreadable partition is left alone.
const UNREADABLE: Duration = Duration::from_secs(1);

/// Source partitions that are listed and not read, since nobody knows yet where they
/// begin. What it told ends with it.
#[derive(Debug)]
pub(super) struct Unread<'a> {
    metrics: &'a Metrics,
    /// How often each was looked at in vain.
    sources: BTreeMap<TopicPartition, u32>,
}

impl<'a> Unread<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, sources: BTreeMap::new() }
    }

    fn set(&mut self, sources: BTreeSet<TopicPartition>) {
        let before = std::mem::take(&mut self.sources);
        self.metrics.unread.dec_by(gauge(before.len()));
        let with_times = |source: TopicPartition| {
            let times = before.get(&source).copied().unwrap_or(0);
            (source, times)
        };
        self.sources = sources.into_iter().map(with_times).collect();
        self.metrics.unread.inc_by(gauge(self.sources.len()));
    }

    /// Says whether that is worth a line: the first time, and then ever less often.
    fn failed(&mut self, source: &TopicPartition) -> bool {
        let Some(times) = self.sources.get_mut(source) else { return false };
        *times = times.saturating_add(1);
        times.is_power_of_two()
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.metrics.unread.dec_by(gauge(self.sources.len()));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a look at source partitions came to.
#[derive(Debug)]
pub(super) struct Looked {
    ends: Vec<(TopicPartition, Result<PartitionEnds, ReadError>)>,
    /// Of those before a gap, one that can be read again.
    readable: Option<TopicPartition>,
}

async fn look(
    broker: Broker,
    unread: Vec<TopicPartition>,
    behind: BTreeMap<TopicPartition, Offset>,
) -> Looked {
    let mut ends = Vec::with_capacity(unread.len());
    for source in unread {
        let found = broker.ends(&source).await;
        ends.push((source, found));
    }
    let mut readable = None;
    for (source, at) in behind {
        match broker.read(&source, at, 1).await {
            Ok(records) if records.is_empty() => {}
            Ok(_) | Err(ReadError::Trimmed { .. }) => readable = Some(source),
            Err(_cannot_be_read_yet) => {}
        }
    }
    Looked { ends, readable }
}

impl Decider<'_> {
    /// When the next look is due.
    pub(super) fn looks_at(&self) -> Option<Instant> {
        let is_wanted = !self.unread.sources.is_empty() || !self.behind.is_empty();
        (self.looks.is_empty() && is_wanted).then_some(self.next_look)
    }

    /// Looks at what is not read, if it is time.
    pub(super) fn look_if_due(&mut self) {
        let now = self.shared.deps.clock.monotonic();
        if self.looks_at().is_none_or(|at| at > now) {
            return;
        }
        self.next_look = now + self.shared.config.topics_interval;
        let unread = self.unread.sources.keys().cloned().collect();
        let broker = self.shared.deps.broker.clone();
        self.looks.spawn(look(broker, unread, self.behind.clone()));
    }

    /// Notes which sources are listed and not read, and looks at new ones at once.
    pub(super) fn note_unread(&mut self) {
        let wanted = sources(&self.topics.borrow().clone(), self.partition);
        let is_unread = |source: &TopicPartition| {
            !self.next.contains_key(source)
                && !self.anew.contains(source)
                && !self.behind.contains_key(source)
        };
        let unread: BTreeSet<_> = wanted.into_iter().filter(is_unread).collect();
        if unread.iter().any(|source| !self.unread.sources.contains_key(source)) {
            self.next_look = self.shared.deps.clock.monotonic();
        }
        self.unread.set(unread);
    }

    /// Drops topics and partitions that are gone, and notes new ones.
    pub(super) fn update_sources(&mut self) {
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
        for source in
            self.behind.keys().filter(|it| !wanted.contains(it)).cloned().collect::<Vec<_>>()
        {
            tracing::error!(%source, "what an append left out went with its topic and is not decided");
            self.behind.remove(&source);
            self.stopped.goes_on(&source);
        }
        self.note_unread();
    }

    /// Reads those that a look has found, from where they begin.
    pub(super) async fn take_up(&mut self, looked: Looked) -> Result<(), End> {
        if let Some(source) = looked.readable.filter(|source| self.behind.contains_key(source)) {
            tracing::info!(%source, "what an append left out can be read again");
            return Err(End::Lost);
        }
        let mut first = BTreeMap::new();
        for (source, ends) in looked.ends {
            match ends {
                Ok(ends) if self.unread.sources.contains_key(&source) => {
                    first.insert(source, ends.first);
                }
                // Gone meanwhile.
                Ok(_) => {}
                Err(error) => {
                    if self.unread.failed(&source) {
                        tracing::warn!(%source, %error, "a source partition cannot be looked at now and is not read; trying again");
                    }
                }
            }
        }
        let new: Vec<TopicPartition> = first.keys().cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let committed = match self.shared.deps.broker.committed(GROUP, &new).await {
            Ok(committed) => committed,
            Err(error) => {
                tracing::warn!(%error, "what is committed of new source partitions is not known now");
                return Ok(());
            }
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
        let (anew, new): (Vec<_>, Vec<_>) =
            first.into_iter().partition(|(source, _)| is_anew(source));
        self.wait_for_epoch(anew.into_iter().map(|(source, _)| source).collect());
        for (source, first) in new {
            self.progress.add(source.clone(), first);
            self.next.insert(source.clone(), first);
            self.park(source, self.shared.deps.clock.monotonic());
            added = true;
        }
        self.note_unread();
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
