//! The official Standard Webhooks libraries of three languages verify what the real
//! binary sends, and refuse what was changed on the way.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tidings_e2e::receiver::Arrived;
use tidings_verifiers::{Language, Verifiers};

use crate::stage::{Stage, event};

/// Letters of every length in UTF-8, escapes, and white space as it was published.
const PAYLOAD: &str = r#"{ "messageId":"m-é-€-😀","publicToken":"t\u00e9\\\"" }"#;

/// A request and what a receiver must find of it.
fn request(name: &str, arrived: &Arrived, secret: &Value, key: &Value, good: [bool; 2]) -> Value {
    let header = |name: &str| arrived.headers[name].to_str().unwrap();
    json!({
        "name": name,
        "secret": secret,
        "keys": [key],
        "headers": {
            "webhook-id": header("webhook-id"),
            "webhook-timestamp": header("webhook-timestamp"),
            "webhook-signature": header("webhook-signature"),
        },
        "body": STANDARD.encode(&arrived.body),
        "v1": good[0],
        "v1a": good[1],
    })
}

/// The same request with one member changed: nobody may take it.
fn changed(of: &Value, path: &str, to: &Value) -> Value {
    let mut request = of.clone();
    *request.pointer_mut(path).unwrap() = to.clone();
    request["name"] = json!(format!("{} with another {path}", of["name"].as_str().unwrap()));
    (request["v1"], request["v1a"]) = (json!(false), json!(false));
    request
}

#[tokio::test]
async fn the_official_libraries_of_three_languages_verify_our_signatures() {
    let verifiers = Verifiers::bring().unwrap_or_else(|error| panic!("{error}"));
    let stage = Stage::start().await;
    let client = stage.manager("20");
    let mut made = Vec::new();
    for (path, signatures) in
        [("v1", json!(["v1"])), ("both", json!(["v1", "v1a"])), ("v1a", json!(["v1a"]))]
    {
        let config = json!({"url": stage.receiver.url(path), "signatures": signatures});
        let body = json!({"events": [104], "config": config});
        let answer = client.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
        made.push(answer.response(201).unwrap());
    }
    let id = |webhook: &Value| webhook["webhookId"].as_str().unwrap().to_owned();
    let rotate = format!("/api/v1/Webhooks/{}/signingSecret/rotate", id(&made[1]));
    let body = json!({"graceHours": 24});
    let rotated = client.json("POST", &rotate, &body).await.unwrap().response(200).unwrap();
    let jwks = client.get("/.well-known/jwks.json").await.unwrap().json().unwrap();
    let key = |webhook: &Value, number: u32| {
        let kid = json!(format!("{}.{number}", id(webhook)));
        let keys = jwks["keys"].as_array().unwrap();
        keys.iter().find(|key| key["kid"] == kid).unwrap()["x"].clone()
    };
    let (old_key, new_key, sole_key) = (key(&made[1], 1), key(&made[1], 2), key(&made[2], 1));
    stage.publish(&event(PAYLOAD)).await;
    let arrived = async |path: &str| stage.arrived(path, 1).await.remove(0);
    let (plain, both, sole) = (arrived("v1").await, arrived("both").await, arrived("v1a").await);

    let secret = |webhook: &Value| webhook["signingSecret"].clone();
    let (of_plain, of_old, of_new) = (secret(&made[0]), secret(&made[1]), secret(&rotated));
    let good = [
        request("v1 alone", &plain, &of_plain, &sole_key, [true, false]),
        request("v1 of the old secret", &both, &of_old, &old_key, [true, true]),
        request("v1 of the new secret", &both, &of_new, &new_key, [true, true]),
        request("v1a alone", &sole, &secret(&made[2]), &sole_key, [false, true]),
    ];
    let mut requests = good.to_vec();
    for of in &good {
        let mut body = STANDARD.decode(of["body"].as_str().unwrap()).unwrap();
        *body.last_mut().unwrap() = b' ';
        requests.push(changed(of, "/body", &json!(STANDARD.encode(&body))));
        requests.push(changed(of, "/headers/webhook-id", &json!("another")));
        let seconds: u64 = of["headers"]["webhook-timestamp"].as_str().unwrap().parse().unwrap();
        let later = json!((seconds + 1).to_string());
        requests.push(changed(of, "/headers/webhook-timestamp", &later));
        requests.push(changed(of, "/headers/webhook-signature", &json!("v1,AAAA v1a,AAAA")));
    }
    let another = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    requests.push(changed(&good[0], "/secret", &json!(another)));
    requests.push(changed(&good[3], "/keys/0", &new_key));

    let file = stage.folder.path().join("requests.json");
    std::fs::write(&file, serde_json::to_vec(&requests).unwrap()).unwrap();
    let is_good = |scheme: &str| requests.iter().filter(|of| of[scheme] == true).count();
    let verified = is_good("v1") + is_good("v1a");
    assert_eq!(verified, 6);
    let expected = format!("verified {verified} refused {}", 2 * requests.len() - verified);
    for language in Language::ALL {
        let said = verifiers.judge(language, &file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(said, expected, "{language:?}");
    }
}
