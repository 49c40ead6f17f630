//! Plans of `tenants apply`.

use serde_json::{Value, json};
use tidings_registry::{Counts, Refusal, Snapshot, State, TenantsDocument, plan_tenants};

use crate::world::{NOW, Process, World, create, merchant_hook};

fn document(json: &Value) -> TenantsDocument {
    serde_json::from_value(json.clone()).unwrap()
}

fn base() -> Value {
    json!({
        "issuers": [{"id": "7001", "name": "One"}, {"id": 7002}],
        "programmeManagers": [
            {"id": 20, "code": "TRD", "issuer": "7001"},
            {"id": 21, "code": "FTX", "issuer": "7002"},
        ],
        "products": [{"id": 345_678, "programmeManager": 20}],
        "merchants": [{"key": "m_9f2", "programmeManager": 20,
                       "sourceKeys": [{"id": "src1", "value": "secret-1"}]}],
    })
}

async fn apply(process: &Process, json: &Value, prune: bool) -> Counts {
    let snapshot = process.fold_to_end().await.unwrap();
    let (changes, counts) = plan_tenants(&snapshot, &document(json), prune, NOW).unwrap();
    for change in changes {
        process.propose(change).await.unwrap();
    }
    counts
}

fn counts(added: usize, changed: usize, removed: usize) -> Counts {
    Counts { added, changed, removed }
}

fn refusals(snapshot: &Snapshot, json: &Value, prune: bool) -> Vec<String> {
    let refused = plan_tenants(snapshot, &document(json), prune, NOW).map(|_| ()).unwrap_err();
    refused.into_iter().map(|Refusal { field, .. }| field).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_document_adds_changes_and_removes_is_counted() {
    let world = World::new();
    let process = world.process(1).await;
    assert_eq!(apply(&process, &base(), false).await, counts(6, 0, 0));
    assert_eq!(apply(&process, &base(), true).await, counts(0, 0, 0));
    let mut other = base();
    other["issuers"][0]["name"] = json!("Another");
    other["merchants"][0]["sourceKeys"][0]["value"] = json!("secret-2");
    assert_eq!(apply(&process, &other, false).await, counts(0, 2, 0));
    let less = json!({"issuers": [{"id": "7001", "name": "Another"}]});
    assert_eq!(apply(&process, &less, false).await, counts(0, 0, 0));
    assert_eq!(apply(&process, &less, true).await, counts(0, 0, 5));
    let snapshot = process.snapshot();
    assert_eq!((snapshot.issuers.len(), snapshot.pms.len(), snapshot.merchants.len()), (1, 0, 0));
    assert_eq!(
        apply(&process, &base(), false).await,
        counts(5, 1, 0),
        "what was removed comes back"
    );
    assert_eq!(process.snapshot().pm_by_code("TRD").unwrap().id.0, 20);
}

#[tokio::test(start_paused = true)]
async fn every_refused_line_is_named_and_nothing_is_changed() {
    let world = World::new();
    let process = world.process(1).await;
    apply(&process, &base(), false).await;
    let snapshot = process.fold_to_end().await.unwrap();
    let pm = |id: i64, code: &str, issuer: &str| json!({"programmeManagers": [{"id": id, "code": code, "issuer": issuer}]});
    let rows = [
        (pm(22, "NEW", "7003"), "programmeManagers[0].issuer"),
        (pm(22, "TRD", "7001"), "programmeManagers[0].code"),
        (pm(22, "20", "7001"), "programmeManagers[0].code"),
        (pm(22, "", "7001"), "programmeManagers[0].code"),
        (pm(22, "T D", "7001"), "programmeManagers[0].code"),
        (pm(-1, "NEW", "7001"), "programmeManagers[0].id"),
        (json!({"issuers": [{"id": "a b"}]}), "issuers[0].id"),
        (json!({"issuers": [{"id": "1"}, {"id": 1}]}), "issuers[1].id"),
        (json!({"products": [{"id": 1, "programmeManager": 99}]}), "products[0].programmeManager"),
        (
            json!({"products": [{"id": 345_678, "programmeManager": 21}]}),
            "products[0].programmeManager",
        ),
        (
            json!({"merchants": [{"key": "m", "programmeManager": 99}]}),
            "merchants[0].programmeManager",
        ),
        (
            json!({"merchants": [{"key": "m", "programmeManager": 20,
                "sourceKeys": [{"id": "a", "value": ""}]}]}),
            "merchants[0].sourceKeys[0].value",
        ),
        (
            json!({"merchants": [{"key": "m", "programmeManager": 20,
                "sourceKeys": [{"id": "a", "value": "x"}, {"id": "a", "value": "y"}]}]}),
            "merchants[0].sourceKeys[1].id",
        ),
    ];
    for (json, field) in rows {
        assert_eq!(refusals(&snapshot, &json, false), [field], "{json}");
    }
    // A code that is an id in the same document.
    let json = json!({"programmeManagers": [
        {"id": 30, "code": "A", "issuer": "7001"}, {"id": 31, "code": "30", "issuer": "7001"}]});
    assert_eq!(refusals(&snapshot, &json, false), ["programmeManagers[1].code"]);
    // An id that is another one's code already.
    let json = json!({"programmeManagers": [
        {"id": 30, "code": "99", "issuer": "7001"}, {"id": 99, "code": "B", "issuer": "7001"}]});
    assert_eq!(refusals(&snapshot, &json, false), ["programmeManagers[0].code"]);
    // One's own id is no other's.
    assert!(plan_tenants(&snapshot, &document(&pm(20, "20", "7001")), false, NOW).is_ok());
    // With prune, what the document does not name is not there to refer to.
    assert_eq!(refusals(&snapshot, &pm(20, "TRD", "7001"), true), ["programmeManagers[0].issuer"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_another_managers_code_is_refused() {
    let world = World::new();
    let process = world.process(1).await;
    let first = json!({"issuers": [{"id": "7001"}],
        "programmeManagers": [{"id": 20, "code": "21", "issuer": "7001"}]});
    apply(&process, &first, false).await;
    let json = json!({"programmeManagers": [{"id": 21, "code": "X", "issuer": "7001"}]});
    let snapshot = process.snapshot();
    assert_eq!(refusals(&snapshot, &json, false), ["programmeManagers[0].id"]);
}

#[tokio::test(start_paused = true)]
async fn a_code_can_change_hands_but_not_in_a_circle() {
    let world = World::new();
    let process = world.process(1).await;
    apply(&process, &base(), false).await;
    let codes = |first: &str, second: &str| {
        json!({"programmeManagers": [
            {"id": 20, "code": first, "issuer": "7001"},
            {"id": 21, "code": second, "issuer": "7002"}]})
    };
    assert_eq!(apply(&process, &codes("FTX", "NEW"), false).await, counts(0, 2, 0));
    assert_eq!(process.snapshot().pm_by_code("FTX").unwrap().id.0, 20);
    let snapshot = process.snapshot();
    let circle = refusals(&snapshot, &codes("NEW", "FTX"), false);
    assert_eq!(circle, ["programmeManagers[0].code", "programmeManagers[1].code"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_key_that_a_hook_signs_with_stays() {
    let world = World::new();
    let process = world.process(1).await;
    apply(&process, &base(), false).await;
    process.propose(create(&merchant_hook(1, "m_9f2", "src1"))).await.unwrap();
    let mut json = base();
    json["merchants"][0]["sourceKeys"] = json!([]);
    let snapshot = process.snapshot();
    assert_eq!(refusals(&snapshot, &json, false), ["merchants[0].sourceKeys"]);
    json["merchants"][0]["sourceKeys"] = json!([{"id": "src1", "value": "rotated"}]);
    assert_eq!(apply(&process, &json, false).await, counts(0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn two_writers_cannot_make_a_code_look_like_anothers_id() {
    let world = World::new();
    let (one, two) = (world.process(1).await, world.process(2).await);
    let issuer = json!({"issuers": [{"id": "7001"}]});
    apply(&one, &issuer, false).await;
    let snapshot = two.fold_to_end().await.unwrap();
    let plan = |json: &Value| {
        let (mut changes, _) = plan_tenants(&snapshot, &document(json), false, NOW).unwrap();
        changes.remove(0)
    };
    let left = plan(&json!({"programmeManagers": [{"id": 20, "code": "21", "issuer": "7001"}]}));
    let right = plan(&json!({"programmeManagers": [{"id": 21, "code": "X", "issuer": "7001"}]}));
    assert!(matches!(left.state, State::ProgrammeManager(_)));
    let (left, right) = tokio::join!(one.propose(left), two.propose(right));
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
}

#[test]
fn a_document_with_an_unknown_member_is_not_read() {
    for json in [
        json!({"issuer": []}),
        json!({"issuers": [{"id": "1", "nam": "x"}]}),
        json!({"programmeManagers": [{"id": "20", "code": "A", "issuer": "1"}]}),
        json!({"merchants": [{"key": "m"}]}),
    ] {
        assert!(serde_json::from_value::<TenantsDocument>(json.clone()).is_err(), "{json}");
    }
    let secret = json!({"merchants": [{"key": "m", "programmeManager": 1,
        "sourceKeys": [{"id": "a", "value": "the-value"}]}]});
    assert!(!format!("{:?}", document(&secret)).contains("the-value"));
}
