//! Files for topics whose records must leave the disk when they expire: one per
//! topic and time bucket, removed whole when everything in it has been trimmed.
//! Nothing of these records ever reaches the store's journals and tables.
//!
//! A file is a row of frames: length, key and their checksum, then the batch
//! with its own. The synced length of each file is kept by the disk store, in
//! the commit that makes the frames visible: what stands behind it was never
//! acknowledged and is cut off; damage before it is told from a torn write.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes};
use tidings_types::Offset;

use super::{Bucket, OpenFailure, REMOVE_STEP};
use crate::local::batch::{BatchKey, PartId, TopicId};

/// Length of the batch, its key, and the checksum of both.
const FRAME_HEAD_BYTES: usize = 4 + BatchKey::BYTES + 4;

#[derive(Debug)]
struct BucketFile {
    file: Arc<File>,
    len: u64,
    /// Batches in it that have not been trimmed.
    live: usize,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: Bucket,
    at: u64,
    len: usize,
}

/// A batch that can be read without holding up anybody else.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: BatchKey,
    file: Arc<File>,
    at: u64,
    len: usize,
}

impl Found {
    pub(super) fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.at)?;
        Ok(bytes.into())
    }
}

#[derive(Debug)]
pub(super) struct EraseFiles {
    dir: PathBuf,
    files: BTreeMap<Bucket, BucketFile>,
    index: BTreeMap<BatchKey, Place>,
    /// Files with frames that are not synced yet.
    dirty: BTreeSet<Bucket>,
    created: bool,
}

impl EraseFiles {
    /// Opens the files that `lengths` names and removes all others.
    pub(super) fn open(dir: &Path, lengths: &BTreeMap<Bucket, u64>) -> Result<Self, OpenFailure> {
        let mut files = Self {
            dir: dir.to_owned(),
            files: BTreeMap::new(),
            index: BTreeMap::new(),
            dirty: BTreeSet::new(),
            created: false,
        };
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let bucket = path.file_name().and_then(|name| parse_name(name.to_str()?));
            if bucket.is_some_and(|bucket| !lengths.contains_key(&bucket)) {
                std::fs::remove_file(&path)?;
            }
        }
        for (bucket, len) in lengths {
            files.open_file(*bucket, *len)?;
        }
        sync_dir(dir)?;
        Ok(files)
    }

    fn open_file(&mut self, bucket: Bucket, len: u64) -> Result<(), OpenFailure> {
        let path = self.dir.join(name(bucket));
        let damaged = || OpenFailure::DamagedFile(path.clone());
        let bytes = std::fs::read(&path)?;
        let size = usize::try_from(len).ok().filter(|size| *size <= bytes.len());
        let mut rest = bytes.get(..size.ok_or_else(damaged)?).ok_or_else(damaged)?;
        let file = OpenOptions::new().read(true).append(true).open(&path)?;
        file.set_len(len)?;
        file.sync_all()?;
        let mut live = 0;
        let mut at = 0;
        while !rest.is_empty() {
            let (head, body) = rest.split_at_checked(FRAME_HEAD_BYTES).ok_or_else(damaged)?;
            let (key, len) = parse_head(head).ok_or_else(damaged)?;
            let (_, behind) = body.split_at_checked(len).ok_or_else(damaged)?;
            rest = behind;
            at += widen(FRAME_HEAD_BYTES);
            self.index.insert(key, Place { bucket, at, len });
            at += widen(len);
            live += 1;
        }
        self.files.insert(bucket, BucketFile { file: Arc::new(file), len, live });
        Ok(())
    }

    /// Adds a batch to its bucket's file. Not durable before [`Self::sync`].
    pub(super) fn append(&mut self, bucket: Bucket, key: BatchKey, value: &[u8]) -> io::Result<()> {
        if !self.files.contains_key(&bucket) {
            let path = self.dir.join(name(bucket));
            // What a failed attempt may have left was never acknowledged.
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            file.set_len(0)?;
            self.files.insert(bucket, BucketFile { file: Arc::new(file), len: 0, live: 0 });
            self.created = true;
        }
        let Some(file) = self.files.get_mut(&bucket) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let mut frame = head(key, value.len())?;
        let at = file.len + widen(frame.len());
        frame.extend_from_slice(value);
        (&*file.file).write_all(&frame)?;
        file.len += widen(frame.len());
        file.live += 1;
        self.index.insert(key, Place { bucket, at, len: value.len() });
        self.dirty.insert(bucket);
        Ok(())
    }

    /// Makes everything appended durable. Returns the new lengths.
    pub(super) fn sync(&mut self) -> io::Result<Vec<(Bucket, u64)>> {
        let mut lengths = Vec::new();
        for bucket in std::mem::take(&mut self.dirty) {
            if let Some(file) = self.files.get(&bucket) {
                file.file.sync_all()?;
                lengths.push((bucket, file.len));
            }
        }
        if std::mem::take(&mut self.created) {
            sync_dir(&self.dir)?;
        }
        Ok(lengths)
    }

    pub(super) fn last(&self, part: PartId) -> Option<Found> {
        let range = BatchKey::new(part, 0)..=BatchKey::new(part, Offset::MAX);
        self.index.range(range).next_back().and_then(|(key, place)| self.found(*key, *place))
    }

    /// The first batch that ends in `from..end`.
    pub(super) fn first(&self, part: PartId, from: Offset, end: Offset) -> Option<Found> {
        if from >= end {
            return None;
        }
        let range = BatchKey::new(part, from)..BatchKey::new(part, end);
        self.index.range(range).next().and_then(|(key, place)| self.found(*key, *place))
    }

    fn found(&self, key: BatchKey, place: Place) -> Option<Found> {
        let file = Arc::clone(&self.files.get(&place.bucket)?.file);
        Some(Found { key, file, at: place.at, len: place.len })
    }

    /// Forgets a step of the batches that end before `below`. Returns whether
    /// some are left.
    pub(super) fn forget(&mut self, part: PartId, below: Offset) -> bool {
        self.forget_range(BatchKey::new(part, 0)..BatchKey::new(part, below))
    }

    /// Forgets a step of a topic's batches. Returns whether some are left.
    pub(super) fn forget_topic(&mut self, topic: TopicId) -> bool {
        let first = BatchKey::new(PartId { topic, partition: 0 }, 0);
        let last = BatchKey::new(PartId { topic, partition: u32::MAX }, Offset::MAX);
        self.forget_range(first..last)
    }

    fn forget_range(&mut self, range: std::ops::Range<BatchKey>) -> bool {
        let mut gone: Vec<BatchKey> =
            self.index.range(range).take(REMOVE_STEP + 1).map(|(key, _)| *key).collect();
        let more = gone.len() > REMOVE_STEP;
        gone.truncate(REMOVE_STEP);
        for key in gone {
            let place = self.index.remove(&key);
            if let Some(file) = place.and_then(|place| self.files.get_mut(&place.bucket)) {
                file.live = file.live.saturating_sub(1);
            }
        }
        more
    }

    /// Takes the files out in which nothing is left. They are still on the disk.
    pub(super) fn take_empty(&mut self) -> Vec<Bucket> {
        let empty = |(bucket, file): (&Bucket, &BucketFile)| (file.live == 0).then_some(*bucket);
        let gone: Vec<Bucket> = self.files.iter().filter_map(empty).collect();
        for bucket in &gone {
            self.files.remove(bucket);
            self.dirty.remove(bucket);
        }
        gone
    }

    /// Removes files from the disk, durably.
    pub(super) fn unlink(&self, buckets: &[Bucket]) -> io::Result<()> {
        for bucket in buckets {
            match std::fs::remove_file(self.dir.join(name(*bucket))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        sync_dir(&self.dir)
    }
}

/// `usize` is at most 64 bits wide wherever this runs.
fn widen(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn name(bucket: Bucket) -> String {
    format!("erase-{}-{}", bucket.topic, bucket.number)
}

fn parse_name(name: &str) -> Option<Bucket> {
    let (topic, number) = name.strip_prefix("erase-")?.split_once('-')?;
    Some(Bucket { topic: topic.parse().ok()?, number: number.parse().ok()? })
}

fn head(key: BatchKey, len: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(FRAME_HEAD_BYTES + len);
    head.put_u32(u32::try_from(len).map_err(io::Error::other)?);
    head.extend_from_slice(&key.to_bytes());
    let checksum = crc32c::crc32c(&head);
    head.put_u32(checksum);
    Ok(head)
}

fn parse_head(head: &[u8]) -> Option<(BatchKey, usize)> {
    let (checked, mut checksum) = head.split_at_checked(FRAME_HEAD_BYTES - 4)?;
    if crc32c::crc32c(checked) != checksum.get_u32() {
        return None;
    }
    let (mut len, key) = checked.split_at_checked(4)?;
    Some((BatchKey::from_bytes(key)?, usize::try_from(len.get_u32()).ok()?))
}
