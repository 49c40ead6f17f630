//! The same topics give the same view, however they are read.

use proptest::prelude::*;
use tidings_eventlog::{Backing, Batch, Limits, MemoryDisk, Record, Source};
use tidings_proto::v1::{self, OutcomeKind};
use tidings_types::RunId;

use crate::support::{Event, Fixture, START, Topics, fact, open, routed, webhook};

#[derive(Clone, Debug)]
enum Step {
    Route { partition: u32, event: u64, webhooks: Vec<u8>, time: i64, suspended: bool, void: bool },
    Filter { partition: u32 },
    Took { partition: u32 },
    Fact { event: u64, webhook: u8, took: Option<u64>, run: u8, kind: i32 },
}

fn step() -> impl Strategy<Value = Step> {
    let webhooks = prop::collection::btree_set(1..5_u8, 1..4);
    prop_oneof![
        6 => (0..3_u32, 0..12_u64, webhooks, 0..6_i64, any::<(bool, bool)>()).prop_map(
            |(partition, event, webhooks, time, (suspended, void))| Step::Route {
                partition,
                event,
                webhooks: webhooks.into_iter().collect(),
                time: START + time * 40_000,
                suspended: suspended && event % 4 == 0,
                void: void && event % 3 == 0,
            }
        ),
        1 => (0..3_u32).prop_map(|partition| Step::Filter { partition }),
        1 => (0..3_u32).prop_map(|partition| Step::Took { partition }),
        8 => (0..12_u64, 1..5_u8, prop::option::of(0..3_u64), 0..3_u8, 1..=10_i32).prop_map(
            |(event, webhook, took, run, kind)| Step::Fact { event, webhook, took, run, kind }
        ),
    ]
}

fn topics(steps: &[Step]) -> Topics {
    let mut topics = Topics::default();
    for (n, step) in (0..).zip(steps) {
        match step {
            Step::Route { partition, event, webhooks, time, suspended, void } => {
                let event =
                    Event { suspended: *suspended, ..Event::new(*event, webhooks).at(*time) };
                if *void {
                    topics.took(*partition);
                    topics.took(*partition);
                    topics.decide_as(*partition, 0, routed(&event), *time);
                } else {
                    topics.route(*partition, &event);
                }
            }
            Step::Filter { partition } => topics.filter(*partition, "product"),
            Step::Took { partition } => {
                topics.took(*partition);
            }
            Step::Fact { event, webhook, took, run, kind } => {
                let kind = OutcomeKind::try_from(*kind).unwrap();
                let run = RunId::from_bytes([*run; 16]);
                let fact = v1::Outcome {
                    run: bytes::Bytes::copy_from_slice(run.as_bytes()),
                    ..fact(*event, *webhook, kind, START + n)
                };
                // A webhook's facts stand in one partition.
                topics.outcomes(u32::from(*webhook), *took, vec![fact]);
            }
        }
    }
    topics
}

/// Takes the topics in pieces, a random partition at a time.
struct Pieces<'a> {
    left: Vec<(Source, u32, &'a [Record])>,
    seed: u64,
}

impl<'a> Pieces<'a> {
    fn new(topics: &'a Topics, seed: u64) -> Self {
        let routed = topics.routed.iter().map(|(p, records)| (Source::Routed, *p, &records[..]));
        let outcomes =
            topics.outcomes.iter().map(|(p, records)| (Source::Outcomes, *p, &records[..]));
        Self { left: routed.chain(outcomes).collect(), seed: seed | 1 }
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.seed >> 33).unwrap() % below
    }

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        for _ in 0..=self.random(3) {
            if self.left.is_empty() {
                break;
            }
            let at = self.random(self.left.len());
            let (source, partition, records) = self.left[at];
            let (now, later) = records.split_at(1 + self.random(records.len()));
            batch.push(source, partition, now.to_vec());
            self.left[at].2 = later;
            if later.is_empty() {
                self.left.remove(at);
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

async fn everything(view: &Fixture, topics: &Topics) -> String {
    let mut text = format!("{:#?}\n", view.account(topics).await);
    for n in 1..5 {
        text += &view.log.dump(webhook(n)).await.unwrap();
    }
    text
}

/// Small enough that everything is moved out of memory all the time.
fn tight() -> Limits {
    Limits { window_notifications: 6, window_bytes: 2_000, orphans: 2, ..Limits::default() }
}

async fn run(steps: Vec<Step>, seed: u64, limits: Limits) -> Result<(), TestCaseError> {
    let topics = topics(&steps);
    let mut straight = open(Backing::Memory(MemoryDisk::default()), Limits::default()).await;
    straight.read(&topics).await;
    let expected = everything(&straight, &topics).await;
    prop_assert!(straight.account(&topics).await.agrees(), "{}", expected);

    let disk = MemoryDisk::default();
    let backing = Backing::Memory(disk.clone());
    let mut view = open(backing.clone(), limits.clone()).await;
    let mut pieces = Pieces::new(&topics, seed);
    while let Some(batch) = pieces.next() {
        view.writer.apply(batch).await.unwrap();
        if pieces.random(4) == 0 {
            view.writer.flush().await.unwrap();
            disk.crash();
            view = open(backing.clone(), limits.clone()).await;
            prop_assert_eq!(&view.opened.set_aside, &None);
        }
    }
    prop_assert_eq!(everything(&view, &topics).await, expected.clone());
    let again = open(backing, limits).await;
    prop_assert_eq!(again.opened.set_aside.clone(), None);
    prop_assert_eq!(everything(&again, &topics).await, expected);
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_cut_into_batches_gives_the_same_view(
        steps in prop::collection::vec(step(), 0..60),
        seed: u64,
    ) {
        block_on(run(steps, seed, tight()))?;
    }

    #[test]
    fn with_much_memory_too(steps in prop::collection::vec(step(), 0..60), seed: u64) {
        block_on(run(steps, seed, Limits::default()))?;
    }

    #[test]
    fn a_crash_takes_back_whole_batches(
        steps in prop::collection::vec(step(), 1..40),
        seed: u64,
    ) {
        block_on(async {
            let topics = topics(&steps);
            let disk = MemoryDisk::default();
            let backing = Backing::Memory(disk.clone());
            let mut view = open(backing.clone(), tight()).await;
            let mut pieces = Pieces::new(&topics, seed);
            if let Some(batch) = pieces.next() {
                view.writer.apply(batch).await.unwrap();
                view.writer.flush().await.unwrap();
            }
            let (durable, positions) = (everything(&view, &topics).await, view.log.positions());
            while let Some(batch) = pieces.next() {
                view.writer.apply(batch).await.unwrap();
            }
            drop(view);
            disk.crash();
            let view = open(backing, tight()).await;
            prop_assert_eq!(&view.opened.set_aside, &None);
            prop_assert_eq!(view.log.positions(), positions);
            prop_assert_eq!(everything(&view, &topics).await, durable);
            Ok(())
        })?;
    }
}
