//! What a connection owns only while something is unfinished: a partial head, frame or message,
//! or output that the peer has not taken. Most connections are idle and own none of this.

use crate::engine::Now;
use crate::outbox::{Block, Outbox};
use crate::proto::message::Assembly;
use crate::server::ops::pressure::Account;
use crate::time::Moment;
use crate::{heap, limits};

/// What is unfinished.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// Received bytes that could not be used yet.
    pub(super) input: Option<Block>,
    pub(super) hold: Hold,
    /// A message whose last byte has not come.
    pub(super) message: Option<Assembly>,
    /// Payload bytes still to come of a frame that nobody wants any more.
    pub(super) skip: u64,
    /// What the peer has not taken.
    pub(super) outbox: Outbox,
    /// What its stream holds outside of the server.
    pub(super) outside: usize,
    /// Since when the peer has taken nothing of it.
    pub(super) stalled_since: Option<Moment>,
    /// What the account knows of this.
    pub(super) counted: Account,
}

/// Why `input` waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// For the rest of a head or frame.
    #[default]
    Incomplete,
    /// For its turn: nothing more is read before it is used.
    Held,
    /// The same, and its turn comes only after an answer that is owed.
    Waiting,
}

impl Slow {
    pub(super) fn is_idle(&self) -> bool {
        self.input.is_none()
            && self.message.is_none()
            && self.skip == 0
            && self.outside == 0
            && self.outbox.is_empty()
    }

    /// What it costs. Behind output that waits, the kernel's buffers are full as well.
    pub(super) fn cost(&self, pinned: usize) -> Account {
        let queued = self.outbox.len();
        let in_kernel = if queued > 0 { pinned } else { 0 };
        let message = self.message.as_ref().map_or(0, Assembly::cost);
        let own = heap::cost(size_of::<Self>())
            + self.input.as_ref().map_or(0, Block::cost)
            + message
            + self.outside
            + self.outbox.cost();
        Account { memory: own + in_kernel, queued }
    }

    /// When a peer that takes nothing has had its time.
    pub(super) fn stalled_until_ns(&self, now: Now, send_timeout_ms: u64) -> Option<u64> {
        Some(self.stalled_since?.ns(now) + crate::time::ms(send_timeout_ms))
    }
}

/// Whether so much output waits that the peer is not read.
pub(super) fn is_backed_up(slow: Option<&Slow>, out_len: usize) -> bool {
    out_len + slow.map_or(0, |slow| slow.outbox.len()) > limits::HIGH_WATER_BYTES
}

/// Whether input waits for its turn.
pub(super) fn is_held(slow: Option<&Slow>) -> bool {
    slow.is_some_and(|slow| slow.hold != Hold::Incomplete)
}
