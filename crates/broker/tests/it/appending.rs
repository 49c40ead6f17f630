//! Order, durability, group commit, limits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidings_broker::{AppendBatch, AppendError, NewRecord, Offsets};
use tidings_types::{Clock, Timestamp, TopicName};
use tokio::task::JoinSet;

use crate::lab::{Lab, append, at, batch, fill, read_all, record, text, texts};

pub(crate) async fn records_keep_their_order_and_content(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let header = (Arc::<str>::from("v"), Bytes::from_static(b"1"));
    let full = NewRecord {
        key: Some(Bytes::from_static(b"key")),
        headers: vec![header.clone(), (Arc::from("w"), Bytes::new())],
        value: Some(Bytes::from_static(b"value")),
        timestamp: Some(Timestamp::from_millis(5)),
    };
    let records = vec![full, NewRecord::default(), record("third")];
    let result = broker.append(vec![AppendBatch { to: at("t", 0), records }]).await;
    assert_eq!(result, [Ok(Offsets::Run { first: 0, count: 3 })]);
    fill(&broker, &at("t", 0), 200).await;
    let read = read_all(&broker, &at("t", 0), 0).await;
    assert_eq!(read[0].key.as_deref(), Some(&b"key"[..]));
    assert_eq!(read[0].headers[0], header);
    assert_eq!(read[0].headers[1].1.len(), 0);
    assert_eq!(read[0].timestamp, Timestamp::from_millis(5));
    assert_eq!((&read[1].key, &read[1].value, read[1].headers.len()), (&None, &None, 0));
    let time = read[1].timestamp;
    assert!(time >= lab.clock.base() && time <= lab.clock.now(), "the broker gave it its time");
    let rest: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(texts(&read[3..]), rest);
}

pub(crate) async fn an_append_answers_with_consecutive_offsets(lab: Lab) {
    lab.topic("t", 2).await;
    let broker = lab.broker();
    let (zero, one) = (at("t", 0), at("t", 1));
    let first =
        broker.append(vec![batch(&zero, &["a", "b"]), batch(&one, &["x"]), batch(&zero, &["c"])]);
    let run = |first, count| Ok(Offsets::Run { first, count });
    assert_eq!(first.await, [run(0, 2), run(0, 1), run(2, 1)]);
    assert_eq!(append(&broker, &zero, &["d", "e", "f"]).await, run(3, 3));
    let ends = broker.ends(&zero).await.unwrap();
    assert_eq!((ends.first, ends.end), (0, 6));
}

pub(crate) async fn concurrent_appends_to_a_partition_keep_the_order_of_their_calls(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut tasks = JoinSet::new();
    // One thread runs spawned tasks in order, so they call in this order.
    for number in 0..100 {
        let broker = broker.clone();
        tasks.spawn(async move {
            let offsets = append(&broker, &at("t", 0), &[&number.to_string()]).await.unwrap();
            assert_eq!(offsets.first(), Some(number));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

pub(crate) async fn what_was_acknowledged_survives_a_crash(mut lab: Lab) {
    lab.topic("t", 3).await;
    let broker = lab.broker();
    for round in 0..20 {
        let values = [format!("{round}a"), format!("{round}b")];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        append(&broker, &at("t", round % 3), &values).await.unwrap();
    }
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    for partition in 0..3 {
        let read = read_all(&broker, &at("t", partition), 0).await;
        let rounds = (0..20).filter(|round| round % 3 == partition);
        let expected: Vec<String> =
            rounds.flat_map(|round| [format!("{round}a"), format!("{round}b")]).collect();
        assert_eq!(texts(&read), expected);
        let next = append(&broker, &at("t", partition), &["next"]).await.unwrap();
        assert_eq!(next.first(), Some(u64::try_from(expected.len()).unwrap()));
    }
}

pub(crate) async fn what_a_reader_has_seen_survives_a_crash(mut lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let broker = broker.clone();
        tasks.spawn(async move {
            for step in 0.. {
                let value = format!("{number}-{step}");
                append(&broker, &at("t", 0), &[&value]).await.unwrap();
            }
        });
    }
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    let mut seen = Vec::new();
    while seen.len() < 100 {
        for fetched in reader.poll(1 << 20).await {
            seen.extend(fetched.records.unwrap());
        }
    }
    tasks.shutdown().await;
    drop((broker, reader));
    lab.crash().await;
    let kept = read_all(&lab.broker(), &at("t", 0), 0).await;
    assert!(kept.len() >= seen.len());
    assert_eq!(texts(&seen), texts(&kept[..seen.len()]));
}

pub(crate) async fn many_appenders_share_a_sync(lab: Lab) {
    lab.topic("t", 8).await;
    let broker = lab.broker();
    let before = lab.sync_stats();
    let mut tasks = JoinSet::new();
    for number in 0..64_u32 {
        let broker = broker.clone();
        tasks.spawn(async move {
            for _ in 0..50 {
                append(&broker, &at("t", number % 8), &["x"]).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let after = lab.sync_stats();
    let records = after.appended_records - before.appended_records;
    let syncs = after.syncs - before.syncs;
    assert_eq!(records, 64 * 50);
    assert!(records >= 8 * syncs, "{records} records took {syncs} syncs");
}

pub(crate) async fn an_append_over_several_partitions_may_fail_in_part(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let huge = "x".repeat(6 << 20);
    let results = broker
        .append(vec![
            batch(&at("t", 0), &["good"]),
            batch(&at("t", 7), &["no partition"]),
            batch(&at("u", 0), &["no topic"]),
            batch(&at("t", 0), &["fits", &huge]),
            batch(&at("t", 0), &["good too"]),
        ])
        .await;
    assert_eq!(results[0], Ok(Offsets::Run { first: 0, count: 1 }));
    assert_eq!(results[1], Err(AppendError::UnknownPartition(at("t", 7))));
    assert_eq!(results[2], Err(AppendError::UnknownTopic(TopicName::new("u"))));
    assert!(matches!(results[3], Err(AppendError::TooLarge { index: 1, .. })));
    assert_eq!(results[4], Ok(Offsets::Run { first: 1, count: 1 }));
    assert_eq!(texts(&read_all(&broker, &at("t", 0), 0).await), ["good", "good too"]);
}

/// Both answers are right: done at once, or left to the caller.
pub(crate) async fn what_is_appended_in_order_stands_only_behind_its_first(mut lab: Lab) {
    lab.topic("t", 3).await;
    let broker = lab.broker();
    let (first, then) = (at("t", 0), at("t", 1));
    let run = |first, count| Ok(Offsets::Run { first, count });
    let behind = || vec![batch(&then, &["x"]), batch(&at("u", 0), &["no topic"])];
    let done = broker.append_in_order(batch(&first, &["a", "b"]), 0, behind()).await;
    assert_eq!(done.first, run(0, 2));
    let at_once = done.then.is_some();
    if let Some(results) = done.then {
        assert_eq!(results, [run(0, 1), Err(AppendError::UnknownTopic(TopicName::new("u")))]);
    }
    append(&broker, &first, &["from elsewhere"]).await.unwrap();
    let elsewhere = broker.append_in_order(batch(&first, &["c"]), 2, behind()).await;
    assert_eq!((elsewhere.first, elsewhere.then), (run(3, 1), None), "another's stands at 2");
    let refused = broker.append_in_order(batch(&at("t", 7), &["d"]), 0, behind()).await;
    let error = Err(AppendError::UnknownPartition(at("t", 7)));
    assert_eq!((refused.first, refused.then), (error, None));
    let alone = broker.append_in_order(batch(&at("t", 2), &["e"]), 0, Vec::new()).await;
    assert_eq!(alone.first, run(0, 1));
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    let written = read_all(&broker, &then, 0).await;
    assert_eq!(texts(&written), if at_once { vec!["x"] } else { Vec::new() });
    assert_eq!(texts(&read_all(&broker, &first, 0).await), ["a", "b", "from elsewhere", "c"]);
}

pub(crate) async fn an_append_in_order_is_one_sync(lab: Lab) {
    lab.topic("t", 2).await;
    let broker = lab.broker();
    let before = lab.sync_stats().syncs;
    let then = vec![batch(&at("t", 1), &["x"])];
    let done = broker.append_in_order(batch(&at("t", 0), &["a"]), 0, then).await;
    assert!(done.then.is_some(), "the local log does both at once");
    assert_eq!(lab.sync_stats().syncs - before, 1);
}

pub(crate) async fn a_record_at_the_limit_passes_and_one_byte_more_does_not(mut lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let one_mebibyte = "m".repeat(1 << 20);
    append(&broker, &at("t", 0), &[&one_mebibyte]).await.unwrap();
    let probe = append(&broker, &at("t", 0), &[&"x".repeat(6 << 20)]).await;
    let Err(AppendError::TooLarge { index: 0, limit, .. }) = probe else { panic!("{probe:?}") };
    let largest = "l".repeat(limit - 1);
    let sized = |value: &str| {
        let key = Some(Bytes::from_static(b"k"));
        vec![AppendBatch { to: at("t", 0), records: vec![NewRecord { key, ..record(value) }] }]
    };
    broker.append(sized(&largest)).await.remove(0).unwrap();
    let more = format!("{largest}l");
    let result = broker.append(sized(&more)).await.remove(0);
    assert_eq!(result, Err(AppendError::TooLarge { index: 0, bytes: limit + 1, limit }));
    drop(broker);
    lab.crash().await;
    let read = read_all(&lab.broker(), &at("t", 0), 0).await;
    assert_eq!(read.len(), 2);
    assert!(text(&read[0]) == one_mebibyte && text(&read[1]) == largest);
}

pub(crate) async fn an_appender_that_dies_leaves_whole_batches_only(mut lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let long = "y".repeat(500);
    let values = [long.as_str(); 10];
    let mut tasks = JoinSet::new();
    for patience in 0..40_u64 {
        let broker = broker.clone();
        let records = batch(&at("t", 0), &values);
        tasks.spawn(async move {
            let append = broker.append(vec![records]);
            // Some are dropped while they wait, some are done before.
            drop(tokio::time::timeout(Duration::from_micros(patience * 100), append).await);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    append(&broker, &at("t", 0), &["last"]).await.unwrap();
    drop(broker);
    lab.crash().await;
    let read = read_all(&lab.broker(), &at("t", 0), 0).await;
    assert_eq!(read.len() % values.len(), 1, "batches are whole, then the last record");
    assert_eq!(text(read.last().unwrap()), "last");
}

pub(crate) async fn an_empty_batch_is_no_record(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    append(&broker, &at("t", 0), &["a"]).await.unwrap();
    let empty = append(&broker, &at("t", 0), &[]).await.unwrap();
    assert_eq!((empty.first(), empty.last()), (None, None));
    assert_eq!(broker.append(Vec::new()).await, []);
    assert_eq!(broker.ends(&at("t", 0)).await.unwrap().end, 1);
}
