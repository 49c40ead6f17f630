//! Retention: a bounded step of removing what has expired, taken when the owner
//! of the broker calls for it.

use std::{sync::Arc, time::Duration};

use tidings_types::{Offset, Timestamp};
use tokio::sync::oneshot;

use super::{
    commit::{OpKind, TopicChange, TopicOp, TrimOp},
    core::Core,
    partition::Part,
};
use crate::seam::{ReadError, Retention, TopicError};

/// Batches that one step looks at in the store.
const LOOKS: usize = 512;

/// What a step of maintenance came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions from which something was removed.
    pub expired: usize,
    /// Whether another step at once would find more to do.
    pub more: bool,
}

impl Core {
    /// Expires and cleans up a bounded amount.
    pub(super) async fn maintain(self: &Arc<Self>) -> Maintained {
        // Where it blocks, appends block as well: on the journal.
        let health = self.blocking(|core| Ok(core.store.health())).await;
        if let Ok(Err(error)) = health {
            self.fail(&error.0);
        }
        if self.alive().is_err() {
            return Maintained::default();
        }
        let mut step = Maintained::default();
        let now = self.clock.now();
        let parts = self.expiring();
        let mut looks = LOOKS;
        let from = self.expiry_cursor(parts.len(), 0);
        for index in 0..parts.len() {
            if looks == 0 {
                step.more = true;
                break;
            }
            let Some((part, retention)) = parts.get((from + index) % parts.len()) else { break };
            if let Some(before) = self.expired(part, *retention, now, &mut looks).await {
                step.expired += 1;
                if let Err(error) = self.trim(part, before).await {
                    tracing::warn!(partition = %part.name, %error, "expired records stay for now");
                }
            }
            self.expiry_cursor(parts.len(), 1);
        }
        if self.has_garbage() {
            if let Err(error) = self.change_topic(TopicChange::Clean).await {
                tracing::warn!(%error, "removed records stay on the disk for now");
                return step;
            }
            step.more |= self.has_garbage();
        }
        step
    }

    /// Moves the place where the next step goes on; returns where it was.
    fn expiry_cursor(&self, len: usize, by: usize) -> usize {
        let mut cursor = self.expiry.lock();
        let at = if *cursor < len { *cursor } else { 0 };
        *cursor = at + by;
        at
    }

    fn expiring(&self) -> Vec<(Arc<Part>, Duration)> {
        let topics = self.topics.read();
        let mut parts = Vec::new();
        for topic in topics.by_name.values() {
            match topic.meta.retention {
                Retention::Forever => {}
                Retention::For(time) => {
                    parts.extend(topic.parts.iter().map(|part| (Arc::clone(part), time)));
                }
            }
        }
        parts
    }

    /// The offset before which everything has expired, if anything has.
    async fn expired(
        self: &Arc<Self>,
        part: &Arc<Part>,
        retention: Duration,
        now: Timestamp,
        looks: &mut usize,
    ) -> Option<Offset> {
        {
            let state = part.state.lock();
            let young = state.front_time.is_some_and(|time| time + retention > now);
            if state.deleted || state.first == state.end || young {
                return None;
            }
        }
        let allowed = *looks;
        let of = Arc::clone(part);
        let looked =
            self.blocking(move |core| core.expired_prefix(&of, retention, now, allowed)).await;
        match looked {
            Ok((before, used)) => {
                *looks = looks.saturating_sub(used);
                before
            }
            Err(error) => {
                *looks = looks.saturating_sub(1);
                tracing::error!(partition = %part.name, %error, "retention cannot look");
                None
            }
        }
    }

    fn expired_prefix(
        &self,
        part: &Part,
        retention: Duration,
        now: Timestamp,
        allowed: usize,
    ) -> Result<(Option<Offset>, usize), ReadError> {
        let mut before = None;
        let mut used = 0;
        let ends = part.ends()?;
        let mut from = ends.first;
        while used < allowed && from < ends.end {
            used += 1;
            let Some(header) = self.header_at(part, from, ends.end)? else { break };
            if header.max_time + retention > now {
                if before.is_none() {
                    part.state.lock().front_time = Some(header.max_time);
                }
                break;
            }
            from = header.end();
            before = Some(from);
        }
        Ok((before, used))
    }

    async fn trim(self: &Arc<Self>, part: &Part, before: Offset) -> Result<(), TopicError> {
        self.trim_named(part.name.clone(), before).await
    }

    pub(super) async fn trim_named(
        self: &Arc<Self>,
        of: tidings_types::TopicPartition,
        before: Offset,
    ) -> Result<(), TopicError> {
        let (sender, receiver) = oneshot::channel();
        self.ask(OpKind::Trim(TrimOp { of, before, answer: sender }), receiver).await
    }

    pub(super) async fn change_topic(
        self: &Arc<Self>,
        change: TopicChange,
    ) -> Result<(), TopicError> {
        let (sender, receiver) = oneshot::channel();
        self.ask(OpKind::Topic(TopicOp { change, answer: sender }), receiver).await
    }

    async fn ask(
        self: &Arc<Self>,
        kind: OpKind,
        receiver: oneshot::Receiver<Result<(), TopicError>>,
    ) -> Result<(), TopicError> {
        let due = self
            .enqueue(kind, 0, Duration::ZERO)
            .map_err(|error| super::commit::topic_error(&error))?;
        self.answer(due, receiver).await.unwrap_or(Err(TopicError::Unavailable))
    }
}
