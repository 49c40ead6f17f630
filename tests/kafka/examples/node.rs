//! A node to try Tidings on: starts one in the directory given, prints the address
//! for `--broker`, and ends it when its input ends.

use std::{io::Read as _, path::PathBuf};

use tidings_kafka_node::KafkaNode;

#[expect(clippy::print_stdout, reason = "the address is the answer")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).ok_or("give the directory for the node's data")?;
    let mut node = KafkaNode::start(&PathBuf::from(directory), &[])?;
    println!("kafka://{}", node.bootstrap());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    node.stop()?;
    Ok(())
}
