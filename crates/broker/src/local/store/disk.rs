//! The store on disk: one fjall database for all topics, and the files of
//! `erase` beside it.
//!
//! All batches stand in one keyspace, so a thousand topics cost no more than
//! one. A commit is one write batch with `fdatasync` of the journal; fjall
//! applies it to its tables-to-be only after the sync.
//!
//! fjall 3.1 poisons itself for good when a journal write, a sync, a flush or a
//! compaction fails, a full disk included. So it must never meet a full disk:
//! `DiskStore::space` refuses appends while there is less free than what fjall
//! may still want to write on its own: its unflushed memtables once more, and
//! one compaction, which at most copies the tables that there are. If it is
//! poisoned all the same, the log has failed and the process ends.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, compaction::Leveled,
};
use parking_lot::Mutex;
use tidings_types::{Offset, Sabotage};

use super::{
    Bucket, Leftover, REMOVE_STEP, RawEntry, Space, StoreError, Visit, Write,
    erase::{EraseFiles, sync_dir},
    journal,
};
use crate::local::{
    FreeSpace, LocalConfig,
    batch::{BatchKey, PartId, TopicId},
};

/// Sealed journals are removed when their tables are written; past this size
/// the keyspaces that hold the oldest one back are flushed.
const JOURNALS_BYTES: u64 = 256 << 20;
/// One thread flushes and compacts in turn. A second one would spin while the
/// first compacts (fjall 3.1 hands the work to itself again meanwhile).
const WORKERS: usize = 1;
/// How often a lock that somebody else has is asked for again, and after how long.
const LOCK_WAITS: usize = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// So many new tables are merged with those of level 1 that they overlap. New batches
/// stand at the end of every partition, so they overlap all of level 1, which is
/// written anew each time: with few tables that costs many times what was appended.
/// Most of what was appended is trimmed deliveries, which the merge leaves out. More
/// than twice as many would come near to where fjall slows writers down (20).
const NEW_TABLES: u8 = 8;
/// Level 1 may hold as many tables of this size.
const TABLE_BYTES: u64 = 32 << 20;
/// What one compaction writes at most before it removes its sources, whatever
/// the size of the log: the tables of level 0 and those of level 1 under them.
const COMPACTION_BYTES: u64 = 512 << 20;

/// Why the store could not be opened.
#[derive(Debug)]
pub(in crate::local) enum OpenFailure {
    Locked(PathBuf),
    Io(io::Error),
    DamagedFile(PathBuf),
    Store(StoreError),
}

impl From<io::Error> for OpenFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The store on disk.
pub(in crate::local) struct DiskStore {
    dir: PathBuf,
    database: Database,
    batches: Keyspace,
    entries: Keyspace,
    /// The synced lengths of the files of buckets.
    lengths: Keyspace,
    erase: Mutex<EraseFiles>,
    reserve: u64,
    free_space: Option<Arc<dyn FreeSpace>>,
    /// How durable a commit is: synced, unless a test plants a fault.
    durability: PersistMode,
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn failed(doing: &str) -> impl Fn(fjall::Error) -> StoreError {
    move |error| StoreError::new(doing, &error)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "fjall's errors are open-ended")]
fn opening(dir: &Path, error: fjall::Error) -> OpenFailure {
    match error {
        fjall::Error::Locked => OpenFailure::Locked(dir.to_owned()),
        fjall::Error::Io(error) => OpenFailure::Io(error),
        other => OpenFailure::Store(StoreError::new("open", &other)),
    }
}

/// Opens the database once nobody else has it: whoever had it may be ending just now,
/// and a process that is being started beside it holds its locks for a moment.
fn database(dir: &Path, config: &LocalConfig) -> Result<Database, OpenFailure> {
    let store = dir.join("store");
    let mut waits = LOCK_WAITS;
    loop {
        let opened = journal::mend(&store).and_then(|()| {
            Database::builder(&store)
                .cache_size(config.cache_bytes)
                .max_journaling_size(JOURNALS_BYTES)
                .worker_threads(WORKERS)
                .manual_journal_persist(true)
                .open()
                .map_err(|error| opening(dir, error))
        });
        match opened {
            Err(OpenFailure::Locked(_)) if waits > 0 => {
                waits -= 1;
                std::thread::park_timeout(LOCK_WAIT);
            }
            Err(OpenFailure::Locked(_)) => return Err(OpenFailure::Locked(dir.to_owned())),
            opened => return opened,
        }
    }
}

impl DiskStore {
    pub(in crate::local) fn open(dir: &Path, config: &LocalConfig) -> Result<Self, OpenFailure> {
        std::fs::create_dir_all(dir)?;
        let open = |error| opening(dir, error);
        let database = database(dir, config)?;
        let compaction =
            Leveled::default().with_l0_threshold(NEW_TABLES).with_table_target_size(TABLE_BYTES);
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(config.memtable_bytes)
                .compaction_strategy(Arc::new(compaction.clone()))
        };
        let batches = database.keyspace("batches", options).map_err(open)?;
        let entries = database.keyspace("entries", options).map_err(open)?;
        let lengths = database.keyspace("lengths", options).map_err(open)?;
        sync_dir(dir)?;
        let erase = EraseFiles::open(dir, &read_lengths(&lengths)?)?;
        Ok(Self {
            dir: dir.to_owned(),
            database,
            batches,
            entries,
            lengths,
            erase: Mutex::new(erase),
            reserve: config.disk_reserve_bytes,
            free_space: config.free_space.clone(),
            durability: if config.sabotage.is(Sabotage::AckBeforeFsync) {
                PersistMode::Buffer
            } else {
                PersistMode::SyncData
            },
        })
    }

    pub(super) fn entries(&self) -> Result<Vec<RawEntry>, StoreError> {
        let pair = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(failed("read an entry"))?;
            Ok((key.to_vec(), value.to_vec()))
        };
        self.entries.iter().map(pair).collect()
    }

    pub(super) fn last(
        &self,
        part: PartId,
        erase: bool,
    ) -> Result<Option<(BatchKey, Bytes)>, StoreError> {
        if erase {
            let found = self.erase.lock().last(part);
            return found.map(|found| read_found(&found)).transpose();
        }
        let from = BatchKey::new(part, 0).to_bytes();
        let to = BatchKey::new(part, Offset::MAX).to_bytes();
        self.batches.range(from..=to).next_back().map(read_batch).transpose()
    }

    pub(super) fn scan(
        &self,
        part: PartId,
        erase: bool,
        mut from: Offset,
        end: Offset,
        visit: Visit<'_>,
    ) -> Result<(), StoreError> {
        if from >= end {
            return Ok(());
        }
        if !erase {
            let first = BatchKey::new(part, from).to_bytes();
            let last = BatchKey::new(part, end).to_bytes();
            for guard in self.batches.range(first..last) {
                let (key, value) = read_batch(guard)?;
                if !visit(key, value) {
                    break;
                }
            }
            return Ok(());
        }
        loop {
            let found = self.erase.lock().first(part, from, end);
            let Some(found) = found else { return Ok(()) };
            let (key, value) = read_found(&found)?;
            if !visit(key, value) {
                return Ok(());
            }
            from = key.last + 1;
        }
    }

    pub(super) fn commit(&self, writes: Vec<Write>) -> Result<Leftover, StoreError> {
        let capacity = writes.len();
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), capacity)
            .durability(Some(self.durability));
        let mut leftover = Leftover::default();
        let mut erase = self.erase.lock();
        for write in writes {
            match write {
                Write::Batch { key, value, bucket: None } => {
                    batch.insert(&self.batches, key.to_bytes(), value);
                }
                Write::Batch { key, value, bucket: Some(bucket) } => {
                    let written = erase.append(bucket, key, &value);
                    written.map_err(|error| StoreError::new("write a bucket", &error))?;
                }
                Write::Put(entry) => batch.insert(&self.entries, entry.key(), entry.value()),
                Write::Remove(key) => batch.remove(&self.entries, key),
                Write::RemoveBatches { part, erase: true, from: _, below } => {
                    if erase.forget(part, below) {
                        leftover.parts.push(part);
                    }
                }
                Write::RemoveBatches { part, erase: false, from, below } => {
                    let range = BatchKey::new(part, from)..BatchKey::new(part, below);
                    if self.remove(&mut batch, &range)? {
                        leftover.parts.push(part);
                    }
                }
                Write::RemoveTopic(topic) => {
                    let more = erase.forget_topic(topic);
                    if self.remove(&mut batch, &topic_range(topic))? || more {
                        leftover.topics.push(topic);
                    }
                }
            }
        }
        let lengths = erase.sync().map_err(|error| StoreError::new("sync a bucket", &error))?;
        for (bucket, len) in lengths {
            batch.insert(&self.lengths, bucket_key(bucket), len.to_be_bytes().to_vec());
        }
        let empty = erase.take_empty();
        for bucket in &empty {
            batch.remove(&self.lengths, bucket_key(*bucket));
        }
        if empty.is_empty() {
            drop(erase);
            batch.commit().map_err(failed("commit"))?;
        } else {
            batch.commit().map_err(failed("commit"))?;
            let removed = erase.unlink(&empty);
            removed.map_err(|error| StoreError::new("remove a bucket", &error))?;
        }
        Ok(leftover)
    }

    /// Adds the removal of a step of `range`. Returns whether some are left.
    fn remove(
        &self,
        batch: &mut OwnedWriteBatch,
        range: &std::ops::Range<BatchKey>,
    ) -> Result<bool, StoreError> {
        if range.is_empty() {
            return Ok(false);
        }
        let guards = self.batches.range(range.start.to_bytes()..range.end.to_bytes());
        for (count, guard) in guards.enumerate() {
            if count == REMOVE_STEP {
                return Ok(true);
            }
            let key = guard.key().map_err(failed("read a key to remove"))?;
            batch.remove(&self.batches, key);
        }
        Ok(false)
    }

    pub(super) fn space(&self, bytes: usize) -> Space {
        let free = match &self.free_space {
            Some(probe) => probe.free_bytes(&self.dir),
            None => free_bytes(&self.dir),
        };
        let free = match free {
            Ok(free) => free,
            Err(error) => {
                tracing::error!(%error, "cannot ask for the free space, appends are refused");
                return Space::Scarce;
            }
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let unflushed = self.database.write_buffer_size().saturating_add(bytes);
        let tables = self.batches.disk_space().min(COMPACTION_BYTES);
        // The batch goes to the journal now and to a table later.
        let wanted = self.reserve.saturating_add(unflushed + bytes + tables);
        if free >= wanted {
            Space::Plenty
        } else if free >= self.reserve / 2 + unflushed {
            Space::Scarce
        } else {
            Space::Full
        }
    }

    /// Whether fjall writes or merges tables now.
    pub(in crate::local) fn is_busy(&self) -> bool {
        self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0
    }

    /// Asks fjall whether one of its own threads has failed.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::Buffer).map_err(failed("the store's own work"))
    }
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

fn topic_range(topic: TopicId) -> std::ops::Range<BatchKey> {
    let first = BatchKey::new(PartId { topic, partition: 0 }, 0);
    first..BatchKey::new(PartId { topic, partition: u32::MAX }, Offset::MAX)
}

fn read_batch(guard: fjall::Guard) -> Result<(BatchKey, Bytes), StoreError> {
    let (key, value) = guard.into_inner().map_err(failed("read a batch"))?;
    let key = BatchKey::from_bytes(&key)
        .ok_or_else(|| StoreError("a batch has a key of another form".into()))?;
    Ok((key, Bytes::from_owner(value)))
}

fn read_found(found: &super::erase::Found) -> Result<(BatchKey, Bytes), StoreError> {
    let bytes = found.read().map_err(|error| StoreError::new("read a bucket", &error))?;
    Ok((found.key, bytes))
}

fn bucket_key(bucket: Bucket) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    key.put_u32(bucket.topic);
    key.put_i64(bucket.number);
    key
}

fn read_lengths(lengths: &Keyspace) -> Result<BTreeMap<Bucket, u64>, OpenFailure> {
    let mut found = BTreeMap::new();
    for guard in lengths.iter() {
        let pair = guard.into_inner().map_err(failed("read a bucket's length"));
        let (key, value) = pair.map_err(OpenFailure::Store)?;
        let (mut key, mut value): (&[u8], &[u8]) = (&key, &value);
        if key.len() != 12 || value.len() != 8 {
            let error = StoreError("a bucket's length has another form".into());
            return Err(OpenFailure::Store(error));
        }
        found.insert(Bucket { topic: key.get_u32(), number: key.get_i64() }, value.get_u64());
    }
    Ok(found)
}
