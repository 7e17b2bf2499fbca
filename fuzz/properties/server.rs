//! The whole server on the simulated system, driven by a sequence of operations of its peers, the
//! operator, the network and the clock: it does not panic or spin, keeps its memory limit, sends
//! well-formed frames, and nothing is left when all connections have ended.

use wspulse::engine::Signal;
use wspulse::limits;

use super::input::Source;
use super::output;
use crate::harness::Harness;
use crate::os::Fault;

const INPUT_MAX: usize = 2 * 1024;
const OPERATIONS_MAX: usize = 200;
const WIRES_MAX: usize = 12;
/// The most bytes that one input may send.
const SENT_MAX: usize = 600 * 1024;
/// Longer than any deadline.
const PATIENCE_MS: u64 = 120_000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Arguments of the server, and its limit of a message.
const SETUPS: [(&[&str], usize); 4] = [
    (&["--max-message", "4KiB", "--max-connections", "4", "--faults"], 4 * 1024),
    // So little memory that a few messages use it up.
    (&["--max-message", "200KiB", "--max-connections", "8", "--memory-limit", "8MiB"], 200 * 1024),
    (&["--max-connections", "3", "--drain-window", "1s", "--drain-timeout", "6s"], 1024 * 1024),
    (&["--profile", "kubernetes", "--ping-interval", "500ms", "--pong-timeout", "1s"], 1024 * 1024),
];

const TARGETS: [&str; 16] = [
    "/echo",
    "/websocket",
    "/ws?every=100ms&size=64KiB",
    "/?delay=100ms",
    "/echo?delay=10s&hello=1",
    "/ws?randping=100ms&size=1KiB",
    "/echo?probe=1&ping=1s",
    "/nowhere",
    "/socket",
    "/throttled",
    "/throttled?delay=150ms",
    "/echo?close_after=1s&code=1012&reason=bye",
    "/echo?fault=rst",
    "/echo?block=100ms",
    "/echo?fault=fragment&work=20ms",
    "/echo?fault=stall-read",
];

const REQUESTS: [&str; 16] = [
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /healthz HTTP/1.0\r\n\r\n",
    "HEAD /whoami HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789",
    "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "GET /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\nExpect: 100-continue\r\n\r\n",
    "GET /version HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /stats HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "POST /drain HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /drain?cancel=1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /drain?wait=300ms HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /shed?percent=50 HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /inemuri?seconds=1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /readyz/disable HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
];

/// See the module's head. The first byte chooses the arguments.
pub fn server(data: &[u8]) {
    let mut source = Source(&data[..data.len().min(INPUT_MAX)]);
    let (args, max_message) = SETUPS[usize::from(source.byte() & 3)];
    let mut play = Play {
        harness: Harness::seeded(args, 7),
        peers: Vec::new(),
        sent: 0,
        per_connection: max_message + limits::HARD_CAP_BYTES + limits::READ_BYTES_PER_TURN,
    };
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() || play.harness.exit.is_some() {
            break;
        }
        play.operate(&mut source);
        play.check();
    }
    play.end();
}

/// A server and its peers.
struct Play {
    harness: Harness,
    peers: Vec<Peer>,
    sent: usize,
    per_connection: usize,
}

/// A peer's output and state.
struct Peer {
    output: Vec<u8>,
    /// Whether its input began with a well-formed upgrade.
    begins_with_upgrade: bool,
    silent: bool,
}

impl Play {
    /// One operation: its kind and its wire. With the top bit the loop does not run before the next
    /// operation, so that it gets several events at once.
    fn operate(&mut self, source: &mut Source<'_>) {
        let what = source.byte();
        let which = usize::from(source.byte());
        let wire = which % self.peers.len().max(1);
        let net = self.harness.net.clone();
        match what & 0x1f {
            0 | 1 => self.connect(usize::from(what & 1)),
            2 => net.signal([Signal::Stop, Signal::Report, Signal::Reload][which % 3]),
            3 => self.pass(source),
            4 => self.fault(source),
            5 => self.descriptors(source),
            _ if self.peers.is_empty() => self.connect(0),
            6 => net.fin(wire),
            7 => net.reset(wire),
            8 => net.spurious_event(wire),
            9 => net.window(wire, usize::from(source.byte())),
            10 => net.window(wire, usize::from(source.word()) * 16),
            11 => net.window(wire, usize::MAX),
            12..=15 => self.upgrade(wire, source),
            16 | 17 => self.send(wire, REQUESTS[usize::from(source.byte() & 15)].as_bytes()),
            18 => {
                self.send_part(wire, REQUESTS[usize::from(source.byte() & 15)].as_bytes(), source);
            }
            19 | 20 => {
                let length = usize::from(source.byte());
                self.send(wire, source.take(length));
            }
            _ => self.frames(wire, source),
        }
        if what & 0x80 == 0 && self.harness.exit.is_none() {
            self.harness.settle();
        }
    }

    fn connect(&mut self, side: usize) {
        if self.peers.len() < WIRES_MAX {
            self.harness.net.connect(side);
            self.peers.push(Peer { output: Vec::new(), begins_with_upgrade: false, silent: true });
        }
    }

    fn pass(&mut self, source: &mut Source<'_>) {
        let ms = match source.byte() {
            byte @ 0..64 => u64::from(byte),
            byte @ 64..192 => u64::from(byte - 63) * 50,
            byte => u64::from(byte - 191) * 1_000,
        };
        self.harness.pass(ms);
    }

    /// A fault in one of the next calls.
    fn fault(&mut self, source: &mut Source<'_>) {
        let which = source.byte();
        let faults = [Fault::Interrupted, Fault::Short, Fault::Spurious, Fault::Reset];
        let mut net = self.harness.net.state();
        net.fault = Some((net.calls + 1 + u64::from(which >> 2), faults[usize::from(which & 3)]));
    }

    /// Descriptors run out, or are available again.
    fn descriptors(&mut self, source: &mut Source<'_>) {
        self.harness.net.server().descriptors = if source.byte() & 1 == 0 { 1000 } else { 0 };
    }

    fn upgrade(&mut self, wire: usize, source: &mut Source<'_>) {
        let which = source.byte();
        let target = TARGETS[usize::from(which & 7 | (which & 0x20) >> 2)];
        let offer = match which >> 3 & 3 {
            1 => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            2 => "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
            _ => "",
        };
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             {offer}Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.peers[wire].begins_with_upgrade |= self.peers[wire].silent;
        self.send(wire, head.as_bytes());
    }

    /// Sends a part only, so that later input is its rest or invalid.
    fn send_part(&mut self, wire: usize, bytes: &[u8], source: &mut Source<'_>) {
        let length = usize::from(source.byte()).min(bytes.len());
        self.send(wire, &bytes[..length]);
    }

    /// Equal frames, perhaps without the end of the last one.
    fn frames(&mut self, wire: usize, source: &mut Source<'_>) {
        const FIRST: [u8; 8] = [0x81, 0x82, 0x01, 0x02, 0x80, 0x00, 0x89, 0x88];
        let shape = source.byte();
        let length = match shape >> 3 & 3 {
            0 => usize::from(source.byte() & 0x7f),
            1 => usize::from(source.byte()) * 16,
            2 => usize::from(source.word()),
            _ => usize::from(source.word()) * 16,
        };
        let pattern = source.take(2);
        let times = if shape & 0x20 == 0 { 1 } else { usize::from(source.byte()) };
        let cut = if shape & 0x40 == 0 { 0 } else { usize::from(source.byte()) };
        // The top bit sets RSV1, for any content.
        let first = FIRST[usize::from(shape & 7)] | (shape >> 1 & 0x40);
        let length = if first & 8 == 0 { length } else { length.min(125) };
        let frame = frame(first, length, pattern);
        let all = frame.repeat(times.min(SENT_MAX / frame.len()));
        self.send(wire, &all[..all.len().saturating_sub(cut)]);
    }

    fn send(&mut self, wire: usize, bytes: &[u8]) {
        if !bytes.is_empty() && self.sent + bytes.len() <= SENT_MAX {
            self.sent += bytes.len();
            self.peers[wire].silent = false;
            self.harness.net.send(wire, bytes);
        }
    }

    /// Checked after every operation.
    fn check(&mut self) {
        let server = self.harness.driver.engine();
        let (connections, memory) = (server.connections(), server.memory());
        assert_eq!(memory, server.memory_counted(), "the account is wrong");
        assert!(connections <= self.peers.len(), "{connections} of {}", self.peers.len());
        let bound = connections * self.per_connection;
        assert!(memory <= bound, "{connections} connections own {memory} bytes");
        for (wire, peer) in self.peers.iter_mut().enumerate() {
            peer.output.extend(self.harness.net.take_output(wire));
        }
    }

    /// All peers disconnect, unless the process has ended; checks their output.
    fn end(mut self) {
        if self.harness.exit.is_none() {
            for wire in 0..self.peers.len() {
                self.harness.net.reset(wire);
            }
            self.harness.pass(PATIENCE_MS);
        }
        if self.harness.exit.is_none() {
            let server = self.harness.driver.engine();
            let left = (server.connections(), server.timers(), server.memory());
            assert_eq!(left, (0, 0, 0), "connections, timers, bytes left behind");
        }
        self.check();
        for peer in &self.peers {
            let upgraded = peer.begins_with_upgrade.then(|| output::after_upgrade(&peer.output));
            if let Some(frames) = upgraded.flatten() {
                output::frames(frames);
            }
        }
    }
}

fn frame(first: u8, length: usize, pattern: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match length {
        0..=125 => frame.push(0x80 | length as u8),
        126..=0xffff => {
            frame.push(0xfe);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0xff);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    let pattern = if pattern.is_empty() { b"a" } else { pattern };
    let payload = pattern.iter().cycle().take(length).zip(MASK.iter().cycle());
    frame.extend(payload.map(|(byte, key)| byte ^ key));
    frame
}
