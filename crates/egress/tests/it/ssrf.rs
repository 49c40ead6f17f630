//! The table of `reliability-security.md` §7.11: what is registered, what a name leads
//! to, and a canary that is shown to be reachable when it is allowed.

use std::{net::IpAddr, sync::Arc};

use tidings_egress::{Config, Policy, Target};
use tidings_testkit::{Answer, NameServer, ssrf};
use tidings_types::AttemptCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

use crate::kit::{Kit, LIMIT, assert_failed};

/// Listens on every address of this machine, and counts who comes.
struct Canary {
    port: u16,
    visits: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Canary {
    async fn start() -> Self {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (counter, visits) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((mut stream, _from)) = listener.accept().await {
                counter.send_modify(|visits| *visits += 1);
                let mut request = [0; 4096];
                if matches!(stream.read(&mut request).await, Ok(1..)) {
                    stream.write_all(b"HTTP/1.1 204 x\r\n\r\n").await.unwrap();
                }
            }
        });
        Self { port, visits, _task: task }
    }

    fn visits(&self) -> usize {
        *self.visits.borrow()
    }
}

/// The addresses of the table that are this machine's without being set up, and what
/// an attempt comes to that may dial them. Of the unspecified ones the system makes
/// loopback, which is noticed: it is not the address that was judged.
const OURS: &[(&str, AttemptCode)] = &[
    ("127.0.0.1", AttemptCode::Delivered),
    ("127.1.2.3", AttemptCode::Delivered),
    ("0.0.0.0", AttemptCode::BlockedAddress),
    ("::1", AttemptCode::Delivered),
    ("::", AttemptCode::BlockedAddress),
    ("::ffff:127.0.0.1", AttemptCode::Delivered),
];

fn kit(canary: &Canary, names: &NameServer, allow: &[&str]) -> Kit {
    let policy = Policy {
        allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
        allow_http: true,
        ports: vec![canary.port],
        ..Policy::default()
    };
    Kit::on_the_network(&Config {
        policy,
        name_servers: vec![names.address()],
        ..Config::default()
    })
}

fn leads_to(names: &NameServer, address: IpAddr, number: usize) -> String {
    let name = format!("row{number}.example.com");
    names.say(&name, Answer::Addresses(vec![address]));
    name
}

#[test]
fn x1_to_x8_no_such_url_is_taken() {
    for (row, url) in ssrf::REFUSED_URLS {
        let taken = Target::parse(url, &Policy::default());
        assert!(taken.is_err(), "{row}: {url:?} is taken as {taken:?}");
    }
}

#[tokio::test]
async fn x2_to_x6_no_such_address_is_dialled_whoever_names_it() {
    let canary = Canary::start().await;
    let names = NameServer::start().await.unwrap();
    let kit = kit(&canary, &names, &[]);
    let ours = OURS.iter().map(|(text, _)| ("X1", text.parse().unwrap()));
    let addresses: Vec<_> = ours.chain(ssrf::refused_addresses()).collect();
    assert!(addresses.len() > 250);
    let everything = Policy {
        allow: ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).to_vec(),
        allow_http: true,
        ..Policy::default()
    };
    for (number, (row, address)) in addresses.into_iter().enumerate() {
        let name = leads_to(&names, address, number);
        let report = kit.post(&format!("http://{name}:{}/", canary.port)).await;
        assert_eq!(report.code, AttemptCode::BlockedAddress, "{row}: a name of {address}");
        assert_failed(&report, AttemptCode::BlockedAddress, false);
        // A literal that was stored while the settings were others.
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let stored = Target::parse(&format!("http://{host}:{}/", canary.port), &everything);
        let mut request = kit.request(&format!("http://{name}:{}/", canary.port));
        request.target = Arc::new(stored.unwrap());
        let report = kit.egress.attempt(request).await;
        assert_eq!(report.code, AttemptCode::BlockedAddress, "{row}: the literal {address}");
    }
    assert_eq!(canary.visits(), 0);
}

#[tokio::test]
async fn the_canary_is_reached_by_each_of_its_addresses_when_that_is_allowed() {
    let mut canary = Canary::start().await;
    let names = NameServer::start().await.unwrap();
    let kit = kit(&canary, &names, &["0.0.0.0/0", "::/0"]);
    for (number, (text, code)) in OURS.iter().enumerate() {
        let name = leads_to(&names, text.parse().unwrap(), number);
        let report = kit.post(&format!("http://{name}:{}/", canary.port)).await;
        assert_eq!(report.code, *code, "{text}: {report:?}");
        let visited = canary.visits.wait_for(|visits| *visits == number + 1);
        assert!(tokio::time::timeout(LIMIT, visited).await.is_ok(), "{text} is reached");
    }
}

#[tokio::test]
async fn x5_what_the_operator_denies_is_not_dialled_although_it_is_allowed() {
    let canary = Canary::start().await;
    let names = NameServer::start().await.unwrap();
    let policy = Policy {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        deny: vec!["127.1.0.0/16".parse().unwrap(), "9.9.9.0/24".parse().unwrap()],
        allow_http: true,
        ports: vec![canary.port],
    };
    let config = Config { policy, name_servers: vec![names.address()], ..Config::default() };
    let kit = Kit::on_the_network(&config);
    for (number, (text, code)) in [
        ("127.0.0.1", AttemptCode::Delivered),
        ("127.1.2.3", AttemptCode::BlockedAddress),
        ("::ffff:127.1.2.3", AttemptCode::BlockedAddress),
        ("9.9.9.9", AttemptCode::BlockedAddress),
    ]
    .into_iter()
    .enumerate()
    {
        let name = leads_to(&names, text.parse().unwrap(), number);
        let report = kit.post(&format!("http://{name}:{}/", canary.port)).await;
        assert_eq!(report.code, code, "{text}");
    }
    assert_eq!(canary.visits(), 1);
    let denied = Target::parse("https://127.1.2.3/", &config.policy).unwrap_err();
    assert_eq!(denied.code(), AttemptCode::BlockedAddress);
}

#[tokio::test]
async fn x6_a_name_that_answers_otherwise_each_time_never_gets_through() {
    let canary = Canary::start().await;
    let names = NameServer::start().await.unwrap();
    let kit = kit(&canary, &names, &[]);
    let inside = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.0.1"];
    let turns = inside.iter().cycle().take(20).map(|text| vec![text.parse::<IpAddr>().unwrap()]);
    names.say("flips.example.com", Answer::InTurn(turns.collect()));
    for _ in 0..20 {
        let report = kit.post(&format!("http://flips.example.com:{}/", canary.port)).await;
        assert_failed(&report, AttemptCode::BlockedAddress, false);
    }
    assert_eq!(canary.visits(), 0);
}
