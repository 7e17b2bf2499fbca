//! Whether a WebSocket opens, and if not, who refuses it. It also asks the far end who it is.

use super::http::ODD_QUERY;
use super::{Experiment, Wave, finding};
use crate::engine::{HangUp, Id, TlsFault};
use crate::probe::facts::{Facts, Hello, shown};
use crate::probe::habits::Cause;
use crate::probe::report::{Severity, Verdict};
use crate::probe::wire::{Ending, Event, Failure, Purpose, Response};
use crate::probe::{Cx, Plan, Shared};
use crate::proto::upgrade::Fault;

/// How long to wait for the first message of a far end that counts.
const HELLO_MS: u64 = 2_000;
/// An origin that no server should trust.
const FOREIGN: &str = "https://wspulse-probe.invalid";
const SUBPROTOCOL: &str = "wspulse.probe";

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    first: Option<Id>,
    /// Why it does not open.
    refusal: Option<Refusal>,
    /// `/whoami`, asked for after a refusal.
    diagnosis: Option<(Id, Option<Response>)>,
    foreign: Option<Id>,
    foreign_opens: Option<bool>,
    /// The foreign origin as the far end received it.
    origin_there: Option<String>,
    named: Option<Id>,
    subprotocol: Option<Offer>,
}

/// What became of the offer of a subprotocol.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Offer {
    /// No socket opened, for whatever reason.
    Refused,
    /// The subprotocol that the server chose, and whether the offer arrived there.
    Answered(String, Option<bool>),
}

/// Why no WebSocket opens.
#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    Status(Response),
    Failed(Failure, Response),
}

impl Upgrade {
    fn open_first(&mut self, cx: &mut Cx<'_>) {
        self.first = if cx.shared.plan.any { cx.socket("") } else { cx.sink(ODD_QUERY) };
    }

    fn refused(&mut self, refusal: Refusal, cx: &mut Cx<'_>) {
        if let Refusal::Failed(Failure::Connect(HangUp::Tls(fault)), _) = &refusal
            && is_about_certificate(*fault)
            && cx.facts().distrust.is_none()
        {
            cx.facts().distrust = Some(*fault);
            return self.open_first(cx);
        }
        let reached = match &refusal {
            Refusal::Status(_) => true,
            Refusal::Failed(failure, _) => {
                !matches!(failure, Failure::Connect(_) | Failure::ConnectTimedOut)
            }
        };
        let facts = cx.facts();
        facts.reached |= reached || facts.distrust.is_some();
        let (Refusal::Status(response) | Refusal::Failed(_, response)) = &refusal;
        facts.response = response.clone();
        self.refusal = Some(refusal);
        if let Some(Refusal::Failed(failure, _)) = &self.refusal {
            if let Failure::Connect(how) = failure {
                cx.facts().tls_failure = Some(*how);
            }
            return cx.done();
        }
        let host = cx.shared.plan.ask.host.clone();
        let path = "/whoami".to_owned();
        match cx.open(Purpose::Request { method: "GET", host, path }) {
            Some(id) => self.diagnosis = Some((id, None)),
            None => cx.done(),
        }
    }

    fn opened(&mut self, response: Response, cx: &mut Cx<'_>) {
        let any = cx.shared.plan.any;
        let facts = cx.facts();
        (facts.opens, facts.reached, facts.response) = (true, true, response);
        if any {
            self.ask_more(cx);
        } else {
            cx.wake_in(HELLO_MS);
        }
    }

    /// It opened, but nothing can be sent through it.
    fn ended_at_once(&mut self, ending: &Ending, cx: &mut Cx<'_>) {
        let failure = match ending {
            Ending::Close(code, _) => Failure::ClosedAtOnce(*code),
            Ending::Fin | Ending::Rst => Failure::EndedAtOnce,
            Ending::Invalid(why) => Failure::Invalid(why),
        };
        cx.facts().opens = false;
        self.refusal = Some(Refusal::Failed(failure, Response::default()));
        cx.done();
    }

    /// The far end is known.
    fn ask_more(&mut self, cx: &mut Cx<'_>) {
        let query = if cx.shared.facts.hello.is_some() { "probe=1" } else { "" };
        let mut ask = cx.shared.ask(query);
        ask.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("origin"));
        ask.fields.push(("Origin".to_owned(), FOREIGN.to_owned()));
        self.foreign = cx.open(Purpose::Socket(ask));
        let mut ask = cx.shared.ask(query);
        ask.subprotocols = vec![SUBPROTOCOL.to_owned()];
        self.named = cx.open(Purpose::Socket(ask));
        // For servers that do not answer.
        cx.wake_in(HELLO_MS);
    }

    fn finish_if_complete(&mut self, cx: &mut Cx<'_>) {
        let counts = cx.shared.facts.hello.is_some();
        let knows_names = match &self.subprotocol {
            Some(Offer::Answered(_, arrived)) => arrived.is_some() || !counts,
            Some(Offer::Refused) => true,
            None => false,
        };
        let knows_origin = match self.foreign_opens {
            Some(opens) => !opens || self.origin_there.is_some() || !counts,
            None => false,
        };
        if knows_names && knows_origin {
            cx.done();
        }
    }
}

/// Whether the handshake would succeed without verification.
fn is_about_certificate(fault: TlsFault) -> bool {
    matches!(
        fault,
        TlsFault::NotTrusted
            | TlsFault::Authority
            | TlsFault::Expired
            | TlsFault::NotValidYet
            | TlsFault::WrongName
    )
}

impl Experiment for Upgrade {
    fn id(&self) -> &'static str {
        "upgrade"
    }

    fn wave(&self) -> Wave {
        Wave::First
    }

    fn impossible(&self, _: &Shared) -> Option<&'static str> {
        None
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        self.open_first(cx);
    }

    fn heard(&mut self, id: Id, event: Event, cx: &mut Cx<'_>) {
        let id = Some(id);
        if id == self.first {
            return match event {
                Event::Opened(response) => self.opened(response, cx),
                Event::Answered(response) => self.refused(Refusal::Status(response), cx),
                Event::Failed(failure, response) => {
                    self.refused(Refusal::Failed(failure, response), cx);
                }
                Event::Message { bytes, .. } if self.foreign.is_none() => {
                    cx.facts().hello = Hello::parse(&bytes);
                    self.ask_more(cx);
                }
                Event::Ended(ending) if cx.shared.facts.hello.is_none() => {
                    self.ended_at_once(&ending, cx);
                }
                _ => {}
            };
        }
        if let Some((asked, response)) = &mut self.diagnosis
            && Some(*asked) == id
        {
            match event {
                Event::Answered(answer) => {
                    *response = Some(answer);
                    cx.done();
                }
                Event::Failed(..) => cx.done(),
                _ => {}
            }
            return;
        }
        match event {
            Event::Opened(_) if id == self.foreign => self.foreign_opens = Some(true),
            Event::Answered(_) | Event::Failed(..) if id == self.foreign => {
                self.foreign_opens = Some(false);
            }
            Event::Message { bytes, .. } if id == self.foreign => {
                // Pushes follow it.
                if let Some(hello) = Hello::parse(&bytes) {
                    self.origin_there = Some(hello.field("origin").map(shown).unwrap_or_default());
                }
            }
            Event::Opened(response) if id == self.named => {
                let chosen = response.field("sec-websocket-protocol").unwrap_or_default();
                self.subprotocol = Some(Offer::Answered(chosen.to_owned(), None));
            }
            Event::Message { bytes, .. } if id == self.named => {
                if let (Some(Offer::Answered(_, arrived)), Some(hello)) =
                    (&mut self.subprotocol, Hello::parse(&bytes))
                {
                    *arrived = Some(hello.field("sec-websocket-protocol").is_some());
                }
            }
            Event::Answered(_) | Event::Failed(..) if id == self.named => {
                self.subprotocol = Some(Offer::Refused);
            }
            _ => return,
        }
        self.finish_if_complete(cx);
    }

    fn fire(&mut self, cx: &mut Cx<'_>) {
        if self.foreign.is_none() { self.ask_more(cx) } else { cx.done() }
    }

    fn judge(&self, facts: &Facts, plan: &Plan) -> Verdict {
        match &self.refusal {
            Some(Refusal::Status(response)) => self.judge_status(response, facts, plan),
            Some(Refusal::Failed(failure, _)) => judge_failure(*failure, facts),
            None => self.judge_open(facts),
        }
    }
}

impl Upgrade {
    fn judge_open(&self, facts: &Facts) -> Verdict {
        let end = if facts.hello.is_some() { "a wspulse answers" } else { "a WebSocket opens" };
        let mut verdict = Verdict::passed(end);
        if self.foreign_opens == Some(true) {
            let title =
                "Pages of other sites may open WebSockets here, with their visitors' cookies.";
            let mut seen = format!("an upgrade with Origin: {FOREIGN} was accepted");
            let mut cause = Cause::Origin;
            if let Some(there) = self.origin_there.as_ref().filter(|there| *there != FOREIGN) {
                cause = Cause::OriginLost;
                seen.push_str(match &**there {
                    "" => "; the far end received no Origin",
                    _ => "; the far end received another Origin",
                });
            }
            let said = (title, seen);
            let found = finding(Severity::Warning, "foreign-origin", said, (facts, cause));
            verdict.findings.push(found);
        }
        if let (Some(Offer::Answered(chosen, arrived)), Some(_)) = (&self.subprotocol, &facts.hello)
            && chosen != SUBPROTOCOL
        {
            let seen = match arrived {
                Some(false) => "the far end received the upgrade without Sec-WebSocket-Protocol",
                _ => "the far end received Sec-WebSocket-Protocol, but the 101 arrived without it",
            };
            let said = ("A hop removes subprotocols.", seen.to_owned());
            let found =
                finding(Severity::Warning, "subprotocol-lost", said, (facts, Cause::Subprotocol));
            verdict.findings.push(found);
        }
        verdict
    }

    fn judge_status(&self, response: &Response, facts: &Facts, plan: &Plan) -> Verdict {
        let status = response.status;
        let (id, title, cause) = match status {
            200..=299 => (
                "upgrade-page",
                "The server answers with a page instead of opening a WebSocket.",
                Cause::Upgrade,
            ),
            300..=399 => (
                "upgrade-redirect",
                "The upgrade is redirected; browsers do not follow that.",
                Cause::Path,
            ),
            400 => ("upgrade-400", "The upgrade arrives damaged.", Cause::Upgrade),
            401 => ("upgrade-401", "The server requires credentials.", Cause::Credentials),
            403 => ("upgrade-403", "The upgrade is forbidden.", Cause::Origin),
            404 => ("upgrade-404", "Nothing is served at this path.", Cause::Path),
            426 => (
                "upgrade-dropped",
                "A hop removes the Upgrade header: the server sees an ordinary request.",
                Cause::Upgrade,
            ),
            502 => ("upgrade-502", "A hop cannot reach the server.", Cause::Upstream),
            503 => ("upgrade-503", "A hop has no server that is ready.", Cause::Upstream),
            504 => ("upgrade-504", "A hop timed out waiting for the server.", Cause::Upstream),
            _ => ("upgrade-other", "The upgrade is refused.", Cause::Upgrade),
        };
        // Its query may hold a token.
        let path = plan.ask.path.split('?').next().unwrap_or_default();
        let mut seen = format!("{path} was answered with {status}");
        for name in ["Server", "Via", "Location"] {
            if let Some(value) = response.field(name) {
                seen.extend([", ", name, ": ", &shown(value)]);
            }
        }
        let mut verdict = Verdict::passed(format!("refused with {status}"));
        let whoami = self.diagnosis.as_ref().and_then(|(_, answer)| answer.as_ref());
        let is_old = whoami.is_some_and(|whoami| {
            let body = String::from_utf8_lossy(&whoami.body);
            whoami.status == 200 && body.contains("\"httpVersion\":\"1.0\"")
        });
        let (id, title, cause) = if is_old {
            seen.push_str("; GET /whoami arrives there as HTTP/1.0");
            let title = "A hop speaks HTTP/1.0 to the server, which has no upgrade.";
            ("http-10-hop", title, Cause::Version)
        } else {
            (id, title, cause)
        };
        let (id, title, cause) = match response.busy() {
            Some(why) => {
                seen.extend([": ", why]);
                let title = "A wspulse answers, and has no room for this WebSocket now.";
                ("server-busy", title, Cause::Busy)
            }
            None => (id, title, cause),
        };
        let said = (title, seen);
        verdict.findings.push(finding(Severity::Error, id, said, (facts, cause)));
        verdict
    }
}

fn judge_failure(failure: Failure, facts: &Facts) -> Verdict {
    let (id, title, cause) = match failure {
        // Judged by `tls`.
        Failure::Connect(HangUp::Tls(fault)) => {
            return Verdict::unknown(format!("no TLS connection: {fault}"));
        }
        Failure::Connect(_) | Failure::ConnectTimedOut => {
            ("unreachable", "Nothing can be connected to.", Cause::Network)
        }
        Failure::ResponseTimedOut | Failure::CutOff => {
            ("upgrade-timeout", "The upgrade is not answered.", Cause::Upstream)
        }
        Failure::Upgrade(Fault::Http(_)) | Failure::Http(_) => {
            ("upgrade-other", "The upgrade is answered with invalid HTTP.", Cause::Upgrade)
        }
        Failure::ClosedAtOnce(_) => {
            ("upgrade-other", "A WebSocket opens, and is closed at once.", Cause::Upgrade)
        }
        Failure::EndedAtOnce => {
            ("upgrade-accept", "A WebSocket opens, and is cut at once.", Cause::Upgrade)
        }
        Failure::Upgrade(_) | Failure::Invalid(_) => (
            "upgrade-accept",
            "The 101 is not that of a WebSocket server, or a hop changed it.",
            Cause::Upgrade,
        ),
    };
    let mut verdict = Verdict::passed(failure.to_string());
    let said = (title, failure.to_string());
    verdict.findings.push(finding(Severity::Error, id, said, (facts, cause)));
    verdict
}
