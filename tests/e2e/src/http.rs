//! A small HTTP client with one kept connection, for talking to the API.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{sync::Mutex, task::JoinSet};

const MAX_ANSWER: usize = 512 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Asks one server; requests of one client go one after the other.
#[derive(Debug)]
pub struct Client {
    address: String,
    token: String,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

/// An answer with its body read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The member `response`.
    ///
    /// # Errors
    /// When the status is not `expected`.
    pub fn response(&self, expected: u16) -> anyhow::Result<Value> {
        anyhow::ensure!(
            self.status == expected,
            "answered {} instead of {expected}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        Ok(self.json()?.get_mut("response").map(Value::take).unwrap_or(Value::Null))
    }
}

impl Client {
    /// # Errors
    /// When `base` is not `http://HOST:PORT`.
    pub fn new(base: &str, token: &str) -> anyhow::Result<Self> {
        let address = base.strip_prefix("http://").context("not http://")?.to_owned();
        Ok(Self { address, token: token.to_owned(), connection: Mutex::new(None) })
    }

    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, &[], Bytes::new()).await
    }

    /// # Errors
    /// When there is no answer.
    pub async fn json(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        self.send(method, path, &[("content-type", "application/json")], body).await
    }

    /// Sends one request; a kept connection that has died is replaced once, before
    /// anything was written on it.
    ///
    /// # Errors
    /// When there is no complete answer; the request may have had its effect.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request =
            http::Request::builder().method(method).uri(path).header("host", self.address.as_str());
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let mut slot = self.connection.lock().await;
        let kept = match slot.take() {
            Some(mut kept) => kept.sender.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let exchange = async {
            let response = connection.sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            #[expect(clippy::disallowed_methods, reason = "capped by `Limited`")]
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .with_context(|| format!("{method} {path}: no answer in {TIMEOUT:?}"))?
            .with_context(|| format!("{method} {path}"))?;
        *slot = Some(connection);
        Ok(answer)
    }

    #[expect(clippy::disallowed_methods, reason = "the system under test, on loopback")]
    async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = tokio::net::TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // A broken connection shows at its next request.
            if driver.await.is_err() {}
        });
        Ok(Connection { sender, _driver: tasks })
    }
}
