//! Nothing that a client registers smuggles, splits or overrides
//! (`reliability-security.md` §7.12, B1 to B5): through the API of the real binary, and
//! on the wire by a strict reading of the raw bytes.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_e2e::http::{Answer, Client};

use crate::stage::{PATIENCE, Stage, errors, event};

/// Headers that the platform sets, in every spelling: each is refused.
const RESERVED: &[&str] = &[
    "Host",
    "HOST",
    "h\u{6f}st",
    "Content-Length",
    "content_length",
    "content.length",
    "Content Length",
    "Transfer-Encoding",
    "transfer_encoding",
    "Content-Type",
    "Content-Encoding",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Upgrade",
    "Expect",
    "TE",
    "Trailer",
    "Via",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Real-IP",
    "Date",
    "User-Agent",
    "Accept-Encoding",
    "Set-Cookie",
    "webhook-signature",
    "Webhook_Signature",
    "webhook signature",
    "webhook(signature",
    "Webhook-Id",
    "webhook-timestamp",
    "webhook-anything",
    "X-EDS-Event-Code",
    "x_eds_attempt",
    "x.eds.sequence",
    "X-Signature",
    "traceparent",
    "tracestate",
    "X-Amz-Security-Token",
    "X-Goog-Anything",
    "X-Google-Anything",
    "X-Azure-Ref",
    "Metadata-Flavor",
];

/// Names and values that no header has: each is refused.
fn illegal() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = [
        "",
        " ",
        ":",
        ":authority",
        "a:b",
        " a",
        "a ",
        "\ta",
        "a\r\nb",
        "a\nb",
        "a\rb",
        "a\0b",
        "a\u{7f}b",
        "é",
        "a\u{85}b",
        "a\u{2028}b",
        "ａ",
        "@@",
        "--",
    ]
    .map(|name| (name.to_owned(), "v".to_owned()))
    .into();
    let values = [
        "v\r\nx-injected: 1",
        "v\nx-injected: 1",
        "v\r",
        "v\n",
        "v\0",
        "v\u{7f}",
        "é",
        "\u{85}",
        "v\u{2028}x",
        " v",
        "v ",
        "\tv",
        "v\t",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ];
    all.extend(values.map(|value| ("x-a".to_owned(), value.to_owned())));
    all.push(("k".repeat(65), "v".to_owned()));
    all.push(("k".repeat(10 * 1024), "v".to_owned()));
    all
}

async fn register(client: &Client, url: &str, headers: &Value) -> Answer {
    let config = json!({"url": url, "customHeaders": headers});
    let body = json!({"events": [104], "config": config});
    client.json("POST", "/api/v1/Webhooks", &body).await.unwrap()
}

#[tokio::test]
async fn b1_to_b4_what_could_break_a_request_is_refused_with_its_place() {
    let stage = Stage::start().await;
    let client = stage.manager("20");
    let url = stage.receiver.url("hook");
    let reserved = RESERVED.iter().map(|name| ((*name).to_owned(), "v".to_owned()));
    for (name, value) in reserved.chain(illegal()) {
        let answer = register(&client, &url, &json!({(name.as_str()): value})).await;
        assert_eq!(answer.status, 400, "{name:?}: {value:?}");
        let (code, field) = errors(&answer).remove(0);
        assert_eq!(code, "INVALID_CUSTOM_HEADER", "{name:?}: {value:?}");
        assert!(field.starts_with("config.customHeaders"), "{name:?}: {field}");
    }
    for same in [
        json!({"X-A": "1", "x-a": "2"}),
        json!({"X-A": "1", "X_A": "2"}),
        json!({"X-A": "1", "X A": "2"}),
        json!({"X-A": "1", "X.A": "2"}),
    ] {
        let answer = register(&client, &url, &same).await;
        assert_eq!(errors(&answer).remove(0).0, "INVALID_CUSTOM_HEADER", "{same}");
    }
    for many in [json!({"a": "1", "b": "2", "c": "3", "d": "4"}), json!({"a": "v".repeat(500)})] {
        let answer = register(&client, &url, &many).await;
        assert_eq!(errors(&answer).remove(0).0, "EXCEEDS_MAXIMUM_CUSTOM_HEADER_LIMIT");
    }
    let list = client.get("/api/v1/Webhooks").await.unwrap().response(200).unwrap();
    assert_eq!(list["content"], json!([]), "nothing was stored");
}

/// Everything that came on one connection until it was silent for a moment after the
/// answer: a second request hidden in the first would be there.
fn capture(listener: TcpListener) -> mpsc::Receiver<Vec<u8>> {
    let (done, captured) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while !is_whole(&bytes) {
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0, "the request ends early: {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&piece[..length]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        // The sender closes: what it said beside the request is here by then.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        done.send(bytes).unwrap();
    });
    captured
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4)
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = head_end(bytes) else { return false };
    let length = lines(bytes).1.get("content-length").map_or(0, |length| length.parse().unwrap());
    bytes.len() >= end + length
}

/// The request line and the headers by the strictest reading there is: CRLF alone ends
/// a line, a name is a token and comes once, a value is visible ASCII.
fn lines(bytes: &[u8]) -> (String, BTreeMap<String, String>) {
    let head = std::str::from_utf8(&bytes[..head_end(bytes).unwrap() - 4]).unwrap();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(token), "{line:?}");
        let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
        assert!(value.bytes().all(visible), "{line:?}");
        let twice = headers.insert(name.to_ascii_lowercase(), value.to_owned());
        assert_eq!(twice, None, "{name} comes twice");
    }
    (first, headers)
}

#[tokio::test]
async fn b5_what_is_sent_is_one_request_with_our_own_frame() {
    let stage = Stage::start().await;
    let client = stage.manager("20");
    for headers in [
        json!({}),
        json!({"key 1": "Value 1", "X_Y": "a b\tc", "a!#$%&'*+-.^_`|~": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}),
        json!({"Authorization": "Bearer \"x\", y", "Cookie": "a=b; c=d", "Proxy-Authorization": "Basic eDp5"}),
        json!({"x-empty": "", "Accept": "text/plain", "If-Match": "\"x\""}),
        json!({"GET / HTTP/1.1": "Host: x", "x-http-method-override": "DELETE", "http2-settings": "AAMAAABkAAQAAP__"}),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let captured = capture(listener);
        let made = register(&client, &format!("http://{address}/hook?a=b"), &headers).await;
        let made = made.response(201).unwrap();
        stage.publish(&event(r#"{"messageId":"m","publicToken":"t"}"#)).await;
        let bytes = captured.recv_timeout(PATIENCE).unwrap();
        let (first, sent) = lines(&bytes);
        assert_eq!(first, "POST /hook?a=b HTTP/1.1");
        let body = &bytes[head_end(&bytes).unwrap()..];
        assert_eq!(sent["content-length"], body.len().to_string(), "and nothing after it");
        assert!(serde_json::from_slice::<Value>(body).is_ok());
        let mut expected: BTreeMap<String, Option<String>> = [
            "host",
            "content-length",
            "content-type",
            "user-agent",
            "accept-encoding",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "x-eds-event-code",
            "x-eds-attempt",
        ]
        .map(|name| (name.to_owned(), None))
        .into();
        for (name, value) in headers.as_object().unwrap() {
            let legal =
                |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
            let wire: String = name
                .chars()
                .map(|letter| if legal(letter) { letter.to_ascii_lowercase() } else { '-' })
                .collect();
            expected.insert(wire, Some(value.as_str().unwrap().to_owned()));
        }
        assert_eq!(sent.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, value) in expected {
            if let Some(value) = value {
                assert_eq!(sent[&name], value, "{name}");
            }
        }
        assert_eq!(sent["host"], address.to_string());
        assert_eq!(sent["content-type"], "application/json");
        assert_eq!(sent["accept-encoding"], "identity");
        assert!(sent["webhook-signature"].starts_with("v1,"));
        let gone = format!("/api/v1/Webhooks/{}", made["webhookId"].as_str().unwrap());
        let gone = client.send("DELETE", &gone, &[], Bytes::new()).await.unwrap();
        assert_eq!(gone.status, 204);
    }
}

/// An endpoint that sends back what it got.
fn echoes(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            while !is_whole(&bytes) {
                let length = stream.read(&mut piece).unwrap();
                if length == 0 {
                    break;
                }
                bytes.extend_from_slice(&piece[..length]);
            }
            let head = format!(
                "HTTP/1.1 500 x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                bytes.len()
            );
            stream.write_all(&[head.as_bytes(), &bytes].concat()).unwrap();
        }
    });
}

#[tokio::test]
async fn what_the_endpoint_echoes_of_our_secrets_is_not_kept() {
    let stage = Stage::start().await;
    let client = stage.manager("20");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    echoes(listener);
    let headers = json!({"Authorization": "Bearer s3cr3t-t0k3n", "x-key": "an-api-key"});
    let made = register(&client, &url, &headers).await.response(201).unwrap();
    let payload = r#"{"messageId":"m 4111 1111 1111 1111","publicToken":"t"}"#;
    stage.publish(&event(payload)).await;
    let id = made["webhookId"].as_str().unwrap();
    let day = crate::stage::today(&stage).await;
    let history = format!("/api/v1/Webhooks/{id}/events/104/notifications?from={day}");
    let snippet = tidings_e2e::wait_for("an attempt to be listed", PATIENCE, async || {
        let list = client.get(&history).await?.response(200)?;
        let Some(notification) = list["content"][0]["notificationId"].as_str() else {
            return Ok(None);
        };
        let attempts = format!("/api/v1/Webhooks/{id}/notifications/{notification}/attempts");
        let attempts = client.get(&attempts).await?.response(200)?;
        Ok(attempts["content"][0]["responseSnippet"].as_str().map(str::to_owned))
    })
    .await
    .unwrap();
    assert!(snippet.contains("webhook-signature: v1,"), "{snippet}");
    for secret in ["s3cr3t-t0k3n", "an-api-key", "4111"] {
        assert!(!snippet.contains(secret), "{secret} in {snippet}");
    }
    assert!(snippet.contains("authorization: ***"), "{snippet}");
    assert!(snippet.contains("x-key: ***"), "{snippet}");
}
