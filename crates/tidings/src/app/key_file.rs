//! The master key file as an operator changes it: keys are added and chosen, never
//! removed, for what they sealed in the registry stays for ever.
//!
//! The file is replaced whole, so that nobody reads half of it; comments stay.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use tidings_signing::{KeyRing, MasterKey};
use tidings_telemetry::SystemRng;
use tidings_types::Rng as _;
use zeroize::Zeroizing;

use super::keys::{master_key_path, read_master_key};
use crate::settings::Settings;

/// What a key of the file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// What is written is sealed with it: the last one of the file.
    Seals,
    /// It opens what it sealed.
    Opens,
}

/// A key as `keys list` shows it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) fingerprint: String,
    pub(crate) role: Role,
}

/// The master key file.
pub(crate) struct MasterKeyFile {
    path: PathBuf,
    text: Zeroizing<String>,
    ring: KeyRing,
}

impl MasterKeyFile {
    /// Reads the file that the settings name.
    ///
    /// # Errors
    /// When it is not there or cannot be used.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let path = master_key_path(settings);
        let Some((text, ring)) = read_master_key(&path)? else {
            bail!("there is no master key {}; the first `tidings serve` makes it", path.display());
        };
        Ok(Self { path, text, ring })
    }

    pub(crate) fn keys(&self) -> Vec<Shown> {
        let keys = self.ring.masters();
        let last = keys.last().map(|key| key.id.clone());
        let shown = |key: MasterKey| Shown {
            role: if Some(&key.id) == last.as_ref() { Role::Seals } else { Role::Opens },
            id: key.id,
            fingerprint: key.fingerprint,
        };
        keys.into_iter().map(shown).collect()
    }

    /// Adds a new key and gives its id.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn add(self, role: Role) -> anyhow::Result<String> {
        let id = self.new_id();
        let mut random = Zeroizing::new([0; 32]);
        SystemRng::new().fill(&mut *random);
        let line = Zeroizing::new(KeyRing::line(&id, &random));
        let mut lines: Vec<&str> = self.text.lines().collect();
        let place = match (role, lines.iter().rposition(|line| is_key(line))) {
            (Role::Opens, Some(newest)) => newest,
            (Role::Opens, None) | (Role::Seals, _) => lines.len(),
        };
        lines.insert(place, line.trim_end());
        self.replace(&lines)?;
        Ok(id)
    }

    /// Moves a key to the end of the file.
    ///
    /// # Errors
    /// When there is no such key, or the file cannot be written.
    pub(crate) fn seal_with(self, id: &str) -> anyhow::Result<()> {
        let mut lines: Vec<&str> = self.text.lines().collect();
        let place = lines.iter().position(|line| is_key(line) && id_of(line) == id);
        let place = place.ok_or_else(|| {
            let shown = self.path.display();
            anyhow!("{shown} has no key {id:?}; `tidings keys list` shows those it has")
        })?;
        let line = lines.remove(place);
        lines.push(line);
        self.replace(&lines)
    }

    /// `k` and a number above all of this form.
    fn new_id(&self) -> String {
        let numbers = self.ring.masters();
        let numbers = numbers.iter().filter_map(|key| key.id.strip_prefix('k')?.parse().ok());
        format!("k{}", numbers.max().unwrap_or(0_u64).saturating_add(1))
    }

    /// Puts a file with these lines in its place, for the same owner.
    fn replace(&self, lines: &[&str]) -> anyhow::Result<()> {
        let text = Zeroizing::new(lines.join("\n") + "\n");
        KeyRing::parse(&text).context("the changed file could not be read")?;
        let draft = self.path.with_extension("new");
        let shown = self.path.display();
        let written = write(&draft, &self.path, text.as_bytes());
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            bail!(
                "{} exists: another change is under way or broke off; remove it",
                draft.display()
            );
        }
        if written.is_err() {
            // Whatever of it was written holds keys.
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        written.with_context(|| format!("cannot write the master key {shown}"))
    }
}

impl std::fmt::Debug for MasterKeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Writes `draft` for the owner of `path`, then renames it to `path`.
fn write(draft: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let owner = fs::metadata(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    chown(draft, Some(owner.uid()), Some(owner.gid()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Whether a line of a file that was read holds a key.
fn is_key(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

fn id_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}
