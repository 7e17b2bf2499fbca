//! Whether messages of all sizes arrive as they were sent, fragments as fragments, and pings at the
//! far end.

use serde_json::Value;

use super::{Experiment, finding};
use crate::engine::Id;
use crate::probe::facts::Facts;
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Ending, Event};
use crate::probe::{Cx, Plan};
use crate::proto::frame::Kind;
use crate::proto::talk;
use crate::units::show_size;

const SIZES: [usize; 8] = [0, 1, 125, 126, 4_096, 65_535, 65_536, 1 << 20];
/// Each size as text and as binary.
const MESSAGES: usize = 2 * SIZES.len();
const FRAGMENTS: u32 = 3;
const LIMIT_MS: u64 = 10_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Frames {
    echo: Option<Id>,
    /// Messages that came back as they were sent.
    intact: usize,
    spoiled: Option<Spoiled>,
    /// No size is limited by the far end below this.
    is_over: bool,
    sink: Option<Id>,
    counts: Option<Counts>,
    pong: bool,
    /// Frames of the fragmented message from there.
    arrived_here: Option<u32>,
}

/// What happened to a message instead.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spoiled {
    Changed,
    Ended(Ending),
    Unanswered,
}

/// What the far end counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    fragments: u64,
    pings: u64,
}

/// The message with this number.
fn message(number: usize) -> (Kind, Vec<u8>) {
    let size = SIZES[number / 2 % SIZES.len()];
    if number.is_multiple_of(2) {
        // Characters of two bytes, so that a hop that cuts text badly is noticed.
        let text = "\u{e9}\u{df}".bytes().cycle().take(size & !1);
        (Kind::Text, text.chain(std::iter::repeat_n(b'x', size & 1)).collect())
    } else {
        (Kind::Binary, (0..size).map(|at| (at * 7 + number) as u8).collect())
    }
}

impl Frames {
    fn send_next(&mut self, id: Id, cx: &mut Cx<'_>) {
        if self.intact == MESSAGES {
            return self.echo_is_over(cx);
        }
        let (kind, bytes) = message(self.intact);
        let first = if kind == Kind::Text { talk::TEXT } else { talk::BINARY };
        cx.send(id, first, &bytes);
        // Late is not lost.
        cx.wake_in(LIMIT_MS);
    }

    fn echo_is_over(&mut self, cx: &mut Cx<'_>) {
        self.is_over = true;
        self.finish_if_complete(cx);
    }

    fn finish_if_complete(&mut self, cx: &mut Cx<'_>) {
        let counted = self.counts.is_some() && self.arrived_here.is_some();
        if self.is_over && (self.sink.is_none() || counted) {
            cx.done();
        }
    }

    /// Three frames, a ping, and the questions.
    fn fill_sink(id: Id, cx: &mut Cx<'_>) {
        cx.send(id, 0x01, b"a");
        cx.send(id, 0x00, b"b");
        cx.send(id, 0x80, b"c");
        cx.send(id, talk::PING, b"probe");
        cx.send(id, talk::TEXT, b"probe:count");
        cx.send(id, talk::TEXT, format!("probe:fragments {FRAGMENTS}").as_bytes());
    }

    fn heard_sink(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Opened(_) => Self::fill_sink(id, cx),
            Event::Pong(_) => self.pong = true,
            Event::Message { bytes, frames, .. } => {
                if bytes == b"fragmented" {
                    self.arrived_here = Some(frames);
                } else if let Ok(value) = serde_json::from_slice::<Value>(&bytes)
                    && let (Some(fragments), Some(pings)) = (
                        value.get("fragments").and_then(Value::as_u64),
                        value.get("pings").and_then(Value::as_u64),
                    )
                {
                    self.counts = Some(Counts { fragments, pings });
                }
                self.finish_if_complete(cx);
            }
            Event::Answered(_) | Event::Failed(..) | Event::Ended(_) => {
                self.sink = None;
                self.finish_if_complete(cx);
            }
            _ => {}
        }
    }
}

impl Experiment for Frames {
    fn id(&self) -> &'static str {
        "frames"
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        self.echo = cx.socket("");
        if cx.shared.facts.hello.is_some() {
            self.sink = cx.sink("");
        }
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        if Some(id) == self.sink {
            return self.heard_sink(id, event, cx);
        }
        match event {
            Event::Opened(_) => self.send_next(id, cx),
            Event::Message { kind, bytes, .. } if !self.is_over => {
                if (kind, bytes) == message(self.intact) {
                    self.intact += 1;
                    self.send_next(id, cx);
                } else if self.intact > 0 || cx.shared.facts.hello.is_some() {
                    self.spoiled = Some(Spoiled::Changed);
                    self.echo_is_over(cx);
                }
            }
            Event::Ended(ending) if !self.is_over => {
                self.spoiled = Some(Spoiled::Ended(ending));
                self.echo_is_over(cx);
            }
            Event::Answered(_) | Event::Failed(..) => self.echo_is_over(cx),
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        if !self.is_over {
            self.spoiled = Some(Spoiled::Unanswered);
        }
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        let (kind, bytes) = message(self.intact.min(MESSAGES - 1));
        let size = show_size(bytes.len() as u64);
        let what = format!("a {} message of {size}", kind.name());
        let is_echo = facts.hello.is_some() || self.intact > 0;
        let mut verdict = Verdict::passed("0 bytes to 1MiB, text and binary, arrive as sent");
        verdict.figure("intact", self.intact);
        let mut add = |severity, id: &str, title: &str, seen: String, cause| {
            let said = (title, seen);
            verdict.findings.push(finding(severity, id, said, (facts, cause)));
        };
        match &self.spoiled {
            None => {}
            Some(_) if !is_echo => {
                return Verdict::unknown("the far end does not echo messages");
            }
            Some(Spoiled::Changed) => {
                let title = "A hop changes messages.";
                add(
                    Severity::Error,
                    "message-changed",
                    title,
                    format!("{what} came back changed"),
                    Cause::Frames,
                );
            }
            Some(spoiled) => {
                let seen = match spoiled {
                    Spoiled::Ended(Ending::Close(code, reason)) => {
                        format!("{what} was answered with Close {code} {reason}")
                    }
                    Spoiled::Unanswered => format!("{what} was not answered within 10 s"),
                    _ => format!("the connection ended at {what}"),
                };
                let title = "Messages of some sizes do not get through.";
                add(Severity::Error, "size-limit", title, seen, Cause::Size);
            }
        }
        self.judge_sink(&mut add);
        verdict
    }
}

impl Frames {
    fn judge_sink(&self, add: &mut impl FnMut(Severity, &str, &str, String, Cause)) {
        let Some(counts) = self.counts else { return };
        let theirs = self.arrived_here.unwrap_or(FRAGMENTS);
        if counts.fragments != u64::from(FRAGMENTS) || theirs != FRAGMENTS {
            let title = "A hop joins or splits fragments: it reads whole messages into memory.";
            let seen = format!(
                "of {FRAGMENTS} frames each, {} arrived there and {theirs} here",
                counts.fragments
            );
            add(Severity::Warning, "fragments-joined", title, seen, Cause::Frames);
        }
        match (self.pong, counts.pings) {
            (true, 0) => {
                let title =
                    "A hop answers pings itself: they do not show that the server is alive.";
                let seen = "a Pong arrived, but the far end received no Ping".to_owned();
                add(Severity::Warning, "ping-answered-by-hop", title, seen, Cause::Frames);
            }
            (false, _) => {
                let title = "Pings are not answered.";
                let seen = format!("no Pong; the far end received {} pings", counts.pings);
                add(Severity::Error, "ping-unanswered", title, seen, Cause::Frames);
            }
            (true, _) => {}
        }
    }
}
