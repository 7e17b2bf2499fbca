//! The HTTP/1.1 client: writes a request, and turns the bytes of its response into events that do
//! not depend on how the bytes are split. It is strict where parsers could disagree about where a
//! response ends. It knows no connection and no time; timeouts are the caller's.

mod fault;
mod head;

use super::chunks::{Bounds, ChunkError, Chunks, Found, UNLIMITED};
use super::http::{Persistence, is_host, is_text, is_token};
pub use fault::{Fault, Unsendable};
pub use head::Head;

/// Most interim responses before the final one (RFC 9110 §15.2).
const INTERIM_MAX: u8 = 8;

/// A request to send.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Any token, such as `GET`.
    pub method: &'a str,
    /// Path and query, as in the request line.
    pub target: &'a str,
    /// The `Host` field: `host` or `host:port`.
    pub host: &'a str,
    /// Further fields. `Content-Length` is derived from the body.
    pub fields: &'a [(&'a str, &'a str)],
    /// The body, perhaps empty.
    pub body: &'a [u8],
}

/// More than a request has besides its parts.
const FIXED_BYTES: usize = 80;

impl Request<'_> {
    /// At least the size of the request in bytes, and not much more.
    #[must_use]
    pub fn size(&self) -> usize {
        let field = |(name, value): &(&str, &str)| name.len() + value.len() + ": \r\n".len();
        let fields: usize = self.fields.iter().map(field).sum();
        let line = self.method.len() + self.target.len() + self.host.len();
        FIXED_BYTES + line + fields + self.body.len()
    }

    /// Appends the request, or nothing if a part of it is invalid.
    ///
    /// # Errors
    /// Which part is invalid.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Unsendable> {
        self.check()?;
        let start = out.len();
        out.resize(start + self.size(), 0);
        let mut end = start;
        // Cheaper than appending to a vector, which may have to grow, a dozen times.
        let mut add = |parts: &[&[u8]]| {
            for part in parts {
                out[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
        };
        let (method, target, host) = (self.method.as_bytes(), self.target, self.host.as_bytes());
        add(&[method, b" ", target.as_bytes(), b" HTTP/1.1\r\nHost: ", host, b"\r\n"]);
        for (name, value) in self.fields {
            add(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        // A server may expect a body with a method that usually has one (RFC 9110 §8.6).
        if !self.body.is_empty() || matches!(self.method, "POST" | "PUT" | "PATCH") {
            add(&[b"Content-Length: ", self.body.len().to_string().as_bytes(), b"\r\n"]);
        }
        add(&[b"\r\n", self.body]);
        out.truncate(end);
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
        let valid = |(name, value): &(&str, &str)| {
            is_token(name.as_bytes())
                && !ours.iter().any(|ours| name.eq_ignore_ascii_case(ours))
                && value.bytes().all(is_text)
        };
        if self.fields.iter().all(valid) { Ok(()) } else { Err(Unsendable::Field) }
    }

    /// The properties of the request that its response depends on.
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

/// The properties of a request that its response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Neither of the others.
    Ordinary,
    /// `HEAD`: the response has no body, whatever its head says.
    Head,
    /// 101 is allowed, and ends HTTP after its head.
    Upgrade,
    /// The body does not matter: one beyond its limit is not read, and the response ends there.
    Status,
}

/// Limits of a response.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of each head including its blank line, and of the trailer.
    pub head_bytes: usize,
    /// Bytes of the body without chunk framing; `u64::MAX` for one that never ends.
    pub body_bytes: u64,
}

/// A part of a response.
#[derive(Debug)]
pub enum Event<'e> {
    /// The head of the final response; always the first event.
    Head(Head<'e>),
    /// Body bytes; where they are split has no meaning.
    Body(&'e [u8]),
    /// The end, and whether the connection can be reused. If further bytes follow, it cannot: they
    /// were not requested.
    End(Persistence),
}

/// A response that is arriving.
#[derive(Debug)]
pub struct Answer {
    asked: Asked,
    limits: Limits,
    state: State,
    persistence: Persistence,
    interim: u8,
    /// The beginning of an incomplete head.
    head: Vec<u8>,
    /// Bytes of the head's current line.
    line_bytes: usize,
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Length(u64),
    Chunks(Chunks),
    /// Ends with the connection; this many more bytes are allowed.
    Close(u64),
    /// The body is complete, but [`Event::End`] has not been returned.
    End,
    Over,
    Failed(Fault),
}

/// What [`Answer::step`] found.
enum Step {
    Waiting,
    /// A head that ends at `end`; its beginning is in [`Answer::head`] if `kept`.
    Head {
        end: usize,
        kept: bool,
    },
    /// `len` body bytes after `skip` bytes of framing.
    Body {
        skip: usize,
        len: usize,
    },
    End,
}

impl Answer {
    /// A response of which nothing has arrived yet.
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

    /// Returns the next event and takes its bytes off the front of `bytes`. `None`: more bytes are
    /// needed, or the response is over and the remaining `bytes` do not belong to it.
    ///
    /// # Errors
    /// Why the response is rejected; every further call returns the same.
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

    /// Reports the end of the connection.
    ///
    /// # Errors
    /// When the response is incomplete.
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

    /// Consumes bytes up to the next event.
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
                State::Chunks(chunks) => match chunks.take(bytes) {
                    Err(ChunkError::TooLong) if self.asked == Asked::Status => self.cut(),
                    Err(error) => return Err(fault_of(error)),
                    Ok(found) => match found {
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
                },
                State::Close(left) => {
                    let len = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if len > 0 || bytes.is_empty() {
                        *left -= len as u64;
                        return Ok(piece(0, len));
                    }
                    if self.asked != Asked::Status {
                        return Err(Fault::BodyTooLarge);
                    }
                    self.cut();
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

    /// The rest of the body is not wanted; its bytes make the connection useless.
    fn cut(&mut self) {
        self.persistence = Persistence::Close;
        self.state = State::End;
    }

    /// Continues a head; returns `Waiting` if it is incomplete or an interim response.
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
            // Only with [`Asked::Status`].
            head::Extent::Length(length) if length > self.limits.body_bytes => {
                self.persistence = Persistence::Close;
                State::End
            }
            head::Extent::Length(length) => State::Length(length),
            head::Extent::Chunked => State::Chunks(Chunks::new(Bounds {
                data: self.limits.body_bytes,
                overhead: UNLIMITED,
                trailer: u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX),
                digits: 15,
            })),
            head::Extent::Close => State::Close(self.limits.body_bytes),
        };
        Ok(Step::Head { end, kept })
    }

    /// Finds the end of the head in these bytes. Examines each byte once.
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let before = self.head.len();
        let most = self.limits.head_bytes.saturating_sub(before);
        let mut last = self.head.last().copied();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if at >= most {
                return Err(Fault::HeadTooLarge);
            }
            if before + at > head::START.len() && last != Some(b'\r') {
                // Nothing but a line end matters.
                let rest = &bytes[at..bytes.len().min(most)];
                let run = rest.iter().take_while(|&&b| b != b'\r' && b != b'\n').count();
                if run > 0 {
                    at += run;
                    self.line_bytes += run;
                    last = Some(bytes[at - 1]);
                    continue;
                }
            }
            head::check_start(before + at, byte)?;
            // Parsers disagree on whether a bare CR or LF ends a line.
            if (last == Some(b'\r')) != (byte == b'\n') {
                return Err(Fault::FieldInvalid);
            }
            if byte == b'\n' && self.line_bytes == 1 {
                return Ok(Some(at + 1));
            }
            self.line_bytes = if byte == b'\n' { 0 } else { self.line_bytes + 1 };
            last = Some(byte);
            at += 1;
        }
        Ok(None)
    }
}

fn fault_of(error: ChunkError) -> Fault {
    match error {
        ChunkError::Malformed => Fault::ChunkInvalid,
        ChunkError::TooLong => Fault::BodyTooLarge,
        ChunkError::Trailer => Fault::HeadTooLarge,
    }
}

fn piece(skip: usize, len: usize) -> Step {
    if len == 0 { Step::Waiting } else { Step::Body { skip, len } }
}

#[cfg(test)]
mod tests;
