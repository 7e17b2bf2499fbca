//! `--drain`: what clients see when a server drains.

use super::{Experiment, Wave, finding, needs_wspulse};
use crate::engine::Id;
use crate::probe::facts::{Facts, Hello, shown, shown_ns};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Ending, Event, Purpose};
use crate::probe::{Cx, Plan, Shared};
use crate::time;

const SOCKETS: usize = 8;
/// A drain begins with the server not being ready, so that no new clients come.
const ANNOUNCED_MS: u64 = 2_000;
/// Then it closes its sockets.
const SHED_PATH: &str = "/shed?percent=100";
/// How long sockets may stay open after the drain has begun.
const LIMIT_MS: u64 = 60_000;
/// Interval of attempts to open a new socket.
const RETRY_MS: u64 = 500;
/// A longer interruption is reported.
const SLOW_NS: u64 = 5_000_000_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Drain {
    sockets: Vec<(Id, Option<String>, Option<Ending>)>,
    began_ns: Option<u64>,
    admin: Option<Id>,
    shed: Option<Id>,
    refused: Option<String>,
    first_end_ns: Option<u64>,
    attempt: Option<Id>,
    /// The server of the first new socket, and when it opened.
    again: Option<(String, u64)>,
}

impl Drain {
    fn begin_drain(&mut self, cx: &mut Cx<'_>) {
        let Some(drain) = cx.shared.plan.drain.clone() else { return cx.done() };
        let purpose = Purpose::Request { method: "POST", host: drain.host, path: drain.path };
        self.admin = cx.open_to(drain.target, purpose);
        self.began_ns = Some(cx.now.mono_ns);
        cx.wake_in(ANNOUNCED_MS);
    }

    fn close_all(&mut self, cx: &mut Cx<'_>) {
        let Some(drain) = cx.shared.plan.drain.clone() else { return };
        let (method, path) = ("POST", SHED_PATH.to_owned());
        self.shed = cx.open_to(drain.target, Purpose::Request { method, host: drain.host, path });
    }

    fn is_admin(&self, id: Id) -> bool {
        Some(id) == self.admin || Some(id) == self.shed
    }

    fn heard_socket(&mut self, at: usize, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Message { bytes, .. } => {
                if let Some(hello) = Hello::parse(&bytes) {
                    self.sockets[at].1.get_or_insert(hello.pod);
                }
                let ready = self.sockets.iter().all(|(_, name, _)| name.is_some());
                if ready && self.began_ns.is_none() {
                    self.begin_drain(cx);
                }
            }
            Event::Ended(ending) => {
                self.first_end_ns.get_or_insert(cx.now.mono_ns);
                self.sockets[at].2.get_or_insert(ending);
            }
            _ => {}
        }
    }
}

impl Experiment for Drain {
    fn id(&self) -> &'static str {
        "drain"
    }

    fn wave(&self) -> Wave {
        Wave::Last
    }

    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        needs_wspulse(shared)
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let ids = (0..SOCKETS).filter_map(|_| cx.sink(""));
        self.sockets = ids.map(|id| (id, None, None)).collect();
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        if let Some(at) = self.sockets.iter().position(|(socket, ..)| *socket == id) {
            return self.heard_socket(at, event, cx);
        }
        match event {
            Event::Answered(response) if self.is_admin(id) && response.status >= 300 => {
                self.refused = Some(format!("it answered {}", response.status));
                cx.done();
            }
            Event::Failed(failure, _) if self.is_admin(id) => {
                self.refused = Some(failure.to_string());
                cx.done();
            }
            Event::Message { bytes, .. } if Some(id) == self.attempt => {
                if let Some(hello) = Hello::parse(&bytes) {
                    self.again.get_or_insert((hello.pod, cx.now.mono_ns));
                }
            }
            Event::Answered(_) | Event::Failed(..) if Some(id) == self.attempt => {
                self.attempt = None;
            }
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        let Some(began_ns) = self.began_ns else { return cx.done() };
        if self.shed.is_none() {
            self.close_all(cx);
        }
        // The draining server ends its sockets; those on others stay.
        let ended = self.sockets.iter().find(|(.., ending)| ending.is_some());
        let server = ended.and_then(|(_, name, _)| name.clone());
        let of_server = self.sockets.iter().filter(|(_, name, _)| *name == server);
        let all = server.is_some() && of_server.clone().all(|(.., ending)| ending.is_some());
        if all && self.again.is_some() || cx.now.mono_ns - began_ns > time::ms(LIMIT_MS) {
            return cx.done();
        }
        if server.is_some() && self.attempt.is_none() && self.again.is_none() {
            self.attempt = cx.sink("");
        }
        cx.wake_in(RETRY_MS);
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        let mut verdict = Verdict::passed("sockets are closed with 1001, and new ones open");
        let mut add = |severity, id: &str, title: &str, seen: String| {
            let said = (title, seen);
            verdict.findings.push(finding(severity, id, said, (facts, Cause::Drain)));
        };
        if let Some(why) = &self.refused {
            return Verdict::unknown(format!("the admin listener did not start a drain: {why}"));
        }
        let endings = self.sockets.iter().filter_map(|(.., ending)| ending.as_ref());
        let (mut closed, mut cut) = (0, 0);
        for ending in endings {
            match ending {
                Ending::Close(1001 | 1012, _) => closed += 1,
                _ => cut += 1,
            }
        }
        if cut > 0 {
            let title = "A drain cuts sockets instead of closing them: clients see 1006.";
            add(Severity::Error, "drain-cut", title, format!("{cut} of {}", cut + closed));
        } else if closed == 0 {
            let title = "The drain has no effect on these sockets.";
            let seen = "none of 8 sockets was closed within 60 s".to_owned();
            add(Severity::Error, "drain-no-effect", title, seen);
        }
        let gap = self.again.as_ref().zip(self.first_end_ns);
        match gap.map(|((server, at_ns), end_ns)| (server, at_ns.saturating_sub(end_ns))) {
            Some((server, gap_ns)) => {
                verdict.figure("new_socket_ms", gap_ns / 1_000_000);
                verdict.note = format!("{} on {}", verdict.note, shown(server));
                if gap_ns > SLOW_NS {
                    let said =
                        ("After a drain it takes long until a new socket opens.", shown_ns(gap_ns));
                    let cause = (facts, Cause::Drain);
                    verdict.findings.push(finding(Severity::Warning, "drain-slow", said, cause));
                }
            }
            None if closed + cut > 0 => {
                let said = ("After the drain no new socket opens.", "none within 60 s".to_owned());
                let cause = (facts, Cause::Drain);
                verdict.findings.push(finding(Severity::Warning, "drain-slow", said, cause));
            }
            None => {}
        }
        verdict
    }
}
