//! How a WebSocket ended: for the log, and for counting.

/// How a WebSocket ended, for the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u16,
    pub(super) initiator: Initiator,
}

/// Who began the close handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Initiator {
    /// We did.
    Server,
    /// The peer did.
    Client,
    /// Nobody: the connection broke (1006).
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

/// Why we close a WebSocket that did nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Its turn in a drain.
    Drain,
    /// It is old enough: load spreads again after a scale-up.
    MaxAge,
    /// An operator sheds load.
    Shed,
    /// `close_after` asked for it.
    Asked,
    /// It owns too much while memory is short.
    Memory,
}

/// It was closed since memory is short.
pub(super) const MEMORY_SHORT: End = End { code: 1013, initiator: Initiator::Server };
pub(super) const MEMORY_SHORT_REASON: &str = "memory is short";
/// The connection broke without a Close.
pub(super) const BROKEN: End = End { code: 1006, initiator: Initiator::None };
