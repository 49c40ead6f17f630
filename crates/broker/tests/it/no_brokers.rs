//! What a broker says that has just come back: that there are no brokers, or that a
//! partition has no leader. Clients must find it again once it says otherwise.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidings_broker::{Broker, Group, GroupError};
use tidings_kafka_node::KafkaNode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::timeout,
};

use crate::lab::{TestClock, append, at, connect, read_all, spec, texts};

const PARTITIONS: u32 = 8;
const SESSION: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a broker hangs, and how often.
const HANG: Duration = Duration::from_secs(3);
const HANGS: usize = 3;

/// Stands before a node and takes the brokers out of its answers while told so.
struct Before {
    port: u16,
    is_blind: Arc<AtomicBool>,
    blinded: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    listener: Option<TcpListener>,
}

impl Before {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            is_blind: Arc::default(),
            blinded: Arc::default(),
            tasks: JoinSet::new(),
            listener: Some(listener),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it stands before the node, not before strangers"
    )]
    fn serve(&mut self, node: String) {
        let listener = self.listener.take().unwrap();
        let (is_blind, blinded) = (Arc::clone(&self.is_blind), Arc::clone(&self.blinded));
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(&node).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                let asked = Arc::new(Mutex::new(HashMap::new()));
                connections.spawn(questions(from_client, to_server, Arc::clone(&asked)));
                let (is_blind, blinded) = (Arc::clone(&is_blind), Arc::clone(&blinded));
                connections.spawn(answers(from_server, to_client, asked, is_blind, blinded));
            }
        });
    }
}

/// The kind of each question that has no answer yet, by its number.
type Asked = Arc<Mutex<HashMap<[u8; 4], u16>>>;

const METADATA: u16 = 3;

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: Asked) {
    while let Some(frame) = frame(&mut from).await {
        let kind = u16::from_be_bytes(frame[..2].try_into().unwrap());
        asked.lock().insert(frame[4..8].try_into().unwrap(), kind);
        if send(&mut to, &frame).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: Asked,
    is_blind: Arc<AtomicBool>,
    blinded: Arc<AtomicUsize>,
) {
    while let Some(mut frame) = frame(&mut from).await {
        let kind = asked.lock().remove(&frame[..4]);
        if kind == Some(METADATA) && is_blind.load(Ordering::SeqCst) {
            frame = without_brokers(&frame);
            blinded.fetch_add(1, Ordering::SeqCst);
        }
        if send(&mut to, &frame).await.is_err() {
            return;
        }
    }
}

async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

async fn send(to: &mut OwnedWriteHalf, frame: &[u8]) -> std::io::Result<()> {
    let mut whole = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
    whole.extend_from_slice(frame);
    to.write_all(&whole).await
}

/// A metadata answer (version 9 or later) with an empty list of brokers.
fn without_brokers(answer: &[u8]) -> Vec<u8> {
    // The question's number, no tags, how long to wait.
    let (head, mut rest) = answer.split_at(9);
    let count = take_number(&mut rest) - 1;
    for _ in 0..count {
        rest = &rest[4..];
        let host = take_number(&mut rest) - 1;
        rest = &rest[host + 4..];
        let rack = take_number(&mut rest).saturating_sub(1);
        rest = &rest[rack..];
        assert_eq!(take_number(&mut rest), 0, "a broker has no tags");
    }
    [head, &[1], rest].concat()
}

/// The protocol's number of variable length.
fn take_number(rest: &mut &[u8]) -> usize {
    let mut number = 0;
    for (index, byte) in rest.iter().enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return number;
        }
    }
    panic!("a number without an end");
}

/// Polls until the group has accepted a sign of life that came after `since`; joins
/// anew if it must.
async fn lives_on(broker: &Broker, mut group: Group, since: tidings_types::Instant) -> Group {
    let lives = async {
        while group.last_alive() <= since {
            let polled = timeout(Duration::from_millis(200), group.poll()).await;
            if let Ok(Err(GroupError::Expelled(_))) = polled {
                group = broker.join("g", &"t".into(), SESSION).await.unwrap();
            }
        }
    };
    timeout(PATIENCE, lives).await.expect("the member of a group stands still");
    group
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_were_told_of_no_brokers_find_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = Before::bind().await;
    let advertised = format!("PLAINTEXT://127.0.0.1:{}", before.port);
    let path = dir.path().to_owned();
    let started = tokio::task::spawn_blocking(move || {
        KafkaNode::start(&path, &[("advertised.listeners", &advertised)]).unwrap()
    });
    let node = started.await.unwrap();
    before.serve(node.bootstrap());

    let clock = TestClock::today();
    let broker = Broker::Kafka(connect(format!("127.0.0.1:{}", before.port), &clock).await);
    broker.create_topic(spec("t", PARTITIONS)).await.unwrap();
    let mut reader = broker.reader();
    for partition in 0..PARTITIONS {
        append(&broker, &at("t", partition), &["first"]).await.unwrap();
        reader.assign(at("t", partition), 0);
    }
    let mut seen = 0;
    while seen < PARTITIONS {
        seen += u32::try_from(reader.poll(1 << 20).await.len()).unwrap();
    }
    let mut group = broker.join("g", &"t".into(), SESSION).await.unwrap();
    group.poll().await.unwrap();

    before.is_blind.store(true, Ordering::SeqCst);
    let blind = async {
        for number in 0_u32.. {
            // What nobody has heard of makes clients ask.
            let unknown = at(&format!("unknown{number}"), number);
            reader.assign(unknown.clone(), 0);
            let all = async {
                tokio::join!(
                    append(&broker, &unknown, &["x"]),
                    broker.ends(&unknown),
                    reader.poll(1 << 20),
                    group.poll(),
                )
            };
            drop(timeout(Duration::from_millis(300), all).await);
            reader.unassign(&unknown);
        }
    };
    assert!(timeout(Duration::from_secs(5), blind).await.is_err());
    assert!(before.blinded.load(Ordering::SeqCst) > 0, "nobody asked");
    before.is_blind.store(false, Ordering::SeqCst);
    let since = tidings_types::Clock::monotonic(&*clock);

    for partition in 0..PARTITIONS {
        let appended =
            async { while append(&broker, &at("t", partition), &["second"]).await.is_err() {} };
        timeout(PATIENCE, appended).await.expect("a producer stands still");
    }
    let mut missing: Vec<u32> = (0..PARTITIONS).collect();
    let read = async {
        while !missing.is_empty() {
            for fetched in reader.poll(1 << 20).await {
                if fetched.from.topic != "t".into() {
                    continue;
                }
                let records = fetched.records.unwrap();
                assert_eq!(texts(&records[..1]), ["second"], "nothing is read twice or left out");
                missing.retain(|partition| *partition != fetched.from.partition);
            }
        }
    };
    timeout(PATIENCE, read).await.expect("a reader stands still");
    let all = timeout(PATIENCE, read_all(&broker, &at("t", 0), 0)).await;
    assert_eq!(texts(&all.expect("a single read stands still"))[..2], ["first", "second"]);
    lives_on(&broker, group, since).await;
    drop(node);
}

fn signal(node: &KafkaNode, name: &str) {
    let pid = node.pid().unwrap().to_string();
    let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(status.success(), "{name} did not reach the node");
}

/// A broker that hangs for longer than its session is taken for dead by its controller:
/// when it goes on, its partitions have no leader for a moment, and it says so to whoever
/// fetches or appends just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_broker_that_hung_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let started = tokio::task::spawn_blocking(move || {
        let soon = [("broker.session.timeout.ms", "1500"), ("broker.heartbeat.interval.ms", "300")];
        KafkaNode::start(&path, &soon).unwrap()
    });
    let node = started.await.unwrap();
    let clock = TestClock::today();
    let broker = Broker::Kafka(connect(node.bootstrap(), &clock).await);
    broker.create_topic(spec("t", PARTITIONS)).await.unwrap();
    let mut reader = broker.reader();
    for partition in 0..PARTITIONS {
        reader.assign(at("t", partition), 0);
    }

    for round in 0..HANGS {
        let broker = broker.clone();
        let appends = async {
            // Under way while the broker goes, and while it comes back.
            let mut all = JoinSet::new();
            for partition in 0..PARTITIONS {
                let broker = broker.clone();
                all.spawn(async move {
                    let to = at("t", partition);
                    loop {
                        let text = format!("round {round}");
                        if append(&broker, &to, &[&text]).await.is_ok() {
                            break;
                        }
                    }
                });
            }
            signal(&node, "-STOP");
            let hung = timeout(HANG, std::future::pending::<()>()).await;
            assert!(hung.is_err());
            signal(&node, "-CONT");
            timeout(PATIENCE, all.join_all()).await.expect("a producer stands still");
        };
        let wanted = format!("round {round}");
        let mut missing: Vec<u32> = (0..PARTITIONS).collect();
        let read = async {
            while !missing.is_empty() {
                for fetched in reader.poll(1 << 20).await {
                    let records = fetched.records.unwrap();
                    if texts(&records).contains(&wanted.as_str()) {
                        missing.retain(|partition| *partition != fetched.from.partition);
                    }
                }
            }
        };
        let all = async { tokio::join!(appends, read) };
        timeout(HANG + PATIENCE, all).await.expect("a reader stands still");
    }
}
