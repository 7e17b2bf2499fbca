//! What a mount says on an open WebSocket. A behaviour is one file, one `impl` and one line in
//! [`TABLE`]; it reaches nothing but its [`Ctx`], so it can harm nothing but its connection.

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
pub use pushes::Pushes;
pub use sockets::{PartSocket, Sizes, Sockets, State};

/// One connection's side of a conversation.
pub trait Behaviour: core::fmt::Debug {
    /// The upgrade was answered.
    fn on_open(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A whole message came.
    fn on_message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer;

    /// Whether all it ever does is to send each message back: then it need not be asked.
    fn only_echoes(&self) -> bool {
        false
    }

    /// When it wants to speak without being asked. It does not depend on messages.
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// That moment may have come.
    fn on_wake(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A Close comes, from either side: these are its last words.
    fn on_close(&mut self, _code: u16, _reason: &str, _ctx: &mut Ctx<'_>) {}

    /// Whether so much waits for it that its peer is not read.
    fn is_full(&self) -> bool {
        false
    }

    /// Whether it still works on something that its peer asked for.
    fn is_busy(&self) -> bool {
        false
    }

    /// What it takes, if that is less than the server does.
    fn sizes(&self) -> Sizes {
        Sizes::ANY
    }
}

/// What to do after a message, beyond what the behaviour sent through its [`Ctx`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Nothing,
    /// Send the same message back: from where it lies, if it is large.
    Same,
    /// Close, with this code and reason.
    Close(u16, &'static str),
}

/// A Close frame that a behaviour asks for. It is returned, never left somewhere: what is returned
/// can only concern the connection whose behaviour was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Its code.
    pub code: u16,
    /// Its reason.
    pub reason: String,
}

/// How many bytes an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// By the cap on output that waits.
    pub answer: usize,
    /// By the memory that is left.
    pub memory: usize,
}

/// All that a behaviour can reach.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The moment.
    pub now: Now,
    /// Its connection.
    pub id: Id,
    /// Seeded randomness.
    pub rng: &'a mut Rng,
    /// Messages and bytes of this connection.
    pub tally: &'a mut Tally,
    /// The same of the whole process.
    pub traffic: &'a mut Traffic,
    /// Whether its words are compressed, and by what.
    pub deflate: Option<Agreed>,
    /// What compresses them.
    pub codec: &'a mut Codec,
    /// Where its words go.
    pub out: &'a mut Out,
    /// Bytes that its peer has not taken, beside those.
    pub waiting: usize,
    /// The longest answer to one message, and what memory there is for it.
    pub room: Room,
    /// Counts the bytes that are produced and copied.
    pub work: &'a mut u64,
    /// The part that speaks for this connection, if one does.
    pub part: Option<&'a mut dyn Sockets>,
}

impl Ctx<'_> {
    /// Whether an answer of so many bytes can be sent; if not, the Close that says why. To be asked
    /// before such an answer is made.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn check_size(&self, bytes: usize) -> Result<(), Answer> {
        if bytes > self.room.answer {
            return Err(Answer::Close(1009, "answer too big"));
        }
        // It is there twice while the peer takes nothing of it.
        if 2 * bytes > self.room.memory {
            return Err(Answer::Close(1013, "memory is short"));
        }
        Ok(())
    }

    /// Sends a message of this length, made where it is sent from.
    pub fn send_made(&mut self, kind: Kind, length: usize, make: impl FnOnce(&mut Vec<u8>)) {
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

/// Whether a message of this length is compressed, if that was agreed.
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

/// Messages and payload bytes of a connection, both ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages from the peer.
    pub messages_in: u32,
    /// Messages to the peer.
    pub messages_out: u32,
    /// Payload bytes from the peer.
    pub bytes_in: u64,
    /// Payload bytes to the peer.
    pub bytes_out: u64,
}

impl Tally {
    /// A message came.
    pub fn received(&mut self, bytes: usize) {
        self.messages_in = self.messages_in.wrapping_add(1);
        self.bytes_in += bytes as u64;
    }

    /// A message goes.
    pub fn sent(&mut self, bytes: usize) {
        self.messages_out = self.messages_out.wrapping_add(1);
        self.bytes_out += bytes as u64;
    }

    /// Messages came and went back as they were.
    pub fn echoed(&mut self, messages: u32, bytes: u64) {
        self.messages_in = self.messages_in.wrapping_add(messages);
        self.messages_out = self.messages_out.wrapping_add(messages);
        self.bytes_in += bytes;
        self.bytes_out += bytes;
    }
}

/// Messages and payload bytes of the process, both ways, for its metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Text and binary messages from peers.
    pub messages_in: [u64; 2],
    /// Text and binary messages to peers.
    pub messages_out: [u64; 2],
    /// Payload bytes from peers.
    pub bytes_in: u64,
    /// Payload bytes to peers.
    pub bytes_out: u64,
}

impl Traffic {
    /// A message came.
    pub fn received(&mut self, kind: Kind, bytes: usize) {
        self.messages_in[kind as usize] += 1;
        self.bytes_in += bytes as u64;
    }

    /// A message goes.
    pub fn sent(&mut self, kind: Kind, bytes: usize) {
        self.messages_out[kind as usize] += 1;
        self.bytes_out += bytes as u64;
    }

    /// Text and binary messages came and went back as they were.
    pub fn echoed(&mut self, messages: [u32; 2], bytes: u64) {
        for (kind, count) in messages.into_iter().enumerate() {
            self.messages_in[kind] += u64::from(count);
            self.messages_out[kind] += u64::from(count);
        }
        self.bytes_in += bytes;
        self.bytes_out += bytes;
    }
}

/// One behaviour, by the name that `--mount` uses.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it does, for `--help` and the documents.
    pub about: &'static str,
    /// Whether it speaks any subprotocol that a client offers.
    pub speaks_any: bool,
    /// Parameters that only this behaviour has.
    pub params: &'static [OwnParam],
    /// The part that speaks for its WebSockets, by its name.
    pub part: Option<&'static str>,
    /// Makes one for a connection.
    pub new: fn() -> Box<dyn Behaviour>,
}

/// The behaviours that need no part.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "echo",
        about: "every message back as it came, text and binary",
        speaks_any: true,
        params: &[],
        part: None,
        new: || Box::new(echo::Echo),
    },
    Entry {
        name: "reverse",
        about: "a welcome, each text backwards as JSON, and a sign of life every 5 s",
        speaks_any: false,
        params: &[],
        part: None,
        new: || Box::new(reverse::Reverse::default()),
    },
];

/// Their mounts unless `--mount` replaces them.
const DEFAULT_MOUNTS: &[&str] = &[
    "/websocket=echo?randping=3s",
    "/ws=echo",
    "/echo=echo",
    "/=echo",
    "/socket=reverse",
    "/throttled=echo?work=100ms",
];

/// The behaviours of this table, and their mounts.
#[must_use]
pub fn catalogue() -> Catalogue {
    Catalogue { entries: TABLE.iter().collect(), mounts: DEFAULT_MOUNTS.to_vec() }
}
