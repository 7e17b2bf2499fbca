//! A server with one connection, driven in memory: the smallest driver that keeps the contract of
//! `wspulse::engine`. The peer reads all output, at once or in small parts and late.

use std::ffi::OsString;
use std::sync::OnceLock;

use wspulse::engine::{Action, Engine, HangUp, Id, Now, Out, Peer, Side};
use wspulse::limits;
use wspulse::options::{self, Command, Surroundings};
use wspulse::server::config::Config;
use wspulse::server::{Assets, Server};

/// More calls than this for one part of the input are an endless loop.
const CALLS_MAX: usize = 100_000;
/// The clock does not advance.
const NOW: Now = Now { mono_ns: 1_000_000_000, wall_ms: 1_795_230_000_000 };

/// A connection with its own server.
#[derive(Debug)]
pub struct Session {
    server: Server,
    id: Id,
    shared: Vec<u8>,
    out: Out,
    pace: Pace,
    marks: Marks,
    /// All output of the server.
    pub output: Vec<u8>,
    /// The state of the shutdown.
    pub end: End,
}

/// How the peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Everything at once.
    Eager,
    /// This many bytes at a time, and only when the server has stopped reading.
    Slow(usize),
}

/// The server's side of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    /// It has sent its FIN.
    Finished,
    Closed,
    Reset,
}

/// Flags of the stream, as bits.
#[derive(Clone, Copy, Debug)]
struct Marks(u8);

impl Marks {
    /// The server wants to resume held input.
    const RESUME: u8 = 1;
    /// The peer has not read everything: the server keeps the rest.
    const BLOCKED: u8 = 2;
    /// To be finished, and to be closed, once everything is read.
    const FINISH: u8 = 4;
    const CLOSE: u8 = 8;

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8) {
        self.0 |= mark;
    }

    fn take(&mut self, mark: u8) -> bool {
        let had = self.has(mark);
        self.0 &= !mark;
        had
    }
}

fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let surroundings = Surroundings { host_name: "pod-1".to_owned() };
        match options::parse(Vec::<OsString>::new(), Vec::new(), &surroundings) {
            Ok(Command::Serve(serve)) => serve.server,
            other => panic!("without arguments it serves: {other:?}"),
        }
    })
}

impl Session {
    /// A server with this message limit, or the default.
    pub fn new(max_message: Option<usize>, pace: Pace) -> Self {
        let mut config = config().clone();
        config.limits.max_connections = 8;
        if let Some(max_message) = max_message {
            config.limits.max_message = max_message;
        }
        let mut server = Server::new(config, Vec::new(), Assets::directory(Vec::new()), 1);
        let peer = Peer::new(([192, 0, 2, 1], 50_000).into());
        let id = server.accepted(NOW, Side::Main, peer).expect("the first connection is accepted");
        let mut session = Self {
            server,
            id,
            shared: vec![0; limits::READ_BYTES_PER_TURN],
            out: Out::default(),
            pace,
            marks: Marks(0),
            output: Vec::new(),
            end: End::Open,
        };
        session.act();
        session
    }

    /// Receives bytes in one read.
    pub fn send(&mut self, mut bytes: &[u8]) {
        for _ in 0..CALLS_MAX {
            self.go_on();
            if bytes.is_empty() || self.is_gone() {
                return;
            }
            let room = self.server.room(self.id, &mut self.shared);
            if room.is_empty() {
                assert!(self.marks.has(Marks::BLOCKED), "paused without pending output");
                self.flush();
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..part.len()].copy_from_slice(part);
            self.server.received(NOW, self.id, part.len(), &mut self.shared, &mut self.out);
            bytes = rest;
            self.deliver();
            self.act();
        }
        panic!("the server spins");
    }

    /// Reads all pending output.
    pub fn drain(&mut self) {
        for _ in 0..CALLS_MAX {
            self.go_on();
            if !self.marks.has(Marks::BLOCKED) || self.is_gone() {
                return;
            }
            self.flush();
        }
        panic!("the server never ends");
    }

    /// The peer disconnects; nothing may be left.
    pub fn hang_up(mut self) {
        self.drain();
        if !self.is_gone() {
            self.server.ended(NOW, self.id, HangUp::Reset, &mut self.out);
            self.out.clear();
            self.marks.take(Marks::BLOCKED);
            self.act();
        }
        assert!(self.is_gone(), "a dead stream is not closed");
        let left = (self.server.connections(), self.server.timers(), self.server.memory());
        assert_eq!(left, (0, 0, 0), "connections, timers, bytes left behind");
    }

    fn is_gone(&self) -> bool {
        matches!(self.end, End::Closed | End::Reset)
    }

    /// Resumes held input as long as the server requests it.
    fn go_on(&mut self) {
        for _ in 0..CALLS_MAX {
            if !self.marks.take(Marks::RESUME) || self.is_gone() {
                return;
            }
            self.server.resume(NOW, self.id, &mut self.shared, &mut self.out);
            self.deliver();
            self.act();
        }
        panic!("the server resumes for ever");
    }

    fn deliver(&mut self) {
        let total = self.out.len();
        let taken = match self.pace {
            _ if self.marks.has(Marks::BLOCKED) => 0,
            Pace::Eager => total,
            Pace::Slow(bytes) => bytes.min(total),
        };
        let slices = self.out.slices(&self.shared).flatten();
        self.output.extend(slices.take(taken));
        if taken < total {
            self.marks.set(Marks::BLOCKED);
        }
        if total > 0 && (taken < total || !self.out.is_plain()) {
            self.server.keep(NOW, self.id, &self.shared, &mut self.out, taken);
        }
        self.out.clear();
    }

    /// The peer reads a part of the pending output.
    fn flush(&mut self) {
        let unsent = self.server.unsent(self.id);
        let taken = match self.pace {
            Pace::Eager => unsent.len(),
            Pace::Slow(bytes) => bytes.min(unsent.len()),
        };
        self.output.extend_from_slice(&unsent[..taken]);
        if taken > 0 {
            self.server.sent(NOW, self.id, taken);
        }
        if self.server.unsent(self.id).is_empty() {
            self.marks.take(Marks::BLOCKED);
        }
        self.end_if_written();
        self.act();
    }

    fn act(&mut self) {
        for _ in 0..CALLS_MAX {
            let Some(action) = self.server.poll() else { return };
            match action {
                Action::Write(id) if id == self.id && !self.is_gone() => {
                    self.server.render(NOW, id, &mut self.out);
                    self.deliver();
                }
                Action::Resume(_) => self.marks.set(Marks::RESUME),
                Action::Finish(_) => self.marks.set(Marks::FINISH),
                Action::Close(_) => self.marks.set(Marks::CLOSE),
                Action::Reset(_) if !self.is_gone() => self.gone(End::Reset),
                Action::Write(_) | Action::Reset(_) => {}
                other => panic!("unexpected {other:?}"),
            }
            self.end_if_written();
        }
        panic!("the server acts for ever");
    }

    fn end_if_written(&mut self) {
        if self.marks.has(Marks::BLOCKED) || self.is_gone() {
            return;
        }
        if self.marks.has(Marks::FINISH) && self.end == End::Open {
            self.end = End::Finished;
        }
        if self.marks.has(Marks::CLOSE) {
            self.gone(End::Closed);
        }
    }

    fn gone(&mut self, end: End) {
        self.end = end;
        self.server.closed(NOW, self.id);
    }
}
