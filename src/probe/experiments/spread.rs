//! How many sockets open at once, how they are spread over servers, and whether a cookie decides.

use super::{Experiment, finding};
use crate::engine::{HangUp, Id};
use crate::probe::facts::{Facts, Hello, shown};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Event, Failure, Purpose, Response};
use crate::probe::{Cx, Plan};
use crate::proto::refusal::Refusal;

/// Sockets that bring back the cookie.
const WITH_COOKIE: usize = 8;
/// Quantiles of the chi-squared distribution at 0.999, by degrees of freedom from 1.
const CHI_SQUARED: [f64; 12] =
    [10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88, 29.59, 31.26, 32.91];
const LIMIT_MS: u64 = 8_000;
const EXHAUSTED: &str = "no local port or descriptor is left here (ulimit -n)";
const OTHERS: &str = "the far end has no room for more sockets that count";

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Spread {
    plain: Vec<Socket>,
    cookie: Option<String>,
    with_cookie: Vec<Socket>,
}

#[derive(Clone, Debug)]
struct Socket {
    id: Id,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    /// It is open; the server names itself in its first message or not at all.
    Open(Option<String>),
    Refused(String),
    /// It could not be tried, for a reason that is not the path's.
    Untried(&'static str),
}

impl Spread {
    fn open(cx: &mut Cx<'_>, cookie: Option<&str>) -> Option<Socket> {
        let query = if cx.shared.facts.hello.is_some() { "probe=1" } else { "" };
        let mut ask = cx.shared.ask(query);
        ask.fields.extend(cookie.map(|value| ("Cookie".to_owned(), value.to_owned())));
        let id = cx.open(Purpose::Socket(ask))?;
        Some(Socket { id, state: State::Opening })
    }

    fn note(&mut self, id: Id, response: &Response) {
        let cookies = response.fields.iter();
        let cookies = cookies.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        let pairs: Vec<&str> =
            cookies.filter_map(|(_, value)| value.split(';').next()).map(str::trim).collect();
        if !pairs.is_empty() && self.cookie.is_none() {
            self.cookie = Some(pairs.join("; "));
        }
        let name = response.field("x-served-by").map(str::to_owned);
        self.set(id, State::Open(name));
    }

    fn set(&mut self, id: Id, state: State) {
        let mut all = self.plain.iter_mut().chain(&mut self.with_cookie);
        if let Some(socket) = all.find(|socket| socket.id == id) {
            socket.state = state;
        }
    }

    fn advance(&mut self, cx: &mut Cx<'_>) {
        let wants_name = cx.shared.facts.hello.is_some();
        let settled = |sockets: &[Socket]| {
            sockets.iter().all(|socket| match &socket.state {
                State::Opening => false,
                State::Open(name) => name.is_some() || !wants_name,
                State::Refused(_) | State::Untried(_) => true,
            })
        };
        if !settled(&self.plain) || !settled(&self.with_cookie) {
            return;
        }
        if self.with_cookie.is_empty()
            && let Some(cookie) = self.cookie.clone()
        {
            let sockets = (0..WITH_COOKIE).filter_map(|_| Self::open(cx, Some(&cookie)));
            self.with_cookie = sockets.collect();
            return;
        }
        cx.done();
    }
}

/// How many sockets each server got.
fn counts(sockets: &[Socket]) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for socket in sockets {
        let State::Open(Some(name)) = &socket.state else { continue };
        match counts.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    counts
}

/// Whether chance explains these counts with a probability below 0.001.
fn is_uneven(counts: &[usize]) -> bool {
    let sum: usize = counts.iter().sum();
    let expected = sum as f64 / counts.len().max(1) as f64;
    let square = |count: &usize| (*count as f64 - expected).powi(2) / expected;
    let statistic: f64 = counts.iter().map(square).sum();
    let quantile = counts.len().checked_sub(2).and_then(|at| CHI_SQUARED.get(at));
    // Below five each, the distribution does not apply.
    quantile.is_some_and(|quantile| expected >= 5.0 && statistic > *quantile)
}

impl Experiment for Spread {
    fn id(&self) -> &'static str {
        "spread"
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        let count = cx.shared.plan.sockets;
        self.plain = (0..count).filter_map(|_| Self::open(cx, None)).collect();
        cx.wake_in(LIMIT_MS);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Opened(response) => self.note(id, &response),
            Event::Message { bytes, .. } => match Hello::parse(&bytes) {
                Some(hello) => self.set(id, State::Open(Some(hello.pod))),
                None => return,
            },
            Event::Answered(response) => {
                let why = response.busy().filter(|why| *why == Refusal::ProbesFull.sentence());
                let refused = || State::Refused(response.status.to_string());
                self.set(id, why.map_or_else(refused, |_| State::Untried(OTHERS)));
            }
            Event::Failed(Failure::Connect(HangUp::Exhausted), _) => {
                self.set(id, State::Untried(EXHAUSTED));
            }
            Event::Failed(failure, _) => self.set(id, State::Refused(failure.to_string())),
            _ => return,
        }
        self.advance(cx);
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        cx.done();
    }

    fn judge(&self, facts: &Facts, plan: &Plan) -> Verdict {
        let servers = counts(&self.plain);
        let open = self.plain.iter().filter(|socket| matches!(socket.state, State::Open(_)));
        let open = open.count();
        let mut verdict = Verdict::passed(match servers.len() {
            0 => format!("{open} sockets at once"),
            1 => format!("{open} sockets at once, all on one server"),
            n => format!("{open} sockets at once, on {n} servers"),
        });
        verdict.figure("sockets", open);
        verdict.figure("servers", servers.len());
        let refused = self.plain.iter().find_map(|socket| match &socket.state {
            State::Refused(why) => Some(why),
            State::Opening | State::Open(_) | State::Untried(_) => None,
        });
        let untried = self.plain.iter().find_map(|socket| match socket.state {
            State::Untried(why) => Some(why),
            State::Opening | State::Open(_) | State::Refused(_) => None,
        });
        verdict.unknown =
            untried.map(|why| format!("only {open} of {} opened: {why}", plan.sockets));
        if let Some(why) = refused {
            let (severity, id, title) = match open {
                0 => (Severity::Error, "sockets-refused", "After the first ones no socket opens."),
                _ => (Severity::Warning, "socket-limit", "Not all sockets can be open at once."),
            };
            let seen = format!("{open} of {} opened; another: {why}", plan.sockets);
            let found = finding(severity, id, (title, seen), (facts, Cause::Sockets));
            verdict.findings.push(found);
        }
        let numbers: Vec<usize> = servers.iter().map(|(_, count)| *count).collect();
        if is_uneven(&numbers) {
            let shares = servers.iter().take(8);
            let shares = shares.map(|(name, count)| format!("{}: {count}", shown(name)));
            let said = (
                "The servers do not get equally many sockets.",
                shares.collect::<Vec<_>>().join(", "),
            );
            let found = finding(Severity::Warning, "uneven", said, (facts, Cause::Spread));
            verdict.findings.push(found);
        }
        if self.cookie.is_some() && servers.len() > 1 && counts(&self.with_cookie).len() == 1 {
            let said = (
                "A cookie ties clients to a server: new servers get only new clients.",
                format!(
                    "{WITH_COOKIE} sockets with the cookie reached one server, {open} without \
                        it {}",
                    servers.len()
                ),
            );
            let found = finding(Severity::Info, "sticky", said, (facts, Cause::Spread));
            verdict.findings.push(found);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uneven_beyond_chance() {
        assert!(!is_uneven(&[64]));
        assert!(!is_uneven(&[40, 24]));
        assert!(is_uneven(&[48, 16]));
        assert!(!is_uneven(&[3, 0, 0]), "too few to tell");
        assert!(!is_uneven(&[22, 21, 21]));
        assert!(is_uneven(&[44, 10, 10]));
    }
}
