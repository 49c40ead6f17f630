//! The sender on the memory broker, with scripted endpoints, under paused time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test, also in what it is made of")]

mod pauses;
mod reads;
mod world;

use std::{sync::Arc, time::Duration};

use tidings_delivery::Standing;
use tidings_egress::{Policy, Target};
use tidings_proto::v1::OutcomeKind as Kind;
use tidings_sender::{LiveSecret, Signing};
use tidings_signing::WebhookSecret;
use tidings_types::{Clock as _, Ordering, TopicPartition, names};

use crate::world::{Answer, World, hook_id, notification};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_notification_is_delivered_signed_and_with_its_id_in_the_body() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("one call", |calls| !calls.is_empty()).await;
    world.pass(seconds(1)).await;
    let calls = world.calls();
    assert_eq!(calls.len(), 1);
    let (call, id) = (&calls[0], notification(1).to_string());
    assert_eq!(call.body, format!("{{\"id\":\"{id}\",\"n\":1}}"));
    assert_eq!(call.id, id);
    assert_eq!(call.attempt, 1);
    let timestamp: i64 = call.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    let secret = WebhookSecret::from_bytes(&[1; 32]);
    assert_eq!(call.headers["webhook-signature"], secret.sign_v1(&id, timestamp, &call.body));
    assert_eq!(call.headers["x-eds-event-code"], "104");
    assert_eq!(call.headers["content-type"], "application/json");
    // One fact for a healthy delivery.
    assert_eq!(world.kinds(1).await, [Kind::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_repeated_by_the_ladder_until_it_succeeds() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.behave(|call| Answer::Status(if call.attempt < 4 { 500 } else { 204 }));
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("four calls", |calls| calls.len() == 4).await;
    world.pass(seconds(5)).await;
    let calls = world.calls();
    assert_eq!(calls.iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (pair, step) in calls.windows(2).zip([100, 200, 400]) {
        let waited = pair[1].at - pair[0].at;
        assert!(waited >= Duration::from_millis(step), "{waited:?} {step}");
        assert!(waited <= Duration::from_millis(step * 11 / 10 + 50), "{waited:?} {step}");
    }
    assert!(calls.iter().all(|call| call.body == calls[0].body));
    use Kind::{AttemptFailed, Delivered};
    assert_eq!(world.kinds(1).await, [AttemptFailed, AttemptFailed, AttemptFailed, Delivered]);
}

#[tokio::test(start_paused = true)]
async fn a_notification_ends_undelivered_after_the_last_step() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.behave(|_| Answer::Status(500));
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.pass(seconds(60)).await;
    assert_eq!(world.calls().len(), 5);
    let facts = world.facts().await;
    let last = facts.last().unwrap();
    assert_eq!((last.kind(), last.reason.as_str()), (Kind::Undelivered, "exhausted"));
    assert_eq!((last.attempt, last.code.as_str()), (5, "HTTP_500"));
}

#[tokio::test(start_paused = true)]
async fn gone_ends_the_notification_and_retry_after_lengthens_a_step() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    let gone = notification(1).to_string();
    world.behave(move |call| match call.attempt {
        _ if call.id == gone => Answer::Status(410),
        1 => Answer::RetryAfter(503, "7"),
        _ => Answer::Status(200),
    });
    world.sender(1);
    world.deliver(hook_id(1), [1, 2]).await;
    world.pass(seconds(60)).await;
    assert_eq!(world.kinds(1).await, [Kind::Undelivered]);
    let calls = world.calls();
    let times: Vec<_> =
        calls.iter().filter(|c| c.id == notification(2).to_string()).map(|c| c.at).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= seconds(7), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_loses_nothing_repeats_nothing_that_ended_and_goes_on_counting() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    let failing = notification(7).to_string();
    world.behave(move |call| {
        Answer::Status(if call.id == failing && call.attempt < 4 { 500 } else { 200 })
    });
    let (_, first) = world.sender(1);
    world.deliver(hook_id(1), 0..50).await;
    world.until("51 calls", |calls| calls.len() >= 51).await;
    // Outcomes are acknowledged in microseconds here; the checkpoint is not written.
    world.pass(Duration::from_millis(20)).await;
    first.abort();
    world.deliver(hook_id(1), 50..60).await;
    world.sender(2);
    world.until("all", |calls| calls.len() >= 63).await;
    world.pass(seconds(5)).await;
    let calls = world.calls();
    for n in 0..60 {
        let id = notification(n).to_string();
        let attempts: Vec<u32> =
            calls.iter().filter(|call| call.id == id).map(|call| call.attempt).collect();
        if n == 7 {
            assert_eq!(attempts, [1, 2, 3, 4], "numbers go on over the takeover");
        } else {
            assert_eq!(attempts, [1], "{n}");
        }
        assert_eq!(world.kinds(n).await.last(), Some(&Kind::Delivered), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replayed_record_is_not_sent_again_also_not_after_a_takeover() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    let (stop, _) = world.sender(1);
    world.deliver(hook_id(1), [1, 2, 1]).await;
    world.until("two calls", |calls| calls.len() >= 2).await;
    world.pass(seconds(5)).await;
    assert_eq!(world.calls().len(), 2);
    stop.cancel();
    world.pass(seconds(10)).await;
    world.sender(2);
    world.deliver(hook_id(1), [2, 3]).await;
    world.until("the new one", |calls| calls.len() >= 3).await;
    world.pass(seconds(5)).await;
    let ids: Vec<String> = world.calls().into_iter().map(|call| call.id).collect();
    assert_eq!(ids, [1, 2, 3].map(|n| notification(n).to_string()));
}

#[tokio::test(start_paused = true)]
async fn without_the_refill_a_replayed_record_is_sent_again() {
    let mut world = World::new().await;
    world.sabotage = tidings_types::Sabotage::NoRefill;
    world.webhook(hook_id(1)).await;
    let (stop, _) = world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("one call", |calls| !calls.is_empty()).await;
    stop.cancel();
    world.pass(seconds(10)).await;
    world.sender(2);
    world.deliver(hook_id(1), [1]).await;
    world.until("the planted fault", |calls| calls.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_resend_joins_an_open_notification_and_is_a_run_of_its_own_afterwards() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.behave(|call| match call.attempt {
        1 => Answer::RetryAfter(503, "3000"),
        _ => Answer::Status(200),
    });
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("a failed attempt", |calls| calls.len() == 1).await;
    world.pass(seconds(10)).await;
    assert_eq!(world.calls().len(), 1, "it waits");
    world.append(hook_id(1), vec![world.record(1, &[5; 16], 0)]).await;
    world.pass(seconds(1)).await;
    let attempts: Vec<u32> = world.calls().iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 2], "due at once, in the same run");
    let kinds = world.kinds(1).await;
    assert!(kinds.contains(&Kind::Joined), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&Kind::Delivered));
    world.behave(|_| Answer::Status(200));
    world.append(hook_id(1), vec![world.record(1, &[6; 16], 0)]).await;
    world.until("a run of its own", |calls| calls.len() == 3).await;
    assert_eq!(world.calls()[2].attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_leaves_its_backlog_in_the_topic_and_recovers() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.webhook(hook_id(2)).await;
    world.behave(|call| Answer::Status(if call.webhook == hook_id(1) { 503 } else { 200 }));
    world.sender(1);
    world.deliver(hook_id(1), 0..2000).await;
    world.pass(Duration::from_millis(900)).await;
    let dead: std::collections::BTreeSet<String> =
        world.calls().into_iter().map(|call| call.id).collect();
    assert!(dead.len() <= 80, "{} were taken up of a dead endpoint", dead.len());
    world.deliver(hook_id(2), 5000..5100).await;
    world
        .until("the healthy one is served", |calls| {
            calls.iter().filter(|call| call.webhook == hook_id(2)).count() == 100
        })
        .await;
    world.behave(|_| Answer::Status(200));
    world
        .until("the backlog", |calls| {
            calls.iter().any(|call| call.id == notification(1999).to_string())
        })
        .await;
    world.pass(seconds(5)).await;
    for n in [0, 1, 70, 1000, 1999] {
        assert_eq!(world.kinds(n).await.last(), Some(&Kind::Delivered), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_a_notification_expires_without_an_attempt() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.behave(|_| Answer::Status(500));
    world.sender(1);
    let now = world.clock.now();
    let past = world.record(1, &[0; 16], now.as_millis() - 1);
    let soon = world.record(2, &[0; 16], now.as_millis() + 250);
    world.append(hook_id(1), vec![past, soon]).await;
    world.pass(seconds(30)).await;
    assert_eq!(world.kinds(1).await, [Kind::Expired]);
    assert_eq!(world.kinds(2).await.last(), Some(&Kind::Expired));
    let calls = world.calls();
    assert!(calls.iter().all(|call| call.id == notification(2).to_string()));
    assert!(calls.iter().all(|call| call.at < Duration::from_millis(260)), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_for_an_inactive_webhook_expires_at_its_deadline() {
    let mut world = World::new().await;
    world.config.limits.expiring = [true, true];
    world.webhook(hook_id(1)).await;
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("it is read", |calls| calls.len() == 1).await;
    world.hooks.change(hook_id(1), |webhook| webhook.standing = Standing::Inactive);
    let deadline = (world.clock.now() + seconds(5)).as_millis();
    let records = [(2, 0), (3, deadline), (4, deadline + 3_600_000)]
        .map(|(n, deadline)| world.record(n, &[0; 16], deadline));
    world.append(hook_id(1), records.to_vec()).await;
    world.pass(seconds(4)).await;
    assert_eq!(world.kinds(3).await, []);
    world.pass(seconds(2)).await;
    assert_eq!(world.kinds(3).await, [Kind::Expired]);
    // Another owner does not send it, nor end it again.
    world.senders.shutdown().await;
    world.sender(2);
    world.pass(seconds(20)).await;
    world.hooks.change(hook_id(1), |webhook| webhook.standing = Standing::Active);
    world.until("the others go out", |calls| calls.len() == 3).await;
    world.pass(seconds(20)).await;
    let ids: Vec<String> = world.calls().iter().map(|call| call.id.clone()).collect();
    assert_eq!(ids, [1, 2, 4].map(|n| notification(n).to_string()));
    assert_eq!(world.kinds(3).await, [Kind::Expired]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_follows_a_change_that_stands_before_anybody_is_told_of_it() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("the first", |calls| calls.len() == 1).await;
    world.hooks.change_quietly(hook_id(1), |webhook| {
        let Signing::Standard(secrets) = &mut webhook.signing else { panic!("no secrets") };
        let secret = WebhookSecret::from_bytes(&[2; 32]);
        secrets.push(LiveSecret { secret, ..secrets[0].clone() });
    });
    world.deliver(hook_id(1), [2]).await;
    world.until("the second", |calls| calls.len() == 2).await;
    let signatures = world.calls()[1].headers["webhook-signature"].to_str().unwrap().to_owned();
    assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
    world.hooks.change_quietly(hook_id(1), |webhook| webhook.standing = Standing::Inactive);
    world.deliver(hook_id(1), [3]).await;
    world.pass(seconds(20)).await;
    assert_eq!(world.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_inactive_webhook_waits_and_a_deleted_one_is_cancelled_and_loses_its_topic() {
    let mut world = World::new().await;
    world.config.keep_deleted = seconds(60);
    world.webhook(hook_id(1)).await;
    world.hooks.change(hook_id(1), |webhook| webhook.standing = Standing::Inactive);
    world.sender(1);
    world.deliver(hook_id(1), [1, 2]).await;
    world.pass(seconds(20)).await;
    assert!(world.calls().is_empty());
    world.hooks.change(hook_id(1), |webhook| webhook.standing = Standing::Active);
    world.until("they go out", |calls| calls.len() == 2).await;
    let deleted = world.clock.now();
    world.hooks.change(hook_id(1), |webhook| {
        webhook.standing = Standing::Deleted;
        webhook.deleted = Some(deleted);
    });
    world.deliver(hook_id(1), [3]).await;
    world.pass(seconds(30)).await;
    assert_eq!(world.kinds(3).await, [Kind::Cancelled]);
    assert!(world.broker.describe(&names::delivery(hook_id(1))).await.is_ok());
    world.pass(seconds(60)).await;
    assert!(world.broker.describe(&names::delivery(hook_id(1))).await.is_err());
    assert_eq!(*world.hooks.told.lock(), ["topic deleted"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_but_failures_suspends_the_webhook_and_ends_its_queue() {
    let mut world = World::new().await;
    world.config.limits.suspend.suspend_after = seconds(1);
    world.webhook(hook_id(1)).await;
    world.behave(|_| Answer::Status(500));
    world.sender(1);
    world.deliver(hook_id(1), 0..300).await;
    world.pass(seconds(30)).await;
    assert_eq!(*world.hooks.told.lock(), ["suspend failing"]);
    let facts = world.facts().await;
    let suspended = facts.iter().filter(|fact| fact.reason == "suspended").count();
    assert!(suspended > 200, "{suspended}");
    let told: Vec<_> = world.operational().await.iter().map(|(_, event)| words(event)).collect();
    assert_eq!(told, ["webhook.suspended HTTP_500 failing"]);
}

/// H5 of `reliability-security.md` §7.10.
#[tokio::test(start_paused = true)]
async fn while_nobody_is_found_nothing_is_sent_and_nothing_counts() {
    let mut world = World::new().await;
    world.lose_until(seconds(60));
    world.sender(1);
    for n in 0..50 {
        let (hook, manager) = (hook_id(n + 1), 20 + u32::from(n) % 5);
        world.webhook_of(hook, manager).await;
        let first = 10 * u32::from(n);
        let records = (first..first + 3).map(|n| world.owned(n, manager)).collect();
        world.append(hook, records).await;
    }
    world.pass(seconds(10)).await;
    let attempts = world.script.calls.lock().len();
    world.pass(seconds(50)).await;
    assert_eq!(world.script.calls.lock().len(), attempts, "no attempt after ten seconds");
    let counted = world.facts().await;
    assert!(counted.len() < 60, "only what failed before it was clear counts: {}", counted.len());
    // Longer than the whole ladder takes, and yet nothing has ended.
    assert!(counted.iter().all(|fact| fact.kind() == Kind::AttemptFailed), "{counted:?}");
    world.pass(seconds(10)).await;
    let delivered =
        world.facts().await.iter().filter(|fact| fact.kind() == Kind::Delivered).count();
    assert_eq!(delivered, 150);
}

/// A client that corrects its URL meanwhile waits for nobody: its endpoint is looked for
/// at once, by an attempt.
#[tokio::test(start_paused = true)]
async fn a_webhook_whose_url_changes_is_tried_at_once_while_nobody_is_found() {
    let mut world = World::new().await;
    world.lose_until(seconds(600));
    world.sender(1);
    for n in 0..50 {
        let (hook, manager) = (hook_id(n + 1), 20 + u32::from(n) % 5);
        world.webhook_of(hook, manager).await;
        world.append(hook, vec![world.owned(u32::from(n), manager)]).await;
    }
    world.pass(seconds(10)).await;
    let of_first = |world: &World| {
        world.script.calls.lock().iter().filter(|call| call.webhook == hook_id(1)).count()
    };
    let before = of_first(&world);
    world.hooks.change(hook_id(1), |webhook| {
        let target = Target::parse("http://127.0.0.1:9/other", &Policy::dev()).unwrap();
        webhook.target = Ok(Arc::new(target));
    });
    world.pass(seconds(2)).await;
    assert_eq!(of_first(&world), before + 1);
}

fn calls_of(world: &World, hook: u8) -> usize {
    world.calls().iter().filter(|call| call.webhook == hook_id(hook)).count()
}

/// To look for an endpoint that was found before, and not to find it, says nothing of its
/// webhook.
#[tokio::test(start_paused = true)]
async fn a_webhook_that_was_found_before_goes_on_while_nobody_is_found() {
    let mut world = World::new().await;
    world.sender(1);
    world.webhook(hook_id(100)).await;
    world.deliver(hook_id(100), [900]).await;
    world.until("a call", |calls| calls.len() == 1).await;
    world.pass(seconds(1)).await;
    world.lose_until(seconds(600));
    for n in 0..12 {
        let (hook, manager) = (hook_id(n + 1), 20 + u32::from(n) % 5);
        world.webhook_of(hook, manager).await;
        world.append(hook, vec![world.owned(u32::from(n), manager)]).await;
    }
    // Both those that stand still and the one that was found have been looked for.
    world.pass(seconds(30)).await;
    assert!(world.calls().len() < 40, "they stand still");
    world.deliver(hook_id(100), [901]).await;
    world.pass(seconds(5)).await;
    assert_eq!(calls_of(&world, 100), 2);
}

fn move_to(world: &World, hook: u8, path: &str) {
    let target = Target::parse(&format!("http://127.0.0.1:9/{path}"), &Policy::dev()).unwrap();
    world.hooks.change(hook_id(hook), |webhook| webhook.target = Ok(Arc::new(target)));
}

/// What became of the endpoint before says nothing about the corrected one.
#[tokio::test(start_paused = true)]
async fn a_webhook_whose_url_changed_is_not_held_for_what_the_old_one_came_to() {
    // Its URL changes before so many are not found that it is our fault.
    let mut world = World::new().await;
    world.lose_until(seconds(600));
    world.sender(1);
    for n in 0..10 {
        world.webhook_of(hook_id(n + 1), 20 + u32::from(n) % 5).await;
    }
    world.pass(seconds(5)).await;
    for n in 0..9 {
        let manager = 20 + u32::from(n) % 5;
        world.append(hook_id(n + 1), vec![world.owned(u32::from(n), manager)]).await;
    }
    world.pass(Duration::from_millis(20)).await;
    assert_eq!(world.calls().len(), 9);
    move_to(&world, 1, "other");
    world.append(hook_id(10), vec![world.owned(9, 24)]).await;
    world.pass(seconds(2)).await;
    assert_eq!(calls_of(&world, 1), 2, "the corrected one was tried");

    // Its URL changes while an attempt at the old one is under way.
    let hooks = Arc::clone(&world.hooks);
    let target = Target::parse("http://127.0.0.1:9/third", &Policy::dev()).unwrap();
    let third = parking_lot::Mutex::new(Some(Arc::new(target)));
    world.behave(move |call| {
        if call.webhook == hook_id(2)
            && let Some(target) = third.lock().take()
        {
            hooks.change(hook_id(2), |webhook| webhook.target = Ok(target));
        }
        Answer::Status(200)
    });
    let before = calls_of(&world, 2);
    move_to(&world, 2, "other");
    world.pass(seconds(2)).await;
    assert_eq!(calls_of(&world, 2), before + 2, "both corrected ones were tried");
}

#[tokio::test(start_paused = true)]
async fn names_that_lead_nowhere_are_their_owners_fault_while_others_are_found() {
    let mut world = World::new().await;
    world.sender(1);
    world.webhook(hook_id(1)).await;
    world.deliver(hook_id(1), 0..5).await;
    world.pass(seconds(5)).await;
    assert_eq!(world.script.calls.lock().len(), 5);
    // All of one tenant.
    world.lose_until(seconds(60));
    for n in 1..40 {
        world.webhook(hook_id(n + 1)).await;
        world.deliver(hook_id(n + 1), [10 * u32::from(n)]).await;
    }
    world.pass(seconds(20)).await;
    let ended = world.facts().await.iter().filter(|fact| fact.kind() == Kind::Undelivered).count();
    assert_eq!(ended, 39);
}

/// Type, last code and reason of an operational event; the rest of it is as it should
/// be.
fn words(event: &[u8]) -> String {
    let event: serde_json::Value = serde_json::from_slice(event).unwrap();
    let object = &event["event_body"]["object"];
    assert_eq!(object["key"], hook_id(1).to_string());
    assert_eq!(object["owner"], "pm:20");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let words = [&event["event_type"], &object["last_code"], &object["reason"]].map(text);
    words.join(" ")
}

#[tokio::test(start_paused = true)]
async fn operators_are_told_of_a_webhook_that_fails_and_of_its_recovery() {
    let mut world = World::new().await;
    world.config.limits.failing_after = seconds(2);
    world.webhook(hook_id(1)).await;
    world.behave(|call| Answer::Status(if call.at < seconds(8) { 503 } else { 200 }));
    world.sender(1);
    // A short stretch of failures is no news.
    world.deliver(hook_id(1), [1]).await;
    world.pass(Duration::from_millis(1900)).await;
    assert_eq!(world.operational().await, []);
    world.deliver(hook_id(1), 2..40).await;
    world.pass(seconds(30)).await;
    let told: Vec<_> = world.operational().await.iter().map(|(_, event)| words(event)).collect();
    assert_eq!(told, ["webhook.failing HTTP_503 -", "webhook.recovered DELIVERED -"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_over_tells_what_was_not_told_and_repeats_the_same_event() {
    let mut world = World::new().await;
    world.config.limits.failing_after = seconds(2);
    world.webhook(hook_id(1)).await;
    world.behave(|_| Answer::Status(503));
    let (_, first) = world.sender(1);
    world.deliver(hook_id(1), 0..40).await;
    world.until_operational(1).await;
    // The event stands in the log, no checkpoint says so yet.
    first.abort();
    let (_, second) = world.sender(2);
    let events = world.until_operational(2).await;
    assert_eq!(events[0], events[1], "the same event again");
    world.pass(seconds(20)).await;
    // One that went away before it told of anything.
    world.behave(|_| Answer::Status(200));
    second.abort();
    world.sender(3);
    world.pass(seconds(400)).await;
    let mut events = world.operational().await;
    events.dedup();
    let told: Vec<_> = events.iter().map(|(_, event)| words(event)).collect();
    assert_eq!(told, ["webhook.failing HTTP_503 -", "webhook.recovered DELIVERED -"]);
}

#[tokio::test(start_paused = true)]
async fn at_fifty_a_second_the_endpoint_counts_45_to_50_in_each_second() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.hooks.change(hook_id(1), |webhook| webhook.rate_per_second = 50);
    world.sender(1);
    world.deliver(hook_id(1), 0..1000).await;
    world.until("a first call", |calls| !calls.is_empty()).await;
    world.pass(seconds(15)).await;
    let calls = world.calls();
    let first = calls[0].at;
    for second in 1..14 {
        let from = first + seconds(second);
        let count = calls.iter().filter(|c| (from..from + seconds(1)).contains(&c.at)).count();
        assert!((45..=50).contains(&count), "{count} in second {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_pauses_the_whole_lane() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    let first = notification(1).to_string();
    world.behave(move |call| match call.attempt {
        1 if call.id == first => Answer::RetryAfter(429, "7"),
        _ => Answer::Status(200),
    });
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("it is asked to wait", |calls| calls.len() == 1).await;
    world.pass(seconds(1)).await;
    world.deliver(hook_id(1), 2..20).await;
    world.pass(seconds(5)).await;
    assert_eq!(world.calls().len(), 1);
    world.until("all", |calls| calls.len() == 20).await;
}

/// The number of a call, checked against its signature.
fn sequence(call: &world::Call) -> (String, u64) {
    let header = call.headers["x-eds-sequence"].to_str().unwrap();
    let (place, signature) = header.split_once("; v1=").unwrap();
    let (lane, number) = place.split_once('.').unwrap();
    let number = number.parse().unwrap();
    let timestamp: i64 = call.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    let secret = WebhookSecret::from_bytes(&[1; 32]);
    let lane_named = tidings_types::Lane::Standard;
    assert_eq!(signature, secret.sign_sequence(&call.id, timestamp, lane_named, number));
    (lane.to_owned(), number)
}

#[tokio::test(start_paused = true)]
async fn per_key_numbers_are_signed_and_a_stuck_key_holds_only_itself_also_over_a_takeover() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.hooks.change(hook_id(1), |webhook| webhook.ordering = Ordering::PerKey);
    // Three keys: those of the third fail until told otherwise.
    let stuck: Vec<String> =
        (0..60).filter(|n| n % 3 == 2).map(|n| notification(n).to_string()).collect();
    let fails = stuck.clone();
    world.behave(move |call| Answer::Status(if fails.contains(&call.id) { 500 } else { 200 }));
    let (_, first) = world.sender(1);
    let keyed = |world: &World, numbers: std::ops::Range<u32>| -> Vec<_> {
        numbers.map(|n| world.keyed(n, &format!("key {}", n % 3))).collect()
    };
    let records = keyed(&world, 0..60);
    world.append(hook_id(1), records).await;
    world.pass(seconds(20)).await;
    first.abort();
    world.behave(|_| Answer::Status(200));
    let records = keyed(&world, 60..63);
    world.append(hook_id(1), records).await;
    world.sender(2);
    world
        .until("all", |calls| {
            let ids: std::collections::BTreeSet<_> = calls.iter().map(|call| &call.id).collect();
            ids.len() == 63
        })
        .await;
    world.pass(seconds(5)).await;
    let mut by_key: std::collections::BTreeMap<u32, Vec<u32>> = Default::default();
    for call in world.calls() {
        let n = (0..63).find(|n| notification(*n).to_string() == call.id).unwrap();
        assert_eq!(sequence(&call), ("standard".to_owned(), u64::from(n) + 1));
        by_key.entry(n % 3).or_default().push(n);
    }
    for (key, mut calls) in by_key {
        assert!(calls.is_sorted(), "{key}: {calls:?}");
        assert_eq!(key == 2, calls.iter().filter(|n| **n == 2).count() > 1);
        calls.dedup();
        assert_eq!(calls.len(), 21);
    }
}

#[tokio::test(start_paused = true)]
async fn strict_order_is_one_at_a_time_and_in_the_order_of_the_log() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.hooks.change(hook_id(1), |webhook| webhook.ordering = Ordering::Strict);
    world.behave(|call| Answer::Status(if call.attempt == 1 { 500 } else { 200 }));
    world.sender(1);
    world.deliver(hook_id(1), 0..100).await;
    world.until("all", |calls| calls.len() == 200).await;
    let ids: Vec<String> = world.calls().into_iter().map(|call| call.id).collect();
    let expected: Vec<String> = (0..200).map(|place| notification(place / 2).to_string()).collect();
    assert_eq!(ids, expected);
}

#[tokio::test(start_paused = true)]
async fn a_second_sender_takes_its_share_and_nothing_is_sent_twice() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("one call", |calls| calls.len() == 1).await;
    // Two senders share the slots: each webhook still has one owner.
    world.sender(2);
    world.deliver(hook_id(1), 2..40).await;
    world.pass(seconds(30)).await;
    let mut ids: Vec<String> = world.calls().into_iter().map(|call| call.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), world.calls().len(), "nothing was sent twice");
    assert_eq!(ids.len(), 39);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_trimmed_from_the_delivery_topic() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.sender(1);
    world.deliver(hook_id(1), 0..100).await;
    world.pass(seconds(5)).await;
    let of = TopicPartition::new(names::delivery(hook_id(1)), 0);
    let ends = world.broker.ends(&of).await.unwrap();
    assert_eq!((ends.first, ends.end), (99, 100), "the record before the next one stays");
}
