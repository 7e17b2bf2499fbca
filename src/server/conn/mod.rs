//! A connection: what its peer, its timers and the process do to it. A stage changes only here;
//! what each stage is and how they follow each other: `stages`.

mod record;
mod stages;

pub use stages::TRANSITIONS;
pub(in crate::server) use stages::{Patience, Quota, Stage};

use crate::engine::{Action, HangUp, Peer};
use crate::limits;
use crate::outbox::Block;
use crate::proto::frame;
use crate::server::end::{BROKEN, CloseReason, End, Initiator, MEMORY_SHORT};
use crate::server::http::{self, Http, Late};
use crate::server::ops::pressure::{self as memory, Account};
use crate::server::part::PartId;
use crate::server::shared::{Cx, Shared};
use crate::server::slow::{Hold, Slow, is_backed_up, is_held};
use crate::server::websocket::{self, WebSocket};
use crate::time::Moment;

/// Held input goes back through the read buffer in stretches: moving what is left of it costs
/// less than what is done with it.
const HELD_STRETCH_BYTES: usize = 16 * 1024;

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
                        let then = socket.receive_into_block(slow, &mut cx.of_socket(), n);
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
                if let Some(connections) = cx.shared.parts.connections(cx.part) {
                    connections.received(cx.now, cx.id, &shared[..n], &mut cx.out.bytes);
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

    /// Requests that lie whole in the read buffer, and what is left of them.
    fn receive_http(&mut self, n: usize, shared: &mut [u8], cx: &mut Cx<'_>) {
        let Stage::Http(http) = &mut self.stage else { return };
        let (used, then) = http.receive(self.slow.as_deref(), cx, &shared[..n]);
        self.part = cx.part;
        match then {
            http::Then::More => self.keep(&shared[used..n], Hold::Incomplete, cx),
            http::Then::Hold => self.keep(&shared[used..n], Hold::Held, cx),
            http::Then::Wait => self.keep(&shared[used..n], Hold::Waiting, cx),
            http::Then::Over => self.linger(cx),
            http::Then::Open(socket) => {
                self.open(socket, cx);
                self.receive_frames((used, n), shared, cx);
            }
        }
    }

    /// The same for requests that came in parts, which lie in memory of their own.
    fn receive_kept_http(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let (Stage::Http(http), Some(slow)) = (&mut self.stage, &mut self.slow) else { return };
        let Some(input) = slow.input.take() else { return };
        slow.hold = Hold::Incomplete;
        let (used, then) = http.receive(Some(slow), cx, input.bytes());
        self.part = cx.part;
        match then {
            http::Then::More => self.put_back(input, used, Hold::Incomplete, cx),
            http::Then::Hold => self.put_back(input, used, Hold::Held, cx),
            http::Then::Wait => self.put_back(input, used, Hold::Waiting, cx),
            http::Then::Over => self.linger(cx),
            http::Then::Open(socket) => {
                self.open(socket, cx);
                // Frames that came with the request: back to where frames are read.
                self.put_back(input, used, Hold::Incomplete, cx);
                self.receive_held(shared, cx);
            }
        }
    }

    /// Frames in `shared[from..to]`, and what is left of them.
    fn receive_frames(&mut self, (from, to): (usize, usize), shared: &mut [u8], cx: &mut Cx<'_>) {
        let Stage::WebSocket(socket) = &mut self.stage else { return };
        match socket.receive(&mut self.slow, &mut cx.of_socket(), shared, (from, to)) {
            (used, websocket::Then::More) if used == to => {}
            (used, websocket::Then::More) => self.keep(&shared[used..to], Hold::Incomplete, cx),
            (used, websocket::Then::Hold) => self.keep(&shared[used..to], Hold::Held, cx),
            (_, websocket::Then::Over(end)) => self.close_websocket(end, cx),
        }
    }

    /// A stretch of the frames that were held back.
    fn receive_held(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let (Stage::WebSocket(socket), Some(slow)) = (&mut self.stage, &mut self.slow) else {
            return;
        };
        let Some(input) = slow.input.take() else { return };
        slow.hold = Hold::Incomplete;
        let stretch = input.len().min(HELD_STRETCH_BYTES);
        shared[..stretch].copy_from_slice(&input.bytes()[..stretch]);
        match socket.receive(&mut self.slow, &mut cx.of_socket(), shared, (0, stretch)) {
            // A stretch that is not the last can run short of its own end: the rest is next.
            (used, websocket::Then::More) if stretch < input.len() => {
                self.put_back(input, used, Hold::Held, cx);
            }
            (used, websocket::Then::More) => self.put_back(input, used, Hold::Incomplete, cx),
            (used, websocket::Then::Hold) => self.put_back(input, used, Hold::Held, cx),
            (_, websocket::Then::Over(end)) => self.close_websocket(end, cx),
        }
    }

    /// Keeps what was not used of the read buffer.
    fn keep(&mut self, rest: &[u8], hold: Hold, cx: &mut Cx<'_>) {
        let input = cx.shared.blocks.with(rest);
        self.put_back(input, 0, hold, cx);
    }

    /// Keeps what was not used; what is held asks for its turn. Nothing more is read before that,
    /// not even the end of input: or requests would be lost behind it.
    fn put_back(&mut self, mut input: Block, used: usize, hold: Hold, cx: &mut Cx<'_>) {
        if hold == Hold::Held {
            cx.act(Action::Resume(cx.id));
        }
        input.consume(used);
        // What was a whole read may be a few bytes of a frame by now, and those can wait long.
        if hold == Hold::Incomplete && input.cost() > 4 * input.len() + 256 {
            let rest = cx.shared.blocks.with(input.bytes());
            let whole = std::mem::replace(&mut input, rest);
            cx.shared.blocks.give_back(whole, cx.now.mono_ns);
        }
        if input.is_empty() {
            return cx.shared.blocks.give_back(input, cx.now.mono_ns);
        }
        let slow = self.slow.get_or_insert_default();
        slow.input = Some(input);
        slow.hold = hold;
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
                let end = socket.end_of_input(&mut cx.of_socket());
                self.log_end(end, (cx.now, cx.id), cx.shared);
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
                self.log_end(BROKEN, (cx.now, cx.id), cx.shared);
                self.leave(cx);
            }
            (Stage::Upstream, _) => {
                if let Some(connections) = cx.shared.parts.connections(cx.part) {
                    connections.ended(cx.now, cx.id, how);
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
        if let Stage::Upstream = self.stage
            && let Some(connections) = cx.shared.parts.connections(cx.part)
        {
            connections.kept(cx.id, taken);
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
        self.log_end(End { code: 1013, initiator: Initiator::Server }, (cx.now, cx.id), cx.shared);
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
        if let Stage::Upstream = self.stage
            && let Some(connections) = cx.shared.parts.connections(cx.part)
        {
            connections.sent(cx.id);
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
                self.log_end(BROKEN, (cx.now, cx.id), cx.shared);
            }
            return self.reset(cx);
        }
        let is_read = self.is_read(cx.shared.pressure.stage() >= memory::MemoryStage::Short);
        match &mut self.stage {
            Stage::Http(_) => self.wake_http(cx),
            Stage::WebSocket(socket) => {
                let then = socket.wake(self.slow.as_deref(), is_read, &mut cx.of_socket());
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
                if let Some(connections) = cx.shared.parts.connections(cx.part) {
                    connections.render(cx.id, &mut cx.out.bytes);
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
            Late::Verdict => match http::conclude(cx) {
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
                socket.close_at_last(&mut cx.of_socket());
            }
            self.log_end(BROKEN, (cx.now, cx.id), cx.shared);
        }
        self.stage = Stage::Leaving;
    }

    /// Gives back what it owns, as one of those that own most while memory is short.
    pub(in crate::server) fn make_room(&mut self, cx: &mut Cx<'_>) {
        self.drop_input();
        let takes_a_close = self.unsent().is_empty();
        match &mut self.stage {
            Stage::WebSocket(socket) if takes_a_close => socket.make_room(&mut cx.of_socket()),
            // A Close would stand behind what the peer does not take.
            Stage::WebSocket(_) => {
                self.log_end(MEMORY_SHORT, (cx.now, cx.id), cx.shared);
                self.reset(cx);
            }
            Stage::Http(_) | Stage::Upstream | Stage::Lingering { .. } | Stage::Leaving => {
                self.reset(cx);
            }
        }
        self.settle(cx);
    }

    /// Makes its place free for others: it has not become a WebSocket for too long.
    pub(in crate::server) fn evict(&mut self, cx: &mut Cx<'_>) {
        cx.shared.metrics.evicted += 1;
        self.leave(cx);
        self.settle(cx);
    }

    pub(in crate::server) fn open(&mut self, socket: WebSocket, cx: &mut Cx<'_>) {
        self.log_open(cx.id, &socket, cx.shared);
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
        self.log_end(end, (cx.now, cx.id), cx.shared);
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
        self.log_end(BROKEN, (cx.now, cx.id), cx.shared);
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
            Stage::WebSocket(socket) => {
                socket.next_deadline(slow, cx.now, &cx.shared.config.limits)
            }
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
