//! The interactive client, for a terminal or pipes: each line of standard input is sent as a
//! message, and received messages are printed. It knows no socket and no clock; the terminal is a
//! byte stream.

mod driven;
mod lines;

use std::collections::VecDeque;
use std::fmt::Write;

use crate::behaviours::is_unasked;
use crate::engine::{Action, HangUp, Id, Now, Out, Screen, Target};
use crate::load::ConnectError;
use crate::outbox::Outbox;
use crate::proto::frame::{Kind, close_name};
use crate::proto::talk::{self, Heard, Hearing, Pongs};
use crate::proto::upgrade::{Ask, Opened, Pending, Reply};
use crate::rng::Rng;
use crate::time;
use crate::units::show_time;
use lines::Lines;

/// The terminal's stream; connections to the server have the key `SERVER`.
const TERMINAL: Id = Id { key: 0, generation: 0 };
const SERVER: u32 = 1;
/// While more than this is unsent on one side, the other is not read.
const HIGH_WATER_BYTES: usize = 64 * 1024;
/// How long to wait for answers after the last line, without `--wait`.
const LAST_ANSWERS_MS: u64 = 1_000;
/// What is said when we reject a frame.
const INVALID_FRAME: &str = "Invalid frame from the server, closed by us";
/// The payload of the Ping before the first line; later ones have the numbers from 1 on.
const FIRST_PING: [u8; 8] = [0; 8];

/// The settings of one session.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses of the server; when one does not accept the connection, the next is tried.
    pub targets: Vec<Target>,
    /// The URL, for messages to the user.
    pub url: String,
    /// The upgrade request.
    pub ask: Ask,
    /// How long to listen after the last line; `None`: until each line is answered.
    pub wait_ms: Option<u64>,
    /// Interval of pings; `None`: no pings.
    pub ping_ms: Option<u64>,
    /// The close code to send.
    pub code: u16,
    /// The close reason to send.
    pub reason: String,
    /// Time limit for connecting, for the upgrade and for the server's Close, each.
    pub patience_ms: u64,
    /// The prompt; `None` if input or output is not a terminal.
    pub prompt: Option<&'static str>,
}

/// The interactive client.
#[derive(Debug)]
pub struct Connect {
    plan: Plan,
    rng: Rng,
    stage: Stage,
    /// Targets tried so far.
    tried: u32,
    input: Input,
    lines: Lines,
    hearing: Hearing,
    /// The size of the terminal.
    screen: Screen,
    /// Output that the driver has not fetched yet.
    output: Vec<u8>,
    /// Bytes that the streams have not accepted yet.
    to_terminal: Outbox,
    to_server: Outbox,
    pongs: Pongs,
    /// Lines sent, and messages received that may be their answers.
    sent: u64,
    answers: u64,
    /// The server has read up to our first line: what it sends now may be an answer.
    at_first_line: bool,
    pings: Pings,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Stage {
    Connecting {
        since_ns: u64,
    },
    Upgrading {
        since_ns: u64,
        pending: Box<Pending>,
    },
    Open,
    /// Our Close is sent.
    Closing {
        since_ns: u64,
    },
    /// The session is over; the terminal has not accepted all output yet.
    Ended {
        code: u8,
    },
}

/// The state of standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// It ended at this time.
    End {
        at_ns: u64,
    },
    /// The terminal is closed, for output too.
    Gone,
}

#[derive(Debug, Default)]
struct Pings {
    next_ns: Option<u64>,
    /// When the last one was sent, if it is unanswered.
    sent_ns: Option<u64>,
    count: u64,
}

impl Connect {
    /// Starts connecting.
    #[must_use]
    pub fn new(plan: Plan, seed: u64, now: Now) -> Self {
        let mut connect = Self {
            rng: Rng::new(seed),
            stage: Stage::Connecting { since_ns: now.mono_ns },
            tried: 0,
            input: Input::Open,
            lines: Lines::default(),
            hearing: Hearing::default(),
            screen: Screen { columns: 0, rows: 0 },
            output: Vec::new(),
            to_terminal: Outbox::default(),
            to_server: Outbox::default(),
            pongs: Pongs::default(),
            sent: 0,
            answers: 0,
            at_first_line: false,
            pings: Pings::default(),
            actions: VecDeque::new(),
            plan,
        };
        connect.actions.push_back(Action::Connect(TERMINAL, Target::Terminal));
        connect.try_next(ConnectError::Unreachable, now);
        connect
    }

    fn server(&self) -> Id {
        Id { key: SERVER, generation: self.tried }
    }

    fn try_next(&mut self, why: ConnectError, now: Now) {
        match self.plan.targets.get(self.tried as usize) {
            Some(target) => {
                self.tried += 1;
                self.stage = Stage::Connecting { since_ns: now.mono_ns };
                self.actions.push_back(Action::Connect(self.server(), target.clone()));
            }
            None => self.fail(&why.to_string()),
        }
    }

    /// No connection was established.
    fn fail(&mut self, why: &str) {
        let url = &self.plan.url;
        self.actions.push_back(Action::Show(format!("Failed to connect to {url}: {why}.\n")));
        self.end(1);
    }

    /// Ends the session; the process exits when the terminal has accepted all output.
    fn end(&mut self, code: u8) {
        if matches!(self.stage, Stage::Ended { .. }) {
            return;
        }
        self.stage = Stage::Ended { code };
        self.actions.push_back(Action::Close(self.server()));
        match self.input {
            // The output cannot be delivered: not a success.
            Input::Gone => self.actions.push_back(Action::Exit(code.max(1))),
            Input::Open | Input::End { .. } => {
                self.actions.push_back(Action::Write(TERMINAL));
                self.actions.push_back(Action::Close(TERMINAL));
            }
        }
    }

    /// The connection is closed, with 1006 if there was no Close.
    fn closed_with(&mut self, code: u16, reason: &str) {
        self.print_end("Connection closed", code, reason);
    }

    fn print_end(&mut self, what: &str, code: u16, reason: &str) {
        let space = if reason.is_empty() { "" } else { " " };
        let reason = lines::visible(reason);
        let name = close_name(code);
        self.print_over_prompt(&format!("{what}: {code} ({name}){space}{reason}."));
        self.end(u8::from(!matches!(code, 1000 | 1001)));
    }

    /// Prints a line above the line that is being typed.
    fn print(&mut self, line: &str) {
        let text = match self.plan.prompt {
            None => format!("{line}\n"),
            Some(prompt) => {
                let rows = lines::rows(line, self.screen.columns.into());
                if rows > 1 && rows >= self.screen.rows.into() {
                    // No room for the line that is being typed, which the terminal still has.
                    format!("\r\x1b[K{line}\n{prompt}")
                } else {
                    // Save the cursor, new lines, up, insert lines, the text; restore, down.
                    let down = "\n".repeat(rows);
                    format!("\x1b7{down}\x1b[{rows}A\x1b[{rows}L{line}\n\x1b8\x1b[{rows}B")
                }
            }
        };
        self.output.extend_from_slice(text.as_bytes());
        self.actions.push_back(Action::Write(TERMINAL));
    }

    /// Prints a line in place of the prompt.
    fn print_over_prompt(&mut self, line: &str) {
        if self.plan.prompt.is_some() {
            self.output.extend_from_slice(b"\r\x1b[K");
        }
        self.output.extend_from_slice(line.as_bytes());
        self.output.push(b'\n');
        self.actions.push_back(Action::Write(TERMINAL));
    }

    fn prompt(&mut self) {
        if let Some(prompt) = self.plan.prompt {
            self.output.extend_from_slice(prompt.as_bytes());
            self.actions.push_back(Action::Write(TERMINAL));
        }
    }

    fn opened(&mut self, opened: &Opened, now: Now) {
        self.stage = Stage::Open;
        let mut line = format!("Connected to {}.", self.plan.url);
        for (what, name) in [("Served by", &opened.served_by), ("Subprotocol", &opened.subprotocol)]
        {
            if let Some(name) = name {
                // Writing to a String cannot fail.
                let _ = write!(line, "\n{what} {name}.");
            }
        }
        self.print_over_prompt(&line);
        self.prompt();
        self.pings.next_ns = self.plan.ping_ms.map(|ms| now.mono_ns + time::ms(ms));
        self.actions.push_back(Action::Resume(TERMINAL));
    }

    fn write(&mut self, out: &mut Out, first: u8, payload: &[u8]) {
        let mask = (self.rng.below(1 << 32) as u32).to_ne_bytes();
        talk::write(&mut out.bytes, first, mask, payload.len(), |out| {
            out.extend_from_slice(payload);
        });
    }

    /// Sends the complete lines.
    fn send_lines(&mut self, out: &mut Out) {
        while let Some(line) = self.lines.next() {
            // A line that is not UTF-8 is sent as a binary message.
            let first = if str::from_utf8(&line).is_ok() { talk::TEXT } else { talk::BINARY };
            self.write(out, first, &line);
            self.sent += 1;
            self.prompt();
        }
    }

    fn close(&mut self, now: Now, out: &mut Out) {
        if matches!(self.stage, Stage::Open) {
            self.stage = Stage::Closing { since_ns: now.mono_ns };
            let payload = talk::close_payload(self.plan.code, &self.plan.reason);
            self.write(out, talk::CLOSE, &payload);
        }
    }

    fn closes_when_answered(&self) -> bool {
        self.plan.wait_ms.is_none() && self.plan.prompt.is_none()
    }

    /// When to close after the end of input.
    fn close_at_ns(&self) -> Option<u64> {
        let at_ns = match self.input {
            Input::Open => return None,
            Input::Gone => return Some(0),
            Input::End { at_ns } => at_ns,
        };
        match self.plan.wait_ms {
            Some(wait_ms) => Some(at_ns + time::ms(wait_ms)),
            None if !self.closes_when_answered() || self.answers >= self.sent => Some(at_ns),
            None => Some(at_ns + time::ms(LAST_ANSWERS_MS)),
        }
    }

    /// Sends what is due: lines, pings, the Close.
    fn send_due(&mut self, now: Now, out: &mut Out) {
        if !matches!(self.stage, Stage::Open) {
            return;
        }
        self.send_lines(out);
        if self.pings.next_ns.is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.ping(now, out);
        }
        if self.close_at_ns().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.close(now, out);
        }
    }

    fn ping(&mut self, now: Now, out: &mut Out) {
        self.pings.next_ns = self.plan.ping_ms.map(|ms| now.mono_ns + time::ms(ms));
        // Nothing is queued without end for a server or a terminal that takes nothing.
        if self.to_server.len().max(self.to_terminal.len()) > HIGH_WATER_BYTES {
            return;
        }
        self.pings.count += 1;
        if self.pings.sent_ns.replace(now.mono_ns).is_some() {
            self.print("(ping) no answer");
        }
        let payload = self.pings.count.to_be_bytes();
        self.write(out, talk::PING, &payload);
    }

    fn handle(&mut self, heard: Heard, now: Now, out: &mut Out) {
        match heard {
            Heard::Message(kind, payload) => {
                if self.at_first_line && !is_unasked(&payload) {
                    self.answers += 1;
                }
                let line = match (kind, str::from_utf8(&payload)) {
                    (Kind::Text, Ok(text)) => format!("< {}", lines::visible(text)),
                    (Kind::Text | Kind::Binary, _) => {
                        format!("< (binary) {}", lines::hex(&payload))
                    }
                };
                self.print(&line);
            }
            Heard::Ping(payload) => {
                if self.pongs.has_room(payload.len()) {
                    self.write(out, talk::PONG, &payload);
                }
            }
            Heard::Pong(payload) => {
                self.at_first_line |= payload == FIRST_PING;
                if payload == self.pings.count.to_be_bytes()
                    && let Some(sent_ns) = self.pings.sent_ns.take()
                {
                    let took_ns = now.mono_ns.saturating_sub(sent_ns);
                    self.print(&format!("(ping) {}", show_time(took_ns)));
                }
            }
            Heard::Close(code, reason) => {
                if matches!(self.stage, Stage::Open) {
                    let payload =
                        if code == 1005 { Vec::new() } else { code.to_be_bytes().to_vec() };
                    self.write(out, talk::CLOSE, &payload);
                }
                self.closed_with(code, &reason);
            }
        }
    }

    /// Reads the upgrade response and the frames after it.
    fn read(&mut self, mut bytes: &[u8], now: Now, out: &mut Out) {
        if let Stage::Upgrading { pending, .. } = &mut self.stage {
            match pending.read(&self.plan.ask, &mut bytes) {
                Ok(None) => return,
                Ok(Some(Reply::Open(opened))) => {
                    self.opened(&opened, now);
                    if self.closes_when_answered() {
                        // Its Pong tells a greeting from the answer to the first line.
                        self.write(out, talk::PING, &FIRST_PING);
                    }
                }
                Ok(Some(Reply::Refused(status))) => {
                    let outcome = crate::load::Outcome::Refused(status);
                    return self.fail(&outcome.to_string());
                }
                Err(fault) => return self.fail(&fault.to_string()),
            }
        }
        if self.to_server.is_empty() {
            self.pongs.none_unsent();
        }
        self.hearing.extend(bytes);
        while matches!(self.stage, Stage::Open | Stage::Closing { .. }) {
            match self.hearing.poll() {
                Ok(Some(heard)) => self.handle(heard, now, out),
                Ok(None) => break,
                Err(fault) => {
                    let payload = talk::close_payload(fault.close_code(), fault.reason());
                    self.write(out, talk::CLOSE, &payload);
                    // The server did not send this code.
                    self.print_end(INVALID_FRAME, fault.close_code(), fault.reason());
                }
            }
        }
        self.send_due(now, out);
    }

    /// Input from the terminal.
    fn take_input(&mut self, bytes: &[u8]) {
        if self.lines.extend(bytes).is_ok() {
            self.actions.push_back(Action::Write(self.server()));
        } else {
            self.print_over_prompt("A line is longer than 1MiB: closing.");
            self.end(1);
        }
    }

    fn input_ended(&mut self, how: HangUp, now: Now) {
        self.lines.finish();
        self.input = match how {
            HangUp::Eof => Input::End { at_ns: now.mono_ns },
            _ => Input::Gone,
        };
        self.actions.push_back(Action::Write(self.server()));
    }

    /// When the current step times out.
    fn timeout_ns(&self) -> Option<u64> {
        match &self.stage {
            Stage::Connecting { since_ns }
            | Stage::Upgrading { since_ns, .. }
            | Stage::Closing { since_ns } => Some(since_ns + time::ms(self.plan.patience_ms)),
            Stage::Open | Stage::Ended { .. } => None,
        }
    }

    fn time_out(&mut self, now: Now) {
        match &self.stage {
            Stage::Connecting { .. } => {
                self.actions.push_back(Action::Reset(self.server()));
                self.try_next(ConnectError::TimedOut, now);
            }
            Stage::Upgrading { .. } => self.fail(&ConnectError::Silent.to_string()),
            Stage::Closing { .. } => self.closed_with(1006, "no Close from the server"),
            Stage::Open | Stage::Ended { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
