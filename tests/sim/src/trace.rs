//! What happened, in order: a hash to compare two runs, and lines to read one.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use parking_lot::Mutex;
use tidings_testkit::TokioClock;
use tidings_types::{Clock as _, Timestamp};

/// When every run begins.
pub(crate) const BASE: Timestamp = Timestamp::from_secs(1_750_000_000);

/// The milliseconds since a run began.
pub(crate) fn since_start(time: Timestamp) -> u64 {
    u64::try_from(time.since(BASE).as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Written {
    hash: DefaultHasher,
    lines: Vec<String>,
}

/// Takes notes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    clock: Arc<TokioClock>,
    written: Arc<Mutex<Written>>,
    keeps_lines: bool,
}

impl Trace {
    pub(crate) fn new(clock: Arc<TokioClock>, keeps_lines: bool) -> Self {
        Self { clock, written: Arc::default(), keeps_lines }
    }

    pub(crate) fn now(&self) -> u64 {
        since_start(self.clock.now())
    }

    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>7} {what}", self.now());
        let mut written = self.written.lock();
        line.hash(&mut written.hash);
        if self.keeps_lines {
            written.lines.push(line);
        }
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) {
        bytes.hash(&mut self.written.lock().hash);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.written.lock().hash.finish()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.written.lock().lines.clone()
    }
}
