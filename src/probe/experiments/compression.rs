//! Whether permessage-deflate (RFC 7692) is agreed on, and whether it works.

use super::{Experiment, finding};
use crate::behaviours;
use crate::engine::Id;
use crate::outbox::Blocks;
use crate::probe::facts::{Facts, Hello, shown_ns};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::Event;
use crate::probe::{Cx, Plan, Shared};
use crate::proto::deflate::{self, Agreed, Codec, Inflated, Level, WINDOW_BITS_MAX};
use crate::proto::frame::Kind;
use crate::time;

const OFFER: &str = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
/// How long to wait, beside several times what a message and its answer take.
const LIMIT_MS: u64 = 5_000;
const ROUND_TRIPS: u64 = 4;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Compression {
    echo: Option<Id>,
    /// What the 101 says.
    agreed: Option<String>,
    echoed: Option<bool>,
    /// Whether the echo was compressed.
    compressed: bool,
    sink: Option<Id>,
    far: Option<Far>,
}

/// What the far end saw.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Far {
    /// The offer arrived.
    offered: bool,
    /// It agreed.
    agreed: bool,
}

fn text() -> Vec<u8> {
    b"the same words again and again, ".repeat(32)
}

/// How long a far end that answers so fast may take for all of it.
fn limit_ns(facts: &Facts) -> u64 {
    time::ms(LIMIT_MS) + ROUND_TRIPS * facts.round_trip_ns.unwrap_or_default()
}

/// A compressed frame without its header.
fn compressed(codec: &mut Codec) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let agreed = Agreed::new(Level::DEFAULT, WINDOW_BITS_MAX);
    // The text compresses to less than 126 bytes, so the header has two.
    codec.compress(agreed, Kind::Text, &text(), &mut frame).then(|| frame.split_off(2))
}

fn inflated(codec: &mut Codec, bytes: &[u8]) -> Option<Vec<u8>> {
    match codec.inflate(Kind::Text, bytes, 64 * 1024, &mut Blocks::default()).ok()? {
        Inflated::Long(block) => Some(block.bytes().to_vec()),
        Inflated::Short(scratch) => {
            let bytes = scratch.bytes().to_vec();
            codec.give_back(scratch);
            Some(bytes)
        }
    }
}

impl Compression {
    fn finish_if_complete(&mut self, cx: &mut Cx<'_>) {
        let known = match &self.agreed {
            Some(agreed) => agreed.is_empty() || self.echoed.is_some(),
            None => self.echo.is_none(),
        };
        if known && (self.sink.is_none() || self.far.is_some()) {
            cx.done();
        }
    }
}

impl Experiment for Compression {
    fn id(&self) -> &'static str {
        "compression"
    }

    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        match (shared.facts.opens, deflate::BUILT) {
            (false, _) => Some("no WebSocket opens"),
            (true, false) => Some("this build has no compression"),
            (true, true) => None,
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let mut ask = cx.shared.ask("");
        OFFER.clone_into(&mut ask.extensions);
        self.echo = cx.open(crate::probe::wire::Purpose::Socket(ask));
        if cx.shared.facts.hello.is_some() {
            let mut ask = cx.shared.ask("probe=1");
            OFFER.clone_into(&mut ask.extensions);
            self.sink = cx.open(crate::probe::wire::Purpose::Socket(ask));
        }
        cx.wake_at(cx.now.mono_ns + limit_ns(&cx.shared.facts));
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Opened(response) if Some(id) == self.echo => {
                let agreed = response.field("sec-websocket-extensions").unwrap_or_default();
                self.agreed = Some(agreed.to_owned());
                if agreed.contains("permessage-deflate")
                    && let Some(payload) = compressed(&mut cx.shared.codec)
                {
                    cx.send(id, 0xc1, &payload);
                }
            }
            Event::Message { bytes, compressed, .. } if Some(id) == self.echo => {
                let codec = &mut cx.shared.codec;
                let bytes = if compressed { inflated(codec, &bytes) } else { Some(bytes) };
                let same = bytes == Some(text());
                let is_unasked = bytes.is_some_and(|bytes| behaviours::is_unasked(&bytes));
                // A greeting may precede the echo.
                if same || compressed && !is_unasked {
                    (self.echoed, self.compressed) = (Some(same), compressed);
                }
            }
            Event::Ended(_) | Event::Failed(..) | Event::Answered(_) if Some(id) == self.echo => {
                if self.agreed.as_ref().is_some_and(|agreed| !agreed.is_empty()) {
                    self.echoed.get_or_insert(false);
                }
                self.echo = None;
            }
            Event::Message { bytes, compressed, .. } if Some(id) == self.sink => {
                let codec = &mut cx.shared.codec;
                let bytes = if compressed { inflated(codec, &bytes) } else { Some(bytes) };
                if let Some(hello) = bytes.and_then(|bytes| Hello::parse(&bytes)) {
                    let offered = hello.field("sec-websocket-extensions").is_some();
                    self.far = Some(Far { offered, agreed: !hello.extensions.is_empty() });
                }
            }
            Event::Ended(_) | Event::Failed(..) | Event::Answered(_) => self.sink = None,
            _ => return,
        }
        self.finish_if_complete(cx);
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        let Some(agreed) = self.agreed.as_deref() else {
            return Verdict::unknown("at that moment no WebSocket opened");
        };
        if agreed.is_empty() {
            let seen = match &self.far {
                Some(Far { offered: false, .. }) => {
                    "the far end received the upgrade without Sec-WebSocket-Extensions"
                }
                Some(Far { agreed: true, .. }) => {
                    "the far end agreed to compress, but the 101 arrived without it"
                }
                Some(Far { .. }) => return Verdict::passed("the far end does not compress"),
                None => return Verdict::passed("not agreed on"),
            };
            let mut verdict = Verdict::passed("removed on the way");
            let title = "A hop removes compression: messages take more bytes than needed.";
            let said = (title, seen.to_owned());
            let cause = (facts, Cause::Headers);
            verdict.findings.push(finding(Severity::Warning, "compression-stripped", said, cause));
            return verdict;
        }
        if self.echoed == Some(true) {
            let how = if self.compressed { "both ways" } else { "to the server" };
            return Verdict::passed(format!("agreed on and works, {how}"));
        }
        if facts.hello.is_none() {
            return Verdict::unknown("agreed on, but the far end does not echo");
        }
        let mut verdict = Verdict::passed("agreed on, but does not work");
        let said = (
            "Compression is agreed on, but compressed messages do not get through.",
            if self.echoed.is_some() {
                "a compressed message came back damaged, or ended the connection".to_owned()
            } else {
                let limit = shown_ns(limit_ns(facts));
                format!("a compressed message was not answered within {limit}")
            },
        );
        let cause = (facts, Cause::Headers);
        verdict.findings.push(finding(Severity::Error, "compression-broken", said, cause));
        verdict
    }
}
