//! `DIR/address`: one line, the base URL of the process that serves the data
//! directory. Written when it is ready, removed at a clean end; after a crash it
//! names nobody until the next process takes it away, so whoever reads it asks
//! first.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};

const NAME: &str = "address";
const DRAFT: &str = "address.new";
const LOCK: &str = "address.lock";

/// The address file of this process.
#[derive(Debug)]
pub(super) struct AddressFile(PathBuf);

/// A data directory that no other process announces itself in, as long as this lives.
#[derive(Debug)]
pub(super) struct Claim {
    data: PathBuf,
    /// The system lets it go with the process, however that ends.
    _lock: File,
}

/// Claims the data directory.
///
/// # Errors
/// When another process has it.
pub(super) fn claim(data: &Path) -> anyhow::Result<Claim> {
    let path = data.join(LOCK);
    let cannot = || format!("cannot use {}", path.display());
    std::fs::create_dir_all(data).with_context(cannot)?;
    let lock = File::options().create(true).append(true).open(&path).with_context(cannot)?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim { data: data.to_owned(), _lock: lock }),
        Err(TryLockError::WouldBlock) => Err(anyhow!(
            "{} is in use by another process; stop that one first, or use another --data",
            data.display()
        )),
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

/// Takes away what a process that crashed has left: whoever waits for the file
/// waits for the one that is starting.
pub(super) fn clear(Claim { data, _lock }: &Claim) -> anyhow::Result<()> {
    let path = data.join(NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes the file in one step.
pub(super) fn write(Claim { data, _lock }: &Claim, base_url: &str) -> anyhow::Result<AddressFile> {
    let (draft, path) = (data.join(DRAFT), data.join(NAME));
    std::fs::write(&draft, format!("{base_url}\n"))
        .and_then(|()| std::fs::rename(&draft, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(AddressFile(path))
}

impl AddressFile {
    pub(super) fn remove(self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.0) {
            // Somebody took it away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("cannot remove {}", self.0.display())),
        }
    }
}

/// The address that the file names; whether somebody answers there is not known.
pub(crate) fn running_address(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join(NAME)).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
