//! What a service manager is told, as `sd_notify(3)` has it: ready, how things are, stopping,
//! reloading, still turning. Lines in a datagram; nobody ever waits for whoever reads them.

use std::env;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::clock;
use crate::engine::{Now, Signal, Standing};
use crate::time;

/// Between two lines about how things are.
const STATUS_GAP_MS: u64 = 3_000;
/// What is granted to the exit beyond the hard stop.
const EXIT_MS: u64 = 2_000;
/// Shorter than this no watchdog is served: to bark would be all that we do.
const BARK_NS_MIN: u64 = 10_000_000;
/// What the one message gets that must arrive.
const READY_PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    told: Told,
}

impl Supervisor {
    /// The one that the environment names, if there is one.
    pub(crate) fn found() -> Option<Self> {
        let name = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty())?;
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = env::var_os("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(std::process::id().into());
        let watchdog_us = number("WATCHDOG_USEC").filter(|us| for_us && *us > 0);
        match Self::at(&name, watchdog_us) {
            Ok(supervisor) => Some(supervisor),
            Err(error) => {
                log::warn!(
                    target: "notify", socket = name, error:% = error;
                    "cannot tell the service manager"
                );
                None
            }
        }
    }

    fn at(name: &str, watchdog_us: Option<u64>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => return Err(io::Error::other("neither a path nor an @name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(READY_PATIENCE))?;
        Ok(Self { socket, address, told: Told::new(watchdog_us) })
    }

    /// A reload begins at once; that it is done is told with the next news.
    pub(super) fn heard(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => {
                self.told.reloaded = true;
                self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::monotonic_us()));
            }
            Signal::Stop | Signal::Report => {}
        }
    }

    /// Tells what there is to tell; says when there is more even if nothing happens.
    /// As long as files are read again, the reload is not done.
    pub(super) fn tell(&mut self, now: Now, standing: Standing, reads: bool) -> Option<u64> {
        self.told.reads = reads;
        let first = self.told.status.is_none();
        let (news, next_ns) = self.told.news(now, standing);
        if !news.is_empty() {
            self.send(&news);
        }
        if first && let Err(error) = self.socket.set_nonblocking(true) {
            log::debug!(target: "notify", error:% = error; "may wait for the service manager");
        }
        next_ns
    }

    fn send(&self, news: &str) {
        if let Err(error) = self.socket.send_to_addr(news.as_bytes(), &self.address) {
            log::warn!(target: "notify", error:% = error; "the service manager does not listen");
        }
    }
}

/// What was told so far: from it and the present follows what is news.
#[derive(Debug)]
struct Told {
    /// Connections and `WebSockets`; none before the first news.
    status: Option<(usize, usize)>,
    status_ns: u64,
    stopping: bool,
    reloaded: bool,
    /// Files are being read again.
    reads: bool,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    every_ns: u64,
    due_ns: u64,
}

impl Told {
    fn new(watchdog_us: Option<u64>) -> Self {
        let watchdog = watchdog_us.map(|us| Watchdog {
            // At half the time, so that one late turn is not the end of us.
            every_ns: us.saturating_mul(500).max(BARK_NS_MIN),
            due_ns: 0,
        });
        Self {
            status: None,
            status_ns: 0,
            stopping: false,
            reloaded: false,
            reads: false,
            watchdog,
        }
    }

    /// The lines that are news, perhaps none, and when the next ones are due.
    fn news(&mut self, now: Now, standing: Standing) -> (String, Option<u64>) {
        let mut news = String::new();
        let done = !self.reads && std::mem::take(&mut self.reloaded);
        if self.status.is_none() || done {
            news.push_str("READY=1\n");
        }
        let mut urgent = self.status.is_none();
        if let Some(ends_ns) = standing.ends_ns
            && !self.stopping
        {
            (self.stopping, urgent) = (true, true);
            let left_ns = ends_ns.saturating_sub(now.mono_ns) + time::ms(EXIT_MS);
            // Writing to a String cannot fail.
            let _ = write!(news, "STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n", left_ns / 1_000);
        }
        let status_ns = self.status_news(now, standing, urgent, &mut news);
        let bark_ns = self.watchdog.as_mut().map(|watchdog| {
            if watchdog.due_ns <= now.mono_ns {
                watchdog.due_ns = now.mono_ns + watchdog.every_ns;
                news.push_str("WATCHDOG=1\n");
            }
            watchdog.due_ns
        });
        (news, status_ns.into_iter().chain(bark_ns).min())
    }

    /// How things are, when that has changed and the last word is old enough. A change just after
    /// it is told once that time is over: what is shown is true in the end.
    fn status_news(
        &mut self,
        now: Now,
        standing: Standing,
        urgent: bool,
        news: &mut String,
    ) -> Option<u64> {
        let status = Some((standing.connections, standing.websockets));
        if self.status == status && !urgent {
            return None;
        }
        let due_ns = self.status_ns + time::ms(STATUS_GAP_MS);
        if now.mono_ns < due_ns && !urgent {
            return Some(due_ns);
        }
        (self.status, self.status_ns) = (status, now.mono_ns);
        let stage = if self.stopping { "draining, " } else { "" };
        // As above.
        let _ = writeln!(
            news,
            "STATUS={stage}{}, {}",
            counted(standing.connections, "connection"),
            counted(standing.websockets, "WebSocket")
        );
        None
    }
}

fn counted(count: usize, what: &str) -> String {
    let many = if count == 1 { "" } else { "s" };
    format!("{count} {what}{many}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    fn open(connections: usize) -> Standing {
        Standing { connections, ..Standing::default() }
    }

    #[test]
    fn changes_are_told_at_most_every_few_seconds_and_the_last_one_surely() {
        let mut told = Told::new(None);
        let ready = "READY=1\nSTATUS=0 connections, 0 WebSockets\n".to_owned();
        assert_eq!(told.news(at(1), open(0)), (ready, None));
        assert_eq!(told.news(at(9_000), open(0)), (String::new(), None), "it sleeps");
        let one = "STATUS=1 connection, 0 WebSockets\n".to_owned();
        assert_eq!(told.news(at(9_000), open(1)), (one, None));
        let due = Some(time::ms(12_000));
        assert_eq!(told.news(at(9_001), open(2)), (String::new(), due));
        assert_eq!(told.news(at(11_999), open(3)), (String::new(), due));
        assert_eq!(told.news(at(11_999), open(1)), (String::new(), None), "as it was told");
        let three = "STATUS=3 connections, 0 WebSockets\n".to_owned();
        assert_eq!(told.news(at(12_000), open(3)), (three, None));
    }

    #[test]
    fn a_drain_is_told_at_once_with_the_time_that_it_takes() {
        let mut told = Told::new(None);
        told.news(at(1), open(2));
        let ends = Standing { connections: 2, websockets: 1, ends_ns: Some(time::ms(9_000)) };
        let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000\n\
                        STATUS=draining, 2 connections, 1 WebSocket\n";
        assert_eq!(told.news(at(1_000), ends), (stopping.to_owned(), None));
        assert_eq!(told.news(at(1_001), ends), (String::new(), None));
    }

    #[test]
    fn the_watchdog_hears_us_at_half_its_time() {
        let mut told = Told::new(Some(1_000_000));
        assert!(told.news(at(0), open(0)).0.ends_with("WATCHDOG=1\n"));
        assert_eq!(told.news(at(499), open(0)), (String::new(), Some(time::ms(500))));
        let bark = ("WATCHDOG=1\n".to_owned(), Some(time::ms(1_000)));
        assert_eq!(told.news(at(500), open(0)), bark);
        assert_eq!(Told::new(Some(1)).watchdog.unwrap().every_ns, BARK_NS_MIN);
    }

    #[test]
    fn after_a_reload_it_is_ready_again() {
        let mut told = Told::new(None);
        told.news(at(1), open(0));
        (told.reloaded, told.reads) = (true, true);
        assert_eq!(told.news(at(2), open(0)), (String::new(), None), "files are being read");
        told.reads = false;
        assert_eq!(told.news(at(2), open(0)), ("READY=1\n".to_owned(), None));
    }
}
