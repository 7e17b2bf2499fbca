//! A connection and its stage: the only place where a stage changes.
//!
//! Theory: a connection begins as HTTP. One request may turn it into a WebSocket, once. Whatever
//! it is, it ends in two steps. *Lingering*: our last word is said and our side is shut; what the
//! peer still sends is read and dropped, since closing over unread bytes makes the kernel send an
//! RST, and that would take our last word away from a peer that has not read it yet. *Leaving*:
//! nothing is read any more; what the peer has not taken is flushed, then the stream is closed.
//! A connection of our own, *Upstream*, belongs to a part, which also ends it.
//!
//! | from \ on  | input                                 | end of input | stream dead | deadline               |
//! |------------|---------------------------------------|--------------|-------------|------------------------|
//! | Http       | Http, WebSocket (101), Lingering      | Leaving      | Leaving     | Lingering (408), Leaving |
//! | WebSocket  | WebSocket, Lingering (both Closes)    | Leaving      | Leaving     | WebSocket, Lingering   |
//! | Lingering  | Lingering (dropped), Leaving (enough) | Leaving      | Leaving     | Leaving                |
//! | Upstream   | Upstream                              | Leaving      | Leaving     | reset                  |
//! | Leaving    | Leaving                               | Leaving      | Leaving     | reset                  |

mod input;
mod record;

use crate::engine::{Action, HangUp, Peer, Side};
use crate::limits;
use crate::outbox::Block;
use crate::proto::frame;
use crate::proto::refusal::Refusal;
use crate::server::end::{BROKEN, CloseReason, End, Initiator};
use crate::server::http::upgrade;
use crate::server::http::{self, Http, Late};
use crate::server::ops::pressure::{self as memory, Account};
use crate::server::part::PartId;
use crate::server::shared::{Cx, Shared};
use crate::server::slow::{Slow, is_backed_up, is_held};
use crate::server::websocket::{self, WebSocket};
use crate::time::Moment;

/// Every change of a stage: from which, by what, to which. Tests see each of them happen, and no
/// other: `tests/it/transitions.txt` names a scenario for each.
pub const TRANSITIONS: &[(&str, &str, &str)] = &[
    // 101.
    ("http", "input", "websocket"),
    // The last answer, or a refusal.
    ("http", "input", "lingering"),
    ("http", "end", "leaving"),
    // A part has decided on a pending upgrade.
    ("http", "wake", "websocket"),
    // Too slow, idle, or refused while draining.
    ("http", "wake", "lingering"),
    // It never sent a byte, takes nothing of an answer, or is cut off at the hard stop.
    ("http", "wake", "leaving"),
    // Evicted, so that another has its place.
    ("http", "another", "leaving"),
    // Both Closes, or a fault of the peer.
    ("websocket", "input", "lingering"),
    ("websocket", "end", "leaving"),
    // Its Close did not come in time, or no answer to a ping.
    ("websocket", "wake", "lingering"),
    // It takes nothing, or is cut off at the hard stop.
    ("websocket", "wake", "leaving"),
    // Too much output waits.
    ("websocket", "overload", "lingering"),
    // Memory is short, and it owns most.
    ("websocket", "another", "leaving"),
    ("upstream", "end", "leaving"),
    // It sent more than is dropped, ended its side, or its time is over.
    ("lingering", "input", "leaving"),
    ("lingering", "end", "leaving"),
    ("lingering", "wake", "leaving"),
];

/// A connection.
#[derive(Debug)]
pub(in crate::server) struct Conn {
    pub(in crate::server) peer: Peer,
    pub(in crate::server) quota: Quota,
    pub(in crate::server) since: Moment,
    pub(in crate::server) stage: Stage,
    pub(in crate::server) slow: Option<Box<Slow>>,
    /// The part that it concerns: that opened it, or that speaks for it.
    pub(in crate::server) part: Option<PartId>,
}

/// Which of the counted places a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Quota {
    Main,
    /// Beyond the cap, or after the end of accepting: it only hears 503.
    Refused(Refusal),
    Admin,
    /// Opened for a part.
    Upstream,
}

/// What a connection is at present.
#[derive(Debug)]
pub(in crate::server) enum Stage {
    Http(Http),
    WebSocket(WebSocket),
    /// A part opened it, and says what goes over it.
    Upstream,
    /// Our side is shut; drops so many more bytes, for so long.
    Lingering {
        bytes: u32,
        until: Moment,
        patience: Patience,
    },
    Leaving,
}

/// How long a connection lingers over output that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Patience {
    /// As long as the peer takes some of it; its time begins when all is taken.
    UntilTaken,
    /// Not at all: too much of it waits.
    Limited,
}

impl Conn {
    pub(in crate::server) fn new(peer: Peer, quota: Quota, cx: &Cx<'_>) -> Self {
        Self {
            peer,
            quota,
            since: Moment::at(cx.now.mono_ns),
            stage: Stage::Http(Http::new(cx)),
            slow: None,
            part: None,
        }
    }

    /// One that a part opens; who is at its other end is not looked at.
    pub(in crate::server) fn upstream(part: PartId, since: Moment) -> Self {
        Self {
            peer: Peer::Unix,
            quota: Quota::Upstream,
            since,
            stage: Stage::Upstream,
            slow: None,
            part: Some(part),
        }
    }

    pub(in crate::server) fn side(&self) -> Side {
        match self.quota {
            Quota::Main | Quota::Refused(_) | Quota::Upstream => Side::Main,
            Quota::Admin => Side::Admin,
        }
    }

    pub(in crate::server) fn is_websocket(&self) -> bool {
        self.websocket().is_some()
    }

    /// The name of the stage, for the table of stages and inputs.
    pub(in crate::server) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Http(_) => "http",
            Stage::WebSocket(_) => "websocket",
            Stage::Upstream => "upstream",
            Stage::Lingering { .. } => "lingering",
            Stage::Leaving => "leaving",
        }
    }

    pub(in crate::server) fn websocket(&self) -> Option<&WebSocket> {
        match &self.stage {
            Stage::WebSocket(socket) => Some(socket),
            Stage::Upstream | Stage::Http(_) | Stage::Lingering { .. } | Stage::Leaving => None,
        }
    }

    fn is_paused(&self) -> bool {
        let slow = self.slow.as_deref();
        match &self.stage {
            Stage::Http(http) => is_backed_up(slow, 0) || is_held(slow) || http.owes_an_answer(),
            Stage::WebSocket(socket) => socket.is_paused(slow, 0) || is_held(slow),
            Stage::Upstream | Stage::Lingering { .. } => false,
            Stage::Leaving => true,
        }
    }

    /// When memory is short, a peer is not read that does not read.
    fn is_read(&self, memory_is_short: bool) -> bool {
        !self.is_paused() && (!memory_is_short || self.unsent().is_empty())
    }

    /// The peer has ended its side while it is not read. One that an answer is owed to does not
    /// wait for it any more, as far as anybody can tell, and its place is free for another.
    pub(in crate::server) fn hung_up(&mut self, cx: &mut Cx<'_>) {
        match &self.stage {
            Stage::Http(http) if http.owes_an_answer() => {
                self.leave(cx);
                self.settle(cx);
            }
            // It sent more than can wait for an answer, and has left without a Close.
            Stage::WebSocket(socket) if socket.is_full() => self.ended(HangUp::Eof, cx),
            Stage::Http(_)
            | Stage::WebSocket(_)
            | Stage::Upstream
            | Stage::Lingering { .. }
            | Stage::Leaving => {}
        }
    }

    /// Its stream holds so many bytes of which nothing can be seen from here: half a TLS record.
    pub(in crate::server) fn held_outside(&mut self, bytes: usize, cx: &mut Cx<'_>) {
        if bytes > 0 || self.slow.is_some() {
            self.slow.get_or_insert_default().outside = bytes;
            self.settle(cx);
        }
    }

    /// Where the next bytes go.
    pub(in crate::server) fn room<'a>(
        &'a mut self,
        memory_is_short: bool,
        shared: &'a mut [u8],
    ) -> &'a mut [u8] {
        if !self.is_read(memory_is_short) {
            return &mut [];
        }
        let Stage::WebSocket(socket) = &self.stage else { return shared };
        let Some(slow) = &mut self.slow else {
            let most = socket.bytes_to_read().min(shared.len());
            return &mut shared[..most];
        };
        if let Some(message) = &mut slow.message
            && !message.spare().is_empty()
        {
            return message.spare();
        }
        // The beginning of a frame; it is shorter than any control frame.
        let input = slow.input.as_ref().map_or(&[][..], Block::bytes);
        let remnant = input.len();
        shared[..remnant].copy_from_slice(input);
        let end = shared.len().min(remnant + socket.bytes_to_read_mid_message());
        &mut shared[remnant..end]
    }

    pub(in crate::server) fn received(&mut self, n: usize, shared: &mut [u8], cx: &mut Cx<'_>) {
        match &mut self.stage {
            Stage::Http(_) => match &mut self.slow {
                Some(slow) if slow.input.is_some() => {
                    if let Some(input) = &mut slow.input {
                        cx.shared.blocks.append(input, &shared[..n]);
                    }
                    self.receive_kept_http(shared, cx);
                }
                Some(_) | None => self.receive_http(n, shared, cx),
            },
            Stage::WebSocket(socket) => {
                if let Some(slow) = self.slow.as_deref_mut() {
                    let direct = slow.message.as_mut().is_some_and(|m| !m.spare().is_empty());
                    if direct {
                        let then = socket.receive_into_block(slow, cx, n);
                        self.follow_websocket(then, cx);
                        return self.settle(cx);
                    }
                }
                let remnant = self
                    .slow
                    .as_mut()
                    .and_then(|slow| slow.input.take())
                    .map_or(0, |input| input.len());
                let idle = self.slow.is_none() && socket.keeps_its_deadline();
                self.receive_frames((0, remnant + n), shared, cx);
                // Nothing that was unfinished, and nothing that is: the timer stands as it is,
                // and is not even looked at.
                if idle && self.slow.is_none() && self.is_websocket() {
                    return;
                }
            }
            Stage::Upstream => {
                if let Some(part) = cx.part {
                    let (bytes, out) = (&shared[..n], &mut cx.out.bytes);
                    cx.shared.parts.call(part).received(cx.now, cx.id, bytes, out);
                }
            }
            Stage::Lingering { bytes, .. } => {
                *bytes = bytes.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
                if *bytes == 0 {
                    self.leave(cx);
                }
            }
            Stage::Leaving => {}
        }
        self.settle(cx);
    }

    pub(in crate::server) fn resume(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let slow = self.slow.as_deref();
        match &mut self.stage {
            Stage::Http(http) if !is_backed_up(slow, 0) && !http.owes_an_answer() => {
                if is_held(slow) {
                    self.receive_kept_http(shared, cx);
                }
            }
            Stage::WebSocket(socket) if !socket.is_paused(slow, 0) => {
                socket.keepalive.read_again(cx.now);
                if is_held(slow) {
                    self.receive_held(shared, cx);
                }
            }
            // Still too much output waits; its end calls again.
            Stage::Http(_)
            | Stage::WebSocket(_)
            | Stage::Upstream
            | Stage::Lingering { .. }
            | Stage::Leaving => return,
        }
        self.settle(cx);
    }

    pub(in crate::server) fn ended(&mut self, how: HangUp, cx: &mut Cx<'_>) {
        match (&mut self.stage, how) {
            (Stage::Leaving, HangUp::Eof) => return,
            (Stage::WebSocket(socket), HangUp::Eof) => {
                let end = socket.end_of_input(cx);
                self.log_end(end, cx);
                self.leave(cx);
            }
            (
                Stage::WebSocket(_),
                HangUp::Reset
                | HangUp::Refused
                | HangUp::Unreachable
                | HangUp::Exhausted
                | HangUp::NoSuchName
                | HangUp::Tls(_),
            ) => {
                self.log_end(BROKEN, cx);
                self.leave(cx);
            }
            (Stage::Upstream, _) => {
                if let Some(part) = cx.part {
                    cx.shared.parts.call(part).ended(cx.now, cx.id, how);
                }
                self.leave(cx);
            }
            (Stage::Http(_) | Stage::Lingering { .. } | Stage::Leaving, _) => {
                self.leave(cx);
            }
        }
        self.settle(cx);
    }

    pub(in crate::server) fn keep_output(&mut self, shared: &[u8], taken: usize, cx: &mut Cx<'_>) {
        let whole = cx.out.len() <= taken;
        let slow = self.slow.get_or_insert_default();
        slow.outbox.keep(cx.out, shared, taken, &mut cx.shared.blocks, cx.now.mono_ns);
        if let (Stage::Upstream, Some(part)) = (&self.stage, cx.part) {
            cx.shared.parts.call(part).kept(cx.id, taken);
        }
        if !whole && slow.stalled_since.is_none() {
            slow.stalled_since = Some(Moment::at(cx.now.mono_ns));
        }
        let cap = limits::output_cap(cx.shared.config.limits.max_message);
        if slow.outbox.len() > cap && matches!(self.stage, Stage::WebSocket(_)) {
            self.overload(cx);
        }
        self.settle(cx);
    }

    /// The peer asked for more than it takes: say so, for the case that it reads on.
    fn overload(&mut self, cx: &mut Cx<'_>) {
        let Some(slow) = &mut self.slow else { return };
        frame::write_close(&mut cx.out.bytes, 1013, "too much output waits");
        slow.outbox.keep(cx.out, &[], 0, &mut cx.shared.blocks, cx.now.mono_ns);
        self.log_end(End { code: 1013, initiator: Initiator::Server }, cx);
        cx.act(Action::Finish(cx.id));
        let until = Moment::after(cx.now, limits::OVERLOAD_WAIT_MS);
        let patience = Patience::Limited;
        self.stage = Stage::Lingering { bytes: limits::LINGER_BYTES, until, patience };
    }

    pub(in crate::server) fn unsent(&self) -> &[u8] {
        self.slow.as_ref().map_or(&[], |slow| slow.outbox.unsent())
    }

    pub(in crate::server) fn sent(&mut self, n: usize, cx: &mut Cx<'_>) {
        let Some(slow) = &mut self.slow else { return };
        let before = slow.outbox.len();
        slow.outbox.sent(n, &mut cx.shared.blocks, cx.now.mono_ns);
        let left = slow.outbox.len();
        slow.stalled_since = (left > 0).then(|| Moment::at(cx.now.mono_ns));
        if let (Stage::Upstream, Some(part)) = (&self.stage, cx.part) {
            cx.shared.parts.call(part).sent(cx.id);
        }
        let was_unread = cx.shared.pressure.stage() >= memory::MemoryStage::Short && left == 0;
        let has_room = before >= limits::LOW_WATER_BYTES && left < limits::LOW_WATER_BYTES;
        if was_unread || has_room {
            cx.act(Action::Resume(cx.id));
        }
        if has_room && self.is_websocket() {
            // Its behaviour may have waited for that.
            cx.act(Action::Write(cx.id));
        }
        if let Stage::Lingering { until, .. } = &mut self.stage
            && left == 0
        {
            *until = Moment::after(cx.now, limits::LINGER_MS);
        }
        self.settle(cx);
    }

    /// A deadline may have come; it may also have moved.
    pub(in crate::server) fn wake(&mut self, cx: &mut Cx<'_>) {
        if self.is_stalled(cx) {
            if self.is_websocket() {
                self.log_end(BROKEN, cx);
            }
            return self.reset(cx);
        }
        let is_read = self.is_read(cx.shared.pressure.stage() >= memory::MemoryStage::Short);
        match &mut self.stage {
            Stage::Http(_) => self.wake_http(cx),
            Stage::WebSocket(socket) => {
                let then = socket.wake(self.slow.as_deref(), is_read, cx);
                self.follow_websocket(then, cx);
            }
            Stage::Lingering { until, patience, .. } if until.has_come(cx.now) => {
                let patience = *patience;
                if self.unsent().is_empty() {
                    self.leave(cx);
                } else if patience == Patience::Limited {
                    return self.reset(cx);
                }
            }
            Stage::Upstream => {
                if let Some(part) = cx.part {
                    cx.shared.parts.call(part).render(cx.id, &mut cx.out.bytes);
                }
            }
            Stage::Lingering { .. } | Stage::Leaving => {}
        }
        self.settle(cx);
    }

    fn wake_http(&mut self, cx: &mut Cx<'_>) {
        let Stage::Http(http) = &mut self.stage else { return };
        if let Quota::Refused(refusal) = self.quota {
            http::refuse(refusal, cx);
            return self.linger(cx);
        }
        match http.wake(cx) {
            Late::No => {}
            Late::Told | Late::Idle => self.linger(cx),
            Late::Silent => self.leave(cx),
            Late::Answered => cx.act(Action::Resume(cx.id)),
            Late::Verdict => match upgrade::conclude(cx) {
                Ok(socket) => {
                    self.open(socket, cx);
                    // Frames may have come with the request.
                    cx.act(Action::Resume(cx.id));
                }
                Err(response) => {
                    http.refuse_upgrade(&response, cx);
                    self.linger(cx);
                }
            },
        }
    }

    /// Sets the moment of its end.
    pub(in crate::server) fn end_at(&mut self, when: Moment, why: CloseReason, cx: &mut Cx<'_>) {
        match &mut self.stage {
            Stage::Http(http) => http.end_at(when, cx),
            Stage::WebSocket(socket) => socket.end_at(when, why, cx.now),
            Stage::Upstream | Stage::Lingering { .. } | Stage::Leaving => {}
        }
        self.settle(cx);
    }

    /// The end of all patience: a last Close that may or may not fit, and the stream is reset.
    pub(in crate::server) fn cut(&mut self, cx: &mut Cx<'_>) {
        if let Stage::WebSocket(socket) = &mut self.stage {
            if self.slow.as_ref().is_none_or(|slow| slow.outbox.is_empty()) {
                socket.close_at_last(cx);
            }
            self.log_end(BROKEN, cx);
        }
        self.stage = Stage::Leaving;
    }

    pub(in crate::server) fn open(&mut self, socket: WebSocket, cx: &mut Cx<'_>) {
        self.log_open(&socket, cx);
        self.part = cx.part;
        self.stage = Stage::WebSocket(socket);
    }

    fn follow_websocket(&mut self, then: websocket::Then, cx: &mut Cx<'_>) {
        match then {
            websocket::Then::More => {}
            websocket::Then::Hold => cx.act(Action::Resume(cx.id)),
            websocket::Then::Over(end) => self.close_websocket(end, cx),
        }
    }

    pub(in crate::server) fn close_websocket(&mut self, end: End, cx: &mut Cx<'_>) {
        self.log_end(end, cx);
        self.linger(cx);
    }

    /// Our last word is said.
    pub(in crate::server) fn linger(&mut self, cx: &mut Cx<'_>) {
        self.drop_input();
        let until = Moment::after(cx.now, limits::LINGER_MS);
        let patience = Patience::UntilTaken;
        self.stage = Stage::Lingering { bytes: limits::LINGER_BYTES, until, patience };
        cx.act(Action::Finish(cx.id));
    }

    /// Whatever waits: the peer learns at once.
    pub(in crate::server) fn reset(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Leaving;
        cx.act(Action::Reset(cx.id));
    }

    pub(in crate::server) fn leave(&mut self, cx: &mut Cx<'_>) {
        self.drop_input();
        self.stage = Stage::Leaving;
        cx.act(Action::Close(cx.id));
    }

    pub(in crate::server) fn drop_input(&mut self) {
        if let Some(slow) = &mut self.slow {
            slow.input = None;
            slow.message = None;
            slow.skip = 0;
        }
    }

    fn is_stalled(&self, cx: &Cx<'_>) -> bool {
        let timeout_ms = cx.shared.config.limits.send_timeout_ms;
        let until = self.slow.as_ref().and_then(|slow| slow.stalled_until_ns(cx.now, timeout_ms));
        until.is_some_and(|until| until <= cx.now.mono_ns)
    }

    /// After every event: memory that is no longer needed goes, what is left is counted, and the
    /// timer is set.
    pub(in crate::server) fn settle(&mut self, cx: &mut Cx<'_>) {
        let Shared { account, config, .. } = &mut *cx.shared;
        if let Some(slow) = &mut self.slow {
            let is_idle = slow.is_idle();
            let pinned = config.memory.pinned();
            let cost = if is_idle { Account::default() } else { slow.cost(pinned) };
            account.update(&mut slow.counted, cost);
            if is_idle {
                self.slow = None;
            }
        }
        if let Stage::WebSocket(socket) = &mut self.stage
            && let Some(extras) = &mut socket.extras
        {
            let memory = extras.cost(config.memory.pinned());
            account.update(&mut extras.counted, Account { memory, queued: 0 });
        }
        match self.next_deadline(cx) {
            Some(at_ns) => cx.shared.timers.set(cx.id.key, at_ns),
            None => cx.shared.timers.cancel(cx.id.key),
        }
    }

    /// The stream is gone. A WebSocket that nobody closed before broke just now.
    pub(in crate::server) fn gone(&mut self, cx: &mut Cx<'_>) {
        self.log_end(BROKEN, cx);
        if let Some(slow) = &mut self.slow {
            cx.shared.account.update(&mut slow.counted, Account::default());
        }
        self.stage = Stage::Leaving;
    }

    /// The worker is done with one of its messages. Returns the turn of its next one, and how long
    /// that takes.
    pub(in crate::server) fn work_done(&mut self) -> Option<(u64, u64)> {
        let Stage::WebSocket(socket) = &mut self.stage else { return None };
        socket.work_done()
    }

    fn next_deadline(&self, cx: &Cx<'_>) -> Option<u64> {
        let slow = self.slow.as_deref();
        let send_timeout_ms = cx.shared.config.limits.send_timeout_ms;
        let stalled = slow.and_then(|slow| slow.stalled_until_ns(cx.now, send_timeout_ms));
        let staged = match &self.stage {
            Stage::Http(http) => Some(http.next_deadline(cx)),
            Stage::WebSocket(socket) => socket.next_deadline(slow, cx),
            // Until its output is taken, the send timeout judges.
            Stage::Lingering { patience: Patience::UntilTaken, .. }
                if !self.unsent().is_empty() =>
            {
                None
            }
            Stage::Lingering { until, .. } => Some(until.ns(cx.now)),
            Stage::Upstream | Stage::Leaving => None,
        };
        stalled.into_iter().chain(staged).min()
    }
}
