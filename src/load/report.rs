//! The measurements of a load test, and their comparison with the thresholds.

use core::fmt;
use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::plan::{Plan, Thresholds, WhenLost};
use crate::engine::{HangUp, TlsFault};
use crate::proto::upgrade::Fault;
use crate::time;

/// Servers that are counted separately; further ones count as the last.
const SERVERS_MAX: usize = 256;

/// How a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The client closed, and the server answered with this code.
    Closed(u16),
    /// The server closed, with this code.
    ClosedEarly(u16),
    /// The connection ended without a Close (1006).
    Broken,
    /// The WebSocket was never open.
    NotConnected(ConnectError),
    /// The upgrade was answered with this status.
    Refused(u16),
    /// An answer differed from its message.
    Wrong,
    /// The server sent an invalid frame.
    InvalidFrame,
    /// No answer in time.
    Silent,
}

/// Why a WebSocket was never open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectError {
    /// Nothing listens on that port.
    Refused,
    /// There is no route to the address.
    Unreachable,
    /// No local port or file descriptor is left.
    Exhausted,
    /// Connecting timed out.
    TimedOut,
    /// The connection ended before the upgrade response.
    CutOff,
    /// No upgrade response in time.
    Silent,
    /// The test ended before it was open.
    Stopped,
    /// The upgrade response was invalid.
    Answer(Fault),
    /// The host name cannot be resolved.
    NoSuchName,
    /// The TLS handshake failed.
    Tls(TlsFault),
}

impl From<HangUp> for ConnectError {
    fn from(how: HangUp) -> Self {
        match how {
            HangUp::Refused => Self::Refused,
            HangUp::Unreachable => Self::Unreachable,
            HangUp::Exhausted => Self::Exhausted,
            HangUp::Eof | HangUp::Reset => Self::CutOff,
            HangUp::NoSuchName => Self::NoSuchName,
            HangUp::Tls(fault) => Self::Tls(fault),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "no route to the address",
            Self::Exhausted => "no local port or file descriptor left",
            Self::TimedOut => "connecting timed out",
            Self::CutOff => "connection lost before the upgrade response",
            Self::Silent => "connected, but no upgrade response in time",
            Self::Stopped => "not yet connected when the test ended",
            Self::Answer(fault) => return write!(f, "upgrade failed: {fault}"),
            Self::NoSuchName => "the host name cannot be resolved",
            Self::Tls(fault) => return fault.fmt(f),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed by us, answered with {code}"),
            Self::ClosedEarly(code) => write!(f, "closed early by the server: {code}"),
            Self::Broken => f.write_str("broken without a Close (1006)"),
            Self::NotConnected(why) => why.fmt(f),
            Self::Refused(status) => write!(f, "upgrade answered with {status}{}", hint(*status)),
            Self::Wrong => f.write_str("an answer differs from its message"),
            Self::InvalidFrame => f.write_str("invalid frame from the server"),
            Self::Silent => f.write_str("connected, but no answer in time"),
        }
    }
}

/// What a status means in the response to an upgrade.
fn hint(status: u16) -> &'static str {
    match status {
        300..=399 => ": a redirect, which is not followed",
        400 => ": bad request",
        401 | 403 => ": not allowed; it may need an Origin or credentials",
        200..=299 | 404 => ": no WebSocket at that path",
        426 => ": WebSocket version not supported",
        429 => ": too many requests",
        502 | 504 => ": a proxy cannot reach its server",
        503 => ": unavailable, draining or full",
        _ => "",
    }
}

impl Outcome {
    /// The close code; 1006 if there was none, `None` if the WebSocket was never open.
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Self::Closed(code) | Self::ClosedEarly(code) => Some(code),
            Self::Broken | Self::Wrong | Self::InvalidFrame | Self::Silent => Some(1006),
            Self::NotConnected(_) | Self::Refused(_) => None,
        }
    }

    /// Whether this is not an error. With `--reconnect`, the server may close. A client that was
    /// interrupted while it was connecting says nothing about the server.
    fn is_clean(self, when_lost: WhenLost, interrupted: bool) -> bool {
        match self {
            Self::Closed(_) => true,
            Self::NotConnected(ConnectError::Stopped) => interrupted,
            Self::ClosedEarly(1000 | 1001 | 1012) => when_lost == WhenLost::Reconnect,
            Self::ClosedEarly(_)
            | Self::Broken
            | Self::NotConnected(_)
            | Self::Refused(_)
            | Self::Wrong
            | Self::InvalidFrame
            | Self::Silent => false,
        }
    }
}

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
    /// Whether a signal ended the test.
    pub interrupted: bool,
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

    /// Errors by cause.
    pub(super) fn causes(&self, plan: &Plan) -> Vec<(Outcome, u64)> {
        let clean = |outcome: &Outcome| outcome.is_clean(plan.when_lost, self.interrupted);
        let bad = self.ends.iter().filter(|(outcome, _)| !clean(outcome));
        bad.map(|(outcome, count)| (*outcome, *count)).collect()
    }

    /// Clients that never connected, connections that ended with an error, messages that failed,
    /// and lost ones.
    #[must_use]
    pub fn errors(&self, plan: &Plan) -> u64 {
        let messages = self.failed + self.lost + self.unsent + self.unanswered;
        self.causes(plan).iter().map(|(_, count)| count).sum::<u64>() + messages
    }

    /// The thresholds that were exceeded.
    #[must_use]
    pub fn missed(&self, plan: &Plan, wanted: &Thresholds) -> Vec<Missed> {
        let mut missed = Vec::new();
        let p99_ns = self.latency.quantile(990);
        if let Some(limit) = wanted.p99_ms
            && (p99_ns > time::ms(limit) || self.answered == 0)
        {
            missed.push(Missed::P99 { limit_ms: limit, was_ns: p99_ns });
        }
        let errors = self.errors(plan);
        if let Some(limit) = wanted.errors
            && errors > limit
        {
            missed.push(Missed::Errors { limit, was: errors });
        }
        // Clients that are still disconnected are in `downtime`, with their time so far.
        if let Some(limit) = wanted.downtime_ms
            && self.downtime.most() > time::ms(limit)
        {
            missed.push(Missed::Downtime { limit_ms: limit, was_ns: self.downtime.most() });
        }
        missed
    }

    /// The exit code: 1 if no client was connected, 3 if a threshold was exceeded.
    #[must_use]
    pub fn exit_code(&self, missed: &[Missed]) -> u8 {
        match (self.connected, missed) {
            (0, _) => 1,
            (_, []) => 0,
            (_, [_, ..]) => 3,
        }
    }
}

/// A threshold that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// `--max-p99`
    P99 {
        /// The threshold.
        limit_ms: u64,
        /// The measured value; 0 if nothing was answered.
        was_ns: u64,
    },
    /// `--max-errors`
    Errors {
        /// The threshold.
        limit: u64,
        /// The measured value.
        was: u64,
    },
    /// `--max-downtime`
    Downtime {
        /// The threshold.
        limit_ms: u64,
        /// The measured value.
        was_ns: u64,
    },
}
