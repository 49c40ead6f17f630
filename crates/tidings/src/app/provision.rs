//! Topics: what they must be, and how they are made.
//!
//! Each service makes what it alone needs; here stands what roles share, and the
//! list of all for `tidings topics`. Delivery topics are the API's alone.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tidings_broker::{Broker, ReadError, Retention, TopicError, TopicSpec};
use tidings_types::{OUTCOME_PARTITIONS, SLOTS, TopicName, TopicPartition, names};

use super::parts;
use crate::settings::Settings;

/// Outcomes outlive the decisions that they are about by so long (design §2).
const LONGER: Duration = Duration::from_secs(10 * 86_400);

/// Partitions of `tidings.fraud-responses` (design §2).
const FRAUD_PARTITIONS: u32 = 3;

/// What a look at a topic found.
#[derive(Debug)]
pub(crate) enum TopicState {
    Right,
    Made,
    Missing,
    /// What is wrong and what a person can do.
    Wrong(String),
}

/// A topic as it must be.
#[derive(Debug)]
pub(crate) struct WantedTopic {
    spec: TopicSpec,
    /// Whether another number of partitions breaks something for ever.
    is_fixed: bool,
}

impl WantedTopic {
    pub(crate) fn spec(&self) -> &TopicSpec {
        &self.spec
    }

    /// Compares the topic with what it must be.
    pub(crate) async fn check(&self, broker: &Broker) -> anyhow::Result<TopicState> {
        let name = &self.spec.name;
        let found = match broker.describe(name).await {
            Ok(found) => found,
            Err(TopicError::Unknown(_)) => return Ok(TopicState::Missing),
            Err(error) => return Err(error).context(format!("topic {name} cannot be described")),
        };
        let (has, must) = (found.partitions, self.spec.partitions);
        if self.is_fixed && has != must {
            return Ok(TopicState::Wrong(format!(
                "has {has} partitions and must have {must}; make it anew"
            )));
        }
        Ok(match (found.retention, self.spec.retention) {
            (Retention::For(keeps), Retention::Forever) => TopicState::Wrong(format!(
                "forgets after {keeps:?} and must never; set its retention.ms to -1"
            )),
            (Retention::For(keeps), Retention::For(must)) if keeps < must => {
                TopicState::Wrong(format!(
                    "forgets after {keeps:?} and must keep {must:?}; set its retention.ms to {}",
                    must.as_millis()
                ))
            }
            (Retention::For(_) | Retention::Forever, _) => TopicState::Right,
        })
    }

    /// Makes the topic if it is missing, else checks it.
    pub(crate) async fn make(&self, broker: &Broker) -> anyhow::Result<TopicState> {
        match broker.create_topic(self.spec.clone()).await {
            Ok(()) => Ok(TopicState::Made),
            Err(TopicError::Exists(_)) => self.check(broker).await,
            Err(error) => Err(error).context(format!("topic {} cannot be made", self.spec.name)),
        }
    }
}

/// Topics that no single service makes.
fn shared(history: Duration) -> [WantedTopic; 3] {
    [
        fixed(names::OUTCOMES, OUTCOME_PARTITIONS, Retention::For(history + LONGER)),
        fixed(names::SLOTS, SLOTS, Retention::Forever),
        fixed(names::FRAUD_RESPONSES, FRAUD_PARTITIONS, Retention::For(history)),
    ]
}

fn fixed(name: &str, partitions: u32, retention: Retention) -> WantedTopic {
    let name = TopicName::new(name);
    let spec = TopicSpec { name, partitions, retention, erase_buckets: None };
    WantedTopic { spec, is_fixed: true }
}

/// All topics but those of webhooks.
pub(crate) fn wanted_topics(settings: &Settings) -> anyhow::Result<Vec<WantedTopic>> {
    let mut wanted = Vec::from(shared(settings.eventlog_retention));
    wanted.push(fixed(names::REGISTRY, 1, Retention::Forever));
    wanted.push(WantedTopic {
        spec: tidings_registry::KeysTopic::spec(settings.keys_retention),
        is_fixed: true,
    });
    let retentions = parts::router_retentions(settings);
    for spec in tidings_router::topics(&parts::catalogue(settings)?, &retentions) {
        let is_fixed = spec.name.as_str() == names::ROUTED;
        wanted.push(WantedTopic { spec, is_fixed });
    }
    Ok(wanted)
}

/// Whether nobody has written anything yet.
pub(super) async fn is_new(broker: &Broker) -> anyhow::Result<bool> {
    let registry = TopicPartition::new(names::REGISTRY, 0);
    match broker.ends(&registry).await {
        Ok(ends) => Ok(ends.end == 0),
        Err(ReadError::UnknownPartition(_)) => Ok(true),
        Err(error) => Err(error).context("the registry's topic cannot be looked at"),
    }
}

/// Makes what is missing of what roles share, and checks what is there.
pub(super) async fn topics(broker: &Broker, history: Duration) -> anyhow::Result<()> {
    for wanted in shared(history) {
        if let TopicState::Wrong(why) = wanted.make(broker).await? {
            bail!("topic {} {why}", wanted.spec.name);
        }
    }
    Ok(())
}
