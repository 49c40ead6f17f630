//! Files with keys: the deployment's master key, the local issuer's key, the API's
//! certificate. None of them is ever printed.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, ensure};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tidings_auth::{LocalIssuer, TokenRequest};
use tidings_signing::KeyRing;
use tidings_telemetry::SystemRng;
use tidings_types::Rng;
use tokio_rustls::TlsAcceptor;

use crate::{
    commands::Failure,
    settings::{BrokerChoice, Settings, TlsFiles},
};

/// The directory of keys in a data directory.
pub(super) fn dir(data: &Path) -> PathBuf {
    data.join("keys")
}

/// Reads the master key file. Makes one where there is no log yet (`is_new`): a log
/// whose key is gone cannot be read with another.
pub(super) fn master_key(
    settings: &Settings,
    is_new: bool,
    rng: &dyn Rng,
) -> anyhow::Result<KeyRing> {
    let path =
        settings.master_key.clone().unwrap_or_else(|| dir(&settings.data).join("master.key"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return make(settings, &path, is_new, rng);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read the master key {}", path.display()));
        }
    };
    let mode = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.permissions();
    ensure!(
        mode.mode() & 0o077 == 0,
        "the master key {} can be read by others; run chmod 600 on it",
        path.display()
    );
    KeyRing::parse(&text)
        .with_context(|| format!("the master key {} cannot be used", path.display()))
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
    let mut random = zeroize::Zeroizing::new([0; 32]);
    rng.fill(&mut *random);
    let ring = KeyRing::generate(&random);
    let text = zeroize::Zeroizing::new(ring.to_text());
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
    let written = made.and_then(|()| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::File::open(parent)?.sync_all()
    });
    written.with_context(|| format!("cannot write the master key {}", path.display()))?;
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

/// The API's own TLS, from its PEM files.
pub(super) fn tls_acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let shown = files.certificate.display();
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow!("listen.tls_certificate {shown} cannot be read: {error}"))?;
    ensure!(!chain.is_empty(), "listen.tls_certificate {shown} holds no certificate");
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        anyhow!("listen.tls_key {} cannot be read: {error}", files.key.display())
    })?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("listen.tls_certificate and listen.tls_key do not fit together")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
