//! A `tidings serve --dev` with tenants, and an endpoint beside it.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_catalogue::Catalogue;
use tidings_e2e::{
    http::Client,
    process::{self, Server, Spec},
    wait_for,
};
use tidings_signing::WebhookSecret;
use tidings_testkit::{Received, Receiver};
use tidings_types::Clock as _;

const BINARY: &str = env!("CARGO_BIN_EXE_tidings");
/// For anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Installation {
    pub(crate) receiver: Receiver,
    /// As programme manager 20.
    pub(crate) client: Client,
    pub(crate) admin: Client,
    catalogue: Catalogue,
    _server: Server,
    _dir: TempDir,
}

impl Installation {
    /// Starts with settings of the environment.
    pub(crate) async fn start(environment: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let spec = Spec {
            binary: BINARY.into(),
            data: data.clone(),
            port: process::free_port().unwrap(),
            dev: true,
            environment: environment.iter().map(owned).collect(),
        };
        let mut server = Server::spawn(&spec, &[]).unwrap();
        server.ready(PATIENCE).await.unwrap();
        let base = server.base();
        let admin = Client::new(&base, &token(&data, &["--scope", "admin eds.publish"])).unwrap();
        let mine = token(&data, &["--pm", "20", "--scope", "eds.read eds.write"]);
        let tenants = json!({
            "issuers": [{"id": "7001"}],
            "programmeManagers": [{"id": 20, "code": "TRD", "issuer": "7001"}],
        });
        admin.json("PUT", "/admin/v1/tenants", &tenants).await.unwrap().response(200).unwrap();
        Self {
            receiver: Receiver::start().await.unwrap(),
            client: Client::new(&base, &mine).unwrap(),
            admin,
            catalogue: Catalogue::builtin(),
            _server: server,
            _dir: dir,
        }
    }

    /// Sends a request and wants this status; gives `response`.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value, status: u16) -> Value {
        let answer = self.client.json(method, path, &body).await.unwrap();
        answer.response(status).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.client.get(path).await.unwrap().response(200).unwrap()
    }

    /// Sends a request; gives status and first code.
    pub(crate) async fn refusal(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let answer = self.client.json(method, path, &body).await.unwrap();
        let code = answer.json().unwrap()["errors"][0]["code"].as_str().unwrap_or("").to_owned();
        (answer.status, code)
    }

    /// Publishes a sample of a type, changed by `edit`.
    pub(crate) async fn publish(&self, name: &str, seed: u64, edit: impl Fn(&mut Value)) -> Value {
        let now = tidings_telemetry::SystemClock.now();
        let sample = self.catalogue.get(name).unwrap().sample(now, seed, 20, "m");
        let mut event: Value = serde_json::from_slice(&sample).unwrap();
        edit(&mut event);
        let answer = self.admin.json("POST", "/ingest/v1/events", &event).await.unwrap();
        answer.response(202).unwrap();
        event
    }

    /// Waits until the endpoint has got so many requests; gives the last one.
    pub(crate) async fn received(&self, number: u64) -> Received {
        assert!(self.receiver.wait_for_requests(number, PATIENCE).await, "request {number}");
        self.receiver.received().pop().unwrap()
    }

    /// The attempts of a notification once there are so many.
    pub(crate) async fn attempts(&self, webhook: &str, id: &str, number: usize) -> Vec<Value> {
        let path = format!("/api/v1/Webhooks/{webhook}/notifications/{id}/attempts");
        wait_for("the attempts to be listed", PATIENCE, async || {
            let answer = self.client.get(&path).await?;
            let listed = answer.json()?["response"]["content"].as_array().cloned();
            Ok(listed.filter(|listed| listed.len() >= number))
        })
        .await
        .unwrap()
    }
}

fn token(data: &Path, arguments: &[&str]) -> String {
    let mut all = vec!["token", "--data", data.to_str().unwrap(), "--ttl", "1h"];
    all.extend(arguments);
    process::run(BINARY.as_ref(), &all).unwrap().trim().to_owned()
}

pub(crate) fn text<'r>(received: &'r Received, name: &str) -> &'r str {
    received.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// The `v1` that a secret makes of a request.
pub(crate) fn v1(secret: &WebhookSecret, received: &Received) -> String {
    let time = text(received, "webhook-timestamp").parse().unwrap();
    secret.sign_v1(text(received, "webhook-id"), time, &received.body)
}

pub(crate) fn secret(response: &Value) -> WebhookSecret {
    WebhookSecret::parse(response["signingSecret"].as_str().unwrap()).unwrap()
}
