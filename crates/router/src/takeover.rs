//! Taking a partition of `tidings.routed` over.
//!
//! The new owner appends `took`. What earlier owners wrote before it counts, what
//! they write behind it is void. Then it reads from the committed position up to
//! its own `took`: a record that is decided there is never decided again; the same
//! deliveries are appended once more. So one source record has one decision,
//! whatever has changed in the registry meanwhile. What an earlier owner left
//! undecided before a decision that stands is found here too (`front`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use tidings_broker::{AppendError, CommittedPosition, ReadError, Record};
use tidings_delivery::TookOrder;
use tidings_proto::{decode, v1};
use tidings_registry::Snapshot;
use tidings_types::{Offset, Partition, Sabotage, TopicPartition};
use v1::routed_record::Kind;

use crate::{
    deliver::Deliverer,
    front::Front,
    patience::{End, Patience},
    position::{Covered, Known, Reached},
    records::{is_known_format, routed_place, source_of, took},
    service::{GROUP, Shared},
};

/// How much of `tidings.routed` is read at once.
const READ_BYTES: usize = 1 << 20;

/// A takeover of one partition.
pub(crate) struct Takeover<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) patience: &'a Patience,
    pub(crate) partition: Partition,
}

/// What a takeover found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Where this owner's `took` stands.
    pub(crate) took: Offset,
    /// The first offset of each source partition behind everything that is decided.
    pub(crate) next: BTreeMap<TopicPartition, Offset>,
    /// What is not decided before that.
    pub(crate) gaps: Vec<(TopicPartition, Range<Offset>)>,
    /// How far sources were decided that have no commit.
    pub(crate) known: Known,
    /// Those of them whose topic was made anew without a raised epoch.
    pub(crate) anew: Vec<TopicPartition>,
}

/// What a takeover finds of a source partition.
enum Found {
    /// Nobody knows now where it begins: its owner looks again.
    Later,
    Start(Start),
    /// Its topic was made anew, and the epoch is not raised.
    Anew,
}

/// Where a source partition stands in the commits.
#[derive(Clone, Copy, Debug)]
struct Start {
    committed: Offset,
    covered: Option<Covered>,
    /// Something else than a router has committed: nothing is known of `routed`.
    is_foreign: bool,
    /// The topic was made anew under a raised epoch: older decisions say nothing.
    is_anew: bool,
}

impl Takeover<'_> {
    /// Takes over and repeats the deliveries that may be missing.
    ///
    /// # Errors
    /// When it is stopped, or the log failed for good.
    pub(crate) async fn run(&self, sources: &BTreeSet<TopicPartition>) -> Result<Taken, End> {
        self.shared.deps.metrics.takeovers.inc();
        let took = self.append_took().await?;
        let (starts, known, anew) = self.starts(sources).await?;
        let snapshot = self.shared.fold(self.patience).await?;
        let mut replay = Replay::new(self.shared.deps.sabotage, &starts);
        self.replay(&mut replay, took, &snapshot).await?;
        tracing::info!(
            partition = self.partition,
            took,
            sources = sources.len(),
            repeated = replay.repeated,
            "took a partition of tidings.routed over"
        );
        let (mut next, mut gaps) = (BTreeMap::new(), Vec::new());
        for (source, front) in replay.fronts {
            let (offset, open) = front.close();
            gaps.extend(open.into_iter().map(|gap| (source.clone(), gap)));
            next.insert(source, offset);
        }
        Ok(Taken { took, next, gaps, known, anew })
    }

    /// A `took` whose fate is unknown is simply followed by another.
    async fn append_took(&self) -> Result<Offset, End> {
        let deps = &self.shared.deps;
        let mut owner = [0; 16];
        deps.rng.fill(&mut owner);
        let mut tries = self.patience.tries();
        loop {
            let batch = took(owner, deps.clock.now(), self.partition);
            match deps.broker.append(vec![batch]).await.into_iter().next() {
                Some(Ok(offsets)) => {
                    if let Some(offset) = offsets.first() {
                        return Ok(offset);
                    }
                }
                Some(Err(AppendError::Fatal(why))) => return Err(End::Fatal(why)),
                Some(Err(error)) => {
                    deps.metrics.failed_appends.inc();
                    if tries.is_worth_a_line() {
                        tracing::warn!(%error, partition = self.partition, "a takeover waits");
                    }
                }
                None => {}
            }
            tries.again().await?;
        }
    }

    async fn starts(
        &self,
        sources: &BTreeSet<TopicPartition>,
    ) -> Result<(BTreeMap<TopicPartition, Start>, Known, Vec<TopicPartition>), End> {
        let of: Vec<TopicPartition> = sources.iter().cloned().collect();
        let mut tries = self.patience.tries();
        let committed = loop {
            match self.shared.deps.broker.committed(GROUP, &of).await {
                Ok(committed) => break committed,
                Err(_cannot_be_read_now) => tries.again().await?,
            }
        };
        let mut known = Known::default();
        committed.iter().flatten().for_each(|committed| known.read(&committed.metadata));
        let (mut starts, mut anew) = (BTreeMap::new(), Vec::new());
        for (source, committed) in of.into_iter().zip(committed) {
            match self.start(&source, committed, known.of(&source)).await {
                Found::Later => {}
                Found::Start(start) => {
                    starts.insert(source, start);
                }
                Found::Anew => anew.push(source),
            }
        }
        Ok((starts, known, anew))
    }

    /// Where to begin with a source partition. Where it ends is asked only if that says
    /// something, and once: no source holds up the others.
    async fn start(
        &self,
        source: &TopicPartition,
        committed: Option<CommittedPosition>,
        reached: Option<Reached>,
    ) -> Found {
        let epoch = self.shared.config.source_epoch;
        let Some(committed) = committed else {
            if reached.is_some_and(|reached| reached.epoch >= epoch) {
                return Found::Anew;
            }
            let Ok(ends) = self.shared.deps.broker.ends(source).await else {
                return Found::Later;
            };
            return Found::Start(Start {
                committed: ends.first,
                covered: None,
                is_foreign: false,
                is_anew: reached.is_some(),
            });
        };
        let covered = Covered::parse(&committed.metadata);
        let is_foreign = covered.is_none();
        if covered.is_none_or(|covered| covered.epoch >= epoch) {
            let committed = committed.next;
            return Found::Start(Start { committed, covered, is_foreign, is_anew: false });
        }
        let Ok(ends) = self.shared.deps.broker.ends(source).await else { return Found::Later };
        let is_anew = committed.next > ends.end;
        let committed = if is_anew { ends.first } else { committed.next };
        Found::Start(Start { committed, covered, is_foreign, is_anew })
    }

    async fn replay(
        &self,
        replay: &mut Replay<'_>,
        took: Offset,
        snapshot: &Snapshot,
    ) -> Result<(), End> {
        let place = routed_place(self.partition);
        let deliverer = Deliverer { shared: self.shared, patience: self.patience };
        let mut at = replay.from;
        let mut tries = self.patience.tries();
        while at < took {
            let records = match self.shared.deps.broker.read(&place, at, READ_BYTES).await {
                Ok(records) => records,
                Err(ReadError::Trimmed { first, .. }) => {
                    at = first;
                    continue;
                }
                Err(error) => {
                    if tries.is_worth_a_line() {
                        tracing::error!(%error, "a takeover cannot read the decisions and waits");
                    }
                    tries.again().await?;
                    continue;
                }
            };
            let Some(last) = records.last() else {
                tries.again().await?;
                continue;
            };
            at = last.offset + 1;
            let before = records.into_iter().filter(|record| record.offset < took);
            let (decisions, void) = replay.fold(before);
            self.shared.deps.metrics.void_records.inc_by(void);
            let count = u64::try_from(decisions.len()).unwrap_or(u64::MAX);
            self.shared.deps.metrics.repeated_decisions.inc_by(count);
            deliverer.deliver(&decisions, Some(snapshot)).await?;
        }
        Ok(())
    }
}

/// The fold over what stands in `tidings.routed` since the commits.
struct Replay<'a> {
    sabotage: Sabotage,
    starts: &'a BTreeMap<TopicPartition, Start>,
    from: Offset,
    order: TookOrder,
    fronts: BTreeMap<TopicPartition, Front>,
    repeated: usize,
}

impl<'a> Replay<'a> {
    fn new(sabotage: Sabotage, starts: &'a BTreeMap<TopicPartition, Start>) -> Self {
        // A source partition is committed before it is first decided, so one
        // without a commit has no decision and says nothing about where to begin.
        let mut order = TookOrder::default();
        let least = if starts.values().any(|start| start.is_foreign) {
            None
        } else {
            starts.values().filter_map(|start| start.covered).min_by_key(|it| it.routed)
        };
        if let Some(covered) = least {
            order.took(covered.took);
        }
        Self {
            sabotage,
            starts,
            from: least.map_or(0, |covered| covered.routed),
            order,
            fronts: starts
                .iter()
                .map(|(source, start)| (source.clone(), Front::at(start.committed)))
                .collect(),
            repeated: 0,
        }
    }

    /// Reads records in order. Gives the decisions whose deliveries may be missing
    /// and how many records were void for reasons that should not be.
    fn fold(&mut self, records: impl Iterator<Item = Record>) -> (Vec<v1::Decision>, u64) {
        let mut decisions = Vec::new();
        let mut strange = 0;
        for record in records {
            let offset = record.offset;
            let known = record.value.filter(|_| is_known_format(&record.headers));
            let Some(Ok(routed)) = known.map(decode::<v1::RoutedRecord>) else {
                strange += 1;
                tracing::error!(offset, "a record of tidings.routed does not decode and is void");
                continue;
            };
            match routed.kind {
                Some(Kind::TookOver(_)) => self.order.took(offset),
                Some(Kind::Decision(decision)) => {
                    let counts = self.order.counts(routed.took);
                    if !counts && self.sabotage != Sabotage::NoRoutedFencing {
                        continue;
                    }
                    match self.decision(&decision) {
                        Seen::Missing => decisions.push(decision),
                        Seen::Delivered => {}
                        Seen::Twice => {
                            strange += 1;
                            tracing::error!(
                                offset,
                                "a source record is decided twice; the first decision counts"
                            );
                        }
                    }
                }
                None => strange += 1,
            }
        }
        self.repeated += decisions.len();
        (decisions, strange)
    }

    fn decision(&mut self, decision: &v1::Decision) -> Seen {
        let Some((source, offset)) = source_of(decision) else { return Seen::Delivered };
        // Of a topic that is gone: its deliveries may still be missing.
        let Some(start) = self.starts.get(&source) else { return Seen::Missing };
        if start.is_anew {
            return Seen::Missing;
        }
        if offset < start.committed {
            return Seen::Delivered;
        }
        if self.sabotage == Sabotage::DecideAnew {
            return Seen::Missing;
        }
        let front = self.fronts.entry(source).or_insert_with(|| Front::at(start.committed));
        // Only behind a commit of ours every decision is read.
        let is_new = if start.covered.is_some() {
            front.note(offset, decision.skipped)
        } else {
            front.jump(offset)
        };
        if is_new { Seen::Missing } else { Seen::Twice }
    }
}

/// What is known of a decision.
enum Seen {
    /// Its deliveries may be missing.
    Missing,
    Delivered,
    Twice,
}
