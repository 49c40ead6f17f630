//! The tenants and webhooks of the runs, and the events that are published.

use std::collections::BTreeSet;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tidings_signing::WebhookSecret;

use crate::{http::Client, process, receiver::Receiver};

/// A webhook of the runs.
#[derive(Debug)]
pub struct Hook {
    /// The name in the checker's facts, and the path at the receiver.
    pub name: String,
    pub id: String,
    pub pm: i64,
    pub secret: WebhookSecret,
    pub events: BTreeSet<u32>,
}

/// Programme managers, their webhooks and their clients.
#[derive(Debug)]
pub struct World {
    pub hooks: Vec<Hook>,
    pub tokens: Vec<(i64, String)>,
    pub admin: String,
}

/// Programme managers of the runs. 22 has no webhook for 104.
pub const MANAGERS: [i64; 3] = [20, 21, 22];

impl World {
    /// Makes tenants and webhooks through the API: two webhooks for 104 and 103 per
    /// manager (one for the last).
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn create(
        binary: &std::path::Path,
        data: &std::path::Path,
        base: &str,
        receiver: &Receiver,
    ) -> anyhow::Result<Self> {
        let data_text = data.to_str().context("the data directory's name is not UTF-8")?;
        let token = |arguments: &[&str]| {
            let mut all = vec!["token", "--data", data_text, "--ttl", "12h"];
            all.extend(arguments);
            process::run(binary, &all).map(|text| text.trim().to_owned())
        };
        let admin = token(&["--scope", "admin eds.publish"])?;
        let client = Client::new(base, &admin)?;
        let tenants = json!({
            "issuers": [{"id": "7001", "name": "Seven"}, {"id": "7002", "name": "Eight"}],
            "programmeManagers": [
                {"id": 20, "code": "TRD", "issuer": "7001"},
                {"id": 21, "code": "ABC", "issuer": "7001"},
                {"id": 22, "code": "XYZ", "issuer": "7002"},
            ],
        });
        client.json("PUT", "/admin/v1/tenants", &tenants).await?.response(200)?;
        let mut world = Self { hooks: Vec::new(), tokens: Vec::new(), admin };
        for pm in MANAGERS {
            let pm_text = pm.to_string();
            let mine = token(&["--pm", &pm_text, "--scope", "eds.read eds.write"])?;
            world.tokens.push((pm, mine));
        }
        world.add_hook(base, receiver, 20, "a", &[103, 104]).await?;
        world.add_hook(base, receiver, 20, "b", &[104]).await?;
        world.add_hook(base, receiver, 21, "c", &[103, 104]).await?;
        world.add_hook(base, receiver, 22, "d", &[103]).await?;
        Ok(world)
    }

    /// # Errors
    /// When the API refuses.
    pub async fn add_hook(
        &mut self,
        base: &str,
        receiver: &Receiver,
        pm: i64,
        name: &str,
        events: &[u32],
    ) -> anyhow::Result<()> {
        let client = Client::new(base, self.token(pm)?)?;
        let body = json!({"events": events, "config": {"url": receiver.url(name)}});
        let answer = client.json("POST", "/api/v1/Webhooks", &body).await?.response(201)?;
        let text = |member: &str| {
            answer.get(member).and_then(Value::as_str).map(str::to_owned).context("no such member")
        };
        self.hooks.push(Hook {
            name: name.to_owned(),
            id: text("webhookId")?,
            pm,
            secret: WebhookSecret::parse(&text("signingSecret")?).context("no whsec_")?,
            events: events.iter().copied().collect(),
        });
        Ok(())
    }

    /// # Errors
    /// When there is no such manager.
    pub fn token(&self, pm: i64) -> anyhow::Result<&str> {
        let found = self.tokens.iter().find(|(id, _)| *id == pm);
        Ok(&found.context("no such manager")?.1)
    }

    /// The webhooks that want an event now.
    pub fn wanted(&self, pm: i64, code: u32) -> BTreeSet<String> {
        self.hooks
            .iter()
            .filter(|hook| hook.pm == pm && hook.events.contains(&code))
            .map(|hook| hook.name.clone())
            .collect()
    }
}

/// A payload of event 104 whose `messageId` is the marker, filled up to `size` bytes.
pub fn payload(marker: &str, size: usize) -> String {
    let head = format!(
        "{{ \"messageId\":\"{marker}\", \"publicToken\":\"t{}\", \"productId\": 1.0e0, \"fill\":\"",
        marker.len() % 7
    );
    let head = head.replace("1.0e0", "12");
    let fill = size.saturating_sub(head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(fill))
}

/// A payload of event 103, where `trackingId` is the marker.
pub fn payload_103(marker: &str) -> String {
    format!(
        "{{\"tokenId\":\"77\",\"productId\":12,\"dateTime\":\"2026-01-01T00:00:00Z\",\
         \"newCardStatus\":\"41\",\"oldCardStatus\":\"00\",\"trackingId\":\"{marker}\"}}"
    )
}

/// The event as a producer sends it; the marker is its correlation id too.
pub fn event(pm: i64, code: u32, marker: &str, payload: &str) -> String {
    format!(
        "{{\"context\":{{\"programManagerId\":{pm},\"eventCode\":{code},\
         \"correlationId\":\"{marker}\"}},\"payload\":{payload}}}"
    )
}

/// The payload member of a delivered body, and the marker inside it.
pub fn open_body(body: &Bytes) -> Option<(String, Vec<u8>)> {
    const NAME: &[u8] = b"\"payload\":";
    let at = body.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let payload = body.get(at..body.len().checked_sub(1)?)?.to_vec();
    Some((marker_of(&payload)?, payload))
}

/// The marker in a payload.
pub fn marker_of(payload: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    let marker = value.get("messageId").or_else(|| value.get("trackingId"))?;
    marker.as_str().map(str::to_owned)
}
