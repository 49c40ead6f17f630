//! Who gets what, and what is said of who gets nothing.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use tidings_catalogue::Catalogue;
use tidings_proto::v1;
use tidings_registry::{Configuration, State};
use tidings_router::Failpoints;
use tidings_signing::NotificationIds;
use tidings_types::{
    EventUid, FilterReason, HookOwner, IssuerId, MerchantKey, PmId, ProductId, Sabotage, Scope,
    Timestamp, TopicPartition, WebhookId, WebhookStatus, names,
};

use crate::lab::{Lab, OTHER_PM, PM, config, create, notification, routed, targets, verdict};

fn eds(code: u16, pm: i64, payload: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"context":{{"programManagerId":{pm},"eventCode":{code},"correlationId":"c-1"}},"payload":{payload}}}"#
    ))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_goes_to_every_webhook_that_wants_it_with_the_same_sealed_body() {
    let lab = Lab::new().await;
    let issuer = HookOwner::Client(Scope::Issuer(IssuerId(Arc::from("7001"))));
    let first = lab.hook(1, issuer, &["101"], |_| {}).await;
    let second = lab.webhook(2, PM, &["101", "104"]).await;
    let foreign = lab.webhook(3, OTHER_PM, &["101"]).await;
    let router = lab.router();
    lab.event_topics().await;
    let event = lab.sample("101", 1);
    let offset = lab.publish("101", 3, event.clone()).await;
    lab.routed_to_end("101", 3).await;

    let decision = lab.decision("101", 3, offset).await;
    assert_eq!(targets(&decision), BTreeSet::from([first, second]));
    let said = routed(&decision);
    assert_eq!((said.tenant.as_str(), said.issuer.as_str()), ("pm:20", "7001"));
    assert_eq!(said.bodies.len(), 1);
    assert!(!said.fraud_alert_id.is_empty());
    let snapshot = lab.registry.snapshot();
    assert_eq!(decision.registry_version, snapshot.version);
    let uid = EventUid::from_slice(&said.uid).unwrap();
    for webhook in [first, second] {
        let records = lab.deliveries(webhook, 1).await;
        assert_eq!(records.len(), 1, "101 is urgent");
        let record = &records[0];
        let id = NotificationIds::new(snapshot.id_key().unwrap(), uid).of(webhook);
        assert_eq!(notification(&record.notification), id);
        assert_eq!(record.body.as_ref(), Some(&said.bodies[0]));
        assert_eq!(record.source, decision.source);
        assert_eq!(record.created, decision.time);
        assert_eq!(record.run.as_ref(), [0; 16]);
        assert_eq!(record.lane(), v1::Lane::Urgent);
    }
    assert!(lab.deliveries(foreign, 1).await.is_empty());
    let body = lab.open(&said.uid, &said.bodies[0]).await;
    let hole = usize::try_from(said.bodies[0].hole.unwrap()).unwrap();
    assert_eq!(text(&body[hole..hole + 36]), "00000000-0000-0000-0000-000000000000");
    let start = usize::try_from(said.bodies[0].payload_start).unwrap();
    let length = usize::try_from(said.bodies[0].payload_len).unwrap();
    let payload = text(&body[start..start + length]);
    assert!(text(&event).contains(payload) && payload.starts_with('{'), "{payload}");
    assert_eq!((lab.metrics.routed(), lab.metrics.deliveries()), (1, 2));
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_published_twice_is_the_same_event() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    let router = lab.router();
    lab.event_topics().await;
    let event = lab.sample("104", 1);
    lab.publish("104", 0, event.clone()).await;
    lab.publish("104", 1, event).await;
    lab.publish("104", 0, lab.sample("104", 2)).await;
    lab.routed_to_end("104", 0).await;
    lab.routed_to_end("104", 1).await;
    let one = lab.decision("104", 0, 0).await;
    let again = lab.decision("104", 1, 0).await;
    let other = lab.decision("104", 0, 1).await;
    assert_eq!(routed(&one).uid, routed(&again).uid);
    assert_eq!(routed(&one).targets, routed(&again).targets);
    assert_ne!(routed(&one).uid, routed(&other).uid);
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 3);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_producers_id_the_place_tells_two_events_apart() {
    let lab = Lab::new().await;
    lab.webhook(1, PM, &["104"]).await;
    let router = lab.router();
    lab.event_topics().await;
    let event = Bytes::from(
        r#"{"context":{"programManagerId":20,"eventCode":104},"payload":{"messageId":"m","publicToken":"1"}}"#,
    );
    lab.publish("104", 0, event.clone()).await;
    lab.publish("104", 0, event.clone()).await;
    let header = |id: &'static str| vec![(Arc::from("tidings-event-id"), Bytes::from(id))];
    lab.publish_with("104", 0, Some(event.clone()), header("a")).await;
    lab.publish_with("104", 0, Some(event), header("a")).await;
    lab.routed_to_end("104", 0).await;
    let mut uids = Vec::new();
    for offset in 0..4 {
        uids.push(routed(&lab.decision("104", 0, offset).await).uid.clone());
    }
    assert_eq!(uids[2], uids[3], "the header is a producer's id");
    assert_eq!(uids.iter().collect::<BTreeSet<_>>().len(), 3);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_gets_says_how_far_it_came() {
    let lab = Lab::new().await;
    lab.webhook(1, PM, &["102", "112"]).await;
    let own = HookOwner::Client(Scope::ProgrammeManager(PmId(PM)));
    lab.hook(2, own.clone(), &["104"], |it| {
        it.product = Some(ProductId(Arc::from("124")));
    })
    .await;
    lab.hook(3, own, &["109"], |it| it.status = WebhookStatus::Inactive).await;
    let router = lab.router();
    lab.event_topics().await;
    let with_pm = |kind: &str, pm: i64| {
        let event = String::from_utf8(lab.sample(kind, 1).to_vec()).unwrap();
        let now = format!("\"programManagerId\":{PM}");
        assert!(event.contains(&now), "{event}");
        Bytes::from(event.replace(&now, &format!("\"programManagerId\":{pm}")))
    };
    lab.publish("102", 0, with_pm("102", 77)).await;
    lab.publish("101", 0, with_pm("101", PM)).await;
    let no_product = r#"{"messageId":"m","publicToken":"1"}"#;
    lab.publish("104", 0, eds(104, PM, no_product)).await;
    lab.publish("112", 0, with_pm("112", PM)).await;
    lab.publish("109", 0, with_pm("109", PM)).await;
    let expected = [
        ("102", FilterReason::UnknownTenant),
        ("101", FilterReason::NotSubscribed),
        ("104", FilterReason::Product),
        ("112", FilterReason::Configuration),
        ("109", FilterReason::Inactive),
    ];
    for (kind, reason) in expected {
        lab.routed_to_end(kind, 0).await;
        let decision = lab.decision(kind, 0, 0).await;
        assert_eq!(verdict(&decision), format!("filtered {reason}"), "{kind}");
        assert_eq!(lab.metrics.filtered(reason), 1);
    }
    assert_eq!(lab.metrics.deliveries(), 0);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_configuration_lets_a_confirmation_through() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["112"]).await;
    let router = lab.router();
    lab.event_topics().await;
    lab.publish("112", 0, lab.sample("112", 1)).await;
    lab.routed_to_end("112", 0).await;
    let configuration = Configuration {
        id: "c".to_owned(),
        owner: Scope::ProgrammeManager(PmId(PM)),
        pm: None,
        product: None,
        active: true,
        filter: vec![0],
        created: Timestamp::ZERO,
        modified: Timestamp::ZERO,
    };
    lab.change("config/c", State::Configuration(configuration)).await;
    // Published after an answered change, so routed by it.
    lab.publish("112", 0, lab.sample("112", 2)).await;
    lab.routed_to_end("112", 0).await;
    assert_eq!(verdict(&lab.decision("112", 0, 0).await), "filtered configuration");
    assert_eq!(verdict(&lab.decision("112", 0, 1).await), "routed");
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 1);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_webhook_gets_an_outcome_and_no_record() {
    let lab = Lab::new().await;
    let own = HookOwner::Client(Scope::ProgrammeManager(PmId(PM)));
    let webhook = lab.hook(1, own, &["104"], |it| it.status = WebhookStatus::Suspended).await;
    let router = lab.router();
    lab.event_topics().await;
    lab.publish("104", 0, lab.sample("104", 1)).await;
    lab.routed_to_end("104", 0).await;
    let decision = lab.decision("104", 0, 0).await;
    assert!(routed(&decision).targets[0].suspended);
    assert!(lab.deliveries(webhook, 0).await.is_empty());
    let outcomes = lab.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Undelivered);
    assert_eq!(outcomes[0].reason, "suspended");
    assert_eq!(outcomes[0].notification, routed(&decision).targets[0].notification);
    assert_eq!((outcomes[0].partition, outcomes[0].offset), (None, None));
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_shape_that_is_wanted_is_a_body_of_its_own() {
    let lab = Lab::new().await;
    let own = || HookOwner::Client(Scope::ProgrammeManager(PmId(PM)));
    let plain = lab.webhook(1, PM, &["105"]).await;
    let strict = lab.hook(2, own(), &["105"], |it| it.settings.strict_legacy_envelope = true).await;
    let merchant = HookOwner::Merchant(MerchantKey(Arc::from("m_9f2")));
    let hook = lab.hook(3, merchant, &["transaction.sale.success"], |_| {}).await;
    let router = lab.router();
    lab.event_topics().await;
    lab.publish("105", 0, lab.sample("105", 1)).await;
    let sale = lab.sample("transaction.sale.success", 1);
    lab.publish("transaction.sale.success", 0, sale.clone()).await;
    lab.routed_to_end("105", 0).await;
    lab.routed_to_end("transaction.sale.success", 0).await;
    assert_eq!(routed(&lab.decision("105", 0, 0).await).bodies.len(), 2);
    for (webhook, has_hole) in [(plain, true), (strict, false)] {
        let record = lab.deliveries(webhook, 1).await.remove(0);
        let body = record.body.unwrap();
        assert_eq!(body.hole.is_some(), has_hole);
        let plain = lab.open(&record.uid, &body).await;
        assert_eq!(text(&plain).contains("notificationId"), has_hole);
    }
    let record = lab.deliveries(hook, 0).await.remove(0);
    assert_eq!(record.tenant, "m:m_9f2");
    assert_eq!(lab.open(&record.uid, &record.body.unwrap()).await, sale);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_topic_of_a_new_event_type_is_found_while_the_router_runs() {
    let file = r#"
[[type]]
name = "199"
surface = "eds"
description = "A type of a deployment"
fields = ["a string"]
sample = '{"a":"b"}'
"#;
    let catalogue = Catalogue::builtin().with_file("more.toml", file).unwrap();
    let lab = Lab::with(catalogue, None).await;
    let webhook = lab.webhook(1, PM, &["199"]).await;
    // This router does not know the type, so it does not make the topic.
    let without = lab.knowing(Catalogue::builtin());
    let router = without.router();
    without.wait_for(async || router.handle.is_ready()).await;
    create(&without.broker, names::events("199"), 3).await;
    without.publish("199", 2, eds(199, PM, r#"{"a":"b"}"#)).await;
    without.routed_to_end("199", 2).await;
    assert_eq!(verdict(&without.decision("199", 2, 0).await), "quarantined UNKNOWN_CODE");
    router.stop().await;
    let more = Catalogue::builtin().with_file("more.toml", file).unwrap();
    let lab = without.knowing(more);
    let router = lab.router();
    lab.publish("199", 2, eds(199, PM, r#"{"a":"b"}"#)).await;
    lab.routed_to_end("199", 2).await;
    assert_eq!(verdict(&lab.decision("199", 2, 1).await), "routed");
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 1);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn order_within_a_source_partition_is_kept() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    let config = tidings_router::Config { poll_bytes: 2048, ..config() };
    lab.event_topics().await;
    for seed in 0..100 {
        lab.publish("104", 0, lab.sample("104", seed)).await;
    }
    let router = lab.router_with(config, Failpoints::default(), Sabotage::None);
    lab.routed_to_end("104", 0).await;
    let offsets: Vec<u64> = lab
        .deliveries(webhook, 0)
        .await
        .into_iter()
        .map(|record| record.source.unwrap().offset)
        .collect();
    assert_eq!(offsets, (0..100).collect::<Vec<u64>>());
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_event_for_very_many_webhooks_is_appended_in_pieces() {
    let lab = Lab::new().await;
    let mut webhooks: Vec<WebhookId> = Vec::new();
    for number in 1..=200 {
        webhooks.push(lab.webhook(number, PM, &["104"]).await);
    }
    let router = lab.router();
    lab.event_topics().await;
    lab.publish("104", 0, lab.sample("104", 1)).await;
    lab.routed_to_end("104", 0).await;
    assert_eq!(routed(&lab.decision("104", 0, 0).await).targets.len(), 200);
    for webhook in webhooks {
        assert_eq!(lab.deliveries(webhook, 0).await.len(), 1);
    }
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn expired_source_records_are_counted_as_skipped() {
    let lab = Lab::new().await;
    lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    let router = lab.router();
    lab.publish("104", 0, lab.sample("104", 1)).await;
    lab.routed_to_end("104", 0).await;
    router.stop().await;
    for seed in 2..6 {
        lab.publish("104", 0, lab.sample("104", seed)).await;
    }
    let source = TopicPartition::new(names::events("104"), 0);
    lab.broker.trim(&source, 3).await.unwrap();
    let router = lab.router();
    lab.routed_to_end("104", 0).await;
    assert_eq!(lab.decision("104", 0, 3).await.skipped, 2);
    assert_eq!(lab.decision("104", 0, 4).await.skipped, 0);
    assert_eq!(lab.decisions().await.len(), 3);
    router.stop().await;
}
