//! One connection of the probe: connect, one HTTP request or upgrade, then frames. It reports what
//! happened as [`Event`]s; what they mean is up to the experiments.

use core::fmt;

use crate::engine::{HangUp, Out};
use crate::outbox::{Blocks, Outbox};
use crate::proto::frame::{self, Fault, Header, Kind, Opcode};
use crate::proto::http::visible_ascii;
use crate::proto::http_client::{self, Answer, Asked, Head, Limits, Request};
use crate::proto::refusal::Refusal;
use crate::proto::talk;
use crate::proto::upgrade::{self, Ask, Pending, Reply};
use crate::time;

/// Time limit for connecting with TLS, and for the response, each.
const STEP_MS: u64 = 10_000;
/// Most bytes kept of a message; frames that do not fit are read and dropped.
const MESSAGE_MAX: usize = 128 * 1024;
/// The same for a connection whose messages are long.
const LONG_MESSAGE_MAX: usize = 2 << 20;
/// No Pong is queued behind so many bytes: a far end that does not read gets none.
const PONGS_MAX: usize = 16 * 1024;
/// Most bytes kept of a response's body.
const BODY_MAX: usize = 64 * 1024;
/// Most bytes kept of the page with which an upgrade is refused.
const PAGE_MAX: usize = 256;
const LIMITS: Limits = Limits { head_bytes: 32 * 1024, body_bytes: u64::MAX };

/// How a wspulse says that it has no room.
const BUSY: [Refusal; 4] =
    [Refusal::Full, Refusal::Draining, Refusal::Overloaded, Refusal::ProbesFull];

/// What a connection is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A WebSocket.
    Socket(Ask),
    /// One HTTP request, with a method and further fields.
    Request { method: &'static str, host: String, path: String },
    /// Bytes of another protocol: these are sent first, and what arrives is reported as it is.
    Raw(Vec<u8>),
}

/// The head and the body of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// The first field with this name.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// Why a wspulse has no room for this WebSocket now, in its words: that is not about the path.
    pub(super) fn busy(&self) -> Option<&'static str> {
        let sentences = BUSY.iter().map(|refusal| refusal.sentence());
        let said = |sentence: &&str| self.body.starts_with(sentence.as_bytes());
        sentences.filter(|_| self.status == Refusal::Full.status()).find(said)
    }

    fn note(&mut self, head: &Head<'_>) {
        self.status = head.status();
        let text = |value| visible_ascii(value).unwrap_or_default().to_owned();
        self.fields = head.fields().map(|(name, value)| (name.to_owned(), text(value))).collect();
    }
}

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// TCP and TLS are established.
    Connected,
    /// There will be no response; its head, if one arrived that is not valid.
    Failed(Failure, Response),
    /// A complete response that is not a successful upgrade.
    Answered(Response),
    /// The WebSocket is open.
    Opened(Response),
    /// A complete message, in this many frames.
    Message {
        kind: Kind,
        bytes: Vec<u8>,
        frames: u32,
        compressed: bool,
    },
    Ping,
    Pong,
    /// Bytes of [`Purpose::Raw`].
    Bytes(Vec<u8>),
    /// The end of an open connection. After a Close nothing else is reported.
    Ended(Ending),
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Connect(HangUp),
    ConnectTimedOut,
    ResponseTimedOut,
    /// The connection ended before the response was complete.
    CutOff,
    /// It ended after a valid 101, before any message.
    EndedAtOnce,
    /// The same with a Close of this code.
    ClosedAtOnce(u16),
    /// An invalid frame followed the 101.
    Invalid(&'static str),
    Upgrade(upgrade::Fault),
    Http(http_client::Fault),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(how) => how.fmt(f),
            Self::ConnectTimedOut => f.write_str("connecting timed out"),
            Self::ResponseTimedOut => f.write_str("no response within 10 s"),
            Self::CutOff => f.write_str("the connection ended without a response"),
            Self::EndedAtOnce => f.write_str("the connection ended right after the 101"),
            Self::ClosedAtOnce(code) => {
                write!(f, "the WebSocket was closed with code {code} right after the 101")
            }
            Self::Invalid(why) => write!(f, "an invalid frame follows the 101: {why}"),
            Self::Upgrade(fault) => fault.fmt(f),
            Self::Http(fault) => fault.fmt(f),
        }
    }
}

/// How an open WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a Close frame.
    Close(u16, String),
    /// With FIN, without a Close.
    Fin,
    /// With RST.
    Rst,
    /// The server sent an invalid frame.
    Invalid(&'static str),
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Asking(Box<Pending>),
    Requesting(Box<Answer>),
    Raw,
    Open,
    /// It is over; nothing further is reported.
    Ended,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// The experiment that it belongs to.
    pub(super) owner: usize,
    purpose: Purpose,
    stage: Stage,
    since_ns: u64,
    response: Response,
    input: Vec<u8>,
    message: Option<(Kind, bool, Vec<u8>, u32)>,
    sent_close: bool,
    message_max: usize,
    /// A frame that does not fit, and how many bytes of it are still to come.
    dropping: Option<(Header, u64)>,
    /// The protocol that TLS agreed on.
    pub(super) alpn: Option<Box<str>>,
    /// Output that the driver has not fetched yet.
    pub(super) output: Vec<u8>,
    pub(super) outbox: Outbox,
}

impl Wire {
    pub(super) fn new(owner: usize, purpose: Purpose, now_ns: u64) -> Self {
        Self {
            owner,
            purpose,
            stage: Stage::Connecting,
            since_ns: now_ns,
            response: Response::default(),
            input: Vec::new(),
            message: None,
            sent_close: false,
            message_max: MESSAGE_MAX,
            dropping: None,
            alpn: None,
            output: Vec::new(),
            outbox: Outbox::default(),
        }
    }

    /// Long messages are expected.
    pub(super) fn allow_long(&mut self) {
        self.message_max = LONG_MESSAGE_MAX;
    }

    /// When the current step times out.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        match self.stage {
            Stage::Connecting | Stage::Asking(_) | Stage::Requesting(_) => {
                Some(self.since_ns.saturating_add(time::ms(STEP_MS)))
            }
            Stage::Raw | Stage::Open | Stage::Ended => None,
        }
    }

    pub(super) fn time_out(&mut self) -> Event {
        let connecting = matches!(self.stage, Stage::Connecting);
        self.stage = Stage::Ended;
        let failure = if connecting { Failure::ConnectTimedOut } else { Failure::ResponseTimedOut };
        Event::Failed(failure, Response::default())
    }

    /// The connection is established: sends the request. The nonce is for the upgrade's key.
    pub(super) fn connected(
        &mut self,
        how: Result<(), HangUp>,
        (now_ns, nonce): (u64, u128),
    ) -> Event {
        if let Err(how) = how {
            self.stage = Stage::Ended;
            return Event::Failed(Failure::Connect(how), Response::default());
        }
        self.since_ns = now_ns;
        self.stage = match &self.purpose {
            Purpose::Raw(first) => {
                self.output.extend_from_slice(first);
                Stage::Raw
            }
            Purpose::Socket(ask) => match ask.write(nonce.to_ne_bytes(), &mut self.output) {
                Ok(pending) => Stage::Asking(Box::new(pending)),
                Err(_) => Stage::Ended,
            },
            Purpose::Request { method, host, path } => {
                let fields = [("Accept", "*/*"), ("Connection", "close")];
                let (fields, body) = (&fields[..], &b""[..]);
                let request = Request { method, target: path, host, fields, body };
                match request.write(&mut self.output) {
                    Ok(()) => Stage::Requesting(Box::new(Answer::new(Asked::Ordinary, LIMITS))),
                    Err(_) => Stage::Ended,
                }
            }
        };
        match self.stage {
            Stage::Ended => Event::Failed(Failure::CutOff, Response::default()),
            _ => Event::Connected,
        }
    }

    pub(super) fn received(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) {
        match &mut self.stage {
            Stage::Asking(pending) => {
                let Purpose::Socket(ask) = &self.purpose else { return };
                let response = &mut self.response;
                match pending.read_noting(ask, &mut bytes, |head| response.note(head)) {
                    Ok(None) => return,
                    Ok(Some(Reply::Open(_))) => {
                        self.stage = Stage::Open;
                        events.push(Event::Opened(std::mem::take(&mut self.response)));
                    }
                    Ok(Some(Reply::Refused(_))) => {
                        self.stage = Stage::Ended;
                        // The page of an error names the hop, if it arrives with the head.
                        let page = &bytes[..bytes.len().min(PAGE_MAX)];
                        self.response.body.extend_from_slice(page);
                        events.push(Event::Answered(std::mem::take(&mut self.response)));
                    }
                    Err(fault) => return self.fail(Failure::Upgrade(fault), events),
                }
            }
            Stage::Requesting(_) => return self.respond(bytes, events),
            Stage::Raw => return events.push(Event::Bytes(bytes.to_vec())),
            Stage::Open => {}
            Stage::Connecting | Stage::Ended => return,
        }
        if matches!(self.stage, Stage::Open) {
            self.input.extend_from_slice(bytes);
            self.frames(events);
        }
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.stage = Stage::Ended;
        events.push(Event::Failed(failure, std::mem::take(&mut self.response)));
    }

    fn respond(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) {
        let Stage::Requesting(answer) = &mut self.stage else { return };
        loop {
            match answer.next(&mut bytes) {
                Ok(Some(http_client::Event::Head(head))) => self.response.note(&head),
                Ok(Some(http_client::Event::Body(piece))) => {
                    let room = BODY_MAX.saturating_sub(self.response.body.len());
                    self.response.body.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                Ok(Some(http_client::Event::End(_))) => {
                    self.stage = Stage::Ended;
                    return events.push(Event::Answered(std::mem::take(&mut self.response)));
                }
                Ok(None) => return,
                Err(fault) => return self.fail(Failure::Http(fault), events),
            }
        }
    }

    /// Reports the complete frames of the input.
    fn frames(&mut self, events: &mut Vec<Event>) {
        let mut at = 0;
        while matches!(self.stage, Stage::Open) {
            if let Some((header, left)) = self.dropping.take() {
                let here = left.min((self.input.len() - at) as u64);
                at += here as usize;
                if here < left {
                    self.dropping = Some((header, left - here));
                    break;
                }
                if let Err(fault) = self.frame(&header, &[], events) {
                    return self.end(Ending::Invalid(fault.reason()), events);
                }
                continue;
            }
            let header = match frame::parse_server(&self.input[at..]) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(fault) => return self.end(Ending::Invalid(fault.reason()), events),
            };
            let start = at + header.size;
            if header.length > self.message_max as u64 {
                self.dropping = Some((header, header.length));
                at = start;
                continue;
            }
            let end = start + header.length as usize;
            let Some(payload) = self.input.get(start..end) else { break };
            let payload = payload.to_vec();
            at = end;
            if let Err(fault) = self.frame(&header, &payload, events) {
                return self.end(Ending::Invalid(fault.reason()), events);
            }
        }
        self.input.drain(..at);
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        match header.opcode {
            Opcode::Ping => {
                if self.output.len() + self.outbox.len() < PONGS_MAX {
                    self.write(talk::PONG, payload);
                }
                events.push(Event::Ping);
            }
            Opcode::Pong => events.push(Event::Pong),
            Opcode::Close => {
                let (code, reason) = frame::parse_close(payload)?;
                let ending = Ending::Close(code, reason.to_owned());
                let echo = if code == 1005 { &[][..] } else { &payload[..2] };
                if !self.sent_close {
                    self.write(talk::CLOSE, echo);
                }
                self.end(ending, events);
            }
            Opcode::Start(_) | Opcode::Continuation => {
                let (kind, compressed, mut bytes, frames) =
                    match (header.opcode, self.message.take()) {
                        (Opcode::Start(kind), None) => (kind, header.compressed, Vec::new(), 0),
                        (Opcode::Continuation, Some(message)) => message,
                        (Opcode::Start(_), Some(_)) => return Err(Fault::MessageInsideMessage),
                        _ => return Err(Fault::ContinuationAlone),
                    };
                if bytes.len() + payload.len() <= self.message_max {
                    bytes.extend_from_slice(payload);
                }
                let frames = u32::saturating_add(frames, 1);
                if header.fin {
                    events.push(Event::Message { kind, bytes, frames, compressed });
                } else {
                    self.message = Some((kind, compressed, bytes, frames));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, ending: Ending, events: &mut Vec<Event>) {
        self.stage = Stage::Ended;
        events.push(Event::Ended(ending));
    }

    /// The reading side ended.
    pub(super) fn ended(&mut self, how: HangUp, events: &mut Vec<Event>) {
        match &mut self.stage {
            Stage::Requesting(answer) => {
                if how == HangUp::Eof && answer.ended().is_ok() {
                    self.stage = Stage::Ended;
                    events.push(Event::Answered(std::mem::take(&mut self.response)));
                } else {
                    self.fail(Failure::CutOff, events);
                }
            }
            Stage::Connecting | Stage::Asking(_) => self.fail(Failure::CutOff, events),
            Stage::Open | Stage::Raw => {
                let fin = how == HangUp::Eof;
                self.end(if fin { Ending::Fin } else { Ending::Rst }, events);
            }
            Stage::Ended => {}
        }
    }

    /// Queues a frame; the mask is constant, since no intermediary is to be protected from us.
    pub(super) fn write(&mut self, first: u8, payload: &[u8]) {
        self.sent_close |= first == talk::CLOSE;
        talk::write(&mut self.output, first, [0x5a, 0xc3, 0x17, 0x88], payload.len(), |out| {
            out.extend_from_slice(payload);
        });
    }

    pub(super) fn render(&mut self, out: &mut Out) {
        out.bytes.append(&mut self.output);
    }

    pub(super) fn keep(&mut self, shared: &[u8], out: &mut Out, taken: usize) {
        self.outbox.keep(out, shared, taken, &mut Blocks::default(), 0);
    }
}
