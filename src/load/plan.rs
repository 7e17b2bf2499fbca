//! What the clients are to do.

use core::net::SocketAddr;

use crate::behaviours::Kind;

/// What the clients are to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server listens.
    pub target: SocketAddr,
    /// The `Host` field.
    pub host: String,
    /// Path and query of the WebSocket.
    pub path: String,
    /// What is offered in `Sec-WebSocket-Extensions`; empty: nothing.
    pub extensions: String,
    /// Clients at once.
    pub clients: usize,
    /// When a client has done its part.
    pub life: Life,
    /// Bytes of a message, at least; 0 sends `<client>:<i>` and no more.
    pub size: usize,
    /// Text or binary.
    pub kind: Kind,
    /// Messages of a client that are under way at once.
    pub depth: usize,
    /// Messages are cut into frames of this many bytes; 0 sends them whole.
    pub fragment: usize,
    /// Who is at the other end.
    pub partner: Partner,
    /// How long a client waits for anything.
    pub patience_ms: u64,
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
        /// Counted from the first connection.
        ms: u64,
    },
    /// After one answer it only stays, until so much time has passed.
    Idle {
        /// Counted from the first connection.
        ms: u64,
    },
    /// After one answer; another client takes its place, until there were so many.
    Churn {
        /// Clients in all.
        connections: u64,
    },
}

impl Plan {
    /// Connections that are opened in all.
    #[must_use]
    pub fn connections(&self) -> u64 {
        match self.life {
            Life::Messages(_) | Life::Time { .. } | Life::Idle { .. } => self.clients as u64,
            Life::Churn { connections } => connections,
        }
    }

    /// Whether a client closes after its last answer.
    #[must_use]
    pub fn ends_with_the_last_answer(&self) -> bool {
        matches!(self.life, Life::Messages(_) | Life::Churn { .. })
    }

    /// When all clients close, counted from the first connection.
    #[must_use]
    pub fn time_limit_ms(&self) -> Option<u64> {
        match self.life {
            Life::Time { ms } | Life::Idle { ms } => Some(ms),
            Life::Messages(_) | Life::Churn { .. } => None,
        }
    }

    /// Messages of one client.
    #[must_use]
    pub fn messages(&self) -> u64 {
        match self.life {
            Life::Messages(messages) => messages,
            Life::Time { .. } => u64::MAX,
            Life::Churn { .. } | Life::Idle { .. } => 1,
        }
    }
}
