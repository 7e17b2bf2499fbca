//! The stages of a connection, and every way from one to another.

use crate::engine::Side;
use crate::proto::refusal::Refusal;
use crate::server::conn::Conn;
use crate::server::http::Http;
use crate::server::slow::{is_backed_up, is_held};
use crate::server::websocket::WebSocket;
use crate::time::Moment;

/// Every change of a stage: from which, by what, to which. Tests see each of them happen, and no
/// other: `tests/it/transitions.txt` names a scenario for each.
pub const TRANSITIONS: &[(&str, &str, &str)] = &[
    // 101.
    ("http", "input", "websocket"),
    // The last answer, or a refusal.
    ("http", "input", "lingering"),
    ("http", "end", "leaving"),
    // A part has decided on a pending upgrade.
    ("http", "wake", "websocket"),
    // Too slow, idle, or refused while draining.
    ("http", "wake", "lingering"),
    // It never sent a byte, takes nothing of an answer, or is cut off at the hard stop.
    ("http", "wake", "leaving"),
    // Evicted, so that another has its place.
    ("http", "another", "leaving"),
    // Both Closes, or a fault of the peer.
    ("websocket", "input", "lingering"),
    ("websocket", "end", "leaving"),
    // Its Close did not come in time, or no answer to a ping.
    ("websocket", "wake", "lingering"),
    // It takes nothing, or is cut off at the hard stop.
    ("websocket", "wake", "leaving"),
    // Too much output waits.
    ("websocket", "overload", "lingering"),
    // Memory is short, and it owns most.
    ("http", "memory", "leaving"),
    ("websocket", "memory", "leaving"),
    ("upstream", "end", "leaving"),
    // It sent more than is dropped, ended its side, or its time is over.
    ("lingering", "input", "leaving"),
    ("lingering", "end", "leaving"),
    ("lingering", "wake", "leaving"),
];

/// Which of the counted places a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Quota {
    Main,
    /// Beyond the cap, or after the end of accepting: it only hears 503.
    Refused(Refusal),
    Admin,
    /// Opened for a part.
    Upstream,
}

/// What a connection is at present.
///
/// It begins as HTTP. One request may turn it into a WebSocket, once. Whatever it is, it ends in
/// two steps: `Lingering`, then `Leaving`. A connection of our own, `Upstream`, belongs to a part,
/// which also ends it.
#[derive(Debug)]
pub(in crate::server) enum Stage {
    Http(Http),
    WebSocket(WebSocket),
    /// A part opened it, and says what goes over it.
    Upstream,
    /// Our last bytes are queued and our side is shut. What the peer still sends is read and
    /// dropped, so many bytes and for so long: closing over unread bytes makes the kernel send an
    /// RST, which destroys our last bytes at a peer that has not read them yet.
    Lingering {
        bytes: u32,
        until: Moment,
        patience: Patience,
    },
    /// Nothing is read any more. What the peer has not taken is flushed, then the stream is closed.
    Leaving,
}

/// How long a connection lingers over output that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Patience {
    /// As long as the peer takes some of it; its time begins when all is taken.
    UntilTaken,
    /// Not at all: too much of it waits.
    Limited,
}

impl Conn {
    pub(in crate::server) fn side(&self) -> Side {
        match self.quota {
            Quota::Main | Quota::Refused(_) | Quota::Upstream => Side::Main,
            Quota::Admin => Side::Admin,
        }
    }

    pub(in crate::server) fn is_websocket(&self) -> bool {
        self.websocket().is_some()
    }

    /// The name of the stage, for the table of stages and inputs.
    pub(in crate::server) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Http(_) => "http",
            Stage::WebSocket(_) => "websocket",
            Stage::Upstream => "upstream",
            Stage::Lingering { .. } => "lingering",
            Stage::Leaving => "leaving",
        }
    }

    pub(in crate::server) fn websocket(&self) -> Option<&WebSocket> {
        match &self.stage {
            Stage::WebSocket(socket) => Some(socket),
            Stage::Upstream | Stage::Http(_) | Stage::Lingering { .. } | Stage::Leaving => None,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        let slow = self.slow.as_deref();
        match &self.stage {
            Stage::Http(http) => is_backed_up(slow, 0) || is_held(slow) || http.owes_an_answer(),
            Stage::WebSocket(socket) => socket.is_paused(slow, 0) || is_held(slow),
            Stage::Upstream | Stage::Lingering { .. } => false,
            Stage::Leaving => true,
        }
    }

    /// When memory is short, a peer is not read that does not read.
    pub(super) fn is_read(&self, memory_is_short: bool) -> bool {
        !self.is_paused() && (!memory_is_short || self.unsent().is_empty())
    }
}
