//! One WebSocket and somebody at a terminal, or a script at the other end of two pipes: what is
//! typed is sent line by line, what comes is shown. It knows no socket, no clock and no terminal
//! but as bytes of a stream.

mod driven;
mod lines;

use std::collections::VecDeque;
use std::fmt::Write;

use crate::engine::{Action, HangUp, Id, Now, Out, Target};
use crate::load::Why;
use crate::outbox::Outbox;
use crate::proto::frame::{Kind, close_name};
use crate::proto::talk::{self, Heard, Hearing};
use crate::proto::upgrade::{Ask, Opened, Pending, Reply};
use crate::rng::Rng;
use crate::time;
use crate::units::show_time;
use lines::Lines;

/// The terminal's stream; those to servers have the other key.
const TERMINAL: Id = Id { key: 0, generation: 0 };
const SERVER: u32 = 1;
/// While so much waits on one side, the other is not read.
const HIGH_WATER_BYTES: usize = 64 * 1024;
/// How long answers are waited for after the last line, when nobody says how long.
const LAST_ANSWERS_MS: u64 = 1_000;

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server may be; the next one is tried where nobody is.
    pub targets: Vec<Target>,
    /// The URL, as people know it.
    pub url: String,
    /// What is asked for.
    pub ask: Ask,
    /// How long to listen after the last line; `None`: until each line is answered.
    pub wait_ms: Option<u64>,
    /// How often to ping.
    pub ping_ms: Option<u64>,
    /// What to close with.
    pub code: u16,
    /// The reason that goes with it.
    pub reason: String,
    /// How long to wait for a connection, for the upgrade and for the answer to a Close.
    pub patience_ms: u64,
    /// What to show where somebody types; `None`: nobody does.
    pub prompt: Option<&'static str>,
}

/// One WebSocket, and whoever uses it.
#[derive(Debug)]
pub struct Connect {
    plan: Plan,
    rng: Rng,
    stage: Stage,
    /// Targets tried so far.
    tried: u32,
    typed: Typed,
    lines: Lines,
    hearing: Hearing,
    /// What is to be shown.
    shown: Vec<u8>,
    /// What neither side has taken yet.
    to_terminal: Outbox,
    to_server: Outbox,
    /// Lines that were sent, and messages that came.
    sent: u64,
    came: u64,
    pings: Pings,
    actions: VecDeque<Action>,
}

/// How far it is, and since when.
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
    Goodbye {
        since_ns: u64,
    },
    /// All is said; the terminal has yet to take it.
    Over {
        code: u8,
    },
}

/// What there is to read at the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Typed {
    More,
    /// The end, at this moment.
    End {
        at_ns: u64,
    },
    /// Nobody is there any more, to read either.
    Gone,
}

#[derive(Debug, Default)]
struct Pings {
    next_ns: Option<u64>,
    /// The last one, if it is not answered.
    asked_ns: Option<u64>,
    count: u64,
}

impl Connect {
    /// Begins to connect.
    #[must_use]
    pub fn new(plan: Plan, seed: u64, now: Now) -> Self {
        let mut connect = Self {
            rng: Rng::new(seed),
            stage: Stage::Connecting { since_ns: now.mono_ns },
            tried: 0,
            typed: Typed::More,
            lines: Lines::default(),
            hearing: Hearing::default(),
            shown: Vec::new(),
            to_terminal: Outbox::default(),
            to_server: Outbox::default(),
            sent: 0,
            came: 0,
            pings: Pings::default(),
            actions: VecDeque::new(),
            plan,
        };
        connect.actions.push_back(Action::Connect(TERMINAL, Target::Terminal));
        connect.try_next(Why::Unreachable, now);
        connect
    }

    fn server(&self) -> Id {
        Id { key: SERVER, generation: self.tried }
    }

    fn try_next(&mut self, why: Why, now: Now) {
        match self.plan.targets.get(self.tried as usize) {
            Some(target) => {
                self.tried += 1;
                self.stage = Stage::Connecting { since_ns: now.mono_ns };
                self.actions.push_back(Action::Connect(self.server(), target.clone()));
            }
            None => self.fail(&why.to_string()),
        }
    }

    /// There is no connection, and there will be none.
    fn fail(&mut self, why: &str) {
        let url = &self.plan.url;
        self.actions.push_back(Action::Show(format!("Failed to connect to {url}: {why}.\n")));
        self.end(1);
    }

    /// Nothing follows but what the terminal has not taken.
    fn end(&mut self, code: u8) {
        if matches!(self.stage, Stage::Over { .. }) {
            return;
        }
        self.stage = Stage::Over { code };
        self.actions.push_back(Action::Close(self.server()));
        match self.typed {
            // Whoever was to read this is gone: that is no success.
            Typed::Gone => self.actions.push_back(Action::Exit(code.max(1))),
            Typed::More | Typed::End { .. } => {
                self.actions.push_back(Action::Write(TERMINAL));
                self.actions.push_back(Action::Close(TERMINAL));
            }
        }
    }

    /// The connection is over: with these last words, or without any.
    fn closed_with(&mut self, code: u16, reason: &str) {
        let space = if reason.is_empty() { "" } else { " " };
        let reason = lines::visible(reason);
        let name = close_name(code);
        self.say_over(&format!("Connection closed: {code} ({name}){space}{reason}."));
        self.end(u8::from(!matches!(code, 1000 | 1001)));
    }

    /// Shows a line; what somebody is typing stays below it.
    fn say(&mut self, line: &str) {
        let shown = match self.plan.prompt {
            None => format!("{line}\n"),
            // Save the cursor, a new line, up, insert a line, the text; restore, down.
            Some(_) => format!("\x1b7\n\x1b[A\x1b[L{line}\n\x1b8\x1b[B"),
        };
        self.shown.extend_from_slice(shown.as_bytes());
        self.actions.push_back(Action::Write(TERMINAL));
    }

    /// Shows a line in the place of the prompt.
    fn say_over(&mut self, line: &str) {
        if self.plan.prompt.is_some() {
            self.shown.extend_from_slice(b"\r\x1b[K");
        }
        self.shown.extend_from_slice(line.as_bytes());
        self.shown.push(b'\n');
        self.actions.push_back(Action::Write(TERMINAL));
    }

    fn prompt(&mut self) {
        if let Some(prompt) = self.plan.prompt {
            self.shown.extend_from_slice(prompt.as_bytes());
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
        self.say_over(&line);
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

    /// Sends the lines that are complete.
    fn send_lines(&mut self, out: &mut Out) {
        while let Some(line) = self.lines.next() {
            // What is no text can be sent nevertheless.
            let first = if str::from_utf8(&line).is_ok() { talk::TEXT } else { talk::BINARY };
            self.write(out, first, &line);
            self.sent += 1;
            self.prompt();
        }
    }

    fn say_goodbye(&mut self, now: Now, out: &mut Out) {
        if matches!(self.stage, Stage::Open) {
            self.stage = Stage::Goodbye { since_ns: now.mono_ns };
            let payload = talk::close_payload(self.plan.code, &self.plan.reason);
            self.write(out, talk::CLOSE, &payload);
        }
    }

    /// When to close, now that no line follows.
    fn goodbye_ns(&self) -> Option<u64> {
        let at_ns = match self.typed {
            Typed::More => return None,
            Typed::Gone => return Some(0),
            Typed::End { at_ns } => at_ns,
        };
        match self.plan.wait_ms {
            Some(wait_ms) => Some(at_ns + time::ms(wait_ms)),
            None if self.plan.prompt.is_some() || self.came >= self.sent => Some(at_ns),
            None => Some(at_ns + time::ms(LAST_ANSWERS_MS)),
        }
    }

    /// What is due goes out: lines, pings, the Close.
    fn talk(&mut self, now: Now, out: &mut Out) {
        if !matches!(self.stage, Stage::Open) {
            return;
        }
        self.send_lines(out);
        if self.pings.next_ns.is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.ping(now, out);
        }
        if self.goodbye_ns().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.say_goodbye(now, out);
        }
    }

    fn ping(&mut self, now: Now, out: &mut Out) {
        self.pings.count += 1;
        if self.pings.asked_ns.replace(now.mono_ns).is_some() {
            self.say("(ping) no answer");
        }
        let payload = self.pings.count.to_be_bytes();
        self.write(out, talk::PING, &payload);
        self.pings.next_ns = self.plan.ping_ms.map(|ms| now.mono_ns + time::ms(ms));
    }

    fn hear(&mut self, heard: Heard, now: Now, out: &mut Out) {
        match heard {
            Heard::Message(kind, payload) => {
                self.came += 1;
                let line = match (kind, str::from_utf8(&payload)) {
                    (Kind::Text, Ok(text)) => format!("< {}", lines::visible(text)),
                    (Kind::Text | Kind::Binary, _) => {
                        format!("< (binary) {}", lines::hex(&payload))
                    }
                };
                self.say(&line);
            }
            Heard::Ping(payload) => self.write(out, talk::PONG, &payload),
            Heard::Pong(payload) => {
                if payload == self.pings.count.to_be_bytes()
                    && let Some(asked_ns) = self.pings.asked_ns.take()
                {
                    let took_ns = now.mono_ns.saturating_sub(asked_ns);
                    self.say(&format!("(ping) {}", show_time(took_ns)));
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

    /// The answer to the upgrade, or what follows it.
    fn read(&mut self, mut bytes: &[u8], now: Now, out: &mut Out) {
        if let Stage::Upgrading { pending, .. } = &mut self.stage {
            match pending.read(&self.plan.ask, &mut bytes) {
                Ok(None) => return,
                Ok(Some(Reply::Open(opened))) => self.opened(&opened, now),
                Ok(Some(Reply::Refused(status))) => {
                    let outcome = crate::load::Outcome::Refused(status);
                    return self.fail(&outcome.to_string());
                }
                Err(fault) => return self.fail(&fault.to_string()),
            }
        }
        self.hearing.extend(bytes);
        while matches!(self.stage, Stage::Open | Stage::Goodbye { .. }) {
            match self.hearing.poll() {
                Ok(Some(heard)) => self.hear(heard, now, out),
                Ok(None) => break,
                Err(fault) => {
                    let payload = talk::close_payload(fault.close_code(), fault.reason());
                    self.write(out, talk::CLOSE, &payload);
                    self.closed_with(fault.close_code(), fault.reason());
                }
            }
        }
        self.talk(now, out);
    }

    /// Somebody typed.
    fn take_typed(&mut self, bytes: &[u8]) {
        if self.lines.extend(bytes).is_ok() {
            self.actions.push_back(Action::Write(self.server()));
        } else {
            self.say_over("A line is longer than 1MiB: that is no message.");
            self.end(1);
        }
    }

    fn typed_end(&mut self, how: HangUp, now: Now) {
        self.lines.finish();
        self.typed = match how {
            HangUp::Eof => Typed::End { at_ns: now.mono_ns },
            _ => Typed::Gone,
        };
        self.actions.push_back(Action::Write(self.server()));
    }

    /// When what is waited for is late.
    fn late_ns(&self) -> Option<u64> {
        match &self.stage {
            Stage::Connecting { since_ns }
            | Stage::Upgrading { since_ns, .. }
            | Stage::Goodbye { since_ns } => Some(since_ns + time::ms(self.plan.patience_ms)),
            Stage::Open | Stage::Over { .. } => None,
        }
    }

    fn give_up(&mut self, now: Now) {
        match &self.stage {
            Stage::Connecting { .. } => {
                self.actions.push_back(Action::Reset(self.server()));
                self.try_next(Why::TimedOut, now);
            }
            Stage::Upgrading { .. } => self.fail(&Why::Silent.to_string()),
            Stage::Goodbye { .. } => self.closed_with(1006, "the server does not answer the Close"),
            Stage::Open | Stage::Over { .. } => {}
        }
    }
}
