//! The view against hand-made topics.
#![expect(clippy::unwrap_used, reason = "in a test, also in what it is made of")]

mod any_order;
mod deleted;
mod disk;
mod support;

use std::{sync::atomic::Ordering, time::Duration};

use tidings_eventlog::{
    Backing, Batch, Cursor, Limits, MemoryDisk, Places, ReadError, Record, Source,
};
use tidings_proto::v1::{self, OutcomeKind};
use tidings_types::{EndReason, NotificationState, RunId, Timestamp};

use crate::support::{Event, START, Topics, fact, id, memory, open, routed, source, uid, webhook};

const EVER: Timestamp = Timestamp::ZERO;

#[tokio::test]
async fn a_routed_notification_is_pending_and_then_delivered() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    topics.route(0, &Event::new(1, &[1, 2]));
    view.read(&topics).await;
    let page = view.log.list(webhook(1), "104", EVER, 10, None).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let item = &page.items[0];
    assert_eq!((item.notification, item.state), (id(1, 1), NotificationState::Pending));
    assert_eq!((item.uid, &*item.tenant, item.attempts), (uid(1), "pm:20", 0));
    assert_eq!(item.source, (source(0), 0));
    assert_eq!(item.body, Some(support::body(1, 40)));

    topics.outcomes(3, Some(9), vec![fact(1, 1, OutcomeKind::Delivered, START + 50)]);
    view.read(&topics).await;
    let items = view.log.by_ids(webhook(1), &[id(1, 2), id(1, 1)]).await.unwrap();
    assert_eq!(items.len(), 1, "the other one is another webhook's");
    assert_eq!(items[0].state, NotificationState::Delivered);
    assert_eq!(items[0].attempts, 1);
    assert_eq!(items[0].last_sent, Some(Timestamp::from_millis(START + 50)));
    assert_eq!(items[0].last_code.as_deref(), Some("DELIVERED"));
}

#[tokio::test]
async fn an_outcome_that_comes_first_is_matched_later() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    topics.outcomes(3, Some(9), vec![fact(1, 1, OutcomeKind::Undelivered, START)]);
    view.read(&topics).await;
    assert_eq!(view.metrics.orphans(), 1);
    assert!(view.log.by_ids(webhook(1), &[id(1, 1)]).await.unwrap().is_empty());
    topics.outcomes.clear();
    topics.route(0, &Event::new(1, &[1]));
    view.read(&topics).await;
    assert_eq!(view.metrics.orphans(), 0);
    let items = view.log.by_ids(webhook(1), &[id(1, 1)]).await.unwrap();
    assert_eq!(items[0].state, NotificationState::Undelivered);
    assert_eq!(items[0].reason, Some(EndReason::Exhausted));
    let groups = view.log.undelivered(webhook(1), EVER, Places::new()).await.unwrap();
    assert_eq!((groups.len(), groups[0].count), (1, 1));
    assert_eq!(groups[0].notifications, [id(1, 1)]);
}

#[tokio::test]
async fn a_list_goes_on_behind_its_cursor_and_ends_at_as_of() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    for event in 0..2_000 {
        let time = START + i64::try_from(event / 3 * 200).unwrap();
        topics.route(u32::try_from(event % 4).unwrap(), &Event::new(event, &[1]).at(time));
    }
    view.read(&topics).await;
    let (mut cursor, mut seen): (Option<Cursor>, Vec<Cursor>) = (None, Vec::new());
    loop {
        let page = view.log.list(webhook(1), "104", EVER, 7, cursor).await.unwrap();
        let places = page
            .items
            .iter()
            .map(|item| Cursor { created: item.created, notification: item.notification });
        seen.extend(places);
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            break;
        }
        assert_eq!(page.items.len(), 7);
    }
    assert_eq!(seen.len(), 2_000);
    assert!(seen.is_sorted());

    let from = Timestamp::from_millis(START + 400);
    let page = view.log.list(webhook(1), "104", from, 2, None).await.unwrap();
    assert_eq!(page.items[0].created, from);
    let as_of = Timestamp::from_millis(START + 400);
    view.writer.set_status(tidings_eventlog::Status { complete: true, progress: 1.0, as_of });
    let page = view.log.list(webhook(1), "104", EVER, 100, None).await.unwrap();
    assert_eq!((page.items.len(), page.next), (9, None));
    assert_eq!(page.as_of, as_of);
    let page = view.log.list(webhook(1), "104", EVER, 9, None).await.unwrap();
    assert_eq!(page.next, None, "the last page up to as-of has nothing behind it");
}

#[tokio::test]
async fn a_decision_of_an_owner_that_lost_its_partition_is_void() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    let first = topics.took(0);
    topics.route(0, &Event::new(1, &[1]));
    let second = topics.took(0);
    topics.decide_as(0, first, routed(&Event::new(2, &[1, 2])), START + 2);
    topics.decide_as(0, second, routed(&Event::new(2, &[1])), START + 3);
    view.read(&topics).await;
    assert_eq!(view.metrics.void_decisions(), 1);
    assert!(view.log.by_ids(webhook(2), &[id(2, 2)]).await.unwrap().is_empty());
    let items = view.log.by_ids(webhook(1), &[id(2, 1)]).await.unwrap();
    assert_eq!(items[0].created, Timestamp::from_millis(START + 3));
    let account = view.account(&topics).await;
    assert!(account.agrees(), "{account:?}");
    assert_eq!((account.partitions[0].routed, account.partitions[0].notifications), (2, 2));
}

#[tokio::test]
async fn an_event_published_twice_is_counted_once_at_its_lowest_source() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    topics.route(1, &Event::new(1, &[1, 2]).at(START + 5));
    view.read(&topics).await;
    topics.routed.clear();
    // Lower source and earlier; a webhook more, one less.
    topics.route(0, &Event::new(1, &[2, 3]).at(START));
    view.read(&topics).await;
    let account = view.account(&topics).await;
    assert!(account.agrees(), "{account:?}");
    let rows: Vec<_> = account
        .partitions
        .iter()
        .map(|row| (row.source.partition, row.routed, row.duplicate, row.notifications))
        .collect();
    assert_eq!(rows, [(0, 1, 0, 3), (1, 0, 1, 0)]);
    let created = async |n: u8| {
        let items = view.log.by_ids(webhook(n), &[id(1, n)]).await.unwrap();
        items[0].created.as_millis() - START
    };
    assert_eq!((created(1).await, created(2).await, created(3).await), (5, 0, 0));
    let page = view.log.list(webhook(2), "104", EVER, 10, None).await.unwrap();
    assert_eq!(page.items.len(), 1, "the entry under its later time is passed over");
}

#[tokio::test]
async fn a_producer_id_that_comes_again_with_other_content_is_counted() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    topics.route(0, &Event::new(1, &[1]));
    let v1::decision::What::Routed(mut other) = routed(&Event::new(2, &[1])) else {
        unreachable!()
    };
    other.producer_id = "p1".into();
    topics.decide(0, v1::decision::What::Routed(other), START);
    topics.route(0, &Event::new(1, &[1]));
    view.read(&topics).await;
    assert_eq!(view.metrics.reused_ids(), 1);
    let account = view.account(&topics).await;
    assert_eq!((account.partitions[0].routed, account.partitions[0].duplicate), (2, 1));
}

#[tokio::test]
async fn the_sums_name_why_events_went_to_nobody() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    for reason in ["notSubscribed", "unknownTenant", "notSubscribed", "inactive"] {
        topics.filter(2, reason);
    }
    let bad = v1::Quarantined { code: "BAD_JSON".into(), field: String::new() };
    topics.decide(2, v1::decision::What::Quarantined(bad), START);
    topics.route(2, &Event { suspended: true, ..Event::new(9, &[1]) });
    topics.route(2, &Event::new(10, &[1, 2, 3]));
    let mut expired = fact(10, 2, OutcomeKind::Expired, START);
    expired.attempt = 0;
    topics.outcomes(1, Some(1), vec![expired, fact(10, 3, OutcomeKind::Cancelled, START)]);
    view.read(&topics).await;
    let account = view.account(&topics).await;
    assert!(account.agrees(), "{account:?}");
    let row = &account.partitions[0];
    assert_eq!((row.from, row.committed, row.skipped), (0, 8, 1));
    assert_eq!((row.filtered, row.quarantined, row.routed, row.notifications), (4, 1, 2, 4));
    let by: Vec<_> = row.filtered_by.iter().map(|(by, n)| (by.as_str(), *n)).collect();
    assert_eq!(by, [("unknownTenant", 1), ("notSubscribed", 2), ("inactive", 1)]);
    let ends = (row.undelivered, row.expired, row.cancelled, row.pending, row.delivered);
    assert_eq!(ends, (1, 1, 1, 1, 0));

    // What is decided beyond the commit does not count yet.
    let mut earlier = topics.committed.clone();
    earlier.insert(source(2), 6);
    let account = view.log.account(&earlier).await.unwrap();
    assert!(account.agrees(), "{account:?}");
    assert_eq!((account.partitions[0].routed, account.partitions[0].notifications), (0, 0));
    // A decision that is missing shows.
    earlier.insert(source(2), 9);
    assert!(!view.log.account(&earlier).await.unwrap().agrees());
}

#[tokio::test]
async fn a_resend_is_pending_and_no_outcome_takes_delivered_back() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    topics.route(0, &Event::new(1, &[1]));
    topics.outcomes(0, Some(1), vec![fact(1, 1, OutcomeKind::Undelivered, START)]);
    let run = RunId::from_parts(Timestamp::from_millis(START), [7; 10]);
    let asked = v1::Outcome {
        run: bytes::Bytes::copy_from_slice(run.as_bytes()),
        ..fact(1, 1, OutcomeKind::ResendAsked, START)
    };
    topics.outcomes(0, None, vec![asked]);
    view.read(&topics).await;
    let item = async || view.log.by_ids(webhook(1), &[id(1, 1)]).await.unwrap().remove(0);
    let now = item().await;
    assert_eq!((now.state, now.resends, now.run), (NotificationState::Pending, 1, run));
    assert_eq!(view.log.undelivered(webhook(1), EVER, Places::new()).await.unwrap()[0].count, 1);
    topics.outcomes.clear();
    let delivered = v1::Outcome {
        run: bytes::Bytes::copy_from_slice(run.as_bytes()),
        ..fact(1, 1, OutcomeKind::Delivered, START + 9)
    };
    topics.outcomes(0, Some(1), vec![delivered]);
    topics.outcomes(0, Some(2), vec![fact(1, 1, OutcomeKind::Undelivered, START + 10)]);
    let batch = topics.batch();
    view.writer.apply(batch).await.unwrap();
    let items = view.log.by_ids(webhook(1), &[id(1, 1)]).await.unwrap();
    assert_eq!((items[0].state, items[0].attempts), (NotificationState::Delivered, 4));
    assert!(view.log.undelivered(webhook(1), EVER, Places::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn past_its_deadline_an_event_is_shown_without_its_code() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    let v1::decision::What::Routed(mut routed) = routed(&Event::new(1, &[1])) else {
        unreachable!()
    };
    routed.deadline = START + 1_000;
    routed.redacted = Some(support::body(77, 12));
    topics.decide(0, v1::decision::What::Routed(routed), START);
    view.clock.0.store(START + 1_000, Ordering::Relaxed);
    view.read(&topics).await;
    let item = async || view.log.by_ids(webhook(1), &[id(1, 1)]).await.unwrap().remove(0);
    assert!(!item().await.redacted);
    view.clock.0.store(START + 1_001, Ordering::Relaxed);
    let item = item().await;
    assert_eq!((item.redacted, item.body), (true, Some(support::body(77, 12))));
}

#[tokio::test]
async fn a_record_that_does_not_decode_is_left_out_and_counted_as_read() {
    let mut view = memory().await;
    let mut batch = Batch::default();
    let record = |offset, known_format, value: &'static [u8]| Record {
        offset,
        time: Timestamp::ZERO,
        known_format,
        value: Some(value.into()),
    };
    batch.push(Source::Routed, 0, vec![record(0, true, b"\xff\xff"), record(1, false, b"")]);
    batch.push(Source::Outcomes, 4, vec![record(6, true, b"\x01")]);
    view.writer.apply(batch).await.unwrap();
    let positions = view.log.positions();
    assert_eq!(positions[&Source::Routed.partition(0)], 2);
    assert_eq!(positions[&Source::Outcomes.partition(4)], 7);
}

#[tokio::test]
async fn what_is_past_retention_is_not_shown_and_its_rows_go() {
    let disk = MemoryDisk::default();
    let retention = Duration::from_secs(3_600);
    let limits = Limits { retention, ..Limits::default() };
    let mut view = open(Backing::Memory(disk.clone()), limits).await;
    let empty = disk.len();
    let mut topics = Topics::default();
    for event in 0..600 {
        topics.route(0, &Event { body: 900, ..Event::new(event, &[1, 2]) });
        let kind = if event % 2 == 0 { OutcomeKind::Delivered } else { OutcomeKind::Undelivered };
        if event % 3 != 0 {
            topics.outcomes(0, Some(1), vec![fact(event, 1, kind, START)]);
        }
    }
    topics.outcomes(0, Some(1), vec![fact(9_999, 1, OutcomeKind::Delivered, START)]);
    view.clock.0.store(START, Ordering::Relaxed);
    view.read(&topics).await;
    assert!(!view.writer.retain().await.unwrap(), "nothing is old yet");

    let later = START + 599 + 3_600_000;
    view.clock.0.store(later, Ordering::Relaxed);
    let page = view.log.list(webhook(1), "104", EVER, 10, None).await.unwrap();
    assert_eq!(page.items.len(), 1, "only the latest is within the hour");
    view.clock.0.store(later + 10_000_000, Ordering::Relaxed);
    assert!(view.log.by_ids(webhook(1), &[id(599, 1)]).await.unwrap().is_empty());
    assert!(view.log.undelivered(webhook(1), EVER, Places::new()).await.unwrap().is_empty());
    let full = disk.len();
    let mut steps = 0;
    while view.writer.retain().await.unwrap() {
        steps += 1;
    }
    assert!(steps > 5, "{steps} steps for {full} rows");
    // The names of sources and types stay, and the last index rows of a list.
    assert!(disk.len() <= empty + 1 + 4, "{} rows are left of {full}", disk.len());
    let account = view.account(&topics).await;
    assert!(account.agrees(), "{account:?}");
}

#[tokio::test]
async fn a_closed_view_says_so() {
    let mut view = memory().await;
    view.writer.close().await.unwrap();
    let read = view.log.list(webhook(1), "104", EVER, 1, None).await;
    assert_eq!(read, Err(ReadError::NotOpen));
}

#[tokio::test]
async fn a_reader_waits_until_its_write_is_folded() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    topics.route(5, &Event::new(1, &[1]));
    let log = view.log.clone();
    let written = [(Source::Routed.partition(5), 2)];
    let waits = log.wait_for(&written);
    let mut waits = std::pin::pin!(waits);
    let polled = futures_poll(waits.as_mut()).await;
    assert!(!polled, "nothing is read yet");
    view.read(&topics).await;
    waits.await;
}

/// Polls once; says whether it is done.
async fn futures_poll(mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_ready()))
        .await
}

#[tokio::test]
async fn what_was_missed_goes_on_where_its_places_say() {
    let (mut topics, mut view) = (Topics::default(), memory().await);
    let all = 2_500;
    for event in 0..all {
        topics.route(0, &Event::new(event, &[1]));
        topics.outcomes(0, Some(9), vec![fact(event, 1, OutcomeKind::Undelivered, START + 500)]);
    }
    view.read(&topics).await;
    let (mut places, mut seen) = (Places::new(), Vec::new());
    for length in [1_000, 1_000, 500] {
        let groups = view.log.undelivered(webhook(1), EVER, places.clone()).await.unwrap();
        let [group] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!((group.count, group.notifications.len()), (2_500, length));
        seen.extend(group.notifications.iter().copied());
        places = group.next.iter().map(|place| (group.event_type.to_string(), *place)).collect();
    }
    assert!(places.is_empty());
    let mut ids: Vec<_> = (0..all).map(|event| id(event, 1)).collect();
    ids.sort();
    seen.sort();
    assert_eq!(seen, ids, "each once");
    // Of a type that is not asked for none are named.
    let elsewhere = Places::from([("101".to_owned(), PLACE)]);
    let groups = view.log.undelivered(webhook(1), EVER, elsewhere).await.unwrap();
    assert_eq!((groups[0].count, groups[0].notifications.len()), (2_500, 0));
}

const PLACE: Cursor = Cursor {
    created: Timestamp::ZERO,
    notification: tidings_types::NotificationId::from_bytes([0; 16]),
};
