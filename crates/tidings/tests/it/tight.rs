//! Topics on a real Kafka that somebody else made, and that take smaller records than
//! Tidings writes: nothing is lost, and nobody waits for an event that does not fit.
//! And topics that would lose what must stay or keep what must go: nothing starts.

use serde_json::Value;
use tidings_e2e::{http::Client, wait_for};
use tidings_kafka_node::KafkaNode;

use crate::stage::{PATIENCE, Stage, TENANTS, event, post, run_in};

/// What topics must take.
const MUST: &str = "max.message.bytes=5308416";
/// Less than an event of [`large`].
const TIGHT: &str = "max.message.bytes=200000";

fn small(number: usize) -> String {
    event(&format!(r#"{{"messageId":"m{number}","publicToken":"t1"}}"#))
}

/// Large, but no larger than an event may be.
fn large() -> String {
    let filling = "x".repeat(220_000);
    event(&format!(r#"{{"messageId":"large","publicToken":"t1","filling":"{filling}"}}"#))
}

/// Publishes a large event among small ones, all to one partition.
async fn publish(stage: &Stage) {
    let lines = [small(1), large(), small(2), small(3)].join("\n");
    post(&stage.admin(), &lines, "application/x-ndjson").await.response(202).unwrap();
}

/// The ids of the messages that arrived, once there are so many.
async fn messages(stage: &Stage, count: usize) -> Vec<String> {
    let mut ids: Vec<String> = stage
        .arrived("tight", count)
        .await
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            body["payload"]["messageId"].as_str().unwrap().to_owned()
        })
        .collect();
    ids.sort();
    ids
}

/// Waits until everything is accounted for, with one event set aside as too large.
/// Gives its id in quarantine.
async fn set_aside(stage: &Stage) -> String {
    let admin = stage.admin();
    wait_for("the account", PATIENCE, async || {
        let account: Value = admin.get("/admin/v1/account").await?.response(200)?;
        let rows = account["partitions"].as_array().unwrap();
        let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
        let is_done = sum("delivered") == 3 && sum("quarantined") == 1 && sum("routed") == 3;
        Ok((is_done && account["agree"] == true).then_some(()))
    })
    .await
    .unwrap();
    let listed = stage.run(&["quarantine", "list", "--json"], "");
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed[0]["reason"], "TOO_LARGE", "{listed:?}");
    // A crash between quarantine and decision may leave it there twice.
    assert!(listed.iter().all(|one| one["offset"] == listed[0]["offset"]), "{listed:?}");
    listed[0]["id"].as_str().map_or_else(|| listed[0]["id"].to_string(), str::to_owned)
}

/// Publishes what was set aside again, and waits until it has arrived.
async fn redrive(stage: &Stage, id: &str) {
    let ended = stage.run(&["quarantine", "redrive", id], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(messages(stage, 4).await, ["large", "m1", "m2", "m3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_tidings_routed_does_not_take_is_set_aside_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(directory.path(), &[]).unwrap();
    let broker = format!("kafka://{}", node.bootstrap());
    let retention = "retention.ms=7776000000";
    node.client(&["topic", "tidings.routed", "12", TIGHT, retention]).unwrap();
    let mut stage = Stage::with(true, &[("TIDINGS_BROKER", &broker)]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));

    let check = stage.run(&["topics", "check", "--broker", &broker], "");
    let said = "tidings.routed: takes records of 200000 bytes and must take 5308416; \
                set its max.message.bytes to 5308416";
    let wrong: Vec<&str> = check.out.lines().filter(|line| !line.ends_with("right")).collect();
    assert_eq!((check.code, wrong.as_slice()), (Some(1), [said].as_slice()), "{}", check.err);

    stage.webhook("tight", &[104]).await;
    publish(&stage).await;
    assert_eq!(messages(&stage, 3).await, ["m1", "m2", "m3"]);
    let id = set_aside(&stage).await;
    let log = std::fs::read_to_string(stage.data().with_extension("log")).unwrap();
    assert!(log.contains("a decision is larger than the topic takes"), "{log}");

    node.client(&["set", "tidings.routed", MUST]).unwrap();
    redrive(&stage, &id).await;
    let check = stage.run(&["topics", "check", "--broker", &broker], "");
    assert_eq!(check.code, Some(0), "{}", check.out);
    assert_eq!(stage.stop().await, Some(0));
}

/// The limit is lowered while the router runs, so that a part of its append fails: what
/// the part held is decided once, whatever stands behind it already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_takes_less_than_before_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(directory.path(), &[]).unwrap();
    let broker = format!("kafka://{}", node.bootstrap());
    let mut stage = Stage::with(true, &[("TIDINGS_BROKER", &broker)]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    stage.webhook("tight", &[104]).await;
    for topic in ["tidings.routed", "tidings.quarantine"] {
        node.client(&["set", topic, TIGHT]).unwrap();
    }
    publish(&stage).await;
    // It fits nowhere: it waits, and says for what.
    let anybody = Client::new(&stage.base(), "").unwrap();
    wait_for("the quarantine to refuse the event", PATIENCE, async || {
        let metrics = anybody.get("/metrics").await?;
        let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tidings_router_too_large_records_total "));
        let log = std::fs::read_to_string(stage.data().with_extension("log")).unwrap();
        let is_named = log
            .lines()
            .any(|line| line.contains("takes smaller") && line.contains("tidings.quarantine"));
        Ok((is_named && count.is_some_and(|count| count != "0")).then_some(()))
    })
    .await
    .unwrap();
    node.client(&["set", "tidings.quarantine", MUST]).unwrap();
    assert_eq!(messages(&stage, 3).await, ["m1", "m2", "m3"]);
    let id = set_aside(&stage).await;
    node.client(&["set", "tidings.routed", MUST]).unwrap();
    redrive(&stage, &id).await;
    assert_eq!(stage.receiver.request_count(), 4, "none came twice");
    assert_eq!(stage.stop().await, Some(0));
}

#[test]
fn nothing_starts_on_topics_that_forget_the_registry_or_keep_codes() {
    let folder = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(&folder.path().join("node"), &[]).unwrap();
    let broker = format!("kafka://{}", node.bootstrap());
    let cases = [
        (
            ["tidings.events.107", "3", "retention.ms=-1"],
            "retention.ms=86400000",
            "keeps for ever and must forget after 86400s; set its retention.ms to 86400000",
        ),
        (
            ["tidings.keys", "1", "retention.ms=604800000"],
            "retention.ms=21600000",
            "keeps for 604800s and must forget after 21600s; set its retention.ms to 21600000",
        ),
        (
            ["tidings.registry", "1", "retention.ms=604800000"],
            "retention.ms=-1",
            "forgets after 604800s and must never; set its retention.ms to -1",
        ),
    ];
    for ([name, partitions, wrong], right, why) in cases {
        node.client(&["topic", name, partitions, wrong, MUST]).unwrap();
        let arguments = ["--dev", "--data", "data", "--broker", broker.as_str()];
        let check = [&["topics", "check"], &arguments[..]].concat();
        let checked = run_in(folder.path(), &check, "");
        assert_eq!(checked.code, Some(1), "{}", checked.err);
        assert!(checked.out.contains(&format!("{name}: {why}\n")), "{}", checked.out);
        let serve = [&["serve", "--listen", "127.0.0.1:0"], &arguments[..]].concat();
        let served = run_in(folder.path(), &serve, "");
        assert_eq!(served.code, Some(1), "{}", served.err);
        assert!(served.err.contains(&format!("topic {name} {why}")), "{}", served.err);
        node.client(&["set", name, right]).unwrap();
        let checked = run_in(folder.path(), &check, "");
        assert!(checked.out.contains(&format!("{name}: right\n")), "{}", checked.out);
    }
}
