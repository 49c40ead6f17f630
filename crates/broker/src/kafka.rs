//! Kafka behind the seam, through librdkafka.
//!
//! Calls of the client that wait for the broker block their thread, so they run
//! where that is allowed and have a bound ([`CALL`]). Records never take that way:
//! producers answer from delivery reports, consumers are asked only for what they
//! have and wake the task that waits.

mod admin;
mod config;
mod consumer;
mod context;
mod fetch;
mod group;
mod producer;
mod reader;
mod stranded;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use tidings_types::{Clock, Offset, Timestamp, TopicName, TopicPartition};

pub use config::KafkaConfig;
pub use group::KafkaGroup;
pub use reader::KafkaReader;

use crate::seam::{
    AppendBatch, Appended, CommittedPosition, GroupError, PartitionEnds, ReadError, Record,
    TopicDescription, TopicError, TopicSpec,
};

/// How long one question to the broker may take.
const CALL: Duration = Duration::from_secs(8);

/// Why Kafka cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("setting `kafka.{0}` is part of what Tidings promises and cannot be set; remove it")]
    Forbidden(String),
    #[error("setting `kafka.{key}`: {why}")]
    Setting { key: String, why: String },
    #[error("the settings in [kafka] cannot be used: {0}")]
    Settings(String),
    #[error(
        "no broker of {bootstrap} answers ({why}); check the address, [kafka] and that Kafka runs"
    )]
    Unreachable { bootstrap: String, why: String },
}

/// What all parts of one connection share.
struct Shared {
    config: KafkaConfig,
    clock: Arc<dyn Clock>,
    admin: Arc<admin::Admin>,
    producers: Arc<producer::Producers>,
    fetchers: Arc<fetch::Fetchers>,
}

/// Kafka. Cheap to clone.
#[derive(Clone)]
pub struct KafkaBroker(Arc<Shared>);

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaBroker").field(&self.0.config).finish()
    }
}

impl KafkaBroker {
    /// Connects.
    ///
    /// # Errors
    /// When a setting cannot be used or no broker answers.
    pub async fn connect(config: KafkaConfig, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        config.check()?;
        let settings =
            |error: rdkafka::error::KafkaError| ConnectError::Settings(error.to_string());
        let admin = admin::Admin::new(&config, Arc::clone(&clock)).map_err(settings)?;
        let admin = Arc::new(admin);
        let producers =
            producer::Producers::start(&config, Arc::clone(&clock)).map_err(settings)?;
        Arc::clone(&admin).connect().await.map_err(|error| ConnectError::Unreachable {
            bootstrap: config.bootstrap.clone(),
            why: error.to_string(),
        })?;
        let fetchers = Arc::new(fetch::Fetchers::new(&config, Arc::clone(&clock)));
        Ok(Self(Arc::new(Shared { config, clock, admin, producers, fetchers })))
    }

    pub(crate) async fn append(&self, batches: Vec<AppendBatch>) -> Vec<Appended> {
        self.0.producers.append(batches).await
    }

    pub(crate) async fn read(
        &self,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.0.fetchers.read(&self.0.admin, from, offset, max_bytes).await
    }

    pub(crate) fn reader(&self) -> KafkaReader {
        KafkaReader::new(Arc::clone(&self.0))
    }

    pub(crate) async fn ends(&self, of: &TopicPartition) -> Result<PartitionEnds, ReadError> {
        Arc::clone(&self.0.admin).ends(of).await
    }

    pub(crate) async fn offset_at(
        &self,
        of: &TopicPartition,
        time: Timestamp,
    ) -> Result<Offset, ReadError> {
        Arc::clone(&self.0.admin).offset_at(of, time).await
    }

    pub(crate) async fn join(
        &self,
        group: &str,
        topic: &TopicName,
        session: Duration,
    ) -> Result<KafkaGroup, GroupError> {
        KafkaGroup::join(&self.0, group, topic, session).await
    }

    pub(crate) async fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedPosition>>, GroupError> {
        Arc::clone(&self.0.admin).committed(group, of).await
    }

    pub(crate) async fn create_topic(&self, spec: TopicSpec) -> Result<(), TopicError> {
        self.0.admin.create(&spec).await
    }

    pub(crate) async fn add_partitions(
        &self,
        topic: &TopicName,
        partitions: u32,
    ) -> Result<(), TopicError> {
        self.0.admin.add_partitions(topic, partitions).await
    }

    pub(crate) async fn topics(&self) -> Result<Vec<TopicDescription>, TopicError> {
        self.0.admin.topics().await
    }

    pub(crate) async fn describe(&self, topic: &TopicName) -> Result<TopicDescription, TopicError> {
        self.0.admin.describe(topic).await
    }

    pub(crate) async fn delete_topic(&self, topic: &TopicName) -> Result<(), TopicError> {
        self.0.admin.delete(topic).await
    }

    pub(crate) async fn trim(&self, of: &TopicPartition, before: Offset) -> Result<(), TopicError> {
        self.0.admin.trim(of, before).await
    }
}

/// Whether a position can be read.
fn check(of: &TopicPartition, offset: Offset, ends: PartitionEnds) -> Result<(), ReadError> {
    let partition = of.clone();
    if offset < ends.first {
        Err(ReadError::Trimmed { partition, offset, first: ends.first })
    } else if offset > ends.end {
        Err(ReadError::BeyondEnd { partition, offset, end: ends.end })
    } else {
        Ok(())
    }
}

/// Waits for what may not be under way: then for ever.
async fn or_never<F: Future>(under_way: Option<F>) -> F::Output {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// Runs what would hold its caller up on a thread of its own.
fn elsewhere(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::warn!(%error, name, "no thread can be started; it was done in place or not at all");
    }
}

/// Lets a consumer that is only asked questions write its log.
fn drain(consumer: &consumer::Consumer) {
    while !matches!(consumer.take(), consumer::Taken::Nothing) {}
}
