//! A reader: one consumer for all its partitions, whose queue is taken apart here.
//!
//! The consumer's partitions are never split into queues of their own (a lost
//! wake-up there stops a partition for ever); what it gives goes into a buffer per
//! partition, and the partitions take turns.
//!
//! An error of the client does not say which partition it is about. So whenever
//! one comes, the ends of all partitions are asked for, and whose position is not
//! between them gets its error from that. After trouble with a broker the positions are
//! watched for a while (`watch`), since a client may stand still without a word.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    Offset as NativeOffset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaResult, RDKafkaErrorCode},
    message::Message as _,
};
use tidings_types::{Offset, TopicPartition, names};
use tokio::task::JoinHandle;

use super::{
    CALL, Shared,
    admin::native,
    consumer::{Consumer, Taken, record, weight},
    context::Unreadable,
    watch::{Seen, Watch},
};
use crate::seam::{Fetched, PartitionEnds, ReadError, Record};

/// Bytes that are taken out of the consumer's queue ahead of their turn.
const BUFFER_BYTES: usize = 8 << 20;
/// A wake-up that was lost costs no more than this.
const FALLBACK: Duration = Duration::from_millis(500);
/// After an error, how long to wait before the ends are asked for.
const AFTER_ERROR: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be looked at before the consumer gets it.
    New,
    /// As new, but it was read before: if it cannot be looked at now, later.
    Again,
    /// The consumer has it.
    Live,
}

#[derive(Debug)]
struct Assigned {
    /// The offset that is given out next.
    next: Offset,
    /// The offset that the consumer brings next.
    expected: Offset,
    paused: bool,
    state: State,
    /// Tells this assignment from an earlier one of the same partition.
    era: u64,
    buffer: VecDeque<Record>,
    in_turns: bool,
}

impl Assigned {
    fn weight(&self) -> usize {
        self.buffer.iter().map(weight).sum()
    }
}

/// A partition whose ends are asked for, its assignment, and what was to be read next
/// then. The position goes on meanwhile, and may pass an end that was asked for before.
struct Asked {
    partition: TopicPartition,
    era: u64,
    expected: Offset,
}

/// A batch that cannot be read.
#[derive(Debug, Default)]
struct Found {
    offset: Offset,
    times: u32,
    is_told: bool,
}

/// The ends of partitions.
type Ends = Vec<(Asked, Result<PartitionEnds, ReadError>)>;

/// What a look at the ends of partitions found.
struct Looked {
    ends: Ends,
    /// All positions were looked at, to see whether they move.
    is_watch: bool,
    /// Instead of the one that has lost all brokers or stands still.
    consumer: Option<Arc<Consumer>>,
}

/// Reads assigned partitions.
pub struct KafkaReader {
    shared: Arc<Shared>,
    consumer: Option<Arc<Consumer>>,
    assigned: BTreeMap<TopicPartition, Assigned>,
    /// Partitions with something in their buffer, in the order of their turns.
    turns: VecDeque<TopicPartition>,
    failed: Vec<Fetched>,
    buffered: usize,
    eras: u64,
    /// All positions are to be checked against the ends.
    doubtful: bool,
    /// The client stopped reading a partition and does not say which.
    restart: bool,
    /// All brokers were down, or the consumer stands still: another one takes over when
    /// the brokers are back (`stranded`).
    has_lost: bool,
    watch: Watch,
    /// Of partitions with a batch that cannot be read.
    unreadable: BTreeMap<TopicPartition, Found>,
    look: Option<JoinHandle<Looked>>,
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader")
            .field("assigned", &self.assigned.len())
            .finish_non_exhaustive()
    }
}

impl KafkaReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            consumer: None,
            assigned: BTreeMap::new(),
            turns: VecDeque::new(),
            failed: Vec::new(),
            buffered: 0,
            eras: 0,
            doubtful: false,
            restart: false,
            has_lost: false,
            watch: Watch::default(),
            unreadable: BTreeMap::new(),
            look: None,
        }
    }

    pub(crate) fn assign(&mut self, partition: TopicPartition, offset: Offset) {
        let paused = self.assigned.get(&partition).is_some_and(|known| known.paused);
        self.unassign(&partition);
        self.eras += 1;
        let assigned = Assigned {
            next: offset,
            expected: offset,
            paused,
            state: State::New,
            era: self.eras,
            buffer: VecDeque::new(),
            in_turns: false,
        };
        self.assigned.insert(partition, assigned);
    }

    pub(crate) fn unassign(&mut self, partition: &TopicPartition) {
        let Some(known) = self.assigned.remove(partition) else { return };
        self.unreadable.remove(partition);
        if !known.paused {
            self.buffered = self.buffered.saturating_sub(known.weight());
        }
        self.turns.retain(|other| other != partition);
        if known.state == State::Live {
            self.tell("unassign", partition, |consumer, list| consumer.incremental_unassign(list));
        }
    }

    pub(crate) fn pause(&mut self, partition: &TopicPartition) {
        let Some(known) = self.assigned.get_mut(partition) else { return };
        if std::mem::replace(&mut known.paused, true) {
            return;
        }
        // What a paused partition keeps must not hold the others up.
        self.buffered = self.buffered.saturating_sub(known.weight());
        if known.state == State::Live {
            self.tell("pause", partition, |consumer, list| consumer.pause(list));
        }
    }

    pub(crate) fn resume(&mut self, partition: &TopicPartition) {
        let Some(known) = self.assigned.get_mut(partition) else { return };
        if !std::mem::replace(&mut known.paused, false) {
            return;
        }
        self.buffered += known.weight();
        if !known.buffer.is_empty() && !std::mem::replace(&mut known.in_turns, true) {
            self.turns.push_back(partition.clone());
        }
        if known.state == State::Live {
            self.tell("resume", partition, |consumer, list| consumer.resume(list));
        }
    }

    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.assigned.get(partition).map(|known| known.next)
    }

    /// Waits only while it has nothing in its hands, so a dropped poll loses
    /// nothing.
    pub(crate) async fn poll(&mut self, max_bytes: usize) -> Vec<Fetched> {
        loop {
            self.start_look();
            self.drain();
            let fetched = self.take_turns(max_bytes);
            if !fetched.is_empty() {
                return fetched;
            }
            let clock = Arc::clone(&self.shared.clock);
            let wake = self.consumer.as_ref().map(|consumer| Arc::clone(&consumer.wake));
            let woken = super::or_never(wake.as_ref().map(|wake| wake.notified()));
            let looked = super::or_never(self.look.as_mut());
            tokio::select! {
                biased;
                looked = looked => {
                    self.look = None;
                    match looked {
                        Ok(looked) => self.looked(looked),
                        // What it was to find out is still not known.
                        Err(error) => {
                            tracing::error!(%error, "a look at the ends of partitions broke off");
                            self.doubtful = true;
                        }
                    }
                }
                () = woken => {}
                () = clock.sleep(FALLBACK) => {}
            }
        }
    }

    /// Looks at the ends of what is new (or of all, after an error) elsewhere.
    fn start_look(&mut self) {
        if self.has_lost && self.assigned.is_empty() && self.look.is_none() {
            self.consumer = None;
            self.has_lost = false;
            self.doubtful = false;
        }
        let is_watch = self.watch.is_due(self.shared.clock.monotonic());
        let is_wanted = self.doubtful
            || is_watch
            || self.assigned.values().any(|known| known.state == State::New);
        if self.look.is_some() || !is_wanted {
            return;
        }
        if self.consumer.is_none() {
            match Consumer::new(&self.shared.config.reader()) {
                Ok(consumer) => self.consumer = Some(Arc::new(consumer)),
                Err(error) => {
                    tracing::error!(%error, "no consumer can be made");
                    self.fail_all();
                    return;
                }
            }
        }
        let doubtful = std::mem::take(&mut self.doubtful);
        if is_watch {
            self.watch.look();
        }
        let asked: Vec<Asked> = self
            .assigned
            .iter()
            .filter(|(_, known)| doubtful || is_watch || known.state == State::New)
            .map(|(partition, known)| Asked {
                partition: partition.clone(),
                era: known.era,
                expected: known.expected,
            })
            .collect();
        let shared = Arc::clone(&self.shared);
        let known = self.consumer.clone();
        let has_lost = self.has_lost;
        self.look = Some(tokio::task::spawn_blocking(move || {
            if doubtful {
                // The broker needs a moment to say the same thing everywhere.
                std::thread::park_timeout(AFTER_ERROR);
            }
            let new = has_lost.then(|| Consumer::new(&shared.config.reader()).map(Arc::new).ok());
            let new = new.flatten();
            let ends = look(&shared, new.as_deref().or(known.as_deref()), asked);
            let are_back =
                ends.iter().any(|(_, ends)| !matches!(ends, Err(ReadError::Unavailable)));
            Looked { ends, is_watch, consumer: new.filter(|_| are_back) }
        }));
    }

    fn fail_all(&mut self) {
        for partition in self.assigned.keys().cloned().collect::<Vec<_>>() {
            self.fail(partition, ReadError::Unavailable);
        }
    }

    fn fail(&mut self, partition: TopicPartition, error: ReadError) {
        self.unassign(&partition);
        self.failed.push(Fetched { from: partition, records: Err(error) });
    }

    fn looked(&mut self, looked: Looked) {
        let restart = std::mem::take(&mut self.restart);
        let Looked { ends, is_watch, consumer } = looked;
        if is_watch && consumer.is_none() {
            self.compare(&ends);
        }
        // Whatever the old one had assigned went with it.
        let is_new = consumer.is_some();
        match consumer {
            Some(consumer) => {
                self.consumer = Some(consumer);
                self.has_lost = false;
                self.look_at_the_rest(&ends);
            }
            // The brokers are still away.
            None if self.has_lost => self.doubtful = true,
            None => {}
        }
        for (Asked { partition, era, expected }, ends) in ends {
            let Some(known) = self.assigned.get_mut(&partition).filter(|known| known.era == era)
            else {
                continue;
            };
            // What is in the buffer has been read; the consumer reads behind it.
            // What was read since the ends were asked for is not beyond them.
            let checked = ends.and_then(|ends| {
                let at = known.expected.min(ends.end.max(expected));
                super::check(&partition, at, ends)
            });
            match checked {
                Ok(()) if known.state == State::Live && !restart && !is_new => {}
                Ok(()) => {
                    let was = std::mem::replace(&mut known.state, State::Live);
                    let (at, paused) = (known.expected, known.paused);
                    if was == State::Live && !is_new {
                        self.tell("unassign", &partition, |consumer, list| {
                            consumer.incremental_unassign(list)
                        });
                    }
                    self.go_live(&partition, at, paused);
                }
                // The new consumer does not have it.
                Err(ReadError::Unavailable)
                    if known.state == State::Again || (known.state == State::Live && is_new) =>
                {
                    known.state = State::Again;
                    self.doubtful = true;
                }
                // The position is right as far as is known, and the consumer retries.
                Err(ReadError::Unavailable) if known.state == State::Live => {}
                Err(error) => self.fail(partition, error),
            }
        }
    }

    /// Gives the partitions to another consumer if this one stands still.
    fn compare(&mut self, ends: &Ends) {
        if ends.iter().any(|(_, ends)| matches!(ends, Err(ReadError::Unavailable))) {
            self.watch.saw_nothing(self.shared.clock.monotonic());
        }
        // What has been read waits for its turn.
        let is_full = self.buffered >= BUFFER_BYTES;
        let found = ends.iter().filter_map(|(asked, ends)| {
            let known = self.assigned.get(&asked.partition)?;
            let is_read = known.era == asked.era && known.state == State::Live && !known.paused;
            let end = ends.as_ref().ok().filter(|_| is_read && !is_full)?.end;
            let seen = Seen { era: known.era, expected: known.expected, end };
            Some((asked.partition.clone(), seen))
        });
        let still = self.watch.compare(found);
        if let Some(first) = still.first() {
            tracing::warn!(
                partitions = still.len(),
                %first,
                "a consumer stood still after trouble with a broker; another one takes its place"
            );
            self.has_lost = true;
            self.doubtful = true;
        }
    }

    /// What a look that brought a new consumer did not ask for is looked at next.
    fn look_at_the_rest(&mut self, looked: &Ends) {
        let eras: BTreeSet<u64> = looked.iter().map(|(asked, _)| asked.era).collect();
        for known in self.assigned.values_mut().filter(|known| !eras.contains(&known.era)) {
            if known.state == State::Live {
                known.state = State::Again;
                self.doubtful = true;
            }
        }
    }

    fn go_live(&self, partition: &TopicPartition, at: Offset, paused: bool) {
        let at = NativeOffset::Offset(i64::try_from(at).unwrap_or(i64::MAX));
        self.tell("assign", partition, |consumer, list| {
            list.set_all_offsets(at)?;
            consumer.incremental_assign(list)?;
            // The client keeps a pause beyond the assignment that it was for.
            if paused { consumer.pause(list) } else { consumer.resume(list) }
        });
    }

    fn tell(
        &self,
        what: &str,
        partition: &TopicPartition,
        say: impl FnOnce(
            &rdkafka::consumer::BaseConsumer<super::context::Context>,
            &mut TopicPartitionList,
        ) -> KafkaResult<()>,
    ) {
        let Some(client) = self.consumer.as_deref().and_then(Consumer::client) else { return };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(partition.topic.as_str(), native(partition));
        if let Err(error) = say(client, &mut list) {
            tracing::warn!(%error, %partition, what, "a consumer did not take an order");
        }
    }

    /// Takes the consumer's queue apart.
    fn drain(&mut self) {
        let Some(consumer) = self.consumer.clone() else { return };
        while self.buffered < BUFFER_BYTES {
            match consumer.take() {
                Taken::Message(message) => {
                    let Ok(number) = u32::try_from(message.partition()) else { continue };
                    let from = TopicPartition::new(message.topic(), number);
                    let Some(known) = self.assigned.get_mut(&from) else { continue };
                    let record = record(&message);
                    if known.state != State::Live || record.offset < known.expected {
                        continue;
                    }
                    known.expected = record.offset + 1;
                    if !known.paused {
                        self.buffered += weight(&record);
                    }
                    known.buffer.push_back(record);
                    if !known.paused && !std::mem::replace(&mut known.in_turns, true) {
                        self.turns.push_back(from);
                    }
                }
                Taken::Error(error) => {
                    tracing::debug!(%error, "a consumer reports an error");
                    self.watch.trouble(self.shared.clock.monotonic());
                    self.doubt(error.rdkafka_error_code());
                }
                Taken::Nothing => break,
            }
        }
        let Some(client) = consumer.client() else { return };
        if client.context().take_trouble() {
            self.watch.trouble(self.shared.clock.monotonic());
        }
        for batch in client.context().take_unreadable() {
            self.cannot_be_read(batch);
        }
    }

    /// A batch cannot be read, and the client waits before it. Its partition fails once
    /// everything before it has been given out. Of topics that nobody but Tidings writes
    /// the batch may be whole on another broker: there the client goes on trying.
    fn cannot_be_read(&mut self, batch: Unreadable) {
        let Some(known) = self.assigned.get(&batch.partition) else { return };
        if known.state != State::Live || batch.offset < known.next {
            return;
        }
        let Unreadable { partition, offset, damage } = batch;
        let found = self.unreadable.entry(partition.clone()).or_default();
        if found.offset != offset {
            *found = Found { offset, ..Found::default() };
        }
        found.times += 1;
        // What stands directly before it may be no records.
        let is_reached = known.next == offset || found.times > 1;
        if !known.buffer.is_empty() || !is_reached {
            return;
        }
        if partition.topic.as_str().starts_with(names::EVENTS_PREFIX) {
            self.fail(partition.clone(), ReadError::Damaged { partition, offset, damage });
        } else if !std::mem::replace(&mut found.is_told, true) {
            tracing::error!(%partition, offset, "a stored batch {damage}; what stands behind it is not read");
        }
    }

    /// Errors about a partition: the others pass by themselves.
    fn doubt(&mut self, code: Option<RDKafkaErrorCode>) {
        match code {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.restart = true;
                self.doubtful = true;
            }
            Some(
                RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => self.doubtful = true,
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.has_lost = true;
                self.doubtful = true;
            }
            Some(_) | None => return,
        }
        self.start_look();
    }

    fn take_turns(&mut self, max_bytes: usize) -> Vec<Fetched> {
        let mut fetched = std::mem::take(&mut self.failed);
        let mut budget = max_bytes.max(1);
        for _ in 0..self.turns.len() {
            if budget == 0 {
                break;
            }
            let Some(partition) = self.turns.pop_front() else { break };
            let Some(known) = self.assigned.get_mut(&partition) else { continue };
            known.in_turns = false;
            if known.paused {
                continue;
            }
            let mut records = Vec::new();
            while budget > 0 {
                let Some(record) = known.buffer.pop_front() else { break };
                let bytes = weight(&record);
                self.buffered = self.buffered.saturating_sub(bytes);
                budget = budget.saturating_sub(bytes);
                known.next = record.offset + 1;
                records.push(record);
            }
            if !known.buffer.is_empty() {
                known.in_turns = true;
                self.turns.push_back(partition.clone());
            }
            if !records.is_empty() {
                fetched.push(Fetched { from: partition, records: Ok(records) });
            }
        }
        fetched
    }
}

/// Asks for the ends of partitions. Blocks.
fn look(shared: &Shared, consumer: Option<&Consumer>, asked: Vec<Asked>) -> Ends {
    // Metadata first: the consumer waits for seconds with a topic it does not know.
    let mut last = None;
    for Asked { partition, .. } in &asked {
        if last != Some(&partition.topic)
            && let Some(client) = consumer.and_then(Consumer::client)
            && let Err(error) = client.fetch_metadata(Some(partition.topic.as_str()), CALL)
        {
            tracing::debug!(%error, topic = %partition.topic, "no metadata");
            break;
        }
        last = Some(&partition.topic);
    }
    let mut is_away = false;
    asked
        .into_iter()
        .map(|asked| {
            // One that does not answer is not asked hundreds of times.
            let ends = if is_away {
                Err(ReadError::Unavailable)
            } else {
                shared.admin.ends_now(&asked.partition)
            };
            is_away |= matches!(ends, Err(ReadError::Unavailable));
            (asked, ends)
        })
        .collect()
}
