//! The API's own TLS: client certificates, tokens that are bound to them (RFC 8705),
//! and files that change while it runs.

use std::{path::Path, sync::Arc};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_e2e::{
    process::{Server, Spec, free_port},
    wait_for,
};
use tidings_testkit::certificate::{Authority, Identity, Validity, anonymous_client_config};
use tokio::task::JoinSet;

use crate::stage::{PATIENCE, TENANTS, binary, run_in};

/// A `tidings serve` with TLS.
pub(crate) struct Secured {
    pub(crate) folder: TempDir,
    port: u16,
    _server: Server,
}

impl Secured {
    /// Serves with the files in `folder` and more settings.
    pub(crate) async fn serve(folder: TempDir, settings: &[(&str, String)]) -> Self {
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut environment = vec![
            ("TIDINGS_LISTEN__TLS_CERTIFICATE".to_owned(), at("server.pem")),
            ("TIDINGS_LISTEN__TLS_KEY".to_owned(), at("server.key")),
        ];
        environment
            .extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let data = folder.path().join("data");
        let port = free_port().unwrap();
        let spec = Spec { binary: binary(), data: data.clone(), port, dev: true, environment };
        let server = Server::spawn(&spec, &[]).unwrap();
        let served = wait_for("the address file", PATIENCE, async || {
            Ok(data.join("address").exists().then_some(()))
        });
        let served = served.await;
        assert!(served.is_ok(), "{}", std::fs::read_to_string(server.log()).unwrap());
        Self { folder, port, _server: server }
    }

    /// Asks once, over a connection of its own: the status.
    pub(crate) async fn ask(&self, client: &Arc<ClientConfig>, token: &str) -> anyhow::Result<u16> {
        self.connect(client).await?.ask("/api/v1/Webhooks", token).await
    }

    #[expect(clippy::disallowed_methods, reason = "a client of the tests, on loopback")]
    async fn connect(&self, client: &Arc<ClientConfig>) -> anyhow::Result<Connection> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from("localhost")?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
        let stream = TokioIo::new(connector.connect(name, stream).await?);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Connection { sender, _task: task })
    }
}

struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    _task: JoinSet<Result<(), hyper::Error>>,
}

impl Connection {
    #[expect(clippy::disallowed_methods, reason = "our own server's answer")]
    async fn ask(&mut self, path: &str, token: &str) -> anyhow::Result<u16> {
        let request = http::Request::get(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::new())?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        Ok(status)
    }
}

/// Puts a server's certificate and key into `folder`.
pub(crate) fn write_server(folder: &Path, identity: &Identity) {
    std::fs::write(folder.join("server.pem"), identity.certificate_pem()).unwrap();
    std::fs::write(folder.join("server.key"), identity.key_pem()).unwrap();
}

/// Makes the data directory in `folder` and applies the tenants to it.
pub(crate) async fn prepare(folder: &Path) {
    let spec = Spec {
        binary: binary(),
        data: folder.join("data"),
        port: free_port().unwrap(),
        dev: true,
        environment: Vec::new(),
    };
    let mut server = Server::spawn(&spec, &[]).unwrap();
    server.ready(PATIENCE).await.unwrap();
    std::fs::write(folder.join("tenants.toml"), TENANTS).unwrap();
    let ended = run_in(folder, &["tenants", "apply", "tenants.toml", "--data", "data"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(server.terminate(PATIENCE).await.unwrap(), Some(0));
}

/// A token of the local issuer with these claims beside the usual ones.
fn token(folder: &Path, more: &Value) -> String {
    let pem = std::fs::read_to_string(folder.join("data/keys/issuer.key")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).unwrap();
    // The seed ends an Ed25519 key in PKCS #8.
    let seed = ed25519_compact::Seed::from_slice(&der[der.len() - 32..]).unwrap();
    let pair = ed25519_compact::KeyPair::from_seed(seed);
    let id = tidings_signing::sha256(&[&*pair.pk]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": hex::encode(&id[..8])});
    let mut claims = json!({
        "iss": "tidings-local", "aud": "tidings", "sub": "tester", "iat": now, "exp": now + 600,
        "scope": "eds.read", "pmid": 20,
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = pair.sk.sign(message.as_bytes(), None);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(*signature))
}

fn bound_to(identity: &Identity) -> Value {
    let digest = tidings_signing::sha256(&[identity.certificate()]);
    json!({"cnf": {"x5t#S256": URL_SAFE_NO_PAD.encode(digest)}})
}

#[tokio::test]
async fn clients_show_certificates_and_a_bound_token_comes_over_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    write_server(folder.path(), &servers.issue(&["localhost"], Validity::Now));
    std::fs::write(folder.path().join("clients.pem"), clients.root_pem()).unwrap();
    std::fs::write(folder.path().join("revoked.pem"), clients.revoke(&[2])).unwrap();
    prepare(folder.path()).await;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let settings = [
        ("TIDINGS_LISTEN__TLS_CLIENT_CA", at("clients.pem")),
        ("TIDINGS_LISTEN__TLS_CLIENT_CRL", at("revoked.pem")),
    ];
    let secured = Secured::serve(folder, &settings).await;
    let folder = secured.folder.path();
    let (one, two) = (clients.issue_numbered("one", 1), clients.issue_numbered("three", 3));
    let shows = |identity: &Identity| identity.client_config(&servers);
    let open = token(folder, &json!({}));
    let bound = token(folder, &bound_to(&one));
    assert_eq!(secured.ask(&shows(&one), &open).await.unwrap(), 200);
    assert_eq!(secured.ask(&shows(&one), &bound).await.unwrap(), 200);
    assert_eq!(secured.ask(&shows(&two), &bound).await.unwrap(), 401, "stolen");
    assert_eq!(secured.ask(&shows(&two), &open).await.unwrap(), 200);

    let anonymous = anonymous_client_config(&servers);
    assert!(secured.ask(&anonymous, &open).await.is_err(), "no certificate");
    for (identity, why) in [
        (clients.issue_numbered("revoked", 2), "revoked"),
        (clients.issue(&["client"], Validity::Past), "expired"),
        (clients.issue(&["client"], Validity::Future), "not valid yet"),
        (others.issue_numbered("other", 1), "of another authority"),
        (Identity::self_signed(&["client"]), "of nobody"),
    ] {
        assert!(secured.ask(&shows(&identity), &open).await.is_err(), "{why}");
    }

    // A certificate that is taken back is refused without a restart.
    std::fs::write(folder.join("revoked.pem"), clients.revoke(&[2, 3])).unwrap();
    wait_for("the new list to count", PATIENCE, async || {
        Ok(secured.ask(&shows(&two), &open).await.is_err().then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(secured.ask(&shows(&one), &bound).await.unwrap(), 200);
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    write_server(folder.path(), &old.issue(&["localhost"], Validity::Now));
    prepare(folder.path()).await;
    let secured = Secured::serve(folder, &[]).await;
    let folder = secured.folder.path();
    let token = token(folder, &json!({}));
    let (of_old, of_new) = (anonymous_client_config(&old), anonymous_client_config(&new));
    let mut kept = secured.connect(&of_old).await.unwrap();
    assert_eq!(kept.ask("/api/v1/Webhooks", &token).await.unwrap(), 200);
    assert!(secured.ask(&of_new, &token).await.is_err());

    // Half of a change: the key does not fit, so nothing changes.
    let identity = new.issue(&["localhost"], Validity::Now);
    std::fs::write(folder.join("server.pem"), identity.certificate_pem()).unwrap();
    let log = folder.join("data.log");
    wait_for("the refusal to be logged", PATIENCE, async || {
        Ok(std::fs::read_to_string(&log)?
            .contains("cannot be used, the last ones are")
            .then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(secured.ask(&of_old, &token).await.unwrap(), 200);
    std::fs::write(folder.join("server.key"), identity.key_pem()).unwrap();
    wait_for("the new certificate", PATIENCE, async || Ok(secured.ask(&of_new, &token).await.ok()))
        .await
        .unwrap();
    assert!(secured.ask(&of_old, &token).await.is_err());
    assert_eq!(kept.ask("/healthz", &token).await.unwrap(), 200, "an open connection goes on");
}

#[tokio::test]
async fn a_server_that_does_not_insist_takes_clients_without_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    write_server(folder.path(), &servers.issue(&["localhost"], Validity::Now));
    std::fs::write(folder.path().join("clients.pem"), clients.root_pem()).unwrap();
    prepare(folder.path()).await;
    let settings = [
        ("TIDINGS_LISTEN__TLS_CLIENT_CA", folder.path().join("clients.pem").display().to_string()),
        ("TIDINGS_LISTEN__TLS_CLIENT_AUTH", "optional".to_owned()),
    ];
    let secured = Secured::serve(folder, &settings).await;
    let folder = secured.folder.path();
    let one = clients.issue_numbered("one", 1);
    let (open, bound) = (token(folder, &json!({})), token(folder, &bound_to(&one)));
    let anonymous = anonymous_client_config(&servers);
    assert_eq!(secured.ask(&anonymous, &open).await.unwrap(), 200);
    assert_eq!(secured.ask(&anonymous, &bound).await.unwrap(), 401);
    assert_eq!(secured.ask(&one.client_config(&servers), &bound).await.unwrap(), 200);
}
