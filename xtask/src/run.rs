//! Runs the commands: each step is said before it starts and stops the rest when
//! it fails.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, bail};
use tidings_e2e::{bench, crash, isolation, memory, powercut};

use crate::{deny, needs, tidy};

/// Prints a line of the answer.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(crate) fn say(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Prints a complaint.
#[expect(clippy::print_stderr, reason = "a command's complaint")]
pub(crate) fn complain(text: &str) {
    eprintln!("xtask: {text}");
}

/// Runs one step in the workspace's folder.
pub(crate) fn step(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<()> {
    say(format!("== {program} {}", arguments.join(" ")));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(tidy::root());
    for (name, value) in environment {
        command.env(name, value);
    }
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if status.success() { Ok(()) } else { bail!("{program} {} failed", arguments.join(" ")) }
}

fn static_checks() -> anyhow::Result<()> {
    step("cargo", &["fmt", "--all", "--check"], &[])?;
    say("== tidy");
    tidy::run()?;
    step(
        "cargo",
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    step(
        "cargo",
        &["doc", "--release", "--workspace", "--no-deps", "--document-private-items", "--locked"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

/// The loop before a commit.
pub(crate) fn check() -> anyhow::Result<()> {
    static_checks()?;
    step("cargo", &["test", "--release", "--workspace", "--locked", "--lib", "--bins"], &[])
}

/// Everything.
pub(crate) fn test() -> anyhow::Result<()> {
    needs::bring()?;
    static_checks()?;
    deny::run()?;
    step("cargo", &["test", "--release", "--workspace", "--locked"], &[])
}

pub(crate) fn proto() -> anyhow::Result<()> {
    step(
        "cargo",
        &["test", "--release", "-p", "tidings-proto", "--test", "generated"],
        &[("TIDINGS_WRITE_GENERATED", "1")],
    )
}

/// Builds the binary in a profile and gives its path.
fn binary(profile: &str) -> anyhow::Result<PathBuf> {
    step("cargo", &["build", "--profile", profile, "--locked", "-p", "tidings"], &[])?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| tidy::root().join("target"), PathBuf::from);
    Ok(target.join(profile).join("tidings"))
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// What the crash run runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Broker {
    #[default]
    Local,
    Kafka,
}

pub(crate) fn crash(
    rounds: u32,
    seed: u64,
    sabotage: Option<String>,
    only: Vec<String>,
    (broker, given): (Broker, Option<PathBuf>),
) -> anyhow::Result<()> {
    let binary = given.map_or_else(|| binary("release"), Ok)?;
    let plan = crash::Plan { binary, rounds, seed, sabotage, only };
    let report = match broker {
        Broker::Local => block_on(crash::run(&plan))?,
        Broker::Kafka => {
            needs::bring()?;
            block_on(crash::kafka::run(&plan))?
        }
    };
    say(report.summary());
    if plan.sabotage.is_some() {
        return if report.verdict.is_clean() {
            bail!("the sabotage was not found")
        } else {
            say("the sabotage was found");
            Ok(())
        };
    }
    if !report.verdict.is_clean() {
        bail!("wrongs were found; repeat with --seed {seed}");
    }
    let steps = u32::try_from(report.hits.len()).unwrap_or(u32::MAX);
    let missed = report.missed();
    if rounds >= steps && !missed.is_empty() {
        bail!("never hit: {}", missed.join(", "));
    }
    Ok(())
}

pub(crate) fn powercut(rounds: u32, seed: u64, sabotage: Option<&str>) -> anyhow::Result<()> {
    let binary = binary("release")?;
    let report = block_on(powercut::run(&binary, rounds, seed, sabotage))?;
    say(report.summary());
    match (sabotage, report.is_clean()) {
        (None, true) => Ok(()),
        (None, false) => bail!("wrongs were found"),
        (Some(_), false) => {
            say("the sabotage was found");
            Ok(())
        }
        (Some(_), true) => bail!("the sabotage was not found"),
    }
}

pub(crate) fn memory(queued: u64, rate: u64, seconds: u64) -> anyhow::Result<()> {
    let time = Duration::from_secs(seconds);
    let plan = memory::Plan { binary: binary("release")?, queued, rate, time };
    let report = block_on(async {
        let mut print = |line: String| say(line);
        memory::run(&plan, &mut print).await
    })?;
    say(report.summary());
    if report.is_good() { Ok(()) } else { bail!("not small, not level, or not everything arrived") }
}

/// What the bench compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Tidings with the bare floor.
    Floor,
    /// A healthy webhook alone with the same beside dead, slow and hanging ones.
    Isolation,
}

pub(crate) fn bench(
    runs: usize,
    deliveries: u64,
    only: Option<String>,
    given: Option<PathBuf>,
) -> anyhow::Result<()> {
    let binary = given.map_or_else(|| binary("dist"), Ok)?;
    let plan = bench::Plan { binary, runs, deliveries, only };
    let table = block_on(async {
        let mut print = |line: String| say(line);
        bench::run(&plan, &mut print).await
    })?;
    say(table);
    Ok(())
}

pub(crate) fn isolation(
    runs: usize,
    time: Duration,
    rate: u32,
    many: usize,
    only: Option<String>,
    given: Option<PathBuf>,
) -> anyhow::Result<()> {
    let binary = given.map_or_else(|| binary("dist"), Ok)?;
    let plan = isolation::Plan { binary, runs, time, rate, many, only };
    let (table, is_good) = block_on(async {
        let mut print = |line: String| say(line);
        isolation::run(&plan, &mut print).await
    })?;
    say(table);
    if is_good { Ok(()) } else { bail!("the healthy webhook is slowed more than allowed") }
}

pub(crate) fn sim(seeds: u64, seed: Option<u64>, sabotage: Option<&str>) -> anyhow::Result<()> {
    let (which, number) = match seed {
        Some(seed) => ("--seed", seed.to_string()),
        None => ("--seeds", seeds.to_string()),
    };
    let mut arguments = vec!["run", "--release", "--locked", "-p", "tidings-sim", "--"];
    arguments.extend([which, number.as_str()]);
    if let Some(name) = sabotage {
        arguments.extend(["--sabotage", name]);
    }
    step("cargo", &arguments, &[])
}
