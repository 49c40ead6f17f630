//! Groups: who owns which partition, and what is committed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidings_broker::{CommittedPosition, Group, GroupError, GroupEvent, Position};
use tidings_types::Clock;
use tokio::task::JoinSet;

use crate::lab::{Lab, at};

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

/// Polls two members until they share `all` partitions between them.
async fn shared(members: (&mut Group, &mut Group), all: usize) -> (Vec<u32>, Vec<u32>) {
    fn on(mine: &mut BTreeSet<u32>, event: Result<GroupEvent, GroupError>) {
        match event.unwrap() {
            GroupEvent::Assigned(new) => mine.extend(new),
            GroupEvent::Revoked(old) => mine.retain(|partition| !old.contains(partition)),
        }
    }
    let (mut one, mut other) = (BTreeSet::new(), BTreeSet::new());
    while one.is_empty() || other.is_empty() || one.len() + other.len() < all {
        tokio::select! {
            event = members.0.poll() => on(&mut one, event),
            event = members.1.poll() => on(&mut other, event),
        }
    }
    assert!(one.is_disjoint(&other) && one.len().abs_diff(other.len()) <= 1);
    (one.into_iter().collect(), other.into_iter().collect())
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
    let early = broker.join(&lab.group, &"slots".into(), lab.session()).await;
    assert!(early.is_err(), "there is no such topic yet");
    lab.topic("slots", 8).await;
    let mut member = lab.join().await;
    assert_eq!(assigned(&mut member).await, (0..8).collect::<Vec<_>>());
    assert!(quiet(&mut member, lab.session() * 3 / 2).await);
}

pub(crate) async fn a_join_moves_half_after_the_old_owner_has_polled_again(lab: Lab) {
    lab.topic("slots", 8).await;
    let mut old = lab.join().await;
    assigned(&mut old).await;
    let mut new = lab.join().await;
    assert!(quiet(&mut new, lab.session() / 4).await, "the old owner has not been told");
    let moved = revoked(&mut old).await;
    assert_eq!(moved.len(), 4);
    assert!(quiet(&mut new, lab.session() / 4).await, "the old owner still works on them");
    assert!(quiet(&mut old, lab.session() / 4).await);
    assert_eq!(assigned(&mut new).await, moved);
    assert!(quiet(&mut new, lab.session() / 4).await);
}

pub(crate) async fn a_leave_hands_over_at_once(lab: Lab) {
    lab.topic("slots", 5).await;
    let (mut first, mut second) = (lab.join().await, lab.join().await);
    let (had, _) = shared((&mut first, &mut second), 5).await;
    let before = lab.clock.monotonic();
    first.leave().await;
    assert_eq!(assigned(&mut second).await, had);
    let took = lab.clock.monotonic().since(before);
    assert!(took < lab.session() / 2, "nobody waits for a session: {took:?}");
}

pub(crate) async fn a_dead_members_partitions_are_handed_over_after_its_session(lab: Lab) {
    lab.topic("slots", 4).await;
    let (mut dead, mut living) = (lab.join().await, lab.join().await);
    let (lost, _) = shared((&mut dead, &mut living), 4).await;
    let died = lab.clock.monotonic();
    drop(dead);
    assert_eq!(assigned(&mut living).await, lost);
    let took = lab.clock.monotonic().since(died);
    // The client looks twice a second.
    assert!(took + Duration::from_millis(500) >= lab.session(), "{took:?}");
    assert!(took <= lab.session() + lab.slack(), "{took:?}");
}

pub(crate) async fn a_member_that_does_not_poll_is_expelled_and_cannot_commit(lab: Lab) {
    lab.topic("slots", 2).await;
    let broker = lab.broker();
    let mut silent = lab.join().await;
    assigned(&mut silent).await;
    silent.commit(vec![position(1, "alive")]).await.unwrap();
    lab.pass(lab.session()).await;
    let expelled = GroupError::Expelled(lab.group.as_str().into());
    assert_eq!(silent.commit(vec![position(2, "dead")]).await, Err(expelled.clone()));
    assert_eq!(silent.poll().await, Err(expelled));
    let committed = broker.committed(&lab.group, &[at("slots", 0)]).await.unwrap();
    assert_eq!(committed[0].as_ref().unwrap().metadata, "alive");
    let mut again = lab.join().await;
    assert_eq!(assigned(&mut again).await, [0, 1]);
}

pub(crate) async fn a_waiting_poll_keeps_the_member_alive(lab: Lab) {
    lab.topic("slots", 2).await;
    let mut member = lab.join().await;
    assigned(&mut member).await;
    let liveness = member.liveness();
    for _ in 0..2 {
        assert!(quiet(&mut member, lab.session() * 3 / 2).await);
        let silent = lab.clock.monotonic().since(liveness.last_alive());
        assert!(silent <= lab.session() / 2, "{silent:?}");
        assert_eq!(member.last_alive(), liveness.last_alive());
    }
    member.commit(vec![position(1, "")]).await.unwrap();
}

pub(crate) async fn no_partition_has_two_owners(lab: Lab) {
    lab.topic("slots", 16).await;
    let broker = lab.broker();
    let owned = Arc::new(Owners::default());
    let (group, session) = (lab.group.clone(), lab.session());
    // A real group needs a moment to move anything.
    let (members, rounds, scale) =
        if session < Duration::from_secs(3) { (3, 3, 2) } else { (6, 10, 1) };
    let mut tasks = JoinSet::new();
    for member in 0..members {
        let (broker, owned, group) = (broker.clone(), Arc::clone(&owned), group.clone());
        tasks.spawn(async move {
            for round in 0..rounds {
                let joined = broker.join(&group, &"slots".into(), session).await;
                let mut group = joined.unwrap();
                let mut mine = BTreeSet::new();
                let life =
                    Duration::from_millis(scale * (500 + 130 * ((member * 7 + round * 5) % 11)));
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
    let member = lab.join().await;
    let long = "m".repeat(4000);
    let foreign = Position { of: at("source", 0), next: 9, metadata: "x".to_owned() };
    member.commit(vec![position(1, "old"), foreign]).await.unwrap();
    member.commit(vec![position(2, &long)]).await.unwrap();
    drop((broker, member));
    lab.crash().await;
    let broker = lab.broker();
    let asked = [at("source", 0), at("slots", 1), at("slots", 0), at("nowhere", 0)];
    let committed = broker.committed(&lab.group, &asked).await.unwrap();
    let expected =
        |next, metadata: &str| Some(CommittedPosition { next, metadata: metadata.to_owned() });
    assert_eq!(committed, [expected(9, "x"), None, expected(2, &long), None]);
    assert_eq!(broker.committed("other", &asked[2..3]).await.unwrap(), [None]);
    broker.delete_topic(&"source".into()).await.unwrap();
    lab.topic("source", 1).await;
    assert_eq!(broker.committed(&lab.group, &asked[..1]).await.unwrap(), [None], "a new topic");
}

pub(crate) async fn added_partitions_reach_the_group(lab: Lab) {
    lab.topic("slots", 2).await;
    let broker = lab.broker();
    let (mut first, mut second) = (lab.join().await, lab.join().await);
    shared((&mut first, &mut second), 2).await;
    broker.add_partitions(&"slots".into(), 4).await.unwrap();
    let mut new = Vec::new();
    while new.len() < 2 {
        let event = tokio::select! {
            event = first.poll() => event,
            event = second.poll() => event,
        };
        match event.unwrap() {
            GroupEvent::Assigned(partitions) => new.extend(partitions),
            // Sharing them out anew may move others as well.
            GroupEvent::Revoked(partitions) => new.retain(|one| !partitions.contains(one)),
        }
        new.retain(|partition| *partition >= 2);
    }
    new.sort_unstable();
    assert_eq!(new, [2, 3]);
}
