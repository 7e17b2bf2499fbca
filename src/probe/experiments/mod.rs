//! The experiments: a row each in [`all`], a file each. A script collects evidence, and a judge
//! that does nothing else turns it into findings.

mod age;
mod close;
mod compression;
mod drain;
mod frames;
mod http;
mod idle;
mod limits;
mod name;
mod spread;
mod timing;
mod tls;
mod upgrade;

use core::fmt;

use super::facts::Facts;
use super::habits::{self, Cause};
use super::report::{Finding, Severity, Verdict};
use super::wire::Event;
use super::{Cx, Plan, Shared};
use crate::engine::Id;

/// When an experiment runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wave {
    /// Before the others, which depend on it.
    First,
    /// Alone, since others would disturb it.
    Timing,
    /// After the others have begun: they mostly wait.
    Work,
    /// After those, whose sockets and long messages would disturb it.
    Alone,
    /// Beside all others, after the first.
    Beside,
    /// After all others: it ends the server.
    Last,
}

/// A question about the path. See [`super`].
pub(super) trait Experiment {
    /// Its name in reports.
    fn id(&self) -> &'static str;

    fn wave(&self) -> Wave {
        Wave::Work
    }

    /// Why it cannot run; asked when its wave has come.
    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        (!shared.facts.opens).then_some("no WebSocket opens")
    }

    /// Opens its first connections.
    fn begin(&mut self, cx: &mut Cx<'_>);

    /// Something happened on one of its connections.
    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>);

    /// The time of [`Cx::wake_at`] has come.
    fn fire(&mut self, _cx: &mut Cx<'_>) {}

    /// The host name is resolved.
    fn resolved(&mut self, _cx: &mut Cx<'_>) {}

    /// Whether the evidence so far can be judged when the probe is interrupted.
    fn is_known_early(&self) -> bool {
        false
    }

    /// What the evidence means.
    fn judge(&self, facts: &Facts, plan: &Plan) -> Verdict;
}

/// Does not show the evidence, which would add code for every experiment.
impl fmt::Debug for dyn Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// All experiments of a plan, in the order of the report.
pub(super) fn all(plan: &Plan) -> Vec<Box<dyn Experiment>> {
    let mut all: Vec<Box<dyn Experiment>> = vec![
        Box::new(name::Name::default()),
        Box::new(upgrade::Upgrade::default()),
        Box::new(tls::Tls::default()),
        Box::new(http::Http::default()),
        Box::new(timing::Timing::default()),
        Box::new(frames::Frames::default()),
        Box::new(compression::Compression::default()),
        Box::new(close::Close::default()),
        Box::new(spread::Spread::default()),
        Box::new(limits::Limits::default()),
    ];
    if !plan.quick {
        all.push(Box::new(idle::Idle::default()));
        all.push(Box::new(age::Age::default()));
    }
    if plan.drain.is_some() {
        all.push(Box::new(drain::Drain::default()));
    }
    all
}

const NEEDS_WSPULSE: &str = "the far end is no wspulse that answers ?probe=1";

/// For experiments that ask the far end what arrived.
fn needs_wspulse(shared: &Shared) -> Option<&'static str> {
    match (shared.facts.opens, &shared.facts.hello) {
        (false, _) => Some("no WebSocket opens"),
        (true, None) => Some(NEEDS_WSPULSE),
        (true, Some(_)) => None,
    }
}

/// A finding; the table of habits names the hops and the remedy.
fn finding(
    severity: Severity,
    id: &str,
    (title, evidence): (&str, String),
    (facts, cause): (&Facts, Cause),
) -> Finding {
    let (hops, remedy) = habits::explain(facts, cause);
    Finding { id: id.to_owned(), severity, title: title.to_owned(), evidence, hops, remedy }
}
