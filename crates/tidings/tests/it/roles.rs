//! The roles as processes of their own, on a real Kafka.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidings_e2e::{
    http::Client,
    process::{Server, Spec, free_port},
    wait_for,
};
use tidings_kafka_node::KafkaNode;

use crate::stage::{PATIENCE, Stage, TENANTS, binary, event, post};

const EVENTS: usize = 200;

/// A role that shares the keys of an installation, with a port of its own.
async fn role(name: &str, data: &Path, broker: &str) -> Server {
    role_at(name, data, broker, free_port().unwrap()).await
}

async fn role_at(name: &str, data: &Path, broker: &str, port: u16) -> Server {
    let mut server = spawn_role(name, data, broker, port);
    server.ready(PATIENCE).await.unwrap();
    server
}

fn spawn_role(name: &str, data: &Path, broker: &str, port: u16) -> Server {
    let environment = vec![("TIDINGS_BROKER".to_owned(), broker.to_owned())];
    let spec = Spec { binary: binary(), data: data.to_owned(), port, dev: true, environment };
    Server::spawn_role(name, &spec).unwrap()
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
    // They may share a directory; the one that serves the API is the one to ask.
    let address = data.join("address");
    wait_for("the address file", PATIENCE, async || Ok(address.exists().then_some(())))
        .await
        .unwrap();
    let by_directory = stage.run(&["account", "--broker", &broker], "");
    assert_eq!(by_directory.code, Some(0), "{}", by_directory.err);
    stage.serve_role("api").await;
    wait_for("the API's address", PATIENCE, async || {
        let text = std::fs::read_to_string(&address).unwrap_or_default();
        Ok((text == format!("{}\n", stage.base())).then_some(()))
    })
    .await
    .unwrap();
    stage.webhook("roles", &[104]).await;
    deliver(&stage, "a", EVENTS).await;

    killed_router.kill().unwrap();
    killed_sender.kill().unwrap();
    deliver(&stage, "b", 2 * EVENTS).await;
    assert_eq!(stage.receiver.request_count(), 2 * EVENTS, "none came twice");
}

/// As every other process: where it listens, from when it is ready until it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_and_a_sender_stand_in_the_address_file() {
    let directory = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(directory.path(), &[]).unwrap();
    let broker = format!("kafka://{}", node.bootstrap());
    let mut stage = Stage::with(true, &[("TIDINGS_BROKER", &broker)]).await;
    assert_eq!(stage.stop().await, Some(0));
    for name in ["router", "sender"] {
        let data = apart(stage.data(), name);
        let server = role(name, &data, &broker).await;
        let address = data.join("address");
        let line = wait_for("the address file", PATIENCE, async || {
            Ok(std::fs::read_to_string(&address).ok())
        });
        assert_eq!(line.await.unwrap(), format!("{}\n", server.base()), "{name}");
        assert_eq!(server.terminate(PATIENCE).await.unwrap(), Some(0));
        assert!(!address.exists(), "{name}");
    }
}

/// A data directory of its own, with the keys of an installation.
fn apart(data: &Path, name: &str) -> PathBuf {
    let apart = data.with_file_name(name);
    std::fs::create_dir_all(apart.join("keys")).unwrap();
    for key in std::fs::read_dir(data.join("keys")).unwrap() {
        let key = key.unwrap();
        std::fs::copy(key.path(), apart.join("keys").join(key.file_name())).unwrap();
    }
    apart
}

/// Kafka goes away and comes back: what is known is told with its age, and what cannot
/// be done is refused soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_answers_while_kafka_is_away_also_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = KafkaNode::start(directory.path(), &[]).unwrap();
    let broker = format!("kafka://{}", node.bootstrap());
    let mut stage = Stage::with(true, &[("TIDINGS_BROKER", &broker)]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let webhook = stage.webhook("roles", &[104]).await["webhookId"].as_str().unwrap().to_owned();
    assert_eq!(stage.stop().await, Some(0));
    let data = stage.data().to_owned();
    let api = role("api", &data, &broker).await;
    node.kill().unwrap();

    let client =
        |server: &Server, scope: &[&str]| Client::new(&server.base(), &stage.token(scope)).unwrap();
    let manager = client(&api, &["--pm", "20", "--scope", "eds.read eds.write"]);
    let path = format!("/api/v1/Webhooks/{webhook}");
    let age = async || {
        let answer = manager.get(&path).await.unwrap();
        let as_of = answer.headers.get("x-tidings-as-of").unwrap().to_str().unwrap().to_owned();
        answer.response(200).unwrap();
        as_of
    };
    let before = age().await;
    let url = json!({"events": [104], "config": {"url": "http://127.0.0.1:9/"}});
    let answer = manager.json("POST", "/api/v1/Webhooks", &url).await.unwrap();
    assert_eq!(answer.status, 503, "{:?}", answer.json());
    assert!(answer.headers.contains_key("retry-after"));
    let publisher = client(&api, &["--scope", "eds.publish"]);
    let lost = event(r#"{"messageId":"m","publicToken":"t"}"#);
    let answer = post(&publisher, &lost, "application/json").await;
    assert_eq!(answer.status, 503, "{:?}", answer.json());
    assert!(answer.headers.contains_key("retry-after"));
    assert!(age().await <= before, "nothing has been read since");

    // A process that starts now listens, and says that it waits.
    let late = spawn_role("api", &apart(&data, "late"), &broker, free_port().unwrap());
    let anybody = Client::new(&late.base(), "").unwrap();
    wait_for("the port", PATIENCE, async || Ok(anybody.get("/healthz").await.ok())).await.unwrap();
    for (path, status) in [("/healthz", 200), ("/readyz", 503), (&*path, 503)] {
        let answer = anybody.get(path).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{path}");
    }
    let mut late = late;
    node.restart().unwrap();
    late.ready(PATIENCE).await.unwrap();
    let answer = client(&late, &["--pm", "20", "--scope", "eds.read"]).get(&path).await.unwrap();
    answer.response(200).unwrap();
    wait_for("the age to go on", PATIENCE, async || Ok((age().await > before).then_some(())))
        .await
        .unwrap();
}
