//! Reads a document that the operator named in the settings, such as the keys of
//! an authorization server.
//!
//! The operator is no stranger, so addresses are not filtered; what comes back is
//! bounded and timed as everything else, and no redirect is followed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    config::Config,
    connect::{ConnectError, Connector as _},
    metrics::Metrics,
    net::NetConnector,
    target::{Policy, Target},
};

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is not an https:// URL; plain http:// is for loopback alone")]
    Url(String),
    #[error("the server cannot be reached: {0:?}")]
    Connect(tidings_types::AttemptCode),
    #[error("the server answered {0} instead of 200")]
    Status(u16),
    #[error("the server did not speak HTTP")]
    Protocol,
    #[error("the document is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the server did not answer in time")]
    Timeout,
}

/// Reads documents of servers that the operator named.
#[derive(Debug)]
pub struct Fetcher {
    connector: NetConnector,
    policy: Policy,
}

impl Fetcher {
    /// `extra_roots` are trusted beside the public authorities.
    pub fn new(extra_roots: Vec<CertificateDer<'static>>, metrics: Metrics) -> Self {
        let everywhere = ["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse::<IpNet>().ok());
        let policy = Policy { allow: everywhere.collect(), allow_http: true, ..Policy::default() };
        let config = Config { policy: policy.clone(), extra_roots, ..Config::default() };
        Self { connector: NetConnector::new(&config, metrics), policy }
    }

    /// Whether a URL can be read: `https://`, or `http://` on loopback.
    ///
    /// # Errors
    /// [`FetchError::Url`].
    pub fn check(&self, url: &str) -> Result<(), FetchError> {
        self.target(url).map(|_target| ())
    }

    fn target(&self, url: &str) -> Result<Target, FetchError> {
        let refuse = || FetchError::Url(url.to_owned());
        let target = Target::parse(url, &self.policy).map_err(|_refusal| refuse())?;
        let is_loopback = match target.host() {
            url::Host::Ipv4(address) => address.is_loopback(),
            url::Host::Ipv6(address) => address.is_loopback(),
            url::Host::Domain(name) => name == "localhost",
        };
        if target.is_https() || is_loopback { Ok(target) } else { Err(refuse()) }
    }

    /// The document at `url`, at most `max_bytes` long, within `limit`.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(
        &self,
        url: &str,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Bytes, FetchError> {
        let target = self.target(url)?;
        timeout(limit, self.exchange(&target, max_bytes)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(&self, target: &Target, max_bytes: usize) -> Result<Bytes, FetchError> {
        let io = self.connector.connect(target, None).await;
        let io = io.map_err(|ConnectError { code, .. }| FetchError::Connect(code))?;
        let broken = |_error: hyper::Error| FetchError::Protocol;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        // Ends with this call: the set drops it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = target.uri().clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, target.authority().clone());
        headers.insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if bytes.len() + data.len() > max_bytes {
                return Err(FetchError::TooLarge(max_bytes));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }
}
