//! The handle that everyone reads through, and the writer that one task has.
//!
//! Work on a store on disk happens on threads for blocking work; work on a store
//! in memory happens where it is asked for, so that a simulation repeats exactly.
//! One lock guards the view: a fold holds it for one batch, a list for one page.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tidings_types::{Clock, NotificationId, Offset, Timestamp, TopicPartition, WebhookId};
use tokio::sync::watch;

use crate::{
    account::Account,
    batch::{Batch, Positions},
    explain::{Life, Subject},
    item::{AttemptList, Cursor, Item, Page, Places, Status, UndeliveredGroup},
    metrics::Metrics,
    store::{MemoryDisk, StoreError},
    view::{Applied, View},
};

/// Where the view is kept.
#[derive(Clone, Debug)]
pub enum Backing {
    /// A directory of sled's. Beside it stand its lock (`<name>.lock`) and, after
    /// a rebuild, what was set aside (`<name>.bad-<milliseconds>`).
    Disk(PathBuf),
    /// Memory that survives a simulated crash as far as it was flushed.
    Memory(MemoryDisk),
}

/// The sizes that a view keeps to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long history is shown, by the time of the router's decision.
    pub retention: Duration,
    /// Notifications of the most recent events that are remembered without a row
    /// of their own while nothing is known of them but that they are due.
    pub window_notifications: usize,
    /// Bytes of decisions that are read again at the start to remember those.
    pub window_bytes: usize,
    /// Outcomes without a row that are kept in memory; more are on disk only.
    pub orphans: usize,
    /// Producer ids remembered to notice one that is used again.
    pub producer_ids: usize,
    /// Pages of sled kept in memory.
    pub cache_bytes: u64,
    /// A store on disk up to this size is read and verified whole at the start; a
    /// larger one while it is used.
    pub verify_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(90 * 86_400),
            window_notifications: 100_000,
            window_bytes: 16 << 20,
            orphans: 100_000,
            producer_ids: 65_536,
            cache_bytes: 24 << 20,
            verify_bytes: 256 << 20,
        }
    }
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store is not open (yet, or while it is made anew). Answer 503.
    #[error("the event log is not open yet; ask again later")]
    NotOpen,
    /// A value does not match its checksum. The recorder sets the store aside and
    /// rebuilds it. Answer 503.
    #[error("the event log is damaged and will be rebuilt; ask again later")]
    Damaged,
}

/// Why a store could not be opened, although it may be made anew.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} is in use by another process; stop that one first")]
    Locked(PathBuf),
    #[error("{path} cannot be used; check that it is on a working disk and may be written")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the event log cannot be made ({0}); check the disk")]
    Store(Arc<str>),
}

/// Why a batch could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// What is stored does not match its checksum: [`Writer::set_aside`] and open
    /// anew.
    #[error("the event log is damaged ({0}); it is set aside and rebuilt")]
    Damaged(Arc<str>),
    /// The process must end: going on would hide that data was not written.
    #[error("the event log cannot be written ({0}); free space or replace the disk, then restart")]
    Fatal(Arc<str>),
    #[error("the event log is not open; open it first")]
    NotOpen,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(what) => Self::Damaged(what),
            StoreError::Failed(what) => Self::Fatal(what),
        }
    }
}

/// How a store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where to go on reading: the next offset of each partition of both topics
    /// that has been read; all others from their first.
    pub positions: BTreeMap<TopicPartition, Offset>,
    /// Why what was found was set aside, if it was.
    pub set_aside: Option<Arc<str>>,
}

struct Inner {
    view: RwLock<Option<View>>,
    status: Mutex<Status>,
    /// The next offsets, changed after each batch.
    applied: watch::Sender<Arc<Positions>>,
    damaged: AtomicBool,
    backing: Backing,
    limits: Limits,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// Reads the view. Cheap to clone; one per process.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl EventLog {
    /// Makes a view that is not open yet, and the one writer that can open it.
    pub fn new(
        backing: Backing,
        limits: Limits,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> (Self, Writer) {
        let nothing = Status { complete: false, progress: 0.0, as_of: Timestamp::ZERO };
        let log = Self {
            inner: Arc::new(Inner {
                view: RwLock::new(None),
                status: Mutex::new(nothing),
                applied: watch::Sender::new(Arc::default()),
                damaged: AtomicBool::new(false),
                backing,
                limits,
                clock,
                metrics,
            }),
        };
        (log.clone(), Writer { log })
    }

    /// How far the view is. Ask before a read, and answer 503 while it is not
    /// complete.
    pub fn status(&self) -> Status {
        *self.inner.status.lock()
    }

    /// Notifications of one webhook and event type, created at `from` or later, in
    /// order of creation, then of id; at most `limit`, behind `cursor` if there is
    /// one. Ends at [`Status::as_of`], and shows nothing that is past retention.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn list(
        &self,
        webhook: WebhookId,
        event_type: &str,
        from: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page, ReadError> {
        let as_of = self.status().as_of;
        let event_type = event_type.to_owned();
        let now = self.inner.clock.now();
        self.read(move |view| view.list(webhook, &event_type, from, limit, cursor, (as_of, now)))
            .await
    }

    /// The notifications of `webhook` among `ids`, in the order asked for. Unknown
    /// ones and those of other webhooks are left out.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn by_ids(
        &self,
        webhook: WebhookId,
        ids: &[NotificationId],
    ) -> Result<Vec<Item>, ReadError> {
        let ids = ids.to_vec();
        let now = self.inner.clock.now();
        self.read(move |view| view.by_ids(webhook, &ids, now)).await
    }

    /// A notification of any webhook. Check whose it is before anything of it is
    /// shown.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn by_id(&self, notification: NotificationId) -> Result<Option<Item>, ReadError> {
        let now = self.inner.clock.now();
        self.read(move |view| view.by_id(notification, now)).await
    }

    /// The attempts of a notification of `webhook`; `None` if it has no such one.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn attempts(
        &self,
        webhook: WebhookId,
        notification: NotificationId,
    ) -> Result<Option<AttemptList>, ReadError> {
        let now = self.inner.clock.now();
        self.read(move |view| view.attempts(webhook, notification, now)).await
    }

    /// The whole life of what `subject` names; `None` if the view does not know it.
    /// Reads the facts of all decisions.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn explain(&self, subject: Subject) -> Result<Option<Life>, ReadError> {
        let now = self.inner.clock.now();
        self.read(move |view| view.explain(&subject, now)).await
    }

    /// What `webhook` did not get, created at `from` or later: undelivered,
    /// expired, and pending with a failed attempt; by event type in its order. All are
    /// counted; ids are given of those behind `after`, if it is not empty of the types in
    /// it alone.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn undelivered(
        &self,
        webhook: WebhookId,
        from: Timestamp,
        after: Places,
    ) -> Result<Vec<UndeliveredGroup>, ReadError> {
        let as_of = self.status().as_of;
        let now = self.inner.clock.now();
        self.read(move |view| view.undelivered(webhook, from, &after, (as_of, now))).await
    }

    /// The sums of invariant I11, counted from the rows: of each source partition
    /// the decisions before `committed`. First wait until the view has read what
    /// stood in both topics after the commits were read (the recorder's handle
    /// does that). Reads every row and holds up the fold meanwhile.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: answer 503.
    pub async fn account(
        &self,
        committed: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<Account, ReadError> {
        let committed = committed.clone();
        self.read(move |view| view.account(&committed)).await
    }

    /// Waits until the view has read each partition up to the offset beside it
    /// (the offset of a record plus one: read after write). Put a timeout around
    /// it: what stands in the topics may be behind or gone.
    pub async fn wait_for(&self, positions: &[(TopicPartition, Offset)]) {
        let mut applied = self.inner.applied.subscribe();
        let reached = |now: &Arc<Positions>| {
            positions.iter().all(|(of, next)| now.next(of).is_some_and(|at| at >= *next))
        };
        if applied.wait_for(reached).await.is_err() {
            // The sender lives as long as `self`, so this cannot be.
            std::future::pending::<()>().await;
        }
    }

    /// The next offset that the view will read of each partition.
    pub fn positions(&self) -> BTreeMap<TopicPartition, Offset> {
        self.inner.applied.borrow().to_map()
    }

    /// Every list of a webhook as text, for comparing two views.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if there is no view.
    pub async fn dump(&self, webhook: WebhookId) -> Result<String, ReadError> {
        self.read(move |view| view.dump(webhook)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        if self.inner.damaged.load(Ordering::Acquire) {
            return Err(ReadError::Damaged);
        }
        let inner = Arc::clone(&self.inner);
        let read = move || match &*inner.view.read() {
            Some(view) => ask(view).map_err(|error| inner.found(&error)),
            None => Err(ReadError::NotOpen),
        };
        match self.inner.backing {
            Backing::Memory(_) => read(),
            Backing::Disk(_) => match tokio::task::spawn_blocking(read).await {
                Ok(answer) => answer,
                Err(_panicked) => Err(self.inner.panicked()),
            },
        }
    }
}

impl Inner {
    fn found(&self, error: &StoreError) -> ReadError {
        tracing::error!(%error, "the event log could not be read; it will be rebuilt");
        self.damaged.store(true, Ordering::Release);
        ReadError::Damaged
    }

    /// sled panics on some damage instead of saying so.
    fn panicked(&self) -> ReadError {
        self.found(&StoreError::Damaged("the store broke off".into()))
    }
}

/// Writes the view: opens it, applies batches, keeps it small. There is one.
#[derive(Debug)]
pub struct Writer {
    log: EventLog,
}

impl Writer {
    /// The handle that reads what this writes.
    pub fn log(&self) -> EventLog {
        self.log.clone()
    }

    /// Opens the store, or sets aside what cannot be trusted and makes a new one.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] if another process has it; the process should end.
    pub async fn open(&mut self) -> Result<Opened, OpenError> {
        let inner = Arc::clone(&self.log.inner);
        let open = move || {
            let (view, set_aside) =
                View::open(&inner.backing, &inner.limits, &inner.metrics, inner.clock.now())?;
            let positions = view.positions().clone();
            let opened = Opened { positions: positions.to_map(), set_aside };
            *inner.view.write() = Some(view);
            inner.damaged.store(false, Ordering::Release);
            inner.applied.send_replace(Arc::new(positions));
            Ok(opened)
        };
        match self.log.inner.backing {
            Backing::Memory(_) => open(),
            Backing::Disk(_) => match tokio::task::spawn_blocking(open).await {
                Ok(opened) => opened,
                Err(_panicked) => Err(OpenError::Store("the store broke off".into())),
            },
        }
    }

    /// Folds a batch and stores what it changed, with the positions behind it, in
    /// one step. Readers see it at once; a crash before the next flush takes it
    /// back whole.
    ///
    /// # Errors
    ///
    /// After any error the view is closed.
    pub async fn apply(&mut self, batch: Batch) -> Result<Applied, WriteError> {
        let now = self.log.inner.clock.now();
        let decoded = move || batch.decode();
        self.write(decoded, move |view, batch| view.apply(batch, now)).await
    }

    /// Makes durable what has been applied. Blocks the next batch, not readers.
    ///
    /// # Errors
    ///
    /// Every error is [`WriteError::Fatal`]: a flush that failed cannot be tried
    /// again, because the system may have dropped what it could not write.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        let inner = Arc::clone(&self.log.inner);
        let flush = move || match &*inner.view.read() {
            Some(view) => view.flush().map_err(WriteError::from),
            None => Err(WriteError::NotOpen),
        };
        match self.log.inner.backing {
            Backing::Memory(_) => flush(),
            Backing::Disk(_) => match tokio::task::spawn_blocking(flush).await {
                Ok(flushed) => flushed,
                Err(_panicked) => Err(WriteError::Fatal("the store broke off".into())),
            },
        }
    }

    /// Takes a small step of removing what is past retention. Says whether there
    /// is more to remove.
    ///
    /// # Errors
    ///
    /// As [`Writer::apply`].
    pub async fn retain(&mut self) -> Result<bool, WriteError> {
        let now = self.log.inner.clock.now();
        self.write(|| (), move |view, ()| view.retain(now)).await
    }

    /// Verifies the checksums of some rows, going on where the last call ended.
    ///
    /// # Errors
    ///
    /// [`WriteError::Damaged`] if one does not match.
    pub async fn scrub(&mut self) -> Result<(), WriteError> {
        self.write(|| (), |view, ()| view.scrub()).await
    }

    /// Whether a reader found damage: [`Writer::set_aside`] and open anew.
    pub fn is_damaged(&self) -> bool {
        self.log.inner.damaged.load(Ordering::Acquire)
    }

    /// Closes the store and sets it aside, so that the next [`Writer::open`] makes
    /// a new one.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if it cannot be moved.
    pub async fn set_aside(&mut self) -> Result<(), OpenError> {
        let inner = Arc::clone(&self.log.inner);
        let set_aside = move || {
            let view = inner.view.write().take();
            View::set_aside(view, &inner.backing, inner.clock.now())?;
            inner.metrics.set_aside.inc();
            inner.damaged.store(false, Ordering::Release);
            inner.applied.send_replace(Arc::default());
            Ok(())
        };
        match self.log.inner.backing {
            Backing::Memory(_) => set_aside(),
            Backing::Disk(_) => match tokio::task::spawn_blocking(set_aside).await {
                Ok(done) => done,
                Err(_panicked) => Err(OpenError::Store("the store broke off".into())),
            },
        }
    }

    /// Says how far the view is.
    pub fn set_status(&self, status: Status) {
        *self.log.inner.status.lock() = status;
    }

    /// Flushes and closes the store.
    ///
    /// # Errors
    ///
    /// As [`Writer::flush`].
    pub async fn close(&mut self) -> Result<(), WriteError> {
        self.flush().await?;
        let inner = Arc::clone(&self.log.inner);
        let close = move || drop(inner.view.write().take());
        match self.log.inner.backing {
            Backing::Memory(_) => close(),
            Backing::Disk(_) => {
                if tokio::task::spawn_blocking(close).await.is_err() {
                    return Err(WriteError::Fatal("the store broke off".into()));
                }
            }
        }
        Ok(())
    }

    /// Prepares without the lock, then changes the view under it.
    async fn write<A, T: Send + 'static>(
        &mut self,
        prepare: impl FnOnce() -> A + Send + 'static,
        change: impl FnOnce(&mut View, A) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, WriteError> {
        let inner = Arc::clone(&self.log.inner);
        let work = move || {
            let prepared = prepare();
            let mut guard = inner.view.write();
            let view = guard.as_mut().ok_or(WriteError::NotOpen)?;
            match change(view, prepared) {
                Ok(done) => {
                    let positions = view.positions();
                    if **inner.applied.borrow() != *positions {
                        inner.applied.send_replace(Arc::new(positions.clone()));
                    }
                    Ok(done)
                }
                Err(error) => {
                    // What is in memory may be half changed.
                    inner.damaged.store(true, Ordering::Release);
                    Err(error.into())
                }
            }
        };
        match self.log.inner.backing {
            Backing::Memory(_) => work(),
            Backing::Disk(_) => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(_panicked) => {
                    self.log.inner.damaged.store(true, Ordering::Release);
                    Err(WriteError::Damaged("the store broke off".into()))
                }
            },
        }
    }
}
