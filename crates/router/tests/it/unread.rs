//! Source partitions that cannot be looked at or read for a while: they are not
//! forgotten, and hold nobody up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidings_broker::{Damage, ReadError};
use tidings_catalogue::Catalogue;
use tidings_router::Failpoints;
use tidings_types::{Clock as _, Sabotage, TopicPartition, WebhookId, names};

use crate::{
    crash::{faults, leave_out, sources},
    lab::{BadSource, Lab, PM, config},
};

/// Its decisions stand beside those on partition 8 of 101.
fn place() -> TopicPartition {
    TopicPartition::new(names::events("104"), 1)
}

async fn lab() -> (Lab, Arc<BadSource>, WebhookId) {
    let bad = Arc::<BadSource>::default();
    let lab = Lab::with(Catalogue::builtin(), Some(Arc::<BadSource>::clone(&bad))).await;
    let webhook = lab.webhook(1, PM, &["104", "101"]).await;
    lab.event_topics().await;
    (lab, bad, webhook)
}

fn errors(of: &TopicPartition) -> [ReadError; 2] {
    [ReadError::Unavailable, ReadError::UnknownPartition(of.clone())]
}

/// Events of all other sources are routed.
async fn others_go_on(lab: &Lab, seed: u64) {
    for partition in 0..12 {
        lab.publish("101", partition, lab.sample("101", seed)).await;
    }
    for partition in 0..12 {
        lab.routed_to_end("101", partition).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_source_partition_that_cannot_be_looked_at_is_looked_at_again() {
    let new = TopicPartition::new(names::events("104"), 3);
    for error in errors(&new) {
        let (lab, bad, webhook) = lab().await;
        let router = lab.router();
        lab.wait_for(async || router.handle.is_ready()).await;
        bad.plant(&new, error);
        lab.broker.add_partitions(&names::events("104"), 4).await.unwrap();
        lab.publish("104", 3, lab.sample("104", 1)).await;
        lab.clock.sleep(Duration::from_secs(20)).await;
        others_go_on(&lab, 2).await;
        assert_eq!(lab.deliveries(webhook, 0).await.len(), 0);
        assert_eq!(lab.metrics.unread(), 1);
        bad.mend();
        lab.routed_to_end("104", 3).await;
        assert_eq!(sources(&lab, webhook).await.len(), 1);
        assert_eq!(lab.metrics.unread(), 0);
        router.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_a_takeover_cannot_look_at_holds_nobody_up_and_is_not_forgotten() {
    for error in errors(&place()) {
        let (lab, bad, webhook) = lab().await;
        for (round, seed) in (0..3).zip([1, 2, 3]) {
            // In the first round it has no commit.
            bad.plant(&place(), error.clone());
            let router = lab.router();
            lab.publish("104", 1, lab.sample("104", seed)).await;
            others_go_on(&lab, seed).await;
            bad.mend();
            lab.routed_to_end("104", 1).await;
            assert_eq!(sources(&lab, webhook).await.len(), round + 1);
            router.stop().await;
        }
        assert_eq!(faults(&lab).await, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_append_left_out_and_nobody_can_read_stops_its_source_alone() {
    let (partition, offset, end) = (place(), 2, 2);
    for error in [
        ReadError::Damaged { partition: partition.clone(), offset, damage: Damage::Broken },
        ReadError::BeyondEnd { partition: partition.clone(), offset, end },
        ReadError::Unavailable,
    ] {
        let (lab, bad, webhook) = lab().await;
        leave_out(&lab, 1).await;
        bad.plant(&place(), error);
        let router = lab.router();
        others_go_on(&lab, 70).await;
        // Whoever takes over meanwhile finds the same.
        router.stop().await;
        let router = lab.router();
        others_go_on(&lab, 71).await;
        lab.publish("104", 1, lab.sample("104", 6)).await;
        lab.clock.sleep(Duration::from_secs(100)).await;
        assert!(!sources(&lab, webhook).await.contains_key(&6));
        bad.mend();
        lab.routed_to_end("104", 1).await;
        let found: Vec<u64> = sources(&lab, webhook).await.into_keys().collect();
        assert_eq!(found, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(faults(&lab).await, Vec::<String>::new());
        router.stop().await;
    }
}

/// A Kafka broker forgets positions that nobody commits again.
#[tokio::test(start_paused = true)]
async fn positions_are_committed_again_while_nothing_is_published() {
    let (lab, _bad, _webhook) = lab().await;
    let commits = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&commits);
    let failpoints = Failpoints::new(move |step| {
        count.fetch_add(usize::from(step == "router.after_commit"), Ordering::SeqCst);
        None
    });
    let config = tidings_router::Config { topics_interval: Duration::from_secs(600), ..config() };
    let router = lab.router_with(config, failpoints, Sabotage::None);
    lab.wait_for(async || router.handle.is_ready()).await;
    lab.clock.sleep(Duration::from_secs(60)).await;
    commits.store(0, Ordering::SeqCst);
    lab.clock.sleep(Duration::from_secs(50 * 3600)).await;
    let found = commits.load(Ordering::SeqCst);
    assert_eq!(found, 24, "each of the twelve owners commits once a day");
    router.stop().await;
}
