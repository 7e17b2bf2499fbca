//! What came of it: counts over all clients, and whether that is what was expected.

use core::fmt;
use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::plan::{Plan, Thresholds, WhenLost};
use crate::engine::{HangUp, TlsFault};
use crate::proto::upgrade::Fault;
use crate::time;

/// Servers that are told apart; further ones are counted together.
const SERVERS_MAX: usize = 256;

/// How a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// We said goodbye, and the server answered with this code.
    Closed(u16),
    /// The server ended it, with this code.
    Dismissed(u16),
    /// The connection broke (1006).
    Broken,
    /// There was no connection.
    NotConnected(Why),
    /// The upgrade was answered with this status.
    Refused(u16),
    /// An answer that is not ours.
    Wrong,
    /// What came was no sound frame.
    Garbled,
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
    /// This machine has no port or no descriptor left.
    Exhausted,
    /// Nothing there said yes or no.
    TimedOut,
    /// It was cut off before the upgrade was answered.
    CutOff,
    /// The upgrade was not answered in time.
    Silent,
    /// We stopped before it was there.
    Stopped,
    /// The answer to the upgrade was none.
    Answer(Fault),
    /// There is no host of that name.
    NoSuchName,
    /// Somebody is there, but TLS does not come about.
    Tls(TlsFault),
}

impl From<HangUp> for Why {
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

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused: nobody listens there",
            Self::Unreachable => "there is no way to get there",
            Self::Exhausted => "this machine has no port or descriptor left for it",
            Self::TimedOut => "not reachable: nothing there answers at all",
            Self::CutOff => "cut off before the upgrade was answered",
            Self::Silent => "connected, but the upgrade was never answered",
            Self::Stopped => "not connected when all was over",
            Self::Answer(fault) => return write!(f, "upgrade failed: {fault}"),
            Self::NoSuchName => "its name cannot be looked up",
            Self::Tls(fault) => return fault.fmt(f),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed by us, answered with {code}"),
            Self::Dismissed(code) => write!(f, "closed by the server before its time: {code}"),
            Self::Broken => f.write_str("broken without a Close (1006)"),
            Self::NotConnected(why) => why.fmt(f),
            Self::Refused(status) => write!(f, "upgrade answered with {status}{}", hint(*status)),
            Self::Wrong => f.write_str("an answer that is not the message"),
            Self::Garbled => f.write_str("what the server sent is no sound frame"),
            Self::Silent => f.write_str("connected, but no answer in time"),
        }
    }
}

/// What a status means for an upgrade.
fn hint(status: u16) -> &'static str {
    match status {
        200..=299 => ": a page, no WebSocket is served there",
        300..=399 => ": it is somewhere else",
        400 => ": bad request",
        401 | 403 => ": not allowed, perhaps for lack of an Origin or of credentials",
        404 => ": no WebSocket at that path",
        426 => ": it wants another version",
        429 => ": too many requests",
        502 | 504 => ": a proxy does not reach its server",
        503 => ": not available, drained or full",
        _ => "",
    }
}

impl Outcome {
    /// As a close code: 1006 for what ended without one. None: it was never open.
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Self::Closed(code) | Self::Dismissed(code) => Some(code),
            Self::Broken | Self::Wrong | Self::Garbled | Self::Silent => Some(1006),
            Self::NotConnected(_) | Self::Refused(_) => None,
        }
    }

    /// Whether it is as it should be. A client that comes back may be sent away.
    fn is_clean(self, when_lost: WhenLost) -> bool {
        match self {
            Self::Closed(_) | Self::NotConnected(Why::Stopped) => true,
            Self::Dismissed(1000 | 1001 | 1012) => when_lost == WhenLost::Reconnect,
            Self::Dismissed(_)
            | Self::Broken
            | Self::NotConnected(_)
            | Self::Refused(_)
            | Self::Wrong
            | Self::Garbled
            | Self::Silent => false,
        }
    }
}

/// Who served, and how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// As it says itself.
    pub name: String,
    /// Connections to it.
    pub connections: u64,
    /// Answers from it.
    pub answers: u64,
    /// When the last one came.
    pub(super) answered_ns: u64,
}

/// Counts over all clients.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Clients that began.
    pub begun: u64,
    /// Clients that were connected at least once.
    pub connected: u64,
    /// Upgrades that were answered with 101.
    pub opened: u64,
    /// Messages that were sent.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Messages that no message of ours caused: pushes and greetings.
    pub unasked: u64,
    /// Messages whose connection ended, by no wish of ours, before their answer came.
    pub lost: u64,
    /// How connections ended, and clients that never had one.
    pub ends: BTreeMap<Outcome, u64>,
    /// Attempts to come back that failed.
    pub attempts: BTreeMap<Outcome, u64>,
    /// From message to answer.
    pub latency: Histogram,
    /// From one answer of a server to its next, whoever gets it.
    pub(super) gaps: Histogram,
    /// From the end of a connection to the client's next one.
    pub downtime: Histogram,
    /// Clients that were without a connection at the end.
    pub still_down: u64,
    /// The most attempts to come back within one second.
    pub storm_peak: u64,
    /// Who served.
    pub servers: Vec<Served>,
    /// When the first client began.
    pub began_ns: u64,
    /// When the last client was connected for the first time.
    pub opened_ns: u64,
    /// When the last answer came, or the last connection was opened.
    pub last_ns: u64,
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

    /// One more connection to whoever this is; returns their place in the list.
    pub(super) fn count_server(&mut self, name: Option<String>) -> usize {
        let name = name.unwrap_or_else(|| "(does not say)".to_owned());
        let known = self.servers.iter().position(|server| server.name == name);
        let at = known.unwrap_or_else(|| {
            if self.servers.len() < SERVERS_MAX {
                self.servers.push(Served { name, ..Served::default() });
            }
            self.servers.len() - 1
        });
        self.servers[at].connections += 1;
        at
    }

    /// What went wrong, by cause.
    pub(super) fn causes(&self, plan: &Plan) -> Vec<(Outcome, u64)> {
        let bad = self.ends.iter().filter(|(outcome, _)| !outcome.is_clean(plan.when_lost));
        bad.map(|(outcome, count)| (*outcome, *count)).collect()
    }

    /// Clients that never had a connection, connections that ended badly, and lost messages.
    #[must_use]
    pub fn errors(&self, plan: &Plan) -> u64 {
        self.causes(plan).iter().map(|(_, count)| count).sum::<u64>() + self.lost
    }

    /// How each threshold that is missed was missed.
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
        // Who is still away has been so since it was lost: that counts like the others' time.
        if let Some(limit) = wanted.downtime_ms
            && self.downtime.most() > time::ms(limit)
        {
            missed.push(Missed::Downtime { limit_ms: limit, was_ns: self.downtime.most() });
        }
        missed
    }

    /// How the process ends: 1 when nobody was connected, 3 when a threshold was missed.
    #[must_use]
    pub fn exit_code(&self, missed: &[Missed]) -> u8 {
        match (self.connected, missed) {
            (0, _) => 1,
            (_, []) => 0,
            (_, [_, ..]) => 3,
        }
    }
}

/// A threshold that was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// `--max-p99`
    P99 {
        /// What it is.
        limit_ms: u64,
        /// What it was; nothing at all was answered when this is 0.
        was_ns: u64,
    },
    /// `--max-errors`
    Errors {
        /// What it is.
        limit: u64,
        /// What it was.
        was: u64,
    },
    /// `--max-downtime`
    Downtime {
        /// What it is.
        limit_ms: u64,
        /// The longest.
        was_ns: u64,
    },
}
