//! How a batch of records is stored: one value with a checksum, under a key
//! that ends with the batch's last offset.
//!
//! The last offset stands in the key because then one seek to `(topic,
//! partition, offset)` finds the batch that contains the offset, and the end of
//! a partition is known without decoding anything. The running maximum of the
//! record times stands in every header, so the batches themselves are the index
//! by time. Nothing here touches a store.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use tidings_types::{Offset, Partition, Timestamp};

use crate::seam::{Header, Record};

/// The version of the stored form.
const VERSION: u8 = 1;
/// Version, checksum, topic, partition, base, count, two times.
const HEADER_BYTES: usize = 1 + 4 + 4 + 4 + 8 + 4 + 8 + 8;
/// Where the checksummed part begins.
const CHECKED_FROM: usize = 5;
/// Stands for a key or value that is null.
const NULL: u32 = u32::MAX;
/// Time and the three lengths in front of each record.
const RECORD_HEAD_BYTES: usize = 8 + 4 + 4 + 4;

/// The number of a topic in the store; never used twice.
pub(super) type TopicId = u32;

/// A partition as the store names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartId {
    pub(super) topic: TopicId,
    pub(super) partition: Partition,
}

/// The key of a stored batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchKey {
    pub(super) part: PartId,
    /// The offset of the batch's last record.
    pub(super) last: Offset,
}

impl BatchKey {
    pub(super) const BYTES: usize = 16;

    pub(super) const fn new(part: PartId, last: Offset) -> Self {
        Self { part, last }
    }

    /// Big-endian, so that the order of the bytes is the order of the keys.
    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.part.topic.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.part.partition.to_be_bytes());
        bytes[8..].copy_from_slice(&self.last.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let part = PartId { topic: bytes.get_u32(), partition: bytes.get_u32() };
        Some(Self { part, last: bytes.get_u64() })
    }
}

/// What a batch says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) part: PartId,
    pub(super) base: Offset,
    pub(super) count: u32,
    /// The newest record time in the batch; retention goes by it.
    pub(super) max_time: Timestamp,
    /// The newest record time in the partition up to the batch's end.
    pub(super) running_max: Timestamp,
}

impl BatchHeader {
    /// The offset behind the batch.
    pub(super) fn end(&self) -> Offset {
        self.base.saturating_add(u64::from(self.count))
    }
}

/// A stored batch that does not match its checksum, its key or its own lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored batch is damaged")]
pub(super) struct Damage;

/// The bytes of a record that count against limits: key, value, headers.
pub(super) fn payload_bytes(
    key: Option<&Bytes>,
    value: Option<&Bytes>,
    headers: &[Header],
) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len) + headers
}

/// The lengths were checked against a limit far below 4 GiB before a record came
/// here, so the fallback is never taken.
fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(NULL)
}

fn opt_len32(bytes: Option<&Bytes>) -> u32 {
    bytes.map_or(NULL, |bytes| len32(bytes.len()))
}

/// The stored form of a batch. `records` stand at `header.base` and onwards.
pub(super) fn encode(header: &BatchHeader, records: &[Record]) -> Vec<u8> {
    let size: usize = records.iter().map(stored_bytes).sum();
    let mut out = Vec::with_capacity(HEADER_BYTES + size);
    out.put_u8(VERSION);
    out.put_u32(0);
    out.put_u32(header.part.topic);
    out.put_u32(header.part.partition);
    out.put_u64(header.base);
    out.put_u32(header.count);
    out.put_i64(header.max_time.as_millis());
    out.put_i64(header.running_max.as_millis());
    for record in records {
        out.put_i64(record.timestamp.as_millis());
        out.put_u32(opt_len32(record.key.as_ref()));
        out.put_u32(opt_len32(record.value.as_ref()));
        out.put_u32(len32(record.headers.len()));
        out.extend_from_slice(record.key.as_deref().unwrap_or_default());
        out.extend_from_slice(record.value.as_deref().unwrap_or_default());
        for (name, value) in record.headers.iter() {
            out.put_u32(len32(name.len()));
            out.put_u32(len32(value.len()));
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
        }
    }
    let checksum = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[1..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// The bytes that a record takes in its stored batch.
pub(super) fn stored_bytes(record: &Record) -> usize {
    RECORD_HEAD_BYTES
        + 8 * record.headers.len()
        + payload_bytes(record.key.as_ref(), record.value.as_ref(), &record.headers)
}

/// Checks a stored batch against its checksum and its key.
pub(super) fn check(key: BatchKey, stored: &[u8]) -> Result<BatchHeader, Damage> {
    let mut cursor = stored;
    if cursor.len() < HEADER_BYTES || cursor.get_u8() != VERSION {
        return Err(Damage);
    }
    let checksum = cursor.get_u32();
    if crc32c::crc32c(cursor) != checksum {
        return Err(Damage);
    }
    let header = BatchHeader {
        part: PartId { topic: cursor.get_u32(), partition: cursor.get_u32() },
        base: cursor.get_u64(),
        count: cursor.get_u32(),
        max_time: Timestamp::from_millis(cursor.get_i64()),
        running_max: Timestamp::from_millis(cursor.get_i64()),
    };
    let fits = header.part == key.part && header.count > 0 && header.end() == key.last + 1;
    if fits { Ok(header) } else { Err(Damage) }
}

/// Takes records out of checked batches, sharing the stored bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The header names seen so far: records of one partition repeat them.
    names: Vec<Arc<str>>,
}

/// Names that a decoder remembers; more are not shared.
const REMEMBERED_NAMES: usize = 32;

impl Decoder {
    /// Appends to `out` the records of `stored` from `from` on until `out` holds
    /// about `budget` bytes. Returns what is left of the budget.
    pub(super) fn take(
        &mut self,
        header: &BatchHeader,
        stored: &Bytes,
        from: Offset,
        mut budget: usize,
        out: &mut Vec<Record>,
    ) -> Result<usize, Damage> {
        let mut cursor = stored.slice(HEADER_BYTES..);
        for offset in header.base..header.end() {
            let record = self.record(offset, &mut cursor, offset < from)?;
            let Some(record) = record else { continue };
            budget = budget.saturating_sub(stored_bytes(&record));
            out.push(record);
            if budget == 0 {
                break;
            }
        }
        Ok(budget)
    }

    fn record(
        &mut self,
        offset: Offset,
        cursor: &mut Bytes,
        skip: bool,
    ) -> Result<Option<Record>, Damage> {
        if cursor.len() < RECORD_HEAD_BYTES {
            return Err(Damage);
        }
        let timestamp = Timestamp::from_millis(cursor.get_i64());
        let (key, value, headers) = (cursor.get_u32(), cursor.get_u32(), cursor.get_u32());
        let key = optional(cursor, key)?;
        let value = optional(cursor, value)?;
        let mut list = Vec::new();
        for _ in 0..headers {
            if cursor.len() < 8 {
                return Err(Damage);
            }
            let (name, value) = (cursor.get_u32(), cursor.get_u32());
            let name = piece(cursor, name)?;
            let value = piece(cursor, value)?;
            if !skip {
                list.push((self.name(&name)?, value));
            }
        }
        Ok((!skip).then(|| Record { offset, timestamp, key, headers: list.into(), value }))
    }

    fn name(&mut self, bytes: &[u8]) -> Result<Arc<str>, Damage> {
        if let Some(name) = self.names.iter().find(|name| name.as_bytes() == bytes) {
            return Ok(Arc::clone(name));
        }
        let name: Arc<str> = Arc::from(std::str::from_utf8(bytes).map_err(|_not_text| Damage)?);
        if self.names.len() < REMEMBERED_NAMES {
            self.names.push(Arc::clone(&name));
        }
        Ok(name)
    }
}

fn optional(cursor: &mut Bytes, len: u32) -> Result<Option<Bytes>, Damage> {
    if len == NULL { Ok(None) } else { piece(cursor, len).map(Some) }
}

fn piece(cursor: &mut Bytes, len: u32) -> Result<Bytes, Damage> {
    let len = usize::try_from(len).map_err(|_too_long| Damage)?;
    if cursor.len() < len { Err(Damage) } else { Ok(cursor.split_to(len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: PartId = PartId { topic: 7, partition: 3 };

    fn records() -> Vec<Record> {
        (10..14)
            .map(|offset| Record {
                offset,
                timestamp: Timestamp::from_millis(1000 + i64::try_from(offset).unwrap()),
                key: (offset % 2 == 0).then(|| Bytes::from(vec![b'k'; 5])),
                headers: vec![(Arc::from("v"), Bytes::from_static(b"1"))].into(),
                value: (offset != 11).then(|| Bytes::from(vec![b'v'; 9])),
            })
            .collect()
    }

    fn stored() -> (BatchKey, Vec<u8>) {
        let time = Timestamp::from_millis(1013);
        let header =
            BatchHeader { part: PART, base: 10, count: 4, max_time: time, running_max: time };
        (BatchKey::new(PART, 13), encode(&header, &records()))
    }

    #[test]
    fn a_batch_comes_back_as_it_was_stored() {
        let (key, stored) = stored();
        let header = check(key, &stored).unwrap();
        let mut out = Vec::new();
        Decoder::default().take(&header, &stored.into(), 11, usize::MAX, &mut out).unwrap();
        assert_eq!(format!("{out:?}"), format!("{:?}", &records()[1..]));
    }

    #[test]
    fn a_decoder_stops_when_the_budget_is_used_up_but_gives_at_least_one() {
        let (key, stored) = stored();
        let header = check(key, &stored).unwrap();
        let mut out = Vec::new();
        let left = Decoder::default().take(&header, &stored.into(), 0, 1, &mut out).unwrap();
        assert_eq!((left, out.len()), (0, 1));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (key, stored) = stored();
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(key, &damaged), Err(Damage), "bit {bit}");
        }
    }

    #[test]
    fn a_batch_under_another_key_or_cut_short_is_damaged() {
        let (key, stored) = stored();
        assert_eq!(check(BatchKey::new(PART, 14), &stored), Err(Damage));
        let other = PartId { topic: 7, partition: 4 };
        assert_eq!(check(BatchKey::new(other, 13), &stored), Err(Damage));
        for len in 0..stored.len() {
            assert_eq!(check(key, &stored[..len]), Err(Damage));
        }
    }

    #[test]
    fn keys_sort_by_topic_then_partition_then_offset() {
        let key =
            |topic, partition, last| BatchKey::new(PartId { topic, partition }, last).to_bytes();
        assert!(key(1, 0, 0) > key(0, 9, 9));
        assert!(key(1, 1, 0) > key(1, 0, 300));
        assert!(key(1, 1, 256) > key(1, 1, 255));
        assert_eq!(BatchKey::from_bytes(&key(1, 2, 3)).unwrap().last, 3);
    }
}
