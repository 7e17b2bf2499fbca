//! Resolves host names on a thread, one after the other, since the C library may take seconds. The
//! thread ends with its result, which is cached for a moment.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use mio::Waker;

use super::os::Event;
use crate::engine::{Id, Now};
use crate::time;

/// Most names waiting; further ones fail.
const NAMES_MAX: usize = 64;
/// Most addresses of one name.
const ADDRESSES_MAX: usize = 8;
/// The C library's resolver needs more stack than our other threads.
const STACK_BYTES: usize = 512 * 1024;
/// How long a result is cached, so that many connections to one host resolve it once.
const GOOD_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Resolver {
    waker: Option<Arc<Waker>>,
    /// Waiting names; the thread resolves the first.
    asked: Vec<Asked>,
    thread: Option<Receiver<Found>>,
    known: Vec<Known>,
    /// Events for streams whose name was resolved.
    events: Vec<Event>,
}

type Found = Result<Vec<IpAddr>, String>;

#[derive(Debug)]
struct Asked {
    host: Box<str>,
    ids: Vec<Id>,
}

#[derive(Debug)]
struct Known {
    host: Box<str>,
    found: Found,
    until_ns: u64,
}

impl Resolver {
    /// Whether there are events to collect, now or later.
    pub(super) fn is_busy(&self) -> bool {
        self.thread.is_some() || self.has_events()
    }

    /// Whether there are events to collect now.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(super) fn needs_waker(&self) -> bool {
        self.waker.is_none()
    }

    pub(super) fn set_waker(&mut self, waker: Arc<Waker>) {
        self.waker = Some(waker);
    }

    /// Resolves a name for a stream, which gets an event once there is a result.
    pub(super) fn ask(&mut self, host: &str, id: Id, now: Now) {
        let good = |known: &Known| *known.host == *host && known.until_ns > now.mono_ns;
        if self.known.iter().any(good) {
            return self.tell(id);
        }
        let full = self.asked.len() >= NAMES_MAX;
        match self.asked.iter_mut().find(|asked| *asked.host == *host) {
            Some(asked) => asked.ids.push(id),
            None if full => {
                self.learn(host.into(), Err("too many names to resolve".to_owned()), now);
                self.tell(id);
            }
            None => {
                self.asked.push(Asked { host: host.into(), ids: vec![id] });
                self.begin(now);
            }
        }
    }

    pub(super) fn answer(&self, host: &str) -> Option<io::Result<&[IpAddr]>> {
        let known = self.known.iter().rev().find(|known| *known.host == *host)?;
        Some(match &known.found {
            Ok(addresses) => Ok(addresses),
            Err(why) => Err(io::Error::new(io::ErrorKind::NotFound, why.clone())),
        })
    }

    /// Collects events, after the waker woke the loop or if [`Resolver::has_events`].
    pub(super) fn collect(&mut self, now: Now, events: &mut Vec<Event>) {
        let found = match self.thread.as_ref().map(Receiver::try_recv) {
            Some(Ok(found)) => Some(found),
            Some(Err(TryRecvError::Disconnected)) => {
                Some(Err("the resolver thread panicked".to_owned()))
            }
            Some(Err(TryRecvError::Empty)) | None => None,
        };
        if let Some(found) = found {
            self.thread = None;
            self.finish(found, now);
            self.begin(now);
        }
        events.append(&mut self.events);
    }

    fn begin(&mut self, now: Now) {
        while self.thread.is_none()
            && let (Some(asked), Some(waker)) = (self.asked.first(), &self.waker)
        {
            let (sender, receiver) = sync_channel(1);
            let (host, waker) = (asked.host.clone(), Arc::clone(waker));
            let thread = thread::Builder::new().name("names".into()).stack_size(STACK_BYTES);
            match thread.spawn(move || look_up(&host, &sender, &waker)) {
                Ok(_) => self.thread = Some(receiver),
                Err(error) => self.finish(Err(error.to_string()), now),
            }
        }
    }

    fn finish(&mut self, found: Found, now: Now) {
        if self.asked.is_empty() {
            return;
        }
        let Asked { host, ids } = self.asked.remove(0);
        if let Err(why) = &found {
            log::debug!(target: "names", host:% = host, error:% = why; "not found");
        }
        self.learn(host, found, now);
        for id in ids {
            self.tell(id);
        }
    }

    fn learn(&mut self, host: Box<str>, found: Found, now: Now) {
        self.known.retain(|known| known.host != host);
        if self.known.len() >= NAMES_MAX {
            self.known.remove(0);
        }
        // Failures are not cached.
        let good_ms = if found.is_ok() { GOOD_MS } else { 0 };
        self.known.push(Known { host, found, until_ns: now.mono_ns + time::ms(good_ms) });
    }

    fn tell(&mut self, id: Id) {
        let (readable, writable, ended) = (false, true, false);
        self.events.push(Event::Stream { id, readable, writable, ended, broken: false });
    }
}

fn look_up(host: &str, sender: &SyncSender<Found>, waker: &Waker) {
    let found = addresses(host).map(|addresses| {
        let mut ips: Vec<IpAddr> = Vec::new();
        for ip in addresses {
            if !ips.contains(&ip) && ips.len() < ADDRESSES_MAX {
                ips.push(ip);
            }
        }
        ips
    });
    // The receiver is gone when the process exits.
    let told = sender.send(found);
    drop(told);
    let woken = waker.wake();
    drop(woken);
}

#[cfg(feature = "names")]
fn addresses(host: &str) -> Found {
    use std::net::ToSocketAddrs;
    let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string());
    found.map(|addresses| addresses.map(|address| address.ip()).collect())
}

/// The C library's resolver would be a tenth of such a binary. RFC 6761 §6.3 defines one name.
#[cfg(not(feature = "names"))]
fn addresses(host: &str) -> Found {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    Err("this build resolves no names, only localhost".to_owned())
}
