//! Timers and closing of a WebSocket.

use crate::behaviours::{Answer, Close, Ctx};
use crate::engine::{Action, Now};
use crate::limits;
use crate::proto::frame::{self, Fault};
use crate::server::config::Limits;
use crate::server::end::{BROKEN, CloseReason, End, Initiator, MEMORY_SHORT, MEMORY_SHORT_REASON};
use crate::server::unfinished::Unfinished;
use crate::server::websocket::keepalive::Liveness;
use crate::server::websocket::worker::Worker;
use crate::server::websocket::{Outcome, Phase, SocketCx, WebSocket};
use crate::time::{self, Moment};

impl WebSocket {
    /// Starts the close handshake.
    pub(crate) fn close(&mut self, code: u16, reason: &str, wait_ms: u64, cx: &mut SocketCx<'_>) {
        self.answer_all_delayed(cx);
        if !self.accepts_messages() {
            // One of the delayed answers was a Close.
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

    /// The peer closed its side without a Close frame: delayed messages are still answered.
    pub(crate) fn end_of_input(&mut self, cx: &mut SocketCx<'_>) -> End {
        if let Phase::CloseSent { code, .. } = self.phase {
            return End { code, initiator: Initiator::Server };
        }
        self.answer_all_delayed(cx);
        frame::write_close(&mut cx.out.bytes, Fault::NoClose.close_code(), Fault::NoClose.reason());
        BROKEN
    }

    /// Hard stop: sends a Close frame, unless one was sent.
    pub(crate) fn close_on_stop(&mut self, cx: &mut SocketCx<'_>) {
        if self.accepts_messages() {
            self.close_for(CloseReason::Drain, 0, cx);
        }
    }

    fn close_for(&mut self, why: CloseReason, wait_ms: u64, cx: &mut SocketCx<'_>) {
        let (code, reason) = match why {
            CloseReason::Drain => (cx.config.drain.code, cx.config.drain.reason.clone()),
            CloseReason::Memory => (MEMORY_SHORT.code, MEMORY_SHORT_REASON.to_owned()),
            CloseReason::MaxAge => (1001, "max age".to_owned()),
            CloseReason::Shed => (1001, "shed".to_owned()),
            CloseReason::CloseAfter => {
                self.extras.as_mut().map_or_else(Default::default, |e| e.take_close())
            }
        };
        self.close(code, &reason, wait_ms, cx);
    }

    /// Answers delayed messages now, since otherwise they would never be. Those that wait for the
    /// worker are dropped: their turn has not come.
    pub(crate) fn answer_all_delayed(&mut self, cx: &mut SocketCx<'_>) {
        self.answer_delayed_until(u64::MAX, cx);
    }

    fn answer_delayed_until(&mut self, due_ns: u64, cx: &mut SocketCx<'_>) {
        while self.accepts_messages()
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

    /// The worker finished a message. Returns turn and duration of the next one.
    pub(crate) fn work_done(&mut self) -> Option<(u64, u64)> {
        self.extras.as_mut().and_then(|extras| extras.work_done())
    }

    /// Drops the queued messages.
    pub(crate) fn drop_waiting(&mut self, worker: &mut Worker) {
        if let Some(extras) = &mut self.extras {
            extras.drop_waiting(worker);
        }
    }

    /// Schedules closing, unless it is scheduled earlier already.
    pub(crate) fn end_at(&mut self, when: Moment, why: CloseReason, now: Now) {
        let is_first = match self.phase {
            Phase::Open => true,
            Phase::Ending { when: planned, .. } => when.ns(now) < planned.ns(now),
            Phase::CloseSent { .. } => false,
        };
        if is_first {
            self.phase = Phase::Ending { when, why };
        }
    }

    /// Whether it is closing: scheduled by a drain or a shed, or the Close is sent.
    pub(crate) fn is_closing(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Ending { why, .. } => matches!(why, CloseReason::Drain | CloseReason::Shed),
            Phase::CloseSent { .. } => true,
        }
    }

    /// Handles what is due: pushes, delayed answers, keepalive, closing.
    pub(crate) fn wake(
        &mut self,
        unfinished: Option<&Unfinished>,
        is_read: bool,
        cx: &mut SocketCx<'_>,
    ) -> Outcome {
        if let Phase::CloseSent { until, code } = self.phase {
            let over = Outcome::Ended(End { code, initiator: Initiator::Server });
            return if until.has_come(cx.now) { over } else { Outcome::ReadMore };
        }
        if self.is_closing_for_memory() {
            // Delayed answers would take the memory that is to be freed.
            frame::write_close(&mut cx.out.bytes, MEMORY_SHORT.code, MEMORY_SHORT_REASON);
            return Outcome::Ended(MEMORY_SHORT);
        }
        let was_full = self.is_full();
        self.answer_delayed_until(cx.now.mono_ns, cx);
        let waiting = unfinished.map_or(0, |unfinished| unfinished.outbox.len());
        if self.behaviour.is_busy() {
            let mut ctx = Ctx { waiting, ..cx.for_behaviour(&mut self.tally, self.deflate) };
            let close = self.behaviour.on_wake(&mut ctx);
            if self.close_if_requested(close, cx) {
                return Outcome::ReadMore;
            }
        }
        if let Phase::Ending { when, why } = self.phase
            && when.has_come(cx.now)
        {
            if may_close(when, unfinished, cx.now)
                && !self.awaits_worker()
                && !self.waits_for_behaviour(when, cx.now)
            {
                let wait_ms = match why {
                    CloseReason::Drain => limits::DRAIN_CLOSE_WAIT_MS,
                    CloseReason::MaxAge
                    | CloseReason::Shed
                    | CloseReason::CloseAfter
                    | CloseReason::Memory => limits::CLOSE_WAIT_MS,
                };
                self.close_for(why, wait_ms, cx);
                return Outcome::ReadMore;
            }
            if let Some(extras) = &mut self.extras {
                extras.stop_reading();
            }
        }
        if let Some(extras) = &mut self.extras {
            extras.push(&mut cx.for_behaviour(&mut self.tally, self.deflate));
        }
        let mut ctx = Ctx { waiting, ..cx.for_behaviour(&mut self.tally, self.deflate) };
        let close = self.behaviour.on_wake(&mut ctx);
        if self.close_if_requested(close, cx) {
            return Outcome::ReadMore;
        }
        let own_ms = self.extras.as_ref().and_then(|extras| extras.ping_ms);
        if !is_read {
            self.keepalive.reading_resumed(cx.now);
        }
        let settings = (&cx.config.limits, &mut *cx.rng);
        let liveness = self.keepalive.wake(own_ms, unfinished, cx.now, settings, &mut cx.out.bytes);
        if liveness == Liveness::TimedOut {
            cx.metrics.pong_timeouts += 1;
            frame::write_close(&mut cx.out.bytes, 1011, "keepalive ping timeout");
            return Outcome::Ended(End { code: 1011, initiator: Initiator::Server });
        }
        if was_full && !self.is_full() { Outcome::Resume } else { Outcome::ReadMore }
    }

    /// Whether so much is queued that the peer is not read.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        // After our Close, the peer's Close must be read.
        self.accepts_messages()
            && (self.behaviour.is_full()
                || self.extras.as_ref().is_some_and(|extras| extras.is_full()))
    }

    /// Whether closing waits briefly for an answer in progress.
    fn waits_for_behaviour(&self, when: Moment, now: Now) -> bool {
        self.behaviour.is_busy() && when.ms_ago(now) < limits::BUSY_WAIT_MS
    }

    /// Closes if the behaviour requested it; returns whether it did.
    pub(crate) fn close_if_requested(
        &mut self,
        close: Option<Close>,
        cx: &mut SocketCx<'_>,
    ) -> bool {
        let Some(Close { code, reason }) = close else { return false };
        self.close(code, &reason, limits::CLOSE_WAIT_MS, cx);
        true
    }

    /// Whether it is being closed because memory is short.
    pub(crate) fn is_closing_for_memory(&self) -> bool {
        matches!(self.phase, Phase::Ending { why: CloseReason::Memory, .. })
    }

    /// Drops the queued messages; the Close follows immediately.
    pub(crate) fn close_for_memory(&mut self, cx: &mut SocketCx<'_>) {
        self.drop_waiting(cx.worker);
        self.phase = Phase::Ending { when: Moment::at(cx.now.mono_ns), why: CloseReason::Memory };
        cx.act(Action::Write(cx.id));
    }

    fn awaits_worker(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.awaits_worker())
    }

    /// When to call [`WebSocket::wake`].
    pub(crate) fn next_deadline(
        &self,
        unfinished: Option<&Unfinished>,
        now: Now,
        limits: &Limits,
    ) -> Option<u64> {
        let phase = match self.phase {
            Phase::CloseSent { until, .. } => return Some(until.ns(now)),
            // It is woken when the worker is done.
            Phase::Ending { when, .. } if when.has_come(now) && self.awaits_worker() => None,
            Phase::Ending { when, .. } if when.has_come(now) && is_mid_message(unfinished) => {
                Some(when.ns(now) + time::ms(limits::LINGER_MS))
            }
            Phase::Ending { when, .. }
                if when.has_come(now) && self.waits_for_behaviour(when, now) =>
            {
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

/// An incomplete message may still be finished, for a limited time.
fn may_close(when: Moment, unfinished: Option<&Unfinished>, now: Now) -> bool {
    !is_mid_message(unfinished) || when.ms_ago(now) >= limits::LINGER_MS
}

/// An incomplete message, or input that is held back.
fn is_mid_message(unfinished: Option<&Unfinished>) -> bool {
    unfinished.is_some_and(|unfinished| unfinished.message.is_some() || unfinished.input.is_some())
}
