//! The kernel, through `mio`: two pollers, one nested in the other so that the admin side can be
//! asked alone; listeners, streams, signals.

use std::fs::File as OsFile;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::assets::AssetReader;
use super::begun::{self, Outward};
use super::memory::Gauge;
use super::notify::Supervisor;
use super::os::{Event, Os};
use super::stream::{Listener, Stream};
use super::tls::Keeper;
use super::{clock, files, process};
use crate::engine::{File, Id, Now, Peer, Side, Signal, Source, Standing, Target};

/// Tokens of connections are `key | generation << 32`; these few lie where no key ever is.
const ADMIN_SIDE: usize = usize::MAX;
const ALARM: usize = usize::MAX - 1;
const WAKER: usize = usize::MAX - 2;
const FIRST_SIGNAL: usize = usize::MAX - 8;
const FIRST_DOOR: usize = usize::MAX - 4096;
/// Events taken at once; the rest follow next turn.
const EVENTS: usize = 1024;

/// The kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    main: Poll,
    admin: Poll,
    batch: Events,
    listeners: Vec<(Side, Option<Listener>)>,
    signals: Vec<(Signal, UnixStream)>,
    /// Given up for a moment when no other descriptor is left.
    reserve: Option<OsFile>,
    assets: Option<AssetReader>,
    /// Threads beside the loop wake it by this.
    waker: Option<Arc<Waker>>,
    supervisor: Option<Supervisor>,
    /// Wakes to the microsecond, where a poller's timeout counts in milliseconds.
    alarm: Option<OwnedFd>,
    /// What no poller tells.
    untold: Vec<Event>,
    /// What the main doors show, if they speak TLS.
    tls: Option<Keeper>,
    memory: Option<Gauge>,
    outward: Outward,
}

/// What a kernel is for; without any of it, only connections of our own are opened.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    pub(crate) listeners: Vec<(Side, Listener)>,
    pub(crate) assets: Option<AssetReader>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) tls: Option<Keeper>,
    pub(crate) memory: Option<Gauge>,
}

impl Kernel {
    /// Watches these listeners and signals.
    pub(crate) fn new(duties: Duties, signals: Vec<(Signal, UnixStream)>) -> io::Result<Self> {
        let (main, admin) = (Poll::new()?, Poll::new()?);
        let nested = admin.as_raw_fd();
        main.registry().register(&mut SourceFd(&nested), Token(ADMIN_SIDE), Interest::READABLE)?;
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
            untold: Vec::new(),
            tls: duties.tls,
            memory: duties.memory,
            outward: Outward::default(),
        };
        for (number, (side, mut listener)) in duties.listeners.into_iter().enumerate() {
            let token = Token(FIRST_DOOR + number);
            kernel.side(side).registry().register(listener.source(), token, Interest::READABLE)?;
            kernel.listeners.push((side, Some(listener)));
        }
        for (number, (_, pipe)) in kernel.signals.iter_mut().enumerate() {
            let token = Token(FIRST_SIGNAL + number);
            kernel.main.registry().register(pipe, token, Interest::READABLE)?;
        }
        Ok(kernel)
    }

    /// For engines that measure: wakes them when they want it, not up to a millisecond later.
    pub(crate) fn wake_exactly(mut self) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let source = &mut SourceFd(&alarm.as_raw_fd());
        self.main.registry().register(source, Token(ALARM), Interest::READABLE)?;
        self.alarm = Some(alarm);
        Ok(self)
    }

    /// The timeout that the poller is left with.
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

    /// There is one for each poller.
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
            Side::Main => &self.main,
            Side::Admin => &self.admin,
        }
    }

    /// Translates a batch; true when the admin side has something to tell.
    fn translate(&mut self, events: &mut Vec<Event>) -> bool {
        let mut admin = false;
        for event in &self.batch {
            match event.token().0 {
                ADMIN_SIDE => admin = true,
                // What it woke us for is collected after every wait.
                WAKER => {}
                token if token >= FIRST_SIGNAL => {
                    if let Some((signal, pipe)) = self.signals.get_mut(token - FIRST_SIGNAL) {
                        take_all(pipe);
                        if let Some(supervisor) = &mut self.supervisor {
                            supervisor.heard(*signal);
                        }
                        if let (Signal::Reload, Some(tls)) = (*signal, &mut self.tls) {
                            tls.reload(clock::now());
                        }
                        events.push(Event::Signal(*signal));
                    }
                }
                token if token >= FIRST_DOOR => events.push(Event::Knock(token - FIRST_DOOR)),
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

/// However often a signal came: it is one request. Says whether it came at all.
fn take_all(pipe: &mut UnixStream) -> bool {
    let mut came = false;
    while pipe.read(&mut [0; 64]).is_ok_and(|n| n > 0) {
        came = true;
    }
    came
}

fn spare_descriptor() -> Option<OsFile> {
    OsFile::open("/dev/null").ok()
}

/// Waits; a signal that interrupts has its own pipe. After a SIGSTOP every wait is interrupted: it
/// still has to tell what has arrived meanwhile.
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
        events.append(&mut self.untold);
        let at_once = !events.is_empty() || self.outward.resolver.has_news();
        let timeout = if at_once { Some(Duration::ZERO) } else { self.set_alarm(timeout)? };
        poll(&mut self.main, &mut self.batch, timeout)?;
        if self.outward.resolver.is_busy() {
            self.outward.resolver.collect(clock::now(), events);
        }
        if self.assets.as_mut().is_some_and(AssetReader::has_finished) {
            events.push(Event::AssetsRead);
        }
        if self.translate(events) { self.glance(events) } else { Ok(()) }
    }

    fn glance(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
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
                    supervisor.heard(*signal);
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
        let (socket, peer) = open.accept()?;
        let stream = match &mut self.tls {
            Some(tls) if *side == Side::Main => tls.greet(clock::now(), socket)?,
            Some(_) | None => Stream::Plain(socket),
        };
        Ok((stream, peer))
    }

    fn turn_away(&mut self, listener: usize, last_words: &[u8]) -> io::Result<()> {
        drop(self.reserve.take().ok_or(io::ErrorKind::Other)?);
        let mut accepted = self.accept(listener);
        if let Ok((stream, _)) = &mut accepted {
            // Under TLS nothing fits before the handshake.
            let written = stream.write(last_words);
            drop(written);
            stream.finish();
            // Unread bytes would make the kernel reset the connection, last word included.
            let drained = stream.read(&mut [0; 4096]);
            drop(drained);
        }
        let outcome = accepted.map(drop);
        self.reserve = spare_descriptor();
        outcome
    }

    fn connect(&mut self, target: &Target) -> io::Result<Stream> {
        begun::connect(target)
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let begun = match stream {
            Stream::Plain(socket) => return socket.is_connected(),
            Stream::Tls(_) => return Ok(true),
            Stream::Begun(begun) => begun,
        };
        let Some(stands) = begun.go_on(&mut self.outward, self.main.registry())? else {
            return Ok(false);
        };
        *stream = stands;
        Ok(true)
    }

    fn watch(&mut self, stream: &mut Stream, side: Side, id: Id) -> io::Result<()> {
        let token = Token(id.key as usize | (id.generation as usize) << 32);
        if let Stream::Begun(begun) = stream {
            if self.outward.resolver.needs_waker() {
                let waker = self.waker()?;
                self.outward.resolver.set_waker(waker);
            }
            begun.watched(token, id, clock::now(), &mut self.outward);
        }
        let Some(socket) = stream.socket() else { return Ok(()) };
        if socket.watch(self.side(side).registry(), token)? {
            self.untold.push(Event::Stream {
                id,
                readable: true,
                writable: true,
                ended: true,
                broken: false,
            });
        }
        Ok(())
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

    fn tell(&mut self, now: Now, standing: Standing) -> Option<u64> {
        let reads = self.assets.as_ref().is_some_and(AssetReader::is_reading);
        let supervisor = self.supervisor.as_mut().and_then(|told| told.tell(now, standing, reads));
        supervisor.into_iter().chain(self.tls.as_mut().map(|tls| tls.warn(now))).min()
    }

    fn show(&mut self, text: &str) {
        // Whoever looked on may have gone.
        drop(io::stderr().write_all(text.as_bytes()));
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
