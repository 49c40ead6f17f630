//! The crash run on a real Kafka, with the roles as processes of their own: in each
//! round one of them, or the broker, is killed, stands still for longer than the
//! session, or dies at a named step, while events are published; then it comes back.
//!
//! When a notification may come twice: only if its first request reached the
//! endpoint less than a second before a *sender* was killed or stopped, or while
//! the broker had just gone (owners go on for half a session before they notice),
//! or if one of the two requests is what a stopped sender had begun and finishes as
//! it goes on. Nothing that happens to a router, a recorder or an api excuses a
//! repeat.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use rand::{Rng as _, seq::SliceRandom as _};
use tidings_checker::Verdict;
use tidings_kafka_node::KafkaNode;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{LIFE_MS, PATIENCE, Plan, Report, STEPS};
use crate::{
    http::Client,
    load::Load,
    process::{Server, Spec, free_port, signal},
    receiver::Receiver,
    world::World,
};

/// What runs, each as a process of its own.
const MEMBERS: [&str; 6] = ["router", "router", "sender", "sender", "recorder", "api"];
const ROLES: [&str; 4] = ["router", "sender", "recorder", "api"];
const BROKER: &str = "broker";
const SESSION: Duration = Duration::from_secs(3);
/// Owners start nothing more when they have not heard of their group for so long.
const HALF_SESSION: Duration = Duration::from_millis(1500);
/// Batches are published so far apart: the broker, the roles and the receiver share
/// a machine.
const PACE: Duration = Duration::from_millis(40);
/// How long a process may take for its end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(15);

/// What is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// `kill -9`, and a new start.
    Kill(&'static str),
    /// SIGSTOP for longer than the session, then SIGCONT.
    Stop(&'static str),
    /// Started anew, it kills itself at a named step.
    Step(&'static str),
}

impl Fault {
    fn all() -> Vec<Self> {
        let parts = || ROLES.into_iter().chain([BROKER]);
        let faults = parts().map(Self::Kill).chain(parts().map(Self::Stop));
        faults.chain(STEPS.iter().copied().map(Self::Step)).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Kill(part) => format!("{part} killed"),
            Self::Stop(part) => format!("{part} stopped"),
            Self::Step(step) => step.to_owned(),
        }
    }
}

/// The names of all faults, in the order in which a run without a seed would make
/// them.
pub fn fault_names() -> Vec<String> {
    Fault::all().into_iter().map(Fault::name).collect()
}

/// The faults of a run, as the plan wants them: kills and stops come first, each in
/// the order that the seed gives.
fn faults(plan: &Plan, load: &mut Load) -> anyhow::Result<Vec<Fault>> {
    let mut all = Fault::all();
    if plan.only.is_empty() {
        let (steps, parts): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|fault| matches!(fault, Fault::Step(_)));
        let mut faults = parts;
        faults.shuffle(&mut load.rng);
        let mut steps = steps;
        steps.shuffle(&mut load.rng);
        faults.extend(steps);
        return Ok(faults);
    }
    let mut chosen = Vec::new();
    for name in &plan.only {
        let found = all.iter().position(|fault| fault.name() == *name);
        let found = found.with_context(|| {
            format!("there is no fault {name:?}; there are: {}", fault_names().join(", "))
        })?;
        chosen.push(all.remove(found));
    }
    Ok(chosen)
}

/// Runs `plan` on one node.
///
/// # Errors
/// When the run itself could not be made; wrongs are in the report.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let directory = tempfile::Builder::new().prefix("tidings-kafka-").tempdir()?;
    let report = rounds(plan, directory.path()).await;
    if report.as_ref().is_ok_and(|report| report.verdict.is_clean()) || plan.sabotage.is_some() {
        return report;
    }
    let kept = directory.keep();
    report.with_context(|| format!("the data is kept in {}", kept.display()))
}

async fn rounds(plan: &Plan, directory: &Path) -> anyhow::Result<Report> {
    let mut cluster = Cluster::start(plan, directory).await?;
    let faults = faults(plan, &mut cluster.load)?;
    let mut hits: BTreeMap<String, u32> = faults.iter().map(|fault| (fault.name(), 0)).collect();
    for (round, fault) in (0..plan.rounds).zip(faults.iter().cycle()) {
        let name = fault.name();
        if cluster.round(*fault).await.with_context(|| format!("round {round}, {name}"))? {
            *hits.entry(name).or_insert(0) += 1;
        }
    }
    let verdict = cluster.finish().await?;
    let (accepted, requests) = (cluster.load.accepted(), cluster.load.observed.seen.len());
    Ok(Report { verdict, hits, accepted, requests })
}

/// A process of the cluster.
struct Member {
    role: &'static str,
    spec: Spec,
    server: Option<Server>,
}

impl Member {
    fn start(&mut self, environment: &[(&str, String)]) -> anyhow::Result<&mut Server> {
        Ok(self.server.insert(Server::spawn_role_with(self.role, &self.spec, environment)?))
    }

    fn running(&mut self) -> anyhow::Result<&mut Server> {
        self.server.as_mut().context("the member does not run")
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().map_or(Ok(()), Server::kill)
    }
}

/// The broker, the roles, and who publishes.
struct Cluster {
    /// Taken while it is started anew.
    node: Option<KafkaNode>,
    members: Vec<Member>,
    load: Load,
    client: Client,
}

impl Cluster {
    async fn start(plan: &Plan, directory: &Path) -> anyhow::Result<Self> {
        let place = directory.join("kafka");
        let node = tokio::task::spawn_blocking(move || KafkaNode::start(&place, &[])).await??;
        let members = members(plan, directory, &node.bootstrap())?;
        let api = members.last().context("no api")?.spec.clone();
        let receiver = Receiver::start()?;
        // `serve` makes the keys and the topics, and ends.
        let mut serve = Server::spawn(&api, &[])?;
        serve.ready(PATIENCE).await?;
        let world = world(&plan.binary, &api.data, &serve.base(), &receiver).await?;
        let code = serve.terminate(DRAIN).await?;
        anyhow::ensure!(code == Some(0), "SIGTERM ended `serve` with {code:?} instead of 0");
        let client = Client::new(&format!("http://127.0.0.1:{}", api.port), &world.admin)?;
        let load = Load::new(world, receiver, plan.seed);
        let mut cluster = Self { node: Some(node), members, load, client };
        for member in &mut cluster.members {
            share_keys(&api.data, &member.spec.data)?;
            member.start(&[])?;
        }
        for member in &mut cluster.members {
            member.running()?.ready(PATIENCE).await?;
        }
        Ok(cluster)
    }

    /// One fault. True if it was made as it was meant.
    async fn round(&mut self, fault: Fault) -> anyhow::Result<bool> {
        self.load_for(300..1500).await?;
        let is_made = match fault {
            Fault::Kill(BROKER) => self.kill_broker().await.map(|()| true),
            Fault::Stop(BROKER) => self.stop_broker().await.map(|()| true),
            Fault::Kill(role) => self.kill(role).await.map(|()| true),
            Fault::Stop(role) => self.stop(role).await.map(|()| true),
            Fault::Step(step) => self.die_at(step).await,
        }?;
        self.load_for(500..1500).await?;
        self.look_for_ended()?;
        Ok(is_made)
    }

    /// Publishes for as many milliseconds.
    async fn load_for(&mut self, millis: std::ops::Range<u64>) -> anyhow::Result<()> {
        let time = Duration::from_millis(self.load.rng.random_range(millis));
        match timeout(time, publish(&mut self.load, &self.client)).await {
            Ok(ended) => ended.map(|never| match never {}),
            Err(_time_is_up) => Ok(()),
        }
    }

    fn pick(&mut self, role: &str) -> anyhow::Result<usize> {
        let of_role: Vec<usize> = (0..self.members.len())
            .filter(|index| self.members.get(*index).is_some_and(|member| member.role == role))
            .collect();
        anyhow::ensure!(!of_role.is_empty(), "no {role} runs");
        Ok(of_role[self.load.rng.random_range(0..of_role.len())])
    }

    fn kill_member(&mut self, index: usize) -> anyhow::Result<()> {
        if self.members[index].role == "sender" {
            self.load.disturbed();
        }
        self.members[index].kill()
    }

    /// Starts a member and publishes until it is ready.
    async fn start_member(&mut self, index: usize) -> anyhow::Result<()> {
        let server = self.members[index].start(&[])?;
        under_load(&mut self.load, &self.client, server.ready(PATIENCE)).await
    }

    async fn kill(&mut self, role: &str) -> anyhow::Result<()> {
        let index = self.pick(role)?;
        self.kill_member(index)?;
        // Sometimes it is back before the group knows, sometimes long after.
        self.load_for(10..2 * millis(SESSION)).await?;
        self.start_member(index).await
    }

    async fn stop(&mut self, role: &str) -> anyhow::Result<()> {
        let index = self.pick(role)?;
        if role == "sender" {
            self.load.disturbed();
        }
        self.members[index].running()?.stop_dead()?;
        self.load_for(millis(SESSION) + 1000..2 * millis(SESSION)).await?;
        if role == "sender" {
            self.load.resumed();
        }
        self.members[index].running()?.go_on()
    }

    async fn kill_broker(&mut self) -> anyhow::Result<()> {
        self.load.cut_off(HALF_SESSION);
        let mut node = self.node.take().context("no broker runs")?;
        node.kill()?;
        self.load_for(10..2 * millis(SESSION)).await?;
        let restart = async {
            let started = tokio::task::spawn_blocking(move || node.restart().map(|()| node));
            anyhow::Ok(started.await??)
        };
        self.node = Some(under_load(&mut self.load, &self.client, restart).await?);
        Ok(())
    }

    async fn stop_broker(&mut self) -> anyhow::Result<()> {
        self.load.cut_off(HALF_SESSION);
        let pid = self.node.as_ref().and_then(KafkaNode::pid).context("no broker runs")?;
        signal(pid, "STOP")?;
        self.load_for(millis(SESSION) + 1000..2 * millis(SESSION)).await?;
        signal(pid, "CONT")
    }

    /// A member starts anew and dies at `step`, if it reaches it.
    async fn die_at(&mut self, step: &str) -> anyhow::Result<bool> {
        let role = step.split('.').next().context("no role")?;
        let index = self.pick(role)?;
        self.kill_member(index)?;
        let count = self.load.rng.random_range(1..=super::most_counts(step));
        self.members[index].start(&[("TIDINGS_FAILPOINTS", format!("{step}={count}"))])?;
        let until = self.load.receiver.now_ms() + millis(SESSION) + LIFE_MS;
        while !self.members[index].running()?.has_ended()? && self.load.receiver.now_ms() < until {
            self.load_for(20..21).await?;
        }
        let died = self.members[index].running()?.has_ended()?;
        self.kill_member(index)?;
        self.load_for(10..millis(SESSION)).await?;
        self.start_member(index).await?;
        Ok(died)
    }

    /// Nobody ends by itself, whatever happens to the others; whoever did starts anew.
    fn look_for_ended(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if member.running()?.has_ended()? {
                let log = member.running()?.log().display().to_string();
                let text = format!("a {} ended by itself; see {log}", member.role);
                self.load.observed.broken.push(text);
                member.start(&[])?;
            }
        }
        Ok(())
    }

    /// Without faults: waits until all has ended, compares, and ends all.
    async fn finish(&mut self) -> anyhow::Result<Verdict> {
        for member in &mut self.members {
            member.running()?.ready(PATIENCE).await?;
        }
        let base = self.members.last_mut().context("no api")?.running()?.base();
        let verdict = self.load.compare(&base).await?;
        for member in &mut self.members {
            let server = member.server.take().context("the member does not run")?;
            let code = server.terminate(DRAIN).await?;
            let role = member.role;
            anyhow::ensure!(code == Some(0), "SIGTERM ended a {role} with {code:?} instead of 0");
        }
        Ok(verdict)
    }
}

/// Publishes batch after batch.
async fn publish(load: &mut Load, client: &Client) -> anyhow::Result<Infallible> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        load.step(client).await?;
    }
}

/// Publishes until `work` is done; also breaks off in the middle of a request,
/// whose answer then stays unknown.
async fn under_load<T>(
    load: &mut Load,
    client: &Client,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        ended = publish(load, client) => ended.map(|never| match never {}),
    }
}

/// The world of the embedded run, with more webhooks, so that both senders have
/// some.
async fn world(
    binary: &Path,
    data: &Path,
    base: &str,
    receiver: &Receiver,
) -> anyhow::Result<World> {
    let mut world = World::create(binary, data, base, receiver).await?;
    for (name, pm) in [("e", 20), ("f", 21), ("g", 22), ("h", 22)] {
        world.add_hook(base, receiver, pm, name, &[103, 104]).await?;
    }
    Ok(world)
}

fn members(plan: &Plan, directory: &Path, bootstrap: &str) -> anyhow::Result<Vec<Member>> {
    let mut environment = vec![
        ("TIDINGS_BROKER".to_owned(), format!("kafka://{bootstrap}")),
        ("TIDINGS_SLOTS__SESSION".to_owned(), format!("{}s", SESSION.as_secs())),
    ];
    if let Some(name) = &plan.sabotage {
        environment.push(("TIDINGS_SABOTAGE".to_owned(), name.clone()));
    }
    let member = |(number, role): (usize, &'static str)| {
        let spec = Spec {
            binary: plan.binary.clone(),
            data: directory.join(format!("{role}-{number}")),
            port: free_port()?,
            dev: true,
            environment: environment.clone(),
        };
        Ok(Member { role, spec, server: None })
    };
    MEMBERS.into_iter().enumerate().map(member).collect()
}

/// Gives a data directory the keys of another: every process needs the same ones.
fn share_keys(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from == to {
        return Ok(());
    }
    let keys = to.join("keys");
    fs::create_dir_all(&keys).with_context(|| format!("cannot make {}", keys.display()))?;
    for entry in fs::read_dir(from.join("keys"))? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().context("a key file without a name")?;
        fs::copy(&path, keys.join(name))
            .with_context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
