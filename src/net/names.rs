//! Resolves host names on threads, a few at a time, since the C library may take seconds: a name
//! that DNS does not answer delays no other. A thread ends with its result, which is cached.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use mio::Waker;

use super::os::Event;
use crate::engine::{Id, NameFault, Now};
use crate::time;

/// Most names waiting or being resolved; further ones fail. Also the most that are cached.
const NAMES_MAX: usize = 64;
/// Most names that are resolved at a time.
const THREADS_MAX: usize = 8;
/// Most addresses of one name.
const ADDRESSES_MAX: usize = 64;
/// The C library's resolver needs more stack than our other threads.
const STACK_BYTES: usize = 512 * 1024;
/// How long a result is used as it is, so that many connections to one host resolve it once.
const GOOD_MS: u64 = 5_000;
/// How long it is still used while it is refreshed.
const STALE_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Resolver {
    waker: Option<Arc<Waker>>,
    /// Names to resolve; those in the front have threads. Names that were found before come next:
    /// many that DNS does not answer must not keep the others from being refreshed.
    asked: Vec<Asked>,
    known: Vec<Known>,
    /// Events for streams whose name was resolved.
    events: Vec<Event>,
    /// Results that were asked for without a stream.
    answers: Vec<(Box<str>, Found)>,
}

pub(super) type Found = Result<Vec<IpAddr>, Fault>;

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    why: String,
    /// Whether the resolver says that there are none; else it could not be asked.
    is_certain: bool,
}

impl Fault {
    pub(super) fn name_fault(&self) -> NameFault {
        if self.is_certain { NameFault::NotFound } else { NameFault::Unanswered }
    }
}

#[derive(Debug)]
struct Asked {
    host: Box<str>,
    ids: Vec<Id>,
    /// Whether the result is also an answer without a stream.
    is_answer: bool,
    thread: Option<Receiver<Found>>,
}

#[derive(Debug)]
struct Known {
    host: Box<str>,
    found: Found,
    at_ns: u64,
}

impl Resolver {
    /// Whether there are events to collect, now or later.
    pub(super) fn is_busy(&self) -> bool {
        !self.asked.is_empty() || self.has_events()
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
        let known = self.known.iter().find(|known| *known.host == *host);
        let age_ns = known
            .filter(|known| known.found.is_ok())
            .map(|known| now.mono_ns.saturating_sub(known.at_ns));
        match age_ns {
            Some(age_ns) if age_ns < time::ms(GOOD_MS) => self.tell(id),
            Some(age_ns) if age_ns < time::ms(STALE_MS) => {
                self.tell(id);
                self.add(host, None, now);
            }
            Some(_) | None => self.add(host, Some(id), now),
        }
    }

    /// Resolves a name, whatever is cached. [`Resolver::take_answer`] returns the result.
    pub(super) fn look_up(&mut self, host: &str, now: Now) {
        self.add(host, None, now);
        if let Some(asked) = self.asked.iter_mut().find(|asked| *asked.host == *host) {
            asked.is_answer = true;
        } else if let Some(known) = self.known.iter().find(|known| *known.host == *host) {
            self.answers.push((host.into(), known.found.clone()));
            self.events.push(Event::Resolved);
        }
    }

    pub(super) fn take_answer(&mut self) -> Option<(Box<str>, Found)> {
        self.answers.pop()
    }

    /// The cached result, whatever its age.
    pub(super) fn answer(&self, host: &str) -> Option<io::Result<&[IpAddr]>> {
        let known = self.known.iter().rev().find(|known| *known.host == *host)?;
        Some(match &known.found {
            Ok(addresses) => Ok(addresses),
            Err(fault) => Err(io::Error::new(io::ErrorKind::NotFound, fault.why.clone())),
        })
    }

    /// Collects events, after the waker woke the loop or if [`Resolver::has_events`].
    pub(super) fn collect(&mut self, now: Now, events: &mut Vec<Event>) {
        let mut at = 0;
        while at < self.asked.len() {
            let found = match self.asked[at].thread.as_ref().map(Receiver::try_recv) {
                Some(Ok(found)) => found,
                Some(Err(TryRecvError::Disconnected)) => Err(passing("the resolver panicked")),
                Some(Err(TryRecvError::Empty)) | None => {
                    at += 1;
                    continue;
                }
            };
            let asked = self.asked.remove(at);
            self.finish(asked, found, now);
        }
        self.begin(now);
        events.append(&mut self.events);
    }

    /// Adds a name to those that are resolved, unless it is among them.
    fn add(&mut self, host: &str, id: Option<Id>, now: Now) {
        if let Some(asked) = self.asked.iter_mut().find(|asked| *asked.host == *host) {
            return asked.ids.extend(id);
        }
        let ids = id.into_iter().collect();
        let asked = Asked { host: host.into(), ids, is_answer: false, thread: None };
        if self.asked.len() >= NAMES_MAX {
            return self.finish(asked, Err(passing("too many names to resolve")), now);
        }
        let at = self
            .asked
            .iter()
            .position(|other| other.thread.is_none() && !self.is_good(&other.host));
        let at = at.filter(|_| self.is_good(host)).unwrap_or(self.asked.len());
        self.asked.insert(at, asked);
        self.begin(now);
    }

    /// Whether it was found when it was last resolved.
    fn is_good(&self, host: &str) -> bool {
        self.known.iter().any(|known| *known.host == *host && known.found.is_ok())
    }

    fn begin(&mut self, now: Now) {
        let Some(waker) = &self.waker else { return };
        let mut running = self.asked.iter().filter(|asked| asked.thread.is_some()).count();
        let mut failed = None;
        for (at, asked) in self.asked.iter_mut().enumerate() {
            if running >= THREADS_MAX {
                break;
            }
            if asked.thread.is_some() {
                continue;
            }
            let (sender, receiver) = sync_channel(1);
            let (host, waker) = (asked.host.clone(), Arc::clone(waker));
            let thread = thread::Builder::new().name("names".into()).stack_size(STACK_BYTES);
            match thread.spawn(move || look_up(&host, &sender, &waker)) {
                Ok(_) => asked.thread = Some(receiver),
                Err(error) => {
                    failed = Some((at, error));
                    break;
                }
            }
            running += 1;
        }
        // The next name is tried when this one is asked for again.
        if let Some((at, error)) = failed {
            let asked = self.asked.remove(at);
            self.finish(asked, Err(passing(&error.to_string())), now);
        }
    }

    fn finish(&mut self, asked: Asked, found: Found, now: Now) {
        let Asked { host, ids, is_answer, .. } = asked;
        if let Err(fault) = &found {
            log::debug!(target: "names", host:% = host, error:% = fault.why; "not found");
        }
        if is_answer {
            self.answers.push((host.clone(), found.clone()));
            self.events.push(Event::Resolved);
        }
        self.learn(host, found, now);
        for id in ids {
            self.tell(id);
        }
    }

    fn learn(&mut self, host: Box<str>, found: Found, now: Now) {
        // An old answer is better than none.
        let is_passing = found.as_ref().is_err_and(|fault| !fault.is_certain);
        if is_passing && self.known.iter().any(|known| known.host == host && known.found.is_ok()) {
            return;
        }
        self.known.retain(|known| known.host != host);
        if self.known.len() >= NAMES_MAX {
            self.known.remove(0);
        }
        self.known.push(Known { host, found, at_ns: now.mono_ns });
    }

    fn tell(&mut self, id: Id) {
        self.events.push(Event::wake(id));
    }
}

fn passing(why: &str) -> Fault {
    Fault { why: why.to_owned(), is_certain: false }
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
    let found = (host, 0).to_socket_addrs().map_err(|error| fault(&error));
    found.map(|addresses| addresses.map(|address| address.ip()).collect())
}

/// The standard library shows why `getaddrinfo` failed only as text: of glibc, or of musl.
#[cfg(feature = "names")]
fn fault(error: &io::Error) -> Fault {
    let why = error.to_string();
    let passes = ["Temporary failure", "Try again", "System error", "Memory allocation"];
    let is_certain =
        error.raw_os_error().is_none() && !passes.iter().any(|text| why.contains(text));
    Fault { why, is_certain }
}

/// The C library's resolver would be a tenth of such a binary. RFC 6761 §6.3 defines one name.
#[cfg(not(feature = "names"))]
fn addresses(host: &str) -> Found {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    Err(Fault { why: "this build resolves no names, only localhost".to_owned(), is_certain: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_found_are_resolved_first() {
        let now = Now { mono_ns: 0, wall_ms: 0 };
        let mut resolver = Resolver::default();
        for host in ["good", "fine"] {
            resolver.learn(host.into(), Ok(vec![[127, 0, 0, 1].into()]), now);
        }
        for host in ["bad", "new", "good", "worse", "fine", "good"] {
            resolver.look_up(host, now);
        }
        let order: Vec<&str> = resolver.asked.iter().map(|asked| &*asked.host).collect();
        assert_eq!(order, ["good", "fine", "bad", "new", "worse"]);
    }
}
