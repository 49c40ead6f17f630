//! One read of one partition, from anywhere: a few consumers take turns.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rdkafka::{
    Offset as NativeOffset, TopicPartitionList, consumer::Consumer as _, error::KafkaError,
    message::Message as _,
};
use tidings_types::{Clock, Offset, TopicPartition};
use tokio::sync::Semaphore;

use super::{
    CALL, KafkaConfig,
    admin::Admin,
    consumer::{Consumer, Taken, record, weight},
};
use crate::seam::{ReadError, Record};

/// How long a read waits for its records.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one look at the queue may last; nothing waits for it once there is a
/// record.
const SLICE: Duration = Duration::from_millis(100);

/// Consumers for single reads.
pub(super) struct Fetchers {
    config: KafkaConfig,
    idle: Mutex<Vec<Consumer>>,
    turns: Semaphore,
    clock: Arc<dyn Clock>,
}

impl Fetchers {
    pub(super) fn new(config: &KafkaConfig, clock: Arc<dyn Clock>) -> Self {
        let turns = Semaphore::new(config.reads.max(1));
        Self { config: config.clone(), idle: Mutex::default(), turns, clock }
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        admin: &Arc<Admin>,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let ends = Arc::clone(admin).ends(from).await?;
        super::check(from, offset, ends)?;
        if offset == ends.end {
            return Ok(Vec::new());
        }
        let _turn = self.turns.acquire().await.map_err(|_closed| ReadError::Unavailable)?;
        let fetchers = Arc::clone(self);
        let from = from.clone();
        let read = tokio::task::spawn_blocking(move || fetchers.fetch(&from, offset, max_bytes));
        read.await.map_err(|_broken| ReadError::Unavailable)?
    }

    fn fetch(
        &self,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let idle = self.idle.lock().pop();
        let consumer = match idle.filter(|consumer| !consumer.has_lost()) {
            Some(consumer) => consumer,
            None => Consumer::new(&self.config.fetcher()).map_err(|error| unavailable(&error))?,
        };
        let fetched = self.fetch_with(&consumer, from, offset, max_bytes);
        let mut idle = self.idle.lock();
        match fetched {
            Ok(records) => {
                idle.push(consumer);
                Ok(records)
            }
            Err(error) => {
                // What failed one may fail the others, each for as long.
                idle.clear();
                Err(unavailable(&error))
            }
        }
    }

    fn fetch_with(
        &self,
        consumer: &Consumer,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, KafkaError> {
        let Some(client) = consumer.client() else { return Err(KafkaError::Canceled) };
        let topic = from.topic.as_str();
        let partition = i32::try_from(from.partition).unwrap_or(i32::MAX);
        let at = NativeOffset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        // Metadata first: an assignment of an unknown partition waits for seconds.
        client.fetch_metadata(Some(topic), CALL)?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, partition, at)?;
        client.incremental_assign(&list)?;
        let records = self.collect(consumer, from, offset, max_bytes);
        client.incremental_unassign(&list)?;
        records
    }

    fn collect(
        &self,
        consumer: &Consumer,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, KafkaError> {
        let started = self.clock.monotonic();
        let partition = i32::try_from(from.partition).unwrap_or(i32::MAX);
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        loop {
            let slice = if records.is_empty() { SLICE } else { Duration::ZERO };
            match consumer.take_within(slice) {
                Taken::Message(message) => {
                    let expected = records.last().map_or(offset, |last| last.offset + 1);
                    if message.topic() != from.topic.as_str()
                        || u32::try_from(message.partition()) != Ok(from.partition)
                        || Offset::try_from(message.offset()).is_ok_and(|at| at < expected)
                    {
                        continue;
                    }
                    let record = record(&message);
                    bytes += weight(&record);
                    records.push(record);
                    if bytes >= max_bytes {
                        return Ok(records);
                    }
                }
                // Only markers of transactions, or an open one, stand there.
                Taken::Error(KafkaError::PartitionEOF(of)) if of == partition => {
                    return Ok(records);
                }
                // Of the partition that was read before with this client.
                Taken::Error(KafkaError::PartitionEOF(_)) => {}
                Taken::Error(error) if records.is_empty() => return Err(error),
                Taken::Error(_) => return Ok(records),
                Taken::Nothing if !records.is_empty() => return Ok(records),
                Taken::Nothing if self.clock.monotonic().since(started) > PATIENCE => {
                    return Err(KafkaError::NoMessageReceived);
                }
                Taken::Nothing => {}
            }
        }
    }
}

fn unavailable(error: &KafkaError) -> ReadError {
    tracing::debug!(%error, "a read failed");
    ReadError::Unavailable
}
