//! The contract between an engine and its driver: bytes and `now` go in, actions come out.
//! It knows neither HTTP nor WebSocket, and neither a socket nor a clock, so scenarios, the
//! simulation, the fuzzer and the operating system can all drive the same engine.
//!
//! How to drive an engine, in five steps:
//! 1. For an accepted stream, call [`Engine::accepted`], and [`Engine::ready`] once it can carry a
//!    response. For a stream that [`Action::Connect`] asked for, call [`Engine::connected`].
//!    Its id is valid until you call [`Engine::closed`], exactly once: after an [`Action::Close`]
//!    or [`Action::Reset`], or after [`Engine::ended`] with anything but [`HangUp::Eof`].
//! 2. When it is readable, read into [`Engine::room`] (empty means paused: remember that the
//!    stream is readable and wait for [`Action::Resume`]), then call [`Engine::received`]; at end
//!    of file or on an error call [`Engine::ended`].
//! 3. Write what a call left in [`Out`] at once, in one go; pass what the stream did not take to
//!    [`Engine::keep`]. From then on write [`Engine::unsent`] when the stream is writable.
//! 4. After every call, carry out [`Engine::poll`] until it returns `None`.
//! 5. Sleep until [`Engine::next_deadline`], then call [`Engine::fire`].

use core::fmt;
use core::net::{IpAddr, SocketAddr};

pub use crate::outbox::{Out, Piece};
pub use crate::target::{
    Alpn, HTTP_1_1, Identity, ProxyFault, Roots, Secured, Target, TlsFacts, TlsFault, Trust, Tunnel,
};
pub use crate::time::Now;

/// Identifies a connection. A slot is reused after [`Engine::closed`], so a late event for an
/// earlier connection carries an earlier generation and is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The slot in the table of connections.
    pub key: u32,
    /// How often the slot has been reused.
    pub generation: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.key, self.generation)
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Characters of a row.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Which kind of listener accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// For clients. Load on this side must not affect pod health.
    Main,
    /// For the kubelet, Prometheus and operators; always served first.
    Admin,
    /// The listener of a part, by the part's index. Served after the admin side, and open until the
    /// process exits.
    Part(u8),
}

/// The remote end of a connection. (`core::net` only parses and formats addresses; it does no
/// I/O.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Connected over TCP.
    Tcp {
        /// Its address.
        ip: IpAddr,
        /// Its port; 0 if only a proxy knows it.
        port: u16,
    },
    /// Connected through a Unix socket, which gives the client no address.
    Unix,
}

impl Peer {
    /// The remote end of a TCP connection; an IPv4-mapped IPv6 address becomes IPv4.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self::Tcp { ip: address.ip().to_canonical(), port: address.port() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tcp { ip, port: 0 } => ip.fmt(f),
            Self::Tcp { ip, port } => SocketAddr::new(ip, port).fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// What a supervisor of the process reports about an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Open connections, `WebSockets` included.
    pub connections: usize,
    /// Open `WebSockets`.
    pub websockets: usize,
    /// While draining: the time at which it will have exited.
    pub ends_ns: Option<u64>,
}

/// How the reading side of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The peer sends no more; it may still read.
    Eof,
    /// The connection is broken in both directions.
    Reset,
    /// The connection was refused.
    Refused,
    /// No route to the address, or connecting timed out.
    Unreachable,
    /// No local port or descriptor is left.
    Exhausted,
    /// The name has no address, or the lookup failed.
    NoSuchName,
    /// The TLS handshake failed.
    Tls(TlsFault),
    /// The proxy did not connect us to the server.
    Proxy(ProxyFault),
}

impl fmt::Display for HangUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eof => "the peer closed the connection",
            Self::Reset => "connection reset",
            Self::Refused => "connection refused",
            Self::Unreachable => "address unreachable",
            Self::Exhausted => "no local port or descriptor left",
            Self::NoSuchName => "its name cannot be looked up",
            Self::Tls(fault) => return fault.fmt(f),
            Self::Proxy(fault) => return fault.fmt(f),
        })
    }
}

/// Why a host name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// The resolver says that there are none.
    NotFound,
    /// The resolver cannot be asked, or does not answer.
    Unanswered,
}

/// Why a connection is refused at accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The engine's connection limit is reached.
    Slots,
    /// The kernel is out of descriptors or memory.
    Descriptors,
}

/// A signal to the process, by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain and exit.
    Stop,
    /// SIGUSR1: log the current state.
    Report,
    /// SIGHUP: reload the files that were read at start.
    Reload,
}

/// A file as it was read.
#[derive(Debug)]
pub struct File {
    /// Its path relative to its directory, separated by `/`, without a leading one.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Modification time, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Computed by the reader if it knows how; otherwise the engine computes it.
    pub prepared: Option<Prepared>,
}

/// Digests and compressed form of a file, computed off the loop's thread: compressing 8 MiB takes
/// a third of a second, and ten times that where CPU is short.
#[derive(Debug)]
pub struct Prepared {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its bytes compressed and their digest, if compression makes them smaller.
    pub gzip: Option<(Vec<u8>, Digest)>,
}

/// Distinguishes versions of a file.
pub type Digest = [u8; 10];

/// What [`Action::Fetch`] can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The directory of `--assets`.
    Assets,
    /// Process figures from the kernel: one [`File`] each, named after the figure, its value as
    /// text.
    Process,
    /// Files at these paths (tokens, certificates, kubeconfigs); unreadable ones are left out.
    Files(Vec<String>),
}

/// Everything that an engine can ask of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call [`Engine::render`]: there is output that no received byte caused.
    Write(Id),
    /// The same for a request to a server, which may have closed the idle connection by now: its
    /// end is read before anything is written.
    Request(Id),
    /// Read again: the engine has room, or holds input that it can process now.
    Resume(Id),
    /// When all output is written, shut down the writing side (FIN).
    Finish(Id),
    /// When all output is written, close.
    Close(Id),
    /// Close now with RST and discard unsent output.
    Reset(Id),
    /// Open a connection; [`Engine::connected`] reports the outcome.
    Connect(Id, Target),
    /// Resolve a host name and call [`Engine::resolved`], at once or in a later turn.
    Resolve(Box<str>),
    /// Accept what is waiting at the main listeners, for a second at most, then close them for good
    /// and call [`Engine::accepting_stopped`].
    StopAccepting,
    /// Measure memory use and call [`Engine::weighed`].
    Weigh,
    /// Read this and call [`Engine::fetched`], at once or in a later turn.
    Fetch(Source),
    /// Stop the loop until then; only signals are noticed.
    Freeze {
        /// When the loop continues.
        until_ns: u64,
    },
    /// Write this to standard error.
    Show(String),
    /// End the process with this exit code.
    Exit(u8),
}

/// Protocol logic without I/O. See the module's head for the order of calls.
pub trait Engine {
    /// Whether it measures latency: then the clock is read for each stream, not once a turn.
    fn measures(&self) -> bool {
        false
    }

    /// Whether the kernel probes the peers of its outgoing connections: some are silent for
    /// minutes, and a peer that vanished sends no FIN.
    fn probes_peers(&self) -> bool {
        false
    }

    /// A stream was accepted. `None`: refuse it, with [`Engine::refused_at_accept`].
    fn accepted(&mut self, _now: Now, _side: Side, _peer: Peer) -> Option<Id> {
        None
    }

    /// The stream comes from a proxy, which named this client. Called before the first
    /// [`Engine::received`].
    fn introduced(&mut self, _now: Now, _id: Id, _client: Peer) {}

    /// The stream can carry a response from now on: at once, or after its TLS handshake. Called
    /// before the first [`Engine::received`].
    fn ready(&mut self, _now: Now, _id: Id) {}

    /// The driver buffers this many bytes for the stream outside the engine: an incomplete TLS
    /// handshake or unsent records. Called when the number changes; it starts at 0.
    fn held_outside(&mut self, _now: Now, _id: Id, _bytes: usize) {}

    /// The TLS handshake of a stream that [`Action::Connect`] asked for is complete. Called before
    /// [`Engine::connected`].
    fn secured(&mut self, _now: Now, _id: Id, _facts: &TlsFacts) {}

    /// The stream is a terminal of this size. Called before [`Engine::render`].
    fn sized(&mut self, _id: Id, _size: Screen) {}

    /// The outcome of [`Action::Connect`].
    fn connected(&mut self, _now: Now, _id: Id, _how: Result<(), HangUp>, _out: &mut Out) {}

    /// The response to a stream that gets no id.
    fn refused_at_accept(&mut self, _now: Now, _why: Shortage) -> &[u8] {
        &[]
    }

    /// Where the next bytes of this stream go: behind an incomplete frame, which is copied to the
    /// front of `shared`, or into a block of the connection's own. Its length is the read budget.
    /// Empty: paused.
    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8];

    /// `n` bytes were read into [`Engine::room`]. Frames are unmasked in place. In between, the
    /// engine hears nothing of this stream but who its client is and that its handshake has ended.
    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out);

    /// Carries out [`Action::Resume`]: processes input that was held back.
    fn resume(&mut self, _now: Now, _id: Id, _shared: &mut [u8], _out: &mut Out) {}

    /// The reading side ended. After [`HangUp::Eof`] output may still be written; otherwise
    /// [`Engine::closed`] follows at once.
    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out);

    /// The stream took only the first `taken` bytes of `out`: keep the rest.
    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize);

    /// The peer closed its side while reading is paused ([`Engine::room`] was empty).
    fn hung_up(&mut self, _now: Now, _id: Id, _out: &mut Out) {}

    /// Output to be written next; only the first contiguous part of it.
    fn unsent(&self, id: Id) -> &[u8];

    /// `n` bytes of [`Engine::unsent`] were written.
    fn sent(&mut self, now: Now, id: Id, n: usize);

    /// Carries out [`Action::Write`] and [`Action::Request`].
    fn render(&mut self, now: Now, id: Id, out: &mut Out);

    /// The stream is closed and its id no longer valid.
    fn closed(&mut self, now: Now, id: Id);

    /// Fires timers that are due, at most [`crate::limits::TIMERS_AT_ONCE`] of them.
    fn fire(&mut self, now: Now);

    /// The process received a signal.
    fn signal(&mut self, now: Now, signal: Signal);

    /// When to call [`Engine::fire`] next; `None`: there is no timer.
    fn next_deadline(&self) -> Option<u64>;

    /// [`Action::StopAccepting`] is done: no further [`Engine::accepted`] follows.
    fn accepting_stopped(&mut self, _now: Now) {}

    /// [`Action::Fetch`] is done. Files that cannot be read are left out.
    fn fetched(&mut self, _now: Now, _source: Source, _files: Vec<File>) {}

    /// [`Action::Resolve`] is done: the addresses of this name, at least one.
    fn resolved(&mut self, _now: Now, _host: &str, _found: Result<&[IpAddr], NameFault>) {}

    /// [`Action::Weigh`] is done: this many bytes count against the process' memory limit.
    fn weighed(&mut self, _now: Now, _used: u64) {}

    /// Bytes inflated, produced and copied so far. The increase during a call, plus the bytes read,
    /// is the call's share of the turn.
    fn work(&self) -> u64 {
        0
    }

    /// For the supervisor. Called every turn, so it must be cheap.
    fn status(&self) -> Status {
        Status::default()
    }

    /// The next action to carry out.
    #[must_use]
    fn poll(&mut self) -> Option<Action>;
}
