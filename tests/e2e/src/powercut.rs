//! The power-cut run: the data directory stands on a small file system in an
//! image, the image is copied while the system is under load, and the system is
//! started on the copy. What was acknowledged before the copy must be there: the
//! copy holds only what was synced (and what the kernel happened to write back).

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;

use crate::{
    http::Client,
    observe,
    process::{Server, Spec, free_port},
    receiver::Receiver,
    world::{World, event, payload},
};

const IMAGE_MIB: u64 = 512;
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of the rounds.
#[derive(Debug, Default)]
pub struct Report {
    pub rounds: u32,
    pub acknowledged: u64,
    pub lost: Vec<String>,
    pub disagreeing: u32,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.disagreeing == 0
    }

    pub fn summary(&self) -> String {
        format!(
            "{} power cuts, {} events acknowledged before a cut, lost {}, accounts that disagree {}",
            self.rounds,
            self.acknowledged,
            self.lost.len(),
            self.disagreeing
        )
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
pub fn is_possible() -> bool {
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

/// Runs `rounds` power cuts.
///
/// # Errors
/// When the run itself could not be made.
pub async fn run(
    binary: &Path,
    rounds: u32,
    seed: u64,
    sabotage: Option<&str>,
) -> anyhow::Result<Report> {
    let mut report = Report { rounds, ..Report::default() };
    for round in 0..rounds {
        let marker = format!("p{seed}r{round}");
        one(binary, &marker, sabotage, &mut report)
            .await
            .with_context(|| format!("power cut {round}"))?;
    }
    Ok(report)
}

async fn one(
    binary: &Path,
    prefix: &str,
    sabotage: Option<&str>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("tidings-powercut-").tempdir()?;
    let image = directory.path().join("image");
    make_image(&image, IMAGE_MIB)?;
    let receiver = Receiver::start().await?;
    let mut environment = Vec::new();
    if let Some(name) = sabotage {
        environment.push(("TIDINGS_SABOTAGE".to_owned(), name.to_owned()));
    }
    let mount = Mount::new(&image, &directory.path().join("mount"))?;
    let mut spec = Spec {
        binary: binary.to_owned(),
        data: mount.0.join("data"),
        port: free_port()?,
        dev: true,
        environment,
    };
    let mut server = Server::spawn(&spec, &[])?;
    server.ready(PATIENCE).await?;
    let base = server.base();
    let world = World::create(binary, &spec.data, &base, &receiver).await?;
    // Registered and acknowledged; the directory entries of the first start too.
    let client = Client::new(&base, &world.admin)?;
    let cut = directory.path().join("cut");
    let mut acknowledged = Vec::new();
    let started = receiver.now_ms();
    let mut number = 0_u64;
    while receiver.now_ms() < started + 1500 {
        let mut markers = Vec::new();
        let mut body = String::new();
        for _ in 0..10 {
            let marker = format!("{prefix}-{number}");
            number += 1;
            body.push_str(&event(20, 104, &marker, &payload(&marker, 600)));
            body.push('\n');
            markers.push(marker);
        }
        let headers = [("content-type", "application/x-ndjson")];
        let answer = client.send("POST", "/ingest/v1/events", &headers, Bytes::from(body)).await?;
        answer.response(202)?;
        acknowledged.extend(markers);
    }
    // In mid-run: the process lives, nothing is synced on purpose.
    command("cp", &["--sparse=always", text(&image)?, text(&cut)?])?;
    server.kill()?;
    drop(mount);

    report.acknowledged += u64::try_from(acknowledged.len())?;
    let mount = Mount::new(&cut, &directory.path().join("after"))?;
    spec.data = mount.0.join("data");
    spec.environment.clear();
    let mut server = Server::spawn(&spec, &[])?;
    server.ready(PATIENCE).await?;
    let events = u64::try_from(acknowledged.len())?;
    let base = server.base();
    let account = match observe::settled(&world, &base, events, Duration::from_secs(30)).await {
        Ok(account) => account,
        Err(_late) => observe::account(&world, &base).await?,
    };
    if !account.agree {
        report.disagreeing += 1;
    }
    let reported = observe::reported(&world, &base).await?;
    for marker in acknowledged {
        let rows = reported.iter().filter(|item| item.marker == marker).count();
        // Two webhooks of manager 20 want 104.
        if rows != 2 {
            report.lost.push(format!("{marker}: {rows} rows of 2"));
        }
    }
    let metrics = Client::new(&base, "")?.get("/metrics").await?;
    anyhow::ensure!(
        metrics.status == 200,
        "no metrics after a power cut: {}",
        Value::from(metrics.status)
    );
    server.kill()?;
    Ok(())
}
