//! The `tidings` program: reads the command line, runs one command, and turns
//! what came of it into an exit code (0 done, 1 found wrong, 2 usage or settings).

mod app;
mod cli;
mod client;
mod commands;
mod demo;
mod failpoints;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
