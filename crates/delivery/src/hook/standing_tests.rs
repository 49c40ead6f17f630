//! What waits or is under way when a webhook's standing changes.

use std::{sync::Arc, time::Duration};

use tidings_types::{AttemptCode, Sabotage};

use super::*;
use crate::{Arrived, Ladder, Limits, Report, Totals};

fn hook() -> (Hook<u32>, Process) {
    let ladder = Ladder::new([0, 10, 10, 10].map(Duration::from_millis).to_vec()).unwrap();
    let rules = Rules::plain(4, Arc::new(ladder));
    let mut hook = Hook::new(WebhookId::from_bytes([1; 16]), Standing::Active, rules);
    hook.add_partition(0, 0);
    hook.gate.succeeded(Timestamp::ZERO);
    (hook, Process::new(Limits { pace: crate::Pace::quick(), ..Limits::default() }))
}

fn arrived(offset: u64, run: u8) -> Arrived<u32> {
    Arrived {
        offset,
        notification: NotificationId::from_bytes([1; 16]),
        run: RunId::from_bytes([run; 16]),
        lane: Lane::Standard,
        deadline: None,
        kind: 1,
        order_key: 0,
        state_key: None,
        number: 0,
        size: 100,
        body: 0,
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
        hook.acknowledged(fact, None, now(millis), process);
    }
    facts.iter().map(|fact| fact.kind).collect()
}

fn set(hook: &mut Hook<u32>, standing: Standing, millis: i64, process: &mut Process) {
    let rules = hook.rules.clone();
    hook.set(standing, rules, now(millis), process);
}

fn totals(hook: &Hook<u32>) -> Totals {
    hook.lane(0).unwrap().open[&0].entry.totals
}

/// One whose body is being read for its second attempt, at 20 ms.
fn loading() -> (Hook<u32>, Process) {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    hook.finished(first.at, &report(500), now(0), 0, &mut process);
    acknowledge(&mut hook, &mut process, 0);
    assert!(matches!(hook.next(now(20), &mut process), Step::Load(_)));
    assert_eq!(process.in_flight, [1, 0]);
    (hook, process)
}

/// Fails at 0 ms, and answers 410.
fn failing() -> (Hook<u32>, Process) {
    let (mut hook, mut process) = hook();
    hook.arrived(0, arrived(0, 0), &mut process);
    let first = attempt(hook.next(now(0), &mut process));
    let busy = Report { retry_after: Some(Duration::from_secs(60)), ..report(410) };
    hook.finished(first.at, &busy, now(0), 0, &mut process);
    acknowledge(&mut hook, &mut process, 0);
    (hook, process)
}

#[test]
fn what_a_webhook_failed_with_stands_when_we_find_somebody_again() {
    let (mut hook, mut process) = failing();
    let before = hook.cut(0, Sabotage::None).unwrap().0;
    hook.stand_still(true, now(1000));
    assert_eq!(hook.gate().standing(), Standing::Paused);
    hook.arrived(0, arrived(1, 0), &mut process);
    assert!(matches!(hook.next(now(2000), &mut process), Step::Idle));
    hook.stand_still(false, now(31_000));
    assert_eq!(hook.gate().standing(), Standing::Active);
    let after = hook.cut(0, Sabotage::None).unwrap().0;
    assert_eq!(after.alarm, before.alarm);
    assert_eq!(after.health.failing_since, Some(now(30_000)), "that time does not count");
    let health = crate::Health { failing_since: before.health.failing_since, ..after.health };
    assert_eq!(health, before.health);
    // Of an activation its owner says that it is repaired, also while we find nobody.
    hook.stand_still(true, now(32_000));
    set(&mut hook, Standing::Inactive, 33_000, &mut process);
    set(&mut hook, Standing::Active, 34_000, &mut process);
    assert_eq!(hook.gate().standing(), Standing::Paused);
    assert_eq!(hook.gate().health(), crate::Health::default());
    assert!(hook.stands_still());
}

#[test]
fn no_attempt_starts_when_its_body_comes_after_the_webhook_was_stopped() {
    for standing in [Standing::Inactive, Standing::Paused] {
        let (mut hook, mut process) = loading();
        set(&mut hook, standing, 21, &mut process);
        let started = hook.loaded(at(0), Some(arrived(0, 0)), now(22), &mut process);
        assert!(started.is_none(), "{standing:?}");
        assert_eq!((process.in_flight, process.facts), ([0, 0], 0));
        set(&mut hook, Standing::Active, 23, &mut process);
        assert!(matches!(hook.next(now(23), &mut process), Step::Load(_)), "{standing:?}");
    }
    for (standing, end) in [
        (Standing::Deleted, FactKind::Cancelled),
        (Standing::Suspended, FactKind::Undelivered(EndReason::Suspended)),
    ] {
        let (mut hook, mut process) = loading();
        set(&mut hook, standing, 21, &mut process);
        let record = Arrived { deadline: Some(now(1)), ..arrived(0, 0) };
        assert!(hook.loaded(at(0), Some(record), now(22), &mut process).is_none());
        assert!(matches!(hook.next(now(22), &mut process), Step::Idle));
        assert_eq!(acknowledge(&mut hook, &mut process, 22), [end]);
        assert_eq!((process.in_flight, hook.open()), ([0, 0], 0));
    }
}

#[test]
fn an_attempt_that_waited_for_its_key_starts_only_if_it_still_may() {
    let flying = |deadline| {
        let (mut hook, mut process) = hook();
        hook.arrived(0, Arrived { deadline, ..arrived(0, 0) }, &mut process);
        attempt(hook.next(now(0), &mut process));
        (hook, process)
    };
    let (mut hook, mut process) = flying(Some(now(10)));
    assert!(hook.may_still_start(at(0), now(9), &mut process));
    assert!(!hook.may_still_start(at(0), now(10), &mut process));
    assert_eq!(acknowledge(&mut hook, &mut process, 10), [FactKind::Expired]);
    assert_eq!(process.in_flight, [0, 0]);
    let (mut hook, mut process) = flying(None);
    set(&mut hook, Standing::Inactive, 1, &mut process);
    assert!(!hook.may_still_start(at(0), now(2), &mut process));
    assert!(!hook.may_still_start(at(0), now(2), &mut process), "it waits already");
    assert_eq!((process.in_flight, process.facts, hook.open()), ([0, 0], 0, 1));
    let (mut hook, mut process) = flying(None);
    process.paused.insert(1);
    assert!(!hook.may_still_start(at(0), now(2), &mut process));
    assert_eq!((process.in_flight, hook.held), ([0, 0], 1));
}

#[test]
fn an_attempt_that_could_not_be_made_keeps_the_fresh_ladder_of_a_resend() {
    let (mut hook, mut process) = loading();
    hook.arrived(0, arrived(1, 9), &mut process);
    assert!(matches!(hook.next(now(21), &mut process), Step::Idle));
    assert_eq!(acknowledge(&mut hook, &mut process, 21), [FactKind::TakenUp, FactKind::Joined]);
    hook.cut(0, Sabotage::None);
    hook.put_back(at(0), now(30), &mut process);
    let after = totals(&hook);
    assert_eq!((after.ladder_step, after.first_attempt), (0, Timestamp::ZERO));
    assert_eq!((after.attempts, after.due), (1, now(30)));
    assert!(hook.is_changed(0), "the next checkpoint says so");
    assert!(matches!(hook.next(now(30), &mut process), Step::Load(_)));
    hook.put_back(at(0), now(50), &mut process);
    assert_eq!(totals(&hook).due, now(50));
}

#[test]
fn what_is_past_its_window_ends_also_if_an_operator_stops_an_inactive_webhook() {
    for next in [Standing::Active, Standing::Paused] {
        let (mut hook, mut process) = hook();
        hook.arrived(0, arrived(0, 0), &mut process);
        let first = attempt(hook.next(now(0), &mut process));
        hook.finished(first.at, &report(500), now(0), 0, &mut process);
        acknowledge(&mut hook, &mut process, 0);
        set(&mut hook, Standing::Inactive, 1, &mut process);
        set(&mut hook, next, 100, &mut process);
        let ended = acknowledge(&mut hook, &mut process, 100);
        assert_eq!(ended, [FactKind::Undelivered(EndReason::Window)], "{next:?}");
    }
    // The time of a pause itself does not count.
    let (mut hook, mut process) = loading();
    hook.put_back(at(0), now(21), &mut process);
    set(&mut hook, Standing::Paused, 21, &mut process);
    set(&mut hook, Standing::Active, 1000, &mut process);
    assert_eq!(acknowledge(&mut hook, &mut process, 1000), []);
}
