//! The node of the tests starts, dies and comes back.

use tidings_kafka_node::KafkaNode;

#[test]
fn a_node_starts_is_killed_and_comes_back_where_it_was() {
    let dir = std::env::temp_dir().join(format!("tidings-kafka-node-{}", std::process::id()));
    let mut node = KafkaNode::start(&dir, &[]).unwrap_or_else(|error| panic!("{error}"));
    let (address, pid) = (node.bootstrap(), node.pid().unwrap());
    node.kill().unwrap();
    node.restart().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(node.bootstrap(), address);
    assert_ne!(node.pid().unwrap(), pid, "another process");
    node.stop().unwrap();
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens any more");
    std::fs::remove_dir_all(dir).unwrap();
}
