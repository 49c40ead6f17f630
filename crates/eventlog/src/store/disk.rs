//! Rows in sled 0.34.7.
//!
//! sled's own flush does not survive a power cut: it never syncs `conf`, and
//! writes `db` with `sync_file_range`, which leaves the file's size and the
//! drive's cache alone. So the files and directories are synced once after
//! opening, and after every flush `db` is synced through a handle of our own
//! (`embedded-broker.md` §4.3, where that lost nothing in 14 cuts). Leaves, not
//! only values, stay under a quarter of a segment, because sled puts larger ones
//! into files that nobody syncs; `rows` sees to that.

use std::{
    fs::{self, File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidings_types::Timestamp;

use super::{Each, Store, StoreError, Write};
use crate::{log::OpenError, rows};

/// Replaced pages that one collection frees at most is some hundreds; so many
/// rows are sure to replace fewer.
const ROWS_PER_COLLECTION: usize = 64;

/// How often sled's lock is asked for again, and after how long.
const LOCK_WAITS: usize = 500;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// A store in a directory, locked for this process.
#[derive(Debug)]
pub(crate) struct DiskStore {
    db: sled::Db,
    /// A second handle to `db`, for syncing.
    file: File,
    _lock: DirLock,
}

/// Holds the lock beside the directory: it stays when the directory is moved.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = beside(dir, "lock");
        let io = |source| OpenError::Io { path: path.clone(), source };
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let file = File::create(&path).map_err(io)?;
        let mut waits = LOCK_WAITS / 5;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if waits > 0 => {
                    waits -= 1;
                    std::thread::park_timeout(LOCK_WAIT);
                }
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.to_owned())),
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
        }
    }
}

/// `<dir>.<extension>`, beside the directory.
fn beside(dir: &Path, extension: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

impl DiskStore {
    /// Whether the directory has nothing in it.
    pub(crate) fn is_new(dir: &Path) -> Result<bool, OpenError> {
        match fs::read_dir(dir) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(source) => Err(OpenError::Io { path: dir.to_owned(), source }),
        }
    }

    /// Opens what is there or makes a new one.
    pub(crate) fn open(dir: &Path, cache_bytes: u64, lock: DirLock) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .segment_size(rows::SEGMENT)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let mut waits = LOCK_WAITS;
        let opened = loop {
            // sled breaks off on some damage instead of saying so.
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
            match opened {
                // Our lock says that nobody has it: threads of one that was closed just now
                // may hold sled's own for a moment.
                Ok(Err(sled::Error::Io(error)))
                    if waits > 0 && error.to_string().contains("could not acquire lock") =>
                {
                    waits -= 1;
                    std::thread::park_timeout(LOCK_WAIT);
                }
                opened => break opened,
            }
        };
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(error)) => return Err(failure(error)),
            Err(_panicked) => return Err(StoreError::damaged("sled broke off while opening")),
        };
        let file = sync_all(dir).map_err(|error| failed(&error))?;
        Ok(Self { db, file, _lock: lock })
    }

    /// Moves the directory away and keeps only the latest of those moved away.
    pub(crate) fn set_aside(dir: &Path, now: Timestamp) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        for old in bad_ones(dir).map_err(io)? {
            fs::remove_dir_all(&old).map_err(io)?;
        }
        match fs::rename(dir, beside(dir, &format!("bad-{}", now.as_millis()))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        if let Some(parent) = dir.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)?;
        }
        Ok(())
    }
}

fn bad_ones(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.bad-", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Syncs what sled does not, and gives the handle that goes on doing so.
fn sync_all(dir: &Path) -> io::Result<File> {
    let db = fs::OpenOptions::new().read(true).write(true).open(dir.join("db"))?;
    db.sync_all()?;
    File::open(dir.join("conf"))?.sync_all()?;
    let blobs = dir.join("blobs");
    if blobs.is_dir() {
        File::open(blobs)?.sync_all()?;
    }
    File::open(dir)?.sync_all()?;
    if let Some(parent) = dir.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(db)
}

fn failed(error: &io::Error) -> StoreError {
    StoreError::Failed(error.to_string().into())
}

fn failure(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => failed(&error),
        sled::Error::Unsupported(what) => StoreError::Damaged(what.into()),
        error @ (sled::Error::Corruption { .. }
        | sled::Error::ReportableBug(_)
        | sled::Error::CollectionNotFound(_)) => StoreError::Damaged(Arc::from(error.to_string())),
    }
}

/// Frees what the rows of a batch replaced. Each row copies the leaf that it goes
/// to, and sled leaves the old one to `crossbeam-epoch`, which frees a few hundred
/// when somebody has pinned it a hundred times. One writer that pins once a batch
/// hands over more than that, so memory would grow with every row ever written.
fn free_replaced(rows: usize) {
    for _ in 0..=rows / ROWS_PER_COLLECTION {
        crossbeam_epoch::pin().flush();
    }
}

impl Store for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(failure)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], below: &[u8], each: &mut Each<'_>) -> Result<(), StoreError> {
        for row in self.db.range::<&[u8], _>(from..below) {
            let (key, value) = row.map_err(failure)?;
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let rows = writes.len();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(failure)?;
        free_replaced(rows);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        // A failed flush is final: the system may have dropped what it could not
        // write, and a second one would say that all is well.
        match self.db.flush() {
            Ok(_) => {}
            Err(error) => return Err(StoreError::Failed(error.to_string().into())),
        }
        self.file.sync_data().map_err(|error| failed(&error))
    }

    fn size(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(failure)
    }
}
