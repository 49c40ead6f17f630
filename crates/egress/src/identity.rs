//! As whom a webhook's connections are made, and whom they believe: a client
//! certificate with its key, and authorities of the webhook's own.
//!
//! It is made from the webhook's settings, and whatever cannot be used refuses the
//! whole: nothing connects without it (see [`crate::Connector`]). Two identities are
//! the same if their [`Identity::fingerprint`] is, and only then share a connection.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use tidings_signing::{Secret, sha256};
use tidings_types::Timestamp;
use webpki::{EndEntityCert, KeyUsage};

/// How long the authorities of one webhook may be in PEM, and how many they may be.
const MAX_BUNDLE: usize = 32 * 1024;
const MAX_AUTHORITIES: usize = 16;
/// How long a client certificate with those between it and its authority may be in PEM,
/// and how many they may be.
const MAX_CERTIFICATE: usize = 16 * 1024;
const MAX_CHAIN: usize = 8;
/// How long a key may be in PEM: one of RSA with 8,192 bits is half of it.
const MAX_KEY: usize = 12 * 1024;
/// Later than any certificate can say that it ends (RFC 5280, 4.1.2.5): 31 December 9999.
const AFTER_ALL: Duration = Duration::from_secs(1 << 38);

/// What an identity is made of.
#[derive(Clone, Copy)]
pub struct IdentityParts<'a> {
    /// Certificates in PEM that are believed in place of the public authorities.
    pub ca_bundle: Option<&'a str>,
    /// The client certificate in PEM, followed by those between it and its authority.
    pub certificate: Option<&'a str>,
    /// Its key in PEM, not encrypted.
    pub key: Option<&'a Secret>,
}

impl fmt::Debug for IdentityParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityParts").finish_non_exhaustive()
    }
}

/// One of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityPart {
    CaBundle,
    Certificate,
    Key,
}

/// Why an identity cannot be used. The text is for the client who registers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct IdentityRefusal {
    part: IdentityPart,
    problem: &'static str,
}

impl IdentityRefusal {
    /// What is wrong with it.
    pub const fn part(&self) -> IdentityPart {
        self.part
    }
}

/// An identity that can be used.
#[derive(Clone)]
pub struct Identity {
    fingerprint: [u8; 32],
    /// `None`: the public authorities.
    roots: Option<Arc<RootCertStore>>,
    client: Option<Client>,
}

#[derive(Clone)]
struct Client {
    key: Arc<CertifiedKey>,
    fingerprint: [u8; 32],
    not_before: Timestamp,
    not_after: Timestamp,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(***)")
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Identity {}

impl Identity {
    /// Makes an identity. Says nothing of whether its certificate holds now.
    ///
    /// # Errors
    /// With the part that cannot be used.
    pub fn new(parts: &IdentityParts<'_>) -> Result<Self, IdentityRefusal> {
        let roots = parts.ca_bundle.map(roots).transpose()?;
        let client = match (parts.certificate, parts.key) {
            (Some(certificate), Some(key)) => Some(client(certificate, key)?),
            (Some(_), None) => return Err(refuse(IdentityPart::Key, "is required beside it")),
            (None, Some(_)) => {
                return Err(refuse(IdentityPart::Certificate, "is required beside the key"));
            }
            (None, None) => None,
        };
        let text = |text: Option<&str>| sha256(&[text.unwrap_or_default().as_bytes()]);
        let key = parts.key.map_or(&[][..], Secret::expose);
        let fingerprint =
            sha256(&[&text(parts.ca_bundle), &text(parts.certificate), &sha256(&[key])]);
        Ok(Self { fingerprint, roots: roots.map(Arc::new), client })
    }

    /// Whether the client certificate holds at `now`.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_time(&self, now: Timestamp) -> Result<(), IdentityRefusal> {
        let Some(client) = &self.client else { return Ok(()) };
        if now > client.not_after {
            return Err(refuse(IdentityPart::Certificate, "has expired"));
        }
        if now < client.not_before {
            return Err(refuse(IdentityPart::Certificate, "is not valid yet"));
        }
        Ok(())
    }

    /// When the client certificate ends.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.client.as_ref().map(|client| client.not_after)
    }

    /// SHA-256 of the client certificate.
    pub fn certificate_fingerprint(&self) -> Option<&[u8; 32]> {
        self.client.as_ref().map(|client| &client.fingerprint)
    }

    /// What tells it from every other one.
    pub(crate) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The settings of one connection, and what notes whether it has shown the
    /// certificate. `public` are the authorities of webhooks without any of their own.
    ///
    /// Nothing is resumed: a resumed session shows no certificate.
    pub(crate) fn client_config(
        &self,
        provider: &Arc<CryptoProvider>,
        public: &Arc<RootCertStore>,
    ) -> (ClientConfig, Option<Arc<Shown>>) {
        let roots = self.roots.as_ref().unwrap_or(public);
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(Arc::clone(roots));
        let shown = self.client.as_ref().map(|client| {
            Arc::new(Shown { key: Arc::clone(&client.key), was_asked: AtomicBool::new(false) })
        });
        let mut config = match &shown {
            Some(shown) => {
                let resolver: Arc<dyn ResolvesClientCert> = Arc::<Shown>::clone(shown);
                builder.with_client_cert_resolver(resolver)
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        (config, shown)
    }
}

/// When the first certificate of a PEM text ends; `None` if it cannot be read.
pub fn certificate_not_after(pem: &str) -> Option<Timestamp> {
    let own = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(validity(&own)?.1)
}

/// Shows the certificate on one connection, and notes it.
pub(crate) struct Shown {
    key: Arc<CertifiedKey>,
    was_asked: AtomicBool,
}

impl Shown {
    /// Whether the other side has asked for the certificate.
    pub(crate) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(***)")
    }
}

impl ResolvesClientCert for Shown {
    /// Whatever authorities the other side names: it says itself what it does not take.
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

const fn refuse(part: IdentityPart, problem: &'static str) -> IdentityRefusal {
    IdentityRefusal { part, problem }
}

fn roots(pem: &str) -> Result<RootCertStore, IdentityRefusal> {
    let bad = |problem| refuse(IdentityPart::CaBundle, problem);
    if pem.len() > MAX_BUNDLE {
        return Err(bad("is longer than 32 KiB"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).ok_or(bad("is not certificates in PEM"))? {
        roots.add(certificate).map_err(|_malformed| bad("has a certificate that is malformed"))?;
    }
    match roots.len() {
        1..=MAX_AUTHORITIES => Ok(roots),
        0 => Err(bad("has no certificate in PEM")),
        _ => Err(bad("has more than 16 certificates")),
    }
}

fn client(pem: &str, key: &Secret) -> Result<Client, IdentityRefusal> {
    let bad = |problem| refuse(IdentityPart::Certificate, problem);
    if pem.len() > MAX_CERTIFICATE {
        return Err(bad("is longer than 16 KiB"));
    }
    let chain = certificates(pem).ok_or(bad("is not certificates in PEM"))?;
    if chain.len() > MAX_CHAIN {
        return Err(bad("has more than 8 certificates"));
    }
    let own = chain.first().ok_or(bad("has no certificate in PEM"))?;
    let malformed = bad("is malformed, or not of X.509 version 3");
    let (not_before, not_after) = validity(own).ok_or(malformed)?;
    for further in chain.iter().skip(1) {
        EndEntityCert::try_from(further).map_err(|_malformed| malformed)?;
    }
    let fingerprint = sha256(&[own]);
    let bad_key = |problem| refuse(IdentityPart::Key, problem);
    if key.expose().len() > MAX_KEY {
        return Err(bad_key("is longer than 12 KiB"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose())
        .map_err(|_malformed| bad_key("is not a private key in PEM, without a passphrase"))?;
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    let key = certified.map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) {
            bad_key("is not the key of the certificate")
        } else {
            bad_key("is of a kind that cannot be used: RSA, ECDSA and Ed25519 can")
        }
    })?;
    Ok(Client { key: Arc::new(key), fingerprint, not_before, not_after })
}

/// The certificates of a PEM text; `None` if one cannot be read.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()
}

/// From when to when a certificate holds. The library says so only of one that does not
/// hold at a time that it is asked about, before it looks at anything else.
fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let at = |time| {
        let usage = KeyUsage::client_auth();
        let time = UnixTime::since_unix_epoch(time);
        certificate.verify_for_usage(&[], &[], &[], time, usage, None, None).err()
    };
    let stamp = |time: UnixTime| Some(Timestamp::from_secs(i64::try_from(time.as_secs()).ok()?));
    let webpki::Error::CertExpired { not_after, .. } = at(AFTER_ALL)? else { return None };
    // What holds since ever is not refused for its time.
    let webpki::Error::CertNotValidYet { not_before, .. } = at(Duration::ZERO)? else {
        return Some((Timestamp::ZERO, stamp(not_after)?));
    };
    Some((stamp(not_before)?, stamp(not_after)?))
}
