//! A member of a group, as its owner holds it.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tidings_types::{Instant, TopicName};
use tokio::sync::{Notify, oneshot};

use super::{
    commit::{OpKind, PositionsOp, group_error},
    core::Core,
    group::{MemberId, Step},
};
use crate::seam::{GroupError, GroupEvent, Liveness, Position};

/// Text that a committed position may carry (design §1, the seam).
const METADATA_BYTES: usize = 4000;
/// The shortest wait between two looks at a group: a clock of whole
/// milliseconds wakes a little early otherwise and the poll would spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A membership. Dropped without leaving it counts as dead.
pub struct LocalGroup {
    core: Arc<Core>,
    group: Arc<str>,
    id: MemberId,
    alive: Arc<AtomicU64>,
    notify: Arc<Notify>,
}

impl fmt::Debug for LocalGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalGroup")
            .field("group", &self.group)
            .field("member", &self.id)
            .finish_non_exhaustive()
    }
}

impl LocalGroup {
    pub(super) fn join(
        core: &Arc<Core>,
        group: &str,
        topic: &TopicName,
        session: Duration,
    ) -> Result<Self, GroupError> {
        if core.is_crashed() {
            return Err(GroupError::Unavailable);
        }
        let joined = core.groups.lock().join(core, group, topic, session);
        // A topic that does not exist may be created any moment.
        let joined = joined.ok_or(GroupError::Unavailable)?;
        Ok(Self {
            core: Arc::clone(core),
            group: group.into(),
            id: joined.id,
            alive: joined.alive,
            notify: joined.notify,
        })
    }

    pub(crate) async fn poll(&mut self) -> Result<GroupEvent, GroupError> {
        loop {
            if self.core.is_crashed() {
                return Err(GroupError::Unavailable);
            }
            let faults = self.core.faults.as_ref();
            if faults.is_some_and(|faults| faults.is_cut_off(&self.group, self.id)) {
                return Err(GroupError::Unavailable);
            }
            let step = self.core.groups.lock().step(&self.core, self.id);
            let until = match step {
                Step::Event(event) => return Ok(event),
                Step::Expelled => return Err(GroupError::Expelled(Arc::clone(&self.group))),
                Step::Wait(until) => until,
            };
            let wait = until.since(self.core.clock.monotonic()).max(SHORTEST_WAIT);
            tokio::select! {
                biased;
                () = self.notify.notified() => {}
                () = self.core.clock.sleep(wait) => {}
            }
        }
    }

    pub(crate) fn last_alive(&self) -> Instant {
        self.liveness().last_alive()
    }

    pub(crate) fn liveness(&self) -> Liveness {
        Liveness(Arc::clone(&self.alive))
    }

    pub(crate) async fn commit(&self, mut positions: Vec<Position>) -> Result<(), GroupError> {
        for position in &mut positions {
            if position.metadata.len() > METADATA_BYTES {
                tracing::error!(of = %position.of, "the text of a position is cut to 4,000 bytes");
                let end = position.metadata.floor_char_boundary(METADATA_BYTES);
                position.metadata.truncate(end);
            }
        }
        let bytes = positions.iter().map(|position| 64 + position.metadata.len()).sum();
        let (sender, receiver) = oneshot::channel();
        let op = PositionsOp {
            group: self.group.as_ref().to_owned(),
            member: self.id,
            positions,
            answer: sender,
        };
        let due = self
            .core
            .enqueue(OpKind::Positions(op), bytes, Duration::ZERO)
            .map_err(|error| group_error(&error))?;
        self.core.answer(due, receiver).await.unwrap_or(Err(GroupError::Unavailable))
    }

    #[expect(clippy::unused_async, reason = "the seam's other brokers wait here")]
    pub(crate) async fn leave(self) {
        self.core.groups.lock().leave(&self.core, self.id);
    }
}
