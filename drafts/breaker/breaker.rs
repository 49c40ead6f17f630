//! Circuit breaker: what a webhook that only fails may still do.
//!
//! After [`TRIPS_AT`] failed attempts in a row it is open: one request at a time.
//! Its open notifications keep to their ladders while they are few, because the
//! ladder itself spaces them; beside that a probe may start once a gap has passed
//! since the last attempt. The gap doubles with each failure up to its limit. The
//! first success closes it, and concurrency grows again step by step: 1, 2, 4, 8.

use std::time::Duration;

use tidings_types::Timestamp;

/// After so many failed attempts in a row a webhook is probed only.
pub const TRIPS_AT: u32 = 8;
/// So many open notifications are few: their ladders are the pace.
const FEW: usize = 64;
/// The steps of slow start; after the last one concurrency adapts by itself.
const SLOW_START: [usize; 4] = [1, 2, 4, 8];

/// How fast a broken webhook is probed, and a repaired one is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first gap between probes...
    pub first_gap: Duration,
    /// ...and the longest.
    pub longest_gap: Duration,
    /// How long a step of slow start lasts.
    pub step: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_gap: Duration::from_secs(1),
            longest_gap: Duration::from_secs(300),
            step: Duration::from_secs(10),
        }
    }
}

impl Pace {
    /// Nothing over a second, for development (contract §1).
    pub fn quick() -> Self {
        Self {
            first_gap: Duration::from_millis(250),
            longest_gap: Duration::from_secs(1),
            step: Duration::from_millis(500),
        }
    }
}

/// The breaker of one webhook.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    failed_in_a_row: u32,
    gap: Duration,
    /// When the next probe may start.
    probe_at: Timestamp,
    /// When it closed after it had been open; slow start runs from there.
    recovers_since: Option<Timestamp>,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.failed_in_a_row >= TRIPS_AT
    }

    /// Whether it has failed of late, or is coming back: it sends from the pool of
    /// the suspects.
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_open() || self.recovers_since.is_some()
    }

    pub(crate) fn failed_in_a_row(&self) -> u32 {
        self.failed_in_a_row
    }

    pub(crate) fn restore(&mut self, failed_in_a_row: u32) {
        self.failed_in_a_row = failed_in_a_row;
    }

    /// An attempt failed; `due` is when the next open notification is due by its
    /// ladder.
    pub(crate) fn failed(&mut self, now: Timestamp, pace: &Pace) {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        self.recovers_since = None;
        if self.is_open() {
            let doubled = self.gap.saturating_mul(2);
            self.gap = doubled.max(pace.first_gap).min(pace.longest_gap);
            self.probe_at = now + self.gap;
        }
    }

    /// An attempt was accepted.
    pub(crate) fn succeeded(&mut self, now: Timestamp, pace: &Pace) {
        if self.is_open() {
            self.recovers_since = Some(now);
        }
        let ends = pace.step * u32::try_from(SLOW_START.len()).unwrap_or(1);
        if self.recovers_since.is_some_and(|since| now.since(since) >= ends) {
            self.recovers_since = None;
        }
        self.failed_in_a_row = 0;
        self.gap = Duration::ZERO;
    }

    /// How many requests may be in flight; `None`: as many as adapts.
    pub(crate) fn limit(&self, now: Timestamp, pace: &Pace) -> Option<usize> {
        if self.is_open() {
            return Some(1);
        }
        let since = now.since(self.recovers_since?);
        let step = since.as_millis() / pace.step.as_millis().max(1);
        SLOW_START.get(usize::try_from(step).unwrap_or(usize::MAX)).copied()
    }

    /// When an open breaker lets the next request start; `is_due` says that an open
    /// notification asks by its ladder, `open` how many there are. `None`: now.
    pub(crate) fn wait_until(&self, is_due: bool, open: usize, now: Timestamp) -> Option<Timestamp> {
        let by_ladder = is_due && open <= FEW;
        (self.is_open() && !by_ladder && self.probe_at > now).then_some(self.probe_at)
    }

    /// Whether something new may be the probe: while few are open.
    pub(crate) fn takes_up(&self, open: usize, now: Timestamp) -> bool {
        !self.is_open() || (open < FEW && self.probe_at <= now)
    }

    /// When to look for an early probe, among many that wait long.
    pub(crate) fn early_probe(&self, open: usize) -> Option<Timestamp> {
        (self.is_open() && open >= FEW).then_some(self.probe_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn an_open_breaker_probes_with_growing_gaps_and_closes_by_slow_start() {
        let (mut breaker, pace) = (Breaker::default(), Pace::default());
        for _ in 0..7 {
            breaker.failed(at(0), &pace);
        }
        assert!(!breaker.is_open());
        breaker.failed(at(0), &pace);
        assert_eq!(breaker.limit(at(0), &pace), Some(1));
        assert_eq!(breaker.wait_until(false, 8, at(0)), Some(at(1000)));
        assert_eq!(breaker.wait_until(true, 8, at(0)), None, "a ladder's step is kept");
        assert_eq!(breaker.wait_until(true, 65, at(0)), Some(at(1000)), "but not of many");
        let mut gaps = Vec::new();
        for _ in 0..10 {
            breaker.failed(at(0), &pace);
            gaps.push(breaker.probe_at.since(at(0)).as_secs());
        }
        assert_eq!(gaps, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        breaker.succeeded(at(0), &pace);
        let limits: Vec<_> =
            [0, 9, 10, 20, 30, 39, 40].map(|s| breaker.limit(at(s * 1000), &pace)).to_vec();
        let expected = [Some(1), Some(1), Some(2), Some(4), Some(8), Some(8), None];
        assert_eq!(limits, expected);
        assert!(breaker.is_suspect());
        breaker.succeeded(at(40_000), &pace);
        assert!(!breaker.is_suspect());
    }

    #[test]
    fn in_development_nothing_takes_over_a_second() {
        let (mut breaker, pace) = (Breaker::default(), Pace::quick());
        for _ in 0..30 {
            breaker.failed(at(0), &pace);
        }
        assert!(breaker.probe_at.since(at(0)) <= Duration::from_secs(1));
        assert!(pace.step <= Duration::from_secs(1));
    }
}
