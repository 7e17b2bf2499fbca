//! Incoming frames of a client, the messages that they form, and their classification.

use super::super::outcome::Outcome;
use super::super::payloads::{MessageId, Prefix};
use super::super::plan::{Answers, Pace, ServerKind};
use super::{Client, Cx, Failure, Stage, masked};
use crate::engine::Action;
use crate::proto::frame::{self, Opcode};

/// A message of which not all has arrived.
#[derive(Debug)]
pub(super) struct Incoming {
    left: u64,
    offset: usize,
    fin: bool,
    /// Its first bytes; `None` while it may be the answer.
    unasked: Option<Prefix>,
    /// A compressed message, which is inflated when it is complete.
    compressed: Option<Vec<u8>>,
}

impl Client {
    /// Processes all complete frames; returns the number of bytes used.
    pub(super) fn take(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Failure> {
        let mut at = 0;
        loop {
            let used = match self.stage {
                Stage::Upgrading => self.upgraded(&bytes[at..], cx)?,
                Stage::Open | Stage::Closing
                    if self.incoming.as_ref().is_some_and(|i| i.left > 0) =>
                {
                    self.payload(&bytes[at..], cx)?
                }
                Stage::Open | Stage::Closing => self.frame(&bytes[at..], cx)?,
                Stage::Connecting | Stage::Ended => bytes.len() - at,
            };
            if used == 0 {
                return Ok(at);
            }
            at += used;
        }
    }

    fn frame(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Failure> {
        // Fast path: a short, complete, unfragmented message.
        if let [0x81 | 0x82, length @ 0..=125, ref rest @ ..] = *bytes
            && let Some(message) = rest.get(..usize::from(length))
            && self.incoming.is_none()
        {
            return self.short_message(message, cx).map(|()| 2 + message.len());
        }
        // A plain echo returns the client's own frames, with their masks.
        let plain = cx.shared.plan.server_kind == ServerKind::PlainEcho;
        let parsed = if plain { frame::parse(bytes) } else { frame::parse_server(bytes) };
        let Some(header) = parsed.map_err(|_| Failure::Frame)? else { return Ok(0) };
        // RFC 7692 §6: RSV1 is set only on the first frame of a message, if compression was agreed.
        let fresh = matches!(header.opcode, Opcode::Start(_));
        if header.compressed && !(fresh && self.deflate.is_some()) {
            return Err(Failure::Frame);
        }
        let (size, length) = (header.size, header.length);
        if matches!(header.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
            let end = usize::try_from(length).map_err(|_| Failure::Frame)? + size;
            let Some(payload) = bytes.get(size..end) else { return Ok(0) };
            self.control(header.opcode, payload, cx)?;
            return Ok(end);
        }
        match &mut self.incoming {
            None if fresh && header.compressed => {
                let (left, fin) = (length, header.fin);
                let compressed = Some(Vec::new());
                self.incoming = Some(Incoming { left, offset: 0, fin, unasked: None, compressed });
            }
            None if fresh => {
                let id = MessageId::new(self.number, self.answered);
                let whole = cx.shared.payloads.length(&id) as u64;
                // Of a fragmented message, the length is known at its end.
                let fits = if header.fin { length == whole } else { length <= whole };
                let expects = cx.shared.plan.answers == Answers::Same && self.in_flight() > 0;
                let ours = fits && expects;
                let unasked = (!ours).then(Prefix::default);
                let (left, fin) = (length, header.fin);
                self.incoming = Some(Incoming { left, offset: 0, fin, unasked, compressed: None });
            }
            Some(incoming) if !fresh => (incoming.left, incoming.fin) = (length, header.fin),
            Some(_) | None => return Err(Failure::Frame),
        }
        if length == 0 {
            self.finish_frame(cx)?;
        }
        Ok(size)
    }

    fn short_message(&mut self, message: &[u8], cx: &mut Cx<'_>) -> Result<(), Failure> {
        let id = MessageId::new(self.number, self.answered);
        let payloads = &cx.shared.payloads;
        let ours = cx.shared.plan.answers == Answers::Same
            && message.len() == payloads.length(&id)
            && payloads.matches(message, &id, 0);
        self.classify((!ours).then(|| Prefix::of(message)), cx)
    }

    /// Checks payload bytes in place, without a copy.
    fn payload(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Failure> {
        let Some(incoming) = &mut self.incoming else { return Ok(0) };
        let used = bytes.len().min(usize::try_from(incoming.left).unwrap_or(usize::MAX));
        let bytes = &bytes[..used];
        let id = MessageId::new(self.number, self.answered);
        if let Some(compressed) = &mut incoming.compressed {
            compressed.extend_from_slice(bytes);
            if compressed.len() > cx.shared.compressed_max() {
                return Err(Failure::Inflate);
            }
        } else if incoming.unasked.is_none()
            && !cx.shared.payloads.matches(bytes, &id, incoming.offset)
        {
            // An unsolicited message of the answer's length differs in its first bytes.
            if incoming.offset > 0 {
                return Err(Failure::Answer);
            }
            incoming.unasked = Some(Prefix::default());
        }
        match &mut incoming.unasked {
            Some(prefix) => prefix.extend(bytes),
            // A slow answer is not a missing one. It does not extend the close handshake.
            None if self.stage == Stage::Open => self.waiting_ns = Some(cx.now.mono_ns),
            None => {}
        }
        incoming.left -= used as u64;
        incoming.offset += used;
        if incoming.left == 0 {
            self.finish_frame(cx)?;
        }
        Ok(used)
    }

    fn finish_frame(&mut self, cx: &mut Cx<'_>) -> Result<(), Failure> {
        let Some(incoming) = self.incoming.take_if(|incoming| incoming.fin) else { return Ok(()) };
        let id = MessageId::new(self.number, self.answered);
        let unasked = match incoming.compressed {
            None if incoming.unasked.is_none()
                && incoming.offset != cx.shared.payloads.length(&id) =>
            {
                return Err(Failure::Answer);
            }
            None => incoming.unasked,
            Some(compressed) => {
                cx.shared.inflate(&compressed, &id).map_err(|()| Failure::Inflate)?
            }
        };
        self.classify(unasked, cx)
    }

    /// Classifies a message: the answer (`None`), or another one with this prefix.
    fn classify(&mut self, unasked: Option<Prefix>, cx: &mut Cx<'_>) -> Result<(), Failure> {
        match (unasked, cx.shared.plan.answers) {
            (Some(prefix), _) if prefix.is_unasked() => cx.shared.report.unasked += 1,
            (Some(prefix), _) if prefix.is_failure() && self.in_flight() > 0 => {
                cx.shared.report.failed += 1;
                self.sent_ns.pop_front();
                self.next_message(cx);
            }
            (Some(_), Answers::Same) => return Err(Failure::Answer),
            (None, Answers::Same) if self.in_flight() == 0 => return Err(Failure::Answer),
            (_, Answers::Any) if self.in_flight() == 0 => cx.shared.report.unasked += 1,
            (_, Answers::Any | Answers::Same) => self.count_answer(cx),
        }
        Ok(())
    }

    fn count_answer(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        let start_ns = match cx.shared.plan.pace {
            Pace::Closed { .. } => self.sent_ns.pop_front().unwrap_or(now_ns),
            Pace::Open { interval_ns } => self.earlier.due(self.answered, interval_ns),
        };
        cx.shared.report.count_answer(self.server, now_ns.saturating_sub(start_ns), now_ns);
        self.next_message(cx);
    }

    /// A message is not in flight any more: sends the next one, or closes after the last.
    fn next_message(&mut self, cx: &mut Cx<'_>) {
        self.answered += 1;
        if self.stage == Stage::Open {
            self.waiting_ns = (self.in_flight() > 0).then_some(cx.now.mono_ns);
        }
        match cx.shared.plan.pace {
            Pace::Closed { .. } => self.send_next(cx),
            Pace::Open { .. } if self.due_ns.is_none() => self.send_due(cx),
            Pace::Open { .. } => {}
        }
        if cx.shared.ends_with_answers && self.in_flight() == 0 && self.sent >= cx.shared.messages {
            self.close(cx);
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Failure> {
        match opcode {
            Opcode::Ping if self.pongs.has_room(payload.len()) => {
                masked(cx, 0x8a, payload.len(), |out, _| out.extend_from_slice(payload));
            }
            Opcode::Close => {
                let (code, _) = frame::parse_close(payload).map_err(|_| Failure::Frame)?;
                match self.stage {
                    Stage::Open => {
                        masked(cx, 0x88, payload.len(), |out, _| out.extend_from_slice(payload));
                        self.outcome = Outcome::ClosedEarly(code);
                        self.ended_ns.get_or_insert(cx.now.mono_ns);
                        self.stage = Stage::Closing;
                        self.wait(cx);
                    }
                    Stage::Closing if self.outcome == Outcome::Broken => {
                        self.outcome = Outcome::Closed(code);
                    }
                    Stage::Closing | Stage::Connecting | Stage::Upgrading | Stage::Ended => {}
                }
                if cx.shared.plan.server_kind == ServerKind::PlainEcho {
                    self.finish(Action::Close(cx.id), cx);
                }
            }
            Opcode::Ping | Opcode::Pong | Opcode::Start(_) | Opcode::Continuation => {}
        }
        Ok(())
    }
}
