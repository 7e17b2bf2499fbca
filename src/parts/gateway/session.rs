//! The state of one connection: its queues, timestamps and request in flight.

use super::connection_id::ConnectionId;
use super::in_flight::Requests;
use super::{
    ConnectRequest, MESSAGE_BYTES, PUSHED_BEFORE_NEXT, PUSHED_BYTES, Verdict, WAITING_BYTES,
    WAITING_MESSAGES,
};
use crate::behaviours::Close;
use crate::engine::{Id, Now};
use crate::heap;
use crate::queue::Queue;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `$connect` is in flight.
    Connecting,
    /// The backend has decided; the server has not asked yet.
    Decided(Verdict),
    Open,
    /// The close handshake has started, with this code and reason.
    Closing(u16, String),
    /// The WebSocket is closed; `$disconnect` is queued or in flight.
    Ending(u16, String),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Id,
    /// The public id, if it is not the [`ConnectionId`].
    pub(super) sealed_id: Option<Box<str>>,
    pub(super) state: State,
    pub(super) in_flight: Requests,
    /// Messages to forward to the backend.
    pub(super) waiting: Queue,
    /// Messages to send to the client.
    pub(super) pushed: Queue,
    /// The Close frame that a callback asked for.
    pub(super) close: Option<Close>,
    pub(super) domain: String,
    pub(super) source_ip: String,
    pub(super) user_agent: String,
    pub(super) connected_at_ms: i64,
    pub(super) active_at_ms: i64,
    pub(super) opened_ns: u64,
    pub(super) active_ns: u64,
    /// If the backend could not be reached for the last message: since when that was held.
    pub(super) held_since_ns: Option<u64>,
}

impl Session {
    pub(super) fn new(now: Now, id: Id, client: &ConnectRequest<'_>, domain: Option<&str>) -> Self {
        Self {
            id,
            sealed_id: None,
            state: State::Connecting,
            in_flight: Requests::default(),
            waiting: Queue::default(),
            pushed: Queue::default(),
            close: None,
            domain: domain.unwrap_or(client.host).to_owned(),
            source_ip: client.source_ip.clone(),
            user_agent: client.user_agent.to_owned(),
            connected_at_ms: now.wall_ms,
            active_at_ms: now.wall_ms,
            opened_ns: now.mono_ns,
            active_ns: now.mono_ns,
            held_since_ns: None,
        }
    }

    /// The id that backends and clients see.
    pub(super) fn public_id(&self, connection: ConnectionId) -> String {
        self.sealed_id.as_ref().map_or_else(|| connection.text(), Box::to_string)
    }

    /// Memory, without the entry in a table.
    pub(super) fn cost(&self) -> usize {
        heap::cost(size_of::<Self>())
            + self.sealed_id.as_ref().map_or(0, |text| heap::cost(text.len()))
            + heap::cost(self.domain.len())
            + heap::cost(self.source_ip.len())
            + heap::cost(self.user_agent.len())
            + self.in_flight.cost()
            + self.waiting.cost()
            + self.pushed.cost()
    }

    /// Since when a queued message that arrived then has been held. Waiting for answers to others
    /// does not count.
    pub(super) fn since_ns(&self, now: Now, arrived_ns: u64) -> u64 {
        self.held_since_ns.map_or(now.mono_ns, |held_ns| held_ns.max(arrived_ns))
    }

    /// A message was sent or received.
    pub(super) fn active(&mut self, now: Now) {
        self.active_ns = now.mono_ns;
        self.active_at_ms = now.wall_ms;
    }

    /// Whether the next message may be sent: with `most` others at the same time, and not while its
    /// reply would have to wait.
    pub(super) fn may_send(&self, most: usize) -> bool {
        let others = &self.in_flight;
        let has_room = others.is_empty() || (others.len() < most && others.bytes() < WAITING_BYTES);
        has_room && self.pushed.bytes() < PUSHED_BEFORE_NEXT
    }

    /// Whether a message that arrives now is the next one to send.
    pub(super) fn is_next(&self, most: usize) -> bool {
        self.may_send(most) && self.waiting.is_empty()
    }

    /// Whether to stop reading; leaves room for the messages of one read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MESSAGES
            || self.waiting.bytes() >= WAITING_BYTES - MESSAGE_BYTES
    }

    /// Whether a push of this size can be queued.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.pushed.is_empty() || self.pushed.bytes() + bytes <= PUSHED_BYTES
    }
}
