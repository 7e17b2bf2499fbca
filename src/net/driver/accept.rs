//! Doors: taking connections in, and what to do when there is no place or no descriptor for them.

use std::io::{self, Read, Write};

use super::marks::Marks;
use super::{Channel, Driver, Entry, Os, find};
use crate::engine::{Engine, HangUp, Id, Shortage, Side, Target, TlsFault};
use crate::limits;
use crate::time;

/// Places are added this many at a time, see `slab`.
const GROWTH: usize = 4096;
/// After descriptors ran out, when accepting is tried again unless a stream closed before.
const RETRY_NS: u64 = 100_000_000;
/// While too many handshakes are under way, when accepting is tried again.
const REST_NS: u64 = 10_000_000;
/// A handshake that has taken so long has to make room when there are too many.
const SLOW_NS: u64 = 1_000_000_000;

/// A listener, and whether somebody may wait there.
#[derive(Debug)]
pub(super) struct ListenerState {
    pub(super) side: Side,
    pub(super) state: Queue,
    /// When descriptors ran out, who knocks waits until then: one error for each would be many.
    rests_until_ns: u64,
}

impl ListenerState {
    pub(super) fn new(side: Side) -> Self {
        Self { side, state: Queue::Waiting, rests_until_ns: 0 }
    }

    /// Somebody waits there now.
    pub(super) fn knock(&mut self, now_ns: u64) {
        if self.state == Queue::Empty {
            self.state = if now_ns < self.rests_until_ns {
                Queue::Stuck { until_ns: self.rests_until_ns }
            } else {
                Queue::Waiting
            };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Empty,
    /// The kernel may have more.
    Waiting,
    /// There was no descriptor for them.
    Stuck {
        until_ns: u64,
    },
    /// Its listener is closed. The entry stays: events name listeners by their place in the list.
    Closed,
}

impl<E: Engine, O: Os> Driver<E, O> {
    /// The main listeners are to be closed once nobody waits there, see
    /// [`Driver::close_listeners_when_due`].
    pub(super) fn stop_accepting(&mut self) {
        if self.closing_until_ns.is_some() || self.accepting_is_stopped() {
            return;
        }
        self.closing_until_ns = Some(self.now.mono_ns + time::ms(limits::LAST_ACCEPTS_MS));
        for listener in self.listeners.iter_mut().filter(|listener| listener.side == Side::Main) {
            // That somebody waits may not have been told yet.
            listener.state = Queue::Waiting;
        }
    }

    /// Closes the main listeners when the queue is empty, or when it has been accepted from for
    /// long enough; whoever waits then is reset by the kernel.
    pub(super) fn close_listeners_when_due(&mut self) {
        let Some(until_ns) = self.closing_until_ns else { return };
        let is_empty = |listener: &ListenerState| match listener.state {
            Queue::Empty | Queue::Closed => true,
            Queue::Waiting | Queue::Stuck { .. } => false,
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

    /// Takes in those who wait, up to the budget of a turn. Between two shares of it the admin side
    /// is asked: to take in 64 costs milliseconds, and a hundred times that where CPU is short.
    pub(super) fn accept(&mut self, listener: usize) -> io::Result<()> {
        let asks_admin = self.listeners[listener].side == Side::Main && self.has_admin();
        for _ in 0..limits::ACCEPTS_PER_TURN / limits::SERVED_BEFORE_ADMIN {
            if !self.accept_share(listener) || self.is_halted() {
                break;
            }
            if asks_admin {
                self.glance()?;
            }
        }
        Ok(())
    }

    /// Whether more may be taken in at once.
    fn accept_share(&mut self, listener: usize) -> bool {
        let side = self.listeners[listener].side;
        for _ in 0..limits::SERVED_BEFORE_ADMIN {
            // The last ones are taken in whatever they cost.
            let is_last_call = self.closing_until_ns.is_some();
            if side == Side::Main && !is_last_call && !self.can_greet(listener) {
                return false;
            }
            match self.os.accept(listener) {
                Ok((stream, peer)) => match self.engine.accepted(self.now, side, peer) {
                    Some(id) => self.welcome(stream, side, id),
                    None => self.send_away(stream),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[listener].state = Queue::Empty;
                    return false;
                }
                Err(error) if is_exhaustion(&error) => {
                    self.turn_away(listener, &error);
                    return false;
                }
                // That one hung up before it was taken in; the next one may not have.
                Err(_) => {}
            }
        }
        true
    }

    fn welcome(&mut self, stream: O::Stream, side: Side, id: Id) {
        // While others keep the loop busy, its request has most likely arrived: to be told so in
        // the next turn would make it wait behind all of them twice.
        let mut marks = Marks::default();
        let costly = side == Side::Main && stream.is_costly();
        let busy = !self.ready_main.is_empty() && !costly;
        if busy {
            marks.set(Marks::READABLE);
        }
        if costly {
            marks.set(Marks::SHAKING);
            self.costly.push_back((id, self.now.mono_ns));
        }
        if self.enter(stream, side, id, marks).is_err() {
            self.break_off(id);
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

    /// Whether one more handshake can be begun: not while many are ready to go on, for then the
    /// queue is better kept by the kernel; when too many wait for their peers, the slowest goes.
    fn can_greet(&mut self, listener: usize) -> bool {
        if self.ready_costly.len() >= limits::ACCEPTS_PER_TURN {
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
                self.break_off(id);
                self.act();
                true
            }
            Some(_) | None => {
                self.listeners[listener].state =
                    Queue::Stuck { until_ns: self.now.mono_ns + REST_NS };
                false
            }
        }
    }

    /// Opens a connection of the engine's own.
    pub(super) fn connect(&mut self, id: Id, target: &Target) {
        let mut marks = Marks::default();
        marks.set(Marks::CONNECTING);
        let begun = self.os.connect(target);
        if let Err(error) = begun.and_then(|stream| self.enter(stream, Side::Main, id, marks)) {
            self.engine.connected(self.now, id, Err(why(&error)), &mut self.out);
            self.out.clear();
            // The engine's `Close` finds no stream, so this is where its id ends.
            if find(&mut self.streams, id).is_none() {
                self.forget(id);
            }
        }
    }

    /// Looks how far a connection of our own is; true once it stands.
    pub(super) fn finish_connecting(&mut self, id: Id) -> bool {
        let Some(entry) = find(&mut self.streams, id) else { return false };
        let how = match self.os.connected(&mut entry.stream) {
            Ok(false) => return false,
            Ok(true) => Ok(()),
            Err(error) => Err(why(&error)),
        };
        entry.marks.take(Marks::CONNECTING);
        self.engine.connected(self.now, id, how, &mut self.out);
        self.deliver(id);
        self.act();
        how.is_ok()
    }

    /// Puts a stream into its place and has it watched.
    fn enter(&mut self, mut stream: O::Stream, side: Side, id: Id, marks: Marks) -> io::Result<()> {
        let watched = self.os.watch(&mut stream, side, id);
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

    /// No place in the engine: a last word, as far as it fits.
    fn send_away(&mut self, mut stream: O::Stream) {
        // Under TLS nothing fits before the handshake.
        let written = stream.write(self.engine.refused_at_accept(self.now, Shortage::Places));
        drop(written);
        self.os.finish(&mut stream);
        // Unread bytes would make the kernel reset the connection, last word included.
        let drained = stream.read(&mut self.shared);
        drop(drained);
    }

    /// Descriptors have run out. Those who wait get a last word through a descriptor that was
    /// held in reserve, and accepting rests, or it would spin on the same error.
    fn turn_away(&mut self, listener: usize, why: &io::Error) {
        let until_ns = self.now.mono_ns + RETRY_NS;
        self.listeners[listener].state = Queue::Stuck { until_ns };
        self.listeners[listener].rests_until_ns = until_ns;
        for refused_at_accept in 0..limits::ACCEPTS_PER_TURN {
            let last_words = self.engine.refused_at_accept(self.now, Shortage::Descriptors);
            match self.os.turn_away(listener, last_words) {
                Ok(()) if refused_at_accept == 0 => {
                    log::warn!(target: "accept-error", error:% = why; "turning clients away");
                }
                Ok(()) => {}
                // The kernel looks for a descriptor before it looks whether anybody waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[listener].state = Queue::Empty;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    pub(super) fn retry_stuck_listeners(&mut self, descriptor_freed: bool) {
        for listener in &mut self.listeners {
            if descriptor_freed {
                listener.rests_until_ns = 0;
            }
            if let Queue::Stuck { until_ns } = listener.state
                && (descriptor_freed || until_ns <= self.now.mono_ns)
            {
                listener.state = Queue::Waiting;
            }
        }
    }
}

pub(super) fn why(error: &io::Error) -> HangUp {
    if let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFault>()) {
        return HangUp::Tls(*fault);
    }
    match error.kind() {
        // Of the kernel's it would be a path's.
        io::ErrorKind::NotFound if error.raw_os_error().is_none() => HangUp::NoSuchName,
        io::ErrorKind::ConnectionRefused => HangUp::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => HangUp::Reset,
        io::ErrorKind::AddrNotAvailable => HangUp::Exhausted,
        _ if is_exhaustion(error) => HangUp::Exhausted,
        _ => HangUp::Unreachable,
    }
}

/// EMFILE, ENFILE, ENOBUFS, ENOMEM: too many of something, which passes.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}
