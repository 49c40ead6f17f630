//! Source topics that are deleted and made anew under the same name.

use std::{collections::BTreeSet, time::Duration};

use tidings_broker::{Retention, TopicSpec};
use tidings_router::{Config, Failpoints};
use tidings_types::{Clock as _, Sabotage, TopicPartition, WebhookId, names};

use crate::lab::{Lab, PM, Router, config};

fn place() -> TopicPartition {
    TopicPartition::new(names::events("104"), 0)
}

async fn make_anew(lab: &Lab, while_gone: Duration) {
    let name = names::events("104");
    lab.broker.delete_topic(&name).await.unwrap();
    lab.clock.sleep(while_gone).await;
    let retention = Retention::For(Duration::from_secs(14 * 86_400));
    let spec = TopicSpec { name, partitions: 3, retention, erase_buckets: None };
    lab.broker.create_topic(spec).await.unwrap();
}

/// Publishes events without an id of their own, the same each time.
async fn publish(lab: &Lab, count: u64) {
    for seed in 0..count {
        lab.publish("104", 0, lab.sample("104", seed)).await;
    }
}

async fn notifications(lab: &Lab, webhook: WebhookId) -> (usize, usize) {
    let all = lab.deliveries(webhook, 0).await;
    let different: BTreeSet<_> = all.iter().map(|record| record.notification.clone()).collect();
    (all.len(), different.len())
}

fn router_of_epoch(lab: &Lab, source_epoch: u64) -> Router {
    let config = Config { source_epoch, ..config() };
    lab.router_with(config, Failpoints::default(), Sabotage::None)
}

/// A router that stands still before these events, and lets others go on.
async fn stands(lab: &Lab, router: &Router, webhook: WebhookId, others: u32) {
    lab.wait_for(async || lab.metrics.stopped_at(&place()) == Some(4)).await;
    lab.wait_for(async || router.handle.is_ready()).await;
    for partition in 0..3 {
        lab.publish("101", partition, lab.sample("101", 70)).await;
        lab.routed_to_end("101", partition).await;
    }
    lab.clock.sleep(Duration::from_secs(30)).await;
    assert_eq!(notifications(lab, webhook).await, (4, 4));
    assert_eq!(lab.deliveries(webhook, 1).await.len(), usize::try_from(others).unwrap());
    assert_eq!(lab.metrics.stopped_at(&place()), Some(4));
}

#[tokio::test(start_paused = true)]
async fn events_of_a_topic_that_was_made_anew_wait_for_a_raised_epoch() {
    // They have the ids of their producer, so each is the same event all the time. Gone
    // for so long that the router sees it gone, or not; and more or fewer events than
    // there were.
    for (gone, count) in [(20, 3), (20, 6), (0, 3)] {
        let lab = Lab::new().await;
        let webhook = lab.webhook(1, PM, &["104", "101"]).await;
        lab.event_topics().await;
        let router = router_of_epoch(&lab, 0);
        publish(&lab, 4).await;
        lab.routed_to_end("104", 0).await;
        make_anew(&lab, Duration::from_secs(gone)).await;
        publish(&lab, count).await;
        stands(&lab, &router, webhook, 3).await;
        router.stop().await;
        assert_eq!(lab.metrics.stopped_at(&place()), None, "nobody says so any more");

        let router = router_of_epoch(&lab, 0);
        stands(&lab, &router, webhook, 6).await;
        router.stop().await;

        let router = router_of_epoch(&lab, 1);
        lab.routed_to_end("104", 0).await;
        let all = 4 + usize::try_from(count).unwrap();
        assert_eq!(notifications(&lab, webhook).await.0, all, "{gone} {count}");
        assert_eq!(lab.metrics.stopped_at(&place()), None);
        router.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_while_no_router_ran_is_noticed() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104", "101"]).await;
    lab.event_topics().await;
    let router = router_of_epoch(&lab, 0);
    publish(&lab, 4).await;
    lab.routed_to_end("104", 0).await;
    router.stop().await;
    make_anew(&lab, Duration::ZERO).await;
    publish(&lab, 5).await;
    let router = router_of_epoch(&lab, 0);
    stands(&lab, &router, webhook, 3).await;
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_in_which_nothing_stood_may_be_made_anew() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    let router = router_of_epoch(&lab, 0);
    lab.wait_for(async || router.handle.is_ready()).await;
    make_anew(&lab, Duration::from_secs(20)).await;
    publish(&lab, 3).await;
    lab.routed_to_end("104", 0).await;
    assert_eq!(notifications(&lab, webhook).await, (3, 3));
    assert_eq!(lab.metrics.stopped_at(&place()), None);
    router.stop().await;
}
