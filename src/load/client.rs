//! One connection of a client: connect, upgrade, send, check answers, close.

mod incoming;

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::Shared;
use super::backlog::Backlog;
use super::deflate;
use super::outcome::{ConnectError, Outcome};
use super::payloads::{MessageId, Payloads};
use super::plan::{Pace, ServerKind};
use crate::behaviours::Kind;
use crate::engine::{Action, HangUp, Id, Now, Out};
use crate::outbox::{Blocks, Outbox};
use crate::proto::deflate::Agreed;
use crate::proto::talk::{self, Pongs};
use crate::proto::upgrade::{self, Opened, Pending, Reply};
use crate::time;
use incoming::Incoming;

/// Time limit for connecting, for the upgrade and for the server's Close. Answers to messages may
/// take longer, since a server may do work for them.
const HANDSHAKE_MS: u64 = 10_000;
/// Unanswered messages of a client with `Pace::Open`. Further ones are sent late, but their latency
/// counts from when they were due.
const IN_FLIGHT_MAX: u64 = 1_024;
/// Bytes of messages that were due together and are written at once.
const OUT_MAX: usize = 256 * 1024;
/// For `Client::free_ns`.
const BLOCKED: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) id: Id,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Out,
}

#[derive(Debug)]
pub(super) struct Client {
    number: u64,
    /// The index in the plan's targets.
    target: usize,
    stage: Stage,
    outcome: Outcome,
    sent: u64,
    /// Messages that were answered, or that a gateway reported as failed.
    answered: u64,
    /// With `Pace::Closed`: when each unanswered message was first sent.
    sent_ns: VecDeque<u64>,
    /// What earlier connections left; its `sent_ns` are those of messages not yet repeated.
    earlier: Backlog,
    /// When the next message is due; `None` while too many are unanswered.
    due_ns: Option<u64>,
    /// With `Pace::Open`: since when the server has not kept us from sending.
    free_ns: u64,
    /// Whether we began to close an open connection.
    closes: bool,
    /// Since when an answer, or the end of a handshake, has been awaited.
    waiting_ns: Option<u64>,
    /// When the end of the connection was first noticed.
    ended_ns: Option<u64>,
    /// The index of the server in the report.
    server: usize,
    /// An incomplete frame.
    input: Vec<u8>,
    incoming: Option<Incoming>,
    pending: Option<Box<Pending>>,
    deflate: Option<Agreed>,
    pongs: Pongs,
    outbox: Outbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// The upgrade request is sent.
    Upgrading,
    Open,
    /// A Close is sent; the server ends the connection.
    Closing,
    /// Waiting for the driver's `closed`.
    Ended,
}

/// Errors that end a connection at once.
enum Failure {
    Upgrade(upgrade::Fault),
    Frame,
    Inflate,
    Answer,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Upgrade(fault) => Self::NotConnected(ConnectError::Answer(fault)),
            Failure::Frame => Self::InvalidFrame,
            Failure::Inflate => Self::InvalidCompression,
            Failure::Answer => Self::Wrong,
        }
    }
}

impl Client {
    pub(super) fn new(number: u64, target: usize, earlier: Backlog) -> Self {
        Self {
            number,
            target,
            stage: Stage::Connecting,
            outcome: Outcome::NotConnected(ConnectError::CutOff),
            sent: earlier.answered,
            answered: earlier.answered,
            sent_ns: VecDeque::new(),
            earlier,
            due_ns: None,
            free_ns: BLOCKED,
            closes: false,
            waiting_ns: None,
            ended_ns: None,
            server: 0,
            input: Vec::new(),
            incoming: None,
            pending: None,
            deflate: None,
            pongs: Pongs::default(),
            outbox: Outbox::default(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn target(&self) -> usize {
        self.target
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(super) fn ended_ns(&self) -> Option<u64> {
        self.ended_ns
    }

    /// Whether the server does not keep us from sending.
    pub(super) fn is_free(&self) -> bool {
        self.stage == Stage::Open && self.free_ns != BLOCKED
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.answered
    }

    /// Messages whose answers will not come: lost with their connection, and unanswered although
    /// we waited before we gave it up.
    pub(super) fn missing(&self) -> (u64, u64) {
        let waited = self.closes || self.outcome == Outcome::Silent;
        if waited { (0, self.in_flight()) } else { (self.in_flight(), 0) }
    }

    /// Messages that an earlier connection had sent already.
    pub(super) fn repeated(&self) -> u64 {
        self.sent.min(self.earlier.sent) - self.earlier.answered
    }

    /// What is left for the next connection, or for the report.
    pub(super) fn backlog(&self) -> Backlog {
        let times = self.sent_ns.iter().chain(&self.earlier.sent_ns);
        Backlog {
            answered: self.answered,
            sent: self.sent.max(self.earlier.sent),
            sent_ns: times.copied().collect(),
            first_ns: self.earlier.first_ns,
        }
    }

    pub(super) fn unsent(&self) -> &[u8] {
        self.outbox.unsent()
    }

    /// Returns whether messages that are due waited for this.
    pub(super) fn sent(&mut self, n: usize) -> bool {
        self.outbox.sent(n, &mut Blocks::default(), 0);
        self.free_ns == BLOCKED && self.outbox.is_empty() && self.stage == Stage::Open
    }

    pub(super) fn keep(&mut self, shared: &[u8], taken: usize, cx: &mut Cx<'_>) {
        self.outbox.keep(cx.out, shared, taken, &mut Blocks::default(), 0);
    }

    pub(super) fn begin(&mut self, cx: &mut Cx<'_>) {
        cx.shared.connecting += 1;
        self.wait(cx);
    }

    pub(super) fn connected(&mut self, how: Result<(), HangUp>, cx: &mut Cx<'_>) {
        if self.stage != Stage::Connecting {
            return;
        }
        if let Err(how) = how {
            self.outcome = Outcome::NotConnected(how.into());
            return self.finish(Action::Close(cx.id), cx);
        }
        cx.shared.connecting -= 1;
        cx.shared.target = self.target;
        self.stage = Stage::Upgrading;
        self.wait(cx);
        if cx.shared.plan.server_kind == ServerKind::PlainEcho {
            return self.open(Opened::default(), cx);
        }
        let nonce = (u128::from(cx.shared.rng.below(u64::MAX)) << 64)
            | u128::from(cx.shared.rng.below(u64::MAX));
        match cx.shared.plan.ask.write(nonce.to_ne_bytes(), &mut cx.out.bytes) {
            Ok(pending) => self.pending = Some(Box::new(pending)),
            Err(_) => self.finish(Action::Close(cx.id), cx),
        }
    }

    fn open(&mut self, opened: Opened, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        self.server = cx.shared.count_open(self.number, opened.served_by, cx.now);
        self.stage = Stage::Open;
        self.outcome = Outcome::Broken;
        self.pending = None;
        self.waiting_ns = None;
        match cx.shared.plan.pace {
            Pace::Closed { depth } => (0..depth).for_each(|_| self.send_next(cx)),
            Pace::Open { interval_ns } => {
                // A random phase: clients that start together must not send together.
                let phase_ns = cx.shared.rng.below(interval_ns);
                self.earlier.first_ns.get_or_insert(now_ns + phase_ns);
                self.send_due(cx);
            }
        }
    }

    /// Sends all messages that are due, and schedules the next.
    fn send_due(&mut self, cx: &mut Cx<'_>) {
        let Pace::Open { interval_ns } = cx.shared.plan.pace else { return };
        let now_ns = cx.now.mono_ns;
        self.due_ns = None;
        while self.stage == Stage::Open && self.sent < cx.shared.messages {
            let due_ns = self.earlier.due(self.sent, interval_ns);
            if due_ns >= cx.shared.until_ns {
                return;
            }
            if due_ns > now_ns || cx.out.bytes.len() >= OUT_MAX {
                self.due_ns = Some(due_ns);
                cx.shared.schedule.push(Reverse((due_ns, cx.id)));
                return;
            }
            if self.in_flight() >= IN_FLIGHT_MAX || !self.outbox.is_empty() {
                self.free_ns = BLOCKED;
                return;
            }
            if self.free_ns == BLOCKED {
                self.free_ns = now_ns;
            }
            if due_ns >= self.free_ns {
                cx.shared.report.lag.record(now_ns - due_ns);
            }
            self.send_next(cx);
        }
    }

    pub(super) fn room<'a>(&'a mut self, shared: &'a mut [u8]) -> &'a mut [u8] {
        if self.stage == Stage::Ended {
            return &mut [];
        }
        let remnant = self.input.len();
        shared[..remnant].copy_from_slice(&self.input);
        &mut shared[remnant..]
    }

    pub(super) fn received(&mut self, n: usize, shared: &mut [u8], cx: &mut Cx<'_>) {
        let bytes = &shared[..self.input.len() + n];
        self.input = Vec::new();
        if self.outbox.is_empty() {
            self.pongs.none_unsent();
        }
        match self.take(bytes, cx) {
            Ok(used) => self.input.extend_from_slice(&bytes[used..]),
            Err(failure) => {
                self.outcome = failure.into();
                self.ended_ns.get_or_insert(cx.now.mono_ns);
                self.finish(Action::Reset(cx.id), cx);
            }
        }
    }

    /// Reads the response to the upgrade.
    fn upgraded(&mut self, mut bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Failure> {
        let Some(pending) = &mut self.pending else { return Ok(0) };
        let all = bytes.len();
        match pending.read(&cx.shared.plan.ask, &mut bytes).map_err(Failure::Upgrade)? {
            None => {}
            Some(Reply::Refused(status)) => {
                self.outcome = Outcome::Refused(status);
                self.finish(Action::Close(cx.id), cx);
                return Ok(all);
            }
            Some(Reply::Open(opened)) => {
                if let Some(answer) = &opened.extensions {
                    self.deflate = Some(deflate::agreed(answer).map_err(Failure::Upgrade)?);
                }
                self.open(opened, cx);
            }
        }
        Ok(all - bytes.len())
    }

    /// Sends the next message, if any is left.
    fn send_next(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Open || self.sent >= cx.shared.messages {
            return;
        }
        let id = MessageId::new(self.number, self.sent);
        let compressed = self.deflate.and_then(|agreed| cx.shared.compress(agreed, &id));
        let length = compressed.as_ref().map_or_else(|| cx.shared.payloads.length(&id), Vec::len);
        let rsv1 = if compressed.is_some() { 0x40 } else { 0 };
        let piece = if cx.shared.plan.fragment == 0 { length } else { cx.shared.plan.fragment };
        let mut from = 0;
        loop {
            let to = length.min(from + piece);
            let fin = if to == length { 0x80 } else { 0 };
            let opcode = match cx.shared.plan.kind {
                _ if from > 0 => 0,
                Kind::Text => rsv1 | 1,
                Kind::Binary => rsv1 | 2,
            };
            masked(cx, fin | opcode, to - from, |out, payloads| match &compressed {
                None => payloads.append(out, &id, from, to),
                Some(compressed) => out.extend_from_slice(&compressed[from..to]),
            });
            from = to;
            if to == length {
                break;
            }
        }
        self.sent += 1;
        cx.shared.report.sent += 1;
        if matches!(cx.shared.plan.pace, Pace::Closed { .. }) {
            let first_ns = self.earlier.sent_ns.pop_front();
            self.sent_ns.push_back(first_ns.unwrap_or(cx.now.mono_ns));
        }
        if self.waiting_ns.is_none() {
            self.wait(cx);
        }
    }

    /// Starts the close handshake; a connection that is not open yet is dropped.
    pub(super) fn close(&mut self, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Open => {
                masked(cx, 0x88, 2, |out, _| out.extend_from_slice(&1000_u16.to_be_bytes()));
                self.stage = Stage::Closing;
                self.closes = true;
                self.wait(cx);
            }
            Stage::Connecting | Stage::Upgrading => {
                self.outcome = Outcome::NotConnected(ConnectError::Stopped);
                self.finish(Action::Reset(cx.id), cx);
            }
            Stage::Closing | Stage::Ended => {}
        }
    }

    /// No message is sent any more: closes unless an answer is still to come.
    pub(super) fn conclude(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Open || self.in_flight() == 0 {
            self.close(cx);
        }
    }

    pub(super) fn ended(&mut self, how: HangUp, cx: &mut Cx<'_>) {
        self.ended_ns.get_or_insert(cx.now.mono_ns);
        // A server that has closed the connection does not read what is still unsent.
        let reset = !self.outbox.is_empty() || how != HangUp::Eof;
        if self.stage != Stage::Ended {
            let action = if reset { Action::Reset(cx.id) } else { Action::Close(cx.id) };
            self.finish(action, cx);
        }
    }

    /// Checks the time limit, and sends messages that are due.
    pub(super) fn wake(&mut self, cx: &mut Cx<'_>) {
        let timeout_ns = self.timeout_ns(cx);
        match self.waiting_ns {
            _ if self.stage == Stage::Ended => {}
            Some(since_ns) if since_ns + timeout_ns <= cx.now.mono_ns => self.time_out(cx),
            Some(since_ns) => cx.shared.timers.set(cx.id.key, since_ns + timeout_ns),
            None => {}
        }
        let blocked = self.free_ns == BLOCKED && self.due_ns.is_none();
        if blocked || self.due_ns.is_some_and(|due_ns| due_ns <= cx.now.mono_ns) {
            self.send_due(cx);
        }
    }

    fn time_out(&mut self, cx: &mut Cx<'_>) {
        self.outcome = match self.stage {
            Stage::Connecting => Outcome::NotConnected(ConnectError::TimedOut),
            Stage::Upgrading => Outcome::NotConnected(ConnectError::Silent),
            Stage::Open => Outcome::Silent,
            Stage::Closing if self.outcome == Outcome::Broken => Outcome::Silent,
            Stage::Closing | Stage::Ended => self.outcome,
        };
        self.ended_ns.get_or_insert(cx.now.mono_ns);
        self.finish(Action::Reset(cx.id), cx);
    }

    fn timeout_ns(&self, cx: &Cx<'_>) -> u64 {
        let patience_ms = cx.shared.plan.patience_ms;
        time::ms(match self.stage {
            Stage::Open => patience_ms,
            Stage::Connecting | Stage::Upgrading | Stage::Closing | Stage::Ended => {
                patience_ms.min(HANDSHAKE_MS)
            }
        })
    }

    /// Starts to wait. A timer that is already set stays: it fires early and is set again, which is
    /// cheaper than moving it for every message.
    fn wait(&mut self, cx: &mut Cx<'_>) {
        self.waiting_ns = Some(cx.now.mono_ns);
        if !cx.shared.timers.is_set(cx.id.key) || self.stage != Stage::Open {
            cx.shared.timers.set(cx.id.key, cx.now.mono_ns + self.timeout_ns(cx));
        }
    }

    fn finish(&mut self, action: Action, cx: &mut Cx<'_>) {
        if self.stage == Stage::Connecting {
            cx.shared.connecting -= 1;
        }
        self.stage = Stage::Ended;
        cx.shared.timers.cancel(cx.id.key);
        cx.shared.actions.push_back(action);
    }
}

/// Appends a masked frame (RFC 6455 §5.3).
fn masked(
    cx: &mut Cx<'_>,
    first: u8,
    length: usize,
    payload: impl FnOnce(&mut Vec<u8>, &Payloads),
) {
    let Shared { rng, payloads, plan, .. } = &mut *cx.shared;
    let mask = match plan.server_kind {
        ServerKind::WebSocket => (rng.below(1 << 32) as u32).to_ne_bytes(),
        ServerKind::PlainEcho => [0; 4],
    };
    talk::write(&mut cx.out.bytes, first, mask, length, |out| payload(out, payloads));
}
