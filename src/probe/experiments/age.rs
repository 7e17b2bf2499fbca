//! Whether a socket that is never idle is cut: then its age is the reason, not silence.

use super::idle::{ANSWER_MS, QUESTION, interval_ms};
use super::{Experiment, Wave, finding};
use crate::engine::Id;
use crate::probe::facts::{Cut, Facts, How, shown_ns};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Ending, Event};
use crate::probe::{Cx, Plan};
use crate::proto::talk;
use crate::time;

/// A silence after which an answer is asked for: pushes arrive more often.
fn silence_ms(patience_ms: u64) -> u64 {
    (2 * interval_ms(patience_ms)).max(3_000)
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Age {
    socket: Option<Id>,
    /// 0 until it opens.
    opened_ns: u64,
    heard_ns: u64,
    /// When the last question was sent: then an answer must come.
    asked_ns: Option<u64>,
    /// Why it cannot be watched to the end.
    flaw: Option<String>,
}

fn over(cut: Option<Cut>, cx: &mut Cx<'_>) {
    (cx.facts().age, cx.facts().busy_for_ns) = (cut, None);
    cx.done();
}

fn cut(how: How, after_ns: u64, cx: &mut Cx<'_>) {
    over(Some(Cut { how, after_ns }), cx);
}

impl Age {
    /// It cannot be compared with idle sockets that are cut later.
    fn give_up(&mut self, flaw: String, open_ns: u64, cx: &mut Cx<'_>) {
        self.flaw = Some(flaw);
        cx.facts().busy_for_ns = Some(open_ns);
        cx.done();
    }
}

impl Experiment for Age {
    fn id(&self) -> &'static str {
        "age"
    }

    fn wave(&self) -> Wave {
        Wave::Beside
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let every = interval_ms(cx.shared.plan.patience_ms);
        self.socket = if cx.shared.facts.hello.is_some() {
            cx.sink(&format!("every={every}ms"))
        } else {
            cx.socket("")
        };
        if self.socket.is_none() {
            cx.done();
        }
    }

    fn heard(&mut self, _: Id, event: Event, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        let open_ns = now_ns.saturating_sub(self.opened_ns);
        match event {
            Event::Opened(_) => {
                (self.opened_ns, self.heard_ns) = (now_ns, now_ns);
                cx.facts().busy_for_ns = Some(0);
                cx.wake_in(interval_ms(cx.shared.plan.patience_ms));
            }
            Event::Ended(Ending::Close(code, _)) => cut(How::Close(code), open_ns, cx),
            Event::Ended(Ending::Fin) => cut(How::Fin, open_ns, cx),
            Event::Ended(Ending::Rst) => cut(How::Rst, open_ns, cx),
            Event::Ended(Ending::Invalid(why)) => {
                self.give_up(format!("an invalid frame arrived: {why}"), open_ns, cx);
            }
            Event::Answered(response) => {
                self.give_up(format!("the socket was answered with {}", response.status), 0, cx);
            }
            Event::Failed(failure, _) => self.give_up(failure.to_string(), 0, cx),
            Event::Message { .. } | Event::Pong => {
                self.heard_ns = now_ns;
                cx.facts().busy_for_ns = Some(open_ns);
                let is_over = open_ns >= time::ms(cx.shared.plan.patience_ms);
                match self.asked_ns.take() {
                    Some(_) if is_over => over(None, cx),
                    Some(_) => cx.wake_in(interval_ms(cx.shared.plan.patience_ms)),
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        let Some(id) = self.socket else { return cx.done() };
        let (now_ns, patience_ms) = (cx.now.mono_ns, cx.shared.plan.patience_ms);
        let every = interval_ms(patience_ms);
        if self.asked_ns.is_some() {
            return cut(How::Hole, self.heard_ns - self.opened_ns, cx);
        }
        let silent_ns = now_ns - self.heard_ns;
        let is_over = now_ns - self.opened_ns >= time::ms(patience_ms);
        if is_over && !cx.facts().answers() {
            return over(None, cx);
        }
        let is_silent = silent_ns >= time::ms(silence_ms(patience_ms));
        if is_over || is_silent && cx.facts().answers() {
            self.asked_ns = Some(now_ns);
            cx.send(id, talk::TEXT, QUESTION);
            return cx.wake_in(ANSWER_MS);
        }
        cx.send(id, talk::TEXT, b"busy");
        cx.send(id, talk::PING, b"busy");
        cx.wake_in(every);
    }

    fn is_known_early(&self) -> bool {
        true
    }

    fn judge(&self, facts: &Facts, plan: &Plan) -> Verdict {
        let Some(cut) = &facts.age else {
            if let Some(flaw) = &self.flaw {
                return Verdict::unknown(flaw.as_str());
            }
            let open = shown_ns(time::ms(plan.patience_ms));
            return Verdict::passed(format!("a busy socket stayed open for {open}"));
        };
        let after = shown_ns(cut.after_ns);
        let after = match cut.how {
            How::Hole => {
                let until_ns = cut.after_ns + time::ms(interval_ms(plan.patience_ms));
                format!("between {after} and {}", shown_ns(until_ns))
            }
            _ => format!("after {after}"),
        };
        let mut verdict = Verdict::passed(format!("a busy socket was cut {after}"));
        verdict.figure("cut_after_s", (cut.after_ns as f64 / 1e8).round() / 10.0);
        let title = format!("Sockets are cut {after}, busy or not.");
        let said =
            (title.as_str(), format!("a socket with messages both ways was {}", cut.how.verb()));
        let id = format!("age-{}", cut.how.name());
        let cause = Cause::Age { how: cut.how, after_ns: cut.after_ns };
        verdict.findings.push(finding(Severity::Error, &id, said, (facts, cause)));
        verdict
    }
}
