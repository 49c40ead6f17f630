//! The crash run: the real binary under load, killed at random moments and at
//! every named step, restarted, and compared with what the outside saw.
//!
//! `kill -9` keeps the page cache, so this run says nothing about fsync; the
//! power-cut run does.

pub mod kafka;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use rand::Rng as _;
use tidings_checker::Verdict;

use crate::{
    http::Client,
    load::Load,
    process::{Server, Spec, free_port},
    receiver::Receiver,
    world::World,
};

/// The named steps (`reliability-security.md` §7.1-7.3) at which the process is killed.
pub const STEPS: &[&str] = &[
    "router.after_poll",
    "router.after_routed_before_deliveries",
    "router.after_some_deliveries",
    "router.after_deliveries_before_commit",
    "router.after_commit",
    "sender.before_connect",
    "sender.sending",
    "sender.before_response",
    "sender.after_response_before_outcome",
    "sender.after_outcome_before_checkpoint",
    "sender.after_failure_before_outcome",
    "sender.after_took",
    "sender.after_checkpoints_before_mark",
    "recorder.after_poll",
    "recorder.after_write_before_flush",
];
/// A kill at a moment that nobody chose.
const RANDOM: &str = "random moment";
/// The subscription round: held between `routed` and the deliveries.
const RESUBSCRIBED: &str = "router.after_routed_before_deliveries, resubscribed";
const HELD_STEP: &str = "router.after_routed_before_deliveries";

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    pub rounds: u32,
    pub seed: u64,
    /// A rule to break on purpose, by name.
    pub sabotage: Option<String>,
    /// Only these steps or faults, in this order; none: all.
    pub only: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    pub verdict: Verdict,
    /// How often each step or fault was hit.
    pub hits: BTreeMap<String, u32>,
    pub accepted: usize,
    pub requests: usize,
}

impl Report {
    pub fn summary(&self) -> String {
        let mut lines: Vec<String> =
            self.hits.iter().map(|(step, hits)| format!("{hits:>4} x {step}")).collect();
        lines.push(format!(
            "{} events accepted, {} notifications, {} requests, {} repeats explained by a kill",
            self.accepted,
            self.verdict.notifications,
            self.requests,
            self.verdict.explained_repeats
        ));
        lines.push(self.verdict.summary());
        lines.join("\n")
    }

    /// The steps that were never hit.
    pub fn missed(&self) -> Vec<&str> {
        self.hits.iter().filter(|(_, hits)| **hits == 0).map(|(step, _)| step.as_str()).collect()
    }
}

/// How long one life of the process is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a life goes on if its step is not reached.
const LIFE_MS: u64 = 8000;

/// Runs `plan`.
///
/// # Errors
/// When the run itself could not be made; wrongs are in the report.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let directory = tempfile::Builder::new().prefix("tidings-crash-").tempdir()?;
    let mut environment = vec![("TIDINGS_SLOTS__SESSION".to_owned(), "2s".to_owned())];
    if let Some(name) = &plan.sabotage {
        environment.push(("TIDINGS_SABOTAGE".to_owned(), name.clone()));
    }
    let spec = Spec {
        binary: plan.binary.clone(),
        data: directory.path().join("data"),
        port: free_port()?,
        dev: true,
        environment,
    };
    let report = rounds(plan, spec).await;
    if report.as_ref().is_ok_and(|report| report.verdict.is_clean()) || plan.sabotage.is_some() {
        return report;
    }
    let kept = directory.keep();
    report.with_context(|| format!("the data is kept in {}", kept.display()))
}

async fn rounds(plan: &Plan, spec: Spec) -> anyhow::Result<Report> {
    let receiver = Receiver::start()?;
    let mut server = Server::spawn(&spec, &[])?;
    server.ready(PATIENCE).await?;
    let world = World::create(&plan.binary, &spec.data, &server.base(), &receiver).await?;
    server.kill()?;
    let mut run = Run { spec, load: Load::new(world, receiver, plan.seed) };
    let steps = steps(plan);
    let mut hits: BTreeMap<String, u32> = steps.iter().map(|step| (step.clone(), 0)).collect();
    for (round, step) in (0..plan.rounds).zip(steps.iter().cycle()) {
        if run.round(step).await.with_context(|| format!("round {round}, {step}"))? {
            *hits.entry(step.clone()).or_insert(0) += 1;
        }
    }
    let verdict = run.finish().await?;
    Ok(Report {
        verdict,
        hits,
        accepted: run.load.accepted(),
        requests: run.load.observed.seen.len(),
    })
}

fn steps(plan: &Plan) -> Vec<String> {
    if !plan.only.is_empty() {
        return plan.only.clone();
    }
    let mut steps = vec![RANDOM.to_owned(), RESUBSCRIBED.to_owned()];
    steps.extend(STEPS.iter().map(|step| (*step).to_owned()));
    steps
}

struct Run {
    spec: Spec,
    load: Load,
}

impl Run {
    /// One life of the process. True if it died at the step that was meant.
    async fn round(&mut self, step: &str) -> anyhow::Result<bool> {
        match step {
            RANDOM => self.random().await,
            RESUBSCRIBED => self.resubscribed().await,
            step => self.named(step).await,
        }
    }

    fn kill(&mut self, server: Server) -> anyhow::Result<()> {
        self.load.disturbed();
        server.kill()
    }

    async fn random(&mut self) -> anyhow::Result<bool> {
        let mut server = Server::spawn(&self.spec, &[])?;
        server.ready(PATIENCE).await?;
        let life = Duration::from_millis(self.load.rng.random_range(100..2000));
        let client = Client::new(&server.base(), &self.load.world.admin)?;
        // Also in the middle of a request, whose answer then stays unknown.
        let publishing = async {
            loop {
                self.load.step(&client).await?;
            }
        };
        match tokio::time::timeout(life, publishing).await {
            Ok(ended) => ended,
            Err(_time_is_up) => {
                self.kill(server)?;
                Ok(true)
            }
        }
    }

    async fn named(&mut self, step: &str) -> anyhow::Result<bool> {
        let count = self.load.rng.random_range(1..=most_counts(step));
        let armed = ("TIDINGS_FAILPOINTS", format!("{step}={count}"));
        let mut server = Server::spawn(&self.spec, &[armed])?;
        // It may die before it is ready: some steps are reached at start.
        let ready = server.ready(PATIENCE).await;
        if ready.is_ok() {
            let client = Client::new(&server.base(), &self.load.world.admin)?;
            let until = self.load.receiver.now_ms() + LIFE_MS;
            while !server.has_ended()? && self.load.receiver.now_ms() < until {
                self.load.step(&client).await?;
            }
        }
        let died = server.has_ended()?;
        if !died {
            ready?;
        }
        self.kill(server)?;
        Ok(died)
    }

    /// Holds the router between the acknowledgement of `routed` and the deliveries,
    /// removes a subscription and adds another, kills, restarts.
    async fn resubscribed(&mut self) -> anyhow::Result<bool> {
        // What is decided already must not change with the subscriptions.
        let mut server = Server::spawn(&self.spec, &[])?;
        server.ready(PATIENCE).await?;
        self.load.routed(&server.base()).await?;
        self.kill(server)?;
        let armed = ("TIDINGS_FAILPOINTS", format!("{HELD_STEP}=2:hold"));
        let mut server = Server::spawn(&self.spec, &[armed])?;
        server.ready(PATIENCE).await?;
        let base = server.base();
        let log = server.log().to_owned();
        let held_before = count_held(&log)?;
        let client = Client::new(&base, &self.load.world.admin)?;
        let until = self.load.receiver.now_ms() + LIFE_MS;
        let first = self.load.first_open();
        while count_held(&log)? == held_before && self.load.receiver.now_ms() < until {
            self.load.step(&client).await?;
        }
        let held = count_held(&log)? > held_before;
        self.swap_subscription(&base).await?;
        // What was published around the change may go to the old set or to the new one.
        self.load.may_also_go_by_the_world_of_now(first);
        self.kill(server)?;
        Ok(held)
    }

    /// Moves the subscription to 104 of manager 20 from `b` to `a` or back.
    async fn swap_subscription(&mut self, base: &str) -> anyhow::Result<()> {
        let world = &mut self.load.world;
        let client = Client::new(base, world.token(20)?)?;
        let a_has = world.hooks.iter().any(|hook| hook.name == "a" && hook.events.contains(&104));
        let (from, to) = if a_has { ("a", "b") } else { ("b", "a") };
        for hook in &mut world.hooks {
            let path = format!("/api/v1/Webhooks/{}/subscriptions", hook.id);
            if hook.name == from && hook.events.remove(&104) {
                client
                    .send("DELETE", &format!("{path}/104"), &[], Bytes::new())
                    .await?
                    .response(200)?;
            }
            if hook.name == to && hook.events.insert(104) {
                let body = serde_json::json!({"events": [104]});
                client.json("PUT", &path, &body).await?.response(200)?;
            }
        }
        Ok(())
    }

    /// A last life without faults; waits until all has ended, then compares.
    async fn finish(&mut self) -> anyhow::Result<Verdict> {
        let mut server = Server::spawn(&self.spec, &[])?;
        server.ready(PATIENCE).await?;
        let verdict = self.load.compare(&server.base()).await?;
        let code = server.terminate(Duration::from_secs(15)).await?;
        anyhow::ensure!(code == Some(0), "SIGTERM ended with {code:?} instead of 0");
        Ok(verdict)
    }
}

/// How often a step may be passed before the process dies at it.
fn most_counts(step: &str) -> u32 {
    match step {
        // Once in a life, when the slots are taken over.
        "sender.after_took" => 1,
        // About once a second by each owner with work.
        "router.after_deliveries_before_commit"
        | "router.after_commit"
        | "sender.after_checkpoints_before_mark" => 3,
        _ => 40,
    }
}

fn count_held(log: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(log).with_context(|| format!("no {}", log.display()))?;
    Ok(text.matches("failpoint held").count())
}
