//! The words of these tests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use prometheus_client::registry::Registry;
use tidings_egress::{
    AttemptReport, Config, ConnectError, Connector, Egress, Identity, Io, Metrics, NetConnector,
    Policy, Request, Target,
};
use tidings_testkit::{Receiver, TokioClock};
use tidings_types::{AttemptCode, BoxFuture, Timestamp, WebhookId};
use tokio::net::TcpStream;

/// Long enough for a loaded machine; nothing waits for it when all is well.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Connects to a receiver in memory.
#[derive(Debug)]
struct MemoryConnector(Arc<Receiver>);

impl Connector for MemoryConnector {
    fn connect<'a>(
        &'a self,
        _target: &'a Target,
        _identity: Option<&'a Identity>,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async move { Ok::<Box<dyn Io>, _>(Box::new(self.0.connect())) })
    }
}

/// A connector that never gets anywhere.
#[derive(Debug)]
struct StuckConnector;

impl Connector for StuckConnector {
    fn connect<'a>(
        &'a self,
        _target: &'a Target,
        _identity: Option<&'a Identity>,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(std::future::pending())
    }
}

/// Connects, and waits until the endpoint has said something.
#[derive(Debug)]
struct ListeningConnector;

impl Connector for ListeningConnector {
    fn connect<'a>(
        &'a self,
        target: &'a Target,
        _identity: Option<&'a Identity>,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "an endpoint of the test")]
            let stream = TcpStream::connect(("127.0.0.1", target.port())).await.unwrap();
            let limit = Duration::from_millis(300);
            // An endpoint that says nothing is a good one.
            let spoken = tokio::time::timeout(limit, stream.readable()).await;
            spoken.unwrap_or(Ok(())).unwrap();
            Ok::<Box<dyn Io>, _>(Box::new(stream))
        })
    }
}

/// An egress and what it counts.
pub(crate) struct Kit {
    pub(crate) egress: Arc<Egress>,
    policy: Policy,
    registry: Registry,
}

impl Kit {
    fn with(config: &Config, connector: impl FnOnce(Metrics) -> Arc<dyn Connector>) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let clock = Arc::new(TokioClock::new(Timestamp::from_secs(1_700_000_000)));
        let egress = Egress::new(config, connector(metrics.clone()), clock, metrics);
        Self { egress: Arc::new(egress), policy: config.policy.clone(), registry }
    }

    /// Everything goes to `receiver`, in memory.
    pub(crate) fn in_memory(receiver: &Arc<Receiver>) -> Self {
        Self::with(&dev(), |_metrics| Arc::new(MemoryConnector(Arc::clone(receiver))))
    }

    /// Nothing ever connects.
    pub(crate) fn stuck() -> Self {
        Self::with(&dev(), |_metrics| Arc::new(StuckConnector))
    }

    /// Real sockets of an egress that lets endpoints speak first.
    pub(crate) fn of_listeners() -> Self {
        Self::with(&dev(), |_metrics| Arc::new(ListeningConnector))
    }

    /// Real sockets.
    pub(crate) fn on_the_network(config: &Config) -> Self {
        Self::with(config, |metrics| Arc::new(NetConnector::new(config, metrics)))
    }

    /// Real sockets to this machine.
    pub(crate) fn on_loopback() -> Self {
        Self::on_the_network(&dev())
    }

    pub(crate) fn request(&self, url: &str) -> Request {
        let target =
            Target::parse(url, &self.policy).unwrap_or_else(|error| panic!("{url}: {error}"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        headers.insert("webhook-id", http::HeaderValue::from_static("id-1"));
        Request {
            webhook: webhook(1),
            target: Arc::new(target),
            identity: None,
            sign_in: None,
            headers,
            body: Bytes::from_static(b"{\"a\":1}"),
            timeout: Duration::from_secs(15),
        }
    }

    /// As a webhook that has an identity of its own.
    pub(crate) async fn post_as(&self, identity: &Arc<Identity>, url: &str) -> AttemptReport {
        let request = Request { identity: Some(Arc::clone(identity)), ..self.request(url) };
        self.egress.attempt(request).await
    }

    pub(crate) async fn post(&self, url: &str) -> AttemptReport {
        self.egress.attempt(self.request(url)).await
    }

    /// The value of a metric with its labels, as Prometheus would read it.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }
}

/// Endpoints on this machine are allowed.
pub(crate) fn dev() -> Config {
    Config { policy: Policy::dev(), ..Config::default() }
}

/// Asks this name server, by these rules.
pub(crate) fn asking(name_server: SocketAddr, policy: Policy) -> Config {
    Config { policy, name_servers: vec![name_server], ..Config::default() }
}

pub(crate) fn webhook(number: u8) -> WebhookId {
    WebhookId::from_random([number; 16])
}

/// Checks the code of an answer, its status, and that the request was sent.
#[track_caller]
pub(crate) fn assert_answered(report: &AttemptReport, code: AttemptCode, status: u16) {
    assert_eq!((report.code, report.http_status), (code, status), "{report:?}");
    assert!(report.written, "{report:?}");
}

/// Checks the code of an attempt without an answer.
#[track_caller]
pub(crate) fn assert_failed(report: &AttemptReport, code: AttemptCode, written: bool) {
    assert_eq!((report.code, report.http_status), (code, 0), "{report:?}");
    assert_eq!(report.written, written, "{report:?}");
}
