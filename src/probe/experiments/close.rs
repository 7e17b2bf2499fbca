//! Whether Close codes and reasons arrive as they were sent, in both directions, and what arrives
//! after the client's FIN.

use super::{Experiment, Wave, finding, needs_wspulse};
use crate::engine::{Action, Id};
use crate::probe::facts::{Facts, shown_ns};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Ending, Event};
use crate::probe::{Cx, Plan, Shared};
use crate::proto::talk;

const CODES: [u16; 4] = [1000, 1001, 1012, 4000];
const REASON: &str = "probe says goodbye";
/// A close handshake that takes longer is slow.
const SLOW_NS: u64 = 2_000_000_000;
const LIMIT_MS: u64 = 8_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Close {
    tries: Vec<Try>,
    half: Half,
}

/// A socket on which the client sends a question, a Close and FIN at once, as some clients do.
#[derive(Debug, Default)]
struct Half {
    id: Option<Id>,
    has_asked: bool,
    answered: bool,
    ending: Option<Ending>,
}

impl Half {
    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Message { .. } if !self.has_asked => {
                self.has_asked = true;
                cx.send(id, talk::TEXT, b"probe:count");
                cx.send(id, talk::CLOSE, &talk::close_payload(1000, REASON));
                cx.shared.actions.push_back(Action::Finish(id));
            }
            Event::Message { .. } => self.answered = true,
            Event::Ended(ending) => self.ending = Some(ending),
            Event::Answered(_) | Event::Failed(..) => self.id = None,
            _ => {}
        }
    }

    /// What was lost, if the connection ended without the answers.
    fn loss(&self) -> Option<&'static str> {
        match (&self.ending, self.answered) {
            (Some(Ending::Close(..)) | None, true) | (None, false) => None,
            (Some(Ending::Close(..)), false) => Some("the answer to a message"),
            (Some(_), true) => Some("the answer to the Close"),
            (Some(_), false) => Some("the answers to a message and to the Close"),
        }
    }
}

#[derive(Clone, Debug)]
struct Try {
    id: Option<Id>,
    code: u16,
    from_there: bool,
    began_ns: Option<u64>,
    ending: Option<(Ending, u64)>,
}

impl Try {
    fn sender(&self) -> &'static str {
        if self.from_there { "the far end" } else { "the client" }
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        match event {
            // The first message shows that the far end is ready.
            Event::Message { .. } if self.began_ns.is_none() => {
                self.began_ns = Some(now_ns);
                if self.from_there {
                    let command = format!("probe:close {} {REASON}", self.code);
                    cx.send(id, talk::TEXT, command.as_bytes());
                } else {
                    cx.send(id, talk::CLOSE, &talk::close_payload(self.code, REASON));
                }
            }
            Event::Ended(ending) => {
                let took_ns = self.began_ns.map_or(0, |began_ns| now_ns - began_ns);
                let took_ns = took_ns.saturating_sub(cx.lag_ns);
                self.ending.get_or_insert((ending, took_ns));
            }
            Event::Answered(_) | Event::Failed(..) => self.id = None,
            _ => {}
        }
    }
}

impl Experiment for Close {
    fn id(&self) -> &'static str {
        "close"
    }

    /// On a narrow line a Close waits behind the long messages of others.
    fn wave(&self) -> Wave {
        Wave::Alone
    }

    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        needs_wspulse(shared)
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        for from_there in [false, true] {
            for code in CODES {
                let id = cx.sink("");
                self.tries.push(Try { id, code, from_there, began_ns: None, ending: None });
            }
        }
        self.half.id = cx.sink("");
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        if self.half.id == Some(id) {
            self.half.heard(id, event, cx);
        } else if let Some(one) = self.tries.iter_mut().find(|one| one.id == Some(id)) {
            one.heard(id, event, cx);
        }
        let is_over = |one: &Try| one.ending.is_some() || one.id.is_none();
        let half_is_over = self.half.ending.is_some() || self.half.id.is_none();
        if half_is_over && self.tries.iter().all(is_over) {
            cx.done();
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        let mut verdict = Verdict::passed("codes and reasons arrive, in both directions");
        let mut slowest_ns = 0;
        for one in &self.tries {
            if one.began_ns.is_none() {
                continue;
            }
            let (sender, code) = (one.sender(), one.code);
            let (id, title, seen) = match &one.ending {
                Some((Ending::Close(seen, reason), took_ns)) if *seen == code => {
                    slowest_ns = slowest_ns.max(*took_ns);
                    if reason == REASON {
                        continue;
                    }
                    let seen = format!("Close {code} from {sender} lost its reason");
                    ("close-reason-lost", "A hop removes the reason of a Close.", seen)
                }
                Some((Ending::Close(seen, _), _)) => {
                    let seen = format!("Close {code} from {sender} arrived as {seen}");
                    ("close-code-changed", "A hop changes the code of a Close.", seen)
                }
                Some((Ending::Fin | Ending::Rst | Ending::Invalid(_), _)) => {
                    let seen =
                        format!("Close {code} from {sender}: the connection ended without it");
                    (
                        "close-lost",
                        "A hop ends the connection instead of passing on the Close.",
                        seen,
                    )
                }
                None => {
                    let seen = format!("Close {code} from {sender} was not answered within 8 s");
                    ("close-lost", "A Close is not passed on.", seen)
                }
            };
            if verdict.findings.iter().all(|found| found.id != id) {
                let said = (title, seen);
                verdict.findings.push(finding(Severity::Warning, id, said, (facts, Cause::Close)));
            }
        }
        if let Some(lost) = self.half.loss() {
            let title = "A hop ends both directions when the client ends its own (half-close).";
            let seen = format!("after a Close and FIN from here {lost} did not arrive");
            let said = (title, seen);
            let found = finding(Severity::Info, "half-close-cut", said, (facts, Cause::HalfClose));
            verdict.findings.push(found);
        }
        if self.tries.iter().all(|one| one.began_ns.is_none()) {
            return Verdict::unknown("at that moment no WebSocket opened");
        }
        verdict.figure("slowest_ms", slowest_ns / 1_000_000);
        if slowest_ns > SLOW_NS + facts.round_trip_ns.unwrap_or(0) {
            let said = (
                "A close handshake takes long.",
                format!("{} from our Close to the answer", shown_ns(slowest_ns)),
            );
            let found = finding(Severity::Warning, "close-slow", said, (facts, Cause::Close));
            verdict.findings.push(found);
        }
        verdict
    }
}
