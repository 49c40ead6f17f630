//! The events that a run publishes, and everything that is noted down about them.
//!
//! An event whose answer was lost is published again until it is accepted: its
//! correlation id makes it the same event.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tidings_checker::{Observed, Published, Verdict, check};

use crate::{
    http::Client,
    observe::{self, Ends, PATIENCE},
    receiver::{Behaviour, Receiver},
    wait_for,
    world::{MANAGERS, World, event, payload, payload_103},
};

/// A first request may have reached its endpoint so long before a kill for its
/// repeat to be allowed.
const REPEAT_WINDOW_MS: u64 = 1000;

/// Who publishes, and what is known of it.
#[derive(Debug)]
pub struct Load {
    pub world: World,
    pub receiver: Receiver,
    pub rng: StdRng,
    pub observed: Observed,
    /// One for each of [`Observed::published`].
    made: Vec<Made>,
    /// Events without an answer, by their place among the published.
    uncertain: Vec<(usize, String)>,
    /// Behind the last accepted record of each source partition.
    ends: Ends,
}

/// What an event was made of, and how often it was sent.
#[derive(Clone, Copy, Debug)]
struct Made {
    pm: i64,
    code: u32,
    sent: u32,
}

impl Load {
    /// Of `world`, whose webhook `b` fails each first attempt.
    pub fn new(world: World, receiver: Receiver, seed: u64) -> Self {
        receiver.behave("b", Behaviour::FailsFirst(1));
        Self {
            world,
            receiver,
            rng: StdRng::seed_from_u64(seed),
            observed: Observed { repeat_window: REPEAT_WINDOW_MS, ..Observed::default() },
            made: Vec::new(),
            uncertain: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    /// How many events are accepted.
    pub fn accepted(&self) -> usize {
        self.observed.published.iter().filter(|event| event.accepted).count()
    }

    /// The place among the published of the first event that may not have been
    /// written yet.
    pub fn first_open(&self) -> usize {
        self.uncertain.first().map_or(self.observed.published.len(), |(index, _)| *index)
    }

    /// Notes that the process dies now.
    pub fn disturbed(&mut self) {
        self.observed.disturbed.push(self.receiver.now_ms());
    }

    /// Notes that owners are cut off from the log from now on, and may go on for
    /// `span` before they notice.
    pub fn cut_off(&mut self, span: Duration) {
        let now = self.receiver.now_ms();
        let until = now + u64::try_from(span.as_millis()).unwrap_or(0);
        let windows = usize::try_from(REPEAT_WINDOW_MS).unwrap_or(1);
        self.observed.disturbed.extend((now..until).step_by(windows));
        self.observed.disturbed.push(until);
    }

    /// Notes that a process that stood still goes on now.
    pub fn resumed(&mut self) {
        self.observed.resumed.push(self.receiver.now_ms());
    }

    /// Publishes a batch of new events, or again what is uncertain.
    ///
    /// # Errors
    /// When the answer is one that should not be.
    pub async fn step(&mut self, client: &Client) -> anyhow::Result<()> {
        if self.uncertain.is_empty() {
            self.make_events();
        }
        self.publish(client).await
    }

    fn make_events(&mut self) {
        for _ in 0..self.rng.random_range(1..20) {
            let place = self.observed.published.len();
            let marker = format!("e{place}");
            let pm = MANAGERS[self.rng.random_range(0..MANAGERS.len())];
            let code = if self.rng.random_bool(0.3) { 103 } else { 104 };
            let payload = if code == 103 {
                payload_103(&marker)
            } else {
                payload(&marker, self.rng.random_range(100..3000))
            };
            let line = event(pm, code, &marker, &payload);
            self.uncertain.push((place, line));
            self.made.push(Made { pm, code, sent: 0 });
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
        for (index, line) in &self.uncertain {
            body.push_str(line);
            body.push('\n');
            self.made[*index].sent += 1;
        }
        let headers = [("content-type", "application/x-ndjson")];
        let answer = client.send("POST", "/ingest/v1/events", &headers, Bytes::from(body)).await;
        // Killed in mid-answer: unknown, so published again in the next life.
        let Ok(answer) = answer else { return Ok(()) };
        match answer.status {
            202 => {
                let response = answer.response(202)?;
                let content = response.get("content").and_then(Value::as_array);
                self.note_ends(content.context("a 202 without content")?)?;
                for (index, _) in self.uncertain.drain(..) {
                    self.observed.published[index].accepted = true;
                }
                Ok(())
            }
            503 => Ok(()),
            status => bail!("ingest answered {status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }

    fn note_ends(&mut self, content: &[Value]) -> anyhow::Result<()> {
        for item in content {
            let topic = item.get("topic").and_then(Value::as_str).context("no topic")?;
            let number = |name| item.get(name).and_then(Value::as_u64).context("no number");
            let (partition, next) = (number("partition")?, number("offset")? + 1);
            let end = self.ends.entry((topic.to_owned(), partition)).or_insert(next);
            *end = next.max(*end);
        }
        Ok(())
    }

    /// Notes that events from the place `first` on, whose subscriptions changed
    /// around them, may rightly have gone to the webhooks of now instead.
    pub fn may_also_go_by_the_world_of_now(&mut self, first: usize) {
        let events = self.observed.published.iter_mut().zip(&self.made).skip(first);
        for (event, made) in events {
            let now = self.world.wanted(made.pm, made.code);
            if !event.wanted.contains(&now) {
                event.wanted.push(now);
            }
        }
    }

    /// Waits until everything accepted so far is decided.
    ///
    /// # Errors
    /// When that does not come about.
    pub async fn routed(&self, base: &str) -> anyhow::Result<()> {
        observe::routed_to(&self.world, base, &self.ends, PATIENCE).await
    }

    /// An event that was sent twice may stand in the log twice, with a decision for
    /// each: it goes to the webhooks of both.
    fn allow_unions(&mut self) {
        for (event, made) in self.observed.published.iter_mut().zip(&self.made) {
            if made.sent > 1 && event.wanted.len() > 1 {
                let union = event.wanted.iter().flatten().cloned().collect();
                event.wanted.push(union);
            }
        }
    }

    /// In a life without faults: publishes the rest, waits until all has ended, then
    /// compares.
    ///
    /// # Errors
    /// When the facts cannot be had; wrongs are in the verdict.
    pub async fn compare(&mut self, base: &str) -> anyhow::Result<Verdict> {
        let client = Client::new(base, &self.world.admin)?;
        wait_for("the uncertain events to be accepted", PATIENCE, async || {
            if !self.uncertain.is_empty() {
                self.publish(&client).await?;
            }
            Ok(self.uncertain.is_empty().then_some(()))
        })
        .await?;
        // What never settles is wrong; the comparison says how.
        let account = match observe::settled_to(&self.world, base, &self.ends, PATIENCE).await {
            Ok(account) => account,
            Err(_late) => observe::account(&self.world, base).await?,
        };
        self.allow_unions();
        self.observed.account_agrees = account.agree;
        self.observed.account_notifications = account.notifications;
        self.observed.reported = observe::reported(&self.world, base).await?;
        self.observed.seen = observe::seen(&self.world, &self.receiver.requests());
        Ok(check(&self.observed))
    }
}
