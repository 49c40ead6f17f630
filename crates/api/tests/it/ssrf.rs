//! Every URL of `reliability-security.md` §7.11 at every place that takes a URL.

use serde_json::json;
use tidings_testkit::ssrf;

use crate::world::{MANAGER, World};

#[tokio::test(start_paused = true)]
async fn no_place_takes_a_url_that_leads_inside() {
    let world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let webhook = format!("/api/v1/Webhooks/{id}");
    let before = world.send("GET", &webhook, MANAGER, None).await.is(200).response();
    let topics = world.broker.topics().await.unwrap().len();
    for (row, url) in ssrf::REFUSED_URLS {
        // Another scope than that of the webhook that is there.
        let body = json!({"events": [103], "productId": 345_678, "config": {"url": url}});
        let update = json!({"events": [103], "config": {"url": url}});
        let hook = json!({"merchant": "m_9f2", "label": "x", "url": url,
            "events": ["transaction.sale.success"]});
        for (method, path, caller, body, field) in [
            ("POST", "/api/v1/Webhooks", MANAGER, &body, "config.url"),
            ("PUT", &webhook, MANAGER, &update, "config.url"),
            ("POST", "/admin/v1/hooks", "admin", &hook, "url"),
        ] {
            let reply = world.send(method, path, caller, Some(body)).await;
            let expected = (400, "INVALID_URL".to_owned(), field.to_owned());
            assert_eq!(reply.refusal(), expected, "{row}: {method} {path} {url:?}");
        }
    }
    let after = world.send("GET", &webhook, MANAGER, None).await.is(200).response();
    assert_eq!(after, before, "nothing was stored");
    assert_eq!(world.broker.topics().await.unwrap().len(), topics, "no topic was made");
}
