//! Every row of `reliability-security.md` §7.5 against the real egress, in a child
//! process whose memory may grow by 64 MiB.
//!
//! The parent plays the endpoints (`testkit::hostile`), the child makes the
//! attempts: what a flood costs whoever sends it does not count. The child is this
//! same program, so there is no harness.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without a harness"
)]

mod child;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
};

use tidings_testkit::hostile::{self, Over, Part, Row, Stage};

/// What the child's memory may grow by.
const MAX_GROWTH_KIB: u64 = 64 * 1024;
/// How many attempts are made at once against a row that sends without end.
const CROWD: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", names, root] => child::run(names, root),
        // What a harness would be asked for by tools.
        ["--list", ..] => {}
        _ => parent(),
    }
}

/// What is asked of the child: one line.
struct Order {
    label: String,
    url: String,
    expected: Vec<String>,
    crowd: usize,
}

#[tokio::main]
async fn parent() {
    let stage = Stage::start().await.unwrap();
    let rows = hostile::rows(&stage.canary.url("/stolen"));
    let ids: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
    for number in 1..=50 {
        assert!(ids.contains(format!("EP{number}").as_str()), "no row of EP{number}");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.der");
    std::fs::write(&root, stage.authority.root()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", &stage.names.address().to_string(), root.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut playing = Vec::new();
    let mut expected = BTreeMap::new();
    for (number, (row, over)) in plays(&rows).into_iter().enumerate() {
        let name = format!("row{number}.example.com");
        let played = stage.play(row, over, &name).await.unwrap();
        let label = format!("{number} {} over {over:?}: {}", row.id, row.what);
        let crowd = if row.is_flood { CROWD } else { 1 };
        let order = Order { label, url: played.url.clone(), expected: row.expected.clone(), crowd };
        tell(&mut orders, number, &order);
        expected.insert(number, order);
        playing.push(played);
    }
    drop(orders);
    // Reading blocks; the endpoints go on on the other threads.
    let (answers, peak) = tokio::task::block_in_place(|| read(&mut child));
    assert!(child.wait().unwrap().success());
    let mut wrong = Vec::new();
    for (number, Order { label, expected, .. }) in &expected {
        let seen = answers.get(number).cloned().unwrap_or_default();
        if seen != *expected {
            wrong.push(format!("{label}: {seen:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(stage.canary.connections(), 0, "nobody follows a redirect");
    assert!(peak < MAX_GROWTH_KIB, "the memory grew by {peak} KiB");
    println!("{} plays of {} rows; the memory grew by {peak} KiB", expected.len(), rows.len());
    println!("1 passed, 0 failed");
    drop(playing);
}

/// Each row once or, where the behaviour is HTTP's, in plain and over TLS.
fn plays(rows: &[Row]) -> Vec<(&Row, Over)> {
    rows.iter()
        .flat_map(|row| match row.part {
            Part::Http(_) => vec![(row, Over::Plain), (row, Over::Tls)],
            Part::Refuses | Part::Drops | Part::Name(_) => vec![(row, Over::Plain)],
            Part::Tls(_) => vec![(row, Over::Tls)],
        })
        .collect()
}

fn tell(orders: &mut ChildStdin, number: usize, order: &Order) {
    let Order { url, expected, crowd, .. } = order;
    writeln!(orders, "{number}\t{url}\t{}\t{crowd}", expected.len()).unwrap();
}

/// What attempts came to by row, and the growth of the child's memory in KiB.
fn read(child: &mut Child) -> (BTreeMap<usize, Vec<String>>, u64) {
    let mut answers = BTreeMap::new();
    let mut growth = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let (first, rest) = line.split_once('\t').unwrap();
        if first == "growth" {
            growth = Some(rest.parse().unwrap());
            continue;
        }
        let codes = rest.split(',').map(str::to_owned).collect();
        answers.insert(first.parse().unwrap(), codes);
    }
    (answers, growth.expect("the child ends with its memory"))
}
