//! One client: connect, upgrade, speak, compare, close.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Shared;
use super::plan::Partner;
use super::pressed;
use super::report::{Outcome, Why};
use super::words::{self, Name};
use crate::behaviours::Kind;
use crate::engine::{Action, HangUp, Id, Now, Out};
use crate::outbox::{Blocks, Outbox};
use crate::proto::deflate::Agreed;
use crate::proto::frame::{self, CONTROL_MAX};
use crate::time::{self, Moment};

/// An answer to the upgrade is no longer than this.
const HEAD_BYTES: usize = 8 * 1024;
/// The key of the RFC's example: any key will do, and its answer is known.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a client can reach.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) id: Id,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Out,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    number: u64,
    stage: Stage,
    outcome: Outcome,
    heard: Option<Moment>,
    sent: u64,
    answered: u64,
    /// The beginning of a head or of a frame.
    input: Vec<u8>,
    incoming: Option<Incoming>,
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

/// The message that is arriving.
#[derive(Debug)]
struct Incoming {
    left: u64,
    offset: usize,
    fin: bool,
    /// Its beginning, kept while it may be one that nobody asked for.
    unasked: Option<Vec<u8>>,
    /// All of it, if it is compressed: it is read when all of it has come.
    pressed: Option<Vec<u8>>,
}

/// An answer that is none.
struct Wrong;

impl Client {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            stage: Stage::Connecting,
            outcome: Outcome::NotConnected(Why::CutOff),
            heard: None,
            sent: 0,
            answered: 0,
            input: Vec::new(),
            incoming: None,
            deflate: None,
            outbox: Outbox::default(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
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

    pub(super) fn connected(&mut self, how: Result<(), HangUp>, cx: &mut Cx<'_>) {
        if let Err(how) = how {
            self.outcome = Outcome::NotConnected(how.into());
            return self.leave(Action::Close(cx.id), cx);
        }
        self.hear(cx);
        self.watch(cx);
        let plan = &cx.shared.plan;
        if plan.partner == Partner::PlainEcho {
            return self.open(cx);
        }
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{}\r\n",
            plan.path,
            plan.host,
            match plan.extensions.as_str() {
                "" => String::new(),
                offers => format!("Sec-WebSocket-Extensions: {offers}\r\n"),
            }
        );
        cx.out.bytes.extend_from_slice(head.as_bytes());
        self.stage = Stage::Upgrading;
    }

    fn open(&mut self, cx: &mut Cx<'_>) {
        cx.shared.report.opened += 1;
        self.stage = Stage::Open;
        self.outcome = Outcome::Broken;
        for _ in 0..cx.shared.plan.depth {
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
        self.hear(cx);
        let bytes = &shared[..self.input.len() + n];
        self.input = Vec::new();
        if let Ok(used) = self.take(bytes, cx) {
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            self.outcome = Outcome::Wrong;
            self.leave(Action::Reset(cx.id), cx);
        }
    }

    /// Everything that is complete; returns how far it goes.
    fn take(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
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

    /// The answer to the upgrade.
    fn answer(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let used = match response.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES => return Ok(0),
            Ok(httparse::Status::Partial) | Err(_) => return Err(Wrong),
        };
        let status = response.code.unwrap_or(0);
        if status != 101 {
            self.outcome = Outcome::Refused(status);
            self.leave(Action::Close(cx.id), cx);
            return Ok(bytes.len());
        }
        let accepted = response.headers.iter().any(|field| {
            field.name.eq_ignore_ascii_case("sec-websocket-accept")
                && field.value == ACCEPT.as_bytes()
        });
        if !accepted {
            return Err(Wrong);
        }
        let mut fields = response.headers.iter();
        if let Some(answer) =
            fields.find(|field| field.name.eq_ignore_ascii_case("sec-websocket-extensions"))
        {
            // RFC 6455 §4.1: nothing that was not offered.
            let offered = !cx.shared.plan.extensions.is_empty();
            self.deflate = pressed::agreed(answer.value).filter(|_| offered);
            self.deflate.ok_or(Wrong)?;
        }
        self.open(cx);
        Ok(used)
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
    }

    fn frame(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<usize, Wrong> {
        let mut cursor = Cursor::new(bytes);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Wrong)? else {
            return Ok(0);
        };
        // No mask and no reserved bit: that is what a server may send (RFC 6455 §5.1, §5.2), but
        // for the one that says that a message is compressed (RFC 7692 §6).
        let plain = cx.shared.plan.partner == Partner::PlainEcho;
        let fresh = matches!(header.opcode, OpCode::Data(data) if data != Data::Continue);
        let rsv1 = header.rsv1 && !(fresh && self.deflate.is_some());
        if header.mask.is_some() != plain || rsv1 || header.rsv2 || header.rsv3 {
            return Err(Wrong);
        }
        let size = cursor.position() as usize;
        if let OpCode::Control(control) = header.opcode {
            let end =
                usize::try_from(length).ok().filter(|&n| n <= CONTROL_MAX).ok_or(Wrong)? + size;
            let Some(payload) = bytes.get(size..end) else { return Ok(0) };
            self.control(control, payload, cx)?;
            return Ok(end);
        }
        match &mut self.incoming {
            None if fresh && header.rsv1 => {
                let (left, fin) = (length, header.is_final);
                let pressed = Some(Vec::new());
                self.incoming = Some(Incoming { left, offset: 0, fin, unasked: None, pressed });
            }
            None if fresh => {
                let name = Name::new(self.number, self.answered);
                let ours =
                    length == cx.shared.words.length(&name) as u64 && self.answered < self.sent;
                let unasked = (!ours).then(Vec::new);
                let (left, fin) = (length, header.is_final);
                self.incoming = Some(Incoming { left, offset: 0, fin, unasked, pressed: None });
            }
            Some(incoming) if !fresh => (incoming.left, incoming.fin) = (length, header.is_final),
            Some(_) | None => return Err(Wrong),
        }
        if length == 0 {
            self.finish_frame(cx)?;
        }
        Ok(size)
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
                return Err(Wrong);
            }
        } else if incoming.unasked.is_none() && !cx.shared.words.are(bytes, &name, incoming.offset)
        {
            // An unasked message that happens to be as long as ours shows in its first bytes.
            if incoming.offset > 0 {
                return Err(Wrong);
            }
            incoming.unasked = Some(Vec::new());
        }
        if let Some(beginning) = &mut incoming.unasked {
            let wanted = 32_usize.saturating_sub(beginning.len()).min(used);
            beginning.extend_from_slice(&bytes[..wanted]);
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
                cx.shared.unpressed(&pressed, &name).map_err(|()| Wrong)?
            }
        };
        match unasked {
            Some(beginning) if words::is_unasked(&beginning) => cx.shared.report.unasked += 1,
            Some(_) => return Err(Wrong),
            None if self.answered >= self.sent => return Err(Wrong),
            None => {
                self.answered += 1;
                cx.shared.report.answered += 1;
                self.speak(cx);
                let plan = &cx.shared.plan;
                if self.answered >= plan.messages() && plan.ends_with_the_last_answer() {
                    self.say_goodbye(cx);
                }
            }
        }
        Ok(())
    }

    fn control(&mut self, control: Control, payload: &[u8], cx: &mut Cx<'_>) -> Result<(), Wrong> {
        match control {
            Control::Ping => {
                masked(cx, 0x8a, payload.len(), |out, _| out.extend_from_slice(payload));
            }
            Control::Close => {
                let (code, _) = frame::parse_close(payload).map_err(|_| Wrong)?;
                if self.stage == Stage::Open {
                    masked(cx, 0x88, payload.len(), |out, _| out.extend_from_slice(payload));
                }
                self.outcome = Outcome::Closed(code);
                self.stage = Stage::Goodbye;
                if cx.shared.plan.partner == Partner::PlainEcho {
                    self.leave(Action::Close(cx.id), cx);
                }
            }
            Control::Pong => {}
            Control::Reserved(_) => return Err(Wrong),
        }
        Ok(())
    }

    /// Begins the close handshake, if it is open and has not.
    pub(super) fn say_goodbye(&mut self, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Open => {
                masked(cx, 0x88, 2, |out, _| out.extend_from_slice(&1000_u16.to_be_bytes()));
                self.stage = Stage::Goodbye;
            }
            Stage::Upgrading => self.leave(Action::Close(cx.id), cx),
            Stage::Connecting | Stage::Goodbye | Stage::Over => {}
        }
    }

    pub(super) fn ended(&mut self, how: HangUp, cx: &mut Cx<'_>) {
        // Whoever has said its last word will not take what we still have to say.
        let unheard = !self.outbox.is_empty() || how != HangUp::Eof;
        if self.stage != Stage::Over {
            let action = if unheard { Action::Reset(cx.id) } else { Action::Close(cx.id) };
            self.leave(action, cx);
        }
    }

    /// Looks whether anything has come in time.
    pub(super) fn wake(&mut self, cx: &mut Cx<'_>) {
        let patience_ms = cx.shared.plan.patience_ms;
        if self.heard.is_some_and(|heard| heard.ms_ago(cx.now) >= patience_ms)
            && self.stage != Stage::Over
        {
            if !matches!(self.outcome, Outcome::Closed(_)) {
                self.outcome = Outcome::Silent;
            }
            return self.leave(Action::Reset(cx.id), cx);
        }
        self.watch(cx);
    }

    fn hear(&mut self, cx: &Cx<'_>) {
        self.heard = Some(Moment::at(cx.now.mono_ns));
    }

    fn watch(&self, cx: &mut Cx<'_>) {
        if let Some(heard) = self.heard {
            let until_ns = heard.ns(cx.now) + time::ms(cx.shared.plan.patience_ms);
            cx.shared.timers.set(cx.id.key, until_ns);
        }
    }

    fn leave(&mut self, action: Action, cx: &mut Cx<'_>) {
        self.stage = Stage::Over;
        cx.shared.timers.cancel(cx.id.key);
        cx.shared.actions.push_back(action);
    }
}

/// Appends a masked frame (RFC 6455 §5.3).
fn masked(
    cx: &mut Cx<'_>,
    first: u8,
    length: usize,
    payload: impl FnOnce(&mut Vec<u8>, &words::Words),
) {
    let Shared { rng, words, plan, .. } = &mut *cx.shared;
    let mask = match plan.partner {
        Partner::WebSocket => (rng.below(1 << 32) as u32).to_ne_bytes(),
        Partner::PlainEcho => [0; 4],
    };
    let (mut header, size) = frame::message_header(Kind::Text, length);
    header[0] = first;
    header[1] |= 0x80;
    let out = &mut cx.out.bytes;
    out.extend_from_slice(&header[..size]);
    out.extend_from_slice(&mask);
    let start = out.len();
    payload(out, words);
    frame::unmask(&mut out[start..], mask, 0);
}
