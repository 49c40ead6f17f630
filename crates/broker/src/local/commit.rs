//! The committer: takes what waits, gives offsets, stores all of it with one
//! sync, and only then shows it to readers and answers.
//!
//! Whoever holds the committer's lock is the only writer of the store and of the
//! partitions' ends. Changes to topics are committed alone; appends, positions
//! and trims that stand behind one another share a sync.

mod round;
mod topics;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use tidings_types::{Instant, Offset, TopicName, TopicPartition};
use tokio::sync::oneshot;

use self::round::Round;
use super::{
    core::Core,
    group::MemberId,
    partition::Part,
    store::{Leftover, Space, StoreError, Write},
};
use crate::seam::{
    AppendBatch, AppendError, Appended, GroupError, Position, TopicError, TopicSpec,
};

/// Bytes that a trim or a small change needs in the store, generously.
const SMALL_CHANGE_BYTES: usize = 4096;

/// What the committer keeps between commits.
#[derive(Debug, Default)]
pub(super) struct Committer {
    /// The number of the next batch, over all partitions.
    sequence: u64,
    /// The partitions that have batches in memory, by their oldest batch.
    tails: BTreeMap<u64, Arc<Part>>,
    tail_bytes: usize,
}

/// An operation that waits.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) kind: OpKind,
    pub(super) bytes: usize,
    pub(super) due: Instant,
}

#[derive(Debug)]
pub(super) enum OpKind {
    Append(AppendOp),
    Positions(PositionsOp),
    Trim(TrimOp),
    Topic(TopicOp),
}

/// One call of `append`.
#[derive(Debug)]
pub(super) struct AppendOp {
    pub(super) batches: Vec<Slot>,
    /// The batches behind the first are written only if that comes to stand here.
    pub(super) first_at: Option<Offset>,
    pub(super) answer: oneshot::Sender<Vec<Appended>>,
}

/// One batch of a call.
#[derive(Debug)]
pub(super) enum Slot {
    /// Answered before it came here.
    Done(Appended),
    /// To be written; `lose_answer` is a planted fault.
    Todo { batch: AppendBatch, lose_answer: bool },
}

/// A commit of positions, by a member of a group or by nobody in particular.
#[derive(Debug)]
pub(super) struct PositionsOp {
    pub(super) group: String,
    pub(super) member: MemberId,
    pub(super) positions: Vec<Position>,
    pub(super) answer: oneshot::Sender<Result<(), GroupError>>,
}

#[derive(Debug)]
pub(super) struct TrimOp {
    pub(super) of: TopicPartition,
    pub(super) before: Offset,
    pub(super) answer: oneshot::Sender<Result<(), TopicError>>,
}

#[derive(Debug)]
pub(super) struct TopicOp {
    pub(super) change: TopicChange,
    pub(super) answer: oneshot::Sender<Result<(), TopicError>>,
}

#[derive(Debug)]
pub(super) enum TopicChange {
    Create(TopicSpec),
    AddPartitions(TopicName, u32),
    Delete(TopicName),
    /// Removes a step of what was trimmed or deleted before.
    Clean,
}

/// Answers; a caller that is gone needs none.
pub(super) fn reply<T>(answer: oneshot::Sender<T>, with: T) {
    drop(answer.send(with));
}

impl AppendOp {
    /// Answers everything that is not answered yet with `error`.
    fn refuse(mut self, error: &AppendError) {
        if self.first_at.is_some() {
            self.batches.truncate(1);
        }
        let results = self.batches.into_iter().map(|slot| match slot {
            Slot::Done(done) => done,
            Slot::Todo { .. } => Err(error.clone()),
        });
        reply(self.answer, results.collect());
    }
}

impl Op {
    /// Answers without having done anything.
    pub(super) fn refuse(self, error: &AppendError) {
        match self.kind {
            OpKind::Append(op) => op.refuse(error),
            OpKind::Positions(op) => reply(op.answer, Err(group_error(error))),
            OpKind::Trim(op) => reply(op.answer, Err(topic_error(error))),
            OpKind::Topic(op) => reply(op.answer, Err(topic_error(error))),
        }
    }
}

/// The nearest word that the errors of topics have.
pub(super) fn topic_error(error: &AppendError) -> TopicError {
    match error {
        AppendError::NoSpace => TopicError::NoSpace,
        AppendError::UnknownTopic(_)
        | AppendError::UnknownPartition(_)
        | AppendError::TooLarge { .. }
        | AppendError::Unavailable
        | AppendError::Unknown
        | AppendError::Fatal(_) => TopicError::Unavailable,
    }
}

/// The nearest word that the errors of groups have.
pub(super) fn group_error(error: &AppendError) -> GroupError {
    match error {
        AppendError::NoSpace => GroupError::NoSpace,
        AppendError::UnknownTopic(_)
        | AppendError::UnknownPartition(_)
        | AppendError::TooLarge { .. }
        | AppendError::Unavailable
        | AppendError::Unknown
        | AppendError::Fatal(_) => GroupError::Unavailable,
    }
}

impl Core {
    /// Sees to it that a blocking task commits what waits (disk store).
    pub(super) fn start_committing(self: &Arc<Self>) {
        if self.active.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut turn = Turn { core: Arc::clone(self), held: true };
        // The task ends by itself when nothing waits; the turn is given back even
        // if the runtime drops the task unrun, and the next append starts another.
        drop(tokio::task::spawn_blocking(move || {
            loop {
                turn.core.commit_waiting(Instant::from_nanos(u64::MAX));
                turn.give_back();
                // What was queued before the turn was given back found it taken.
                let idle = turn.core.queue.lock().ops.is_empty();
                if idle || !turn.take_again() {
                    return;
                }
            }
        }));
    }

    /// Commits everything that waits and is due by `until`.
    pub(super) fn commit_waiting(&self, until: Instant) {
        let mut committer = self.committer.lock();
        loop {
            let ops = self.take_round(until);
            if ops.is_empty() {
                return;
            }
            self.run_round(&mut committer, ops);
        }
    }

    /// Takes the next operations that can share a sync.
    fn take_round(&self, until: Instant) -> Vec<Op> {
        let mut queue = self.queue.lock();
        let mut ops = Vec::new();
        let mut bytes = 0;
        while let Some(op) = queue.ops.front() {
            let alone = matches!(op.kind, OpKind::Topic(_));
            let fits = ops.is_empty() || (!alone && bytes + op.bytes <= self.config.commit_bytes);
            if op.due > until || !fits {
                break;
            }
            bytes += op.bytes;
            queue.bytes = queue.bytes.saturating_sub(op.bytes);
            ops.extend(queue.ops.pop_front());
            if alone {
                break;
            }
        }
        ops
    }

    fn run_round(&self, committer: &mut Committer, ops: Vec<Op>) {
        if let Err(error) = self.alive() {
            for op in ops {
                op.refuse(&error);
            }
            return;
        }
        let bytes = ops.iter().map(|op| op.bytes).fold(SMALL_CHANGE_BYTES, usize::saturating_add);
        let space = self.store.space(bytes);
        let mut round = Round::new(self.clock.now());
        for op in ops {
            match op.kind {
                OpKind::Topic(op) => return self.change_topics(committer, op, space),
                OpKind::Trim(op) if space == Space::Full => {
                    reply(op.answer, Err(TopicError::NoSpace));
                }
                OpKind::Trim(op) => round.trim(self, op),
                OpKind::Append(op) if space != Space::Plenty => {
                    self.metrics.space_refusals.inc();
                    op.refuse(&AppendError::NoSpace);
                }
                OpKind::Append(op) => round.append(self, op),
                OpKind::Positions(op) if space != Space::Plenty => {
                    self.metrics.space_refusals.inc();
                    reply(op.answer, Err(GroupError::NoSpace));
                }
                OpKind::Positions(op) => round.positions(self, op),
            }
        }
        round.finish(self, committer);
    }

    /// Stores `writes` with one sync. An error ends the broker.
    fn store_durably(&self, writes: Vec<Write>) -> Result<Leftover, StoreError> {
        let started = self.clock.monotonic();
        let result = self.store.commit(writes);
        self.metrics.syncs.inc();
        self.metrics.sync_duration.observe(self.clock.monotonic().since(started).as_secs_f64());
        result.inspect_err(|error| self.fail(&error.0))
    }
}

/// The turn of a blocking task to commit. Given back however the task ends.
struct Turn {
    core: Arc<Core>,
    held: bool,
}

impl Turn {
    fn give_back(&mut self) {
        self.held = false;
        self.core.active.store(false, Ordering::Release);
    }

    fn take_again(&mut self) -> bool {
        self.held = !self.core.active.swap(true, Ordering::AcqRel);
        self.held
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.core.fail(&"the committer panicked, see the log".into());
        }
        if self.held {
            self.give_back();
        }
    }
}

impl Committer {
    /// The sequence of the next batch that memory keeps.
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Notes what became of a partition's batches in memory.
    fn tail_changed(&mut self, part: &Arc<Part>, old: Option<u64>, new: Option<u64>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.tails.remove(&old);
        }
        if let Some(new) = new {
            self.tails.insert(new, Arc::clone(part));
        }
    }

    /// Forgets the oldest batches until what memory holds is within its bound.
    fn shrink_tails(&mut self, core: &Core) {
        while self.tail_bytes > core.config.tail_total_bytes {
            let Some((old, part)) = self.tails.pop_first() else { break };
            let mut state = part.state.lock();
            self.tail_bytes = self.tail_bytes.saturating_sub(state.pop_tail());
            let new = state.tail_front();
            drop(state);
            debug_assert_ne!(Some(old), new, "the oldest batch is forgotten");
            self.tail_changed(&part, None, new);
        }
        core.metrics.tail_bytes.set(i64::try_from(self.tail_bytes).unwrap_or(i64::MAX));
    }

    /// Frees the memory of a deleted partition.
    fn forget(&mut self, part: &Arc<Part>) {
        let old = part.state.lock().tail_front();
        self.tail_changed(part, old, None);
        self.tail_bytes = self.tail_bytes.saturating_sub(part.delete());
    }
}
