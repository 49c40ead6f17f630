//! Turns what the receiver noted down and what the API answers into the checker's
//! facts.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use serde_json::Value;
use tidings_checker::{Reported, Seen, State};

use crate::{
    http::Client,
    receiver::Arrived,
    wait_for,
    world::{Hook, World, marker_of, open_body},
};

/// The requests as facts, with signatures verified.
pub fn seen(world: &World, requests: &[Arrived]) -> Vec<Seen> {
    requests
        .iter()
        .map(|request| {
            let hook = world.hooks.iter().find(|hook| hook.name == request.path);
            let (marker, payload) = open_body(&request.body)
                .unwrap_or_else(|| ("no payload".to_owned(), request.body.to_vec()));
            Seen {
                webhook: request.path.clone(),
                notification: request.notification.clone(),
                marker,
                payload,
                signature_right: Some(hook.is_some_and(|hook| verify(hook, request))),
                at: request.at_ms,
                accepted: request.accepted,
            }
        })
        .collect()
}

fn verify(hook: &Hook, request: &Arrived) -> bool {
    let Ok(timestamp) = request.timestamp.parse::<i64>() else { return false };
    let signed = hook.secret.sign_v1(&request.notification, timestamp, &request.body);
    request.signature.as_deref().is_some_and(|text| text.split(' ').any(|one| one == signed))
}

/// Everything that history says of the world's webhooks, page by page.
///
/// # Errors
/// When the API refuses.
pub async fn reported(world: &World, base: &str) -> anyhow::Result<Vec<Reported>> {
    let mut all = Vec::new();
    for hook in &world.hooks {
        let client = Client::new(base, world.token(hook.pm)?)?;
        for code in [103_u32, 104] {
            let mut cursor = String::new();
            loop {
                let path = format!(
                    "/api/v1/Webhooks/{}/events/{code}/notifications?from={}&count=100{cursor}",
                    hook.id,
                    FROM.with(Clone::clone)
                );
                let page = client.get(&path).await?.response(200)?;
                for item in page.get("content").and_then(Value::as_array).context("no content")? {
                    all.push(item_of(hook, item)?);
                }
                match page.get("nextCursor").and_then(Value::as_str) {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
        }
    }
    Ok(all)
}

thread_local! {
    /// Yesterday, UTC: runs may cross midnight.
    static FROM: String = yesterday();
}

#[expect(clippy::disallowed_methods, reason = "the observer's own clock")]
fn yesterday() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = now.map_or(0, |since| since.as_secs() / 86_400).saturating_sub(1);
    // Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn item_of(hook: &Hook, item: &Value) -> anyhow::Result<Reported> {
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    let payload = serde_json::to_vec(item.get("payload").context("no payload")?)?;
    Ok(Reported {
        webhook: hook.name.clone(),
        notification: text("notificationId").context("no notificationId")?.to_owned(),
        marker: marker_of(&payload).unwrap_or_else(|| "no marker".to_owned()),
        state: match text("notificationStatus").context("no notificationStatus")? {
            "Pending" => State::Pending,
            "Delivered" => State::Delivered,
            _ => State::Ended,
        },
    })
}

/// Behind the last record of interest, by source topic and partition.
pub type Ends = BTreeMap<(String, u64), u64>;

/// How long a system without faults may take for what it has accepted.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// The account: whether it agrees, and its sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub agree: bool,
    pub notifications: u64,
    pub pending: u64,
    pub delivered: u64,
    /// Source records that routers have committed.
    pub committed: u64,
    /// Up to where they have committed.
    pub ends: Ends,
}

impl Account {
    /// Whether all records before `ends` are committed.
    fn reaches(&self, ends: &Ends) -> bool {
        ends.iter().all(|(of, end)| self.ends.get(of) >= Some(end))
    }
}

/// # Errors
/// When the API refuses.
pub async fn account(world: &World, base: &str) -> anyhow::Result<Account> {
    let client = Client::new(base, &world.admin)?;
    let answer = client.get("/admin/v1/account").await?.response(200)?;
    let mut account = Account {
        agree: answer.get("agree").and_then(Value::as_bool).context("no agree")?,
        ..Account::default()
    };
    for row in answer.get("partitions").and_then(Value::as_array).context("no partitions")? {
        let number = |name: &str| row.get(name).and_then(Value::as_u64).context("no number");
        account.notifications += number("notifications")?;
        account.pending += number("pending")?;
        account.delivered += number("delivered")?;
        account.committed += number("committed")?;
        let topic = row.get("topic").and_then(Value::as_str).context("no topic")?;
        account.ends.insert((topic.to_owned(), number("partition")?), number("committed")?);
    }
    Ok(account)
}

/// Waits until at least `events` source records are committed and nothing is pending.
///
/// # Errors
/// When that does not come about within `patience`.
pub async fn settled(
    world: &World,
    base: &str,
    events: u64,
    patience: Duration,
) -> anyhow::Result<Account> {
    settled_when(world, base, patience, |account| {
        account.pending == 0 && account.committed >= events
    })
    .await
}

/// Waits until what stands before `ends` is committed and nothing is pending.
///
/// # Errors
/// When that does not come about within `patience`.
pub async fn settled_to(
    world: &World,
    base: &str,
    ends: &Ends,
    patience: Duration,
) -> anyhow::Result<Account> {
    settled_when(world, base, patience, |account| account.pending == 0 && account.reaches(ends))
        .await
}

/// Waits until what stands before `ends` is committed, whatever is pending.
///
/// # Errors
/// When that does not come about within `patience`.
pub async fn routed_to(
    world: &World,
    base: &str,
    ends: &Ends,
    patience: Duration,
) -> anyhow::Result<()> {
    settled_when(world, base, patience, |account| account.reaches(ends)).await.map(drop)
}

async fn settled_when(
    world: &World,
    base: &str,
    patience: Duration,
    is_settled: impl Fn(&Account) -> bool,
) -> anyhow::Result<Account> {
    let mut last = Account::default();
    let result = wait_for("everything to be routed and to end", patience, async || {
        last = account(world, base).await?;
        Ok(is_settled(&last).then(|| last.clone()))
    })
    .await;
    result.with_context(|| format!("last account: {last:?}"))
}
