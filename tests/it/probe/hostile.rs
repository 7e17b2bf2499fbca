//! Far ends that want to harm who probes them: there is an end in bounded time, memory is bounded,
//! and nothing of theirs controls the terminal.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use wspulse::engine::{Action, Engine, HangUp, Id, Now, Out, Peer, Side, Signal};
use wspulse::outbox::{Blocks, Outbox};
use wspulse::slab::Slab;
use wspulse::time;

use super::bytes::{Frame, Head};
use super::wrong::Wrong;
use super::{Between, Case, Outcome, play_with, report};
use crate::os::{Network, Odds};

/// How often a far end that never stops sends more.
const EVERY_MS: u64 = 50;
/// So many sockets get a huge message.
const HUGE_FIRST: usize = 3;
/// What a probe may hold for all its sockets. In practice it is a tenth.
const MOST_BYTES: i64 = 48 << 20;

/// What a far end does.
#[derive(Clone, Debug, Default)]
struct Manners {
    name: &'static str,
    /// Instead of a 101.
    answer: Option<Vec<u8>>,
    /// Further fields of the 101.
    fields: String,
    /// What follows the 101.
    first: Vec<u8>,
    /// What follows it on the first sockets only.
    huge: Vec<u8>,
    /// What is sent again and again, also while nothing is asked.
    again: Vec<u8>,
    /// It echoes frames.
    echoes: bool,
    /// It reads nothing after the request.
    is_deaf: bool,
}

#[derive(Debug, Default)]
struct Stream {
    input: Vec<u8>,
    output: Vec<u8>,
    outbox: Outbox,
    is_open: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Hostile {
    manners: Manners,
    streams: Slab<Stream>,
    actions: VecDeque<Action>,
    next_ns: u64,
    opened: usize,
}

impl Hostile {
    fn answer(&mut self, id: Id) {
        let Some(stream) = self.streams.find_mut(id) else { return };
        if !stream.is_open {
            let Some(head) = Head::take(&mut stream.input) else { return };
            stream.is_open = true;
            stream.output.extend(match (&self.manners.answer, head.field("Sec-WebSocket-Key")) {
                (Some(answer), _) => answer.clone(),
                (None, None) => b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
                (None, Some(key)) => format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{}\r\n",
                    accept(&key),
                    self.manners.fields
                )
                .into_bytes(),
            });
            stream.output.extend(&self.manners.first);
            self.opened += 1;
            if self.opened <= HUGE_FIRST {
                stream.output.extend(&self.manners.huge);
            }
        }
        while let Some(frame) = Frame::take(&mut stream.input) {
            if self.manners.echoes {
                stream.output.extend(Frame { mask: None, ..frame }.bytes());
            }
        }
        self.actions.push_back(Action::Write(id));
    }
}

/// The answer to a key (RFC 6455 §1.3).
fn accept(key: &str) -> String {
    let hash = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    STANDARD.encode(hash)
}

impl Between for Hostile {
    fn connections(&self) -> usize {
        self.streams.len()
    }
}

impl Engine for Hostile {
    fn accepted(&mut self, now: Now, _: Side, _: Peer) -> Option<Id> {
        self.next_ns = self.next_ns.min(now.mono_ns + time::ms(EVERY_MS));
        self.streams.insert(Stream::default())
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        let is_deaf = self.manners.is_deaf;
        let open = self.streams.find(id).is_some_and(|stream| stream.is_open);
        if is_deaf && open { &mut [] } else { shared }
    }

    fn received(&mut self, _: Now, id: Id, n: usize, shared: &mut [u8], _: &mut Out) {
        if let Some(stream) = self.streams.find_mut(id) {
            stream.input.extend_from_slice(&shared[..n]);
        }
        self.answer(id);
    }

    fn ended(&mut self, _: Now, id: Id, _: HangUp, _: &mut Out) {
        if let Some(stream) = self.streams.find_mut(id) {
            stream.is_over = true;
        }
        self.actions.push_back(Action::Reset(id));
    }

    fn hung_up(&mut self, now: Now, id: Id, out: &mut Out) {
        self.ended(now, id, HangUp::Eof, out);
    }

    fn keep(&mut self, _: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        if let Some(stream) = self.streams.find_mut(id) {
            stream.outbox.keep(out, shared, taken, &mut Blocks::default(), 0);
        }
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.streams.find(id).map_or(&[], |stream| stream.outbox.unsent())
    }

    fn sent(&mut self, _: Now, id: Id, n: usize) {
        if let Some(stream) = self.streams.find_mut(id) {
            stream.outbox.sent(n, &mut Blocks::default(), 0);
        }
    }

    fn render(&mut self, _: Now, id: Id, out: &mut Out) {
        if let Some(stream) = self.streams.find_mut(id) {
            out.bytes.append(&mut stream.output);
        }
    }

    fn closed(&mut self, _: Now, id: Id) {
        self.streams.remove(id);
    }

    fn fire(&mut self, now: Now) {
        self.next_ns = now.mono_ns + time::ms(EVERY_MS);
        let open = self.streams.iter().filter(|(_, stream)| stream.is_open && !stream.is_over);
        let ids: Vec<Id> = open.map(|(id, _)| id).collect();
        for id in ids {
            if let Some(stream) = self.streams.find_mut(id)
                && stream.outbox.is_empty()
            {
                stream.output.extend(&self.manners.again);
                self.actions.push_back(Action::Write(id));
            }
        }
    }

    fn signal(&mut self, _: Now, _: Signal) {}

    fn next_deadline(&self) -> Option<u64> {
        let sends = !self.manners.again.is_empty() && !self.streams.is_empty();
        sends.then_some(self.next_ns)
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    Frame { first, mask: None, payload: payload.to_vec() }.bytes()
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// The first message of a far end of a probe, with these values everywhere.
fn hello(value: &str) -> Vec<u8> {
    let value = serde_json::to_string(value).unwrap();
    text(&format!(
        "{{\"probe\":1,\"pod\":{value},\"peer\":{value},\"target\":{value},\"httpVersion\":{value},\
         \"extensions\":{value},\"headers\":{{\"Host\":{value},\"Via\":{value},\"Origin\":{value},\
         {value}:{value}}}}}"
    ))
}

const CONTROLS: &str = "\u{ffff}\u{1b}[2J\u{7}\u{9b}31m\r\n\u{202e}\u{0}<&\">";

fn manners() -> Vec<Manners> {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    let plain = Manners::default;
    let first = |name, first| Manners { name, first, echoes: true, ..plain() };
    let answer = |name, answer| Manners { name, answer: Some(answer), ..plain() };
    let again = |name, again| Manners { name, again, echoes: true, ..plain() };
    let pings = frame(0x89, &[b'p'; 125]).repeat(200);
    vec![
        Manners {
            name: "a message of 16 MiB",
            huge: frame(0x82, &vec![7; 16 << 20]),
            echoes: true,
            ..plain()
        },
        first("a frame of 2^62 bytes", b"\x82\x7f\x40\0\0\0\0\0\0\0".to_vec()),
        first("300 KiB each", frame(0x02, &vec![7; 300 << 10])),
        first("a reserved opcode", b"\x83\x00".to_vec()),
        first("a masked frame", b"\x81\x81\0\0\0\0a".to_vec()),
        first("a continuation alone", b"\x80\x01a".to_vec()),
        first("a Close of one byte", b"\x88\x01a".to_vec()),
        first("a Close with control characters", frame(0x88, b"\x03\xe8\x1b[2J\x07")),
        first("a compressed frame nobody agreed to", b"\xc1\x01a".to_vec()),
        first("nested JSON", text(&"[".repeat(100_000))),
        first("another hello", text("{\"probe\":1,\"headers\":[1,[2]],\"pod\":{\"a\":1}}")),
        first("a hello with control characters", hello(CONTROLS)),
        first("a long hello", hello(&"\u{1d11e} ".repeat(2_000))),
        first("a long word in the hello", hello(&"w".repeat(5_000))),
        first("not UTF-8", frame(0x81, b"\xff\xfe{\"probe\":1}")),
        again("ticks", text("tick 1").repeat(100)),
        again("a message without end", frame(0x02, &[1; 4_000])),
        again("pings", pings.clone()),
        again("counts of nothing", text("{\"fragments\":-1,\"pings\":1e99}")),
        Manners { name: "pings, and deaf", again: pings, is_deaf: true, ..plain() },
        Manners { name: "deaf", is_deaf: true, ..plain() },
        Manners { name: "mute", ..plain() },
        Manners { name: "mute after a hello", first: hello("x"), ..plain() },
        Manners {
            name: "a hello, then ticks",
            again: text("tick 2"),
            first: hello("x"),
            ..plain()
        },
        Manners {
            name: "cookies without end",
            fields: format!("Set-Cookie: a={}; path=/\r\n", "c".repeat(100)).repeat(60),
            first: hello("x"),
            ..plain()
        },
        Manners {
            name: "control characters in fields",
            fields: format!("X-Served-By: \u{1b}[2J\u{7}\r\nServer: {}\r\n", "n".repeat(3_000)),
            echoes: true,
            ..plain()
        },
        Manners { name: "a head of 33 KiB", fields: "X: y\r\n".repeat(6_000), ..plain() },
        answer("a head without end", head(&"X-Padding: y\r\n".repeat(6_000))[..60_000].to_vec()),
        answer("interim responses", b"HTTP/1.1 103 Early\r\n\r\n".repeat(1_000)),
        answer("a body without end", head("Content-Length: 99999999999\r\n")),
        answer("a page of controls", head("Server: a\u{9b}b\r\nLocation: x\u{7f}\r\n")),
        answer("no HTTP", CONTROLS.repeat(3_000).into_bytes()),
        answer("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x28".to_vec()),
        Manners {
            name: "a body that drips",
            answer: Some(head("Transfer-Encoding: chunked\r\n")),
            again: b"5\r\nabcde\r\n".repeat(500),
            ..plain()
        },
    ]
}

fn attack(manners: &Manners, args: &str, capacity: usize) -> Option<String> {
    let case = Case {
        args: args.to_owned(),
        odds: Odds { capacity, ..Odds::NONE },
        ..Case::quick(manners.name, Wrong::Nothing)
    };
    let net = Network::faulty(3, 1, case.odds);
    let hostile = Hostile {
        manners: manners.clone(),
        streams: Slab::default(),
        actions: VecDeque::new(),
        next_ns: u64::MAX,
        opened: 0,
    };
    let Outcome { report, took_ms, most_bytes } = play_with(&case, &net, Some(hostile));
    let name = format!("{} with {args}", manners.name);
    if took_ms > 75_000 {
        return Some(format!("{name}: {took_ms} ms\n{}", report.page()));
    }
    if most_bytes > MOST_BYTES {
        return Some(format!("{name}: {most_bytes} bytes"));
    }
    let why = report::check(&report, args == "--quick").err()?;
    Some(format!("{name}: {why}\n{}", report.page()))
}

#[test]
fn probes_of_hostile_far_ends() {
    let mut wrong = Vec::new();
    for manners in manners() {
        wrong.extend(attack(&manners, "--quick", 64 * 1024));
        wrong.extend(attack(&manners, "--patience 2s", 64 * 1024));
        wrong.extend(attack(&manners, "--patience 2s --any", 1 << 20));
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
