//! What a seed draws before a run begins: the webhooks, how their endpoints
//! behave, which appends fail, and the sizes that make rare things frequent.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidings_signing::slot;
use tidings_types::{OUTCOME_PARTITIONS, SLOTS, Slot, WebhookId};

use crate::{endpoints::Script, faults::Rates};

/// Both programme managers of a run.
pub(crate) const MANAGERS: [i64; 2] = [20, 21];
/// The ordinary type that subscriptions are changed of, and an urgent one.
pub(crate) const STANDARD: &str = "104";
pub(crate) const URGENT: &str = "115";
/// The ladder of every webhook, in milliseconds.
pub(crate) const LADDER: [u64; 7] = [0, 50, 200, 500, 1000, 2000, 3000];

/// One webhook.
#[derive(Clone, Debug)]
pub(crate) struct HookPlan {
    pub(crate) name: &'static str,
    pub(crate) id: WebhookId,
    pub(crate) pm: i64,
    pub(crate) events: BTreeSet<&'static str>,
    pub(crate) partitions: u32,
    pub(crate) timeout: Duration,
    pub(crate) script: Script,
}

/// Everything that is drawn beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) hooks: Vec<HookPlan>,
    pub(crate) rates: Rates,
    pub(crate) session: Duration,
    pub(crate) checkpoint_interval: Duration,
    /// Entries in one part of a checkpoint.
    pub(crate) part_entries: usize,
    pub(crate) commit_interval: Duration,
    /// Steps of the schedule.
    pub(crate) steps: u32,
    /// Milliseconds between two steps at most.
    pub(crate) pause: u64,
    /// Whether a webhook that only fails is suspended soon.
    pub(crate) suspend_after: Duration,
    /// Events of one step at most.
    pub(crate) burst: u32,
    /// How much each kind of step weighs; see `run`.
    pub(crate) weights: Weights,
}

/// How often each kind of step is taken, by share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) publish: u32,
    pub(crate) again: u32,
    pub(crate) crash: u32,
    pub(crate) start: u32,
    pub(crate) stop: u32,
    pub(crate) kill: u32,
    pub(crate) hang_sender: u32,
    pub(crate) hang_router: u32,
    pub(crate) hang_all: u32,
    pub(crate) resend: u32,
    pub(crate) subscribe: u32,
    pub(crate) recorder: u32,
    pub(crate) cut_off: u32,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut weight =
            |most: u32| if rng.random_bool(0.6) { rng.random_range(0..=most) } else { 0 };
        let weights = Weights {
            publish: 30,
            again: weight(8),
            crash: weight(4),
            start: weight(8),
            stop: weight(3),
            kill: weight(4),
            hang_sender: weight(8),
            hang_router: weight(6),
            hang_all: weight(4),
            resend: weight(12),
            subscribe: weight(5),
            recorder: weight(2),
            cut_off: weight(6),
        };
        let rates = if rng.random_bool(0.5) {
            Rates {
                refuse: rng.random_range(0..20),
                slow: rng.random_range(0..15),
                lose_answer: *pick(&mut rng, &[0, 5, 15, 80]),
                drop_silently: rng.random_range(0..15),
                slow_ms: *pick(&mut rng, &[20, 200, 1000, 2500]),
            }
        } else {
            Rates::default()
        };
        Self {
            hooks: hooks(&mut rng),
            rates,
            session: Duration::from_millis(*pick(&mut rng, &[900, 1500, 3000])),
            checkpoint_interval: Duration::from_millis(*pick(&mut rng, &[100, 300, 1000])),
            part_entries: *pick(&mut rng, &[1, 2, 3, 2000]),
            commit_interval: Duration::from_millis(*pick(&mut rng, &[50, 300, 1000])),
            steps: rng.random_range(15..45),
            pause: *pick(&mut rng, &[100, 400, 900]),
            suspend_after: Duration::from_secs(*pick(&mut rng, &[8, 3600])),
            burst: *pick(&mut rng, &[2, 5, 15]),
            weights,
        }
    }
}

pub(crate) fn pick<'a, T>(rng: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[rng.random_range(0..of.len())]
}

/// Four webhooks: two share a slot, a third one shares their outcomes partition.
fn hooks(rng: &mut StdRng) -> Vec<HookPlan> {
    let first = Slot(rng.random_range(0..SLOTS));
    let sibling = Slot((first.0 + OUTCOME_PARTITIONS * rng.random_range(1..4)) % SLOTS);
    let other = Slot(rng.random_range(0..SLOTS));
    let slots = [first, other, first, sibling];
    let wants: [(&str, i64, &[&'static str]); 4] = [
        ("a", 20, &[STANDARD]),
        ("b", 20, &[]),
        ("c", 20, &[STANDARD, URGENT]),
        ("d", 21, &[STANDARD, URGENT]),
    ];
    let mut hooks = Vec::new();
    for ((name, pm, events), slot) in wants.into_iter().zip(slots) {
        hooks.push(HookPlan {
            name,
            id: id_in(rng, slot),
            pm,
            events: events.iter().copied().collect(),
            partitions: if events.contains(&URGENT) { 2 } else { 1 },
            timeout: Duration::from_millis(*pick(rng, &[300, 1000, 2000])),
            script: Script::draw(rng),
        });
    }
    hooks
}

fn id_in(rng: &mut StdRng, wanted: Slot) -> WebhookId {
    loop {
        let id = WebhookId::from_random(rng.random());
        if slot(id) == wanted {
            return id;
        }
    }
}
