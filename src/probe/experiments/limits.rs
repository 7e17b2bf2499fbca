//! How large a request head may be.

use super::{Experiment, Wave, finding};
use crate::engine::Id;
use crate::probe::facts::{Facts, shown};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Purpose};
use crate::probe::{Cx, Plan};

/// Bytes of a header field that is added. A wspulse accepts heads of 8 KiB, with what hops add.
const SIZES: [usize; 3] = [3_500, 7_000, 15_000];
/// Below this a limit is a finding: cookies and tokens need as much.
const USUAL: usize = 7_000;
const LIMIT_MS: u64 = 25_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// The request that is on its way, and the bytes that are added to it.
    asked: Option<(Id, usize)>,
    /// The most that were accepted.
    largest: Option<usize>,
    refused: Option<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    size: usize,
    how: String,
    by_far_end: bool,
    /// Whether a request without further bytes was accepted after it.
    compared: bool,
    /// Whether it was then refused again: its size is the reason.
    again: bool,
}

impl Limits {
    fn ask(&mut self, size: usize, cx: &mut Cx<'_>) {
        let mut ask = cx.shared.ask("");
        if size > 0 {
            ask.fields.push(("X-Wspulse-Probe".to_owned(), "x".repeat(size)));
        }
        self.asked = cx.open(Purpose::Socket(ask)).map(|id| (id, size));
    }

    fn accepted(&mut self, size: usize, cx: &mut Cx<'_>) {
        self.largest = self.largest.max(Some(size));
        if size == 0
            && let Some(refused) = &mut self.refused
        {
            refused.compared = true;
            let size = refused.size;
            return self.ask(size, cx);
        }
        self.refused = None;
        match SIZES.into_iter().find(|larger| *larger > size) {
            Some(larger) => self.ask(larger, cx),
            None => cx.done(),
        }
    }

    fn refused(&mut self, size: usize, how: String, by_far_end: bool, cx: &mut Cx<'_>) {
        match &mut self.refused {
            Some(refused) if refused.compared && !by_far_end => refused.again = true,
            None if size > 0 => {
                let (compared, again) = (false, false);
                self.refused = Some(Refused { size, how, by_far_end, compared, again });
                if !by_far_end {
                    return self.ask(0, cx);
                }
            }
            _ => {}
        }
        cx.done();
    }
}

impl Experiment for Limits {
    fn id(&self) -> &'static str {
        "limits"
    }

    fn wave(&self) -> Wave {
        Wave::Alone
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        self.ask(0, cx);
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let Some((_, size)) = self.asked.filter(|(asked, _)| *asked == id) else { return };
        match event {
            Event::Opened(_) => {
                cx.drop_wire(id);
                self.accepted(size, cx);
            }
            Event::Answered(response) => {
                let by_far_end = response.field("x-served-by").is_some();
                self.refused(size, response.status.to_string(), by_far_end, cx);
            }
            Event::Failed(failure, _) => self.refused(size, failure.to_string(), false, cx),
            _ => {}
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        let Some(largest) = self.largest else {
            return Verdict::unknown("at that moment no WebSocket opened");
        };
        let mut verdict = Verdict::passed(format!("a header field of {largest} bytes fits"));
        verdict.figure("head_bytes", largest);
        if let Some(Refused { size, how, by_far_end: false, again, .. }) = &self.refused
            && *size <= USUAL
        {
            if !again {
                return Verdict::unknown("at that moment no further WebSocket opened");
            }
            let said = (
                "A hop accepts only small request heads: cookies and tokens do not fit.",
                format!("a field of {size} bytes: {}", shown(how)),
            );
            let found = finding(Severity::Warning, "head-limit", said, (facts, Cause::Head));
            verdict.findings.push(found);
        }
        verdict
    }
}
