//! Whether messages of all sizes arrive as they were sent, fragments as fragments, and pings at the
//! far end.

use serde_json::Value;

use super::{Experiment, finding};
use crate::behaviours;
use crate::engine::Id;
use crate::probe::facts::{Facts, shown};
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
/// 64 KiB a second, there and back.
const BYTES_PER_MS: u64 = 32;
const RETRIES_MAX: usize = 4;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Frames {
    echo: Option<Id>,
    /// Messages that came back as they were sent.
    intact: usize,
    spoiled: Option<Spoiled>,
    /// Messages at which a socket ended, each of which is then sent first on another.
    retried: Vec<usize>,
    opened_ns: u64,
    /// How long the last socket was watched.
    watched_ns: u64,
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
    /// Sockets end at different messages, or do not open.
    Restless,
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
        // Late is not lost: a narrow line needs time for a long message.
        cx.wake_in(LIMIT_MS + bytes.len() as u64 / BYTES_PER_MS);
    }

    /// The size of the message, or something else, ended the socket: only the former happens again.
    fn echo_ended(&mut self, ending: Ending, cx: &mut Cx<'_>) {
        let is_certain = matches!(ending, Ending::Close(1009, _) | Ending::Invalid(_));
        let again = self.retried.last() == Some(&self.intact);
        if is_certain || again || self.retried.len() == RETRIES_MAX {
            self.spoiled =
                Some(if is_certain || again { Spoiled::Ended(ending) } else { Spoiled::Restless });
            return self.echo_is_over(cx);
        }
        self.retried.push(self.intact);
        self.open_echo(cx);
    }

    fn open_echo(&mut self, cx: &mut Cx<'_>) {
        self.echo = cx.socket("");
        if let Some(wire) = self.echo.and_then(|id| cx.shared.wires.find_mut(id)) {
            wire.allow_long();
        }
        cx.wake_in(LIMIT_MS);
    }

    fn echo_is_over(&mut self, cx: &mut Cx<'_>) {
        self.is_over = true;
        cx.wake_in(LIMIT_MS);
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
            Event::Pong => self.pong = true,
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
        if !cx.facts().answers() {
            // `timing` has waited for an echo.
            self.spoiled = Some(Spoiled::Unanswered);
            return cx.done();
        }
        self.open_echo(cx);
        if cx.shared.facts.hello.is_some() {
            self.sink = cx.sink("");
        }
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        if Some(id) == self.sink {
            return self.heard_sink(id, event, cx);
        }
        match event {
            _ if Some(id) != self.echo => {}
            Event::Opened(_) => {
                self.opened_ns = cx.now.mono_ns;
                self.send_next(id, cx);
            }
            // Pushes of the mount, or that the URL asks for.
            Event::Message { bytes, .. } if behaviours::is_unasked(&bytes) => {}
            Event::Message { kind, bytes, .. } if !self.is_over => {
                if (kind, bytes) == message(self.intact) {
                    self.intact += 1;
                    self.send_next(id, cx);
                } else if self.intact > 0 {
                    // What precedes the first echo is a greeting.
                    self.spoiled = Some(Spoiled::Changed);
                    self.echo_is_over(cx);
                }
            }
            Event::Ended(ending) if !self.is_over => self.echo_ended(ending, cx),
            Event::Answered(_) | Event::Failed(..) if !self.is_over => {
                self.spoiled = Some(Spoiled::Restless);
                self.echo_is_over(cx);
            }
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        if !self.is_over {
            self.watched_ns = cx.now.mono_ns.saturating_sub(self.opened_ns);
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
        // As for a hole: nothing says that it is about this message.
        let is_age = facts.age.as_ref().is_some_and(|age| age.after_ns <= self.watched_ns);
        let mut flaw = None;
        let mut add = |severity, id: &str, title: &str, seen: String, cause| {
            let said = (title, seen);
            verdict.findings.push(finding(severity, id, said, (facts, cause)));
        };
        match &self.spoiled {
            None => {}
            Some(Spoiled::Restless) => flaw = Some("sockets ended before all sizes were tried"),
            Some(_) if !is_echo => flaw = Some("the far end does not echo messages"),
            Some(Spoiled::Unanswered) if is_age => flaw = Some("cut like all sockets of its age"),
            Some(spoiled) => {
                let changed = "A hop changes messages.";
                let lost = "Messages of some sizes do not get through.";
                let (id, title, seen, cause) = match spoiled {
                    Spoiled::Ended(Ending::Invalid(why)) => {
                        let seen = format!("{what} was answered with an invalid frame: {why}");
                        ("message-changed", changed, seen, Cause::Frames)
                    }
                    Spoiled::Ended(Ending::Close(code, reason)) => {
                        let seen =
                            format!("{what} was answered with Close {code} {}", shown(reason));
                        ("size-limit", lost, seen, Cause::Size)
                    }
                    Spoiled::Unanswered => {
                        let seen = format!("{what} was not answered in time");
                        ("size-limit", lost, seen, Cause::Size)
                    }
                    Spoiled::Ended(_) | Spoiled::Restless => {
                        let seen = format!("the connection ended at {what}");
                        ("size-limit", lost, seen, Cause::Size)
                    }
                    Spoiled::Changed => {
                        let seen = format!("{what} came back changed");
                        ("message-changed", changed, seen, Cause::Frames)
                    }
                };
                add(Severity::Error, id, title, seen, cause);
            }
        }
        self.judge_sink(&mut add);
        verdict.unknown = flaw.map(str::to_owned);
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
