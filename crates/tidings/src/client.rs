//! The client side of `tenants`, `publish`, `account` and `quarantine`: a small
//! HTTP client for our own API, and the ways to find that API.
//!
//! With `--data` it uses the address file of the running server and a token that
//! it signs with the directory's issuer key; when nobody serves the directory it
//! opens the store itself and asks that.

mod pinned;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    app::{self, App, Roles, TokenRequest},
    cli::ClientArgs,
    commands::{Failure, environment},
    settings::{self, BrokerChoice, Flags, Settings, Source},
};

/// No answer of the API is larger.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Asks one API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: Url,
    token: String,
    /// The server's own certificate, where the settings say which that is.
    certificate: Option<CertificateDer<'static>>,
}

/// Whom a token is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) scopes: &'a [&'a str],
    pub(crate) pm: Option<i64>,
    pub(crate) issuer: Option<&'a str>,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Bytes,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Client {
    pub(crate) fn new(base: &str, token: String) -> anyhow::Result<Self> {
        Ok(Self {
            base: Url::parse(base).with_context(|| format!("{base:?} is not a URL"))?,
            token,
            certificate: None,
        })
    }

    /// As [`Client::with_for`], for nobody in particular.
    pub(crate) fn with<F>(args: &ClientArgs, scopes: &[&str], work: F) -> Result<(), Failure>
    where
        F: AsyncFnOnce(Self) -> Result<(), Failure>,
    {
        Self::with_for(args, Who { scopes, pm: None, issuer: None }, work)
    }

    /// Finds the system that `args` mean, runs `work` against it, and stops what
    /// was started for it. A token that it signs itself is `who`'s.
    pub(crate) fn with_for<F>(args: &ClientArgs, who: Who<'_>, work: F) -> Result<(), Failure>
    where
        F: AsyncFnOnce(Self) -> Result<(), Failure>,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async move {
            let environment = environment();
            if let Some(url) = args.asked_url(&environment) {
                let token = args.token.clone().ok_or_else(|| {
                    Failure::Usage(anyhow!("--url needs --token (or TIDINGS_TOKEN)"))
                })?;
                let client = Self::new(&url, token).map_err(Failure::Usage)?;
                return work(client).await;
            }
            let flags = Flags {
                data: args.data.clone(),
                broker: args.broker.clone(),
                listen: Some("127.0.0.1:0".to_owned()),
                ..Flags::default()
            };
            let source = Source { file: args.config.as_deref(), environment };
            let is_named = source.environment.contains_key("TIDINGS_DATA")
                || args.data.is_some()
                || args.config.is_some()
                || args.broker.is_some();
            if !is_named {
                return Err(Failure::Usage(anyhow!("say --url URL --token T, or --data DIR")));
            }
            let mut settings = settings::load(&source, &flags)?;
            if settings.broker == BrokerChoice::Local {
                app::check_data_directory(&settings.data)?;
            }
            let token = local_token(&settings.data, &who)?;
            // It may name nobody: the process may have been killed.
            let mut unreachable = None;
            if let Some(address) = app::running_address(&settings.data) {
                let mut client = Self::new(&address, token.clone())?;
                client.certificate = server_certificate(&settings)?;
                match client.send("GET", "/healthz", "application/json", Vec::new()).await {
                    // A router or a sender says that it lives in plain words.
                    Ok(answer) if answer.status == 200 && answer.response().is_ok() => {
                        return work(client).await;
                    }
                    Ok(_) => unreachable = Some(anyhow!("{address} does not serve the API")),
                    Err(error) => unreachable = Some(error),
                }
            }
            if settings.broker == BrokerChoice::Local && !settings.data.join("log").is_dir() {
                return Err(Failure::Usage(anyhow!(
                    "{} is not a data directory of Tidings, and nobody serves it",
                    settings.data.display()
                )));
            }
            settings.local_issuer = true;
            settings.listen.tls = None;
            settings.metrics_listen = None;
            let shutdown = CancellationToken::new();
            let app = App::start(settings, Roles::OFFLINE, shutdown.clone()).await;
            let app = match (app, unreachable) {
                (Err(Failure::Wrong(error)), Some(why)) => {
                    return Err(Failure::Wrong(error.context(format!(
                        "the server of this directory did not answer ({why:#}; \
                         where it uses TLS, give its --config)"
                    ))));
                }
                (app, _) => app?,
            };
            let client = Self::new(&app.base_url(), token)?;
            let mut running = Box::pin(app.run());
            let result = tokio::select! {
                result = async { app.ready().await; work(client).await } => result,
                ended = &mut running => {
                    return Err(ended.err().unwrap_or_else(|| anyhow!("the store closed early")).into());
                }
            };
            shutdown.cancel();
            running.await?;
            result
        })
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        self.send_with(method, path, content_type, body, &[]).await
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let host = self.base.host_str().context("the URL names no host")?;
        let port = self.base.port_or_known_default().context("the URL names no port")?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.path().trim_end_matches('/')))
            .header("host", format!("{host}:{port}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.body(Full::new(Bytes::from(body))).context("cannot make the request")?;
        let io = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(host, port))
            .await
            .with_context(|| format!("no connection to {} in {CONNECT_TIMEOUT:?}", self.base))?
            .with_context(|| format!("cannot connect to {}", self.base))?;
        let exchange = async move {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
            let answer = async move {
                let response = sender.send_request(request).await?;
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), MAX_ANSWER);
                #[expect(clippy::disallowed_methods, reason = "capped by `Limited`, our own API")]
                let body = body.collect().await.map_err(|error| anyhow!(error))?.to_bytes();
                anyhow::Ok(Answer { status, body })
            };
            tokio::pin!(answer);
            tokio::pin!(connection);
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                ended = &mut connection => {
                    ended?;
                    answer.await
                }
            }
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange)
            .await
            .with_context(|| format!("no answer of {} in {REQUEST_TIMEOUT:?}", self.base))?
            .with_context(|| format!("{method} {path} got no answer"))
    }

    #[expect(clippy::disallowed_methods, reason = "our own API, named by the user")]
    async fn connect(&self, host: &str, port: u16) -> anyhow::Result<Box<dyn Io>> {
        let stream = tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        stream.set_nodelay(true)?;
        match self.base.scheme() {
            "http" => Ok(Box::new(stream)),
            "https" => {
                let config = match &self.certificate {
                    Some(certificate) => pinned::config(certificate.clone())?,
                    None => {
                        let mut roots = rustls::RootCertStore::empty();
                        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                        rustls::ClientConfig::builder()
                            .with_root_certificates(roots)
                            .with_no_client_auth()
                    }
                };
                let name = rustls::pki_types::ServerName::try_from(
                    host.trim_matches(['[', ']']).to_owned(),
                )?;
                let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                Ok(Box::new(connector.connect(name, stream).await?))
            }
            other => bail!("{other}:// is not a scheme of the API"),
        }
    }
}

impl Answer {
    /// The member `response` of the envelope.
    pub(crate) fn response(&self) -> anyhow::Result<Value> {
        let mut value: Value =
            serde_json::from_slice(&self.body).context("the answer is not JSON")?;
        Ok(value.get_mut("response").map(Value::take).unwrap_or(value))
    }

    /// The member `errors` of the envelope.
    pub(crate) fn errors(&self) -> Vec<Value> {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|value| value.get("errors").and_then(Value::as_array).cloned())
            .unwrap_or_default()
    }

    /// The refusal as a failure of the command: every error with its code and field.
    pub(crate) fn refused(&self) -> Failure {
        let lines: Vec<String> = self
            .errors()
            .iter()
            .map(|error| {
                let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
                let field = text("field");
                if field.is_empty() {
                    format!("{}: {}", text("code"), text("message"))
                } else {
                    format!("{} {field}: {}", text("code"), text("message"))
                }
            })
            .collect();
        if lines.is_empty() {
            Failure::Wrong(anyhow!("the API answered {}", self.status))
        } else {
            let hint = match self.status {
                401 => {
                    ". A directory's own tokens are good for a server with --dev or \
                     auth.local_issuer = true; for another one give --url and --token"
                }
                _ => "",
            };
            Failure::Wrong(anyhow!("refused ({}): {}{hint}", self.status, lines.join("\n")))
        }
    }
}

/// The certificate that the server of these settings shows.
fn server_certificate(settings: &Settings) -> anyhow::Result<Option<CertificateDer<'static>>> {
    let Some(tls) = &settings.listen.tls else { return Ok(None) };
    CertificateDer::from_pem_file(&tls.certificate).map(Some).map_err(|error| {
        anyhow!("listen.tls_certificate {} cannot be read: {error}", tls.certificate.display())
    })
}

fn local_token(data: &Path, who: &Who<'_>) -> anyhow::Result<String> {
    let request = TokenRequest {
        subject: "tidings-cli".to_owned(),
        issuer: who.issuer.map(str::to_owned),
        pm: who.pm,
        scopes: who.scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ttl: Duration::from_secs(600),
    };
    app::sign_token(data, &request)
        .with_context(|| format!("cannot use the issuer's key in {}", data.join("keys").display()))
}
