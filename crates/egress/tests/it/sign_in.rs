//! Webhooks whose endpoints want a token of an authorization server.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidings_egress::{AttemptReport, ClientProof, Policy, Request, SignIn, SignInParts, Target};
use tidings_signing::Secret;
use tidings_testkit::{Behaviour, Receiver};
use tidings_types::AttemptCode;

use crate::kit::{Kit, LIMIT, assert_answered};

const SECRET: &str = "the/secret:of=us";

/// An authorization server, an endpoint, and who sends.
struct Scene {
    server: Receiver,
    endpoint: Receiver,
    kit: Kit,
    sign_in: Arc<SignIn>,
}

fn granted(token: &str, life: u64) -> Behaviour {
    let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{life}}}"#);
    Behaviour::answer(200, &[("content-type", "application/json")], body.as_bytes())
}

fn sign_in(url: &str, proof: ClientProof) -> Arc<SignIn> {
    Arc::new(SignIn::new(SignInParts {
        target: Arc::new(Target::parse(url, &Policy::dev()).unwrap()),
        client_id: "us & them".to_owned(),
        proof,
        scope: Some("hooks".to_owned()),
        audience: None,
    }))
}

impl Scene {
    async fn start(proof: ClientProof) -> Self {
        let server = Receiver::start().await.unwrap();
        server.behave(granted("t1", 3600));
        let sign_in = sign_in(&server.url("/token"), proof);
        let endpoint = Receiver::start().await.unwrap();
        Self { server, endpoint, kit: Kit::on_loopback(), sign_in }
    }

    async fn post(&self) -> AttemptReport {
        let request = self.kit.request(&self.endpoint.url("/"));
        let request = Request { sign_in: Some(Arc::clone(&self.sign_in)), ..request };
        self.kit.egress.attempt(request).await
    }

    /// The tokens that the endpoint saw.
    fn tokens(&self) -> Vec<String> {
        let received = self.endpoint.received();
        let token = |it: &tidings_testkit::Received| {
            it.headers["authorization"].to_str().unwrap().to_owned()
        };
        received.iter().map(token).collect()
    }
}

fn basic() -> ClientProof {
    ClientProof::Basic(Secret::from(SECRET))
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_is_on_every_request() {
    let scene = Scene::start(basic()).await;
    for _ in 0..3 {
        assert_answered(&scene.post().await, AttemptCode::Delivered, 200);
    }
    assert_eq!(scene.tokens(), ["Bearer t1"; 3]);
    let asked = scene.server.received();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/token"));
    let pair = STANDARD.encode("us+%26+them:the%2Fsecret%3Aof%3Dus");
    assert_eq!(asked[0].headers["authorization"], format!("Basic {pair}"));
    assert_eq!(asked[0].headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(asked[0].body, "grant_type=client_credentials&scope=hooks");
}

#[tokio::test]
async fn the_secret_stands_in_the_body_where_the_server_wants_that() {
    let scene = Scene::start(ClientProof::Post(Secret::from(SECRET))).await;
    assert_answered(&scene.post().await, AttemptCode::Delivered, 200);
    let asked = scene.server.received();
    assert!(asked[0].headers.get("authorization").is_none());
    assert_eq!(
        asked[0].body,
        "grant_type=client_credentials&scope=hooks&client_id=us+%26+them\
         &client_secret=the%2Fsecret%3Aof%3Dus"
    );
}

#[tokio::test]
async fn many_attempts_at_once_ask_for_one_token() {
    let scene = Scene::start(basic()).await;
    scene.server.behave(granted("t1", 3600).after(Duration::from_millis(200)));
    let posts = std::iter::repeat_with(|| scene.post()).take(20);
    for report in futures::future::join_all(posts).await {
        assert_answered(&report, AttemptCode::Delivered, 200);
    }
    assert_eq!((scene.server.requests(), scene.endpoint.requests()), (1, 20));
}

#[tokio::test]
async fn a_token_that_has_ended_or_is_refused_is_replaced_and_not_without_end() {
    let scene = Scene::start(basic()).await;
    let grants = ["t1", "t2", "t3"].map(|token| granted(token, 3600));
    scene.server.behave_in_turn([granted("t0", 0)].into_iter().chain(grants));
    assert_answered(&scene.post().await, AttemptCode::Delivered, 200);
    scene.endpoint.behave(Behaviour::status(401));
    for _ in 0..5 {
        let report = scene.post().await;
        assert_eq!((report.code, report.http_status), (AttemptCode::Http, 401));
    }
    assert_eq!(scene.tokens(), ["t0", "t1", "t2", "t2", "t2", "t2"].map(|t| format!("Bearer {t}")));
    // Once one is taken, the next that is refused is replaced too.
    scene.endpoint.behave(Behaviour::status(200));
    scene.post().await;
    scene.endpoint.behave(Behaviour::status(401));
    scene.post().await;
    scene.post().await;
    assert_eq!(scene.tokens().last().map(String::as_str), Some("Bearer t3"));
    assert_eq!(scene.server.requests(), 4);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let json = [("content-type", "application/json")];
    let rows = [
        (Behaviour::answer(401, &json, b"{\"error\":\"x\"}"), "answered 401: {\"error\":\"x\"}"),
        (Behaviour::answer(302, &[("location", "https://x/")], b""), "answered 302: "),
        (
            Behaviour::answer(200, &json, b"{\"token\":\"t\"}"),
            "answered 200 without a bearer token",
        ),
        (Behaviour::answer(200, &json, b"not json"), "answered 200 without a bearer token"),
        (Behaviour::close(), ": CLOSED_EARLY"),
        (Behaviour::raw("HTTP/9.9 OK\r\n\r\n"), ": PROTOCOL_ERROR"),
    ];
    for (behaviour, said) in rows {
        let scene = Scene::start(basic()).await;
        scene.server.behave(behaviour);
        let report = scene.post().await;
        assert_eq!(report.code, AttemptCode::OauthTokenFailed, "{report:?}");
        let text = String::from_utf8(report.snippet.to_vec()).unwrap();
        let gap = if said.starts_with(':') { "" } else { " " };
        assert_eq!(text, format!("the token endpoint{gap}{said}"));
        assert_eq!((report.http_status, report.written, report.found), (0, false, None));
        // Nobody asks again at once.
        assert_eq!(scene.post().await.code, AttemptCode::OauthTokenFailed);
        assert_eq!((scene.server.requests().min(1), scene.endpoint.connections()), (1, 0));
        assert!(scene.server.connections() <= 1, "{text}");
    }
}

#[tokio::test]
async fn an_endless_answer_of_the_server_is_not_read() {
    let scene = Scene::start(basic()).await;
    let long = "x".repeat(200_000);
    scene.server.behave(Behaviour::answer(200, &[], long.as_bytes()));
    assert_eq!(scene.post().await.code, AttemptCode::OauthTokenFailed);
    scene.server.behave(Behaviour::hang());
    assert!(scene.server.wait_for_open(0, LIMIT).await, "the connection is closed");
}

#[tokio::test]
async fn a_server_at_an_address_that_is_not_public_is_not_asked() {
    let canary = Receiver::start().await.unwrap();
    let endpoint = Receiver::start().await.unwrap();
    let policy = Policy { allow: Vec::new(), ..Policy::dev() };
    let kit = Kit::on_the_network(&tidings_egress::Config {
        policy,
        ..tidings_egress::Config::default()
    });
    let sign_in = sign_in(&canary.url("/token"), basic());
    let target = Arc::new(Target::parse(&endpoint.url("/"), &Policy::dev()).unwrap());
    let request = Kit::on_loopback().request(&endpoint.url("/"));
    let request = Request { target, sign_in: Some(sign_in), ..request };
    let report = kit.egress.attempt(request).await;
    assert_eq!(report.code, AttemptCode::OauthTokenFailed);
    assert_eq!(report.snippet, "the token endpoint: BLOCKED_ADDRESS");
    assert_eq!((canary.connections(), endpoint.connections()), (0, 0));
}
