//! Records that cannot be routed: each is set aside, and the partition goes on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidings_broker::Header;
use tidings_router::{Config, Failpoints, StormRule};
use tidings_signing::sha256;
use tidings_types::{Clock as _, QuarantineCode, Sabotage, TopicPartition, names, quarantine_aad};

use crate::lab::{Lab, PM, config, sealed, verdict};

fn event(payload: &str) -> Vec<u8> {
    format!(r#"{{"context":{{"programManagerId":20,"eventCode":104}},"payload":{payload}}}"#)
        .into_bytes()
}

/// One bad record for each code, and some with the same code for other reasons.
fn table() -> Vec<(Option<Vec<u8>>, Vec<Header>, QuarantineCode)> {
    use QuarantineCode as Code;
    let good = r#"{"messageId":"m","publicToken":"1"}"#;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(40), "}".repeat(40));
    let header = |name: &str, value: &'static [u8]| (Arc::from(name), Bytes::from_static(value));
    let long = format!(r#"{{"messageId":"m","publicToken":"1","x":"{}"}}"#, "x".repeat(300_000));
    let twice = vec![header("tidings-event-id", b"a"), header("tidings-event-id", b"b")];
    let plain = |bytes: Vec<u8>, code| (Some(bytes), Vec::new(), code);
    vec![
        (None, Vec::new(), Code::Empty),
        plain(Vec::new(), Code::Empty),
        plain(b"{".to_vec(), Code::BadJson),
        plain(event(good).into_iter().chain(*b"{}").collect(), Code::BadJson),
        plain(event("{\"messageId\":\"\u{1}\"}"), Code::BadJson),
        plain(b"{\"context\":\"\xff\"}".to_vec(), Code::BadUtf8),
        plain(event(r#"{"messageId":"m"}"#), Code::BadField),
        plain(event(good).into_iter().collect::<Vec<u8>>(), Code::BadTenant),
        plain(
            br#"{"context":{"programManagerId":20,"eventCode":9999},"payload":{}}"#.to_vec(),
            Code::UnknownCode,
        ),
        plain(event(r#"{"messageId":"m","messageId":"m"}"#), Code::DuplicateKey),
        plain(event(&deep), Code::TooDeep),
        plain(event(&long), Code::TooLarge),
        plain(vec![b' '; (1 << 20) + 1], Code::TooLarge),
        plain(event(r#"{"messageId":"m","publicToken":"1","cvv":"123"}"#), Code::ForbiddenData),
        (Some(event(good)), twice, Code::BadHeader),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_bad_record_is_set_aside_sealed_and_the_partition_goes_on() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    let mut expected = Vec::new();
    for (value, headers, code) in table() {
        // The one that is whole but names the product of another manager.
        let value = if code == QuarantineCode::BadTenant {
            let text = String::from_utf8(value.unwrap()).unwrap();
            Some(text.replace("\"eventCode\"", "\"productId\":999,\"eventCode\"").into_bytes())
        } else {
            value
        };
        let bytes = value.map(Bytes::from);
        let offset = lab.publish_with("104", 0, bytes.clone(), headers).await;
        expected.push((offset, bytes.unwrap_or_default(), code));
    }
    assert!(QuarantineCode::ALL.iter().all(|code| expected.iter().any(|it| it.2 == *code)));
    let last = lab.publish("104", 0, lab.sample("104", 1)).await;
    let router = lab.router();
    lab.routed_to_end("104", 0).await;

    let records = lab.quarantined().await;
    assert_eq!(records.len(), expected.len());
    let place = TopicPartition::new(names::events("104"), 0);
    for (record, (offset, bytes, code)) in records.iter().zip(&expected) {
        let source = record.source.as_ref().unwrap();
        assert_eq!((source.topic.as_str(), source.offset), ("tidings.events.104", *offset));
        assert_eq!(record.code, code.as_str(), "{offset}");
        assert_eq!(record.sha256.as_ref(), sha256(&[bytes]));
        match &record.original {
            Some(original) => {
                let aad = quarantine_aad(&place, *offset);
                assert_eq!(lab.ring.open(&sealed(original), &aad).unwrap(), bytes.as_ref());
            }
            None => assert!(bytes.len() > 1 << 20),
        }
        let decision = lab.decision("104", 0, *offset).await;
        assert_eq!(verdict(&decision), format!("quarantined {code}"));
    }
    assert!(records.iter().filter(|record| record.original.is_none()).count() == 1);
    assert_eq!(verdict(&lab.decision("104", 0, last).await), "routed");
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 1);
    assert_eq!(lab.metrics.quarantined(QuarantineCode::TooLarge), 2);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_bodies_do_not_fit_a_record_is_set_aside() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["104"]).await;
    lab.event_topics().await;
    let config = Config { max_record_bytes: 20_000, ..config() };
    let router = lab.router_with(config, Failpoints::default(), Sabotage::None);
    let payload = format!(r#"{{"messageId":"m","publicToken":"1","x":"{}"}}"#, "x".repeat(20_000));
    lab.publish("104", 0, Bytes::from(event(&payload))).await;
    lab.publish("104", 0, lab.sample("104", 1)).await;
    lab.routed_to_end("104", 0).await;
    assert_eq!(verdict(&lab.decision("104", 0, 0).await), "quarantined TOO_LARGE");
    assert_eq!(verdict(&lab.decision("104", 0, 1).await), "routed");
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 1);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_bad_records_pauses_its_topic_and_no_other() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["101", "104"]).await;
    lab.event_topics().await;
    let pause = Duration::from_secs(40);
    let storm = StormRule { pause, ..config().storm };
    let router =
        lab.router_with(Config { storm, ..config() }, Failpoints::default(), Sabotage::None);
    lab.wait_for(async || router.handle.is_ready()).await;
    let started = lab.clock.now();
    for _ in 0..150 {
        lab.publish("104", 0, Bytes::from_static(b"{")).await;
    }
    lab.wait_for(async || lab.metrics.quarantined(QuarantineCode::BadJson) == 100).await;
    lab.publish("104", 1, lab.sample("104", 1)).await;
    lab.publish("101", 1, lab.sample("101", 1)).await;
    lab.routed_to_end("101", 1).await;
    lab.clock.sleep(pause / 2).await;
    assert_eq!(lab.quarantined().await.len(), 100, "nothing more while it is paused");
    assert!(lab.deliveries(webhook, 0).await.is_empty(), "also in its other partitions");
    // The rest is fewer than a storm.
    lab.routed_to_end("104", 0).await;
    lab.routed_to_end("104", 1).await;
    assert!(lab.clock.now().since(started) >= pause);
    assert_eq!(lab.quarantined().await.len(), 150);
    assert_eq!(lab.deliveries(webhook, 0).await.len(), 1);
    assert_eq!(lab.decisions().await.len(), 152);
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_record_that_may_hold_a_one_time_code_is_sealed_as_a_code_is() {
    let lab = Lab::new().await;
    lab.event_topics().await;
    let place = TopicPartition::new(names::events("107"), 0);
    let bad = Bytes::from_static(b"{\"payload\":{\"otpValue\":\"482913\"");
    let offset = lab.publish_with("107", 0, Some(bad), Vec::new()).await;
    let router = lab.router();
    lab.routed_to_end("107", 0).await;
    let records = lab.quarantined().await;
    let original = sealed(records[0].original.as_ref().unwrap());
    assert!(original.key.starts_with("bucket/"), "{}", original.key);
    let aad = quarantine_aad(&place, offset);
    assert!(lab.ring.open(&original, &aad).is_err(), "the master key does not open it");
    router.stop().await;
}
