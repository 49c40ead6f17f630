//! What the tests need beside Rust, C, C++, make and perl: Java and Maven, which
//! bring and run a real Kafka; Java, Python and Node.js for the verification code
//! of `docs/verify`, Node.js also for an authorization server; Python's venv, which
//! brings the libraries that verify our signatures, and Schemathesis, which compares
//! the API with its description. Installed where this may install, else named.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tidings_e2e::tools;
use tidings_kafka_node::KafkaJars;
use tidings_verifiers::Verifiers;

use crate::{run::say, tidy};

/// Each program, what shows that it runs, and Debian's package of it.
const PROGRAMS: [(&str, &[&str], &str); 5] = [
    ("java", &["-version"], "openjdk-17-jdk-headless"),
    ("mvn", &["--version"], "maven"),
    ("python3", &["-c", "import ensurepip, venv"], "python3-venv"),
    ("node", &["--version"], "nodejs"),
    ("npm", &["--version"], "npm"),
];

/// The authorization server of the tests, with its own pins.
const OIDC: &str = "crates/tidings/tests/it/oidc";
/// What compares the API with its description, with its own pins.
const SCHEMATHESIS: &str = "crates/tidings/tests/it/schemathesis";

/// Makes sure that every program is there and a Kafka node can be started.
pub(crate) fn bring() -> anyhow::Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, asked, _)| !runs(program, asked));
    let missing: Vec<&str> = missing.map(|(_, _, package)| *package).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    say("== Kafka's jars");
    KafkaJars::bring().context("no Kafka for the tests")?;
    say("== libraries that verify signatures");
    Verifiers::bring().context("no libraries for the tests")?;
    say("== oidc-provider");
    tools::node(&tidy::root().join(OIDC)).context("no authorization server for the tests")?;
    say("== Schemathesis");
    tools::python(&tidy::root().join(SCHEMATHESIS)).context("no Schemathesis for the tests")?;
    Ok(())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let command = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    command.is_ok_and(|status| status.success())
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let by_hand = format!("apt-get update && apt-get install -y {}", packages.join(" "));
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|answer| answer.stdout.trim_ascii() == b"0");
    if !is_root || !runs("apt-get", &["--version"]) {
        bail!("the tests need more programs; on Debian run as root: {by_hand}");
    }
    say(format!("== {by_hand}"));
    for arguments in [vec!["update", "-q"], [&["install", "-y", "-q"], packages].concat()] {
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
