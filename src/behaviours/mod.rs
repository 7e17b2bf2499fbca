//! Behaviours: what a mount does on an open WebSocket. A behaviour is one file, one `impl` and one
//! entry in [`TABLE`]. It has access only to its [`Ctx`], so it cannot affect other connections.

mod echo;
mod mount;
mod params;
mod pushes;
mod reverse;
mod sockets;

use crate::engine::{Id, Now};
use crate::limits::{COMPRESSED_BYTES_MAX, COMPRESSING_WORK};
use crate::outbox::Out;
use crate::proto::deflate::{Agreed, Codec};
pub use crate::proto::frame::Kind;
use crate::proto::frame::{self};
use crate::rng::Rng;

pub use mount::{Catalogue, Mount};
pub use params::{BadParam, OwnParam, Params, Source, WireFault};
pub use pushes::{Pushes, is_unasked};
pub use sockets::{PartSocket, Sizes, Sockets, State};

/// The application logic of one WebSocket.
pub trait Behaviour: core::fmt::Debug {
    /// The handshake is complete.
    fn on_open(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A complete message was received.
    fn on_message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer;

    /// Whether it always answers [`Answer::Same`]. The server then skips [`Behaviour::on_message`].
    fn only_echoes(&self) -> bool {
        false
    }

    /// When to call [`Behaviour::on_wake`]. Must not depend on messages.
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// The deadline may have passed.
    fn on_wake(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A Close frame is about to be sent; messages sent now go out before it.
    fn on_close(&mut self, _code: u16, _reason: &str, _ctx: &mut Ctx<'_>) {}

    /// Whether to stop reading from the peer, since too much is queued.
    fn is_full(&self) -> bool {
        false
    }

    /// Whether a request of the peer is still in progress.
    fn is_busy(&self) -> bool {
        false
    }

    /// Size limits stricter than the server's.
    fn sizes(&self) -> Sizes {
        Sizes::ANY
    }
}

/// What to do after a message, in addition to what was sent through [`Ctx`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Do nothing more.
    Nothing,
    /// Echo the message, without copying it if it is large.
    Same,
    /// Close with this code and reason.
    Close(u16, &'static str),
}

/// A request to close the connection. It is a return value and not shared state, so that it can
/// only affect the connection whose behaviour was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Close code (RFC 6455 §7.4).
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
}

/// How large an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Limit for buffered output.
    pub answer: usize,
    /// Memory available.
    pub memory: usize,
}

/// Everything that a behaviour has access to.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The current time.
    pub now: Now,
    /// The connection.
    pub id: Id,
    /// Seeded random numbers.
    pub rng: &'a mut Rng,
    /// Counters of this connection.
    pub tally: &'a mut Tally,
    /// Counters of the process.
    pub traffic: &'a mut Traffic,
    /// The negotiated permessage-deflate parameters, if any.
    pub deflate: Option<Agreed>,
    /// The compressor.
    pub codec: &'a mut Codec,
    /// The output buffer.
    pub out: &'a mut Out,
    /// Bytes buffered for the peer, in addition to `out`.
    pub waiting: usize,
    /// How large an answer may be.
    pub room: Room,
    /// Counts bytes produced and copied; `send` counts those of the message.
    pub work: &'a mut u64,
    /// The part that handles this connection, if any.
    pub part: Option<&'a mut dyn Sockets>,
}

impl Ctx<'_> {
    /// Checks whether an answer of this size can be sent. Call it before building the answer.
    ///
    /// # Errors
    /// The [`Answer::Close`] to return instead.
    pub fn check_size(&self, bytes: usize) -> Result<(), Answer> {
        if bytes > self.room.answer {
            return Err(Answer::Close(1009, "answer too big"));
        }
        // Until the peer reads, the answer is in memory twice.
        if 2 * bytes > self.room.memory {
            return Err(Answer::Close(1013, "memory is short"));
        }
        Ok(())
    }

    /// Sends a message of `length` bytes that `make` appends to the output buffer.
    pub fn send_with(&mut self, kind: Kind, length: usize, make: impl FnOnce(&mut Vec<u8>)) {
        if self.deflate.is_some() && is_compressed(length, self.room) {
            let mut payload = Vec::with_capacity(length);
            make(&mut payload);
            return self.send(kind, &payload);
        }
        let (header, size) = frame::message_header(kind, length);
        let out = &mut self.out.bytes;
        out.reserve(size + length);
        out.extend_from_slice(&header[..size]);
        make(out);
        self.sent(kind, length);
    }

    fn sent(&mut self, kind: Kind, bytes: usize) {
        *self.work += bytes as u64;
        self.tally.sent(bytes);
        self.traffic.sent(kind, bytes);
    }

    /// Sends a message.
    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        let out = &mut self.out.bytes;
        match self.deflate.filter(|_| is_compressed(payload.len(), self.room)) {
            Some(agreed) => {
                *self.work += payload.len() as u64 * COMPRESSING_WORK;
                write(agreed, self.codec, kind, payload, out);
            }
            None => frame::write_message(out, kind, payload),
        }
        self.sent(kind, payload.len());
    }
}

/// Whether a message of this length is compressed, if deflate was negotiated.
#[must_use]
pub fn is_compressed(length: usize, room: Room) -> bool {
    length <= COMPRESSED_BYTES_MAX && 2 * length <= room.memory
}

/// Appends a message, compressed if that makes it smaller.
pub(crate) fn write(
    agreed: Agreed,
    codec: &mut Codec,
    kind: Kind,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    if !codec.compress(agreed, kind, payload, out) {
        frame::write_message(out, kind, payload);
    }
}

/// Counters of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages received.
    pub messages_in: u32,
    /// Messages sent.
    pub messages_out: u32,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
}

impl Tally {
    /// Counts a received message.
    pub fn received(&mut self, bytes: usize) {
        self.messages_in = self.messages_in.wrapping_add(1);
        self.bytes_in += bytes as u64;
    }

    /// Counts a sent message.
    pub fn sent(&mut self, bytes: usize) {
        self.messages_out = self.messages_out.wrapping_add(1);
        self.bytes_out += bytes as u64;
    }

    /// Counts echoed messages.
    pub fn echoed(&mut self, messages: u32, bytes: u64) {
        self.messages_in = self.messages_in.wrapping_add(messages);
        self.messages_out = self.messages_out.wrapping_add(messages);
        self.bytes_in += bytes;
        self.bytes_out += bytes;
    }
}

/// Counters of the process, for metrics. Arrays are indexed by [`Kind`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Messages received.
    pub messages_in: [u64; 2],
    /// Messages sent.
    pub messages_out: [u64; 2],
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
}

impl Traffic {
    /// Counts a received message.
    pub fn received(&mut self, kind: Kind, bytes: usize) {
        self.messages_in[kind as usize] += 1;
        self.bytes_in += bytes as u64;
    }

    /// Counts a sent message.
    pub fn sent(&mut self, kind: Kind, bytes: usize) {
        self.messages_out[kind as usize] += 1;
        self.bytes_out += bytes as u64;
    }

    /// Counts echoed messages.
    pub fn echoed(&mut self, messages: [u32; 2], bytes: u64) {
        for (kind, count) in messages.into_iter().enumerate() {
            self.messages_in[kind] += u64::from(count);
            self.messages_out[kind] += u64::from(count);
        }
        self.bytes_in += bytes;
        self.bytes_out += bytes;
    }
}

/// Whether these parameters, of a mount that echoes, request the far end of `wspulse probe`.
#[must_use]
pub fn is_probe(params: &Params) -> bool {
    params.own(PROBE_PARAM) == "1"
}

/// Whether this mount takes `probe=1`.
#[must_use]
pub fn may_probe(mount: &Mount) -> bool {
    mount.entry.params.iter().any(|param| param.name == PROBE_PARAM)
}

/// The declaration of a behaviour.
#[derive(Debug)]
pub struct Entry {
    /// The name for `--mount`.
    pub name: &'static str,
    /// Whether to accept any subprotocol that the client offers.
    pub any_subprotocol: bool,
    /// Parameters of this behaviour only.
    pub params: &'static [OwnParam],
    /// Name of the part that handles its WebSockets.
    pub part: Option<&'static str>,
    /// Creates an instance for a connection.
    pub new: fn() -> Box<dyn Behaviour>,
}

/// `probe=1`: the WebSocket counts what it receives instead of echoing it, and takes commands.
const PROBE: OwnParam = OwnParam {
    name: PROBE_PARAM,
    want: "1 or 0",
    accepts: |value| matches!(value, "0" | "1"),
    is_fixed: false,
};
const PROBE_PARAM: &str = "probe";

/// The built-in behaviours; parts add theirs.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "echo",
        any_subprotocol: true,
        params: &[PROBE],
        part: None,
        new: || Box::new(echo::Echo),
    },
    Entry {
        name: "reverse",
        any_subprotocol: false,
        params: &[],
        part: None,
        new: || Box::new(reverse::Reverse::default()),
    },
];

/// Their mounts, unless replaced by `--mount`.
const DEFAULT_MOUNTS: &[&str] = &[
    "/websocket=echo?randping=3s",
    "/ws=echo",
    "/echo=echo",
    "/=echo",
    "/socket=reverse",
    "/throttled=echo?work=100ms",
];

/// The built-in behaviours and their default mounts.
#[must_use]
pub fn catalogue() -> Catalogue {
    Catalogue { entries: TABLE.iter().collect(), mounts: DEFAULT_MOUNTS.to_vec() }
}
