//! `tidings account`: prints the sums of invariant I11, exit 1 if they disagree.

use serde_json::Value;

use super::{Failure, say};
use crate::{cli::AccountArgs, client::Client};

/// The columns of the table, as contract §3 names them.
const COLUMNS: &[&str] = &[
    "from",
    "committed",
    "skipped",
    "routed",
    "filtered",
    "quarantined",
    "duplicate",
    "notifications",
    "delivered",
    "undelivered",
    "pending",
    "cancelled",
    "expired",
    "superseded",
];

pub(crate) fn run(args: &AccountArgs) -> Result<(), Failure> {
    let topic = args.topic.clone();
    let as_json = args.json;
    Client::with(&args.client, &["admin"], async move |client| {
        let path = topic.as_ref().map_or_else(
            || "/admin/v1/account".to_owned(),
            |topic| format!("/admin/v1/account?topic={topic}"),
        );
        let answer = client.send("GET", &path, "application/json", Vec::new()).await?;
        if answer.status != 200 {
            return Err(answer.refused());
        }
        let account = answer.response()?;
        if as_json {
            say(&account);
        } else {
            table(&account);
        }
        if account.get("agree").and_then(Value::as_bool) == Some(true) {
            Ok(())
        } else {
            Err(Failure::Said)
        }
    })
}

fn table(account: &Value) {
    say(format!("{:<44} {}", "partition", COLUMNS.join(" ")));
    for row in account.get("partitions").and_then(Value::as_array).into_iter().flatten() {
        let place = format!(
            "{}/{}",
            row.get("topic").and_then(Value::as_str).unwrap_or_default(),
            row.get("partition").and_then(Value::as_u64).unwrap_or_default()
        );
        let numbers: Vec<String> = COLUMNS
            .iter()
            .map(|name| {
                let number = row.get(*name).and_then(Value::as_u64).unwrap_or_default();
                format!("{number:>width$}", width = name.len())
            })
            .collect();
        say(format!("{place:<44} {}", numbers.join(" ")));
    }
    for gap in account.get("missing").and_then(Value::as_array).into_iter().flatten() {
        say(format!("missing: {gap}"));
    }
    let agree = account.get("agree").and_then(Value::as_bool) == Some(true);
    say(if agree { "the sums agree" } else { "the sums DISAGREE" });
}
