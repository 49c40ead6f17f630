//! Certificates for tests: an authority, and servers that it vouches for or not.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidings_types::Timestamp;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Now,
    Past,
    Future,
    /// Until the end of this day of UTC.
    Until(Timestamp),
}

/// A server's certificate and key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

/// What stands before a PEM item of each kind, and behind it.
const CERTIFICATE: &str = "CERTIFICATE";
const PRIVATE_KEY: &str = "PRIVATE KEY";

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes an authority with a fresh key.
    pub fn new() -> Self {
        let mut params = params(&[], "Tidings test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key_pair())
            .expect("the parameters of an authority are complete");
        Self { issuer }
    }

    /// What must be trusted for its certificates to be.
    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Vouches for a server with these names (and addresses).
    pub fn issue(&self, names: &[&str], validity: Validity) -> Identity {
        let mut params = params(names, names.first().copied().unwrap_or("nameless"));
        validity.apply(&mut params);
        let key = key_pair();
        let certificate =
            params.signed_by(&key, &self.issuer).expect("the parameters of a server are complete");
        Identity { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// The authority's certificate in PEM.
    pub fn root_pem(&self) -> String {
        pem(CERTIFICATE, &self.root())
    }

    /// Vouches for somebody under a serial number of its own.
    pub fn issue_numbered(&self, name: &str, number: u64) -> Identity {
        let key = key_pair();
        let mut params = params(&[], name);
        params.serial_number = Some(SerialNumber::from(number));
        let certificate =
            params.signed_by(&key, &self.issuer).expect("the parameters of a client are complete");
        Identity { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// Takes certificates back: a list (CRL) in PEM.
    pub fn revoke(&self, numbers: &[u64]) -> String {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(u64::try_from(numbers.len()).unwrap_or(u64::MAX)),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("the parameters of a list are complete");
        list.pem().expect("a list has a PEM form")
    }

    /// Vouches for a server whose name stands only in the subject's common name.
    pub fn issue_common_name(&self, name: &str) -> Identity {
        let key = key_pair();
        let certificate = params(&[], name)
            .signed_by(&key, &self.issuer)
            .expect("the parameters of a server are complete");
        Identity { certificate: certificate.der().clone(), key: key.serialize_der() }
    }
}

impl Identity {
    /// A server that only vouches for itself.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = key_pair();
        let certificate = params(names, "self")
            .self_signed(&key)
            .expect("the parameters of a server are complete");
        Self { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// As `openssl req -x509` does it: self-signed, and an authority by itself.
    pub fn self_signed_authority(names: &[&str]) -> Self {
        let key = key_pair();
        let mut params = params(names, "self");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate =
            params.self_signed(&key).expect("the parameters of a server are complete");
        Self { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// The same with a certificate that says that it is signed with SHA-1.
    #[must_use]
    pub fn with_sha1(self) -> Self {
        Self { certificate: says_sha1(&self.certificate).into(), key: self.key }
    }

    /// A server's settings: TLS 1.2 and 1.3, no client certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config_speaking(b"http/1.1")
    }

    /// The same for a server that speaks another protocol inside.
    pub fn server_config_speaking(&self, protocol: &[u8]) -> Arc<ServerConfig> {
        let config = builder().with_no_client_auth();
        let chain = vec![self.certificate.clone()];
        self.finish(config.with_single_cert(chain, self.key()), protocol)
    }

    /// A server that wants a client certificate of `authority`.
    pub fn server_config_wanting(&self, authority: &Authority) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root()).expect("an authority's certificate is well-formed");
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(aws_lc_rs::default_provider()),
        )
        .build()
        .expect("there is a root");
        let config = builder().with_client_cert_verifier(verifier);
        let chain = vec![self.certificate.clone()];
        self.finish(config.with_single_cert(chain, self.key()), b"http/1.1")
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn certificate_pem(&self) -> String {
        pem(CERTIFICATE, &self.certificate)
    }

    pub fn key_pem(&self) -> String {
        pem(PRIVATE_KEY, &self.key)
    }

    /// A client that shows this identity to servers of `authority`.
    pub fn client_config(&self, authority: &Authority) -> Arc<ClientConfig> {
        let chain = vec![self.certificate.clone()];
        let config = client_builder(authority).with_client_auth_cert(chain, self.key());
        Arc::new(config.expect("the key fits the certificate"))
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).expect("rcgen writes PKCS #8")
    }

    fn finish(
        &self,
        config: Result<ServerConfig, rustls::Error>,
        protocol: &[u8],
    ) -> Arc<ServerConfig> {
        let mut config = config.expect("the key fits the certificate");
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

impl Validity {
    fn apply(self, params: &mut CertificateParams) {
        match self {
            Self::Now => {}
            Self::Past => {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            Self::Future => {
                params.not_before = date_time_ymd(4000, 1, 1);
                params.not_after = date_time_ymd(4001, 1, 1);
            }
            Self::Until(time) => {
                let (year, month, day, ..) = (time + Duration::from_secs(86_400)).civil();
                let part = |part| u8::try_from(part).expect("of a date");
                let year = i32::try_from(year).expect("of this age");
                params.not_after = date_time_ymd(year, part(month), part(day));
            }
        }
    }
}

/// Puts the name of ECDSA with SHA-1 in place of that with SHA-256, which no library
/// of today would sign with. It is one byte shorter and stands in the certificate
/// and in the part of it that is signed.
fn says_sha1(certificate: &[u8]) -> Vec<u8> {
    const SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    const SHA1: &[u8] = &[0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
    let mut changed = Vec::new();
    let mut rest = certificate;
    while let Some(at) = rest.windows(SHA256.len()).position(|part| part == SHA256) {
        let (before, after) = rest.split_at(at);
        changed.extend_from_slice(before);
        changed.extend_from_slice(SHA1);
        rest = after.get(SHA256.len()..).unwrap_or_default();
    }
    changed.extend_from_slice(rest);
    // Two lengths of two bytes: of the whole, and of the part that is signed.
    for (at, shorter) in [(2, 2), (6, 1)] {
        if let Some(length) = changed.get_mut(at..at + 2) {
            let value = u16::from_be_bytes([length[0], length[1]]) - shorter;
            length.copy_from_slice(&value.to_be_bytes());
        }
    }
    changed
}

/// A client that shows nothing, to servers of `authority`.
pub fn anonymous_client_config(authority: &Authority) -> Arc<ClientConfig> {
    Arc::new(client_builder(authority).with_no_client_auth())
}

fn client_builder(
    authority: &Authority,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root()).expect("an authority's certificate is well-formed");
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {kind}-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.push_str(&String::from_utf8_lossy(line));
        lines.push('\n');
    }
    lines + &format!("-----END {kind}-----\n")
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for TLS 1.2 and 1.3")
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are ASCII");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn key_pair() -> KeyPair {
    KeyPair::generate().expect("the system gives randomness")
}
