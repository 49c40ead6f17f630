//! Runs seeds of the simulation: `tidings-sim --seeds 2000`, `--seed 17 [--trace]`,
//! `--sabotage no-refill`. `cargo xtask sim` is the usual way to it.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tidings_catalogue::Catalogue;
use tidings_sim::run_seed;
use tidings_types::Sabotage;

#[derive(Debug)]
struct Plan {
    first: u64,
    seeds: u64,
    sabotage: Sabotage,
    shows_trace: bool,
    log: Option<String>,
}

fn plan() -> anyhow::Result<Plan> {
    let mut plan =
        Plan { first: 0, seeds: 200, sabotage: Sabotage::None, shows_trace: false, log: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seeds" => plan.seeds = value()?.parse().context("--seeds")?,
            "--first" => plan.first = value()?.parse().context("--first")?,
            "--seed" => {
                plan.first = value()?.parse().context("--seed")?;
                plan.seeds = 1;
            }
            "--sabotage" => plan.sabotage = value()?.parse()?,
            "--trace" => plan.shows_trace = true,
            "--log" => plan.log = Some(value()?),
            other => bail!(
                "{other} is unknown; there are --seeds N, --first N, --seed N, --sabotage NAME, --trace, --log FILTER"
            ),
        }
    }
    Ok(plan)
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(text: &str) {
    println!("{text}");
}

fn run() -> anyhow::Result<bool> {
    let plan = plan()?;
    if let Some(filter) = &plan.log {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::try_new(filter)?)
            .without_time()
            .with_ansi(false)
            .init();
    }
    let catalogue = Catalogue::builtin();
    let is_sabotaged = plan.sabotage != Sabotage::None;
    let (mut events, mut requests, mut explained, mut wrong) = (0, 0, 0, 0);
    for seed in plan.first..plan.first + plan.seeds {
        let outcome = run_seed(seed, plan.sabotage, &catalogue, plan.shows_trace)
            .with_context(|| format!("seed {seed} could not be run"))?;
        outcome.lines.iter().for_each(|line| say(line));
        events += outcome.events;
        requests += outcome.requests;
        explained += outcome.verdict.explained_repeats;
        if plan.seeds == 1 {
            say(&format!("seed {seed} has the trace {:016x}", outcome.trace));
        }
        if outcome.verdict.is_clean() {
            continue;
        }
        wrong += 1;
        say(&outcome.verdict.summary());
        if is_sabotaged {
            say(&format!("{} was found by seed {seed}", plan.sabotage.name()));
            return Ok(true);
        }
        say(&format!("repeat with: cargo xtask sim --seed {seed}"));
    }
    say(&format!(
        "{} seeds: {events} events, {requests} requests, {explained} repeats that a takeover explains, {wrong} seeds with wrongs",
        plan.seeds
    ));
    if is_sabotaged {
        say(&format!("{} was not found in {} seeds", plan.sabotage.name(), plan.seeds));
    }
    Ok((wrong > 0) == is_sabotaged)
}

#[expect(clippy::print_stderr, reason = "a command's complaint")]
fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tidings-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
