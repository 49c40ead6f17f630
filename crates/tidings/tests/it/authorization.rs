//! Against a real authorization server (npm `oidc-provider`): clients that sign in
//! with `private_key_jwt`, and tokens that are bound to the client's certificate.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::{Value, json};
use tidings_e2e::{http::Client, tools};
use tidings_testkit::{
    Behaviour, Receiver,
    certificate::{Authority, Identity, Validity, anonymous_client_config},
};
use tidings_types::Rng as _;

use crate::{
    stage::{Stage, TENANTS, run_in},
    tls::{Secured, prepare, write_server},
};

/// The authorization server; ends with its standard input.
pub(crate) struct Provider {
    child: Child,
    pub(crate) issuer: String,
}

pub(crate) fn key_pair() -> ed25519_compact::KeyPair {
    let mut seed = [0; 32];
    tidings_telemetry::SystemRng::new().fill(&mut seed);
    ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed))
}

impl Provider {
    fn start(key: &ed25519_compact::KeyPair) -> Self {
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "c",
            "x": URL_SAFE_NO_PAD.encode(*key.pk),
        });
        let client = |id: &str, scope: &str, bound: bool| {
            json!({
                "client_id": id, "scope": scope,
                "token_endpoint_auth_method": "private_key_jwt",
                "token_endpoint_auth_signing_alg": "EdDSA",
                "tls_client_certificate_bound_access_tokens": bound,
                "jwks": {"keys": [jwk]},
            })
        };
        let setup = json!({
            "clients": [
                client("bank", "eds.read eds.write", true),
                client("reader", "eds.read", true),
                client("unbound", "eds.read", false),
            ],
            "claims": {
                "bank": {"issuerid": "7001"}, "reader": {"pmid": 20}, "unbound": {"pmid": 20},
            },
        });
        Self::with(&setup)
    }

    /// With these clients, and claims of their tokens.
    pub(crate) fn with(setup: &Value) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/oidc");
        let home = tools::node(&folder).unwrap();
        let mut child = Command::new("node")
            .arg(home.join("provider.mjs"))
            .arg(setup.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut issuer = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut issuer).unwrap();
        Self { child, issuer: issuer.trim().to_owned() }
    }

    /// Signs in as `client` over a connection with this certificate.
    async fn sign_in(
        &self,
        key: &ed25519_compact::KeyPair,
        client: &str,
        scope: &str,
        certificate: &Identity,
    ) -> (u16, Value) {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let claims = json!({
            "iss": client, "sub": client, "aud": self.issuer, "jti": now.as_nanos().to_string(),
            "iat": now.as_secs(), "exp": now.as_secs() + 60,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "c"})), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(*key.sk.sign(message.as_bytes(), None));
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let body: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("scope", scope)
            .append_pair("client_assertion_type", kind)
            .append_pair("client_assertion", &format!("{message}.{signature}"))
            .finish();
        let pem = certificate.certificate_pem();
        let pem: String = url::form_urlencoded::byte_serialize(pem.as_bytes()).collect();
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-client-certificate", &pem.replace('+', "%20")),
        ];
        let server = Client::new(&self.issuer, "").unwrap();
        let answer = server.send("POST", "/token", &headers, Bytes::from(body)).await.unwrap();
        (answer.status, answer.json().unwrap())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_client_signs_in_with_its_key_and_its_token_counts_over_its_certificate() {
    let key = key_pair();
    let provider = Provider::start(&key);
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    write_server(folder.path(), &servers.issue(&["localhost"], Validity::Now));
    std::fs::write(folder.path().join("clients.pem"), clients.root_pem()).unwrap();
    prepare(folder.path()).await;
    let issuer = &provider.issuer;
    let issuers = format!(
        r#"[{{ issuer = "{issuer}", audience = "tidings", jwks_url = "{issuer}/jwks", certificate_bound = true }}]"#
    );
    let settings = [
        ("TIDINGS_LISTEN__TLS_CLIENT_CA", folder.path().join("clients.pem").display().to_string()),
        ("TIDINGS_LISTEN__TLS_CLIENT_AUTH", "optional".to_owned()),
        ("TIDINGS_AUTH__ISSUERS", issuers),
    ];
    let secured = Secured::serve(folder, &settings).await;
    let (mine, other) = (clients.issue_numbered("bank", 1), clients.issue_numbered("other", 2));
    let over = |identity: &Identity| identity.client_config(&servers);
    let token = async |client: &str, scope: &str| {
        let (status, answer) = provider.sign_in(&key, client, scope, &mine).await;
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    };
    let bank = token("bank", "eds.read eds.write").await;
    assert_eq!(secured.ask(&over(&mine), &bank).await.unwrap(), 200);
    assert_eq!(secured.ask(&over(&other), &bank).await.unwrap(), 401, "stolen");
    assert_eq!(secured.ask(&anonymous_client_config(&servers), &bank).await.unwrap(), 401);
    let reader = token("reader", "eds.read").await;
    assert_eq!(secured.ask(&over(&mine), &reader).await.unwrap(), 200);
    // This issuer's tokens have to be bound.
    let unbound = token("unbound", "eds.read").await;
    assert_eq!(secured.ask(&over(&mine), &unbound).await.unwrap(), 401);
    // Another key signs nobody in.
    let thief = key_pair();
    let (status, answer) = provider.sign_in(&thief, "bank", "eds.read", &mine).await;
    assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")));
}

#[tokio::test]
async fn keys_come_from_a_server_with_an_authority_of_its_own() {
    let (authority, key) = (Authority::new(), key_pair());
    let identity = authority.issue(&["localhost"], Validity::Now);
    let server = Receiver::start_tls(identity.server_config()).await.unwrap();
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k",
        "x": URL_SAFE_NO_PAD.encode(*key.pk),
    });
    server.behave(Behaviour::answer(200, &[], json!({"keys": [jwk]}).to_string().as_bytes()));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({
        "iss": "https://login.bank.example", "aud": "tidings", "sub": "bank", "iat": now,
        "exp": now + 600, "scope": "eds.read", "pmid": 20,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k"})), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(*key.sk.sign(message.as_bytes(), None));
    let token = format!("{message}.{signature}");

    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("own-ca.pem");
    std::fs::write(&pem, authority.root_pem()).unwrap();
    let port = server.address().port();
    for (ca_file, status) in [(format!(", ca_file = {pem:?}"), 200), (String::new(), 401)] {
        let issuers = format!(
            "[{{ issuer = \"https://login.bank.example\", audience = \"tidings\", \
             jwks_url = \"https://localhost:{port}/keys\"{ca_file} }}]"
        );
        let stage = Stage::with(true, &[("TIDINGS_AUTH__ISSUERS", &issuers)]).await;
        assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
        let client = Client::new(&stage.base(), &token).unwrap();
        assert_eq!(client.get("/api/v1/Webhooks").await.unwrap().status, status, "{issuers}");
        let metrics = client.get("/metrics").await.unwrap().body;
        let unreachable = i32::from(status != 200);
        let line = format!("\ntidings_auth_unreachable_issuers {unreachable}\n");
        assert!(std::str::from_utf8(&metrics).unwrap().contains(&line));
    }
    // What is no authority is said by the check.
    std::fs::write(&pem, identity.key_pem()).unwrap();
    let settings = format!(
        "[[auth.issuers]]\nissuer = \"a\"\naudience = \"b\"\n\
         jwks_url = \"https://localhost/keys\"\nca_file = {pem:?}\n"
    );
    std::fs::write(folder.path().join("s.toml"), settings).unwrap();
    let ended = run_in(folder.path(), &["config", "check", "--config", "s.toml"], "");
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("auth.issuers[].ca_file"), "{}", ended.err);
}
