//! Named steps at which a crash test kills the process.
//!
//! Armed by the environment under `--dev` only:
//! `TIDINGS_FAILPOINTS="sender.before_connect=3,router.after_poll=1"` kills the
//! process (as `kill -9` would) the third time that the first step is reached, or
//! the first time for the second. `NAME=COUNT:hold` does not kill but keeps the
//! thread that reached the step for ever, so that a test can change something
//! before it kills.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The armed steps of this process; none in production.
#[derive(Debug, Default)]
pub(crate) struct Failpoints {
    armed: Mutex<BTreeMap<String, Armed>>,
}

#[derive(Debug)]
struct Armed {
    /// How often the step is still passed.
    left: u64,
    hold: bool,
}

impl Failpoints {
    /// Reads `name=count[:hold],…`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut armed = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, count) = part.split_once('=').unwrap_or((part, "1"));
            let (count, hold) =
                count.strip_suffix(":hold").map_or((count, false), |count| (count, true));
            let left: u64 = count
                .parse()
                .map_err(|_bad| anyhow::anyhow!("TIDINGS_FAILPOINTS: {part:?} is not NAME=COUNT"))?;
            armed.insert(name.to_owned(), Armed { left: left.max(1), hold });
        }
        Ok(Self { armed: Mutex::new(armed) })
    }

    /// Whether nothing is armed, so that the hooks can be left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.armed.lock().is_empty()
    }

    /// Called when a step is reached.
    pub(crate) fn hit(&self, name: &str) {
        let mut armed = self.armed.lock();
        let Some(step) = armed.get_mut(name) else { return };
        step.left = step.left.saturating_sub(1);
        if step.left > 0 {
            return;
        }
        if step.hold {
            drop(armed);
            hold(name);
        }
        kill_self(name);
    }
}

/// Keeps this thread for ever.
#[expect(clippy::print_stderr, reason = "the crash run reads which step is held")]
fn hold(name: &str) -> ! {
    eprintln!("failpoint held {name}");
    loop {
        std::thread::park();
    }
}

/// Dies as by `kill -9`: nothing is flushed, nobody is told.
#[expect(clippy::print_stderr, reason = "the crash run reads which step killed the process")]
fn kill_self(name: &str) {
    eprintln!("failpoint {name}");
    let this = nix::unistd::Pid::this();
    if let Err(error) = nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGKILL) {
        eprintln!("failpoint {name}: cannot kill: {error}");
    }
    loop {
        std::thread::park();
    }
}
