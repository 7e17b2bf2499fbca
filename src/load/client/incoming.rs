//! What a client hears: frames, the messages that they make, and what those are.

use super::super::plan::{Answers, Pace, Partner};
use super::super::report::Outcome;
use super::super::words::{Beginning, Name};
use super::{Client, Cx, Stage, Wrong, masked};
use crate::engine::Action;
use crate::proto::frame::{self, Opcode};

/// The message that is arriving.
#[derive(Debug)]
pub(super) struct Incoming {
    left: u64,
    offset: usize,
    fin: bool,
    /// Its beginning, kept while it may be one that nobody asked for.
    unasked: Option<Beginning>,
    /// All of it, if it is compressed: it is read when all of it has come.
    pressed: Option<Vec<u8>>,
}

impl Client {
    /// Everything that is complete; returns how far it goes.
    pub(super) fn take(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
        let mut at = 0;
        loop {
            let used = match self.stage {
                Stage::Upgrading => self.answer(&bytes[at..], cx)?,
                Stage::Open | Stage::Goodbye
                    if self.incoming.as_ref().is_some_and(|i| i.left > 0) =>
                {
                    self.payload(&bytes[at..], cx)?
                }
                Stage::Open | Stage::Goodbye => self.frame(&bytes[at..], cx)?,
                Stage::Connecting | Stage::Over => bytes.len() - at,
            };
            if used == 0 {
                return Ok(at);
            }
            at += used;
        }
    }

    fn frame(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
        // Most messages are short, in one frame, and here as a whole.
        if let [0x81 | 0x82, length @ 0..=125, ref rest @ ..] = *bytes
            && let Some(message) = rest.get(..usize::from(length))
            && self.incoming.is_none()
        {
            return self.short_message(message, cx).map(|()| 2 + message.len());
        }
        // An echo that does not know frames sends back what a client sent, mask included.
        let plain = cx.shared.plan.partner == Partner::PlainEcho;
        let parsed = if plain { frame::parse(bytes) } else { frame::parse_server(bytes) };
        let Some(header) = parsed.map_err(|_| Wrong::Frame)? else { return Ok(0) };
        // RFC 7692 §6: the bit stands on the first frame of a message, if that was agreed.
        let fresh = matches!(header.opcode, Opcode::Start(_));
        if header.compressed && !(fresh && self.deflate.is_some()) {
            return Err(Wrong::Frame);
        }
        let (size, length) = (header.size, header.length);
        if matches!(header.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
            let end = usize::try_from(length).map_err(|_| Wrong::Frame)? + size;
            let Some(payload) = bytes.get(size..end) else { return Ok(0) };
            self.control(header.opcode, payload, cx)?;
            return Ok(end);
        }
        match &mut self.incoming {
            None if fresh && header.compressed => {
                let (left, fin) = (length, header.fin);
                let pressed = Some(Vec::new());
                self.incoming = Some(Incoming { left, offset: 0, fin, unasked: None, pressed });
            }
            None if fresh => {
                let name = Name::new(self.number, self.answered);
                let ours = cx.shared.plan.answers == Answers::Same
                    && length == cx.shared.words.length(&name) as u64
                    && self.under_way() > 0;
                let unasked = (!ours).then(Beginning::default);
                let (left, fin) = (length, header.fin);
                self.incoming = Some(Incoming { left, offset: 0, fin, unasked, pressed: None });
            }
            Some(incoming) if !fresh => (incoming.left, incoming.fin) = (length, header.fin),
            Some(_) | None => return Err(Wrong::Frame),
        }
        if length == 0 {
            self.finish_frame(cx)?;
        }
        Ok(size)
    }

    fn short_message(&mut self, message: &[u8], cx: &mut Cx<'_>) -> Result<(), Wrong> {
        let name = Name::new(self.number, self.answered);
        let words = &cx.shared.words;
        let ours = cx.shared.plan.answers == Answers::Same
            && message.len() == words.length(&name)
            && words.are(message, &name, 0);
        self.judge((!ours).then(|| Beginning::of(message)), cx)
    }

    /// Bytes of a message, compared where they lie.
    fn payload(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
        let Some(incoming) = &mut self.incoming else { return Ok(0) };
        let used = bytes.len().min(usize::try_from(incoming.left).unwrap_or(usize::MAX));
        let bytes = &bytes[..used];
        let name = Name::new(self.number, self.answered);
        if let Some(pressed) = &mut incoming.pressed {
            pressed.extend_from_slice(bytes);
            if pressed.len() > cx.shared.longest_pressed() {
                return Err(Wrong::Answer);
            }
        } else if incoming.unasked.is_none() && !cx.shared.words.are(bytes, &name, incoming.offset)
        {
            // An unasked message that happens to be as long as ours shows in its first bytes.
            if incoming.offset > 0 {
                return Err(Wrong::Answer);
            }
            incoming.unasked = Some(Beginning::default());
        }
        match &mut incoming.unasked {
            Some(beginning) => beginning.extend(bytes),
            // An answer that takes its time to come is no silence.
            None => self.waiting_ns = self.waiting_ns.map(|_| cx.now.mono_ns),
        }
        incoming.left -= used as u64;
        incoming.offset += used;
        if incoming.left == 0 {
            self.finish_frame(cx)?;
        }
        Ok(used)
    }

    fn finish_frame(&mut self, cx: &mut Cx<'_>) -> Result<(), Wrong> {
        let Some(incoming) = self.incoming.take_if(|incoming| incoming.fin) else { return Ok(()) };
        let unasked = match incoming.pressed {
            None => incoming.unasked,
            Some(pressed) => {
                let name = Name::new(self.number, self.answered);
                cx.shared.unpressed(&pressed, &name).map_err(|()| Wrong::Answer)?
            }
        };
        self.judge(unasked, cx)
    }

    /// What a message is: ours (`None`), or one that begins so.
    fn judge(&mut self, unasked: Option<Beginning>, cx: &mut Cx<'_>) -> Result<(), Wrong> {
        match (unasked, cx.shared.plan.answers) {
            (Some(beginning), _) if beginning.is_unasked() => cx.shared.report.unasked += 1,
            (Some(_), Answers::Same) => return Err(Wrong::Answer),
            (None, Answers::Same) if self.under_way() == 0 => return Err(Wrong::Answer),
            (_, Answers::Any) if self.under_way() == 0 => cx.shared.report.unasked += 1,
            (_, Answers::Any | Answers::Same) => self.count_answer(cx),
        }
        Ok(())
    }

    fn count_answer(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        let began_ns = match cx.shared.plan.pace {
            Pace::Closed { .. } => self.times.pop_front().unwrap_or(now_ns),
            Pace::Open { interval_ns } => self.due(self.answered, interval_ns),
        };
        self.answered += 1;
        self.waiting_ns = (self.under_way() > 0).then_some(now_ns);
        cx.shared.report.count_answer(self.server, now_ns.saturating_sub(began_ns), now_ns);
        match cx.shared.plan.pace {
            Pace::Closed { .. } => self.speak(cx),
            Pace::Open { .. } if self.due_ns.is_none() => self.keep_pace(cx),
            Pace::Open { .. } => {}
        }
        let plan = &cx.shared.plan;
        if self.answered >= plan.messages() && plan.ends_with_the_last_answer() {
            self.say_goodbye(cx);
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Wrong> {
        match opcode {
            Opcode::Ping => {
                masked(cx, 0x8a, payload.len(), |out, _| out.extend_from_slice(payload));
            }
            Opcode::Close => {
                let (code, _) = frame::parse_close(payload).map_err(|_| Wrong::Frame)?;
                match self.stage {
                    Stage::Open => {
                        masked(cx, 0x88, payload.len(), |out, _| out.extend_from_slice(payload));
                        self.outcome = Outcome::Dismissed(code);
                        self.ended_ns.get_or_insert(cx.now.mono_ns);
                        self.stage = Stage::Goodbye;
                        self.wait(cx);
                    }
                    Stage::Goodbye if self.outcome == Outcome::Broken => {
                        self.outcome = Outcome::Closed(code);
                    }
                    Stage::Goodbye | Stage::Connecting | Stage::Upgrading | Stage::Over => {}
                }
                if cx.shared.plan.partner == Partner::PlainEcho {
                    self.leave(Action::Close(cx.id), cx);
                }
            }
            Opcode::Pong | Opcode::Start(_) | Opcode::Continuation => {}
        }
        Ok(())
    }
}
