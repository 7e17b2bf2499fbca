//! The WebSocket stage: reads frames and writes answers (RFC 6455). `life` has timers and closing.
//! It reports when it ended; `conn` then closes the connection.

pub(crate) mod extras;
pub(crate) mod faults;
mod keepalive;
mod life;
mod messages;
mod probe;
mod short;
mod socket_cx;
pub(crate) mod worker;

use core::ops::ControlFlow::{self, Break, Continue};

use crate::behaviours::{Answer, Behaviour, Kind, Sizes, Tally, WireFault};
use crate::engine::Action;
use crate::limits;
use crate::outbox::MAP_MIN;
use crate::proto::deflate::{self, Agreed};
use crate::proto::frame::{self, Fault, Header, Opcode};
use crate::proto::mask;
use crate::proto::message::Assembly;
use crate::server::end::{CloseReason, End, Initiator};
use crate::server::unfinished::{Unfinished, is_backed_up};
use crate::server::websocket::extras::{Extras, Intercepted};
use crate::server::websocket::keepalive::Keepalive;
use crate::server::websocket::short::Echoed;
pub(crate) use crate::server::websocket::socket_cx::SocketCx;
use crate::time::Moment;

/// A read for a header only: so small that copying its payload costs little.
const HEADER_READ_BYTES: usize = 4 * 1024;
/// A read of small frames: what a turn does not use has to be kept.
const SMALL_READ_BYTES: usize = 16 * 1024;

/// How much to read, depending on the last input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadSize {
    /// More small frames than a turn can handle, or no input yet.
    Small,
    Usual,
    /// A large message: read only the next header to the read buffer; the payload is read to its
    /// own block.
    Header,
}

#[derive(Debug)]
pub(crate) struct WebSocket {
    pub(crate) behaviour: Box<dyn Behaviour>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) tally: Tally,
    pub(crate) phase: Phase,
    pub(crate) keepalive: Keepalive,
    pub(crate) read_size: ReadSize,
    pub(crate) deflate: Option<Agreed>,
    pub(crate) mount: u16,
}

/// The state of the close handshake (RFC 6455 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is scheduled.
    Open,
    /// It is scheduled.
    Ending { when: Moment, why: CloseReason },
    /// Our Close is sent; the peer's is awaited.
    CloseSent { until: Moment, code: u16 },
}

/// What the connection has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    ReadMore,
    /// Call again with the unused bytes.
    Resume,
    Ended(End),
}

impl WebSocket {
    /// Opens a WebSocket and sends its first messages.
    pub(crate) fn open(
        behaviour: Box<dyn Behaviour>,
        extras: Option<Box<Extras>>,
        mount: u16,
        deflate: Option<Agreed>,
        cx: &mut SocketCx<'_>,
    ) -> Self {
        let phase = initial_phase(extras.as_deref(), cx);
        let own_ms = extras.as_ref().and_then(|extras| extras.ping_ms);
        let keepalive = Keepalive::new(own_ms, cx.now, &cx.config.limits, cx.rng);
        let mut opened = Self {
            behaviour,
            tally: Tally::default(),
            phase,
            keepalive,
            read_size: ReadSize::Small,
            deflate,
            mount,
            extras,
        };
        if let Some(extras) = &mut opened.extras {
            extras.greet(&mut cx.for_behaviour(&mut opened.tally, deflate));
        }
        let close = opened.behaviour.on_open(&mut cx.for_behaviour(&mut opened.tally, deflate));
        opened.close_if_requested(close, cx);
        opened
    }

    /// The client's address according to proxies, for the log.
    pub(crate) fn forwarded(&self) -> Option<&str> {
        self.extras.as_ref().and_then(|extras| extras.forwarded.as_deref())
    }

    /// Whether it is the far end of `wspulse probe`.
    pub(crate) fn is_probe(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.probe.is_some())
    }

    /// Whether messages cannot change its deadline.
    pub(crate) fn has_fixed_deadline(&self) -> bool {
        self.extras.is_none()
    }

    /// How much to read between messages.
    pub(crate) fn bytes_to_read(&self) -> usize {
        match self.read_size {
            ReadSize::Small => SMALL_READ_BYTES,
            ReadSize::Usual => limits::READ_BYTES_PER_TURN,
            ReadSize::Header => HEADER_READ_BYTES,
        }
    }

    /// How much to read within a message.
    pub(crate) fn bytes_to_read_mid_message(&self) -> usize {
        match self.read_size {
            ReadSize::Small => SMALL_READ_BYTES,
            ReadSize::Usual | ReadSize::Header => limits::READ_BYTES_PER_TURN,
        }
    }

    /// Whether to stop reading from the peer.
    pub(crate) fn is_paused(&self, unfinished: Option<&Unfinished>, out_len: usize) -> bool {
        is_backed_up(unfinished, out_len) || self.is_full()
    }

    /// Handles the frames in `buffer[from..to]`; returns how far they were used.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        unfinished: &mut Option<Box<Unfinished>>,
        cx: &mut SocketCx<'_>,
        buffer: &mut [u8],
        (from, to): (usize, usize),
    ) -> (usize, Outcome) {
        self.keepalive.received(cx.now);
        let mut echoed = Echoed::default();
        if unfinished.as_ref().is_none_or(|unfinished| unfinished.is_idle()) {
            match self.echo_short(&buffer[from..to], cx) {
                Ok(done) => echoed = done,
                Err(fault) => return (to, self.fail(fault, cx)),
            }
            if from + echoed.used == to && echoed.frames() < limits::FRAMES_PER_TURN {
                self.note_read(to - from);
                return (to, Outcome::ReadMore);
            }
        }
        self.receive_rest(unfinished, cx, buffer, (from, to), echoed)
    }

    /// The frames behind those that the fast path has echoed.
    fn receive_rest(
        &mut self,
        unfinished: &mut Option<Box<Unfinished>>,
        cx: &mut SocketCx<'_>,
        buffer: &mut [u8],
        (from, to): (usize, usize),
        echoed: Echoed,
    ) -> (usize, Outcome) {
        let enough = *cx.work + limits::WORK_PER_TURN;
        let mut at = from + echoed.used;
        for _ in echoed.frames()..limits::FRAMES_PER_TURN {
            match self.frame(unfinished, cx, buffer, (&mut at, to)) {
                Ok(Continue(())) if *cx.work < enough => {}
                Ok(Continue(())) => {
                    return (at, if at == to { Outcome::ReadMore } else { Outcome::Resume });
                }
                Ok(Break(outcome)) => {
                    self.note_read(to - from);
                    return (at, outcome);
                }
                Err(fault) => return (to, self.fail(fault, cx)),
            }
        }
        self.read_size = ReadSize::Small;
        (at, if at == to { Outcome::ReadMore } else { Outcome::Resume })
    }

    /// This many bytes held no more frames than a turn can handle.
    fn note_read(&mut self, bytes: usize) {
        if self.read_size == ReadSize::Small && bytes >= SMALL_READ_BYTES {
            self.read_size = ReadSize::Usual;
        }
    }

    /// Handles one frame, complete or not.
    fn frame(
        &mut self,
        unfinished: &mut Option<Box<Unfinished>>,
        cx: &mut SocketCx<'_>,
        buffer: &mut [u8],
        (at, to): (&mut usize, usize),
    ) -> Result<ControlFlow<Outcome>, Fault> {
        if let Some(unfinished) = unfinished.as_deref_mut()
            && (unfinished.skip > 0
                || unfinished.message.as_ref().is_some_and(|m| m.frame_left() > 0))
        {
            return self.continue_frame(unfinished, cx, &mut buffer[*at..to]).map(|used| {
                *at += used;
                if *at == to { Break(Outcome::ReadMore) } else { Continue(()) }
            });
        }
        if *at == to {
            return Ok(Break(Outcome::ReadMore));
        }
        if self.is_paused(unfinished.as_deref(), cx.out.len()) {
            return Ok(Break(Outcome::Resume));
        }
        let Some(header) = frame::parse(&buffer[*at..to])? else {
            return Ok(Break(Outcome::ReadMore));
        };
        // RFC 7692 §6: RSV1 is set only on the first frame of a message, and only if negotiated.
        if header.compressed
            && (self.deflate.is_none() || !matches!(header.opcode, Opcode::Start(_)))
        {
            return Err(Fault::ReservedBits);
        }
        if let Some(extras) = &mut self.extras
            && let Some(probe) = &mut extras.probe
        {
            probe.note_frame(&header);
        }
        let start = *at + header.size;
        let end = usize::try_from(header.length).ok().and_then(|length| start.checked_add(length));
        let whole = end.filter(|&end| end <= to);
        match (header.opcode, whole) {
            (Opcode::Start(kind), Some(end)) if header.fin && self.accepts_messages() => {
                check_start(unfinished.as_deref(), &header, self.behaviour.sizes(), cx)?;
                let script = mask::unmask(&mut buffer[start..end], header.mask, 0);
                *at = end;
                if header.compressed {
                    self.compressed_message(kind, &buffer[start..end], cx)?;
                    return Ok(Continue(()));
                }
                frame::check_text(kind, script, &buffer[start..end])?;
                self.message_in_buffer(kind, buffer, (start, end), cx);
            }
            (Opcode::Start(_) | Opcode::Continuation, _) => {
                *at = start;
                self.begin_frame(unfinished, &header, cx)?;
            }
            // A control frame is small: wait until it is complete.
            (Opcode::Close | Opcode::Ping | Opcode::Pong, None) => {
                return Ok(Break(Outcome::ReadMore));
            }
            (Opcode::Close | Opcode::Ping | Opcode::Pong, Some(end)) => {
                *at = end;
                mask::unmask(&mut buffer[start..end], header.mask, 0);
                return self.control(header.opcode, &buffer[start..end], cx);
            }
        }
        Ok(Continue(()))
    }

    /// After our Close, messages are ignored (RFC 6455 §5.5.1).
    pub(crate) fn accepts_messages(&self) -> bool {
        !matches!(self.phase, Phase::CloseSent { .. })
    }

    /// A data frame that is incomplete, or a fragment.
    fn begin_frame(
        &mut self,
        unfinished: &mut Option<Box<Unfinished>>,
        header: &Header,
        cx: &mut SocketCx<'_>,
    ) -> Result<(), Fault> {
        if !self.accepts_messages() {
            unfinished.get_or_insert_default().skip = header.length;
            return Ok(());
        }
        if header.length >= MAP_MIN as u64 {
            self.read_size = ReadSize::Header;
        } else if header.length >= SMALL_READ_BYTES as u64 {
            self.read_size = ReadSize::Usual;
        }
        let sizes = self.behaviour.sizes();
        match header.opcode {
            Opcode::Start(kind) => {
                check_start(unfinished.as_deref(), header, sizes, cx)?;
                let limit = limit(header.compressed, sizes, cx);
                let message = Assembly::begin(kind, header, limit, cx.blocks)?;
                unfinished.get_or_insert_default().message = Some(message);
            }
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {
                let message =
                    unfinished.as_mut().and_then(|unfinished| unfinished.message.as_mut());
                let message = message.ok_or(Fault::ContinuationAlone)?;
                if header.length > sizes.frame {
                    return Err(Fault::TooBig);
                }
                let limit = limit(message.compressed, sizes, cx);
                message.proceed(header, limit, cx.blocks)?;
            }
        }
        if let Some(unfinished) = unfinished {
            self.finish_if_whole(unfinished, cx)?;
        }
        Ok(())
    }

    /// Payload of the current frame; returns how many bytes were used.
    fn continue_frame(
        &mut self,
        unfinished: &mut Unfinished,
        cx: &mut SocketCx<'_>,
        bytes: &mut [u8],
    ) -> Result<usize, Fault> {
        let upto = |left: u64| bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if unfinished.skip > 0 {
            let used = upto(unfinished.skip);
            unfinished.skip -= used as u64;
            return Ok(used);
        }
        let Some(message) = &mut unfinished.message else { return Ok(0) };
        let used = upto(message.frame_left());
        message.absorb(&mut bytes[..used], cx.blocks)?;
        self.finish_if_whole(unfinished, cx)?;
        Ok(used)
    }

    /// `n` bytes were read directly into the message's block.
    pub(crate) fn receive_into_block(
        &mut self,
        unfinished: &mut Unfinished,
        cx: &mut SocketCx<'_>,
        n: usize,
    ) -> Outcome {
        self.keepalive.received(cx.now);
        let Some(message) = &mut unfinished.message else { return Outcome::ReadMore };
        let absorbed = message.absorb_spare(n).and_then(|()| self.finish_if_whole(unfinished, cx));
        match absorbed {
            Ok(()) => Outcome::ReadMore,
            Err(fault) => self.fail(fault, cx),
        }
    }

    fn finish_if_whole(
        &mut self,
        unfinished: &mut Unfinished,
        cx: &mut SocketCx<'_>,
    ) -> Result<(), Fault> {
        let Some(message) = unfinished.message.take_if(|message| message.is_whole()) else {
            return Ok(());
        };
        let compressed = message.compressed;
        let (kind, block) = message.finish()?;
        if !self.accepts_messages() {
            cx.blocks.give_back(block, cx.now.mono_ns);
        } else if compressed {
            let done = self.compressed_message(kind, block.bytes(), cx);
            cx.blocks.give_back(block, cx.now.mono_ns);
            return done;
        } else {
            self.message_in_block(kind, block, cx);
        }
        Ok(())
    }

    /// Counts and logs a message, then answers or queues it.
    pub(crate) fn receive_message(
        &mut self,
        kind: Kind,
        payload: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Answer {
        self.tally.received(payload.len());
        *cx.work += payload.len() as u64;
        cx.metrics.traffic.received(kind, payload.len());
        if cx.config.log_payloads {
            let shown = String::from_utf8_lossy(&payload[..payload.len().min(200)]);
            log::info!(
                target: "payload", conn:% = cx.id, kind = kind.name(), bytes = payload.len(),
                payload:% = shown;
                "message"
            );
        } else {
            log::debug!(
                target: "message", conn:% = cx.id, kind = kind.name(), bytes = payload.len();
                "message"
            );
        }
        match &mut self.extras {
            Some(extras) if extras.probe.is_some() => self.probe_message(kind, payload, cx),
            Some(extras) => {
                match extras.intercept((kind, payload), (cx.now, cx.id), cx.intercept_cx()) {
                    Some(Intercepted::Reset) => {
                        // The rest of this read is ignored; then the stream is closed.
                        self.phase =
                            Phase::CloseSent { until: Moment::at(cx.now.mono_ns), code: 1006 };
                        cx.act(Action::Reset(cx.id));
                        Answer::Nothing
                    }
                    Some(Intercepted::Queued) => Answer::Nothing,
                    None => self.answer(kind, payload, cx),
                }
            }
            None => self.answer(kind, payload, cx),
        }
    }

    /// Calls the behaviour. The caller sends the echo for [`Answer::Same`].
    pub(crate) fn answer(&mut self, kind: Kind, payload: &[u8], cx: &mut SocketCx<'_>) -> Answer {
        match self.behaviour.on_message(
            kind,
            payload,
            &mut cx.for_behaviour(&mut self.tally, self.deflate),
        ) {
            Answer::Close(code, reason) => {
                self.close(code, reason, limits::CLOSE_WAIT_MS, cx);
                Answer::Nothing
            }
            Answer::Same if self.has_fault(WireFault::Fragment) => {
                self.count_sent(kind, payload.len(), cx);
                frame::write_fragmented(&mut cx.out.bytes, kind, payload, 3);
                Answer::Nothing
            }
            answer => answer,
        }
    }

    fn has_fault(&self, fault: WireFault) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.fault == Some(fault))
    }

    pub(crate) fn count_sent(&mut self, kind: Kind, bytes: usize, cx: &mut SocketCx<'_>) {
        self.tally.sent(bytes);
        cx.metrics.traffic.sent(kind, bytes);
    }

    /// A complete control frame (RFC 6455 §5.5).
    fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Result<ControlFlow<Outcome>, Fault> {
        if let Some(extras) = &mut self.extras
            && let Some(probe) = &mut extras.probe
        {
            probe.note_control(opcode);
        }
        match opcode {
            Opcode::Ping if self.accepts_messages() && !self.has_fault(WireFault::NoPong) => {
                frame::write_pong(&mut cx.out.bytes, payload);
                Ok(Continue(()))
            }
            Opcode::Close => {
                let (code, reason) = frame::parse_close(payload)?;
                if let Phase::CloseSent { code, .. } = self.phase {
                    return Ok(Break(Outcome::Ended(End { code, initiator: Initiator::Server })));
                }
                self.answer_all_delayed(cx);
                let mut ctx = cx.for_behaviour(&mut self.tally, self.deflate);
                self.behaviour.on_close(code, reason, &mut ctx);
                frame::write_close(&mut cx.out.bytes, code, reason);
                Ok(Break(Outcome::Ended(End { code, initiator: Initiator::Client })))
            }
            Opcode::Pong => {
                if let Some(round_trip_ns) = self.keepalive.round_trip_ns(payload, cx.now) {
                    cx.metrics.ping_rtt.observe_ns(round_trip_ns);
                }
                Ok(Continue(()))
            }
            Opcode::Ping | Opcode::Start(_) | Opcode::Continuation => Ok(Continue(())),
        }
    }

    /// RFC 6455 §7.1.7: a protocol error ends the WebSocket with a Close that names it.
    pub(crate) fn fail(&mut self, fault: Fault, cx: &mut SocketCx<'_>) -> Outcome {
        let (code, reason) = (fault.close_code(), fault.reason());
        log::debug!(target: "fault", conn:% = cx.id, code, reason; "protocol error");
        if self.accepts_messages() {
            self.answer_all_delayed(cx);
            frame::write_close(&mut cx.out.bytes, code, reason);
        }
        Outcome::Ended(End { code, initiator: Initiator::Server })
    }
}

/// With `close_after` or a maximum age, closing is scheduled from the start.
fn initial_phase(extras: Option<&Extras>, cx: &mut SocketCx<'_>) -> Phase {
    let asked_ms = extras.and_then(Extras::close_after_ms).map(|ms| (ms, CloseReason::CloseAfter));
    let age = cx.config.max_age;
    let aged_ms =
        (age.ms > 0).then(|| (cx.rng.around(age.ms, age.jitter_percent), CloseReason::MaxAge));
    let first = asked_ms.into_iter().chain(aged_ms).min_by_key(|(ms, _)| *ms);
    first.map_or(Phase::Open, |(ms, why)| Phase::Ending { when: Moment::after(cx.now, ms), why })
}

/// RFC 6455 §5.4: fragments of different messages must not interleave. The size is checked at the
/// header.
fn check_start(
    unfinished: Option<&Unfinished>,
    header: &Header,
    sizes: Sizes,
    cx: &SocketCx<'_>,
) -> Result<(), Fault> {
    if unfinished.is_some_and(|unfinished| unfinished.message.is_some()) {
        return Err(Fault::MessageInsideMessage);
    }
    if header.length > (limit(header.compressed, sizes, cx) as u64).min(sizes.frame) {
        return Err(Fault::TooBig);
    }
    Ok(())
}

/// Maximum message, all frames together.
fn limit(compressed: bool, sizes: Sizes, cx: &SocketCx<'_>) -> usize {
    let limit = cx.config.limits.max_message.min(sizes.message);
    if compressed { deflate::wire_limit(limit) } else { limit }
}
