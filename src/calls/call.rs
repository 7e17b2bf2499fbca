//! What is asked of a pool of connections, and what it says.

use core::fmt;

use crate::engine::{HangUp, Id, Target};
use crate::outbox::Block;
use crate::proto::http_client::{Asked, Fault, Limits};

/// Identifies a connection of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(pub(super) Id);

/// Limits of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Maximum requests in flight to one address, by [`Class`].
    pub per_address: [usize; Class::COUNT],
    /// Maximum connections to all targets.
    pub connections: usize,
    /// Maximum requests that wait for a connection.
    pub waiting: usize,
    /// Connect timeout, for DNS, TCP and TLS together.
    pub connect_ms: u64,
    /// How long an idle connection is kept; shorter than what servers use.
    pub idle_ms: u64,
    /// How long requests wait for a target that cannot be reached.
    pub hold_ms: u64,
}

/// Which share of the connections a request may use, so that many of one kind cannot delay the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Messages and the like.
    Bulk,
    /// Few and short requests that others wait for.
    Control,
}

impl Class {
    pub(super) const COUNT: usize = 2;
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Bulk, Self::Control];
}

/// A request, with limits for its response.
#[derive(Clone)]
pub struct Call {
    /// The output of [`Request::write`](crate::proto::http_client::Request::write).
    pub bytes: Block,
    /// What the response parser must know of the request.
    pub asked: Asked,
    /// Size limits of the response.
    pub limits: Limits,
    /// Its share of the connections.
    pub class: Class,
    /// When it must have been sent.
    pub deadline_ns: u64,
    /// The response's timeout, from sending on; `None`: it must arrive by the deadline as well.
    pub answer_ms: Option<u64>,
    /// For how long it has been held before, behind others for the same target.
    pub held_ns: u64,
}

impl Call {
    /// Whether sending it twice has the effect of sending it once.
    pub(super) fn is_safe(&self) -> bool {
        [&b"GET "[..], b"DELETE "].iter().any(|method| self.bytes.bytes().starts_with(method))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens and messages must not be logged.
        let Self { class, bytes, deadline_ns, .. } = self;
        let mut shown = f.debug_struct("Call");
        shown.field("class", class).field("bytes", &bytes.len());
        shown.field("deadline_ns", deadline_ns).finish_non_exhaustive()
    }
}

/// What the owner must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Open a connection, then call [`Pool::connected`](super::pool::Pool::connected).
    Connect(Lane, Target),
    /// Write the output of [`Pool::render`](super::pool::Pool::render).
    Write(Lane),
    /// Close the connection, then call [`Pool::closed`](super::pool::Pool::closed).
    Close(Lane),
    /// Resolve this name, then call [`Pool::resolved`](super::pool::Pool::resolved).
    Resolve(Box<str>),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Connecting failed.
    NotConnected(HangUp),
    /// Connecting timed out: nothing was sent.
    NoConnection,
    /// Nothing was sent, since connecting failed repeatedly just before.
    Circuit,
    /// Nothing was sent by the deadline, since too many requests are in flight.
    Unsent,
    /// The response is invalid or was cut off.
    Answer(Fault),
    /// It was sent, and there is no complete response in time.
    TimedOut,
}

impl Failure {
    /// Whether the request cannot have reached the server.
    #[must_use]
    pub fn is_unsent(self) -> bool {
        match self {
            Self::NotConnected(_) | Self::NoConnection | Self::Circuit | Self::Unsent => true,
            Self::Answer(_) | Self::TimedOut => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(HangUp::Eof) => HangUp::Reset.fmt(f),
            Self::NotConnected(how) => how.fmt(f),
            Self::NoConnection => f.write_str("connecting timed out"),
            Self::Circuit => f.write_str("not sent, since the last connection attempts failed"),
            Self::Unsent => f.write_str("not sent, since too many requests are in flight"),
            Self::Answer(fault) => fault.fmt(f),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

/// Too many requests are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
