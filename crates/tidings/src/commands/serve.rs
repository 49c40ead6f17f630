//! `tidings serve` and the single roles.

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, load_run};
use crate::{
    app::{App, Roles},
    cli::RunArgs,
    settings::{BrokerChoice, Settings},
};

/// The part of `shutdown.grace` that the process needs to end in.
const ENDING: f32 = 0.05;

/// Runs all roles until a signal comes.
pub(crate) fn serve(args: &RunArgs) -> Result<(), Failure> {
    run_until_signal(load_run(args)?, Roles::ALL)
}

/// A role of its own works on a broker that several processes share.
pub(crate) fn single_role(role: &str, roles: Roles, args: &RunArgs) -> Result<(), Failure> {
    let settings = load_run(args)?;
    match &settings.broker {
        BrokerChoice::Local => Err(Failure::Usage(anyhow!(
            "`tidings {role}` needs a broker that processes can share; \
             with `--broker local` use `tidings serve`, which runs all roles in one process"
        ))),
        BrokerChoice::Kafka(_) => run_until_signal(settings, roles),
    }
}

fn run_until_signal(settings: Settings, roles: Roles) -> Result<(), Failure> {
    tidings_telemetry::init_logs(&settings.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // The process has to be gone by then; a little of it goes to the end itself.
    let grace = settings.shutdown_grace.mul_f32(1.0 - ENDING);
    let outcome: Result<(), Failure> = runtime.block_on(async move {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let app = tokio::select! {
            app = App::start(settings, roles, shutdown.clone()) => app?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let mut finished = Box::pin(app.run());
        tokio::select! {
            result = &mut finished => return Ok(result?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        shutdown.cancel();
        let drained = tokio::select! {
            result = tokio::time::timeout(grace, &mut finished) => result.unwrap_or_else(|_late| {
                // Everything is crash-safe: a drain saves time, never correctness.
                tracing::warn!("the drain took longer than shutdown.grace");
                Ok(())
            }),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        };
        Ok(drained?)
    });
    // Not waited for: what still runs is crash-safe, and the grace is over.
    runtime.shutdown_background();
    outcome
}
