//! `DIR/address`: one line, the base URL of the process that serves the data
//! directory. Written when it is ready, removed at a clean end; after a crash it
//! names nobody until the next process takes it away, so whoever reads it asks
//! first.
//!
//! A router or a sender keeps nothing in its directory, so it shares it with others
//! and stands in the file only while nobody has claimed the directory: of several the
//! one that was ready last.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};

use super::Announces;

const NAME: &str = "address";
const DRAFT: &str = "address.new";
const LOCK: &str = "address.lock";

/// The address file of this process.
#[derive(Debug)]
pub(super) struct AddressFile {
    path: PathBuf,
    base_url: String,
}

/// The data directory of a process that announces itself.
#[derive(Debug)]
pub(super) enum Place {
    Own(Claim),
    Shared(PathBuf),
}

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
fn claim(data: &Path) -> anyhow::Result<Claim> {
    try_claim(data)?.ok_or_else(|| {
        anyhow!(
            "{} is in use by another process; stop that one first, or use another --data",
            data.display()
        )
    })
}

/// Claims the data directory; `None` if another process has it.
fn try_claim(data: &Path) -> anyhow::Result<Option<Claim>> {
    let path = data.join(LOCK);
    let cannot = || format!("cannot use {}", path.display());
    std::fs::create_dir_all(data).with_context(cannot)?;
    let lock = File::options().create(true).append(true).open(&path).with_context(cannot)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Claim { data: data.to_owned(), _lock: lock })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

impl Place {
    /// The data directory of a process that announces itself; claims it if it is its own.
    ///
    /// # Errors
    /// When another process has it.
    pub(super) fn of(data: &Path, announces: Announces) -> anyhow::Result<Option<Self>> {
        match announces {
            Announces::No => Ok(None),
            Announces::Alone => claim(data).map(|claim| Some(Self::Own(claim))),
            Announces::Beside => Ok(Some(Self::Shared(data.to_owned()))),
        }
    }

    /// Takes away what a process that crashed has left: whoever waits for the file
    /// waits for the one that is starting.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        match self {
            Self::Own(claim) => claim.clear(),
            Self::Shared(data) => try_claim(data)?.map_or(Ok(()), |claim| claim.clear()),
        }
    }

    /// Writes the file in one step, unless it is another's.
    pub(super) fn write(&self, base_url: &str) -> anyhow::Result<Option<AddressFile>> {
        match self {
            Self::Own(claim) => claim.write(base_url).map(Some),
            Self::Shared(data) => try_claim(data)?.map(|claim| claim.write(base_url)).transpose(),
        }
    }
}

impl Claim {
    fn clear(&self) -> anyhow::Result<()> {
        remove(&self.data.join(NAME))
    }

    fn write(&self, base_url: &str) -> anyhow::Result<AddressFile> {
        let (draft, path) = (self.data.join(DRAFT), self.data.join(NAME));
        std::fs::write(&draft, format!("{base_url}\n"))
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(AddressFile { path, base_url: base_url.to_owned() })
    }
}

impl AddressFile {
    /// Removes it, unless another process stands in it by now.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text.trim() != self.base_url => Ok(()),
            Ok(_) | Err(_) => remove(&self.path),
        }
    }
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The address that the file names; whether somebody answers there is not known.
pub(crate) fn running_address(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join(NAME)).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_directory_names_who_was_ready_last_and_never_one_beside_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let shared = || Place::Shared(data.to_owned());
        std::fs::write(data.join(NAME), "http://crashed\n").unwrap();
        let (one, other) = (shared(), shared());
        one.clear().unwrap();
        assert_eq!(running_address(data), None);
        let first = one.write("http://one").unwrap().unwrap();
        let second = other.write("http://other").unwrap().unwrap();
        first.remove().unwrap();
        assert_eq!(running_address(data).as_deref(), Some("http://other"));

        let own = Place::Own(claim(data).unwrap());
        own.clear().unwrap();
        let third = own.write("http://owner").unwrap().unwrap();
        other.clear().unwrap();
        assert!(other.write("http://other").unwrap().is_none());
        second.remove().unwrap();
        assert_eq!(running_address(data).as_deref(), Some("http://owner"));
        assert!(claim(data).is_err());
        third.remove().unwrap();
        assert_eq!(running_address(data), None);
    }
}
