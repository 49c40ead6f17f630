//! One owned partition of `tidings.routed`: its source partitions are read,
//! decided, written ahead, delivered and committed here.
//!
//! Three loops run side by side in one task. One decides batches and appends the
//! decisions; one appends what follows from the batch before; one commits. Between
//! them is room for one batch, so order holds and memory is bounded. An idle owner
//! waits and uses nothing.

mod assignment;
mod gaps;
mod stopped;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidings_broker::{
    AppendBatch, AppendError, Damage, Fetched, InOrder, NewRecord, Offsets, ReadError, Reader,
    Record,
};
use tidings_delivery::{Fence, Proof};
use tidings_proto::{decode, encode, v1};
use tidings_types::{Instant, Offset, Partition, Sabotage, TopicName, TopicPartition, names};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    decide::{Judge, RECORD_OVERHEAD, Verdict},
    deliver::{Chunk, Decided, Deliverer, Rest},
    patience::{End, Patience},
    progress::{CommitRequest, Progress},
    records::{self, routed_place},
    service::Shared,
    sources::{EventTopics, sources},
    takeover::Takeover,
};

use self::{
    assignment::{Looked, Unread},
    stopped::Stopped,
};

/// Batches between the deciding and the delivering loop.
const QUEUE: usize = 1;

/// What an owner is started with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) partition: Partition,
    pub(crate) patience: Patience,
    pub(crate) topics: watch::Receiver<EventTopics>,
    pub(crate) commits: mpsc::Sender<CommitRequest>,
}

/// Owns a partition until it is stopped or loses it.
pub(crate) async fn own(start: Start) -> End {
    match Box::pin(run(start)).await {
        Ok(()) => End::Stopped,
        Err(end) => end,
    }
}

async fn run(start: Start) -> Result<(), End> {
    let Start { shared, partition, patience, mut topics, commits } = start;
    let found = sources(&topics.borrow_and_update().clone(), partition);
    let takeover = Takeover { shared: &shared, patience: &patience, partition };
    let taken = takeover.run(&found).await?;
    let epoch = shared.config.source_epoch;
    let progress = Progress::new(taken.took, epoch, taken.next.clone(), taken.known);
    let (queue, batches) = mpsc::channel(QUEUE);
    // Ends the deciding loop also when one of the others has ended.
    let halt = patience.stop.child_token();
    let deciding_patience = Patience { stop: halt.clone(), ..patience.clone() };
    let mut decider = Decider {
        shared: &shared,
        patience: &deciding_patience,
        partition,
        topics,
        commits: &commits,
        progress: &progress,
        fence: Fence::new(taken.took),
        reader: shared.deps.broker.reader(),
        next: taken.next,
        parked: BTreeMap::new(),
        anew: BTreeSet::new(),
        behind: BTreeMap::new(),
        unread: Unread::new(&shared.deps.metrics),
        looks: JoinSet::new(),
        next_look: shared.deps.clock.monotonic(),
        stopped: Stopped::new(&shared.deps.metrics),
        limit: shared.routed_limit().await,
    };
    decider.wait_for_epoch(taken.anew);
    decider.make_up(taken.gaps).await?;
    // From now on every source partition has a commit.
    progress.commit(&commits, &patience).await?;
    shared.ready(partition, true);
    decider.note_unread();
    for (source, next) in &decider.next {
        decider.reader.assign(source.clone(), *next);
    }
    let deciding = async {
        let end = decider.run(&queue).await;
        // The delivering loop ends when it has done what is in the queue.
        drop(queue);
        end
    };
    let delivering = async {
        let end = deliver(&shared, &patience, (&progress, &commits), batches).await;
        progress.finish();
        halt.cancel();
        end
    };
    let committing = async {
        let end = progress.keep_committing(&shared, &commits, &patience).await;
        halt.cancel();
        end
    };
    let (decided, delivered, committed) = tokio::select! {
        biased;
        ends = async { tokio::join!(deciding, delivering, committing) } => ends,
        () = take_lag(&shared, &progress) => (Ok(()), Ok(()), Ok(())),
    };
    // What is worse counts: the process must end, or the partition is lost.
    let ends = [decided, delivered, committed];
    let worst =
        |wanted: fn(&End) -> bool| ends.iter().find_map(|end| end.clone().err().filter(wanted));
    match worst(|end| matches!(end, End::Fatal(_))).or_else(|| worst(|end| *end == End::Lost)) {
        Some(end) => Err(end),
        None => Ok(()),
    }
}

async fn deliver(
    shared: &Shared,
    patience: &Patience,
    (progress, commits): (&Progress, &mpsc::Sender<CommitRequest>),
    mut batches: mpsc::Receiver<Decided>,
) -> Result<(), End> {
    let deliverer = Deliverer { shared, patience };
    while let Some(batch) = batches.recv().await {
        if shared.deps.sabotage == Sabotage::CommitBeforeDeliveries {
            progress.advance(batch.routed_next, &batch.positions, 0);
            progress.commit(commits, patience).await?;
        }
        let delivered = append_rest(&deliverer, batch.rest).await?;
        progress.advance(batch.routed_next, &batch.positions, batch.written + delivered);
    }
    Ok(())
}

/// Appends what follows from decisions that stand; gives the number of records.
async fn append_rest(deliverer: &Deliverer<'_>, rest: Rest) -> Result<u64, End> {
    match rest {
        Rest::Of(decisions) => deliverer.deliver(&decisions, None).await,
        Rest::Chunk(chunk) => deliverer.append_all(chunk).await,
    }
}

/// Keeps the gauge of what is not decided yet. Never ends; takes its share of the
/// gauge away when it is dropped.
async fn take_lag(shared: &Shared, progress: &Progress) {
    struct Share<'a>(&'a Shared, i64);
    impl Drop for Share<'_> {
        fn drop(&mut self) {
            self.0.deps.metrics.lag.dec_by(self.1);
        }
    }
    let mut share = Share(shared, 0);
    loop {
        shared.deps.clock.sleep(shared.config.topics_interval).await;
        let mut lag: u64 = 0;
        for (source, next) in progress.positions() {
            // One that cannot be read now is counted the next time.
            if let Ok(ends) = shared.deps.broker.ends(&source).await {
                lag += ends.end.saturating_sub(next.max(ends.first));
            }
        }
        let lag = i64::try_from(lag).unwrap_or(i64::MAX);
        shared.deps.metrics.lag.inc_by(lag - share.1);
        share.1 = lag;
    }
}

/// The deciding loop.
struct Decider<'a> {
    shared: &'a Shared,
    patience: &'a Patience,
    partition: Partition,
    topics: watch::Receiver<EventTopics>,
    commits: &'a mpsc::Sender<CommitRequest>,
    progress: &'a Progress,
    fence: Fence,
    reader: Reader,
    /// The first offset of each source partition that is not decided.
    next: BTreeMap<TopicPartition, Offset>,
    /// Source partitions that are not read until then.
    parked: BTreeMap<TopicPartition, Instant>,
    /// Those whose topic was made anew and that wait for a raised epoch.
    anew: BTreeSet<TopicPartition>,
    /// Those that stand before a gap that cannot be read, and where.
    behind: BTreeMap<TopicPartition, Offset>,
    unread: Unread<'a>,
    /// The look at those that is under way, if any, and when the next one is due.
    looks: JoinSet<Looked>,
    next_look: Instant,
    stopped: Stopped<'a>,
    /// The largest decision that `tidings.routed` took when this ownership began.
    limit: usize,
}

/// What a batch of decisions consists of.
#[derive(Default)]
struct Batch {
    decisions: Vec<v1::Decision>,
    quarantined: Vec<v1::QuarantineRecord>,
    positions: BTreeMap<TopicPartition, Offset>,
}

impl Decider<'_> {
    async fn run(&mut self, queue: &mpsc::Sender<Decided>) -> Result<(), End> {
        loop {
            self.look_if_due();
            let wake = self.parked.values().min().copied().into_iter().chain(self.looks_at()).min();
            tokio::select! {
                biased;
                () = self.patience.stop.cancelled() => return Ok(()),
                changed = self.topics.changed() => {
                    changed.map_err(|_service_is_gone| End::Stopped)?;
                    self.update_sources();
                }
                Some(looked) = self.looks.join_next() => match looked {
                    Ok(looked) => self.take_up(looked).await?,
                    Err(error) => {
                        tracing::error!(%error, "a look at source partitions broke off");
                    }
                },
                () = sleep_until(self.shared, wake) => self.unpark(),
                read = read(queue, &mut self.reader, self.shared.config.poll_bytes) => {
                    // The delivering loop has ended: its error says why.
                    let Some((place, fetched)) = read else { return Ok(()) };
                    self.shared.deps.failpoints.reach("router.after_poll").await;
                    if let Some(decided) = self.batch(fetched).await? {
                        place.send(decided);
                    }
                }
            }
        }
    }

    /// Decides what was read and writes the decisions ahead.
    async fn batch(&mut self, fetched: Vec<Fetched>) -> Result<Option<Decided>, End> {
        let snapshot = self.shared.fold(self.patience).await?;
        let started = self.shared.deps.clock.monotonic();
        let Some(judge) = Judge::new(self.shared, self.patience, snapshot, self.limit) else {
            // `fold` waits for the id key, so this cannot be; nothing is passed.
            return Err(End::Lost);
        };
        let mut batch = Batch::default();
        for Fetched { from, records } in fetched {
            match records {
                Ok(records) => self.decide(&judge, &from, records, &mut batch).await?,
                Err(ReadError::Damaged { offset, damage: Damage::TooLarge, .. }) => {
                    self.set_aside(&judge, from, offset, &mut batch);
                }
                Err(error) => self.unreadable(from, &error),
            }
        }
        let metrics = &self.shared.deps.metrics;
        metrics
            .decide_duration
            .observe(self.shared.deps.clock.monotonic().since(started).as_secs_f64());
        if batch.decisions.is_empty() {
            return Ok(None);
        }
        metrics
            .batch_records
            .observe(f64::from(u32::try_from(batch.decisions.len()).unwrap_or(u32::MAX)));
        self.quarantine(std::mem::take(&mut batch.quarantined)).await?;
        self.shared.deps.failpoints.reach("router.before_routed").await;
        let deliverer = Deliverer { shared: self.shared, patience: self.patience };
        if self.shared.deps.sabotage == Sabotage::NoWriteAhead {
            deliverer.deliver(&batch.decisions, None).await?;
            self.shared.deps.failpoints.reach("router.after_routed_before_deliveries").await;
        }
        let mut chunk =
            if self.may_follow_at_once() { deliverer.whole(&batch.decisions) } else { None };
        let appended = self.write_ahead(&batch.decisions, chunk.as_mut(), &deliverer).await?;
        self.shared.deps.failpoints.reach("router.after_routed_before_deliveries").await;
        let routed_next = self.fence.next();
        let written = appended + u64::try_from(batch.decisions.len()).unwrap_or(u64::MAX);
        let rest = match chunk {
            Some(chunk) if chunk.is_empty() => {
                self.progress.advance(routed_next, &batch.positions, written);
                return Ok(None);
            }
            Some(chunk) => Rest::Chunk(chunk),
            None => Rest::Of(batch.decisions),
        };
        Ok(Some(Decided { rest, written, routed_next, positions: batch.positions }))
    }

    /// Whether deliveries may be appended in one call with their decisions: not while
    /// those of an earlier decision are missing, which must not come behind them. In a
    /// crash test the two are apart, so that it can kill in between.
    fn may_follow_at_once(&self) -> bool {
        self.progress.routed_next() == self.fence.next() && !self.shared.deps.failpoints.are_armed()
    }

    async fn decide(
        &mut self,
        judge: &Judge<'_>,
        from: &TopicPartition,
        records: Vec<Record>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let Some(mut next) = self.next.get(from).copied() else { return Ok(()) };
        self.stopped.goes_on(from);
        for record in records {
            if record.offset < next {
                continue;
            }
            if self.is_paused(&from.topic) {
                break;
            }
            let Verdict { decision, quarantined } =
                judge.decide(from, record.offset - next, &record).await?;
            let is_bad = quarantined.is_some();
            batch.decisions.push(decision);
            batch.quarantined.extend(quarantined);
            next = record.offset + 1;
            let now = self.shared.deps.clock.monotonic();
            if self.shared.storms.note(&from.topic, is_bad, now) {
                self.shared.deps.metrics.storms.inc();
                tracing::error!(
                    topic = %from.topic,
                    "most records of this topic are bad, so its schema must have changed; \
                     it is paused for a while and then tried again"
                );
            }
        }
        self.next.insert(from.clone(), next);
        batch.positions.insert(from.clone(), next);
        // What of it was read and not decided is read again after the pause.
        let now = self.shared.deps.clock.monotonic();
        if let Some(until) = self.shared.storms.paused_until(&from.topic, now) {
            self.park(from.clone(), until);
        }
        Ok(())
    }

    /// Decides a record that nobody can read because it unpacks to more than is taken.
    fn set_aside(
        &mut self,
        judge: &Judge<'_>,
        from: TopicPartition,
        offset: Offset,
        batch: &mut Batch,
    ) {
        let next = self.next.get(&from).copied();
        let Some(next) = next.filter(|next| offset >= *next) else { return };
        let Verdict { decision, quarantined } = judge.set_aside(&from, offset - next, offset);
        batch.decisions.push(decision);
        batch.quarantined.extend(quarantined);
        batch.positions.insert(from.clone(), offset + 1);
        self.next.insert(from.clone(), offset + 1);
        self.reader.assign(from, offset + 1);
    }

    fn is_paused(&self, topic: &TopicName) -> bool {
        let now = self.shared.deps.clock.monotonic();
        self.shared.storms.paused_until(topic, now).is_some()
    }

    /// Quarantine is acknowledged before the decision that says so. After a crash
    /// between the two a record stands there twice, with the same source.
    async fn quarantine(&self, records: Vec<v1::QuarantineRecord>) -> Result<(), End> {
        if records.is_empty() {
            return Ok(());
        }
        let to = TopicPartition::new(names::QUARANTINE, 0);
        let records = records
            .iter()
            .map(|record| {
                let key = records::source_key(record.source.as_ref());
                records::new_record(key, encode(record))
            })
            .collect();
        let mut tries = self.patience.tries();
        let batch = AppendBatch { to, records };
        while let Err(error) = self.shared.append(batch.clone()).await {
            if let AppendError::Fatal(why) = error {
                return Err(End::Fatal(why));
            }
            if matches!(error, AppendError::TooLarge { .. }) {
                self.shared.refused_as_too_large(&batch.to.topic);
            }
            if tries.is_worth_a_line() {
                tracing::error!(%error, "bad records cannot be set aside; their partition waits");
            }
            tries.again().await?;
        }
        self.shared.deps.failpoints.reach("router.after_quarantine_before_routed").await;
        Ok(())
    }

    /// Appends decisions and makes sure that this owner still is one. Of `chunk`, what
    /// follows from them, what was appended with them is taken out; returns how many
    /// records that were.
    async fn write_ahead(
        &mut self,
        decisions: &[v1::Decision],
        chunk: Option<&mut Chunk>,
        deliverer: &Deliverer<'_>,
    ) -> Result<u64, End> {
        let took = self.fence.took();
        let records = decisions.iter().map(|decision| records::decision(took, decision));
        let mut pieces = pieces(records, self.limit);
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            self.append_decisions(piece, None, deliverer).await?;
        }
        self.append_decisions(last, chunk, deliverer).await
    }

    /// Appends decisions that their topic takes in one go.
    async fn append_decisions(
        &mut self,
        records: Vec<NewRecord>,
        chunk: Option<&mut Chunk>,
        deliverer: &Deliverer<'_>,
    ) -> Result<u64, End> {
        let count = records.len();
        let batch = AppendBatch { to: routed_place(self.partition), records };
        let (origins, then) = chunk.as_ref().map(|chunk| chunk.batches()).unwrap_or_default();
        let mut tries = self.patience.tries();
        loop {
            let at = self.fence.next();
            let append = self.shared.deps.broker.append_in_order(batch.clone(), at, then.clone());
            let InOrder { first, then: followed } = append.await;
            if first.is_err() {
                self.shared.deps.metrics.failed_appends.inc();
            }
            match first {
                Ok(offsets) => {
                    self.check_fence(&offsets, count).await?;
                    let (Some(chunk), Some(results)) = (chunk, followed) else { return Ok(0) };
                    let (appended, failure) = deliverer.acknowledge(chunk, &origins, results)?;
                    if failure.is_some() {
                        self.shared.deps.metrics.failed_appends.inc();
                    }
                    return Ok(appended);
                }
                Err(AppendError::Fatal(why)) => return Err(End::Fatal(why)),
                // Only a new `took` shows what stands and voids what comes late.
                Err(AppendError::Unknown) => {
                    tracing::warn!(partition = self.partition, "the fate of decisions is unknown");
                    return Err(End::Lost);
                }
                // It took more when this ownership began. The next one looks again, and
                // sets aside what does not fit.
                Err(AppendError::TooLarge { .. }) => {
                    self.shared.refused_as_too_large(&batch.to.topic);
                    self.patience.rest().await?;
                    return Err(End::Lost);
                }
                Err(error) => {
                    if tries.is_worth_a_line() {
                        tracing::warn!(%error, partition = self.partition, "decisions wait");
                    }
                    tries.again().await?;
                }
            }
        }
    }

    /// Rule: a record that is not acknowledged at the offset after its owner's
    /// previous one makes it read what stands between; another's `took` ends the
    /// ownership.
    async fn check_fence(&mut self, offsets: &Offsets, count: usize) -> Result<(), End> {
        let mut runs: Vec<(Offset, Offset)> = Vec::new();
        for offset in (0..count).filter_map(|index| offsets.get(index)) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == offset => *last = offset,
                Some(_) | None => runs.push((offset, offset)),
            }
        }
        for (first, last) in runs {
            match self.fence.acknowledged(first, last) {
                Proof::Owner => {}
                Proof::ReadBetween { from, to } => {
                    let is_fenced = self.shared.deps.sabotage != Sabotage::NoRoutedFencing;
                    if is_fenced && self.holds_a_took(from, to).await? {
                        tracing::info!(partition = self.partition, "another has taken over");
                        return Err(End::Lost);
                    }
                }
            }
        }
        Ok(())
    }

    async fn holds_a_took(&self, from: Offset, to: Offset) -> Result<bool, End> {
        let place = routed_place(self.partition);
        let mut at = from;
        let mut tries = self.patience.tries();
        while at < to {
            let read = self.shared.deps.broker.read(&place, at, 64 << 10).await;
            let records = read.unwrap_or_default();
            let Some(last) = records.last() else {
                tries.again().await?;
                continue;
            };
            at = last.offset + 1;
            let between = records.into_iter().filter(|record| record.offset < to);
            for value in between.filter_map(|record| record.value) {
                let kind = decode::<v1::RoutedRecord>(value).ok().and_then(|record| record.kind);
                if matches!(kind, Some(v1::routed_record::Kind::TookOver(_))) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Records in the pieces that a topic takes in one append each: a client may put all
/// of an append into one message.
fn pieces(records: impl Iterator<Item = NewRecord>, limit: usize) -> Vec<Vec<NewRecord>> {
    let mut pieces: Vec<Vec<NewRecord>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let more = record.value.as_ref().map_or(0, bytes::Bytes::len) + RECORD_OVERHEAD;
        match pieces.last_mut() {
            Some(piece) if bytes + more <= limit => piece.push(record),
            Some(_) | None => {
                pieces.push(vec![record]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    pieces
}

type Place<'a> = mpsc::Permit<'a, Decided>;

/// Waits for room behind, then for something to read. Safe to drop.
async fn read<'q>(
    queue: &'q mpsc::Sender<Decided>,
    reader: &mut Reader,
    max_bytes: usize,
) -> Option<(Place<'q>, Vec<Fetched>)> {
    let place = queue.reserve().await.ok()?;
    Some((place, reader.poll(max_bytes).await))
}

async fn sleep_until(shared: &Shared, at: Option<Instant>) {
    match at {
        Some(at) => shared.deps.clock.sleep(at.since(shared.deps.clock.monotonic())).await,
        None => std::future::pending().await,
    }
}
