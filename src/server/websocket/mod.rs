//! The WebSocket stage: frames in, answers out (RFC 6455). What its timers do and how it ends is
//! in `life`. It says when it is over; what becomes of the connection then is `conn`'s business.

pub(in crate::server) mod extras;
pub(in crate::server) mod faults;
mod keepalive;
mod life;
mod messages;
mod short;
mod socket_cx;
pub(in crate::server) mod worker;

use crate::behaviours::{Answer, Behaviour, Kind, Sizes, Tally, WireFault};
use crate::engine::Action;
use crate::limits;
use crate::outbox::MAP_MIN;
use crate::proto::deflate::{self, Agreed};
use crate::proto::frame::{self, Fault, Header, Opcode};
use crate::proto::mask;
use crate::proto::message::Assembly;
use crate::server::end::{CloseReason, End, Initiator};
use crate::server::slow::{Slow, is_backed_up};
use crate::server::websocket::extras::{Extras, Taken};
use crate::server::websocket::keepalive::Keepalive;
pub(in crate::server) use crate::server::websocket::socket_cx::SocketCx;
use crate::time::Moment;

/// A first read that is to find a header: small enough to be copied for nothing.
const HEADER_READ_BYTES: usize = 4 * 1024;
/// A read of small frames: what a turn does not use of it has to be held.
const SMALL_READ_BYTES: usize = 16 * 1024;

/// How much to read, by what came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum ReadSize {
    /// More small frames than a turn takes; or nothing yet.
    Small,
    Usual,
    /// A large message; of the next one only the header is wanted in the read buffer, since the
    /// rest is read to its block.
    Header,
}

/// An open WebSocket.
#[derive(Debug)]
pub(in crate::server) struct WebSocket {
    pub(in crate::server) behaviour: Box<dyn Behaviour>,
    pub(in crate::server) extras: Option<Box<Extras>>,
    pub(in crate::server) tally: Tally,
    pub(in crate::server) phase: Phase,
    pub(in crate::server) keepalive: Keepalive,
    pub(in crate::server) read_size: ReadSize,
    pub(in crate::server) deflate: Option<Agreed>,
    pub(in crate::server) mount: u16,
}

/// How far the close handshake is (RFC 6455 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Phase {
    /// Not begun.
    Open,
    /// To be begun at this moment.
    Ending { when: Moment, why: CloseReason },
    /// Our Close is sent; the peer's is awaited until then.
    CloseSent { until: Moment, code: u16 },
}

/// What the stage wants after some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Then {
    /// More bytes.
    More,
    /// To be called again with the bytes that it has not used.
    Hold,
    /// Nothing more.
    Over(End),
}

impl WebSocket {
    /// A WebSocket that was just opened; says what there is to say at once.
    pub(in crate::server) fn open(
        behaviour: Box<dyn Behaviour>,
        extras: Option<Box<Extras>>,
        mount: u16,
        deflate: Option<Agreed>,
        cx: &mut SocketCx<'_>,
    ) -> Self {
        let phase = first_phase(extras.as_deref(), cx);
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
        opened.close_as_asked(close, cx);
        opened
    }

    /// What the log shows of who stands behind a proxy.
    pub(in crate::server) fn forwarded(&self) -> Option<&str> {
        self.extras.as_ref().and_then(|extras| extras.forwarded.as_deref())
    }

    /// Whether messages leave its deadline where it is.
    pub(in crate::server) fn keeps_its_deadline(&self) -> bool {
        self.extras.is_none()
    }

    /// How much to read when nothing has begun.
    pub(in crate::server) fn bytes_to_read(&self) -> usize {
        match self.read_size {
            ReadSize::Small => SMALL_READ_BYTES,
            ReadSize::Usual => limits::READ_BYTES_PER_TURN,
            ReadSize::Header => HEADER_READ_BYTES,
        }
    }

    /// How much to read in the middle of a message.
    pub(in crate::server) fn bytes_to_read_mid_message(&self) -> usize {
        match self.read_size {
            ReadSize::Small => SMALL_READ_BYTES,
            ReadSize::Usual | ReadSize::Header => limits::READ_BYTES_PER_TURN,
        }
    }

    /// Whether the peer is not read for now.
    pub(in crate::server) fn is_paused(&self, slow: Option<&Slow>, out_len: usize) -> bool {
        is_backed_up(slow, out_len) || self.is_full()
    }

    /// Frames in `buffer[from..to]`; returns how far they were used.
    pub(in crate::server) fn receive(
        &mut self,
        slow: &mut Option<Box<Slow>>,
        cx: &mut SocketCx<'_>,
        buffer: &mut [u8],
        (from, to): (usize, usize),
    ) -> (usize, Then) {
        self.keepalive.heard(cx.now);
        let enough = *cx.work + limits::WORK_PER_TURN;
        let mut at = from;
        let mut frames = 0..limits::FRAMES_PER_TURN;
        if slow.as_ref().is_none_or(|slow| slow.is_idle()) {
            match self.echo_short(&buffer[from..to], cx) {
                Ok(echoed) => {
                    at += echoed.used;
                    frames.start = echoed.frames();
                }
                Err(fault) => return (to, self.fail(fault, cx)),
            }
        }
        for _ in frames {
            match self.frame(slow, cx, buffer, (&mut at, to)) {
                Ok(Step::Again) if *cx.work < enough => {}
                Ok(Step::Again) => return (at, if at == to { Then::More } else { Then::Hold }),
                Ok(Step::Done(then)) => {
                    if self.read_size == ReadSize::Small && to - from >= SMALL_READ_BYTES {
                        self.read_size = ReadSize::Usual;
                    }
                    return (at, then);
                }
                Err(fault) => return (to, self.fail(fault, cx)),
            }
        }
        self.read_size = ReadSize::Small;
        (at, if at == to { Then::More } else { Then::Hold })
    }

    /// One frame, or what there is of it.
    fn frame(
        &mut self,
        slow: &mut Option<Box<Slow>>,
        cx: &mut SocketCx<'_>,
        buffer: &mut [u8],
        (at, to): (&mut usize, usize),
    ) -> Result<Step, Fault> {
        if let Some(unfinished) = slow.as_deref_mut()
            && (unfinished.skip > 0
                || unfinished.message.as_ref().is_some_and(|m| m.frame_left() > 0))
        {
            return self.go_on(unfinished, cx, &mut buffer[*at..to]).map(|used| {
                *at += used;
                if *at == to { Step::Done(Then::More) } else { Step::Again }
            });
        }
        if *at == to {
            return Ok(Step::Done(Then::More));
        }
        if self.is_paused(slow.as_deref(), cx.out.len()) {
            return Ok(Step::Done(Then::Hold));
        }
        let Some(header) = frame::parse(&buffer[*at..to])? else {
            return Ok(Step::Done(Then::More));
        };
        // RFC 7692 §6: the bit stands on the first frame of a message, if that was agreed.
        if header.compressed
            && (self.deflate.is_none() || !matches!(header.opcode, Opcode::Start(_)))
        {
            return Err(Fault::ReservedBits);
        }
        let start = *at + header.size;
        let end = usize::try_from(header.length).ok().and_then(|length| start.checked_add(length));
        let whole = end.filter(|&end| end <= to);
        match (header.opcode, whole) {
            (Opcode::Start(kind), Some(end)) if header.fin && self.phase_takes_messages() => {
                check_start(slow.as_deref(), &header, self.behaviour.sizes(), cx)?;
                let script = mask::unmask(&mut buffer[start..end], header.mask, 0);
                *at = end;
                if header.compressed {
                    self.compressed_message(kind, &buffer[start..end], cx)?;
                    return Ok(Step::Again);
                }
                frame::check_text(kind, script, &buffer[start..end])?;
                self.message_in_buffer(kind, buffer, (start, end), cx);
            }
            (Opcode::Start(_) | Opcode::Continuation, _) => {
                *at = start;
                self.begin_frame(slow, &header, cx)?;
            }
            // A control frame is handled whole; it is small enough to wait for.
            (Opcode::Close | Opcode::Ping | Opcode::Pong, None) => {
                return Ok(Step::Done(Then::More));
            }
            (Opcode::Close | Opcode::Ping | Opcode::Pong, Some(end)) => {
                *at = end;
                mask::unmask(&mut buffer[start..end], header.mask, 0);
                return self.control(header.opcode, &buffer[start..end], cx);
            }
        }
        Ok(Step::Again)
    }

    /// After our Close, what the peer still sends is of no interest (RFC 6455 §5.5.1).
    pub(in crate::server) fn phase_takes_messages(&self) -> bool {
        !matches!(self.phase, Phase::CloseSent { .. })
    }

    /// A data frame that is not whole, or not its message's only one.
    fn begin_frame(
        &mut self,
        slow: &mut Option<Box<Slow>>,
        header: &Header,
        cx: &mut SocketCx<'_>,
    ) -> Result<(), Fault> {
        if !self.phase_takes_messages() {
            slow.get_or_insert_default().skip = header.length;
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
                check_start(slow.as_deref(), header, sizes, cx)?;
                let limit = limit(header.compressed, sizes, cx);
                let message = Assembly::begin(kind, header, limit, cx.blocks)?;
                slow.get_or_insert_default().message = Some(message);
            }
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {
                let message = slow.as_mut().and_then(|slow| slow.message.as_mut());
                let message = message.ok_or(Fault::ContinuationAlone)?;
                if header.length > sizes.frame {
                    return Err(Fault::TooBig);
                }
                let limit = limit(message.compressed, sizes, cx);
                message.proceed(header, limit, cx.blocks)?;
            }
        }
        if let Some(slow) = slow {
            self.finish_if_whole(slow, cx)?;
        }
        Ok(())
    }

    /// More bytes of a data frame; returns how many were used.
    fn go_on(
        &mut self,
        slow: &mut Slow,
        cx: &mut SocketCx<'_>,
        bytes: &mut [u8],
    ) -> Result<usize, Fault> {
        let upto = |left: u64| bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if slow.skip > 0 {
            let used = upto(slow.skip);
            slow.skip -= used as u64;
            return Ok(used);
        }
        let Some(message) = &mut slow.message else { return Ok(0) };
        let used = upto(message.frame_left());
        message.absorb(&mut bytes[..used], cx.blocks)?;
        self.finish_if_whole(slow, cx)?;
        Ok(used)
    }

    /// `n` bytes were read straight into the message's own block.
    pub(in crate::server) fn receive_into_block(
        &mut self,
        slow: &mut Slow,
        cx: &mut SocketCx<'_>,
        n: usize,
    ) -> Then {
        self.keepalive.heard(cx.now);
        let Some(message) = &mut slow.message else { return Then::More };
        let absorbed = message.absorb_spare(n).and_then(|()| self.finish_if_whole(slow, cx));
        match absorbed {
            Ok(()) => Then::More,
            Err(fault) => self.fail(fault, cx),
        }
    }

    fn finish_if_whole(&mut self, slow: &mut Slow, cx: &mut SocketCx<'_>) -> Result<(), Fault> {
        let Some(message) = slow.message.take_if(|message| message.is_whole()) else {
            return Ok(());
        };
        let compressed = message.compressed;
        let (kind, block) = message.finish()?;
        if !self.phase_takes_messages() {
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

    /// Hands a message over, or keeps it for later.
    pub(in crate::server) fn take_message(
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
            Some(extras) => {
                match extras.take((kind, payload), (cx.now, cx.id), cx.means()) {
                    Some(Taken::Fatal) => {
                        // What follows of this read is ignored; the stream is gone after it.
                        self.phase =
                            Phase::CloseSent { until: Moment::at(cx.now.mono_ns), code: 1006 };
                        cx.act(Action::Reset(cx.id));
                        Answer::Nothing
                    }
                    Some(Taken::Later) => Answer::Nothing,
                    None => self.answer(kind, payload, cx),
                }
            }
            None => self.answer(kind, payload, cx),
        }
    }

    /// What the behaviour says to a message; the same message is for the caller to send.
    pub(in crate::server) fn answer(
        &mut self,
        kind: Kind,
        payload: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Answer {
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
                frame::write_fragmented(&mut cx.out.bytes, kind, payload);
                Answer::Nothing
            }
            answer => answer,
        }
    }

    fn has_fault(&self, fault: WireFault) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.fault == Some(fault))
    }

    pub(in crate::server) fn count_sent(
        &mut self,
        kind: Kind,
        bytes: usize,
        cx: &mut SocketCx<'_>,
    ) {
        self.tally.sent(bytes);
        cx.metrics.traffic.sent(kind, bytes);
    }

    /// A whole control frame (RFC 6455 §5.5).
    fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Result<Step, Fault> {
        match opcode {
            Opcode::Ping if self.phase_takes_messages() && !self.has_fault(WireFault::NoPong) => {
                frame::write_pong(&mut cx.out.bytes, payload);
                Ok(Step::Again)
            }
            Opcode::Close => {
                let (code, reason) = frame::parse_close(payload)?;
                if let Phase::CloseSent { code, .. } = self.phase {
                    return Ok(Step::Done(Then::Over(End { code, initiator: Initiator::Server })));
                }
                self.answer_delayed(cx);
                let mut ctx = cx.for_behaviour(&mut self.tally, self.deflate);
                self.behaviour.on_close(code, reason, &mut ctx);
                frame::write_close(&mut cx.out.bytes, code, reason);
                Ok(Step::Done(Then::Over(End { code, initiator: Initiator::Client })))
            }
            Opcode::Pong => {
                if let Some(round_trip_ns) = self.keepalive.answered(payload, cx.now) {
                    cx.metrics.ping_rtt.observe_ns(round_trip_ns);
                }
                Ok(Step::Again)
            }
            Opcode::Ping | Opcode::Start(_) | Opcode::Continuation => Ok(Step::Again),
        }
    }

    /// RFC 6455 §7.1.7: a fault of the peer ends the WebSocket, with a Close that names it.
    pub(in crate::server) fn fail(&mut self, fault: Fault, cx: &mut SocketCx<'_>) -> Then {
        let (code, reason) = (fault.close_code(), fault.reason());
        log::debug!(target: "fault", conn:% = cx.id, code, reason; "peer's fault");
        if self.phase_takes_messages() {
            self.answer_delayed(cx);
            frame::write_close(&mut cx.out.bytes, code, reason);
        }
        Then::Over(End { code, initiator: Initiator::Server })
    }
}

/// What to do after one frame.
enum Step {
    /// The next one.
    Again,
    /// Nothing for now.
    Done(Then),
}

/// A connection that must not grow old has its end in sight from the beginning.
fn first_phase(extras: Option<&Extras>, cx: &mut SocketCx<'_>) -> Phase {
    let asked_ms = extras.and_then(Extras::close_after_ms).map(|ms| (ms, CloseReason::Asked));
    let age = cx.config.max_age;
    let aged_ms =
        (age.ms > 0).then(|| (cx.rng.around(age.ms, age.jitter_percent), CloseReason::MaxAge));
    let first = asked_ms.into_iter().chain(aged_ms).min_by_key(|(ms, _)| *ms);
    first.map_or(Phase::Open, |(ms, why)| Phase::Ending { when: Moment::after(cx.now, ms), why })
}

/// RFC 6455 §5.4: no message begins inside of another. The size is refused at the header.
fn check_start(
    slow: Option<&Slow>,
    header: &Header,
    sizes: Sizes,
    cx: &SocketCx<'_>,
) -> Result<(), Fault> {
    if slow.is_some_and(|slow| slow.message.is_some()) {
        return Err(Fault::MessageInsideMessage);
    }
    if header.length > (limit(header.compressed, sizes, cx) as u64).min(sizes.frame) {
        return Err(Fault::TooBig);
    }
    Ok(())
}

/// What a message may have, all of its frames together.
fn limit(compressed: bool, sizes: Sizes, cx: &SocketCx<'_>) -> usize {
    let limit = cx.config.limits.max_message.min(sizes.message);
    if compressed { deflate::wire_limit(limit) } else { limit }
}
