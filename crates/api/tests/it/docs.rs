//! The committed copies of what clients read: `docs/openapi.json` and
//! `docs/errors.md`. A change of the API fails here until somebody has looked at
//! it; with `TIDINGS_WRITE_GENERATED=1` the test writes them.

use std::{fmt::Write as _, fs, path::Path};

use tidings_api::Code;
use tidings_types::AttemptCode;

use crate::world::World;

#[expect(clippy::disallowed_methods, reason = "a switch of the developer, not a setting")]
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var("TIDINGS_WRITE_GENERATED").is_ok() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/{name} differs from the code: look at the change, then run the test with \
         TIDINGS_WRITE_GENERATED=1"
    );
}

#[tokio::test(start_paused = true)]
async fn the_description_is_the_one_that_was_looked_at() {
    let world = World::start().await;
    let reply = world.send_raw("GET", "/openapi.json", &[], None).await.is(200);
    let mut text = serde_json::to_string_pretty(&reply.json()).unwrap();
    text.push('\n');
    compare("openapi.json", &text);
}

#[test]
fn every_error_code_has_its_line() {
    let mut text = "# Error codes\n\nWritten from the code (`crates/api/src/errors.rs`). Clients \
                    match on the code, never on the message.\n\n## Of the API\n\n\
                    | code | HTTP | what it means and what to do |\n|---|---|---|\n"
        .to_owned();
    for code in Code::ALL {
        writeln!(text, "| `{}` | {} | {} |", code.as_str(), code.status(), code.text()).unwrap();
    }
    text.push_str(
        "\n`PMCODE_NOT_VALID` is 403 where the token is a programme manager's and the request \
         names another.\n\n## Of attempts\n\nIn `code` of an attempt and `lastCode` of a \
         notification.\n\n| code | what the endpoint did | what to do |\n|---|---|---|\n",
    );
    for code in AttemptCode::ALL {
        let name = if *code == AttemptCode::Http { "HTTP_<status>" } else { code.as_str() };
        let (what, advice) = attempt(*code);
        writeln!(text, "| `{name}` | {what} | {advice} |").unwrap();
    }
    compare("errors.md", &text);
}

/// What an attempt's code says, and what the endpoint's owner can do about it.
fn attempt(code: AttemptCode) -> (&'static str, &'static str) {
    match code {
        AttemptCode::Delivered => ("answered 2xx", "nothing"),
        AttemptCode::Http => (
            "answered with this status",
            "answer 2xx once the notification is stored; work on it afterwards",
        ),
        AttemptCode::RedirectRefused => {
            ("answered with a redirect", "register the URL that it leads to")
        }
        AttemptCode::ConnectRefused => {
            ("refused the connection", "start the server, open the port in the firewall")
        }
        AttemptCode::ConnectTimeout => {
            ("did not take the connection in time", "look for a firewall that drops packets")
        }
        AttemptCode::ConnectionReset => {
            ("reset the connection", "look at the server and at proxies before it")
        }
        AttemptCode::ClosedEarly => {
            ("closed before a whole answer", "look at the server's log for a crash")
        }
        AttemptCode::Timeout => (
            "did not answer within `timeoutMs`",
            "answer first and work afterwards, or raise `timeoutMs`",
        ),
        AttemptCode::DnsNotFound => ("has a name without address", "mend the DNS record"),
        AttemptCode::DnsFailed => {
            ("has a name that could not be looked up", "look at the name servers of the domain")
        }
        AttemptCode::BlockedAddress => (
            "has an address that is not public",
            "use a public address; the operator can allow a network",
        ),
        AttemptCode::TlsCertTime => {
            ("has a certificate that is expired or not valid yet", "renew the certificate")
        }
        AttemptCode::TlsNameMismatch => {
            ("has a certificate for another name", "get one for the name in the URL")
        }
        AttemptCode::TlsUntrusted => (
            "has a certificate of an unknown authority",
            "use one of a public authority or set `config.tls.caBundle`, and send the intermediate ones too",
        ),
        AttemptCode::TlsRejected => ("broke off the TLS handshake", "look at the server's TLS log"),
        AttemptCode::TlsProtocol => ("speaks no TLS that is accepted", "switch on TLS 1.2 or 1.3"),
        AttemptCode::TlsClientAuth => {
            ("wants a client certificate", "set `config.tls`, or require none on this path")
        }
        AttemptCode::TlsClientAuthNotAsked => (
            "did not ask for the client certificate that the webhook has",
            "let the server ask for it, or take it out of the webhook; nothing is sent without it",
        ),
        AttemptCode::OauthTokenFailed => (
            "was not asked: its authorization server gave no token",
            "look at what it answered (`responseSnippet`), and at `config.authentication`",
        ),
        AttemptCode::ResponseHeadersTooLarge => {
            ("answered with too large headers", "send less than 16 KiB of headers")
        }
        AttemptCode::ProtocolError => {
            ("answered with something that is not HTTP", "look at the server and its port")
        }
        AttemptCode::ProxyFailed => (
            "was not asked: our own proxy failed",
            "nothing; the operator mends it, and the attempt does not count",
        ),
        AttemptCode::BindFailed => (
            "was not asked: we could not go out from the operator's address",
            "nothing; the operator mends it, and the attempt does not count",
        ),
        AttemptCode::BadConfig => (
            "has a URL or header that is not allowed any more",
            "update the webhook; the answer says what is wrong",
        ),
    }
}
