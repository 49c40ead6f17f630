//! The attempts of one notification, kept in its row: what each came to, and where
//! the record stands that has the start of the endpoint's answer.
//!
//! The answer itself stays in `tidings.outcomes`, sealed; who shows it reads that
//! one record. So a clean delivery still costs one row, and its row a few bytes.

use std::{collections::BTreeMap, sync::Arc};

use tidings_types::{RunId, Timestamp};

use crate::{
    notification::{Fact, Place},
    wire::{In, Malformed, put_bytes, put_i64, put_u32, put_u64},
};

/// Attempts remembered of one notification; past it the earliest are forgotten.
/// The longest ladder has 36.
pub(crate) const MAX_ATTEMPTS: usize = 100;

/// When an attempt ended, and where that stands. Orders attempts.
type Moment = (Timestamp, Place);

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) run: RunId,
    /// Counted from 1 within the run.
    pub(crate) number: u32,
    pub(crate) delivered: bool,
    pub(crate) code: Arc<str>,
    pub(crate) http_status: u32,
    pub(crate) duration_ms: u32,
    /// When the next one was due then; [`Timestamp::ZERO`] if it was the last.
    pub(crate) next_due: Timestamp,
    /// Whether its record has the start of the answer.
    pub(crate) has_answer: bool,
}

/// The latest attempts in the order in which they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    by_end: BTreeMap<Moment, Tried>,
}

impl Attempts {
    pub(crate) fn last(&self) -> Option<(Timestamp, &Tried)> {
        self.by_end.last_key_value().map(|((time, _), tried)| (*time, tried))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Timestamp, Place, &Tried)> {
        self.by_end.iter().map(|((time, place), tried)| (*time, *place, tried))
    }

    /// Which are kept does not depend on the order in which they are added.
    pub(crate) fn add(&mut self, time: Timestamp, fact: &Fact<'_>, goes_on: bool) {
        let outcome = fact.outcome;
        let due = if goes_on { outcome.next_due } else { 0 };
        let tried = Tried {
            run: fact.run,
            number: outcome.attempt,
            delivered: fact.kind == tidings_proto::v1::OutcomeKind::Delivered,
            code: outcome.code.as_str().into(),
            http_status: outcome.http_status,
            duration_ms: outcome.duration_ms,
            next_due: Timestamp::from_millis(due),
            has_answer: outcome.snippet.is_some(),
        };
        self.by_end.insert((time, fact.place), tried);
        if self.by_end.len() > MAX_ATTEMPTS {
            self.by_end.pop_first();
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.by_end.len() as u64);
        for ((time, place), tried) in &self.by_end {
            put_i64(out, time.as_millis());
            put_u64(out, place.offset);
            put_u32(out, place.index);
            let flag = |is: bool, bit: u8| if is { bit } else { 0 };
            out.push(
                flag(tried.delivered, DELIVERED)
                    | flag(tried.has_answer, ANSWER)
                    | flag(tried.run.is_first(), FIRST),
            );
            if !tried.run.is_first() {
                out.extend_from_slice(tried.run.as_bytes());
            }
            put_u32(out, tried.number);
            put_bytes(out, tried.code.as_bytes());
            put_u32(out, tried.http_status);
            put_u32(out, tried.duration_ms);
            put_i64(out, tried.next_due.as_millis());
        }
    }

    pub(crate) fn read(read: &mut In<'_>) -> Result<Self, Malformed> {
        let mut attempts = Self::default();
        for _ in 0..read.len()? {
            let time = Timestamp::from_millis(read.i64()?);
            let place = Place { offset: read.u64()?, index: read.u32()? };
            let flags = read.u8()?;
            let first = flags & FIRST != 0;
            let run = if first { RunId::FIRST } else { RunId::from_bytes(read.array()?) };
            let tried = Tried {
                run,
                number: read.u32()?,
                delivered: flags & DELIVERED != 0,
                code: read.text()?.into(),
                http_status: read.u32()?,
                duration_ms: read.u32()?,
                next_due: Timestamp::from_millis(read.i64()?),
                has_answer: flags & ANSWER != 0,
            };
            attempts.by_end.insert((time, place), tried);
        }
        Ok(attempts)
    }
}

const DELIVERED: u8 = 1;
const ANSWER: u8 = 2;
const FIRST: u8 = 4;
