//! The plan of a load test, and its thresholds.

use crate::behaviours::Kind;
use crate::engine::Target;
use crate::proto::upgrade::Ask;

/// The plan of a load test.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses of the server; when one does not accept the connection, the next is tried.
    pub targets: Vec<Target>,
    /// The upgrade request of each client.
    pub ask: Ask,
    /// Concurrent clients.
    pub clients: usize,
    /// Clients started per second; `None`: as fast as possible.
    pub ramp: Option<u64>,
    /// When a client is done.
    pub life: Life,
    /// What a client does whose connection ended too early.
    pub when_lost: WhenLost,
    /// Minimum size of a message in bytes; 0 sends only `<client>:<i>`.
    pub size: usize,
    /// Text or binary.
    pub kind: Kind,
    /// When the next message is sent.
    pub pace: Pace,
    /// Payload bytes of a frame; 0 does not fragment messages.
    pub fragment: usize,
    /// The kind of server.
    pub server_kind: ServerKind,
    /// How answers are checked.
    pub answers: Answers,
    /// When the first client is started, in milliseconds since 1970; `None`: at once.
    pub start_ms: Option<i64>,
    /// Time limit for an answer; also for each handshake, there at most 10 s.
    pub patience_ms: u64,
    /// Interval of the progress line; `None`: no such line.
    pub progress_ms: Option<u64>,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Closed loop: the next message is sent when an answer arrives.
    Closed {
        /// Unanswered messages of a client, at least 1.
        depth: usize,
    },
    /// Open loop: messages are sent at a fixed interval whether answers arrive or not. Latency
    /// counts from when a message was due, so that a stalled server cannot hide it.
    Open {
        /// Interval between two messages of a client.
        interval_ns: u64,
    },
}

/// What a client does whose connection ended too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenLost {
    /// It stays disconnected.
    Leave,
    /// It reconnects after a random delay that grows with each failed attempt.
    Reconnect,
}

/// How answers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Any message counts, except known unsolicited ones.
    Any,
    /// An answer must equal its message.
    Same,
}

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// A WebSocket server.
    WebSocket,
    /// A TCP echo server, the benchmark's baseline: no upgrade, and frames are masked with zeros,
    /// so that their echo can be read.
    PlainEcho,
}

/// When a client is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// After this many answers.
    Messages(u64),
    /// After this time.
    Time {
        /// Counted from when the last client was started.
        ms: u64,
    },
    /// After this time; it stops sending after `messages` answers.
    Hold {
        /// Messages of each client.
        messages: u64,
        /// Counted from when the last client was started.
        ms: u64,
    },
    /// After one answer; then a new client replaces it.
    Churn {
        /// Clients in total.
        connections: u64,
    },
}

/// Limits; exceeding one makes the exit code 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// 99th percentile of the latency.
    pub p99_ns: Option<u64>,
    /// Failed connections, and messages that failed, were lost, unanswered or never sent.
    pub errors: Option<u64>,
    /// The longest time of a client without a connection.
    pub downtime_ns: Option<u64>,
}

impl Plan {
    /// Clients started in total.
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

    /// When all clients close, counted from when the last one was started.
    #[must_use]
    pub fn time_limit_ms(&self) -> Option<u64> {
        match self.life {
            Life::Time { ms } | Life::Hold { ms, .. } => Some(ms),
            Life::Messages(_) | Life::Churn { .. } => None,
        }
    }

    /// Messages of each client.
    #[must_use]
    pub fn messages(&self) -> u64 {
        match self.life {
            Life::Messages(messages) | Life::Hold { messages, .. } => messages,
            Life::Time { .. } => u64::MAX,
            Life::Churn { .. } => 1,
        }
    }
}
