//! One HTTP request to a server, on the same contract as the server itself: connect, send it, read
//! the response's status and first line. It knows no socket and no clock.

use core::fmt;
use std::collections::VecDeque;

use crate::engine::{Action, Engine, HangUp, Id, Now, Out, Signal, Target};
use crate::outbox::{Blocks, Outbox};
use crate::proto::http_client::{Answer, Asked, Event, Fault, Limits, Request};
use crate::time;
use crate::units::{is_plain, show_duration};

/// Most bytes of the response's body that are read and shown.
const LINE_BYTES: usize = 120;
const LIMITS: Limits = Limits { head_bytes: 16 * 1024, body_bytes: u64::MAX };

/// The request, and where to send it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses of the server, tried in order until one accepts the connection.
    pub targets: Vec<Target>,
    /// The `Host` field.
    pub host: String,
    /// The request target: path and query.
    pub path: String,
    /// Timeout for all attempts together.
    pub timeout_ms: u64,
}

/// An engine that sends one request and exits with its verdict.
#[derive(Debug)]
pub struct Healthcheck {
    plan: Plan,
    began_ns: u64,
    /// Targets tried so far; also the generation of the current id.
    tried: u32,
    /// Why no target could be connected to: of several reasons the most specific.
    failure: HangUp,
    stage: Stage,
    outbox: Outbox,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Requesting {
        answer: Answer,
        status: Option<u16>,
        /// The beginning of the body.
        line: Vec<u8>,
    },
    Over(Verdict),
}

/// The outcome of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A response, read as far as needed.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The body's first line.
        line: String,
    },
    /// No target could be connected to.
    NotConnected(HangUp),
    /// The connection broke before the response was complete.
    Broken,
    /// The response is malformed.
    Malformed(Fault),
    /// The timeout passed.
    TooSlow {
        /// The timeout.
        timeout_ms: u64,
        /// Whether the connection was established.
        connected: bool,
    },
    /// SIGTERM or SIGINT.
    Stopped,
    /// The request cannot be written, see [`Request::write`].
    Unsendable,
}

impl Verdict {
    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { status, line } if line.is_empty() => write!(f, "{status}"),
            Self::Answered { status, line } => write!(f, "{status} {line}"),
            Self::NotConnected(HangUp::Eof | HangUp::Reset) | Self::Broken => {
                f.write_str("connection reset before the response was complete")
            }
            Self::NotConnected(how) => how.fmt(f),
            Self::Malformed(fault) => fault.fmt(f),
            Self::TooSlow { timeout_ms, connected } => {
                let what = if *connected { "no response" } else { "cannot connect" };
                write!(f, "timed out after {}: {what}", show_duration(*timeout_ms))
            }
            Self::Stopped => f.write_str("stopped by a signal before the response was complete"),
            Self::Unsendable => f.write_str("this URL cannot be requested"),
        }
    }
}

impl Healthcheck {
    /// Starts at `began_ns`, from which the timeout counts.
    #[must_use]
    pub fn new(plan: Plan, began_ns: u64) -> Self {
        let mut check = Self {
            plan,
            began_ns,
            tried: 0,
            failure: HangUp::Unreachable,
            stage: Stage::Connecting,
            outbox: Outbox::default(),
            actions: VecDeque::new(),
        };
        check.try_next();
        check
    }

    /// The outcome, once there is one.
    #[must_use]
    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.stage {
            Stage::Over(verdict) => Some(verdict),
            Stage::Connecting | Stage::Requesting { .. } => None,
        }
    }

    fn id(&self) -> Id {
        Id { key: 0, generation: self.tried }
    }

    fn try_next(&mut self) {
        match self.plan.targets.get(self.tried as usize) {
            Some(target) => {
                self.tried += 1;
                self.actions.push_back(Action::Connect(self.id(), target.clone()));
            }
            None => self.end(Verdict::NotConnected(self.failure)),
        }
    }

    fn end(&mut self, verdict: Verdict) {
        if self.verdict().is_none() {
            let code = u8::from(!verdict.is_healthy());
            self.stage = Stage::Over(verdict);
            self.actions.push_back(Action::Exit(code));
        }
    }

    fn deadline_ns(&self) -> u64 {
        self.began_ns.saturating_add(time::ms(self.plan.timeout_ms))
    }

    fn ask(&mut self, out: &mut Out) {
        let request = Request {
            method: "GET",
            target: &self.plan.path,
            host: &self.plan.host,
            fields: &[
                ("User-Agent", concat!("wspulse/", env!("CARGO_PKG_VERSION"))),
                ("Accept", "*/*"),
                ("Connection", "close"),
            ],
            body: b"",
        };
        if request.write(&mut out.bytes).is_err() {
            return self.end(Verdict::Unsendable);
        }
        let answer = Answer::new(Asked::Ordinary, LIMITS);
        self.stage = Stage::Requesting { answer, status: None, line: Vec::new() };
    }

    fn read(&mut self, mut bytes: &[u8]) {
        let Stage::Requesting { answer, status, line } = &mut self.stage else { return };
        let done = loop {
            match answer.next(&mut bytes) {
                Ok(Some(Event::Head(head))) => *status = Some(head.status()),
                Ok(Some(Event::Body(piece))) => {
                    let room = LINE_BYTES - line.len();
                    line.extend_from_slice(&piece[..piece.len().min(room)]);
                    if line.len() == LINE_BYTES || line.contains(&b'\n') {
                        break Ok(true);
                    }
                }
                Ok(Some(Event::End(_))) => break Ok(true),
                Ok(None) => break Ok(false),
                Err(fault) => break Err(fault),
            }
        };
        match done {
            Ok(true) => self.answered(),
            Ok(false) => {}
            Err(fault) => self.end(Verdict::Malformed(fault)),
        }
    }

    fn answered(&mut self) {
        let Stage::Requesting { status: Some(status), line, .. } = &self.stage else { return };
        let first = line.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = shown(first);
        self.end(Verdict::Answered { status: *status, line });
    }
}

/// Escapes control and invisible characters, so that a response cannot control the terminal.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let plain = |c: char| if is_plain(c) { c.to_string() } else { c.escape_debug().to_string() };
    text.trim().chars().map(plain).collect()
}

impl Engine for Healthcheck {
    fn connected(&mut self, _: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        match how {
            Ok(()) => self.ask(out),
            Err(how) => {
                self.actions.push_back(Action::Close(id));
                let is_specific = match self.failure {
                    HangUp::Tls(_) | HangUp::Proxy(_) => true,
                    HangUp::Refused => !matches!(how, HangUp::Tls(_)),
                    _ => false,
                };
                if !is_specific {
                    self.failure = how;
                }
                self.try_next();
            }
        }
    }

    fn room<'a>(&'a mut self, _: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        shared
    }

    fn received(&mut self, _: Now, _: Id, n: usize, shared: &mut [u8], _: &mut Out) {
        self.read(&shared[..n]);
    }

    fn ended(&mut self, _: Now, _: Id, how: HangUp, _: &mut Out) {
        let Stage::Requesting { answer, .. } = &mut self.stage else { return };
        match how {
            HangUp::Eof => match answer.ended() {
                Ok(()) => self.answered(),
                Err(fault) => self.end(Verdict::Malformed(fault)),
            },
            HangUp::Reset
            | HangUp::Refused
            | HangUp::Unreachable
            | HangUp::Exhausted
            | HangUp::NoSuchName
            | HangUp::Tls(_)
            | HangUp::Proxy(_) => self.end(Verdict::Broken),
        }
    }

    fn keep(&mut self, _: Now, _: Id, shared: &[u8], out: &mut Out, taken: usize) {
        self.outbox.keep(out, shared, taken, &mut Blocks::default(), 0);
    }

    fn unsent(&self, _: Id) -> &[u8] {
        self.outbox.unsent()
    }

    fn sent(&mut self, _: Now, _: Id, n: usize) {
        self.outbox.sent(n, &mut Blocks::default(), 0);
    }

    fn render(&mut self, _: Now, _: Id, _: &mut Out) {}

    fn closed(&mut self, _: Now, _: Id) {}

    fn fire(&mut self, now: Now) {
        if self.verdict().is_none() && self.deadline_ns() <= now.mono_ns {
            let connected = matches!(self.stage, Stage::Requesting { .. });
            self.end(Verdict::TooSlow { timeout_ms: self.plan.timeout_ms, connected });
        }
    }

    fn signal(&mut self, _: Now, signal: Signal) {
        match signal {
            Signal::Stop => self.end(Verdict::Stopped),
            Signal::Report | Signal::Reload => {}
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.verdict().is_none().then(|| self.deadline_ns())
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(targets: usize) -> Healthcheck {
        let targets = (1..).take(targets).map(|port| Target::Tcp(([127, 0, 0, 1], port).into()));
        let plan = Plan {
            targets: targets.collect(),
            host: "h:1".to_owned(),
            path: "/healthz".to_owned(),
            timeout_ms: 1_000,
        };
        Healthcheck::new(plan, time::ms(5))
    }

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    fn connect(check: &mut Healthcheck, how: Result<(), HangUp>) -> Vec<u8> {
        let Some(Action::Connect(id, _)) = check.poll() else { panic!("it does not connect") };
        let mut out = Out::default();
        check.connected(at(10), id, how, &mut out);
        out.bytes
    }

    /// The exit code and text for a response.
    fn answered(bytes: &[u8], cut: usize, ends: Option<HangUp>) -> (Option<u8>, String) {
        let mut check = check(1);
        connect(&mut check, Ok(()));
        let id = check.id();
        for part in bytes.chunks(cut) {
            let mut shared = part.to_vec();
            check.received(at(11), id, part.len(), &mut shared, &mut Out::default());
        }
        if let Some(how) = ends {
            check.ended(at(12), id, how, &mut Out::default());
        }
        let code = check.poll().map(|action| match action {
            Action::Exit(code) => code,
            other => panic!("{other:?}"),
        });
        assert_eq!(check.poll(), None);
        (code, check.verdict().map_or(String::new(), Verdict::to_string))
    }

    #[test]
    fn answers() {
        for (bytes, ends, code, said) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n", None, 0, "200 OK"),
            ("HTTP/1.1 204 No\r\n\r\n", None, 0, "204"),
            ("HTTP/1.1 200 OK\r\n\r\nfine\nmore", None, 0, "200 fine"),
            ("HTTP/1.1 200 OK\r\n\r\nfine", Some(HangUp::Eof), 0, "200 fine"),
            ("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\ndraining\n", None, 1, "503 draining"),
            ("HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n", None, 1, "302"),
            ("HTTP/1.1 200 OK\r\n\r\n \x1b[2J\r\n", None, 0, "200 \\u{1b}[2J"),
            ("SSH-2.0", None, 1, "the response is not HTTP"),
            ("", Some(HangUp::Eof), 1, "the connection was closed without a response"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
                Some(HangUp::Eof),
                1,
                "the connection was closed in the middle of the response",
            ),
            ("", Some(HangUp::Reset), 1, "connection reset before the response was complete"),
        ] {
            for cut in [1, 7, 1000] {
                assert_eq!(
                    answered(bytes.as_bytes(), cut, ends),
                    (Some(code), said.to_owned()),
                    "{bytes} cut at {cut}"
                );
            }
        }
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5000));
        let want = (Some(0), format!("200 {}", "x".repeat(LINE_BYTES)));
        assert_eq!(answered(endless.as_bytes(), 64, None), want);
    }

    #[test]
    fn the_request() {
        let said = String::from_utf8(connect(&mut check(1), Ok(()))).unwrap();
        assert!(said.starts_with("GET /healthz HTTP/1.1\r\nHost: h:1\r\n"), "{said}");
        assert!(said.ends_with("\r\nConnection: close\r\n\r\n"), "{said}");
    }

    #[test]
    fn the_next_target_is_tried_if_one_refuses() {
        let mut tried = check(2);
        assert!(connect(&mut tried, Err(HangUp::Refused)).is_empty());
        assert!(matches!(tried.poll(), Some(Action::Close(_))));
        assert!(connect(&mut tried, Err(HangUp::Unreachable)).is_empty());
        assert!(matches!(tried.poll(), Some(Action::Close(_))));
        assert_eq!(tried.poll(), Some(Action::Exit(1)));
        let said = tried.verdict().unwrap().to_string();
        assert_eq!(said, "connection refused");
        assert_eq!(check(0).verdict(), Some(&Verdict::NotConnected(HangUp::Unreachable)));
    }

    #[test]
    fn the_timeout_covers_all_attempts() {
        let mut silent = check(1);
        assert_eq!(silent.next_deadline(), Some(time::ms(1_005)));
        silent.fire(at(1_004));
        assert_eq!(silent.verdict(), None);
        connect(&mut silent, Ok(()));
        silent.fire(at(1_005));
        let said = silent.verdict().unwrap().to_string();
        assert_eq!(said, "timed out after 1s: no response");
        assert_eq!((silent.poll(), silent.next_deadline()), (Some(Action::Exit(1)), None));
        let mut lost = check(1);
        lost.fire(at(2_000));
        let said = lost.verdict().unwrap().to_string();
        assert_eq!(said, "timed out after 1s: cannot connect");
    }

    #[test]
    fn a_signal_stops_it() {
        let mut stopped = check(1);
        stopped.signal(at(6), Signal::Report);
        assert_eq!(stopped.verdict(), None);
        stopped.signal(at(6), Signal::Stop);
        assert_eq!(stopped.verdict(), Some(&Verdict::Stopped));
    }
}
