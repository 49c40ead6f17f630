//! What the tests need beside Rust, C, C++, make and perl: Java and Maven, which
//! bring and run a real Kafka. Installed where this may install, else named.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tidings_kafka_node::KafkaJars;

use crate::run::say;

const PACKAGES: [&str; 2] = ["openjdk-17-jdk-headless", "maven"];

/// Makes sure that a Kafka node can be started.
pub(crate) fn kafka() -> anyhow::Result<()> {
    if !runs("java", "-version") || !runs("mvn", "--version") {
        install()?;
    }
    say("== Kafka's jars");
    KafkaJars::bring().context("no Kafka for the tests")?;
    Ok(())
}

fn runs(program: &str, argument: &str) -> bool {
    let command = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    command.is_ok_and(|status| status.success())
}

fn install() -> anyhow::Result<()> {
    let by_hand = format!("apt-get update && apt-get install -y {}", PACKAGES.join(" "));
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|answer| answer.stdout.trim_ascii() == b"0");
    if !is_root || !runs("apt-get", "--version") {
        bail!("Java 17 and Maven are missing; on Debian run as root: {by_hand}");
    }
    say(format!("== {by_hand}"));
    for arguments in
        [vec!["update", "-q"], [vec!["install", "-y", "-q"], PACKAGES.to_vec()].concat()]
    {
        let status = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .status()
            .context("cannot start apt-get")?;
        if !status.success() {
            bail!("apt-get {} failed; run by hand: {by_hand}", arguments.join(" "));
        }
    }
    Ok(())
}
