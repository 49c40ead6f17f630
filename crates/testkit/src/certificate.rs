//! Certificates for tests: an authority, and servers that it vouches for or not.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
}

/// A server's certificate and key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

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

    /// A server's settings: TLS 1.2 and 1.3, no client certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let config = builder().with_no_client_auth();
        self.finish(config.with_single_cert(vec![self.certificate.clone()], self.key()))
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
        self.finish(config.with_single_cert(vec![self.certificate.clone()], self.key()))
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).expect("rcgen writes PKCS #8")
    }

    fn finish(&self, config: Result<ServerConfig, rustls::Error>) -> Arc<ServerConfig> {
        let mut config = config.expect("the key fits the certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
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
        }
    }
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
