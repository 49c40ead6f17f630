//! Clients that have forgotten every broker.
//!
//! A broker that has just come back, or that its controller takes for dead, answers a
//! question for metadata with no broker at all. librdkafka (2.10 to 2.13 at least,
//! confluentinc/librdkafka#5301) then lets go of all brokers that it knows, those of
//! `bootstrap.servers` too, and now and then it never connects to anything again.
//!
//! Nothing tells such a client from one whose brokers are away, except that a new
//! client finds one. So whoever has been told that all brokers are down looks round,
//! and a client that is stranded is replaced: a reader and the admin client at once,
//! since they hold nothing; a member of a group and a producer, which do, only then.

use std::time::Duration;

use rdkafka::{ClientContext, admin::AdminClient, client::Client};
use tidings_types::{TopicPartition, names};

use super::{
    KafkaConfig,
    admin::{Quiet, native},
};

/// How long a client that can find a broker may take for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// What a client that had lost all brokers sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Brokers,
    /// The brokers are away, for everybody.
    Nothing,
    /// It sees nothing where a new client sees a broker.
    Stranded,
}

/// Looks round with `client`. Blocks, for three times [`PATIENCE`] at most.
pub(super) fn look_round<C: ClientContext>(client: &Client<C>, config: &KafkaConfig) -> Sight {
    if sees_brokers(client) {
        return Sight::Brokers;
    }
    let new: Result<AdminClient<Quiet>, _> = config.admin().create_with_context(Quiet::default());
    if !new.is_ok_and(|new| sees_brokers(new.inner())) {
        return Sight::Nothing;
    }
    // Perhaps they came back only just now.
    if sees_brokers(client) { Sight::Brokers } else { Sight::Stranded }
}

/// Whichever topic is asked for, the answer names the brokers.
fn sees_brokers<C: ClientContext>(client: &Client<C>) -> bool {
    let answer = client.fetch_metadata(Some(names::REGISTRY), PATIENCE);
    answer.is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// Whether a new client finds the leader of a partition. Blocks, for [`PATIENCE`] at most.
pub(super) fn has_leader(config: &KafkaConfig, of: &TopicPartition) -> bool {
    let new: Result<AdminClient<Quiet>, _> = config.admin().create_with_context(Quiet::default());
    let Ok(new) = new else { return false };
    let answer = new.inner().fetch_metadata(Some(of.topic.as_str()), PATIENCE);
    answer.is_ok_and(|metadata| {
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.any(|one| one.id() == native(of) && one.leader() >= 0 && one.error().is_none())
    })
}
