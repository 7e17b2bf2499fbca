//! The kernel through `mio`: two pollers, one nested in the other so that the admin side can be
//! polled alone; listeners, streams, signals.

use std::fs::File as OsFile;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Poll, Token, Waker};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::assets::AssetReader;
use super::connecting::Outbound;
use super::memory::Gauge;
use super::notify::Supervisor;
use super::os::{Event, Interest, Os, Resolved};
use super::socket::{Listener, READS};
use super::stream::Stream;
use super::terminal::ready;
use super::tls::Certificate;
use super::{clock, files, process};
use crate::engine::{File, Id, NameFault, Now, Peer, Side, Signal, Source, Status, Target};
use crate::proto::forwarded::Range;
use crate::time::earlier;

/// Tokens of connections are `key | generation << 32`; these are above every key in use.
const ADMIN_SIDE: usize = usize::MAX;
const ALARM: usize = usize::MAX - 1;
const WAKER: usize = usize::MAX - 2;
const FIRST_SIGNAL: usize = usize::MAX - 8;
const FIRST_LISTENER: usize = usize::MAX - 4096;
/// Events per poll; the rest is returned by the next one.
const EVENTS: usize = 1024;

/// The operating system of a running command.
#[derive(Debug)]
pub(crate) struct Kernel {
    main: Poll,
    admin: Poll,
    batch: Events,
    listeners: Vec<(Side, Option<Listener>)>,
    signals: Vec<(Signal, UnixStream)>,
    /// Closed to accept and refuse one connection when descriptors have run out.
    reserve: Option<OsFile>,
    assets: Option<AssetReader>,
    /// Threads wake the loop with this.
    waker: Option<Arc<Waker>>,
    supervisor: Option<Supervisor>,
    /// Wakes with microsecond precision, while a poller's timeout has milliseconds.
    alarm: Option<OwnedFd>,
    /// Events of streams that epoll cannot watch.
    ready_events: Vec<Event>,
    /// The certificate of the main listeners, if they use TLS.
    tls: Option<Certificate>,
    /// Peers of the main listeners that begin with a PROXY header.
    proxies: Vec<Range>,
    memory: Option<Gauge>,
    outbound: Outbound,
}

/// What a [`Kernel`] serves; the default only opens outgoing connections.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    pub(crate) listeners: Vec<(Side, Listener)>,
    pub(crate) assets: Option<AssetReader>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) tls: Option<Certificate>,
    pub(crate) proxies: Vec<Range>,
    pub(crate) memory: Option<Gauge>,
}

impl Kernel {
    /// Registers these listeners and signals.
    pub(crate) fn new(duties: Duties, signals: Vec<(Signal, UnixStream)>) -> io::Result<Self> {
        let (main, admin) = (Poll::new()?, Poll::new()?);
        let nested = admin.as_raw_fd();
        main.registry().register(&mut SourceFd(&nested), Token(ADMIN_SIDE), READS)?;
        let mut kernel = Self {
            main,
            admin,
            batch: Events::with_capacity(EVENTS),
            listeners: Vec::new(),
            signals,
            reserve: spare_descriptor(),
            assets: duties.assets,
            waker: None,
            supervisor: duties.supervisor,
            alarm: None,
            ready_events: Vec::new(),
            tls: duties.tls,
            proxies: duties.proxies,
            memory: duties.memory,
            outbound: Outbound::default(),
        };
        for (number, (side, mut listener)) in duties.listeners.into_iter().enumerate() {
            let token = Token(FIRST_LISTENER + number);
            kernel.side(side).registry().register(listener.source(), token, READS)?;
            kernel.listeners.push((side, Some(listener)));
        }
        for (number, (_, pipe)) in kernel.signals.iter_mut().enumerate() {
            let token = Token(FIRST_SIGNAL + number);
            kernel.main.registry().register(pipe, token, READS)?;
        }
        Ok(kernel)
    }

    /// For engines that measure latency: uses a timer of microsecond precision.
    pub(crate) fn wake_exactly(mut self) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let source = &mut SourceFd(&alarm.as_raw_fd());
        self.main.registry().register(source, Token(ALARM), READS)?;
        self.alarm = Some(alarm);
        Ok(self)
    }

    /// Arms the alarm, if there is one; returns the timeout to poll with.
    fn set_alarm(&self, timeout: Option<Duration>) -> io::Result<Option<Duration>> {
        match (&self.alarm, timeout) {
            (Some(alarm), Some(time)) if !time.is_zero() => {
                let it_value = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
                let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                let once = Itimerspec { it_interval, it_value };
                timerfd_settime(alarm, TimerfdTimerFlags::empty(), &once)?;
                Ok(None)
            }
            _ => Ok(timeout),
        }
    }

    /// The waker, created on first use: a poller can have only one.
    fn waker(&mut self) -> io::Result<Arc<Waker>> {
        if let Some(waker) = &self.waker {
            return Ok(Arc::clone(waker));
        }
        let waker = Arc::new(Waker::new(self.main.registry(), Token(WAKER))?);
        self.waker = Some(Arc::clone(&waker));
        Ok(waker)
    }

    fn side(&self, side: Side) -> &Poll {
        match side {
            Side::Main | Side::Part(_) => &self.main,
            Side::Admin => &self.admin,
        }
    }

    /// Translates a batch of events; returns whether the admin poller is ready.
    fn translate(&mut self, events: &mut Vec<Event>) -> bool {
        let mut admin = false;
        for event in &self.batch {
            match event.token().0 {
                ADMIN_SIDE => admin = true,
                // What it signals is collected after every wait.
                WAKER => {}
                token if token >= FIRST_SIGNAL => {
                    if let Some((signal, pipe)) = self.signals.get_mut(token - FIRST_SIGNAL) {
                        take_all(pipe);
                        if let Some(supervisor) = &mut self.supervisor {
                            supervisor.signal(*signal);
                        }
                        if let (Signal::Reload, Some(tls)) = (*signal, &mut self.tls) {
                            tls.reload(clock::now());
                        }
                        events.push(Event::Signal(*signal));
                    }
                }
                token if token >= FIRST_LISTENER => {
                    events.push(Event::Accept(token - FIRST_LISTENER));
                }
                token => events.push(Event::Stream {
                    id: Id { key: token as u32, generation: (token >> 32) as u32 },
                    readable: event.is_readable() || event.is_error(),
                    writable: event.is_writable() || event.is_error() || event.is_write_closed(),
                    ended: event.is_read_closed() || event.is_error(),
                    broken: event.is_error(),
                }),
            }
        }
        admin
    }
}

fn token(id: Id) -> Token {
    Token(id.key as usize | (id.generation as usize) << 32)
}

/// Drains the pipe, since a signal that arrived several times is one event. Returns whether any
/// arrived.
fn take_all(pipe: &mut UnixStream) -> bool {
    let mut came = false;
    while pipe.read(&mut [0; 64]).is_ok_and(|n| n > 0) {
        came = true;
    }
    came
}

/// A line that the next one replaces is left out while the terminal is stopped (Ctrl-S) or full:
/// waiting for it would stop the clients, and what they measure.
fn show_on(output: &mut (impl Write + AsFd), text: &str) {
    if text.ends_with('\n') || ready(output.as_fd(), PollFlags::OUT).is_ok() {
        // It may be closed.
        drop(output.write_all(text.as_bytes()));
    }
}

fn spare_descriptor() -> Option<OsFile> {
    OsFile::open("/dev/null").ok()
}

/// Polls, again after an interruption, since signals have pipes of their own. After a SIGSTOP every
/// wait is interrupted, but must still return the events that arrived meanwhile.
fn poll(poll: &mut Poll, batch: &mut Events, mut timeout: Option<Duration>) -> io::Result<()> {
    loop {
        match poll.poll(batch, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                timeout = Some(Duration::ZERO);
            }
            other => return other,
        }
    }
}

impl Os for Kernel {
    type Stream = Stream;

    fn now(&mut self) -> Now {
        clock::now()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.ready_events);
        let at_once = !events.is_empty() || self.outbound.resolver.has_events();
        let timeout = match self.outbound.timeout(clock::now) {
            Some(own) => Some(timeout.map_or(own, |asked| asked.min(own))),
            None => timeout,
        };
        let timeout = if at_once { Some(Duration::ZERO) } else { self.set_alarm(timeout)? };
        poll(&mut self.main, &mut self.batch, timeout)?;
        self.outbound.collect_attempts(clock::now, events);
        if self.outbound.resolver.is_busy() {
            self.outbound.resolver.collect(clock::now(), events);
        }
        if self.assets.as_mut().is_some_and(AssetReader::has_finished) {
            events.push(Event::AssetsRead);
        }
        if self.translate(events) { self.poll_admin(events) } else { Ok(()) }
    }

    fn poll_admin(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        poll(&mut self.admin, &mut self.batch, Some(Duration::ZERO))?;
        self.translate(events);
        Ok(())
    }

    fn sleep(&mut self, time: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        let mut pipes: Vec<PollFd<'_>> =
            self.signals.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(time).ok();
        match rustix::event::poll(&mut pipes, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(pipes);
        for (signal, pipe) in &mut self.signals {
            if take_all(pipe) {
                if let Some(supervisor) = &mut self.supervisor {
                    supervisor.signal(*signal);
                }
                events.push(Event::Signal(*signal));
            }
        }
        Ok(())
    }

    fn listeners(&self) -> Vec<Side> {
        self.listeners.iter().map(|(side, _)| *side).collect()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Stream, Peer)> {
        let Some((side, Some(open))) = self.listeners.get(listener) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let proxies = if *side == Side::Main { &self.proxies[..] } else { &[] };
        let (socket, peer) = open.accept(proxies)?;
        let stream = match &mut self.tls {
            Some(tls) if *side == Side::Main => tls.accept(clock::now(), socket)?,
            Some(_) | None => Stream::Plain(socket),
        };
        Ok((stream, peer))
    }

    fn refuse_one(&mut self, listener: usize, response: &[u8]) -> io::Result<()> {
        // If it could not be opened after the last refusal, perhaps it can be now.
        let reserve = self.reserve.take().or_else(spare_descriptor);
        drop(reserve.ok_or(io::ErrorKind::Other)?);
        let mut accepted = self.accept(listener);
        if let Ok((stream, _)) = &mut accepted {
            // With TLS nothing can be written before the handshake.
            let written = stream.write(response);
            drop(written);
            stream.finish();
            // Unread bytes would make the kernel send RST, and the peer would lose the response.
            let drained = stream.read(&mut [0; 4096]);
            drop(drained);
        }
        let outcome = accepted.map(drop);
        self.reserve = spare_descriptor();
        outcome
    }

    fn resolve(&mut self, host: &str) -> bool {
        let Ok(waker) = self.waker() else { return false };
        self.outbound.resolver.set_waker(waker);
        self.outbound.resolver.look_up(host, clock::now());
        true
    }

    fn take_resolved(&mut self) -> Option<Resolved> {
        let (host, found) = self.outbound.resolver.take_answer()?;
        // A name without addresses is no name of a server.
        let found = match found {
            Ok(addresses) if addresses.is_empty() => Err(NameFault::NotFound),
            found => found.map_err(|fault| fault.name_fault()),
        };
        Some((host, found))
    }

    fn connect(&mut self, target: &Target) -> io::Result<Stream> {
        Stream::connect(target)
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let connecting = match stream {
            Stream::Plain(socket) => return socket.is_connected(),
            Stream::Tls(_) => return Ok(true),
            Stream::Connecting(connecting) => connecting,
        };
        let Some(established) =
            connecting.advance(&mut self.outbound, self.main.registry(), clock::now())?
        else {
            return Ok(false);
        };
        *stream = established.into();
        Ok(true)
    }

    fn probe_peer(&mut self, stream: &mut Stream) {
        if let Some(socket) = stream.socket() {
            socket.probe_peer();
        }
    }

    fn watch(
        &mut self,
        stream: &mut Stream,
        side: Side,
        id: Id,
        interest: Interest,
    ) -> io::Result<()> {
        let token = token(id);
        if let Stream::Connecting(connecting) = stream {
            if self.outbound.resolver.needs_waker() {
                let waker = self.waker()?;
                self.outbound.resolver.set_waker(waker);
            }
            connecting.watched(token, id, clock::now(), &mut self.outbound);
        }
        let Some(socket) = stream.socket() else { return Ok(()) };
        if socket.watch(self.side(side).registry(), token, interest)? {
            self.ready_events.push(Event::Stream {
                id,
                readable: true,
                writable: true,
                ended: true,
                broken: false,
            });
        }
        Ok(())
    }

    fn watch_writes(&mut self, stream: &mut Stream, side: Side, id: Id) -> io::Result<()> {
        let Some(socket) = stream.socket() else { return Ok(()) };
        socket.watch_writes(self.side(side).registry(), token(id))
    }

    fn finish(&mut self, stream: &mut Stream) {
        stream.finish();
    }

    fn reset(&mut self, stream: Stream) {
        stream.reset();
    }

    fn close_listeners(&mut self) {
        for (side, listener) in &mut self.listeners {
            if *side == Side::Main {
                *listener = None;
            }
        }
    }

    fn notify(&mut self, now: Now, status: Status) -> Option<u64> {
        let reading = self.assets.as_ref().is_some_and(AssetReader::is_reading);
        let supervisor_ns =
            self.supervisor.as_mut().and_then(|supervisor| supervisor.notify(now, status, reading));
        earlier(supervisor_ns, self.tls.as_mut().map(|tls| tls.warn(now)))
    }

    fn show(&mut self, text: &str) {
        show_on(&mut io::stderr(), text);
    }

    fn memory_used(&mut self) -> Option<u64> {
        self.memory.as_ref().and_then(Gauge::used)
    }

    fn take_assets(&mut self) -> io::Result<Vec<File>> {
        let waker = self.waker()?;
        self.assets.as_mut().ok_or(io::ErrorKind::NotFound)?.take(waker)
    }

    fn fetch(&mut self, source: &Source) -> io::Result<Vec<File>> {
        match source {
            Source::Assets => {
                let waker = self.waker()?;
                let assets = self.assets.as_mut().ok_or(io::ErrorKind::NotFound)?;
                assets.begin(waker)?;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Source::Process => Ok(process::figures()),
            Source::Files(paths) => Ok(files::found(paths)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::PipeWriter;
    use std::os::fd::BorrowedFd;

    use super::*;

    /// Its state is that of a pipe, which is not written to.
    struct Output {
        pipe: PipeWriter,
        text: Vec<u8>,
    }

    impl AsFd for Output {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.pipe.as_fd()
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.text.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Ctrl-S stopped `wspulse load`, and its report blamed the server.
    #[test]
    fn progress_on_a_stopped_terminal() {
        let (_reader, mut pipe) = io::pipe().unwrap();
        let mut output = Output { pipe: pipe.try_clone().unwrap(), text: Vec::new() };
        show_on(&mut output, "\rone");
        while ready(pipe.as_fd(), PollFlags::OUT).is_ok() {
            pipe.write_all(&[0; 4096]).unwrap();
        }
        show_on(&mut output, "\rtwo");
        show_on(&mut output, "an error\n");
        assert_eq!(output.text, b"\rone".iter().chain(b"an error\n").copied().collect::<Vec<_>>());
    }
}
