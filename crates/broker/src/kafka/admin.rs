//! Topics, ends, offsets by time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Offset as NativeOffset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, NewPartitions, NewTopic, OwnedResourceSpecifier,
        ResourceSpecifier, TopicReplication,
    },
    config::RDKafkaLogLevel,
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use tidings_types::{Clock, Offset, Partition, Timestamp, TopicName, TopicPartition};

use super::{CALL, KafkaConfig, config::UNUSED_GROUP, consumer::Consumer, context};
use crate::seam::{
    CommittedPosition, GroupError, MessageBytes, PartitionEnds, ReadError, Retention,
    TopicDescription, TopicError, TopicSpec,
};

/// How long to wait until a change of a topic is seen by all.
const SEEN: Duration = Duration::from_secs(20);
/// How long a new partition may take until its leader answers for it.
const FRESH: Duration = Duration::from_secs(2);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Topics whose settings are asked for at once.
const CHUNK: usize = 200;

/// What logs on behalf of the admin client.
#[derive(Default)]
pub(super) struct Quiet {
    /// All brokers were down.
    has_lost: AtomicBool,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.has_lost.store(true, Ordering::Release);
        }
    }
}

/// The client that manages topics and answers questions about them.
pub(super) struct Admin {
    config: KafkaConfig,
    client: Mutex<Arc<AdminClient<Quiet>>>,
    clock: Arc<dyn Clock>,
    /// One consumer per group whose positions were asked for.
    groups: Mutex<BTreeMap<String, Arc<Consumer>>>,
    /// How many brokers there were at the start.
    brokers: AtomicUsize,
    /// As each topic was last described. For a list of all topics that is new enough;
    /// asking costs.
    settings: Mutex<BTreeMap<TopicName, Settings>>,
}

/// What is looked at of a topic's settings.
#[derive(Clone, Copy)]
struct Settings {
    retention: Retention,
    message_bytes: MessageBytes,
}

/// Partitions and leaders of a topic, `None` if it does not exist.
type Seen = Option<(u32, bool)>;

impl Admin {
    pub(super) fn new(config: &KafkaConfig, clock: Arc<dyn Clock>) -> KafkaResult<Self> {
        Ok(Self {
            config: config.clone(),
            client: Mutex::new(Arc::new(config.admin().create_with_context(Quiet::default())?)),
            clock,
            groups: Mutex::default(),
            brokers: AtomicUsize::new(0),
            settings: Mutex::default(),
        })
    }

    /// The client; another one after all brokers were down (`stranded`).
    fn client(&self) -> Arc<AdminClient<Quiet>> {
        let mut client = self.client.lock();
        if client.inner().context().has_lost.swap(false, Ordering::AcqRel) {
            match self.config.admin().create_with_context(Quiet::default()) {
                Ok(new) => {
                    let old = std::mem::replace(&mut *client, Arc::new(new));
                    // Its end waits for its threads.
                    super::elsewhere("kafka-close", move || drop(old));
                }
                Err(error) => tracing::warn!(%error, "no new admin client can be made"),
            }
        }
        Arc::clone(&client)
    }

    /// The client's memory may be wrong for good: it may keep a partition without a
    /// leader (`watch`), or ask a broker that it never reaches. The next question goes to
    /// another one.
    fn distrust(&self) {
        self.client.lock().inner().context().has_lost.store(true, Ordering::Release);
    }

    /// Passes on what a question came to. Whatever kept the answer away, the next
    /// question goes to another client.
    fn heard<T>(&self, answer: KafkaResult<T>) -> KafkaResult<T> {
        answer.inspect_err(|_unanswered| self.distrust())
    }

    /// Asks who is there; an error if nobody can be reached.
    pub(super) async fn connect(self: Arc<Self>) -> KafkaResult<()> {
        let asked = self.blocking(|admin| {
            let asked = admin.client().inner().fetch_metadata(None, CALL);
            let brokers = admin.heard(asked)?.brokers().len();
            admin.brokers.store(brokers, Ordering::Relaxed);
            Ok(())
        });
        asked.await.unwrap_or(Err(KafkaError::Canceled))
    }

    pub(super) async fn ends(
        self: Arc<Self>,
        of: &TopicPartition,
    ) -> Result<PartitionEnds, ReadError> {
        let of = of.clone();
        self.blocking(move |admin| admin.ends_now(&of)).await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// Blocks. A partition that the broker lists but does not know everywhere yet is
    /// asked for again, for as long as [`FRESH`].
    pub(super) fn ends_now(&self, of: &TopicPartition) -> Result<PartitionEnds, ReadError> {
        let started = self.clock.monotonic();
        loop {
            match self.watermarks(of) {
                Ok(ends) => return Ok(ends),
                Err(false) => return Err(ReadError::Unavailable),
                Err(true) => {}
            }
            // The client's memory may be old; the broker's word counts, and the
            // client learns it from the look.
            match self.look(of.topic.as_str()) {
                Ok(Some((partitions, _))) if of.partition < partitions => {}
                Ok(_) => return Err(ReadError::UnknownPartition(of.clone())),
                Err(_) => return Err(ReadError::Unavailable),
            }
            if self.clock.monotonic().since(started) > FRESH {
                self.distrust();
                return Err(ReadError::Unavailable);
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// The error says whether the partition is unknown.
    fn watermarks(&self, of: &TopicPartition) -> Result<PartitionEnds, bool> {
        let asked = self.client().inner().fetch_watermarks(of.topic.as_str(), native(of), CALL);
        let offset = |value: i64| Offset::try_from(value).unwrap_or(0);
        match asked {
            Ok((first, end)) => Ok(PartitionEnds { first: offset(first), end: offset(end) }),
            Err(error) => Err({
                tracing::debug!(%error, partition = %of, "the ends of a partition are not known");
                let is_unknown = matches!(
                    error.rdkafka_error_code(),
                    Some(
                        RDKafkaErrorCode::UnknownPartition
                            | RDKafkaErrorCode::UnknownTopic
                            | RDKafkaErrorCode::UnknownTopicOrPartition
                            | RDKafkaErrorCode::NotLeaderForPartition
                            | RDKafkaErrorCode::LeaderNotAvailable
                    )
                );
                if !is_unknown {
                    self.distrust();
                }
                is_unknown
            }),
        }
    }

    pub(super) async fn offset_at(
        self: Arc<Self>,
        of: &TopicPartition,
        time: Timestamp,
    ) -> Result<Offset, ReadError> {
        let of = of.clone();
        let found = self.blocking(move |admin| {
            let ends = admin.ends_now(&of)?;
            let consumer = admin.group(UNUSED_GROUP).map_err(|_error| ReadError::Unavailable)?;
            let client = consumer.client().ok_or(ReadError::Unavailable)?;
            let mut list = TopicPartitionList::with_capacity(1);
            // Times below zero have a meaning of their own in the protocol.
            let at = NativeOffset::Offset(time.as_millis().max(0));
            list.add_partition_offset(of.topic.as_str(), native(&of), at)
                .map_err(|_error| ReadError::Unavailable)?;
            let found = client.offsets_for_times(list, CALL);
            super::drain(&consumer);
            let found = found.map_err(|_error| {
                admin.forget_group(UNUSED_GROUP);
                ReadError::Unavailable
            })?;
            let offset = found
                .elements()
                .first()
                .map(rdkafka::topic_partition_list::TopicPartitionListElem::offset);
            match offset {
                Some(NativeOffset::Offset(offset)) => {
                    Ok(Offset::try_from(offset).unwrap_or(ends.first).clamp(ends.first, ends.end))
                }
                Some(NativeOffset::End) => Ok(ends.end),
                Some(_) | None => Err(ReadError::Unavailable),
            }
        });
        found.await.unwrap_or(Err(ReadError::Unavailable))
    }

    pub(super) async fn committed(
        self: Arc<Self>,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedPosition>>, GroupError> {
        let (group, of) = (group.to_owned(), of.to_vec());
        let asked = self.blocking(move |admin| {
            let mut list = TopicPartitionList::with_capacity(of.len());
            for one in &of {
                list.add_partition(one.topic.as_str(), native(one));
            }
            let consumer = admin.group(&group)?;
            let client = consumer.client().ok_or(KafkaError::Canceled)?;
            let found = client.committed_offsets(list, CALL);
            super::drain(&consumer);
            let found = found.inspect_err(|_unanswered| admin.forget_group(&group))?;
            let position = |one: &TopicPartition| {
                let found = found.find_partition(one.topic.as_str(), native(one))?;
                let NativeOffset::Offset(next) = found.offset() else { return None };
                let next = Offset::try_from(next).ok()?;
                Some(CommittedPosition { next, metadata: found.metadata().to_owned() })
            };
            Ok::<_, KafkaError>(of.iter().map(position).collect())
        });
        match asked.await {
            Some(Ok(positions)) => Ok(positions),
            Some(Err(error)) => {
                tracing::debug!(%error, "committed positions could not be read");
                Err(GroupError::Unavailable)
            }
            None => Err(GroupError::Unavailable),
        }
    }

    pub(super) async fn create(self: &Arc<Self>, spec: &TopicSpec) -> Result<(), TopicError> {
        let name = spec.name.as_str();
        if !TopicName::is_legal(name) {
            return Err(TopicError::IllegalName(name.to_owned()));
        }
        if spec.partitions == 0 {
            return Err(TopicError::FewerPartitions { has: 0, asked: 0 });
        }
        // Whoever may not make topics need not be allowed to where there is nothing to make.
        if self.look_async(&spec.name).await?.is_some() {
            return Err(TopicError::Exists(spec.name.clone()));
        }
        let brokers = self.brokers.load(Ordering::Relaxed);
        let settings = topic_settings(&self.config, spec, brokers);
        let replication = if brokers >= 3 { 3 } else { 1 };
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
        for (key, value) in &settings {
            topic = topic.set(key, value);
        }
        let created = self.client().create_topics([&topic], &options()).await;
        first(self.heard(created), &spec.name, &self.config)?;
        let must = self.config.max_message_bytes();
        let made = Settings {
            retention: spec.retention,
            message_bytes: MessageBytes { takes: must, must },
        };
        self.settings.lock().insert(spec.name.clone(), made);
        let wanted = spec.partitions;
        self.until(&spec.name, move |seen| seen.is_some_and(|(has, ready)| has >= wanted && ready))
            .await
    }

    pub(super) async fn add_partitions(
        self: &Arc<Self>,
        topic: &TopicName,
        partitions: u32,
    ) -> Result<(), TopicError> {
        let (has, _) =
            self.look_async(topic).await?.ok_or_else(|| TopicError::Unknown(topic.clone()))?;
        if partitions < has {
            return Err(TopicError::FewerPartitions { has, asked: partitions });
        }
        if partitions == has {
            return Ok(());
        }
        let count = usize::try_from(partitions).unwrap_or(usize::MAX);
        let more = NewPartitions::new(topic.as_str(), count);
        let added = self.client().create_partitions([&more], &options()).await;
        match first(self.heard(added), topic, &self.config) {
            // Another added them meanwhile.
            Err(TopicError::FewerPartitions { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        self.until(topic, move |seen| seen.is_some_and(|(has, ready)| has >= partitions && ready))
            .await
    }

    pub(super) async fn topics(self: &Arc<Self>) -> Result<Vec<TopicDescription>, TopicError> {
        let all = Arc::clone(self).blocking(|admin| {
            let metadata = admin.heard(admin.client().inner().fetch_metadata(None, CALL))?;
            let known = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
            Ok::<_, KafkaError>(
                known
                    .map(|topic| {
                        let partitions = u32::try_from(topic.partitions().len()).unwrap_or(0);
                        (TopicName::new(topic.name()), partitions)
                    })
                    .collect::<Vec<_>>(),
            )
        });
        let mut all = all.await.ok_or(TopicError::Unavailable)?.map_err(|error| failed(&error))?;
        all.sort();
        let known = self.settings.lock().clone();
        let new: Vec<TopicName> = all
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !known.contains_key(*name))
            .cloned()
            .collect();
        for chunk in new.chunks(CHUNK) {
            self.ask_settings(chunk).await?;
        }
        let settings = self.settings.lock();
        Ok(all
            .into_iter()
            .filter_map(|(name, partitions)| Some(settings.get(&name)?.of(name, partitions)))
            .collect())
    }

    pub(super) async fn describe(
        self: &Arc<Self>,
        topic: &TopicName,
    ) -> Result<TopicDescription, TopicError> {
        let seen = self.look_async(topic).await?;
        let Some((partitions, _)) = seen else {
            self.settings.lock().remove(topic);
            return Err(TopicError::Unknown(topic.clone()));
        };
        self.ask_settings(std::slice::from_ref(topic)).await?;
        let known = self.settings.lock().get(topic).copied();
        let known = known.ok_or_else(|| TopicError::Unknown(topic.clone()))?;
        Ok(known.of(topic.clone(), partitions))
    }

    async fn ask_settings(&self, topics: &[TopicName]) -> Result<(), TopicError> {
        let asked: Vec<ResourceSpecifier<'_>> =
            topics.iter().map(|topic| ResourceSpecifier::Topic(topic.as_str())).collect();
        let answers = self.client().describe_configs(&asked, &options()).await;
        for answer in self.heard(answers).map_err(|error| failed(&error))? {
            // One that is being deleted has none.
            let Ok(found) = answer else { continue };
            let OwnedResourceSpecifier::Topic(name) = &found.specifier else { continue };
            let value = |key: &str| found.get(key).and_then(|entry| entry.value.as_deref());
            let millis = value("retention.ms").and_then(|value| value.parse::<i64>().ok());
            let retention = match u64::try_from(millis.unwrap_or(-1)) {
                Ok(millis) => Retention::For(Duration::from_millis(millis)),
                Err(_negative) => Retention::Forever,
            };
            let must = self.config.max_message_bytes();
            let takes = value("max.message.bytes").and_then(|value| value.parse().ok());
            let message_bytes = MessageBytes { takes: takes.unwrap_or(must), must };
            let settings = Settings { retention, message_bytes };
            self.settings.lock().insert(TopicName::new(name), settings);
        }
        Ok(())
    }

    pub(super) async fn delete(self: &Arc<Self>, topic: &TopicName) -> Result<(), TopicError> {
        let deleted = self.client().delete_topics(&[topic.as_str()], &options()).await;
        self.settings.lock().remove(topic);
        first(self.heard(deleted), topic, &self.config)?;
        self.until(topic, |seen| seen.is_none()).await
    }

    pub(super) async fn trim(
        self: &Arc<Self>,
        of: &TopicPartition,
        before: Offset,
    ) -> Result<(), TopicError> {
        let ends = match Arc::clone(self).ends(of).await {
            Ok(ends) => ends,
            Err(ReadError::UnknownPartition(of)) => return Err(TopicError::Unknown(of.topic)),
            Err(_) => return Err(TopicError::Unavailable),
        };
        let before = before.min(ends.end);
        if before <= ends.first {
            return Ok(());
        }
        let at = NativeOffset::Offset(i64::try_from(before).unwrap_or(i64::MAX));
        let done = {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition_offset(of.topic.as_str(), native(of), at)
                .map_err(|error| failed(&error))?;
            self.client().delete_records(&list, &options())
        };
        let done = self.heard(done.await).map_err(|error| failed(&error))?;
        match done
            .elements()
            .first()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::error)
        {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(failed(&error)),
            None => Err(TopicError::Unavailable),
        }
    }

    /// Waits until all brokers that are asked see the topic as wanted.
    async fn until(
        self: &Arc<Self>,
        topic: &TopicName,
        wanted: impl Fn(Seen) -> bool,
    ) -> Result<(), TopicError> {
        let started = self.clock.monotonic();
        loop {
            if self.look_async(topic).await.is_ok_and(&wanted) {
                return Ok(());
            }
            if self.clock.monotonic().since(started) > SEEN {
                tracing::warn!(%topic, "a change of a topic is not seen by the brokers yet");
                return Err(TopicError::Unavailable);
            }
            self.clock.sleep(LOOK).await;
        }
    }

    async fn look_async(self: &Arc<Self>, topic: &TopicName) -> Result<Seen, TopicError> {
        let topic = topic.clone();
        let looked = Arc::clone(self).blocking(move |admin| admin.look(topic.as_str())).await;
        looked.ok_or(TopicError::Unavailable)?.map_err(|error| failed(&error))
    }

    /// Asks the broker about one topic. Blocks.
    #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka's codes are open-ended")]
    fn look(&self, topic: &str) -> KafkaResult<Seen> {
        let metadata = self.heard(self.client().inner().fetch_metadata(Some(topic), CALL))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else { return Ok(None) };
        if let Some(error) = found.error() {
            let code = RDKafkaErrorCode::from(error);
            return match code {
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::InvalidTopic => Ok(None),
                other => Err(KafkaError::MetadataFetch(other)),
            };
        }
        let ready = found.partitions().iter().all(|one| one.error().is_none() && one.leader() >= 0);
        let partitions = u32::try_from(found.partitions().len()).unwrap_or(u32::MAX);
        Ok((partitions > 0).then_some((partitions, ready)))
    }

    fn group(&self, group: &str) -> KafkaResult<Arc<Consumer>> {
        let mut groups = self.groups.lock();
        if let Some(known) = groups.get(group)
            && !known.has_lost()
        {
            return Ok(Arc::clone(known));
        }
        let consumer = Arc::new(Consumer::new(&self.config.consumer(group))?);
        groups.insert(group.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }

    /// One that does not answer may never (`stranded`): the next question goes to a new
    /// one.
    fn forget_group(&self, group: &str) {
        self.groups.lock().remove(group);
    }

    /// Runs what blocks elsewhere; `None` if it broke off.
    async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        tokio::task::spawn_blocking(move || work(&self)).await.ok()
    }
}

impl Settings {
    fn of(self, name: TopicName, partitions: u32) -> TopicDescription {
        let Self { retention, message_bytes } = self;
        TopicDescription { name, partitions, retention, message_bytes: Some(message_bytes) }
    }
}

pub(super) fn native(of: &TopicPartition) -> i32 {
    native_number(of.partition)
}

pub(super) fn native_number(partition: Partition) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(CALL)).operation_timeout(Some(CALL))
}

/// All that we want of a topic (design §2).
fn topic_settings(
    config: &KafkaConfig,
    spec: &TopicSpec,
    brokers: usize,
) -> Vec<(&'static str, String)> {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut settings = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", config.max_message_bytes().to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    settings.push(match spec.retention {
        Retention::Forever => ("retention.ms", "-1".to_owned()),
        Retention::For(time) => ("retention.ms", millis(time)),
    });
    if brokers >= 3 {
        settings.push(("min.insync.replicas", "2".to_owned()));
    }
    let is_trimmed = spec.name.as_str().starts_with(tidings_types::names::DELIVERY_PREFIX)
        || spec.name.as_str() == tidings_types::names::SLOTS;
    if let Some(bucket) = spec.erase_buckets {
        // Records leave the disk with their segment.
        settings.push(("segment.ms", millis(bucket)));
        settings.push(("file.delete.delay.ms", "1000".to_owned()));
    } else if is_trimmed {
        settings.push(("segment.ms", "3600000".to_owned()));
        settings.push(("segment.bytes", (16 << 20).to_string()));
    }
    settings
}

/// The one result of a call about one topic.
#[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka's codes are open-ended")]
fn first(
    answer: KafkaResult<Vec<Result<String, (String, RDKafkaErrorCode)>>>,
    topic: &TopicName,
    config: &KafkaConfig,
) -> Result<(), TopicError> {
    let all = answer.map_err(|error| failed(&error))?;
    match all.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(match code {
            RDKafkaErrorCode::TopicAlreadyExists => TopicError::Exists(topic.clone()),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                TopicError::Unknown(topic.clone())
            }
            RDKafkaErrorCode::InvalidPartitions => TopicError::FewerPartitions { has: 0, asked: 0 },
            other => {
                tracing::warn!(%topic, code = %other, bootstrap = config.bootstrap, "the broker refused a change of a topic");
                TopicError::Unavailable
            }
        }),
        None => Err(TopicError::Unavailable),
    }
}

fn failed(error: &KafkaError) -> TopicError {
    tracing::debug!(%error, "an admin call failed");
    TopicError::Unavailable
}
