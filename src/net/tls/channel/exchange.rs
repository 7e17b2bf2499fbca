//! A session against a `rustls` peer that cuts its records anywhere: no byte is lost or repeated.
//! Reads follow the rules of the loop: without an event and without `holds_more`, none happens.

use std::collections::VecDeque;

use mio::net::UnixStream;
use rustls::{ClientConnection, Connection, ServerConnection, SupportedProtocolVersion};

use super::tests::configs;
use super::*;

/// Our side: what the loop and the engine keep of a stream.
struct Ours {
    tls: Tls,
    /// There may be something to read, as an event or `holds_more` said.
    readable: bool,
    /// A write fell short: the next one waits for an event.
    blocked: bool,
    unsent: VecDeque<u8>,
    received: Vec<u8>,
    ended: bool,
}

impl Ours {
    fn new(tls: Tls) -> Self {
        let (readable, blocked, ended) = (false, false, false);
        Self { tls, readable, blocked, unsent: VecDeque::new(), received: Vec::new(), ended }
    }

    /// One turn: a read into `room` bytes if one is due, and a write unless the last fell short.
    fn turn(&mut self, room: usize) {
        if self.tls.is_handshaking() && matches!(self.tls.session, Session::Client(_)) {
            self.tls.handshake().unwrap();
        } else if self.readable && !self.ended {
            let mut buffer = vec![0; room];
            let read = self.tls.read(&mut buffer);
            let more = self.tls.holds_more();
            if self.tls.flush().is_err() {
                self.blocked = true;
            }
            match read {
                Ok(0) => (self.ended, self.readable) = (true, false),
                Ok(n) => {
                    self.received.extend_from_slice(&buffer[..n]);
                    self.readable = more || n == room;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = more,
                Err(error) => panic!("{error}"),
            }
        }
        if !self.blocked && !self.unsent.is_empty() {
            let (first, second) = self.unsent.as_slices();
            let offered = first.len() + second.len();
            let taken = match self.tls.write(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => panic!("{error}"),
            };
            self.unsent.drain(..taken);
            // The end of the handshake causes another write.
            self.blocked = taken < offered && !self.tls.session.is_handshaking();
        }
    }

    /// The peer has read: the kernel takes more.
    fn writable(&mut self) {
        if self.blocked && self.tls.flush().is_ok() {
            self.blocked = false;
        }
    }
}

/// The peer: a session of `rustls` with buffers.
struct Theirs {
    socket: UnixStream,
    session: Connection,
    /// Records on their way, cut anywhere.
    records: VecDeque<u8>,
    received: Vec<u8>,
}

impl Theirs {
    /// Sends at most `n` bytes; returns how many.
    fn send(&mut self, n: usize) -> usize {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.records).unwrap();
        }
        let n = n.min(self.records.len());
        let sent = self.socket.write(&self.records.make_contiguous()[..n]).unwrap_or(0);
        self.records.drain(..sent);
        sent
    }

    /// Receives at most `n` bytes; returns how many.
    fn receive(&mut self, n: usize) -> usize {
        let mut bytes = vec![0; n];
        let n = self.socket.read(&mut bytes).unwrap_or(0);
        let mut rest = &bytes[..n];
        while !rest.is_empty() {
            self.session.read_tls(&mut rest).unwrap();
            self.session.process_new_packets().unwrap();
            let mut plain = vec![0; 32 * 1024];
            while let Ok(n @ 1..) = self.session.reader().read(&mut plain) {
                self.received.extend_from_slice(&plain[..n]);
            }
        }
        n
    }
}

fn both(is_server: bool, version: &'static SupportedProtocolVersion) -> (Ours, Theirs) {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (server, client) = configs(&[version]);
    let name = ServerName::try_from("localhost").unwrap();
    let (tls, mut session): (_, Connection) = if is_server {
        let peer = ClientConnection::new(client, name).unwrap();
        (Tls::accept(Socket::Unix(ours), server, &[]).unwrap(), peer.into())
    } else {
        let peer = ServerConnection::new(server).unwrap();
        (Tls::connect(Socket::Unix(ours), client, name).unwrap(), peer.into())
    };
    session.set_buffer_limit(None);
    let (records, received) = (VecDeque::new(), Vec::new());
    (Ours::new(tls), Theirs { socket: theirs, session, records, received })
}

/// A number of bytes from 1 to `most`: tiny, middling and huge ones are equally likely.
fn some(random: &mut fastrand::Rng, most: usize) -> usize {
    let digits = random.u32(0..=most.ilog2());
    random.usize(1..=(2 << digits).min(most))
}

fn exchange(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let version = *random.choice(rustls::ALL_VERSIONS).unwrap();
    let (mut ours, mut theirs) = both(random.bool(), version);
    let mut message = |most| {
        let n = some(&mut random, most);
        std::iter::repeat_with(|| random.u8(..)).take(n).collect::<Vec<u8>>()
    };
    let (to, from) = (message(300_000), message(300_000));
    let (mut said, mut queued) = (0, 0);
    let widest = random.usize(1..200_000);
    let mut idle = 0;
    while idle < 200 {
        let ready = !theirs.session.is_handshaking();
        if ready && said < to.len() && theirs.records.len() < 100_000 {
            // One call is one record or several.
            let n = some(&mut random, 20_000).min(to.len() - said);
            theirs.session.writer().write_all(&to[said..said + n]).unwrap();
            said += n;
            if random.u8(..) < 20 && version.version == ProtocolVersion::TLSv1_3 {
                let _ = theirs.session.refresh_traffic_keys();
            }
            if said == to.len() {
                theirs.session.send_close_notify();
            }
        }
        if queued < from.len() && ours.unsent.len() < 50_000 {
            let n = some(&mut random, 100_000).min(from.len() - queued);
            ours.unsent.extend(&from[queued..queued + n]);
            queued += n;
        }
        let sent = theirs.send(some(&mut random, widest));
        ours.readable |= sent > 0;
        let before = (ours.received.len(), ours.unsent.len());
        for _ in 0..random.u8(0..3) {
            ours.turn(some(&mut random, 200_000));
        }
        let received = if random.bool() { theirs.receive(some(&mut random, widest)) } else { 0 };
        if received > 0 {
            ours.writable();
        }
        let moved = sent + received > 0 || before != (ours.received.len(), ours.unsent.len());
        idle = if moved { 0 } else { idle + 1 };
    }
    assert!(ours.received == to, "{} of {} arrived", ours.received.len(), to.len());
    assert!(ours.ended, "{version:?}: {:?}, {} left", ours.tls.state, theirs.records.len());
    assert!(theirs.received == from, "{} of {} were sent", theirs.received.len(), from.len());
    assert_eq!(ours.tls.held_bytes(), 0);
}

#[test]
fn records_cut_anywhere_lose_and_repeat_nothing() {
    for seed in 0..60 {
        let shown = std::panic::catch_unwind(|| exchange(seed));
        assert!(shown.is_ok(), "seed {seed}");
    }
}

/// A handshake of which one flight is damaged: whatever happens, it ends and is bounded.
fn damaged(seed: u64) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let version = *random.choice(rustls::ALL_VERSIONS).unwrap();
    let (mut ours, mut theirs) = both(random.bool(), version);
    let spoilt = random.usize(0..2);
    let is_client = matches!(ours.tls.session, Session::Client(_));
    for round in 0..8 {
        while theirs.session.wants_write() {
            theirs.session.write_tls(&mut theirs.records).unwrap();
        }
        let mut flight: Vec<u8> = theirs.records.drain(..).collect();
        if round == spoilt && !flight.is_empty() {
            spoil(&mut random, &mut flight);
        }
        for part in flight.chunks(some(&mut random, 20_000)) {
            // It may have been given up.
            let _ = theirs.socket.write_all(part);
            let outcome = if is_client && ours.tls.session.is_handshaking() {
                ours.tls.handshake().map(usize::from)
            } else {
                ours.tls.read(&mut [0; 5_000])
            };
            assert!(ours.tls.held_bytes() <= WIRE_BYTES);
            match outcome {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return true,
                _ => {}
            }
        }
        let mut bytes = vec![0; 20_000];
        let n = theirs.socket.read(&mut bytes).unwrap_or(0);
        let mut rest = &bytes[..n];
        while !rest.is_empty() && theirs.session.read_tls(&mut rest).is_ok() {
            if theirs.session.process_new_packets().is_err() {
                return true;
            }
        }
    }
    false
}

fn spoil(random: &mut fastrand::Rng, flight: &mut Vec<u8>) {
    let at = random.usize(..flight.len());
    match random.u8(0..5) {
        0 => flight[at] ^= 1 << random.u8(0..8),
        1 => flight[at] = random.u8(..),
        2 => flight.insert(at, random.u8(..)),
        3 => drop(flight.remove(at)),
        _ => {
            let again = flight[at..].to_vec();
            flight.extend_from_slice(&again);
        }
    }
}

#[test]
fn damaged_handshakes_fail_and_do_not_panic() {
    let mut failed = 0;
    for seed in 0..150 {
        let shown = std::panic::catch_unwind(|| damaged(seed));
        assert!(shown.is_ok(), "seed {seed}");
        failed += usize::from(shown.unwrap_or(false));
    }
    assert!(failed > 50, "{failed} of 150: little was damaged");
}

/// A server may speak first, even before the client's handshake has ended (RFC 8446 §4.4.4).
#[test]
fn bytes_that_come_with_the_end_of_a_handshake_are_read() {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (server, client) = configs(&[&rustls::version::TLS13]);
    let mut config = (*server).clone();
    config.send_half_rtt_data = true;
    let mut peer = ServerConnection::new(Arc::new(config)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = Tls::connect(Socket::Unix(ours), client, name).unwrap();
    let mut socket = theirs;
    assert!(!client.handshake().unwrap());
    peer.read_tls(&mut socket).unwrap();
    peer.process_new_packets().unwrap();
    peer.writer().write_all(&vec![7; 20_000]).unwrap();
    peer.send_close_notify();
    while peer.wants_write() {
        peer.write_tls(&mut socket).unwrap();
    }
    while !client.handshake().unwrap() {}
    // The event that ended the handshake causes the first read.
    let (mut received, mut reads) = (0, 0);
    while (reads == 0 || client.holds_more()) && received < 20_000 {
        received += client.read(&mut [0; 1_000]).unwrap();
        reads += 1;
    }
    assert_eq!(received, 20_000);
    assert!(client.holds_more(), "the end is still to be read");
    assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
}
