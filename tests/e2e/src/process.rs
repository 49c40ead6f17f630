//! The system under test as a child process that can be killed at any moment.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use crate::{http::Client, wait_for};

/// How to start the system.
#[derive(Clone, Debug)]
pub struct Spec {
    pub binary: PathBuf,
    pub data: PathBuf,
    pub port: u16,
    /// Whether `--dev` is given.
    pub dev: bool,
    pub environment: Vec<(String, String)>,
}

/// A running `tidings serve` or single role. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    spec: Spec,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts the process; does not wait until it is ready.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(spec: &Spec, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        Self::launch(&[], "serve", spec, environment)
    }

    /// The same for one role, such as `router`.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn_role(role: &str, spec: &Spec) -> anyhow::Result<Self> {
        Self::launch(&[], role, spec, &[])
    }

    /// The same with a variable more in its environment.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn_role_with(
        role: &str,
        spec: &Spec,
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        Self::launch(&[], role, spec, environment)
    }

    /// The same under another program, which must become the process itself.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn_under(
        wrapper: &[&str],
        spec: &Spec,
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        Self::launch(wrapper, "serve", spec, environment)
    }

    fn launch(
        wrapper: &[&str],
        role: &str,
        spec: &Spec,
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let log = spec.data.with_extension("log");
        let out = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut command = match wrapper {
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&spec.binary);
                command
            }
            [] => Command::new(&spec.binary),
        };
        command.arg(role).arg("--data").arg(&spec.data);
        command.arg("--listen").arg(format!("127.0.0.1:{}", spec.port));
        if spec.dev {
            command.arg("--dev");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        for (name, value) in &spec.environment {
            command.env(name, value);
        }
        for (name, value) in environment {
            command.env(name, value);
        }
        let child =
            command.spawn().with_context(|| format!("cannot start {}", spec.binary.display()))?;
        Ok(Self { spec: spec.clone(), child, log })
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.spec.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds the process's stderr.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// When it does not within `patience`, or the process ended.
    pub async fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let client = Client::new(&self.base(), "")?;
        let child = &mut self.child;
        let ready = wait_for("/readyz to answer 200", patience, async || {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            Ok(match client.get("/readyz").await {
                Ok(answer) if answer.status == 200 => Some(Ok(())),
                Ok(_) | Err(_) => None,
            })
        })
        .await;
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => anyhow::bail!(
                "the process ended with {status} before it was ready; see {}",
                self.log.display()
            ),
            Err(error) => Err(error.context(format!("see {}", self.log.display()))),
        }
    }

    /// Whether the process has ended by itself.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill the process")?;
        self.child.wait().context("cannot wait for the process")?;
        Ok(())
    }

    /// SIGSTOP: from now on it does nothing, until it is killed or continued.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn stop_dead(&self) -> anyhow::Result<()> {
        signal(self.child.id(), "STOP")
    }

    /// SIGCONT: goes on after [`Server::stop_dead`], as if no time had passed.
    ///
    /// # Errors
    /// When it cannot be continued.
    pub fn go_on(&self) -> anyhow::Result<()> {
        signal(self.child.id(), "CONT")
    }

    /// SIGTERM, and the exit code.
    ///
    /// # Errors
    /// When it does not end within `patience`.
    pub async fn terminate(mut self, patience: Duration) -> anyhow::Result<Option<i32>> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("cannot send SIGTERM")?;
        let child = &mut self.child;
        let status =
            wait_for("the process to end after SIGTERM", patience, async || Ok(child.try_wait()?))
                .await?;
        Ok(status.code())
    }

    /// What it uses.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself; then there is nothing to kill.
        if let Ok(None) = self.child.try_wait() {
            let killed = self.child.kill().and_then(|()| self.child.wait());
            debug_assert!(killed.is_ok(), "a child can be killed");
        }
    }
}

/// Sends a signal, such as `STOP`.
///
/// # Errors
/// When it cannot be sent.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    let status = status.with_context(|| format!("cannot send SIG{name}"))?;
    anyhow::ensure!(status.success(), "kill -{name} {pid} failed");
    Ok(())
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory.
    pub rss_kib: u64,
    /// The most resident memory that it ever had.
    pub peak_kib: u64,
    /// User and system time so far.
    pub cpu_seconds: f64,
}

/// What a process uses.
///
/// # Errors
/// When `/proc` does not say.
pub fn usage_of(pid: u32) -> anyhow::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("no {name} in the status of process {pid}"))
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("no stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: f64 =
        [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum();
    Ok(Usage {
        rss_kib: number("VmRSS:")?,
        peak_kib: number("VmHWM:")?,
        // USER_HZ is 100 on Linux.
        cpu_seconds: ticks / 100.0,
    })
}

/// Runs a command of the binary and gives its stdout.
///
/// # Errors
/// When it does not exit with 0.
pub fn run(binary: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binary)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "tidings {} ended with {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port for a server, for all its lives.
///
/// # Errors
/// When none is free.
pub fn free_port() -> anyhow::Result<u16> {
    tidings_kafka_node::free_port().context("no port is free")
}
