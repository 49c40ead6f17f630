//! What the broker keeps besides records: topics, first offsets, committed
//! positions, and topics whose records are still to be removed. Keys and values
//! of one small ordered map; this file only turns them into bytes and back.

use std::time::Duration;

use bytes::{Buf, BufMut};
use tidings_types::{Offset, TopicName};

use super::batch::{PartId, TopicId};
use crate::seam::{CommittedPosition, Retention};

/// The version of the stored forms.
const VERSION: u8 = 1;
const TOPIC: u8 = b't';
const NEXT_TOPIC: u8 = b'n';
const FIRST: u8 = b'f';
const POSITION: u8 = b'p';
const GARBAGE: u8 = b'g';

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicMeta {
    pub(super) id: TopicId,
    pub(super) partitions: u32,
    pub(super) retention: Retention,
    pub(super) erase_buckets: Option<Duration>,
}

/// Whose position it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PositionKey {
    pub(super) group: String,
    pub(super) part: PartId,
}

/// One entry of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Topic(TopicName, TopicMeta),
    /// The id that the next topic gets.
    NextTopic(TopicId),
    /// The first offset that can be read.
    First(PartId, Offset),
    Position(PositionKey, CommittedPosition),
    /// A deleted topic whose records may still be there.
    Garbage(TopicId),
}

impl Entry {
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Topic(name, _) => topic_key(name),
            Self::NextTopic(_) => vec![NEXT_TOPIC],
            Self::First(part, _) => first_key(*part),
            Self::Position(key, _) => position_key(key),
            Self::Garbage(topic) => garbage_key(*topic),
        }
    }

    pub(super) fn value(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Topic(_, meta) => {
                out.put_u32(meta.id);
                out.put_u32(meta.partitions);
                out.put_u64(match meta.retention {
                    Retention::Forever => u64::MAX,
                    Retention::For(time) => millis(time),
                });
                out.put_u64(meta.erase_buckets.map_or(u64::MAX, millis));
            }
            Self::NextTopic(id) => out.put_u32(*id),
            Self::First(_, offset) => out.put_u64(*offset),
            Self::Position(_, position) => {
                out.put_u64(position.next);
                out.extend_from_slice(position.metadata.as_bytes());
            }
            Self::Garbage(_) => {}
        }
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out
    }

    /// Reads an entry back. `None` if it is damaged.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (body, checksum) = value.split_at_checked(value.len().checked_sub(4)?)?;
        if checksum != crc32c::crc32c(body).to_be_bytes() {
            return None;
        }
        let (version, mut body) = body.split_first()?;
        let (kind, mut key) = key.split_first()?;
        if *version != VERSION {
            return None;
        }
        match *kind {
            TOPIC if body.len() == 24 => {
                let name = TopicName::new(std::str::from_utf8(key).ok()?);
                let (id, partitions) = (body.get_u32(), body.get_u32());
                let retention = duration(body.get_u64()).map_or(Retention::Forever, Retention::For);
                let erase_buckets = duration(body.get_u64());
                Some(Self::Topic(name, TopicMeta { id, partitions, retention, erase_buckets }))
            }
            NEXT_TOPIC if body.len() == 4 => Some(Self::NextTopic(body.get_u32())),
            FIRST if body.len() == 8 && key.len() == 8 => {
                Some(Self::First(part(&mut key), body.get_u64()))
            }
            POSITION if body.len() >= 8 && key.len() >= 8 => {
                let part = part(&mut key);
                let group = std::str::from_utf8(key).ok()?.to_owned();
                let next = body.get_u64();
                let metadata = std::str::from_utf8(body).ok()?.to_owned();
                let position = CommittedPosition { next, metadata };
                Some(Self::Position(PositionKey { group, part }, position))
            }
            GARBAGE if key.len() == 4 => Some(Self::Garbage(key.get_u32())),
            _ => None,
        }
    }
}

pub(super) fn topic_key(name: &TopicName) -> Vec<u8> {
    let mut key = vec![TOPIC];
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

pub(super) fn first_key(part: PartId) -> Vec<u8> {
    let mut key = vec![FIRST];
    put_part(&mut key, part);
    key
}

pub(super) fn position_key(of: &PositionKey) -> Vec<u8> {
    let mut key = vec![POSITION];
    put_part(&mut key, of.part);
    key.extend_from_slice(of.group.as_bytes());
    key
}

pub(super) fn garbage_key(topic: TopicId) -> Vec<u8> {
    let mut key = vec![GARBAGE];
    key.put_u32(topic);
    key
}

fn put_part(key: &mut Vec<u8>, part: PartId) {
    key.put_u32(part.topic);
    key.put_u32(part.partition);
}

fn part(key: &mut &[u8]) -> PartId {
    PartId { topic: key.get_u32(), partition: key.get_u32() }
}

/// Whole milliseconds; the longest time is kept apart from "none".
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

fn duration(millis: u64) -> Option<Duration> {
    (millis != u64::MAX).then(|| Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_comes_back_and_damage_is_noticed() {
        let part = PartId { topic: 3, partition: 1 };
        let topic = |retention, erase_buckets| {
            let meta = TopicMeta { id: 3, partitions: 12, retention, erase_buckets };
            Entry::Topic(TopicName::new("tidings.keys"), meta)
        };
        let entries = [
            topic(Retention::Forever, None),
            topic(Retention::For(Duration::from_secs(9)), Some(Duration::from_secs(600))),
            Entry::NextTopic(9),
            Entry::First(part, 77),
            Entry::Position(
                PositionKey { group: "g/ü".to_owned(), part },
                CommittedPosition { next: 5, metadata: "m".to_owned() },
            ),
            Entry::Garbage(4),
        ];
        for entry in entries {
            let (key, mut value) = (entry.key(), entry.value());
            assert_eq!(Entry::decode(&key, &value), Some(entry));
            value[0] ^= 1;
            assert_eq!(Entry::decode(&key, &value), None);
        }
    }
}
