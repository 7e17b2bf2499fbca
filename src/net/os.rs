//! What the loop needs from an operating system. `kernel` implements it; so does the simulation
//! in the tests, with faults.

use core::net::{IpAddr, SocketAddr};
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::engine::{
    File, Id, NameFault, Now, Peer, Screen, Side, Signal, Source, Status, Target, TlsFacts,
};

/// A name that was resolved, with its addresses.
pub type Resolved = (Box<str>, Result<Vec<IpAddr>, NameFault>);

/// An event reported by [`Os::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Connections are waiting at the listener with this index.
    Accept(usize),
    /// The state of a stream changed. Edge-triggered: the loop must remember unfinished work.
    Stream {
        /// The stream; it may be closed by now.
        id: Id,
        /// Bytes or end of file can be read.
        readable: bool,
        /// Bytes can be written, or a write will fail.
        writable: bool,
        /// End of file follows the bytes that can be read; no further event reports it.
        ended: bool,
        /// The connection is broken in both directions.
        broken: bool,
    },
    /// The process received a signal.
    Signal(Signal),
    /// The assets were read: call [`Os::take_assets`].
    AssetsRead,
    /// A name was resolved: call [`Os::take_resolved`].
    Resolved,
}

impl Event {
    /// Not from the kernel: the stream's name was resolved, or another address is due.
    #[must_use]
    pub fn wake(id: Id) -> Self {
        Self::Stream { id, readable: false, writable: true, ended: false, broken: false }
    }
}

/// Which events of a stream are reported. Most streams are never blocked, and each of their state
/// changes (opened, shut down) would wake the loop only to report that they are writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Input and its end. [`Os::watch_writes`] adds the rest.
    Reads,
    /// Both directions: for a stream that is still connecting.
    Both,
}

/// A connection to a peer. Dropping it closes it. [`Write::flush`] sends what it has buffered.
pub trait Channel: Read + Write {
    /// Whether it is only a socket: it names no client, buffers nothing and needs no handshake.
    fn is_plain(&self) -> bool {
        false
    }

    /// Whether a read stopped before `WouldBlock`, or bytes are buffered: no event follows.
    fn holds_more(&self) -> bool {
        false
    }

    /// Whether there are bytes, or an end, that no read has returned yet.
    fn has_input(&mut self) -> bool {
        false
    }

    /// Bytes buffered for its peer, beyond the fixed cost of such a connection.
    fn held_bytes(&self) -> usize {
        0
    }

    /// The client that a proxy named before the first byte, once.
    fn take_client(&mut self) -> Option<SocketAddr> {
        None
    }

    /// What its TLS handshake with a server has agreed; `None` without TLS.
    fn tls_facts(&self) -> Option<TlsFacts> {
        None
    }

    /// The size of a terminal; `None` if it is none.
    fn screen(&self) -> Option<Screen> {
        None
    }

    /// Whether its TLS handshake is in progress, a step of which costs as much as hundreds of
    /// messages.
    fn is_costly(&self) -> bool {
        false
    }
}

/// An operating system.
pub trait Os {
    /// A connection of this operating system, real or simulated.
    type Stream: Channel;

    /// Reads the clock.
    fn now(&mut self) -> Now;

    /// Waits for events until the timeout, or without one if `None`.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Collects pending events of the admin side without waiting.
    fn poll_admin(&mut self, events: &mut Vec<Event>) -> io::Result<()>;

    /// Sleeps for this long. Only signals are reported, and they end the sleep.
    fn sleep(&mut self, time: Duration, events: &mut Vec<Event>) -> io::Result<()>;

    /// The side of each listener, by index.
    fn listeners(&self) -> Vec<Side>;

    /// Accepts a connection from this listener.
    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, Peer)>;

    /// Accepts a connection although descriptors have run out, writes `response` and closes it.
    fn refuse_one(&mut self, listener: usize, response: &[u8]) -> io::Result<()>;

    /// Starts to resolve a name. [`Event::Resolved`] follows if it returns true; if not, names are
    /// not resolved here.
    fn resolve(&mut self, _host: &str) -> bool {
        false
    }

    /// A name that was resolved, with its addresses.
    fn take_resolved(&mut self) -> Option<Resolved> {
        None
    }

    /// Starts to open a connection.
    fn connect(&mut self, target: &Target) -> io::Result<Self::Stream>;

    /// Whether a connection is established by now; an error if it failed.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<bool>;

    /// Probes the peer of this stream whenever it is silent, so that a dead one is noticed. By
    /// default there is nothing to probe.
    fn probe_peer(&mut self, _stream: &mut Self::Stream) {}

    /// Reports events of this stream from now on, beginning with its present state.
    fn watch(
        &mut self,
        stream: &mut Self::Stream,
        side: Side,
        id: Id,
        interest: Interest,
    ) -> io::Result<()>;

    /// Also reports when this stream can be written to: from now on, beginning with its present
    /// state.
    fn watch_writes(&mut self, stream: &mut Self::Stream, side: Side, id: Id) -> io::Result<()>;

    /// Shuts down the writing side.
    fn finish(&mut self, stream: &mut Self::Stream);

    /// Closes with RST and discards unsent bytes.
    fn reset(&mut self, stream: Self::Stream);

    /// Closes the main listeners; the kernel resets connections still in their queues.
    fn close_listeners(&mut self);

    /// Reports to the service manager if something changed; returns when the next report is due
    /// even if nothing happens. By default there is none.
    fn notify(&mut self, _now: Now, _standing: Status) -> Option<u64> {
        None
    }

    /// Writes to standard error. By default nothing is shown.
    fn show(&mut self, _text: &str) {}

    /// Bytes that count against the memory limit of this process, if it has one.
    fn memory_used(&mut self) -> Option<u64> {
        None
    }

    /// Returns the assets that [`Os::fetch`] started to read.
    fn take_assets(&mut self) -> io::Result<Vec<File>> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// Reads files. `WouldBlock`: a thread reads them, and [`Event::AssetsRead`] follows.
    fn fetch(&mut self, source: &Source) -> io::Result<Vec<File>>;
}
