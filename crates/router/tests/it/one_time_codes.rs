//! Events with a one-time code: it stands only under its bucket's key, and is gone
//! with it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidings_broker::Header;
use tidings_proto::{encode, v1};
use tidings_router::Failpoints;
use tidings_types::{Clock as _, EventUid, Sabotage, Timestamp, otp_aad};

use crate::lab::{Lab, PM, config, routed};

/// A 107 with this code as its producer writes it, and its expiry.
fn event(code: &str, expires: Timestamp) -> String {
    format!(
        r#"{{"context":{{"programManagerId":20,"eventCode":107,"correlationId":"c","notificationTime":"2024-10-29T14:36:30Z"}},"payload":{{"publicToken":"1", "otpValue" : {code},"otpExpirationDate":"{expires}"}}}}"#
    )
}

/// What ingest makes of it: the code sealed in a header, `""` in its place.
async fn ingested(
    lab: &Lab,
    code: &str,
    expires: Timestamp,
    uid: EventUid,
) -> (Bytes, Vec<Header>) {
    let key = lab.keys.ensure_bucket(expires).await.unwrap();
    let sealed = key.seal(&otp_aad(uid), code.as_bytes(), [9; 12]);
    let sealed = v1::Sealed {
        key: sealed.key,
        nonce: Bytes::copy_from_slice(&sealed.nonce),
        data: sealed.data.into(),
    };
    let uid = uid.to_string();
    let headers = vec![
        (Arc::from("tidings-otp"), encode(&sealed)),
        (Arc::from("tidings-uid"), Bytes::from(uid)),
    ];
    (Bytes::from(event("\"\"", expires)), headers)
}

fn key(body: &v1::Body) -> &str {
    &body.sealed.as_ref().unwrap().key
}

#[tokio::test(start_paused = true)]
async fn a_code_stands_only_under_its_buckets_key() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["107"]).await;
    lab.event_topics().await;
    let router = lab.router();
    let expires = lab.clock.now() + Duration::from_secs(1800);
    lab.publish("107", 0, Bytes::from(event("\"135790\"", expires))).await;
    lab.routed_to_end("107", 0).await;
    let decision = lab.decision("107", 0, 0).await;
    let said = routed(&decision);
    assert_eq!(said.deadline, Timestamp::from_secs(expires.as_secs()).as_millis());
    let redacted = said.redacted.as_ref().unwrap();
    assert!(key(&said.bodies[0]).starts_with("bucket/"), "{}", key(&said.bodies[0]));
    assert!(key(redacted).contains("/body/7001/2024-10"), "{}", key(redacted));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let whole = text(lab.open(&said.uid, &said.bodies[0]).await);
    let without = text(lab.open(&said.uid, redacted).await);
    assert!(whole.contains("\"otpValue\" : \"135790\""), "{whole}");
    assert!(
        !without.contains("otpValue") && without.contains("\"publicToken\":\"1\""),
        "{without}"
    );
    let record = lab.deliveries(webhook, 1).await.remove(0);
    assert_eq!(record.body.as_ref(), Some(&said.bodies[0]));
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_code_that_ingest_sealed_is_put_back_byte_for_byte() {
    let lab = Lab::new().await;
    lab.webhook(1, PM, &["107"]).await;
    lab.event_topics().await;
    let router = lab.router();
    let expires = lab.clock.now() + Duration::from_secs(1800);
    let code = r#""13\u0035790""#;
    lab.publish("107", 0, Bytes::from(event(code, expires))).await;
    lab.routed_to_end("107", 0).await;
    let decision = lab.decision("107", 0, 0).await;
    let plain = routed(&decision).clone();
    let uid = EventUid::from_slice(&plain.uid).unwrap();
    let (value, headers) = ingested(&lab, code, expires, uid).await;
    assert!(!value.windows(5).any(|window| window == b"35790"));
    lab.publish_with("107", 0, Some(value), headers).await;
    lab.routed_to_end("107", 0).await;
    let decision = lab.decision("107", 0, 1).await;
    let sealed = routed(&decision);
    assert_eq!(sealed.uid, plain.uid, "the same event, also when its code is sealed");
    assert_eq!(
        lab.open(&sealed.uid, &sealed.bodies[0]).await,
        lab.open(&plain.uid, &plain.bodies[0]).await
    );
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_code_whose_key_is_gone_or_whose_time_is_over_is_kept_nowhere() {
    let lab = Lab::new().await;
    let webhook = lab.webhook(1, PM, &["107"]).await;
    lab.event_topics().await;
    let router = lab.router();
    let past = lab.clock.now().minus(Duration::from_secs(60));
    lab.publish("107", 0, Bytes::from(event("\"135790\"", past))).await;
    let expires = lab.clock.now() + Duration::from_secs(1800);
    let (value, mut headers) = ingested(&lab, "\"135790\"", expires, EventUid([3; 32])).await;
    let lost = v1::Sealed {
        key: "bucket/600/ff".to_owned(),
        nonce: Bytes::from_static(&[0; 12]),
        data: Bytes::from_static(b"x"),
    };
    headers[0].1 = encode(&lost);
    lab.publish_with("107", 0, Some(value), headers).await;
    lab.routed_to_end("107", 0).await;
    for offset in 0..2 {
        let decision = lab.decision("107", 0, offset).await;
        let said = routed(&decision);
        assert!(key(&said.bodies[0]).contains("/body/7001/"), "under the issuer's key");
        let body = lab.open(&said.uid, &said.bodies[0]).await;
        assert!(!body.windows(8).any(|window| window == b"otpValue"));
    }
    let lost = lab.decision("107", 0, 1).await;
    assert_eq!(routed(&lost).uid.as_ref(), [3; 32], "the uid that ingest took");
    assert_eq!(lab.deliveries(webhook, 1).await.len(), 2, "the sender ends them as expired");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_moved_to_another_event_is_set_aside() {
    let lab = Lab::new().await;
    lab.webhook(1, PM, &["107"]).await;
    lab.event_topics().await;
    let router = lab.router_with(config(), Failpoints::default(), Sabotage::None);
    let expires = lab.clock.now() + Duration::from_secs(1800);
    let (value, mut headers) = ingested(&lab, "\"1\"", expires, EventUid([3; 32])).await;
    headers[1].1 = Bytes::from(EventUid([4; 32]).to_string());
    lab.publish_with("107", 0, Some(value), headers).await;
    lab.routed_to_end("107", 0).await;
    let said = lab.decision("107", 0, 0).await;
    assert_eq!(crate::lab::verdict(&said), "quarantined BAD_HEADER");
    router.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_code_lives_an_hour_less_than_its_key() {
    let lab = Lab::new().await;
    lab.webhook(1, PM, &["107"]).await;
    lab.event_topics().await;
    let router = lab.router();
    let published = lab.clock.now();
    let expires = published + Duration::from_secs(86_400);
    lab.publish("107", 0, Bytes::from(event("\"1\"", expires))).await;
    lab.routed_to_end("107", 0).await;
    let deadline = Timestamp::from_millis(routed(&lab.decision("107", 0, 0).await).deadline);
    let lives = deadline.since(published);
    let five_hours = Duration::from_secs(5 * 3600);
    assert!(lives <= five_hours + Duration::from_secs(1) && lives > five_hours / 2, "{lives:?}");
    router.stop().await;
}
