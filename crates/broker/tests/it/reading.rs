//! Reads, readers, offsets by time.

use std::{collections::BTreeMap, time::Duration};

use tidings_broker::{AppendBatch, NewRecord, ReadError, Reader, Record};
use tidings_types::{Timestamp, TopicPartition};
use tokio::task::JoinSet;

use crate::lab::{Lab, append, at, fill, read_all, record, spec, text, texts};

/// Polls until something of `from` comes. Fails on an error.
async fn next(reader: &mut Reader) -> Vec<(TopicPartition, Vec<Record>)> {
    let fetched = reader.poll(1 << 20).await;
    fetched.into_iter().map(|one| (one.from, one.records.unwrap())).collect()
}

async fn stays_silent(lab: &Lab, reader: &mut Reader) {
    let polled = tokio::time::timeout(lab.silence(), reader.poll(1 << 20)).await;
    assert!(polled.is_err(), "{polled:?}");
}

pub(crate) async fn a_read_goes_on_where_the_last_one_ended(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    fill(&broker, &at("t", 0), 30).await;
    assert_eq!(broker.read(&at("t", 0), 7, 1).await.unwrap().len(), 1, "at least one");
    let read = read_all(&broker, &at("t", 0), 7).await;
    assert_eq!(text(&read[0]), "7");
    assert_eq!(read.len(), 23);
    assert!(broker.read(&at("t", 0), 30, 100).await.unwrap().is_empty());
}

pub(crate) async fn a_read_of_old_records_gives_what_was_appended(mut lab: Lab) {
    lab.topic("t", 2).await;
    let broker = lab.broker();
    let value = "v".repeat(100);
    for number in 0..300_u32 {
        let values = [format!("{number}{value}")];
        append(&broker, &at("t", number % 2), &[&values[0]]).await.unwrap();
    }
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 40);
    let mut seen = Vec::new();
    while seen.len() < 110 {
        for fetched in reader.poll(777).await {
            seen.extend(fetched.records.unwrap());
        }
    }
    assert_eq!(seen.len(), 110);
    for (index, record) in seen.iter().enumerate() {
        assert_eq!(text(record), format!("{}{value}", (index + 40) * 2));
    }
    assert_eq!(reader.position(&at("t", 0)), Some(150));
    stays_silent(&lab, &mut reader).await;
}

pub(crate) async fn a_reader_waits_and_is_woken_by_an_append(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    stays_silent(&lab, &mut reader).await;
    for round in 0..20_u64 {
        let appender = broker.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            append(&appender, &at("t", 0), &[&round.to_string()]).await.unwrap();
        });
        let fetched = next(&mut reader).await;
        assert_eq!(texts(&fetched[0].1), [round.to_string()]);
        assert_eq!(reader.position(&at("t", 0)), Some(round + 1));
        tasks.join_next().await.unwrap().unwrap();
    }
}

pub(crate) async fn a_reader_takes_turns_between_partitions(lab: Lab) {
    lab.topic("t", 4).await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    for partition in 0..4 {
        fill(&broker, &at("t", partition), 12).await;
        reader.assign(at("t", partition), 0);
    }
    let mut order = Vec::new();
    for number in 0..48 {
        for fetched in reader.poll(1).await {
            assert_eq!(fetched.records.unwrap().len(), 1);
            order.push(fetched.from.partition);
        }
        if number == 0 {
            // By now all partitions have come over the network, if there is one.
            lab.pass(lab.silence()).await;
        }
    }
    assert_eq!(order.len(), 48);
    for turn in order[1..45].chunks(4) {
        assert_eq!(turn, &order[1..5], "each gets its turn");
    }
    stays_silent(&lab, &mut reader).await;
}

pub(crate) async fn a_dropped_poll_loses_nothing(lab: Lab) {
    lab.topic("t", 3).await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    for partition in 0..3 {
        reader.assign(at("t", partition), 0);
    }
    let mut tasks = JoinSet::new();
    for partition in 0..3 {
        let broker = broker.clone();
        tasks.spawn(async move { fill(&broker, &at("t", partition), 200).await });
    }
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let mut polls = 0_u64;
    while seen.values().sum::<u64>() < 600 {
        polls += 1;
        let patience = Duration::from_micros(100 * (polls % 13));
        if let Ok(all) = tokio::time::timeout(patience, reader.poll(50)).await {
            for fetched in all {
                let next = seen.entry(fetched.from.partition).or_default();
                for record in fetched.records.unwrap() {
                    assert_eq!(record.offset, *next);
                    *next += 1;
                }
            }
        } else {
            tokio::task::yield_now().await;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

pub(crate) async fn a_paused_partition_gives_nothing_until_it_is_resumed(lab: Lab) {
    lab.topic("t", 2).await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    reader.assign(at("t", 1), 0);
    reader.pause(&at("t", 0));
    fill(&broker, &at("t", 0), 3).await;
    stays_silent(&lab, &mut reader).await;
    fill(&broker, &at("t", 1), 1).await;
    let fetched = next(&mut reader).await;
    assert_eq!((fetched.len(), &fetched[0].0), (1, &at("t", 1)));
    assert_eq!(reader.position(&at("t", 0)), Some(0));
    reader.resume(&at("t", 0));
    let fetched = next(&mut reader).await;
    assert_eq!(texts(&fetched[0].1), ["0", "1", "2"]);
}

pub(crate) async fn a_partition_that_is_assigned_anew_is_not_paused_any_more(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    fill(&broker, &at("t", 0), 3).await;
    assert_eq!(next(&mut reader).await[0].1.len(), 3);
    reader.pause(&at("t", 0));
    reader.unassign(&at("t", 0));
    fill(&broker, &at("t", 0), 1).await;
    reader.assign(at("t", 0), 3);
    assert_eq!(next(&mut reader).await[0].1.len(), 1);
}

pub(crate) async fn an_unassigned_partition_gives_nothing_more(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    fill(&broker, &at("t", 0), 3).await;
    reader.unassign(&at("t", 0));
    assert_eq!(reader.position(&at("t", 0)), None);
    stays_silent(&lab, &mut reader).await;
    reader.assign(at("t", 0), 1);
    assert_eq!(texts(&next(&mut reader).await[0].1), ["1", "2"]);
    reader.assign(at("t", 0), 0);
    assert_eq!(next(&mut reader).await[0].1.len(), 3, "a second call moves the position");
}

pub(crate) async fn a_reader_may_be_assigned_before_its_topic_exists_anywhere(lab: Lab) {
    let broker = lab.broker();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    let fetched = reader.poll(100).await;
    let expected = Err(ReadError::UnknownPartition(at("t", 0)));
    assert_eq!(fetched[0].records.as_ref().map(Vec::len).map_err(Clone::clone), expected);
    assert_eq!(reader.position(&at("t", 0)), None, "an error unassigns");
    lab.topic("t", 1).await;
    reader.assign(at("t", 0), 0);
    fill(&broker, &at("t", 0), 1).await;
    assert_eq!(next(&mut reader).await[0].1.len(), 1);
    broker.delete_topic(&"t".into()).await.unwrap();
    let fetched = reader.poll(100).await;
    assert!(matches!(fetched[0].records, Err(ReadError::UnknownPartition(_))));
}

pub(crate) async fn reading_beyond_the_end_is_an_error(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    fill(&broker, &at("t", 0), 3).await;
    let expected = ReadError::BeyondEnd { partition: at("t", 0), offset: 4, end: 3 };
    assert_eq!(broker.read(&at("t", 0), 4, 100).await.map(|_| ()), Err(expected.clone()));
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 4);
    let fetched = reader.poll(100).await.remove(0);
    assert_eq!(fetched.records.map(|_| ()), Err(expected));
}

pub(crate) async fn reading_a_trimmed_offset_names_the_first_one(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    fill(&broker, &at("t", 0), 10).await;
    broker.trim(&at("t", 0), 4).await.unwrap();
    let expected = ReadError::Trimmed { partition: at("t", 0), offset: 3, first: 4 };
    assert_eq!(broker.read(&at("t", 0), 3, 100).await.map(|_| ()), Err(expected.clone()));
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 3);
    let fetched = reader.poll(100).await.remove(0);
    assert_eq!(fetched.records.map(|_| ()), Err(expected));
    assert_eq!(text(&read_all(&broker, &at("t", 0), 4).await[0]), "4");
}

fn timed(millis: i64) -> NewRecord {
    NewRecord { timestamp: Some(Timestamp::from_millis(millis)), ..record("timed") }
}

pub(crate) async fn an_offset_is_found_by_time(mut lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    for start in (0..1000).step_by(7) {
        let records = (start..start + 7).map(|number| timed(10 * number)).collect();
        broker.append(vec![AppendBatch { to: at("t", 0), records }]).await.remove(0).unwrap();
    }
    drop(broker);
    lab.crash().await;
    let broker = lab.broker();
    broker.trim(&at("t", 0), 100).await.unwrap();
    for time in [-5, 0, 999, 1000, 1001, 5553, 9999, 10_000, 10_001] {
        let offset = broker.offset_at(&at("t", 0), Timestamp::from_millis(time)).await.unwrap();
        let expected = u64::try_from(time.max(0)).unwrap().div_ceil(10).clamp(100, 1001);
        assert_eq!(offset, expected, "at {time}");
    }
    let end = broker.offset_at(&at("t", 0), Timestamp::from_millis(1 << 40)).await.unwrap();
    assert_eq!(end, 1001);
}

pub(crate) async fn an_offset_by_time_is_exact_when_times_jump(lab: Lab) {
    lab.topic("t", 1).await;
    let broker = lab.broker();
    let mut times = Vec::new();
    let mut state = 7_u64;
    for _ in 0..120 {
        let mut records = Vec::new();
        for _ in 0..1 + state % 5 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            times.push(i64::try_from(state >> 40).unwrap() % 1000);
            records.push(timed(*times.last().unwrap()));
        }
        broker.append(vec![AppendBatch { to: at("t", 0), records }]).await.remove(0).unwrap();
    }
    for first in [0, 57] {
        broker.trim(&at("t", 0), first).await.unwrap();
        for time in (-10..1010).step_by(13) {
            let skip = usize::try_from(first).unwrap();
            let found = times.iter().skip(skip).position(|other| *other >= time);
            let expected = found.map_or(times.len(), |index| index + skip);
            let offset = broker.offset_at(&at("t", 0), Timestamp::from_millis(time)).await.unwrap();
            assert_eq!(usize::try_from(offset).unwrap(), expected, "at {time} from {first}");
        }
    }
}

pub(crate) async fn many_idle_partitions_and_one_append(lab: Lab) {
    let broker = lab.broker();
    let many = lab.many();
    broker.create_topic(spec("t", many)).await.unwrap();
    let (mut wanted, mut other) = (broker.reader(), broker.reader());
    for partition in 0..many {
        let reader = if partition == many / 2 { &mut wanted } else { &mut other };
        reader.assign(at("t", partition), 0);
    }
    stays_silent(&lab, &mut other).await;
    append(&broker, &at("t", many / 2), &["x"]).await.unwrap();
    assert_eq!(next(&mut wanted).await[0].0, at("t", many / 2));
    stays_silent(&lab, &mut other).await;
    append(&broker, &at("t", many / 2 - 1), &["y"]).await.unwrap();
    let fetched = next(&mut other).await;
    assert_eq!((fetched.len(), &fetched[0].0), (1, &at("t", many / 2 - 1)));
}
