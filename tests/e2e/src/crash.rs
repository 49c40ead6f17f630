//! The crash run: the real binary under load, killed at random moments and at
//! every named step, restarted, and compared with what the outside saw.
//!
//! `kill -9` keeps the page cache, so this run says nothing about fsync; the
//! power-cut run does.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_checker::{Observed, Published, Verdict, check};

use crate::{
    http::Client,
    observe,
    process::{Server, Spec, free_port},
    receiver::{Behaviour, Receiver},
    wait_for,
    world::{MANAGERS, World, event, payload, payload_103},
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
    /// Only this step, if given.
    pub only: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    pub verdict: Verdict,
    /// How often each step was hit.
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

struct Run {
    rng: StdRng,
    receiver: Receiver,
    world: World,
    observed: Observed,
    /// Lines whose answer was lost; published again until they are accepted.
    uncertain: Vec<(usize, String)>,
    next: u64,
}

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
    let report = rounds(plan, &spec).await;
    if report.as_ref().is_ok_and(|report| report.verdict.is_clean()) || plan.sabotage.is_some() {
        return report;
    }
    let kept = directory.keep();
    report.with_context(|| format!("the data is kept in {}", kept.display()))
}

async fn rounds(plan: &Plan, spec: &Spec) -> anyhow::Result<Report> {
    let receiver = Receiver::start().await?;
    receiver.behave("b", Behaviour::FailsFirst(1));
    let mut server = Server::spawn(spec, &[])?;
    server.ready(PATIENCE).await?;
    let base = server.base();
    let world = World::create(&plan.binary, &spec.data, &base, &receiver).await?;
    server.kill()?;
    let mut run = Run {
        rng: StdRng::seed_from_u64(plan.seed),
        receiver,
        world,
        observed: Observed { repeat_window: 1000, ..Observed::default() },
        uncertain: Vec::new(),
        next: 0,
    };
    let mut hits: BTreeMap<String, u32> = BTreeMap::new();
    let steps = steps(plan);
    for step in &steps {
        hits.insert(step.clone(), 0);
    }
    for round in 0..plan.rounds {
        let index = usize::try_from(round)? % steps.len();
        let step = steps[index].clone();
        let hit = run.round(spec, &step).await.with_context(|| format!("round {round}, {step}"))?;
        if hit {
            *hits.entry(step).or_insert(0) += 1;
        }
    }
    let verdict = run.finish(spec).await?;
    Ok(Report {
        verdict,
        hits,
        accepted: run.observed.published.iter().filter(|event| event.accepted).count(),
        requests: run.observed.seen.len(),
    })
}

const PATIENCE: Duration = Duration::from_secs(60);

fn steps(plan: &Plan) -> Vec<String> {
    if let Some(only) = &plan.only {
        return vec![only.clone()];
    }
    let mut steps = vec![RANDOM.to_owned(), RESUBSCRIBED.to_owned()];
    steps.extend(STEPS.iter().map(|step| (*step).to_owned()));
    steps
}

impl Run {
    /// One life of the process. True if it died at the step that was meant.
    async fn round(&mut self, spec: &Spec, step: &str) -> anyhow::Result<bool> {
        match step {
            RANDOM => {
                let mut server = Server::spawn(spec, &[])?;
                server.ready(PATIENCE).await?;
                let until = self.receiver.now_ms() + self.rng.random_range(100..2000);
                self.load(&server.base(), None, until).await?;
                self.kill(server)?;
                Ok(true)
            }
            RESUBSCRIBED => self.resubscribed(spec).await,
            step => {
                let count: u32 = match step {
                    "sender.after_took" | "router.after_commit" => self.rng.random_range(1..4),
                    _ => self.rng.random_range(1..40),
                };
                let armed = ("TIDINGS_FAILPOINTS", format!("{step}={count}"));
                let mut server = Server::spawn(spec, &[armed])?;
                // It may die before it is ready: some steps are reached at start.
                let ready = server.ready(PATIENCE).await;
                let until = self.receiver.now_ms() + 8000;
                if ready.is_ok() {
                    let base = server.base();
                    self.load(&base, Some(&mut server), until).await?;
                }
                let died = server.has_ended()?;
                if !died && ready.is_err() {
                    return ready.map(|()| false);
                }
                self.kill(server)?;
                Ok(died)
            }
        }
    }

    fn kill(&mut self, server: Server) -> anyhow::Result<()> {
        self.observed.disturbed.push(self.receiver.now_ms());
        server.kill()
    }

    /// Publishes until the process has died or the time is over.
    async fn load(
        &mut self,
        base: &str,
        mut server: Option<&mut Server>,
        until_ms: u64,
    ) -> anyhow::Result<()> {
        let client = Client::new(base, &self.world.admin)?;
        while self.receiver.now_ms() < until_ms {
            if let Some(server) = server.as_deref_mut()
                && server.has_ended()?
            {
                self.observed.disturbed.push(self.receiver.now_ms());
                return Ok(());
            }
            if self.uncertain.is_empty() {
                self.make_events();
            }
            self.publish(&client).await?;
        }
        Ok(())
    }

    /// Makes a batch of events; none is published yet.
    fn make_events(&mut self) {
        for _ in 0..self.rng.random_range(1..20) {
            let marker = format!("e{}", self.next);
            self.next += 1;
            let pm = MANAGERS[self.rng.random_range(0..MANAGERS.len())];
            let code = if self.rng.random_bool(0.3) { 103 } else { 104 };
            let payload = if code == 103 {
                payload_103(&marker)
            } else {
                payload(&marker, self.rng.random_range(100..3000))
            };
            let line = event(pm, code, &marker, &payload);
            self.uncertain.push((self.observed.published.len(), line));
            self.observed.published.push(Published {
                marker,
                payload: payload.into_bytes(),
                accepted: false,
                wanted: vec![self.world.wanted(pm, code)],
            });
        }
    }

    /// Publishes what is uncertain; on any other answer than 202 it stays so.
    async fn publish(&mut self, client: &Client) -> anyhow::Result<()> {
        let mut body = String::new();
        for (_, line) in &self.uncertain {
            body.push_str(line);
            body.push('\n');
        }
        let headers = [("content-type", "application/x-ndjson")];
        let answer = client.send("POST", "/ingest/v1/events", &headers, Bytes::from(body)).await;
        match answer {
            Ok(answer) if answer.status == 202 => {
                for (index, _) in self.uncertain.drain(..) {
                    self.observed.published[index].accepted = true;
                }
                Ok(())
            }
            Ok(answer) if answer.status == 503 => Ok(()),
            Ok(answer) => bail!(
                "ingest answered {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ),
            // Killed in mid-answer: unknown, so published again in the next life.
            Err(_) => Ok(()),
        }
    }

    /// Holds the router between the acknowledgement of `routed` and the deliveries,
    /// removes a subscription and adds another, kills, restarts.
    async fn resubscribed(&mut self, spec: &Spec) -> anyhow::Result<bool> {
        let armed = ("TIDINGS_FAILPOINTS", format!("{HELD_STEP}=2:hold"));
        let mut server = Server::spawn(spec, &[armed])?;
        server.ready(PATIENCE).await?;
        let base = server.base();
        let log = server.log().to_owned();
        let held_before = count_held(&log)?;
        let client = Client::new(&base, &self.world.admin)?;
        let deadline = self.receiver.now_ms() + 8000;
        let first = self.observed.published.len();
        while count_held(&log)? == held_before && self.receiver.now_ms() < deadline {
            if self.uncertain.is_empty() {
                self.make_events();
            }
            self.publish(&client).await?;
        }
        let held = count_held(&log)? > held_before;
        let old: Vec<_> = MANAGERS.map(|pm| (pm, self.world.wanted(pm, 104))).into();
        self.swap_subscription(&base).await?;
        // What was published around the change may go to the old set or to the new one.
        for event in self.observed.published.iter_mut().skip(first) {
            if let Some((pm, _)) = old.iter().find(|(_, set)| event.wanted.contains(set)) {
                let new = self.world.wanted(*pm, 104);
                if !event.wanted.contains(&new) {
                    event.wanted.push(new);
                }
            }
        }
        self.kill(server)?;
        Ok(held)
    }

    /// Moves the subscription to 104 of manager 20 from `b` to `a` or back.
    async fn swap_subscription(&mut self, base: &str) -> anyhow::Result<()> {
        let client = Client::new(base, self.world.token(20)?)?;
        let a_has =
            self.world.hooks.iter().any(|hook| hook.name == "a" && hook.events.contains(&104));
        let (from, to) = if a_has { ("a", "b") } else { ("b", "a") };
        for hook in &mut self.world.hooks {
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
    async fn finish(&mut self, spec: &Spec) -> anyhow::Result<Verdict> {
        let mut server = Server::spawn(spec, &[])?;
        server.ready(PATIENCE).await?;
        let base = server.base();
        let client = Client::new(&base, &self.world.admin)?;
        wait_for("the uncertain events to be accepted", PATIENCE, async || {
            self.publish(&client).await?;
            Ok(self.uncertain.is_empty().then_some(()))
        })
        .await?;
        let accepted = u64::try_from(self.observed.published.len())?;
        // A sabotaged run may never settle: then the comparison says what is wrong.
        let settled = observe::settled(&self.world, &base, accepted, Duration::from_secs(45)).await;
        let account = match settled {
            Ok(account) => account,
            Err(_late) => observe::account(&self.world, &base).await?,
        };
        self.observed.account_agrees = account.agree;
        self.observed.account_notifications = account.notifications;
        self.observed.reported = observe::reported(&self.world, &base).await?;
        self.observed.seen = observe::seen(&self.world, &self.receiver.requests());
        let code = server.terminate(Duration::from_secs(15)).await?;
        anyhow::ensure!(code == Some(0), "SIGTERM ended with {code:?} instead of 0");
        Ok(check(&self.observed))
    }
}

fn count_held(log: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(log).with_context(|| format!("no {}", log.display()))?;
    Ok(text.matches("failpoint held").count())
}
