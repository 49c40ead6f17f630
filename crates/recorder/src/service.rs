//! The service: opens the event log, follows the topics, and begins anew when the
//! store cannot be trusted.

use std::{fmt, ops::ControlFlow, sync::Arc, time::Duration};

use tidings_broker::Broker;
use tidings_eventlog::{
    Backing, EventLog, Limits, Metrics as LogMetrics, OpenError, Status, WriteError, Writer,
};
use tidings_types::{Clock, Timestamp, TopicPartition};
use tokio_util::sync::CancellationToken;

use crate::{follow::Follow, handle::Handle, metrics::Metrics};

/// What a recorder needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub backing: Backing,
    pub limits: Limits,
    /// What one batch takes at most, in bytes of records.
    pub batch_bytes: usize,
    /// Outcomes held back at most, in bytes, while decisions are behind them.
    pub held_bytes: usize,
    /// How much time, and how many rows, a crash may make it read again.
    pub flush_interval: Duration,
    pub flush_rows: u64,
    /// How soon after a fold, and how often while nothing comes, the ends of the
    /// topics are looked at: that moves as-of.
    pub busy_look: Duration,
    pub idle_look: Duration,
    /// How long `account` waits for the fold.
    pub account_wait: Duration,
}

impl Config {
    pub fn new(backing: Backing) -> Self {
        Self {
            backing,
            limits: Limits::default(),
            batch_bytes: 1 << 20,
            held_bytes: 16 << 20,
            flush_interval: Duration::from_secs(1),
            flush_rows: 100_000,
            busy_look: Duration::from_millis(100),
            idle_look: Duration::from_secs(1),
            account_wait: Duration::from_secs(60),
        }
    }
}

/// What a recorder works with.
#[derive(Clone, Debug)]
pub struct Deps {
    pub broker: Broker,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    pub log_metrics: LogMetrics,
    pub failpoints: Failpoints,
}

/// Steps at which a test kills the recorder: `recorder.after_poll`,
/// `recorder.after_write_before_flush`.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<dyn Fn(&'static str) + Send + Sync>>);

impl Failpoints {
    pub fn new(hook: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn reach(&self, step: &'static str) {
        if let Some(hook) = &self.0 {
            hook(step);
        }
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failpoints(armed: {})", self.0.is_some())
    }
}

/// Why a recorder ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the event log cannot be opened; {0}")]
    Open(#[from] OpenError),
    #[error("the event log failed; {0}")]
    Write(#[from] WriteError),
    #[error("{partition} is damaged at offset {offset}; restore the broker's data from a copy")]
    DamagedTopic { partition: TopicPartition, offset: u64 },
}

/// Reads both topics whole into the event log.
#[derive(Debug)]
pub struct Service {
    config: Config,
    deps: Deps,
    log: EventLog,
    writer: Writer,
}

/// Rebuilds that follow on each other without the view having been complete.
const HASTY_REBUILDS: u32 = 3;

impl Service {
    pub fn build(config: Config, deps: Deps) -> Self {
        let (log, writer) = EventLog::new(
            config.backing.clone(),
            config.limits.clone(),
            Arc::clone(&deps.clock),
            deps.log_metrics.clone(),
        );
        Self { config, deps, log, writer }
    }

    /// What others ask.
    pub fn handle(&self) -> Handle {
        Handle::new(self.log.clone(), self.deps.broker.clone(), self.config.account_wait)
    }

    /// Runs until `shutdown`, then flushes and closes the event log.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the process should end.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RunError> {
        let mut hasty = 0;
        loop {
            let opened = self.writer.open().await?;
            let follow = Follow::new(&self.config, &self.deps, &mut self.writer, opened.positions);
            let why = match follow.run(&shutdown).await? {
                ControlFlow::Break(()) => {
                    self.writer.close().await?;
                    return Ok(());
                }
                ControlFlow::Continue(why) => why,
            };
            tracing::error!(%why, "the event log is set aside and rebuilt");
            self.deps.metrics.rebuilds.inc();
            hasty = if self.log.status().complete { 0 } else { hasty + 1 };
            if hasty > HASTY_REBUILDS {
                return Err(RunError::Write(WriteError::Damaged(why)));
            }
            let rebuilding = Status { complete: false, progress: 0.0, as_of: Timestamp::ZERO };
            self.writer.set_status(rebuilding);
            self.writer.set_aside().await?;
        }
    }
}
