//! Appending: idempotent producers, each for its share of the partitions; one
//! answer per batch, made of the delivery reports of its records.
//!
//! No batch has a task or a future per record: each record carries a ticket, and
//! the last ticket of a batch to come back answers it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{Header as NativeHeader, Message as _, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tidings_types::{Clock, Instant, Offset, Timestamp, TopicPartition};
use tokio::sync::{Semaphore, oneshot};

use super::{
    KafkaConfig, context,
    stranded::{self, Sight},
};
use crate::seam::{AppendBatch, AppendError, Appended, NewRecord, Offsets};

/// KiB of records that may wait for their acknowledgement; more wait their turn.
const IN_FLIGHT_KIB: u32 = 64 << 10;

/// A batch that waits for longer than this is late, and looked at so often.
const LATE: Duration = Duration::from_secs(5);
/// A partition with a late batch that takes nothing for so long stands still: longer than
/// a request to a broker that hangs (`socket.timeout.ms`).
const STILL: Duration = Duration::from_secs(10);

/// The producers and what they share.
pub(super) struct Producers {
    all: Vec<RwLock<Producer>>,
    late: Mutex<Lateness>,
    has_late: AtomicBool,
    config: KafkaConfig,
    fatal: Arc<OnceLock<Arc<str>>>,
    room: Semaphore,
    max_record_bytes: usize,
    clock: Arc<dyn Clock>,
}

type Producer = Arc<ThreadedProducer<Reports>>;

/// Partitions with late batches, and since when they have taken nothing. Pure: it is told
/// the time.
#[derive(Default)]
struct Lateness(BTreeMap<TopicPartition, Late>);

#[derive(Clone, Copy)]
struct Late {
    since: Instant,
    /// When one was found late last. Who gives up says nothing; the next one goes on
    /// counting unless that is long ago.
    noted: Instant,
}

impl Lateness {
    /// A batch is late. Gives since when its partition has stood still, if it has for so
    /// long that it should be looked at.
    fn note(&mut self, to: &TopicPartition, now: Instant) -> Option<Instant> {
        self.forget(now);
        let late = self.0.entry(to.clone()).or_insert(Late { since: now, noted: now });
        late.noted = now;
        let since = late.since;
        if now.since(since) < STILL {
            return None;
        }
        // So long at least until it is looked at again.
        late.since = now;
        Some(since)
    }

    /// A partition has taken something.
    fn taken(&mut self, to: &TopicPartition, now: Instant) {
        self.0.remove(to);
        self.forget(now);
    }

    /// Nobody has waited for these for a while.
    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, late| now.since(late.noted) < STILL + LATE);
    }
}

/// Takes delivery reports.
struct Reports {
    fatal: Arc<OnceLock<Arc<str>>>,
    /// Whose producer it is, and which.
    owner: Weak<Producers>,
    index: usize,
    /// All brokers were down, and it is seen to that it finds one again.
    is_watched: AtomicBool,
    made: Instant,
}

impl Reports {
    fn watch(&self) {
        if self.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let (owner, index) = (Weak::clone(&self.owner), self.index);
        super::elsewhere("kafka-lost", move || {
            loop {
                std::thread::park_timeout(stranded::PAUSE);
                let Some(owner) = owner.upgrade() else { return };
                if owner.look_round(index) {
                    return;
                }
            }
        });
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::error!(reason, "a producer failed for good");
            self.fatal.get_or_init(|| reason.into());
        } else {
            tracing::debug!(%error, reason, "kafka client");
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.watch();
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.batch.report(
            ticket.index,
            match report {
                Ok(message) => Offset::try_from(message.offset())
                    .map_err(|_negative| RDKafkaErrorCode::Unknown),
                Err((error, _)) => {
                    Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))
                }
            },
        );
    }
}

/// One record on its way.
struct Ticket {
    batch: Arc<Waiting>,
    index: usize,
}

/// A batch whose reports are still to come.
struct Waiting(Mutex<Reported>);

struct Reported {
    offsets: Vec<Offset>,
    failed: Option<(usize, RDKafkaErrorCode)>,
    written: usize,
    left: usize,
    answer: Option<oneshot::Sender<Outcome>>,
}

/// What became of the records of a batch.
struct Outcome {
    offsets: Vec<Offset>,
    failed: Option<(usize, RDKafkaErrorCode)>,
    written: usize,
}

impl Waiting {
    fn report(&self, index: usize, result: Result<Offset, RDKafkaErrorCode>) {
        let mut reported = self.0.lock();
        match result {
            Ok(offset) => {
                if let Some(place) = reported.offsets.get_mut(index) {
                    *place = offset;
                }
                reported.written += 1;
            }
            Err(code) => {
                reported.failed.get_or_insert((index, code));
            }
        }
        reported.left = reported.left.saturating_sub(1);
        if reported.left > 0 {
            return;
        }
        let outcome = Outcome {
            offsets: std::mem::take(&mut reported.offsets),
            failed: reported.failed,
            written: reported.written,
        };
        if let Some(answer) = reported.answer.take()
            && answer.send(outcome).is_err()
        {
            tracing::trace!("an appender did not wait for its answer");
        }
    }
}

/// A batch of a call.
enum Sent {
    Done(Appended),
    Waiting(TopicPartition, oneshot::Receiver<Outcome>),
    /// The producer does not know the topic or partition (yet). Nothing was sent.
    Unknown(AppendBatch),
}

impl Producers {
    pub(super) fn start(config: &KafkaConfig, clock: Arc<dyn Clock>) -> KafkaResult<Arc<Self>> {
        let mut failed = None;
        let producers = Arc::new_cyclic(|owner| {
            let fatal = Arc::new(OnceLock::new());
            let mut all = Vec::new();
            for index in 0..config.producers.max(1) {
                match produce(config, &fatal, owner, index, clock.monotonic()) {
                    Ok(producer) => all.push(RwLock::new(Arc::new(producer))),
                    Err(error) => failed = Some(error),
                }
            }
            let room = Semaphore::new(usize::try_from(IN_FLIGHT_KIB).unwrap_or(usize::MAX));
            let max_record_bytes = config.max_record_bytes;
            Self {
                all,
                late: Mutex::default(),
                has_late: AtomicBool::new(false),
                config: config.clone(),
                fatal,
                room,
                max_record_bytes,
                clock,
            }
        });
        failed.map_or(Ok(producers), Err)
    }

    /// Whether the producer at `index`, which had lost all brokers, needs no more
    /// care: it sees one again, or was stranded and another stands in its place.
    /// Blocks.
    fn look_round(self: &Arc<Self>, index: usize) -> bool {
        let Some(place) = self.all.get(index) else { return true };
        let producer = Arc::clone(&place.read());
        match stranded::look_round(producer.client(), &self.config) {
            Sight::Nothing => false,
            Sight::Brokers => {
                producer.context().is_watched.store(false, Ordering::Release);
                true
            }
            Sight::Stranded => {
                self.replace(index, &producer, "a producer was left without any broker")
            }
        }
    }

    /// Puts another producer in the place of `old`. The end of `old` answers what waits in
    /// it: it was not written, or, of what had been sent when its connections ended, nobody
    /// knows. False if none can be made. Blocks.
    fn replace(self: &Arc<Self>, index: usize, old: &Producer, why: &str) -> bool {
        let Some(place) = self.all.get(index) else { return true };
        let now = self.clock.monotonic();
        let new = match produce(&self.config, &self.fatal, &Arc::downgrade(self), index, now) {
            Ok(new) => Arc::new(new),
            Err(error) => {
                tracing::warn!(%error, "no new producer can be made");
                return false;
            }
        };
        let mut place = place.write();
        if Arc::ptr_eq(&place, old) {
            tracing::warn!("{why}; another one stands in for it");
            *place = new;
        }
        true
    }

    /// Waits for the answer to a batch. librdkafka may keep a partition without a leader
    /// for good (see `watch`), and answers only after minutes then.
    async fn answered(
        self: &Arc<Self>,
        to: &TopicPartition,
        mut answer: oneshot::Receiver<Outcome>,
    ) -> Appended {
        loop {
            tokio::select! {
                biased;
                outcome = &mut answer => {
                    self.is_on_time(to);
                    return outcome.map_or(Err(AppendError::Unknown), |it| self.answer(to, it));
                }
                () = self.clock.sleep(LATE) => self.is_late(to),
            }
        }
    }

    fn is_on_time(&self, to: &TopicPartition) {
        if !self.has_late.load(Ordering::Acquire) {
            return;
        }
        let mut late = self.late.lock();
        late.taken(to, self.clock.monotonic());
        self.has_late.store(!late.0.is_empty(), Ordering::Release);
    }

    fn is_late(self: &Arc<Self>, to: &TopicPartition) {
        let still = {
            let mut late = self.late.lock();
            self.has_late.store(true, Ordering::Release);
            late.note(to, self.clock.monotonic())
        };
        let Some(since) = still else { return };
        let (producers, to) = (Arc::clone(self), to.clone());
        super::elsewhere("kafka-still", move || producers.replace_still(&to, since));
    }

    /// Replaces the producer of a partition that has taken nothing `since` then, if the
    /// partition has a leader. Blocks.
    fn replace_still(self: &Arc<Self>, of: &TopicPartition, since: Instant) {
        let Some(index) = self.index(of) else { return };
        let Some(place) = self.all.get(index) else { return };
        let producer = Arc::clone(&place.read());
        // One that is newer has had no time yet.
        if producer.context().made > since || !stranded::has_leader(&self.config, of) {
            return;
        }
        tracing::warn!(partition = %of, "a partition that has a leader takes nothing");
        self.replace(index, &producer, "a producer stood still");
    }

    /// Appends. Everything up to the first wait happens in the first poll, and the
    /// room is given in the order in which it is asked for, so that calls keep
    /// their order. Only a batch for a partition that a producer has never heard of
    /// is sent later than that.
    pub(super) async fn append(self: &Arc<Self>, batches: Vec<AppendBatch>) -> Vec<Appended> {
        let kib: usize =
            1 + batches.iter().flat_map(|b| &b.records).map(bytes_of).sum::<usize>() / 1024;
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(IN_FLIGHT_KIB);
        // Without the cooperative budget a free place is given at once, in order.
        let Ok(_room) = tokio::task::unconstrained(self.room.acquire_many(kib)).await else {
            return batches.iter().map(|_| Err(AppendError::Unavailable)).collect();
        };
        let now = self.clock.now();
        let sent: Vec<Sent> = batches.into_iter().map(|batch| self.send(batch, now)).collect();
        let mut results = Vec::with_capacity(sent.len());
        for one in sent {
            let one = match one {
                Sent::Unknown(batch) => self.send_again(batch, now).await,
                Sent::Done(_) | Sent::Waiting(..) => one,
            };
            results.push(match one {
                Sent::Done(result) => result,
                Sent::Waiting(to, answer) => self.answered(&to, answer).await,
                Sent::Unknown(batch) => Err(AppendError::UnknownPartition(batch.to)),
            });
        }
        results
    }

    fn send(&self, batch: AppendBatch, now: Timestamp) -> Sent {
        if let Some(why) = self.fatal.get() {
            return Sent::Done(Err(AppendError::Fatal(Arc::clone(why))));
        }
        if batch.records.is_empty() {
            return Sent::Done(Ok(Offsets::Run { first: 0, count: 0 }));
        }
        let limit = self.max_record_bytes;
        for (index, record) in batch.records.iter().enumerate() {
            let bytes = bytes_of(record);
            if bytes > limit {
                return Sent::Done(Err(AppendError::TooLarge { index, bytes, limit }));
            }
        }
        let Some(place) = self.place(&batch.to) else {
            return Sent::Done(Err(AppendError::Unavailable));
        };
        // Kept until all is handed over: one that is replaced gets nothing any more.
        let producer = place.read();
        let Ok(partition) = i32::try_from(batch.to.partition) else {
            return Sent::Done(Err(AppendError::UnknownPartition(batch.to)));
        };
        let (answer, receiver) = oneshot::channel();
        let waiting = Arc::new(Waiting(Mutex::new(Reported {
            offsets: vec![0; batch.records.len()],
            failed: None,
            written: 0,
            left: batch.records.len(),
            answer: Some(answer),
        })));
        for (index, record) in batch.records.iter().enumerate() {
            let ticket = Box::new(Ticket { batch: Arc::clone(&waiting), index });
            let Err((error, _)) = producer.send(native(record, &batch.to, partition, now, ticket))
            else {
                continue;
            };
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let is_unknown = matches!(
                code,
                RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
            );
            if is_unknown && index == 0 {
                return Sent::Unknown(batch);
            }
            // What was handed over before may well be written.
            for rest in index..batch.records.len() {
                waiting.report(rest, Err(code));
            }
            break;
        }
        Sent::Waiting(batch.to, receiver)
    }

    /// Asks for the topic's partitions and sends once more.
    async fn send_again(self: &Arc<Self>, batch: AppendBatch, now: Timestamp) -> Sent {
        let producers = Arc::clone(self);
        let to = batch.to.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let Some(place) = producers.place(&to) else {
                return Err(AppendError::Unavailable);
            };
            let producer = Arc::clone(&place.read());
            let topic = to.topic.as_str();
            let metadata = producer
                .client()
                .fetch_metadata(Some(topic), super::CALL)
                .map_err(|_unreachable| AppendError::Unavailable)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            match found {
                Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                    let has = u32::try_from(found.partitions().len()).unwrap_or(u32::MAX);
                    if to.partition < has { Ok(()) } else { Err(AppendError::UnknownPartition(to)) }
                }
                Some(_) | None => Err(AppendError::UnknownTopic(to.topic)),
            }
        });
        match asked.await {
            Ok(Ok(())) => self.send(batch, now),
            Ok(Err(error)) => Sent::Done(Err(error)),
            Err(_broken) => Sent::Done(Err(AppendError::Unavailable)),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka's codes are open-ended")]
    fn answer(&self, to: &TopicPartition, outcome: Outcome) -> Appended {
        let Some((index, code)) = outcome.failed else {
            return Ok(offsets(outcome.offsets));
        };
        if let Some(why) = self.fatal.get() {
            return Err(AppendError::Fatal(Arc::clone(why)));
        }
        if outcome.written > 0 {
            return Err(AppendError::Unknown);
        }
        Err(match code {
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                AppendError::UnknownTopic(to.topic.clone())
            }
            RDKafkaErrorCode::UnknownPartition => AppendError::UnknownPartition(to.clone()),
            RDKafkaErrorCode::MessageSizeTooLarge => {
                tracing::error!(%to, "the broker takes smaller records than Tidings; raise max.message.bytes of the topic");
                let limit = self.max_record_bytes;
                AppendError::TooLarge { index, bytes: limit, limit }
            }
            RDKafkaErrorCode::QueueFull
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                tracing::warn!(%to, %code, "an append was refused");
                AppendError::Unavailable
            }
            other => {
                tracing::warn!(%to, code = %other, "the fate of an append is unknown");
                AppendError::Unknown
            }
        })
    }

    /// The producer of a partition: always the same one, so that it keeps its order.
    fn place(&self, of: &TopicPartition) -> Option<&RwLock<Producer>> {
        self.all.get(self.index(of)?)
    }

    fn index(&self, of: &TopicPartition) -> Option<usize> {
        let name = crc32c::crc32c(of.topic.as_str().as_bytes()).wrapping_add(of.partition);
        let count = u32::try_from(self.all.len()).ok()?;
        usize::try_from(name.checked_rem(count)?).ok()
    }
}

fn produce(
    config: &KafkaConfig,
    fatal: &Arc<OnceLock<Arc<str>>>,
    owner: &Weak<Producers>,
    index: usize,
    now: Instant,
) -> KafkaResult<ThreadedProducer<Reports>> {
    config.producer().create_with_context(Reports {
        fatal: Arc::clone(fatal),
        owner: Weak::clone(owner),
        index,
        is_watched: AtomicBool::new(false),
        made: now,
    })
}

type Native<'a> = BaseRecord<'a, [u8], [u8], Box<Ticket>>;

fn native<'a>(
    record: &'a NewRecord,
    to: &'a TopicPartition,
    partition: i32,
    now: Timestamp,
    ticket: Box<Ticket>,
) -> Native<'a> {
    let time = record.timestamp.unwrap_or(now).as_millis();
    let mut native =
        BaseRecord::with_opaque_to(to.topic.as_str(), ticket).partition(partition).timestamp(time);
    native.key = record.key.as_deref();
    native.payload = record.value.as_deref();
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(NativeHeader { key, value: Some(&value[..]) });
        }
        native.headers = Some(headers);
    }
    native
}

fn bytes_of(record: &NewRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers
}

fn offsets(all: Vec<Offset>) -> Offsets {
    let first = all.first().copied().unwrap_or(0);
    if all.iter().zip(first..).all(|(offset, expected)| *offset == expected) {
        Offsets::Run { first, count: u32::try_from(all.len()).unwrap_or(u32::MAX) }
    } else {
        Offsets::Scattered(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_partition_stands_still_also_if_each_who_waits_gives_up_before_it_is_sure() {
        let (mut late, one) = (Lateness::default(), TopicPartition::new("t", 0));
        assert_eq!(late.note(&one, at(105)), None);
        assert_eq!(late.note(&one, at(112)), None, "another batch");
        assert_eq!(late.note(&one, at(119)), Some(at(105)));
        assert_eq!(late.note(&one, at(124)), None, "it is looked at");
        assert_eq!(late.note(&one, at(129)), Some(at(119)));
    }

    #[test]
    fn what_nobody_waits_for_is_forgotten() {
        let (mut late, one) = (Lateness::default(), TopicPartition::new("t", 0));
        assert_eq!(late.note(&one, at(105)), None);
        assert_eq!(late.note(&one, at(3605)), None, "that was another time");
        late.taken(&TopicPartition::new("t", 1), at(3606));
        assert_eq!(late.0.len(), 1);
        late.taken(&TopicPartition::new("t", 1), at(3620));
        assert!(late.0.is_empty(), "also if nothing more goes to its partition");
        assert_eq!(late.note(&one, at(3700)), None);
        late.taken(&one, at(3701));
        assert!(late.0.is_empty());
    }
}
