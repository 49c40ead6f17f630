//! A member of a consumer group.
//!
//! librdkafka says in a callback that partitions come or go, and then waits until
//! they are assigned or given back. Here that happens in the next poll of the
//! owner: partitions that go are given back only when the owner, who has stopped
//! work on them, polls again (the seam's promise). Nothing is fetched through this
//! consumer.
//!
//! A sign of life is a commit that the group's coordinator accepted from this very
//! member: it commits a position of a partition of the group's own topic several
//! times a session. So what is committed there belongs to this file.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    Offset as NativeOffset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use tidings_types::{Instant, Offset, Partition, TopicName, TopicPartition};
use tokio::task::JoinHandle;

use super::{
    Shared,
    admin::{native, native_number},
    consumer::{Consumer, Taken},
    context::Change,
    stranded::{self, PAUSE, Sight},
};
use crate::seam::{GroupError, GroupEvent, Liveness, Position};

/// Text that a committed position may carry (design §1, the seam).
const METADATA_BYTES: usize = 4000;
/// A wake-up that was lost costs no more than this.
const FALLBACK: Duration = Duration::from_millis(100);
/// How many sessions a member waits to be let in.
const PATIENCE: u32 = 5;

/// What the owner has been told, and the group has not.
#[derive(Debug)]
enum Owed {
    /// Given back at the next poll.
    GiveBack(Vec<Partition>),
}

/// A membership. Dropped without leaving it counts as dead.
pub struct KafkaGroup {
    shared: Arc<Shared>,
    consumer: Option<Arc<Consumer>>,
    group: Arc<str>,
    topic: TopicName,
    session: Duration,
    owned: BTreeSet<Partition>,
    owed: Option<Owed>,
    /// Came while joining, and partitions were taken then; told at the first poll.
    first: Option<Change>,
    alive: Arc<AtomicU64>,
    polled: Arc<AtomicU64>,
    sign: Option<JoinHandle<(Instant, KafkaResult<()>)>>,
    /// When the last sign of life was asked for.
    asked: Instant,
    /// All brokers were down, and it has not been seen that the client finds one again
    /// (`stranded`).
    has_lost: bool,
    look: Option<JoinHandle<Sight>>,
    /// When the last look round began.
    looked: Instant,
}

impl fmt::Debug for KafkaGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaGroup")
            .field("group", &self.group)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}

impl KafkaGroup {
    pub(super) async fn join(
        shared: &Arc<Shared>,
        group: &str,
        topic: &TopicName,
        session: Duration,
    ) -> Result<Self, GroupError> {
        // A topic that does not exist may be created any moment.
        shared.admin.describe(topic).await.map_err(|_none| GroupError::Unavailable)?;
        let consumer = Consumer::new(&shared.config.member(group, session)).and_then(|consumer| {
            let client = consumer.client().ok_or(KafkaError::Canceled)?;
            client.subscribe(&[topic.as_str()])?;
            Ok(consumer)
        });
        let consumer = consumer.map_err(|error| {
            tracing::warn!(%error, group, "no member of a group can be made; check [kafka] and slots.session");
            GroupError::Unavailable
        })?;
        let now = shared.clock.monotonic();
        let mut joined = Self {
            shared: Arc::clone(shared),
            consumer: Some(Arc::new(consumer)),
            group: group.into(),
            topic: topic.clone(),
            session,
            owned: BTreeSet::new(),
            owed: None,
            first: None,
            alive: Arc::new(AtomicU64::new(now.as_nanos())),
            polled: Arc::new(AtomicU64::new(now.as_nanos())),
            sign: None,
            asked: now,
            has_lost: false,
            look: None,
            looked: now,
        };
        // A member is one that the group has let in.
        while shared.clock.monotonic().since(now) < session * PATIENCE {
            joined.polled.store(shared.clock.monotonic().as_nanos(), Ordering::Release);
            if let Some(change) = joined.next_change()? {
                // Taken at once: until then the group lets nobody else in.
                if let Change::Assign(partitions) = &change {
                    joined.accept(partitions);
                }
                joined.first = Some(change);
                let moment = shared.clock.monotonic();
                joined.alive.store(moment.as_nanos(), Ordering::Release);
                return Ok(joined);
            }
            joined.wait().await;
        }
        tracing::warn!(group, "the group lets nobody in");
        joined.leave().await;
        Err(GroupError::Unavailable)
    }

    pub(crate) async fn poll(&mut self) -> Result<GroupEvent, GroupError> {
        loop {
            self.still_member()?;
            let now = self.shared.clock.monotonic();
            self.polled.store(now.as_nanos(), Ordering::Release);
            if let Some(Owed::GiveBack(partitions)) = self.owed.take() {
                self.tell("gives back", &partitions, |consumer, list| {
                    consumer.incremental_unassign(list)
                });
            }
            self.show_life(now);
            let (change, is_taken) = match self.first.take() {
                Some(change) => (Some(change), true),
                None => (self.next_change()?, false),
            };
            match change {
                Some(Change::Assign(partitions)) => {
                    if !is_taken {
                        self.accept(&partitions);
                    }
                    if !partitions.is_empty() {
                        return Ok(GroupEvent::Assigned(partitions));
                    }
                }
                Some(Change::Revoke(mut partitions)) => {
                    partitions.retain(|partition| self.owned.remove(partition));
                    self.owed = Some(Owed::GiveBack(partitions.clone()));
                    if !partitions.is_empty() {
                        return Ok(GroupEvent::Revoked(partitions));
                    }
                }
                None => self.wait().await,
            }
        }
    }

    /// A member that did not poll for a session is none: others may have its
    /// partitions, whatever the client knows of that yet.
    fn still_member(&self) -> Result<(), GroupError> {
        let polled = Instant::from_nanos(self.polled.load(Ordering::Acquire));
        if self.consumer.is_some() && self.shared.clock.monotonic().since(polled) < self.session {
            Ok(())
        } else {
            Err(GroupError::Expelled(Arc::clone(&self.group)))
        }
    }

    /// What the group decided, if it did.
    fn next_change(&mut self) -> Result<Option<Change>, GroupError> {
        let Some(consumer) = self.consumer.clone() else {
            return Err(GroupError::Expelled(Arc::clone(&self.group)));
        };
        let Some(client) = consumer.client() else { return Ok(None) };
        loop {
            if let Some(change) = client.context().next_change() {
                return Ok(Some(change));
            }
            match consumer.take() {
                // Nothing is fetched here; a record may come before the pause does.
                Taken::Message(_) => {}
                Taken::Error(error) => self.on_error(&error)?,
                Taken::Nothing => return Ok(client.context().next_change()),
            }
        }
    }

    fn on_error(&mut self, error: &KafkaError) -> Result<(), GroupError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PollExceeded) => {
                self.consumer = None;
                Err(GroupError::Expelled(Arc::clone(&self.group)))
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.has_lost = true;
                Ok(())
            }
            Some(
                RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::InvalidSessionTimeout,
            ) => {
                tracing::warn!(%error, group = %self.group, "the broker refuses a member of a group");
                Err(GroupError::Unavailable)
            }
            Some(_) | None => {
                tracing::debug!(%error, group = %self.group, "a member of a group reports an error");
                Ok(())
            }
        }
    }

    fn accept(&mut self, partitions: &[Partition]) {
        self.tell("takes", partitions, |consumer, list| {
            list.set_all_offsets(NativeOffset::End)?;
            consumer.incremental_assign(list)?;
            if list.count() > 0 { consumer.pause(list) } else { Ok(()) }
        });
        self.owned.extend(partitions.iter().copied());
        self.asked = Instant::ZERO;
    }

    fn tell(
        &self,
        what: &str,
        partitions: &[Partition],
        say: impl FnOnce(
            &rdkafka::consumer::BaseConsumer<super::context::Context>,
            &mut TopicPartitionList,
        ) -> KafkaResult<()>,
    ) {
        let Some(client) = self.consumer.as_deref().and_then(Consumer::client) else { return };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(self.topic.as_str(), native_number(*partition));
        }
        if let Err(error) = say(client, &mut list) {
            tracing::warn!(%error, group = %self.group, what, "a member could not tell its group");
        }
    }

    /// Asks the coordinator for a proof of membership, several times a session.
    fn show_life(&mut self, now: Instant) {
        if self.sign.is_some() || now.since(self.asked) < self.session / 6 {
            return;
        }
        let (Some(consumer), Some(partition)) = (self.consumer.clone(), self.owned.first()) else {
            return;
        };
        self.asked = now;
        let of = TopicPartition { topic: self.topic.clone(), partition: *partition };
        let sign = vec![Position { of, next: 0, metadata: String::new() }];
        self.sign = Some(tokio::task::spawn_blocking(move || (now, commit_now(&consumer, &sign))));
    }

    /// Sees whether a client that has lost all brokers finds one again.
    fn look_round(&mut self) {
        let now = self.shared.clock.monotonic();
        if !self.has_lost || self.look.is_some() || now.since(self.looked) < PAUSE {
            return;
        }
        let Some(consumer) = self.consumer.clone() else { return };
        self.looked = now;
        let shared = Arc::clone(&self.shared);
        self.look = Some(tokio::task::spawn_blocking(move || match consumer.client() {
            Some(client) => stranded::look_round(client.client(), &shared.config),
            None => Sight::Stranded,
        }));
    }

    async fn wait(&mut self) {
        self.look_round();
        let clock = Arc::clone(&self.shared.clock);
        let wake = self.consumer.as_ref().map(|consumer| Arc::clone(&consumer.wake));
        let woken = super::or_never(wake.as_ref().map(|wake| wake.notified()));
        let signed = super::or_never(self.sign.as_mut());
        let looked = super::or_never(self.look.as_mut());
        tokio::select! {
            biased;
            signed = signed => {
                self.sign = None;
                match signed {
                    Ok((at, Ok(()))) => {
                        self.alive.fetch_max(at.as_nanos(), Ordering::AcqRel);
                    }
                    Ok((_, Err(error))) if is_expelled(&error) => self.consumer = None,
                    Ok((_, Err(error))) => {
                        tracing::debug!(%error, group = %self.group, "no sign of life was accepted");
                    }
                    Err(error) => tracing::warn!(%error, "a sign of life broke off"),
                }
            }
            looked = looked => {
                self.look = None;
                match looked {
                    Ok(Sight::Brokers) => self.has_lost = false,
                    Ok(Sight::Nothing) => {}
                    Ok(Sight::Stranded) => {
                        tracing::warn!(group = %self.group, "a member of a group was left without any broker; another one joins");
                        self.consumer = None;
                    }
                    Err(error) => tracing::warn!(%error, "a look round broke off"),
                }
            }
            () = woken => {}
            () = clock.sleep(FALLBACK) => {}
        }
    }

    pub(crate) fn last_alive(&self) -> Instant {
        self.liveness().last_alive()
    }

    pub(crate) fn liveness(&self) -> Liveness {
        Liveness(Arc::clone(&self.alive))
    }

    pub(crate) async fn commit(&self, mut positions: Vec<Position>) -> Result<(), GroupError> {
        self.still_member()?;
        if positions.is_empty() {
            return Ok(());
        }
        for position in &mut positions {
            if position.metadata.len() > METADATA_BYTES {
                tracing::error!(of = %position.of, "the text of a position is cut to 4,000 bytes");
                let end = position.metadata.floor_char_boundary(METADATA_BYTES);
                position.metadata.truncate(end);
            }
        }
        let Some(consumer) = self.consumer.clone() else {
            return Err(GroupError::Expelled(Arc::clone(&self.group)));
        };
        let now = self.shared.clock.monotonic();
        let committed =
            tokio::task::spawn_blocking(move || commit_now(&consumer, &positions)).await;
        match committed {
            Ok(Ok(())) => {
                self.alive.fetch_max(now.as_nanos(), Ordering::AcqRel);
                Ok(())
            }
            Ok(Err(error)) if is_expelled(&error) => {
                Err(GroupError::Expelled(Arc::clone(&self.group)))
            }
            // Also while the group moves partitions: the next one passes.
            Ok(Err(error)) => {
                tracing::debug!(%error, group = %self.group, "positions could not be committed");
                Err(GroupError::Unavailable)
            }
            Err(_broken) => Err(GroupError::Unavailable),
        }
    }

    pub(crate) async fn leave(mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        if let Some(Owed::GiveBack(partitions)) = self.owed.take() {
            self.consumer = Some(Arc::clone(&consumer));
            self.tell("gives back", &partitions, |client, list| client.incremental_unassign(list));
            self.consumer = None;
        }
        // Its own sign of life holds the client as well.
        if let Some(sign) = self.sign.take() {
            sign.await.map_or_else(|_broken| (), |_done| ());
        }
        let left = tokio::task::spawn_blocking(move || match Arc::try_unwrap(consumer) {
            Ok(consumer) => consumer.close(),
            Err(_shared) => tracing::debug!("a commit still runs; the member leaves after it"),
        });
        if let Err(error) = left.await {
            tracing::warn!(%error, group = %self.group, "a member could not leave its group");
        }
    }
}

impl Drop for KafkaGroup {
    /// Nobody knows what the owner still does, so its partitions must not move
    /// before the session ends: the client is kept, unpolled, for so long.
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        let session = self.session;
        let keep = move || {
            std::thread::park_timeout(session);
            drop(consumer);
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-dead".to_owned()).spawn(keep) {
            tracing::warn!(%error, "no thread to keep a dead member until its session ends");
        }
    }
}

/// Whether the coordinator does not know this member (any more).
fn is_expelled(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::FencedInstanceId)
    )
}

/// Commits and waits for the answer. Blocks.
fn commit_now(consumer: &Consumer, positions: &[Position]) -> KafkaResult<()> {
    let Some(client) = consumer.client() else { return Err(KafkaError::Canceled) };
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for position in positions {
        let next = Offset::min(position.next, i64::MAX.unsigned_abs());
        let mut element = list.add_partition(position.of.topic.as_str(), native(&position.of));
        element.set_offset(NativeOffset::Offset(i64::try_from(next).unwrap_or(i64::MAX)))?;
        element.set_metadata(position.metadata.as_str());
    }
    client.commit(&list, CommitMode::Sync)
}
