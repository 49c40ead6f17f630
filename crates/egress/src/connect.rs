//! The seam between attempts and the network.

use std::{fmt, io, mem::MaybeUninit};

use rustls::{AlertDescription, CertificateError};
use tidings_types::{AttemptCode, BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{identity::Identity, target::Target};

/// A connected stream; secured already, if its target wants that.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether nothing is there to be read now, not even an end. Asks the system:
    /// a runtime that is busy learns only later what has arrived, and a read that
    /// is pending says nothing.
    fn is_quiet(&self) -> bool;
}

impl Io for TcpStream {
    fn is_quiet(&self) -> bool {
        let peeked = socket2::SockRef::from(self).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Io for TlsStream<TcpStream> {
    /// Also not quiet while a record of TLS itself waits, such as a session ticket.
    fn is_quiet(&self) -> bool {
        self.get_ref().0.is_quiet()
    }
}

/// Streams in memory, of tests: a read that is pending has nothing to read.
impl Io for DuplexStream {
    fn is_quiet(&self) -> bool {
        true
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// As the attempt's code: a fact about the endpoint.
    pub code: AttemptCode,
    /// Whether its name or a way to it was not even found. That may be our own fault:
    /// our name server's, our network's.
    pub is_lost: bool,
}

impl From<AttemptCode> for ConnectError {
    fn from(code: AttemptCode) -> Self {
        let is_lost = matches!(code, AttemptCode::DnsFailed | AttemptCode::DnsNotFound);
        Self { code, is_lost }
    }
}

/// Opens connections. [`crate::NetConnector`] opens real ones; a simulation hands
/// in its own.
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Connects to `target`, as the webhook's own identity if it has one, and never
    /// without it. Keeps its own time limits; the attempt's limit drops the future.
    ///
    /// # Errors
    /// With the code of the attempt.
    fn connect<'a>(
        &'a self,
        target: &'a Target,
        identity: Option<&'a Identity>,
    ) -> BoxFuture<'a, Result<Box<dyn Io>, ConnectError>>;
}

/// The code of a stream's failure, also of one that TLS found.
pub(crate) fn io_code(error: &io::Error) -> AttemptCode {
    let inner = error.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls_code(error);
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign and not exhaustive")]
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => AttemptCode::ConnectionReset,
        io::ErrorKind::TimedOut => AttemptCode::Timeout,
        _ => AttemptCode::ClosedEarly,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign and not exhaustive")]
fn tls_code(error: &rustls::Error) -> AttemptCode {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(error) => certificate_code(error),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                AttemptCode::TlsClientAuth
            }
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::NoApplicationProtocol => AttemptCode::TlsProtocol,
            _ => AttemptCode::TlsRejected,
        },
        Error::InvalidMessage(_)
        | Error::PeerIncompatible(_)
        | Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::NoApplicationProtocol => AttemptCode::TlsProtocol,
        _ => AttemptCode::TlsRejected,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign and not exhaustive")]
fn certificate_code(error: &CertificateError) -> AttemptCode {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => AttemptCode::TlsCertTime,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            AttemptCode::TlsNameMismatch
        }
        // A signature that does not fit: an authority only named like a trusted one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            AttemptCode::TlsUntrusted
        }
        // What `openssl req -x509` makes: self-signed, and an authority by itself.
        CertificateError::Other(other)
            if matches!(
                other.0.downcast_ref::<webpki::Error>(),
                Some(webpki::Error::CaUsedAsEndEntity)
            ) =>
        {
            AttemptCode::TlsUntrusted
        }
        _ => AttemptCode::TlsRejected,
    }
}
