//! The state of a webhook through attempts, waits, ends and takeovers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use tidings_types::{AttemptCode, Sabotage};

use super::*;
use crate::{Arrived, Checkpoint, Ladder, Limits, OutcomeSeen, Report, SlotEvent, SlotFold};

/// Told of a webhook that failed for so long.
const FAILING: Duration = Duration::from_millis(10);

fn hook() -> (Hook<u32>, Process) {
    let ladder = Ladder::new([0, 10, 10, 10].map(Duration::from_millis).to_vec()).unwrap();
    let id = WebhookId::from_bytes([1; 16]);
    let mut hook = Hook::new(id, Standing::Active, Rules::plain(4, Arc::new(ladder)));
    hook.add_partition(0, 0);
    // It has accepted something before.
    hook.gate.succeeded(Timestamp::ZERO);
    (
        hook,
        Process::new(Limits {
            pace: crate::Pace::quick(),
            failing_after: FAILING,
            ..Limits::default()
        }),
    )
}

fn arrived(offset: u64, n: u8, run: u8) -> Arrived<u32> {
    Arrived {
        offset,
        notification: NotificationId::from_bytes([n; 16]),
        run: RunId::from_bytes([run; 16]),
        lane: Lane::Standard,
        deadline: None,
        kind: 1,
        order_key: u128::from(n),
        state_key: None,
        number: 0,
        size: 100,
        body: u32::from(n),
    }
}

fn at(offset: u64) -> At {
    At { partition: 0, offset }
}

fn now(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn report(status: u16) -> Report {
    let code = if status == 200 { AttemptCode::Delivered } else { AttemptCode::Http };
    let attempt = AttemptFact { code, http_status: status, duration: Duration::ZERO };
    Report { attempt, retry_after: None }
}

fn attempt(step: Step<u32>) -> Attempt<u32> {
    match step {
        Step::Attempt(attempt) => attempt,
        Step::Load(_) | Step::Idle => panic!("{step:?} is no attempt"),
    }
}

fn acknowledge(hook: &mut Hook<u32>, process: &mut Process, millis: i64) -> Vec<FactKind> {
    let facts: Vec<Fact> = hook.facts().collect();
    for fact in &facts {
        hook.acknowledged(fact, Some(0), now(millis), process);
    }
    facts.iter().map(|fact| fact.kind).collect()
}

#[test]
fn a_checkpoint_shows_an_end_only_once_the_log_has_acknowledged_it() {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    hook.finished(first.at, &report(200), now(1), 0, &mut process);
    let (before, needed) = hook.cut(0, Sabotage::None).unwrap();
    assert_eq!((before.next, before.open.len(), needed), (1, 1, 0));
    assert_eq!(before.open[0].totals.attempts, 0);
    assert_eq!(acknowledge(&mut hook, &mut process, 2), [FactKind::Delivered]);
    let (after, _) = hook.cut(0, Sabotage::None).unwrap();
    assert_eq!((after.next, after.open.len()), (1, 0));
    assert_eq!(process.in_flight, [0, 0]);
    assert_eq!(process.facts, 0);
}

#[test]
fn a_resend_does_not_join_what_has_been_handed_to_the_log_as_ended() {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    hook.finished(first.at, &report(200), now(1), 0, &mut process);
    hook.arrived(0, arrived(1, 1, 9), &mut process);
    let second = attempt(hook.next(now(2), &mut process));
    assert_eq!((second.at, second.number), (at(1), 1));
}

#[test]
fn a_resend_that_joins_an_attempt_in_flight_makes_the_next_one_due_at_once() {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    hook.arrived(0, arrived(1, 1, 9), &mut process);
    assert!(matches!(hook.next(now(1), &mut process), Step::Idle));
    assert_eq!(acknowledge(&mut hook, &mut process, 1), [FactKind::TakenUp, FactKind::Joined]);
    hook.finished(first.at, &report(500), now(2), 0, &mut process);
    assert_eq!(acknowledge(&mut hook, &mut process, 2), [FactKind::AttemptFailed]);
    let again = attempt(hook.next(now(2), &mut process));
    assert_eq!((again.at, again.number), (at(0), 2));
}

#[test]
fn a_trim_never_passes_an_open_notification_nor_the_last_mark() {
    let (mut hook, mut process) = hook();
    for offset in 0..4 {
        let n = u8::try_from(offset).unwrap();
        hook.arrived(0, arrived(offset, n, 0), &mut process);
    }
    let attempts: Vec<_> = (0..4).map(|_| attempt(hook.next(now(0), &mut process))).collect();
    for attempt in attempts.iter().filter(|attempt| attempt.at != at(1)) {
        hook.finished(attempt.at, &report(200), now(1), 0, &mut process);
    }
    acknowledge(&mut hook, &mut process, 1);
    let (_, needed) = hook.cut(0, Sabotage::None).unwrap();
    assert_eq!(needed, 1);
    assert_eq!(hook.trim_to(0, 1, Sabotage::None), None, "no mark yet");
    hook.marked(0, needed);
    assert_eq!(hook.trim_to(0, 1, Sabotage::None), Some(1));
    hook.finished(at(1), &report(200), now(2), 0, &mut process);
    acknowledge(&mut hook, &mut process, 2);
    assert_eq!(hook.trim_to(0, 1, Sabotage::None), None, "the mark is of before");
    assert_eq!(hook.trim_to(0, 1, Sabotage::TrimWithoutMark), Some(3));
}

#[test]
fn a_long_wait_drops_the_body_and_reads_it_again() {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    let later = Report { retry_after: Some(Duration::from_secs(100)), ..report(503) };
    hook.finished(first.at, &later, now(1), 0, &mut process);
    acknowledge(&mut hook, &mut process, 1);
    assert_eq!(process.kept_bytes, 0);
    assert!(matches!(hook.next(now(200_000), &mut process), Step::Load(place) if place == at(0)));
    let other = hook.loaded(at(0), Some(arrived(0, 1, 0)), now(200_000), &mut process);
    assert_eq!(other.map(|attempt| attempt.number), Some(2));
}

#[test]
fn past_its_limit_of_open_ones_the_oldest_that_waits_ends() {
    let (mut hook, mut process) = hook();
    process.limits.max_open = 2;
    for n in 0..3 {
        hook.arrived(0, arrived(u64::from(n), n, 0), &mut process);
    }
    for _ in 0..2 {
        let attempt = attempt(hook.next(now(0), &mut process));
        hook.finished(attempt.at, &report(500), now(0), 0, &mut process);
        acknowledge(&mut hook, &mut process, 0);
    }
    attempt(hook.next(now(1), &mut process));
    let facts: Vec<Fact> = hook.facts().collect();
    assert_eq!(facts[0].kind, FactKind::Undelivered(EndReason::TooManyOpen));
    assert_eq!(facts[0].entry.at, at(0));
}

fn set(hook: &mut Hook<u32>, standing: Standing, at: Timestamp, process: &mut Process) {
    let rules = hook.rules.clone();
    hook.set(standing, rules, at, process);
    hook.drop_ahead(0, process);
}

#[test]
fn what_waits_in_the_log_of_an_inactive_webhook_ends_at_its_deadline() {
    let (mut hook, mut process) = hook();
    process.limits.expiring = [true, true];
    set(&mut hook, Standing::Inactive, now(0), &mut process);
    assert_eq!(hook.reading(0, now(0), &process), Reading::Go);
    let log = [
        arrived(0, 1, 0),
        Arrived { deadline: Some(now(50)), ..arrived(1, 2, 0) },
        Arrived { deadline: Some(now(90)), ..arrived(2, 3, 0) },
    ];
    for record in &log {
        hook.arrived(0, record.clone(), &mut process);
    }
    assert!(matches!(hook.next(now(49), &mut process), Step::Idle));
    assert_eq!(hook.next_due(now(49)), Some(now(50)));
    assert!(matches!(hook.next(now(50), &mut process), Step::Idle));
    let (before, _) = hook.cut(0, Sabotage::None).unwrap();
    assert_eq!((before.next, before.folded.len()), (0, 0), "the log has not acknowledged it");
    assert_eq!(acknowledge(&mut hook, &mut process, 50), [FactKind::Expired]);
    let (after, _) = hook.cut(0, Sabotage::None).unwrap();
    assert_eq!((after.next, after.open.len(), after.folded.len()), (0, 0, 1));
    assert_eq!(after.folded[0].entry.at, at(1));
    assert!(after.folded[0].ended);

    set(&mut hook, Standing::Active, now(60), &mut process);
    assert_eq!(hook.read_from(0), Some(0));
    for record in log {
        hook.arrived(0, record, &mut process);
    }
    for offset in [0, 2] {
        let sent = attempt(hook.next(now(60), &mut process)).at;
        assert_eq!(sent, at(offset));
        hook.finished(sent, &report(200), now(60), 0, &mut process);
        acknowledge(&mut hook, &mut process, 60);
    }
    assert!(matches!(hook.next(now(60), &mut process), Step::Idle));
    assert_eq!((process.counts.skipped, process.facts), (1, 0));
}

#[test]
fn an_inactive_webhook_may_be_asked_at_any_time_and_still_ends_what_is_past_its_window() {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    hook.finished(first.at, &report(500), now(0), 0, &mut process);
    acknowledge(&mut hook, &mut process, 0);
    set(&mut hook, Standing::Inactive, now(1), &mut process);
    // Its owner asks each second, and wakes it when it said.
    let mut due = hook.next_due(now(1)).unwrap();
    for second in 0..120 {
        let time = now(second * 1000);
        if due <= time {
            assert!(matches!(hook.next(time, &mut process), Step::Idle));
        }
        let ended = acknowledge(&mut hook, &mut process, second * 1000);
        if !ended.is_empty() {
            assert_eq!(ended, [FactKind::Undelivered(EndReason::Window)]);
            return;
        }
        due = hook.next_due(time).unwrap();
    }
    panic!("it never ends: {hook:?}");
}

#[test]
fn an_owner_that_only_a_checkpoint_told_of_an_open_one_learns_its_deadline() {
    let (mut hook, mut process) = hook();
    process.limits.expiring = [true, true];
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    hook.finished(first.at, &report(500), now(0), 0, &mut process);
    acknowledge(&mut hook, &mut process, 0);
    let (checkpoint, _) = hook.cut(0, Sabotage::None).unwrap();
    let mut next = Hook::new(hook.id(), Standing::Inactive, hook.rules.clone());
    next.restore(0, &checkpoint, now(1), &mut process);
    assert_eq!(next.read_from(0), Some(0), "from the oldest whose deadline is not known");
    let record = Arrived { deadline: Some(now(40_000)), ..arrived(0, 1, 0) };
    next.arrived(0, record, &mut process);
    assert_eq!(next.read_from(0), Some(1));
    for second in 1..80 {
        next.next(now(second * 1000), &mut process);
    }
    let ended = acknowledge(&mut next, &mut process, 80_000);
    assert_eq!(ended, [FactKind::Undelivered(EndReason::Window)]);
}

/// One step of a random run of one webhook.
#[derive(Clone, Debug)]
enum Act {
    Arrive,
    Replay(u8),
    Resend(u8),
    Start,
    Finish(u8, bool),
    Acknowledge,
    Checkpoint,
    TakeOver,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Arrive),
        1 => any::<u8>().prop_map(Act::Replay),
        1 => any::<u8>().prop_map(Act::Resend),
        4 => Just(Act::Start),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(n, ok)| Act::Finish(n, ok)),
        3 => Just(Act::Acknowledge),
        2 => Just(Act::Checkpoint),
        1 => Just(Act::TakeOver),
    ]
}

/// A log and an owner that is replaced at any moment.
struct Run {
    log: Vec<Arrived<u32>>,
    read: usize,
    outcomes: Vec<Fact>,
    checkpoint: Checkpoint,
    mark: usize,
    hook: Hook<u32>,
    process: Process,
    flying: Vec<At>,
    time: i64,
    /// Attempts that were accepted, by notification and run.
    accepted: BTreeMap<(NotificationId, RunId), u32>,
    takeovers: u32,
}

impl Run {
    fn new() -> Self {
        let (hook, process) = hook();
        Self {
            log: Vec::new(),
            read: 0,
            outcomes: Vec::new(),
            checkpoint: Checkpoint::default(),
            mark: 0,
            hook,
            process,
            flying: Vec::new(),
            time: 0,
            accepted: BTreeMap::new(),
            takeovers: 0,
        }
    }

    fn read_on(&mut self) {
        for record in &self.log[self.read..] {
            self.hook.arrived(0, record.clone(), &mut self.process);
        }
        self.read = self.log.len();
    }

    fn append(&mut self, n: u8, run: u8) {
        let offset = u64::try_from(self.log.len()).unwrap();
        self.log.push(arrived(offset, n, run));
    }

    fn acknowledge(&mut self) {
        let facts: Vec<Fact> = self.hook.facts().collect();
        for fact in facts {
            self.outcomes.push(fact);
            self.hook.acknowledged(&fact, Some(0), now(self.time), &mut self.process);
        }
    }

    fn start(&mut self) {
        match self.hook.next(now(self.time), &mut self.process) {
            Step::Attempt(attempt) => self.flying.push(attempt.at),
            Step::Load(place) => {
                let record = self.log[usize::try_from(place.offset).unwrap()].clone();
                let time = now(self.time);
                if self.hook.loaded(place, Some(record), time, &mut self.process).is_some() {
                    self.flying.push(place);
                }
            }
            Step::Idle => {}
        }
    }

    fn finish(&mut self, n: u8, ok: bool) {
        if self.flying.is_empty() {
            return;
        }
        let place = self.flying.remove(usize::from(n) % self.flying.len());
        let record = &self.log[usize::try_from(place.offset).unwrap()];
        if ok {
            *self.accepted.entry((record.notification, record.run)).or_default() += 1;
        }
        let report = report(if ok { 200 } else { 500 });
        self.hook.finished(place, &report, now(self.time), 7, &mut self.process);
    }

    fn take_over(&mut self) {
        self.takeovers += 1;
        let mut fold = SlotFold::new(Sabotage::None, FAILING);
        fold.slot_record(0, 0, SlotEvent::Took);
        let id = self.hook.id();
        for part in self.checkpoint.clone().into_parts(id, 0, 1, 3) {
            fold.slot_record(1, 0, SlotEvent::Checkpoint(Box::new(part)));
        }
        fold.slot_record(2, 0, SlotEvent::Mark { outcomes_next: 0 });
        let seen = |fact: &Fact| OutcomeSeen {
            webhook: id,
            entry: fact.entry,
            kind: fact.kind,
            took: 0,
            time: fact.time,
            gone: false,
            is_busy: false,
            attempt: fact.attempt,
        };
        for fact in &self.outcomes[self.mark..] {
            fold.outcome(&seen(fact));
        }
        let (checkpoints, _) = fold.finish();
        let state = checkpoints.get(&(id, 0)).cloned().unwrap_or_default();
        assert_eq!(state.alarm, self.hook.alarm, "whoever takes over tells the same");
        let (mut fresh, process) = hook();
        self.process = process;
        fresh.restore(0, &state, now(self.time), &mut self.process);
        for fact in &self.outcomes {
            let entry = fact.entry;
            fresh.refill(entry.notification, entry.run, entry.at, &mut self.process);
        }
        self.hook = fresh;
        self.flying.clear();
        self.read = usize::try_from(state.next).unwrap();
        self.checkpoint = state;
        self.mark = self.outcomes.len();
        self.read_on();
    }

    fn act(&mut self, act: &Act) {
        self.time += 3;
        let known = u8::try_from(self.log.len()).unwrap_or(u8::MAX).max(1);
        match act {
            Act::Arrive => self.append(known, 0),
            Act::Replay(n) => self.append(n % known, 0),
            Act::Resend(n) => self.append(n % known, known),
            Act::Start => self.start(),
            Act::Finish(n, ok) => self.finish(*n, *ok),
            Act::Acknowledge => self.acknowledge(),
            Act::Checkpoint => {
                if let Some((checkpoint, _)) = self.hook.cut(0, Sabotage::None) {
                    self.checkpoint = checkpoint;
                    self.mark = self.outcomes.len();
                }
            }
            Act::TakeOver => self.take_over(),
        }
        self.read_on();
    }

    /// Lets everything come to its end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.time += 5;
            self.start();
            while !self.flying.is_empty() {
                self.finish(0, true);
            }
            self.acknowledge();
            if self.hook.is_settled() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.hook);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever happens and whoever takes over: each record of the log gets exactly
    /// one end or was a duplicate, attempts only rise, and what has ended is not
    /// sent again.
    #[test]
    fn every_record_has_one_end_over_any_takeovers(
        acts in proptest::collection::vec(act(), 0..120),
    ) {
        let mut run = Run::new();
        for act in &acts {
            run.act(act);
        }
        run.settle();
        let mut ends = BTreeMap::new();
        let mut attempts: BTreeMap<At, u32> = BTreeMap::new();
        for fact in &run.outcomes {
            prop_assert!(!ends.contains_key(&fact.entry.at), "a fact after the end: {fact:?}");
            let before = attempts.insert(fact.entry.at, fact.entry.totals.attempts).unwrap_or(0);
            prop_assert!(fact.entry.totals.attempts >= before, "{fact:?} after {before}");
            if fact.kind.is_end() {
                ends.insert(fact.entry.at, fact.kind);
            }
        }
        let mut first_of: BTreeMap<(NotificationId, RunId), u64> = BTreeMap::new();
        for record in &run.log {
            let first = *first_of.entry((record.notification, record.run)).or_insert(record.offset);
            let ended = ends.contains_key(&at(record.offset));
            prop_assert_eq!(ended, first == record.offset, "offset {}", record.offset);
        }
        for (id, accepted) in &run.accepted {
            prop_assert!(*accepted <= 1 + run.takeovers, "{id:?} was accepted {accepted} times");
        }
        prop_assert_eq!(run.process.in_flight, [0, 0]);
        prop_assert_eq!(run.process.facts, 0);
        prop_assert_eq!(run.process.ahead_bytes, 0);
        prop_assert_eq!(run.process.kept_bytes, 0);
    }
}

#[test]
fn a_notification_that_is_always_refused_does_not_hold_up_new_ones() {
    let (mut hook, mut process) = hook();
    let mut ladder = vec![Duration::from_millis(10); 20];
    ladder[0] = Duration::ZERO;
    hook.rules.ladder = Arc::new(Ladder::new(ladder).unwrap());
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    // Tried more often than it takes notifications to make a webhook broken.
    let mut time = 0;
    for tried in 0..12 {
        time = tried * 20;
        let refused = attempt(hook.next(now(time), &mut process));
        assert_eq!(refused.at, at(0));
        hook.finished(refused.at, &report(400), now(time), 0, &mut process);
        acknowledge(&mut hook, &mut process, time);
    }
    assert_eq!(hook.open(), 1, "it goes on to be tried");
    for (offset, round) in (1..).zip(0..20) {
        let n = 100 + round;
        hook.arrived(0, arrived(offset, n, 0), &mut process);
        let good = attempt(hook.next(now(time), &mut process));
        assert_eq!(good.at, at(offset), "round {round}");
        hook.finished(
            good.at,
            &report(if round < 6 { 400 } else { 200 }),
            now(time),
            0,
            &mut process,
        );
        acknowledge(&mut hook, &mut process, time);
    }
}

#[test]
fn the_places_of_a_silent_webhook_are_those_of_suspects_until_it_answers() {
    let (mut hook, mut process) = hook();
    let start = |hook: &mut Hook<u32>, process: &mut Process, offset: u64, millis| {
        let n = u8::try_from(offset).unwrap();
        hook.arrived(0, arrived(offset, n, 0), process);
        hook.next(now(millis), process)
    };
    for offset in 0..3 {
        attempt(start(&mut hook, &mut process, offset, 0));
    }
    assert_eq!(process.suspects, 0);
    assert_eq!(hook.next_due(now(1)), Some(now(1000)), "it is looked at by then");
    assert!(matches!(start(&mut hook, &mut process, 3, 1000), Step::Idle), "nothing more");
    assert_eq!((process.suspects, process.counts.silences), (3, 1));
    hook.finished(at(0), &report(200), now(1500), 0, &mut process);
    assert_eq!(process.suspects, 0);
    attempt(hook.next(now(1500), &mut process));
}

#[test]
fn a_webhook_that_was_activated_while_nobody_owned_it_starts_anew() {
    let (_, mut process) = hook();
    let rules = Rules::plain(4, Arc::new(Ladder::standard()));
    let mut hook: Hook<u32> = Hook::new(WebhookId::from_bytes([1; 16]), Standing::Active, rules);
    let alarm = Alarm { suspended: Some(now(0)), since: Some(now(0)), ..Alarm::default() };
    let health = crate::Health { failing_since: Some(now(0)), ..crate::Health::default() };
    let checkpoint = Checkpoint { alarm, health, ..Checkpoint::default() };
    hook.restore(0, &checkpoint, now(300_000_000), &mut process);
    assert_eq!(hook.failing().0, None, "its next failure does not suspend it again");
    assert_eq!(hook.cut(0, Sabotage::None).unwrap().0.alarm, Alarm::default());
}

/// How an endpoint that always answers 500 after a millisecond fares: when each of `count`
/// notifications ended, in milliseconds, while `may_go_on` says so.
fn refuse_all(
    ladder: Ladder,
    pace: crate::Pace,
    count: u8,
    may_go_on: impl Fn(&Hook<u32>, i64) -> bool,
) -> Vec<i64> {
    let rules = Rules::plain(64, Arc::new(ladder));
    let mut hook: Hook<u32> = Hook::new(WebhookId::from_bytes([1; 16]), Standing::Active, rules);
    hook.add_partition(0, 0);
    let mut process = Process::new(Limits { pace, ..Limits::default() });
    for n in 0..count {
        hook.arrived(0, arrived(u64::from(n), n, 0), &mut process);
    }
    let (mut ends, mut time) = (Vec::new(), 0);
    while ends.len() < usize::from(count) && may_go_on(&hook, time) {
        let mut flying = Vec::new();
        loop {
            match hook.next(now(time), &mut process) {
                Step::Attempt(attempt) => flying.push(attempt.at),
                Step::Load(place) => {
                    let record = arrived(place.offset, u8::try_from(place.offset).unwrap(), 0);
                    hook.loaded(place, Some(record), now(time), &mut process);
                    flying.push(place);
                }
                Step::Idle => break,
            }
        }
        assert!(!hook.gate.is_broken() || flying.len() <= 1, "one probe at a time");
        let is_idle = flying.is_empty();
        time += 1;
        for place in flying {
            hook.finished(place, &report(500), now(time), 0, &mut process);
        }
        let kinds = acknowledge(&mut hook, &mut process, time);
        ends.extend(kinds.iter().filter(|kind| kind.is_end()).map(|_| time));
        if is_idle && let Some(due) = hook.next_due(now(time)) {
            time = time.max(due.as_millis() - now(0).as_millis());
        }
    }
    ends
}

#[test]
fn in_development_fifty_notifications_to_a_dead_endpoint_end_within_seconds() {
    let ends = refuse_all(Ladder::fast(), crate::Pace::quick(), 50, |_, time| time < 60_000);
    assert_eq!(ends.len(), 50);
    let last = ends.last().unwrap();
    assert!(*last <= 15_000, "the last one ended after {last} ms");
}

#[test]
fn retries_by_the_ladder_do_not_put_off_the_next_new_one() {
    // A ladder that tries something every second: the next gap ends all the same.
    let ladder = Ladder::new(vec![Duration::from_secs(1); 60]).unwrap();
    let pace = crate::Pace::default();
    let most = std::cell::Cell::new(0);
    refuse_all(ladder, pace, 20, |hook, time| {
        most.set(hook.open().max(most.get()));
        time < 40_000
    });
    assert!((13..=15).contains(&most.get()), "8, and one after 1, 2, 4, 8, 16, 32 s: {most:?}");
}

#[test]
fn an_urgent_one_is_read_and_tried_first_also_at_a_dead_endpoint_with_many_open() {
    let ladder = Ladder::standard();
    let rules = Rules::plain(64, Arc::new(ladder));
    let mut hook: Hook<u32> = Hook::new(WebhookId::from_bytes([1; 16]), Standing::Active, rules);
    hook.add_partition(0, 0);
    hook.add_partition(1, 0);
    let mut process = Process::new(Limits { pace: crate::Pace::quick(), ..Limits::default() });
    for n in 0..100 {
        hook.arrived(0, arrived(u64::from(n), n, 0), &mut process);
    }
    let mut time = 0;
    while hook.open() < 64 {
        while let Step::Attempt(attempt) = hook.next(now(time), &mut process) {
            hook.finished(attempt.at, &report(500), now(time), 0, &mut process);
            acknowledge(&mut hook, &mut process, time);
        }
        time += 50;
    }
    assert_eq!(hook.reading(0, now(time), &process), Reading::Stop);
    assert_eq!(hook.reading(1, now(time), &process), Reading::Go, "the urgent lane is read");
    hook.arrived(1, Arrived { lane: Lane::Urgent, ..arrived(0, 200, 0) }, &mut process);
    assert_eq!(hook.reading(1, now(time), &process), Reading::Hold, "of it no more than one batch");
    let probe = attempt(hook.next(now(time + 2000), &mut process));
    assert_eq!(probe.at.partition, 1, "the next probe is the urgent one");
}

#[test]
fn with_a_single_request_at_a_time_the_urgent_lane_goes_first() {
    let rules = Rules::plain(1, Arc::new(Ladder::standard()));
    let mut hook: Hook<u32> = Hook::new(WebhookId::from_bytes([1; 16]), Standing::Active, rules);
    hook.add_partition(0, 0);
    hook.add_partition(1, 0);
    hook.gate.succeeded(Timestamp::ZERO);
    let mut process = Process::new(Limits::default());
    for n in 0..3 {
        hook.arrived(0, arrived(u64::from(n), n, 0), &mut process);
    }
    let first = attempt(hook.next(now(0), &mut process));
    for n in 0..2 {
        let urgent = Arrived { lane: Lane::Urgent, ..arrived(u64::from(n), 10 + n, 0) };
        hook.arrived(1, urgent, &mut process);
    }
    let (mut last, mut partitions) = (first.at, Vec::new());
    for time in 1..5 {
        assert!(matches!(hook.next(now(time), &mut process), Step::Idle), "one at a time");
        hook.finished(last, &report(200), now(time), 0, &mut process);
        acknowledge(&mut hook, &mut process, time);
        last = attempt(hook.next(now(time), &mut process)).at;
        partitions.push(last.partition);
    }
    assert_eq!(partitions, [1, 1, 0, 0]);
}

#[test]
fn a_pause_of_the_standard_lane_holds_no_urgent_one_and_ends_when_the_url_is_another() {
    let (mut hook, mut process) = hook();
    hook.add_partition(1, 0);
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    let busy = Report { retry_after: Some(Duration::from_secs(20)), ..report(503) };
    hook.finished(first.at, &busy, now(0), 0, &mut process);
    acknowledge(&mut hook, &mut process, 0);
    hook.arrived(1, Arrived { lane: Lane::Urgent, ..arrived(0, 2, 0) }, &mut process);
    let urgent = attempt(hook.next(now(1), &mut process));
    assert_eq!(urgent.lane, Lane::Urgent);
    hook.finished(urgent.at, &report(200), now(2), 0, &mut process);
    hook.arrived(0, arrived(1, 3, 0), &mut process);
    assert!(matches!(hook.next(now(3), &mut process), Step::Idle), "its endpoint asked to wait");
    let moved = Rules { target: 7, ..hook.rules.clone() };
    hook.set(Standing::Active, moved, now(4), &mut process);
    let next = attempt(hook.next(now(4), &mut process));
    assert_eq!((next.at, next.number), (at(1), 1));
}

#[test]
fn in_strict_order_a_pause_is_of_both_lanes() {
    let (mut hook, mut process) = hook();
    hook.rules.ordering = Ordering::Strict;
    hook.add_partition(1, 0);
    hook.arrived(0, arrived(0, 1, 0), &mut process);
    assert!(matches!(hook.next(now(0), &mut process), Step::Idle));
    acknowledge(&mut hook, &mut process, 0);
    let first = attempt(hook.next(now(0), &mut process));
    let busy = Report { retry_after: Some(Duration::from_secs(20)), ..report(503) };
    hook.finished(first.at, &busy, now(0), 0, &mut process);
    assert_eq!(hook.gate.health().paused_until, [now(20_000); 2]);
}
