//! How far an owner's deliveries are, and the commits that say so.
//!
//! All source partitions of one `routed` partition are committed together, idle
//! ones too, each with the position in `tidings.routed` before which every
//! decision has its deliveries. A source partition is in the list before the first
//! record of it is decided, so a takeover that reads `routed` from the least of
//! these positions has seen every decision that has no commit yet.
//!
//! A few of these commits, of different topics, say how far all sources were decided.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tidings_broker::{GroupError, Position};
use tidings_types::{Offset, TopicPartition};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    patience::{End, Patience},
    position::{Covered, Known, Reached},
    service::Shared,
};

/// As often everything is committed again although nothing has changed: Kafka forgets what
/// was committed long ago of a topic to which its group does not subscribe.
const COMMIT_AGAIN: Duration = Duration::from_secs(86_400);
/// Of so many topics one position says how far all sources were decided.
const TELLERS: usize = 3;

/// A commit that an owner asks the group's member for.
#[derive(Debug)]
pub(crate) struct CommitRequest {
    pub(crate) positions: Vec<Position>,
    pub(crate) answer: oneshot::Sender<Result<(), GroupError>>,
}

/// What one owner has done.
#[derive(Debug)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Notify,
    took: Offset,
    epoch: u64,
}

#[derive(Debug)]
struct State {
    routed_next: Offset,
    positions: BTreeMap<TopicPartition, Offset>,
    /// Of those that are gone, and as it was when this ownership began.
    known: Known,
    /// Records appended since the last commit.
    appended: u64,
    is_over: bool,
}

impl Progress {
    pub(crate) fn new(
        took: Offset,
        epoch: u64,
        positions: BTreeMap<TopicPartition, Offset>,
        known: Known,
    ) -> Self {
        let routed_next = took + 1;
        let state = State { routed_next, positions, known, appended: 0, is_over: false };
        Self { state: Mutex::new(state), changed: Notify::new(), took, epoch }
    }

    /// Everything before `routed_next` has its deliveries.
    pub(crate) fn advance(
        &self,
        routed_next: Offset,
        positions: &BTreeMap<TopicPartition, Offset>,
        appended: u64,
    ) {
        let mut state = self.state.lock();
        state.routed_next = state.routed_next.max(routed_next);
        for (source, next) in positions {
            // A source that is no longer owned is not committed any more.
            if let Some(known) = state.positions.get_mut(source) {
                *known = (*known).max(*next);
            }
        }
        state.appended += appended;
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn add(&self, source: TopicPartition, next: Offset) {
        self.state.lock().positions.insert(source, next);
    }

    /// It stands still: what is committed of it stays as it is.
    pub(crate) fn leave_out(&self, source: &TopicPartition) {
        self.state.lock().positions.remove(source);
    }

    /// It is gone, and was decided up to `next`.
    pub(crate) fn remove(&self, source: &TopicPartition, next: Offset) {
        let mut state = self.state.lock();
        state.positions.remove(source);
        state.known.note(source, Reached { epoch: self.epoch, next });
    }

    /// How far a source that has no commit was decided all the same.
    pub(crate) fn reached(&self, source: &TopicPartition) -> Option<Reached> {
        self.state.lock().known.of(source)
    }

    /// Every decision before this offset has its deliveries.
    pub(crate) fn routed_next(&self) -> Offset {
        self.state.lock().routed_next
    }

    /// Nothing follows any more.
    pub(crate) fn finish(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_one();
    }

    pub(crate) fn positions(&self) -> BTreeMap<TopicPartition, Offset> {
        self.state.lock().positions.clone()
    }

    fn take(&self) -> (u64, Vec<Position>) {
        let mut state = self.state.lock();
        let covered = Covered { routed: state.routed_next, took: self.took, epoch: self.epoch };
        let mut known = state.known.clone();
        for (of, next) in &state.positions {
            known.note(of, Reached { epoch: self.epoch, next: *next });
        }
        let known = known.to_text();
        let (mut told, mut topic) = (0, None);
        let mut positions = Vec::with_capacity(state.positions.len());
        for (of, next) in &state.positions {
            let mut metadata = covered.to_text();
            if told < TELLERS && topic.replace(&of.topic) != Some(&of.topic) {
                metadata.push_str(&known);
                told += 1;
            }
            positions.push(Position { of: of.clone(), next: *next, metadata });
        }
        (std::mem::take(&mut state.appended), positions)
    }

    fn pending(&self) -> (u64, bool) {
        let state = self.state.lock();
        (state.appended, state.is_over)
    }

    /// Commits now, and tries until it is done.
    ///
    /// # Errors
    /// When it is stopped, or the membership is over.
    pub(crate) async fn commit(
        &self,
        commits: &mpsc::Sender<CommitRequest>,
        patience: &Patience,
    ) -> Result<(), End> {
        let mut tries = patience.tries();
        loop {
            let (_, positions) = self.take();
            if positions.is_empty() {
                return Ok(());
            }
            let (answer, answered) = oneshot::channel();
            if commits.send(CommitRequest { positions, answer }).await.is_err() {
                return Err(End::Stopped);
            }
            match answered.await {
                Ok(Ok(())) => return Ok(()),
                // The next owner repeats what is not committed.
                Ok(Err(GroupError::Expelled(_))) | Err(_) => return Err(End::Stopped),
                Ok(Err(error)) => {
                    if tries.is_worth_a_line() {
                        tracing::warn!(%error, "a commit waits");
                    }
                }
            }
            tries.again().await?;
        }
    }

    /// Commits after enough records and enough time, and at least once a day, until nothing
    /// follows any more.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) async fn keep_committing(
        &self,
        shared: &Shared,
        commits: &mpsc::Sender<CommitRequest>,
        patience: &Patience,
    ) -> Result<(), End> {
        loop {
            let (appended, is_over) = self.pending();
            if appended == 0 {
                if is_over {
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    () = self.changed.notified() => continue,
                    () = shared.deps.clock.sleep(COMMIT_AGAIN) => {}
                }
            } else {
                self.wait_for_more(shared).await;
            }
            shared.deps.failpoints.reach("router.after_deliveries_before_commit").await;
            self.commit(commits, patience).await?;
            shared.deps.failpoints.reach("router.after_commit").await;
        }
    }

    async fn wait_for_more(&self, shared: &Shared) {
        let interval = shared.deps.clock.sleep(shared.config.commit_interval);
        let enough = async {
            loop {
                let (appended, is_over) = self.pending();
                if is_over || appended >= shared.config.commit_records {
                    break;
                }
                self.changed.notified().await;
            }
        };
        tokio::select! {
            biased;
            () = interval => {}
            () = enough => {}
        }
    }
}
