//! What an earlier owner left undecided before decisions that stand (`front`).

use std::{ops::Range, time::Duration};

use tidings_broker::{Fetched, ReadError, Record};
use tidings_types::{Instant, Offset, TopicPartition};

use super::{Decider, append_rest};
use crate::{deliver::Deliverer, patience::End};

/// How long a topic must be unknown to be taken for gone.
const GONE_FOR_GOOD: Duration = Duration::from_secs(60);

impl Decider<'_> {
    /// Decides what an earlier owner left undecided before decisions that stand, before
    /// anything is committed: whoever takes over meanwhile finds the same gaps.
    pub(super) async fn make_up(
        &mut self,
        gaps: Vec<(TopicPartition, Range<Offset>)>,
    ) -> Result<(), End> {
        for (source, gap) in gaps {
            tracing::warn!(
                %source,
                ?gap,
                "an append failed in part; what it left out is decided now"
            );
            let behind = self.next.insert(source.clone(), gap.start);
            self.make_up_for(&source, gap).await?;
            if let Some(behind) = behind {
                self.next.insert(source, behind);
            }
        }
        // Everything that is decided has its deliveries, and nothing before `next` is not
        // decided.
        self.progress.advance(self.fence.next(), &self.next, 0);
        Ok(())
    }

    async fn make_up_for(
        &mut self,
        source: &TopicPartition,
        gap: Range<Offset>,
    ) -> Result<(), End> {
        let deliverer = Deliverer { shared: self.shared, patience: self.patience };
        let mut at = gap.start;
        let mut tries = self.patience.tries();
        let mut gone_since = None;
        while at < gap.end {
            let broker = &self.shared.deps.broker;
            let records = match broker.read(source, at, self.shared.config.poll_bytes).await {
                Ok(records) => records,
                Err(ReadError::Trimmed { first, .. }) => {
                    self.shared.deps.metrics.unreadable.inc();
                    tracing::error!(%source, "source records have expired before they were routed");
                    at = first;
                    continue;
                }
                Err(error) => {
                    let is_gone = matches!(error, ReadError::UnknownPartition(_));
                    if self.is_passed(source, &gap, is_gone.then_some(&mut gone_since)) {
                        return Ok(());
                    }
                    self.shared.deps.metrics.unreadable.inc();
                    if tries.is_worth_a_line() {
                        tracing::error!(
                            %source, at, %error,
                            "what an append left out cannot be read, and its owner waits for it"
                        );
                    }
                    tries.again().await?;
                    continue;
                }
            };
            let Some(last) = records.last().map(|record| record.offset) else {
                tries.again().await?;
                continue;
            };
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
        Ok(())
    }

    /// Whether a gap is passed because its topic has been gone for a while: a broker that
    /// has just come back may know less for a moment.
    fn is_passed(
        &self,
        source: &TopicPartition,
        gap: &Range<Offset>,
        gone_since: Option<&mut Option<Instant>>,
    ) -> bool {
        let now = self.shared.deps.clock.monotonic();
        let is_passed =
            gone_since.is_some_and(|since| now.since(*since.get_or_insert(now)) >= GONE_FOR_GOOD);
        if is_passed {
            tracing::error!(
                %source,
                ?gap,
                "what an append left out went with its topic and is not decided"
            );
        }
        is_passed
    }
}
