//! Named steps at which a crash test kills the process.
//!
//! Armed by the environment under `--dev` only:
//! `TIDINGS_FAILPOINTS="sender.before_connect=3,router.after_poll=1"` kills the
//! process (as `kill -9` would) the third time that the first step is reached, or
//! the first time for the second. `NAME=COUNT:hold` does not kill but keeps the
//! task that reached the step for ever, so that a test can change something before
//! it kills; only the router's steps can be held.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tidings_egress::{ConnectError, Connector, Identity, Io, NetConnector, Target};
use tidings_types::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
            let left: u64 = count.parse().map_err(|_bad| {
                anyhow::anyhow!("TIDINGS_FAILPOINTS: {part:?} is not NAME=COUNT")
            })?;
            anyhow::ensure!(
                !hold || name.starts_with(HELD),
                "TIDINGS_FAILPOINTS: {part:?}: only steps of the {HELD}* can be held"
            );
            armed.insert(name.to_owned(), Armed { left: left.max(1), hold });
        }
        Ok(Self { armed: Mutex::new(armed) })
    }

    /// Whether nothing is armed, so that the hooks can be left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.armed.lock().is_empty()
    }

    /// Called when a step is reached. Kills the process, or says that whoever
    /// reached it stays there.
    fn reach(&self, name: &str) -> Reached {
        let mut armed = self.armed.lock();
        let Some(step) = armed.get_mut(name) else { return Reached::Passed };
        step.left = step.left.saturating_sub(1);
        if step.left > 0 {
            return Reached::Passed;
        }
        if step.hold {
            return Reached::Held;
        }
        kill_self(name)
    }

    /// Called when a step is reached that cannot be held.
    pub(crate) fn hit(&self, name: &str) {
        let reached = self.reach(name);
        debug_assert_eq!(reached, Reached::Passed, "`parse` lets only the router be held");
    }

    /// Called when the router reaches a step; waits for ever where it is held. The
    /// task waits, not its thread: the others go on.
    pub(crate) fn hit_router(&self, name: &'static str) -> Option<BoxFuture<'static, ()>> {
        match self.reach(name) {
            Reached::Passed => None,
            Reached::Held => Some(Box::pin(hold(name))),
        }
    }
}

/// What becomes of whoever has reached a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Passed,
    Held,
}

/// What the names of steps begin with that can be held.
const HELD: &str = "router.";

/// Waits for ever.
#[expect(clippy::print_stderr, reason = "the crash run reads which step is held")]
async fn hold(name: &str) {
    eprintln!("failpoint held {name}");
    std::future::pending::<()>().await;
}

/// Dies as by `kill -9`: nothing is flushed, nobody is told.
#[expect(clippy::print_stderr, reason = "the crash run reads which step killed the process")]
fn kill_self(name: &str) -> ! {
    eprintln!("failpoint {name}");
    let this = nix::unistd::Pid::this();
    if let Err(error) = nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGKILL) {
        eprintln!("failpoint {name}: cannot kill: {error}");
    }
    loop {
        std::thread::park();
    }
}

impl tidings_sender::Failpoints for Failpoints {
    fn hit(&self, name: &'static str) {
        Self::hit(self, name);
    }
}

/// Opens real connections that reach the steps in the middle of an exchange.
#[derive(Debug)]
pub(crate) struct BreakingConnector {
    net: Arc<NetConnector>,
    points: Arc<Failpoints>,
}

impl BreakingConnector {
    pub(crate) fn new(net: Arc<NetConnector>, points: Arc<Failpoints>) -> Self {
        Self { net, points }
    }
}

impl Connector for BreakingConnector {
    fn connect<'a>(
        &'a self,
        target: &'a Target,
        identity: Option<&'a Identity>,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async move {
            let inner = self.net.connect(target, identity).await?;
            let io: Box<dyn Io> = Box::new(BreakingIo { inner, points: Arc::clone(&self.points) });
            Ok(io)
        })
    }
}

struct BreakingIo {
    inner: Box<dyn Io>,
    points: Arc<Failpoints>,
}

impl Io for BreakingIo {
    fn is_quiet(&self) -> bool {
        self.inner.is_quiet()
    }
}

impl AsyncRead for BreakingIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_ready() && buffer.filled().len() > before {
            // The endpoint has answered, and nobody has seen it yet.
            self.points.hit("sender.before_response");
        }
        read
    }
}

impl AsyncWrite for BreakingIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if written.is_ready() {
            self.points.hit("sender.sending");
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_held_when_its_count_is_reached_and_ever_after() {
        let points = Failpoints::parse("router.after_poll=2:hold").unwrap();
        assert!(points.hit_router("router.after_poll").is_none());
        assert!(points.hit_router("router.before_routed").is_none(), "another step");
        assert!(points.hit_router("router.after_poll").is_some());
        assert!(points.hit_router("router.after_poll").is_some());
    }

    #[test]
    fn what_cannot_be_armed_is_refused() {
        assert!(Failpoints::parse("").unwrap().is_empty());
        assert!(Failpoints::parse("router.after_poll=x").is_err());
        assert!(Failpoints::parse("sender.sending=1:hold").is_err(), "it would block a thread");
    }
}
