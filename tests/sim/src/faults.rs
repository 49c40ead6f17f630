//! Appends that go wrong, by the seed.

use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_broker::{Fault, Faults};
use tidings_types::{TopicPartition, names};

/// How often each fault happens, in 1,000 batches.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) refuse: u32,
    pub(crate) slow: u32,
    pub(crate) lose_answer: u32,
    pub(crate) drop_silently: u32,
    /// How slow at most, in milliseconds.
    pub(crate) slow_ms: u64,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    rates: Rates,
    /// Groups whose members with an even or an odd number cannot reach them.
    cut_off: Vec<(&'static str, u64)>,
}

/// The faults of one run; none until [`SeededFaults::set`].
#[derive(Debug)]
pub(crate) struct SeededFaults(Mutex<State>);

impl SeededFaults {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0xfa17);
        Self(Mutex::new(State { rng, rates: Rates::default(), cut_off: Vec::new() }))
    }

    pub(crate) fn set(&self, rates: Rates) {
        self.0.lock().rates = rates;
    }

    /// Keeps half of the members from their group, until [`SeededFaults::heal`].
    pub(crate) fn cut_off(&self, group: &'static str, half: u64) {
        self.0.lock().cut_off.push((group, half));
    }

    pub(crate) fn heal(&self) {
        self.0.lock().cut_off.clear();
    }
}

impl Faults for SeededFaults {
    fn on_append(&self, to: &TopicPartition, _records: usize) -> Option<Fault> {
        // A registry that cannot be written stops the run, not the protocol.
        if to.topic.as_str() == names::REGISTRY {
            return None;
        }
        let mut state = self.0.lock();
        let rates = state.rates;
        let drawn = state.rng.random_range(0..1000);
        let mut below = rates.refuse;
        if drawn < below {
            return Some(Fault::Refuse);
        }
        below += rates.lose_answer;
        if drawn < below {
            return Some(Fault::LoseAnswer);
        }
        below += rates.drop_silently;
        if drawn < below {
            return Some(Fault::DropSilently);
        }
        below += rates.slow;
        if drawn < below {
            let by = state.rng.random_range(1..=rates.slow_ms.max(1));
            return Some(Fault::Slow(Duration::from_millis(by)));
        }
        None
    }

    fn is_cut_off(&self, group: &str, member: u64) -> bool {
        let state = self.0.lock();
        state.cut_off.iter().any(|(cut, half)| *cut == group && member % 2 == *half)
    }
}
