//! `docs/metrics.md` is the list of all metrics.

use std::collections::BTreeSet;

use crate::stage::{Stage, event};

/// Families that appear with what they count.
const LATER: &[&str] = &[
    "tidings_api_connections_closed",
    "tidings_egress_connections_dropped",
    "tidings_egress_blocked_addresses",
    "tidings_router_filtered_events",
    "tidings_router_quarantined_records",
    "tidings_router_stopped_sources",
    "tidings_sender_notices",
];

#[tokio::test]
async fn the_list_of_metrics_is_complete() {
    let stage = Stage::start().await;
    stage.webhook("w", &[104]).await;
    stage.publish(&event(r#"{"messageId":"m","publicToken":"t"}"#)).await;
    stage.arrived("w", 1).await;
    let text = stage.admin().get("/metrics").await.unwrap().body;
    let text = std::str::from_utf8(&text).unwrap();
    let served: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let list = include_str!("../../../../docs/metrics.md");
    let listed: BTreeSet<(&str, &str)> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| {
            let (name, rest) = line.split_once("` | ")?;
            Some((name, rest.split_once(':')?.0))
        })
        .collect();
    let missing: Vec<_> = served.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
    let gone: Vec<_> =
        listed.difference(&served).filter(|(name, _)| !LATER.contains(name)).collect();
    assert!(gone.is_empty(), "docs/metrics.md lists what is not served: {gone:?}");
}
