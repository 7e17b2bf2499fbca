//! The gateway with backends that are slow, broken or down: each message is answered once and in
//! order. Virtual time; faults from a seed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use serde_json::Value;
use wspulse::parts::gateway::connection_id::{self, ConnectionId};
use wspulse::rng::Rng;

use crate::harness::Harness;
use crate::os::{End, OnConnect};
use crate::peer::{Reader, text, upgrade};

const STEP_MS: u64 = 50;
/// The longest request, plus a step.
const PATIENCE_MS: u64 = 29_500;

/// A backend with random delays and failures.
struct Backend {
    rng: Rng,
    input: BTreeMap<usize, Vec<u8>>,
    /// When a response is due, its wire, and what it is.
    due: Vec<(u64, usize, Fate)>,
    /// Messages of each client in order of arrival, with their times.
    arrived: BTreeMap<String, Vec<(usize, u64)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Wrong,
    Broken,
    Garbage,
    Never,
}

impl Backend {
    fn fate(&mut self) -> (u64, Fate) {
        let after_ms = self.rng.below(400);
        match self.rng.below(100) {
            0..3 => (after_ms, Fate::Wrong),
            3..6 => (after_ms, Fate::Broken),
            6..8 => (after_ms, Fate::Garbage),
            8 if self.rng.below(10) == 0 => (0, Fate::Never),
            _ => (after_ms, Fate::Fine),
        }
    }

    /// Reads requests and sends the responses that are due.
    fn serve(&mut self, harness: &Harness, now_ms: u64) {
        let outgoing = harness.net.state().outgoing.clone();
        for wire in outgoing {
            let fresh = harness.net.take_output(wire);
            if fresh.is_empty() {
                continue;
            }
            self.input.entry(wire).or_default().extend(fresh);
            while let Some((path, body)) = take(self.input.get_mut(&wire).unwrap()) {
                if path == "/connect" {
                    self.due.push((now_ms, wire, Fate::Fine));
                    continue;
                }
                let asked: Value = serde_json::from_slice(&body).unwrap();
                let message = asked["myBody"].as_str().unwrap();
                let (client, number) = message.split_once(' ').unwrap();
                let row = self.arrived.entry(client.to_owned()).or_default();
                row.push((number.parse().unwrap(), now_ms));
                let (after_ms, fate) = self.fate();
                self.due.push((now_ms + after_ms, wire, fate));
            }
        }
        let due: Vec<_> = self.due.extract_if(.., |(at_ms, ..)| *at_ms <= now_ms).collect();
        for (_, wire, fate) in due {
            if harness.end(wire).is_some() {
                continue;
            }
            let answer: &[u8] = match fate {
                Fate::Fine => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Fate::Wrong => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
                Fate::Garbage => b"SSH-2.0-x\r\n",
                Fate::Broken => {
                    harness.net.reset(wire);
                    continue;
                }
                Fate::Never => continue,
            };
            harness.net.send(wire, answer);
        }
    }
}

/// Takes path and body of a complete request from the front.
pub(crate) fn take(input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    if input.len() < end + length {
        return None;
    }
    let body = input.drain(..end + length).skip(end).collect();
    Some((head.split(' ').nth(1).unwrap().to_owned(), body))
}

struct Client {
    wire: usize,
    reader: Reader,
    sent: usize,
    /// Replies and error frames.
    answers: usize,
    failures: usize,
}

/// Each message is answered exactly once, by the backend's reply or by an error frame, in order and
/// in time.
fn play(seed: u64, connections: usize, messages: usize) {
    // These clients answer no pings.
    let args = "--gateway-backend http://127.0.0.1:8501 --gateway-reply on --ping-interval 0";
    let args: Vec<&str> = args.split(' ').collect();
    let mut harness = Harness::seeded(&args, seed);
    harness.net.state().on_connect = OnConnect::Accept;
    harness.net.server().descriptors = 10_000;
    let mut rng = Rng::new(seed);
    let mut backend = Backend {
        rng: Rng::new(seed ^ 0xd1ce),
        input: BTreeMap::new(),
        due: Vec::new(),
        arrived: BTreeMap::new(),
    };
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..connections {
        let wire = harness.connect();
        harness.send(wire, &upgrade("/gateway/prod", &[]));
        let reader = Reader::default();
        clients.push(Client { wire, reader, sent: 0, answers: 0, failures: 0 });
    }
    let all = |clients: &[Client]| clients.iter().all(|client| client.answers == messages);
    let mut idle_ms = 0;
    for step in 0.. {
        backend.serve(&harness, step * STEP_MS);
        harness.settle();
        for (name, client) in clients.iter_mut().enumerate() {
            let before = client.answers;
            for line in client.reader.read(&harness.net.take_output(client.wire)) {
                if line.starts_with("text \"ok\"") {
                    client.answers += 1;
                } else if line.contains("requestId") {
                    client.answers += 1;
                    client.failures += 1;
                }
            }
            idle_ms = if client.answers > before { 0 } else { idle_ms };
            // A few ahead, some of them glued together.
            for _ in 0..rng.below(4) {
                if client.sent < messages && client.sent < client.answers + 40 {
                    harness.net.send(client.wire, &text(&format!("{name} {}", client.sent)));
                    client.sent += 1;
                }
            }
        }
        if all(&clients) {
            break;
        }
        idle_ms += STEP_MS;
        assert!(idle_ms <= PATIENCE_MS, "seed {seed}: no client is answered any more");
        harness.settle();
        harness.pass(STEP_MS);
        assert_eq!(harness.driver.engine().memory(), harness.driver.engine().memory_counted());
    }
    harness.pass(200);
    judge(seed, &mut harness, &mut clients, &backend, messages);
}

fn judge(
    seed: u64,
    harness: &mut Harness,
    clients: &mut [Client],
    backend: &Backend,
    messages: usize,
) {
    let mut failures = 0;
    for (name, client) in clients.iter_mut().enumerate() {
        let late = client.reader.read(&harness.net.take_output(client.wire));
        assert!(!late.iter().any(|line| line.starts_with("text")), "seed {seed}: {late:?}");
        assert_eq!(harness.end(client.wire), None::<End>, "seed {seed}: {name} was cut off");
        let arrived = &backend.arrived[&name.to_string()];
        let numbers: Vec<usize> = arrived.iter().map(|(number, _)| *number).collect();
        // A request on a connection that was reset may be lost, but none is repeated or overtaken.
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {numbers:?}");
        let gap = arrived.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or(0);
        assert!(gap <= PATIENCE_MS, "seed {seed}: {name} waited for {gap} ms");
        failures += client.failures;
    }
    let total = clients.len() * messages;
    assert!(failures * 3 < total, "seed {seed}: {failures} of {total} failed");
}

#[test]
fn each_message_is_answered_once_and_in_order() {
    play(1, 200, 50);
}

#[test]
fn each_message_is_answered_with_other_seeds() {
    for seed in 2..8 {
        play(seed, 20, 30);
    }
}

/// 1 200 clients and a backend that takes 4 s: nothing fails, though not all fit in at once.
#[test]
fn a_slow_backend_and_many_clients() {
    const CLIENTS: usize = 1_200;
    let args = "--gateway-backend http://127.0.0.1:8501 --gateway-reply on --ping-interval 0 \
                --max-connections 5000";
    let args: Vec<&str> = args.split_whitespace().collect();
    let mut harness = Harness::new(&args);
    harness.net.state().on_connect = OnConnect::Accept;
    harness.net.server().descriptors = 10_000;
    let wires: Vec<usize> = (0..CLIENTS).map(|_| harness.connect()).collect();
    let (mut input, mut due) = (BTreeMap::<usize, Vec<u8>>::new(), Vec::new());
    for wire in &wires {
        harness.net.send(*wire, &upgrade("/gateway/prod", &[]));
        harness.net.send(*wire, &text("hello"));
    }
    let (mut answers, mut most, mut now_ms) = (0, 0, 0);
    while answers < CLIENTS {
        harness.settle();
        let outgoing = harness.net.state().outgoing.clone();
        for wire in outgoing {
            input.entry(wire).or_default().extend(harness.net.take_output(wire));
            while let Some((path, _)) = take(input.get_mut(&wire).unwrap()) {
                due.push((now_ms + if path == "/connect" { 0 } else { 4_000 }, wire));
            }
        }
        most = most.max(due.len());
        for (_, wire) in due.extract_if(.., |(at_ms, _)| *at_ms <= now_ms) {
            harness.net.send(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        for wire in &wires {
            let said = harness.net.take_output(*wire);
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(!said.contains("error") && !said.contains(" 50"), "{said}");
            answers += usize::from(said.ends_with("ok"));
        }
        harness.pass(STEP_MS * 5);
        now_ms += STEP_MS * 5;
        assert!(now_ms < 20_000, "{answers} answers");
    }
    assert!((1_000..=1_280).contains(&most), "{most} in flight");
}

/// Injection attempts in messages and header fields.
const PAYLOADS: &[&str] = &[
    "it's \"fine\" \\ ☃\n",
    "\",\"stage\":\"evil",
    "\"}{\"myBody\":\"",
    "\\\",\\\"domain\\\":\\\"evil",
    "x\r\nHost: evil\r\n\r\nGET / HTTP/1.1\r\n",
    "x\r\nContent-Length: 0\r\n\r\nDELETE /all HTTP/1.1\r\n\r\n",
    "x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "x\nConnectionId: other\n",
    "0\r\n\r\nPOST /connect HTTP/1.1\r\n\r\n",
    "\u{0}\u{1}\u{7f}\u{85}\u{2028}\u{2029}",
    "%0d%0aX-Evil: 1",
    "http://169.254.169.254/latest/meta-data",
    "../../connect",
    "//evil.example/",
    "?admin=1#",
    "{{constructor.constructor('return 1')()}}",
    "${jndi:ldap://evil/a}",
    "$request.body.action",
    "{\"action\":\"join\",\"url\":\"http://evil/\"}",
    "{\"action\":\"$disconnect\"}",
    "{\"action\":\"join\\u0000\"}",
    "{\"action\":[\"join\"]}",
    "{\"domain\":\"evil.example\",\"stage\":\"evil\",\"myConnectionIdProperty\":\"other\"}",
    "'; DROP TABLE sessions; --",
    "<script>alert(1)</script>",
    "\u{feff}{\"action\":\"join\"}",
    "{\"a\":1e999}",
    "{\"action\":\"join\"}{\"action\":\"leave\"}",
    "null",
    "\"\"",
];

/// Header fields for the same attempts.
fn fields(payload: &str) -> Vec<String> {
    let visible: String =
        payload.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '.' }).collect();
    vec![
        format!("User-Agent: {visible}"),
        format!("ConnectionId: {visible}"),
        format!("Cookie: {visible}"),
        format!("X-Forwarded-For: {visible}"),
    ]
}

/// Client input appears only as a value: path, header fields and their order, and the keys of the
/// JSON are the same for all payloads.
#[test]
fn client_input_appears_only_as_a_value() {
    for format in ["template", "proxy", "event"] {
        let args = format!(
            "--gateway-backend http://127.0.0.1:8501/b --gateway-format {format} \
             --gateway-route $request.body.action --gateway-routes join,leave"
        );
        let args: Vec<&str> = args.split_whitespace().collect();
        let mut shapes: BTreeMap<String, usize> = BTreeMap::new();
        for payload in PAYLOADS {
            let mut harness = Harness::new(&args);
            harness.net.state().on_connect = OnConnect::Accept;
            let wire = harness.connect();
            let mut query = String::new();
            for byte in payload.bytes() {
                write!(query, "%{byte:02x}").unwrap();
            }
            let head = upgrade(&format!("/gateway/prod?q={query}"), &[]);
            let more = fields(payload).join("\r\n");
            let head = [&head[..head.len() - 2], more.as_bytes(), b"\r\n\r\n"].concat();
            harness.send(wire, &head);
            let backend = *harness.net.state().outgoing.last().expect("a request");
            let asked = harness.net.take_output(backend);
            *shapes.entry(shape(&asked, payload, format)).or_default() += 1;
            harness.send(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            harness.net.take_output(wire);
            harness.send(wire, &text(payload));
            let asked = harness.net.take_output(backend);
            *shapes.entry(shape(&asked, payload, format)).or_default() += 1;
        }
        // One shape for $connect, one for messages; `proxy` forwards JSON and other text.
        let most = if format == "proxy" { 3 } else { 2 };
        assert!(shapes.len() <= most, "{format}: {shapes:#?}");
        assert_eq!(shapes.values().sum::<usize>(), 2 * PAYLOADS.len());
    }
}

/// A request without its values; checks the message in it.
fn shape(asked: &[u8], payload: &str, format: &str) -> String {
    let mut rest = asked.to_vec();
    let (path, body) = take(&mut rest).expect("a whole request");
    assert!(rest.is_empty(), "{payload:?}: two requests");
    let head = String::from_utf8(asked[..asked.len() - body.len()].to_vec()).unwrap();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let decoded = query.strip_prefix("q=").unwrap_or_default().split('%').skip(1);
    let decoded: Vec<u8> = decoded.map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect();
    let is_connect = path == "/b/connect";
    assert_eq!(decoded, if is_connect { payload.as_bytes() } else { b"" });
    let values = ["Content-Length", "User-Agent", "Cookie", "X-Forwarded-For"];
    let lines: Vec<&str> = head
        .lines()
        .map(|line| match values.iter().find(|name| line.starts_with(**name)) {
            Some(name) => name,
            None => line.split('?').next().unwrap(),
        })
        .collect();
    let ids = lines.iter().filter(|line| line.starts_with("ConnectionId: Zm9y")).count();
    assert_eq!(ids, usize::from(is_connect || format == "proxy"), "{lines:?}");
    let members = match format {
        "template" => {
            let value: Value = serde_json::from_slice(&body).unwrap();
            if !is_connect {
                assert_eq!(value["myBody"], *payload);
            }
            assert_eq!(
                (&value["stage"], &value["domain"]),
                (&"prod".into(), &"example.test".into())
            );
            keys(&value)
        }
        "event" => {
            let value: Value = serde_json::from_slice(&body).unwrap();
            if is_connect {
                assert_eq!(value["queryStringParameters"]["q"], *payload);
            } else {
                assert_eq!(value["body"], *payload);
            }
            let route = value["requestContext"]["routeKey"].as_str().unwrap();
            assert!(["$connect", "$default", "join"].contains(&route), "{route}");
            keys(&value) + &keys(&value["requestContext"])
        }
        "proxy" if !is_connect => {
            assert_eq!(body, payload.as_bytes());
            String::new()
        }
        _ => {
            assert_eq!(body, b"");
            String::new()
        }
    };
    format!("{} {members}", lines.join(" | "))
}

fn keys(value: &Value) -> String {
    value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(",")
}

/// The backend closes its idle connection, or sends 408 unasked as `HAProxy` does, just after a
/// wait that reported a message. The message goes over another connection.
#[test]
fn no_message_goes_to_a_connection_that_the_backend_has_closed() {
    let ends: [&[u8]; 2] = [b"", b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\n\r\n"];
    for last_words in ends {
        let args = "--gateway-backend http://127.0.0.1:8501 --gateway-reply on";
        let mut harness = Harness::new(&args.split(' ').collect::<Vec<_>>());
        harness.net.state().on_connect = OnConnect::Accept;
        let client = harness.connect();
        harness.send(client, &upgrade("/gateway/prod", &[]));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let [idle] = harness.net.state().outgoing[..] else { panic!("one connection") };
        harness.send(idle, answer);
        let mut reader = Reader::default();
        assert_eq!(reader.read(&harness.output(client)).len(), 1, "a WebSocket");

        harness.net.take_output(idle);
        harness.net.state().batch = 1;
        harness.net.send(client, &text("hello"));
        harness.net.send(idle, last_words);
        harness.net.fin(idle);
        harness.settle();
        assert_eq!(harness.net.take_output(idle), b"", "to the idle connection");
        let [_, fresh] = harness.net.state().outgoing[..] else { panic!("another connection") };
        harness.send(fresh, answer);
        assert_eq!(reader.read(&harness.output(client)), ["text \"ok\""]);
    }
}

/// While the kernel says that memory is short, messages of callbacks are refused.
#[test]
fn callbacks_are_refused_while_memory_is_short() {
    let args = "--gateway-backend http://127.0.0.1:8501 --gateway-open --memory-limit 64MiB";
    let mut harness = Harness::new(&args.split(' ').collect::<Vec<_>>());
    harness.net.state().on_connect = OnConnect::Accept;
    let used = Rc::new(Cell::new(8 << 20));
    harness.net.server().memory_used = Some(used.clone());
    let client = harness.connect();
    harness.send(client, &upgrade("/gateway/prod", &[]));
    let backend = *harness.net.state().outgoing.last().expect("a request");
    harness.send(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let caller = harness.net.connect(1);
    let id = connection_id::counted(0).map(ConnectionId).expect("an id");
    let mut reader = Reader::default();
    let mut status = |harness: &mut Harness, method: &str, used_mib: u64| {
        used.set(used_mib << 20);
        harness.pass(1_000);
        let head = format!("{method} /@connections/{id} HTTP/1.1\r\nHost: h\r\n");
        harness.send(caller, format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
        // The account changes with a request, and the kernel is asked again.
        harness.pass(1_000);
        harness.send(caller, format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
        let lines = reader.read(&harness.net.take_output(caller));
        lines.last().map(|line| line[..3].to_owned()).unwrap_or_default()
    };
    assert_eq!(status(&mut harness, "POST", 8), "200");
    assert_eq!(status(&mut harness, "POST", 61), "429");
    assert_eq!(status(&mut harness, "GET", 61), "200");
    assert_eq!(status(&mut harness, "POST", 8), "200");
    assert_eq!(harness.end(client), None);
}
