//! Crashes and hung routers: one decision for each record, and no delivery lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidings_broker::{AppendBatch, Fault, Faults, NewRecord};
use tidings_catalogue::Catalogue;
use tidings_proto::{decode, encode, v1};
use tidings_types::{Clock as _, Sabotage, TopicPartition, WebhookId, names};

use crate::lab::{Hold, Lab, PM, config, routed, targets};

/// Runs a router into a step, crashes it there, changes who wants the events, and
/// lets another one take over.
pub(crate) async fn crash_at(
    step: &'static [&'static str],
    sabotage: Sabotage,
) -> (Lab, BTreeSet<WebhookId>, WebhookId) {
    let lab = Lab::new().await;
    let one = lab.webhook(1, PM, &["104"]).await;
    let two = lab.webhook(2, PM, &["104"]).await;
    lab.event_topics().await;
    let hold = Hold::at(step);
    hold.arm();
    let router = lab.router_with(config(), hold.failpoints(), sabotage);
    for seed in 0..5 {
        lab.publish("104", 0, lab.sample("104", seed)).await;
    }
    hold.reached(1).await;
    router.crash().await;
    lab.adjust(one, |it| it.events = vec![Arc::from("101")]).await;
    let late = lab.webhook(3, PM, &["104"]).await;
    let router = lab.router_with(config(), tidings_router::Failpoints::default(), sabotage);
    lab.routed_to_end("104", 0).await;
    router.stop().await;
    (lab, BTreeSet::from([one, two]), late)
}

/// The sources whose notification stands in a webhook's topic, and how often.
pub(crate) async fn sources(lab: &Lab, webhook: WebhookId) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for record in lab.deliveries(webhook, 0).await {
        *counts.entry(record.source.unwrap().offset).or_default() += 1;
    }
    counts
}

/// What every run must leave behind: each record decided once, and a delivery for
/// each target of each decision and for no other.
pub(crate) async fn faults(lab: &Lab) -> Vec<String> {
    let mut faults = Vec::new();
    let mut wanted: BTreeMap<WebhookId, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (place, decisions) in lab.decisions().await {
        if decisions.len() > 1 {
            faults.push(format!("{place:?} is decided {} times", decisions.len()));
        }
        for decision in &decisions {
            for target in &routed(decision).targets {
                let webhook = WebhookId::from_slice(&target.webhook).unwrap();
                wanted.entry(webhook).or_default().insert(target.notification.to_vec());
            }
        }
    }
    for webhook in lab.registry.snapshot().webhooks.keys() {
        let mut records = lab.deliveries(*webhook, 0).await;
        records.extend(lab.deliveries(*webhook, 1).await);
        let found: BTreeSet<Vec<u8>> =
            records.iter().map(|record| record.notification.to_vec()).collect();
        let wanted = wanted.remove(webhook).unwrap_or_default();
        if !wanted.is_subset(&found) {
            faults.push(format!("{webhook} lost a delivery"));
        }
        if !found.is_subset(&wanted) {
            faults.push(format!("{webhook} has a delivery that no decision names"));
        }
    }
    faults
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_decision_and_deliveries_delivers_what_was_decided() {
    let (lab, old, late) =
        crash_at(&["router.after_routed_before_deliveries"], Sabotage::None).await;
    let decided = lab.decision("104", 0, 0).await;
    assert_eq!(targets(&decided), old, "decided before the change, and not again");
    for webhook in old {
        assert!(sources(&lab, webhook).await.contains_key(&0));
    }
    assert!(!sources(&lab, late).await.contains_key(&0));
    assert_eq!(faults(&lab).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_and_invents_nothing() {
    for step in [
        &["router.after_poll"],
        &["router.before_routed"],
        &["router.after_some_deliveries"],
        &["router.after_deliveries_before_commit"],
        &["router.after_commit"],
    ] {
        let (lab, ..) = crash_at(step, Sabotage::None).await;
        assert_eq!(lab.decisions().await.len(), 5, "{step:?}");
        assert_eq!(faults(&lab).await, Vec::<String>::new(), "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_not_repeated() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    for _ in 0..3 {
        let router = lab.router();
        lab.publish("104", 0, lab.sample("104", 1)).await;
        lab.routed_to_end("104", 0).await;
        router.crash().await;
    }
    assert_eq!(sources(&lab, webhook).await, BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
}

#[tokio::test(start_paused = true)]
async fn idle_partitions_are_committed_with_the_others() {
    let lab = Lab::new().await;
    lab.event_topics().await;
    let router = lab.router();
    lab.wait_for(async || router.handle.is_ready()).await;
    assert_eq!(router.handle.owned(), (0..12).collect::<Vec<u32>>());
    let of: Vec<TopicPartition> =
        (0..3).map(|n| TopicPartition::new(names::events("104"), n)).collect();
    for committed in lab.broker.committed("tidings-router", &of).await.unwrap() {
        let committed = committed.unwrap();
        assert_eq!(committed.next, 0);
        assert!(committed.metadata.starts_with("1 routed="), "{}", committed.metadata);
    }
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_in_quarantine_twice_names_the_same_source() {
    let lab = Lab::new().await;
    lab.event_topics().await;
    let hold = Hold::at(&["router.after_quarantine_before_routed"]);
    hold.arm();
    let router = lab.router_with(config(), hold.failpoints(), Sabotage::None);
    lab.publish("104", 0, bytes::Bytes::from_static(b"{")).await;
    hold.reached(1).await;
    router.crash().await;
    let router = lab.router();
    lab.routed_to_end("104", 0).await;
    let records = lab.quarantined().await;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].source, records[1].source);
    lab.decision("104", 0, 0).await;
    router.stop().await;
}

/// A router hangs before it writes its decisions, is expelled, and goes on beside
/// its successor.
pub(crate) async fn hang(sabotage: Sabotage) -> Lab {
    let lab = Lab::new().await;
    let one = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    let hold = Hold::at(&["router.before_routed", "router.before_group_poll"]);
    let hung = lab.router_with(config(), hold.failpoints(), sabotage);
    lab.wait_for(async || hung.handle.is_ready()).await;
    hold.arm();
    for seed in 0..5 {
        lab.publish("104", 0, lab.sample("104", seed)).await;
    }
    hold.reached(2).await;
    lab.adjust(one, |it| it.events = vec![Arc::from("101")]).await;
    lab.webhook(2, PM, &["104"]).await;
    let other = lab.router_with(config(), tidings_router::Failpoints::default(), sabotage);
    lab.routed_to_end("104", 0).await;
    // Its owner goes on a while before its membership learns that it was expelled.
    hold.release_step("router.before_routed");
    lab.clock.sleep(std::time::Duration::from_secs(1)).await;
    hold.release();
    lab.publish("104", 0, lab.sample("104", 9)).await;
    lab.routed_to_end("104", 0).await;
    lab.wait_for(async || hung.handle.is_ready() && other.handle.is_ready()).await;
    lab.publish("104", 0, lab.sample("104", 10)).await;
    lab.routed_to_end("104", 0).await;
    hung.stop().await;
    other.stop().await;
    lab
}

#[tokio::test(start_paused = true)]
async fn a_hung_router_that_goes_on_decides_nothing_that_counts() {
    let lab = hang(Sabotage::None).await;
    assert_eq!(lab.decisions().await.len(), 7);
    assert_eq!(faults(&lab).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_webhook_gets_an_outcome_in_place_of_its_record() {
    let lab = Lab::new().await;
    // In this order, because an armed router appends to the first half first.
    let stays = lab.webhook(1, PM, &["104"]).await;
    let gone = lab.webhook(2, PM, &["104"]).await;
    lab.event_topics().await;
    let hold = Hold::at(&["router.after_routed_before_deliveries"]);
    hold.arm();
    let router = lab.router_with(config(), hold.failpoints(), Sabotage::None);
    lab.publish("104", 0, lab.sample("104", 1)).await;
    hold.reached(1).await;
    lab.delete(gone).await;
    lab.broker.delete_topic(&names::delivery(gone)).await.unwrap();
    hold.release();
    lab.routed_to_end("104", 0).await;
    assert!(lab.broker.describe(&names::delivery(gone)).await.is_err());
    let outcomes = lab.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Cancelled);
    assert_eq!(WebhookId::from_slice(&outcomes[0].webhook), Some(gone));
    assert_eq!(sources(&lab, stays).await, BTreeMap::from([(0, 1)]));
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_webhooks_topic_that_somebody_deleted_is_made_again_and_holds_nobody_up() {
    let lab = Lab::new().await;
    let one = lab.webhook(1, PM, &["104"]).await;
    let other = lab.webhook(2, PM, &["104"]).await;
    lab.event_topics().await;
    let router = lab.router();
    lab.publish("104", 0, lab.sample("104", 1)).await;
    lab.routed_to_end("104", 0).await;
    // Its topic alone says nothing of the webhook.
    lab.broker.delete_topic(&names::delivery(one)).await.unwrap();
    for seed in 2..4 {
        lab.publish("104", 0, lab.sample("104", seed)).await;
    }
    lab.routed_to_end("104", 0).await;
    assert_eq!(sources(&lab, one).await, BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(sources(&lab, other).await, BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    assert!(lab.outcomes().await.is_empty());
    assert_eq!(lab.broker.describe(&names::delivery(one)).await.unwrap().partitions, 2);
    assert_eq!(lab.metrics.remade_topics(), 1);
    router.stop().await;
}

/// Plants one fault in every few appends to the topics of the router.
#[derive(Debug)]
struct Every {
    nth: usize,
    count: AtomicUsize,
    fault: Fault,
}

impl Faults for Every {
    fn on_append(&self, to: &TopicPartition, _records: usize) -> Option<Fault> {
        let topic = to.topic.as_str();
        let is_ours = topic == names::ROUTED
            || topic == names::QUARANTINE
            || topic.starts_with(names::DELIVERY_PREFIX);
        if !is_ours {
            return None;
        }
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        // Scattered: a strict beat could hit the same step of every repeat.
        let scattered = count.wrapping_mul(0x9E37_79B9).rotate_right(16) % 1000;
        (scattered < 1000 / self.nth).then_some(self.fault)
    }
}

#[tokio::test(start_paused = true)]
async fn appends_that_fail_or_whose_fate_is_unknown_lose_nothing() {
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::DropSilently] {
        for nth in [2, 3, 5] {
            let faults_of = Every { nth, count: AtomicUsize::new(0), fault };
            let lab = Lab::with(Catalogue::builtin(), Some(Arc::new(faults_of))).await;
            let webhook = lab.webhook(1, PM, &["104"]).await;
            lab.event_topics().await;
            let router = lab.router();
            for seed in 0..12 {
                lab.publish("104", 0, lab.sample("104", seed)).await;
                lab.routed_to_end("104", 0).await;
            }
            assert_eq!(lab.decisions().await.len(), 12, "{fault:?} {nth}");
            assert_eq!(faults(&lab).await, Vec::<String>::new(), "{fault:?} {nth}");
            assert_eq!(sources(&lab, webhook).await.len(), 12);
            router.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_move_to_a_router_that_joins_and_back() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    let one = lab.router();
    lab.wait_for(async || one.handle.is_ready()).await;
    let two = lab.router();
    lab.wait_for(async || two.handle.owned().len() == 6 && two.handle.is_ready()).await;
    for seed in 0..9 {
        lab.publish("104", (seed % 3).try_into().unwrap(), lab.sample("104", seed)).await;
    }
    for partition in 0..3 {
        lab.routed_to_end("104", partition).await;
    }
    one.stop().await;
    lab.wait_for(async || two.handle.owned().len() == 12 && two.handle.is_ready()).await;
    for partition in 0..3 {
        lab.publish("104", partition, lab.sample("104", 50 + u64::from(partition))).await;
        lab.routed_to_end("104", partition).await;
    }
    assert_eq!(lab.decisions().await.len(), 12);
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 12, "nothing was done twice");
    two.stop().await;
}

/// A part in the middle of an append may fail while what follows it is written, as a
/// Kafka client does with what waited too long. Of the six first events of 104 in this
/// partition the first is decided, and then each other one: a decision stands behind one
/// that is missing.
pub(crate) async fn leave_out(lab: &Lab, partition: u32) {
    let router = lab.router();
    lab.publish("104", partition, lab.sample("104", 0)).await;
    lab.routed_to_end("104", partition).await;
    router.stop().await;
    for seed in 1..6 {
        lab.publish("104", partition, lab.sample("104", seed)).await;
    }
    let (place, first) = lab.routed_record("104", partition, 0).await;
    for offset in [1, 3, 5] {
        let mut routed: v1::RoutedRecord = decode(first.value.clone().unwrap()).unwrap();
        let Some(v1::routed_record::Kind::Decision(decision)) = &mut routed.kind else {
            panic!("no decision: {routed:?}");
        };
        decision.source.as_mut().unwrap().offset = offset;
        let Some(v1::decision::What::Routed(what)) = &mut decision.what else {
            panic!("not routed: {decision:?}");
        };
        what.uid = vec![u8::try_from(offset).unwrap(); 32].into();
        what.targets[0].notification = vec![u8::try_from(offset).unwrap(); 16].into();
        let record = NewRecord {
            key: first.key.clone(),
            headers: first.headers.to_vec(),
            value: Some(encode(&routed)),
            timestamp: None,
        };
        let batch = AppendBatch { to: place.clone(), records: vec![record] };
        lab.broker.append(vec![batch]).await.remove(0).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_left_out_before_decided_ones_is_decided() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    leave_out(&lab, 0).await;

    let router = lab.router();
    lab.routed_to_end("104", 0).await;
    router.stop().await;
    // Once more: what was made up for is not decided again.
    let router = lab.router();
    lab.publish("104", 0, lab.sample("104", 6)).await;
    lab.routed_to_end("104", 0).await;
    router.stop().await;
    assert_eq!(lab.decisions().await.len(), 7);
    assert_eq!(faults(&lab).await, Vec::<String>::new());
    let found: Vec<u64> = sources(&lab, webhook).await.into_keys().collect();
    assert_eq!(found, [0, 1, 2, 3, 4, 5, 6]);
}
