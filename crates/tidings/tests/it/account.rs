//! What is gone from the logs or the view shows in `tidings account`, or is made anew.

use std::{fs, path::Path, sync::Arc};

use prometheus_client::registry::Registry;
use tidings_broker::{Broker, LocalBroker, LocalConfig};
use tidings_e2e::wait_for;
use tidings_telemetry::SystemClock;
use tidings_types::{OUTCOME_PARTITIONS, ROUTED_PARTITIONS, TopicPartition, names};

use crate::stage::{Ended, PATIENCE, Stage, event};

/// Publishes notifications one by one until `count` have arrived.
async fn deliver(stage: &Stage, from: usize, count: usize) {
    for n in from..count {
        stage.publish(&event(&format!(r#"{{"messageId":"{n}","publicToken":"t"}}"#))).await;
        stage.arrived("w", n + 1).await;
    }
    let ended = settled(stage, count).await;
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    assert!(ended.out.ends_with("the sums agree\n"), "{}", ended.out);
}

/// The account of topic 104 once it counts so many as delivered, or says that it cannot.
async fn settled(stage: &Stage, count: usize) -> Ended {
    let count = count.to_string();
    wait_for("the account", PATIENCE, async || {
        let ended = stage.run(&["account", "--topic", "104"], "");
        let is_whole = ended.out.lines().any(|line| {
            let mut columns = line.split_whitespace();
            // The ninth of the numbers: delivered.
            columns.next().is_some() && columns.nth(8) == Some(&count)
        });
        Ok((is_whole || ended.code != Some(0)).then_some(ended))
    })
    .await
    .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).unwrap();
        }
    }
}

/// Takes all but the last record out of the topic's fullest partition.
async fn trim(stage: &Stage, topic: &'static str, partitions: u32) {
    let folder = stage.data().join("log");
    let clock = Arc::new(SystemClock);
    let config = LocalConfig::default();
    let local = LocalBroker::open(&folder, config, clock, &mut Registry::default()).unwrap();
    let broker = Broker::Local(local);
    let mut fullest = None;
    for partition in 0..partitions {
        let of = TopicPartition::new(topic, partition);
        let end = broker.ends(&of).await.unwrap().end;
        fullest = fullest.max(Some((end, of)));
    }
    let (end, of) = fullest.unwrap();
    assert!(end > 5, "{of}: {end}");
    broker.trim(&of, end - 1).await.unwrap();
}

#[tokio::test]
async fn a_decision_or_an_outcome_that_is_gone_makes_the_account_disagree() {
    let routed = (names::ROUTED, ROUTED_PARTITIONS);
    let outcomes = (names::OUTCOMES, OUTCOME_PARTITIONS);
    for (topic, partitions) in [routed, outcomes] {
        let mut stage = Stage::start().await;
        stage.webhook("w", &[104]).await;
        deliver(&stage, 0, 3).await;
        assert_eq!(stage.stop().await, Some(0));
        let (view, older) = (stage.data().join("eventlog"), stage.folder.path().join("older"));
        copy(&view, &older);
        stage.serve().await;
        deliver(&stage, 3, 6).await;
        assert_eq!(stage.stop().await, Some(0));
        // The view of an older copy has not read what the log has no longer.
        fs::remove_dir_all(&view).unwrap();
        copy(&older, &view);
        trim(&stage, topic, partitions).await;
        stage.serve().await;
        let ended = stage.run(&["account"], "");
        assert_eq!(ended.code, Some(1), "{topic}: {}{}", ended.out, ended.err);
        assert!(ended.out.ends_with("the sums DISAGREE\n"), "{topic}: {}", ended.out);
        assert!(ended.out.contains("missing: ") && ended.out.contains(topic), "{}", ended.out);
        let ended = stage.run(&["account", "--json"], "");
        assert_eq!(ended.code, Some(1));
        assert!(ended.out.contains(r#""agree":false"#), "{}", ended.out);
    }
}

#[tokio::test]
async fn a_view_that_lost_a_row_is_made_anew() {
    let mut stage = Stage::start().await;
    stage.webhook("w", &[104]).await;
    deliver(&stage, 0, 3).await;
    assert_eq!(stage.stop().await, Some(0));
    // Its segments are as large as the view's own.
    let config = sled::Config::new().path(stage.data().join("eventlog")).segment_size(2 << 20);
    let db = config.open().unwrap();
    let row = db.scan_prefix(b"n").next().unwrap().unwrap().0;
    db.remove(row).unwrap();
    db.flush().unwrap();
    drop(db);
    stage.serve().await;
    let log = fs::read_to_string(stage.data().with_extension("log")).unwrap();
    assert!(log.contains("the event log is set aside and rebuilt"), "{log}");
    let ended = settled(&stage, 3).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
}
