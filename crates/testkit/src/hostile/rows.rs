//! The rows EP1 to EP50. Rows that no endpoint plays alone (what a platform makes
//! of many answers) are played here by their answers; the rest of them is tested
//! where it is decided.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;

use super::{Http, Part, Row, Tls};
use crate::{
    name_server::Answer,
    receiver::{Behaviour, Step},
};

/// Longer than any attempt of the table.
const FOR_EVER: Duration = Duration::from_secs(600);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn row(id: &'static str, what: impl Into<String>, part: Part, expected: &[&str]) -> Row {
    let expected = expected.iter().map(|code| (*code).to_owned()).collect();
    Row { id, what: what.into(), part, expected, is_flood: false }
}

fn name(id: &'static str, what: &str, answer: Answer, expected: &str) -> Row {
    row(id, what, Part::Name(answer), &[expected])
}

fn tls(id: &'static str, tls: Tls, expected: &str) -> Row {
    row(id, format!("{tls:?}"), Part::Tls(tls), &[expected])
}

fn http(id: &'static str, what: impl Into<String>, behaviour: Behaviour, expected: &str) -> Row {
    let http = Http { greeting: None, in_turn: Vec::new(), behaviour };
    row(id, what, Part::Http(http), &[expected])
}

/// A server that says this before it reads.
fn greeting(id: &'static str, what: &str, greeting: Behaviour, expected: &str) -> Row {
    let behaviour = Behaviour::close();
    let http = Http { greeting: Some(greeting), in_turn: Vec::new(), behaviour };
    row(id, what, Part::Http(http), &[expected])
}

/// A server that does these with the requests, one after the other.
fn in_turn(id: &'static str, what: &str, turns: Vec<(Behaviour, &str)>) -> Row {
    let (in_turn, expected): (Vec<_>, Vec<_>) = turns.into_iter().unzip();
    let http = Http { greeting: None, in_turn, behaviour: Behaviour::status(200) };
    row(id, what, Part::Http(http), &expected)
}

impl Row {
    fn flood(self) -> Self {
        Self { is_flood: true, ..self }
    }
}

fn ok_with(headers: &str) -> Behaviour {
    Behaviour::raw(format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n"))
}

fn for_ever(piece: impl Into<Vec<u8>>) -> Step {
    Step::SendForEver(Bytes::from(piece.into()))
}

fn drip(times: usize) -> Step {
    Step::SendTimes { piece: Bytes::from_static(b"x"), times, pause: Duration::from_millis(200) }
}

fn addresses(texts: &[&str]) -> Answer {
    let parse = |text: &&str| text.parse::<IpAddr>().expect("an address");
    Answer::Addresses(texts.iter().map(parse).collect())
}

/// So many addresses at which nobody listens.
fn many_addresses(count: u32) -> Answer {
    Answer::Addresses((0..count).map(|n| (0x7f00_0100 + n).to_be_bytes().into()).collect())
}

/// The table. `canary` is a URL that redirects lead to.
pub fn rows(canary: &str) -> Vec<Row> {
    [reaching(), securing(), slow_and_long(), answers(canary), closing(), odd()].concat()
}

/// EP1 to EP6: addresses and ports.
fn reaching() -> Vec<Row> {
    vec![
        row("EP1", "a closed port", Part::Refuses, &["CONNECT_REFUSED"]),
        row("EP2", "connections are dropped", Part::Drops, &["CONNECT_TIMEOUT"]),
        name("EP3", "no such name", Answer::NoSuchName, "DNS_NOT_FOUND"),
        name("EP3", "a name without address", addresses(&[]), "DNS_NOT_FOUND"),
        name("EP4", "a name server that fails", Answer::Failure, "DNS_FAILED"),
        name("EP4", "a name server that is silent", Answer::Silence, "DNS_FAILED"),
        name("EP5", "a thousand addresses", many_addresses(1000), "CONNECT_REFUSED").flood(),
        name("EP5", "an answer of 64 KiB", many_addresses(4000), "CONNECT_REFUSED").flood(),
        name("EP6", "one is dead", addresses(&["127.0.0.77", "127.0.0.1"]), "DELIVERED"),
    ]
}

/// EP7 to EP12, EP49, and HTTP/2 servers: TLS.
fn securing() -> Vec<Row> {
    vec![
        tls("EP7", Tls::Expired, "TLS_CERT_TIME"),
        tls("EP7", Tls::NotYetValid, "TLS_CERT_TIME"),
        tls("EP8", Tls::OtherName, "TLS_NAME_MISMATCH"),
        tls("EP8", Tls::CommonName, "TLS_NAME_MISMATCH"),
        tls("EP9", Tls::SelfSigned, "TLS_UNTRUSTED"),
        tls("EP9", Tls::UnknownAuthority, "TLS_UNTRUSTED"),
        tls("EP10", Tls::Sha1, "TLS_REJECTED"),
        tls("EP11", Tls::Old, "TLS_PROTOCOL"),
        tls("EP12", Tls::Silent, "CONNECT_TIMEOUT"),
        tls("EP38", Tls::OnlyHttp2, "TLS_PROTOCOL"),
        tls("EP49", Tls::WantsClientCertificate, "TLS_CLIENT_AUTH"),
        tls("EP49", Tls::Good, "DELIVERED"),
    ]
}

/// EP13 to EP20: time and size.
fn slow_and_long() -> Vec<Row> {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let slow_head = Behaviour::raw("HTTP/1.1 200 OK\r\na: ").then(drip(1000));
    vec![
        http("EP13", "never answers", Behaviour::hang(), "TIMEOUT"),
        http("EP14", "a head byte by byte", slow_head, "TIMEOUT"),
        greeting("EP15", "never reads", Behaviour::steps([Step::Wait(FOR_EVER)]), "TIMEOUT"),
        http("EP16", "a slow body", ok_with("content-length: 99").then(drip(99)), "DELIVERED"),
        http(
            "EP17",
            "a body of 10 GB",
            ok_with("content-length: 10000000000").then(for_ever("x".repeat(65_536))),
            "DELIVERED",
        )
        .flood(),
        http(
            "EP17",
            "chunks without end",
            ok_with("transfer-encoding: chunked").then(for_ever(chunk)),
            "DELIVERED",
        )
        .flood(),
        http("EP18", "a gzip bomb", bomb(200), "DELIVERED").flood(),
        http("EP18", "a gzip bomb that is kept", bomb(500), "HTTP_500").flood(),
        http(
            "EP19",
            "headers without end",
            Behaviour::raw("HTTP/1.1 200 OK\r\n").then(for_ever("x-more: 0123456789\r\n")),
            "RESPONSE_HEADERS_TOO_LARGE",
        )
        .flood(),
        http("EP19", "a line of 1 MB", ok_with(&format!("a: {}", "x".repeat(1_000_000))), LARGE)
            .flood(),
        http("EP19", "10,000 headers", ok_with(&vec!["a: b"; 10_000].join("\r\n")), LARGE),
        http("EP19", "a name of 1 MB", ok_with(&"x".repeat(1_000_000)), LARGE).flood(),
        http("EP20", "1xx without end", Behaviour::steps([for_ever(early)]), "PROTOCOL_ERROR")
            .flood(),
        http("EP20", "17 of them", Behaviour::raw(early.repeat(17) + OK), "PROTOCOL_ERROR"),
    ]
}

const LARGE: &str = "RESPONSE_HEADERS_TOO_LARGE";

/// EP21 to EP32: what a complete answer means.
fn answers(canary: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for status in [100, 102, 103] {
        let answer = Behaviour::raw(format!("HTTP/1.1 {status} x\r\n\r\n{OK}"));
        rows.push(http("EP21", format!("{status} before 200"), answer, "DELIVERED"));
    }
    let switch = "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    rows.push(http("EP22", "101", Behaviour::raw(switch), "PROTOCOL_ERROR"));
    for status in [200, 201, 202, 204, 206, 299] {
        rows.push(http("EP23", status.to_string(), Behaviour::status(status), "DELIVERED"));
    }
    let plain = |id, status: u16| {
        http(id, status.to_string(), Behaviour::status(status), &format!("HTTP_{status}"))
    };
    rows.extend([300, 302, 304, 307].map(|status| plain("EP24", status)));
    for location in [canary, "http://169.254.169.254/", "file:///etc/passwd", "//x", ""] {
        for status in [301, 302, 303, 307, 308] {
            let answer = Behaviour::answer(status, &[("location", location)], b"");
            let what = format!("{status} to {location}");
            rows.push(http("EP25", what.clone(), answer.clone(), "REDIRECT_REFUSED"));
            rows.push(http("EP26", what, answer, "REDIRECT_REFUSED"));
        }
    }
    let failures = [400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 502, 503, 599];
    rows.extend(failures.map(|status| plain("EP27", status)));
    let gone = || (Behaviour::status(410), "HTTP_410");
    rows.push(in_turn("EP28", "410 three times", vec![gone(), gone(), gone()]));
    let wait = |status, value: &str| Behaviour::answer(status, &[("retry-after", value)], b"");
    rows.push(http("EP29", "429 and 120", wait(429, "120"), "HTTP_429"));
    rows.push(http("EP29", "503 and 120", wait(503, "120"), "HTTP_503"));
    for date in [
        "Sun, 06 Nov 2094 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        rows.push(http("EP30", date, wait(503, date), "HTTP_503"));
    }
    let long = "9".repeat(8 * 1024);
    for odd in ["-1", "1e300", "inf", "NaN", "99999999999999999999", "12.5", "", "2147483648"] {
        rows.push(http("EP31", odd, wait(503, odd), "HTTP_503"));
    }
    rows.push(http("EP31", "8 KiB", wait(503, &long), "HTTP_503"));
    let twice = Behaviour::answer(503, &[("retry-after", "1"), ("retry-after", "2")], b"");
    rows.push(http("EP31", "twice", twice, "HTTP_503"));
    rows.push(http("EP32", "429 on everything", wait(429, "9999999999"), "HTTP_429"));
    rows
}

/// EP33 to EP41: ends.
fn closing() -> Vec<Row> {
    let cut = Behaviour::raw_then_close;
    let settings = [0_u8, 0, 0, 4, 0, 0, 0, 0, 0];
    vec![
        http("EP33", "closes before any byte", Behaviour::close(), "CLOSED_EARLY"),
        http("EP34", "closes in the head", cut("HTTP/1.1 200 OK\r\ncontent-le"), "CLOSED_EARLY"),
        http("EP34", "closes in the status", cut("HT"), "CLOSED_EARLY"),
        http("EP34", "closes after 103", cut("HTTP/1.1 103 x\r\n\r\n"), "CLOSED_EARLY"),
        http(
            "EP35",
            "closes in the body",
            cut("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"),
            "DELIVERED",
        ),
        http(
            "EP35",
            "closes in a chunk",
            cut("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsho"),
            "DELIVERED",
        ),
        http("EP36", "resets", Behaviour::reset(), "CONNECTION_RESET"),
        in_turn(
            "EP37",
            "a kept connection that is dead",
            vec![
                (Behaviour::status(200), "DELIVERED"),
                (Behaviour::hang(), "TIMEOUT"),
                (Behaviour::status(200), "DELIVERED"),
            ],
        ),
        // HTTP/2 is not offered; a server that speaks it all the same speaks nothing.
        greeting("EP39", "HTTP/2 unasked", Behaviour::raw(settings.to_vec()), "PROTOCOL_ERROR"),
        greeting(
            "EP40",
            "a flood of HTTP/2 settings",
            Behaviour::steps([for_ever(settings.repeat(1000))]),
            "PROTOCOL_ERROR",
        )
        .flood(),
        greeting("EP41", "GOAWAY", Behaviour::raw(&GOAWAY[..]), "PROTOCOL_ERROR"),
    ]
}

/// An HTTP/2 frame that ends the connection.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// EP42 to EP50: what is not HTTP, what comes unasked, what is in an answer.
fn odd() -> Vec<Row> {
    let mut rows: Vec<Row> = NOT_HTTP
        .iter()
        .map(|text| http("EP42", format!("{text:?}"), Behaviour::raw(*text), "PROTOCOL_ERROR"))
        .collect();
    let complete = "HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n";
    let early = Behaviour::raw_then_close;
    rows.push(greeting("EP43", "a whole answer", early(complete), "HTTP_413"));
    rows.push(greeting("EP43", "no end", early("HTTP/1.1 413 x\r\ncontent-le"), "CLOSED_EARLY"));
    let two = Behaviour::raw(OK.repeat(2));
    let fails = || (Behaviour::status(500), "HTTP_500");
    rows.push(in_turn("EP44", "two answers", vec![(two, "DELIVERED"), fails()]));
    let secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw 4111111111111111";
    rows.push(http("EP45", "a secret", Behaviour::answer(500, &[], secret), "HTTP_500"));
    let markup = "<script>alert(1)</script>\u{1b}[31m\u{0}\u{202e}".as_bytes();
    rows.push(http("EP46", "markup", Behaviour::answer(500, &[], markup), "HTTP_500"));
    let good = || (Behaviour::status(200), "DELIVERED");
    rows.push(in_turn("EP47", "200 and 500", vec![good(), fails(), good(), fails()]));
    let late = Behaviour::status(200).after(Duration::from_millis(900));
    rows.push(http("EP48", "200 just in time", late, "DELIVERED"));
    let promises = [
        ("set-cookie", "a=b"),
        ("alt-svc", "h2=\":443\""),
        ("strict-transport-security", "max-age=9"),
    ];
    rows.push(http("EP50", "promises", Behaviour::answer(200, &promises, b""), "DELIVERED"));
    rows
}

const NOT_HTTP: &[&str] = &[
    "GARBAGE\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n",
    "HTTP/9.9 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\n\n",
    "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
    "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabcde",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nabcde",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
];

/// An answer whose body is 16 KiB of gzip that would become 2.5 MB of zeros.
fn bomb(status: u16) -> Behaviour {
    let mut bits = Bits::default();
    // One last block of fixed codes: a zero, then "258 bytes from one byte ago".
    bits.push(&[1, 1, 0]);
    bits.push(&[0, 0, 1, 1, 0, 0, 0, 0]);
    while bits.bytes.len() < 16_000 {
        bits.push(&[1, 1, 0, 0, 0, 1, 0, 1]);
        bits.push(&[0; 5]);
    }
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    body.extend(bits.bytes);
    Behaviour::answer(status, &[("content-encoding", "gzip")], &body)
}

/// Bits, the first one lowest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, bits: &[u8]) {
        for bit in bits {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }
}
