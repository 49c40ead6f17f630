//! Follows both topics from the positions in the event log: fetch, fold, look at
//! the ends, flush, remove what is too old.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use tidings_broker::{Fetched, ReadError, Reader};
use tidings_eventlog::{Source, WriteError, Writer};
use tidings_types::{Offset, TopicName, TopicPartition};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    fold::{Held, Ready},
    progress::{Look, Part, Progress},
    service::{Config, Deps, RunError},
};

/// Why the store must be made anew.
type Doubt = Arc<str>;

/// Steps of retention in one turn; the rest follows in the next.
const RETAIN_STEPS: usize = 16;

pub(crate) struct Follow<'a> {
    config: &'a Config,
    deps: &'a Deps,
    writer: &'a mut Writer,
    stored: BTreeMap<TopicPartition, Offset>,
    reader: Reader,
    progress: Progress,
    held: Held,
    /// Partitions whose last read failed: assigned again with the next look.
    failed: BTreeSet<Part>,
    next_look: Instant,
    next_care: Instant,
    unflushed: u64,
}

fn name(part: &Part) -> TopicPartition {
    part.0.partition(part.1)
}

fn part(name: &TopicPartition) -> Option<Part> {
    Some((Source::of(name.topic.as_str())?, name.partition))
}

impl<'a> Follow<'a> {
    pub(crate) fn new(
        config: &'a Config,
        deps: &'a Deps,
        writer: &'a mut Writer,
        stored: BTreeMap<TopicPartition, Offset>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            deps,
            writer,
            stored,
            reader: deps.broker.reader(),
            progress: Progress::new(BTreeMap::new()),
            held: Held::new(config.held_bytes, std::iter::empty()),
            failed: BTreeSet::new(),
            next_look: now,
            next_care: now,
            unflushed: 0,
        }
    }

    /// Breaks at shutdown; goes on with the reason if the store must be made anew.
    pub(crate) async fn run(
        mut self,
        shutdown: &CancellationToken,
    ) -> Result<ControlFlow<(), Doubt>, RunError> {
        let begun = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(ControlFlow::Break(())),
            begun = self.begin() => begun,
        };
        if let ControlFlow::Break(doubt) = begun {
            return Ok(ControlFlow::Continue(doubt));
        }
        match self.skip_what_is_gone().await {
            Ok(()) => {}
            Err(Stop::Doubt(why)) => return Ok(ControlFlow::Continue(why)),
            Err(Stop::Fatal(error)) => return Err(error),
        }
        loop {
            let wake = self.next_look.min(self.next_care);
            let fetched = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(ControlFlow::Break(())),
                () = sleep_until(wake) => None,
                fetched = self.reader.poll(self.config.batch_bytes) => Some(fetched),
            };
            let turn = match fetched {
                Some(fetched) => self.fetched(fetched).await,
                None => self.timed().await,
            };
            match turn {
                Ok(()) => {}
                Err(Stop::Doubt(why)) => return Ok(ControlFlow::Continue(why)),
                Err(Stop::Fatal(error)) => return Err(error),
            }
        }
    }

    /// Finds all partitions and where to begin, however long the broker takes.
    async fn begin(&mut self) -> ControlFlow<Doubt> {
        loop {
            match self.positions().await {
                Ok(Ok(next)) => {
                    let routed = next.keys().filter(|(source, _)| *source == Source::Routed);
                    let routed = routed.map(|(_, partition)| *partition);
                    self.held = Held::new(self.config.held_bytes, routed);
                    for (part, next) in &next {
                        self.reader.assign(name(part), *next);
                    }
                    self.progress = Progress::new(next);
                    return ControlFlow::Continue(());
                }
                Ok(Err(doubt)) => return ControlFlow::Break(doubt),
                Err(error) => {
                    tracing::warn!(%error, "the topics cannot be read yet");
                    self.deps.metrics.failed_looks.inc();
                    self.deps.clock.sleep(self.config.idle_look).await;
                }
            }
        }
    }

    /// Tells the event log where partitions begin that have lost their beginning,
    /// so that nobody waits for it to read what is gone.
    async fn skip_what_is_gone(&mut self) -> Result<(), Stop> {
        let mut ready = Ready::default();
        for (part, next) in &self.progress.next {
            if *next > self.stored.get(&name(part)).copied().unwrap_or(0) {
                ready.batch.skip(part.0, part.1, *next);
            }
        }
        self.fold(ready).await
    }

    /// Where to begin. The inner error is the reason to make the store anew.
    async fn positions(
        &self,
    ) -> Result<Result<BTreeMap<Part, Offset>, Doubt>, tidings_broker::BrokerError> {
        let mut next = BTreeMap::new();
        for source in [Source::Routed, Source::Outcomes] {
            let topic = self.deps.broker.describe(&TopicName::new(source.topic())).await?;
            for partition in 0..topic.partitions {
                let name = source.partition(partition);
                let ends = self.deps.broker.ends(&name).await?;
                let stored = self.stored.get(&name).copied();
                match stored {
                    // The topic lost its tail: what we have of it may never have
                    // been, and other records will take those offsets.
                    Some(stored) if stored > ends.end => {
                        let why = format!(
                            "it has read {name} up to {stored}, which ends at {}",
                            ends.end
                        );
                        return Ok(Err(why.into()));
                    }
                    Some(stored) => self.gap(stored, ends.first),
                    None => {}
                }
                next.insert((source, partition), stored.unwrap_or(0).max(ends.first));
            }
        }
        Ok(Ok(next))
    }

    /// Counts what retention removed from a topic before it was read.
    fn gap(&self, next: Offset, first: Offset) {
        if let Some(gone @ 1..) = first.checked_sub(next) {
            tracing::warn!(gone, "records were gone before they had been read");
            self.deps.metrics.gap_records.inc_by(gone);
        }
    }

    async fn fetched(&mut self, fetched: Vec<Fetched>) -> Result<(), Stop> {
        self.deps.failpoints.reach("recorder.after_poll");
        let mut ready = Ready::default();
        for Fetched { from, records } in fetched {
            let Some(part) = part(&from) else { continue };
            match records {
                Ok(records) => {
                    self.deps.metrics.records.inc_by(records.len() as u64);
                    self.held.add(&mut ready, part, records);
                }
                Err(error) => self.read_failed(&mut ready, part, error)?,
            }
        }
        self.fold(ready).await
    }

    fn read_failed(&mut self, ready: &mut Ready, part: Part, error: ReadError) -> Result<(), Stop> {
        match error {
            ReadError::Trimmed { first, offset, .. } => {
                self.gap(offset, first);
                ready.batch.skip(part.0, part.1, first);
                ready.next.push((part, first));
                self.failed.insert(part);
            }
            ReadError::BeyondEnd { partition, offset, end } => {
                let why = format!("it has read {partition} up to {offset}, which ends at {end}");
                return Err(Stop::Doubt(why.into()));
            }
            ReadError::Damaged { partition, offset, .. } => {
                return Err(Stop::Fatal(RunError::DamagedTopic { partition, offset }));
            }
            ReadError::Unavailable | ReadError::UnknownPartition(_) => {
                self.deps.metrics.failed_reads.inc();
                self.failed.insert(part);
            }
        }
        if part.0 == Source::Outcomes {
            self.held.forget(part.1);
        }
        Ok(())
    }

    async fn fold(&mut self, mut ready: Ready) -> Result<(), Stop> {
        self.held.release(&mut ready, &self.progress);
        for partition in self.outcome_partitions() {
            // Costs nothing when it changes nothing.
            let name = Source::Outcomes.partition(partition);
            if self.held.holds(partition) {
                self.reader.pause(&name);
            } else {
                self.reader.resume(&name);
            }
        }
        self.deps.metrics.held_records.set(gauge(self.held.len()));
        if ready.batch.is_empty() {
            return Ok(());
        }
        let records = ready.batch.len();
        let started = self.deps.clock.monotonic();
        let applied = self.writer.apply(ready.batch).await?;
        self.deps.failpoints.reach("recorder.after_write_before_flush");
        let took = self.deps.clock.monotonic().since(started);
        self.deps.metrics.fold_duration.observe(took.as_secs_f64());
        self.deps.metrics.batch_records.observe(f64::from(u32::try_from(records).unwrap_or(0)));
        for (part, next) in ready.next {
            self.progress.folded(part, next);
        }
        self.progress.settle();
        self.publish();
        self.unflushed += applied.rows;
        if self.unflushed >= self.config.flush_rows {
            self.flush().await?;
        }
        self.next_look = self.next_look.min(Instant::now() + self.config.busy_look);
        Ok(())
    }

    fn outcome_partitions(&self) -> Vec<u32> {
        let outcomes = self.progress.next.keys().filter(|(source, _)| *source == Source::Outcomes);
        outcomes.map(|(_, partition)| *partition).collect()
    }

    fn publish(&self) {
        let status = self.progress.status();
        self.writer.set_status(status);
        self.deps.metrics.as_of.set(status.as_of.as_millis());
    }

    async fn timed(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if now >= self.next_care {
            self.next_care = now + self.config.flush_interval;
            self.care().await?;
        }
        if now >= self.next_look {
            self.next_look = now + self.config.idle_look;
            self.look().await?;
        }
        Ok(())
    }

    /// Looks at the ends of the topics, and takes up again what could not be read.
    async fn look(&mut self) -> Result<(), Stop> {
        let mut look = Look { at: self.deps.clock.now(), ends: BTreeMap::new() };
        let parts: Vec<Part> = self.progress.next.keys().copied().collect();
        for part in parts {
            match self.deps.broker.ends(&name(&part)).await {
                Ok(ends) => {
                    look.ends.insert(part, ends.end);
                }
                Err(error) => {
                    tracing::debug!(%error, "the ends of the topics are not known");
                    self.deps.metrics.failed_looks.inc();
                    return Ok(());
                }
            }
        }
        for part in std::mem::take(&mut self.failed) {
            let next = self.progress.next.get(&part).copied().unwrap_or(0);
            self.reader.assign(name(&part), next);
        }
        self.progress.looked(look);
        self.deps.metrics.lag_records.set(gauge(self.progress.lag()));
        self.publish();
        // An end that is new may let outcomes go that were held back.
        self.fold(Ready::default()).await
    }

    /// Flushes, removes what is too old, and verifies a part of the store.
    async fn care(&mut self) -> Result<(), Stop> {
        if self.writer.is_damaged() {
            return Err(Stop::Doubt("a reader found damage".into()));
        }
        if self.unflushed > 0 {
            self.flush().await?;
        }
        for _ in 0..RETAIN_STEPS {
            if !self.writer.retain().await? {
                break;
            }
            self.unflushed += 1;
        }
        self.writer.scrub().await?;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let started = self.deps.clock.monotonic();
        self.writer.flush().await?;
        let took = self.deps.clock.monotonic().since(started);
        self.deps.metrics.flush_duration.observe(took.as_secs_f64());
        self.unflushed = 0;
        Ok(())
    }
}

fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Why following ends.
enum Stop {
    Doubt(Doubt),
    Fatal(RunError),
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Damaged(why) => Self::Doubt(why),
            WriteError::Fatal(_) | WriteError::NotOpen => Self::Fatal(error.into()),
        }
    }
}
