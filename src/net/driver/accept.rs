//! Accepting and opening connections, and refusing them when slots or descriptors run out.

use std::io::{self, Read, Write};

use super::marks::Marks;
use super::{Channel, Driver, Entry, Interest, Os, find};
use crate::engine::{Engine, HangUp, Id, Now, ProxyFault, Shortage, Side, Target, TlsFault};
use crate::limits;
use crate::time;

/// Slots are added this many at a time, see `slab`.
const GROWTH: usize = 4096;
/// After descriptors ran out, accepting is retried after this, or as soon as a stream closes.
const RETRY_NS: u64 = 100_000_000;
/// While too many handshakes are in progress, accepting is retried after this.
const PAUSE_NS: u64 = 10_000_000;
/// A handshake that takes longer than this is aborted when there are too many.
const SLOW_NS: u64 = 1_000_000_000;

/// A listener and the state of its accept queue.
#[derive(Debug)]
pub(super) struct ListenerState {
    pub(super) side: Side,
    pub(super) state: Queue,
    /// Set when descriptors run out: events until then do not resume accepting, or each would log
    /// an error.
    pub(super) retry_ns: u64,
}

impl ListenerState {
    pub(super) fn new(side: Side) -> Self {
        Self { side, state: Queue::Waiting, retry_ns: 0 }
    }

    pub(super) fn set_waiting(&mut self, now_ns: u64) {
        if self.state == Queue::Empty {
            self.state = if now_ns < self.retry_ns {
                Queue::Paused { until_ns: self.retry_ns }
            } else {
                Queue::Waiting
            };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Empty,
    /// The kernel may have more connections.
    Waiting,
    /// There was no descriptor, or too many handshakes are in progress.
    Paused {
        until_ns: u64,
    },
    /// The listener is closed. The entry stays, since events name listeners by index.
    Closed,
}

impl<E: Engine, O: Os> Driver<E, O> {
    /// Closes the main listeners once nothing waits in their queues, see
    /// [`Driver::close_listeners_when_due`].
    pub(super) fn stop_accepting(&mut self) {
        if self.closing_until_ns.is_some() || self.accepting_is_stopped() {
            return;
        }
        self.closing_until_ns = Some(self.now.mono_ns + time::ms(limits::FINAL_ACCEPT_MS));
        for listener in self.listeners.iter_mut().filter(|listener| listener.side == Side::Main) {
            // Connections may be waiting without an event having been read.
            listener.state = Queue::Waiting;
            self.may_accept = true;
        }
    }

    /// Closes the main listeners when their queues are empty or time is up; the kernel resets
    /// connections that still wait then.
    pub(super) fn close_listeners_when_due(&mut self) {
        let Some(until_ns) = self.closing_until_ns else { return };
        let is_empty = |listener: &ListenerState| match listener.state {
            Queue::Empty | Queue::Closed => true,
            Queue::Waiting | Queue::Paused { .. } => false,
        };
        let mut main = self.listeners.iter().filter(|listener| listener.side == Side::Main);
        if self.now.mono_ns < until_ns && !main.all(is_empty) {
            return;
        }
        self.closing_until_ns = None;
        self.os.close_listeners();
        for listener in self.listeners.iter_mut().filter(|listener| listener.side == Side::Main) {
            listener.state = Queue::Closed;
        }
        self.engine.accepting_stopped(self.now);
        self.act();
    }

    fn accepting_is_stopped(&self) -> bool {
        let mut main = self.listeners.iter().filter(|listener| listener.side == Side::Main);
        main.any(|listener| listener.state == Queue::Closed)
    }

    /// Accepts up to the budget of a turn, in shares between which the admin side is polled:
    /// accepting 64 takes milliseconds, and a hundred times that where CPU is short.
    pub(super) fn accept(&mut self, listener: usize) -> io::Result<()> {
        let checks_admin = self.listeners[listener].side == Side::Main && self.has_admin();
        for _ in 0..limits::ACCEPTS_PER_TURN / limits::SERVED_BEFORE_ADMIN {
            if !self.accept_share(listener) || self.is_halted() {
                break;
            }
            if checks_admin {
                self.check_admin()?;
            }
        }
        Ok(())
    }

    /// Accepts one share; returns whether there may be more.
    fn accept_share(&mut self, listener: usize) -> bool {
        let side = self.listeners[listener].side;
        for _ in 0..limits::SERVED_BEFORE_ADMIN {
            // Before the listeners close, the limit on handshakes does not apply.
            let is_closing = self.closing_until_ns.is_some();
            if side == Side::Main && !is_closing && !self.can_start_handshake(listener) {
                return false;
            }
            match self.os.accept(listener) {
                Ok((stream, peer)) => match self.engine.accepted(self.now, side, peer) {
                    Some(id) => self.add_accepted(stream, side, id),
                    None => self.refuse(stream, side),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[listener].state = Queue::Empty;
                    return false;
                }
                Err(error) if is_exhaustion(&error) => {
                    self.refuse_waiting(listener, &error);
                    return false;
                }
                // This client closed before it was accepted; the next one may not have.
                Err(_) => {}
            }
        }
        true
    }

    fn add_accepted(&mut self, stream: O::Stream, side: Side, id: Id) {
        // While the loop is busy, the request has most likely arrived: to learn that only from an
        // event of the next turn would make it wait behind all other streams twice.
        let mut marks = Marks::default();
        let costly = side == Side::Main && stream.is_costly();
        let busy = !self.ready.main.is_empty() && !costly;
        if busy {
            marks.set(Marks::READABLE);
        }
        if costly {
            marks.set(Marks::HANDSHAKING);
            self.costly.push_back((id, self.now.mono_ns));
        }
        if self.insert(stream, side, id, marks).is_err() {
            self.abort(id);
        } else {
            if !costly {
                self.engine.ready(self.now, id);
            }
            if busy {
                self.queue_first(id);
            }
        }
        self.act();
    }

    /// Whether one more handshake can start: not while many are ready to continue, since then the
    /// kernel's queue is the better place to wait. If too many wait for their peers, the slowest is
    /// aborted.
    fn can_start_handshake(&mut self, listener: usize) -> bool {
        if self.ready.costly.len() >= limits::ACCEPTS_PER_TURN {
            return false;
        }
        if self.costly.len() < limits::HANDSHAKES_AT_ONCE {
            return true;
        }
        let streams = &mut self.streams;
        self.costly
            .retain(|(id, _)| find(streams, *id).is_some_and(|entry| entry.stream.is_costly()));
        if self.costly.len() < limits::HANDSHAKES_AT_ONCE {
            return true;
        }
        match self.costly.front() {
            Some((id, since_ns)) if since_ns + SLOW_NS <= self.now.mono_ns => {
                let id = *id;
                self.costly.pop_front();
                self.abort(id);
                self.act();
                true
            }
            Some(_) | None => {
                self.listeners[listener].state =
                    Queue::Paused { until_ns: self.now.mono_ns + PAUSE_NS };
                self.is_short = true;
                false
            }
        }
    }

    /// Carries out [`Action::Connect`](crate::engine::Action::Connect).
    pub(super) fn connect(&mut self, id: Id, target: &Target) {
        let mut marks = Marks::default();
        marks.set(Marks::CONNECTING | Marks::WRITES_WATCHED);
        let begun = self.os.connect(target);
        if let Err(error) = begun.and_then(|stream| self.insert(stream, Side::Main, id, marks)) {
            self.engine.connected(self.now, id, Err(hang_up(&error)), &mut self.out);
            self.out.clear();
            // The engine's `Close` finds no stream, so the id is released here.
            if find(&mut self.streams, id).is_none() {
                self.release(id);
            }
        }
    }

    /// Checks on a connection being opened; returns true once it is established.
    pub(super) fn finish_connecting(&mut self, id: Id) -> bool {
        let Some(entry) = find(&mut self.streams, id) else { return false };
        let how = match self.os.connected(&mut entry.stream) {
            Ok(false) => return false,
            Ok(true) => {
                if self.engine.probes_peers() {
                    self.os.probe_peer(&mut entry.stream);
                }
                if let Some(facts) = entry.stream.tls_facts() {
                    self.engine.secured(self.now, id, &facts);
                }
                Ok(())
            }
            Err(error) => Err(hang_up(&error)),
        };
        entry.marks.take(Marks::CONNECTING);
        self.engine.connected(self.now, id, how, &mut self.out);
        self.deliver(id);
        self.act();
        how.is_ok()
    }

    /// Stores a stream and registers it for events.
    fn insert(
        &mut self,
        mut stream: O::Stream,
        side: Side,
        id: Id,
        marks: Marks,
    ) -> io::Result<()> {
        let interest =
            if marks.has(Marks::WRITES_WATCHED) { Interest::Both } else { Interest::Reads };
        let watched = self.os.watch(&mut stream, side, id, interest);
        let key = id.key as usize;
        if self.streams.len() <= key {
            if self.streams.capacity() <= key {
                self.streams.reserve_exact(GROWTH);
            }
            self.streams.resize_with(key + 1, || None);
        }
        self.streams[key] = Some(Entry { stream, generation: id.generation, marks, side, held: 0 });
        watched
    }

    /// The engine has no slot: writes its response, as far as it fits.
    fn refuse(&mut self, mut stream: O::Stream, side: Side) {
        let response = refusal(&mut self.engine, self.now, side, Shortage::Slots);
        let Some(response) = response else { return };
        // With TLS nothing can be written before the handshake.
        let written = stream.write(response);
        drop(written);
        self.os.finish(&mut stream);
        // Unread bytes would make the kernel send RST, and the peer would lose the response.
        let drained = stream.read(&mut self.shared);
        drop(drained);
    }

    /// Descriptors have run out. Waiting clients get a response through a descriptor held in
    /// reserve, and accepting pauses, since it would only fail again.
    fn refuse_waiting(&mut self, listener: usize, error: &io::Error) {
        let until_ns = self.now.mono_ns + RETRY_NS;
        self.listeners[listener].state = Queue::Paused { until_ns };
        self.listeners[listener].retry_ns = until_ns;
        self.is_short = true;
        for refused in 0..limits::ACCEPTS_PER_TURN {
            let side = self.listeners[listener].side;
            let response = refusal(&mut self.engine, self.now, side, Shortage::Descriptors);
            match self.os.refuse_one(listener, response.unwrap_or_default()) {
                Ok(()) if refused == 0 => {
                    log::warn!(
                        target: "accept-error", error:% = error;
                        "refusing clients at accept"
                    );
                }
                Ok(()) => {}
                // The kernel checks for a descriptor before it checks whether a client waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[listener].state = Queue::Empty;
                    return;
                }
                Err(_) => {
                    if refused == 0 {
                        log::warn!(
                            target: "accept-error", error:% = error;
                            "clients wait at accept, and cannot be refused"
                        );
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn resume_paused_listeners(&mut self, descriptor_freed: bool) {
        if !self.is_short {
            return;
        }
        for listener in &mut self.listeners {
            if descriptor_freed {
                listener.retry_ns = 0;
            }
            if let Queue::Paused { until_ns } = listener.state
                && (descriptor_freed || until_ns <= self.now.mono_ns)
            {
                listener.state = Queue::Waiting;
                self.may_accept = true;
            }
        }
    }
}

/// How a connection failed, from the error of a system call.
pub(super) fn hang_up(error: &io::Error) -> HangUp {
    let inner = error.get_ref();
    if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<TlsFault>()) {
        return HangUp::Tls(*fault);
    }
    if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<ProxyFault>()) {
        return HangUp::Proxy(*fault);
    }
    match error.kind() {
        // An ENOENT of the kernel is about the path of a Unix socket.
        io::ErrorKind::NotFound if error.raw_os_error().is_none() => HangUp::NoSuchName,
        io::ErrorKind::ConnectionRefused => HangUp::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => HangUp::Reset,
        io::ErrorKind::AddrNotAvailable => HangUp::Exhausted,
        _ if is_exhaustion(error) => HangUp::Exhausted,
        _ => HangUp::Unreachable,
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: a shortage that passes.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// The response to a connection that cannot be accepted. There is none at the listener of a part,
/// whose protocol is unknown here.
fn refusal<E: Engine>(engine: &mut E, now: Now, side: Side, why: Shortage) -> Option<&[u8]> {
    match side {
        Side::Part(_) => None,
        Side::Main | Side::Admin => Some(engine.refused_at_accept(now, why)),
    }
}
