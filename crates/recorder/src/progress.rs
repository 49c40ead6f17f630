//! How far both topics have been read, against what stood in them when somebody
//! looked. Pure.

use std::collections::BTreeMap;

use tidings_eventlog::{Source, Status};
use tidings_types::{Offset, Partition, Timestamp};

/// One partition of one of the topics.
pub(crate) type Part = (Source, Partition);

/// A look at the ends of all partitions.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// When it was begun: what was appended before is within its ends.
    pub(crate) at: Timestamp,
    pub(crate) ends: BTreeMap<Part, Offset>,
}

#[derive(Debug)]
pub(crate) struct Progress {
    /// The next offset to fold.
    pub(crate) next: BTreeMap<Part, Offset>,
    /// Where the first look began, and how much there was to read then.
    start: BTreeMap<Part, Offset>,
    first: Option<Look>,
    latest: Option<Look>,
    as_of: Timestamp,
    complete: bool,
}

impl Progress {
    pub(crate) fn new(next: BTreeMap<Part, Offset>) -> Self {
        Self {
            start: next.clone(),
            next,
            first: None,
            latest: None,
            as_of: Timestamp::ZERO,
            complete: false,
        }
    }

    pub(crate) fn looked(&mut self, look: Look) {
        self.first.get_or_insert_with(|| look.clone());
        self.latest = Some(look);
        self.settle();
    }

    pub(crate) fn folded(&mut self, part: Part, next: Offset) {
        let at = self.next.entry(part).or_default();
        *at = next.max(*at);
    }

    /// Takes what has been reached into account. Says whether the latest look has.
    pub(crate) fn settle(&mut self) -> bool {
        let reached = self.latest.as_ref().filter(|look| self.has_reached(look));
        if let Some(look) = reached {
            self.as_of = self.as_of.max(look.at);
        }
        let reached = reached.is_some();
        if !self.complete {
            self.complete = self.first.as_ref().is_some_and(|look| self.has_reached(look));
        }
        reached
    }

    fn has_reached(&self, look: &Look) -> bool {
        look.ends.iter().all(|(part, end)| self.next.get(part).is_some_and(|next| next >= end))
    }

    /// Whether a partition has been read up to the end last seen, given what has
    /// been fetched of it since the last fold.
    pub(crate) fn is_at_end(&self, part: &Part, fetched: Option<Offset>) -> bool {
        let end = self.latest.as_ref().and_then(|look| look.ends.get(part));
        let next = fetched.max(self.next.get(part).copied());
        end.is_some_and(|end| next.is_some_and(|next| next >= *end))
    }

    /// Records that are behind the ends last seen.
    pub(crate) fn lag(&self) -> u64 {
        let Some(look) = &self.latest else { return 0 };
        let behind = |(part, end): (&Part, &Offset)| {
            end.saturating_sub(self.next.get(part).copied().unwrap_or(0))
        };
        look.ends.iter().map(behind).sum()
    }

    pub(crate) fn status(&self) -> Status {
        Status { complete: self.complete, progress: self.ratio(), as_of: self.as_of }
    }

    fn ratio(&self) -> f64 {
        if self.complete {
            return 1.0;
        }
        let Some(look) = &self.first else { return 0.0 };
        let (mut all, mut read) = (0_u64, 0_u64);
        for (part, end) in &look.ends {
            let start = self.start.get(part).copied().unwrap_or(0);
            let next = self.next.get(part).copied().unwrap_or(0).min(*end);
            all += end.saturating_sub(start);
            read += next.saturating_sub(start);
        }
        // In thousandths, so that no precision is lost.
        let thousandths = (read * 1_000).checked_div(all).unwrap_or(1_000);
        f64::from(u32::try_from(thousandths).unwrap_or(1_000)) / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: i64, routed: Offset, outcomes: Offset) -> Look {
        let ends = [((Source::Routed, 0), routed), ((Source::Outcomes, 0), outcomes)];
        Look { at: Timestamp::from_millis(at), ends: ends.into() }
    }

    #[test]
    fn as_of_is_the_time_of_the_latest_look_that_has_been_reached() {
        let next = [((Source::Routed, 0), 2), ((Source::Outcomes, 0), 0)];
        let mut progress = Progress::new(next.into());
        progress.looked(look(100, 6, 4));
        assert_eq!((progress.status().progress, progress.lag()), (0.0, 8));
        progress.folded((Source::Routed, 0), 6);
        assert!(!progress.settle());
        assert!(progress.is_at_end(&(Source::Routed, 0), None));
        assert!(!progress.is_at_end(&(Source::Outcomes, 0), Some(3)));
        assert!(progress.is_at_end(&(Source::Outcomes, 0), Some(4)));
        assert_eq!(progress.status().progress, 0.5);
        progress.looked(look(200, 6, 9));
        progress.folded((Source::Outcomes, 0), 4);
        assert!(!progress.settle(), "the latest look is not reached");
        assert!(progress.status().complete, "but the first one is");
        progress.folded((Source::Outcomes, 0), 9);
        assert!(progress.settle());
        assert_eq!(progress.status().as_of, Timestamp::from_millis(200));
        assert_eq!(progress.lag(), 0);
    }

    #[test]
    fn empty_topics_are_complete_at_the_first_look() {
        let mut progress = Progress::new([((Source::Routed, 0), 0)].into());
        assert!(!progress.status().complete);
        progress.looked(Look { at: Timestamp::ZERO, ends: [((Source::Routed, 0), 0)].into() });
        assert!(progress.status().complete);
    }
}
