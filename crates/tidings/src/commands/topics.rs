//! `tidings topics`: the topics of an installation on Kafka.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tidings_telemetry::SystemClock;

use super::{Failure, load_run, say};
use crate::{
    app::{TopicState, connect, tight_delivery_topics, wanted_topics},
    cli::RunArgs,
    settings::BrokerChoice,
};

/// Prints what is missing or wrong.
pub(crate) fn check(args: &RunArgs) -> Result<(), Failure> {
    run(args, false)
}

/// Makes what is missing and prints what is wrong.
pub(crate) fn create(args: &RunArgs) -> Result<(), Failure> {
    run(args, true)
}

fn run(args: &RunArgs, makes: bool) -> Result<(), Failure> {
    let settings = load_run(args)?;
    let BrokerChoice::Kafka(bootstrap) = &settings.broker else {
        return Err(Failure::Usage(anyhow!(
            "the local broker makes its topics itself; say --broker kafka://HOST:PORT"
        )));
    };
    tidings_telemetry::init_logs("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let broker = connect(bootstrap, &settings, Arc::new(SystemClock)).await?;
        let mut wrong = 0_u32;
        for wanted in wanted_topics(&settings).map_err(Failure::Usage)? {
            let name = &wanted.spec().name;
            let state =
                if makes { wanted.make(&broker).await? } else { wanted.check(&broker).await? };
            match state {
                TopicState::Right => say(format!("{name}: right")),
                TopicState::Made => say(format!("{name}: made")),
                TopicState::Missing => {
                    wrong += 1;
                    say(format!("{name}: missing; run `tidings topics create`"));
                }
                TopicState::Wrong(why) | TopicState::Tight(why) => {
                    wrong += 1;
                    say(format!("{name}: {why}"));
                }
            }
        }
        for (name, why) in tight_delivery_topics(&broker).await? {
            wrong += 1;
            say(format!("{name}: {why}"));
        }
        if wrong == 0 { Ok(()) } else { Err(Failure::Said) }
    });
    runtime.shutdown_background();
    result
}
