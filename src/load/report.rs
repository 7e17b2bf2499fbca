//! What came of it.

use std::collections::BTreeMap;

use crate::engine::HangUp;

/// How a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The close handshake was done, with this code.
    Closed(u16),
    /// The connection broke (1006).
    Broken,
    /// There was no connection.
    NotConnected(Why),
    /// The upgrade was answered with this status.
    Refused(u16),
    /// An answer that is none, or not ours.
    Wrong,
    /// Nothing came for too long.
    Silent,
}

/// Why there was no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nobody listens there.
    Refused,
    /// There is no way to get there.
    Unreachable,
    /// It was cut off before the upgrade was answered.
    CutOff,
}

impl From<HangUp> for Why {
    fn from(how: HangUp) -> Self {
        match how {
            HangUp::Refused => Self::Refused,
            HangUp::Unreachable => Self::Unreachable,
            HangUp::Eof | HangUp::Reset => Self::CutOff,
        }
    }
}

/// Counts over all clients.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Upgrades that were answered with 101.
    pub opened: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// Answers, each compared with its message.
    pub answered: u64,
    /// Messages that no message of ours caused: pushes and greetings.
    pub unasked: u64,
    /// How clients ended.
    pub ends: BTreeMap<Outcome, u64>,
}

impl Report {
    pub(super) fn count_end(&mut self, outcome: Outcome) {
        *self.ends.entry(outcome).or_default() += 1;
    }
}
