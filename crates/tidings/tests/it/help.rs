//! `--help` of every command, and the examples in it.

use tidings_e2e::process::{Server, Spec, free_port};

use crate::stage::{PATIENCE, TENANTS, binary, event, run_in};

const COMMANDS: &[&[&str]] = &[
    &[],
    &["demo"],
    &["serve"],
    &["router"],
    &["sender"],
    &["recorder"],
    &["api"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["token"],
    &["tenants"],
    &["tenants", "apply"],
    &["publish"],
    &["account"],
    &["quarantine"],
    &["quarantine", "list"],
    &["quarantine", "show"],
    &["quarantine", "redrive"],
    &["explain"],
    &["resend"],
    &["pause"],
    &["pause", "list"],
    &["resume"],
    &["keys"],
    &["keys", "list"],
    &["keys", "add"],
    &["keys", "use"],
];

/// The words of the example in a help text.
fn example(help: &str) -> Vec<String> {
    let (_, example) = help.split_once("Example:\n").unwrap();
    let line = example.lines().next().unwrap().trim();
    line.strip_prefix("tidings ").unwrap().split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_has_an_example_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("tenants.toml"), TENANTS).unwrap();
    std::fs::write(at.join("tidings.toml"), "[delivery]\nmax_open = 1000\n").unwrap();
    let good = event(r#"{"messageId":"m","publicToken":"t"}"#);
    std::fs::write(at.join("events.ndjson"), format!("{good}\n")).unwrap();
    std::fs::write(at.join("mended.json"), &good).unwrap();
    let server = serve(at).await;
    let mut ran = 0;
    for command in COMMANDS {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let help = run_in(at, &arguments, "");
        assert_eq!(help.code, Some(0), "{command:?}: {}", help.err);
        let mut example = example(&help.out);
        if let Some(id) = example.iter_mut().find(|word| *word == "WEBHOOK") {
            *id = webhook(at, &server.base()).await;
        }
        let words: Vec<&str> = example.iter().map(String::as_str).collect();
        assert!(words.starts_with(command), "{command:?}: {words:?}");
        match words.first().copied() {
            // Runs already. The single roles need a broker of their own.
            Some("serve" | "router" | "sender" | "recorder" | "api") => {}
            _ => {
                let ended = run_in(at, &words, "");
                assert_eq!(ended.code, Some(0), "{words:?}: {}", ended.err);
                ran += 1;
            }
        }
    }
    assert!(ran >= 21, "{ran}");
}

/// What the example of `serve` starts, on a free port, with one quarantined record.
async fn serve(at: &std::path::Path) -> Server {
    let spec = Spec {
        binary: binary(),
        data: at.join("tidings-data"),
        port: free_port().unwrap(),
        dev: true,
        environment: Vec::new(),
    };
    let mut server = Server::spawn(&spec, &[]).unwrap();
    server.ready(PATIENCE).await.unwrap();
    let url = server.base();
    let token = ["token", "--data", "tidings-data", "--scope", "admin"];
    let token = run_in(at, &token, "").out;
    let raw = ["publish", "-", "--raw", "104", "--url", &url, "--token", token.trim()];
    let ended = run_in(at, &raw, "not JSON\n");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "accepted 1\n"), "{}", ended.err);
    tidings_e2e::wait_for("the quarantined record", PATIENCE, async || {
        let list = ["quarantine", "list", "--json", "--data", "tidings-data"];
        let list = run_in(at, &list, "");
        Ok((list.code == Some(0) && list.out.contains("BAD_JSON")).then_some(()))
    })
    .await
    .unwrap();
    server
}

/// Makes a webhook of manager 20, whom the example of `tenants apply` has made.
async fn webhook(at: &std::path::Path, url: &str) -> String {
    let token = ["token", "--data", "tidings-data", "--pm", "20", "--scope", "eds.write"];
    let token = run_in(at, &token, "").out;
    let client = tidings_e2e::http::Client::new(url, token.trim()).unwrap();
    let config = serde_json::json!({"url": "http://127.0.0.1:9/hook"});
    let body = serde_json::json!({"events": [104], "config": config});
    let made = client.json("POST", "/api/v1/Webhooks", &body).await.unwrap().response(201).unwrap();
    made["webhookId"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_no_usage_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let serve = ["serve", "--data", "data", "--listen"];
    for (arguments, named) in [
        (&[][..], "Usage"),
        (&["bogus"], "bogus"),
        (&["router"], "tidings serve"),
        (&["sender", "--broker", "local"], "tidings serve"),
        (&["recorder"], "tidings serve"),
        (&["api"], "tidings serve"),
        (&[&serve[..], &["0.0.0.0:0", "--dev"]].concat(), "loopback"),
        (&[&serve[..], &["0.0.0.0:0"]].concat(), "listen.tls_certificate"),
        (&[&serve[..], &["nowhere"]].concat(), "listen"),
        (&["serve", "--config", "none.toml"], "none.toml"),
        (&["serve", "--broker", "rabbit"], "broker"),
        (&["token", "--data", "data", "--scope", "everything"], "everything"),
        (&["token", "--data", "data", "--scope", "eds.read"], "--pm"),
        (&["account"], "--data"),
        (&["account", "--url", "http://127.0.0.1:1"], "--token"),
        (&["publish", "none.ndjson", "--data", "data"], "none.ndjson"),
    ] {
        let ended = run_in(folder.path(), arguments, "");
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(named), "{arguments:?}: {}", ended.err);
        assert_eq!(ended.out, "", "{arguments:?}");
    }
}
