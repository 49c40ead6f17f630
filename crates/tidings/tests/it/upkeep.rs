//! `docs/upkeep.md`: what it says to run is run, and comes to what it says.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use serde_json::{Value, json};
use tidings_e2e::wait_for;
use tidings_signing::WebhookSecret;

use crate::stage::{Ended, PATIENCE, Stage, binary, run_in, today};

/// The commands of the block that the page names so.
fn block(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/upkeep.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("```sh {name}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs a block of the page where `tidings-data` is the stage's data directory.
fn run_block(stage: &Stage, name: &str) {
    let folder = stage.folder.path();
    let data = folder.join("tidings-data");
    if !data.exists() {
        symlink(stage.data(), &data).unwrap();
    }
    let path = std::env::join_paths(
        std::iter::once(binary().parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let output = Command::new("bash")
        .args(["-euc", &block(name)])
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn event(id: &str) -> String {
    format!(
        r#"{{"context":{{"programManagerId":20,"eventCode":104,"correlationId":"{id}"}},"payload":{{"messageId":"{id}","publicToken":"t"}}}}"#
    )
}

/// The webhook's notifications of 104: id and status, oldest first.
async fn listed(stage: &Stage, webhook: &str) -> Vec<(String, String)> {
    let path =
        format!("/api/v1/Webhooks/{webhook}/events/104/notifications?from={}", today(stage).await);
    let answer = stage.manager("20").get(&path).await.unwrap().response(200).unwrap();
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let items = answer["content"].as_array().unwrap();
    items
        .iter()
        .map(|item| (text(item, "notificationId"), text(item, "notificationStatus")))
        .collect()
}

async fn all_delivered(stage: &Stage, webhook: &str, count: usize) -> Vec<String> {
    wait_for("the history", PATIENCE, async || {
        let listed = listed(stage, webhook).await;
        let delivered = listed.iter().filter(|(_, status)| status == "Delivered").count();
        Ok((delivered == count).then(|| listed.into_iter().map(|(id, _)| id).collect()))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_backup_restores_what_was_and_what_was_published_since_gets_its_ids_again() {
    let mut stage = Stage::start().await;
    let created = stage.webhook("b", &[104]).await;
    let webhook = created["webhookId"].as_str().unwrap();
    stage.publish(&event("before")).await;
    let before = all_delivered(&stage, webhook, 1).await;
    assert_eq!(stage.stop().await, Some(0));
    run_block(&stage, "backup");

    stage.serve().await;
    stage.publish(&event("after")).await;
    let since = all_delivered(&stage, webhook, 2).await;
    assert_eq!(stage.stop().await, Some(0));
    run_block(&stage, "restore");
    let restored = stage.folder.path().join("restored");
    assert!(!restored.join("eventlog").exists(), "the view is made anew");

    // Without the keys it does not start and says what is missing.
    let keys = restored.join("keys");
    let aside = restored.with_extension("keys");
    std::fs::rename(&keys, &aside).unwrap();
    let serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data", "restored"];
    let refused = run_in(stage.folder.path(), &serve, "");
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("restore it from your copy"), "{}", refused.err);
    // It may have made a key of the local issuer.
    std::fs::remove_dir_all(&keys).unwrap();
    std::fs::rename(&aside, &keys).unwrap();

    stage.serve_from(&restored).await;
    assert_eq!(all_delivered(&stage, webhook, 1).await, before);
    stage.publish(&event("after")).await;
    assert_eq!(all_delivered(&stage, webhook, 2).await, since, "the same ids");
    let request = stage.arrived("b", 3).await.pop().unwrap();
    let secret = WebhookSecret::parse(created["signingSecret"].as_str().unwrap()).unwrap();
    let time = request.timestamp.parse().unwrap();
    let signature = secret.sign_v1(&request.notification, time, &request.body);
    assert_eq!(request.signature, Some(signature), "with the secret that the client has");
}

fn keys(stage: &Stage, arguments: &[&str]) -> Ended {
    let mut all = vec!["keys"];
    all.extend(arguments);
    stage.run(&all, "")
}

/// Ids and roles, as `keys list` prints them.
fn roles(stage: &Stage) -> Vec<(String, String)> {
    let ended = keys(stage, &["list"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let words = |line: &str| -> (String, String) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words.len(), words[1].len()), (3, 16), "{line}");
        (words[0].to_owned(), words[2].to_owned())
    };
    ended.out.lines().map(words).collect()
}

fn role(id: &str, role: &str) -> (String, String) {
    (id.to_owned(), role.to_owned())
}

/// Whether the log's files hold these bytes anywhere.
fn log_holds(stage: &Stage, what: &[u8]) -> bool {
    let mut open = vec![stage.data().join("log")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if std::fs::read(path).unwrap().windows(what.len()).any(|part| part == what) {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_new_master_key_seals_what_is_written_and_the_old_one_still_opens() {
    let mut stage = Stage::start().await;
    let created = stage.webhook("k", &[104]).await;
    let webhook = created["webhookId"].as_str().unwrap();
    stage.publish(&event("old")).await;
    let old = all_delivered(&stage, webhook, 1).await.remove(0);
    assert_eq!(roles(&stage), [role("k1", "seals")]);
    assert_eq!(stage.stop().await, Some(0));
    run_block(&stage, "rotate");
    assert_eq!(roles(&stage), [role("k1", "opens"), role("k2", "seals")]);

    stage.serve().await;
    stage.publish(&event("new")).await;
    all_delivered(&stage, webhook, 2).await;
    let rotate = format!("/api/v1/Webhooks/{webhook}/signingSecret/rotate");
    let client = stage.manager("20");
    client.json("POST", &rotate, &json!({})).await.unwrap().response(200).unwrap();
    // What the old key sealed: a body, in history and once more to the endpoint.
    let resend = format!("/api/v1/Webhooks/{webhook}/resend");
    let body = json!({"notificationIds": [old]});
    client.json("POST", &resend, &body).await.unwrap().response(200).unwrap();
    let again = stage.arrived("k", 3).await.pop().unwrap();
    assert_eq!(again.notification, old);
    assert!(again.body.ends_with(br#""payload":{"messageId":"old","publicToken":"t"}}"#));
    assert_eq!(stage.stop().await, Some(0));
    for sealed in ["k1/body/7001/", "k1/registry", "k2/body/7001/", "k2/registry"] {
        assert!(log_holds(&stage, sealed.as_bytes()), "{sealed}");
    }

    // A file without a key that was used is not enough, and changes nothing.
    let file = stage.data().join("keys/master.key");
    let both = std::fs::read_to_string(&file).unwrap();
    for kept in ["k1", "k2"] {
        let lines = both.lines().filter(|line| line.starts_with(kept));
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let serve = ["serve", "--dev", "--listen", "127.0.0.1:0"];
        let refused = stage.run(&serve, "");
        assert_eq!(refused.code, Some(1), "{}", refused.err);
        assert!(refused.err.contains("lacks a key; restore it"), "{}", refused.err);
    }
    std::fs::write(&file, both).unwrap();
    stage.serve().await;
    assert_eq!(all_delivered(&stage, webhook, 2).await[0], old);
}

#[tokio::test]
async fn the_key_file_is_changed_whole_and_keeps_what_it_had() {
    let stage = Stage::start().await;
    let file = stage.data().join("keys/master.key");
    let first = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# ours\n\n{first}# end\n")).unwrap();
    assert_eq!(keys(&stage, &["add", "--standby"]).out, "added k2\n");
    assert_eq!(roles(&stage), [role("k2", "opens"), role("k1", "seals")]);
    assert_eq!(keys(&stage, &["use", "k2"]).out, "k2 seals\n");
    assert_eq!(roles(&stage), [role("k1", "opens"), role("k2", "seals")]);
    assert_eq!(keys(&stage, &["add"]).out, "added k3\n");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# ours\n\n") && text.contains(first.trim()), "{text}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let listed = keys(&stage, &["list"]);
    let key = first.split('=').nth(1).unwrap().trim();
    assert!(!listed.out.contains(key) && !listed.err.contains(key), "a key is never printed");

    let unknown = keys(&stage, &["use", "k9"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.err);
    assert!(unknown.err.contains("no key \"k9\""), "{}", unknown.err);
    std::fs::write(file.with_extension("new"), "half").unwrap();
    let busy = keys(&stage, &["add"]);
    assert_eq!(busy.code, Some(1), "{}", busy.err);
    assert!(busy.err.contains("another change"), "{}", busy.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let missing = keys(&stage, &["list", "--master-key", "nowhere"]);
    assert_eq!(missing.code, Some(2), "{}", missing.err);
    assert!(missing.err.contains("nowhere"), "{}", missing.err);
}
