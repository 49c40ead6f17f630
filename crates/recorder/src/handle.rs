//! What others ask of a recorder.

use std::{collections::BTreeMap, time::Duration};

use tidings_broker::{Broker, BrokerError};
use tidings_eventlog::{Account, EventLog, ReadError, Source, Status};
use tidings_types::{Offset, TopicName, TopicPartition, names};
use tokio::time::timeout;

/// The group under which routers commit source positions.
const ROUTERS: &str = "tidings-router";

/// Why there are no sums.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountError {
    #[error("the broker cannot say what is committed; {0}")]
    Broker(#[from] BrokerError),
    /// Answer 503 with the status.
    #[error("the event log is behind what is committed; ask again later")]
    Behind,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    log: EventLog,
    broker: Broker,
    wait: Duration,
}

impl Handle {
    pub(crate) fn new(log: EventLog, broker: Broker, wait: Duration) -> Self {
        Self { log, broker, wait }
    }

    /// The view, for reading.
    pub fn event_log(&self) -> &EventLog {
        &self.log
    }

    pub fn status(&self) -> Status {
        self.log.status()
    }

    /// Whether everything has been read that stood in the topics at the start.
    pub fn is_ready(&self) -> bool {
        self.log.status().complete
    }

    /// The sums of invariant I11, of all source topics or of one. Reads the
    /// routers' commits first, then waits until both topics have been folded up to
    /// the ends that follow.
    ///
    /// # Errors
    ///
    /// [`AccountError::Behind`] if that takes too long.
    pub async fn account(&self, topic: Option<&TopicName>) -> Result<Account, AccountError> {
        let committed = self.committed(topic).await?;
        let ends = self.ends().await?;
        let mut account = self.account_at(&committed, &ends).await?;
        account.partitions.retain(|row| topic.is_none_or(|topic| row.source.topic == *topic));
        Ok(account)
    }

    /// The same for given commits and ends.
    ///
    /// # Errors
    ///
    /// As [`Handle::account`].
    pub async fn account_at(
        &self,
        committed: &BTreeMap<TopicPartition, Offset>,
        ends: &[(TopicPartition, Offset)],
    ) -> Result<Account, AccountError> {
        // An empty partition has no position to wait for.
        let ends: Vec<_> = ends.iter().filter(|(_, end)| *end > 0).cloned().collect();
        if timeout(self.wait, self.log.wait_for(&ends)).await.is_err() {
            return Err(AccountError::Behind);
        }
        Ok(self.log.account(committed).await?)
    }

    async fn committed(
        &self,
        topic: Option<&TopicName>,
    ) -> Result<BTreeMap<TopicPartition, Offset>, BrokerError> {
        let topics = self.broker.topics().await?;
        let wanted = |name: &TopicName| {
            name.as_str().starts_with(names::EVENTS_PREFIX)
                && topic.is_none_or(|topic| topic == name)
        };
        let partitions: Vec<TopicPartition> = topics
            .iter()
            .filter(|described| wanted(&described.name))
            .flat_map(|described| {
                (0..described.partitions).map(|n| TopicPartition::new(&described.name, n))
            })
            .collect();
        let committed = self.broker.committed(ROUTERS, &partitions).await?;
        let pairs = partitions.into_iter().zip(committed);
        Ok(pairs.filter_map(|(of, at)| at.map(|at| (of, at.next))).collect())
    }

    async fn ends(&self) -> Result<Vec<(TopicPartition, Offset)>, BrokerError> {
        let mut ends = Vec::new();
        for source in [Source::Routed, Source::Outcomes] {
            let topic = self.broker.describe(&TopicName::new(source.topic())).await?;
            for partition in 0..topic.partitions {
                let of = source.partition(partition);
                let end = self.broker.ends(&of).await?.end;
                ends.push((of, end));
            }
        }
        Ok(ends)
    }
}
