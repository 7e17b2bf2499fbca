//! The contract between a core and what drives it: bytes and `now` go in, actions come out.
//! It knows neither HTTP nor WebSocket, and neither a socket nor a clock, so that one core can be
//! driven by scenarios, by the simulation, by the fuzzer and by the operating system.
//!
//! How to drive an engine, in five steps:
//! 1. A stream arrives: [`Engine::accepted`], and as soon as it can carry an answer
//!    [`Engine::ready`]; or one that [`Action::Connect`] asked for: [`Engine::connected`].
//!    Its id lives until you call [`Engine::closed`], exactly once: after an [`Action::Close`] or
//!    [`Action::Reset`], or after [`Engine::ended`] with anything but [`HangUp::Eof`].
//! 2. It is readable: read into [`Engine::room`] (empty means paused: remember that the stream is
//!    readable and wait for [`Action::Resume`]), then [`Engine::received`]; at its end or on an
//!    error [`Engine::ended`].
//! 3. Whatever a call left in [`Out`] is written at once, in one go; [`Engine::keep`] takes what
//!    the stream did not. From then on write [`Engine::unsent`] when the stream is writable.
//! 4. After every call, carry out [`Engine::poll`] until it is empty.
//! 5. Sleep until [`Engine::next_deadline`], then [`Engine::fire`].

use core::fmt;
use core::net::{IpAddr, SocketAddr};

pub use crate::outbox::{Out, Piece};
pub use crate::target::{Identity, Roots, Secured, Target, TlsFault, Trust};
pub use crate::time::Now;

/// One connection: where it lies and which tenant of that place it is.
/// A late event for an earlier tenant carries an earlier generation and misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Place in the table of connections.
    pub key: u32,
    /// Counts the tenants of that place.
    pub generation: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.key, self.generation)
    }
}

/// Which listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// For everyone: it can never hurt the pod.
    Main,
    /// For the kubelet, Prometheus and operators; always served first.
    Admin,
}

/// Who is at the other end.
/// (`core::net` is arithmetic on addresses; it opens nothing.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somewhere in a network.
    Tcp {
        /// Where.
        ip: IpAddr,
        /// Its port.
        port: u16,
    },
    /// On this machine, through a Unix socket: it has no name of its own.
    Unix,
}

impl Peer {
    /// The far end of a TCP connection; an IPv4 address in IPv6 clothes shows as IPv4.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self::Tcp { ip: address.ip().to_canonical(), port: address.port() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tcp { ip, port } => SocketAddr::new(ip, port).fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// How an engine is, for whoever supervises the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Connections that it serves.
    pub connections: usize,
    /// `WebSockets` among them.
    pub websockets: usize,
    /// It has been told to end, and will have ended by then.
    pub ends_ns: Option<u64>,
}

/// How the reading side of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The peer will send no more; it may still read.
    Eof,
    /// The stream is dead in both directions.
    Reset,
    /// Nobody listens there.
    Refused,
    /// There is no way to get there.
    Unreachable,
    /// This machine has no port or no descriptor left for it.
    Exhausted,
    /// There is no host of that name, or nobody who knows.
    NoSuchName,
    /// Somebody is there, but TLS does not come about.
    Tls(TlsFault),
}

impl fmt::Display for HangUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eof => "the other side ended the connection",
            Self::Reset => "the connection broke",
            Self::Refused => "nobody listens there",
            Self::Unreachable => "there is no way to get there",
            Self::Exhausted => "this machine has no port or no descriptor left",
            Self::NoSuchName => "its name cannot be looked up",
            Self::Tls(fault) => return fault.fmt(f),
        })
    }
}

/// What there was none of for a stream that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The engine has no place for it.
    Places,
    /// The kernel has no descriptor, or no memory.
    Descriptors,
}

/// What an operator asks of the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what is in hand and leave.
    Stop,
    /// SIGUSR1: say how things are.
    Report,
    /// SIGHUP: read again what was read at start.
    Reload,
}

/// A file as it was read.
#[derive(Debug)]
pub struct File {
    /// Its path below its directory, with `/` between its parts and none in front.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// When it was last changed.
    pub modified_ms: i64,
    /// What was made of it where it was read; none where that is left to whoever gets it.
    pub prepared: Option<Prepared>,
}

/// What a file is served with, made beside the loop: to compress 8 MiB takes a third of a second,
/// and ten times that where CPU is short.
#[derive(Debug)]
pub struct Prepared {
    /// Of its bytes.
    pub digest: Digest,
    /// Its bytes compressed, where that is worth it, and the digest of those.
    pub gzip: Option<(Vec<u8>, Digest)>,
}

/// Tells one version of a file from another.
pub type Digest = [u8; 10];

/// What an engine can ask to have read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The directory of files to serve.
    Assets,
    /// What the kernel counts for this process: one file a figure, its value as text.
    Process,
    /// Tokens, certificates, kubeconfigs: these paths; those that cannot be read are left out.
    Files(Vec<String>),
}

/// The only things that an engine can ask of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call [`Engine::render`]: there is something to say that no received byte caused.
    Write(Id),
    /// Read again: the engine has room, or holds input that it can now use.
    Resume(Id),
    /// When all output is taken, tell the peer that no more follows (FIN).
    Finish(Id),
    /// When all output is taken, close.
    Close(Id),
    /// Close now, with RST, whatever waits.
    Reset(Id),
    /// Open a connection; [`Engine::connected`] tells how that went.
    Connect(Id, Target),
    /// Accept whoever waits at the main doors, for a second at most, then close them for good;
    /// [`Engine::accepting_stopped`] tells when that is done.
    StopAccepting,
    /// Say how much memory is used, with [`Engine::weighed`].
    Weigh,
    /// Read this, and hand it over with [`Engine::fetched`], at once or in a later turn.
    Fetch(Source),
    /// Do nothing at all until then: nothing but a signal is noticed.
    Freeze {
        /// When to go on.
        until_ns: u64,
    },
    /// Show this to whoever looks on, beside the output proper.
    Show(String),
    /// End the process with this exit code.
    Exit(u8),
}

/// A core without I/O. See the module's head for the order of calls.
pub trait Engine {
    /// Whether it measures: then the clock is asked for each stream, not once a turn.
    const MEASURES: bool = false;

    /// A stream arrived. `None`: no place for it, turn it away.
    fn accepted(&mut self, _now: Now, _door: Side, _peer: Peer) -> Option<Id> {
        None
    }

    /// What is said to a stream that arrived can be read from now on: at once, or after its TLS
    /// handshake. It comes before the first [`Engine::received`].
    fn ready(&mut self, _now: Now, _id: Id) {}

    /// Beside the engine, so many bytes are kept for this stream: half a TLS handshake, or records
    /// that wait. Told whenever it is another number; at first it is 0.
    fn held_outside(&mut self, _now: Now, _id: Id, _bytes: usize) {}

    /// Asked for by [`Action::Connect`]: the connection stands, or never will.
    fn connected(&mut self, _now: Now, _id: Id, _how: Result<(), HangUp>, _out: &mut Out) {}

    /// The last words to a stream that gets no id.
    fn refused_at_accept(&mut self, _now: Now, _why: Shortage) -> &[u8] {
        &[]
    }

    /// Where the next bytes of this stream go: behind the remnant of a frame, which is copied to
    /// the front of `shared`, or into a block of the connection's own. Its length is the read
    /// budget. Empty: paused.
    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8];

    /// `n` bytes were read into [`Engine::room`]. Frames are unmasked where they lie.
    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out);

    /// Asked for by [`Action::Resume`]: goes on with input held back.
    fn resume(&mut self, _now: Now, _id: Id, _shared: &mut [u8], _out: &mut Out) {}

    /// The reading side ended. After [`HangUp::Eof`] an answer may still be written; otherwise the
    /// stream is dead and [`Engine::closed`] follows at once.
    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out);

    /// The stream took only the first `taken` bytes of `out`: keep the rest.
    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize);

    /// The peer has ended its side while it is not read: [`Engine::room`] was empty.
    fn hung_up(&mut self, _now: Now, _id: Id, _out: &mut Out) {}

    /// What waits to be written, in order; only as much as lies in one piece.
    fn unsent(&self, id: Id) -> &[u8];

    /// The stream took `n` bytes of [`Engine::unsent`].
    fn sent(&mut self, now: Now, id: Id, n: usize);

    /// Asked for by [`Action::Write`]: timers, pushes, refusals.
    fn render(&mut self, now: Now, id: Id, out: &mut Out);

    /// The stream is gone, and with it the id.
    fn closed(&mut self, now: Now, id: Id);

    /// Timers that are due, at most [`crate::limits::TIMERS_AT_ONCE`] of them.
    fn fire(&mut self, now: Now);

    /// The operator asks something.
    fn signal(&mut self, now: Now, signal: Signal);

    /// When to call [`Engine::fire`] next; `None`: sleep until something arrives.
    fn next_deadline(&self) -> Option<u64>;

    /// [`Action::StopAccepting`] is carried out: nobody else will come.
    fn accepting_stopped(&mut self, _now: Now) {}

    /// [`Action::Fetch`] is carried out. What cannot be read is not handed over.
    fn fetched(&mut self, _now: Now, _source: Source, _files: Vec<File>) {}

    /// [`Action::Weigh`] is carried out: so many bytes count against the process' memory limit.
    fn weighed(&mut self, _now: Now, _used: u64) {}

    /// Bytes that it has inflated, produced and copied so far. What a call adds to it is the share
    /// that the call took of the turn, beside the bytes that were read.
    fn work(&self) -> u64 {
        0
    }

    /// What a supervisor may know. It is asked often, so it only looks.
    fn standing(&self) -> Standing {
        Standing::default()
    }

    /// The next thing to carry out.
    #[must_use]
    fn poll(&mut self) -> Option<Action>;
}
