//! Files with keys: the deployment's master key and the local issuer's key. None of
//! them is ever printed.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, ensure};
use tidings_auth::{LocalIssuer, TokenRequest};
use tidings_signing::KeyRing;
use tidings_telemetry::SystemRng;
use tidings_types::Rng;
use zeroize::Zeroizing;

use crate::{
    commands::Failure,
    settings::{BrokerChoice, Settings},
};

/// The directory of keys in a data directory.
pub(super) fn dir(data: &Path) -> PathBuf {
    data.join("keys")
}

/// Where the master key file is.
pub(super) fn master_key_path(settings: &Settings) -> PathBuf {
    settings.master_key.clone().unwrap_or_else(|| dir(&settings.data).join("master.key"))
}

/// The text and the keys of a master key file; `None` if there is none.
pub(super) fn read_master_key(path: &Path) -> anyhow::Result<Option<(Zeroizing<String>, KeyRing)>> {
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the master key {shown}"));
        }
    };
    let mode = fs::metadata(path).with_context(|| format!("no {shown}"))?.permissions();
    ensure!(
        mode.mode() & 0o077 == 0,
        "the master key {shown} can be read by others; run chmod 600 on it"
    );
    let ring =
        KeyRing::parse(&text).with_context(|| format!("the master key {shown} cannot be used"))?;
    Ok(Some((text, ring)))
}

/// Reads the master key file. Makes one where there is no log yet (`is_new`): a log
/// whose key is gone cannot be read with another.
pub(super) fn master_key(
    settings: &Settings,
    is_new: bool,
    rng: &dyn Rng,
) -> anyhow::Result<KeyRing> {
    let path = master_key_path(settings);
    match read_master_key(&path)? {
        Some((_, ring)) => Ok(ring),
        None => make(settings, &path, is_new, rng),
    }
}

fn make(settings: &Settings, path: &Path, is_new: bool, rng: &dyn Rng) -> anyhow::Result<KeyRing> {
    let shown = path.display();
    match &settings.broker {
        BrokerChoice::Local => ensure!(
            is_new,
            "the master key {shown} is missing, and without it nothing in {} can be read; restore it from your copy",
            settings.data.display()
        ),
        BrokerChoice::Kafka(_) => ensure!(
            is_new,
            "the master key {shown} is missing; every process needs the same one: name it with --master-key (the first `tidings serve` on an empty Kafka makes keys/master.key in its data directory)"
        ),
    }
    let mut random = Zeroizing::new([0; 32]);
    rng.fill(&mut *random);
    let ring = KeyRing::generate(&random);
    let text = Zeroizing::new(ring.to_text());
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
    let written = made.and_then(|()| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(parent)?.sync_all()
    });
    written.with_context(|| format!("cannot write the master key {}", path.display()))?;
    tracing::info!(path = %shown, "made a new master key; keep a copy of it apart from the log");
    Ok(ring)
}

/// The issuer of a data directory.
pub(super) fn local_issuer(data: &Path) -> anyhow::Result<LocalIssuer> {
    Ok(LocalIssuer::open_or_create(data, &SystemRng::new())?)
}

/// Refuses a directory that Tidings has never used: a slip of the pen must not become
/// a key that nobody takes tokens of.
///
/// # Errors
/// [`Failure::Usage`], which names it.
pub(crate) fn check_data_directory(data: &Path) -> Result<(), Failure> {
    if ["keys", "log", "eventlog"].iter().any(|part| data.join(part).is_dir()) {
        return Ok(());
    }
    Err(Failure::Usage(anyhow!(
        "{} is not a data directory of Tidings; name the one that `tidings serve --data` uses, \
         and start that first if it is new",
        data.display()
    )))
}

/// Signs a token with the key in a data directory; reads or makes that key and
/// nothing else.
pub(crate) fn sign_token(data: &Path, request: &TokenRequest) -> anyhow::Result<String> {
    Ok(local_issuer(data)?.sign(request, super::system_now())?)
}
