//! TLS towards endpoints: 1.2 and 1.3, full verification, public authorities or the
//! webhook's own.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName};
use tidings_types::AttemptCode;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{connect::io_code, identity::Identity};

/// The only protocol that is offered inside.
const HTTP_1: &[u8] = b"http/1.1";

pub(super) struct Tls {
    /// Of every connection that has no identity of its own.
    anonymous: TlsConnector,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
}

impl Tls {
    pub(super) fn new(extra_roots: &[CertificateDer<'static>]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for root in extra_roots {
            if let Err(error) = roots.add(root.clone()) {
                tracing::error!(%error, "an extra certificate authority cannot be used, check its file");
            }
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Self { anonymous: TlsConnector::from(Arc::new(config)), provider, roots }
    }

    /// Secures a connection, as `identity` if there is one.
    pub(super) async fn connect(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
        identity: Option<&Identity>,
    ) -> Result<TlsStream<TcpStream>, AttemptCode> {
        let Some(identity) = identity else {
            let secured = self.anonymous.connect(name, stream).await;
            return secured.map_err(|error| io_code(&error));
        };
        let (mut config, shown) = identity.client_config(&self.provider, &self.roots);
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let secured = secured.map_err(|error| io_code(&error))?;
        // An endpoint that knows us by our certificate must not be taken over by one
        // that lets everybody in.
        if shown.is_some_and(|shown| !shown.was_asked()) {
            return Err(AttemptCode::TlsClientAuthNotAsked);
        }
        Ok(secured)
    }
}
