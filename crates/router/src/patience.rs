//! Waiting before a failed step is tried again, and not after a stop.

use std::{sync::Arc, time::Duration};

use tidings_types::Clock;
use tokio_util::sync::CancellationToken;

/// Why an ownership of a partition of `tidings.routed` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked to.
    Stopped,
    /// Another has taken the partition over, or the fate of an append is unknown.
    /// If the group still names this owner, it takes over again.
    Lost,
    /// The log failed for good: the process must end.
    Fatal(Arc<str>),
}

/// Tries steps again, with growing waits, until it is stopped.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
    /// The first and the longest wait.
    pub(crate) backoff: (Duration, Duration),
}

/// The tries of one step.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    patience: &'a Patience,
    next: Duration,
    failed: u32,
}

impl Patience {
    pub(crate) fn tries(&self) -> Tries<'_> {
        Tries { patience: self, next: self.backoff.0, failed: 0 }
    }

    /// Waits as long as between two tries at most.
    ///
    /// # Errors
    /// [`End::Stopped`] as soon as the stop is asked for.
    pub(crate) async fn rest(&self) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopped),
            () = self.clock.sleep(self.backoff.1) => Ok(()),
        }
    }
}

impl Tries<'_> {
    /// After a failure: waits, twice as long as the last time.
    ///
    /// # Errors
    /// [`End::Stopped`] as soon as the stop is asked for.
    pub(crate) async fn again(&mut self) -> Result<(), End> {
        let wait = self.next;
        self.next = (self.next * 2).min(self.patience.backoff.1);
        self.failed += 1;
        tokio::select! {
            biased;
            () = self.patience.stop.cancelled() => Err(End::Stopped),
            () = self.patience.clock.sleep(wait) => Ok(()),
        }
    }

    /// Whether this failure is worth a line: the first, and then ever fewer.
    pub(crate) fn is_worth_a_line(&self) -> bool {
        (self.failed + 1).is_power_of_two()
    }
}
