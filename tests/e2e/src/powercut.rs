//! The power-cut run: the data directory stands on a small file system in an
//! image; under load the process is stopped dead, the image is copied, and the
//! system is started on the copy. What was acknowledged before must be there: the
//! copy holds only what was synced (and what the kernel happened to write back).

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use rand::Rng as _;
use tidings_checker::Verdict;

use crate::{
    http::Client,
    load::Load,
    process::{Server, Spec, free_port},
    receiver::Receiver,
    traced,
    world::World,
};

const IMAGE_MIB: u64 = 512;
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of the rounds.
#[derive(Debug, Default)]
pub struct Report {
    /// "power cuts", or what stood in their place.
    pub what: &'static str,
    pub rounds: u32,
    pub accepted: usize,
    pub notifications: u64,
    /// What the checker found, and lives after a cut that could not be compared.
    pub wrongs: Vec<String>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.wrongs.is_empty()
    }

    pub fn summary(&self) -> String {
        let mut lines = vec![format!(
            "{} {}, {} events accepted, {} notifications, wrongs {}",
            self.rounds,
            self.what,
            self.accepted,
            self.notifications,
            self.wrongs.len()
        )];
        lines.extend(self.wrongs.iter().cloned());
        lines.join("\n")
    }
}

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, at: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        command("mount", &["-o", "loop", text(image)?, text(at)?])?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = self.0.display().to_string();
        if let Err(error) = command("umount", &["-l", &target]) {
            debug_assert!(false, "{error:#}");
        }
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

fn command(name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new(name).args(arguments).output().with_context(|| format!("no {name}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{name} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether this machine lets us mount an image.
fn is_possible() -> bool {
    let Ok(directory) = tempfile::tempdir() else { return false };
    let image = directory.path().join("probe");
    let made = make_image(&image, 16).is_ok();
    made && Mount::new(&image, &directory.path().join("mount")).is_ok()
}

fn make_image(image: &Path, mib: u64) -> anyhow::Result<()> {
    let file = std::fs::File::create(image)?;
    file.set_len(mib * 1024 * 1024)?;
    command("mkfs.ext4", &["-q", "-F", text(image)?])
}

/// Runs `rounds` power cuts; where no image can be mounted, traced runs in their
/// place.
///
/// # Errors
/// When the run itself could not be made; wrongs are in the report.
pub async fn run(
    binary: &Path,
    rounds: u32,
    seed: u64,
    sabotage: Option<&str>,
) -> anyhow::Result<Report> {
    if !is_possible() {
        return traced::run(binary, rounds, sabotage).await;
    }
    let mut report = Report { what: "power cuts", rounds, ..Report::default() };
    for round in 0..rounds {
        let seed = seed.wrapping_mul(1000) + u64::from(round);
        one(binary, seed, sabotage, &mut report)
            .await
            .with_context(|| format!("power cut {round}"))?;
        if sabotage.is_some() && !report.is_clean() {
            report.rounds = round + 1;
            break;
        }
    }
    Ok(report)
}

async fn one(
    binary: &Path,
    seed: u64,
    sabotage: Option<&str>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("tidings-powercut-").tempdir()?;
    let image = directory.path().join("image");
    make_image(&image, IMAGE_MIB)?;
    let mount = Mount::new(&image, &directory.path().join("mount"))?;
    let mut spec = Spec {
        binary: binary.to_owned(),
        data: mount.0.join("data"),
        port: free_port()?,
        dev: true,
        environment: Vec::new(),
    };
    if let Some(name) = sabotage {
        spec.environment.push(("TIDINGS_SABOTAGE".to_owned(), name.to_owned()));
    }
    let mut server = Server::spawn(&spec, &[])?;
    server.ready(PATIENCE).await?;
    let receiver = Receiver::start()?;
    let world = World::create(binary, &spec.data, &server.base(), &receiver).await?;
    let mut load = Load::new(world, receiver, seed);
    let client = Client::new(&server.base(), &load.world.admin)?;
    let life = Duration::from_millis(load.rng.random_range(300..2000));
    let publishing = async {
        loop {
            load.step(&client).await?;
        }
    };
    if let Ok(ended) = tokio::time::timeout(life, publishing).await {
        return ended;
    }
    // Nothing more is synced, and nothing that was not is written back on purpose.
    server.stop_dead()?;
    load.disturbed();
    let cut = directory.path().join("cut");
    command("cp", &["--sparse=always", text(&image)?, text(&cut)?])?;
    server.kill()?;
    drop(mount);

    report.accepted += load.accepted();
    let mount = Mount::new(&cut, &directory.path().join("after"))?;
    spec.data = mount.0.join("data");
    spec.environment.clear();
    match after(&spec, &mut load).await {
        Ok(verdict) => {
            report.notifications += verdict.notifications;
            if !verdict.is_clean() {
                report.wrongs.push(format!("seed {seed}: {}", verdict.summary()));
            }
        }
        Err(error) => report.wrongs.push(format!("seed {seed}: after the cut: {error:#}")),
    }
    Ok(())
}

/// The life after the cut.
async fn after(spec: &Spec, load: &mut Load) -> anyhow::Result<Verdict> {
    let mut server = Server::spawn(spec, &[])?;
    let compared = async {
        server.ready(PATIENCE).await?;
        load.compare(&server.base()).await
    };
    let verdict = compared.await.with_context(|| log_tail(server.log()))?;
    server.kill()?;
    Ok(verdict)
}

/// The last lines of the process's log: its file system goes with the round.
fn log_tail(log: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
