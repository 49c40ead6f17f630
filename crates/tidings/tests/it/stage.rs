//! A folder with a data directory, the binary that serves it, tenants, and a
//! receiver.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_e2e::{
    http::{Answer, Client},
    process::{Server, Spec, free_port},
    receiver::{Arrived, Receiver},
    wait_for,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The tenants of every stage: issuer 7001 with managers 20 and 21, issuer 7002
/// with 22, a product each of 20 and 22, a merchant.
pub(crate) const TENANTS: &str = r#"
[[issuers]]
id = "7001"
name = "Issuer 7001"
[[issuers]]
id = "7002"
name = "Issuer 7002"
[[programme_managers]]
id = 20
code = "TRD"
issuer = "7001"
[[programme_managers]]
id = 21
code = "ABC"
issuer = "7001"
[[programme_managers]]
id = 22
code = "XYZ"
issuer = "7002"
[[products]]
id = 345678
programme_manager = 20
[[products]]
id = 999
programme_manager = 22
[[merchants]]
key = "m_9f2"
programme_manager = 20
source_keys = [{ id = "src1", value = "a-source-keys-value" }]
"#;

/// How a command ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tidings"))
}

/// Runs the binary in `folder` with `input` on its standard input.
pub(crate) fn run_in(folder: &Path, arguments: &[&str], input: &str) -> Ended {
    run_with(folder, arguments, input, &[])
}

pub(crate) fn run_with(
    folder: &Path,
    arguments: &[&str],
    input: &str,
    environment: &[(&str, &str)],
) -> Ended {
    let given = folder.join("stdin");
    std::fs::write(&given, input).unwrap();
    let output = Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::from(std::fs::File::open(given).unwrap()))
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) receiver: Receiver,
    spec: Spec,
    server: Option<Server>,
}

impl Stage {
    /// Serves with `--dev`, tenants applied.
    pub(crate) async fn start() -> Self {
        let mut stage = Self::with(true, &[]).await;
        let ended = stage.apply(TENANTS, &[]);
        assert_eq!(ended.out, "added 8 changed 0 removed 0\n", "{}", ended.err);
        stage.ready().await;
        stage
    }

    /// Serves with settings from the environment, without tenants.
    pub(crate) async fn with(dev: bool, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spec = Spec {
            binary: binary(),
            data: folder.path().join("data"),
            port: free_port().unwrap(),
            dev,
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let receiver = Receiver::start().unwrap();
        let mut stage = Self { folder, receiver, spec, server: None };
        stage.serve().await;
        stage
    }

    pub(crate) async fn serve(&mut self) {
        self.server = Some(Server::spawn(&self.spec, &[]).unwrap());
        self.ready().await;
    }

    /// Serves the same data without `--dev`.
    pub(crate) async fn serve_guarded(&mut self, environment: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.spec.dev = false;
        self.spec.environment = environment.iter().map(owned).collect();
        self.serve().await;
    }

    /// Serves another data directory from now on.
    pub(crate) async fn serve_from(&mut self, data: &Path) {
        data.clone_into(&mut self.spec.data);
        self.serve().await;
    }

    /// One role in place of all.
    pub(crate) async fn serve_role(&mut self, role: &str) {
        self.server = Some(Server::spawn_role(role, &self.spec).unwrap());
        self.ready().await;
    }

    async fn ready(&mut self) {
        self.server.as_mut().unwrap().ready(PATIENCE).await.unwrap();
        let address = self.spec.data.join("address");
        wait_for("the address file", PATIENCE, async || Ok(address.exists().then_some(())))
            .await
            .unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.server.take().unwrap().terminate(Duration::from_secs(10)).await.unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.server.take().unwrap().kill().unwrap();
    }

    pub(crate) fn data(&self) -> &Path {
        &self.spec.data
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.spec.port)
    }

    /// Runs a command with `--data` of this stage.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut all = arguments.to_vec();
        all.extend(["--data", self.spec.data.to_str().unwrap()]);
        run_in(self.folder.path(), &all, input)
    }

    pub(crate) fn apply(&self, tenants: &str, more: &[&str]) -> Ended {
        let file = self.folder.path().join("tenants.toml");
        std::fs::write(&file, tenants).unwrap();
        let mut arguments = vec!["tenants", "apply", file.to_str().unwrap()];
        arguments.extend(more);
        self.run(&arguments, "")
    }

    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let mut all = vec!["token"];
        all.extend(arguments);
        let ended = self.run(&all, "");
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out.trim_end().to_owned()
    }

    pub(crate) fn client(&self, arguments: &[&str]) -> Client {
        Client::new(&self.base(), &self.token(arguments)).unwrap()
    }

    pub(crate) fn manager(&self, pm: &str) -> Client {
        self.client(&["--pm", pm, "--scope", "eds.read eds.write"])
    }

    pub(crate) fn admin(&self) -> Client {
        self.client(&["--scope", "admin eds.publish"])
    }

    /// Publishes one event and expects 202.
    pub(crate) async fn publish(&self, event: &str) -> Value {
        let answer = post(&self.admin(), event, "application/json").await;
        answer.response(202).unwrap()
    }

    /// Makes a webhook of manager 20 at the receiver's `path`.
    pub(crate) async fn webhook(&self, path: &str, events: &[u32]) -> Value {
        let body = json!({"events": events, "config": {"url": self.receiver.url(path)}});
        let answer = self.manager("20").json("POST", "/api/v1/Webhooks", &body).await.unwrap();
        answer.response(201).unwrap()
    }

    /// The requests that came to `path` once there are `count` of them.
    pub(crate) async fn arrived(&self, path: &str, count: usize) -> Vec<Arrived> {
        wait_for("the deliveries", PATIENCE, async || {
            let mut arrived = self.receiver.requests();
            arrived.retain(|request| request.path == path);
            Ok((arrived.len() >= count).then_some(arrived))
        })
        .await
        .unwrap()
    }
}

/// Posts to ingest.
pub(crate) async fn post(client: &Client, body: &str, content_type: &str) -> Answer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    client.send("POST", "/ingest/v1/events", &[("content-type", content_type)], body).await.unwrap()
}

/// Today as `yyyy-MM-dd`, from the platform's own clock.
pub(crate) async fn today(stage: &Stage) -> String {
    let answer = Client::new(&stage.base(), "").unwrap().get("/healthz").await.unwrap();
    let date = answer.headers.get("date").unwrap().to_str().unwrap();
    let mut parts = date.split(' ').skip(1);
    let (day, month, year) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    format!("{year}-{:02}-{day}", months.find(month).unwrap() / 3 + 1)
}

/// An event 104 of manager 20.
pub(crate) fn event(payload: &str) -> String {
    format!(r#"{{"context":{{"programManagerId":20,"eventCode":104}},"payload":{payload}}}"#)
}

/// `(code, field)` of every error.
pub(crate) fn errors(answer: &Answer) -> Vec<(String, String)> {
    let body = answer.json().unwrap();
    assert_eq!(body["status"], "error", "{body}");
    assert!(body["traceId"].as_str().unwrap().starts_with("00-"), "{body}");
    let text = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let errors = body["errors"].as_array().unwrap();
    errors.iter().map(|error| (text(error, "code"), text(error, "field"))).collect()
}

pub(crate) fn first_code(answer: &Answer) -> String {
    errors(answer).into_iter().next().unwrap().0
}
