//! Records of open notifications that cannot be read for a moment, or are gone.

use tidings_broker::{Damage, ReadError};
use tidings_proto::v1::OutcomeKind as Kind;
use tidings_types::{TopicPartition, names};

use crate::{
    seconds,
    world::{Answer, World, hook_id, notification},
};

/// A notification that waits without its body, with what its next reads come to. Gives
/// what became of it, and how many requests there were.
async fn waits_for(reads: Vec<ReadError>) -> (World, Vec<Kind>, usize) {
    let mut world = World::new().await;
    world.webhook(hook_id(1)).await;
    world.behave(|call| match call.attempt {
        1 => Answer::RetryAfter(503, "100"),
        _ => Answer::Status(200),
    });
    world.sender(1);
    world.deliver(hook_id(1), [1]).await;
    world.until("a failed attempt", |calls| calls.len() == 1).await;
    world.pass(seconds(90)).await;
    world.reads.plant(reads);
    world.pass(seconds(400)).await;
    assert_eq!(world.reads.left(), 0, "they were read");
    let (kinds, calls) = (world.kinds(1).await, world.calls().len());
    (world, kinds, calls)
}

fn place() -> TopicPartition {
    TopicPartition::new(names::delivery(hook_id(1)), 0)
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_unknown_or_unreadable_for_a_moment_ends_nothing() {
    let (partition, offset) = (place(), 0);
    let damage = Damage::Broken;
    for error in [
        ReadError::UnknownPartition(place()),
        ReadError::Unavailable,
        ReadError::Damaged { partition: partition.clone(), offset, damage },
        // The slot is taken over again, and finds that nothing is missing.
        ReadError::BeyondEnd { partition, offset, end: 0 },
    ] {
        let (_world, kinds, calls) = waits_for(vec![error.clone()]).await;
        assert_eq!(kinds, [Kind::AttemptFailed, Kind::Delivered], "{error}");
        assert_eq!(calls, 2, "{error}");
    }
    let (_world, kinds, _) = waits_for(vec![ReadError::UnknownPartition(place()); 20]).await;
    assert_eq!(kinds, [Kind::AttemptFailed, Kind::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_trimmed_ends_its_notification() {
    let gone = ReadError::Trimmed { partition: place(), offset: 0, first: 1 };
    let (world, kinds, calls) = waits_for(vec![gone]).await;
    assert_eq!(kinds, [Kind::AttemptFailed, Kind::Undelivered]);
    assert_eq!(calls, 1);
    let facts = world.facts().await;
    assert_eq!(facts.last().unwrap().reason, "exhausted");
    assert_eq!(facts.last().unwrap().notification.as_ref(), notification(1).as_bytes());
}
