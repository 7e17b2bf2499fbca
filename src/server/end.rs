//! How and why a WebSocket ended, for the log and the metrics.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u16,
    pub(super) initiator: Initiator,
}

/// Which side began the close handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Initiator {
    Server,
    Client,
    /// No side: the connection broke (1006).
    None,
}

impl Initiator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::None => "none",
        }
    }
}

/// Why the server closes a WebSocket without a protocol error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    Drain,
    /// The age limit, so that load spreads again after a scale-up.
    MaxAge,
    /// `/shed`.
    Shed,
    /// The parameter `close_after`.
    CloseAfter,
    /// It owns much memory while memory is short.
    Memory,
}

/// Closed because memory is short.
pub(super) const MEMORY_SHORT: End = End { code: 1013, initiator: Initiator::Server };
pub(super) const MEMORY_SHORT_REASON: &str = "memory is short";
/// Ended without a Close frame.
pub(super) const BROKEN: End = End { code: 1006, initiator: Initiator::None };
