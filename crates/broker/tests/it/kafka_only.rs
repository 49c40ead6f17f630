//! What only a real Kafka can show: its settings, its loss, its strangers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tidings_broker::{
    Broker, ConnectError, Damage, KafkaBroker, KafkaConfig, ReadError, Reader, Record, Retention,
    TopicSpec,
};
use tidings_kafka_node::KafkaNode;
use tidings_types::{Clock, Offset};

use crate::lab::{TestClock, append, at, connect, fill, read_all, spec, texts};

fn clock() -> Arc<dyn Clock> {
    TestClock::today()
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_killed_node_and_nothing_is_there_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = KafkaNode::start(dir.path(), &[]).unwrap();
    let broker = Broker::Kafka(connect(node.bootstrap(), &TestClock::today()).await);
    broker.create_topic(spec("t", 1)).await.unwrap();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    fill(&broker, &at("t", 0), 100).await;
    let appender = broker.clone();
    let mut rest = tokio::task::JoinSet::new();
    rest.spawn(async move {
        for number in 100..200 {
            append(&appender, &at("t", 0), &[&number.to_string()]).await.unwrap();
        }
    });
    let node = tokio::task::spawn_blocking(move || {
        node.kill().unwrap();
        node.restart().unwrap();
        node
    });
    let node = node.await.unwrap();
    rest.join_next().await.unwrap().unwrap();
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        for fetched in reader.poll(1 << 20).await {
            seen.extend(fetched.records.unwrap());
        }
    }
    assert_eq!(texts(&seen), expected, "the reader went on by itself");
    assert_eq!(texts(&read_all(&broker, &at("t", 0), 0).await), expected);
    drop(node);
}

#[tokio::test]
async fn settings_that_break_a_promise_are_refused_by_name() {
    for key in ["acks", "enable.idempotence", "auto.offset.reset", "group.id"] {
        let settings = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
        let config = KafkaConfig::new("127.0.0.1:1", settings);
        let refused = KafkaBroker::connect(config, clock()).await;
        assert!(
            matches!(&refused, Err(ConnectError::Forbidden(named)) if named == key),
            "{refused:?}"
        );
    }
    let settings = BTreeMap::from([("no.such.setting".to_owned(), "1".to_owned())]);
    let refused = KafkaBroker::connect(KafkaConfig::new("127.0.0.1:1", settings), clock()).await;
    let Err(ConnectError::Setting { key, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(key, "no.such.setting");
}

#[tokio::test]
async fn a_password_does_not_print() {
    let settings = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
    let printed = format!("{:?}", KafkaConfig::new("127.0.0.1:1", settings));
    assert!(printed.contains("sasl.password") && !printed.contains("hunter2"), "{printed}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    let config = KafkaConfig::new("127.0.0.1:1", BTreeMap::new());
    let refused = KafkaBroker::connect(config, clock()).await;
    let Err(error @ ConnectError::Unreachable { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

/// A fresh connection, which remembers nothing, sees the settings as asked for.
pub(crate) async fn a_topic_keeps_its_retention(mut lab: crate::lab::Lab) {
    let retention = Retention::For(Duration::from_secs(7200));
    let erase_buckets = Some(Duration::from_secs(600));
    let keys = TopicSpec { retention, erase_buckets, ..spec("tidings.keys", 1) };
    lab.broker().create_topic(keys).await.unwrap();
    lab.topic("tidings.slots", 2).await;
    lab.crash().await;
    let described = lab.broker().describe(&"tidings.keys".into()).await.unwrap();
    assert_eq!(described.retention, retention);
    let described = lab.broker().describe(&"tidings.slots".into()).await.unwrap();
    assert_eq!((described.retention, described.partitions), (Retention::Forever, 2));
}

/// One reader's partition comes to its end while another's is far behind.
pub(crate) async fn a_reader_of_many_topics_misses_nothing(lab: crate::lab::Lab) {
    let broker = lab.broker();
    let mut reader = broker.reader();
    for number in 0..20_u32 {
        let name = format!("t{number}");
        lab.topic(&name, 1).await;
        reader.assign(at(&name, 0), 0);
        fill(&broker, &at(&name, 0), 3).await;
    }
    let mut seen = BTreeMap::<String, u64>::new();
    while seen.values().sum::<u64>() < 60 {
        for fetched in reader.poll(64).await {
            let next = seen.entry(fetched.from.topic.to_string()).or_default();
            for record in fetched.records.unwrap() {
                assert_eq!(record.offset, *next);
                *next += 1;
            }
        }
    }
    assert!(tokio::time::timeout(lab.silence(), reader.poll(64)).await.is_err());
}

#[tokio::test]
async fn retention_is_as_asked() {
    a_topic_keeps_its_retention(crate::lab::Lab::kafka().await).await;
}

#[tokio::test]
async fn many_topics_in_one_reader() {
    a_reader_of_many_topics_misses_nothing(crate::lab::Lab::kafka().await).await;
}

const EVENTS: &str = "tidings.events.104";

/// What comes next of a partition's records or of its failure.
async fn next_of(reader: &mut Reader, partition: u32) -> Result<Vec<Record>, ReadError> {
    let next = async {
        loop {
            for fetched in reader.poll(1 << 20).await {
                if fetched.from == at(EVENTS, partition) {
                    return fetched.records;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("nothing comes")
}

fn damaged(offset: Offset, damage: Damage) -> Option<ReadError> {
    Some(ReadError::Damaged { partition: at(EVENTS, 0), offset, damage })
}

/// Puts all of these into one batch, as a producer does that compresses well.
fn in_one_batch(bootstrap: &str, values: &[&[u8]]) {
    let settings = [
        ("message.max.bytes", "1000000000"),
        ("batch.size", "1000000000"),
        ("queue.buffering.max.kbytes", "2000000"),
        ("linger.ms", "500"),
        ("compression.type", "zstd"),
    ];
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (key, value) in settings {
        config.set(key, value);
    }
    let producer: BaseProducer = config.create().unwrap();
    for value in values {
        let record = BaseRecord::<(), [u8]>::to(EVENTS).partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_unpacks_to_more_than_a_client_takes_is_named_and_never_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(dir.path(), &[]).unwrap();
    let broker = Broker::Kafka(connect(node.bootstrap(), &TestClock::today()).await);
    broker.create_topic(spec(EVENTS, 2)).await.unwrap();
    // Some kilobytes on the wire.
    let giant = vec![b'x'; 101_000_000];
    append(&broker, &at(EVENTS, 0), &["zero"]).await.unwrap();
    in_one_batch(&node.bootstrap(), &[&giant]);
    append(&broker, &at(EVENTS, 0), &["two"]).await.unwrap();
    in_one_batch(&node.bootstrap(), &[b"three", &giant]);
    append(&broker, &at(EVENTS, 0), &["five"]).await.unwrap();
    assert_eq!(broker.ends(&at(EVENTS, 0)).await.unwrap().end, 6);

    let mut reader = broker.reader();
    (0..2).for_each(|partition| reader.assign(at(EVENTS, partition), 0));
    assert_eq!(texts(&next_of(&mut reader, 0).await.unwrap()), ["zero"]);
    assert_eq!(next_of(&mut reader, 0).await.err(), damaged(1, Damage::TooLarge));
    append(&broker, &at(EVENTS, 1), &["another"]).await.unwrap();
    assert_eq!(texts(&next_of(&mut reader, 1).await.unwrap()), ["another"]);
    // One record that nobody can take: what is behind it can be read.
    reader.assign(at(EVENTS, 0), 2);
    assert_eq!(texts(&next_of(&mut reader, 0).await.unwrap()), ["two"]);
    // In this batch stands another one.
    for _ in 0..2 {
        assert_eq!(next_of(&mut reader, 0).await.err(), damaged(3, Damage::Broken));
        reader.assign(at(EVENTS, 0), 3);
    }
    reader.assign(at(EVENTS, 0), 5);
    assert_eq!(texts(&next_of(&mut reader, 0).await.unwrap()), ["five"]);
}

fn find(dir: &Path, ends: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() { find(&path, ends) } else { path.ends_with(ends).then_some(path) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_does_not_match_its_checksum_is_named_and_never_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(dir.path(), &[]).unwrap();
    let broker = Broker::Kafka(connect(node.bootstrap(), &TestClock::today()).await);
    broker.create_topic(spec(EVENTS, 1)).await.unwrap();
    for text in ["the first", "the second", "the third"] {
        append(&broker, &at(EVENTS, 0), &[text]).await.unwrap();
    }
    let log = find(dir.path(), &format!("{EVENTS}-0/00000000000000000000.log")).unwrap();
    let stored = std::fs::read(&log).unwrap();
    let place = stored.windows(10).position(|part| part == b"the second").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"The", place.try_into().unwrap()).unwrap();

    let mut reader = broker.reader();
    reader.assign(at(EVENTS, 0), 0);
    assert_eq!(texts(&next_of(&mut reader, 0).await.unwrap()), ["the first"]);
    for _ in 0..2 {
        assert_eq!(next_of(&mut reader, 0).await.err(), damaged(1, Damage::Broken));
        reader.assign(at(EVENTS, 0), 1);
    }
    drop(node);
}
