//! Writers that wait for what the fold says of their records.
//!
//! Every proposal has a random id in a header of its record. When the fate of an
//! append is unknown, the same record is appended again; whichever copy the fold
//! meets first uses up the version, so at most one is accepted, and the id tells
//! the writer that it was one of its own.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tidings_broker::{Header, Record};
use tidings_types::{Offset, Rng};

use crate::fold::Verdict;

/// The header that carries a proposal's id. The fold itself does not look at it.
const HEADER: &str = "p";

type Id = [u8; 16];

/// The proposals of this process that wait. As many as there are callers of
/// `propose`, which a semaphore bounds.
#[derive(Debug, Default)]
pub(crate) struct Proposals(Mutex<BTreeMap<Id, Option<(Offset, Verdict)>>>);

/// One proposal. It is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Proposal<'a> {
    proposals: &'a Proposals,
    id: Id,
}

impl Proposals {
    pub(crate) fn begin(&self, rng: &dyn Rng) -> Proposal<'_> {
        let mut id = [0; 16];
        rng.fill(&mut id);
        self.0.lock().insert(id, None);
        Proposal { proposals: self, id }
    }

    /// Notes what the fold said of a record, if its writer waits here.
    pub(crate) fn note(&self, record: &Record, verdict: &Verdict) {
        let header = record.headers.iter().find(|(name, _)| &**name == HEADER);
        let Some(id) = header.and_then(|(_, value)| Id::try_from(value.as_ref()).ok()) else {
            return;
        };
        if let Some(waiting) = self.0.lock().get_mut(&id) {
            let is_accepted = matches!(waiting, Some((_, Verdict::Accepted { .. })));
            if !is_accepted {
                *waiting = Some((record.offset, verdict.clone()));
            }
        }
    }
}

impl Proposal<'_> {
    pub(crate) fn header(&self) -> Header {
        (Arc::from(HEADER), Bytes::copy_from_slice(&self.id))
    }

    /// What the fold has said: of all copies the accepted one, else the latest.
    pub(crate) fn verdict(&self) -> Option<(Offset, Verdict)> {
        self.proposals.0.lock().get(&self.id).cloned().flatten()
    }
}

impl Drop for Proposal<'_> {
    fn drop(&mut self) {
        self.proposals.0.lock().remove(&self.id);
    }
}
