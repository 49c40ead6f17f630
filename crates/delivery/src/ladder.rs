//! The retry ladder: how long to wait before each attempt, and when to give up.
//!
//! A ladder is a list of waits, one before each attempt; the first is usually
//! zero. Jitter is only ever added, at most a tenth of the step. Randomness is
//! handed in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidings_types::Timestamp;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

/// Design §6: about 72 hours.
const STANDARD: [u64; 13] = [
    0,
    5 * SECOND,
    30 * SECOND,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
    24 * HOUR,
];

/// Contract §3.
const FAST_MS: [u64; 8] = [0, 20, 50, 100, 200, 400, 800, 1000];

/// Most attempts that a ladder may ask for.
pub const MAX_STEPS: usize = 1000;

/// The longest wait that a ladder may ask for before one attempt.
pub const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * HOUR);

/// The waits before each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    waits: Vec<Duration>,
    window: Duration,
}

/// Waits that make no ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    #[error("a ladder needs at least one attempt; give the wait before it, such as \"0s\"")]
    Empty,
    #[error("a ladder has {0} attempts, at most {MAX_STEPS} are allowed")]
    TooMany(usize),
    #[error("wait {index} of a ladder is longer than seven days; shorten it")]
    TooLong { index: usize },
}

impl Ladder {
    /// Makes a ladder of the waits before each attempt.
    pub fn new(waits: Vec<Duration>) -> Result<Self, LadderError> {
        if waits.is_empty() {
            return Err(LadderError::Empty);
        }
        if waits.len() > MAX_STEPS {
            return Err(LadderError::TooMany(waits.len()));
        }
        if let Some(index) = waits.iter().position(|wait| *wait > MAX_WAIT) {
            return Err(LadderError::TooLong { index });
        }
        Ok(Self::known(waits))
    }

    /// About 72 hours in 13 attempts (design §6).
    pub fn standard() -> Self {
        Self::known(STANDARD.iter().copied().map(Duration::from_secs).collect())
    }

    /// The 35 retries of spec §3.3 after a first attempt at once: every 5 minutes
    /// for an hour, hourly for 11 hours, every 3 hours for 12, every 6 for 48.
    pub fn merchant() -> Self {
        let minutes = std::iter::once(0)
            .chain(std::iter::repeat_n(5, 12))
            .chain(std::iter::repeat_n(60, 11))
            .chain(std::iter::repeat_n(180, 4))
            .chain(std::iter::repeat_n(360, 8));
        Self::known(minutes.map(|wait| Duration::from_secs(wait * MINUTE)).collect())
    }

    /// Milliseconds, for development and tests (contract §3).
    pub fn fast() -> Self {
        Self::known(FAST_MS.iter().copied().map(Duration::from_millis).collect())
    }

    fn known(waits: Vec<Duration>) -> Self {
        let window = waits.iter().skip(1).sum();
        Self { waits, window }
    }

    /// How many attempts there are.
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Never true: a ladder has at least one attempt.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// How long the ladder takes from the first attempt to the last, without jitter.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The wait before the attempt that follows `steps_done` steps, without
    /// jitter. Past the last step it stays at the last wait.
    pub fn step(&self, steps_done: u32) -> Duration {
        let index = usize::try_from(steps_done).unwrap_or(usize::MAX).min(self.waits.len() - 1);
        self.waits.get(index).copied().unwrap_or_default()
    }

    /// [`Ladder::step`] with jitter: between nothing and a tenth of the step is
    /// added, as `random` says.
    pub fn wait(&self, steps_done: u32, random: u64) -> Duration {
        let step = self.step(steps_done);
        let tenth = u64::try_from(step.as_millis() / 10).unwrap_or(u64::MAX);
        let jitter = if tenth == 0 { 0 } else { random % tenth.saturating_add(1) };
        step + Duration::from_millis(jitter)
    }

    /// Whether the last step is done.
    pub fn is_past(&self, steps_done: u32) -> bool {
        usize::try_from(steps_done).unwrap_or(usize::MAX) >= self.waits.len()
    }

    /// Whether to give up: the last step is done *and* the window has passed
    /// since the first attempt (design §6). A clock that jumps forward makes
    /// retries early but never ends the ladder.
    pub fn is_over(&self, steps_done: u32, first_attempt: Timestamp, now: Timestamp) -> bool {
        self.is_past(steps_done) && now.since(first_attempt) >= self.window
    }
}

/// The ladders of a deployment, by name.
#[derive(Clone, Debug)]
pub struct Ladders {
    by_name: BTreeMap<String, Arc<Ladder>>,
    standard: Arc<Ladder>,
}

impl Default for Ladders {
    fn default() -> Self {
        let standard = Arc::new(Ladder::standard());
        let by_name = BTreeMap::from([
            ("standard".to_owned(), Arc::clone(&standard)),
            ("merchant".to_owned(), Arc::new(Ladder::merchant())),
            ("fast".to_owned(), Arc::new(Ladder::fast())),
        ]);
        Self { by_name, standard }
    }
}

impl Ladders {
    /// Adds a ladder, or replaces one of the built-in ones.
    pub fn define(&mut self, name: &str, ladder: Ladder) {
        self.by_name.insert(name.to_owned(), Arc::new(ladder));
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Ladder>> {
        self.by_name.get(name)
    }

    /// The ladder of that name; `standard` if a deployment no longer defines it.
    pub fn get_or_standard(&self, name: &str) -> &Arc<Ladder> {
        self.by_name.get(name).unwrap_or(&self.standard)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standard_ladder_takes_about_72_hours() {
        let ladder = Ladder::standard();
        assert_eq!(ladder.len(), 13);
        let hours = ladder.window().as_secs_f64() / 3600.0;
        assert!((70.0..72.0).contains(&hours), "{hours}");
        assert_eq!(ladder.step(0), Duration::ZERO);
        assert_eq!(ladder.step(1), Duration::from_secs(5));
        assert_eq!(ladder.step(12), Duration::from_secs(24 * HOUR));
        assert_eq!(ladder.step(99), Duration::from_secs(24 * HOUR));
    }

    #[test]
    fn the_merchant_ladder_has_35_retries_in_72_hours_at_the_offsets_of_the_spec() {
        let ladder = Ladder::merchant();
        assert_eq!(ladder.len(), 36);
        assert_eq!(ladder.window(), Duration::from_secs(72 * HOUR));
        let mut offset = 0;
        let offsets: Vec<u64> = (0..36)
            .map(|step| {
                offset += ladder.step(step).as_secs() / MINUTE;
                offset
            })
            .collect();
        assert_eq!(&offsets[..3], [0, 5, 10]);
        assert_eq!(&offsets[11..14], [55, 60, 120]);
        assert_eq!(&offsets[22..25], [660, 720, 900]);
        assert_eq!(&offsets[26..29], [1260, 1440, 1800]);
        assert_eq!(offsets[35], 4320);
    }

    #[test]
    fn giving_up_needs_the_last_step_and_the_window() {
        let ladder = Ladder::fast();
        let first = Timestamp::from_secs(100);
        let after = first + ladder.window();
        assert!(ladder.is_over(8, first, after));
        assert!(!ladder.is_over(7, first, after + Duration::from_secs(99)));
        assert!(!ladder.is_over(8, first, after.minus(Duration::from_millis(1))));
        assert!(!ladder.is_over(8, first, Timestamp::ZERO), "a clock that went back");
    }

    #[test]
    fn ladders_without_attempts_or_with_absurd_ones_are_refused() {
        assert_eq!(Ladder::new(vec![]), Err(LadderError::Empty));
        assert_eq!(
            Ladder::new(vec![Duration::ZERO; MAX_STEPS + 1]),
            Err(LadderError::TooMany(MAX_STEPS + 1))
        );
        assert_eq!(
            Ladder::new(vec![Duration::ZERO, Duration::MAX]),
            Err(LadderError::TooLong { index: 1 })
        );
    }

    proptest! {
        #[test]
        fn jitter_is_only_added_and_at_most_a_tenth(step in 0_u32..40, random: u64) {
            for ladder in [Ladder::standard(), Ladder::merchant(), Ladder::fast()] {
                let (step, wait) = (ladder.step(step), ladder.wait(step, random));
                prop_assert!(wait >= step);
                prop_assert!(wait <= step + step / 10);
            }
        }
    }
}
