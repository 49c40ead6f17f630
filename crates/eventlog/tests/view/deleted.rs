//! Whatever is taken away, a row, a `routed` record or an outcome, the account
//! disagrees or the view is made anew.

use tidings_eventlog::{Backing, Limits, MemoryDisk};
use tidings_proto::v1::OutcomeKind;

use crate::{
    futures_poll,
    support::{Event, Fixture, START, Topics, fact, open},
};

/// Events of all fates on two partitions; some are delivered, one fails, one waits.
fn topics() -> Topics {
    let mut topics = Topics::default();
    for event in 0..26 {
        topics.route(u32::try_from(event % 2).unwrap(), &Event::new(event, &[1, 2]));
        if event % 3 == 0 {
            topics.filter(0, "notSubscribed");
        }
    }
    topics.route(1, &Event::new(3, &[1, 2]));
    for event in 0..25 {
        let kind = if event == 7 { OutcomeKind::Undelivered } else { OutcomeKind::Delivered };
        let facts = [1, 2].map(|to| fact(event, to, kind, START + 500));
        topics.outcomes(u32::try_from(event % 3).unwrap(), Some(9), facts.into());
    }
    topics
}

async fn view_of(topics: &Topics, disk: &MemoryDisk) -> Fixture {
    let mut view = open(Backing::Memory(disk.clone()), Limits::default()).await;
    view.read(topics).await;
    view.writer.flush().await.unwrap();
    view
}

#[tokio::test]
async fn a_row_that_is_gone_is_missed() {
    let topics = topics();
    let disk = MemoryDisk::default();
    let view = view_of(&topics, &disk).await;
    assert!(view.account(&topics).await.agrees());
    let rows = disk.len();
    let mut counted = 0;
    for row in 0..rows {
        let disk = MemoryDisk::default();
        let view = view_of(&topics, &disk).await;
        let key = disk.remove(row).unwrap();
        // The rows that are counted; the others show at the next start.
        if matches!(key.first(), Some(b'c' | b'n')) {
            counted += 1;
            let account = view.log.account(&topics.committed).await;
            assert!(!account.is_ok_and(|account| account.agrees()), "without {key:?}");
        }
        drop(view);
        let view = open(Backing::Memory(disk), Limits::default()).await;
        assert!(view.opened.set_aside.is_some(), "without {key:?}");
    }
    assert!(counted > 20, "{counted} of {rows} rows");
}

#[tokio::test]
async fn a_routed_record_that_is_gone_is_missed() {
    let whole = topics();
    for (partition, records) in &whole.routed {
        for gone in 0..records.len() {
            let mut topics = whole.clone();
            topics.routed.get_mut(partition).unwrap().remove(gone);
            let view = view_of(&topics, &MemoryDisk::default()).await;
            let account = view.account(&topics).await;
            assert!(!account.agrees(), "without {gone} of {partition}: {account:?}");
        }
    }
}

#[tokio::test]
async fn an_outcome_that_is_gone_is_missed() {
    let whole = topics();
    for (partition, records) in &whole.outcomes {
        for gone in 0..records.len() {
            let mut topics = whole.clone();
            topics.outcomes.get_mut(partition).unwrap().remove(gone);
            let view = view_of(&topics, &MemoryDisk::default()).await;
            let account = view.account(&topics).await;
            // Without the last one the account waits for the end of the topic.
            let of = tidings_eventlog::Source::Outcomes.partition(*partition);
            let ends = [(of, records.len() as u64)];
            let is_read = futures_poll(std::pin::pin!(view.log.wait_for(&ends))).await;
            assert_eq!(is_read, gone + 1 < records.len());
            assert!(!is_read || !account.agrees(), "without {gone} of {partition}: {account:?}");
        }
    }
}

/// What a topic has lost before the view came to it is no gap.
#[tokio::test]
async fn what_retention_has_removed_is_not_missed() {
    let mut topics = topics();
    let gone: Vec<_> = topics.outcomes.values_mut().map(|records| records.remove(0)).collect();
    let mut view = open(Backing::Memory(MemoryDisk::default()), Limits::default()).await;
    let mut batch = tidings_eventlog::Batch::default();
    for partition in topics.outcomes.keys() {
        batch.skip(tidings_eventlog::Source::Outcomes, *partition, 1);
    }
    view.writer.apply(batch).await.unwrap();
    view.read(&topics).await;
    let account = view.account(&topics).await;
    assert!(account.agrees(), "{} are gone: {account:?}", gone.len());
}

/// What went before the view came to it, once it had begun to read, is one.
#[tokio::test]
async fn what_is_gone_behind_what_was_read_is_missed() {
    let topics = topics();
    for (source, partitions) in [
        (tidings_eventlog::Source::Routed, &topics.routed),
        (tidings_eventlog::Source::Outcomes, &topics.outcomes),
    ] {
        let mut view = view_of(&topics, &MemoryDisk::default()).await;
        let (partition, records) = partitions.iter().next().unwrap();
        let mut batch = tidings_eventlog::Batch::default();
        batch.skip(source, *partition, records.len() as u64 + 2);
        view.writer.apply(batch).await.unwrap();
        let account = view.account(&topics).await;
        assert!(!account.agrees());
        assert_eq!(account.missing, [(source.partition(*partition), 2)].into());
    }
}
