//! What a connection owns only while a head, frame or message is incomplete or output is unsent.
//! Most connections are idle and own none of this.

use crate::engine::Now;
use crate::outbox::{Block, Outbox};
use crate::proto::message::Assembly;
use crate::server::ops::pressure::Account;
use crate::time::Moment;
use crate::{heap, limits};

#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// Received bytes that are not used yet.
    pub(super) input: Option<Block>,
    pub(super) hold: Hold,
    /// An incomplete message.
    pub(super) message: Option<Assembly>,
    /// Remaining payload bytes of a frame that is dropped.
    pub(super) skip: u64,
    /// Unsent output.
    pub(super) outbox: Outbox,
    /// Bytes buffered by the stream, for example TLS records.
    pub(super) outside: usize,
    /// Since when the peer has accepted no output.
    pub(super) stalled_since: Option<Moment>,
    /// As last accounted.
    pub(super) counted: Account,
}

/// Why `input` is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// The head or frame is incomplete.
    #[default]
    Incomplete,
    /// Too much work for one turn, or too much output is queued. Nothing more is read until it is
    /// used.
    Resume,
    /// A deferred response must be sent first. Nothing more is read until then.
    AfterResponse,
}

impl Unfinished {
    pub(super) fn is_idle(&self) -> bool {
        self.input.is_none()
            && self.message.is_none()
            && self.skip == 0
            && self.outside == 0
            && self.outbox.is_empty()
    }

    /// Memory owned. If output is queued, the kernel's buffers are full as well.
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

    /// When the send timeout passes.
    pub(super) fn stalled_until_ns(&self, now: Now, send_timeout_ms: u64) -> Option<u64> {
        Some(self.stalled_since?.ns(now) + crate::time::ms(send_timeout_ms))
    }
}

/// Whether so much output is queued that the peer is not read.
pub(super) fn is_backed_up(unfinished: Option<&Unfinished>, out_len: usize) -> bool {
    out_len + unfinished.map_or(0, |unfinished| unfinished.outbox.len()) > limits::HIGH_WATER_BYTES
}

/// Whether input is complete but must wait.
pub(super) fn is_held(unfinished: Option<&Unfinished>) -> bool {
    unfinished.is_some_and(|unfinished| unfinished.hold != Hold::Incomplete)
}
