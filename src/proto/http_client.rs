//! The one HTTP/1.1 client: a request becomes bytes, the bytes of its answer become events,
//! the same ones wherever they are cut. Strict where two readers of one answer could disagree about
//! where it ends. It knows no connection and no time; whoever has those ends what takes too long.

mod fault;
mod head;

use super::chunks::{Bounds, Broken, Chunks, ENDLESS, Found};
use super::http::{Persistence, is_host, is_text, is_token};
pub use fault::{Fault, Unsendable};
pub use head::Head;

/// Heads that announce another one (RFC 9110 §15.2); more of them are no answer.
const INTERIM_MAX: u8 = 8;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, or any other.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Whom: `host` or `host:port`.
    pub host: &'a str,
    /// Further fields. How long the body is follows from the body.
    pub fields: &'a [(&'a str, &'a str)],
    /// What is sent along, perhaps nothing.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Appends its bytes, or nothing when it has a part that would be read as something else.
    ///
    /// # Errors
    /// Which part that is.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Unsendable> {
        self.check()?;
        let mut line = |parts: &[&str]| {
            for part in parts.iter().chain(&["\r\n"]) {
                out.extend_from_slice(part.as_bytes());
            }
        };
        line(&[self.method, " ", self.target, " HTTP/1.1"]);
        line(&["Host: ", self.host]);
        for (name, value) in self.fields {
            line(&[name, ": ", value]);
        }
        // A server may wait for the body of a method that usually has one (RFC 9110 §8.6).
        if !self.body.is_empty() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            line(&["Content-Length: ", &self.body.len().to_string()]);
        }
        line(&[]);
        out.extend_from_slice(self.body);
        Ok(())
    }

    fn check(&self) -> Result<(), Unsendable> {
        if !is_token(self.method.as_bytes()) {
            return Err(Unsendable::Method);
        }
        if self.target.is_empty() || !self.target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Unsendable::Target);
        }
        if self.host.is_empty() || !is_host(self.host) {
            return Err(Unsendable::Host);
        }
        let ours = ["host", "content-length", "transfer-encoding"];
        let sound = |(name, value): &(&str, &str)| {
            is_token(name.as_bytes())
                && !ours.iter().any(|ours| name.eq_ignore_ascii_case(ours))
                && value.bytes().all(is_text)
        };
        if self.fields.iter().all(sound) { Ok(()) } else { Err(Unsendable::Field) }
    }

    /// What of its answer depends on the question.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let upgrade = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("upgrade");
        match self.method {
            "HEAD" => Asked::Head,
            _ if self.fields.iter().any(upgrade) => Asked::Upgrade,
            _ => Asked::Ordinary,
        }
    }
}

/// What of an answer depends on the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing does.
    Ordinary,
    /// `HEAD`: there is no body, whatever its head says.
    Head,
    /// A 101 may come: then HTTP ends with its head.
    Upgrade,
}

/// How much of an answer is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Each head with its blank line, and likewise the trailer.
    pub head_bytes: usize,
    /// The body, its chunks' frames not counted; `u64::MAX` for one that never ends.
    pub body_bytes: u64,
}

/// A part of an answer.
#[derive(Debug)]
pub enum Event<'e> {
    /// First this.
    Head(Head<'e>),
    /// Then these, as they come; where they are cut has no meaning.
    Body(&'e [u8]),
    /// Last this: whether the connection can be used again. Bytes that follow were not asked for;
    /// if there are any, it cannot.
    End(Persistence),
}

/// One answer as it arrives.
#[derive(Debug)]
pub struct Answer {
    asked: Asked,
    limits: Limits,
    state: State,
    persistence: Persistence,
    interim: u8,
    /// The beginning of a head that is not there as a whole.
    head: Vec<u8>,
    /// Bytes of the head's present line.
    line_bytes: usize,
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Length(u64),
    Chunks(Chunks),
    /// Until the connection ends; so many bytes are taken.
    Close(u64),
    /// All is there; that has not been said.
    End,
    Over,
    Failed(Fault),
}

/// What came next.
enum Step {
    Waiting,
    /// A head that ends here; its beginning is kept, or it lies in the bytes as a whole.
    Head {
        end: usize,
        kept: bool,
    },
    /// A stretch of the body: behind so many bytes, so many of them.
    Body {
        skip: usize,
        len: usize,
    },
    End,
}

impl Answer {
    /// The answer to a question, of which nothing has come yet.
    #[must_use]
    pub fn new(asked: Asked, limits: Limits) -> Self {
        Self {
            asked,
            limits,
            state: State::Head,
            persistence: Persistence::Close,
            interim: 0,
            head: Vec::new(),
            line_bytes: 0,
        }
    }

    /// The next event in `bytes`, which it takes off their front. `None`: more bytes are needed,
    /// or the answer is over and what is left of `bytes` does not belong to it.
    ///
    /// # Errors
    /// What is wrong with the answer: nothing more of it can be read.
    pub fn next<'e, 'b: 'e>(
        &'e mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Event<'e>>, Fault> {
        if !matches!(self.state, State::Head) {
            self.head = Vec::new();
        }
        let step = match self.step(bytes) {
            Ok(step) => step,
            Err(fault) => {
                self.state = State::Failed(fault);
                return Err(fault);
            }
        };
        match step {
            Step::Waiting => Ok(None),
            Step::Head { end, kept } => {
                let (head, rest) = bytes.split_at(end);
                *bytes = rest;
                Ok(Some(Event::Head(Head::new(if kept { &self.head } else { head }))))
            }
            Step::Body { skip, len } => {
                let (body, rest) = bytes[skip..].split_at(len);
                *bytes = rest;
                Ok(Some(Event::Body(body)))
            }
            Step::End => Ok(Some(Event::End(self.persistence))),
        }
    }

    /// The connection ended.
    ///
    /// # Errors
    /// When something was still to come.
    pub fn ended(&mut self) -> Result<(), Fault> {
        let fault = match self.state {
            State::Close(_) | State::End | State::Over => {
                self.state = State::Over;
                return Ok(());
            }
            State::Head if self.head.is_empty() && self.interim == 0 => Fault::NoAnswer,
            State::Head | State::Length(_) | State::Chunks(_) => Fault::CutOff,
            State::Failed(fault) => fault,
        };
        self.state = State::Failed(fault);
        Err(fault)
    }

    /// Takes what makes no event off the front of `bytes`, up to the next one.
    fn step(&mut self, bytes: &mut &[u8]) -> Result<Step, Fault> {
        loop {
            match &mut self.state {
                State::Head => match self.head_step(bytes)? {
                    Step::Waiting => {}
                    step => return Ok(step),
                },
                State::Length(left) => {
                    let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= len as u64;
                    if *left == 0 {
                        self.state = State::End;
                    }
                    return Ok(piece(0, len));
                }
                State::Chunks(chunks) => match chunks.take(bytes).map_err(fault_of)? {
                    Found::Data { skip, len } => return Ok(piece(skip, len)),
                    Found::End { skip } => {
                        *bytes = &bytes[skip..];
                        self.state = State::End;
                    }
                    Found::Nothing => {
                        *bytes = &[];
                        return Ok(Step::Waiting);
                    }
                },
                State::Close(left) => {
                    let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if len == 0 && !bytes.is_empty() {
                        return Err(Fault::BodyTooLarge);
                    }
                    *left -= len as u64;
                    return Ok(piece(0, len));
                }
                State::End => {
                    self.state = State::Over;
                    return Ok(Step::End);
                }
                State::Over => return Ok(Step::Waiting),
                State::Failed(fault) => return Err(*fault),
            }
            if bytes.is_empty() && matches!(self.state, State::Head) {
                return Ok(Step::Waiting);
            }
        }
    }

    /// Reads on in a head; `Waiting` when it is not there as a whole, or announces another one.
    fn head_step(&mut self, bytes: &mut &[u8]) -> Result<Step, Fault> {
        let kept = !self.head.is_empty();
        let Some(end) = self.find_end(bytes)? else {
            self.head.extend_from_slice(bytes);
            *bytes = &[];
            return Ok(Step::Waiting);
        };
        self.line_bytes = 0;
        if kept {
            self.head.extend_from_slice(&bytes[..end]);
        }
        let text = if kept { &self.head } else { &bytes[..end] };
        let verdict = head::judge(text, self.asked, self.limits.body_bytes)?;
        let Some(verdict) = verdict else {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Fault::TooManyInterim);
            }
            self.head.clear();
            *bytes = &bytes[end..];
            return Ok(Step::Waiting);
        };
        self.persistence = verdict.persistence;
        self.state = match verdict.extent {
            head::Extent::Length(0) => State::End,
            head::Extent::Length(length) => State::Length(length),
            head::Extent::Chunked => State::Chunks(Chunks::new(Bounds {
                data: self.limits.body_bytes,
                frames: ENDLESS,
                trailer: u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX),
                digits: 15,
            })),
            head::Extent::Close => State::Close(self.limits.body_bytes),
        };
        Ok(Step::Head { end, kept })
    }

    /// Where in these bytes the head ends. Looks at each byte of it once.
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let before = self.head.len();
        let mut last = self.head.last().copied();
        for (at, &byte) in bytes.iter().enumerate() {
            if before + at >= self.limits.head_bytes {
                return Err(Fault::HeadTooLarge);
            }
            head::check_start(before + at, byte)?;
            // A bare CR or LF ends a line for some and not for others.
            if (last == Some(b'\r')) != (byte == b'\n') {
                return Err(Fault::FieldInvalid);
            }
            if byte == b'\n' && self.line_bytes == 1 {
                return Ok(Some(at + 1));
            }
            self.line_bytes = if byte == b'\n' { 0 } else { self.line_bytes + 1 };
            last = Some(byte);
        }
        Ok(None)
    }
}

fn fault_of(broken: Broken) -> Fault {
    match broken {
        Broken::Frame => Fault::ChunkInvalid,
        Broken::Long => Fault::BodyTooLarge,
        Broken::Trailer => Fault::HeadTooLarge,
    }
}

fn piece(skip: usize, len: usize) -> Step {
    if len == 0 { Step::Waiting } else { Step::Body { skip, len } }
}

#[cfg(test)]
mod tests;
