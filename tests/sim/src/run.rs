//! One run: the schedule of a seed, then quiet, then the comparison.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_broker::{AppendBatch, NewRecord};
use tidings_catalogue::Catalogue;
use tidings_checker::{Published, Verdict, check};
use tidings_registry::{Registry, State};
use tidings_types::{Clock as _, Sabotage, TopicPartition, names};
use tokio::task::JoinSet;

use crate::{
    faults::Rates,
    node::{Node, Roles},
    observe,
    plan::{MANAGERS, STANDARD, URGENT, Weights, pick},
    resend::{Resend, resend},
    world::{Folded, Recorder, World, propose},
};

/// How long everything may take to settle when nothing disturbs it any more: dead
/// endpoints recover after 20 s, and the ladder's window is 7 s.
const SETTLE: Duration = Duration::from_secs(90);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub verdict: Verdict,
    /// The same for the same seed, whatever the machine.
    pub trace: u64,
    pub events: usize,
    pub requests: usize,
    /// What happened, if it was asked for.
    pub lines: Vec<String>,
}

/// Runs one seed. Blocks, and needs no runtime around it.
///
/// # Errors
/// When the run itself could not be made; wrongs are in the verdict.
pub fn run_seed(
    seed: u64,
    sabotage: Sabotage,
    catalogue: &Catalogue,
    keeps_lines: bool,
) -> anyhow::Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let world = World::new(seed, sabotage, catalogue, keeps_lines)?;
        world.found().await?;
        let mut run = Run::begin(world).await?;
        run.schedule().await?;
        run.settle().await?;
        run.finish().await
    })
}

/// An event as its producer has it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) published: Published,
    pm: i64,
    kind: &'static str,
    line: Bytes,
    /// How often it was handed to the log.
    times: u32,
}

/// An event that was published more than once has a decision for each record, and
/// goes to the webhooks of all of them (design §3, I11).
fn allow_unions(wanted: &mut Vec<BTreeSet<String>>) {
    let mut index = 0;
    while index < wanted.len() {
        for other in 0..index {
            let union = wanted[index].union(&wanted[other]).cloned().collect();
            if !wanted.contains(&union) {
                wanted.push(union);
            }
        }
        index += 1;
    }
}

/// A run under way.
pub(crate) struct Run {
    pub(crate) world: World,
    rng: StdRng,
    nodes: Vec<Node>,
    next_node: u64,
    admin: Folded,
    pub(crate) recorder: Recorder,
    pub(crate) events: Vec<Event>,
    /// Events whose append failed or is unknown: published again later.
    uncertain: Vec<usize>,
    pub(crate) resends: Vec<Resend>,
    /// What each webhook wants now.
    wants: BTreeMap<&'static str, BTreeSet<&'static str>>,
    wakes: JoinSet<()>,
    pub(crate) broken: Vec<String>,
    /// When senders hung.
    pub(crate) hung: Vec<(u64, u64)>,
}

/// One step of the schedule.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Again,
    Crash,
    Start,
    Stop,
    Kill,
    HangSender,
    HangRouter,
    HangAll,
    Resend,
    Subscribe,
    Recorder,
    CutOff,
}

fn draw(rng: &mut StdRng, weights: &Weights) -> Step {
    let steps = [
        (weights.publish, Step::Publish),
        (weights.again, Step::Again),
        (weights.crash, Step::Crash),
        (weights.start, Step::Start),
        (weights.stop, Step::Stop),
        (weights.kill, Step::Kill),
        (weights.hang_sender, Step::HangSender),
        (weights.hang_router, Step::HangRouter),
        (weights.hang_all, Step::HangAll),
        (weights.resend, Step::Resend),
        (weights.subscribe, Step::Subscribe),
        (weights.recorder, Step::Recorder),
        (weights.cut_off, Step::CutOff),
    ];
    let mut drawn = rng.random_range(0..steps.iter().map(|(weight, _)| weight).sum::<u32>());
    for (weight, step) in steps {
        if drawn < weight {
            return step;
        }
        drawn -= weight;
    }
    Step::Publish
}

impl Run {
    async fn begin(world: World) -> anyhow::Result<Self> {
        let admin = world.fold().await?;
        let recorder = world.recorder_on(world.disk.clone());
        let wants = world.plan.hooks.iter().map(|hook| (hook.name, hook.events.clone())).collect();
        let rng = StdRng::seed_from_u64(world.seed ^ 0x5c4e);
        let mut run = Self {
            world,
            rng,
            nodes: Vec::new(),
            next_node: 0,
            admin,
            recorder,
            events: Vec::new(),
            uncertain: Vec::new(),
            resends: Vec::new(),
            wants,
            wakes: JoinSet::new(),
            broken: Vec::new(),
            hung: Vec::new(),
        };
        run.start(Roles::BOTH).await?;
        if run.rng.random_bool(0.5) {
            run.start(Roles::BOTH).await?;
        }
        Ok(run)
    }

    async fn schedule(&mut self) -> anyhow::Result<()> {
        self.world.faults.set(self.world.plan.rates);
        for _ in 0..self.world.plan.steps {
            let wait = Duration::from_millis(self.rng.random_range(1..=self.world.plan.pause));
            self.world.pause(wait).await;
            let step = draw(&mut self.rng, &self.world.plan.weights);
            self.world.trace.note(format_args!("step {step:?}"));
            self.step(step).await?;
            self.bury().await;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Publish => {
                for _ in 0..self.rng.random_range(1..=self.world.plan.burst) {
                    self.make_event();
                }
                self.publish().await;
            }
            Step::Again => {
                for _ in 0..self.rng.random_range(1..4) {
                    if !self.events.is_empty() {
                        self.uncertain.push(self.rng.random_range(0..self.events.len()));
                    }
                }
                self.publish().await;
            }
            Step::Crash => self.crash().await?,
            Step::Start => {
                if self.nodes.len() < 3 {
                    let roles = match self.rng.random_range(0..4) {
                        0 => Roles { routes: true, sends: false },
                        1 => Roles { routes: false, sends: true },
                        _ => Roles::BOTH,
                    };
                    self.start(roles).await?;
                }
            }
            Step::Stop => {
                if let Some(node) = self.any_node() {
                    self.nodes[node].stop();
                }
            }
            Step::Kill => {
                if let Some(node) = self.any_node() {
                    let node = self.nodes.swap_remove(node);
                    self.broken.extend(node.kill().await);
                }
                if self.rng.random_bool(0.7) {
                    self.start(Roles::BOTH).await?;
                }
            }
            Step::HangSender => {
                if let Some(node) = self.any_node() {
                    self.hang(node, true);
                }
            }
            Step::HangRouter => self.hang_router().await?,
            Step::CutOff => self.cut_off(),
            Step::HangAll => {
                for node in 0..self.nodes.len() {
                    self.hang(node, true);
                    self.hang(node, false);
                }
            }
            Step::Resend => self.resend().await,
            Step::Subscribe => self.subscribe().await?,
            Step::Recorder => {
                self.recorder.tasks.shutdown().await;
                self.world.disk.crash();
                self.recorder = self.world.recorder_on(self.world.disk.clone());
            }
        }
        Ok(())
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.admin.registry
    }

    fn any_node(&mut self) -> Option<usize> {
        (!self.nodes.is_empty()).then(|| self.rng.random_range(0..self.nodes.len()))
    }

    async fn start(&mut self, roles: Roles) -> anyhow::Result<()> {
        let node = Node::start(&self.world, self.next_node, roles).await?;
        self.world.trace.note(format_args!("process {} starts: {roles:?}", self.next_node));
        self.next_node += 1;
        self.nodes.push(node);
        Ok(())
    }

    /// Forgets processes that have ended.
    async fn bury(&mut self) {
        let mut left = Vec::new();
        for mut node in std::mem::take(&mut self.nodes) {
            let (has_ended, broken) = node.has_ended();
            self.broken.extend(broken);
            if has_ended {
                self.broken.extend(node.kill().await);
            } else {
                left.push(node);
            }
        }
        self.nodes = left;
    }

    /// Puts a service to sleep, for a part of its session or for several.
    fn hang(&mut self, node: usize, sender: bool) {
        let node = &self.nodes[node];
        let hang = if sender { node.sender_hang.clone() } else { node.router_hang.clone() };
        let session = self.world.plan.session;
        let for_ever = self.rng.random_bool(0.1);
        let length = session.mul_f64(self.rng.random_range(0.2..3.0));
        self.world.trace.note(format_args!(
            "process {} hangs (sender {sender}) for {length:?}, for ever {for_ever}",
            node.number
        ));
        hang.hang();
        if sender {
            let now = self.world.trace.now();
            let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
            let end = if for_ever { u64::MAX } else { now.saturating_add(millis + 1) };
            self.hung.push((now, end));
        }
        if !for_ever {
            let end = tokio::time::Instant::now() + length;
            self.wakes.spawn(async move {
                tokio::time::sleep_until(end).await;
                hang.resume();
            });
        }
    }

    /// Puts a router to sleep with something in hand, and changes what is wanted
    /// meanwhile.
    async fn hang_router(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.rng.random_range(0..4) {
            self.make_event();
        }
        self.publish().await;
        self.world.pause(Duration::from_millis(self.rng.random_range(0..8))).await;
        if let Some(node) = self.any_node() {
            self.hang(node, false);
        }
        if self.rng.random_bool(0.3) {
            self.subscribe().await?;
        }
        Ok(())
    }

    /// Keeps half of the senders or routers from their group for some sessions,
    /// while everything else goes on.
    fn cut_off(&mut self) {
        let group = *pick(&mut self.rng, &["tidings-sender", "tidings-sender", "tidings-router"]);
        let half = self.rng.random_range(0..2);
        let length = self.world.plan.session.mul_f64(self.rng.random_range(0.2..3.0));
        self.world.trace.note(format_args!("half {half} of {group} is cut off for {length:?}"));
        self.world.faults.cut_off(group, half);
        let (faults, end) =
            (std::sync::Arc::clone(&self.world.faults), tokio::time::Instant::now() + length);
        self.wakes.spawn(async move {
            tokio::time::sleep_until(end).await;
            faults.heal();
        });
    }

    /// Everything ends at once, and comes up again with what was durable.
    async fn crash(&mut self) -> anyhow::Result<()> {
        self.recorder.tasks.shutdown().await;
        let reopened = self.world.local.crash_and_reopen()?;
        for node in std::mem::take(&mut self.nodes) {
            self.broken.extend(node.kill().await);
        }
        self.admin.tasks.shutdown().await;
        self.world.local = reopened;
        self.world.disk.crash();
        self.admin = self.world.fold().await?;
        self.recorder = self.world.recorder_on(self.world.disk.clone());
        self.start(Roles::BOTH).await?;
        if self.rng.random_bool(0.3) {
            self.start(Roles::BOTH).await?;
        }
        Ok(())
    }

    fn make_event(&mut self) {
        let marker = format!("e{}", self.events.len());
        let pm = *pick(&mut self.rng, &MANAGERS);
        let kind = if self.rng.random_bool(0.2) { URGENT } else { STANDARD };
        let card = self.rng.random_range(0..4);
        let payload = if kind == URGENT {
            format!("{{\"AlertId\":\"{marker}\", \"CardId\":\"k{card}\"}}")
        } else {
            format!("{{\"messageId\":\"{marker}\", \"publicToken\":\"k{card}\"}}")
        };
        let line = format!(
            "{{\"context\":{{\"programManagerId\":{pm},\"eventCode\":{kind},\
             \"correlationId\":\"{marker}\"}},\"payload\":{payload}}}"
        );
        self.uncertain.push(self.events.len());
        let wanted = vec![self.wanted(pm, kind)];
        self.events.push(Event {
            published: Published { marker, payload: payload.into(), accepted: false, wanted },
            pm,
            kind,
            line: line.into(),
            times: 0,
        });
    }

    fn wanted(&self, pm: i64, kind: &str) -> BTreeSet<String> {
        let hooks = self.world.plan.hooks.iter().filter(|hook| hook.pm == pm);
        let wants = |name| self.wants.get(name).is_some_and(|events| events.contains(kind));
        hooks.filter(|hook| wants(hook.name)).map(|hook| hook.name.to_owned()).collect()
    }

    /// Publishes what is uncertain. What fails or is unknown stays so.
    async fn publish(&mut self) {
        let mut batches: BTreeMap<TopicPartition, (Vec<usize>, Vec<NewRecord>)> = BTreeMap::new();
        for index in std::mem::take(&mut self.uncertain) {
            let event = &mut self.events[index];
            event.times += 1;
            let partition = self.rng.random_range(0..2);
            let to = TopicPartition::new(names::events(event.kind), partition);
            let (indexes, records) = batches.entry(to).or_default();
            indexes.push(index);
            records.push(NewRecord { value: Some(event.line.clone()), ..NewRecord::default() });
        }
        let (indexes, batches): (Vec<_>, Vec<_>) = batches
            .into_iter()
            .map(|(to, (indexes, records))| (indexes, AppendBatch { to, records }))
            .unzip();
        let results = self.world.broker().append(batches).await;
        for (indexes, result) in indexes.into_iter().zip(results) {
            self.world.trace.note(format_args!("published {indexes:?}: {}", result.is_ok()));
            match result {
                Ok(_) => {
                    for index in indexes {
                        self.events[index].published.accepted = true;
                    }
                }
                Err(_again) => self.uncertain.extend(indexes),
            }
        }
    }

    /// Moves the subscription to the ordinary type from `a` to `b` or back.
    async fn subscribe(&mut self) -> anyhow::Result<()> {
        let a_has = self.wants.get("a").is_some_and(|events| events.contains(STANDARD));
        let (from, to) = if a_has { ("a", "b") } else { ("b", "a") };
        self.set_events(from, BTreeSet::new()).await?;
        self.set_events(to, BTreeSet::from([STANDARD])).await
    }

    async fn set_events(
        &mut self,
        name: &'static str,
        events: BTreeSet<&'static str>,
    ) -> anyhow::Result<()> {
        let hook = self.world.plan.hooks.iter().find(|hook| hook.name == name);
        let id = hook.context("no such webhook")?.id;
        loop {
            // The platform may suspend it at the same moment.
            let Ok(snapshot) = self.admin.registry.fold_to_end().await else { continue };
            let mut state = snapshot.webhooks.get(&id).context("it is gone")?.as_ref().clone();
            state.events = events.iter().map(|name| (*name).into()).collect();
            let state = State::Webhook(Box::new(state));
            if propose(&self.admin.registry, &format!("webhook/{id}"), state).await.is_ok() {
                break;
            }
            self.world.pause(Duration::from_millis(20)).await;
        }
        self.wants.insert(name, events);
        for index in 0..self.events.len() {
            // What was published before may be routed before or after.
            let wanted = self.wanted(self.events[index].pm, self.events[index].kind);
            let known = &mut self.events[index].published.wanted;
            if !known.contains(&wanted) {
                known.push(wanted);
            }
        }
        Ok(())
    }

    async fn resend(&mut self) {
        let hook = pick(&mut self.rng, &self.world.plan.hooks).clone();
        let log = self.recorder.handle.event_log().clone();
        if !self.recorder.handle.is_ready() {
            return;
        }
        let kind = if self.rng.random_bool(0.2) { URGENT } else { STANDARD };
        let from = tidings_types::Timestamp::ZERO;
        let Ok(page) = log.list(hook.id, kind, from, 1000, None).await else { return };
        if page.items.is_empty() {
            return;
        }
        // The newest are more often open, or just ending.
        let back = self.rng.random_range(0..page.items.len().min(8));
        let item = &page.items[page.items.len() - 1 - back];
        let sent = resend(&self.world, &hook, item, self.rng.random()).await;
        self.resends.push(sent);
    }

    /// Nothing disturbs any more; waits until all has ended.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.world.trace.note(format_args!("calm"));
        self.world.faults.set(Rates::default());
        self.world.faults.heal();
        self.world.endpoints.calm();
        self.wakes.abort_all();
        for node in std::mem::take(&mut self.nodes) {
            let hangs = node.sender_hang.is_hung() || node.router_hang.is_hung();
            if hangs && self.rng.random_bool(0.5) {
                self.broken.extend(node.kill().await);
            } else {
                node.resume();
                self.nodes.push(node);
            }
        }
        let serves = |node: &Node| node.roles == Roles::BOTH && !node.is_stopping();
        if !self.nodes.iter().any(serves) {
            self.start(Roles::BOTH).await?;
        }
        while !self.uncertain.is_empty() {
            self.publish().await;
        }
        let end = tokio::time::Instant::now() + SETTLE;
        // When all had ended. History is compared once it says that it shows that
        // time: its lists end at their as-of, which follows the fold by a moment.
        let mut ended = None;
        while tokio::time::Instant::now() < end {
            self.world.pause(Duration::from_secs(1)).await;
            self.bury().await;
            if ended.is_none() && self.is_settled().await {
                ended = Some(self.world.clock.now());
            }
            if ended.is_some_and(|ended| self.recorder.handle.status().as_of >= ended) {
                self.world.trace.note(format_args!("settled"));
                return Ok(());
            }
        }
        self.world.trace.note(format_args!("never settled"));
        Ok(())
    }

    async fn is_settled(&self) -> bool {
        let broker = self.world.broker();
        for kind in [STANDARD, URGENT] {
            for partition in 0..2 {
                let of = TopicPartition::new(names::events(kind), partition);
                let Ok(ends) = broker.ends(&of).await else { return false };
                let committed = broker.committed("tidings-router", &[of]).await;
                let committed = committed.ok().and_then(|mut all| all.pop().flatten());
                if committed.is_none_or(|committed| committed.next < ends.end) {
                    return false;
                }
            }
        }
        if !self.recorder.handle.is_ready() {
            return false;
        }
        let account = self.recorder.handle.account(None).await;
        account.is_ok_and(|account| account.partitions.iter().all(|row| row.pending == 0))
    }

    async fn finish(mut self) -> anyhow::Result<Outcome> {
        self.bury().await;
        self.broken.append(&mut self.world.ended.lock());
        for event in self.events.iter_mut().filter(|event| event.times > 1) {
            allow_unions(&mut event.published.wanted);
        }
        let observed = observe::observe(&mut self).await?;
        let verdict = check(&observed);
        Ok(Outcome {
            seed: self.world.seed,
            verdict,
            trace: self.world.trace.hash(),
            events: self.events.len(),
            requests: observed.seen.len(),
            lines: self.world.trace.lines(),
        })
    }
}
