//! The description is true: Schemathesis (PyPI) sends to the real binary what the
//! description allows and what it forbids, and finds no answer that it does not name.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Command,
};

use serde::Deserialize;
use serde_json::json;
use tidings_e2e::{http::Client, tools};
use tidings_testkit::certificate::{Authority, Validity};

use crate::stage::Stage;

/// How often each operation succeeds in the run, at least: otherwise its answers were
/// compared too seldom.
const LEAST: usize = 20;

/// What is looked at of a line of a report. The rest is passed over unread: bodies hold
/// numbers that no type here takes.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "ScenarioFinished")]
    finished: Option<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    recorder: Recorder,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Recorder {
    cases: BTreeMap<String, Case>,
    interactions: BTreeMap<String, Interaction>,
}

#[derive(Deserialize)]
struct Case {
    value: Operation,
}

#[derive(Deserialize)]
struct Operation {
    method: String,
    path: String,
}

#[derive(Deserialize)]
struct Interaction {
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Response {
    status_code: u16,
}

/// Adds how often each operation answered 2xx, by its method and path.
fn count(report: &Path, successes: &mut BTreeMap<String, usize>) {
    for line in BufReader::new(std::fs::File::open(report).unwrap()).lines() {
        let event: Event = serde_json::from_str(&line.unwrap()).unwrap();
        let Some(Scenario { recorder }) = event.finished else { continue };
        for (id, interaction) in recorder.interactions {
            let succeeded = interaction.response.is_some_and(|it| it.status_code / 100 == 2);
            if let (true, Some(Case { value })) = (succeeded, recorder.cases.get(&id)) {
                *successes.entry(format!("{} {}", value.method, value.path)).or_default() += 1;
            }
        }
    }
}

/// Which paths each process has; they run side by side.
const SHARES: [&str; 3] = ["^/eds/", "^/api/", "^/(?!eds/|api/)"];

/// What a process prints, if it ends well.
async fn said(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn every_example_is_what_its_schema_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemathesis");
    let home = tools::python(&folder).unwrap();
    let mut command = Command::new(home.join("venv/bin/python3"));
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    command.arg(home.join("examples.py")).arg(document);
    let said = said(command).await;
    let successes = said.split(' ').nth(2).and_then(|count| count.parse::<usize>().ok());
    assert!(successes.is_some_and(|count| count > 60), "{said}");
}

#[tokio::test]
async fn schemathesis_finds_no_answer_that_the_description_does_not_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemathesis");
    let home = tools::python(&folder).unwrap();
    let stage = Stage::with(true, &[("TIDINGS_WEBHOOKS__PER_SCOPE", "1000000")]).await;
    let scopes = "eds.read eds.write eds.publish admin";
    let token = stage.token(&["--pm", "20", "--issuer", "7001", "--scope", scopes]);
    let authority = Authority::new();
    let client = authority.issue(&["client"], Validity::Now);
    let pem = json!({
        "caBundle": authority.root_pem(), "clientCertificate": client.certificate_pem(),
        "clientKey": client.key_pem(),
    });
    let pem = pem.to_string();
    let program = |name: &str| {
        let mut command = Command::new(home.join("venv/bin").join(name));
        command
            .current_dir(stage.folder.path())
            .env("TIDINGS_URL", stage.base())
            .env("TIDINGS_TOKEN", &token)
            .env("PEM", &pem)
            .env("RECEIVER_URL", stage.receiver.url("schemathesis"));
        command
    };
    let mut prepare = program("python3");
    prepare.arg(home.join("hooks.py"));
    let world = stage.folder.path().join("world.json");
    std::fs::write(&world, said(prepare).await).unwrap();
    let report = |share: usize| stage.folder.path().join(format!("report-{share}.ndjson"));
    let runs = SHARES.iter().enumerate().map(|(share, paths)| {
        let mut command = program("schemathesis");
        command
            .arg("--config-file")
            .arg(home.join("schemathesis.toml"))
            .args(["run", &format!("{}/openapi.json", stage.base()), "--no-color"])
            .args(["--include-path-regex", paths])
            .args(["--report", "ndjson", "--report-ndjson-path"])
            .arg(report(share))
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .env("SCHEMATHESIS_HOOKS", home.join("hooks.py"))
            .env("WORLD", &world)
            .env("SHARE", share.to_string());
        said(command)
    });
    futures::future::join_all(runs).await;

    let client = Client::new(&stage.base(), "").unwrap();
    let description = client.get("/openapi.json").await.unwrap().json().unwrap();
    let mut successes = BTreeMap::new();
    for share in 0..SHARES.len() {
        count(&report(share), &mut successes);
    }
    let mut rare = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let operation = format!("{} {path}", method.to_uppercase());
            let count = successes.get(&operation).copied().unwrap_or_default();
            if count < LEAST {
                rare.push((operation, count));
            }
        }
    }
    assert!(successes.len() > 70, "{} operations", successes.len());
    assert!(rare.is_empty(), "succeeded fewer than {LEAST} times: {rare:?}");
}
