//! Every way in which an endpoint may behave (`reliability-security.md` §7.5) as a
//! table: what it does, over plain HTTP or TLS, and what attempts come to.
//!
//! A row is played by [`Stage::play`], in a process of its own where memory is
//! measured: floods cost whoever sends them something too.

mod rows;

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    certificate::{Authority, Identity, Validity},
    name_server::{Answer, NameServer},
    receiver::{Behaviour, Receiver},
};

pub use rows::rows;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// In §7.5.
    pub id: &'static str,
    pub what: String,
    pub part: Part,
    /// What attempts come to, one after the other.
    pub expected: Vec<String>,
    /// Whether it sends without end: played by many at once too.
    pub is_flood: bool,
}

/// Where the row's behaviour is.
#[derive(Clone, Debug)]
pub enum Part {
    /// In the port: it is closed.
    Refuses,
    /// In the port: connections are never taken up.
    Drops,
    /// In the answer to the question for its name.
    Name(Answer),
    /// In the TLS handshake.
    Tls(Tls),
    /// In HTTP: played in plain and over TLS.
    Http(Http),
}

/// A TLS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Good,
    Expired,
    NotYetValid,
    OtherName,
    /// The name stands only in the subject.
    CommonName,
    SelfSigned,
    UnknownAuthority,
    /// The authority signed with SHA-1.
    Sha1,
    WantsClientCertificate,
    /// Speaks HTTP/2 alone.
    OnlyHttp2,
    /// Refuses the protocol version, as a server of TLS 1.0 does.
    Old,
    /// Takes the connection and never begins.
    Silent,
}

/// What an HTTP server does: on a connection, and with the requests.
#[derive(Clone, Debug)]
pub struct Http {
    pub greeting: Option<Behaviour>,
    /// One request each.
    pub in_turn: Vec<Behaviour>,
    /// All other requests.
    pub behaviour: Behaviour,
}

/// Whether an HTTP row is played in plain or over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Plain,
    Tls,
}

/// A name server, an authority, and a canary that redirects point at.
#[derive(Debug)]
pub struct Stage {
    pub names: NameServer,
    pub authority: Authority,
    pub canary: Receiver,
}

/// A row that is being played; ends when dropped.
#[derive(Debug)]
pub struct Playing {
    pub url: String,
    _receiver: Option<Receiver>,
    _listener: Option<TcpListener>,
    _waiting: Vec<TcpStream>,
}

impl Stage {
    /// # Errors
    /// If loopback has no free port.
    pub async fn start() -> io::Result<Self> {
        Ok(Self {
            names: NameServer::start().await?,
            authority: Authority::new(),
            canary: Receiver::start().await?,
        })
    }

    /// Plays a row under a name of its own: the URL behaves so until the result is
    /// dropped.
    ///
    /// # Errors
    /// If loopback has no free port.
    pub async fn play(&self, row: &Row, over: Over, name: &str) -> io::Result<Playing> {
        self.names.say(name, Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]));
        match &row.part {
            Part::Refuses => Ok(Playing::at(name, closed_port().await?)),
            Part::Drops => dropping(name).await,
            Part::Name(answer) => {
                self.names.say(name, answer.clone());
                Ok(Playing::of(Receiver::start().await?, "http", name))
            }
            Part::Tls(tls) => self.play_tls(*tls, name).await,
            Part::Http(http) => {
                let receiver = match over {
                    Over::Plain => Receiver::start().await?,
                    Over::Tls => Receiver::start_tls(self.good(name)).await?,
                };
                if let Some(greeting) = &http.greeting {
                    receiver.greet(greeting.clone());
                }
                receiver.behave(http.behaviour.clone());
                receiver.behave_in_turn(http.in_turn.iter().cloned());
                let scheme = if over == Over::Tls { "https" } else { "http" };
                Ok(Playing::of(receiver, scheme, name))
            }
        }
    }

    fn good(&self, name: &str) -> Arc<ServerConfig> {
        self.authority.issue(&[name], Validity::Now).server_config()
    }

    async fn play_tls(&self, tls: Tls, name: &str) -> io::Result<Playing> {
        let authority = &self.authority;
        let now = |names: &[&str]| authority.issue(names, Validity::Now);
        let config = match tls {
            Tls::Good => self.good(name),
            Tls::Expired => authority.issue(&[name], Validity::Past).server_config(),
            Tls::NotYetValid => authority.issue(&[name], Validity::Future).server_config(),
            Tls::OtherName => now(&["other.example.com"]).server_config(),
            Tls::CommonName => authority.issue_common_name(name).server_config(),
            Tls::SelfSigned => Identity::self_signed(&[name]).server_config(),
            Tls::UnknownAuthority => Authority::new().issue(&[name], Validity::Now).server_config(),
            Tls::Sha1 => now(&[name]).with_sha1().server_config(),
            Tls::WantsClientCertificate => now(&[name]).server_config_wanting(authority),
            Tls::OnlyHttp2 => now(&[name]).server_config_speaking(b"h2"),
            Tls::Old | Tls::Silent => {
                let receiver = Receiver::start().await?;
                // The alert `protocol_version` of a server of TLS 1.0.
                let alert = Behaviour::raw(&[0x15, 3, 1, 0, 2, 2, 70][..]);
                let silence = Behaviour::hang();
                receiver.greet(if tls == Tls::Old { alert } else { silence });
                return Ok(Playing::of(receiver, "https", name));
            }
        };
        Ok(Playing::of(Receiver::start_tls(config).await?, "https", name))
    }
}

impl Playing {
    fn at(name: &str, port: u16) -> Self {
        let url = format!("http://{name}:{port}/hook");
        Self { url, _receiver: None, _listener: None, _waiting: Vec::new() }
    }

    fn of(receiver: Receiver, scheme: &str, name: &str) -> Self {
        let url = format!("{scheme}://{name}:{}/hook", receiver.address().port());
        Self { url, _receiver: Some(receiver), _listener: None, _waiting: Vec::new() }
    }
}

/// A port that nobody listens on.
async fn closed_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}

/// A port whose queue of connections is full: the system drops what comes.
async fn dropping(name: &str) -> io::Result<Playing> {
    /// No system queues more than this for a backlog of 1.
    const MOST: usize = 64;
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let mut playing = Playing::at(name, address.port());
    for _ in 0..MOST {
        #[expect(clippy::disallowed_methods, reason = "fills a queue on loopback")]
        let connecting = TcpStream::connect(address);
        match timeout(Duration::from_millis(300), connecting).await {
            Ok(stream) => playing._waiting.push(stream?),
            Err(_full) => break,
        }
    }
    playing._listener = Some(listener);
    Ok(playing)
}
