//! The broker seam: what Tidings asks of a log of records, and the log that it
//! brings along for a bare machine.
//!
//! [`Broker`] is the one door. Behind it stands the local broker (`local`), a
//! durable single-process log, and Kafka (`kafka`). The seam
//! promises only what both can keep (design §1): append to several partitions
//! with a result for each, durable before it is acknowledged or visible; read
//! from an offset; wait for new data; offsets by time; commit positions with
//! metadata as a group's member; own partitions through a group; manage topics.
//! No transactions, no compaction.

mod kafka;
mod local;
mod metrics;
mod partitioner;
mod seam;

pub use kafka::{ConnectError, KafkaBroker, KafkaConfig, KafkaGroup, KafkaReader};
pub use local::{
    Fault, Faults, FreeSpace, LocalBroker, LocalConfig, LocalGroup, LocalReader, Maintained,
    OpenError, SyncStats,
};
pub use partitioner::partition_of;
pub use seam::{
    AppendBatch, AppendError, Appended, Broker, BrokerError, CommittedPosition, Damage, Fetched,
    Group, GroupError, GroupEvent, Header, InOrder, Liveness, MessageBytes, NewRecord, Offsets,
    PartitionEnds, Position, ReadError, Reader, Record, Retention, TopicDescription, TopicError,
    TopicSpec,
};
