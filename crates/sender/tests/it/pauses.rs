//! What operators stop waits, and goes out when it may go on.

use tidings_delivery::Standing;
use tidings_proto::v1::OutcomeKind as Kind;
use tidings_types::Clock as _;

use crate::{
    seconds,
    world::{Answer, World, hook_id, notification},
};

/// How often a notification was sent.
fn sent(world: &World, n: u32) -> usize {
    let id = notification(n).to_string();
    world.calls().iter().filter(|call| call.id == id).count()
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_pause_does_not_count_against_windows() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.behave(|call| Answer::Status(if call.attempt == 1 { 500 } else { 200 }));
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("a failure", |calls| calls.len() == 1).await;
    world.hooks.change(hook_id(1), |webhook| webhook.standing = Standing::Paused);
    world.deliver(hook_id(1), 2..12).await;
    // Far beyond the window of the ladder, 1.7 s.
    world.pass(seconds(3600)).await;
    assert_eq!(world.calls().len(), 1, "nothing is sent meanwhile");
    world.hooks.change(hook_id(1), |webhook| webhook.standing = Standing::Active);
    world.pass(seconds(60)).await;
    for n in 1..12 {
        assert_eq!(sent(&world, n), 2, "{n}");
        assert_eq!(world.kinds(n).await.last(), Some(&Kind::Delivered), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_type_waits_over_a_takeover_while_others_go_on() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.pause_types(&["104"]);
    let (_, first) = world.sender(1);
    let records = (0..40).map(|n| world.typed(n, if n % 2 == 0 { "104" } else { "105" }, 0));
    world.append(hook_id(1), records.collect()).await;
    world.until("the others", |calls| calls.len() == 20).await;
    world.pass(seconds(30)).await;
    first.abort();
    world.sender(2);
    world.append(hook_id(1), vec![world.typed(41, "105", 0)]).await;
    world.until("another one", |calls| calls.len() == 21).await;
    world.pass(seconds(100)).await;
    assert!((0..40).step_by(2).all(|n| sent(&world, n) == 0));
    world.pause_types(&[]);
    world.pass(seconds(30)).await;
    assert!((0..40).all(|n| sent(&world, n) == 1));
    assert!(world.facts().await.iter().all(|fact| fact.kind() == Kind::Delivered));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_never_ends_because_too_many_are_open() {
    let mut world = World::new().await;
    world.config.limits.max_open = 5;
    world.webhook(hook_id(1)).await;
    world.pause_types(&["104"]);
    world.sender(1);
    world.deliver(hook_id(1), 0..20).await;
    world.pass(seconds(100)).await;
    assert_eq!(world.calls().len(), 0);
    world.pause_types(&["105"]);
    world.pass(seconds(100)).await;
    for n in 0..20 {
        assert_eq!(world.kinds(n).await, [Kind::Delivered], "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_a_held_notification_expires() {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.pause_types(&["107"]);
    world.sender(1);
    let deadline = (world.clock.now() + seconds(60)).as_millis();
    world.append(hook_id(1), vec![world.typed(1, "107", deadline)]).await;
    world.pass(seconds(59)).await;
    assert_eq!(world.kinds(1).await, []);
    world.pass(seconds(40)).await;
    assert_eq!(world.kinds(1).await, [Kind::Expired]);
    world.pause_types(&[]);
    world.pass(seconds(100)).await;
    assert_eq!(world.calls().len(), 0);
}
