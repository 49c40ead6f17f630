//! One module a command, and what a failed command comes to.

mod account;
mod explain;
mod keys;
mod pause;
mod publish;
mod quarantine;
mod resend;
mod serve;
mod tenants;
mod token;
mod topics;

use std::{collections::BTreeMap, io::Write as _, process::ExitCode};

use crate::{
    app::Roles,
    cli::{
        Command, ConfigCommand, KeysCommand, PauseArgs, PauseCommand, QuarantineCommand, RunArgs,
        TenantsCommand, TopicsCommand,
    },
    settings::{self, Flags, Settings, SettingsError, Source},
};

/// Why a command did not end with 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something was found wrong: exit 1.
    Wrong(anyhow::Error),
    /// The same, already said on stdout or stderr: exit 1.
    Said,
    /// Usage or settings: exit 2.
    Usage(anyhow::Error),
}

impl Failure {
    /// Says on stderr what went wrong, with its causes, and gives the exit code.
    #[expect(clippy::print_stderr, reason = "the program's last word")]
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Wrong(error) => {
                eprintln!("tidings: {error:#}");
                ExitCode::from(1)
            }
            Self::Said => ExitCode::from(1),
            Self::Usage(error) => {
                eprintln!("tidings: {error:#}");
                ExitCode::from(2)
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Wrong(error)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Usage(error.into())
    }
}

/// Runs one command.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo { keep } => crate::demo::run(keep),
        Command::Serve(args) => serve::serve(&args),
        Command::Router(args) => serve::single_role("router", Roles::ROUTER, &args),
        Command::Sender(args) => serve::single_role("sender", Roles::SENDER, &args),
        Command::Recorder(args) => serve::single_role("recorder", Roles::RECORDER, &args),
        Command::Api(args) => serve::single_role("api", Roles::API, &args),
        Command::Config(ConfigCommand::Check(args)) => {
            crate::app::check(&load_run(&args)?).map_err(Failure::Usage)?;
            say("settings are right");
            Ok(())
        }
        Command::Config(ConfigCommand::Show(args)) => {
            say(settings::show(&load_run(&args)?).trim_end());
            Ok(())
        }
        Command::Topics(TopicsCommand::Check(args)) => topics::check(&args),
        Command::Topics(TopicsCommand::Create(args)) => topics::create(&args),
        Command::Token(args) => token::run(&args),
        Command::Tenants(TenantsCommand::Apply { file, prune, client }) => {
            tenants::apply(&file, prune, &client)
        }
        Command::Publish(args) => publish::run(&args),
        Command::Account(args) => account::run(&args),
        Command::Quarantine(QuarantineCommand::List { json, client }) => {
            quarantine::list(json, &client)
        }
        Command::Quarantine(QuarantineCommand::Show { id, client }) => {
            quarantine::show(&id, &client)
        }
        Command::Quarantine(QuarantineCommand::Redrive { id, body, client }) => {
            quarantine::redrive(&id, body.as_deref(), &client)
        }
        Command::Pause(PauseArgs {
            command: Some(PauseCommand::List { json, client }), ..
        }) => pause::list(json, &client),
        Command::Pause(PauseArgs { command: None, of, reason, client }) => {
            pause::pause(&of, &reason.unwrap_or_default(), &client)
        }
        Command::Explain(args) => explain::run(&args),
        Command::Resend(args) => resend::run(&args),
        Command::Resume { of, client } => pause::resume(&of, &client),
        Command::Keys(KeysCommand::List(args)) => keys::list(&args),
        Command::Keys(KeysCommand::Add { standby, keys }) => keys::add(standby, &keys),
        Command::Keys(KeysCommand::Use { id, keys }) => keys::use_for_sealing(&id, &keys),
    }
}

/// Loads the settings of `serve` and its like.
pub(crate) fn load_run(args: &RunArgs) -> Result<Settings, SettingsError> {
    let flags = Flags {
        dev: args.dev,
        data: args.data.clone(),
        listen: args.listen.clone(),
        broker: args.broker.clone(),
        master_key: args.master_key.clone(),
    };
    settings::load(&Source { file: args.config.as_deref(), environment: environment() }, &flags)
}

/// The environment, sorted. Names or values that are not UTF-8 are no settings of ours.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Prints a line of the command's answer on stdout.
///
/// Whoever closed it wants no more (`| head`): the command goes on and ends with its
/// own code. Any other fault, such as a full disk, ends the command.
#[expect(clippy::exit, reason = "an answer that cannot be written ends every command")]
pub(crate) fn say(text: impl std::fmt::Display) {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failure = Failure::Wrong(anyhow::anyhow!("cannot write the answer: {error}"));
            failure.report();
            std::process::exit(1);
        }
        Ok(()) | Err(_) => {}
    }
}
