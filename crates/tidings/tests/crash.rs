//! The built binary, killed and cut off from its power: the short form of `cargo
//! xtask crash` and `cargo xtask powercut`.

use std::path::Path;

use tidings_checker::Wrong;
use tidings_e2e::{crash, powercut};

const BINARY: &str = env!("CARGO_BIN_EXE_tidings");

fn plan(rounds: u32, sabotage: Option<&str>) -> crash::Plan {
    crash::Plan {
        binary: BINARY.into(),
        rounds,
        seed: 7,
        sabotage: sabotage.map(str::to_owned),
        only: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_crashes_lose_nothing() {
    let report = crash::run(&plan(3, None)).await.unwrap();
    assert!(report.verdict.is_clean(), "{}", report.summary());
    assert!(report.accepted > 0, "{}", report.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_run_finds_a_delivery_that_never_was() {
    let report = crash::run(&plan(1, Some("invent-delivered"))).await.unwrap();
    let found = report.verdict.count(Wrong::FalselyDelivered);
    assert!(found > 0, "{}", report.summary());
}

/// Some of the faults that `cargo xtask crash --broker kafka` makes.
#[tokio::test(flavor = "multi_thread")]
async fn six_faults_on_kafka_lose_nothing() {
    let faults = [
        "router killed",
        "sender stopped",
        "broker killed",
        "recorder stopped",
        "api killed",
        "broker stopped",
    ];
    let plan = crash::Plan { only: faults.map(str::to_owned).to_vec(), ..plan(6, None) };
    let report = crash::kafka::run(&plan).await.unwrap();
    assert!(report.verdict.is_clean(), "{}", report.summary());
    assert!(report.missed().is_empty() && report.accepted > 0, "{}", report.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_power_cuts_lose_nothing() {
    let report = powercut::run(Path::new(BINARY), 3, 7, None).await.unwrap();
    assert!(report.is_clean(), "{}", report.summary());
    assert!(report.accepted > 0, "{}", report.summary());
}
