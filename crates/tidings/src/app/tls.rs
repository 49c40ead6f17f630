//! The API's own TLS: certificate, key, and whose clients' certificates are taken,
//! from PEM files that are read again when they change.
//!
//! Files that are replaced one by one do not fit together for a moment: what cannot
//! be used changes nothing, and is said once.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tidings_signing::sha256;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::settings::{TlsClients, TlsFiles};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The files, and what was made of them last.
pub(super) struct Tls {
    files: TlsFiles,
    /// Of the files' bytes when they were last looked at.
    digest: [u8; 32],
    current: watch::Sender<Arc<ServerConfig>>,
}

/// Says whether the files can be used.
///
/// # Errors
/// When they cannot; names the setting.
pub(super) fn check(files: &TlsFiles) -> anyhow::Result<()> {
    read(files).map(|_config| ())
}

impl Tls {
    /// # Errors
    /// When the files cannot be used; names the setting.
    pub(super) fn open(files: TlsFiles) -> anyhow::Result<Self> {
        let digest = digest(&files)?;
        let (current, _) = watch::channel(Arc::new(read(&files)?));
        Ok(Self { files, digest, current })
    }

    /// What connections take.
    pub(super) fn current(&self) -> tidings_api::Tls {
        self.current.subscribe()
    }

    /// Takes what the files become, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let joined = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            self = joined.await.context("looking at the TLS files broke off")?;
        }
    }

    fn look(&mut self) {
        match digest(&self.files) {
            Ok(digest) if digest == self.digest => return,
            Ok(digest) => self.digest = digest,
            Err(error) => {
                tracing::debug!(%error, "a TLS file cannot be read; the last ones are used");
                return;
            }
        }
        match read(&self.files) {
            Ok(config) => {
                self.current.send_replace(Arc::new(config));
                tracing::info!("the TLS files changed; new connections use them");
            }
            Err(error) => {
                tracing::warn!(
                    "the TLS files changed and cannot be used, the last ones are: {error:#}"
                );
            }
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// One digest of all files.
fn digest(files: &TlsFiles) -> anyhow::Result<[u8; 32]> {
    let clients = files.clients.as_ref();
    let more = clients
        .into_iter()
        .flat_map(|clients| std::iter::once(&clients.authorities).chain(clients.revoked.as_ref()));
    let mut digests = Vec::new();
    for path in [&files.certificate, &files.key].into_iter().chain(more) {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        digests.push(sha256(&[&bytes]));
    }
    Ok(sha256(&digests.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>()))
}

fn read(files: &TlsFiles) -> anyhow::Result<ServerConfig> {
    let chain: Vec<CertificateDer<'static>> = pem("listen.tls_certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        anyhow!("listen.tls_key {} cannot be read: {error}", files.key.display())
    })?;
    let builder = match &files.clients {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(clients) => ServerConfig::builder().with_client_cert_verifier(verifier(clients)?),
    };
    builder
        .with_single_cert(chain, key)
        .context("listen.tls_certificate and listen.tls_key do not fit together")
}

fn verifier(clients: &TlsClients) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in pem("listen.tls_client_ca", &clients.authorities)? {
        roots.add(authority).with_context(|| {
            format!("listen.tls_client_ca {} holds no authority", clients.authorities.display())
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder(Arc::new(roots));
    if let Some(path) = &clients.revoked {
        let lists: Vec<CertificateRevocationListDer<'static>> = pem("listen.tls_client_crl", path)?;
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().context("listen.tls_client_ca or listen.tls_client_crl cannot be used")
}

/// The authorities in a PEM file, each of which can vouch for a server.
///
/// # Errors
/// When there is none, or one cannot; names `setting`.
pub(super) fn authorities(
    setting: &str,
    path: &Path,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let authorities: Vec<CertificateDer<'static>> = pem(setting, path)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots
            .add(authority.clone())
            .with_context(|| format!("{setting} {} holds no authority", path.display()))?;
    }
    Ok(authorities)
}

/// All items of one kind in a PEM file; at least one.
fn pem<T: PemObject>(setting: &str, path: &Path) -> anyhow::Result<Vec<T>> {
    let shown = path.display();
    let items = T::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow!("{setting} {shown} cannot be read: {error}"))?;
    ensure!(!items.is_empty(), "{setting} {shown} holds nothing that it is for");
    Ok(items)
}
