//! The rows: their keys, and how values are guarded.
//!
//! | key | value | written |
//! |---|---|---|
//! | `c` chunk | facts of the decisions in a chunk: source, offset, skipped, kind | once per 8 KiB of decisions, and per batch |
//! | `d` chunk | the routed decisions of that chunk, as they stand in the topic | with `c` |
//! | `u` uid | where an event is counted, and the decisions that name its webhooks | once per event |
//! | `n` half an id | what is known of the first notifications of an event, of which more is known than that they are due | once per event and batch with news of them |
//! | `n` id | the same of one that found no place there | as often |
//! | `i` webhook, type, minute, number | creation times and ids | once per 512 notifications, or when the window moves on |
//! | `x` webhook, type, created, id | nothing: this one is in the list of undelivered ones | when one fails, and when it is delivered after all |
//! | `o` notification | facts whose decision has not been read | only then |
//! | `m`, `s` | positions and fences; names of sources and types | every batch; when one is added |
//! | `p` key, part | a part of a value over 24 KiB | only then |
//!
//! All ids of an event begin alike, so what becomes of an event at a fan-out of ten
//! stands in one row, and costs one or two writes. What is due
//! and what the lists have of recent events stands in memory and is read again
//! from the chunks of a bounded *window* at the start; what leaves the window
//! while it is due gets its row. A webhook that is down for days therefore costs
//! disk, not memory.
//!
//! A value is its CRC-32C over key, format and bytes, a byte that says whether it
//! stands in parts, and the bytes. `m` also holds the number of rows and the sum
//! of their checksums, so that rows which vanished, or came back from an earlier
//! time, are found.

use tidings_types::{EventUid, NotificationId, Timestamp, WebhookId};

use crate::{
    pack::Half,
    store::{Store, StoreError, Write},
    wire::{In, put_bytes, put_u32},
};

/// The format of all rows. Another one means: rebuild.
pub(crate) const FORMAT: u8 = 4;

/// Longer values stand in parts. sled writes whole leaves of up to 17 rows, and
/// puts one that is over a quarter of a segment into a file that nobody syncs: 17
/// values of this size stay under that ([`SEGMENT`]).
const PART: usize = 24 << 10;

/// The segment size of sled's log.
pub(crate) const SEGMENT: usize = 2 << 20;

const _: () = assert!(17 * (PART + 1_024) < SEGMENT / 4);

pub(crate) const META: &[u8] = b"m";
pub(crate) const NAMES: &[u8] = b"s";

/// The list's index is cut by minutes.
const BUCKET_MS: i64 = 60_000;

pub(crate) fn facts_key(chunk: u64) -> Vec<u8> {
    [b"c".as_slice(), &chunk.to_be_bytes()].concat()
}

pub(crate) fn decisions_key(chunk: u64) -> Vec<u8> {
    [b"d".as_slice(), &chunk.to_be_bytes()].concat()
}

pub(crate) fn event_key(uid: &EventUid) -> Vec<u8> {
    [b"u".as_slice(), &uid.0].concat()
}

/// Of a notification that stands alone.
pub(crate) fn notification_key(id: &NotificationId) -> Vec<u8> {
    [b"n".as_slice(), id.as_bytes()].concat()
}

/// Of the pack that a notification belongs to.
pub(crate) fn pack_key(half: Half) -> Vec<u8> {
    [b"n".as_slice(), &half].concat()
}

pub(crate) fn orphan_key(id: &NotificationId) -> Vec<u8> {
    [b"o".as_slice(), id.as_bytes()].concat()
}

/// A time in the order of its numbers, also before 1970.
fn time_key(time: Timestamp) -> [u8; 8] {
    (time.as_millis().cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

pub(crate) fn bucket(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(BUCKET_MS)
}

/// The first moment of a bucket.
pub(crate) fn bucket_start(bucket: i64) -> Timestamp {
    Timestamp::from_millis(bucket.saturating_mul(BUCKET_MS))
}

pub(crate) fn index_from(webhook: &WebhookId, event_type: u32, bucket: i64) -> Vec<u8> {
    let bucket = time_key(Timestamp::from_millis(bucket));
    [b"i".as_slice(), webhook.as_bytes(), &event_type.to_be_bytes(), &bucket].concat()
}

pub(crate) fn index_key(webhook: &WebhookId, event_type: u32, bucket: i64, number: u64) -> Vec<u8> {
    [index_from(webhook, event_type, bucket), number.to_be_bytes().to_vec()].concat()
}

/// The bucket of an index row's key.
pub(crate) fn index_bucket(key: &[u8]) -> Option<i64> {
    let (bytes, _) = key.get(21..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*bytes) ^ (1 << 63)).cast_signed())
}

pub(crate) fn missed_from(webhook: &WebhookId, event_type: u32, created: Timestamp) -> Vec<u8> {
    let created = time_key(created);
    [b"x".as_slice(), webhook.as_bytes(), &event_type.to_be_bytes(), &created].concat()
}

pub(crate) fn missed_key(
    webhook: &WebhookId,
    event_type: u32,
    created: Timestamp,
    id: &NotificationId,
) -> Vec<u8> {
    [missed_from(webhook, event_type, created), id.as_bytes().to_vec()].concat()
}

/// The creation time and id in the key of a row of undelivered ones.
pub(crate) fn missed_parts(key: &[u8]) -> Option<(Timestamp, NotificationId)> {
    let (created, id) = key.get(21..)?.split_first_chunk::<8>()?;
    let created = (u64::from_be_bytes(*created) ^ (1 << 63)).cast_signed();
    Some((Timestamp::from_millis(created), NotificationId::from_slice(id)?))
}

fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    [b"p".as_slice(), key, &part.to_be_bytes()].concat()
}

/// A value and its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) value: Vec<u8>,
    pub(crate) crc: u32,
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let crc = crc32c::crc32c(key);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[FORMAT]), rest)
}

/// Checksum, 0 or 1, bytes.
fn guarded(key: &[u8], kind: u8, bytes: &[u8]) -> (Vec<u8>, u32) {
    let mut value = Vec::with_capacity(bytes.len() + 5);
    value.extend_from_slice(&[0, 0, 0, 0, kind]);
    value.extend_from_slice(bytes);
    let crc = checksum(key, &value[4..]);
    value[..4].copy_from_slice(&crc.to_le_bytes());
    (value, crc)
}

/// Checks a stored value.
fn unguarded<'a>(key: &[u8], stored: &'a [u8]) -> Result<(u8, &'a [u8], u32), StoreError> {
    let damaged = || StoreError::damaged(format_args!("a row of kind {:?}", key.first()));
    let (crc, rest) = stored.split_first_chunk::<4>().ok_or_else(damaged)?;
    let crc = u32::from_le_bytes(*crc);
    if checksum(key, rest) != crc {
        return Err(damaged());
    }
    let (kind, bytes) = rest.split_first().ok_or_else(damaged)?;
    Ok((*kind, bytes, crc))
}

/// What stands in place of a value in parts: their number, and the whole's checksum.
fn head(value: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    put_u32(&mut head, u32::try_from(value.len().div_ceil(PART)).unwrap_or(u32::MAX));
    put_bytes(&mut head, &crc32c::crc32c(value).to_le_bytes());
    head
}

/// Adds the writes that store a value.
pub(crate) fn store(writes: &mut Vec<Write>, key: Vec<u8>, value: &[u8]) -> u32 {
    if value.len() <= PART {
        let (value, crc) = guarded(&key, 0, value);
        writes.push((key, Some(value)));
        return crc;
    }
    for (part, bytes) in (0..).zip(value.chunks(PART)) {
        let key = part_key(&key, part);
        let (bytes, _) = guarded(&key, 0, bytes);
        writes.push((key, Some(bytes)));
    }
    let (value, crc) = guarded(&key, 1, &head(value));
    writes.push((key, Some(value)));
    crc
}

/// Adds the writes that remove a value of this length.
pub(crate) fn remove(writes: &mut Vec<Write>, key: Vec<u8>, len: usize) {
    if len > PART {
        let parts = u32::try_from(len.div_ceil(PART)).unwrap_or(u32::MAX);
        writes.extend((0..parts).map(|part| (part_key(&key, part), None)));
    }
    writes.push((key, None));
}

/// Reads a row that a scan or a lookup gave.
pub(crate) fn read(store: &dyn Store, key: &[u8], stored: &[u8]) -> Result<Row, StoreError> {
    let (kind, bytes, crc) = unguarded(key, stored)?;
    if kind == 0 {
        return Ok(Row { value: bytes.to_vec(), crc });
    }
    let mut head = In(bytes);
    let malformed = |_| StoreError::damaged("a row in parts");
    let parts = head.u32().map_err(malformed)?;
    let whole = head.bytes().map_err(malformed)?;
    let mut value = Vec::new();
    for part in 0..parts {
        let key = part_key(key, part);
        let stored = store.get(&key)?.ok_or_else(|| StoreError::damaged("a part is missing"))?;
        value.extend_from_slice(unguarded(&key, &stored)?.1);
    }
    if crc32c::crc32c(&value).to_le_bytes() != whole {
        return Err(StoreError::damaged("parts that do not belong together"));
    }
    Ok(Row { value, crc })
}

/// Looks a row up.
pub(crate) fn get(store: &dyn Store, key: &[u8]) -> Result<Option<Row>, StoreError> {
    store.get(key)?.map(|stored| read(store, key, &stored)).transpose()
}

/// The number of rows and the sum of their checksums, without `m` and parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) rows: u64,
    pub(crate) sum: u64,
}

impl Digest {
    pub(crate) fn add(&mut self, crc: u32) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(u64::from(crc));
    }

    pub(crate) fn take(&mut self, crc: u32) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(u64::from(crc));
    }
}

/// Verifies rows from `from` on, at most `limit`; gives their digest and where to
/// go on.
pub(crate) fn verify(
    store: &dyn Store,
    from: &[u8],
    limit: usize,
) -> Result<(Digest, Option<Vec<u8>>), StoreError> {
    let mut digest = Digest::default();
    let (mut seen, mut next) = (0, None);
    store.scan(from, &[0xff], &mut |key, stored| {
        if seen == limit {
            next = Some(key.to_vec());
            return Ok(false);
        }
        seen += 1;
        let (_, _, crc) = unguarded(key, stored)?;
        if key != META && key.first() != Some(&b'p') {
            digest.add(crc);
        }
        Ok(true)
    })?;
    Ok((digest, next))
}
