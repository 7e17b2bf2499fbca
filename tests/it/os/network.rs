//! Wires with two ends in virtual time. A node holds an end as a stream; an end that no node holds
//! is the test's, which reads at once as far as its window allows. Readiness is edge-triggered, as
//! with epoll: a change is reported once. All faults are off unless a test plans or draws them.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use wspulse::engine::{Id, Side, Signal};
use wspulse::net::os::Event;
use wspulse::rng::Rng;
use wspulse::time;

/// Who holds an end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// The server under test.
    Server,
    /// The clients with their own loop in the simulation; in other tests the test itself.
    Peer,
}

impl Node {
    pub(super) fn other(self) -> Self {
        if self == Self::Server { Self::Peer } else { Self::Server }
    }
}

/// The odds of each fault, per thousand calls or wires, and properties of all wires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds {
    pub(crate) short: u64,
    pub(crate) interrupted: u64,
    pub(crate) spurious: u64,
    pub(crate) stale_events: u64,
    pub(crate) exhausted: u64,
    pub(crate) clock_gap: u64,
    /// Per thousand wires: cut after some byte, half-closed by the client, or stalled for long.
    pub(crate) cut: u64,
    pub(crate) half_closed: u64,
    pub(crate) stalled: u64,
    pub(crate) latency_ms: u64,
    /// Bytes that a wire holds before its reader has read them.
    pub(crate) capacity: usize,
}

impl Odds {
    const NONE: Self = Self {
        short: 0,
        interrupted: 0,
        spurious: 0,
        stale_events: 0,
        exhausted: 0,
        clock_gap: 0,
        cut: 0,
        half_closed: 0,
        stalled: 0,
        latency_ms: 0,
        capacity: usize::MAX,
    };
}

/// A fault of one read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call is interrupted.
    Interrupted,
    /// The call moves one byte.
    Short,
    /// Nothing to read, or no room to write, and an event follows.
    Spurious,
    /// The connection is reset.
    Reset,
}

/// The result of connections that the server opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnConnect {
    #[default]
    Refuse,
    Accept,
    /// No answer, as behind a firewall that drops packets.
    Drop,
}

/// How the server ended its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Closed,
    /// Closed with this many bytes unread: the kernel sends an RST.
    ClosedUnread(usize),
    Reset,
}

/// One end of a wire, and the data in flight to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) id: Option<(Id, Side)>,
    /// Data in flight with its arrival times.
    in_flight: VecDeque<(u64, Vec<u8>)>,
    pub(super) received: VecDeque<u8>,
    /// When the other end's FIN arrives.
    fin_ns: Option<u64>,
    pub(super) fin_received: bool,
    reset_reported: bool,
    /// Bytes that it accepts before its reader reads more.
    pub(super) window: usize,
    /// The other end waits for room in the window.
    pub(super) writer_waits: bool,
    pub(super) end: Option<End>,
}

impl Endpoint {
    fn new(window: usize) -> Self {
        Self {
            id: None,
            in_flight: VecDeque::new(),
            received: VecDeque::new(),
            fin_ns: None,
            fin_received: false,
            reset_reported: false,
            window,
            writer_waits: false,
            end: None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.end, None | Some(End::Fin))
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    /// By node.
    pub(super) ends: [Endpoint; 2],
    pub(super) reset: bool,
    /// Bytes that the test's end has received and the test has not taken.
    output: Vec<u8>,
    pub(super) held_bytes: usize,
    /// The server opened it, and the SYN is unanswered.
    pub(super) unanswered: bool,
    /// Drawn: bytes from the client after which it is cut or half-closed.
    cut_after: Option<usize>,
    half_closed_after: Option<usize>,
    /// Drawn: how long the first bytes from the client are delayed.
    stall_ns: u64,
    client_bytes: usize,
    /// A fault struck this wire, so its client may fail.
    pub(super) harmed: bool,
}

/// The network's state of a node's process.
#[derive(Debug)]
pub(super) struct Process {
    /// Events with the side of their listener or stream, since the admin side can be polled alone.
    pub(super) events: VecDeque<(Side, Event)>,
    wake_ns: u64,
    /// It was active in its last turn, so its next deadline is not known yet.
    pub(super) busy: bool,
    /// It sleeps and receives only signals.
    frozen: bool,
}

impl Process {
    /// Waits for its next event, until a timeout.
    pub(super) fn wait(&mut self, now_ns: u64, timeout_ns: u64, frozen: bool) {
        self.busy = timeout_ns == 0 || self.wake_ns <= now_ns;
        self.wake_ns = now_ns.saturating_add(timeout_ns);
        self.frozen = frozen;
    }

    /// Moves the wanted events, in order.
    pub(super) fn take_events(&mut self, wanted: fn((Side, Event)) -> bool, to: &mut Vec<Event>) {
        let (wanted, left) = self.events.drain(..).partition::<VecDeque<_>, _>(|one| wanted(*one));
        self.events = left;
        to.extend(wanted.into_iter().map(|(_, event)| event));
    }

    fn has_news(&self) -> bool {
        let seen = |event: &Event| !self.frozen || matches!(event, Event::Signal(_));
        self.busy || self.events.iter().any(|(_, event)| seen(event))
    }
}

/// The network and its clock; tests set and read the public fields.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) now_ns: u64,
    pub(super) rng: Rng,
    pub(super) odds: Odds,
    pub(super) wires: Vec<Wire>,
    pub(super) accept_queues: [VecDeque<usize>; 3],
    /// The side of a third listener, of a part.
    pub(crate) part: Option<Side>,
    pub(super) processes: [Process; 2],
    /// The peer's ends belong to the test, not to a process.
    peer_is_test: bool,
    pub(crate) accepting_stopped: bool,
    pub(super) exhausted_until_ns: u64,
    /// Reads and writes so far, and the one with a planned fault.
    pub(crate) calls: u64,
    pub(crate) fault: Option<(u64, Fault)>,
    /// Events that one wait returns at most.
    pub(crate) batch: usize,
    /// How long an accept takes.
    pub(crate) accept_ns: u64,
    /// Each connection that the main listener accepts is followed by another.
    pub(crate) reconnects: bool,
    pub(crate) accepts: usize,
    /// Accepts since the admin side's events were last taken, and the maximum of this count.
    pub(super) accepts_in_a_row: usize,
    pub(crate) most_accepts_in_a_row: usize,
    /// Descriptors left, and accepts that found none.
    pub(crate) descriptors: usize,
    pub(crate) accepts_without_descriptor: u64,
    /// Connections that the server has opened, and the result of further ones.
    pub(crate) outgoing: Vec<usize>,
    pub(crate) on_connect: OnConnect,
    /// The same for single addresses.
    pub(crate) on_connect_to: BTreeMap<SocketAddr, OnConnect>,
    /// Where each of the connections goes.
    pub(crate) outgoing_to: Vec<SocketAddr>,
    /// What names resolve to; others to one address. `None`: the resolver does not answer.
    pub(crate) names: BTreeMap<String, Option<Vec<IpAddr>>>,
    /// Names that the server is to be told of.
    pub(super) resolved: VecDeque<Box<str>>,
    pub(crate) files: Option<Vec<(String, Vec<u8>)>>,
    /// The kernel's figure of the server's memory, if a test sets it.
    pub(crate) memory_used: Option<Rc<Cell<u64>>>,
}

impl State {
    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        self.rng.below(1000) < per_mille
    }

    /// Whether the test has planned this fault for the current call.
    pub(super) fn is_planned(&self, fault: Fault) -> bool {
        self.fault == Some((self.calls, fault))
    }

    pub(super) fn open(&mut self) -> usize {
        self.wires.push(Wire {
            ends: [Endpoint::new(self.odds.capacity), Endpoint::new(self.odds.capacity)],
            reset: false,
            output: Vec::new(),
            held_bytes: 0,
            unanswered: false,
            cut_after: None,
            half_closed_after: None,
            stall_ns: 0,
            client_bytes: 0,
            harmed: false,
        });
        self.wires.len() - 1
    }

    /// Draws whether a wire is cut, half-closed or stalled.
    pub(super) fn harm(&mut self, wire: usize) {
        let (mut cut_after, mut half_closed_after, mut stall_ns) = (None, None, 0);
        if self.happens(self.odds.cut) {
            cut_after = Some(self.rng.below(3000) as usize);
        } else if self.happens(self.odds.half_closed) {
            half_closed_after = Some(self.rng.below(3000) as usize);
        } else if self.happens(self.odds.stalled) {
            stall_ns = time::ms(self.rng.below(100_000));
        }
        let wire = &mut self.wires[wire];
        wire.harmed = cut_after.is_some() || half_closed_after.is_some() || stall_ns > 0;
        (wire.cut_after, wire.half_closed_after, wire.stall_ns) =
            (cut_after, half_closed_after, stall_ns);
    }

    /// A wire waits to be accepted.
    pub(super) fn enqueue(&mut self, listener: usize, wire: usize) {
        self.accept_queues[listener].push_back(wire);
        let sides = [Some(Side::Main), Some(Side::Admin), self.part];
        let side = sides[listener].expect("a listener");
        self.processes[Node::Server as usize].events.push_back((side, Event::Accept(listener)));
    }

    /// Reports a change to the node at an end, if the node watches it.
    pub(super) fn report(&mut self, wire: usize, node: Node, readable: bool, writable: bool) {
        let reset = self.wires[wire].reset;
        let end = &self.wires[wire].ends[node as usize];
        let Some((id, side)) = end.id else { return };
        let event = Event::Stream {
            id,
            readable: readable || reset,
            writable: writable || reset,
            ended: end.fin_received || reset,
            broken: reset,
        };
        self.processes[node as usize].events.push_back((side, event));
    }

    /// Delivers data that is due at one end; returns the time of the next delivery.
    fn deliver(&mut self, wire: usize, node: Node) -> u64 {
        let (now_ns, reset) = (self.now_ns, self.wires[wire].reset);
        let end = &mut self.wires[wire].ends[node as usize];
        let mut news = reset && !std::mem::replace(&mut end.reset_reported, true);
        while end.in_flight.front().is_some_and(|(at_ns, _)| *at_ns <= now_ns) {
            end.received.extend(end.in_flight.pop_front().unwrap().1);
            news = true;
        }
        let bytes_ns = end.in_flight.front().map(|(at_ns, _)| *at_ns);
        let fin_ns = end.fin_ns.filter(|_| bytes_ns.is_none() && !end.fin_received);
        if fin_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            end.fin_received = true;
            news = true;
        }
        if news {
            self.report(wire, node, true, false);
        }
        bytes_ns.or_else(|| fin_ns.filter(|at_ns| *at_ns > now_ns)).unwrap_or(u64::MAX)
    }

    /// Moves the clock to the next moment at which something happens, at most to the limit, unless
    /// a node has something to do now. Returns false if nothing happens until the limit.
    pub(crate) fn advance(&mut self, limit_ns: u64) -> bool {
        let mut next_ns = u64::MAX;
        for wire in 0..self.wires.len() {
            for node in [Node::Server, Node::Peer] {
                next_ns = next_ns.min(self.deliver(wire, node));
            }
        }
        if self.processes.iter().any(Process::has_news) {
            return true;
        }
        next_ns = self.processes.iter().fold(next_ns, |next, process| next.min(process.wake_ns));
        if self.now_ns >= limit_ns && next_ns > limit_ns {
            return false;
        }
        next_ns = next_ns.min(limit_ns);
        if next_ns != u64::MAX {
            self.now_ns = self.now_ns.max(next_ns);
            if self.happens(self.odds.clock_gap) {
                self.now_ns += time::ms(self.rng.below(400));
            }
        }
        true
    }

    /// Resets the connection; data in flight is lost.
    pub(super) fn destroy(&mut self, wire: usize) {
        self.wires[wire].reset = true;
        for end in &mut self.wires[wire].ends {
            end.in_flight.clear();
        }
    }

    pub(super) fn close(&mut self, wire: usize, node: Node) {
        let end = &mut self.wires[wire].ends[node as usize];
        if end.is_closed() {
            return;
        }
        if end.received.is_empty() && end.in_flight.is_empty() {
            end.end = Some(End::Closed);
            self.fin(wire, node);
        } else {
            end.end = Some(End::ClosedUnread(end.received.len()));
            self.destroy(wire);
        }
    }

    pub(super) fn fin(&mut self, wire: usize, from: Node) {
        let to = &mut self.wires[wire].ends[from.other() as usize];
        let last_ns = to.in_flight.back().map_or(self.now_ns, |(at_ns, _)| *at_ns);
        to.fin_ns.get_or_insert(last_ns);
    }

    /// Sends bytes that the window has room for.
    pub(super) fn push(&mut self, wire: usize, from: Node, bytes: &[u8]) {
        let latency_ns = time::ms(self.rng.below(self.odds.latency_ms + 1));
        let wire_state = &mut self.wires[wire];
        let to = &mut wire_state.ends[from.other() as usize];
        if to.fin_ns.is_some() {
            // Bytes after a FIN that a fault has sent are lost.
            return;
        }
        to.window = to.window.saturating_sub(bytes.len());
        if from == Node::Server {
            if self.peer_is_test {
                wire_state.output.extend_from_slice(bytes);
                return;
            }
        } else {
            wire_state.client_bytes += bytes.len();
        }
        let stall_ns =
            if from == Node::Peer { std::mem::take(&mut wire_state.stall_ns) } else { 0 };
        let last_ns = to.in_flight.back().map_or(0, |(at_ns, _)| *at_ns);
        let at_ns = (self.now_ns + latency_ns + stall_ns).max(last_ns);
        to.in_flight.push_back((at_ns, bytes.to_vec()));
        let sent = wire_state.client_bytes;
        let is_beyond = |after: Option<usize>| after.is_some_and(|after| sent > after);
        if from == Node::Peer && is_beyond(wire_state.cut_after) {
            self.destroy(wire);
        } else if from == Node::Peer && is_beyond(wire_state.half_closed_after) {
            self.fin(wire, Node::Peer);
        }
    }

    /// A node's process has ended: the kernel closes what it left open.
    pub(crate) fn exit(&mut self, node: Node) {
        for wire in 0..self.wires.len() {
            self.close(wire, node);
            self.wires[wire].ends[node as usize].id = None;
        }
        self.processes[node as usize] = IDLE;
    }

    /// Wires that a fault struck: their clients may fail.
    pub(crate) fn harmed(&self) -> usize {
        self.wires.iter().filter(|wire| wire.harmed).count()
    }
}

const IDLE: Process =
    Process { events: VecDeque::new(), wake_ns: u64::MAX, busy: false, frozen: false };

/// A handle to the network, shared by the streams and the test. Wires are numbered.
#[derive(Clone, Debug)]
pub(crate) struct Network(Rc<RefCell<State>>);

impl Network {
    /// Without faults, and with the test at the peer's ends.
    pub(crate) fn new() -> Self {
        Self::with(0, Odds::NONE, true)
    }

    /// With faults from a seed, between two nodes.
    pub(crate) fn faulty(seed: u64, odds: Odds) -> Self {
        Self::with(seed, odds, false)
    }

    fn with(seed: u64, odds: Odds, peer_is_test: bool) -> Self {
        Self(Rc::new(RefCell::new(State {
            now_ns: 1_000_000_000,
            rng: Rng::new(seed),
            odds,
            wires: Vec::new(),
            accept_queues: Default::default(),
            part: None,
            processes: [IDLE, IDLE],
            peer_is_test,
            accepting_stopped: false,
            exhausted_until_ns: 0,
            calls: 0,
            fault: None,
            batch: usize::MAX,
            accept_ns: 0,
            reconnects: false,
            accepts: 0,
            accepts_in_a_row: 0,
            most_accepts_in_a_row: 0,
            descriptors: 1000,
            accepts_without_descriptor: 0,
            outgoing: Vec::new(),
            on_connect: OnConnect::default(),
            on_connect_to: BTreeMap::new(),
            outgoing_to: Vec::new(),
            names: BTreeMap::new(),
            resolved: VecDeque::new(),
            files: None,
            memory_used: None,
        })))
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// The test connects to a listener.
    pub(crate) fn connect(&self, listener: usize) -> usize {
        let mut state = self.state();
        let wire = state.open();
        if listener == 0 && state.accepting_stopped {
            state.wires[wire].ends[Node::Server as usize].end = Some(End::Reset);
        } else {
            state.enqueue(listener, wire);
        }
        wire
    }

    /// The test sends bytes; they arrive at once.
    pub(crate) fn send(&self, wire: usize, bytes: &[u8]) {
        let mut state = self.state();
        state.push(wire, Node::Peer, bytes);
        state.deliver(wire, Node::Server);
    }

    /// The test sends no more.
    pub(crate) fn fin(&self, wire: usize) {
        let mut state = self.state();
        state.fin(wire, Node::Peer);
        state.deliver(wire, Node::Server);
    }

    /// The test's end is gone.
    pub(crate) fn reset(&self, wire: usize) {
        let mut state = self.state();
        state.destroy(wire);
        state.deliver(wire, Node::Server);
    }

    /// Refuses the connections that the server opened and whose SYN is unanswered.
    pub(crate) fn refuse_unanswered(&self) {
        let state = self.state();
        let wires = state.wires.iter().enumerate();
        let unanswered = wires.filter(|(_, wire)| wire.unanswered && !wire.reset);
        let unanswered: Vec<usize> = unanswered.map(|(number, _)| number).collect();
        drop(state);
        for wire in unanswered {
            self.reset(wire);
        }
    }

    /// The test reads this many further bytes.
    pub(crate) fn window(&self, wire: usize, bytes: usize) {
        let mut state = self.state();
        let end = &mut state.wires[wire].ends[Node::Peer as usize];
        end.window = bytes;
        if bytes > 0 && std::mem::take(&mut end.writer_waits) {
            state.report(wire, Node::Server, false, true);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let event = (Side::Main, Event::Signal(signal));
        self.state().processes[Node::Server as usize].events.push_back(event);
    }

    /// Reports a change that has not happened, as epoll may.
    pub(crate) fn spurious_event(&self, wire: usize) {
        self.state().report(wire, Node::Server, true, true);
    }

    pub(crate) fn take_output(&self, wire: usize) -> Vec<u8> {
        std::mem::take(&mut self.state().wires[wire].output)
    }

    pub(crate) fn has_output(&self, wire: usize) -> bool {
        !self.state().wires[wire].output.is_empty()
    }

    /// How the server ended its side.
    pub(crate) fn end(&self, wire: usize) -> Option<End> {
        self.state().wires[wire].ends[Node::Server as usize].end
    }

    /// Sets the bytes that the server's stream reports as held.
    pub(crate) fn hold(&self, wire: usize, bytes: usize) {
        self.state().wires[wire].held_bytes = bytes;
    }
}
