//! One connection as the gateway knows it: what it sent, what it is to be sent, and how far it is.

use super::names::Name;
use super::request::{ConnectRequest, Route};
use super::{MESSAGE_BYTES, PUSHED_BYTES, Verdict, WAITING_BYTES, WAITING_MESSAGES};
use crate::behaviours::Close;
use crate::engine::{Id, Now};
use crate::heap;
use crate::queue::Queue;

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The backend was asked whether it may come in.
    Connecting,
    /// It said.
    Judged(Verdict),
    /// It is in.
    Open,
    /// A Close was said, with this code and reason.
    Closing(u16, String),
    /// It is over; `$disconnect` is to be sent, or was.
    Ending(u16, String),
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) ticket: u64,
    pub(super) route: Route,
    pub(super) backend: usize,
    pub(super) request: String,
    /// Of the whole request.
    pub(super) bytes: usize,
    pub(super) began_ns: u64,
    /// It finds out whether the backend is there again.
    pub(super) is_trial: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Id,
    pub(super) stage: Stage,
    pub(super) flight: Option<Flight>,
    /// Messages whose turn has not come.
    pub(super) waiting: Queue,
    /// Messages that its client has not taken.
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
    /// When its last request went.
    pub(super) last_ns: u64,
    pub(super) last_ms: i64,
}

impl Session {
    pub(super) fn new(now: Now, id: Id, client: &ConnectRequest<'_>, domain: Option<&str>) -> Self {
        Self {
            id,
            stage: Stage::Connecting,
            flight: None,
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
            last_ns: now.mono_ns,
            last_ms: now.wall_ms,
        }
    }

    /// What it owns, its places in the tables included.
    pub(super) fn cost(&self) -> usize {
        // A request has an id of its own.
        heap::tree_entry::<(Name, Self)>()
            + heap::tree_entry::<(Id, Name)>()
            + heap::tree_entry::<(u64, Name)>()
            + heap::cost(16)
            + heap::cost(self.domain.len())
            + heap::cost(self.source_ip.len())
            + heap::cost(self.user_agent.len())
            + self.waiting.cost()
            + self.pushed.cost()
    }

    /// Something was said, by either side.
    pub(super) fn active(&mut self, now: Now) {
        self.active_ns = now.mono_ns;
        self.active_at_ms = now.wall_ms;
    }

    /// Whether its client is not read: what one read holds may come on top.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MESSAGES
            || self.waiting.bytes() >= WAITING_BYTES - MESSAGE_BYTES
    }

    /// Whether so many bytes more can wait for its client.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        self.pushed.is_empty() || self.pushed.bytes() + bytes <= PUSHED_BYTES
    }
}
