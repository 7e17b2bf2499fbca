//! What hops change in the request: compares what was sent with what the far end received.

use super::{Experiment, finding, needs_wspulse};
use crate::engine::Id;
use crate::probe::facts::{Facts, shown};
use crate::probe::habits::{self, Cause};
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::Event;
use crate::probe::{Cx, Plan, Shared, sink_query, with_query};

/// A query that hops may be tempted to clean up. `upgrade` sends it.
pub(super) const ODD_QUERY: &str = "a=b%2Fc//d";

/// See the head of this file. `upgrade` has collected the evidence.
#[derive(Debug)]
pub(super) struct Http;

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
        cx.done();
    }

    fn heard(&mut self, _: Id, _: Event, _: &mut Cx<'_>) {}

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
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
