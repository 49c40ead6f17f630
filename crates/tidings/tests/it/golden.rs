//! Data directories that releases left behind, in `tests/golden`: each is served and
//! read. One stays as it is for ever; `WRITE_GOLDEN=1` makes that of this
//! release if there is none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tidings_e2e::wait_for;
use tidings_signing::WebhookSecret;

use crate::stage::{PATIENCE, Stage, event};

/// Nothing of a golden directory may run out.
const KEPT: [(&str, &str); 1] = [("TIDINGS_EVENTLOG__RETENTION", "36500d")];
const PAYLOAD: &str =
    r#"{ "messageId":"golden \u0000", "publicToken" : "t", "big":123456789012345678901234567890 }"#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn tar(arguments: &[&str], folder: &Path, archive: &Path) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(folder).args(arguments).arg(archive);
    if arguments.contains(&"-czf") {
        command.args(["--exclude", "./eventlog", "--exclude", "./address", "."]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The webhook's one notification once it has been delivered.
async fn delivered(stage: &Stage, webhook: &str) -> Value {
    let path = format!("/api/v1/Webhooks/{webhook}/events/104/notifications?from=2026-01-01");
    wait_for("the history", PATIENCE, async || {
        let answer = stage.manager("20").get(&path).await?.response(200)?;
        let item = answer["content"][0].clone();
        Ok((item["notificationStatus"] == "Delivered").then_some(item))
    })
    .await
    .unwrap()
}

/// Makes the directory of this release.
async fn make(name: &str) {
    let mut stage = Stage::with(true, &KEPT).await;
    assert_eq!(stage.apply(crate::stage::TENANTS, &[]).code, Some(0));
    let created = stage.webhook("golden", &[104]).await;
    let webhook = created["webhookId"].as_str().unwrap();
    let hook = json!({
        "merchant": "m_9f2", "url": stage.receiver.url("h"),
        "events": ["transaction.sale.success"],
        "authentication": {"type": "basic", "username": "u", "password": "p"},
        "signature": {"type": "sourceKey", "sourceKeyId": "src1"},
    });
    let hook = stage.admin().json("POST", "/admin/v1/hooks", &hook).await.unwrap();
    let hook = hook.response(201).unwrap();
    let body = json!({"productId": 345_678, "status": "active", "messageTypeFilter": [1, 2]});
    let made = stage.manager("20").json("POST", "/api/v1/Configs", &body).await.unwrap();
    let configuration = made.response(201).unwrap();
    stage.publish(&event(PAYLOAD)).await;
    let item = delivered(&stage, webhook).await;
    let request = stage.arrived("golden", 1).await.remove(0);
    assert_eq!(stage.stop().await, Some(0));
    let facts = json!({
        "webhook": webhook, "secret": created["signingSecret"],
        "hook": hook["hookId"], "configuration": configuration["content"][0]["configId"],
        "notification": item["notificationId"], "created": item["createdTime"],
        "body": String::from_utf8(request.body.to_vec()).unwrap(),
    });
    tar(&["-czf"], stage.data(), &folder().join(format!("{name}.tar.gz")));
    let facts = serde_json::to_string_pretty(&facts).unwrap() + "\n";
    fs::write(folder().join(format!("{name}.json")), facts).unwrap();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a switch of the developer, not a setting")]
async fn what_any_release_left_behind_is_served() {
    let name = env!("CARGO_PKG_VERSION");
    let ours = folder().join(format!("{name}.json"));
    if std::env::var("WRITE_GOLDEN").is_ok() && !ours.exists() {
        make(name).await;
    }
    assert!(ours.exists(), "no golden data directory of {name}: see the head of this file");
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            check(&path).await;
        }
    }
}

async fn check(path: &Path) {
    let facts: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let fact = |name: &str| facts[name].as_str().unwrap();
    let mut stage = Stage::with(true, &KEPT).await;
    assert_eq!(stage.stop().await, Some(0));
    let data = stage.folder.path().join("golden");
    fs::create_dir(&data).unwrap();
    tar(&["-xzf"], &data, &path.with_extension("tar.gz"));
    stage.serve_from(&data).await;

    let item = delivered(&stage, fact("webhook")).await;
    assert_eq!(item["notificationId"], fact("notification"), "{}", path.display());
    assert_eq!(item["createdTime"], fact("created"));
    let client = stage.manager("20");
    let configuration = client.get(&format!("/api/v1/Configs/{}", fact("configuration"))).await;
    let configuration = configuration.unwrap().response(200).unwrap();
    assert_eq!(configuration["messageTypeFilter"], json!([1, 2]));
    let hook = stage.admin().get(&format!("/admin/v1/hooks/{}", fact("hook"))).await.unwrap();
    assert_eq!(hook.response(200).unwrap()["authentication"]["username"], "u");

    // Its body leaves as it left then, signed with the secret that the client has.
    let url = stage.receiver.url("golden");
    let update = json!({"events": [104], "config": {"url": url}});
    let webhook = format!("/api/v1/Webhooks/{}", fact("webhook"));
    client.json("PUT", &webhook, &update).await.unwrap().response(200).unwrap();
    let again = json!({"notificationIds": [fact("notification")]});
    let resend = format!("{webhook}/resend");
    client.json("POST", &resend, &again).await.unwrap().response(200).unwrap();
    let request = stage.arrived("golden", 1).await.remove(0);
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), fact("body"));
    let secret = WebhookSecret::parse(fact("secret")).unwrap();
    let time = request.timestamp.parse().unwrap();
    let signature = secret.sign_v1(&request.notification, time, &request.body);
    assert_eq!(request.signature, Some(signature));
}
