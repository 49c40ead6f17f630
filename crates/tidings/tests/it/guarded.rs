//! Without `--dev`: what is only allowed there.

use serde_json::{Value, json};

use tidings_e2e::{http::Client, process::free_port, wait_for};

use crate::stage::{PATIENCE, Stage, TENANTS, errors, event, first_code, run_with, today};

#[tokio::test]
async fn without_dev_endpoints_are_public_and_https() {
    let stage = Stage::with(false, &[("TIDINGS_AUTH__LOCAL_ISSUER", "true")]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let client = stage.manager("20");
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://0x7f000001/",
        "https://169.254.169.254/",
        "https://example.com:8080/",
        "https://intranet/",
    ] {
        let body = json!({"events": [104], "config": {"url": url}});
        let answer = client.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
        assert_eq!(errors(&answer), [("INVALID_URL".to_owned(), "config.url".to_owned())], "{url}");
    }
    let body = json!({"events": [104], "config": {"url": "https://client_domain.com/x"}});
    let made = client.json("POST", "/api/v1/Webhooks", &body).await.unwrap().response(201).unwrap();
    assert_eq!(made["config"]["ladder"], "standard");
    let answer = client.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (409, "DUPLICATE_WEBHOOK"));
    let ended = stage.run(&["publish", "-", "--raw", "104"], "x");
    assert_eq!(ended.code, Some(1), "raw writing is for --dev");
}

#[tokio::test]
async fn an_address_that_is_allowed_no_more_is_blocked_and_sees_nothing() {
    let mut stage = Stage::start().await;
    let webhook = stage.webhook("hook", &[104]).await;
    stage.publish(&event(r#"{"messageId":"a","publicToken":"t"}"#)).await;
    stage.arrived("hook", 1).await;
    assert_eq!(stage.stop().await, Some(0));
    stage.serve_guarded(&[("TIDINGS_AUTH__LOCAL_ISSUER", "true")]).await;
    stage.publish(&event(r#"{"messageId":"b","publicToken":"t"}"#)).await;
    let client = stage.manager("20");
    let id = webhook["webhookId"].as_str().unwrap();
    let day = today(&stage).await;
    let path = format!("/api/v1/Webhooks/{id}/events/104/notifications?from={day}");
    let item = wait_for("the notification to end", PATIENCE, async || {
        let list = client.get(&path).await?.response(200)?;
        let ended = |item: &&Value| item["notificationStatus"] == "Undelivered";
        Ok(list["content"].as_array().and_then(|list| list.iter().find(ended)).cloned())
    })
    .await
    .unwrap();
    assert_eq!(item["lastCode"], "BLOCKED_ADDRESS", "{item}");
    let beat = client.get(&format!("/api/v1/Webhooks/{id}/heartbeat")).await.unwrap();
    assert_eq!(beat.response(200).unwrap()["code"], "BLOCKED_ADDRESS");
    let again = json!({"notificationIds": [item["notificationId"]]});
    let resend = format!("/api/v1/Webhooks/{id}/resend");
    client.json("POST", &resend, &again).await.unwrap().response(200).unwrap();
    let notification = item["notificationId"].as_str().unwrap();
    let path = format!("/api/v1/Webhooks/{id}/notifications/{notification}/attempts");
    let attempts = wait_for("the resend to end", PATIENCE, async || {
        let list = client.get(&path).await?.response(200)?;
        Ok(list["content"].as_array().filter(|list| list.len() == 2).cloned())
    })
    .await
    .unwrap();
    assert!(attempts.iter().all(|attempt| attempt["code"] == "BLOCKED_ADDRESS"), "{attempts:?}");
    assert_eq!(stage.receiver.request_count(), 1, "nothing after the first");
}

#[tokio::test]
async fn x9_proxies_of_the_environment_have_no_effect() {
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", canary.local_addr().unwrap());
    let names =
        ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let stage = Stage::with(true, &names.map(|name| (name, proxy.as_str()))).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    stage.webhook("hook", &[104]).await;
    stage.publish(&event(r#"{"messageId":"a","publicToken":"t"}"#)).await;
    stage.arrived("hook", 1).await;
    let visit = canary.accept().map_err(|error| error.kind());
    assert!(matches!(visit, Err(std::io::ErrorKind::WouldBlock)), "{visit:?}");
}

#[tokio::test]
async fn a_setting_wins_over_what_dev_allows() {
    let environment =
        [("TIDINGS_EGRESS__ALLOW_HTTP", "false"), ("TIDINGS_EGRESS__ALLOW", "[\"127.0.0.2/32\"]")];
    let stage = Stage::with(true, &environment).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let client = stage.manager("20");
    for (url, status) in
        [("http://127.0.0.2:9/", 400), ("https://127.0.0.1:9/", 400), ("https://127.0.0.2:9/", 201)]
    {
        let body = json!({"events": [104], "config": {"url": url}});
        let answer = client.json("POST", "/api/v1/Webhooks", &body).await.unwrap();
        assert_eq!(answer.status, status, "{url}");
    }
}

#[tokio::test]
async fn metrics_may_have_a_listener_of_their_own() {
    let port = free_port().unwrap().to_string();
    let listen = format!("127.0.0.1:{port}");
    let stage = Stage::with(true, &[("TIDINGS_METRICS__LISTEN", &listen)]).await;
    let own = Client::new(&format!("http://{listen}"), "").unwrap();
    let answer = own.get("/metrics").await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(b"# EOF\n"));
    for other in ["/healthz", "/api/v1/Webhooks", "/"] {
        assert_eq!(own.get(other).await.unwrap().status, 404, "{other}");
    }
    assert_eq!(stage.admin().get("/metrics").await.unwrap().status, 200);
    // A port that is taken ends the start, and the message names the setting.
    let taken = [("TIDINGS_METRICS__LISTEN", listen.as_str())];
    let arguments = ["serve", "--dev", "--data", "other", "--listen", "127.0.0.1:0"];
    let ended = run_with(stage.folder.path(), &arguments, "", &taken);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("metrics.listen"), "{}", ended.err);
}

#[tokio::test]
async fn without_a_local_issuer_its_tokens_are_not_taken() {
    let stage = Stage::with(false, &[]).await;
    let answer = stage.admin().get("/admin/v1/hooks").await.unwrap();
    assert_eq!((answer.status, first_code(&answer).as_str()), (401, "UNAUTHORIZED"));
    for open in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(stage.admin().get(open).await.unwrap().status, 200, "{open}");
    }
}

#[tokio::test]
async fn a_region_pins_the_deployment() {
    let stage = Stage::with(true, &[("TIDINGS_REGION", "1")]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let client = stage.manager("20");
    for (region, status) in [("0", 400), ("1", 200), ("2", 400), ("EMEA", 400)] {
        let headers = [("x-region", region)];
        let answer =
            client.send("GET", "/api/v1/Webhooks", &headers, bytes::Bytes::new()).await.unwrap();
        assert_eq!(answer.status, status, "{region}");
    }
    assert_eq!(client.get("/api/v1/Webhooks").await.unwrap().status, 200);
}
