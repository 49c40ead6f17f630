//! The code of `docs/verify` against requests that Tidings sent: it takes them,
//! and nothing that was changed.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;
use tidings_e2e::receiver::Arrived;
use tidings_signing::WebhookSecret;

use crate::stage::{Stage, event};

/// Each language, with the program that runs it.
const LANGUAGES: [(&str, &str); 3] =
    [("python3", "verify.py"), ("node", "verify.mjs"), ("java", "Verify.java")];

/// What a verifier says: `Ok` of its only line if it exits 0, else `Err` of its
/// complaint.
fn verify(
    (program, file): (&str, &str),
    secret: &str,
    arguments: &[&str],
    body: &[u8],
) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/verify");
    let mut child = Command::new(program)
        .arg(folder.join(file))
        .args(arguments)
        .env("WEBHOOK_SECRET", secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a language of docs/verify is missing; `cargo xtask test` brings it");
    child.stdin.take().unwrap().write_all(body).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() {
        return Ok(text(output.stdout));
    }
    assert_eq!(output.status.code(), Some(1), "{program}: {}", text(output.stderr));
    Err(text(output.stderr))
}

fn header<'a>(request: &'a Arrived, name: &str) -> &'a str {
    request.headers.get(name).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn the_verification_code_of_every_language_takes_what_was_sent_and_nothing_else() {
    let stage = Stage::start().await;
    let created = stage.webhook("v", &[104]).await;
    let old = created["signingSecret"].as_str().unwrap();
    let id = created["webhookId"].as_str().unwrap();
    let rotate = format!("/api/v1/Webhooks/{id}/signingSecret/rotate");
    let rotated = stage.manager("20").json("POST", &rotate, &json!({"graceHours": 1})).await;
    let rotated = rotated.unwrap().response(200).unwrap();
    let new = rotated["signingSecret"].as_str().unwrap();
    stage.publish(&event(r#"{ "messageId":"é\u0000", "publicToken" : "t" }"#)).await;
    let request = stage.arrived("v", 1).await.remove(0);
    let (id, time) = (header(&request, "webhook-id"), header(&request, "webhook-timestamp"));
    let signatures = header(&request, "webhook-signature");
    assert_eq!(signatures.split(' ').count(), 2, "both secrets sign");
    let mut bent = request.body.to_vec();
    bent[20] ^= 1;
    let secret = WebhookSecret::parse(new).unwrap();
    // Signed as it should be, ten minutes ago.
    let long_ago = time.parse::<i64>().unwrap() - 600;
    let kept = secret.sign_v1(id, long_ago, &request.body);
    let other = WebhookSecret::from_bytes(&[7; 32]).to_text();

    let key = "whk_test_0123456789";
    let sale = br#"{"type":"event","event_type":"transaction.sale.success"}"#;
    let signature = tidings_signing::x_signature(key.as_bytes(), sale);
    for language in LANGUAGES {
        let eds = |secret: &str, id: &str, time: &str, signatures: &str, body: &[u8]| {
            verify(language, secret, &[id, time, signatures], body)
        };
        let body = &request.body;
        for secret in [old, new] {
            let said = eds(secret, id, time, signatures, body);
            assert_eq!(said.as_deref(), Ok("verified"), "{language:?}");
        }
        let no_fit = Err("not verified: no signature fits".to_owned());
        assert_eq!(eds(new, id, time, signatures, &bent), no_fit, "{language:?}");
        assert_eq!(eds(&other, id, time, signatures, body), no_fit, "{language:?}");
        assert_eq!(eds(new, "another", time, signatures, body), no_fit, "{language:?}");
        assert_eq!(
            eds(new, id, &long_ago.to_string(), &kept, body),
            Err("not verified: the timestamp is too far from now".to_owned()),
            "{language:?}"
        );
        let merchant = |body: &[u8]| verify(language, key, &[&signature], body);
        assert_eq!(merchant(sale).as_deref(), Ok("verified"), "{language:?}");
        assert_eq!(
            merchant(&bent),
            Err("not verified: the signature does not fit".to_owned()),
            "{language:?}"
        );
    }
}
