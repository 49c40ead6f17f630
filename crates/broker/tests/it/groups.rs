//! Groups: who owns which partition, and what is committed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidings_broker::{Broker, CommittedPosition, Group, GroupError, GroupEvent, Position};
use tidings_types::{Clock, TopicName};
use tokio::task::JoinSet;

use crate::lab::{Lab, at};

const SESSION: Duration = Duration::from_secs(6);

async fn join(broker: &Broker) -> Group {
    broker.join("g", &TopicName::new("slots"), SESSION).await.unwrap()
}

async fn assigned(group: &mut Group) -> Vec<u32> {
    match group.poll().await.unwrap() {
        GroupEvent::Assigned(partitions) => partitions,
        GroupEvent::Revoked(partitions) => panic!("revoked {partitions:?}"),
    }
}

async fn revoked(group: &mut Group) -> Vec<u32> {
    match group.poll().await.unwrap() {
        GroupEvent::Revoked(partitions) => partitions,
        GroupEvent::Assigned(partitions) => panic!("assigned {partitions:?}"),
    }
}

/// Whether nothing happens for `time`.
async fn quiet(group: &mut Group, time: Duration) -> bool {
    tokio::time::timeout(time, group.poll()).await.is_err()
}

fn position(next: u64, metadata: &str) -> Position {
    Position { of: at("slots", 0), next, metadata: metadata.to_owned() }
}

pub(crate) async fn a_lone_member_gets_everything(lab: Lab) {
    let broker = lab.broker();
    let early = broker.join("g", &"slots".into(), SESSION).await;
    assert!(early.is_err(), "there is no such topic yet");
    lab.topic("slots", 8).await;
    let mut member = join(&broker).await;
    assert_eq!(assigned(&mut member).await, (0..8).collect::<Vec<_>>());
    assert!(quiet(&mut member, SESSION * 5).await);
}

pub(crate) async fn a_join_moves_half_after_the_old_owner_has_polled_again(lab: Lab) {
    lab.topic("slots", 8).await;
    let broker = lab.broker();
    let mut old = join(&broker).await;
    assigned(&mut old).await;
    let mut new = join(&broker).await;
    assert!(quiet(&mut new, SESSION / 4).await, "the old owner has not been told");
    let moved = revoked(&mut old).await;
    assert_eq!(moved.len(), 4);
    assert!(quiet(&mut new, SESSION / 4).await, "the old owner still works on them");
    assert!(quiet(&mut old, SESSION / 4).await);
    assert_eq!(assigned(&mut new).await, moved);
    assert!(quiet(&mut new, SESSION / 4).await);
}

pub(crate) async fn a_leave_hands_over_at_once(lab: Lab) {
    lab.topic("slots", 5).await;
    let broker = lab.broker();
    let (mut first, mut second) = (join(&broker).await, join(&broker).await);
    let had = assigned(&mut first).await.len();
    let mine = assigned(&mut second).await;
    assert_eq!(had + mine.len(), 5);
    let before = lab.clock.monotonic();
    first.leave().await;
    assert_eq!(assigned(&mut second).await.len(), had);
    assert_eq!(lab.clock.monotonic(), before, "nobody waits for a session");
}

pub(crate) async fn a_dead_members_partitions_are_handed_over_after_its_session(lab: Lab) {
    lab.topic("slots", 4).await;
    let broker = lab.broker();
    let (mut dead, mut living) = (join(&broker).await, join(&broker).await);
    let lost = assigned(&mut dead).await;
    assigned(&mut living).await;
    let died = lab.clock.monotonic();
    drop(dead);
    assert_eq!(assigned(&mut living).await, lost);
    let took = lab.clock.monotonic().since(died);
    assert!(took >= SESSION, "{took:?}");
    assert!(took <= SESSION + Duration::from_millis(100), "{took:?}");
}

pub(crate) async fn a_member_that_does_not_poll_is_expelled_and_cannot_commit(lab: Lab) {
    lab.topic("slots", 2).await;
    let broker = lab.broker();
    let mut silent = join(&broker).await;
    assigned(&mut silent).await;
    silent.commit(vec![position(1, "alive")]).await.unwrap();
    tokio::time::advance(SESSION).await;
    let expelled = GroupError::Expelled("g".into());
    assert_eq!(silent.commit(vec![position(2, "dead")]).await, Err(expelled.clone()));
    assert_eq!(silent.poll().await, Err(expelled));
    let committed = broker.committed("g", &[at("slots", 0)]).await.unwrap();
    assert_eq!(committed[0].as_ref().unwrap().metadata, "alive");
    let mut again = join(&broker).await;
    assert_eq!(assigned(&mut again).await, [0, 1]);
}

pub(crate) async fn a_waiting_poll_keeps_the_member_alive(lab: Lab) {
    lab.topic("slots", 2).await;
    let broker = lab.broker();
    let mut member = join(&broker).await;
    assigned(&mut member).await;
    let liveness = member.liveness();
    for _ in 0..5 {
        assert!(quiet(&mut member, SESSION * 3).await);
        let silent = lab.clock.monotonic().since(liveness.last_alive());
        assert!(silent <= SESSION / 2, "{silent:?}");
        assert_eq!(member.last_alive(), liveness.last_alive());
    }
    member.commit(vec![position(1, "")]).await.unwrap();
}

pub(crate) async fn no_partition_has_two_owners(lab: Lab) {
    lab.topic("slots", 16).await;
    let broker = lab.broker();
    let owned = Arc::new(Owners::default());
    let mut tasks = JoinSet::new();
    for member in 0..6_u64 {
        let (broker, owned) = (broker.clone(), Arc::clone(&owned));
        tasks.spawn(async move {
            for round in 0..10_u64 {
                let mut group = join(&broker).await;
                let mut mine = BTreeSet::new();
                let life = Duration::from_millis(500 + 130 * ((member * 7 + round * 5) % 11));
                let until = tokio::time::Instant::now() + life;
                while let Ok(event) = tokio::time::timeout_at(until, group.poll()).await {
                    match event.unwrap() {
                        GroupEvent::Assigned(new) => {
                            owned.take(&new);
                            mine.extend(new);
                        }
                        GroupEvent::Revoked(old) => {
                            owned.give(&old);
                            mine.retain(|partition| !old.contains(partition));
                        }
                    }
                }
                owned.give(&mine.into_iter().collect::<Vec<_>>());
                group.leave().await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert!(owned.0.lock().1 >= 12, "partitions were shared out all the time");
}

/// Who owns what, checked whenever it changes, and the most that was ever owned.
#[derive(Default)]
struct Owners(Mutex<(BTreeSet<u32>, usize)>);

impl Owners {
    fn take(&self, partitions: &[u32]) {
        let (owned, most) = &mut *self.0.lock();
        for partition in partitions {
            assert!(owned.insert(*partition), "{partition} has two owners");
        }
        *most = (*most).max(owned.len());
    }

    fn give(&self, partitions: &[u32]) {
        let (owned, _) = &mut *self.0.lock();
        for partition in partitions {
            assert!(owned.remove(partition), "{partition} had no owner");
        }
    }
}

pub(crate) async fn committed_positions_keep_their_metadata_over_a_crash(mut lab: Lab) {
    lab.topic("slots", 2).await;
    lab.topic("source", 1).await;
    let broker = lab.broker();
    let member = join(&broker).await;
    let long = "m".repeat(4000);
    let foreign = Position { of: at("source", 0), next: 9, metadata: "x".to_owned() };
    member.commit(vec![position(1, "old"), foreign]).await.unwrap();
    member.commit(vec![position(2, &long)]).await.unwrap();
    drop((broker, member));
    lab.crash().await;
    let broker = lab.broker();
    let asked = [at("source", 0), at("slots", 1), at("slots", 0), at("nowhere", 0)];
    let committed = broker.committed("g", &asked).await.unwrap();
    let expected =
        |next, metadata: &str| Some(CommittedPosition { next, metadata: metadata.to_owned() });
    assert_eq!(committed, [expected(9, "x"), None, expected(2, &long), None]);
    assert_eq!(broker.committed("other", &asked[2..3]).await.unwrap(), [None]);
    broker.delete_topic(&"source".into()).await.unwrap();
    lab.topic("source", 1).await;
    assert_eq!(broker.committed("g", &asked[..1]).await.unwrap(), [None], "a new topic");
}

pub(crate) async fn added_partitions_reach_the_group(lab: Lab) {
    lab.topic("slots", 2).await;
    let broker = lab.broker();
    let (mut first, mut second) = (join(&broker).await, join(&broker).await);
    assigned(&mut first).await;
    assigned(&mut second).await;
    broker.add_partitions(&"slots".into(), 4).await.unwrap();
    let mut new = assigned(&mut first).await;
    new.extend(assigned(&mut second).await);
    new.sort_unstable();
    assert_eq!(new, [2, 3]);
}
