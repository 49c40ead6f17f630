//! A name server on loopback that answers what a test wants.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// What is said about a name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These addresses, with a time to live of zero.
    Addresses(Vec<IpAddr>),
    /// One set after the other, the last for ever: a name that rebinds.
    InTurn(Vec<Vec<IpAddr>>),
    /// Another name.
    Alias(String),
    /// There is no such name.
    NoSuchName,
    /// The server has a problem.
    Failure,
    /// No answer at all.
    Silence,
}

#[derive(Debug, Default)]
struct Zone {
    answers: BTreeMap<String, Answer>,
    asked: Vec<String>,
}

/// The server. Names that it does not know do not exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _task: JoinSet<()>,
}

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
/// An answer over UDP is at most as long as resolvers ask for; longer ones say that
/// they were cut, and are whole over TCP.
const MAX_DATAGRAM: usize = 1232;
const MAX_MESSAGE: usize = 65_535;

impl NameServer {
    /// Starts a server on a free port.
    ///
    /// # Errors
    /// If loopback has no free port.
    pub async fn start() -> io::Result<Self> {
        let (socket, listener) = sockets().await?;
        let address = socket.local_addr()?;
        let zone = Arc::<Mutex<Zone>>::default();
        let mut task = JoinSet::new();
        let served = Arc::clone(&zone);
        task.spawn(async move {
            let mut question = [0; 1024];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let question = question.get(..length).unwrap_or_default();
                let answer = served.lock().answer(question, MAX_DATAGRAM);
                if let Some(answer) = answer
                    && socket.send_to(&answer, from).await.is_err()
                {
                    return;
                }
            }
        });
        let served = Arc::clone(&zone);
        task.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, _from)) = listener.accept().await {
                let zone = Arc::clone(&served);
                // A resolver that has enough closes its stream.
                streams.spawn(async move { if over_tcp(stream, &zone).await.is_err() {} });
                while streams.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, zone, _task: task })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says from now on `answer` about `name` (without a final dot).
    pub fn say(&self, name: &str, answer: Answer) {
        self.zone.lock().answers.insert(name.to_owned(), answer);
    }

    /// The names that were asked for, in order, once per question.
    pub fn asked(&self) -> Vec<String> {
        self.zone.lock().asked.clone()
    }
}

/// A port that is free for both ways of asking.
async fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    const TRIES: usize = 32;
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..TRIES {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(socket) => return Ok((socket, listener)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn over_tcp(mut stream: TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await?;
        let answer = zone.lock().answer(&question, MAX_MESSAGE);
        let Some(answer) = answer else { continue };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

impl Zone {
    fn answer(&mut self, packet: &[u8], max: usize) -> Option<Vec<u8>> {
        let (name, end) = question_name(packet)?;
        let kind = u16::from_be_bytes(packet.get(end..end + 2)?.try_into().ok()?);
        self.asked.push(name.clone());
        let mut records = Vec::new();
        let code = match self.answers.get_mut(&name) {
            None | Some(Answer::NoSuchName) => 3,
            Some(Answer::Failure) => 2,
            Some(Answer::Silence) => return None,
            Some(Answer::Alias(other)) => {
                records.push((TYPE_CNAME, encode_name(other)));
                0
            }
            Some(Answer::Addresses(addresses)) => {
                records.extend(addresses_of(kind, addresses));
                0
            }
            Some(Answer::InTurn(turns)) => {
                let addresses = turns.first().cloned().unwrap_or_default();
                records.extend(addresses_of(kind, &addresses));
                // A resolver asks for both kinds at once: one turn is one A question.
                if turns.len() > 1 && kind == TYPE_A {
                    turns.remove(0);
                }
                0
            }
        };
        reply(packet, (end + 4, max), code, &records)
    }
}

fn addresses_of(kind: u16, addresses: &[IpAddr]) -> Vec<(u16, Vec<u8>)> {
    let record = |address: &IpAddr| match (kind, address) {
        (TYPE_A, IpAddr::V4(v4)) => Some((TYPE_A, v4.octets().to_vec())),
        (TYPE_AAAA, IpAddr::V6(v6)) => Some((TYPE_AAAA, v6.octets().to_vec())),
        _ => None,
    };
    addresses.iter().filter_map(record).collect()
}

/// The first question's name, in lower case, and where it ends.
fn question_name(packet: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = packet.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in name.split('.') {
        encoded.push(u8::try_from(label.len()).expect("labels are short"));
        encoded.extend_from_slice(label.as_bytes());
    }
    encoded.push(0);
    encoded
}

fn reply(
    packet: &[u8],
    (question_end, max): (usize, usize),
    code: u8,
    records: &[(u16, Vec<u8>)],
) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut count: u16 = 0;
    let mut truncated = 0;
    for (kind, data) in records {
        if body.len() + data.len() + 12 > max - question_end {
            truncated = 0x02;
            break;
        }
        // The name is the question's.
        body.extend_from_slice(&[0xc0, 12]);
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        body.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        body.extend_from_slice(data);
        count += 1;
    }
    let mut reply = packet.get(..2)?.to_vec();
    reply.extend_from_slice(&[0x85 | truncated, 0x80 | code, 0, 1]);
    reply.extend_from_slice(&count.to_be_bytes());
    reply.extend_from_slice(&[0, 0, 0, 0]);
    reply.extend_from_slice(packet.get(12..question_end)?);
    reply.extend_from_slice(&body);
    Some(reply)
}
