//! A network of several hosts in virtual time: recycled addresses, partitions that drop SYNs, wires
//! that are cut, clocks that differ. Each host runs one process; the test is the clients, the
//! callers and the backend.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use wspulse::engine::{File, Id, Now, Peer, Side, Signal, Source, Target};
use wspulse::net::os::{Channel, Event, Os};
use wspulse::rng::Rng;
use wspulse::time;

/// 21 November 2026, 03:00 UTC.
const WALL_MS: i64 = 1_795_230_000_000;
/// Everything outside the hosts: clients, callers, backends.
pub(crate) const OUTSIDE: usize = usize::MAX;

/// One direction of a wire.
#[derive(Debug, Default)]
struct Way {
    flying: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    fin_ns: Option<u64>,
    fin_told: bool,
}

#[derive(Debug)]
struct Wire {
    /// The process at each end: the host that dialled, the host that was dialled.
    ends: [usize; 2],
    ids: [Option<(Id, Side)>; 2],
    /// Data to each end.
    ways: [Way; 2],
    is_closed: [bool; 2],
    is_reset: bool,
    reset_told: [bool; 2],
    /// The accepting end has been notified.
    is_established: bool,
    /// The SYN is not answered.
    is_lost: bool,
    /// Between replicas: cut after this many bytes.
    cut_after: Option<usize>,
    moved: usize,
}

/// The network's state of a host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Whether a process runs there.
    pub(crate) is_up: bool,
    /// Distinguishes processes.
    pub(crate) run: u64,
    pub(crate) skew_ms: i64,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    wake_ns: u64,
    is_busy: bool,
    events: VecDeque<Event>,
    knocking: [VecDeque<usize>; 3],
    main_closed: bool,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) now_ns: u64,
    pub(crate) rng: Rng,
    pub(crate) hosts: Vec<Host>,
    wires: Vec<Wire>,
    /// Partitioned pairs of hosts, and since when.
    pub(crate) partitions: BTreeMap<(usize, usize), u64>,
    /// Wires between replicas that will be cut, per thousand.
    pub(crate) cut: u64,
    /// Reads and writes that move only one byte, per thousand.
    pub(crate) short: u64,
    pub(crate) latency_ms: u64,
    /// Connections to the backend, for the test to serve.
    pub(crate) to_backend: Vec<usize>,
    /// SYNs to peer listeners.
    pub(crate) peer_syns: usize,
}

pub(crate) type Shared = Rc<RefCell<Net>>;

/// The address of a host's peer listener.
pub(crate) fn address(host: usize) -> SocketAddr {
    ([10, 0, 0, host as u8 + 1], 8082).into()
}

impl Net {
    pub(crate) fn new(seed: u64, hosts: usize) -> Self {
        Self {
            now_ns: 1_000_000_000,
            rng: Rng::new(seed),
            hosts: (0..hosts).map(|_| Host::default()).collect(),
            wires: Vec::new(),
            partitions: BTreeMap::new(),
            cut: 0,
            short: 0,
            latency_ms: 0,
            to_backend: Vec::new(),
            peer_syns: 0,
        }
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.rng.below(1_000) < per_mille
    }

    fn are_parted(&self, one: usize, other: usize) -> bool {
        self.partitions.contains_key(&(one.min(other), one.max(other)))
    }

    fn open(&mut self, from: usize, to: usize) -> usize {
        let mut wire = Wire {
            ends: [from, to],
            ids: [None, None],
            ways: [Way::default(), Way::default()],
            is_closed: [false, false],
            is_reset: false,
            reset_told: [false, false],
            is_established: false,
            is_lost: false,
            cut_after: None,
            moved: 0,
        };
        if from != OUTSIDE && to != OUTSIDE && self.happens(self.cut) {
            wire.cut_after = Some(self.rng.below(600) as usize);
        }
        self.wires.push(wire);
        self.wires.len() - 1
    }

    /// The test connects to a listener of a host: 0 main, 1 admin, 2 peers.
    pub(crate) fn connect(&mut self, host: usize, listener: usize) -> Option<usize> {
        let at = &self.hosts[host];
        if !at.is_up || (listener == 0 && at.main_closed) {
            return None;
        }
        let wire = self.open(OUTSIDE, host);
        self.enqueue(wire, host, listener);
        Some(wire)
    }

    fn enqueue(&mut self, wire: usize, host: usize, listener: usize) {
        self.wires[wire].is_established = true;
        self.hosts[host].knocking[listener].push_back(wire);
        self.hosts[host].events.push_back(Event::Accept(listener));
    }

    /// The test's side of a wire sends.
    pub(crate) fn send(&mut self, wire: usize, bytes: &[u8]) {
        let side = usize::from(self.wires[wire].ends[0] != OUTSIDE);
        self.push(wire, side, bytes);
    }

    /// Takes the bytes at the test's side; and whether the other side has closed.
    pub(crate) fn take(&mut self, wire: usize) -> (Vec<u8>, bool) {
        let wire = &mut self.wires[wire];
        let side = usize::from(wire.ends[0] != OUTSIDE);
        let is_over = wire.is_reset || wire.ways[side].fin_told;
        (wire.ways[side].arrived.drain(..).collect(), is_over)
    }

    fn push(&mut self, wire: usize, from: usize, bytes: &[u8]) {
        let latency_ns = time::ms(self.rng.below(self.latency_ms + 1));
        let due_ns = self.now_ns + latency_ns;
        let wire_now = &mut self.wires[wire];
        wire_now.moved += bytes.len();
        let is_cut = wire_now.cut_after.is_some_and(|after| wire_now.moved > after);
        let way = &mut wire_now.ways[1 - from];
        let after_ns = way.flying.back().map_or(0, |(at, _)| *at);
        way.flying.push_back((due_ns.max(after_ns), bytes.to_vec()));
        if is_cut {
            self.destroy(wire);
        }
    }

    fn destroy(&mut self, wire: usize) {
        self.wires[wire].is_reset = true;
        for way in &mut self.wires[wire].ways {
            way.flying.clear();
            way.arrived.clear();
        }
    }

    fn close(&mut self, wire: usize, side: usize) {
        if std::mem::replace(&mut self.wires[wire].is_closed[side], true) {
            return;
        }
        let incoming = &self.wires[wire].ways[side];
        if incoming.arrived.is_empty() && incoming.flying.is_empty() {
            self.fin(wire, side);
        } else {
            self.destroy(wire);
        }
    }

    fn fin(&mut self, wire: usize, from: usize) {
        let now_ns = self.now_ns;
        let way = &mut self.wires[wire].ways[1 - from];
        let last_ns = way.flying.back().map_or(now_ns, |(at, _)| *at);
        way.fin_ns.get_or_insert(last_ns);
    }

    fn report(&mut self, wire: usize, side: usize, readable: bool, writable: bool) {
        let w = &self.wires[wire];
        let (host, Some((id, _))) = (w.ends[side], w.ids[side]) else { return };
        let event = Event::Stream {
            id,
            readable: readable || w.is_reset,
            writable: writable || w.is_reset,
            ended: w.is_reset || w.ways[side].fin_told,
            broken: w.is_reset,
        };
        self.hosts[host].events.push_back(event);
    }

    /// Delivers data that is due; returns the time of the next delivery.
    pub(crate) fn arrive(&mut self) -> u64 {
        let mut next_ns = u64::MAX;
        for wire in 0..self.wires.len() {
            let [one, other] = self.wires[wire].ends;
            if self.are_parted(one, other) {
                continue;
            }
            for side in 0..2 {
                let now_ns = self.now_ns;
                let w = &mut self.wires[wire];
                let way = &mut w.ways[side];
                let mut has_news = false;
                while way.flying.front().is_some_and(|(at, _)| *at <= now_ns) {
                    way.arrived.extend(way.flying.pop_front().unwrap().1);
                    has_news = true;
                }
                let all_arrived = way.flying.is_empty();
                if all_arrived && !way.fin_told && way.fin_ns.is_some_and(|at| at <= now_ns) {
                    way.fin_told = true;
                    has_news = true;
                }
                let flying_ns = way.flying.front().map(|(at, _)| *at);
                let fin_ns = way.fin_ns.filter(|_| !way.fin_told && all_arrived);
                next_ns = flying_ns.into_iter().chain(fin_ns).fold(next_ns, u64::min);
                if w.is_reset && !std::mem::replace(&mut w.reset_told[side], true) {
                    has_news = true;
                }
                if has_news {
                    self.report(wire, side, true, false);
                }
            }
        }
        next_ns
    }

    /// When to wake a host: at once if it has events.
    pub(crate) fn wake_ns(&self) -> u64 {
        let of = |host: &Host| {
            let is_ready = host.is_busy || !host.events.is_empty();
            if is_ready { self.now_ns } else { host.wake_ns }
        };
        self.hosts.iter().filter(|host| host.is_up).map(of).min().unwrap_or(u64::MAX)
    }

    /// Starts a process.
    pub(crate) fn start(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        at.is_up = true;
        at.run += 1;
        (at.wake_ns, at.is_busy, at.main_closed) = (0, true, false);
        at.events.clear();
    }

    /// Kills the process: the kernel resets its connections.
    pub(crate) fn kill(&mut self, host: usize) {
        self.hosts[host].is_up = false;
        self.hosts[host].knocking = Default::default();
        for wire in 0..self.wires.len() {
            for side in 0..2 {
                let w = &mut self.wires[wire];
                if w.ends[side] == host && !w.is_closed[side] {
                    (w.is_closed[side], w.ids[side]) = (true, None);
                    self.destroy(wire);
                }
            }
        }
    }

    pub(crate) fn signal(&mut self, host: usize, signal: Signal) {
        self.hosts[host].events.push_back(Event::Signal(signal));
    }
}

/// One end of a wire.
#[derive(Debug)]
pub(crate) struct Stream {
    wire: usize,
    side: usize,
    net: Shared,
}

impl Channel for Stream {}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let net = &mut *self.net.borrow_mut();
        let is_short = net.happens(net.short);
        let wire = &mut net.wires[self.wire];
        if wire.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let way = &mut wire.ways[self.side];
        if way.arrived.is_empty() {
            return if way.fin_told { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let most = if is_short { 1 } else { buffer.len() };
        let n = most.min(way.arrived.len());
        for (to, byte) in buffer.iter_mut().zip(way.arrived.drain(..n)) {
            *to = byte;
        }
        if !way.arrived.is_empty() {
            net.report(self.wire, self.side, true, false);
        }
        Ok(n)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let net = &mut *self.net.borrow_mut();
        if net.wires[self.wire].is_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if net.wires[self.wire].is_closed[1 - self.side] {
            // Bytes for a peer that has closed are answered with an RST.
            net.destroy(self.wire);
            return Ok(bytes.len());
        }
        let is_short = net.happens(net.short);
        let n = if is_short { bytes.len().min(1) } else { bytes.len() };
        if n < bytes.len() {
            net.report(self.wire, self.side, false, true);
        }
        net.push(self.wire, self.side, &bytes[..n]);
        Ok(n)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(&pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let net = &mut *self.net.borrow_mut();
        // Its events must not reach a later process at this host.
        net.wires[self.wire].ids[self.side] = None;
        net.close(self.wire, self.side);
    }
}

/// The operating system of a host.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) host: usize,
    pub(crate) net: Shared,
    /// The side of the third listener.
    pub(crate) peers: Side,
}

impl Os for System {
    type Stream = Stream;

    fn now(&mut self) -> Now {
        let net = self.net.borrow();
        let ms = i64::try_from(net.now_ns / 1_000_000).unwrap();
        Now { mono_ns: net.now_ns, wall_ms: WALL_MS + ms + net.hosts[self.host].skew_ms }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        let now_ns = net.now_ns;
        let host = &mut net.hosts[self.host];
        let timeout_ns =
            timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        host.wake_ns = now_ns.saturating_add(timeout_ns);
        events.extend(host.events.drain(..));
        host.is_busy = host.wake_ns <= now_ns || !events.is_empty();
        Ok(())
    }

    fn sleep(&mut self, _: Duration, _: &mut Vec<Event>) -> io::Result<()> {
        unreachable!("no test here freezes a process")
    }

    fn poll_admin(&mut self, _events: &mut Vec<Event>) -> io::Result<()> {
        Ok(())
    }

    fn listeners(&self) -> Vec<Side> {
        vec![Side::Main, Side::Admin, self.peers]
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Stream, Peer)> {
        let net = &mut *self.net.borrow_mut();
        let wire = net.hosts[self.host].knocking[listener].pop_front();
        let wire = wire.ok_or(io::ErrorKind::WouldBlock)?;
        let [from, _] = net.wires[wire].ends;
        let ip = if from == OUTSIDE { [127, 0, 0, 1] } else { [10, 0, 0, from as u8 + 1] };
        let peer = Peer::new((ip, 40_000 + wire as u16 % 20_000).into());
        Ok((Stream { wire, side: 1, net: self.net.clone() }, peer))
    }

    fn refuse_one(&mut self, _: usize, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn connect(&mut self, target: &Target) -> io::Result<Stream> {
        let net = &mut *self.net.borrow_mut();
        let Target::Tcp(to) = target else { return Err(io::ErrorKind::NotFound.into()) };
        let stream = |wire, net: &Shared| Stream { wire, side: 0, net: net.clone() };
        if to.port() != 8082 {
            let wire = net.open(self.host, OUTSIDE);
            net.wires[wire].is_established = true;
            net.to_backend.push(wire);
            return Ok(stream(wire, &self.net));
        }
        net.peer_syns += 1;
        let host = (0..net.hosts.len()).find(|host| address(*host) == *to);
        let host = host.expect("an advertised address");
        let wire = net.open(self.host, host);
        if net.are_parted(self.host, host) {
            net.wires[wire].is_lost = true;
        } else if !net.hosts[host].is_up {
            return Err(io::ErrorKind::ConnectionRefused.into());
        } else {
            net.enqueue(wire, host, 2);
        }
        Ok(stream(wire, &self.net))
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let net = self.net.borrow();
        let wire = &net.wires[stream.wire];
        if wire.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(wire.is_established && !wire.is_lost)
    }

    fn watch(&mut self, stream: &mut Stream, side: Side, id: Id) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        net.wires[stream.wire].ids[stream.side] = Some((id, side));
        net.report(stream.wire, stream.side, true, true);
        Ok(())
    }

    fn finish(&mut self, stream: &mut Stream) {
        self.net.borrow_mut().fin(stream.wire, stream.side);
    }

    fn reset(&mut self, stream: Stream) {
        let net = &mut *self.net.borrow_mut();
        net.wires[stream.wire].is_closed[stream.side] = true;
        net.destroy(stream.wire);
    }

    fn close_listeners(&mut self) {
        self.net.borrow_mut().hosts[self.host].main_closed = true;
    }

    fn fetch(&mut self, source: &Source) -> io::Result<Vec<File>> {
        let Source::Files(paths) = source else { return Ok(Vec::new()) };
        let net = self.net.borrow();
        let files = net.hosts[self.host].files.iter().filter(|(name, _)| paths.contains(name));
        let file = |(name, bytes): &(String, Vec<u8>)| File {
            name: name.clone(),
            bytes: bytes.clone(),
            modified_ms: WALL_MS,
            prepared: None,
        };
        Ok(files.map(file).collect())
    }
}
