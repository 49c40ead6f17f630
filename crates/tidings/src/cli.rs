//! The command line: what can be asked, with an example for each (a test runs
//! them). Nothing is done here.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// Delivers a card processor's events to its clients' webhooks.
#[derive(Debug, Parser)]
#[command(
    name = "tidings",
    version,
    propagate_version = true,
    after_help = "Example:\n  tidings demo"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything once on temporary data: publish one sample event of every
    /// type and deliver it to a receiver that verifies the signatures.
    #[command(after_help = "Example:\n  tidings demo")]
    Demo {
        /// Go on running afterwards and print the addresses and a token.
        #[arg(long)]
        keep: bool,
    },
    /// Run all roles in this process.
    #[command(
        after_help = "Example:\n  tidings serve --dev --data ./tidings-data --listen 127.0.0.1:8080"
    )]
    Serve(RunArgs),
    /// Run the router alone; needs a Kafka broker.
    #[command(
        after_help = "Example:\n  tidings router --broker kafka://127.0.0.1:9092 --master-key master.key"
    )]
    Router(RunArgs),
    /// Run a sender alone; needs a Kafka broker.
    #[command(
        after_help = "Example:\n  tidings sender --broker kafka://127.0.0.1:9092 --master-key master.key"
    )]
    Sender(RunArgs),
    /// Run a recorder alone; needs a Kafka broker.
    #[command(
        after_help = "Example:\n  tidings recorder --broker kafka://127.0.0.1:9092 --master-key master.key"
    )]
    Recorder(RunArgs),
    /// Run the API alone; needs a Kafka broker.
    #[command(
        after_help = "Example:\n  tidings api --broker kafka://127.0.0.1:9092 --master-key master.key"
    )]
    Api(RunArgs),
    /// Check or show the settings.
    #[command(subcommand, after_help = "Example:\n  tidings config show")]
    Config(ConfigCommand),
    /// Check or make the topics of an installation on Kafka.
    #[command(
        subcommand,
        after_help = "Example:\n  tidings topics create --broker kafka://127.0.0.1:9092"
    )]
    Topics(TopicsCommand),
    /// Print a token of the local issuer.
    #[command(
        after_help = "Example:\n  tidings token --data ./tidings-data --pm 20 --scope eds.read --scope eds.write"
    )]
    Token(TokenArgs),
    /// Change issuers, programme managers, products and merchants.
    #[command(
        subcommand,
        after_help = "Example:\n  tidings tenants apply tenants.toml --data ./tidings-data"
    )]
    Tenants(TenantsCommand),
    /// Publish events: one JSON document a line.
    #[command(after_help = "Example:\n  tidings publish events.ndjson --data ./tidings-data")]
    Publish(PublishArgs),
    /// Show that every published event is accounted for; exit 1 if not.
    #[command(after_help = "Example:\n  tidings account --data ./tidings-data --json")]
    Account(AccountArgs),
    /// Tell the whole life of one event: where it was published, what was decided,
    /// every attempt and every resend.
    #[command(
        after_help = "Example:\n  tidings explain tidings.events.104/1/0 --data ./tidings-data"
    )]
    Explain(ExplainArgs),
    /// Look at records that were set aside, and publish them again.
    #[command(subcommand, after_help = "Example:\n  tidings quarantine list --data ./tidings-data")]
    Quarantine(QuarantineCommand),
    /// Stop sending to a webhook, to a tenant, of an event type, or at all: what comes
    /// is recorded and waits.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Example:\n  tidings pause --event-type 104 --reason maintenance --data ./tidings-data"
    )]
    Pause(PauseArgs),
    /// Send what a webhook did not get again, slowly.
    #[command(
        after_help = "Example:\n  tidings resend --webhook WEBHOOK --undelivered --since 2026-01-01 --dry-run --pm 20 --data ./tidings-data"
    )]
    Resend(ResendArgs),
    /// Let what was paused go on.
    #[command(after_help = "Example:\n  tidings resume --event-type 104 --data ./tidings-data")]
    Resume {
        #[command(flatten)]
        of: PauseOf,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Look at the master keys and add new ones (docs/upkeep.md).
    #[command(subcommand, after_help = "Example:\n  tidings keys list --data ./tidings-data")]
    Keys(KeysCommand),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// An event's uid, `topic/partition/offset`, or a notification's id.
    pub(crate) what: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResendArgs {
    /// A client's webhook; with --data also say whose it is (--pm or --issuer).
    #[arg(long, value_name = "ID", conflicts_with = "hook")]
    pub(crate) webhook: Option<String>,
    /// A merchant's or the operator's hook.
    #[arg(long, value_name = "ID")]
    pub(crate) hook: Option<String>,
    /// All that is on its list of undelivered ones.
    #[arg(long, required = true)]
    pub(crate) undelivered: bool,
    /// From this day on (yyyy-MM-dd, UTC).
    #[arg(long, value_name = "DAY")]
    pub(crate) since: String,
    /// Only say how many that are.
    #[arg(long, required_unless_present = "confirm", conflicts_with = "confirm")]
    pub(crate) dry_run: bool,
    /// Send them, if there are so many.
    #[arg(long, value_name = "N")]
    pub(crate) confirm: Option<usize>,
    /// At most so many a second.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) per_second: u32,
    /// The programme manager whose webhook it is.
    #[arg(long, value_name = "ID")]
    pub(crate) pm: Option<i64>,
    /// The issuer whose webhook it is.
    #[arg(long, value_name = "ID")]
    pub(crate) issuer: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PauseCommand>,
    #[command(flatten)]
    pub(crate) of: PauseOf,
    /// Why; kept in the registry and shown in the list.
    #[arg(long, required = true, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PauseCommand {
    /// List what is paused, since when, by whom and why.
    #[command(after_help = "Example:\n  tidings pause list --data ./tidings-data")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What is paused: one of these.
#[derive(Clone, Debug, Args)]
pub(crate) struct PauseOf {
    /// One webhook or hook.
    #[arg(long, value_name = "ID")]
    pub(crate) webhook: Option<String>,
    /// A programme manager's webhooks and its merchants' hooks.
    #[arg(long, value_name = "ID")]
    pub(crate) pm: Option<i64>,
    /// An issuer's webhooks and all of its programme managers.
    #[arg(long, value_name = "ID")]
    pub(crate) issuer: Option<String>,
    /// A merchant's hooks.
    #[arg(long, value_name = "KEY")]
    pub(crate) merchant: Option<String>,
    /// One event type, such as 104 or transaction.sale.success.
    #[arg(long, value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// All sending.
    #[arg(long)]
    pub(crate) everything: bool,
}

/// Options of `serve` and of the single roles.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// The settings file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory. Default: ./tidings-data
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the API listens; port 0 picks a free one. Default: 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// `local` or `kafka://HOST:PORT,…`. Default: local
    #[arg(long, value_name = "BROKER")]
    pub(crate) broker: Option<String>,
    /// The master key file. Default: keys/master.key in the data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
    /// For development: loopback only, plain HTTP endpoints, fast retries, own tokens.
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Exit 2 and name the key if a setting is unknown or wrong.
    #[command(after_help = "Example:\n  tidings config check --config tidings.toml")]
    Check(RunArgs),
    /// Print the settings in use, secrets masked.
    #[command(after_help = "Example:\n  tidings config show --dev")]
    Show(RunArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Print what is missing or wrong; exit 1 if anything is.
    #[command(after_help = "Example:\n  tidings topics check --broker kafka://127.0.0.1:9092")]
    Check(RunArgs),
    /// Make what is missing, and check the rest; may be repeated.
    #[command(after_help = "Example:\n  tidings topics create --broker kafka://127.0.0.1:9092")]
    Create(RunArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print each key's id and fingerprint, and which one seals; never a key.
    #[command(after_help = "Example:\n  tidings keys list --data ./tidings-data")]
    List(KeysArgs),
    /// Add a new key, which seals everything written from the next start on.
    #[command(after_help = "Example:\n  tidings keys add --data ./tidings-data")]
    Add {
        /// Only open with it for now: until every process has read the file again.
        #[arg(long)]
        standby: bool,
        #[command(flatten)]
        keys: KeysArgs,
    },
    /// Seal with this key from the next start on.
    #[command(after_help = "Example:\n  tidings keys use k1 --data ./tidings-data")]
    Use {
        /// Its id, as `keys list` prints it.
        id: String,
        #[command(flatten)]
        keys: KeysArgs,
    },
}

/// Where the master key file is.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// The settings file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The master key file. Default: keys/master.key in the data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) master_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The settings file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory that holds the issuer's key.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The programme manager that the token is for (claim `pmid`).
    #[arg(long, value_name = "ID")]
    pub(crate) pm: Option<i64>,
    /// The issuer that the token is for (claim `issuerid`).
    #[arg(long, value_name = "ID")]
    pub(crate) issuer: Option<String>,
    /// How long the token lives.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub(crate) ttl: humantime::Duration,
    /// A scope (eds.read, eds.write, eds.publish, admin); may be repeated or hold several.
    #[arg(long, required = true, value_name = "SCOPE")]
    pub(crate) scope: Vec<String>,
}

/// Where a client command finds the system.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArgs {
    /// The base URL of the API (or `TIDINGS_URL`, where no other flag names a system).
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The bearer token for `--url`.
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The data directory: its running server is asked, or its store is opened.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The settings file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The broker of an installation that nobody serves: `local` or `kafka://HOST:PORT,…`.
    #[arg(long, value_name = "BROKER")]
    pub(crate) broker: Option<String>,
}

impl ClientArgs {
    /// The URL of the flag; else, where no flag names a system, of the environment.
    pub(crate) fn asked_url(&self, environment: &BTreeMap<String, String>) -> Option<String> {
        let is_named = self.data.is_some() || self.config.is_some() || self.broker.is_some();
        let fallback = || environment.get("TIDINGS_URL").filter(|url| !url.is_empty()).cloned();
        self.url.clone().or_else(|| if is_named { None } else { fallback() })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Add and change what FILE names; prints `added N changed N removed N`.
    #[command(after_help = "Example:\n  tidings tenants apply tenants.toml --data ./tidings-data")]
    Apply {
        /// The tenants document (TOML).
        file: PathBuf,
        /// Remove what FILE does not name.
        #[arg(long)]
        prune: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The file with one event a line; `-` reads standard input.
    pub(crate) file: PathBuf,
    /// Write the lines unchecked to this event topic (scope `admin`, `--dev` only).
    #[arg(long, value_name = "TOPIC")]
    pub(crate) raw: Option<String>,
    /// Print the ingest answer instead of `accepted N`.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// Only this source topic.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List what was set aside.
    #[command(after_help = "Example:\n  tidings quarantine list --data ./tidings-data --json")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one record with its original bytes.
    #[command(after_help = "Example:\n  tidings quarantine show 0 --data ./tidings-data")]
    Show {
        id: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Publish a record again as a new event, mended or as it was.
    #[command(
        after_help = "Example:\n  tidings quarantine redrive 0 --body mended.json --data ./tidings-data"
    )]
    Redrive {
        id: String,
        /// The mended event.
        #[arg(long, value_name = "FILE")]
        body: Option<PathBuf>,
        #[command(flatten)]
        client: ClientArgs,
    },
}
