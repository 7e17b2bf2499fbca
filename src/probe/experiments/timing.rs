//! Round trips, and whether messages are delivered when they are sent or collected by a hop.

use super::{Experiment, Wave, finding};
use crate::engine::{Id, Target};
use crate::probe::facts::{Facts, shown_ns};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Purpose};
use crate::probe::{Cx, Plan};
use crate::proto::talk;

/// Round trips measured.
const ROUNDS: usize = 8;
/// Interval of the far end's pushes: the shortest that it allows.
const PUSH_MS: u64 = 100;
/// Pushes that are awaited, and how many more if some were held back: a stall of a server or of a
/// machine happens once, a hop that collects messages does so all the time.
const PUSHES: usize = 14;
const MORE_PUSHES: usize = 30;
/// A longer gap between two pushes means that something held them back.
const GAP_NS: u64 = 300_000_000;
/// Pushes that arrive within this time arrive together.
const TOGETHER_NS: u64 = 20_000_000;
/// The most that this process may be late for its clock to be trusted.
const LAG_MAX_NS: u64 = 20_000_000;
const LIMIT_MS: u64 = 10_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// A connection to a TLS server without TLS, to know how long that part takes.
    tcp: Option<Id>,
    echo: Option<Id>,
    pushes: Option<Id>,
    began_ns: u64,
    connected_ns: u64,
    sent_ns: u64,
    connect_ns: Option<u64>,
    tls_ns: Option<u64>,
    upgrade_ns: Option<u64>,
    messages_ns: Vec<u64>,
    pings_ns: Vec<u64>,
    arrivals_ns: Vec<u64>,
    /// How late this process was at most.
    lag_ns: u64,
}

impl Timing {
    fn open_echo(&mut self, cx: &mut Cx<'_>) {
        self.began_ns = cx.now.mono_ns;
        let ask = cx.shared.ask("");
        self.echo = cx.open(Purpose::Socket(ask));
    }

    fn next_round(&mut self, id: Id, cx: &mut Cx<'_>) {
        self.sent_ns = cx.now.mono_ns;
        if self.messages_ns.len() < ROUNDS {
            cx.send(id, talk::TEXT, b"round trip");
        } else if self.pings_ns.len() < ROUNDS {
            cx.send(id, talk::PING, b"round trip");
        } else {
            cx.drop_wire(id);
            self.finish_if_complete(cx);
        }
    }

    fn finish_if_complete(&mut self, cx: &mut Cx<'_>) {
        let wanted = if self.held_back().is_empty() { PUSHES } else { PUSHES + MORE_PUSHES };
        let pushed = self.pushes.is_none() || self.arrivals_ns.len() >= wanted;
        if pushed && self.pings_ns.len() >= ROUNDS {
            cx.done();
        }
    }

    /// For how long pushes were held back that then arrived together, each time.
    fn held_back(&self) -> Vec<u64> {
        let arrivals = &self.arrivals_ns;
        let clump = |at: usize| {
            let next = arrivals.get(at + 1)? - arrivals.get(at)?;
            let gap = arrivals.get(at)? - arrivals.get(at.checked_sub(1)?)?;
            (gap > GAP_NS && next < TOGETHER_NS).then_some(gap)
        };
        (1..arrivals.len()).filter_map(clump).collect()
    }

    /// The longest of these times, if they were most of the time.
    fn buffered_ns(&self) -> Option<u64> {
        let held = self.held_back();
        let all_ns = self.arrivals_ns.last()? - self.arrivals_ns.first()?;
        held.iter().max().copied().filter(|_| 2 * held.iter().sum::<u64>() > all_ns)
    }
}

impl Experiment for Timing {
    fn id(&self) -> &'static str {
        "timing"
    }

    fn wave(&self) -> Wave {
        Wave::Timing
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        self.began_ns = cx.now.mono_ns;
        self.tcp = match &cx.shared.plan.target {
            // The proxy opens a tunnel for each: that is no round trip of TCP.
            Target::Tls(secured) if !matches!(secured.to, Target::Tunnel(_)) => {
                let to = secured.to.clone();
                cx.open_to(to, Purpose::Raw(Vec::new()))
            }
            _ => None,
        };
        if self.tcp.is_none() {
            self.open_echo(cx);
        }
        if cx.shared.facts.hello.is_some() {
            self.pushes = cx.sink(&format!("every={PUSH_MS}ms"));
        }
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        self.lag_ns = cx.lag_ns;
        let took_ns = now_ns.saturating_sub(self.sent_ns);
        if Some(id) == self.pushes {
            match event {
                Event::Message { bytes, .. } if bytes.starts_with(b"tick") => {
                    self.arrivals_ns.push(now_ns);
                    self.finish_if_complete(cx);
                }
                Event::Ended(_) | Event::Failed(..) | Event::Answered(_) => {
                    self.pushes = None;
                    self.finish_if_complete(cx);
                }
                _ => {}
            }
            return;
        }
        if Some(id) == self.tcp {
            if event == Event::Connected {
                self.connect_ns = Some(now_ns - self.began_ns);
            }
            if matches!(event, Event::Connected | Event::Failed(..)) {
                cx.drop_wire(id);
                self.open_echo(cx);
            }
            return;
        }
        match event {
            Event::Connected => {
                let took_ns = now_ns - self.began_ns;
                match self.connect_ns {
                    Some(tcp_ns) => self.tls_ns = Some(took_ns.saturating_sub(tcp_ns)),
                    None => self.connect_ns = Some(took_ns),
                }
                self.connected_ns = now_ns;
            }
            Event::Opened(_) => {
                self.upgrade_ns = Some(now_ns - self.connected_ns);
                self.next_round(id, cx);
            }
            Event::Message { bytes, .. } if bytes == b"round trip" => {
                self.messages_ns.push(took_ns);
                cx.facts().round_trip_ns = self.messages_ns.iter().min().copied();
                self.next_round(id, cx);
            }
            Event::Pong => {
                self.pings_ns.push(took_ns);
                self.next_round(id, cx);
            }
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        // The best of some says most about the path, and least about this machine.
        let message_ns = facts.round_trip_ns;
        let mut verdict = match message_ns {
            Some(ns) => Verdict::passed(format!("a message and its answer take {}", shown_ns(ns))),
            None => Verdict::unknown("no message was answered within 10 s"),
        };
        let figures = [
            ("connect_ms", self.connect_ns),
            ("tls_ms", self.tls_ns),
            ("upgrade_ms", self.upgrade_ns),
            ("message_ms", message_ns),
            ("ping_ms", self.pings_ns.iter().min().copied()),
        ];
        for (name, ns) in figures {
            if let Some(ns) = ns {
                verdict.figure(name, (ns as f64 / 1e3).round() / 1e3);
            }
        }
        let held_ns = self.buffered_ns();
        if held_ns.is_some() && self.lag_ns > LAG_MAX_NS {
            let late = shown_ns(self.lag_ns);
            verdict.unknown = Some(format!("this machine is too busy to tell: {late} late"));
        } else if let Some(held_ns) = held_ns {
            let said = (
                "A hop collects messages and delivers them in clumps.",
                format!(
                    "messages sent every {PUSH_MS} ms arrived together after {}",
                    shown_ns(held_ns)
                ),
            );
            let found = finding(Severity::Warning, "buffered", said, (facts, Cause::Buffering));
            verdict.findings.push(found);
            verdict.figure("held_back_ms", held_ns / 1_000_000);
        }
        verdict
    }
}
