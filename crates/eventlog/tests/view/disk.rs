//! The view on sled: it survives what it should, and is made anew after what it
//! should not.

use std::{fs, path::Path};

use tidings_eventlog::{Backing, EventLog, Limits, MemoryDisk, Metrics, OpenError, Status};
use tidings_proto::v1::OutcomeKind;
use tidings_types::{Clock, Timestamp};

use crate::support::{Event, Fixture, START, Topics, fact, open, webhook};

fn some_topics(events: u64) -> Topics {
    let mut topics = Topics::default();
    for event in 0..events {
        let partition = u32::try_from(event % 12).unwrap();
        topics.route(partition, &Event { body: 300, ..Event::new(event, &[1, 2, 3]) });
        let facts = [1, 2].map(|to| fact(event, to, OutcomeKind::Delivered, START));
        topics.outcomes(partition, Some(1), facts.to_vec());
    }
    topics
}

async fn filled(dir: &Path, topics: &Topics) -> String {
    let mut view = open(Backing::Disk(dir.to_owned()), Limits::default()).await;
    assert_eq!(view.opened.set_aside, None);
    view.read(topics).await;
    let dump = view.log.dump(webhook(1)).await.unwrap();
    view.writer.close().await.unwrap();
    dump
}

fn set_aside(dir: &Path) -> usize {
    let bad = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().contains(".bad-");
    fs::read_dir(dir.parent().unwrap())
        .unwrap()
        .filter(|entry| bad(entry.as_ref().unwrap()))
        .count()
}

#[tokio::test]
async fn what_is_closed_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("eventlog");
    let topics = some_topics(500);
    let before = filled(&dir, &topics).await;
    let view = open(Backing::Disk(dir.clone()), Limits::default()).await;
    assert_eq!(view.opened.set_aside, None);
    assert_eq!(view.opened.positions.len(), 24);
    assert_eq!(view.log.dump(webhook(1)).await.unwrap(), before);
    assert!(view.account(&topics).await.agrees());
}

#[tokio::test]
async fn a_second_opening_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("eventlog");
    let topics = some_topics(50);
    let mut first = open(Backing::Disk(dir.clone()), Limits::default()).await;
    first.read(&topics).await;
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let (backing, clock) =
        (Backing::Disk(dir.clone()), first.clock.clone() as std::sync::Arc<dyn Clock>);
    let (_, mut second) = EventLog::new(backing, Limits::default(), clock, metrics);
    assert!(matches!(second.open().await, Err(OpenError::Locked(_))));
    assert_eq!(set_aside(&dir), 0);
    assert!(first.account(&topics).await.agrees());
}

#[tokio::test]
async fn a_half_written_directory_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("eventlog");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("conf"), b"").unwrap();
    let view = open(Backing::Disk(dir.clone()), Limits::default()).await;
    assert!(view.opened.set_aside.is_some());
    assert!(view.opened.positions.is_empty());
    assert_eq!(set_aside(&dir), 1);
}

#[tokio::test]
async fn a_store_that_lost_what_it_held_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("eventlog");
    filled(&dir, &some_topics(50)).await;
    // As a power cut can leave it (`embedded-broker.md` §4.3): it opens, empty.
    let db = fs::OpenOptions::new().write(true).open(dir.join("db")).unwrap();
    db.set_len(0).unwrap();
    let view = open(Backing::Disk(dir.clone()), Limits::default()).await;
    assert!(view.opened.set_aside.is_some());
    assert_eq!(set_aside(&dir), 1);
}

/// Whether what is read now is what the topics say.
async fn right_or_refused(view: &mut Fixture, topics: &Topics, right: &str) {
    if view.opened.set_aside.is_some() {
        assert!(view.opened.positions.is_empty());
        view.read(topics).await;
    } else {
        // An earlier state is as good: reading goes on where it ends.
        let positions = view.log.positions();
        let mut batch = tidings_eventlog::Batch::default();
        for (source, partitions) in [
            (tidings_eventlog::Source::Routed, &topics.routed),
            (tidings_eventlog::Source::Outcomes, &topics.outcomes),
        ] {
            for (partition, records) in partitions {
                let next = positions.get(&source.partition(*partition)).copied().unwrap_or(0);
                let rest = records.iter().filter(|record| record.offset >= next);
                batch.push(source, *partition, rest.cloned().collect());
            }
        }
        if !batch.is_empty() {
            view.writer.apply(batch).await.unwrap();
        }
    }
    assert_eq!(view.log.dump(webhook(1)).await.unwrap(), right);
    assert!(view.account(topics).await.agrees());
}

#[tokio::test]
async fn a_flipped_bit_never_gives_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let topics = some_topics(400);
    let good = dir.path().join("good");
    let right = filled(&good, &topics).await;
    let original = fs::read(good.join("db")).unwrap();
    let used = original.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut found = 0;
    for n in 0..24 {
        let dir = dir.path().join(format!("try{n}"));
        copy(&good, &dir);
        let mut bytes = original.clone();
        let at = used / 24 * n + n * 37 % 100;
        bytes[at] ^= 0x10;
        fs::write(dir.join("db"), bytes).unwrap();
        let mut view = open(Backing::Disk(dir.clone()), Limits::default()).await;
        found += usize::from(view.opened.set_aside.is_some());
        right_or_refused(&mut view, &topics, &right).await;
    }
    assert!(found > 0, "no flip was found");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn every_damaged_row_in_memory_is_found() {
    let topics = some_topics(45);
    let mut rows = 0;
    loop {
        let disk = MemoryDisk::default();
        let mut view = open(Backing::Memory(disk.clone()), Limits::default()).await;
        view.read(&topics).await;
        drop(view);
        if !disk.flip(rows) {
            break;
        }
        let view = open(Backing::Memory(disk), Limits::default()).await;
        assert!(view.opened.set_aside.is_some(), "row {rows} is damaged");
        rows += 1;
    }
    assert!(rows > 60, "{rows} rows");
}

#[tokio::test]
async fn damage_found_while_reading_refuses_and_is_made_good() {
    let disk = MemoryDisk::default();
    let topics = some_topics(30);
    let mut view = open(Backing::Memory(disk.clone()), Limits::default()).await;
    view.read(&topics).await;
    let right = view.log.dump(webhook(1)).await.unwrap();
    (0..disk.len()).for_each(|row| assert!(disk.flip(row)));
    assert!(view.log.dump(webhook(1)).await.is_err());
    assert!(view.writer.is_damaged());
    view.writer.set_aside().await.unwrap();
    let opened = view.writer.open().await.unwrap();
    assert!(opened.positions.is_empty());
    view.read(&topics).await;
    assert_eq!(view.log.dump(webhook(1)).await.unwrap(), right);
}

#[tokio::test]
async fn a_large_body_stands_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("eventlog");
    let mut topics = Topics::default();
    topics.route(0, &Event { body: 700_000, ..Event::new(1, &[1]) });
    topics.route(0, &Event::new(2, &[1]));
    let before = filled(&dir, &topics).await;
    let blobs = fs::read_dir(dir.join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled keeps nothing outside its log");
    let view = open(Backing::Disk(dir), Limits::default()).await;
    assert_eq!(view.opened.set_aside, None);
    assert_eq!(view.log.dump(webhook(1)).await.unwrap(), before);
}

#[tokio::test]
async fn a_rebuilt_view_of_a_hundred_thousand_notifications_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut topics = Topics::default();
    let all: Vec<u8> = (1..=10).collect();
    for event in 0..10_000 {
        let partition = u32::try_from(event % 12).unwrap();
        let time = START + i64::try_from(event).unwrap() * 20;
        topics.route(partition, &Event { body: 1_024, ..Event::new(event, &all).at(time) });
        let kind = match event % 10 {
            0 => OutcomeKind::Undelivered,
            1 => OutcomeKind::AttemptFailed,
            2 => continue,
            _ => OutcomeKind::Delivered,
        };
        for to in &all {
            let facts = vec![fact(event, *to, kind, time)];
            topics.outcomes(u32::from(*to), Some(1), facts);
        }
    }
    let mut dumps = Vec::new();
    for name in ["first", "second"] {
        let backing = Backing::Disk(dir.path().join(name));
        let mut view = open(backing.clone(), Limits::default()).await;
        if name == "first" {
            view.read(&topics).await;
        } else {
            // Outcomes first, then the decisions, partition by partition.
            for source in [tidings_eventlog::Source::Outcomes, tidings_eventlog::Source::Routed] {
                let partitions = match source {
                    tidings_eventlog::Source::Routed => &topics.routed,
                    tidings_eventlog::Source::Outcomes => &topics.outcomes,
                };
                for (partition, records) in partitions {
                    let mut batch = tidings_eventlog::Batch::default();
                    batch.push(source, *partition, records.clone());
                    view.writer.apply(batch).await.unwrap();
                }
            }
        }
        assert!(view.account(&topics).await.agrees());
        let mut dump = String::new();
        for n in &all {
            dump += &view.log.dump(webhook(*n)).await.unwrap();
        }
        dumps.push(dump);
        let blobs = fs::read_dir(dir.path().join(name).join("blobs")).unwrap().count();
        assert_eq!(blobs, 0, "sled keeps nothing outside its log");
        view.writer.set_status(Status { complete: true, progress: 1.0, as_of: Timestamp::ZERO });
    }
    assert_eq!(dumps[0].lines().filter(|line| line.starts_with("104")).count(), 100_000);
    assert!(dumps[0] == dumps[1], "the rebuilt view differs");
}
