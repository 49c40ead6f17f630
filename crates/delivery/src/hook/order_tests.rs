//! Order over any sequence of events and takeovers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tidings_types::{AttemptCode, Sabotage};

use super::*;
use crate::{Arrived, Checkpoint, Ladder, Limits, OutcomeSeen, Report, SlotEvent, SlotFold};

const ID: WebhookId = WebhookId::from_bytes([1; 16]);

fn rules(ordering: Ordering, stuck_key: StuckKey) -> Rules {
    let ladder = Ladder::new([0, 10, 10].map(Duration::from_millis).to_vec()).unwrap();
    Rules { ordering, stuck_key, ..Rules::plain(4, Arc::new(ladder)) }
}

fn arrived(partition: u8, offset: u64, key: u8) -> Arrived<u8> {
    let mut id = [key; 16];
    id[0] = partition;
    id[8..].copy_from_slice(&offset.to_be_bytes());
    Arrived {
        offset,
        notification: NotificationId::from_bytes(id),
        run: RunId::FIRST,
        lane: Lane::Standard,
        deadline: None,
        kind: 1,
        order_key: u128::from(key) + 1,
        state_key: (key.is_multiple_of(2)).then_some(u128::from(key) + 1000),
        number: 0,
        size: 100,
        body: key,
    }
}

fn report(ok: bool) -> Report {
    let (code, http_status) =
        if ok { (AttemptCode::Delivered, 200) } else { (AttemptCode::Http, 500) };
    Report {
        attempt: AttemptFact { code, http_status, duration: Duration::ZERO },
        retry_after: None,
    }
}

/// Two partitions of one ordered webhook, their log, and an owner that is replaced
/// at any moment.
struct Run {
    rules: Rules,
    logs: [Vec<Arrived<u8>>; 2],
    read: [usize; 2],
    outcomes: Vec<Fact>,
    checkpoints: [Checkpoint; 2],
    mark: usize,
    hook: Hook<u8>,
    process: Process,
    flying: Vec<At>,
    time: i64,
    accepted: Vec<(Lane, u8, u64)>,
}

impl Run {
    fn new(rules: &Rules) -> Self {
        let mut hook = Hook::new(ID, Standing::Active, rules.clone());
        hook.add_partition(0, 0);
        hook.add_partition(1, 0);
        Self {
            rules: rules.clone(),
            logs: [Vec::new(), Vec::new()],
            read: [0, 0],
            outcomes: Vec::new(),
            checkpoints: [Checkpoint::default(), Checkpoint::default()],
            mark: 0,
            hook,
            process: Process::new(Limits { pace: crate::Pace::quick(), ..Limits::default() }),
            flying: Vec::new(),
            time: 0,
            accepted: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000 + self.time)
    }

    /// As the owner does that hears of a change: what stands still is read from elsewhere.
    fn set(&mut self, standing: Standing) {
        let (now, turns) = (self.now(), self.hook.gate().standing().waits() != standing.waits());
        self.hook.set(standing, self.rules.clone(), now, &mut self.process);
        for partition in [0, 1].into_iter().filter(|_| turns) {
            self.hook.drop_ahead(partition, &mut self.process);
            let from = usize::try_from(self.hook.read_from(partition).unwrap()).unwrap();
            self.read[usize::try_from(partition).unwrap()] = from;
        }
    }

    fn read_on(&mut self) {
        for (partition, log) in (0..).zip(&self.logs) {
            let read = &mut self.read[usize::try_from(partition).unwrap()];
            for record in &log[*read..] {
                self.hook.arrived(partition, record.clone(), &mut self.process);
            }
            *read = log.len();
        }
    }

    fn entry(&self, at: At) -> Entry {
        self.hook.lane(at.partition).unwrap().open[&at.offset].entry
    }

    fn fly(&mut self, at: At) {
        let entry = self.entry(at);
        let number = entry.totals.number;
        assert!(number > 0, "an attempt without a number");
        let said = |fact: &Fact| fact.entry.at == at && fact.entry.totals.number == number;
        assert!(self.outcomes.iter().any(said), "an attempt before the log has its number");
        for other in &self.flying {
            let other = self.entry(*other);
            assert!(other.lane != entry.lane || other.queue != entry.queue, "two of a queue");
            assert!(self.rules.ordering != Ordering::Strict, "two at a time");
        }
        self.flying.push(at);
    }

    fn start(&mut self) {
        match self.hook.next(self.now(), &mut self.process) {
            Step::Attempt(attempt) => self.fly(attempt.at),
            Step::Load(at) => {
                let log = &self.logs[usize::try_from(at.partition).unwrap()];
                let record = log[usize::try_from(at.offset).unwrap()].clone();
                let now = self.now();
                if self.hook.loaded(at, Some(record), now, &mut self.process).is_some() {
                    self.fly(at);
                }
            }
            Step::Idle => {}
        }
    }

    fn finish(&mut self, n: u8, ok: bool) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.flying.remove(usize::from(n) % self.flying.len());
        if ok {
            let entry = self.entry(at);
            let key = self.logs[usize::try_from(at.partition).unwrap()]
                [usize::try_from(at.offset).unwrap()]
            .body;
            let key = if self.rules.ordering == Ordering::Strict { 0 } else { key };
            self.accepted.push((entry.lane, key, entry.totals.number));
        }
        let now = self.now();
        self.hook.finished(at, &report(ok), now, 7, &mut self.process);
    }

    fn acknowledge(&mut self, at_most: usize) {
        let facts: Vec<Fact> = self.hook.facts().collect();
        // What is not acknowledged may still be in the log.
        for (place, fact) in facts.into_iter().enumerate() {
            self.outcomes.push(fact);
            if place < at_most {
                let now = self.now();
                self.hook.acknowledged(&fact, Some(0), now, &mut self.process);
            } else {
                self.hook.facts.push(fact);
            }
        }
    }

    fn take_over(&mut self) {
        let mut fold = SlotFold::new(Sabotage::None, Duration::from_secs(300));
        fold.slot_record(0, 0, SlotEvent::Took);
        for (partition, checkpoint) in (0..).zip(self.checkpoints.clone()) {
            for part in checkpoint.into_parts(ID, partition, 1, 3) {
                fold.slot_record(1, 0, SlotEvent::Checkpoint(Box::new(part)));
            }
        }
        fold.slot_record(2, 0, SlotEvent::Mark { outcomes_next: 0 });
        for fact in &self.outcomes[self.mark..] {
            let mut entry = fact.entry;
            entry.queue = None; // An outcome does not tell it.
            let (kind, time) = (fact.kind, fact.time);
            let attempt = fact.attempt;
            let (gone, is_busy, took) = (false, false, 0);
            let webhook = ID;
            let seen = OutcomeSeen { webhook, entry, kind, took, time, gone, is_busy, attempt };
            fold.outcome(&seen);
        }
        let (checkpoints, _) = fold.finish();
        self.process = Process::new(Limits { pace: crate::Pace::quick(), ..Limits::default() });
        self.hook = Hook::new(ID, Standing::Active, self.rules.clone());
        let now = self.now();
        for partition in [0, 1] {
            let state = checkpoints.get(&(ID, partition)).cloned().unwrap_or_default();
            self.hook.restore(partition, &state, now, &mut self.process);
            let place = usize::try_from(partition).unwrap();
            self.read[place] = usize::try_from(state.next).unwrap();
            self.checkpoints[place] = state;
        }
        self.flying.clear();
        self.mark = self.outcomes.len();
    }

    fn checkpoint(&mut self) {
        for partition in [0, 1] {
            if self.hook.is_changed(partition)
                && let Some((checkpoint, _)) = self.hook.cut(partition, Sabotage::None)
            {
                self.checkpoints[usize::try_from(partition).unwrap()] = checkpoint;
            }
        }
        self.mark = self.outcomes.len();
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Arrive(lane, key) => {
                let offset = u64::try_from(self.logs[*lane].len()).unwrap();
                let partition = u8::try_from(*lane).unwrap();
                self.logs[*lane].push(arrived(partition, offset, *key));
            }
            Act::Start => self.start(),
            Act::Finish(n, ok) => self.finish(*n, *ok),
            Act::Acknowledge(most) => self.acknowledge(*most),
            Act::Checkpoint => self.checkpoint(),
            Act::TakeOver => self.take_over(),
        }
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            self.time += 5;
            self.start();
            while !self.flying.is_empty() {
                self.finish(0, true);
            }
            self.acknowledge(usize::MAX);
            if self.hook.is_settled() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.hook);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Arrive(usize, u8),
    Start,
    Finish(u8, bool),
    Acknowledge(usize),
    Checkpoint,
    TakeOver,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..2_usize, 0..4_u8).prop_map(|(lane, key)| Act::Arrive(lane, key)),
        5 => Just(Act::Start),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(n, ok)| Act::Finish(n, ok)),
        4 => (0..5_usize).prop_map(Act::Acknowledge),
        2 => Just(Act::Checkpoint),
        1 => Just(Act::TakeOver),
    ]
}

fn run(rules: &Rules, acts: &[Act]) -> Run {
    let mut run = Run::new(rules);
    for act in acts {
        run.time += 3;
        run.act(act);
        run.read_on();
    }
    run.settle();
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Over any takeovers: numbers are 1, 2, 3… in each lane, a record keeps its
    /// number, no queue has two in flight (asserted on the way), and what a queue
    /// delivers comes in the order of its numbers.
    #[test]
    fn numbers_are_without_gaps_and_a_queue_is_delivered_in_order(
        acts in proptest::collection::vec(act(), 0..150),
        strict: bool,
        stuck in prop_oneof![
            Just(StuckKey::Wait), Just(StuckKey::Skip), Just(StuckKey::Supersede)
        ],
    ) {
        let ordering = if strict { Ordering::Strict } else { Ordering::PerKey };
        let run = run(&rules(ordering, stuck), &acts);
        let mut given: BTreeMap<At, (Lane, u64)> = BTreeMap::new();
        let mut ended = BTreeMap::new();
        for fact in &run.outcomes {
            let of = (fact.entry.lane, fact.entry.totals.number);
            let before = given.insert(fact.entry.at, of);
            prop_assert!(before.is_none_or(|before| before == of), "{before:?} became {of:?}");
            if fact.kind.is_end() {
                ended.entry(fact.entry.at).or_insert(fact.kind);
            }
        }
        for lane in BOTH {
            let mut numbers: Vec<u64> =
                given.values().filter(|(of, _)| *of == lane).map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            let count = u64::try_from(numbers.len()).unwrap();
            prop_assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
        }
        let records: usize = run.logs.iter().map(Vec::len).sum();
        prop_assert_eq!(ended.len(), records, "every record has an end");
        if stuck == StuckKey::Wait {
            prop_assert!(ended.values().all(|kind| *kind == FactKind::Delivered));
        }
        let mut last: BTreeMap<(Lane, u8), u64> = BTreeMap::new();
        for (lane, key, number) in &run.accepted {
            let before = last.insert((*lane, *key), *number).unwrap_or(0);
            prop_assert!(*number >= before, "{number} after {before}");
        }
        prop_assert_eq!(run.process.facts, 0);
        prop_assert_eq!(run.process.kept_bytes, 0);
        prop_assert_eq!(run.process.in_flight, [0, 0]);
    }
}

fn deliver(keys: &[u8], stuck: StuckKey) -> Run {
    let mut run = Run::new(&rules(Ordering::PerKey, stuck));
    for key in keys {
        let offset = u64::try_from(run.logs[0].len()).unwrap();
        run.logs[0].push(arrived(0, offset, *key));
    }
    run.read_on();
    run
}

/// Steps until nothing flies; key 2 fails.
fn step(run: &mut Run, times: usize) {
    for _ in 0..times {
        run.time += 5;
        run.start();
        while let Some(at) = run.flying.first().copied() {
            let log = &run.logs[usize::try_from(at.partition).unwrap()];
            let key = log[usize::try_from(at.offset).unwrap()].body;
            run.finish(0, key != 2);
        }
        run.acknowledge(usize::MAX);
    }
}

#[test]
fn a_stuck_key_holds_only_itself() {
    let mut run = deliver(&[2, 2, 1, 2, 3, 1], StuckKey::Wait);
    step(&mut run, 200);
    let delivered: Vec<u64> = run.accepted.iter().map(|(_, _, number)| *number).collect();
    assert_eq!(delivered.len(), 3, "{delivered:?}");
    assert!(run.outcomes.iter().all(|fact| !matches!(fact.kind, FactKind::Undelivered(_))));
    assert_eq!(run.hook.open(), 3);
}

/// So many standard notifications, each of its own key, and one of the urgent lane.
fn many_keys(count: u64) -> Run {
    let mut run = Run::new(&rules(Ordering::PerKey, StuckKey::Wait));
    run.logs[0] = (0..count)
        .map(|offset| Arrived { order_key: u128::from(offset) + 9, ..arrived(0, offset, 1) })
        .collect();
    run.logs[1] = vec![Arrived { lane: Lane::Urgent, kind: 7, ..arrived(1, 0, 1) }];
    run
}

#[test]
fn a_stopped_type_holds_its_keys_and_no_other_ones() {
    let mut run = many_keys(2000);
    run.process.paused.insert(1);
    let offset = 2000;
    let other = Arrived { order_key: 1, kind: 7, ..arrived(0, offset, 1) };
    // Of the key of one that is held.
    let behind = Arrived { order_key: 9, kind: 7, ..arrived(0, offset + 1, 1) };
    run.logs[0].extend([other, behind]);
    run.logs[1].clear();
    run.read_on();
    step(&mut run, 100);
    let accepted: Vec<u64> = run.accepted.iter().map(|(_, _, number)| *number).collect();
    assert_eq!(accepted, [2001]);
    run.logs[1] = vec![Arrived { lane: Lane::Urgent, kind: 7, ..arrived(1, 0, 1) }];
    run.read_on();
    step(&mut run, 10);
    assert_eq!(run.accepted.last().unwrap().0, Lane::Urgent);
    run.process.paused.clear();
    run.hook.pauses_changed(&run.process);
    step(&mut run, 4000);
    assert!(run.hook.is_settled(), "all go on");
    assert_eq!(run.accepted.len(), 2003);
}

#[test]
fn what_stands_behind_a_held_one_ends_no_sooner_than_it() {
    let mut run = deliver(&[], StuckKey::Wait);
    run.process.limits.max_open = 8;
    run.process.paused.insert(1);
    // One of a stopped type, and many of another behind it in its key.
    run.logs[0] = (0..50)
        .map(|offset| Arrived { kind: if offset == 0 { 1 } else { 7 }, ..arrived(0, offset, 1) })
        .collect();
    run.read_on();
    step(&mut run, 100);
    assert!(run.outcomes.iter().all(|fact| fact.kind == FactKind::TakenUp));
    assert!(run.hook.open() <= 8, "the rest waits in the log: {}", run.hook.open());
    run.process.paused.clear();
    run.hook.pauses_changed(&run.process);
    step(&mut run, 200);
    assert_eq!(run.accepted.len(), 50);
}

#[test]
fn a_pause_of_the_standard_lane_holds_up_no_urgent_key() {
    let mut run = many_keys(600);
    let urgent = std::mem::take(&mut run.logs[1]);
    run.read_on();
    let (now, hour) = (run.now(), Duration::from_secs(3600));
    run.hook.gate.pause(Lane::Standard, now, hour);
    step(&mut run, 20);
    assert_eq!(run.hook.open(), 512, "so many are numbered ahead");
    run.logs[1] = urgent;
    run.read_on();
    step(&mut run, 10);
    assert_eq!(run.accepted, [(Lane::Urgent, 1, 1)]);
}

#[test]
fn when_a_webhook_waits_for_no_stuck_key_any_more_they_end_in_portions() {
    let mut run = deliver(&[], StuckKey::Wait);
    run.logs[0] = (0..1000)
        .map(|offset| Arrived { order_key: u128::from(offset) + 9, ..arrived(0, offset, 2) })
        .collect();
    run.process.limits.pace.longest_gap = Duration::from_millis(1);
    run.read_on();
    step(&mut run, 20_000);
    let stuck = run.hook.open();
    assert!(stuck > 500, "{stuck}");
    let limit = 40;
    run.process.limits.facts = limit;
    let now = run.now();
    run.rules.stuck_key = StuckKey::Skip;
    run.set(Standing::Active);
    let mut ended = 0;
    for _ in 0..1000 {
        assert!(run.process.facts <= limit + 1, "{} facts at once", run.process.facts);
        let before = run.outcomes.len();
        run.acknowledge(usize::MAX);
        ended += run.outcomes[before..].iter().filter(|fact| fact.kind.is_end()).count();
        if ended >= stuck {
            assert!(run.now().since(now) < Duration::from_secs(60));
            return;
        }
        // It is asked again when it said, and not before.
        let due = run.hook.next_due(run.now()).expect("nobody asks again");
        run.time = run.time.max(due.as_millis() - 1_000_000);
        run.start();
        while !run.flying.is_empty() {
            run.finish(0, false);
        }
    }
    panic!("{ended} of {stuck} ended");
}

#[test]
fn what_a_takeover_reads_again_keeps_its_bodies_within_their_limit() {
    let mut run = deliver(&[1; 50], StuckKey::Wait);
    step(&mut run, 1);
    // The log has the numbers, no checkpoint says so.
    run.process.limits.kept_bytes_in_process = 500;
    run.take_over();
    run.process.limits.kept_bytes_in_process = 500;
    run.read_on();
    (0..60).for_each(|_| run.start());
    assert!(run.hook.open() > 10, "{}", run.hook.open());
    assert!(run.process.kept_bytes <= 500, "{} bytes are kept", run.process.kept_bytes);
    run.settle();
    assert_eq!((run.accepted.len(), run.process.kept_bytes), (50, 0));
}

#[test]
fn a_skipped_key_goes_on_at_the_end_of_its_ladder_also_when_the_choice_comes_later() {
    let mut run = deliver(&[2, 2], StuckKey::Wait);
    step(&mut run, 50);
    assert_eq!(run.hook.open(), 2);
    let now = run.now();
    let skip = rules(Ordering::PerKey, StuckKey::Skip);
    run.hook.set(Standing::Active, skip, now, &mut run.process);
    step(&mut run, 50);
    let ends: Vec<FactKind> =
        run.outcomes.iter().map(|fact| fact.kind).filter(|kind| kind.is_end()).collect();
    assert_eq!(ends, [FactKind::Undelivered(EndReason::Exhausted); 2]);
}

#[test]
fn a_newer_state_takes_the_place_of_one_that_has_failed() {
    let mut run = deliver(&[2], StuckKey::Supersede);
    step(&mut run, 2);
    for offset in [1, 2] {
        run.logs[0].push(arrived(0, offset, 2));
    }
    run.read_on();
    step(&mut run, 2);
    let ends: Vec<(u64, FactKind)> = run
        .outcomes
        .iter()
        .filter(|fact| fact.kind.is_end())
        .map(|fact| (fact.entry.totals.number, fact.kind))
        .collect();
    assert_eq!(ends, [(1, FactKind::Superseded), (2, FactKind::Superseded)]);
}

#[test]
fn a_change_to_strict_first_drains_the_urgent_lane() {
    let mut run = Run::new(&rules(Ordering::PerKey, StuckKey::Wait));
    run.logs = [vec![arrived(0, 0, 1)], vec![arrived(1, 0, 1), arrived(1, 1, 3)]];
    run.read_on();
    let (now, strict) = (run.now(), rules(Ordering::Strict, StuckKey::Wait));
    run.rules = strict.clone();
    run.hook.set(Standing::Active, strict, now, &mut run.process);
    run.logs[1].push(arrived(1, 2, 3));
    run.read_on();
    step(&mut run, 20);
    let lanes: Vec<(Lane, u64)> =
        run.accepted.iter().map(|(lane, _, number)| (*lane, *number)).collect();
    assert_eq!(&lanes[..2], [(Lane::Urgent, 1), (Lane::Urgent, 2)]);
    let mut rest = lanes[2..].to_vec();
    rest.sort_unstable();
    assert_eq!(rest, [(Lane::Standard, 1), (Lane::Standard, 2)]);
}

#[test]
fn in_strict_order_numbers_go_out_behind_those_that_waited_by_key() {
    let mut run = Run::new(&rules(Ordering::PerKey, StuckKey::Wait));
    run.logs[0] = (0..3).map(|offset| arrived(0, offset, 2)).collect();
    run.read_on();
    step(&mut run, 6);
    assert!(run.outcomes.iter().any(|fact| fact.kind == FactKind::AttemptFailed));
    run.rules = rules(Ordering::Strict, StuckKey::Wait);
    run.set(Standing::Active);
    run.logs[0].extend((3..6).map(|offset| arrived(0, offset, 5)));
    run.read_on();
    for _ in 0..40 {
        run.start();
        run.time += 20;
        while !run.flying.is_empty() {
            run.finish(0, true);
        }
        run.acknowledge(usize::MAX);
    }
    assert!(run.hook.is_settled());
    let numbers: Vec<u64> = run.accepted.iter().map(|(_, _, number)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

/// Nothing but the time that it named makes the owner ask again.
#[test]
fn while_the_urgent_lane_drains_what_is_due_there_is_not_forgotten() {
    let mut run = Run::new(&rules(Ordering::PerKey, StuckKey::Wait));
    run.logs = [vec![arrived(0, 0, 2)], vec![arrived(1, 0, 2)]];
    run.read_on();
    step(&mut run, 6);
    let failed = |fact: &&Fact| fact.kind == FactKind::AttemptFailed;
    let lanes: BTreeSet<Lane> =
        run.outcomes.iter().filter(failed).map(|fact| fact.entry.lane).collect();
    assert_eq!(lanes.len(), 2, "both lanes wait for another attempt");
    let (now, strict) = (run.now(), rules(Ordering::Strict, StuckKey::Wait));
    run.rules = strict.clone();
    run.hook.set(Standing::Active, strict, now, &mut run.process);
    for _ in 0..20 {
        let due = run.hook.next_due(run.now()).expect("nobody asks again");
        run.time = due.as_millis() - 1_000_000;
        // Each end makes the owner ask at once.
        for _ in 0..4 {
            run.start();
            while !run.flying.is_empty() {
                run.finish(0, true);
            }
            run.acknowledge(usize::MAX);
        }
        if run.hook.is_settled() {
            return;
        }
    }
    panic!("it never settles: {:?}", run.hook);
}

#[derive(Clone, Debug)]
enum Turn {
    Act(Act),
    Order(bool),
    Standing(bool),
}

/// A strict order in between gave the urgent one the second number of the standard lane;
/// by key again, and after a takeover, the one with the first number is still to be read.
#[test]
fn by_key_again_the_numbers_of_a_strict_order_go_out_in_their_order_after_a_takeover() {
    let mut run = Run::new(&rules(Ordering::PerKey, StuckKey::Wait));
    let turns = [
        (Act::Arrive(0, 1), Ordering::PerKey),
        (Act::Start, Ordering::Strict),
        (Act::Arrive(1, 1), Ordering::Strict),
        (Act::Start, Ordering::PerKey),
        // The log has the numbers, and their owner ends before it hears of it.
        (Act::Acknowledge(0), Ordering::PerKey),
        (Act::TakeOver, Ordering::PerKey),
    ];
    for (act, ordering) in turns {
        run.time += 3;
        run.act(&act);
        run.rules = rules(ordering, StuckKey::Wait);
        run.set(Standing::Active);
        run.read_on();
    }
    run.settle();
    let numbers: Vec<_> = run.accepted.iter().map(|(lane, _, number)| (*lane, *number)).collect();
    assert_eq!(numbers, [(Lane::Standard, 1), (Lane::Standard, 2)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever order a webhook asked for in between, and however often it was away: in
    /// the end everything has its end.
    #[test]
    fn changes_of_order_stop_nothing(
        turns in proptest::collection::vec(
            prop_oneof![
                8 => act().prop_map(Turn::Act),
                1 => any::<bool>().prop_map(Turn::Order),
                1 => any::<bool>().prop_map(Turn::Standing),
            ],
            0..120,
        ),
        at_once in 1..5_usize,
    ) {
        let mut rules = Rules { max_in_flight: at_once, ..rules(Ordering::PerKey, StuckKey::Wait) };
        let mut run = Run::new(&rules);
        let mut standing = Standing::Active;
        for turn in turns {
            run.time += 3;
            match turn {
                Turn::Act(act) => run.act(&act),
                Turn::Order(strict) => {
                    rules.ordering = if strict { Ordering::Strict } else { Ordering::PerKey };
                }
                Turn::Standing(active) => {
                    standing = if active { Standing::Active } else { Standing::Inactive };
                }
            }
            run.rules = rules.clone();
            run.set(standing);
            run.read_on();
        }
        run.set(Standing::Active);
        run.read_on();
        run.settle();
    }
}
