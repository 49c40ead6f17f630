//! Topics that no single role makes: those that roles share.
//!
//! The registry, the keys and the router's topics are made by their own crates;
//! delivery topics by the API alone.

use std::time::Duration;

use anyhow::ensure;
use tidings_broker::{Broker, Retention, TopicError, TopicSpec};
use tidings_types::{OUTCOME_PARTITIONS, SLOTS, TopicName, names};

/// Outcomes outlive the decisions that they are about by so long (design §2).
const LONGER: Duration = Duration::from_secs(10 * 86_400);

/// Partitions of `tidings.fraud-responses` (design §2).
const FRAUD_PARTITIONS: u32 = 3;

/// Makes what is missing, and checks the partitions of what is there.
pub(super) async fn topics(broker: &Broker, history: Duration) -> anyhow::Result<()> {
    let specs = [
        (names::OUTCOMES, OUTCOME_PARTITIONS, Retention::For(history + LONGER)),
        (names::SLOTS, SLOTS, Retention::Forever),
        (names::FRAUD_RESPONSES, FRAUD_PARTITIONS, Retention::For(history)),
    ];
    for (name, partitions, retention) in specs {
        let name = TopicName::new(name);
        let spec = TopicSpec { name: name.clone(), partitions, retention, erase_buckets: None };
        match broker.create_topic(spec).await {
            Ok(()) => {}
            Err(TopicError::Exists(_)) => {
                let has = broker.describe(&name).await?.partitions;
                ensure!(
                    has == partitions,
                    "topic {name} has {has} partitions and must have {partitions}; make it anew"
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
