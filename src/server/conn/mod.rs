//! A connection and its events: input, timers, memory, drain. Only this file changes the stage;
//! `stages` defines the stages and lists every transition.

mod record;
mod stages;

pub use stages::TRANSITIONS;
pub(crate) use stages::{LingerTimeout, Place, Quota, Stage};

use crate::engine::{Action, HangUp, Peer};
use crate::limits;
use crate::outbox::Block;
use crate::proto::frame;
use crate::server::end::{BROKEN, CloseReason, End, Initiator, MEMORY_SHORT};
use crate::server::http::{self, Http, Wake};
use crate::server::ops::pressure::{self as memory, Account};
use crate::server::part::PartId;
use crate::server::shared::{Cx, Shared};
use crate::server::unfinished::{Hold, Unfinished, is_backed_up, is_held};
use crate::server::websocket::{self, WebSocket};
use crate::time::Moment;

/// Held input is copied back to the read buffer in chunks: moving the remainder of a chunk costs
/// less than parsing it.
const HELD_CHUNK_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: Peer,
    pub(crate) quota: Quota,
    pub(crate) since: Moment,
    pub(crate) stage: Stage,
    pub(crate) unfinished: Option<Box<Unfinished>>,
    /// The part that opened or handles it.
    pub(crate) part: Option<PartId>,
}

impl Conn {
    pub(crate) fn new(peer: Peer, quota: Quota, cx: &Cx<'_>) -> Self {
        Self {
            peer,
            quota,
            since: Moment::at(cx.now.mono_ns),
            stage: Stage::Http(Http::new(cx)),
            unfinished: None,
            part: None,
        }
    }

    /// An outgoing connection of a part. Its peer address is not used.
    pub(crate) fn upstream(part: PartId, since: Moment) -> Self {
        Self {
            peer: Peer::Unix,
            quota: Quota::Upstream,
            since,
            stage: Stage::Upstream,
            unfinished: None,
            part: Some(part),
        }
    }

    /// A connection accepted at the listener of a part.
    pub(crate) fn of_part(part: PartId, peer: Peer, since: Moment) -> Self {
        Self { peer, quota: Quota::OfPart, ..Self::upstream(part, since) }
    }

    /// The peer closed its side while it is not read. A client that waits for a response has most
    /// likely gone; others can use the connection slot.
    pub(crate) fn hung_up(&mut self, cx: &mut Cx<'_>) {
        match &self.stage {
            Stage::Http(http) if http.owes_response() => {
                self.leave(cx);
                self.after_event(cx);
            }
            // It sent more messages than may be queued, and left without a Close frame.
            Stage::WebSocket(socket) if socket.is_full() => self.ended(HangUp::Eof, cx),
            Stage::Http(_)
            | Stage::WebSocket(_)
            | Stage::Upstream
            | Stage::Lingering { .. }
            | Stage::Leaving => {}
        }
    }

    /// The stream buffers this many bytes that are not visible here, such as half a TLS record.
    pub(crate) fn held_outside(&mut self, bytes: usize, cx: &mut Cx<'_>) {
        if bytes > 0 || self.unfinished.is_some() {
            self.unfinished.get_or_insert_default().outside = bytes;
            self.after_event(cx);
        }
    }

    /// The buffer for the next read.
    pub(crate) fn room<'a>(
        &'a mut self,
        memory_is_short: bool,
        shared: &'a mut [u8],
    ) -> (Place, &'a mut [u8]) {
        if !self.is_read(memory_is_short) {
            return (Place::FRONT, &mut []);
        }
        let Stage::WebSocket(socket) = &self.stage else { return (Place::FRONT, shared) };
        let Some(unfinished) = &mut self.unfinished else {
            let most = socket.bytes_to_read().min(shared.len());
            return (Place::FRONT, &mut shared[..most]);
        };
        if let Some(message) = &mut unfinished.message
            && !message.spare().is_empty()
        {
            return (Place::Block, message.spare());
        }
        // The start of a frame, shorter than any control frame.
        let input = unfinished.input.as_ref().map_or(&[][..], Block::bytes);
        let behind = input.len();
        shared[..behind].copy_from_slice(input);
        let end = shared.len().min(behind + socket.bytes_to_read_mid_message());
        (Place::Shared { behind }, &mut shared[behind..end])
    }

    /// `n` bytes were read to that place.
    pub(crate) fn received(
        &mut self,
        (place, n): (Place, usize),
        shared: &mut [u8],
        cx: &mut Cx<'_>,
    ) {
        match &mut self.stage {
            Stage::Http(_) => match &mut self.unfinished {
                Some(unfinished) if unfinished.input.is_some() => {
                    if let Some(input) = &mut unfinished.input {
                        cx.shared.blocks.append(input, &shared[..n]);
                    }
                    self.receive_kept_http(shared, cx);
                }
                Some(_) | None => self.receive_http(n, shared, cx),
            },
            Stage::WebSocket(socket) => match place {
                Place::Block => {
                    let unfinished = self.unfinished.as_deref_mut();
                    // Otherwise the block was dropped with what was read: the shared buffer has
                    // bytes of another connection.
                    if let Some(unfinished) = unfinished.filter(|it| it.message.is_some()) {
                        let outcome = socket.receive_into_block(unfinished, &mut cx.socket_cx(), n);
                        self.apply(outcome, cx);
                    }
                }
                Place::Shared { behind } => {
                    let idle = self.unfinished.is_none() && socket.has_fixed_deadline();
                    if let Some(unfinished) = &mut self.unfinished {
                        unfinished.input = None;
                    }
                    self.receive_frames((0, behind + n), shared, cx);
                    // Nothing was or is unfinished: the timer needs no update.
                    if idle && self.unfinished.is_none() && self.is_websocket() {
                        return;
                    }
                }
            },
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
        self.after_event(cx);
    }

    /// Requests in the read buffer.
    fn receive_http(&mut self, n: usize, shared: &mut [u8], cx: &mut Cx<'_>) {
        let Stage::Http(http) = &mut self.stage else { return };
        let (used, outcome) = http.receive(self.unfinished.as_deref(), cx, &shared[..n]);
        (self.part, self.peer) = (cx.part, cx.peer);
        match outcome {
            http::Outcome::ReadMore => self.keep(&shared[used..n], Hold::Incomplete, cx),
            http::Outcome::Resume => self.keep(&shared[used..n], Hold::Resume, cx),
            http::Outcome::AfterResponse => {
                self.keep(&shared[used..n], Hold::AfterResponse, cx);
            }
            http::Outcome::Finished => self.linger(cx),
            http::Outcome::Upgraded(socket) => {
                self.open(socket, cx);
                self.receive_frames((used, n), shared, cx);
            }
        }
    }

    /// Requests of which earlier bytes were kept.
    fn receive_kept_http(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let (Stage::Http(http), Some(unfinished)) = (&mut self.stage, &mut self.unfinished) else {
            return;
        };
        let Some(input) = unfinished.input.take() else { return };
        unfinished.hold = Hold::Incomplete;
        let (used, outcome) = http.receive(Some(unfinished), cx, input.bytes());
        (self.part, self.peer) = (cx.part, cx.peer);
        match outcome {
            http::Outcome::ReadMore => self.put_back(input, used, Hold::Incomplete, cx),
            http::Outcome::Resume => self.put_back(input, used, Hold::Resume, cx),
            http::Outcome::AfterResponse => self.put_back(input, used, Hold::AfterResponse, cx),
            http::Outcome::Finished => self.linger(cx),
            http::Outcome::Upgraded(socket) => {
                self.open(socket, cx);
                // Frames that arrived with the request go back to the read buffer.
                self.put_back(input, used, Hold::Incomplete, cx);
                self.receive_held(shared, cx);
            }
        }
    }

    /// Frames in `shared[from..to]`; keeps the rest.
    #[inline]
    fn receive_frames(&mut self, (from, to): (usize, usize), shared: &mut [u8], cx: &mut Cx<'_>) {
        let Stage::WebSocket(socket) = &mut self.stage else { return };
        match socket.receive(&mut self.unfinished, &mut cx.socket_cx(), shared, (from, to)) {
            (used, websocket::Outcome::ReadMore) if used == to => {}
            (used, websocket::Outcome::ReadMore) => {
                self.keep(&shared[used..to], Hold::Incomplete, cx);
            }
            (used, websocket::Outcome::Resume) => {
                self.keep(&shared[used..to], Hold::Resume, cx);
            }
            (_, websocket::Outcome::Ended(end)) => self.close_websocket(end, cx),
        }
    }

    /// A chunk of the frames that were held back.
    fn receive_held(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let (Stage::WebSocket(socket), Some(unfinished)) = (&mut self.stage, &mut self.unfinished)
        else {
            return;
        };
        let Some(input) = unfinished.input.take() else { return };
        unfinished.hold = Hold::Incomplete;
        let chunk = input.len().min(HELD_CHUNK_BYTES);
        shared[..chunk].copy_from_slice(&input.bytes()[..chunk]);
        match socket.receive(&mut self.unfinished, &mut cx.socket_cx(), shared, (0, chunk)) {
            // A frame may extend beyond this chunk: the next chunk has the rest.
            (used, websocket::Outcome::ReadMore) if chunk < input.len() => {
                self.put_back(input, used, Hold::Resume, cx);
            }
            (used, websocket::Outcome::ReadMore) => {
                self.put_back(input, used, Hold::Incomplete, cx);
            }
            (used, websocket::Outcome::Resume) => {
                self.put_back(input, used, Hold::Resume, cx);
            }
            (_, websocket::Outcome::Ended(end)) => self.close_websocket(end, cx),
        }
    }

    /// Keeps the unused part of the read buffer.
    fn keep(&mut self, rest: &[u8], hold: Hold, cx: &mut Cx<'_>) {
        let input = cx.shared.blocks.with(rest);
        self.put_back(input, 0, hold, cx);
    }

    /// Keeps unused input. Until held input is used, nothing more is read, not even the end of
    /// input; otherwise the requests in it would be lost.
    fn put_back(&mut self, mut input: Block, used: usize, hold: Hold, cx: &mut Cx<'_>) {
        if hold == Hold::Resume {
            cx.act(Action::Resume(cx.id));
        }
        input.consume(used);
        // A large block with a few bytes of an incomplete frame could be kept for long.
        if hold == Hold::Incomplete && input.cost() > 4 * input.len() + 256 {
            let rest = cx.shared.blocks.with(input.bytes());
            let whole = std::mem::replace(&mut input, rest);
            cx.shared.blocks.give_back(whole, cx.now.mono_ns);
        }
        if input.is_empty() {
            return cx.shared.blocks.give_back(input, cx.now.mono_ns);
        }
        let unfinished = self.unfinished.get_or_insert_default();
        unfinished.input = Some(input);
        unfinished.hold = hold;
    }

    pub(crate) fn resume(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let unfinished = self.unfinished.as_deref();
        match &mut self.stage {
            Stage::Http(http) if !is_backed_up(unfinished, 0) && !http.owes_response() => {
                if is_held(unfinished) {
                    self.receive_kept_http(shared, cx);
                }
            }
            Stage::WebSocket(socket) if !socket.is_paused(unfinished, 0) => {
                socket.keepalive.reading_resumed(cx.now);
                if is_held(unfinished) {
                    self.receive_held(shared, cx);
                }
            }
            // Too much output is still queued. When it is sent, this is called again.
            Stage::Http(_)
            | Stage::WebSocket(_)
            | Stage::Upstream
            | Stage::Lingering { .. }
            | Stage::Leaving => return,
        }
        self.after_event(cx);
    }

    pub(crate) fn ended(&mut self, how: HangUp, cx: &mut Cx<'_>) {
        match (&mut self.stage, how) {
            (Stage::Leaving, HangUp::Eof) => return,
            (Stage::WebSocket(socket), HangUp::Eof) => {
                let end = socket.end_of_input(&mut cx.socket_cx());
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
                | HangUp::Tls(_)
                | HangUp::Proxy(_),
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
        self.after_event(cx);
    }

    pub(crate) fn keep_output(&mut self, shared: &[u8], taken: usize, cx: &mut Cx<'_>) {
        let unsent = cx.out.len().saturating_sub(taken);
        let unfinished = self.unfinished.get_or_insert_default();
        unfinished.outbox.keep(cx.out, shared, taken, &mut cx.shared.blocks, cx.now.mono_ns);
        if let Stage::Upstream = self.stage
            && let Some(connections) = cx.shared.parts.connections(cx.part)
        {
            connections.kept(cx.id, taken, unsent);
        }
        if unsent > 0 && unfinished.stalled_since.is_none() {
            unfinished.stalled_since = Some(Moment::at(cx.now.mono_ns));
        }
        let cap = limits::output_cap(cx.shared.config.limits.max_message);
        if unfinished.outbox.len() > cap && matches!(self.stage, Stage::WebSocket(_)) {
            self.overload(cx);
        }
        self.after_event(cx);
    }

    /// The peer requests more than it reads. It sees this Close if it reads on.
    fn overload(&mut self, cx: &mut Cx<'_>) {
        let Some(unfinished) = &mut self.unfinished else { return };
        frame::write_close(&mut cx.out.bytes, 1013, "too much output waits");
        unfinished.outbox.keep(cx.out, &[], 0, &mut cx.shared.blocks, cx.now.mono_ns);
        self.log_end(End { code: 1013, initiator: Initiator::Server }, (cx.now, cx.id), cx.shared);
        cx.act(Action::Finish(cx.id));
        let until = Moment::after(cx.now, limits::OVERLOAD_WAIT_MS);
        let timeout = LingerTimeout::Fixed;
        self.stage = Stage::Lingering { bytes: limits::LINGER_BYTES, until, timeout };
    }

    pub(crate) fn unsent(&self) -> &[u8] {
        self.unfinished.as_ref().map_or(&[], |unfinished| unfinished.outbox.unsent())
    }

    pub(crate) fn sent(&mut self, n: usize, cx: &mut Cx<'_>) {
        let Some(unfinished) = &mut self.unfinished else { return };
        let before = unfinished.outbox.len();
        unfinished.outbox.sent(n, &mut cx.shared.blocks, cx.now.mono_ns);
        let left = unfinished.outbox.len();
        unfinished.stalled_since = (left > 0).then(|| Moment::at(cx.now.mono_ns));
        if let Stage::Upstream = self.stage
            && let Some(connections) = cx.shared.parts.connections(cx.part)
        {
            connections.sent(cx.id, left);
        }
        let was_unread = cx.shared.pressure.stage() >= memory::MemoryStage::Short && left == 0;
        let has_room = before >= limits::LOW_WATER_BYTES && left < limits::LOW_WATER_BYTES;
        if was_unread || has_room {
            cx.act(Action::Resume(cx.id));
        }
        if has_room && self.is_websocket() {
            // Its behaviour may wait for room.
            cx.act(Action::Write(cx.id));
        }
        if let Stage::Lingering { until, .. } = &mut self.stage
            && left == 0
        {
            *until = Moment::after(cx.now, limits::LINGER_MS);
        }
        self.after_event(cx);
    }

    /// A deadline may have passed, or moved.
    pub(crate) fn wake(&mut self, cx: &mut Cx<'_>) {
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
                let outcome = socket.wake(self.unfinished.as_deref(), is_read, &mut cx.socket_cx());
                self.apply(outcome, cx);
            }
            Stage::Lingering { until, timeout, .. } if until.has_come(cx.now) => {
                let timeout = *timeout;
                if self.unsent().is_empty() {
                    self.leave(cx);
                } else if timeout == LingerTimeout::Fixed {
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
        self.after_event(cx);
    }

    fn wake_http(&mut self, cx: &mut Cx<'_>) {
        let Stage::Http(http) = &mut self.stage else { return };
        if let Quota::Refused(refusal) = self.quota {
            http::refuse(refusal, cx);
            return self.linger_briefly(cx);
        }
        match http.wake(cx) {
            Wake::NotDue => {}
            Wake::Finished | Wake::IdleTimeout => self.linger(cx),
            Wake::Refused => self.linger_briefly(cx),
            Wake::NoRequest => self.leave(cx),
            Wake::Responded => cx.act(Action::Resume(cx.id)),
            Wake::UpgradeDue => match http::decide_upgrade(cx) {
                Ok(socket) => {
                    self.open(socket, cx);
                    // Frames may have arrived with the request.
                    cx.act(Action::Resume(cx.id));
                }
                Err(response) => {
                    http.refuse_upgrade(&response, cx);
                    self.linger(cx);
                }
            },
        }
    }

    /// Schedules its end.
    pub(crate) fn end_at(&mut self, when: Moment, why: CloseReason, cx: &mut Cx<'_>) {
        match &mut self.stage {
            Stage::Http(http) => http.end_at(when, cx),
            Stage::WebSocket(socket) => socket.end_at(when, why, cx.now),
            Stage::Upstream | Stage::Lingering { .. } | Stage::Leaving => {}
        }
        self.after_event(cx);
    }

    /// Hard stop. The caller resets the stream; a Close frame is written if no output is queued.
    pub(crate) fn hard_stop(&mut self, cx: &mut Cx<'_>) {
        // Its part decides what is written to it.
        if let Stage::Upstream = self.stage {
            return;
        }
        if let Stage::WebSocket(socket) = &mut self.stage {
            if self.unfinished.as_ref().is_none_or(|unfinished| unfinished.outbox.is_empty()) {
                socket.close_on_stop(&mut cx.socket_cx());
            }
            self.log_end(BROKEN, (cx.now, cx.id), cx.shared);
        }
        self.stage = Stage::Leaving;
    }

    /// Closes it, since it owns much memory and memory is short.
    pub(crate) fn close_for_memory(&mut self, cx: &mut Cx<'_>) {
        self.drop_input();
        let takes_a_close = self.unsent().is_empty();
        match &mut self.stage {
            Stage::WebSocket(socket) if takes_a_close => {
                socket.close_for_memory(&mut cx.socket_cx());
            }
            // A Close would be queued behind unsent output.
            Stage::WebSocket(_) => {
                self.log_end(MEMORY_SHORT, (cx.now, cx.id), cx.shared);
                self.reset(cx);
            }
            Stage::Http(_) | Stage::Upstream | Stage::Lingering { .. } | Stage::Leaving => {
                self.reset(cx);
            }
        }
        self.after_event(cx);
    }

    /// Closes it in favour of another connection: it was not upgraded for too long.
    pub(crate) fn evict(&mut self, cx: &mut Cx<'_>) {
        cx.shared.metrics.evicted += 1;
        self.leave(cx);
        self.after_event(cx);
    }

    pub(crate) fn open(&mut self, socket: WebSocket, cx: &mut Cx<'_>) {
        self.log_open(cx.id, &socket, cx.shared);
        self.part = cx.part;
        self.stage = Stage::WebSocket(socket);
    }

    fn apply(&mut self, outcome: websocket::Outcome, cx: &mut Cx<'_>) {
        match outcome {
            websocket::Outcome::ReadMore => {}
            websocket::Outcome::Resume => cx.act(Action::Resume(cx.id)),
            websocket::Outcome::Ended(end) => self.close_websocket(end, cx),
        }
    }

    pub(crate) fn close_websocket(&mut self, end: End, cx: &mut Cx<'_>) {
        self.log_end(end, (cx.now, cx.id), cx.shared);
        self.linger(cx);
    }

    /// The last output is queued.
    pub(crate) fn linger(&mut self, cx: &mut Cx<'_>) {
        self.linger_with(LingerTimeout::AfterFlush, cx);
    }

    /// The same after a refusal of a peer that has sent nothing. A TLS handshake that it never
    /// completes keeps the refusal from being sent, and would delay an exit.
    fn linger_briefly(&mut self, cx: &mut Cx<'_>) {
        self.linger_with(LingerTimeout::Fixed, cx);
    }

    fn linger_with(&mut self, timeout: LingerTimeout, cx: &mut Cx<'_>) {
        self.drop_input();
        let until = Moment::after(cx.now, limits::LINGER_MS);
        self.stage = Stage::Lingering { bytes: limits::LINGER_BYTES, until, timeout };
        cx.act(Action::Finish(cx.id));
    }

    /// Resets the connection and drops unsent output.
    pub(crate) fn reset(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Leaving;
        cx.act(Action::Reset(cx.id));
    }

    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>) {
        self.drop_input();
        self.stage = Stage::Leaving;
        cx.act(Action::Close(cx.id));
    }

    pub(crate) fn drop_input(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.input = None;
            unfinished.message = None;
            unfinished.skip = 0;
        }
    }

    fn is_stalled(&self, cx: &Cx<'_>) -> bool {
        let timeout_ms = cx.shared.config.limits.send_timeout_ms;
        let until = self
            .unfinished
            .as_ref()
            .and_then(|unfinished| unfinished.stalled_until_ns(cx.now, timeout_ms));
        until.is_some_and(|until| until <= cx.now.mono_ns)
    }

    /// Call after every event: frees unused memory, updates the account and sets the timer.
    pub(crate) fn after_event(&mut self, cx: &mut Cx<'_>) {
        let Shared { account, config, .. } = &mut *cx.shared;
        if let Some(unfinished) = &mut self.unfinished {
            let is_idle = unfinished.is_idle();
            let pinned = config.memory.pinned();
            let cost = if is_idle { Account::default() } else { unfinished.cost(pinned) };
            account.update(&mut unfinished.counted, cost);
            if is_idle {
                self.unfinished = None;
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

    /// The stream is closed. If the WebSocket had not ended, it broke now.
    pub(crate) fn closed(&mut self, cx: &mut Cx<'_>) {
        self.log_end(BROKEN, (cx.now, cx.id), cx.shared);
        if let Some(unfinished) = &mut self.unfinished {
            cx.shared.account.update(&mut unfinished.counted, Account::default());
        }
        self.stage = Stage::Leaving;
    }

    /// The worker finished a message. Returns turn and duration of the next one.
    pub(crate) fn work_done(&mut self) -> Option<(u64, u64)> {
        let Stage::WebSocket(socket) = &mut self.stage else { return None };
        socket.work_done()
    }

    fn next_deadline(&self, cx: &Cx<'_>) -> Option<u64> {
        let unfinished = self.unfinished.as_deref();
        let send_timeout_ms = cx.shared.config.limits.send_timeout_ms;
        let stalled =
            unfinished.and_then(|unfinished| unfinished.stalled_until_ns(cx.now, send_timeout_ms));
        let staged = match &self.stage {
            Stage::Http(http) => Some(http.next_deadline(cx)),
            Stage::WebSocket(socket) => {
                socket.next_deadline(unfinished, cx.now, &cx.shared.config.limits)
            }
            // Until all output is sent, only the send timeout applies.
            Stage::Lingering { timeout: LingerTimeout::AfterFlush, .. }
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
