//! What an earlier owner left undecided before decisions that stand (`front`).
//!
//! Where it cannot be read now, its source stands still by itself: it gets no commit, so
//! that whoever takes over finds the same, and once it can be read its owner takes over
//! anew.

use std::{ops::Range, time::Duration};

use tidings_broker::{Fetched, ReadError, Record};
use tidings_types::{Offset, TopicPartition};

use super::{Decider, append_rest};
use crate::{deliver::Deliverer, patience::End};

/// For so long all sources of an owner wait for a gap that cannot be read.
const WAITS: Duration = Duration::from_secs(10);

impl Decider<'_> {
    /// Decides what an earlier owner left undecided before decisions that stand, before
    /// anything is committed: whoever takes over meanwhile finds the same gaps.
    pub(super) async fn make_up(
        &mut self,
        gaps: Vec<(TopicPartition, Range<Offset>)>,
    ) -> Result<(), End> {
        for (source, gap) in gaps {
            if self.behind.contains_key(&source) {
                continue;
            }
            tracing::warn!(
                %source,
                ?gap,
                "an append failed in part; what it left out is decided now"
            );
            let behind = self.next.insert(source.clone(), gap.start);
            match self.make_up_for(&source, gap).await? {
                Ok(()) => {
                    if let Some(behind) = behind {
                        self.next.insert(source, behind);
                    }
                }
                Err(at) => self.leave_behind(source, at),
            }
        }
        // Everything that is decided has its deliveries, and nothing before `next` is not
        // decided.
        self.progress.advance(self.fence.next(), &self.next, 0);
        Ok(())
    }

    /// Decides what is in a gap, or says where it cannot be read.
    async fn make_up_for(
        &mut self,
        source: &TopicPartition,
        gap: Range<Offset>,
    ) -> Result<Result<(), Offset>, End> {
        let deliverer = Deliverer { shared: self.shared, patience: self.patience };
        let mut at = gap.start;
        let mut tries = self.patience.tries();
        let mut failing_since = None;
        while at < gap.end {
            let broker = &self.shared.deps.broker;
            let read = broker.read(source, at, self.shared.config.poll_bytes).await;
            if let Err(ReadError::Trimmed { first, .. }) = read {
                self.shared.deps.metrics.unreadable.inc();
                tracing::error!(%source, "source records have expired before they were routed");
                at = first;
                continue;
            }
            if let Err(error) = &read {
                self.shared.deps.metrics.unreadable.inc();
                if tries.is_worth_a_line() {
                    tracing::warn!(%source, at, %error, "what an append left out cannot be read");
                }
            }
            let records = read.unwrap_or_default();
            let Some(last) = records.last().map(|record| record.offset) else {
                let now = self.shared.deps.clock.monotonic();
                if now.since(*failing_since.get_or_insert(now)) >= WAITS {
                    return Ok(Err(at));
                }
                tries.again().await?;
                continue;
            };
            failing_since = None;
            let inside: Vec<Record> =
                records.into_iter().filter(|record| record.offset < gap.end).collect();
            let reached = inside.last().map_or(gap.end, |record| record.offset + 1);
            let fetched = Fetched { from: source.clone(), records: Ok(inside) };
            if let Some(decided) = self.batch(vec![fetched]).await? {
                append_rest(&deliverer, decided.rest).await?;
            }
            let next = self.next.get(source).copied().unwrap_or(reached);
            if next < reached {
                // Its topic is paused.
                tries.again().await?;
            }
            at = if next < reached { next } else { last + 1 };
        }
        Ok(Ok(()))
    }

    /// What stands in the gap cannot be read. Nothing of its source is read or committed
    /// until it can be.
    fn leave_behind(&mut self, source: TopicPartition, at: Offset) {
        self.next.remove(&source);
        self.progress.leave_out(&source);
        if self.stopped.stands(&source, at) {
            tracing::error!(
                %source, at,
                "what an append left out cannot be read, and what stands behind it in its \
                 partition waits; once it is certain that nobody needs it, delete the records \
                 before the next ones"
            );
        }
        self.behind.insert(source, at);
    }
}
