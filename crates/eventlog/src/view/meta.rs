//! What the view is as a whole: how far it has read, its fences, its counters.

use std::collections::BTreeMap;

use tidings_types::{Offset, Partition};

use crate::{
    batch::{Positions, Source},
    rows::Digest,
    wire::{In, Malformed, put_u32, put_u64},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) positions: Positions,
    /// Records that were not there when the view came to their offsets.
    pub(crate) missing: BTreeMap<(Source, Partition), u64>,
    /// The latest `took` of each partition of `tidings.routed`.
    pub(crate) tooks: BTreeMap<Partition, Offset>,
    /// The number of the next chunk, and the first in the window.
    pub(crate) next_chunk: u64,
    pub(crate) floor: u64,
    /// The first that retention has not removed.
    pub(crate) first_chunk: u64,
    /// The number of the next row of an index.
    pub(crate) next_index: u64,
    /// Rows of facts without a decision.
    pub(crate) orphans: u64,
    pub(crate) digest: Digest,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let positions: Vec<_> = self.positions.iter().collect();
        put_u64(&mut out, positions.len() as u64);
        for (source, partition, next) in positions {
            put_part(&mut out, source, partition);
            put_u64(&mut out, next);
        }
        put_u64(&mut out, self.missing.len() as u64);
        for ((source, partition), missing) in &self.missing {
            put_part(&mut out, *source, *partition);
            put_u64(&mut out, *missing);
        }
        put_u64(&mut out, self.tooks.len() as u64);
        for (partition, took) in &self.tooks {
            put_u32(&mut out, *partition);
            put_u64(&mut out, *took);
        }
        let numbers = [self.next_chunk, self.floor, self.first_chunk, self.next_index];
        for number in numbers {
            put_u64(&mut out, number);
        }
        for number in [self.orphans, self.digest.rows, self.digest.sum] {
            put_u64(&mut out, number);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = In(bytes);
        let mut meta = Self::default();
        for _ in 0..read.len()? {
            let (source, partition) = part(&mut read)?;
            meta.positions.set(source, partition, read.u64()?);
        }
        for _ in 0..read.len()? {
            meta.missing.insert(part(&mut read)?, read.u64()?);
        }
        for _ in 0..read.len()? {
            meta.tooks.insert(read.u32()?, read.u64()?);
        }
        meta.next_chunk = read.u64()?;
        meta.floor = read.u64()?;
        meta.first_chunk = read.u64()?;
        meta.next_index = read.u64()?;
        meta.orphans = read.u64()?;
        meta.digest = Digest { rows: read.u64()?, sum: read.u64()? };
        if read.is_empty() { Ok(meta) } else { Err(Malformed) }
    }
}

fn put_part(out: &mut Vec<u8>, source: Source, partition: Partition) {
    out.push(match source {
        Source::Routed => 0,
        Source::Outcomes => 1,
    });
    put_u32(out, partition);
}

fn part(read: &mut In<'_>) -> Result<(Source, Partition), Malformed> {
    let source = match read.u8()? {
        0 => Source::Routed,
        1 => Source::Outcomes,
        _ => return Err(Malformed),
    };
    Ok((source, read.u32()?))
}
