//! The seam itself: the types that cross it, and the enums that dispatch to the
//! broker behind it. No logic of any broker stands here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidings_types::{Instant, Offset, Partition, Timestamp, TopicName, TopicPartition};

use crate::{
    kafka::{KafkaBroker, KafkaGroup, KafkaReader},
    local::{LocalBroker, LocalGroup, LocalReader},
};

/// One header of a record.
pub type Header = (Arc<str>, Bytes);

/// A record to append. The broker gives it its time when `timestamp` is none.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    pub key: Option<Bytes>,
    pub headers: Vec<Header>,
    /// `None` is a null value (a tombstone), as a foreign producer may write it.
    pub value: Option<Bytes>,
    pub timestamp: Option<Timestamp>,
}

/// A record as it stands in a partition.
#[derive(Clone, Debug)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub headers: Arc<[Header]>,
    pub value: Option<Bytes>,
}

/// Records for one partition, appended in this order.
#[derive(Clone, Debug)]
pub struct AppendBatch {
    pub to: TopicPartition,
    pub records: Vec<NewRecord>,
}

/// Where the records of a batch came to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// `count` records, one behind the other.
    Run { first: Offset, count: u32 },
    /// Another writer's records stand between (possible on Kafka only).
    Scattered(Vec<Offset>),
}

impl Offsets {
    pub fn get(&self, index: usize) -> Option<Offset> {
        match self {
            Self::Run { first, count } => {
                let index = u64::try_from(index).ok()?;
                (index < u64::from(*count)).then(|| first + index)
            }
            Self::Scattered(offsets) => offsets.get(index).copied(),
        }
    }

    pub fn first(&self) -> Option<Offset> {
        self.get(0)
    }

    pub fn last(&self) -> Option<Offset> {
        match self {
            Self::Run { first, count } => (*count > 0).then(|| first + u64::from(*count) - 1),
            Self::Scattered(offsets) => offsets.last().copied(),
        }
    }
}

/// What one batch's append came to. `Ok` means durable.
pub type Appended = Result<Offsets, AppendError>;

/// Why a batch was not (or may not have been) appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("topic {0} does not exist; create it first")]
    UnknownTopic(TopicName),
    #[error("partition {0} does not exist; add it first")]
    UnknownPartition(TopicPartition),
    /// A record is larger than the broker takes. Nothing was written.
    #[error("record {index} has {bytes} bytes, the limit is {limit}")]
    TooLarge { index: usize, bytes: usize, limit: usize },
    /// Nothing was written; the same append may succeed once there is space.
    #[error("the log has no space left; free some or enlarge the disk")]
    NoSpace,
    /// Nothing was written; the same append may succeed later.
    #[error("the broker cannot be reached now")]
    Unavailable,
    /// The batch may or may not have been written.
    #[error("the fate of the append is unknown")]
    Unknown,
    /// This process must end: the log failed in a way that going on would hide.
    #[error("the log failed for good: {0}")]
    Fatal(Arc<str>),
}

/// What [`Broker::append_in_order`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InOrder {
    pub first: Appended,
    /// One result for each batch of `then`. `None`: nothing of it was written, and
    /// it is the caller's to append if `first` stands.
    pub then: Option<Vec<Appended>>,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("topic or partition {0} does not exist")]
    UnknownPartition(TopicPartition),
    /// The offset has been trimmed or has expired. Go on from `first`.
    #[error("offset {offset} of {partition} is gone, the first one is {first}")]
    Trimmed { partition: TopicPartition, offset: Offset, first: Offset },
    /// The offset is beyond the end: the topic lost its tail.
    #[error("offset {offset} of {partition} is beyond its end {end}")]
    BeyondEnd { partition: TopicPartition, offset: Offset, end: Offset },
    #[error("the broker cannot be reached now")]
    Unavailable,
    /// What is stored cannot be read, and nothing that stands behind it is shown.
    #[error("a stored batch of {partition} at offset {offset} {damage}")]
    Damaged { partition: TopicPartition, offset: Offset, damage: Damage },
}

/// Why a stored batch cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not match its checksum, or cannot be taken apart.
    #[error("is damaged")]
    Broken,
    /// It is one record, as its producer wrote it, that unpacks to more than a client
    /// takes. What stands behind it can be read from the next offset on.
    #[error("holds one record that unpacks to more than is taken")]
    TooLarge,
}

/// Why a topic could not be created, changed, trimmed, listed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic {0} does not exist")]
    Unknown(TopicName),
    #[error("topic {0} exists already")]
    Exists(TopicName),
    #[error("{0:?} is not a legal topic name")]
    IllegalName(String),
    #[error("a topic cannot lose partitions: it has {has}, asked for {asked}")]
    FewerPartitions { has: u32, asked: u32 },
    #[error("the log has no space left; free some or enlarge the disk")]
    NoSpace,
    #[error("the broker cannot be reached now")]
    Unavailable,
}

/// Why a group's member could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The member did not poll within its session, or another took its place.
    /// Its partitions belong to others; join anew.
    #[error("the member was expelled from group {0}")]
    Expelled(Arc<str>),
    #[error("the broker cannot be reached now")]
    Unavailable,
    #[error("the log has no space left; free some or enlarge the disk")]
    NoSpace,
}

/// Any error of the seam, for callers that treat all alike.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// How long a topic keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Until trimmed by [`Broker::trim`].
    Forever,
    /// At least this long by record time.
    For(Duration),
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: TopicName,
    pub partitions: u32,
    pub retention: Retention,
    /// Whether records must leave the disk when they expire (`tidings.keys`):
    /// stored in files of their own, one per time bucket of this length.
    pub erase_buckets: Option<Duration>,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: TopicName,
    pub partitions: u32,
    pub retention: Retention,
    /// `None` where a topic takes whatever its broker takes.
    pub message_bytes: Option<MessageBytes>,
}

/// The largest record, with its framing, of a topic that has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageBytes {
    /// What the topic takes.
    pub takes: usize,
    /// What it must take for every record of ours.
    pub must: usize,
}

impl MessageBytes {
    /// Whether a record of ours may be refused.
    pub fn is_tight(self) -> bool {
        self.takes < self.must
    }
}

/// The first offset that can be read and the one that the next record will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    pub first: Offset,
    pub end: Offset,
}

/// A position to commit: the next offset to read, with up to 4,000 bytes of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub of: TopicPartition,
    pub next: Offset,
    pub metadata: String,
}

/// A position as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedPosition {
    pub next: Offset,
    pub metadata: String,
}

/// Records of one partition, in order, as [`Reader::poll`] gives them.
#[derive(Debug)]
pub struct Fetched {
    pub from: TopicPartition,
    /// The records, or why none can be read; after an error the partition is
    /// unassigned from the reader until it is assigned anew.
    pub records: Result<Vec<Record>, ReadError>,
}

/// What a poll of a group tells its member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// These partitions are the member's from now on.
    Assigned(Vec<Partition>),
    /// These are no longer the member's. It stops work on them before it polls
    /// again; the next owner gets them only then, or when the session ends.
    Revoked(Vec<Partition>),
}

/// A log of records. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Broker {
    Local(LocalBroker),
    Kafka(KafkaBroker),
}

impl Broker {
    /// Appends batches to several partitions in one call; one result for each, in
    /// order. A batch is durable before its result says so, and no reader sees it
    /// before. Batches to one partition keep their order also between calls whose
    /// futures were first polled in that order.
    pub async fn append(&self, batches: Vec<AppendBatch>) -> Vec<Appended> {
        match self {
            Self::Local(local) => local.append(batches).await,
            Self::Kafka(kafka) => kafka.append(batches).await,
        }
    }

    /// Appends `first`, and only if it comes to stand at `at`, behind it `then`: no
    /// crash leaves anything of `then` without `first`. A broker that can do both with
    /// one sync does; any other appends `first` alone and says so.
    pub async fn append_in_order(
        &self,
        first: AppendBatch,
        at: Offset,
        then: Vec<AppendBatch>,
    ) -> InOrder {
        match self {
            Self::Local(local) => local.append_in_order(first, at, then).await,
            Self::Kafka(kafka) => {
                let first = kafka.append(vec![first]).await.into_iter().next();
                InOrder { first: first.unwrap_or(Err(AppendError::Unknown)), then: None }
            }
        }
    }

    /// Reads up to about `max_bytes` (at least one record if there is one) from
    /// `offset` on. Empty at the end; does not wait.
    pub async fn read(
        &self,
        from: &TopicPartition,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Record>, ReadError> {
        match self {
            Self::Local(local) => local.read(from, offset, max_bytes).await,
            Self::Kafka(kafka) => kafka.read(from, offset, max_bytes).await,
        }
    }

    /// Makes a reader with nothing assigned.
    pub fn reader(&self) -> Reader {
        match self {
            Self::Local(local) => Reader::Local(local.reader()),
            Self::Kafka(kafka) => Reader::Kafka(kafka.reader()),
        }
    }

    pub async fn ends(&self, of: &TopicPartition) -> Result<PartitionEnds, ReadError> {
        match self {
            Self::Local(local) => local.ends(of).await,
            Self::Kafka(kafka) => kafka.ends(of).await,
        }
    }

    /// The first offset whose record is not older than `time`; the end if none is.
    pub async fn offset_at(
        &self,
        of: &TopicPartition,
        time: Timestamp,
    ) -> Result<Offset, ReadError> {
        match self {
            Self::Local(local) => local.offset_at(of, time).await,
            Self::Kafka(kafka) => kafka.offset_at(of, time).await,
        }
    }

    /// Joins a group that hands out the partitions of `topic`. A member that does
    /// not [`Group::poll`] for `session` is expelled.
    pub async fn join(
        &self,
        group: &str,
        topic: &TopicName,
        session: Duration,
    ) -> Result<Group, GroupError> {
        match self {
            Self::Local(local) => local.join(group, topic, session).await.map(Group::Local),
            Self::Kafka(kafka) => kafka.join(group, topic, session).await.map(Group::Kafka),
        }
    }

    /// The positions that a group has committed, in the order asked for.
    pub async fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedPosition>>, GroupError> {
        match self {
            Self::Local(local) => local.committed(group, of).await,
            Self::Kafka(kafka) => kafka.committed(group, of).await,
        }
    }

    pub async fn create_topic(&self, spec: TopicSpec) -> Result<(), TopicError> {
        match self {
            Self::Local(local) => local.create_topic(spec).await,
            Self::Kafka(kafka) => kafka.create_topic(spec).await,
        }
    }

    /// Raises the number of partitions to `partitions`; the same number is no error.
    pub async fn add_partitions(
        &self,
        topic: &TopicName,
        partitions: u32,
    ) -> Result<(), TopicError> {
        match self {
            Self::Local(local) => local.add_partitions(topic, partitions).await,
            Self::Kafka(kafka) => kafka.add_partitions(topic, partitions).await,
        }
    }

    pub async fn topics(&self) -> Result<Vec<TopicDescription>, TopicError> {
        match self {
            Self::Local(local) => local.topics().await,
            Self::Kafka(kafka) => kafka.topics().await,
        }
    }

    pub async fn describe(&self, topic: &TopicName) -> Result<TopicDescription, TopicError> {
        match self {
            Self::Local(local) => local.describe(topic).await,
            Self::Kafka(kafka) => kafka.describe(topic).await,
        }
    }

    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), TopicError> {
        match self {
            Self::Local(local) => local.delete_topic(topic).await,
            Self::Kafka(kafka) => kafka.delete_topic(topic).await,
        }
    }

    /// Removes the records before `before`. They cannot be read afterwards.
    pub async fn trim(&self, of: &TopicPartition, before: Offset) -> Result<(), TopicError> {
        match self {
            Self::Local(local) => local.trim(of, before).await,
            Self::Kafka(kafka) => kafka.trim(of, before).await,
        }
    }
}

/// Reads assigned partitions from positions of its own and waits for new data.
#[derive(Debug)]
pub enum Reader {
    Local(LocalReader),
    Kafka(KafkaReader),
}

impl Reader {
    /// Reads `partition` from `offset` on; a second call moves the position.
    pub fn assign(&mut self, partition: TopicPartition, offset: Offset) {
        match self {
            Self::Local(local) => local.assign(partition, offset),
            Self::Kafka(kafka) => kafka.assign(partition, offset),
        }
    }

    pub fn unassign(&mut self, partition: &TopicPartition) {
        match self {
            Self::Local(local) => local.unassign(partition),
            Self::Kafka(kafka) => kafka.unassign(partition),
        }
    }

    /// Keeps the position but returns nothing of `partition` until it is resumed.
    pub fn pause(&mut self, partition: &TopicPartition) {
        match self {
            Self::Local(local) => local.pause(partition),
            Self::Kafka(kafka) => kafka.pause(partition),
        }
    }

    pub fn resume(&mut self, partition: &TopicPartition) {
        match self {
            Self::Local(local) => local.resume(partition),
            Self::Kafka(kafka) => kafka.resume(partition),
        }
    }

    /// The position of an assigned partition: the offset it will read next.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        match self {
            Self::Local(local) => local.position(partition),
            Self::Kafka(kafka) => kafka.position(partition),
        }
    }

    /// Waits until there is something to read and returns up to about `max_bytes`,
    /// taking turns between partitions. Safe to drop while waiting.
    pub async fn poll(&mut self, max_bytes: usize) -> Vec<Fetched> {
        match self {
            Self::Local(local) => local.poll(max_bytes).await,
            Self::Kafka(kafka) => kafka.poll(max_bytes).await,
        }
    }
}

/// A member of a group. Dropped without [`Group::leave`] it counts as dead: its
/// partitions are handed out after the session time.
#[derive(Debug)]
pub enum Group {
    Local(LocalGroup),
    Kafka(KafkaGroup),
}

impl Group {
    /// Waits for a change and keeps the membership alive meanwhile (it wakes up by
    /// itself often enough while the future is polled). Safe to drop.
    pub async fn poll(&mut self) -> Result<GroupEvent, GroupError> {
        match self {
            Self::Local(local) => local.poll().await,
            Self::Kafka(kafka) => kafka.poll().await,
        }
    }

    /// When the member last proved to the broker that it lives. An attempt may
    /// start only within half the session after it (design §5).
    pub fn last_alive(&self) -> Instant {
        match self {
            Self::Local(local) => local.last_alive(),
            Self::Kafka(kafka) => kafka.last_alive(),
        }
    }

    /// A handle that reads [`Group::last_alive`] from elsewhere.
    pub fn liveness(&self) -> Liveness {
        match self {
            Self::Local(local) => local.liveness(),
            Self::Kafka(kafka) => kafka.liveness(),
        }
    }

    /// Commits positions of any partitions under this group's name, as a member:
    /// refused once expelled.
    pub async fn commit(&self, positions: Vec<Position>) -> Result<(), GroupError> {
        match self {
            Self::Local(local) => local.commit(positions).await,
            Self::Kafka(kafka) => kafka.commit(positions).await,
        }
    }

    /// Leaves: the partitions are handed out at once.
    pub async fn leave(self) {
        match self {
            Self::Local(local) => local.leave().await,
            Self::Kafka(kafka) => kafka.leave().await,
        }
    }
}

/// Reads from any task when a group's member last proved that it lives.
#[derive(Clone, Debug)]
pub struct Liveness(pub(crate) Arc<std::sync::atomic::AtomicU64>);

impl Liveness {
    pub fn last_alive(&self) -> Instant {
        Instant::from_nanos(self.0.load(std::sync::atomic::Ordering::Acquire))
    }
}
