//! Which silence is cut, after how long, and how: sockets that are silent both ways, or on which
//! only one side speaks or pings.

use super::{Experiment, Wave, finding};
use crate::behaviours;
use crate::engine::Id;
use crate::probe::facts::{Cut, Facts, How, shown_ns};
use crate::probe::habits::{self, Cause};
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Ending, Event};
use crate::probe::{Cx, Plan};
use crate::proto::talk;
use crate::time;

/// How long after the end of the silence an answer may take: it may be behind long messages on a
/// narrow line.
pub(super) const ANSWER_MS: u64 = 8_000;

/// A far end that counts answers it, and one that echoes does so too.
pub(super) const QUESTION: &[u8] = b"probe:count";

/// How often a side that speaks does so: often enough for idle times that the patience can find.
pub(super) fn interval_ms(patience_ms: u64) -> u64 {
    (patience_ms / 8).clamp(250, 10_000)
}

/// Who speaks on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Nobody, until this part of the patience (in eighths) has passed.
    Silent {
        eighths: u64,
    },
    Client,
    Server,
    ClientPings,
    ServerPings,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Silent { .. } => "silent",
            Self::Client => "client",
            Self::Server => "server",
            Self::ClientPings => "client-pings",
            Self::ServerPings => "server-pings",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Silent { .. } => "Silent sockets are cut",
            Self::Client => "Sockets on which only the client speaks are cut",
            Self::Server => "Sockets on which only the server speaks are cut",
            Self::ClientPings => "Sockets are cut although the client sends pings",
            Self::ServerPings => "Sockets are cut although the server sends pings",
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Idle {
    sockets: Vec<Socket>,
}

#[derive(Clone, Debug)]
struct Socket {
    id: Id,
    who: Who,
    opened_ns: Option<u64>,
    /// When its last question was sent; then an answer must come.
    asked_ns: Option<u64>,
    /// When the client speaks next.
    next_ns: u64,
    /// Messages and pings of the far end before that question, and when the last one arrived.
    heard: (u32, u64),
    /// The longest time without them.
    silence_ns: u64,
    /// What silence it survived, or how it was cut.
    result: Option<Result<u64, Cut>>,
}

impl Socket {
    fn cut(&mut self, how: How, now_ns: u64) {
        let after_ns = now_ns - self.opened_ns.unwrap_or(now_ns);
        self.result.get_or_insert(Err(Cut { how, after_ns }));
    }

    /// Something arrives, or is asked for.
    fn end_silence(&mut self, now_ns: u64) {
        let since_ns = self.heard.1.max(self.opened_ns.unwrap_or(now_ns));
        self.silence_ns = self.silence_ns.max(now_ns - since_ns);
        self.heard.1 = now_ns;
    }

    /// Whether the far end speaks although nobody asked it to. The first message is a greeting.
    fn is_disturbed(&self) -> bool {
        is_silent(self) && self.heard.0 > 1
    }

    /// When the silence, or the watching, ends.
    fn until_ns(&self, patience_ms: u64) -> u64 {
        let eighths = if let Who::Silent { eighths } = self.who { eighths } else { 8 };
        self.opened_ns.unwrap_or(0) + time::ms(patience_ms) * eighths / 8
    }
}

impl Idle {
    fn schedule(&mut self, cx: &mut Cx<'_>) {
        let patience_ms = cx.shared.plan.patience_ms;
        let open = self.sockets.iter().filter(|socket| socket.result.is_none());
        let due = open.filter_map(|socket| {
            socket.opened_ns?;
            Some(match socket.asked_ns {
                Some(asked_ns) => asked_ns + time::ms(ANSWER_MS),
                None => socket.until_ns(patience_ms).min(socket.next_ns),
            })
        });
        match due.min() {
            Some(due_ns) => cx.wake_at(due_ns),
            None if self.sockets.iter().all(|socket| socket.result.is_some()) => cx.done(),
            None => {}
        }
    }
}

impl Experiment for Idle {
    fn id(&self) -> &'static str {
        "idle"
    }

    fn wave(&self) -> Wave {
        Wave::Beside
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let every = interval_ms(cx.shared.plan.patience_ms);
        let counts = cx.shared.facts.hello.is_some();
        let silent = [1, 2, 4, 6, 8].map(|eighths| (Who::Silent { eighths }, String::new()));
        let mut all = silent.to_vec();
        all.push((Who::ClientPings, String::new()));
        if counts {
            all.push((Who::Client, String::new()));
            all.push((Who::Server, format!("every={every}ms")));
            all.push((Who::ServerPings, format!("ping={}ms", every.max(1_000))));
        }
        for (who, query) in all {
            let id = if counts { cx.sink(&query) } else { cx.socket(&query) };
            let Some(id) = id else { continue };
            self.sockets.push(Socket {
                id,
                who,
                opened_ns: None,
                asked_ns: None,
                next_ns: u64::MAX,
                heard: (0, 0),
                silence_ns: 0,
                result: None,
            });
        }
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let (now_ns, patience_ms) = (cx.now.mono_ns, cx.shared.plan.patience_ms);
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.id == id) else { return };
        match event {
            Event::Opened(_) => {
                socket.opened_ns = Some(now_ns);
                if matches!(socket.who, Who::Client | Who::ClientPings) {
                    socket.next_ns = now_ns + time::ms(interval_ms(patience_ms));
                }
            }
            Event::Ended(Ending::Close(code, _)) => socket.cut(How::Close(code), now_ns),
            Event::Ended(Ending::Fin) => socket.cut(How::Fin, now_ns),
            Event::Ended(Ending::Rst) => socket.cut(How::Rst, now_ns),
            // Silence is not the reason; `upgrade`, `spread` and `frames` are about that.
            Event::Answered(_) | Event::Failed(..) | Event::Ended(Ending::Invalid(_)) => {
                socket.result.get_or_insert(Ok(0));
            }
            // Not a Pong: hops may drop pings, or answer them.
            Event::Message { bytes, .. }
                if socket.asked_ns.is_some() && !behaviours::is_unasked(&bytes) =>
            {
                socket.result.get_or_insert(Ok(socket.silence_ns));
                cx.drop_wire(id);
            }
            Event::Message { .. } | Event::Ping if socket.asked_ns.is_none() => {
                socket.end_silence(now_ns);
                socket.heard.0 = socket.heard.0.saturating_add(1);
                return;
            }
            _ => return,
        }
        self.schedule(cx);
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        let (now_ns, patience_ms) = (cx.now.mono_ns, cx.shared.plan.patience_ms);
        for socket in &mut self.sockets {
            if socket.result.is_some() || socket.opened_ns.is_none() {
                continue;
            }
            match socket.asked_ns {
                Some(asked_ns) if asked_ns + time::ms(ANSWER_MS) <= now_ns => {
                    if cx.facts().answers() {
                        socket.cut(How::Hole, asked_ns);
                    } else {
                        socket.result.get_or_insert(Ok(socket.silence_ns));
                    }
                }
                None if socket.until_ns(patience_ms) <= now_ns => {
                    socket.asked_ns = Some(now_ns);
                    socket.end_silence(now_ns);
                    cx.send(socket.id, talk::TEXT, QUESTION);
                }
                None if socket.next_ns <= now_ns => {
                    socket.next_ns = now_ns + time::ms(interval_ms(patience_ms));
                    match socket.who {
                        Who::ClientPings => cx.send(socket.id, talk::PING, b"idle"),
                        _ => cx.send(socket.id, talk::TEXT, b"idle"),
                    }
                }
                _ => {}
            }
        }
        self.schedule(cx);
    }

    fn is_known_early(&self) -> bool {
        true
    }

    fn judge(&self, facts: &Facts, plan: &Plan) -> Verdict {
        // A busy socket was cut no later: silence was not the reason. How it was cut says nothing,
        // since bytes on the way turn a FIN into an RST.
        let margin_ns = time::ms(interval_ms(plan.patience_ms));
        let is_age = |cut: &Cut| match (&facts.age, facts.busy_for_ns) {
            (Some(age), _) => age.after_ns <= cut.after_ns + margin_ns,
            // It is not known: the probe is interrupted, or that socket ended for another reason.
            (None, Some(busy_for_ns)) => busy_for_ns < cut.after_ns + margin_ns,
            (None, None) => false,
        };
        let survived =
            self.sockets.iter().filter_map(|socket| match (socket.who, &socket.result) {
                (Who::Silent { .. }, Some(Ok(ns))) => Some(*ns),
                _ => None,
            });
        let survived_ns = survived.max().unwrap_or(0);
        let mut verdict = tolerates(survived_ns, facts, plan);
        if self.sockets.iter().any(Socket::is_disturbed) {
            verdict
                .note
                .push_str("; longer silence is not seen: the far end sends something by itself");
        }
        // Of the silent sockets one says it all: one that had not spoken yet, if there is one, as
        // the answer to a late message may be an RST.
        let asked = |asked| move |socket: &&Socket| socket.asked_ns.is_some() == asked;
        let sockets = self.sockets.iter().filter(asked(false));
        let mut is_known = false;
        for socket in sockets.chain(self.sockets.iter().filter(asked(true))) {
            let Some(Err(cut)) = &socket.result else { continue };
            if is_age(cut) || is_silent(socket) && is_known {
                continue;
            }
            is_known |= is_silent(socket);
            let after = match cut.how {
                How::Hole => {
                    format!("between {} and {}", shown_ns(survived_ns), shown_ns(cut.after_ns))
                }
                _ => format!("after {}", shown_ns(cut.after_ns)),
            };
            let who = if socket.is_disturbed() { Who::Server } else { socket.who };
            let title = format!("{} {after}.", who.sentence());
            let said = (title.as_str(), format!("the connection was {}", cut.how.verb()));
            let id = format!("idle-{}-{}", who.name(), cut.how.name());
            let cause = Cause::Idle { how: cut.how, after_ns: cut.after_ns };
            verdict.findings.push(finding(Severity::Error, &id, said, (facts, cause)));
            verdict.note = format!("silence is cut {after}");
            if is_silent(socket) {
                verdict.figure("cut_after_s", (cut.after_ns as f64 / 1e8).round() / 10.0);
            }
        }
        if verdict.findings.is_empty() && facts.age.is_some() {
            "cut no earlier than busy sockets".clone_into(&mut verdict.note);
        } else if verdict.findings.is_empty()
            && self.sockets.iter().any(|socket| matches!(socket.result, Some(Err(_))))
        {
            verdict.unknown = Some("sockets were cut, perhaps busy ones as well".to_owned());
        } else if verdict.findings.is_empty() && survived_ns == 0 {
            verdict.unknown = Some("no silent socket could be watched".to_owned());
        }
        verdict
    }
}

fn tolerates(survived_ns: u64, facts: &Facts, plan: &Plan) -> Verdict {
    let mut verdict = Verdict::passed(format!("silence of {} is tolerated", shown_ns(survived_ns)));
    if let Some((name, seconds)) = habits::cuts_later(facts, plan.patience_ms) {
        let longer = seconds + seconds / 10;
        let more = format!("; {name}'s default is {seconds} s: see with --patience {longer}s");
        verdict.note.push_str(&more);
    }
    verdict
}

fn is_silent(socket: &Socket) -> bool {
    matches!(socket.who, Who::Silent { .. })
}
