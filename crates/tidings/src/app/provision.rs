//! Topics: what they must be, and how they are made.
//!
//! Each service makes what it alone needs; here stands what roles share, and the
//! list of all for `tidings topics`. Delivery topics are the API's alone.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail};
use tidings_broker::{Broker, MessageBytes, ReadError, Retention, TopicError, TopicSpec};
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
    /// It works until a record is too large for it; what a person can do.
    Tight(String),
}

/// A topic as it must be.
#[derive(Debug)]
pub(crate) struct WantedTopic {
    spec: TopicSpec,
    /// Whether another number of partitions breaks something for ever.
    is_fixed: bool,
    /// Whether what it holds must be gone in time: codes that are used once, and the
    /// keys that they are sealed with.
    forgets: bool,
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
            (keeps, Retention::For(must)) if self.forgets && keeps != Retention::For(must) => {
                let keeps = match keeps {
                    Retention::For(keeps) => format!("keeps for {keeps:?}"),
                    Retention::Forever => "keeps for ever".to_owned(),
                };
                TopicState::Wrong(format!(
                    "{keeps} and must forget after {must:?}; set its retention.ms to {}",
                    must.as_millis()
                ))
            }
            (Retention::For(_) | Retention::Forever, _) => found
                .message_bytes
                .filter(|bytes| bytes.is_tight())
                .map_or(TopicState::Right, |bytes| TopicState::Tight(tight(bytes))),
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

fn tight(MessageBytes { takes, must }: MessageBytes) -> String {
    format!(
        "takes records of {takes} bytes and must take {must}; set its max.message.bytes to {must}"
    )
}

/// What is wrong with the topics of webhooks that are there, by name. The API makes
/// them, and an earlier build may have.
pub(crate) async fn tight_delivery_topics(
    broker: &Broker,
) -> anyhow::Result<Vec<(TopicName, String)>> {
    let all = broker.topics().await.context("the topics cannot be listed")?;
    let of_webhooks =
        all.into_iter().filter(|topic| topic.name.as_str().starts_with(names::DELIVERY_PREFIX));
    Ok(of_webhooks
        .filter_map(|topic| {
            let bytes = topic.message_bytes.filter(|bytes| bytes.is_tight())?;
            Some((topic.name, tight(bytes)))
        })
        .collect())
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
    WantedTopic { spec, is_fixed: true, forgets: false }
}

/// All topics but those of webhooks.
pub(crate) fn wanted_topics(settings: &Settings) -> anyhow::Result<Vec<WantedTopic>> {
    let mut wanted = Vec::from(shared(settings.eventlog_retention));
    wanted.push(fixed(names::REGISTRY, 1, Retention::Forever));
    wanted.push(WantedTopic {
        spec: tidings_registry::KeysTopic::spec(settings.keys_retention),
        is_fixed: true,
        forgets: true,
    });
    let catalogue = parts::catalogue(settings)?;
    let codes: BTreeSet<TopicName> = catalogue
        .types()
        .filter(|kind| !kind.ephemeral().is_empty())
        .map(tidings_catalogue::EventType::topic)
        .collect();
    let retentions = parts::router_retentions(settings);
    for spec in tidings_router::topics(&catalogue, &retentions) {
        let is_fixed = spec.name.as_str() == names::ROUTED;
        let forgets = codes.contains(&spec.name);
        wanted.push(WantedTopic { spec, is_fixed, forgets });
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
///
/// # Errors
/// When a topic would lose what must stay, or keep what must go.
pub(super) async fn topics(broker: &Broker, settings: &Settings) -> anyhow::Result<()> {
    if let Broker::Kafka(_) = broker {
        let all = wanted_topics(settings)?;
        let is_grave = |it: &&WantedTopic| it.forgets || it.spec.name.as_str() == names::REGISTRY;
        for wanted in all.iter().filter(is_grave) {
            if let TopicState::Wrong(why) = wanted.check(broker).await? {
                bail!("topic {} {why}", wanted.spec.name);
            }
        }
    }
    for wanted in shared(settings.eventlog_retention) {
        let topic = &wanted.spec.name;
        match wanted.make(broker).await? {
            TopicState::Wrong(why) => bail!("topic {topic} {why}"),
            // Nothing is lost, and most records fit.
            TopicState::Tight(why) => tracing::error!(%topic, why, "a topic is too tight"),
            TopicState::Right | TopicState::Made | TopicState::Missing => {}
        }
    }
    Ok(())
}
