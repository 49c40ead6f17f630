//! Named steps at which a crash test kills the process.
//!
//! Armed by the environment under `--dev` only:
//! `TIDINGS_FAILPOINTS="sender.before_connect=3,router.after_poll=1"` kills the
//! process (as `kill -9` would) the third time that the first step is reached, or
//! the first time for the second. `NAME=COUNT:hold` does not kill but keeps the
//! thread that reached the step for ever, so that a test can change something
//! before it kills.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tidings_egress::{
    AttemptReport, ConnectError, Connector, Egress, Io, NetConnector, Request, Target,
};
use tidings_types::{AttemptCode, BoxFuture};
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

impl tidings_sender::Failpoints for Failpoints {
    fn hit(&self, name: &'static str) {
        Self::hit(self, name);
    }
}

/// Makes attempts, and reaches the steps between an answer and its outcome.
#[derive(Debug)]
pub(crate) struct BreakingAttempts {
    egress: Arc<Egress>,
    points: Arc<Failpoints>,
}

impl BreakingAttempts {
    pub(crate) fn new(egress: Arc<Egress>, points: Arc<Failpoints>) -> Self {
        Self { egress, points }
    }
}

impl tidings_sender::Attempts for BreakingAttempts {
    fn attempt(&self, request: Request) -> BoxFuture<'static, AttemptReport> {
        let (egress, points) = (Arc::clone(&self.egress), Arc::clone(&self.points));
        Box::pin(async move {
            let report = Egress::attempt(&egress, request).await;
            points.hit(if report.code == AttemptCode::Delivered {
                "sender.after_response_before_outcome"
            } else {
                "sender.after_failure_before_outcome"
            });
            report
        })
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
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async move {
            let inner = self.net.connect(target).await?;
            let io: Box<dyn Io> = Box::new(BreakingIo { inner, points: Arc::clone(&self.points) });
            Ok(io)
        })
    }
}

struct BreakingIo {
    inner: Box<dyn Io>,
    points: Arc<Failpoints>,
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
