//! `tidings keys`: the master key file. Works on the file alone, so also while the
//! system runs, which reads it at its next start.

use super::{Failure, environment, say};
use crate::{
    app::{MasterKeyFile, Role},
    cli::KeysArgs,
    settings::{self, Flags, Source},
};

/// Prints the keys in the order of the file.
pub(crate) fn list(args: &KeysArgs) -> Result<(), Failure> {
    for key in open(args)?.keys() {
        say(format!("{} {} {}", key.id, key.fingerprint, word(key.role)));
    }
    Ok(())
}

/// Adds a key made of the system's randomness.
pub(crate) fn add(standby: bool, args: &KeysArgs) -> Result<(), Failure> {
    let role = if standby { Role::Opens } else { Role::Seals };
    let id = open(args)?.add(role)?;
    say(format!("added {id}"));
    Ok(())
}

/// Makes a key of the file the one that seals.
pub(crate) fn use_for_sealing(id: &str, args: &KeysArgs) -> Result<(), Failure> {
    open(args)?.seal_with(id)?;
    say(format!("{id} seals"));
    Ok(())
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Seals => "seals",
        Role::Opens => "opens",
    }
}

fn open(args: &KeysArgs) -> Result<MasterKeyFile, Failure> {
    let flags =
        Flags { data: args.data.clone(), master_key: args.master_key.clone(), ..Flags::default() };
    let source = Source { file: args.config.as_deref(), environment: environment() };
    let settings = settings::load(&source, &flags)?;
    MasterKeyFile::open(&settings).map_err(Failure::Usage)
}
