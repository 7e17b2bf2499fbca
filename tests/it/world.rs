//! A simulated operating system for the real loop: wires instead of sockets, a clock that jumps,
//! and one fault at a stated call. What epoll promises is promised here, and no more: a change is
//! told once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use wspulse::engine::{File, Id, Now, Peer, Side, Signal, Source, Target};
use wspulse::net::os::{Channel, Event, Os};

/// 21 November 2026, 03:00 UTC.
const WALL_MS: i64 = 1_795_230_000_000;

/// The network, shared by the system's streams and the test.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub(crate) now_ns: u64,
    /// The clock does not go beyond this by itself.
    pub(crate) limit_ns: u64,
    pub(crate) wires: Vec<Wire>,
    knocking: [VecDeque<usize>; 2],
    events: Vec<Event>,
    /// Events that one wait takes; the rest follow with the next. 0: all of them.
    pub(crate) batch: usize,
    /// How long the system takes for one accept.
    pub(crate) accept_ns: u64,
    /// Each connection that the main listener accepts is followed by another.
    pub(crate) reconnects: bool,
    /// Accepted, accepted since the admin side was asked, and the most that this has been.
    pub(crate) accepts: usize,
    unasked: usize,
    pub(crate) most_unasked: usize,
    /// Nothing happened and nothing is due before the limit.
    pub(crate) quiet: bool,
    pub(crate) accepting_stopped: bool,
    /// Reads and writes so far, and the one that fails.
    pub(crate) calls: u64,
    pub(crate) fault: Option<(u64, Fault)>,
    /// Descriptors that are left.
    pub(crate) descriptors: usize,
    /// How often there was none.
    pub(crate) exhausted: u64,
    /// Connections that the system was asked for, and what becomes of such.
    pub(crate) dialled: Vec<usize>,
    pub(crate) dials: Dials,
    /// Those that will never come about.
    lost: Vec<usize>,
    pub(crate) files: Option<Vec<(String, Vec<u8>)>>,
    /// What the kernel says of the process' memory, where a test wants that.
    pub(crate) used: Option<Rc<Cell<u64>>>,
}

/// What becomes of a connection that the system was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dials {
    #[default]
    Refused,
    Taken,
    /// Nobody says anything, as where a firewall drops what it does not like.
    Lost,
}

/// What happens at a stated call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call is interrupted.
    Interrupted,
    /// The call moves one byte.
    Short,
    /// The event was spurious: nothing to read, no room to write; an event follows.
    Spurious,
    /// The connection is dead.
    Reset,
}

/// One connection, as the network sees it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    id: Option<(Id, Side)>,
    inbound: VecDeque<u8>,
    inbound_fin: bool,
    dead: bool,
    pub(crate) outbound: Vec<u8>,
    /// Bytes that the system takes before the peer reads again.
    window: usize,
    blocked: bool,
    /// What its stream says that it keeps.
    pub(crate) held: usize,
    pub(crate) end: Option<End>,
}

/// How the system ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Closed,
    /// Closed over so many bytes that it had not read: the kernel sends an RST.
    ClosedUnread(usize),
    Reset,
}

impl Net {
    /// Up to the limit, and no further than whoever sleeps wants to.
    fn let_time_pass(&mut self, timeout: Option<Duration>) {
        let wake_ns = timeout.map_or(u64::MAX, |timeout| {
            self.now_ns + u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
        });
        if wake_ns > self.limit_ns && self.now_ns >= self.limit_ns {
            self.quiet = true;
        }
        self.now_ns = wake_ns.min(self.limit_ns.max(self.now_ns));
    }

    /// Whether an event concerns the admin side.
    fn is_admin(&self, event: Event) -> bool {
        match event {
            Event::Accept(side) => side == 1,
            Event::Stream { id, .. } => {
                self.wires.iter().any(|wire| wire.id == Some((id, Side::Admin)))
            }
            Event::Signal(_) | Event::AssetsRead => false,
        }
    }

    /// An accept takes its time; somebody may come meanwhile.
    fn note_accept(&mut self, listener: usize) {
        self.now_ns += self.accept_ns;
        self.accepts += 1;
        self.unasked += 1;
        self.most_unasked = self.most_unasked.max(self.unasked);
        assert!(self.accepts < 100_000, "it accepts without end");
        if self.reconnects && listener == 0 {
            self.wires.push(Wire { window: usize::MAX, ..Wire::default() });
            self.knocking[0].push_back(self.wires.len() - 1);
        }
    }

    fn tell(&mut self, wire: usize, readable: bool, writable: bool) {
        let Wire { id: Some((id, side)), dead, inbound_fin, .. } = self.wires[wire] else { return };
        let _ = side;
        let ended = dead || inbound_fin;
        self.events.push(Event::Stream {
            id,
            readable: readable || dead,
            writable: writable || dead,
            ended,
            broken: dead,
        });
    }

    /// Counts a call; the fault that belongs to it, if there is one.
    fn call(&mut self) -> Option<Fault> {
        self.calls += 1;
        self.fault.filter(|(at, _)| *at == self.calls).map(|(_, fault)| fault)
    }
}

/// The test's hand on the network.
#[derive(Clone, Debug)]
pub(crate) struct Wires(pub(crate) Rc<RefCell<Net>>);

impl Wires {
    pub(crate) fn new() -> Self {
        let net = Net { descriptors: 1000, now_ns: 1_000_000_000, ..Net::default() };
        Self(Rc::new(RefCell::new(net)))
    }

    /// Somebody connects.
    pub(crate) fn connect(&self, listener: usize) -> usize {
        let mut net = self.0.borrow_mut();
        net.wires.push(Wire { window: usize::MAX, ..Wire::default() });
        let wire = net.wires.len() - 1;
        if listener == 0 && net.accepting_stopped {
            // Nobody listens there any more.
            net.wires[wire].end = Some(End::Reset);
            return wire;
        }
        net.knocking[listener].push_back(wire);
        net.events.push(Event::Accept(listener));
        wire
    }

    /// Bytes arrive.
    pub(crate) fn send(&self, wire: usize, bytes: &[u8]) {
        let mut net = self.0.borrow_mut();
        net.wires[wire].inbound.extend(bytes);
        net.tell(wire, true, false);
    }

    /// The peer sends no more.
    pub(crate) fn fin(&self, wire: usize) {
        let mut net = self.0.borrow_mut();
        net.wires[wire].inbound_fin = true;
        net.tell(wire, true, false);
    }

    /// The peer is gone.
    pub(crate) fn reset(&self, wire: usize) {
        let mut net = self.0.borrow_mut();
        net.wires[wire].dead = true;
        net.tell(wire, true, true);
    }

    /// The peer takes so many bytes more than it has so far, or from now on.
    pub(crate) fn window(&self, wire: usize, bytes: usize) {
        let mut net = self.0.borrow_mut();
        net.wires[wire].window = bytes;
        if bytes > 0 && std::mem::take(&mut net.wires[wire].blocked) {
            net.tell(wire, false, true);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.0.borrow_mut().events.push(Event::Signal(signal));
    }

    /// A stale or spurious event, as epoll may deliver.
    pub(crate) fn haunt(&self, wire: usize) {
        self.0.borrow_mut().tell(wire, true, true);
    }

    pub(crate) fn take_output(&self, wire: usize) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().wires[wire].outbound)
    }

    pub(crate) fn end(&self, wire: usize) -> Option<End> {
        self.0.borrow().wires[wire].end
    }
}

/// The system's side of a wire.
#[derive(Debug)]
pub(crate) struct Stream {
    wire: usize,
    net: Wires,
}

impl Channel for Stream {
    fn held_bytes(&self) -> usize {
        self.net.0.borrow().wires[self.wire].held
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut net = self.net.0.borrow_mut();
        let fault = net.call();
        let wire = &mut net.wires[self.wire];
        let mut budget = buffer.len();
        match fault {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Spurious) => {
                net.tell(self.wire, true, false);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Some(Fault::Reset) => {
                wire.dead = true;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Fault::Short) => budget = budget.min(1),
            None => {}
        }
        if wire.dead {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if wire.inbound.is_empty() {
            return if wire.inbound_fin { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let n = budget.min(wire.inbound.len());
        for (to, byte) in buffer.iter_mut().zip(wire.inbound.drain(..n)) {
            *to = byte;
        }
        if fault == Some(Fault::Short) {
            // A kernel that gives less than it has tells of the rest as of something new.
            net.tell(self.wire, true, false);
        }
        Ok(n)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut net = self.net.0.borrow_mut();
        let fault = net.call();
        let wire = &mut net.wires[self.wire];
        let mut budget = bytes.len().min(wire.window);
        match fault {
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Spurious) => {
                net.tell(self.wire, false, true);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Some(Fault::Reset) => {
                wire.dead = true;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Some(Fault::Short) => budget = budget.min(1),
            None => {}
        }
        if wire.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        wire.outbound.extend_from_slice(&bytes[..budget]);
        wire.window -= if wire.window == usize::MAX { 0 } else { budget };
        if fault == Some(Fault::Short) && budget < bytes.len() {
            net.tell(self.wire, false, true);
        } else if budget < bytes.len() {
            wire.blocked = true;
        }
        if budget == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(budget) }
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
        let mut net = self.net.0.borrow_mut();
        net.descriptors += 1;
        let wire = &mut net.wires[self.wire];
        if wire.end != Some(End::Reset) {
            let unread = wire.inbound.len();
            wire.end = Some(if unread > 0 { End::ClosedUnread(unread) } else { End::Closed });
        }
    }
}

/// The operating system that the loop sees.
#[derive(Debug)]
pub(crate) struct World(pub(crate) Wires);

impl Os for World {
    type Stream = Stream;

    fn now(&mut self) -> Now {
        let mono_ns = self.0.0.borrow().now_ns;
        Now { mono_ns, wall_ms: WALL_MS + i64::try_from(mono_ns / 1_000_000).unwrap() }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut net = self.0.0.borrow_mut();
        let all = net.events.len();
        let taken = if net.batch == 0 { all } else { all.min(net.batch) };
        events.extend(net.events.drain(..taken));
        net.unasked = 0;
        if events.is_empty() && timeout != Some(Duration::ZERO) {
            net.let_time_pass(timeout);
        }
        Ok(())
    }

    fn sleep(&mut self, time: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        let mut net = self.0.0.borrow_mut();
        let is_signal = |event: &mut Event| matches!(event, Event::Signal(_));
        events.extend(net.events.extract_if(.., is_signal));
        if events.is_empty() {
            net.let_time_pass(Some(time));
        }
        Ok(())
    }

    fn poll_admin(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.0.0.borrow_mut();
        net.unasked = 0;
        let all = std::mem::take(&mut net.events);
        let (mut admin, others) = all.into_iter().partition(|event| net.is_admin(*event));
        net.events = others;
        events.append(&mut admin);
        Ok(())
    }

    fn listeners(&self) -> Vec<Side> {
        vec![Side::Main, Side::Admin]
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Stream, Peer)> {
        let mut net = self.0.0.borrow_mut();
        // As Linux does: first whether there is a descriptor, then whether anybody waits.
        if net.descriptors == 0 {
            net.exhausted += 1;
            return Err(io::Error::from_raw_os_error(24));
        }
        if net.knocking[listener].is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        net.descriptors -= 1;
        let wire = net.knocking[listener].pop_front().unwrap();
        net.note_accept(listener);
        let port = 50_000 + u16::try_from(wire % 10_000).unwrap();
        let peer = Peer::new(([192, 0, 2, 1], port).into());
        Ok((Stream { wire, net: self.0.clone() }, peer))
    }

    fn refuse_one(&mut self, listener: usize, response: &[u8]) -> io::Result<()> {
        let mut net = self.0.0.borrow_mut();
        let wire = net.knocking[listener].pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        net.wires[wire].outbound.extend_from_slice(response);
        net.wires[wire].end = Some(End::Closed);
        Ok(())
    }

    fn connect(&mut self, _target: &Target) -> io::Result<Stream> {
        let mut net = self.0.0.borrow_mut();
        if net.dials == Dials::Refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        net.descriptors -= 1;
        net.wires.push(Wire { window: usize::MAX, ..Wire::default() });
        let wire = net.wires.len() - 1;
        net.dialled.push(wire);
        if net.dials == Dials::Lost {
            net.lost.push(wire);
        }
        Ok(Stream { wire, net: self.0.clone() })
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let net = self.0.0.borrow();
        let dead = net.wires[stream.wire].dead;
        let stands = !net.lost.contains(&stream.wire);
        if dead { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(stands) }
    }

    fn watch(&mut self, stream: &mut Stream, side: Side, id: Id) -> io::Result<()> {
        let mut net = self.0.0.borrow_mut();
        net.wires[stream.wire].id = Some((id, side));
        net.tell(stream.wire, true, true);
        Ok(())
    }

    fn finish(&mut self, stream: &mut Stream) {
        self.0.0.borrow_mut().wires[stream.wire].end = Some(End::Fin);
    }

    fn reset(&mut self, stream: Stream) {
        self.0.0.borrow_mut().wires[stream.wire].end = Some(End::Reset);
        drop(stream);
    }

    fn close_listeners(&mut self) {
        self.0.0.borrow_mut().accepting_stopped = true;
    }

    fn memory_used(&mut self) -> Option<u64> {
        self.0.0.borrow().used.as_ref().map(|used| used.get())
    }

    fn fetch(&mut self, _source: &Source) -> io::Result<Vec<File>> {
        let net = self.0.0.borrow();
        let files = net.files.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = |(name, bytes): &(String, Vec<u8>)| File {
            name: name.clone(),
            bytes: bytes.clone(),
            modified_ms: WALL_MS,
            prepared: None,
        };
        Ok(files.iter().map(file).collect())
    }
}
