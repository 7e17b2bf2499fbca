//! Notifies a service manager with the protocol of `sd_notify(3)`: ready, status, stopping,
//! reloading, watchdog. Sending a datagram never waits, except for the first one.

use std::env;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::clock;
use crate::engine::{Now, Signal, Status};
use crate::time;

/// Shortest interval between two status lines.
const STATUS_INTERVAL_MS: u64 = 3_000;
/// Time granted for the exit after the hard stop.
const EXIT_MS: u64 = 2_000;
/// Shortest watchdog interval that is served: a shorter one would only produce datagrams.
const WATCHDOG_NS_MIN: u64 = 10_000_000;
/// Timeout of the first message, which must arrive.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    reported: Reported,
}

impl Supervisor {
    /// The service manager named by the environment, if any.
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
                    "cannot notify the service manager"
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
        socket.set_write_timeout(Some(READY_TIMEOUT))?;
        Ok(Self { socket, address, reported: Reported::new(watchdog_us) })
    }

    /// Reports that a reload begins; its end is reported by [`Supervisor::notify`].
    pub(super) fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => {
                self.reported.reloaded = true;
                self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::monotonic_us()));
            }
            Signal::Stop | Signal::Report => {}
        }
    }

    /// Reports changes; returns when the next report is due even if nothing happens.
    /// While files are being read, the reload is in progress.
    pub(super) fn notify(&mut self, now: Now, status: Status, reading: bool) -> Option<u64> {
        self.reported.reading = reading;
        let first = self.reported.counts.is_none();
        let (lines, next_ns) = self.reported.lines(now, status);
        if !lines.is_empty() {
            self.send(&lines);
        }
        if first && let Err(error) = self.socket.set_nonblocking(true) {
            log::debug!(target: "notify", error:% = error; "notifications may block");
        }
        next_ns
    }

    fn send(&self, lines: &str) {
        if let Err(error) = self.socket.send_to_addr(lines.as_bytes(), &self.address) {
            log::warn!(target: "notify", error:% = error; "cannot notify the service manager");
        }
    }
}

/// What was reported so far, to find out what has changed.
#[derive(Debug)]
struct Reported {
    /// Connections and `WebSockets`; `None` before the first report.
    counts: Option<(usize, usize)>,
    status_ns: u64,
    stopping: bool,
    reloaded: bool,
    /// Files are being read for a reload.
    reading: bool,
    watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Watchdog {
    every_ns: u64,
    due_ns: u64,
}

impl Reported {
    fn new(watchdog_us: Option<u64>) -> Self {
        let watchdog = watchdog_us.map(|us| Watchdog {
            // At half the time, so that one late turn does not get the process killed.
            every_ns: us.saturating_mul(500).max(WATCHDOG_NS_MIN),
            due_ns: 0,
        });
        Self {
            counts: None,
            status_ns: 0,
            stopping: false,
            reloaded: false,
            reading: false,
            watchdog,
        }
    }

    /// The lines that are due, perhaps none, and when the next ones are.
    fn lines(&mut self, now: Now, status: Status) -> (String, Option<u64>) {
        let mut lines = String::new();
        let done = !self.reading && std::mem::take(&mut self.reloaded);
        if self.counts.is_none() || done {
            lines.push_str("READY=1\n");
        }
        let mut urgent = self.counts.is_none();
        if let Some(ends_ns) = status.ends_ns
            && !self.stopping
        {
            (self.stopping, urgent) = (true, true);
            let left_ns = ends_ns.saturating_sub(now.mono_ns) + time::ms(EXIT_MS);
            // Writing to a String cannot fail.
            let _ = write!(lines, "STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n", left_ns / 1_000);
        }
        let status_ns = self.status_line(now, status, urgent, &mut lines);
        let watchdog_ns = self.watchdog.as_mut().map(|watchdog| {
            if watchdog.due_ns <= now.mono_ns {
                watchdog.due_ns = now.mono_ns + watchdog.every_ns;
                lines.push_str("WATCHDOG=1\n");
            }
            watchdog.due_ns
        });
        (lines, status_ns.into_iter().chain(watchdog_ns).min())
    }

    /// The status line, if it changed and the last one is old enough. A change soon after the last
    /// line is reported once the interval is over, so that the final status is always shown.
    fn status_line(
        &mut self,
        now: Now,
        status: Status,
        urgent: bool,
        lines: &mut String,
    ) -> Option<u64> {
        let counts = Some((status.connections, status.websockets));
        if self.counts == counts && !urgent {
            return None;
        }
        let due_ns = self.status_ns + time::ms(STATUS_INTERVAL_MS);
        if now.mono_ns < due_ns && !urgent {
            return Some(due_ns);
        }
        (self.counts, self.status_ns) = (counts, now.mono_ns);
        let stage = if self.stopping { "draining, " } else { "" };
        // As above.
        let _ = writeln!(
            lines,
            "STATUS={stage}{}, {}",
            counted(status.connections, "connection"),
            counted(status.websockets, "WebSocket")
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

    fn open(connections: usize) -> Status {
        Status { connections, ..Status::default() }
    }

    #[test]
    fn changes_are_reported_at_intervals_and_the_last_one_always() {
        let mut reported = Reported::new(None);
        let ready = "READY=1\nSTATUS=0 connections, 0 WebSockets\n".to_owned();
        assert_eq!(reported.lines(at(1), open(0)), (ready, None));
        assert_eq!(reported.lines(at(9_000), open(0)), (String::new(), None), "it sleeps");
        let one = "STATUS=1 connection, 0 WebSockets\n".to_owned();
        assert_eq!(reported.lines(at(9_000), open(1)), (one, None));
        let due = Some(time::ms(12_000));
        assert_eq!(reported.lines(at(9_001), open(2)), (String::new(), due));
        assert_eq!(reported.lines(at(11_999), open(3)), (String::new(), due));
        assert_eq!(
            reported.lines(at(11_999), open(1)),
            (String::new(), None),
            "as it was reported"
        );
        let three = "STATUS=3 connections, 0 WebSockets\n".to_owned();
        assert_eq!(reported.lines(at(12_000), open(3)), (three, None));
    }

    #[test]
    fn a_drain_is_reported_at_once_with_its_duration() {
        let mut reported = Reported::new(None);
        reported.lines(at(1), open(2));
        let ends = Status { connections: 2, websockets: 1, ends_ns: Some(time::ms(9_000)) };
        let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000\n\
                        STATUS=draining, 2 connections, 1 WebSocket\n";
        assert_eq!(reported.lines(at(1_000), ends), (stopping.to_owned(), None));
        assert_eq!(reported.lines(at(1_001), ends), (String::new(), None));
    }

    #[test]
    fn the_watchdog_is_notified_at_half_its_time() {
        let mut reported = Reported::new(Some(1_000_000));
        assert!(reported.lines(at(0), open(0)).0.ends_with("WATCHDOG=1\n"));
        assert_eq!(reported.lines(at(499), open(0)), (String::new(), Some(time::ms(500))));
        let watchdog = ("WATCHDOG=1\n".to_owned(), Some(time::ms(1_000)));
        assert_eq!(reported.lines(at(500), open(0)), watchdog);
        assert_eq!(Reported::new(Some(1)).watchdog.unwrap().every_ns, WATCHDOG_NS_MIN);
    }

    #[test]
    fn after_a_reload_it_reports_ready_again() {
        let mut reported = Reported::new(None);
        reported.lines(at(1), open(0));
        (reported.reloaded, reported.reading) = (true, true);
        assert_eq!(reported.lines(at(2), open(0)), (String::new(), None), "files are being read");
        reported.reading = false;
        assert_eq!(reported.lines(at(2), open(0)), ("READY=1\n".to_owned(), None));
    }
}
