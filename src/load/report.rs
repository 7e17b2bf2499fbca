//! The measurements of a load test. What is printed of them: `summary.rs`.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::outcome::Outcome;

/// Servers that are counted separately; further ones count as the last.
const SERVERS_MAX: usize = 256;

/// Counts of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// As the server names itself in the upgrade response.
    pub name: String,
    /// Connections to it, reconnects included.
    pub connections: u64,
    /// Answers it sent.
    pub answers: u64,
    /// When the last answer arrived.
    pub(super) answered_ns: u64,
}

/// The measurements of all clients.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Clients started.
    pub begun: u64,
    /// Clients that were connected at least once.
    pub connected: u64,
    /// Upgrades answered with 101, reconnects included.
    pub opened: u64,
    /// Messages that were due, by the plan or because the answer before them had arrived.
    pub due: u64,
    /// Messages sent, those included that were sent again after a reconnect.
    pub sent: u64,
    /// Messages that were sent again.
    pub repeated: u64,
    /// Messages that were due and never sent.
    pub unsent: u64,
    /// Messages without an answer when the client gave up: after `--timeout`, or at the end.
    pub unanswered: u64,
    /// Answers received.
    pub answered: u64,
    /// Messages to which a gateway sent an error instead of the backend's answer.
    pub failed: u64,
    /// Unsolicited messages: pushes and greetings.
    pub unasked: u64,
    /// Messages whose connection was ended by the server, or broke, before their answer.
    pub lost: u64,
    /// How connections ended, and why clients never had one.
    pub ends: BTreeMap<Outcome, u64>,
    /// Failed attempts to reconnect.
    pub attempts: BTreeMap<Outcome, u64>,
    /// Time from message to answer. A message that was never sent or answered is in it with its age
    /// at the end.
    pub latency: Histogram,
    /// How late messages were sent that were due and that the server did not hold up.
    pub lag: Histogram,
    /// Time between two successive answers of a server, to any client.
    pub(super) gaps: Histogram,
    /// Time from the end of a connection to the client's next one.
    pub downtime: Histogram,
    /// Clients that were without a connection at the end.
    pub still_down: u64,
    /// The highest number of attempts to reconnect within one second.
    pub storm_peak: u64,
    /// Counts by server.
    pub servers: Vec<ServerStats>,
    /// When the first client was started.
    pub began_ns: u64,
    /// When the last client was connected for the first time.
    pub opened_ns: u64,
    /// When the last answer arrived or the last connection was opened.
    pub last_ns: u64,
    /// The end of the time that the rate is relative to.
    pub until_ns: u64,
    /// When the last message was due that was never sent or answered.
    pub(super) due_ns: u64,
    /// When the first client was started, in milliseconds since 1970.
    pub(super) began_ms: i64,
    /// Whether a signal ended the test.
    pub interrupted: bool,
    /// This process while messages were sent, if it was measured.
    pub usage: Option<Usage>,
}

/// How much of a core a process used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time.
    pub cpu_ns: u64,
    /// Time that it could have run and had no core.
    pub waiting_ns: u64,
    /// Time.
    pub wall_ns: u64,
}

impl Report {
    pub(super) fn count_end(&mut self, outcome: Outcome) {
        *self.ends.entry(outcome).or_default() += 1;
    }

    pub(super) fn count_attempt(&mut self, outcome: Outcome) {
        *self.attempts.entry(outcome).or_default() += 1;
    }

    pub(super) fn count_answer(&mut self, server: usize, took_ns: u64, now_ns: u64) {
        self.answered += 1;
        self.latency.record(took_ns);
        self.last_ns = now_ns;
        if let Some(server) = self.servers.get_mut(server) {
            if server.answers > 0 {
                self.gaps.record(now_ns.saturating_sub(server.answered_ns));
            }
            server.answers += 1;
            server.answered_ns = now_ns;
        }
    }

    /// Counts a connection to this server; returns its index in the list.
    pub(super) fn count_server(&mut self, name: Option<String>) -> usize {
        let name = name.unwrap_or_else(|| "(unknown)".to_owned());
        let known = self.servers.iter().position(|server| server.name == name);
        let at = known.unwrap_or_else(|| {
            if self.servers.len() < SERVERS_MAX {
                self.servers.push(ServerStats { name, ..ServerStats::default() });
            }
            self.servers.len() - 1
        });
        self.servers[at].connections += 1;
        at
    }
}
