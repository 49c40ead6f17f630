//! `tidings demo`: the main job on a bare machine, with real parts: all roles on
//! a temporary directory, a webhook and a merchant's hook made through the API,
//! one sample event of every type published, and a receiver that verifies what
//! arrives.

mod receiver;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};
use tidings_catalogue::Catalogue;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Roles, TokenRequest},
    client::{Answer, Client},
    commands::{Failure, say},
    settings::{self, Flags, Source},
};
use receiver::{Arrival, Receiver};

const PROGRAMME_MANAGER: i64 = 20;
const MERCHANT: &str = "m_demo";
/// How long the demo waits for the deliveries.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(keep: bool) -> Result<(), Failure> {
    tidings_telemetry::init_logs("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(demo(keep))
}

async fn demo(keep: bool) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("tidings-demo-")
        .tempdir()
        .context("cannot make a temporary directory")?;
    let flags = Flags {
        dev: true,
        data: Some(directory.path().to_owned()),
        listen: Some("127.0.0.1:0".to_owned()),
        ..Flags::default()
    };
    let settings = settings::load(&Source { file: None, environment: BTreeMap::new() }, &flags)?;
    let data = settings.data.clone();
    let shutdown = CancellationToken::new();
    let app = App::start(settings, Roles::ALL, shutdown.clone()).await?;
    let base = app.base_url();
    let mut receiver = Receiver::start(shutdown.clone()).await?;
    let running = async {
        app.ready().await;
        let client = Client::new(&base, token(&data)?)?;
        let all = deliver_everything(&client, &mut receiver).await?;
        if keep {
            say(format!("\napi       {base}\nreceiver  {}", receiver.url()));
            say(format!("data      {}", data.display()));
            say(format!("token     {}", token(&data)?));
            say("stop with Ctrl-C");
            std::future::pending::<()>().await;
        }
        anyhow::Ok(all)
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    tokio::pin!(running);
    let mut finished = Box::pin(app.run());
    // What is kept running is stopped by a signal, and has done what it was for.
    let result = tokio::select! {
        result = &mut running => result,
        _ = terminate.recv() => Ok(keep),
        _ = interrupt.recv() => Ok(keep),
        ended = &mut finished => {
            ended?;
            Err(anyhow!("the system ended before the demo did"))
        }
    };
    shutdown.cancel();
    // The directory goes away: a drain that hangs must not keep the demo from ending.
    if tokio::time::timeout(Duration::from_secs(5), finished).await.is_err() {
        tracing::warn!("the drain took longer than 5 s");
    }
    if result? { Ok(()) } else { Err(Failure::Said) }
}

fn token(data: &std::path::Path) -> anyhow::Result<String> {
    app::sign_token(
        data,
        &TokenRequest {
            subject: "demo".to_owned(),
            issuer: None,
            pm: Some(PROGRAMME_MANAGER),
            scopes: ["eds.read", "eds.write", "eds.publish", "admin"].map(str::to_owned).into(),
            ttl: Duration::from_secs(3600),
        },
    )
}

/// Sets everything up, publishes, prints a line per delivery. True if all arrived.
async fn deliver_everything(client: &Client, receiver: &mut Receiver) -> anyhow::Result<bool> {
    let catalogue = Catalogue::builtin();
    let (eds, merchant): (Vec<_>, Vec<_>) =
        catalogue.types().filter(|kind| !kind.is_ops()).partition(|kind| kind.is_eds());
    let codes: Vec<u64> = eds
        .iter()
        .map(|kind| kind.name().parse().context("a code is a number"))
        .collect::<Result<_, _>>()?;
    let names: Vec<&str> = merchant.iter().map(|kind| kind.name()).collect();

    let tenants = json!({
        "issuers": [{"id": "7001", "name": "Demo issuer"}],
        "programmeManagers": [{"id": PROGRAMME_MANAGER, "code": "DEM", "issuer": "7001"}],
        "merchants": [{"key": MERCHANT, "programmeManager": PROGRAMME_MANAGER}],
    });
    ask(client, "PUT", "/admin/v1/tenants", &tenants, 200).await?;
    let webhook = ask(
        client,
        "POST",
        "/api/v1/Webhooks",
        &json!({"events": codes, "config": {"url": receiver.url()}}),
        201,
    )
    .await?;
    // 112 needs a configuration as well as a subscription (spec §4.4).
    ask(
        client,
        "POST",
        "/api/v1/Configs",
        &json!({"status": "active", "messageTypeFilter": [0]}),
        201,
    )
    .await?;
    let hook = ask(
        client,
        "POST",
        "/admin/v1/hooks",
        &json!({
            "merchant": MERCHANT, "label": "Demo", "url": receiver.url(), "events": names,
            "authentication": {"type": "none"}, "signature": {"type": "signatureKey"},
        }),
        201,
    )
    .await?;
    receiver.trust(secret(&webhook, "signingSecret")?, secret(&hook, "signatureKey")?)?;

    let now = app::system_now();
    let mut lines = Vec::new();
    for (seed, kind) in (1_u64..).zip(eds.iter().chain(&merchant)) {
        let event = kind.sample(now, seed, PROGRAMME_MANAGER, MERCHANT);
        lines.extend(event.into_iter().filter(|byte| *byte != b'\n'));
        lines.push(b'\n');
    }
    let expected = eds.len() + merchant.len();
    let answer = client.send("POST", "/ingest/v1/events", "application/x-ndjson", lines).await?;
    check(&answer, "POST", "/ingest/v1/events", 202)?;

    let mut waiting: BTreeSet<String> =
        eds.iter().chain(&merchant).map(|kind| kind.name().to_owned()).collect();
    let mut verified = 0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !waiting.is_empty() {
        let Ok(arrival) = tokio::time::timeout_at(deadline, receiver.next()).await else { break };
        let Some(Arrival { event_type, notification, verdict }) = arrival else { break };
        say(format!(
            "{event_type:<32} {notification} {}",
            verdict.as_deref().unwrap_or("verified")
        ));
        if verdict.is_none() && waiting.remove(&event_type) {
            verified += 1;
        }
    }
    for missing in &waiting {
        say(format!("{missing:<32} not delivered"));
    }
    say(format!("delivered {verified} of {expected}"));
    Ok(waiting.is_empty())
}

async fn ask(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
    expected: u16,
) -> anyhow::Result<Value> {
    let answer = client.send(method, path, "application/json", serde_json::to_vec(body)?).await?;
    check(&answer, method, path, expected)?;
    answer.response()
}

fn check(answer: &Answer, method: &str, path: &str, expected: u16) -> anyhow::Result<()> {
    if answer.status != expected {
        bail!("{method} {path} answered {}: {:?}", answer.status, answer.errors());
    }
    Ok(())
}

fn secret(response: &Value, name: &str) -> anyhow::Result<String> {
    let text = response.get(name).and_then(Value::as_str);
    Ok(text.with_context(|| format!("the answer has no {name}"))?.to_owned())
}
