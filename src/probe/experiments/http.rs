//! What hops change in the request: compares what was sent with what the far end received.

use super::{Experiment, finding, needs_wspulse};
use crate::engine::Id;
use crate::limits::PROBE_BELOW;
use crate::probe::facts::{Facts, Hello, shown};
use crate::probe::habits::{self, Cause};
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Purpose};
use crate::probe::{Cx, Plan, Shared, sink_query, with_query};

/// A query that hops may be tempted to clean up. `upgrade` sends it.
pub(super) const ODD_QUERY: &str = "a=b%2Fc//d";

/// The same for the end of a path.
const ODD_PATH: &str = "a%2Fb//c";
const MERGED_PATH: &str = "a%2Fb/c";
const LIMIT_MS: u64 = 5_000;

/// See the head of this file. `upgrade` has collected the evidence for all but the odd path.
#[derive(Debug, Default)]
pub(super) struct Http {
    /// What became of the odd path.
    odd: Option<OddPath>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OddPath {
    /// Behind that of the mount, as the far end received it.
    Arrived(String),
    /// A hop does not accept it.
    Refused(u16),
}

/// A target with the odd path behind that of the mount.
fn odd_target(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = format!("{}{PROBE_BELOW}{ODD_PATH}", path.strip_suffix('/').unwrap_or(path));
    with_query(&with_query(&path, query), &sink_query(""))
}

/// Whether all parameters arrived. The far end masks the values of those that may be secret.
fn is_same_query(sent: &str, received: &str) -> bool {
    let mut received = received.split('&');
    let same = |sent: &str, received: &str| match received.strip_suffix("=***") {
        Some(name) => sent.split('=').next() == Some(name),
        None => sent == received,
    };
    sent.split('&').all(|sent| received.next().is_some_and(|received| same(sent, received)))
        && received.next().is_none()
}

impl Experiment for Http {
    fn id(&self) -> &'static str {
        "http"
    }

    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        needs_wspulse(shared)
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let mut ask = cx.shared.ask("");
        ask.path = odd_target(&ask.path);
        if cx.open(Purpose::Socket(ask)).is_none() {
            cx.done();
        }
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, _: Id, event: Event, cx: &mut Cx<'_>) {
        self.odd = match event {
            Event::Message { bytes, .. } => Hello::parse(&bytes).and_then(|hello| {
                let path = hello.target.split('?').next().unwrap_or_default();
                let (_, odd) = path.split_once(PROBE_BELOW)?;
                Some(OddPath::Arrived(odd.to_owned()))
            }),
            Event::Answered(response) => {
                // No route, or no free socket: that is not about these characters.
                let is_other = matches!(response.status, 404 | 429 | 500..)
                    || response.field("x-served-by").is_some();
                (!is_other).then_some(OddPath::Refused(response.status))
            }
            Event::Failed(..) | Event::Ended(_) => None,
            _ => return,
        };
        cx.done();
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, plan: &Plan) -> Verdict {
        let Some(hello) = &facts.hello else { return Verdict::unknown(super::NEEDS_WSPULSE) };
        let mut verdict = Verdict::passed("the request arrives as it was sent");
        let mut add = |severity, id: &str, title: &str, seen: String, cause| {
            let said = (title, seen);
            verdict.findings.push(finding(severity, id, said, (facts, cause)));
        };
        let host = hello.field("host").unwrap_or_default();
        if !host.eq_ignore_ascii_case(&plan.ask.host) {
            let title = "A hop changes Host: checks of the Origin, and redirects, go wrong.";
            let seen = format!("sent {}, the far end received {}", plan.ask.host, shown(host));
            add(Severity::Warning, "host-rewritten", title, seen, Cause::Host);
        }
        let path = plan.ask.path.split('?').next().unwrap_or_default();
        let (their_path, query) = hello.target.split_once('?').unwrap_or((&hello.target, ""));
        if path != their_path {
            let title = "A hop changes the path.";
            let seen = format!("sent {}, the far end received {}", shown(path), shown(their_path));
            add(Severity::Warning, "path-rewritten", title, seen, Cause::Path);
        }
        self.judge_odd(&mut add);
        let sent = with_query(&plan.ask.path, &sink_query(ODD_QUERY));
        let sent = sent.split_once('?').map_or("", |(_, sent)| sent);
        if !is_same_query(sent, query) {
            let title = "A hop changes the query.";
            // The user's own parameters may hold a token.
            let theirs = query.split('&').find(|parameter| parameter.starts_with("a="));
            let theirs = theirs.map_or_else(|| "no a=".to_owned(), shown);
            let seen = format!("sent {ODD_QUERY} and others, the far end received {theirs}");
            add(Severity::Warning, "query-rewritten", title, seen, Cause::Path);
        }
        if hello.http_version == "1.0" {
            let title = "A hop speaks HTTP/1.0 to the server, which has no upgrade.";
            let seen = "the far end received an HTTP/1.0 request".to_owned();
            add(Severity::Warning, "http-10-hop", title, seen, Cause::Version);
        }
        let added = hello.added(plan);
        let tells_client = ["x-forwarded-for", "x-real-ip", "forwarded", "cf-connecting-ip"]
            .iter()
            .any(|name| hello.field(name).is_some());
        let hops = habits::seen(facts);
        if !(added.is_empty() && hops.is_empty() || tells_client) {
            let title = "The far end does not learn the client's address.";
            let seen = format!("it sees {} and no X-Forwarded-For", shown(&hello.peer));
            add(Severity::Info, "client-address-lost", title, seen, Cause::Client);
        }
        if !added.is_empty() {
            let seen: Vec<String> = added.iter().take(12).map(|name| shown(name)).collect();
            let title = "Hops add fields to the request.";
            add(Severity::Info, "fields-added", title, seen.join(", "), Cause::None);
        }
        let names: Vec<&str> =
            hops.iter().filter(|hop| !hop.is_guess(facts)).map(|hop| hop.name).collect();
        if !names.is_empty() {
            let title = "Hops on this path can be recognized.";
            add(Severity::Info, "hops-named", title, names.join(", "), Cause::None);
        }
        if !added.is_empty() {
            verdict.note = format!("hops add {} to it", shown(&added.join(", ")));
        }
        // No finding: for security some do this on purpose.
        if let Some(OddPath::Refused(status)) = &self.odd {
            let more = format!("; a path with %2F and // is refused with {status}");
            verdict.note.push_str(&more);
        }
        verdict
    }
}

impl Http {
    fn judge_odd(&self, add: &mut impl FnMut(Severity, &str, &str, String, Cause)) {
        if let Some(OddPath::Arrived(theirs)) = &self.odd
            && theirs != ODD_PATH
        {
            let seen = format!("sent …/{ODD_PATH}, the far end received …/{}", shown(theirs));
            // Some do so by default, and few applications depend on empty segments.
            let (severity, id, title) = if *theirs == MERGED_PATH {
                (Severity::Info, "slashes-merged", "A hop merges slashes in the path.")
            } else {
                (Severity::Warning, "path-rewritten", "A hop changes %2F in the path.")
            };
            add(severity, id, title, seen, Cause::Slashes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(odd_target("/echo"), "/echo/wspulse-probe/a%2Fb//c?probe=1");
        assert_eq!(odd_target("/?token=a"), "/wspulse-probe/a%2Fb//c?token=a&probe=1");
    }

    #[test]
    fn queries() {
        assert!(is_same_query("probe=1&a=b%2Fc//d", "probe=1&a=b%2Fc//d"));
        assert!(is_same_query("token=x=y&probe=1", "token=***&probe=1"));
        for changed in ["probe=1", "probe=1&a=b/c//d", "probe=1&a=b%2Fc//d&x=1", "a=b%2Fc//d", ""] {
            assert!(!is_same_query("probe=1&a=b%2Fc//d", changed), "{changed}");
        }
        assert!(!is_same_query("token=x&probe=1", "name=***&probe=1"));
    }
}
