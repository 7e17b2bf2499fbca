//! The loop: it waits, reads, calls the engine, writes, and carries out the engine's actions.
//! It knows neither HTTP nor WebSocket, and makes no system call itself, see `os`.
//!
//! Readiness is edge-triggered: a change is reported once. Work that stops before `WouldBlock` is
//! remembered in the stream's marks and, if it can continue, on the ready list. A stream in
//! neither sleeps until its next event.

mod accept;
mod marks;
mod pump;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::os::{Channel, Event, Interest, Os};
use crate::engine::{Action, Engine, File, Id, NameFault, Now, Out, Side, Source};
use crate::limits;
use crate::time::earlier;
use accept::{ListenerState, Queue};
use marks::Marks;

/// A deadline missed by this much means that the process was stopped, or the loop is too slow.
const LATE_NS: u64 = 10_000_000;

/// The clock is read again after this many actions.
const ACTIONS_PER_CLOCK_READ: usize = 8;

#[derive(Debug)]
struct Entry<S> {
    stream: S,
    generation: u32,
    marks: Marks,
    side: Side,
    /// Buffered bytes last reported to the engine.
    held: usize,
}

/// The streams that are ready to be served, by side.
#[derive(Debug, Default)]
struct Ready {
    admin: VecDeque<Id>,
    parts: VecDeque<Id>,
    main: VecDeque<Id>,
    /// Main streams in a handshake: only a few are served per turn.
    costly: VecDeque<Id>,
}

impl Ready {
    /// The list that this stream is to be added to; `None` if it is on one.
    #[inline]
    fn list_for<S: Channel>(&mut self, entry: &mut Entry<S>) -> Option<&mut VecDeque<Id>> {
        if entry.marks.has(Marks::QUEUED) {
            return None;
        }
        entry.marks.set(Marks::QUEUED);
        Some(match entry.side {
            Side::Admin => &mut self.admin,
            Side::Part(_) => &mut self.parts,
            Side::Main if entry.stream.is_costly() => &mut self.costly,
            Side::Main => &mut self.main,
        })
    }

    fn is_empty(&self) -> bool {
        let Self { admin, parts, main, costly } = self;
        admin.is_empty() && parts.is_empty() && main.is_empty() && costly.is_empty()
    }
}

/// Drives an engine on an operating system.
#[derive(Debug)]
pub struct Driver<E, O: Os> {
    engine: E,
    os: O,
    now: Now,
    streams: Vec<Option<Entry<O::Stream>>>,
    listeners: Vec<ListenerState>,
    /// Whether connections may be waiting at a listener.
    may_accept: bool,
    /// Whether accepting is paused at a listener, or was because descriptors had run out.
    is_short: bool,
    ready: Ready,
    /// Main streams still to be served before timers fire again.
    round: usize,
    /// Streams that may still be in a handshake, and since when; the oldest first.
    costly: VecDeque<(Id, u64)>,
    events: Vec<Event>,
    /// The only read buffer.
    shared: Box<[u8]>,
    /// The only out buffer.
    out: Out,
    /// Set while the main listeners are closing: until then waiting connections are accepted.
    closing_until_ns: Option<u64>,
    frozen_until_ns: Option<u64>,
    exit: Option<u8>,
    /// When the engine's next timer was due when the last wait began.
    due_ns: Option<u64>,
    /// When the next report to the supervisor is due.
    notify_ns: Option<u64>,
}

impl<E: Engine, O: Os> Driver<E, O> {
    /// Creates the loop and carries out the engine's first actions.
    pub fn new(engine: E, mut os: O) -> Self {
        let listeners = os.listeners();
        let listeners = listeners.into_iter().map(ListenerState::new).collect();
        let mut driver = Self {
            now: os.now(),
            engine,
            os,
            streams: Vec::new(),
            listeners,
            may_accept: true,
            is_short: false,
            ready: Ready::default(),
            round: 0,
            costly: VecDeque::new(),
            events: Vec::new(),
            shared: vec![0; limits::READ_BYTES_PER_TURN].into_boxed_slice(),
            out: Out::default(),
            closing_until_ns: None,
            frozen_until_ns: None,
            exit: None,
            due_ns: None,
            notify_ns: None,
        };
        // A client engine opens connections before any event.
        driver.act();
        driver.notify();
        driver
    }

    /// Runs until the engine asks for an exit; returns the exit code.
    ///
    /// # Errors
    /// When polling for events fails.
    pub fn run(&mut self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.turn()? {
                return Ok(code);
            }
        }
    }

    /// One turn: wait, admin side, listeners of parts, main side, timers.
    ///
    /// # Errors
    /// When polling for events fails.
    pub fn turn(&mut self) -> io::Result<Option<u8>> {
        if self.exit.is_some() {
            // The engine asked for an exit before any event: nothing would wake the loop.
            return Ok(self.exit);
        }
        if let Some(until_ns) = self.frozen_until_ns.take() {
            return self.freeze(until_ns);
        }
        let before_ns = self.now.mono_ns;
        let timeout = self.timeout();
        self.wait(timeout)?;
        let may_be_late = self.now.mono_ns - before_ns >= LATE_NS;
        if may_be_late && self.due_ns.is_some_and(|due| self.is_late(due)) {
            self.catch_up()?;
        }
        self.serve_admin()?;
        self.serve_parts()?;
        self.serve_main()?;
        self.serve_costly()?;
        self.close_listeners_when_due();
        self.resume_paused_listeners(false);
        // A timer that was set in this turn is for the next one.
        if self.round == 0 && self.due_ns.is_some_and(|due| due <= self.now.mono_ns) {
            self.fire()?;
        }
        self.act();
        self.notify();
        Ok(self.exit)
    }

    /// Fires due timers, a few at a time; after a share of the work that they cause, the admin side
    /// is polled.
    fn fire(&mut self) -> io::Result<()> {
        let mut asked = self.engine.work();
        for _ in 0..limits::TIMERS_PER_TURN / limits::TIMERS_AT_ONCE {
            if self.engine.next_deadline().is_none_or(|due| due > self.now.mono_ns) {
                break;
            }
            self.engine.fire(self.now);
            self.act();
            if self.engine.work() - asked >= limits::READ_BEFORE_ADMIN as u64 {
                self.check_admin()?;
                asked = self.engine.work();
            }
        }
        Ok(())
    }

    /// Handles only signals until then; one that does not end the process does not end the freeze.
    fn freeze(&mut self, until_ns: u64) -> io::Result<Option<u8>> {
        let left = Duration::from_nanos(until_ns.saturating_sub(self.now.mono_ns));
        let slept = self.os.sleep(left, &mut self.events);
        self.now = self.os.now();
        let goes_on = self.now.mono_ns < until_ns;
        if goes_on {
            self.frozen_until_ns = Some(until_ns);
        }
        self.record();
        slept?;
        if !goes_on {
            self.catch_up()?;
        }
        Ok(self.exit)
    }

    /// Returns how many events there were.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let waited = self.os.wait(timeout, &mut self.events);
        self.now = self.os.now();
        let happened = self.record();
        waited.map(|()| happened)
    }

    fn is_late(&self, due_ns: u64) -> bool {
        due_ns + LATE_NS <= self.now.mono_ns
    }

    /// After the process was stopped (SIGSTOP, no CPU) there are more events than one wait returns.
    /// All of them are read and served in this turn before a timer fires: otherwise peers would be
    /// closed as silent though their bytes lie in the kernel's buffers.
    fn catch_up(&mut self) -> io::Result<()> {
        // A stream that changes again meanwhile is reported behind all the others.
        let mut left = self.streams.len() + self.listeners.len();
        while left > 0 && !self.is_halted() {
            match self.wait(Some(Duration::ZERO))? {
                0 => break,
                happened => left = left.saturating_sub(happened),
            }
        }
        Ok(())
    }

    fn notify(&mut self) {
        self.notify_ns = self.os.notify(self.now, self.engine.status());
    }

    /// For tests: the driven engine.
    #[must_use]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, after the loop has ended.
    #[must_use]
    pub fn into_engine(self) -> E {
        self.engine
    }

    /// For tests: the operating system it runs on.
    pub fn os(&mut self) -> &mut O {
        &mut self.os
    }

    /// How long to wait for events.
    fn timeout(&mut self) -> Option<Duration> {
        self.due_ns = self.engine.next_deadline();
        (self.may_accept, self.is_short) = (false, false);
        let mut due = earlier(self.due_ns, earlier(self.closing_until_ns, self.notify_ns));
        for listener in &self.listeners {
            self.is_short |= listener.retry_ns > 0;
            match listener.state {
                Queue::Waiting => self.may_accept = true,
                Queue::Paused { until_ns } => {
                    self.is_short = true;
                    due = earlier(due, Some(until_ns));
                }
                Queue::Empty | Queue::Closed => {}
            }
        }
        if self.may_accept || !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let left_ns = due?.saturating_sub(self.now.mono_ns);
        Some(Duration::from_nanos(left_ns))
    }

    /// Notes what the events say; returns how many there were.
    fn record(&mut self) -> usize {
        let happened = self.events.len();
        for at in 0..happened {
            match self.events[at] {
                Event::Accept(index) => {
                    if let Some(listener) = self.listeners.get_mut(index) {
                        listener.set_waiting(self.now.mono_ns);
                        self.may_accept = true;
                    }
                }
                Event::Stream { id, readable, writable, ended, broken } => {
                    let Some(entry) = find(&mut self.streams, id) else { continue };
                    let waits = entry.marks.has(Marks::BLOCKED | Marks::CONNECTING);
                    if readable {
                        entry.marks.set(Marks::READABLE);
                    }
                    if ended {
                        entry.marks.set(Marks::READABLE | Marks::ENDED);
                    }
                    if broken {
                        entry.marks.set(Marks::BROKEN);
                    }
                    if writable && waits {
                        entry.marks.set(Marks::WRITABLE);
                    }
                    if (readable || ended || (writable && waits))
                        && let Some(ready) = self.ready.list_for(entry)
                    {
                        ready.push_back(id);
                    }
                }
                Event::Signal(signal) => {
                    self.engine.signal(self.now, signal);
                    self.act();
                }
                Event::AssetsRead => {
                    let read = self.os.take_assets();
                    self.deliver_files(Source::Assets, read);
                    self.act();
                }
                Event::Resolved => self.deliver_names(),
            }
        }
        self.events.clear();
        happened
    }

    /// Puts a stream on the ready list of its side, once.
    fn queue(&mut self, id: Id) {
        if let Some(entry) = find(&mut self.streams, id)
            && let Some(ready) = self.ready.list_for(entry)
        {
            ready.push_back(id);
        }
    }

    /// The same, at the front, for a stream not served yet: a busy stream is always ready, and each
    /// turn serves every ready stream, so none waits longer for it.
    fn queue_first(&mut self, id: Id) {
        if let Some(entry) = find(&mut self.streams, id)
            && let Some(ready) = self.ready.list_for(entry)
        {
            ready.push_front(id);
            self.round += usize::from(self.round > 0);
        }
    }

    /// Accepts at the listeners of the selected sides where connections are waiting.
    fn accept_at(&mut self, is_wanted: fn(Side) -> bool) -> io::Result<()> {
        if !self.may_accept {
            return Ok(());
        }
        for at in 0..self.listeners.len() {
            let listener = &self.listeners[at];
            if is_wanted(listener.side) && listener.state == Queue::Waiting {
                self.accept(at)?;
            }
        }
        Ok(())
    }

    /// Accepts, then serves ready streams; those with more input are queued for the next turn.
    fn serve_admin(&mut self) -> io::Result<()> {
        self.accept_at(|side| side == Side::Admin)?;
        for _ in 0..self.ready.admin.len() {
            if self.is_frozen() {
                break;
            }
            let Some(id) = self.ready.admin.pop_front() else { break };
            self.serve(id);
        }
        Ok(())
    }

    /// The same for the listeners of parts, up to a share of the turn's work.
    fn serve_parts(&mut self) -> io::Result<()> {
        self.accept_at(|side| matches!(side, Side::Part(_)))?;
        let mut work = 0;
        for _ in 0..self.ready.parts.len() {
            if work >= limits::READ_BEFORE_ADMIN || self.is_frozen() {
                break;
            }
            let Some(id) = self.ready.parts.pop_front() else { break };
            work += self.serve(id);
        }
        Ok(())
    }

    /// The same for the main side. Between its streams the admin side is polled, so that load
    /// cannot delay it.
    fn serve_main(&mut self) -> io::Result<()> {
        self.accept_at(|side| side == Side::Main)?;
        self.serve_round()
    }

    /// Serves main streams up to the work of a turn. The remaining ones go first in the next turn,
    /// behind new connections. A round ends when every stream that was ready at its beginning has
    /// been served. Timers fire only then: bytes that have arrived are read before a timeout can
    /// close their stream.
    fn serve_round(&mut self) -> io::Result<()> {
        if self.round == 0 {
            self.round = self.ready.main.len();
        }
        let has_admin = self.has_admin();
        let (mut served, mut work, mut turn) = (0, 0, 0);
        while self.round > 0 && turn < limits::WORK_OF_A_TURN && !self.is_frozen() {
            self.round -= 1;
            let Some(id) = self.ready.main.pop_front() else {
                self.round = 0;
                break;
            };
            let done = self.serve(id);
            (served, work, turn) = (served + 1, work + done, turn + done);
            let due = served >= limits::SERVED_BEFORE_ADMIN || work >= limits::READ_BEFORE_ADMIN;
            if has_admin && due {
                (served, work) = (0, 0);
                self.check_admin()?;
            }
        }
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.frozen_until_ns.is_some()
    }

    /// Serves a few handshakes per turn, and polls the admin side after each.
    fn serve_costly(&mut self) -> io::Result<()> {
        for _ in 0..self.ready.costly.len().min(limits::HANDSHAKES_PER_TURN) {
            if self.frozen_until_ns.is_some() {
                break;
            }
            let Some(id) = self.ready.costly.pop_front() else { break };
            self.serve(id);
            self.check_admin()?;
        }
        Ok(())
    }

    fn has_admin(&self) -> bool {
        self.listeners.iter().any(|listener| listener.side == Side::Admin)
    }

    /// Whether the rest of this turn is skipped.
    fn is_halted(&self) -> bool {
        self.frozen_until_ns.is_some() || self.exit.is_some()
    }

    fn check_admin(&mut self) -> io::Result<()> {
        let polled = self.os.poll_admin(&mut self.events);
        let happened = self.record();
        polled?;
        if happened > 0 { self.serve_admin() } else { Ok(()) }
    }

    fn act(&mut self) {
        let mut done: usize = 0;
        while let Some(action) = self.engine.poll() {
            done += 1;
            if done.is_multiple_of(ACTIONS_PER_CLOCK_READ) {
                // Many pings take long if CPU is short: the last needs a time of its own.
                self.now = self.os.now();
            }
            match action {
                Action::Write(id) => self.render(id),
                Action::Request(id) => self.render_request(id),
                Action::Connect(id, target) => self.connect(id, &target),
                Action::Resolve(host) => {
                    if !self.os.resolve(&host) {
                        let found = Err(NameFault::NotFound);
                        self.engine.resolved(self.now, &host, found);
                    }
                }
                Action::Resume(id) => {
                    if let Some(entry) = find(&mut self.streams, id) {
                        entry.marks.set(Marks::RESUME);
                        self.queue(id);
                    }
                }
                Action::Finish(id) => self.when_written(id, Marks::FINISH),
                Action::Close(id) => self.when_written(id, Marks::CLOSE),
                Action::Reset(id) => self.reset(id),
                Action::Freeze { until_ns } => self.frozen_until_ns = Some(until_ns),
                Action::StopAccepting => self.stop_accepting(),
                Action::Weigh => {
                    if let Some(used) = self.os.memory_used() {
                        self.engine.weighed(self.now, used);
                    }
                }
                Action::Fetch(source) => {
                    let read = self.os.fetch(&source);
                    self.deliver_files(source, read);
                }
                Action::Show(text) => self.os.show(&text),
                Action::Exit(code) => self.exit = Some(code),
            }
        }
    }

    fn deliver_names(&mut self) {
        while let Some((host, found)) = self.os.take_resolved() {
            let found = found.as_deref().map_err(|fault| *fault);
            self.engine.resolved(self.now, &host, found);
            self.act();
        }
    }

    fn deliver_files(&mut self, source: Source, read: io::Result<Vec<File>>) {
        match read {
            Ok(files) => self.engine.fetched(self.now, source, files),
            // A thread reads them, and an event follows.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!(
                    target: "reload", error:% = error;
                    "cannot reload files, keeping the old ones"
                );
            }
        }
    }

    fn when_written(&mut self, id: Id, mark: u16) {
        // A request that was put off until the stream is read: nothing reads it any more.
        if find(&mut self.streams, id).is_some_and(|entry| entry.marks.take(Marks::RENDER)) {
            self.render(id);
        }
        if let Some(entry) = find(&mut self.streams, id) {
            entry.marks.set(mark);
            self.end_if_written(id);
        }
    }
}

fn find<S>(streams: &mut [Option<Entry<S>>], id: Id) -> Option<&mut Entry<S>> {
    let entry = streams.get_mut(id.key as usize)?.as_mut()?;
    (entry.generation == id.generation).then_some(entry)
}
