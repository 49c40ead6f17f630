//! The keys of one-time codes.

use std::{sync::Arc, time::Duration};

use tidings_broker::{AppendBatch, NewRecord};
use tidings_registry::{KeysError, KeysTopic};
use tidings_signing::{KeyBook, KeyRing, OpenError};
use tidings_testkit::SeededRng;
use tidings_types::{TopicPartition, names};

use crate::world::{MASTER, NOW, World, holds};

const HOUR: Duration = Duration::from_secs(3600);
const NONCE: [u8; 12] = [1; 12];

fn keys(world: &World, seed: u64) -> KeysTopic {
    KeysTopic::new(
        world.broker.clone(),
        KeyBook::new(KeyRing::generate(&MASTER)),
        Arc::clone(&world.clock),
        Arc::new(SeededRng::new(seed)),
        6 * HOUR,
    )
}

async fn world() -> World {
    let world = World::new();
    keys(&world, 0).create_topic().await.unwrap();
    keys(&world, 0).create_topic().await.unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn a_key_is_acknowledged_before_it_is_used_and_read_by_others() {
    let world = world().await;
    let (writer, reader) = (keys(&world, 1), keys(&world, 2));
    let key = writer.ensure_bucket(NOW + HOUR).await.unwrap();
    assert!(holds(&world.bytes_of(names::KEYS).await, key.name.as_bytes()));
    let sealed = key.seal(b"otp", b"123456", NONCE);
    assert!(reader.book().open(&sealed, b"otp").is_err(), "not read yet");
    assert_eq!(reader.open(&sealed, b"otp").await.unwrap(), b"123456");
    assert_eq!(writer.open(&sealed, b"otp").await.unwrap(), b"123456");
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_share_a_key_and_writers_have_their_own() {
    let world = world().await;
    let (one, two) = (keys(&world, 1), keys(&world, 2));
    let start = tidings_types::Timestamp::from_secs(NOW.as_secs() / 600 * 600 + 3600);
    let first = one.ensure_bucket(start).await.unwrap();
    let last = one.ensure_bucket(start + Duration::from_millis(599_999)).await.unwrap();
    let next = one.ensure_bucket(start + Duration::from_secs(600)).await.unwrap();
    assert_eq!(first.name, last.name);
    assert_ne!(first.name, next.name);
    assert!(first.name.starts_with(&format!("bucket/{}/", start.as_secs())));
    assert_ne!(two.ensure_bucket(start).await.unwrap().name, first.name);
    let (left, right) = tokio::join!(two.ensure_bucket(NOW), two.ensure_bucket(NOW));
    assert_eq!(left.unwrap().name, right.unwrap().name);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_forgotten_when_the_topic_forgets_it_and_not_before() {
    let world = world().await;
    let (writer, reader) = (keys(&world, 1), keys(&world, 2));
    let deadline = writer.latest_deadline();
    assert_eq!(deadline, NOW + 5 * HOUR);
    let key = writer.ensure_bucket(deadline).await.unwrap();
    let sealed = key.seal(b"otp", b"123456", NONCE);
    assert_eq!(reader.open(&sealed, b"otp").await.unwrap(), b"123456");
    world.later(6 * HOUR - Duration::from_secs(1)).await;
    for book in [&writer, &reader] {
        assert_eq!(book.open(&sealed, b"otp").await.unwrap(), b"123456");
    }
    world.later(Duration::from_secs(2)).await;
    for book in [&writer, &reader] {
        let gone = book.open(&sealed, b"otp").await;
        assert_eq!(gone, Err(OpenError::UnknownKey(key.name.clone())));
        assert!(book.book().bucket(&key.name).is_none());
    }
    let new = writer.ensure_bucket(deadline).await.unwrap();
    assert_ne!(new.name, key.name, "a forgotten key seals nothing more");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_counted_and_the_next_ones_are_read() {
    let world = world().await;
    let to = TopicPartition::new(names::KEYS, 0);
    let records = vec![
        NewRecord { value: Some(b"\xff".as_slice().into()), ..Default::default() },
        NewRecord::default(),
    ];
    for appended in world.broker.append(vec![AppendBatch { to, records }]).await {
        appended.unwrap();
    }
    let key = keys(&world, 1).ensure_bucket(NOW + HOUR).await.unwrap();
    let reader = keys(&world, 2);
    let sealed = key.seal(b"", b"x", NONCE);
    assert_eq!(reader.open(&sealed, b"").await.unwrap(), b"x");
    let mut metrics = prometheus_client::registry::Registry::default();
    reader.register_metrics(&mut metrics);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics).unwrap();
    assert!(text.contains("tidings_keys_unreadable_records_total 2"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn without_the_topic_no_key_is_given_out() {
    let world = World::new();
    let keys = keys(&world, 1);
    assert_eq!(keys.ensure_bucket(NOW).await.unwrap_err(), KeysError::Unavailable);
    assert_eq!(keys.read_to_end().await.unwrap_err(), KeysError::Unavailable);
}
