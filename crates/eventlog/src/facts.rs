//! Rows about decisions: the facts of a chunk that `account` counts, the decisions
//! of a chunk, and where an event is counted.

use bytes::Bytes;
use tidings_types::{FilterReason, Timestamp};

use crate::wire::{In, Malformed, put_bytes, put_i64, put_u32, put_u64};

/// A source record: the number of its partition among the names, and its offset.
pub(crate) type SourceAt = (u32, u64);

/// What a decision was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FactKind {
    Routed,
    /// The event is counted at a lower source record.
    Duplicate,
    Filtered(FilterReason),
    Quarantined,
}

/// One decision, as far as sums go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DecisionFact {
    pub(crate) source: SourceAt,
    pub(crate) skipped: u64,
    pub(crate) kind: FactKind,
    /// Notifications of the event, on the fact where it is counted.
    pub(crate) notifications: u32,
    /// The decision's place among those of its chunk, if it is kept there.
    pub(crate) record: Option<u32>,
    /// Where its event is counted, if it is kept.
    pub(crate) home: SourceAt,
}

/// The facts of one chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The time of its latest decision.
    pub(crate) latest: Timestamp,
    pub(crate) decisions: Vec<DecisionFact>,
}

impl Facts {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.decisions.len() * 10);
        put_i64(&mut out, self.latest.as_millis());
        put_u64(&mut out, self.decisions.len() as u64);
        for fact in &self.decisions {
            put_u32(&mut out, fact.source.0);
            put_u64(&mut out, fact.source.1);
            put_u64(&mut out, fact.skipped);
            out.push(match fact.kind {
                FactKind::Routed => 0,
                FactKind::Duplicate => 1,
                FactKind::Quarantined => 2,
                FactKind::Filtered(FilterReason::UnknownTenant) => 8,
                FactKind::Filtered(FilterReason::NotSubscribed) => 9,
                FactKind::Filtered(FilterReason::Product) => 10,
                FactKind::Filtered(FilterReason::Configuration) => 11,
                FactKind::Filtered(FilterReason::Inactive) => 12,
            });
            put_u32(&mut out, fact.notifications);
            put_u64(&mut out, fact.record.map_or(0, |record| u64::from(record) + 1));
            let elsewhere = fact.home != fact.source;
            out.push(u8::from(elsewhere));
            if elsewhere {
                put_u32(&mut out, fact.home.0);
                put_u64(&mut out, fact.home.1);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = In(bytes);
        let latest = Timestamp::from_millis(read.i64()?);
        let count = read.len()?;
        let mut decisions = Vec::new();
        for _ in 0..count {
            let source = (read.u32()?, read.u64()?);
            let skipped = read.u64()?;
            let kind = match read.u8()? {
                0 => FactKind::Routed,
                1 => FactKind::Duplicate,
                2 => FactKind::Quarantined,
                8 => FactKind::Filtered(FilterReason::UnknownTenant),
                9 => FactKind::Filtered(FilterReason::NotSubscribed),
                10 => FactKind::Filtered(FilterReason::Product),
                11 => FactKind::Filtered(FilterReason::Configuration),
                12 => FactKind::Filtered(FilterReason::Inactive),
                _ => return Err(Malformed),
            };
            let notifications = read.u32()?;
            let record = match read.u64()?.checked_sub(1) {
                Some(record) => Some(u32::try_from(record).map_err(|_large| Malformed)?),
                None => None,
            };
            let home = if read.u8()? == 0 { source } else { (read.u32()?, read.u64()?) };
            decisions.push(DecisionFact { source, skipped, kind, notifications, record, home });
        }
        if read.is_empty() { Ok(Self { latest, decisions }) } else { Err(Malformed) }
    }
}

/// Adds a decision to the bytes of a chunk.
pub(crate) fn put_decision(chunk: &mut Vec<u8>, raw: &[u8]) {
    put_bytes(chunk, raw);
}

/// The decisions of a chunk, in order.
pub(crate) fn decisions(chunk: Vec<u8>) -> Result<Vec<Bytes>, Malformed> {
    let chunk = Bytes::from(chunk);
    let mut read = In(&chunk);
    let mut decisions = Vec::new();
    while !read.is_empty() {
        decisions.push(chunk.slice_ref(read.bytes()?));
    }
    Ok(decisions)
}

/// A decision that named webhooks of an event which no earlier one had named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) chunk: u64,
    pub(crate) record: u32,
    /// Its place among the facts of the chunk.
    pub(crate) fact: u32,
    pub(crate) created: Timestamp,
    pub(crate) source: SourceAt,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Where it is counted: source record, chunk, and place among its facts.
    pub(crate) home: SourceAt,
    pub(crate) home_fact: (u64, u32),
    pub(crate) kept: Vec<Kept>,
}

impl Event {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        put_u32(&mut out, self.home.0);
        put_u64(&mut out, self.home.1);
        put_u64(&mut out, self.home_fact.0);
        put_u32(&mut out, self.home_fact.1);
        for kept in &self.kept {
            put_u64(&mut out, kept.chunk);
            put_u32(&mut out, kept.record);
            put_u32(&mut out, kept.fact);
            put_i64(&mut out, kept.created.as_millis());
            put_u32(&mut out, kept.source.0);
            put_u64(&mut out, kept.source.1);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = In(bytes);
        let home = (read.u32()?, read.u64()?);
        let home_fact = (read.u64()?, read.u32()?);
        let mut kept = Vec::new();
        while !read.is_empty() {
            kept.push(Kept {
                chunk: read.u64()?,
                record: read.u32()?,
                fact: read.u32()?,
                created: Timestamp::from_millis(read.i64()?),
                source: (read.u32()?, read.u64()?),
            });
        }
        Ok(Self { home, home_fact, kept })
    }
}
