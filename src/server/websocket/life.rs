//! The life of a WebSocket beside its frames: what its timers do, and how it ends.

use crate::behaviours::{Answer, Close, Ctx};
use crate::engine::{Action, Now};
use crate::limits;
use crate::proto::frame::{self, Fault};
use crate::server::config::Limits;
use crate::server::end::{BROKEN, CloseReason, End, Initiator, MEMORY_SHORT, MEMORY_SHORT_REASON};
use crate::server::slow::Slow;
use crate::server::websocket::keepalive::Pulse;
use crate::server::websocket::worker::Worker;
use crate::server::websocket::{Phase, SocketCx, Then, WebSocket};
use crate::time::{self, Moment};

impl WebSocket {
    /// Begins the close handshake from our side.
    pub(in crate::server) fn close(
        &mut self,
        code: u16,
        reason: &str,
        wait_ms: u64,
        cx: &mut SocketCx<'_>,
    ) {
        self.answer_delayed(cx);
        if !self.phase_takes_messages() {
            // One of those answers was a Close.
            return;
        }
        let mut ctx = cx.for_behaviour(&mut self.tally, self.deflate);
        self.behaviour.on_close(code, reason, &mut ctx);
        frame::write_close(&mut cx.out.bytes, code, reason);
        self.phase = Phase::CloseSent { until: Moment::after(cx.now, wait_ms), code };
        self.keepalive.stop();
        self.drop_waiting(cx.worker);
        cx.act(Action::Resume(cx.id));
    }

    /// The peer sends no more and has not said Close: what it asked for is answered all the same.
    pub(in crate::server) fn end_of_input(&mut self, cx: &mut SocketCx<'_>) -> End {
        if let Phase::CloseSent { code, .. } = self.phase {
            return End { code, initiator: Initiator::Server };
        }
        self.answer_delayed(cx);
        frame::write_close(&mut cx.out.bytes, Fault::NoClose.close_code(), Fault::NoClose.reason());
        BROKEN
    }

    /// The process ends: a last Close, unless one was sent.
    pub(in crate::server) fn close_at_last(&mut self, cx: &mut SocketCx<'_>) {
        if self.phase_takes_messages() {
            self.close_for(CloseReason::Drain, 0, cx);
        }
    }

    fn close_for(&mut self, why: CloseReason, wait_ms: u64, cx: &mut SocketCx<'_>) {
        let (code, reason) = match why {
            CloseReason::Drain => (cx.config.drain.code, cx.config.drain.reason.clone()),
            CloseReason::Memory => (MEMORY_SHORT.code, MEMORY_SHORT_REASON.to_owned()),
            CloseReason::MaxAge => (1001, "max age".to_owned()),
            CloseReason::Shed => (1001, "shed".to_owned()),
            CloseReason::Asked => {
                self.extras.as_mut().map_or_else(Default::default, |e| e.last_words())
            }
        };
        self.close(code, &reason, wait_ms, cx);
    }

    /// Messages that `delay` held back are answered now rather than never. Those that wait for
    /// the worker are not: their turn has not come.
    pub(in crate::server) fn answer_delayed(&mut self, cx: &mut SocketCx<'_>) {
        self.answer_until(u64::MAX, cx);
    }

    fn answer_until(&mut self, due_ns: u64, cx: &mut SocketCx<'_>) {
        while self.phase_takes_messages()
            && let Some((kind, payload)) = self
                .extras
                .as_mut()
                .and_then(|extras| extras.next_delayed(due_ns, cx.now, cx.blocks))
        {
            if self.answer(kind, payload.bytes(), cx) == Answer::Same {
                cx.for_behaviour(&mut self.tally, self.deflate).send(kind, payload.bytes());
            }
            cx.blocks.give_back(payload, cx.now.mono_ns);
        }
    }

    /// The worker is done with one of its messages.
    pub(in crate::server) fn work_done(&mut self) -> Option<(u64, u64)> {
        self.extras.as_mut().and_then(|extras| extras.work_done())
    }

    /// Messages that wait will not be answered any more.
    pub(in crate::server) fn drop_waiting(&mut self, worker: &mut Worker) {
        if let Some(extras) = &mut self.extras {
            extras.drop_waiting(worker);
        }
    }

    /// Sets the moment of its end, unless that comes before.
    pub(in crate::server) fn end_at(&mut self, when: Moment, why: CloseReason, now: Now) {
        let is_first = match self.phase {
            Phase::Open => true,
            Phase::Ending { when: planned, .. } => when.ns(now) < planned.ns(now),
            Phase::CloseSent { .. } => false,
        };
        if is_first {
            self.phase = Phase::Ending { when, why };
        }
    }

    /// Whether it is being closed already: a drain or a shed has set its end, or Close is sent.
    pub(in crate::server) fn is_leaving(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Ending { why, .. } => matches!(why, CloseReason::Drain | CloseReason::Shed),
            Phase::CloseSent { .. } => true,
        }
    }

    /// What became due: pushes, delayed answers, keepalive, its end.
    pub(in crate::server) fn wake(
        &mut self,
        slow: Option<&Slow>,
        is_read: bool,
        cx: &mut SocketCx<'_>,
    ) -> Then {
        if let Phase::CloseSent { until, code } = self.phase {
            let over = Then::Over(End { code, initiator: Initiator::Server });
            return if until.has_come(cx.now) { over } else { Then::More };
        }
        if self.makes_room() {
            // What it is owed would take the memory that is to become free.
            frame::write_close(&mut cx.out.bytes, MEMORY_SHORT.code, MEMORY_SHORT_REASON);
            return Then::Over(MEMORY_SHORT);
        }
        let was_full = self.is_full();
        self.answer_until(cx.now.mono_ns, cx);
        let waiting = slow.map_or(0, |slow| slow.outbox.len());
        if self.behaviour.is_busy() {
            let mut ctx = Ctx { waiting, ..cx.for_behaviour(&mut self.tally, self.deflate) };
            let close = self.behaviour.on_wake(&mut ctx);
            if self.close_as_asked(close, cx) {
                return Then::More;
            }
        }
        if let Phase::Ending { when, why } = self.phase
            && when.has_come(cx.now)
        {
            if may_end(when, slow, cx.now)
                && !self.awaits_worker()
                && !self.is_held_up(when, cx.now)
            {
                let wait_ms = match why {
                    CloseReason::Drain => limits::DRAIN_CLOSE_WAIT_MS,
                    CloseReason::MaxAge
                    | CloseReason::Shed
                    | CloseReason::Asked
                    | CloseReason::Memory => limits::CLOSE_WAIT_MS,
                };
                self.close_for(why, wait_ms, cx);
                return Then::More;
            }
            if let Some(extras) = &mut self.extras {
                extras.take_no_more();
            }
        }
        if let Some(extras) = &mut self.extras {
            extras.speak(&mut cx.for_behaviour(&mut self.tally, self.deflate));
        }
        let mut ctx = Ctx { waiting, ..cx.for_behaviour(&mut self.tally, self.deflate) };
        let close = self.behaviour.on_wake(&mut ctx);
        if self.close_as_asked(close, cx) {
            return Then::More;
        }
        let own_ms = self.extras.as_ref().and_then(|extras| extras.ping_ms);
        if !is_read {
            self.keepalive.read_again(cx.now);
        }
        let settings = (&cx.config.limits, &mut *cx.rng);
        let pulse = self.keepalive.wake(own_ms, slow, cx.now, settings, &mut cx.out.bytes);
        if pulse == Pulse::Lost {
            cx.metrics.pong_timeouts += 1;
            frame::write_close(&mut cx.out.bytes, 1011, "keepalive ping timeout");
            return Then::Over(End { code: 1011, initiator: Initiator::Server });
        }
        if was_full && !self.is_full() { Then::Hold } else { Then::More }
    }

    /// Whether so much waits for an answer that the peer is not read.
    pub(in crate::server) fn is_full(&self) -> bool {
        // After our Close only the peer's is of interest, and it has to be read.
        self.phase_takes_messages()
            && (self.behaviour.is_full()
                || self.extras.as_ref().is_some_and(|extras| extras.is_full()))
    }

    /// Whether its end waits a little for an answer that is under way.
    fn is_held_up(&self, when: Moment, now: Now) -> bool {
        self.behaviour.is_busy() && when.ms_ago(now) < limits::BUSY_WAIT_MS
    }

    /// Sends the Close that the behaviour has asked for; says whether it did.
    pub(in crate::server) fn close_as_asked(
        &mut self,
        close: Option<Close>,
        cx: &mut SocketCx<'_>,
    ) -> bool {
        let Some(Close { code, reason }) = close else { return false };
        self.close(code, &reason, limits::CLOSE_WAIT_MS, cx);
        true
    }

    /// Whether it is about to be closed since memory is short.
    pub(in crate::server) fn makes_room(&self) -> bool {
        matches!(self.phase, Phase::Ending { why: CloseReason::Memory, .. })
    }

    /// Drops what waits in it; its Close follows at once.
    pub(in crate::server) fn make_room(&mut self, cx: &mut SocketCx<'_>) {
        self.drop_waiting(cx.worker);
        self.phase = Phase::Ending { when: Moment::at(cx.now.mono_ns), why: CloseReason::Memory };
        cx.act(Action::Write(cx.id));
    }

    fn awaits_worker(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.awaits_worker())
    }

    /// When [`WebSocket::wake`] has something to do.
    pub(in crate::server) fn next_deadline(
        &self,
        slow: Option<&Slow>,
        now: Now,
        limits: &Limits,
    ) -> Option<u64> {
        let phase = match self.phase {
            Phase::CloseSent { until, .. } => return Some(until.ns(now)),
            // The worker wakes it.
            Phase::Ending { when, .. } if when.has_come(now) && self.awaits_worker() => None,
            Phase::Ending { when, .. } if when.has_come(now) && has_work_in_hand(slow) => {
                Some(when.ns(now) + time::ms(limits::LINGER_MS))
            }
            Phase::Ending { when, .. } if when.has_come(now) && self.is_held_up(when, now) => {
                Some(when.ns(now) + time::ms(limits::BUSY_WAIT_MS))
            }
            Phase::Ending { when, .. } => Some(when.ns(now)),
            Phase::Open => None,
        };
        let keepalive = self.keepalive.next_deadline(now, limits);
        let extras = self.extras.as_ref().and_then(|extras| extras.next_deadline());
        let behaviour = self.behaviour.next_deadline();
        phase.into_iter().chain(keepalive).chain(extras).chain(behaviour).min()
    }
}

/// What is in hand is finished first, as long as its sender does not take for ever.
fn may_end(when: Moment, slow: Option<&Slow>, now: Now) -> bool {
    !has_work_in_hand(slow) || when.ms_ago(now) >= limits::LINGER_MS
}

/// Half a message, or whole ones that were held back.
fn has_work_in_hand(slow: Option<&Slow>) -> bool {
    slow.is_some_and(|slow| slow.message.is_some() || slow.input.is_some())
}
