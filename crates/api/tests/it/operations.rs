//! Configurations, the account, the quarantine.

use serde_json::{Value, json};
use tidings_types::names;

use crate::world::{FOREIGN, FOREIGN_ISSUER, ISSUER, MANAGER, SIBLING, World};

const CONFIGS: &str = "/eds/api/v1/Configs";

#[tokio::test(start_paused = true)]
async fn the_documents_own_configurations_are_taken() {
    let world = World::start().await;
    // Seed 003, as the issuer and as the manager.
    for (who, body) in [
        (ISSUER, json!({"status": "active", "messageTypeFilter": [0]})),
        (ISSUER, json!({"pmId": 20, "status": "active", "messageTypeFilter": [1]})),
        (ISSUER, json!({"productId": 345_678, "status": "Active", "messageTypeFilter": [1, 2]})),
        (MANAGER, json!({"status": "active", "messageTypeFilter": [0]})),
        (MANAGER, json!({"productId": 345_678, "status": "inactive", "messageTypeFilter": [0, 1]})),
    ] {
        let response = world.send("POST", CONFIGS, who, Some(&body)).await.is(201).response();
        assert_eq!(response["totalCount"], 1);
        let item = &response["content"][0];
        let status = body["status"].as_str().unwrap().to_ascii_lowercase();
        assert_eq!(item["status"], status);
        assert_eq!(item["messageTypeFilter"], body["messageTypeFilter"]);
        assert_eq!(item.get("pmId"), body.get("pmId"));
        assert_eq!(item.get("productId"), body.get("productId"));
        assert_eq!(item["message"], "Configuration created successfully.");
        let id = item["configId"].as_str().unwrap();
        assert!(id.ends_with("-20240317120000"), "{id}");
        assert!(world.registry.snapshot().configurations.contains_key(id));
    }
    // The same scope again, however it is written.
    for (who, body) in [
        (ISSUER, json!({"status": "active", "messageTypeFilter": [1]})),
        (
            ISSUER,
            json!({"pmId": 20, "productId": 345_678, "status": "active", "messageTypeFilter": [1]}),
        ),
        (MANAGER, json!({"pmId": 20, "status": "active", "messageTypeFilter": [1]})),
    ] {
        let reply = world.send("POST", CONFIGS, who, Some(&body)).await;
        reply.refuses(409, "DUPLICATE_CONFIGURATION", "");
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_of_bad_configurations() {
    let world = World::start().await;
    let with = |member: &str, value: Value| {
        let mut body = json!({"status": "active", "messageTypeFilter": [1]});
        body[member] = value;
        body
    };
    let filter = "INVALID_MESSAGE_TYPE_FILTER";
    for (who, body, status, code, field) in [
        (MANAGER, json!({"messageTypeFilter": [1]}), 400, "INVALID_REQUEST_BODY", "status"),
        (MANAGER, json!({"status": "active"}), 400, "INVALID_REQUEST_BODY", "messageTypeFilter"),
        (MANAGER, with("status", "on".into()), 400, "INVALID_STATUS", "status"),
        (MANAGER, with("messageTypeFilter", json!([])), 400, filter, "messageTypeFilter"),
        (MANAGER, with("messageTypeFilter", json!([7])), 400, filter, "messageTypeFilter[0]"),
        (MANAGER, with("messageTypeFilter", json!([1, 1])), 400, filter, "messageTypeFilter[1]"),
        (MANAGER, with("messageTypeFilter", json!(["1"])), 400, filter, "messageTypeFilter[0]"),
        (
            MANAGER,
            with("messageTypeFilter", json!(1)),
            400,
            "INVALID_REQUEST_BODY",
            "messageTypeFilter",
        ),
        (MANAGER, with("pmId", 21.into()), 403, "PMCODE_NOT_VALID", "pmId"),
        (ISSUER, with("pmId", 30.into()), 400, "PMCODE_NOT_VALID", "pmId"),
        (ISSUER, with("pmId", 99.into()), 400, "PMCODE_NOT_VALID", "pmId"),
        (ISSUER, with("pmId", "TRD".into()), 400, "INVALID_REQUEST_BODY", "pmId"),
        (MANAGER, with("productId", 111.into()), 400, "PRODUCT_NOT_VALID", "productId"),
        (ISSUER, with("productId", 333.into()), 400, "PRODUCT_NOT_VALID", "productId"),
        (ISSUER, with("productId", 999.into()), 400, "PRODUCT_NOT_VALID", "productId"),
        (
            ISSUER,
            json!({"pmId": 21, "productId": 345_678, "status": "active", "messageTypeFilter": [1]}),
            400,
            "PRODUCT_NOT_VALID",
            "productId",
        ),
        (MANAGER, with("extra", 1.into()), 400, "INVALID_REQUEST_BODY", "extra"),
    ] {
        let reply = world.send("POST", CONFIGS, who, Some(&body)).await;
        assert_eq!(reply.refusal(), (status, code.to_owned(), field.to_owned()), "{body}");
    }
    assert!(world.registry.snapshot().configurations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_quarantine_is_listed_shown_and_redriven() {
    let world = World::start().await;
    let topic = "tidings.events.103";
    let id = world.quarantine(topic, b"not json", "BAD_JSON", "").await;
    // A router's replay sets the same source record aside once more.
    world.quarantine(topic, b"not json", "BAD_JSON", "").await;
    let list = async || {
        let reply = world.send("GET", "/admin/v1/quarantine", "admin", None).await.is(200);
        reply.response()["content"].clone()
    };
    let entry = json!({
        "id": id, "topic": topic, "partition": 0, "offset": 5, "reason": "BAD_JSON",
        "field": "", "time": "2024-03-17T12:00:00Z", "redriven": false,
    });
    assert_eq!(list().await, json!([entry]));
    let path = format!("/admin/v1/quarantine/{id}");
    let shown = world.send("GET", &path, "admin", None).await.is(200).response();
    assert_eq!(shown["original"], "not json");
    assert_eq!(shown["sha256"].as_str().unwrap().len(), 64);

    let redrive = format!("{path}/redrive");
    let response = world.send("POST", &redrive, "admin", None).await.is(200).response();
    assert_eq!(response, json!({"id": id, "topic": topic, "partition": 0, "offset": 0}));
    let body = json!({"mended": true});
    world.send("POST", &redrive, "admin", Some(&body)).await.is(200);
    let records = world.records(&names::events("103")).await;
    let values: Vec<_> = records.iter().map(|record| record.value.clone().unwrap()).collect();
    assert_eq!(values, [&b"not json"[..], b"{\"mended\":true}"]);
    assert_eq!(list().await[0]["redriven"], true);
    for other in ["99", "x", "01", "2", ""] {
        let path = format!("/admin/v1/quarantine/{other}/redrive");
        world.send("POST", &path, "admin", None).await.refuses(404, "NOT_FOUND", "id");
    }
}

#[tokio::test(start_paused = true)]
async fn the_account_names_every_sum() {
    let mut world = World::start().await;
    let id = world.webhook(MANAGER, &[103]).await;
    let kind = world.catalogue.get("103").unwrap();
    let event: Value =
        serde_json::from_slice(&kind.sample(crate::world::NOON, 1, 20, "m")).unwrap();
    world.route(&id, &event).await;
    let response = world.send("GET", "/admin/v1/account", "admin", None).await.is(200).response();
    assert!(response["agree"].is_boolean());
    assert!(response["partitions"].is_array());
}

#[tokio::test(start_paused = true)]
async fn configurations_are_listed_read_and_updated() {
    let world = World::start().await;
    let make = async |who: &str, body: Value| {
        let made = world.send("POST", CONFIGS, who, Some(&body)).await.is(201);
        let id = made.response()["content"][0]["configId"].as_str().unwrap().to_owned();
        assert_eq!(made.header("etag"), "\"1\"");
        assert_eq!(made.header("location"), format!("/api/v1/Configs/{id}"));
        id
    };
    let all = make(ISSUER, json!({"status": "active", "messageTypeFilter": [0]})).await;
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    let of_pm =
        make(ISSUER, json!({"pmId": 20, "status": "active", "messageTypeFilter": [1]})).await;
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    let own = make(
        MANAGER,
        json!({"productId": 345_678, "status": "active", "messageTypeFilter": [1, 2]}),
    )
    .await;

    // The issuer lists its own and its managers', narrowed by X-PM-Code to that
    // manager's; a manager never sees the issuer's (design §10).
    let list = async |who: &str, headers: &[(&str, &str)], query: &str| {
        let path = format!("{CONFIGS}{query}");
        world.send_with("GET", &path, who, headers, None).await.is(200).response()
    };
    let ids = |response: &Value| -> Vec<String> {
        let content = response["content"].as_array().unwrap();
        content.iter().map(|item| item["configId"].as_str().unwrap().to_owned()).collect()
    };
    let whole = list(ISSUER, &[], "").await;
    assert_eq!(ids(&whole), [all.clone(), of_pm.clone(), own.clone()]);
    assert_eq!(whole["totalCount"], 3);
    assert_eq!(ids(&list(ISSUER, &[("x-pm-code", "TRD")], "").await), std::slice::from_ref(&own));
    assert_eq!(ids(&list(MANAGER, &[], "").await), std::slice::from_ref(&own));
    assert_eq!(list(SIBLING, &[], "").await, json!({"content": [], "totalCount": 0}));
    let page = list(ISSUER, &[], "?limit=2").await;
    assert_eq!((ids(&page), &page["totalCount"]), (vec![all.clone(), of_pm.clone()], &json!(3)));
    let query = format!("?limit=2&cursor={}", page["nextCursor"].as_str().unwrap());
    let rest = list(ISSUER, &[], &query).await;
    assert_eq!(ids(&rest), std::slice::from_ref(&own));
    assert!(rest.get("nextCursor").is_none());

    let path = format!("{CONFIGS}/{of_pm}");
    let read = world.send("GET", &path, ISSUER, None).await.is(200);
    assert_eq!(read.header("etag"), "\"1\"");
    let expected = json!({
        "configId": of_pm, "pmId": 20, "status": "active", "messageTypeFilter": [1],
        "createdDate": "2024-03-17T12:00:01Z", "lastUpdatedDate": "2024-03-17T12:00:01Z",
    });
    assert_eq!(read.response(), expected);
    let change = json!({"status": "Inactive", "messageTypeFilter": [0, 6]});
    let stale = [("if-match", "\"7\"")];
    let reply = world.send_with("PUT", &path, ISSUER, &stale, Some(&change)).await;
    reply.refuses(412, "PRECONDITION_FAILED", "If-Match");
    let changed = world.send("PUT", &path, ISSUER, Some(&change)).await.is(200);
    assert_eq!(changed.header("etag"), "\"2\"");
    let changed = changed.response();
    assert_eq!(changed["status"], "inactive");
    assert_eq!(changed["messageTypeFilter"], json!([0, 6]));
    assert_eq!(changed["pmId"], 20);
    assert_eq!(changed["createdDate"], "2024-03-17T12:00:01Z");
    assert_eq!(changed["lastUpdatedDate"], "2024-03-17T12:00:02Z");
    assert_eq!(world.send("GET", &path, ISSUER, None).await.response(), changed);
    // Its scope is still taken.
    let again = json!({"pmId": 20, "status": "active", "messageTypeFilter": [1]});
    let reply = world.send("POST", CONFIGS, ISSUER, Some(&again)).await;
    reply.refuses(409, "DUPLICATE_CONFIGURATION", "");

    for (who, id) in [(MANAGER, &all), (SIBLING, &own), (FOREIGN_ISSUER, &own), (FOREIGN, &all)] {
        let path = format!("{CONFIGS}/{id}");
        world.send("GET", &path, who, None).await.refuses(404, "CONFIG_NOT_FOUND", "configId");
        let reply = world.send("PUT", &path, who, Some(&change)).await;
        reply.refuses(404, "CONFIG_NOT_FOUND", "configId");
    }
    let field = "messageTypeFilter";
    for (body, code, field) in [
        (json!({"status": "active"}), "INVALID_REQUEST_BODY", field),
        (json!({"messageTypeFilter": [1]}), "INVALID_REQUEST_BODY", "status"),
        (json!({"status": "on", "messageTypeFilter": [1]}), "INVALID_STATUS", "status"),
        (
            json!({"status": "active", "messageTypeFilter": []}),
            "INVALID_MESSAGE_TYPE_FILTER",
            field,
        ),
        (
            json!({"status": "active", "messageTypeFilter": [7]}),
            "INVALID_MESSAGE_TYPE_FILTER",
            "messageTypeFilter[0]",
        ),
        (
            json!({"status": "active", "messageTypeFilter": [1], "pmId": 20}),
            "INVALID_REQUEST_BODY",
            "pmId",
        ),
    ] {
        world.send("PUT", &path, ISSUER, Some(&body)).await.refuses(400, code, field);
    }
    assert_eq!(world.send("GET", &path, ISSUER, None).await.response(), changed);
}
