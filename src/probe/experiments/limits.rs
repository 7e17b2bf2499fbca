//! How large a request head may be.

use super::{Experiment, finding};
use crate::engine::Id;
use crate::probe::facts::{Facts, shown};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Purpose};
use crate::probe::{Cx, Plan};

/// Bytes of a header field that is added. A wspulse accepts heads of 8 KiB, with what hops add. The
/// first is for comparison.
const SIZES: [usize; 4] = [0, 3_500, 7_000, 15_000];
/// Below this a limit is a finding: cookies and tokens need as much.
const USUAL: usize = 7_000;
const LIMIT_MS: u64 = 8_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Limits {
    tries: Vec<(usize, Id, Option<Outcome>)>,
}

/// What became of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Opened,
    /// The response, and whether the far end itself sent it.
    Refused {
        how: String,
        by_far_end: bool,
    },
}

impl Experiment for Limits {
    fn id(&self) -> &'static str {
        "limits"
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        for size in SIZES {
            let mut ask = cx.shared.ask("");
            if size > 0 {
                ask.fields.push(("X-Wspulse-Probe".to_owned(), "x".repeat(size)));
            }
            if let Some(id) = cx.open(Purpose::Socket(ask)) {
                self.tries.push((size, id, None));
            }
        }
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let outcome = match event {
            Event::Opened(_) => Outcome::Opened,
            Event::Answered(response) => {
                let by_far_end = response.field("x-served-by").is_some();
                Outcome::Refused { how: response.status.to_string(), by_far_end }
            }
            Event::Failed(failure, _) => {
                Outcome::Refused { how: failure.to_string(), by_far_end: false }
            }
            _ => return,
        };
        for (_, tried, known) in &mut self.tries {
            if *tried == id {
                known.get_or_insert(outcome.clone());
            }
        }
        if self.tries.iter().all(|(_, _, known)| known.is_some()) {
            cx.done();
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        if !self
            .tries
            .iter()
            .any(|(size, _, outcome)| *size == 0 && *outcome == Some(Outcome::Opened))
        {
            return Verdict::unknown("at that moment no WebSocket opened");
        }
        let accepted = self.tries.iter().filter(|(.., outcome)| *outcome == Some(Outcome::Opened));
        let largest = accepted.map(|(size, ..)| *size).max().unwrap_or(0);
        let mut verdict = Verdict::passed(format!("a header field of {largest} bytes fits"));
        verdict.figure("head_bytes", largest);
        let refused = self.tries.iter().find_map(|(size, _, outcome)| match outcome {
            Some(Outcome::Refused { how, by_far_end: false }) => Some((*size, how)),
            _ => None,
        });
        if let Some((size, how)) = refused
            && size <= USUAL
        {
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
