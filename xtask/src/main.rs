//! The project's own commands: `cargo xtask <command>`.

mod deny;
mod layers;
mod needs;
mod run;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, clippy, tidy, docs and the tests that take less than a minute.
    Check,
    /// Layers, manifests, file heads, words.
    Tidy,
    /// Everything: what `check` does, deny, and all tests.
    Test,
    /// Licences, banned and doubled crates, and sources of every dependency.
    Deny,
    /// Regenerate crates/proto/src/generated.
    Proto,
    /// Tidings beside the bare floor, or healthy webhooks beside broken ones; prints a
    /// JSON line a run and a table.
    Bench {
        #[arg(value_enum, default_value_t = run::Bench::Floor)]
        what: run::Bench,
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Deliveries of one measurement.
        #[arg(long, default_value_t = 60_000)]
        deliveries: u64,
        /// Only the cases whose names contain this, such as "latency" or "fan-out 10,".
        #[arg(long, value_name = "PART")]
        only: Option<String>,
        /// Measure this binary instead of building the one that is shipped.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Isolation: seconds of each half of a pair.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Isolation: events a second to the healthy webhook, and to the others.
        #[arg(long, default_value_t = 400)]
        rate: u32,
        /// Isolation: webhooks in the cases with many.
        #[arg(long, default_value_t = 1000)]
        many: usize,
    },
    /// Kill the real binary under load, at random and at every named step.
    Crash {
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Break a rule on purpose: the run must find it.
        #[arg(long, value_name = "NAME")]
        sabotage: Option<String>,
        /// Only this step or fault; may be repeated.
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// `local` runs `serve`; `kafka` brings a node and runs each role as
        /// processes of its own.
        #[arg(long, value_enum, default_value_t)]
        broker: run::Broker,
        /// Nodes of Kafka.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=1))]
        brokers: u8,
        /// Run this binary instead of building one.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// A dead webhook with a long queue beside a hundred healthy ones: small and level?
    Memory {
        /// Notifications queued for the dead one.
        #[arg(long, default_value_t = 1_000_000)]
        queued: u64,
        /// Deliveries a second to the healthy ones.
        #[arg(long, default_value_t = 1_000)]
        rate: u64,
        /// Of steady load.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
    },
    /// Run the services on the memory broker under a seed.
    Sim {
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// Only this seed.
        #[arg(long)]
        seed: Option<u64>,
        /// Break a rule on purpose: the run must find it.
        #[arg(long, value_name = "NAME")]
        sabotage: Option<String>,
    },
    /// Cut the power (copy the disk image in mid-run) and look what is left.
    Powercut {
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, value_name = "NAME")]
        sabotage: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check => run::check(),
        Command::Tidy => tidy::run(),
        Command::Test => run::test(),
        Command::Deny => deny::run(),
        Command::Proto => run::proto(),
        Command::Bench { what, runs, deliveries, only, binary, seconds, rate, many } => {
            match what {
                run::Bench::Floor => run::bench(runs, deliveries, only, binary),
                run::Bench::Isolation => {
                    let time = std::time::Duration::from_secs(seconds);
                    run::isolation(runs, time, rate, many, only, binary)
                }
            }
        }
        Command::Crash { rounds, seed, sabotage, only, broker, brokers: _, binary } => {
            run::crash(rounds, seed, sabotage, only, (broker, binary))
        }
        Command::Memory { queued, rate, seconds } => run::memory(queued, rate, seconds),
        Command::Sim { seeds, seed, sabotage } => run::sim(seeds, seed, sabotage.as_deref()),
        Command::Powercut { rounds, seed, sabotage } => {
            run::powercut(rounds, seed, sabotage.as_deref())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
