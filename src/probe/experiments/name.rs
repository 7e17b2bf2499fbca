//! Whether each address of the host name answers, and with the same.

use super::{Experiment, Wave, finding};
use crate::engine::{Action, Id, Target, Trust};
use crate::probe::facts::Facts;
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Purpose};
use crate::probe::{Cx, Plan, Shared};
use core::net::{IpAddr, SocketAddr};

/// Most addresses that are tried.
const ADDRESSES_MAX: usize = 8;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Name {
    tried: Vec<(IpAddr, Id, Option<Answer>)>,
}

/// What an address answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Status(u16),
    Dead(String),
}

impl Experiment for Name {
    fn id(&self) -> &'static str {
        "name"
    }

    fn wave(&self) -> Wave {
        Wave::Timing
    }

    fn impossible(&self, shared: &Shared) -> Option<&'static str> {
        match (&shared.plan.name, &shared.plan.target) {
            (Some(_), _) => None,
            (None, Target::Tunnel(_)) => Some("HTTP_PROXY resolves the name"),
            (None, _) => Some("the URL has an address"),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        if let Some((host, _)) = cx.shared.plan.name.clone() {
            cx.shared.actions.push_back(Action::Resolve(host));
        }
    }

    fn resolved(&mut self, cx: &mut Cx<'_>) {
        let found = cx.shared.facts.addresses.clone();
        let port = cx.shared.plan.name.as_ref().map_or(0, |(_, port)| *port);
        for ip in found.and_then(Result::ok).unwrap_or_default().into_iter().take(ADDRESSES_MAX) {
            let mut target = Target::Tcp(SocketAddr::new(ip, port));
            if let Target::Tls(secured) = &cx.shared.plan.target {
                // The certificate is judged by `tls`.
                target = target.secured(&secured.name, Trust::unverified());
            }
            let ask = cx.shared.ask("");
            if let Some(id) = cx.open_to(target, Purpose::Socket(ask)) {
                self.tried.push((ip, id, None));
            }
        }
        if self.tried.is_empty() {
            cx.done();
        }
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let answer = match event {
            Event::Opened(response) | Event::Answered(response) => Answer::Status(response.status),
            Event::Failed(failure, _) => Answer::Dead(failure.to_string()),
            _ => return,
        };
        cx.drop_wire(id);
        for (_, tried, known) in &mut self.tried {
            if *tried == id {
                known.get_or_insert(answer.clone());
            }
        }
        if self.tried.iter().all(|(_, _, known)| known.is_some()) {
            cx.done();
        }
    }

    fn judge(&self, facts: &Facts, _: &Plan) -> Verdict {
        if let Some(Err(_)) = &facts.addresses {
            return Verdict::unknown("the name cannot be resolved");
        }
        let mut verdict = Verdict::passed(match self.tried.len() {
            1 => "one address, which answers".to_owned(),
            n => format!("{n} addresses"),
        });
        verdict.figure("addresses", self.tried.len());
        let (mut alive, mut first) = (0, None);
        for (ip, _, answer) in &self.tried {
            match answer {
                Some(Answer::Status(status)) => {
                    alive += 1;
                    let (other, expected) = *first.get_or_insert((*ip, *status));
                    if expected != *status {
                        let said = (
                            "The addresses of this name do not serve the same.",
                            format!("{other} answers {expected}, {ip} answers {status}"),
                        );
                        let found = finding(
                            Severity::Warning,
                            "address-differs",
                            said,
                            (facts, Cause::Network),
                        );
                        verdict.findings.push(found);
                    }
                }
                Some(Answer::Dead(why)) => {
                    let said = (
                        "An address of this name does not answer: clients that choose it wait.",
                        format!("{ip}: {why}"),
                    );
                    let found =
                        finding(Severity::Error, "dead-address", said, (facts, Cause::Address));
                    verdict.findings.push(found);
                }
                None => {}
            }
        }
        if alive == 0 {
            // `upgrade` says so.
            verdict.findings.clear();
        }
        verdict
    }
}
