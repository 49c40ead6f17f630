//! Without `--dev`: what is only allowed there.

use serde_json::json;

use crate::stage::{Stage, TENANTS, errors, first_code};

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
