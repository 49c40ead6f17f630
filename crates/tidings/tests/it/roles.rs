//! The roles as processes of their own, on a real Kafka.

use std::path::Path;

use serde_json::Value;
use tidings_e2e::{
    process::{Server, Spec, free_port},
    wait_for,
};
use tidings_kafka_node::KafkaNode;

use crate::stage::{PATIENCE, Stage, TENANTS, binary, event, post};

const EVENTS: usize = 200;

/// A role that shares the keys of an installation, with a port of its own.
async fn role(name: &str, data: &Path, broker: &str) -> Server {
    let spec = Spec {
        binary: binary(),
        data: data.to_owned(),
        port: free_port().unwrap(),
        dev: true,
        environment: vec![("TIDINGS_BROKER".to_owned(), broker.to_owned())],
    };
    let mut server = Server::spawn_role(name, &spec).unwrap();
    server.ready(PATIENCE).await.unwrap();
    server
}

fn lines(round: &str) -> String {
    let one = |n: usize| event(&format!(r#"{{"messageId":"{round}{n}","publicToken":"t{n}"}}"#));
    (0..EVENTS).map(|n| one(n) + "\n").collect()
}

/// Publishes a round and waits until all of it has arrived and nothing is pending.
async fn deliver(stage: &Stage, round: &str, arrived: usize) {
    let answer = post(&stage.admin(), &lines(round), "application/x-ndjson").await;
    answer.response(202).unwrap();
    stage.arrived("roles", arrived).await;
    let admin = stage.admin();
    wait_for("every outcome", PATIENCE, async || {
        let account: Value = admin.get("/admin/v1/account").await?.response(200)?;
        let rows = account["partitions"].as_array().unwrap();
        let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
        assert_eq!(account["agree"], true, "{account}");
        Ok((sum("delivered") == arrived as u64 && sum("pending") == 0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_and_a_sender_are_killed_and_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(directory.path(), &[]).unwrap();
    let broker = format!("kafka://{}", node.bootstrap());
    // `serve` makes the keys; then it ends and single roles take over.
    let mut stage = Stage::with(true, &[("TIDINGS_BROKER", &broker)]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    assert_eq!(stage.stop().await, Some(0));

    let data = stage.data().to_owned();
    let (killed_router, killed_sender) =
        (role("router", &data, &broker).await, role("sender", &data, &broker).await);
    let _others = (role("router", &data, &broker).await, role("sender", &data, &broker).await);
    stage.serve_role("api").await;
    stage.webhook("roles", &[104]).await;
    deliver(&stage, "a", EVENTS).await;

    killed_router.kill().unwrap();
    killed_sender.kill().unwrap();
    deliver(&stage, "b", 2 * EVENTS).await;
    assert_eq!(stage.receiver.request_count(), 2 * EVENTS, "none came twice");
}
