//! A CONNECT proxy on loopback that lets through, or says no.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What the proxy does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// Connects, and copies.
    Open,
    /// Answers this and closes.
    Say(String),
    /// Says nothing more.
    Hang,
}

#[derive(Debug)]
struct Shared {
    tunnel: Mutex<Tunnel>,
    /// The targets that it was asked for.
    asked: Mutex<Vec<String>>,
    peers: Mutex<Vec<SocketAddr>>,
}

/// The proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    ///
    /// # Errors
    /// If loopback has no free port.
    pub async fn start() -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// # Errors
    /// If the address is taken.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            tunnel: Mutex::new(Tunnel::Open),
            asked: Mutex::default(),
            peers: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                serving.peers.lock().push(peer);
                tunnels.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Ok(Self { address, shared, _task: task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this.
    pub fn does(&self, tunnel: Tunnel) {
        *self.shared.tunnel.lock() = tunnel;
    }

    /// Who came.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.shared.peers.lock().clone()
    }

    /// What it was asked to connect to.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().clone()
    }
}

/// How a tunnel ended does not matter to anybody.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    drop(tunnel(stream, &shared).await);
}

async fn tunnel(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).await?;
        head.extend_from_slice(&byte);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let Some(target) = target else { return Ok(()) };
    shared.asked.lock().push(target.to_owned());
    let tunnel = shared.tunnel.lock().clone();
    match tunnel {
        Tunnel::Open => {
            #[expect(clippy::disallowed_methods, reason = "a proxy of the tests")]
            let connected = TcpStream::connect(target).await;
            let Ok(mut server) = connected else {
                return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
            };
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            copy_bidirectional(&mut client, &mut server).await?;
            Ok(())
        }
        Tunnel::Say(text) => client.write_all(text.as_bytes()).await,
        Tunnel::Hang => std::future::pending().await,
    }
}
