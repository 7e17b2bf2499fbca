//! Faulty wires in virtual time, with an operating system at each end. What can go wrong is drawn
//! from a seed; what goes wrong on a wire is written down, so that it is no excuse for another.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use wspulse::engine::{File, Id, Now, Peer, Side, Signal, Source, Target};
use wspulse::net::os::{Channel, Event, Os};
use wspulse::rng::Rng;
use wspulse::time;

/// The end of a wire that a driver holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Server,
    Client,
}

impl Party {
    fn other(self) -> Self {
        if self == Self::Server { Self::Client } else { Self::Server }
    }
}

/// How often each thing goes wrong, in parts of a thousand calls or wires.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Odds {
    pub(crate) short: u64,
    pub(crate) interrupted: u64,
    pub(crate) spurious: u64,
    pub(crate) haunted: u64,
    pub(crate) exhausted: u64,
    pub(crate) clock_gap: u64,
    /// Of wires: cut at some byte, their client's end half closed, or stalled for long.
    pub(crate) cut: u64,
    pub(crate) half_closed: u64,
    pub(crate) stalled: u64,
    pub(crate) latency_ms: u64,
    pub(crate) capacity: usize,
}

/// One direction of a wire.
#[derive(Debug, Default)]
struct Way {
    /// On its way: when it arrives, and what.
    flying: VecDeque<(u64, Vec<u8>)>,
    /// Arrived and not read.
    arrived: VecDeque<u8>,
    /// When the end arrives.
    fin_ns: Option<u64>,
    fin_told: bool,
    /// The writer waits for room.
    blocked: bool,
}

#[derive(Debug, Default)]
struct Wire {
    /// To the server, to the client.
    ways: [Way; 2],
    ids: [Option<(Id, Side)>; 2],
    closed: [bool; 2],
    reset: bool,
    reset_told: [bool; 2],
    /// Bytes to the server after which this wire is cut, or its client falls silent with a FIN.
    cut_after: Option<usize>,
    half_closed_after: Option<usize>,
    /// For so long nothing arrives at the server.
    stall_ns: u64,
    to_server: usize,
    harmed: bool,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) now_ns: u64,
    pub(crate) rng: Rng,
    pub(crate) odds: Odds,
    wires: Vec<Wire>,
    knocking: VecDeque<usize>,
    events: [VecDeque<Event>; 2],
    /// When each party wants to be woken.
    pub(crate) wake_ns: [u64; 2],
    /// Whether a party did something in its last turn: what it waits for now is not known yet.
    pub(crate) busy: [bool; 2],
    pub(crate) accepting_stopped: bool,
    exhausted_until_ns: u64,
}

impl Net {
    pub(crate) fn new(seed: u64, odds: Odds) -> Self {
        Self {
            now_ns: 1_000_000_000,
            rng: Rng::new(seed),
            odds,
            wires: Vec::new(),
            knocking: VecDeque::new(),
            events: [VecDeque::new(), VecDeque::new()],
            wake_ns: [0, 0],
            busy: [false, false],
            accepting_stopped: false,
            exhausted_until_ns: 0,
        }
    }

    /// Wires that were cut, stalled or half closed: their clients may end badly.
    pub(crate) fn harmed(&self) -> usize {
        self.wires.iter().filter(|wire| wire.harmed).count()
    }

    /// Whether either party has something to do at this moment.
    pub(crate) fn has_news(&self) -> bool {
        self.events.iter().any(|events| !events.is_empty()) || self.busy.contains(&true)
    }

    /// The process on this party has ended: the kernel closes what it left open.
    pub(crate) fn process_ends(&mut self, party: Party) {
        for wire in 0..self.wires.len() {
            self.close(wire, party);
            self.wires[wire].ids[party as usize] = None;
        }
        self.events[party as usize].clear();
        self.busy[party as usize] = false;
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.rng.below(1000) < per_mille
    }

    fn tell(&mut self, wire: usize, party: Party, readable: bool, writable: bool) {
        let w = &self.wires[wire];
        let Some((id, _)) = w.ids[party as usize] else { return };
        let ended = w.reset || w.ways[party as usize].fin_told;
        let event = Event::Stream {
            id,
            readable: readable || w.reset,
            writable: writable || w.reset,
            ended,
            broken: w.reset,
        };
        self.events[party as usize].push_back(event);
    }

    /// What is due arrives; returns when the next thing is.
    pub(crate) fn arrive(&mut self) -> u64 {
        let mut next_ns = u64::MAX;
        for wire in 0..self.wires.len() {
            for party in [Party::Server, Party::Client] {
                let now_ns = self.now_ns;
                let way = &mut self.wires[wire].ways[party as usize];
                let mut news = false;
                while way.flying.front().is_some_and(|(at, _)| *at <= now_ns) {
                    way.arrived.extend(way.flying.pop_front().unwrap().1);
                    news = true;
                }
                if way.flying.is_empty()
                    && !way.fin_told
                    && way.fin_ns.is_some_and(|at| at <= now_ns)
                {
                    way.fin_told = true;
                    news = true;
                }
                let flying_ns = way.flying.front().map(|(at, _)| *at);
                let fin_ns = way.fin_ns.filter(|_| !way.fin_told && way.flying.is_empty());
                next_ns = flying_ns.into_iter().chain(fin_ns).fold(next_ns, u64::min);
                if self.wires[wire].reset && !self.wires[wire].reset_told[party as usize] {
                    self.wires[wire].reset_told[party as usize] = true;
                    news = true;
                }
                if news {
                    self.tell(wire, party, true, false);
                }
            }
        }
        next_ns
    }

    /// The connection is destroyed, and what was on its way with it.
    fn destroy(&mut self, wire: usize) {
        self.wires[wire].reset = true;
        for way in &mut self.wires[wire].ways {
            way.flying.clear();
            way.arrived.clear();
        }
    }

    fn close(&mut self, wire: usize, party: Party) {
        if std::mem::replace(&mut self.wires[wire].closed[party as usize], true) {
            return;
        }
        let incoming = &self.wires[wire].ways[party as usize];
        if incoming.arrived.is_empty() && incoming.flying.is_empty() {
            self.fin(wire, party);
        } else {
            // Closing over unread bytes sends an RST, which takes all that the peer has not read.
            self.destroy(wire);
        }
    }

    fn fin(&mut self, wire: usize, from: Party) {
        let now_ns = self.now_ns;
        let way = &mut self.wires[wire].ways[from.other() as usize];
        let last_ns = way.flying.back().map_or(now_ns, |(at, _)| *at);
        way.fin_ns.get_or_insert(last_ns);
    }

    fn push(&mut self, wire: usize, from: Party, bytes: &[u8]) {
        let latency_ns = time::ms(self.rng.below(self.odds.latency_ms + 1));
        let now_ns = self.now_ns;
        let w = &mut self.wires[wire];
        if w.ways[from.other() as usize].fin_ns.is_some() {
            // Behind the end that this wire made up, nothing arrives.
            return;
        }
        let stall_ns = if from == Party::Client { std::mem::take(&mut w.stall_ns) } else { 0 };
        let way = &mut w.ways[from.other() as usize];
        let after_ns = way.flying.back().map_or(0, |(at, _)| *at);
        way.flying.push_back(((now_ns + latency_ns + stall_ns).max(after_ns), bytes.to_vec()));
        if from == Party::Client {
            w.to_server += bytes.len();
            if w.cut_after.is_some_and(|after| w.to_server > after) {
                self.destroy(wire);
            } else if w.half_closed_after.is_some_and(|after| w.to_server > after) {
                self.fin(wire, Party::Client);
            }
        }
    }
}

/// Everybody's hand on the network.
pub(crate) type Shared = Rc<RefCell<Net>>;

/// One end of a wire.
#[derive(Debug)]
pub(crate) struct Stream {
    wire: usize,
    party: Party,
    net: Shared,
}

impl Channel for Stream {}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let net = &mut *self.net.borrow_mut();
        if net.happens(net.odds.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if net.wires[self.wire].reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if net.happens(net.odds.spurious) {
            net.tell(self.wire, self.party, true, false);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let short = net.happens(net.odds.short);
        let way = &mut net.wires[self.wire].ways[self.party as usize];
        if way.arrived.is_empty() {
            return if way.fin_told { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut n = buffer.len().min(way.arrived.len());
        if short {
            n = 1 + net.rng.below(n as u64) as usize;
        }
        let way = &mut net.wires[self.wire].ways[self.party as usize];
        for (to, byte) in buffer.iter_mut().zip(way.arrived.drain(..n)) {
            *to = byte;
        }
        let more = n < buffer.len() && !way.arrived.is_empty();
        let writer_waits = std::mem::take(&mut way.blocked);
        if more {
            // A kernel that gives less than it has tells of the rest as of something new.
            net.tell(self.wire, self.party, true, false);
        }
        if writer_waits {
            net.tell(self.wire, self.party.other(), false, true);
        }
        Ok(n)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let net = &mut *self.net.borrow_mut();
        if net.happens(net.odds.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let peer_gone = net.wires[self.wire].closed[self.party.other() as usize];
        if net.wires[self.wire].reset || peer_gone {
            // Bytes for a peer that has closed are answered with an RST.
            net.destroy(self.wire);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let short = net.happens(net.odds.short);
        let capacity = net.odds.capacity;
        let way = &mut net.wires[self.wire].ways[self.party.other() as usize];
        let unread =
            way.arrived.len() + way.flying.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let mut n = bytes.len().min(capacity.saturating_sub(unread));
        if n == 0 {
            way.blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if short {
            n = 1 + net.rng.below(n as u64) as usize;
        }
        if n < bytes.len() {
            let way = &mut net.wires[self.wire].ways[self.party.other() as usize];
            way.blocked = !short;
            if short {
                net.tell(self.wire, self.party, false, true);
            }
        }
        net.push(self.wire, self.party, &bytes[..n]);
        Ok(n)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // As a kernel takes them: one after the other, not only the first.
        self.write(&pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.net.borrow_mut().close(self.wire, self.party);
    }
}

/// The operating system at one party.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) party: Party,
    pub(crate) net: Shared,
    /// What the kernel says of this process' memory, where somebody limits it.
    pub(crate) used: Option<Rc<Cell<u64>>>,
}

impl Os for Host {
    type Stream = Stream;

    fn now(&mut self) -> Now {
        let mono_ns = self.net.borrow().now_ns;
        Now { mono_ns, wall_ms: i64::try_from(mono_ns / 1_000_000).unwrap() }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        let timeout_ns =
            timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        net.wake_ns[self.party as usize] = net.now_ns.saturating_add(timeout_ns);
        events.extend(net.events[self.party as usize].drain(..));
        let due = net.wake_ns[self.party as usize] <= net.now_ns;
        net.busy[self.party as usize] = due || !events.is_empty();
        if net.happens(net.odds.haunted) {
            // Spurious for whoever is there, stale for whoever was there before.
            let key = net.rng.below(20) as u32;
            let generation = net.rng.below(3) as u32;
            let id = Id { key, generation };
            let (readable, writable, ended, broken) = (true, true, false, false);
            events.push(Event::Stream { id, readable, writable, ended, broken });
        }
        Ok(())
    }

    fn sleep(&mut self, _: Duration, _: &mut Vec<Event>) -> io::Result<()> {
        unreachable!("nobody here may freeze the process")
    }

    fn poll_admin(&mut self, _events: &mut Vec<Event>) -> io::Result<()> {
        Ok(())
    }

    fn listeners(&self) -> Vec<Side> {
        if self.party == Party::Server { vec![Side::Main] } else { Vec::new() }
    }

    fn accept(&mut self, _listener: usize) -> io::Result<(Stream, Peer)> {
        let net = &mut *self.net.borrow_mut();
        if net.now_ns >= net.exhausted_until_ns && net.happens(net.odds.exhausted) {
            net.exhausted_until_ns = net.now_ns + time::ms(net.rng.below(300));
        }
        if net.now_ns < net.exhausted_until_ns {
            return Err(io::Error::from_raw_os_error(24));
        }
        if net.knocking.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let wire = net.knocking.pop_front().unwrap();
        let peer = Peer::new(([192, 0, 2, 1], u16::try_from(wire).unwrap()).into());
        Ok((Stream { wire, party: Party::Server, net: self.net.clone() }, peer))
    }

    fn refuse_one(&mut self, _listener: usize, response: &[u8]) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        let wire = net.knocking.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        net.wires[wire].harmed = true;
        net.push(wire, Party::Server, response);
        net.close(wire, Party::Server);
        Ok(())
    }

    fn connect(&mut self, _target: &Target) -> io::Result<Stream> {
        let net = &mut *self.net.borrow_mut();
        if net.accepting_stopped {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut wire = Wire::default();
        let somewhere = |net: &mut Net| Some(net.rng.below(3000) as usize);
        if net.happens(net.odds.cut) {
            wire.cut_after = somewhere(net);
        } else if net.happens(net.odds.half_closed) {
            wire.half_closed_after = somewhere(net);
        } else if net.happens(net.odds.stalled) {
            wire.stall_ns = time::ms(net.rng.below(100_000));
        }
        wire.harmed =
            wire.cut_after.is_some() || wire.half_closed_after.is_some() || wire.stall_ns > 0;
        net.wires.push(wire);
        let wire = net.wires.len() - 1;
        net.knocking.push_back(wire);
        net.events[Party::Server as usize].push_back(Event::Accept(0));
        Ok(Stream { wire, party: Party::Client, net: self.net.clone() })
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let net = self.net.borrow();
        if net.wires[stream.wire].reset {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(true)
        }
    }

    fn watch(&mut self, stream: &mut Stream, party: Side, id: Id) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        net.wires[stream.wire].ids[stream.party as usize] = Some((id, party));
        net.tell(stream.wire, stream.party, true, true);
        Ok(())
    }

    fn finish(&mut self, stream: &mut Stream) {
        self.net.borrow_mut().fin(stream.wire, stream.party);
    }

    fn reset(&mut self, stream: Stream) {
        // The stream is dropped behind this, when the wire is closed already.
        let net = &mut *self.net.borrow_mut();
        net.wires[stream.wire].closed[stream.party as usize] = true;
        net.destroy(stream.wire);
    }

    fn close_listeners(&mut self) {
        let net = &mut *self.net.borrow_mut();
        net.accepting_stopped = true;
        while let Some(wire) = net.knocking.pop_front() {
            net.wires[wire].harmed = true;
            net.destroy(wire);
        }
    }

    fn memory_used(&mut self) -> Option<u64> {
        self.used.as_ref().map(|used| used.get())
    }

    fn fetch(&mut self, _source: &Source) -> io::Result<Vec<File>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Asks the server to stop.
pub(crate) fn stop_server(net: &Shared) {
    net.borrow_mut().events[Party::Server as usize].push_back(Event::Signal(Signal::Stop));
}
