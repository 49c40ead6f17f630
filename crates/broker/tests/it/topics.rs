//! Topics: their life, trimming, retention.

use std::time::Duration;

use tidings_broker::{ReadError, Retention, TopicDescription, TopicError, TopicSpec};
use tidings_types::TopicName;
use tokio::task::JoinSet;

use crate::lab::{Lab, append, at, fill, read_all, spec, texts};

pub(crate) async fn a_topic_is_created_described_listed_and_deleted(mut lab: Lab) {
    let broker = lab.broker();
    let retention = Retention::For(Duration::from_secs(60));
    broker.create_topic(spec("b.topic", 2)).await.unwrap();
    broker.create_topic(TopicSpec { retention, ..spec("a-topic", 3) }).await.unwrap();
    let exists = broker.create_topic(spec("a-topic", 1)).await;
    assert_eq!(exists, Err(TopicError::Exists("a-topic".into())));
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    let describe = |name: &str, partitions, retention| TopicDescription {
        name: TopicName::new(name),
        partitions,
        retention,
        message_bytes: lab.message_bytes(),
    };
    let (a, b) = (describe("a-topic", 3, retention), describe("b.topic", 2, Retention::Forever));
    assert_eq!(broker.topics().await.unwrap(), [a.clone(), b.clone()]);
    assert_eq!(broker.describe(&"a-topic".into()).await, Ok(a));
    broker.delete_topic(&"a-topic".into()).await.unwrap();
    let gone = TopicError::Unknown("a-topic".into());
    assert_eq!(broker.describe(&"a-topic".into()).await, Err(gone.clone()));
    assert_eq!(broker.delete_topic(&"a-topic".into()).await, Err(gone));
    assert_eq!(broker.topics().await.unwrap(), [b]);
    let ends = broker.ends(&at("a-topic", 0)).await;
    assert_eq!(ends, Err(ReadError::UnknownPartition(at("a-topic", 0))));
}

pub(crate) async fn a_deleted_topic_comes_back_empty(mut lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    fill(&broker, &at("t", 0), 50).await;
    broker.trim(&at("t", 0), 10).await.unwrap();
    broker.delete_topic(&"t".into()).await.unwrap();
    lab.topic("t", 1).await;
    lab.maintain().await;
    drop(broker);
    for _ in 0..2 {
        let ends = lab.broker().ends(&at("t", 0)).await.unwrap();
        assert_eq!((ends.first, ends.end), (0, 0));
        lab.crash().await;
    }
    append(&lab.broker(), &at("t", 0), &["new"]).await.unwrap();
    assert_eq!(texts(&read_all(&lab.broker(), &at("t", 0), 0).await), ["new"]);
}

pub(crate) async fn illegal_topics_are_refused(lab: Lab) {
    let broker = lab.broker();
    for name in ["", ".", "..", "with space", "sl/ash", &"l".repeat(250)] {
        let refused = broker.create_topic(spec(name, 1)).await;
        assert_eq!(refused, Err(TopicError::IllegalName(name.to_owned())));
    }
    assert!(broker.create_topic(spec("none", 0)).await.is_err());
    lab.topic("t", 3).await;
    let fewer = broker.add_partitions(&"t".into(), 2).await;
    assert_eq!(fewer, Err(TopicError::FewerPartitions { has: 3, asked: 2 }));
    assert_eq!(broker.add_partitions(&"t".into(), 3).await, Ok(()));
    let unknown = Err(TopicError::Unknown("u".into()));
    assert_eq!(broker.add_partitions(&"u".into(), 3).await, unknown);
    assert_eq!(broker.trim(&at("u", 0), 3).await, unknown);
}

pub(crate) async fn partitions_are_added_under_load(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let broker = broker.clone();
        tasks.spawn(async move { fill(&broker, &at("t", 0), 30).await });
    }
    for partitions in 2..6_u32 {
        broker.add_partitions(&"t".into(), partitions).await.unwrap();
        let first = append(&broker, &at("t", partitions - 1), &["first"]).await.unwrap();
        assert_eq!(first.first(), Some(0));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(read_all(&broker, &at("t", 0), 0).await.len(), 240);
    assert_eq!(broker.describe(&"t".into()).await.unwrap().partitions, 5);
}

pub(crate) async fn a_trim_removes_what_is_before_it(mut lab: Lab) {
    lab.topic("t", 2).await;
    let broker = lab.broker();
    for partition in 0..2 {
        for _ in 0..20 {
            append(&broker, &at("t", partition), &["a", "b", "c"]).await.unwrap();
        }
    }
    // In the middle of a batch, back (no change), and beyond the end.
    for (before, first) in [(31, 31), (10, 31), (59, 59), (500, 60)] {
        broker.trim(&at("t", 0), before).await.unwrap();
        let ends = broker.ends(&at("t", 0)).await.unwrap();
        assert_eq!((ends.first, ends.end), (first, 60));
        let read = read_all(&broker, &at("t", 0), first).await;
        assert_eq!(read.len(), usize::try_from(60 - first).unwrap());
    }
    drop(broker);
    lab.crash().await;
    lab.maintain().await;
    assert_eq!(read_all(&lab.broker(), &at("t", 1), 0).await.len(), 60, "its neighbour stays");
}

pub(crate) async fn a_trim_to_the_end_keeps_the_end_over_a_crash(mut lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    fill(&broker, &at("t", 0), 10).await;
    broker.trim(&at("t", 0), 10).await.unwrap();
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    let ends = broker.ends(&at("t", 0)).await.unwrap();
    assert_eq!((ends.first, ends.end), (10, 10));
    assert_eq!(append(&broker, &at("t", 0), &["next"]).await.unwrap().first(), Some(10));
}

pub(crate) async fn retention_removes_what_is_too_old_and_nothing_else(mut lab: Lab) {
    let retention = Retention::For(Duration::from_secs(100));
    let broker = lab.broker();
    broker.create_topic(TopicSpec { retention, ..spec("t", 1) }).await.unwrap();
    lab.topic("forever", 1).await;
    for _ in 0..10 {
        append(&broker, &at("t", 0), &["x", "y"]).await.unwrap();
        append(&broker, &at("forever", 0), &["x", "y"]).await.unwrap();
        tokio::time::advance(Duration::from_secs(20)).await;
    }
    // Now 200 s: what came at 0, 20, …, 80 s is older than 100 s, at 100 s just not.
    for _ in 0..2 {
        lab.maintain().await;
        let ends = broker.ends(&at("t", 0)).await.unwrap();
        assert!((10..=12).contains(&ends.first), "{ends:?}");
        assert_eq!(ends.end, 20);
    }
    tokio::time::advance(Duration::from_secs(1000)).await;
    lab.maintain().await;
    let all_gone = broker.ends(&at("t", 0)).await.unwrap();
    assert_eq!((all_gone.first, all_gone.end), (20, 20));
    assert_eq!(broker.ends(&at("forever", 0)).await.unwrap().first, 0);
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    assert_eq!(broker.ends(&at("t", 0)).await.unwrap(), all_gone);
    append(&broker, &at("t", 0), &["young"]).await.unwrap();
    lab.maintain().await;
    assert_eq!(texts(&read_all(&broker, &at("t", 0), 20).await), ["young"]);
}

pub(crate) async fn erased_records_leave_in_order_and_the_end_stays(mut lab: Lab) {
    let topic = TopicSpec {
        retention: Retention::For(Duration::from_secs(3600)),
        erase_buckets: Some(Duration::from_secs(600)),
        ..spec("tidings.keys", 1)
    };
    lab.broker().create_topic(topic).await.unwrap();
    let keys = at("tidings.keys", 0);
    for number in 0..20_u32 {
        append(&lab.broker(), &keys, &[&format!("key {number}")]).await.unwrap();
        tokio::time::advance(Duration::from_secs(300)).await;
        lab.maintain().await;
        if number % 7 == 3 {
            lab.crash().await;
        }
    }
    let ends = lab.broker().ends(&keys).await.unwrap();
    assert!((8..=9).contains(&ends.first), "an hour is kept: {ends:?}");
    assert_eq!(ends.end, 20);
    let read = read_all(&lab.broker(), &keys, ends.first).await;
    assert_eq!(texts(&read)[0], format!("key {}", ends.first));
    tokio::time::advance(Duration::from_secs(10_000)).await;
    lab.maintain().await;
    lab.crash().await;
    let ends = lab.broker().ends(&keys).await.unwrap();
    assert_eq!((ends.first, ends.end), (20, 20));
    assert_eq!(append(&lab.broker(), &keys, &["next"]).await.unwrap().first(), Some(20));
}

pub(crate) async fn many_topics(mut lab: Lab) {
    let broker = lab.broker();
    let many = lab.many();
    for number in 0..many {
        broker.create_topic(spec(&format!("t{number}"), 2)).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for number in 0..many {
        let broker = broker.clone();
        tasks.spawn(async move {
            let name = format!("t{number}");
            append(&broker, &at(&name, 1), &[&name]).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    assert_eq!(broker.topics().await.unwrap().len(), usize::try_from(many).unwrap());
    for number in (0..many).step_by(83) {
        let name = format!("t{number}");
        assert_eq!(texts(&read_all(&broker, &at(&name, 1), 0).await), [name.as_str()]);
        assert_eq!(broker.ends(&at(&name, 0)).await.unwrap().end, 0);
    }
}
