//! One connection of a client: connect, upgrade, speak, compare, close.

mod incoming;

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::Shared;
use super::plan::{Pace, Partner};
use super::pressed;
use super::report::{Outcome, Why};
use super::words::{Name, Words};
use crate::behaviours::Kind;
use crate::engine::{Action, HangUp, Id, Now, Out};
use crate::outbox::{Blocks, Outbox};
use crate::proto::deflate::Agreed;
use crate::proto::talk;
use crate::proto::upgrade::{self, Opened, Pending, Reply};
use crate::time;
use incoming::Incoming;

/// How long a client waits for a connection, for the upgrade and for the answer to its Close:
/// answers to messages may take longer, where a server works for them.
const GREETING_MS: u64 = 10_000;
/// Messages of an open loop that wait for their answers; further ones are sent later, and their
/// latency says so.
const UNDER_WAY_MAX: u64 = 1_024;

/// What a client can reach.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) id: Id,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Out,
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Client {
    number: u64,
    /// Which of the plan's targets it tries.
    target: usize,
    stage: Stage,
    outcome: Outcome,
    sent: u64,
    answered: u64,
    /// When each message that is under way was sent, if it is the answers that set the pace.
    times: VecDeque<u64>,
    /// If a clock does: the message that this connection began with, and when that was due.
    first: (u64, u64),
    /// When the next message is due; none while too many are under way.
    due_ns: Option<u64>,
    /// Since when something has been waited for.
    waiting_ns: Option<u64>,
    /// When the end was first heard of.
    ended_ns: Option<u64>,
    /// Who serves, by their place in the report.
    server: usize,
    /// The beginning of a frame.
    input: Vec<u8>,
    incoming: Option<Incoming>,
    pending: Option<Box<Pending>>,
    deflate: Option<Agreed>,
    outbox: Outbox,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// The upgrade is asked for.
    Upgrading,
    Open,
    /// A Close is sent; the server ends the connection.
    Goodbye,
    /// Only the driver's word is missing that the stream is gone.
    Over,
}

/// What ends a connection at once.
enum Wrong {
    Upgrade(upgrade::Fault),
    Frame,
    Answer,
}

impl From<Wrong> for Outcome {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Upgrade(fault) => Self::NotConnected(Why::Answer(fault)),
            Wrong::Frame => Self::Garbled,
            Wrong::Answer => Self::Wrong,
        }
    }
}

impl Client {
    /// One that is about to connect; so many of its messages are answered already.
    pub(super) fn new(number: u64, target: usize, answered: u64) -> Self {
        Self {
            number,
            target,
            stage: Stage::Connecting,
            outcome: Outcome::NotConnected(Why::CutOff),
            sent: answered,
            answered,
            times: VecDeque::new(),
            first: (answered, 0),
            due_ns: None,
            waiting_ns: None,
            ended_ns: None,
            server: 0,
            input: Vec::new(),
            incoming: None,
            pending: None,
            deflate: None,
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

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// When its end was first heard of.
    pub(super) fn ended_ns(&self) -> Option<u64> {
        self.ended_ns
    }

    fn under_way(&self) -> u64 {
        self.sent - self.answered
    }

    /// Messages whose answers will not come, by no wish of ours.
    pub(super) fn lost(&self) -> u64 {
        match self.outcome {
            Outcome::Closed(_) => 0,
            Outcome::Dismissed(_)
            | Outcome::Broken
            | Outcome::NotConnected(_)
            | Outcome::Refused(_)
            | Outcome::Wrong
            | Outcome::Garbled
            | Outcome::Silent => self.under_way(),
        }
    }

    pub(super) fn unsent(&self) -> &[u8] {
        self.outbox.unsent()
    }

    pub(super) fn sent(&mut self, n: usize) {
        self.outbox.sent(n, &mut Blocks::default(), 0);
    }

    pub(super) fn keep(&mut self, shared: &[u8], taken: usize, cx: &mut Cx<'_>) {
        self.outbox.keep(cx.out, shared, taken, &mut Blocks::default(), 0);
    }

    /// It is about to connect.
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
            return self.leave(Action::Close(cx.id), cx);
        }
        cx.shared.connecting -= 1;
        cx.shared.target = self.target;
        self.stage = Stage::Upgrading;
        self.wait(cx);
        if cx.shared.plan.partner == Partner::PlainEcho {
            return self.open(Opened::default(), cx);
        }
        let nonce = (u128::from(cx.shared.rng.below(u64::MAX)) << 64)
            | u128::from(cx.shared.rng.below(u64::MAX));
        match cx.shared.plan.ask.write(nonce.to_ne_bytes(), &mut cx.out.bytes) {
            Ok(pending) => self.pending = Some(Box::new(pending)),
            Err(_) => self.leave(Action::Close(cx.id), cx),
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
            Pace::Closed { depth } => (0..depth).for_each(|_| self.speak(cx)),
            Pace::Open { interval_ns } => {
                // Clients that begin together do not speak together.
                let first_ns = now_ns + cx.shared.rng.below(interval_ns);
                self.first = (self.sent, first_ns);
                self.keep_pace(cx);
            }
        }
    }

    /// When a message should be sent, whatever came of the ones before.
    fn due(&self, index: u64, interval_ns: u64) -> u64 {
        let (first, first_ns) = self.first;
        first_ns.saturating_add((index - first).saturating_mul(interval_ns))
    }

    /// Sends what is due, and has itself woken for the next.
    fn keep_pace(&mut self, cx: &mut Cx<'_>) {
        let Pace::Open { interval_ns } = cx.shared.plan.pace else { return };
        self.due_ns = None;
        while self.stage == Stage::Open && self.sent < cx.shared.plan.messages() {
            let due_ns = self.due(self.sent, interval_ns);
            if due_ns > cx.now.mono_ns {
                self.due_ns = Some(due_ns);
                cx.shared.schedule.push(Reverse((due_ns, cx.id)));
                return;
            }
            if self.under_way() >= UNDER_WAY_MAX {
                return;
            }
            self.speak(cx);
        }
    }

    pub(super) fn room<'a>(&'a mut self, shared: &'a mut [u8]) -> &'a mut [u8] {
        if self.stage == Stage::Over {
            return &mut [];
        }
        let remnant = self.input.len();
        shared[..remnant].copy_from_slice(&self.input);
        &mut shared[remnant..]
    }

    pub(super) fn received(&mut self, n: usize, shared: &mut [u8], cx: &mut Cx<'_>) {
        let bytes = &shared[..self.input.len() + n];
        self.input = Vec::new();
        match self.take(bytes, cx) {
            Ok(used) => self.input.extend_from_slice(&bytes[used..]),
            Err(wrong) => {
                self.outcome = wrong.into();
                self.ended_ns.get_or_insert(cx.now.mono_ns);
                self.leave(Action::Reset(cx.id), cx);
            }
        }
    }

    /// The answer to the upgrade.
    fn answer(&mut self, mut bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
        let Some(pending) = &mut self.pending else { return Ok(0) };
        let all = bytes.len();
        match pending.read(&cx.shared.plan.ask, &mut bytes).map_err(Wrong::Upgrade)? {
            None => {}
            Some(Reply::Refused(status)) => {
                self.outcome = Outcome::Refused(status);
                self.leave(Action::Close(cx.id), cx);
                return Ok(all);
            }
            Some(Reply::Open(opened)) => {
                if let Some(answer) = &opened.extensions {
                    let agreed = pressed::agreed(answer.as_bytes());
                    self.deflate = agreed;
                    agreed.ok_or(Wrong::Upgrade(upgrade::Fault::Extension))?;
                }
                self.open(opened, cx);
            }
        }
        Ok(all - bytes.len())
    }

    /// The next message, if there is one to be said.
    fn speak(&mut self, cx: &mut Cx<'_>) {
        if self.stage != Stage::Open || self.sent >= cx.shared.plan.messages() {
            return;
        }
        let name = Name::new(self.number, self.sent);
        let pressed = self.deflate.and_then(|agreed| cx.shared.pressed(agreed, &name));
        let length = pressed.as_ref().map_or_else(|| cx.shared.words.length(&name), Vec::len);
        let rsv1 = if pressed.is_some() { 0x40 } else { 0 };
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
            masked(cx, fin | opcode, to - from, |out, words| match &pressed {
                None => words.append(out, &name, from, to),
                Some(pressed) => out.extend_from_slice(&pressed[from..to]),
            });
            from = to;
            if to == length {
                break;
            }
        }
        self.sent += 1;
        cx.shared.report.sent += 1;
        if matches!(cx.shared.plan.pace, Pace::Closed { .. }) {
            self.times.push_back(cx.now.mono_ns);
        }
        if self.waiting_ns.is_none() {
            self.wait(cx);
        }
    }

    /// Begins the close handshake, if it is open and has not.
    pub(super) fn say_goodbye(&mut self, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Open => {
                masked(cx, 0x88, 2, |out, _| out.extend_from_slice(&1000_u16.to_be_bytes()));
                self.stage = Stage::Goodbye;
                self.wait(cx);
            }
            Stage::Connecting | Stage::Upgrading => {
                self.outcome = Outcome::NotConnected(Why::Stopped);
                self.leave(Action::Reset(cx.id), cx);
            }
            Stage::Goodbye | Stage::Over => {}
        }
    }

    pub(super) fn ended(&mut self, how: HangUp, cx: &mut Cx<'_>) {
        self.ended_ns.get_or_insert(cx.now.mono_ns);
        // Whoever has said its last word will not take what we still have to say.
        let unheard = !self.outbox.is_empty() || how != HangUp::Eof;
        if self.stage != Stage::Over {
            let action = if unheard { Action::Reset(cx.id) } else { Action::Close(cx.id) };
            self.leave(action, cx);
        }
    }

    /// Looks whether what it waits for is late, and whether a message is due.
    pub(super) fn wake(&mut self, cx: &mut Cx<'_>) {
        let patience_ns = self.patience_ns(cx);
        match self.waiting_ns {
            _ if self.stage == Stage::Over => {}
            Some(since_ns) if since_ns + patience_ns <= cx.now.mono_ns => self.give_up(cx),
            Some(since_ns) => cx.shared.timers.set(cx.id.key, since_ns + patience_ns),
            None => {}
        }
        if self.due_ns.is_some_and(|due_ns| due_ns <= cx.now.mono_ns) {
            self.keep_pace(cx);
        }
    }

    fn give_up(&mut self, cx: &mut Cx<'_>) {
        self.outcome = match self.stage {
            Stage::Connecting => Outcome::NotConnected(Why::TimedOut),
            Stage::Upgrading => Outcome::NotConnected(Why::Silent),
            Stage::Open => Outcome::Silent,
            Stage::Goodbye if self.outcome == Outcome::Broken => Outcome::Silent,
            Stage::Goodbye | Stage::Over => self.outcome,
        };
        self.ended_ns.get_or_insert(cx.now.mono_ns);
        self.leave(Action::Reset(cx.id), cx);
    }

    fn patience_ns(&self, cx: &Cx<'_>) -> u64 {
        let patience_ms = cx.shared.plan.patience_ms;
        time::ms(match self.stage {
            Stage::Open => patience_ms,
            Stage::Connecting | Stage::Upgrading | Stage::Goodbye | Stage::Over => {
                patience_ms.min(GREETING_MS)
            }
        })
    }

    /// From now on something is waited for. While its timer is set, that costs nothing: it
    /// goes off too early then, and is set anew.
    fn wait(&mut self, cx: &mut Cx<'_>) {
        self.waiting_ns = Some(cx.now.mono_ns);
        if !cx.shared.timers.is_set(cx.id.key) || self.stage != Stage::Open {
            cx.shared.timers.set(cx.id.key, cx.now.mono_ns + self.patience_ns(cx));
        }
    }

    fn leave(&mut self, action: Action, cx: &mut Cx<'_>) {
        if self.stage == Stage::Connecting {
            cx.shared.connecting -= 1;
        }
        self.stage = Stage::Over;
        cx.shared.timers.cancel(cx.id.key);
        cx.shared.actions.push_back(action);
    }
}

/// Appends a masked frame (RFC 6455 §5.3).
fn masked(cx: &mut Cx<'_>, first: u8, length: usize, payload: impl FnOnce(&mut Vec<u8>, &Words)) {
    let Shared { rng, words, plan, .. } = &mut *cx.shared;
    let mask = match plan.partner {
        Partner::WebSocket => (rng.below(1 << 32) as u32).to_ne_bytes(),
        Partner::PlainEcho => [0; 4],
    };
    talk::write(&mut cx.out.bytes, first, mask, length, |out| payload(out, words));
}
