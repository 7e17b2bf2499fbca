//! The network of all tests: hosts and the wires between them, in virtual time. Usually one host
//! runs the server, and the test is at the other end of each wire: it reads at once as far as its
//! window allows. Readiness is edge-triggered, as with epoll: a change is reported once. All faults
//! are off unless a test plans or draws them.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use wspulse::engine::{Id, Side, Signal, TlsFacts, TlsFault};
use wspulse::net::os::{Event, Interest};
use wspulse::rng::Rng;
use wspulse::time;

/// The host of the server under test.
pub(crate) const SERVER: usize = 0;
/// The end of a wire that is always a host's: of the one that accepts, or that connects to the
/// test.
pub(super) const NEAR: usize = 0;
/// The other end: of the host that connects, or the test's.
pub(super) const FAR: usize = 1;
/// The ports of a host's listeners: main, admin, of a part.
const PORTS: [u16; 3] = [8080, 8081, 8082];

/// The address of a listener.
pub(crate) fn address(host: usize, listener: usize) -> SocketAddr {
    (ip(host), PORTS[listener]).into()
}

pub(super) fn ip(host: usize) -> [u8; 4] {
    [172, 16, 0, u8::try_from(host).unwrap()]
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
    /// Per thousand wires between hosts: cut after some byte, half-closed by the client, or stalled
    /// for long.
    pub(crate) cut: u64,
    pub(crate) half_closed: u64,
    pub(crate) stalled: u64,
    /// The first two happen within this many bytes of the client, or of both ends.
    pub(crate) cut_within: u64,
    pub(crate) counts_both_ends: bool,
    pub(crate) latency_ms: u64,
    /// Bytes that a wire holds before its reader has read them.
    pub(crate) capacity: usize,
}

impl Odds {
    pub(crate) const NONE: Self = Self {
        short: 0,
        interrupted: 0,
        spurious: 0,
        stale_events: 0,
        exhausted: 0,
        clock_gap: 0,
        cut: 0,
        half_closed: 0,
        stalled: 0,
        cut_within: 3000,
        counts_both_ends: false,
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

/// The result of connections to addresses outside the hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnConnect {
    #[default]
    Refuse,
    Accept,
    /// No answer, as behind a firewall that drops packets.
    Drop,
}

/// How a host ended its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Closed,
    /// Closed with this many bytes unread: the kernel sends an RST.
    ClosedUnread(usize),
    Reset,
}

/// One end of a wire, and the data in flight to it.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// Its host. `None`: the test's.
    pub(super) host: Option<usize>,
    /// What its process has epoll report.
    pub(super) watched: Option<(Id, Side, Interest)>,
    /// Data in flight with its arrival times.
    in_flight: VecDeque<(u64, Vec<u8>)>,
    /// Bytes that its reader has not read; the test takes them.
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
    fn new(host: Option<usize>, capacity: usize) -> Self {
        let window = if host.is_some() { capacity } else { usize::MAX };
        Self { host, window, ..Self::default() }
    }

    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.end, None | Some(End::Fin))
    }
}

#[derive(Debug, Default)]
pub(super) struct Wire {
    /// `NEAR` and `FAR`.
    pub(super) ends: [Endpoint; 2],
    pub(super) reset: bool,
    pub(super) held_bytes: usize,
    /// The near end's SYN is unanswered.
    pub(super) unanswered: bool,
    /// Drawn: bytes after which it is cut or half-closed.
    cut_after: Option<usize>,
    half_closed_after: Option<usize>,
    /// Drawn: how long the first bytes from the client are delayed.
    stall_ns: u64,
    counted_bytes: usize,
    /// A fault struck this wire, so its client may fail.
    pub(super) harmed: bool,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) side: Side,
    /// Wires to be accepted.
    pub(super) queue: VecDeque<usize>,
    pub(super) is_closed: bool,
}

/// A host, which runs one process at a time. Tests set and read the public fields.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(super) is_up: bool,
    /// By index. Those that the process opens when it starts.
    pub(super) listeners: Vec<Listener>,
    /// Events with the side of their listener or stream, since the admin side can be polled alone.
    pub(super) events: VecDeque<(Side, Event)>,
    wake_ns: u64,
    /// It was active in its last turn, so its next deadline is not known yet.
    pub(super) busy: bool,
    /// It sleeps and receives only signals.
    frozen: bool,
    /// How far its wall clock is ahead.
    pub(crate) skew_ms: i64,
    pub(crate) accepts: usize,
    /// Accepts since the admin side's events were last taken, and the maximum of this count.
    pub(super) accepts_in_a_row: usize,
    pub(crate) most_accepts_in_a_row: usize,
    /// Descriptors left, and accepts that found none.
    pub(crate) descriptors: usize,
    pub(crate) accepts_without_descriptor: u64,
    pub(super) exhausted_until_ns: u64,
    /// Names that its process has not taken.
    pub(super) resolved: VecDeque<Box<str>>,
    pub(crate) files: Option<Vec<(String, Vec<u8>)>>,
    /// The kernel's figure of its memory, if a test sets it.
    pub(crate) memory_used: Option<Rc<Cell<u64>>>,
}

impl Host {
    fn new() -> Self {
        Self { wake_ns: u64::MAX, descriptors: 1000, ..Self::default() }
    }

    /// Whether it answers a SYN to a listener.
    fn accepts_at(&self, listener: usize) -> bool {
        self.listeners.get(listener).is_some_and(|listener| !listener.is_closed)
    }

    /// Whether the main listener is closed.
    pub(crate) fn accepting_stopped(&self) -> bool {
        !self.accepts_at(0)
    }

    /// Its process waits for the next event, until a timeout.
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
    pub(crate) hosts: Vec<Host>,
    pub(super) wires: Vec<Wire>,
    /// Pairs of hosts, the lower number first, between which nothing arrives.
    pub(crate) partitions: BTreeSet<(usize, usize)>,
    /// The host whose process gets no CPU: the test must not run it.
    pub(crate) stopped: Option<usize>,
    /// Reads and writes so far, and the one with a planned fault.
    pub(crate) calls: u64,
    pub(crate) fault: Option<(u64, Fault)>,
    /// Events that one wait returns at most.
    pub(crate) batch: usize,
    /// How long an accept takes.
    pub(crate) accept_ns: u64,
    /// Each connection that a main listener accepts is followed by another.
    pub(crate) reconnects: bool,
    /// Connections that hosts have opened to the test, and the result of further ones.
    pub(crate) outgoing: Vec<usize>,
    pub(crate) on_connect: OnConnect,
    /// The same for single addresses.
    pub(crate) on_connect_to: BTreeMap<SocketAddr, OnConnect>,
    /// SYNs from hosts to hosts.
    pub(crate) syns_between_hosts: usize,
    /// What names resolve to; others to one address.
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
    /// What TLS clients find, unless they verify no certificates.
    pub(crate) certificate: Result<Option<TlsFacts>, TlsFault>,
    /// What they find when they do not.
    pub(crate) lacks_issuer: bool,
}

impl State {
    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        self.rng.below(1000) < per_mille
    }

    /// Whether the test has planned this fault for the current call.
    pub(super) fn is_planned(&self, fault: Fault) -> bool {
        self.fault == Some((self.calls, fault))
    }

    pub(super) fn open(&mut self, near: usize, far: Option<usize>) -> usize {
        let ends = [Some(near), far].map(|host| Endpoint::new(host, self.odds.capacity));
        self.wires.push(Wire { ends, ..Wire::default() });
        self.wires.len() - 1
    }

    /// The listener at an address, and what a SYN from a host to this address leads to.
    pub(super) fn route(&self, from: usize, to: SocketAddr) -> (Option<(usize, usize)>, OnConnect) {
        let listeners = |host| (0..PORTS.len()).map(move |listener| (host, listener));
        let mut all = (0..self.hosts.len()).flat_map(listeners);
        let Some((host, listener)) = all.find(|(host, at)| address(*host, *at) == to) else {
            return (None, self.on_connect_to.get(&to).copied().unwrap_or(self.on_connect));
        };
        let result = if self.are_parted(from, host) {
            OnConnect::Drop
        } else if self.hosts[host].accepts_at(listener) {
            OnConnect::Accept
        } else {
            OnConnect::Refuse
        };
        (Some((host, listener)), result)
    }

    fn are_parted(&self, one: usize, other: usize) -> bool {
        self.partitions.contains(&(one.min(other), one.max(other)))
    }

    /// Draws whether a wire is cut, half-closed or stalled.
    pub(super) fn harm(&mut self, wire: usize) {
        let (mut cut_after, mut half_closed_after, mut stall_ns) = (None, None, 0);
        if self.happens(self.odds.cut) {
            cut_after = Some(self.rng.below(self.odds.cut_within) as usize);
        } else if self.happens(self.odds.half_closed) {
            half_closed_after = Some(self.rng.below(self.odds.cut_within) as usize);
        } else if self.happens(self.odds.stalled) {
            stall_ns = time::ms(self.rng.below(100_000));
        }
        let wire = &mut self.wires[wire];
        wire.harmed = cut_after.is_some() || half_closed_after.is_some() || stall_ns > 0;
        (wire.cut_after, wire.half_closed_after, wire.stall_ns) =
            (cut_after, half_closed_after, stall_ns);
    }

    /// The near end of a wire waits to be accepted.
    pub(super) fn enqueue(&mut self, host: usize, listener: usize, wire: usize) {
        let host = &mut self.hosts[host];
        let at = &mut host.listeners[listener];
        at.queue.push_back(wire);
        host.events.push_back((at.side, Event::Accept(listener)));
    }

    /// Reports a change to the process at an end, if it watches the end.
    pub(super) fn report(&mut self, wire: usize, end: usize, readable: bool, writable: bool) {
        let reset = self.wires[wire].reset;
        let end = &self.wires[wire].ends[end];
        let (Some(host), Some((id, side, interest))) = (end.host, end.watched) else { return };
        let writable = writable && interest == Interest::Both;
        if !readable && !writable && !reset {
            return;
        }
        let event = Event::Stream {
            id,
            readable: readable || reset,
            writable: writable || reset,
            ended: end.fin_received || reset,
            broken: reset,
        };
        self.hosts[host].events.push_back((side, event));
    }

    /// Reports the present state of an end, as epoll does when it begins to watch it.
    pub(super) fn report_state(&mut self, wire: usize, number: usize) {
        let end = &self.wires[wire].ends[number];
        let readable = !end.received.is_empty() || end.fin_received;
        let to = &mut self.wires[wire].ends[1 - number];
        let writable = to.window > 0;
        to.writer_waits |= !writable;
        let writable = writable && !self.wires[wire].unanswered;
        self.report(wire, number, readable, writable);
    }

    /// Delivers data that is due at one end; returns the time of the next delivery.
    fn deliver(&mut self, wire: usize, number: usize) -> u64 {
        if let [Some(one), Some(other)] = self.wires[wire].ends.each_ref().map(|end| end.host)
            && self.are_parted(one, other)
        {
            return u64::MAX;
        }
        let (now_ns, reset) = (self.now_ns, self.wires[wire].reset);
        let end = &mut self.wires[wire].ends[number];
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
            self.report(wire, number, true, false);
        }
        bytes_ns.or_else(|| fin_ns.filter(|at_ns| *at_ns > now_ns)).unwrap_or(u64::MAX)
    }

    /// Delivers all data that is due; returns the time of the next delivery.
    pub(crate) fn deliver_due(&mut self) -> u64 {
        let ends = (0..self.wires.len()).flat_map(|wire| [(wire, NEAR), (wire, FAR)]);
        ends.fold(u64::MAX, |next_ns, (wire, end)| next_ns.min(self.deliver(wire, end)))
    }

    /// Moves the clock to the next moment at which something happens, at most to the limit, unless
    /// a host has something to do now. Returns false if nothing happens until the limit.
    pub(crate) fn advance(&mut self, limit_ns: u64) -> bool {
        let mut next_ns = self.deliver_due();
        let stopped = self.stopped;
        let running = self.hosts.iter().enumerate().filter(|(number, _)| Some(*number) != stopped);
        if running.clone().any(|(_, host)| host.has_news()) {
            return true;
        }
        next_ns = running.fold(next_ns, |next, (_, host)| next.min(host.wake_ns));
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

    pub(super) fn close(&mut self, wire: usize, number: usize) {
        let end = &mut self.wires[wire].ends[number];
        if end.is_closed() {
            return;
        }
        if end.received.is_empty() && end.in_flight.is_empty() {
            end.end = Some(End::Closed);
            self.fin(wire, number);
        } else {
            end.end = Some(End::ClosedUnread(end.received.len()));
            self.destroy(wire);
        }
    }

    pub(super) fn fin(&mut self, wire: usize, from: usize) {
        let to = &mut self.wires[wire].ends[1 - from];
        let last_ns = to.in_flight.back().map_or(self.now_ns, |(at_ns, _)| *at_ns);
        to.fin_ns.get_or_insert(last_ns);
    }

    /// Sends bytes that the window has room for.
    pub(super) fn push(&mut self, wire: usize, from: usize, bytes: &[u8]) {
        let latency_ns = time::ms(self.rng.below(self.odds.latency_ms + 1));
        let state = &mut self.wires[wire];
        let to = &mut state.ends[1 - from];
        if to.fin_ns.is_some() {
            // Bytes after a FIN that a fault has sent are lost.
            return;
        }
        to.window = to.window.saturating_sub(bytes.len());
        let stall_ns = if from == FAR { std::mem::take(&mut state.stall_ns) } else { 0 };
        let last_ns = to.in_flight.back().map_or(0, |(at_ns, _)| *at_ns);
        let at_ns = (self.now_ns + latency_ns + stall_ns).max(last_ns);
        to.in_flight.push_back((at_ns, bytes.to_vec()));
        if to.host.is_none() {
            self.deliver(wire, FAR);
        } else if from == FAR || self.odds.counts_both_ends {
            state.counted_bytes += bytes.len();
            let counted = state.counted_bytes;
            let is_beyond = |after: Option<usize>| after.is_some_and(|after| counted > after);
            if is_beyond(state.cut_after) {
                self.destroy(wire);
            } else if is_beyond(state.half_closed_after) {
                self.fin(wire, FAR);
            }
        }
    }

    /// A process starts: it opens its listeners.
    pub(super) fn start(&mut self, host: usize, listeners: &[Side]) {
        let host = &mut self.hosts[host];
        assert!(!std::mem::replace(&mut host.is_up, true), "one process a host");
        let listener =
            |side: &Side| Listener { side: *side, queue: VecDeque::new(), is_closed: false };
        host.listeners = listeners.iter().map(listener).collect();
    }

    /// A process has ended: the kernel closes what it left open.
    pub(crate) fn exit(&mut self, host: usize) {
        for wire in 0..self.wires.len() {
            for end in [NEAR, FAR] {
                if self.wires[wire].ends[end].host == Some(host) {
                    self.close(wire, end);
                    // Its events must not reach a later process at this host.
                    self.wires[wire].ends[end].watched = None;
                }
            }
        }
        let host = &mut self.hosts[host];
        host.is_up = false;
        host.listeners.clear();
        host.events.clear();
        host.resolved.clear();
        (host.wake_ns, host.busy, host.frozen) = (u64::MAX, false, false);
    }

    /// The test connects to a listener.
    pub(crate) fn connect(&mut self, host: usize, listener: usize) -> usize {
        let wire = self.open(host, None);
        if self.hosts[host].accepts_at(listener) {
            self.enqueue(host, listener, wire);
        } else {
            self.wires[wire].ends[NEAR].end = Some(End::Reset);
            self.destroy(wire);
        }
        wire
    }

    pub(crate) fn signal(&mut self, host: usize, signal: Signal) {
        if self.hosts[host].is_up {
            self.hosts[host].events.push_back((Side::Main, Event::Signal(signal)));
        }
    }

    /// Wires that a fault struck: their clients may fail.
    pub(crate) fn harmed(&self) -> usize {
        self.wires.iter().filter(|wire| wire.harmed).count()
    }
}

/// A handle to the network, shared by the streams and the test. Wires are numbered.
#[derive(Clone, Debug)]
pub(crate) struct Network(Rc<RefCell<State>>);

impl Network {
    /// One host, without faults.
    pub(crate) fn new() -> Self {
        Self::faulty(1, 0, Odds::NONE)
    }

    /// Several hosts, with faults from a seed.
    pub(crate) fn faulty(hosts: usize, seed: u64, odds: Odds) -> Self {
        Self(Rc::new(RefCell::new(State {
            now_ns: 1_000_000_000,
            rng: Rng::new(seed),
            odds,
            hosts: (0..hosts).map(|_| Host::new()).collect(),
            wires: Vec::new(),
            partitions: BTreeSet::new(),
            stopped: None,
            calls: 0,
            fault: None,
            batch: usize::MAX,
            accept_ns: 0,
            reconnects: false,
            outgoing: Vec::new(),
            on_connect: OnConnect::default(),
            on_connect_to: BTreeMap::new(),
            syns_between_hosts: 0,
            names: BTreeMap::new(),
            certificate: Ok(None),
            lacks_issuer: false,
        })))
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    pub(crate) fn server(&self) -> RefMut<'_, Host> {
        RefMut::map(self.state(), |state| &mut state.hosts[SERVER])
    }

    /// The test connects to a listener of the server.
    pub(crate) fn connect(&self, listener: usize) -> usize {
        self.state().connect(SERVER, listener)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.state().signal(SERVER, signal);
    }

    /// The test sends bytes; without latency they arrive at once.
    pub(crate) fn send(&self, wire: usize, bytes: &[u8]) {
        let mut state = self.state();
        state.push(wire, FAR, bytes);
        state.deliver(wire, NEAR);
    }

    /// The test sends no more.
    pub(crate) fn fin(&self, wire: usize) {
        let mut state = self.state();
        state.fin(wire, FAR);
        state.deliver(wire, NEAR);
    }

    /// The test's end is gone.
    pub(crate) fn reset(&self, wire: usize) {
        let mut state = self.state();
        state.destroy(wire);
        state.deliver(wire, NEAR);
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
        let end = &mut state.wires[wire].ends[FAR];
        end.window = bytes;
        if bytes > 0 && std::mem::take(&mut end.writer_waits) {
            state.report(wire, NEAR, false, true);
        }
    }

    /// Reports a change that has not happened, as epoll may.
    pub(crate) fn spurious_event(&self, wire: usize) {
        self.state().report(wire, NEAR, true, true);
    }

    pub(crate) fn take_output(&self, wire: usize) -> Vec<u8> {
        std::mem::take(&mut self.state().wires[wire].ends[FAR].received).into()
    }

    pub(crate) fn has_output(&self, wire: usize) -> bool {
        !self.state().wires[wire].ends[FAR].received.is_empty()
    }

    /// Whether the test will receive nothing further.
    #[cfg(feature = "gateway")]
    pub(crate) fn is_over(&self, wire: usize) -> bool {
        let wire = &self.state().wires[wire];
        wire.reset || wire.ends[FAR].fin_received
    }

    /// How the server ended its side.
    pub(crate) fn end(&self, wire: usize) -> Option<End> {
        self.state().wires[wire].ends[NEAR].end
    }

    /// Sets the bytes that the server's stream reports as held, until it writes.
    pub(crate) fn hold(&self, wire: usize, bytes: usize) {
        self.state().wires[wire].held_bytes = bytes;
    }
}
