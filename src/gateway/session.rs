//! One connection as the gateway knows it: what it sent, what it is to be sent, and how far it is.

use std::collections::VecDeque;

use super::names::Name;
use super::request::{Route, Visitor};
use super::{MESSAGE_BYTES, PUSHED_BYTES, Verdict, WAITING_BYTES, WAITING_MESSAGES};
use crate::behaviours::Close;
use crate::engine::{Id, Now};
use crate::heap;
use crate::proto::frame::Kind;

/// What a message costs that waits: empty ones must have an end as well.
pub(super) fn weight(bytes: &[u8]) -> usize {
    heap::cost(bytes.len()) + 2 * size_of::<(Kind, Vec<u8>)>()
}

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The backend was asked whether it may come in.
    Knocking,
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
    pub(super) waiting: VecDeque<(Kind, Vec<u8>)>,
    pub(super) waiting_bytes: usize,
    /// Messages that its client has not taken.
    pushed: VecDeque<(Kind, Vec<u8>)>,
    pub(super) pushed_bytes: usize,
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
    pub(super) fn new(now: Now, id: Id, visitor: &Visitor<'_>, domain: Option<&str>) -> Self {
        Self {
            id,
            stage: Stage::Knocking,
            flight: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pushed: VecDeque::new(),
            pushed_bytes: 0,
            close: None,
            domain: domain.unwrap_or(visitor.host).to_owned(),
            source_ip: visitor.source_ip.clone(),
            user_agent: visitor.user_agent.to_owned(),
            connected_at_ms: now.wall_ms,
            active_at_ms: now.wall_ms,
            opened_ns: now.mono_ns,
            active_ns: now.mono_ns,
            last_ns: now.mono_ns,
            last_ms: now.wall_ms,
        }
    }

    /// What it owns beside messages; the tables that it stands in are counted as well.
    pub(super) fn own_bytes(&self) -> usize {
        // Two queues as they are with one message in each, and a request's id.
        let queues = 2 * heap::table::<(Kind, Vec<u8>)>(4) + heap::cost(16);
        queues
            + heap::tree_entry::<(Name, Self)>()
            + heap::tree_entry::<(Id, Name)>()
            + heap::tree_entry::<(u64, Name)>()
            + heap::cost(self.domain.len())
            + heap::cost(self.source_ip.len())
            + heap::cost(self.user_agent.len())
    }

    /// Something was said, by either side.
    pub(super) fn active(&mut self, now: Now) {
        self.active_ns = now.mono_ns;
        self.active_at_ms = now.wall_ms;
    }

    pub(super) fn queue(&mut self, kind: Kind, payload: &[u8]) {
        self.waiting_bytes += weight(payload);
        self.waiting.push_back((kind, payload.to_vec()));
    }

    /// Whether its client is not read: what one read holds may come on top.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MESSAGES
            || self.waiting_bytes >= WAITING_BYTES - MESSAGE_BYTES
    }

    /// Returns how many bytes more are owned.
    pub(super) fn push(&mut self, kind: Kind, bytes: Vec<u8>) -> usize {
        let weight = weight(&bytes);
        self.pushed_bytes += weight;
        self.pushed.push_back((kind, bytes));
        weight
    }

    /// Whether so many bytes more can wait for its client.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        self.pushed.is_empty() || self.pushed_bytes + bytes <= PUSHED_BYTES
    }

    /// The next one, and how many bytes less are owned.
    pub(super) fn take_push(&mut self) -> Option<(Kind, Vec<u8>, usize)> {
        let (kind, bytes) = self.pushed.pop_front()?;
        let weight = weight(&bytes);
        self.pushed_bytes -= weight;
        if self.pushed.is_empty() {
            self.pushed = VecDeque::new();
        }
        Some((kind, bytes, weight))
    }

    /// Nobody takes them any more; returns how many bytes they were.
    pub(super) fn drop_pushes(&mut self) -> usize {
        self.pushed = VecDeque::new();
        std::mem::take(&mut self.pushed_bytes)
    }

    /// The same for messages whose turn will not come.
    pub(super) fn drop_waiting(&mut self) -> usize {
        self.waiting = VecDeque::new();
        std::mem::take(&mut self.waiting_bytes)
    }
}
