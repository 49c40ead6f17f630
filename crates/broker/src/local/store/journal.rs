//! Cuts off what a power cut left of the store's last commit.
//!
//! fjall writes a commit to its journal and then syncs it. If the power goes
//! between the two, any page of the commit may be on the disk and any other not.
//! fjall 3.1 drops a commit that has no end, but refuses to open a journal whose
//! last commit has its end and lacks a page before it. Such a commit was never
//! acknowledged, so it is cut off here, before fjall sees it.
//!
//! Damage is told from a torn commit by what follows: behind a torn commit nothing
//! was ever written. With a whole commit behind it, it is damage, and the log is
//! not opened.
//!
//! fjall writes its version file last when it makes a store, and cannot go on with
//! one that was not made to its end. A blank journal without that file is removed,
//! so that the store is made anew.
//!
//! A commit in a journal is a start (tag 1, number of items, sequence), items (tag
//! 2: type, compression, keyspace, lengths, key, value; tag 4: a keyspace that was
//! cleared) and an end (tag 3, XXH3 of the items, magic). Journals are
//! preallocated, so zeros stand behind the last commit.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use bytes::Buf as _;
use xxhash_rust::xxh3::Xxh3;

use super::OpenFailure;

/// fjall's, held while the store is open.
const LOCK_FILE: &str = "lock";
/// fjall's, the last thing that it writes when it makes a store.
const VERSION_FILE: &str = "version";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8; 4] = b"FJL\x03";
/// Type, compression, keyspace, and the lengths of key, value and stored value.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;
/// A read of the journal.
const READ_BYTES: usize = 1 << 20;

/// Cuts what is torn off the journals in `dir`.
pub(super) fn mend(dir: &Path) -> Result<(), OpenFailure> {
    let lock = match OpenOptions::new().read(true).write(true).open(dir.join(LOCK_FILE)) {
        Ok(lock) => lock,
        // There is no store yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match lock.try_lock() {
        Ok(()) => {}
        // Somebody writes in it, so nothing is torn.
        Err(TryLockError::WouldBlock) => return Err(OpenFailure::Locked(dir.to_owned())),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let is_complete = dir.join(VERSION_FILE).try_exists()?;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|kind| kind != "jnl") {
            continue;
        }
        if is_complete {
            mend_journal(&path)?;
        } else if is_blank(&path)? {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(lock.unlock()?)
}

/// Whether nothing was ever written to a journal.
fn is_blank(path: &Path) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    loop {
        let piece = reader.fill_buf()?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let read = piece.len();
        if read == 0 {
            return Ok(true);
        }
        reader.consume(read);
    }
}

fn mend_journal(path: &Path) -> Result<(), OpenFailure> {
    let mut journal = Journal::open(path)?;
    while journal.commit()? {}
    let end = journal.whole;
    let mut rest = Vec::new();
    let mut file = journal.reader.into_inner();
    file.seek(SeekFrom::Start(end))?;
    file.read_to_end(&mut rest)?;
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
    rest.truncate(last + 1);
    if holds_a_commit(&rest) {
        return Err(OpenFailure::DamagedFile(path.to_owned()));
    }
    let bytes = rest.len();
    tracing::warn!(journal = %path.display(), bytes, "cut off a commit that was never synced");
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(end)?;
    Ok(file.sync_all()?)
}

/// Whether a whole commit stands anywhere behind the first byte.
fn holds_a_commit(rest: &[u8]) -> bool {
    (1..rest.len()).any(|at| {
        let from = rest.get(at..).unwrap_or_default();
        // Nearly every place is ruled out by these two bytes.
        let may_start = from.first() == Some(&START)
            && matches!(from.get(13), Some(&(ITEM | CLEAR)))
            && from.get(5..13).is_some();
        may_start && matches!(read_commit(from, widen(from.len())), Ok(Some(_)))
    })
}

/// A journal that is read commit by commit.
struct Journal {
    reader: BufReader<File>,
    len: u64,
    /// Behind the last whole commit.
    whole: u64,
}

impl Journal {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { reader: BufReader::with_capacity(READ_BYTES, file), len, whole: 0 })
    }

    /// Reads the next commit. False if what follows is none.
    fn commit(&mut self) -> io::Result<bool> {
        let read = read_commit(&mut self.reader, self.len - self.whole)?;
        self.whole += read.unwrap_or(0);
        Ok(read.is_some())
    }
}

/// Reads a commit and gives its length; `None` if none stands there whole. Reads
/// at most `limit` bytes.
fn read_commit(reader: impl Read, limit: u64) -> io::Result<Option<u64>> {
    let mut reader = reader.take(limit);
    let read = parse_commit(&mut reader);
    match read {
        Ok(true) => Ok(Some(limit - reader.limit())),
        Ok(false) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_commit(reader: &mut io::Take<impl Read>) -> io::Result<bool> {
    let [START, rest @ ..] = bytes::<13>(reader)? else { return Ok(false) };
    let mut items = rest.as_slice().get_u32_le();
    let mut hash = Xxh3::new();
    loop {
        match bytes::<1>(reader)? {
            [ITEM] if items > 0 => {
                let head = bytes::<ITEM_HEAD_BYTES>(reader)?;
                let (_, mut lengths) = head.split_at(10);
                let key = u64::from(lengths.get_u16_le());
                let value = u64::from(lengths.get_u32_le());
                let stored = u64::from(lengths.get_u32_le());
                // We do not compress, so these are one.
                if value != stored || key + stored > reader.limit() {
                    return Ok(false);
                }
                hash.update(&[ITEM]);
                hash.update(&head);
                let mut left = reader.by_ref().take(key + stored);
                let mut piece = [0; 8192];
                loop {
                    let read = left.read(&mut piece)?;
                    let Some(read @ [_, ..]) = piece.get(..read) else { break };
                    hash.update(read);
                }
            }
            [CLEAR] if items > 0 => {
                hash.update(&[CLEAR]);
                hash.update(&bytes::<8>(reader)?);
            }
            [END] if items == 0 => {
                let sum = u64::from_le_bytes(bytes(reader)?);
                return Ok(bytes::<4>(reader)? == *MAGIC && sum == hash.digest());
            }
            _ => return Ok(false),
        }
        items -= 1;
    }
}

fn bytes<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn widen(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
