//! What the clients are to do, and what is expected of it.

use crate::behaviours::Kind;
use crate::engine::Target;
use crate::proto::upgrade::Ask;

/// What the clients are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server may be; the next one is tried where nobody is.
    pub targets: Vec<Target>,
    /// What each client asks for.
    pub ask: Ask,
    /// Clients at once.
    pub clients: usize,
    /// Clients that begin in a second; `None`: as fast as they can.
    pub ramp: Option<u64>,
    /// When a client has done its part.
    pub life: Life,
    /// What a client whose connection ended too early does.
    pub when_lost: WhenLost,
    /// Bytes of a message, at least; 0 sends `<client>:<i>` and no more.
    pub size: usize,
    /// Text or binary.
    pub kind: Kind,
    /// When the next message is sent.
    pub pace: Pace,
    /// Messages are cut into frames of this many bytes; 0 sends them whole.
    pub fragment: usize,
    /// Who is at the other end.
    pub partner: Partner,
    /// What an answer must be.
    pub answers: Answers,
    /// How long a client waits for what it expects.
    pub patience_ms: u64,
    /// How often a line of progress is shown; `None`: never.
    pub progress_ms: Option<u64>,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// With the next answer: so many messages of a client are under way at once.
    Closed {
        /// At least 1.
        depth: usize,
    },
    /// One each so many nanoseconds, whatever comes back: latency counts from the moment at
    /// which it should have been sent, so that a server that stalls cannot hide it.
    Open {
        /// From one message of a client to its next.
        interval_ns: u64,
    },
}

/// What a client whose connection ended too early does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenLost {
    /// It counts as it ended.
    Leave,
    /// It comes back, after a random time that grows with each attempt that fails.
    Reconnect,
}

/// What an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Any message but those that servers push unasked.
    Any,
    /// The message itself, byte by byte.
    Same,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partner {
    /// A WebSocket server.
    WebSocket,
    /// A plain echo that frames nothing and sends the clients' own bytes back: the benchmark's
    /// measure. It gets the same frames, masked with zeros.
    PlainEcho,
}

/// When a client has done its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// After so many answers.
    Messages(u64),
    /// When so much time has passed, whatever it has done.
    Time {
        /// Counted from the last client's turn to begin.
        ms: u64,
    },
    /// After so many answers it only stays, until so much time has passed.
    Hold {
        /// Messages before that.
        messages: u64,
        /// Counted from the last client's turn to begin.
        ms: u64,
    },
    /// After one answer; another client takes its place, until there were so many.
    Churn {
        /// Clients in all.
        connections: u64,
    },
}

/// What is expected; what is missed decides the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Latency that 99 of 100 answers must not exceed.
    pub p99_ms: Option<u64>,
    /// Connections that failed or broke, and messages that were lost.
    pub errors: Option<u64>,
    /// The longest that any client was without a connection.
    pub downtime_ms: Option<u64>,
}

impl Plan {
    /// Clients that begin in all.
    #[must_use]
    pub fn connections(&self) -> u64 {
        match self.life {
            Life::Messages(_) | Life::Time { .. } | Life::Hold { .. } => self.clients as u64,
            Life::Churn { connections } => connections,
        }
    }

    /// Whether a client closes after its last answer.
    #[must_use]
    pub fn ends_with_the_last_answer(&self) -> bool {
        matches!(self.life, Life::Messages(_) | Life::Churn { .. })
    }

    /// When all clients close, counted from when the last one began.
    #[must_use]
    pub fn time_limit_ms(&self) -> Option<u64> {
        match self.life {
            Life::Time { ms } | Life::Hold { ms, .. } => Some(ms),
            Life::Messages(_) | Life::Churn { .. } => None,
        }
    }

    /// Messages of one client.
    #[must_use]
    pub fn messages(&self) -> u64 {
        match self.life {
            Life::Messages(messages) | Life::Hold { messages, .. } => messages,
            Life::Time { .. } => u64::MAX,
            Life::Churn { .. } => 1,
        }
    }
}
