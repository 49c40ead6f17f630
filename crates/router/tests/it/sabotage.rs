//! Each rule left out is seen: these tests fail if the checks above saw nothing.

use std::collections::BTreeSet;

use tidings_router::Failpoints;
use tidings_types::Sabotage;

use crate::{
    crash::{crash_at, faults, hang},
    lab::{Lab, OTHER_PM, PM, config, targets},
};

#[tokio::test(start_paused = true)]
async fn deciding_anew_is_seen() {
    let (lab, ..) =
        crash_at(&["router.after_routed_before_deliveries"], Sabotage::DecideAnew).await;
    let found = faults(&lab).await;
    assert!(found.iter().any(|fault| fault.contains("is decided 2 times")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_before_the_deliveries_is_seen() {
    let (lab, ..) =
        crash_at(&["router.after_some_deliveries"], Sabotage::CommitBeforeDeliveries).await;
    let found = faults(&lab).await;
    assert!(found.iter().any(|fault| fault.contains("lost a delivery")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn deliveries_without_write_ahead_are_seen() {
    let (lab, ..) =
        crash_at(&["router.after_routed_before_deliveries"], Sabotage::NoWriteAhead).await;
    let found = faults(&lab).await;
    assert!(found.iter().any(|fault| fault.contains("no decision names")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_router_without_fencing_is_seen() {
    let lab = hang(Sabotage::NoRoutedFencing).await;
    let found = faults(&lab).await;
    assert!(found.iter().any(|fault| fault.contains("no decision names")), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_notification_for_another_tenant_is_seen() {
    let lab = Lab::new().await;
    let own = lab.webhook(1, PM, &["104"]).await;
    let foreign = lab.webhook(2, OTHER_PM, &["101"]).await;
    lab.event_topics().await;
    let router = lab.router_with(config(), Failpoints::default(), Sabotage::WrongTenantWebhook);
    lab.publish("104", 0, lab.sample("104", 1)).await;
    lab.routed_to_end("104", 0).await;
    assert_eq!(targets(&lab.decision("104", 0, 0).await), BTreeSet::from([foreign]));
    assert!(lab.deliveries(own, 0).await.is_empty());
    router.stop().await;
}
