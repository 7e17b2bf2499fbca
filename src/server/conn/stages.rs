//! The stages of a connection and every transition between them.

use crate::engine::Side;
use crate::proto::refusal::Refusal;
use crate::server::conn::Conn;
use crate::server::http::Http;
use crate::server::unfinished::{is_backed_up, is_held};
use crate::server::websocket::WebSocket;
use crate::time::Moment;

/// Every transition: stage, input, next stage. Tests check that each of them occurs and no other;
/// `tests/it/transitions.txt` names a scenario for each.
pub const TRANSITIONS: &[(&str, &str, &str)] = &[
    // 101.
    ("http", "input", "websocket"),
    // The last response, or a refusal.
    ("http", "input", "lingering"),
    ("http", "end", "leaving"),
    // A part has decided on a pending upgrade.
    ("http", "wake", "websocket"),
    // A timeout, or refused while draining.
    ("http", "wake", "lingering"),
    // No byte was received, the send timeout, or the hard stop.
    ("http", "wake", "leaving"),
    // Evicted in favour of another connection.
    ("http", "another", "leaving"),
    // Close frames were exchanged, or a protocol error.
    ("websocket", "input", "lingering"),
    ("websocket", "end", "leaving"),
    // The peer did not send Close, or no answer to a ping.
    ("websocket", "wake", "lingering"),
    // The send timeout, or the hard stop.
    ("websocket", "wake", "leaving"),
    // Too much output is queued.
    ("websocket", "overload", "lingering"),
    // Memory is short, and it owns much of it.
    ("http", "memory", "leaving"),
    ("websocket", "memory", "leaving"),
    // Connecting failed.
    ("upstream", "connected", "leaving"),
    // The send timeout.
    ("upstream", "wake", "leaving"),
    ("upstream", "end", "leaving"),
    // The peer sent too much, closed its side, or the time is over.
    ("lingering", "input", "leaving"),
    ("lingering", "end", "leaving"),
    ("lingering", "wake", "leaving"),
];

/// The limit that a connection counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    Main,
    /// Beyond the limit, or once a drain is closing connections: it only gets 503.
    Refused(Refusal),
    Admin,
    /// An outgoing connection of a part.
    Upstream,
    /// Accepted at the listener of a part.
    OfPart,
}

/// The stage of a connection.
///
/// It begins as `Http`. One request may upgrade it to `WebSocket`. Both end with `Lingering`, then
/// `Leaving`. `Upstream` is a connection that a part opened, or that was accepted at the part's own
/// listener; its part also closes it.
#[derive(Debug)]
pub(crate) enum Stage {
    Http(Http),
    WebSocket(WebSocket),
    /// Belongs to a part, which handles its bytes.
    Upstream,
    /// The last output is queued and our side is shut down. Input is read and dropped, up to
    /// `bytes` and `until`: closing with unread input makes the kernel send RST, which destroys
    /// output that the peer has not read yet.
    Lingering {
        bytes: u32,
        until: Moment,
        timeout: LingerTimeout,
    },
    /// Nothing is read. Unsent output is flushed, then the stream is closed.
    Leaving,
}

/// When the time of `Lingering` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LingerTimeout {
    /// When all output is sent. Until then the send timeout applies.
    AfterFlush,
    /// At once: too much output is queued, or it may never be sent.
    Fixed,
}

/// Where the bytes of a read go, see [`Engine::room`](crate::engine::Engine::room).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The read buffer, behind this many bytes of an incomplete frame.
    Shared { behind: usize },
    /// The block of the current message.
    Block,
}

impl Place {
    /// The front of the read buffer.
    pub(crate) const FRONT: Self = Self::Shared { behind: 0 };
}

impl Conn {
    #[inline]
    pub(crate) fn side(&self) -> Side {
        match self.quota {
            Quota::Main | Quota::Refused(_) | Quota::Upstream => Side::Main,
            Quota::Admin => Side::Admin,
            Quota::OfPart => Side::Part(self.part.map_or(0, |part| part.0)),
        }
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.websocket().is_some()
    }

    /// For tests.
    pub(crate) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Http(_) => "http",
            Stage::WebSocket(_) => "websocket",
            Stage::Upstream => "upstream",
            Stage::Lingering { .. } => "lingering",
            Stage::Leaving => "leaving",
        }
    }

    pub(crate) fn websocket(&self) -> Option<&WebSocket> {
        match &self.stage {
            Stage::WebSocket(socket) => Some(socket),
            Stage::Upstream | Stage::Http(_) | Stage::Lingering { .. } | Stage::Leaving => None,
        }
    }

    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        let unfinished = self.unfinished.as_deref();
        match &self.stage {
            Stage::Http(http) => {
                is_backed_up(unfinished, 0) || is_held(unfinished) || http.owes_response()
            }
            Stage::WebSocket(socket) => socket.is_paused(unfinished, 0) || is_held(unfinished),
            // The peer sends requests, and must read the responses.
            Stage::Upstream => self.quota == Quota::OfPart && is_backed_up(unfinished, 0),
            Stage::Lingering { .. } => false,
            Stage::Leaving => true,
        }
    }

    /// While memory is short, peers with unsent output are not read.
    #[inline]
    pub(super) fn is_read(&self, memory_is_short: bool) -> bool {
        !self.is_paused() && (!memory_is_short || self.unsent().is_empty())
    }
}
